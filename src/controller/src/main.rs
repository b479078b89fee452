//! `speediso-controller`: reads its command line and serves.

#![forbid(unsafe_code)]

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand};
use speediso_controller::server::{Server, Settings};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// Reference controller of Speediso: HTTPS API, orders, boot files, image store, dashboard
#[derive(Parser, Debug)]
#[command(version)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Serve until told to end
    Serve {
        /// Directory for database, images, ca.pem and operator.token; made if absent
        #[arg(long, value_name = "DIR")]
        data: PathBuf,
        /// Address of the API and the dashboard (TLS)
        #[arg(long, value_name = "ADDR:PORT")]
        listen: SocketAddr,
        /// Address for boot loaders (plain HTTP, boot scripts and boot files only)
        #[arg(long, value_name = "ADDR:PORT")]
        boot_listen: SocketAddr,
        /// Under which agents and operators reach --listen: https://HOST:PORT
        #[arg(long)]
        url: Option<String>,
        /// Under which boot loaders reach --boot-listen: http://HOST:PORT (default: the host of --url)
        #[arg(long)]
        boot_url: Option<String>,
        /// Directory with vmlinuz and initramfs.img
        #[arg(long, value_name = "DIR")]
        boot_files: PathBuf,
        /// Public key for the live system's ssh server (may be given several times)
        #[arg(long = "ssh-key", value_name = "FILE")]
        ssh_keys: Vec<PathBuf>,
        /// Log as JSON, one object a line
        #[arg(long)]
        log_json: bool,
    },
}

#[tokio::main]
async fn main() -> Result<()> {
    let Command::Serve { data, listen, boot_listen, url, boot_url, boot_files, ssh_keys, log_json } =
        Args::parse().command;
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info,sqlx=warn"));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    if log_json {
        log.json().init();
    } else {
        log.init();
    }

    let mut keys = Vec::new();
    for file in ssh_keys {
        let text = std::fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
        keys.extend(text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#')).map(String::from));
    }
    // Before anything is served: a signal in between is not lost.
    let mut terminate = signal(SignalKind::terminate()).context("listening for signals")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listening for signals")?;
    let server =
        Server::start(Settings { data, listen, boot_listen, url, boot_url, boot_files, ssh_keys: keys }).await?;
    let (service, mut stdout) = (&server.state.service, std::io::stdout());
    writeln!(
        stdout,
        "speediso-controller ready api={} listen={} boot={} boot-listen={} ca=sha256:{}",
        service.site.url,
        server.address,
        service.site.boot_url,
        server.boot_address,
        service.ca.fingerprint()
    )
    .and_then(|()| stdout.flush())
    .context("saying that the controller is ready")?;
    server
        .run(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        })
        .await
}

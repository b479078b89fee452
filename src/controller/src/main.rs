//! `speediso-controller`: reads its command line and serves.

#![forbid(unsafe_code)]

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand};
use speediso_controller::links::PortRange;
use speediso_controller::server::{Server, Settings};
use speediso_model::ssh::SshPolicy;
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
        /// Under which boot loaders reach --boot-listen: http://HOST:PORT, or https:// of a server in front (default: the host of
        /// --url)
        #[arg(long)]
        boot_url: Option<String>,
        /// Directory with vmlinuz and initramfs.img
        #[arg(long, value_name = "DIR")]
        boot_files: PathBuf,
        /// Let boot entries load the add-on of rare drivers and firmware (addon.img) behind the ramdisk
        #[arg(long)]
        boot_addon: bool,
        /// Public key for the live system's ssh server (may be given several times)
        #[arg(long = "ssh-key", value_name = "FILE")]
        ssh_keys: Vec<PathBuf>,
        /// Ports on which machines may try their link with this controller, one machine on each at a time (none when absent)
        #[arg(long, value_name = "FIRST-LAST")]
        link_test_ports: Option<PortRange>,
        /// Table of names of PCI devices (default: the distribution's pci.ids, if it is installed)
        #[arg(long, value_name = "FILE")]
        pci_ids: Option<PathBuf>,
        /// When machines let people in by ssh: auto (not while a task runs unattended, unless an operator asks), always,
        /// asked (only while an operator asks)
        #[arg(long, value_name = "WHEN", default_value = "auto")]
        ssh: SshPolicy,
        /// Machines without work leave the live system after so long, to come back with the newest build
        #[arg(long, value_name = "MINUTES", value_parser = clap::value_parser!(u64).range(1..=525_600))]
        idle_reboot: Option<u64>,
        /// Log as JSON, one object a line
        #[arg(long)]
        log_json: bool,
    },
}

#[tokio::main]
async fn main() -> Result<()> {
    let Command::Serve {
        data,
        listen,
        boot_listen,
        url,
        boot_url,
        boot_files,
        boot_addon,
        ssh_keys,
        ssh,
        idle_reboot,
        link_test_ports,
        pci_ids,
        log_json,
    } = Args::parse().command;
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
    let idle_reboot = idle_reboot.map(|minutes| Duration::from_secs(minutes * 60));
    let server = Server::start(Settings {
        data,
        listen,
        boot_listen,
        url,
        boot_url,
        boot_files,
        boot_addon,
        ssh_keys: keys,
        ssh,
        idle_reboot,
        link_test_ports,
        pci_ids,
    })
    .await?;
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

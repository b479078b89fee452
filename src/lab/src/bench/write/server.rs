//! nginx in the foreground, on a port of the loopback, with TLS 1.3 and a CA of its own.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use speediso_lab::tool;

pub(super) struct Server {
    child: std::process::Child,
    port: u16,
    ca: PathBuf,
    pin: String,
}

impl Server {
    pub(super) fn start(dir: &Path, root: &Path) -> Result<Self> {
        let (ca, pin) = certificates(dir)?;
        // Asked for and given back: nobody else on this machine takes loopback ports by the dozen in between.
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let config = dir.join("nginx.conf");
        let (here, root) = (dir.display(), root.display());
        fs::write(
            &config,
            format!(
                "daemon off; user root; worker_processes 2; pid {here}/nginx.pid; error_log {here}/nginx.log;\n\
                 events {{}}\nhttp {{ access_log off; sendfile on; client_body_temp_path {here}; \
                 proxy_temp_path {here}; fastcgi_temp_path {here}; uwsgi_temp_path {here}; scgi_temp_path {here};\n\
                 server {{ listen 127.0.0.1:{port} ssl; ssl_protocols TLSv1.3; ssl_certificate {here}/chain.pem; \
                 ssl_certificate_key {here}/server.key; root {root}; }} }}\n"
            ),
        )?;
        let child = Command::new(tool::find("nginx")?).arg("-c").arg(&config).stdin(Stdio::null()).spawn()?;
        let server = Self { child, port, ca, pin };
        let end = Instant::now() + Duration::from_secs(10);
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            ensure!(Instant::now() < end, "nginx did not listen within 10 s: see {here}/nginx.log");
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(server)
    }

    /// Of all of its processes so far.
    pub(super) fn cpu_seconds(&self) -> Result<f64> {
        let master = self.child.id().to_string();
        let ticks_of = |pid: &str| -> Option<u64> {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            // proc_pid_stat(5): after the name in parentheses come state and parent; 14 and 15 are user and system time.
            let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
            let ours = pid == master || fields.get(1) == Some(&master.as_str());
            let ticks = |at: usize| fields.get(at)?.parse::<u64>().ok();
            ours.then(|| Some(ticks(11)? + ticks(12)?)).flatten()
        };
        let pids = fs::read_dir("/proc")?.flatten();
        let ticks: u64 = pids.filter_map(|entry| ticks_of(entry.file_name().to_str()?)).sum();
        let rate = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK)?.context("the kernel counts no ticks")?;
        #[allow(clippy::cast_precision_loss, reason = "ticks of minutes")]
        Ok(ticks as f64 / rate as f64)
    }

    pub(super) fn url(&self, file: &str) -> String {
        format!("https://127.0.0.1:{}/{file}", self.port)
    }

    pub(super) fn ca(&self) -> &Path {
        &self.ca
    }

    /// As the agent takes it.
    pub(super) fn pin(&self) -> &str {
        &self.pin
    }
}

/// A CA, and a certificate for the loopback; returns the CA's file and fingerprint.
fn certificates(dir: &Path) -> Result<(PathBuf, String)> {
    let openssl = |args: &[&str]| tool::run(Command::new("openssl").args(args).current_dir(dir));
    let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "7"];
    let ca = ["req", "-x509", "-subj", "/CN=bench ca", "-keyout", "ca.key", "-out", "ca.pem"];
    openssl(&[&ca[..], &key[..]].concat())?;
    let server = [
        "req",
        "-x509",
        "-subj",
        "/CN=bench",
        "-CA",
        "ca.pem",
        "-CAkey",
        "ca.key",
        "-keyout",
        "server.key",
        "-out",
        "server.pem",
        "-addext",
        "subjectAltName=IP:127.0.0.1",
        "-addext",
        "basicConstraints=critical,CA:FALSE",
        "-addext",
        "extendedKeyUsage=serverAuth",
    ];
    openssl(&[&server[..], &key[..]].concat())?;
    let chain = fs::read_to_string(dir.join("server.pem"))? + &fs::read_to_string(dir.join("ca.pem"))?;
    fs::write(dir.join("chain.pem"), chain)?;
    let printed = openssl(&["x509", "-in", "ca.pem", "-noout", "-fingerprint", "-sha256"])?;
    let digits = printed.trim().split('=').nth(1).context("openssl prints the fingerprint")?.replace(':', "");
    Ok((dir.join("ca.pem"), format!("sha256:{}", digits.to_lowercase())))
}

impl Drop for Server {
    fn drop(&mut self) {
        // SIGTERM would do for nginx, but its master ends its workers only then: ask, and do not wait for long.
        if let Ok(pid) = i32::try_from(self.child.id()) {
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGTERM);
        }
        let _ = self.child.wait();
    }
}

//! ssh into the live system, with a key that was given to it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use speediso_lab::{Forward, Lab, Machine, tool};

#[derive(Debug)]
pub struct LiveSsh {
    key: PathBuf,
    pub public: String,
    forward: Option<Forward>,
}

impl LiveSsh {
    pub fn with_fresh_key(lab: &Lab, name: &str) -> Result<Self> {
        let key = lab.dir().join(format!("{name}.key"));
        tool::run(
            Command::new(tool::find("ssh-keygen")?).args(["-q", "-t", "ed25519", "-N", "", "-C", name, "-f"]).arg(&key),
        )?;
        let public = std::fs::read_to_string(key.with_extension("key.pub"))?.trim().to_owned();
        Ok(Self { key, public, forward: None })
    }

    pub fn to(&mut self, lab: &Lab, machine: &Machine<'_>) -> Result<()> {
        self.forward = Some(lab.forward(0, SocketAddr::from((machine.address(), 22)))?);
        Ok(())
    }

    /// Tries once; `options` come before the host.
    pub fn attempt(&self, options: &[&str], command: &str) -> Result<Output> {
        let port = self.forward.as_ref().context("the forward is not open yet")?.local().port();
        let mut ssh = Command::new(tool::find("ssh")?);
        ssh.args(["-p", &port.to_string()]);
        // Silence ends a connection: the other end may be gone without a word.
        for option in [
            "StrictHostKeyChecking=no",
            "UserKnownHostsFile=/dev/null",
            "ConnectTimeout=15",
            "ServerAliveInterval=5",
            "ServerAliveCountMax=3",
            "LogLevel=ERROR",
        ] {
            ssh.args(["-o", option]);
        }
        Ok(ssh.args(options).arg("root@127.0.0.1").arg(command).output()?)
    }

    /// Runs a command once the live system takes the key.
    pub fn run(&self, command: &str, limit: Duration) -> Result<String> {
        let end = Instant::now() + limit;
        let key = self.key.to_string_lossy();
        loop {
            let output = self.attempt(&["-i", &key, "-o", "BatchMode=yes"], command)?;
            if output.status.success() {
                return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
            }
            if Instant::now() >= end {
                bail!("no login within {limit:?}: {}", String::from_utf8_lossy(&output.stderr));
            }
            std::thread::sleep(Duration::from_millis(500));
        }
    }
}

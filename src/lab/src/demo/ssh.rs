//! Logging into the installed machine, as its new owner would.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use speediso_lab::tool;

/// The user that Debian's cloud-init sets the key for.
const USER: &str = "debian";

pub(crate) struct Ssh {
    key: PathBuf,
    known_hosts: PathBuf,
    port: u16,
}

impl Ssh {
    /// Makes a key pair; gives the public half too.
    pub(crate) fn with_fresh_key(dir: &Path) -> Result<(Self, String)> {
        let key = dir.join("ssh-key");
        tool::run(
            Command::new(tool::find("ssh-keygen")?)
                .args(["-q", "-t", "ed25519", "-N", "", "-C", "speediso-demo", "-f"])
                .arg(&key),
        )?;
        let public = std::fs::read_to_string(dir.join("ssh-key.pub")).context("reading the new public key")?;
        Ok((Self { key, known_hosts: dir.join("known_hosts"), port: 0 }, public.trim().to_owned()))
    }

    pub(crate) fn through(&mut self, port: u16) {
        self.port = port;
    }

    /// The command line, for people.
    pub(crate) fn line(&self) -> String {
        format!("ssh -i {} -o StrictHostKeyChecking=accept-new -p {} {USER}@127.0.0.1", self.key.display(), self.port)
    }

    fn command(&self) -> Result<Command> {
        // A machine that reboots takes a connection with it without a word: no try may wait for ever.
        let mut ssh = Command::new(tool::find("timeout")?);
        ssh.args(["-k", "5", "60"])
            .arg(tool::find("ssh")?)
            .arg("-i")
            .arg(&self.key)
            .args(["-p", &self.port.to_string()]);
        ssh.arg("-o").arg(format!("UserKnownHostsFile={}", self.known_hosts.display()));
        // The first host key is taken; another one later, which a second install would make, is refused.
        // A machine that goes down does not always say goodbye: silence ends the connection.
        for option in [
            "StrictHostKeyChecking=accept-new",
            "BatchMode=yes",
            "ConnectTimeout=10",
            "ServerAliveInterval=5",
            "ServerAliveCountMax=3",
            "LogLevel=ERROR",
        ] {
            ssh.args(["-o", option]);
        }
        ssh.arg(format!("{USER}@127.0.0.1"));
        Ok(ssh)
    }

    /// Runs a command on the machine once it can be reached.
    pub(crate) fn run(&self, command: &str, limit: Duration) -> Result<String> {
        let end = Instant::now() + limit;
        loop {
            let error = match tool::run(self.command()?.arg(command)) {
                Ok(output) => return Ok(output.trim().to_owned()),
                Err(error) => error,
            };
            if Instant::now() >= end {
                bail!("the machine did not take the login within {limit:?}: {error}");
            }
            std::thread::sleep(Duration::from_secs(1));
        }
    }

    /// Starts something that ends the connection: whether ssh says so or not is no matter.
    pub(crate) fn start(&self, command: &str) -> Result<()> {
        self.command()?.arg(command).output().context("starting ssh")?;
        Ok(())
    }
}

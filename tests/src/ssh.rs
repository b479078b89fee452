//! ssh into the live system, with a key that was given to it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use speediso_lab::{Forward, Lab, Machine, Site, tool};

use crate::programs;

#[derive(Debug)]
pub struct LiveSsh {
    key: PathBuf,
    pub public: String,
    forward: Option<Forward>,
    /// The connection over which commands go.
    master: Mutex<Option<Child>>,
}

impl LiveSsh {
    pub fn with_fresh_key(lab: &Lab, name: &str) -> Result<Self> {
        let key = lab.dir().join(format!("{name}.key"));
        tool::run(
            Command::new(tool::find("ssh-keygen")?).args(["-q", "-t", "ed25519", "-N", "", "-C", name, "-f"]).arg(&key),
        )?;
        let public = std::fs::read_to_string(key.with_extension("key.pub"))?.trim().to_owned();
        Ok(Self { key, public, forward: None, master: Mutex::new(None) })
    }

    pub fn to(&mut self, lab: &Lab, machine: &Machine<'_>) -> Result<()> {
        self.hang_up();
        self.forward = Some(lab.forward(0, SocketAddr::from((machine.address(), 22)))?);
        Ok(())
    }

    fn socket(&self) -> PathBuf {
        self.key.with_extension("mux")
    }

    /// Ends the connection that is kept: its machine may have gone without a word.
    pub fn hang_up(&self) {
        let mut master = self.master.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(mut child) = master.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        let _ = std::fs::remove_file(self.socket());
    }

    /// Sees to it that there is a connection. Under emulation a handshake costs seconds, a command on one that stands a
    /// tenth of a second.
    fn connect(&self) -> Result<bool> {
        let mut master = self.master.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(child) = master.as_mut()
            && child.try_wait()?.is_some()
        {
            *master = None;
        }
        let mut child = match master.take() {
            Some(child) => child,
            None => {
                let _ = std::fs::remove_file(self.socket());
                let mut ssh = self.ssh()?;
                ssh.args(["-o", "BatchMode=yes", "-M", "-N", "-i"]).arg(&self.key).arg("-S").arg(self.socket());
                ssh.arg("root@127.0.0.1").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?
            }
        };
        while !self.socket().exists() {
            if child.try_wait()?.is_some() {
                return Ok(false);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        *master = Some(child);
        Ok(true)
    }

    /// Tries once, over a connection of its own; `options` come before the host.
    pub fn attempt(&self, options: &[&str], command: &str) -> Result<Output> {
        Ok(self.ssh()?.args(options).arg("root@127.0.0.1").arg(command).output()?)
    }

    fn ssh(&self) -> Result<Command> {
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
        Ok(ssh)
    }

    /// Runs a command once the live system takes the key.
    pub fn run(&self, command: &str, limit: Duration) -> Result<String> {
        let end = Instant::now() + limit;
        let (key, socket) = (self.key.to_string_lossy(), self.socket());
        let socket = socket.to_string_lossy();
        let mut why = String::new();
        loop {
            if self.connect()? {
                let output = self.attempt(&["-i", &key, "-o", "BatchMode=yes", "-S", &socket], command)?;
                if output.status.success() {
                    return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
                }
                why = String::from_utf8_lossy(&output.stderr).into_owned();
            }
            if Instant::now() >= end {
                bail!("no login within {limit:?}: {why}");
            }
            std::thread::sleep(Duration::from_millis(500));
        }
    }
}

impl Drop for LiveSsh {
    fn drop(&mut self) {
        self.hang_up();
    }
}

/// What a command says that an operator's `speediso ssh` runs there. It knows the host key from the enrolment and asks nobody;
/// the controller has the machine let its key in.
pub fn as_operator(lab: &Lab, site: &Site<'_>, machine: &str, command: &str) -> Result<String> {
    let mut ssh = lab.command(programs()?.cli);
    ssh.env("SPEEDISO_CONTROLLER", format!("https://{}", Site::api()))
        .env("SPEEDISO_CA_FILE", site.ca_file())
        .env("SPEEDISO_TOKEN_FILE", site.token_file())
        .env_remove("SSH_AUTH_SOCK")
        .args(["ssh", machine, "--", command])
        .stdin(Stdio::null());
    let output = ssh.output()?;
    let (said, complaint) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(
        output.status.success() && !complaint.contains("authenticity"),
        "speediso ssh {machine}: {said}{complaint}"
    );
    Ok(said.trim().to_owned())
}

/// What a connection to the ssh port comes to. The machine answers in any case, so that it is there is seen.
pub fn is_open(lab: &Lab, machine: &Machine<'_>) -> Result<bool> {
    let mut connect = lab.command("bash");
    connect.args(["-c", &format!("exec 3<>/dev/tcp/{}/22", machine.address())]);
    let answered = connect.output()?;
    let complaint = String::from_utf8_lossy(&answered.stderr);
    ensure!(answered.status.success() || complaint.contains("refused"), "{complaint}");
    Ok(answered.status.success())
}

/// Ends what an operator asked for on the site's only machine.
pub fn end_access(lab: &Lab, site: &Site<'_>) -> Result<()> {
    let nodes = site.machines()?;
    let node = nodes.first().context("the site has no machine")?.id;
    let token = std::fs::read_to_string(site.token_file())?;
    let mut curl = lab.command("curl");
    curl.args(["-sSf", "--max-time", "40", "--cacert"]).arg(site.ca_file());
    curl.args(["-H", &format!("Authorization: Bearer {}", token.trim()), "-H", "Content-Type: application/json"]);
    let url = format!("https://{}/v1/nodes/{node}/ssh", Site::api());
    tool::run(curl.args(["-d", r#"{"minutes": 0}"#, &url]))?;
    Ok(())
}

//! The ssh server as a process, with keys only. It outlives the agent that started it: dropbear in the ramdisk.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use speediso_model::ssh::fingerprint;

use super::{host_key, systemd};
use crate::shell::KEY;
use crate::{live, state};

const SERVER: &str = "/usr/sbin/dropbear";
/// For its process number to be known.
const STARTING: Duration = Duration::from_secs(3);
const PID_FILE: &str = "/run/dropbear.pid";
/// The same of the live flavour.
const OPENSSH: &str = "/usr/sbin/sshd";
const OPENSSH_PID_FILE: &str = "/run/sshd.pid";
/// What a key is good for beside a session that is recorded: nothing.
const RESTRICTIONS: &str = "no-port-forwarding,no-agent-forwarding,no-X11-forwarding";

/// A key that is let in, and until which uptime.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct LetIn {
    pub(super) key: String,
    pub(super) until_ms: Option<u64>,
}

impl LetIn {
    pub(super) fn fingerprint(&self) -> String {
        fingerprint(&self.key).unwrap_or_else(|| "unknown".into())
    }

    /// The server starts the login shell with the forced command, whatever was asked for: that is how the shell learns
    /// whose session it is.
    fn line(&self) -> String {
        let until = self.until_ms.map(|until| format!(" until={until}")).unwrap_or_default();
        format!("command=\"{KEY} {}{until}\",{RESTRICTIONS} {}", self.fingerprint(), self.key)
    }
}

/// Replaces the list of keys as a whole.
pub(super) fn write_keys(home: &Path, keys: &[LetIn]) -> io::Result<()> {
    let dir = home.join(".ssh");
    fs::create_dir_all(&dir)?;
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o700))?;
    let part = dir.join(".authorized_keys.part");
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&part)?;
    for key in keys {
        writeln!(file, "{}", key.line())?;
    }
    file.sync_all()?;
    fs::rename(part, dir.join("authorized_keys"))
}

/// The listening server, if there is one: its children, one for each connection, have other process numbers.
fn running() -> Option<Pid> {
    let (pid_file, server) = if live::is_inside() { (OPENSSH_PID_FILE, OPENSSH) } else { (PID_FILE, SERVER) };
    let pid: i32 = fs::read_to_string(pid_file).ok()?.trim().parse().ok()?;
    let exe = fs::read_link(PathBuf::from(format!("/proc/{pid}/exe"))).ok()?;
    (pid > 1 && exe == Path::new(server)).then(|| Pid::from_raw(pid))
}

pub(super) fn is_running() -> bool {
    running().is_some()
}

pub(super) fn start() -> io::Result<()> {
    if live::is_inside() {
        return systemd::start();
    }
    // -r the one host key, -s no passwords, -j and -k no forwarding whatever a key says, -E log to standard error. It
    // goes into the background by itself, so nobody has to reap it.
    let status = Command::new(SERVER)
        .arg("-r")
        .arg(Path::new(state::DEFAULT).join(host_key::DROPBEAR))
        .args(["-s", "-j", "-k", "-E", "-P", PID_FILE, "-p", "22"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()?;
    if !status.success() {
        return Err(io::Error::other(format!("{SERVER}: {status}")));
    }
    // It listens before it goes into the background, and says who it is after that.
    let end = Instant::now() + STARTING;
    while !is_running() && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// Takes no new connection from now on; those that are there go on.
pub(super) fn stop() -> io::Result<()> {
    if live::is_inside() {
        return systemd::stop();
    }
    if let Some(pid) = running() {
        // Gone meanwhile is gone.
        let _ = kill(pid, Signal::SIGTERM);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_leads_to_the_recording_shell_and_nowhere_else() {
        let home = tempfile::tempdir().expect("a temporary directory");
        let key = format!("ssh-ed25519 {} me@home", "A".repeat(68));
        let let_in = [LetIn { key: key.clone(), until_ms: None }, LetIn { key: key.clone(), until_ms: Some(5000) }];
        write_keys(home.path(), &let_in).expect("written");
        let file = home.path().join(".ssh/authorized_keys");
        let text = fs::read_to_string(&file).expect("there");
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 2);
        assert!(lines[0].starts_with("command=\"speediso-key SHA256:") && lines[0].ends_with(&key), "{text}");
        assert!(lines[0].contains("\",no-port-forwarding,no-agent-forwarding,no-X11-forwarding ssh-"), "{text}");
        assert!(lines[1].contains(" until=5000\""), "{text}");
        assert_eq!(fs::metadata(&file).expect("there").permissions().mode() & 0o777, 0o600);
    }
}

//! The way in for people: dropbear with keys only, once there is a key.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};

use speediso_model::task::is_ssh_public_key;

const SERVER: &str = "/usr/sbin/dropbear";

#[derive(Debug)]
pub struct Ssh {
    off: bool,
    home: PathBuf,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    keys: Vec<String>,
    server: Option<Child>,
}

impl Ssh {
    #[must_use]
    pub fn new(off: bool) -> Self {
        Self { off, home: PathBuf::from("/root"), inner: Mutex::default() }
    }

    /// Lets these keys in, and starts the server if it is not there yet.
    pub fn add_keys(&self, keys: &[String]) {
        if self.off || keys.is_empty() {
            return;
        }
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        for key in keys.iter().filter(|k| is_ssh_public_key(k)) {
            if !inner.keys.contains(key) {
                inner.keys.push(key.clone());
            }
        }
        if let Err(error) = self.write_keys(&inner.keys) {
            tracing::error!("ssh: writing the authorized keys: {error}");
            return;
        }
        let running = inner.server.as_mut().is_some_and(|s| matches!(s.try_wait(), Ok(None)));
        if running || answers() {
            return;
        }
        match start() {
            Ok(server) => {
                tracing::info!("ssh: up on port 22, {} key(s), no passwords", inner.keys.len());
                inner.server = Some(server);
            }
            Err(error) => tracing::error!("ssh: starting {SERVER}: {error}"),
        }
    }

    fn write_keys(&self, keys: &[String]) -> io::Result<()> {
        let dir = self.home.join(".ssh");
        fs::create_dir_all(&dir)?;
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o700))?;
        let part = dir.join(".authorized_keys.part");
        let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&part)?;
        for key in keys {
            writeln!(file, "{key}")?;
        }
        file.sync_all()?;
        fs::rename(part, dir.join("authorized_keys"))
    }
}

/// A server that an agent before us started goes on without it.
fn answers() -> bool {
    std::net::TcpStream::connect_timeout(&([127, 0, 0, 1], 22).into(), std::time::Duration::from_millis(200)).is_ok()
}

fn start() -> io::Result<Child> {
    // -F stay in the foreground, -R make host keys, -s no passwords, -E log to standard error.
    Command::new(SERVER)
        .args(["-F", "-R", "-s", "-E", "-p", "22"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::expect_used, reason = "tests")]
    use super::*;

    #[test]
    fn only_plain_keys_get_in() {
        let home = tempfile::tempdir().expect("a temporary directory");
        let ssh = Ssh { off: false, home: home.path().into(), inner: Mutex::default() };
        let key = format!("ssh-ed25519 {}", "A".repeat(68));
        let keys: Vec<String> = [key.clone(), "command=\"sh\" ssh-rsa AAAA".into(), key.clone()]
            .into_iter()
            .filter(|k| is_ssh_public_key(k))
            .collect();
        ssh.write_keys(&keys[..1]).expect("written");
        let file = home.path().join(".ssh/authorized_keys");
        assert_eq!(fs::read_to_string(&file).expect("there"), format!("{key}\n"));
        assert_eq!(fs::metadata(&file).expect("there").permissions().mode() & 0o777, 0o600);
        assert_eq!(keys.len(), 2);
    }
}

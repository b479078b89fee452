//! The way in for people: a server with keys only, while somebody may come. Dropbear in the ramdisk, OpenSSH in the
//! live flavour.
//!
//! When it is open is decided by [`door`]; the server outlives the agent, the recordings outlive both until they are sent.

mod door;
mod host_key;
pub mod recordings;
mod server;
mod ship;
mod systemd;
mod tunnel;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use speediso_model::ssh::{SshPolicy, SshWish};
use speediso_model::task::is_ssh_public_key;
use speediso_sys::clock::uptime_ms;
use tokio::sync::{OnceCell, watch};

use crate::identity::Session;
use crate::state::{self, StateDir};
use door::Door;
pub use door::Word;
use server::LetIn;
pub(crate) use ship::ship;
pub(crate) use tunnel::{Desk, Way, attend};

/// A server that died is noticed within this.
const LOOK: Duration = Duration::from_secs(10);

#[derive(Clone, Debug)]
pub struct Ssh(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    home: PathBuf,
    recordings: PathBuf,
    door: Mutex<Door>,
    /// Serialises what is done to the server.
    applied: Mutex<Applied>,
    changed: watch::Sender<()>,
    host_key: OnceCell<Option<String>>,
}

#[derive(Debug, Default)]
struct Applied {
    keys: Vec<LetIn>,
    open: bool,
    failed: bool,
}

/// Where a ramdisk has keys of its own, one a line, if its manifest puts them there.
pub(crate) const IMAGE_KEYS: &str = "/etc/speediso/authorized_keys";

/// Keys that were built into the ramdisk.
#[must_use]
pub(crate) fn keys_of_image() -> Vec<String> {
    keys_in(&std::fs::read_to_string(IMAGE_KEYS).unwrap_or_default())
}

fn keys_in(text: &str) -> Vec<String> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let (good, bad): (Vec<&str>, Vec<&str>) = lines.partition(|line| is_ssh_public_key(line));
    if !bad.is_empty() {
        tracing::warn!("ssh: {} line(s) of {IMAGE_KEYS} are no keys; ignoring them", bad.len());
    }
    good.into_iter().map(str::to_owned).collect()
}

/// Where nobody decides any more, since the agent has died for good: as after a task that failed somebody has to look, so
/// whoever has a key gets in. Not where the boot entry says no, nor where it takes an operator's word, which nobody hears.
/// Whether the server is up then.
///
/// # Errors
/// When it cannot be known who may come in, or the server does not start: then nothing was opened.
pub(crate) fn leave_open(line: &str) -> std::io::Result<bool> {
    // A policy that cannot be read may be that one.
    let state = StateDir::open(Path::new(state::DEFAULT)).map_err(std::io::Error::other)?;
    let asked = Session::read(&state)?.is_some_and(|session| session.ssh == SshPolicy::Asked);
    let says = |what: &str| line.split_whitespace().any(|word| word == what);
    let has_keys = std::fs::metadata("/root/.ssh/authorized_keys").is_ok_and(|keys| keys.len() > 0);
    if says("speediso.ssh=off") || (asked && !says("speediso.ssh=on")) || !has_keys {
        return Ok(server::is_running());
    }
    if !server::is_running() {
        server::start()?;
    }
    Ok(true)
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Ssh {
    #[must_use]
    pub fn new(word: Word) -> Self {
        Self(Arc::new(Inner {
            home: PathBuf::from("/root"),
            recordings: PathBuf::from(recordings::DIR),
            door: Mutex::new(Door { word, ..Door::default() }),
            applied: Mutex::default(),
            changed: watch::Sender::new(()),
            host_key: OnceCell::new(),
        }))
    }

    /// The public half of the key that the server shows, made now if there is none yet. `None` where it cannot be made,
    /// which is said once: then there is no server either.
    pub async fn host_key(&self) -> Option<String> {
        if locked(&self.0.door).word == Word::Off {
            return None;
        }
        let make = || async {
            let made = tokio::task::spawn_blocking(|| host_key::load_or_make(Path::new(state::DEFAULT))).await;
            match made {
                Ok(Ok(key)) => Some(key),
                Ok(Err(error)) => {
                    tracing::error!("ssh: making a host key: {error}; nobody can log in over the network");
                    None
                }
                Err(error) => {
                    tracing::error!("ssh: making a host key: {error}");
                    None
                }
            }
        };
        self.0.host_key.get_or_init(make).await.clone()
    }

    /// Lets these keys in, for the whole boot.
    pub fn add_keys(&self, keys: &[String]) {
        self.change(|door| {
            for key in keys.iter().filter(|k| is_ssh_public_key(k)) {
                if !door.standing.contains(key) {
                    door.standing.push(key.clone());
                }
            }
        });
    }

    pub(crate) fn set_policy(&self, policy: SshPolicy) {
        self.change(|door| door.policy = policy);
    }

    /// Whether tasks run now that nobody was asked to watch.
    pub(crate) fn unattended(&self, unattended: bool) {
        if locked(&self.0.door).unattended != unattended {
            self.change(|door| door.unattended = unattended);
        }
    }

    /// Whether systemd runs tasks of the live image, which nobody was asked to watch either.
    pub(crate) fn image_tasks(&self, run: bool) {
        if locked(&self.0.door).image_tasks != run {
            self.change(|door| door.image_tasks = run);
        }
    }

    /// Leaves the door to the live system as it is, closed if tasks may begin there: the server starts before the agent
    /// does, and so do they.
    pub(crate) fn hand_over(&self, tasks_follow: bool) -> std::io::Result<()> {
        systemd::mark(locked(&self.0.door).is_open_there(tasks_follow, uptime_ms()))
    }

    /// What an operator wants. Whether that is news.
    pub(crate) fn heed(&self, wish: &SshWish) -> bool {
        let is_news = locked(&self.0.door).heed(wish, uptime_ms());
        if is_news {
            self.0.changed.send_replace(());
        }
        is_news
    }

    pub(crate) fn refusal(&self) -> Option<String> {
        locked(&self.0.door).refusal(uptime_ms())
    }

    /// Whether somebody is in, by ssh.
    #[must_use]
    pub fn is_used(&self) -> bool {
        recordings::all(&self.0.recordings).iter().any(|kept| !kept.is_over())
    }

    fn change(&self, change: impl FnOnce(&mut Door)) {
        change(&mut locked(&self.0.door));
        self.0.changed.send_replace(());
    }

    /// Keeps the server as it should be, for ever.
    pub async fn keep(self) {
        let mut changed = self.0.changed.subscribe();
        loop {
            changed.mark_unchanged();
            self.apply_soon().await;
            let next = locked(&self.0.door).next_change(uptime_ms());
            let pause = next.map_or(LOOK, |next| next.min(LOOK)).max(Duration::from_millis(10));
            let _ = tokio::time::timeout(pause, changed.changed()).await;
        }
    }

    /// Makes it so now, for those who have to say that it is.
    pub(crate) async fn apply_soon(&self) {
        let wants_server = locked(&self.0.door).now(uptime_ms()).1;
        if wants_server && self.host_key().await.is_none() {
            return;
        }
        let ssh = self.clone();
        // A few system calls and, when it opens, the start of a program.
        let applied = tokio::task::spawn_blocking(move || ssh.apply()).await;
        if let Err(error) = applied {
            tracing::error!("ssh: {error}");
        }
    }

    fn apply(&self) {
        let mut applied = locked(&self.0.applied);
        let (keys, open) = locked(&self.0.door).now(uptime_ms());
        if keys != applied.keys {
            if let Err(error) = server::write_keys(&self.0.home, &keys) {
                tracing::error!("ssh: writing the authorized keys: {error}");
                return;
            }
            self.end_sessions_of_others(&applied.keys, &keys);
            applied.keys.clone_from(&keys);
        }
        let running = server::is_running();
        match (open, running) {
            (true, false) => match server::start() {
                Ok(()) => {
                    applied.failed = false;
                    tracing::info!("ssh: up on port 22, {} key(s), no passwords", keys.len());
                }
                // Said once; tried again with every look.
                Err(error) if !applied.failed => {
                    applied.failed = true;
                    tracing::error!("ssh: starting the server: {error}");
                }
                Err(_) => {}
            },
            (false, true) => match server::stop() {
                Ok(()) => tracing::info!("ssh: takes no new login now; sessions that are there go on"),
                Err(error) => tracing::error!("ssh: stopping the server: {error}"),
            },
            (true, true) | (false, false) => {}
        }
        applied.open = open;
    }

    /// Who came with a key that is let in no more, leaves.
    fn end_sessions_of_others(&self, before: &[LetIn], now: &[LetIn]) {
        let gone: Vec<String> = before
            .iter()
            .map(LetIn::fingerprint)
            .filter(|old| !now.iter().any(|key| key.fingerprint() == *old))
            .collect();
        if gone.is_empty() {
            return;
        }
        for kept in recordings::all(&self.0.recordings) {
            if gone.contains(&kept.session.key) && !kept.is_over() && kept.pid > 1 {
                tracing::info!("ssh: session {} ends: its key is let in no more", kept.session.id);
                let _ = kill(Pid::from_raw(kept.pid), Signal::SIGHUP);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_an_image_are_plain_keys() {
        let key = format!("ssh-ed25519 {} ops", "A".repeat(68));
        let text = format!("# ops\n{key}\n\n command=\"sh\" {key}\n  {key}  \nnonsense\n");
        assert_eq!(keys_in(&text), [key.clone(), key]);
        assert!(keys_in("").is_empty());
    }

    /// Without a key there is no server to start, with `off` neither, whatever else is said.
    #[test]
    fn nothing_is_wanted_of_a_closed_door() {
        for word in [Word::Nothing, Word::On, Word::Off] {
            let ssh = Ssh::new(word);
            assert!(!locked(&ssh.0.door).now(0).1, "{word:?}");
            ssh.add_keys(&["no key".into()]);
            assert!(!locked(&ssh.0.door).now(0).1, "{word:?}");
            ssh.add_keys(&[format!("ssh-ed25519 {}", "A".repeat(68))]);
            assert_eq!(locked(&ssh.0.door).now(0).1, word != Word::Off, "{word:?}");
        }
    }
}

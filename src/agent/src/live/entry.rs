//! The way from the ramdisk into the live flavour, tried as often as it makes sense, before any work is taken.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use speediso_model::event::{EventKind, Progress};
use speediso_model::fault::{Fault, FaultCode};
use speediso_model::id::RunId;
use speediso_model::image::{Compression, ImageFormat, ImageSource};
use speediso_model::plan::hex;
use speediso_model::profile::Profile;
use speediso_model::trust::Signature;
use speediso_model::units::Bytes;
use speediso_sys::clock;
use speediso_tasks::ctx::{ProgressUpdate, Reporter};
use speediso_tasks::live::Form;

use super::mounts::Mounts;
use super::root::{self, Ready};
use crate::backoff::Backoff;
use crate::cmdline::{Config, OwnTasks, words};
use crate::console::board::Beside;
use crate::doors::native::trouble;
use crate::drivers::Loading;
use crate::engine::{Engine, LAST_LINES};
use crate::logs;
use crate::ssh::Ssh;
use crate::{state, watchdog};

/// A key that the builder put into the ramdisk. Then no other counts: whoever signed the ramdisk chose it.
const OWN_KEY: &str = "/etc/speediso-live.key";
/// What `/etc/switch` says when it had to come back.
const CAME_BACK: &str = "/run/speediso/live.failed";
/// Of faults that may pass; each of them tries all servers for minutes itself.
const TRIES: u32 = 3;
/// Until init has ended everybody else, us among them.
const FAREWELL: Duration = Duration::from_secs(90);
const ADVICE: &str = "build the live image again for this build (make live) and publish all of it, or boot without speediso.live=; the mini system goes on";
const ADVICE_TRANSIENT: &str =
    "check the server of the live image from this machine's network, then reboot to try again; the mini system goes on";

/// What the boot entry asks for.
#[derive(Clone, Debug)]
pub struct Entry {
    urls: Vec<String>,
    key: Option<[u8; 32]>,
    /// What is wrong with `SPEEDISO=` if no live system comes that knows the names.
    unknown_names: Option<Fault>,
    /// Something stands in `SPEEDISO=` that systemd may begin there before the agent looks.
    names_tasks: bool,
    watchdog: bool,
    /// Once in the life of an agent: work may have begun after it.
    tried: Arc<AtomicBool>,
}

impl Entry {
    /// None where it is not asked for, or is done.
    #[must_use]
    pub fn of(config: &Config, line: &str) -> Option<Self> {
        let wanted = !config.live.is_empty() && !super::is_inside();
        wanted.then(|| {
            let unknown_names = Config::from_words(words(line), &OwnTasks::NONE).err();
            Self {
                urls: config.live.clone(),
                key: config.live_key,
                names_tasks: unknown_names.is_some() || config.profiles.iter().any(|p| *p != Profile::Shell),
                unknown_names,
                watchdog: !config.watchdog_off,
                tried: Arc::default(),
            }
        })
    }

    /// Goes on in the live system, and so never returns; or stays, with the reason told everywhere. Then gives what is
    /// wrong with the names in `SPEEDISO=`, which the live system might have known.
    pub async fn enter(&self, engine: &Engine, ssh: &Ssh) -> Option<Fault> {
        if self.tried.swap(true, Ordering::Relaxed) {
            return self.unknown_names.clone();
        }
        if engine.runs().iter().any(|run| run.started) {
            tracing::warn!("live system: a task was begun in this boot; staying where its traces are");
            return self.unknown_names.clone();
        }
        engine.board().beside(Beside::Runs("the live system is on its way"));
        let mounts = Arc::new(Mounts::of_system());
        let fault = match self.try_on(engine, &mounts).await {
            Ok(ready) => {
                // A switch ends every process, and one that loads a driver would leave the device half set up.
                Loading::Disks.ended().await;
                Loading::forget();
                self.take_along(ssh, &mounts);
                go_on(engine, &self.shown(), &ready).await
            }
            Err(fault) => fault,
        };
        mounts.clear();
        engine.board().progress(Vec::new());
        engine.board().beside(Beside::Nothing);
        trouble(engine, fault);
        self.unknown_names.clone()
    }

    /// What the ramdisk knows and the live system must not find out first. What is missing there the agent mends.
    fn take_along(&self, ssh: &Ssh, mounts: &Mounts) {
        let keys = root::take_keys(&mounts.new_root);
        let watchdog = if self.watchdog { watchdog::hand_over() } else { Ok(()) };
        let moved = std::fs::write(Path::new(state::DEFAULT).join(state::MOVED), "");
        let all = [
            ("the keys for ssh", keys),
            ("whether ssh is open", ssh.hand_over(self.names_tasks)),
            ("the watchdog", watchdog),
            ("that the agent did not die", moved),
        ];
        for (what, done) in all {
            if let Err(error) = done {
                tracing::warn!("live system: {what} could not be taken along: {error}; proceeding");
            }
        }
    }

    fn shown(&self) -> String {
        self.urls.first().map(|url| speediso_model::image::shown_url(url)).unwrap_or_default()
    }

    async fn try_on(&self, engine: &Engine, mounts: &Arc<Mounts>) -> Result<Ready, Fault> {
        if let Ok(why) = std::fs::read_to_string(CAME_BACK) {
            return Err(self.failed(Fault::new(FaultCode::LiveUnusable, why.trim())));
        }
        let source = self.source().map_err(|fault| self.failed(fault))?;
        let mut backoff = Backoff::default();
        loop {
            tracing::info!("live system: fetching {}", source.shown());
            let ctx = engine.surroundings(Arc::new(Shown { engine: engine.clone(), run: RunId::random() }));
            let (of_this, mounts) = (source.clone(), Arc::clone(mounts));
            let prepared = tokio::task::spawn_blocking(move || root::prepare(&of_this, &mounts, &ctx)).await;
            match prepared.unwrap_or_else(|e| Err(Fault::new(FaultCode::Internal, e.to_string()))) {
                Err(fault) if fault.is_transient() && backoff.tries() + 1 < TRIES => {
                    tracing::error!("live system: {fault}; trying again");
                    tokio::time::sleep(backoff.next()).await;
                }
                other => return other.map_err(|fault| self.failed(fault)),
            }
        }
    }

    /// By whose signature the image is trusted.
    fn source(&self) -> Result<ImageSource, Fault> {
        let key = match (own_key()?, self.key) {
            (Some(own), Some(other)) if own != other => {
                return Err(Fault::new(
                    FaultCode::SignatureInvalid,
                    "speediso.live_key= is not the key that this ramdisk was built with, and no other counts here",
                ));
            }
            (Some(key), _) | (None, Some(key)) => key,
            (None, None) => {
                return Err(Fault::new(
                    FaultCode::CmdlineInvalid,
                    "speediso.live= needs speediso.live_key=: this ramdisk was built without a key for it",
                ));
            }
        };
        let mut urls = self.urls.iter().cloned();
        Ok(ImageSource {
            url: urls.next().unwrap_or_default(),
            mirrors: urls.collect(),
            digest: None,
            checksums: None,
            signature: Some(Signature { key: hex(&key), url: None }),
            accept_unverified: false,
            format: ImageFormat::Manifest,
            compression: Compression::None,
            size: None,
            max_window: None,
        })
    }

    /// The fault with what it means here: what is said of disks where images are written does not hold.
    fn failed(&self, mut fault: Fault) -> Fault {
        fault.message = format!("the live system {} is not gone on in: {}", self.shown(), fault.message);
        fault.advice = if fault.is_transient() { ADVICE_TRANSIENT } else { ADVICE }.into();
        fault.because("this is the mini system of the ramdisk; no disk was touched")
    }
}

fn own_key() -> Result<Option<[u8; 32]>, Fault> {
    let text = match std::fs::read_to_string(OWN_KEY) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Fault::from_error(FaultCode::Io, &error).because(OWN_KEY)),
    };
    crate::cmdline::public_key(text.trim()).map(Some).ok_or_else(|| {
        Fault::new(FaultCode::SignatureInvalid, format!("{OWN_KEY} is not a public key of 64 hex digits"))
    })
}

/// Returns only if init does not do as it is told.
async fn go_on(engine: &Engine, url: &str, ready: &Ready) -> Fault {
    let what = match ready.form {
        Form::Squashfs => "mounted from memory",
        Form::Tar => "unpacked into memory",
    };
    let text = format!(
        "going on in the live system {url}: {}, {} of it fetched now, every chunk verified, {what}",
        Bytes(ready.size),
        Bytes(ready.fetched)
    );
    engine.tell(None, EventKind::Notice { text });
    let _ = tokio::task::spawn_blocking(|| logs::drain(LAST_LINES)).await;
    match kill(Pid::from_raw(1), Signal::SIGQUIT) {
        Ok(()) => tokio::time::sleep(FAREWELL).await,
        Err(errno) => {
            return Fault::new(FaultCode::LiveUnusable, "init could not be told to go on in the live system")
                .because(errno.to_string());
        }
    }
    Fault::new(FaultCode::LiveUnusable, "init was told to go on in the live system and did not")
}

/// Shows how far it is, at the machine only: it is no task.
struct Shown {
    engine: Engine,
    run: RunId,
}

impl Reporter for Shown {
    fn step_began(&self, step: &str) {
        tracing::info!("live system: {step} ...");
    }

    fn step_ended(&self, step: &str, detail: &str) {
        tracing::info!("live system: {step}: {detail}");
    }

    fn notice(&self, text: &str) {
        tracing::warn!("live system: {text}");
    }

    fn progress(&self, update: ProgressUpdate) {
        self.engine.board().progress(vec![Progress {
            run: self.run,
            stage: update.stage.into(),
            current: update.current,
            total: update.total,
            unit: update.unit.into(),
            rate: update.rate,
            device: update.device,
            uptime_ms: clock::uptime_ms(),
        }]);
    }
}

//! What people see: every log line on every console the kernel has, and the progress of what is going on.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use speediso_model::event::Progress;
use speediso_model::units::Bytes;
use speediso_sys::console;
use speediso_sys::roots::Roots;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::engine::Engine;
use crate::state;

/// What the consoles showed, kept for the length of the boot; the motd names it.
const LOG: &str = "/run/speediso/agent.log";
const PROGRESS_EVERY: Duration = Duration::from_secs(5);

/// Writes to all of them; one that hangs or is gone does not hold up the others.
#[derive(Clone, Debug)]
struct Consoles(Arc<Mutex<Vec<File>>>);

impl Consoles {
    fn open(roots: &Roots) -> Self {
        // A serial line without a listener must not block us.
        let open = |path: &PathBuf| {
            OpenOptions::new().write(true).custom_flags(libc::O_NOCTTY | libc::O_NONBLOCK).open(path).ok()
        };
        let mut files: Vec<File> = console::active(roots).iter().filter_map(open).collect();
        // For whoever comes by ssh later; in memory, for root only.
        let log = std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(state::DEFAULT)
            .and_then(|()| OpenOptions::new().append(true).create(true).mode(0o600).open(LOG));
        files.extend(log.ok());
        Self(Arc::new(Mutex::new(files)))
    }
}

impl Write for Consoles {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        for file in self.0.lock().unwrap_or_else(PoisonError::into_inner).iter_mut() {
            // Lost on this console only.
            let _ = file.write_all(line);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Consoles {
    type Writer = Self;
    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// Uptime in seconds, as the kernel's own messages show it: the clock may be wrong, and may be set meanwhile.
#[derive(Clone, Copy, Debug)]
struct Uptime;

impl tracing_subscriber::fmt::time::FormatTime for Uptime {
    fn format_time(&self, w: &mut tracing_subscriber::fmt::format::Writer<'_>) -> std::fmt::Result {
        let ms = speediso_sys::clock::uptime_ms();
        write!(w, "[{:5}.{:03}]", ms / 1000, ms % 1000)
    }
}

fn filter(debug: bool) -> Targets {
    let chatter = ["h2", "hyper", "rustls"].map(|name| (name, LevelFilter::INFO));
    if debug {
        Targets::new().with_default(LevelFilter::DEBUG).with_targets(chatter)
    } else {
        Targets::new().with_default(LevelFilter::INFO)
    }
}

/// Logs to the consoles; for the ramdisk.
pub fn log_to_consoles(roots: &Roots, debug: bool) {
    tracing_subscriber::fmt()
        .with_max_level(LevelFilter::DEBUG)
        .with_timer(Uptime)
        .with_target(false)
        .with_ansi(false)
        .with_writer(Consoles::open(roots))
        .finish()
        .with(filter(debug))
        .init();
}

/// Logs to standard error; for a running system.
pub fn log_to_stderr(debug: bool) {
    tracing_subscriber::fmt()
        .with_max_level(LevelFilter::DEBUG)
        .with_timer(Uptime)
        .with_target(false)
        .with_writer(io::stderr)
        .finish()
        .with(filter(debug))
        .init();
}

/// Shows progress from time to time, for ever.
pub async fn show_progress(engine: Engine) {
    loop {
        tokio::time::sleep(PROGRESS_EVERY).await;
        for progress in engine.progress() {
            tracing::info!("{}", line(&progress));
        }
    }
}

fn line(progress: &Progress) -> String {
    let device = progress.device.as_deref().unwrap_or_default();
    let mut text = format!("{} {device} {}", progress.stage, Bytes(progress.current));
    if let Some(total) = progress.total.filter(|t| *t > 0) {
        let percent = u128::from(progress.current) * 100 / u128::from(total);
        text.push_str(&format!(" of {} ({percent} %)", Bytes(total)));
    }
    if progress.rate.is_finite() && progress.rate > 0.0 {
        text.push_str(&format!(", {:.0} MiB/s", progress.rate / 1_048_576.0));
    }
    text
}

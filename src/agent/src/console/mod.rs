//! What people see at the machine: one status screen on every console the kernel has, the log below it, and keys.
//!
//! What is shown is worked out purely (`screen`, `pages`, `qr` make grids, `painter` and `diff` make bytes of them, `view`
//! takes keys); `terminal` alone knows files and time. A console that is no terminal, or `speediso.console=plain`, gets
//! plain lines.

pub mod board;
mod child;
mod diff;
mod grid;
mod keys;
mod pace;
mod pages;
mod painter;
mod plain;
mod qr;
mod screen;
mod terminal;
mod view;

use std::fs::File;
use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use speediso_model::event::Progress;
use speediso_model::units::Bytes;
use speediso_sys::console;
use speediso_sys::roots::Roots;
use tracing_subscriber::Layer as _;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::engine::Engine;
use crate::logs::{LogLayer, Logs, filter};
use board::Board;
pub use plain::Supervised;
pub(crate) use qr::page_of_errors;

const PROGRESS_EVERY: Duration = Duration::from_secs(5);

/// How consoles are used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Style {
    #[default]
    Screen,
    /// Lines only, and init's own shells.
    Plain,
}

/// Keeps the log in memory and in `/run/speediso/agent.log`; for the ramdisk.
#[must_use]
pub fn start_log(debug: bool) -> Logs {
    let logs = Logs::default();
    logs.is_the_process_log();
    tracing_subscriber::registry().with(LogLayer::with_file(logs.clone()).with_filter(filter(debug))).init();
    logs
}

/// Shows log and status on every console, for ever. Needs a runtime.
pub fn show(logs: &Logs, board: &Board, roots: &Roots, style: Style, shell: bool) {
    let active = console::active(roots);
    for path in &active {
        let (path, vt) = own(path, roots);
        let is_terminal = File::options().read(true).open(&path).is_ok_and(|file| file.is_terminal());
        // `/dev/console` stands for one that we cannot tell, and init may have a shell on it.
        let unknown = path.ends_with("console");
        if style == Style::Plain || !is_terminal || unknown {
            tokio::spawn(plain::follow(path, logs.clone(), board.clone()));
        } else {
            let console = terminal::Console { path, vt, shell, logs: logs.clone(), board: board.clone() };
            tokio::spawn(console.run());
        }
    }
    // Beside the status on the first virtual terminal: a shell on the second (init's), the bare log on the third.
    let third = roots.dev.join("tty3");
    if active.iter().any(|path| own(path, roots).1) && third.exists() {
        tokio::spawn(plain::follow(third, logs.clone(), board.clone()));
    }
}

/// `tty0` is whichever virtual terminal is in front: ours is the first, so that the others stay free of us.
fn own(path: &Path, roots: &Roots) -> (PathBuf, bool) {
    let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let number = name.strip_prefix("tty").filter(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()));
    match number {
        Some("0") => (roots.dev.join("tty1"), true),
        Some(_) => (path.to_owned(), true),
        None => (path.to_owned(), false),
    }
}

/// Logs to standard error; for a running system.
pub fn log_to_stderr(debug: bool) {
    tracing_subscriber::fmt()
        .with_max_level(LevelFilter::DEBUG)
        .with_timer(Uptime)
        .with_target(false)
        .with_writer(std::io::stderr)
        .finish()
        .with(filter(debug))
        .init();
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

/// Says progress in the log from time to time, for ever; for a running system.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_screen_in_front_is_left_to_whoever_switched_there() {
        let roots = Roots::live();
        let own = |name: &str| own(&roots.dev.join(name), &roots);
        assert_eq!(own("tty0"), (PathBuf::from("/dev/tty1"), true));
        assert_eq!(own("tty5"), (PathBuf::from("/dev/tty5"), true));
        assert_eq!(own("ttyS0"), (PathBuf::from("/dev/ttyS0"), false));
        assert_eq!(own("console"), (PathBuf::from("/dev/console"), false));
    }
}

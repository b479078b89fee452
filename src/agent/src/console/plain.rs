//! Consoles as plain lines: where the status screen cannot or shall not be, and for the supervisor, which outlives it.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use speediso_model::log::{LogLine, LogSource};
use speediso_sys::roots::Roots;
use speediso_sys::{console, terminal};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use super::board::Board;
use super::grid::harmless_text;
use super::{PROGRESS_EVERY, Style, Uptime, filter, line, own};
use crate::logs::{FILE, Logs};

/// Takes the scroll region away and leaves the cursor where it was.
const NO_REGION: &[u8] = b"\x1b7\x1b[r\x1b8";

/// One line for each of the log's, for ever; and progress from time to time.
pub(super) async fn follow(path: PathBuf, logs: Logs, board: Board) {
    let reader = logs.reader();
    let (mut newest, mut next) = (logs.newest(), 0);
    let mut timer = tokio::time::interval(PROGRESS_EVERY);
    let status = board.subscribe();
    loop {
        newest.mark_unchanged();
        let batch = logs.after(next, usize::MAX);
        // Opened anew: a shell that ended may have hung the last one up. What it does not take is lost here only.
        if let Ok(mut file) = open(&path) {
            for text in batch.lines.iter().filter_map(shown) {
                let _ = file.write_all(text.as_bytes());
            }
        }
        next = batch.next;
        reader.reached(next);
        tokio::select! {
            _ = newest.changed() => {}
            _ = timer.tick() => {
                let lines: Vec<String> = status.borrow().progress.iter().map(line).collect();
                if let Ok(mut file) = open(&path) {
                    for text in lines {
                        let _ = file.write_all(format!("{}\n", harmless_text(&text)).as_bytes());
                    }
                }
            }
        }
    }
}

/// The kernel's lines it puts there itself.
fn shown(line: &std::sync::Arc<LogLine>) -> Option<String> {
    (line.source != LogSource::Kernel).then(|| format!("{}\n", harmless_text(&line.to_string())))
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).custom_flags(libc::O_NOCTTY | libc::O_NONBLOCK).open(path)
}

/// What the supervisor says, on every console: whatever stood there, it is seen.
#[derive(Clone, Debug)]
pub struct Supervised {
    roots: Roots,
    style: Style,
}

impl Supervised {
    /// Makes it the log of this process.
    #[must_use]
    pub fn start(roots: Roots, style: Style) -> Self {
        let this = Self { roots, style };
        tracing_subscriber::fmt()
            .with_timer(Uptime)
            .with_target(false)
            .with_ansi(false)
            .with_writer(this.clone())
            .finish()
            .with(filter(false))
            .init();
        this
    }

    /// Leaves every console to plain lines and to a shell, in the state in which a shell expects it.
    pub fn give_back(&self) {
        for path in console::active(&self.roots) {
            if let Ok(mut file) = open(&own(&path, &self.roots).0) {
                // A shell that somebody has there goes on without the agent.
                if terminal::has_session(&self.roots, &file).unwrap_or(false) {
                    continue;
                }
                // Where it is no terminal there is nothing to undo.
                let _ = terminal::set_sane(&file);
                if self.style == Style::Screen {
                    let _ = file.write_all(NO_REGION);
                }
            }
        }
    }
}

impl Write for Supervised {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let text = harmless_text(&crate::secrets::hide(String::from_utf8_lossy(line).trim_end()));
        for path in console::active(&self.roots) {
            if let Ok(mut file) = open(&own(&path, &self.roots).0) {
                let _ = file.write_all(format!("{text}\r\n").as_bytes());
            }
        }
        // Where the agent keeps its own lines; before the first agent there is no such place yet.
        if let Ok(mut file) = OpenOptions::new().append(true).open(FILE) {
            let _ = writeln!(file, "{text}");
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Supervised {
    type Writer = Self;
    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

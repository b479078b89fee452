//! The agent's log: every line goes through here once, loses its secrets, and is kept in memory for a while. Consoles,
//! the controller and syslog each read it at their own pace; none of them can hold up who writes, nor one another.

mod kernel;
mod layer;
mod ring;
mod upload;

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use speediso_model::log::{LogLevel, LogLine, LogSource, one_line};
use tokio::sync::watch;

pub use kernel::follow as follow_kernel;
pub(crate) use layer::{FILE, FROM_JOURNAL};
pub use layer::{LogLayer, filter};
pub use ring::{Batch, Ring};
pub(crate) use upload::upload;

use crate::secrets;

/// Some 4,000 lines: a boot with a few orders, or ten minutes of trouble.
const KEPT: usize = 512 << 10;

/// The log of this process, shared.
#[derive(Clone, Debug)]
pub struct Logs(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    ring: Mutex<Ring>,
    /// The number that the next line gets.
    newest: watch::Sender<u64>,
    readers: Mutex<Vec<Arc<Reader>>>,
}

/// The log of this process, as there is one subscriber of `tracing` in it.
static CURRENT: OnceLock<Logs> = OnceLock::new();

/// Waits until every reader that still reads has all lines, but no longer than this: before the machine goes down. Blocks.
pub fn drain(limit: Duration) {
    if let Some(logs) = CURRENT.get() {
        logs.drain(limit);
    }
}

/// How far somebody has read.
#[derive(Debug, Default)]
pub struct Reader {
    at: std::sync::atomic::AtomicU64,
}

impl Reader {
    pub fn reached(&self, next: u64) {
        self.at.store(next, std::sync::atomic::Ordering::Release);
    }
}

impl Default for Logs {
    fn default() -> Self {
        let inner =
            Inner { ring: Mutex::new(Ring::new(KEPT)), newest: watch::Sender::new(0), readers: Mutex::new(Vec::new()) };
        Self(Arc::new(inner))
    }
}

impl Logs {
    /// Makes it the one whose last lines are waited for.
    pub(crate) fn is_the_process_log(&self) {
        // A second one would be a program with two logs; the first stays.
        let _ = CURRENT.set(self.clone());
    }

    /// Keeps a line of the agent's own, without its secrets; returns it as it may be shown.
    pub fn say(&self, level: LogLevel, text: &str) -> Arc<LogLine> {
        let uptime_ms = speediso_sys::clock::uptime_ms();
        // A restarted agent goes on above what the one before it said.
        let seq = |last: u64| (last + 1).max(uptime_ms << 10);
        self.put(|last| LogLine {
            seq: seq(last),
            uptime_ms,
            level,
            source: LogSource::Agent,
            text: one_line(&secrets::hide(text)),
        })
    }

    pub(crate) fn say_of_kernel(&self, seq: u64, uptime_ms: u64, level: LogLevel, text: &str) {
        let text = one_line(&secrets::hide(text));
        self.put(|_| LogLine { seq, uptime_ms, level, source: LogSource::Kernel, text });
    }

    fn put(&self, line: impl FnOnce(u64) -> LogLine) -> Arc<LogLine> {
        let mut ring = self.ring();
        let line = Arc::new(line(ring.last_seq()));
        let newest = ring.push(Arc::clone(&line));
        drop(ring);
        self.0.newest.send_replace(newest);
        line
    }

    /// What came after `next`, at most so many lines.
    #[must_use]
    pub fn after(&self, next: u64, most: usize) -> Batch {
        self.ring().after(next, most)
    }

    /// Everything that is kept.
    #[must_use]
    pub fn kept(&self) -> Vec<Arc<LogLine>> {
        self.ring().after(0, usize::MAX).lines
    }

    /// Changes with every line.
    #[must_use]
    pub fn newest(&self) -> watch::Receiver<u64> {
        self.0.newest.subscribe()
    }

    /// Registers somebody for whom the last words wait.
    #[must_use]
    pub fn reader(&self) -> Arc<Reader> {
        let reader = Arc::new(Reader::default());
        self.0.readers.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&reader));
        reader
    }

    fn drain(&self, limit: Duration) {
        let end = Instant::now() + limit;
        let newest = *self.0.newest.borrow();
        let behind = || {
            let readers = self.0.readers.lock().unwrap_or_else(PoisonError::into_inner);
            // One that nobody else holds is read by nobody any more.
            readers.iter().any(|r| Arc::strong_count(r) > 1 && r.at.load(std::sync::atomic::Ordering::Acquire) < newest)
        };
        while behind() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        // Every change of it is one push.
        self.0.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

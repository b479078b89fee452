//! A log that grows while one reads it: a machine's serial console or a program's output. Terminal control sequences
//! are taken out before anything is compared or shown, since firmware paints its screen with them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::error::{LabError, Result};

/// How often a log is looked at. A serial line under emulation brings a few kilobytes a second at most.
const POLL: Duration = Duration::from_millis(100);
const TAIL_LINES: usize = 40;

#[derive(Clone, Debug)]
pub struct Log {
    path: PathBuf,
    /// Set once an error has pointed a reader at this file.
    wanted: Arc<AtomicBool>,
}

/// A line that was waited for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    pub line: String,
    /// Offset in the log behind that line; the next wait may begin here.
    pub end: usize,
}

impl Log {
    pub fn at(path: &Path) -> Self {
        Self::watched(path, &Arc::default())
    }

    /// A log whose being pointed at is noted in `wanted`, so that whoever cleans up leaves it.
    pub(crate) fn watched(path: &Path, wanted: &Arc<AtomicBool>) -> Self {
        Self { path: path.to_owned(), wanted: Arc::clone(wanted) }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The length so far, as a mark: a later wait begins here and does not see what came before.
    pub fn mark(&self) -> usize {
        self.raw().len()
    }

    /// Everything so far, without control sequences.
    pub fn text(&self) -> String {
        plain(&self.raw())
    }

    /// Everything behind a mark, without control sequences.
    pub fn text_after(&self, mark: usize) -> String {
        plain(self.raw().get(mark..).unwrap_or_default())
    }

    pub fn tail(&self) -> String {
        let text = self.text();
        let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
        lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
    }

    /// Waits for a whole line behind `mark` that contains `what`.
    ///
    /// `ended` tells whether the writer is gone: then there is nothing to wait for any more.
    pub(crate) fn wait_for(
        &self,
        who: &str,
        mark: usize,
        what: &str,
        limit: Duration,
        mut ended: impl FnMut() -> Option<ExitStatus>,
    ) -> Result<Found> {
        let end = Instant::now() + limit;
        loop {
            // Asked before reading, so that the last words of a writer that has just ended are still seen.
            let status = ended();
            if let Some(found) = find(&self.raw(), mark, what) {
                return Ok(found);
            }
            if let Some(status) = status {
                return Err(LabError::Ended {
                    who: who.to_owned(),
                    status,
                    waiting: format!("waiting for {what:?}"),
                    log: self.keep(),
                    tail: self.tail(),
                });
            }
            if Instant::now() >= end {
                return Err(LabError::Silence {
                    who: who.to_owned(),
                    what: what.to_owned(),
                    limit,
                    log: self.keep(),
                    tail: self.tail(),
                });
            }
            std::thread::sleep(POLL);
        }
    }

    /// Marks the file as one that a person was pointed at, and gives its path.
    pub(crate) fn keep(&self) -> PathBuf {
        self.wanted.store(true, Ordering::Relaxed);
        self.path.clone()
    }

    fn raw(&self) -> Vec<u8> {
        // A log that does not exist yet is an empty one.
        fs::read(&self.path).unwrap_or_default()
    }
}

fn find(raw: &[u8], mark: usize, what: &str) -> Option<Found> {
    let mut start = mark.min(raw.len());
    for line in raw[start..].split_inclusive(|&byte| byte == b'\n') {
        start += line.len();
        let text = plain(line);
        if text.contains(what) {
            return Some(Found { line: text.trim_end().to_owned(), end: start });
        }
    }
    None
}

/// Takes out escape sequences, carriage returns and NULs.
fn plain(raw: &[u8]) -> String {
    let text = String::from_utf8_lossy(raw);
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\x1b' => match chars.peek() {
                // CSI: parameters and intermediates up to a final byte in @..~.
                Some('[') => {
                    chars.next();
                    for c in chars.by_ref() {
                        if ('@'..='~').contains(&c) {
                            break;
                        }
                    }
                }
                Some(_) => {
                    chars.next();
                }
                None => {}
            },
            '\r' | '\0' => {}
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn control_sequences_do_not_hide_words() {
        assert_eq!(plain(b"\x1b[?7l\x1b[2J\x1b[0mSea\x1b[0;1mBIOS\r\n\0\x1bcx"), "SeaBIOS\nx");
    }

    #[test]
    fn a_mark_hides_what_came_before() {
        let raw = b"boot one\nlogin:\nboot two\nlogin:\n";
        let first = find(raw, 0, "login:").unwrap();
        assert_eq!(find(raw, first.end, "boot").unwrap().line, "boot two");
        assert_eq!(find(raw, raw.len(), "boot"), None);
        assert_eq!(find(raw, 1000, "boot"), None);
    }

    #[test]
    fn a_prompt_without_line_end_is_found_too() {
        assert_eq!(find(b"x\nlogin: ", 0, "login:").unwrap().line, "login:");
    }

    #[test]
    fn silence_is_an_error_with_tail_and_place() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("serial.log");
        fs::write(&path, "the last thing seen\n").unwrap();
        let wanted = Arc::default();
        let log = Log::watched(&path, &wanted);
        let error = log.wait_for("m", 0, "nothing", Duration::from_millis(10), || None).unwrap_err();
        assert!(error.to_string().contains("the last thing seen"));
        assert!(error.to_string().contains("serial.log"));
        assert!(wanted.load(Ordering::Relaxed));
    }
}

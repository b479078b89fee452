//! What happened in this boot, in order: the events, one per line, on the disk that is no disk before they are told.
//!
//! A restarted agent reads it back: events go on counting, ended runs stay known, and a run that had not ended is
//! ended now with the truth: `unknown` if its start was permitted, `failed_unchanged` if not.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use speediso_model::event::Event;

#[derive(Debug)]
pub(crate) struct Journal {
    file: File,
    /// Up to here every line is whole.
    good: u64,
}

impl Journal {
    /// Opens it and returns what it holds. A line cut short by a crash was never told to anybody: it is dropped.
    pub(crate) fn open(path: &Path) -> io::Result<(Self, Vec<Event>)> {
        let mut events = Vec::new();
        let mut good = 0;
        let file = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path)?;
        let mut reader = BufReader::new(&file);
        let mut line = String::new();
        while reader.read_line(&mut line).unwrap_or(0) > 0 {
            match serde_json::from_str(&line) {
                Ok(event) if line.ends_with('\n') => events.push(event),
                _ => break,
            }
            good += line.len() as u64;
            line.clear();
        }
        file.set_len(good)?;
        Ok((Self { file, good }, events))
    }

    /// Either the whole line is there afterwards, or nothing of it: half a line would hide all that follow.
    pub(crate) fn append(&mut self, event: &Event) -> io::Result<()> {
        let mut line = serde_json::to_vec(event)?;
        line.push(b'\n');
        let written = self.file.write_all(&line).and_then(|()| self.file.sync_data());
        match written {
            Ok(()) => self.good += line.len() as u64,
            Err(_) => self.file.set_len(self.good)?,
        }
        written
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use speediso_model::event::EventKind;

    fn event(seq: u64) -> Event {
        Event { seq, run: None, uptime_ms: 0, kind: EventKind::Notice { text: "x".into() } }
    }

    #[test]
    fn a_line_cut_short_is_dropped_and_the_rest_kept() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("journal.jsonl");
        let (mut journal, events) = Journal::open(&path).expect("opened");
        assert!(events.is_empty());
        journal.append(&event(1)).expect("written");
        journal.append(&event(2)).expect("written");
        drop(journal);
        let whole = std::fs::read(&path).expect("read");
        std::fs::write(&path, &whole[..whole.len() - 5]).expect("cut");
        let (mut journal, events) = Journal::open(&path).expect("opened");
        assert_eq!(events, [event(1)]);
        journal.append(&event(2)).expect("written");
        let (_, events) = Journal::open(&path).expect("opened");
        assert_eq!(events, [event(1), event(2)]);
    }
}

//! Recordings of sessions, in memory: written by the login shell, sent on by the agent.
//!
//! One session is two files: what is known of it (JSON, replaced as a whole), and what it showed, as asciinema reads it
//! (asciicast v2), which only grows. Neither side needs the other: without an agent they wait, without a controller the
//! oldest make room.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use nix::sys::signal::kill;
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use speediso_model::ssh::{Session, SessionId};
use speediso_sys::clock::uptime_ms;
use speediso_sys::terminal::Size;

/// Beside the agent's own state, and like that root's alone.
pub const DIR: &str = "/run/speediso/ssh";
/// Of all that ended; the oldest are removed to make room.
const ROOM: u64 = 16 << 20;
const MOST: usize = 100;

/// What is known of a session, and whose it is as long as it goes on.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Kept {
    pub session: Session,
    pub pid: i32,
}

impl Kept {
    /// Ended by itself, or died without a word.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.session.ended_ms.is_some() || kill(Pid::from_raw(self.pid), None).is_err()
    }
}

/// A recording while it is made. Its writers are threads that share it.
#[derive(Clone, Debug)]
pub struct Recording(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    dir: PathBuf,
    kept: Kept,
    cast: File,
    begun: Instant,
    written: u64,
    room: u64,
    /// The beginning of a character whose rest is still to come.
    rest: Vec<u8>,
}

impl Recording {
    /// # Errors
    /// When there is no place for it.
    pub fn begin(dir: &Path, session: Session, size: Option<Size>, room: u64) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        make_room(dir);
        let kept = Kept { session, pid: i32::try_from(std::process::id()).unwrap_or(0) };
        let id = kept.session.id;
        let cast = OpenOptions::new().append(true).create_new(true).mode(0o600).open(cast_file(dir, id))?;
        let size = size.unwrap_or(Size { rows: 24, cols: 80 });
        let header = serde_json::json!({
            "version": 2,
            "width": size.cols,
            "height": size.rows,
            "timestamp": SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |t| t.as_secs()),
            "title": kept.session.command.as_deref().unwrap_or("shell"),
        });
        let mut inner =
            Inner { dir: dir.to_owned(), kept, cast, begun: Instant::now(), written: 0, room, rest: Vec::new() };
        inner.line(&header.to_string())?;
        inner.keep()?;
        Ok(Self(Arc::new(Mutex::new(inner))))
    }

    pub fn shown(&self, bytes: &[u8]) {
        self.lock().shown(bytes);
    }

    pub fn resized(&self, size: Size) {
        self.lock().event("r", &format!("{}x{}", size.cols, size.rows));
    }

    pub fn end(&self, status: i32) {
        let mut inner = self.lock();
        let rest = std::mem::take(&mut inner.rest);
        if !rest.is_empty() {
            inner.event("o", &String::from_utf8_lossy(&rest));
        }
        inner.kept.session.ended_ms = Some(uptime_ms());
        inner.kept.session.status = Some(status);
        // Without it the agent finds a process that is gone, and an end without a status.
        let _ = inner.keep();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn shown(&mut self, bytes: &[u8]) {
        self.rest.extend_from_slice(bytes);
        let whole = whole_characters(&self.rest);
        let tail = self.rest.split_off(whole);
        let text = std::mem::replace(&mut self.rest, tail);
        if !text.is_empty() {
            self.event("o", &String::from_utf8_lossy(&text));
        }
    }

    fn event(&mut self, kind: &str, text: &str) {
        if self.kept.session.cut {
            return;
        }
        let at = self.begun.elapsed().as_secs_f64();
        let line = serde_json::json!([at, kind, text]).to_string();
        // Memory that ran out cuts a recording, never a session.
        if self.written + line.len() as u64 + 1 > self.room || self.line(&line).is_err() {
            self.kept.session.cut = true;
            let _ = self.keep();
        }
    }

    fn line(&mut self, line: &str) -> io::Result<()> {
        self.cast.write_all(format!("{line}\n").as_bytes())?;
        self.written += line.len() as u64 + 1;
        Ok(())
    }

    fn keep(&self) -> io::Result<()> {
        put(&self.dir, &self.kept)
    }
}

/// As many bytes as are no beginning of an unfinished character.
fn whole_characters(bytes: &[u8]) -> usize {
    let from = bytes.len().saturating_sub(3);
    for (i, byte) in bytes.iter().enumerate().skip(from) {
        let length = match byte {
            0xc2..=0xdf => 2,
            0xe0..=0xef => 3,
            0xf0..=0xf4 => 4,
            _ => continue,
        };
        if bytes.len() - i < length && bytes[i + 1..].iter().all(|b| (0x80..0xc0).contains(b)) {
            return i;
        }
    }
    bytes.len()
}

fn cast_file(dir: &Path, id: SessionId) -> PathBuf {
    dir.join(format!("{id}.cast"))
}

fn facts_file(dir: &Path, id: SessionId) -> PathBuf {
    dir.join(format!("{id}.json"))
}

fn put(dir: &Path, kept: &Kept) -> io::Result<()> {
    let part = dir.join(format!(".{}.part", kept.session.id));
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&part)?;
    file.write_all(&serde_json::to_vec(kept)?)?;
    fs::rename(part, facts_file(dir, kept.session.id))
}

/// All that there are, oldest first. What cannot be read is passed over: it is somebody else's.
#[must_use]
pub fn all(dir: &Path) -> Vec<Kept> {
    let mut all: Vec<Kept> = fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|e| e == "json"))
        .filter_map(|path| serde_json::from_slice(&fs::read(path).ok()?).ok())
        .collect();
    all.sort_by_key(|kept| (kept.session.began_ms, kept.session.id));
    all
}

/// Of the recording, from `offset` on, at most so much.
///
/// # Errors
/// When it is gone.
pub fn read(dir: &Path, id: SessionId, offset: u64, most: usize) -> io::Result<Vec<u8>> {
    let mut file = File::open(cast_file(dir, id))?;
    file.seek(SeekFrom::Start(offset))?;
    let mut bytes = Vec::new();
    file.take(most as u64).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// It is elsewhere now.
pub fn forget(dir: &Path, id: SessionId) {
    let _ = fs::remove_file(facts_file(dir, id));
    let _ = fs::remove_file(cast_file(dir, id));
}

fn make_room(dir: &Path) {
    let size = |kept: &Kept| fs::metadata(cast_file(dir, kept.session.id)).map_or(0, |m| m.len());
    let over: Vec<Kept> = all(dir).into_iter().filter(Kept::is_over).collect();
    let mut bytes: u64 = over.iter().map(size).sum();
    let mut left = over.len();
    for kept in &over {
        if bytes <= ROOM && left <= MOST {
            return;
        }
        bytes -= size(kept).min(bytes);
        left -= 1;
        forget(dir, kept.session.id);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn session(n: u128, command: Option<&str>) -> Session {
        Session {
            id: SessionId(uuid::Uuid::from_u128(n)),
            key: "SHA256:x".into(),
            from: "192.0.2.1".into(),
            command: command.map(str::to_owned),
            began_ms: u64::try_from(n).expect("small"),
            ended_ms: None,
            status: None,
            cut: false,
        }
    }

    fn lines(dir: &Path, id: SessionId) -> Vec<serde_json::Value> {
        let cast = read(dir, id, 0, 1 << 20).expect("there");
        String::from_utf8(cast).expect("text").lines().map(|l| serde_json::from_str(l).expect("JSON")).collect()
    }

    #[test]
    fn a_recording_is_what_asciinema_reads() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let dir = dir.path().join("ssh");
        let recording =
            Recording::begin(&dir, session(1, None), Some(Size { rows: 30, cols: 100 }), 1 << 20).expect("begun");
        let one = all(&dir);
        assert!(one.len() == 1 && !one[0].is_over());
        recording.shown("gr\u{fc}n \u{1b}[1m\"".as_bytes());
        recording.shown(b"a\xc3");
        recording.shown(b"\xa4\xff");
        recording.resized(Size { rows: 40, cols: 120 });
        recording.end(7);
        let lines = lines(&dir, one[0].session.id);
        assert_eq!((&lines[0]["version"], &lines[0]["width"]), (&2.into(), &100.into()));
        let shown: String = lines[1..].iter().filter(|l| l[1] == "o").filter_map(|l| l[2].as_str()).collect();
        assert_eq!(shown, "gr\u{fc}n \u{1b}[1m\"a\u{e4}\u{fffd}");
        assert!(lines.iter().any(|l| l[1] == "r" && l[2] == "120x40"));
        let ended = &all(&dir)[0];
        assert!(ended.is_over() && ended.session.status == Some(7));
        forget(&dir, ended.session.id);
        assert!(all(&dir).is_empty());
    }

    #[test]
    fn a_full_recording_says_so_and_old_ones_make_room() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let dir = dir.path();
        let recording = Recording::begin(dir, session(1, Some("yes")), None, 1000).expect("begun");
        for _ in 0..100 {
            recording.shown(b"yyyyyyyyyyyyyyyyyyyyy");
        }
        recording.end(0);
        assert!(all(dir)[0].session.cut);
        assert!(read(dir, all(dir)[0].session.id, 0, 1 << 20).expect("there").len() <= 1000);
        for n in 2..200 {
            Recording::begin(dir, session(n, Some("true")), None, 1000).expect("begun").end(0);
        }
        let kept = all(dir);
        assert_eq!(kept.len(), MOST + 1);
        assert_eq!(kept.last().map(|k| k.session.began_ms), Some(199));
    }

    proptest! {
        /// However the bytes are cut, what is recorded is the text.
        #[test]
        fn characters_are_never_cut(text in "\\PC{0,40}", cuts in prop::collection::vec(0usize..8, 0..60)) {
            let (mut rest, mut seen, mut bytes) = (Vec::new(), String::new(), text.as_bytes());
            for cut in cuts.into_iter().chain([usize::MAX]) {
                let (now, later) = bytes.split_at(cut.min(bytes.len()));
                bytes = later;
                rest.extend_from_slice(now);
                let tail = rest.split_off(whole_characters(&rest));
                seen.push_str(std::str::from_utf8(&rest).expect("whole characters"));
                rest = tail;
            }
            prop_assert!(rest.is_empty());
            prop_assert_eq!(seen, text);
        }
    }
}

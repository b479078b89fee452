//! A bad disk: an NBD server that QEMU uses as the medium of a machine's disk and that fails as its rules say.
//!
//! Every fault is at a known place and time, and what the disk holds afterwards can be read in its file: a request that
//! failed, hung or was lied about has not reached it.

mod history;
mod plan;
mod wire;

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufReader};
use std::net::Shutdown;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

pub use self::history::{Done, History};
use self::plan::is_change;
pub use self::plan::{Errno, On, Rule, Then};
pub use self::wire::Operation;
use self::wire::Request;
use crate::error::{Doing, LabError, Result};

/// A request that met a rule.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Met {
    pub operation: Operation,
    pub offset: u64,
    pub length: u64,
    pub then: Then,
}

struct State {
    rules: Vec<Rule>,
    met: Vec<Met>,
    history: History,
    recording: bool,
    /// Cookies of requests without an answer, with where it belongs.
    hanging: Vec<(Arc<UnixStream>, u64)>,
    connections: Vec<Arc<UnixStream>>,
    vanished: bool,
}

struct Shared {
    file: File,
    size: u64,
    state: Mutex<State>,
    changed: Condvar,
    stop: AtomicBool,
}

/// The server; everything it does ends when it is dropped.
pub struct BadDisk {
    socket: PathBuf,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl std::fmt::Debug for BadDisk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BadDisk").field("socket", &self.socket).finish_non_exhaustive()
    }
}

impl BadDisk {
    /// Serves `file` on a socket beside it.
    pub fn start(file: &Path, rules: Vec<Rule>) -> Result<Self> {
        let socket = file.with_extension("nbd");
        let opening = || format!("opening {} as a disk's medium", file.display());
        let file = File::options().read(true).write(true).open(file).doing(opening)?;
        let size = file.metadata().doing(opening)?.len();
        let listener = UnixListener::bind(&socket).doing(|| format!("listening at {}", socket.display()))?;
        let state = State {
            rules,
            met: Vec::new(),
            history: History::default(),
            recording: false,
            hanging: Vec::new(),
            connections: Vec::new(),
            vanished: false,
        };
        let shared = Arc::new(Shared {
            file,
            size,
            state: Mutex::new(state),
            changed: Condvar::new(),
            stop: AtomicBool::new(false),
        });
        let thread = std::thread::spawn({
            let shared = Arc::clone(&shared);
            move || accept(&listener, &shared)
        });
        Ok(Self { socket, shared, thread: Some(thread) })
    }

    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// From now on what is written is kept for [`History::cut`].
    pub fn record(&self) {
        let mut state = self.shared.state();
        state.recording = true;
        state.history = History::default();
    }

    /// What was done since recording began.
    pub fn history(&self) -> History {
        self.shared.state().history.clone()
    }

    /// Every request so far that met a rule.
    pub fn met(&self) -> Vec<Met> {
        self.shared.state().met.clone()
    }

    /// Waits until a request meets a rule.
    pub fn wait_met(&self, limit: Duration) -> Result<Met> {
        let end = Instant::now() + limit;
        let mut state = self.shared.state();
        loop {
            if let Some(met) = state.met.first() {
                return Ok(*met);
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let what = format!("a request to {} that meets a rule", self.socket.display());
                return Err(LabError::NotReached { what, limit, last: format!("{} requests", state.history.len()) });
            }
            state = self.shared.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// The disk is well again: no rules any more, and what hung is answered, as failed.
    pub fn release(&self) {
        let mut state = self.shared.state();
        state.rules.clear();
        for (stream, cookie) in std::mem::take(&mut state.hanging) {
            // Whoever asked may be gone.
            let _ = wire::reply(&mut &*stream, cookie, Errno::Io as u32, &[]);
        }
    }
}

impl Drop for BadDisk {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        for stream in &self.shared.state().connections {
            let _ = stream.shutdown(Shutdown::Both);
        }
        // Wakes the listener, which then sees the flag.
        let _ = UnixStream::connect(&self.socket);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        let _ = std::fs::remove_file(&self.socket);
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // A panic in a test must not hide what the disk has seen.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The rule for this request, if there is one, which is noted.
    fn rule(&self, request: &Request, bytes: &Range<u64>) -> Option<Rule> {
        let mut state = self.state();
        let rule =
            state.rules.iter_mut().find_map(|rule| rule.meets(request.operation, bytes).then(|| rule.clone()))?;
        let Request { operation, offset, length, .. } = *request;
        state.met.push(Met { operation, offset, length, then: rule.then });
        self.changed.notify_all();
        Some(rule)
    }

    /// Of a request with several bad places all are bad: kernels and virtual machines join requests as they like.
    fn flips(&self, bytes: &Range<u64>) -> BTreeSet<u64> {
        let mut state = self.state();
        let others = state.rules.iter_mut().filter(|rule| rule.then == Then::FlipBit);
        others.filter_map(|rule| rule.meets(Operation::Read, bytes).then(|| rule.place())).collect()
    }

    /// Does the first `length` bytes of what is asked.
    fn carry_out(&self, request: &Request, length: u64) -> io::Result<Vec<u8>> {
        let here = usize::try_from(length).map_err(io::Error::other)?;
        let mut answer = Vec::new();
        match request.operation {
            Operation::Read => {
                answer.resize(here, 0);
                self.file.read_exact_at(&mut answer, request.offset)?;
            }
            Operation::Write => self.file.write_all_at(&request.data[..here], request.offset)?,
            Operation::Trim | Operation::Zero => self.file.write_all_at(&vec![0; here], request.offset)?,
            Operation::Flush => {}
        }
        Ok(answer)
    }

    fn note(&self, request: Request, bytes: &Range<u64>) {
        let mut state = self.state();
        if is_change(request.operation) {
            state.rules.iter_mut().for_each(|rule| rule.saw_change(bytes));
        }
        let Request { operation, offset, length, data, .. } = request;
        if operation != Operation::Read && state.recording {
            state.history.0.push(Done { operation, offset, length, data });
        }
    }
}

fn accept(listener: &UnixListener, shared: &Arc<Shared>) {
    for stream in listener.incoming() {
        if shared.stop.load(Ordering::Relaxed) {
            return;
        }
        let Ok(stream) = stream.map(Arc::new) else { continue };
        let mut state = shared.state();
        if !state.vanished {
            state.connections.push(Arc::clone(&stream));
            let shared = Arc::clone(shared);
            // A machine that is switched off leaves in the middle, which is its right.
            std::thread::spawn(move || drop(serve(&stream, &shared)));
        }
    }
}

fn serve(stream: &Arc<UnixStream>, shared: &Shared) -> io::Result<()> {
    if !wire::negotiate(&mut &**stream, shared.size)? {
        return Ok(());
    }
    let mut requests = BufReader::with_capacity(1 << 20, &**stream);
    while let Some(request) = wire::read_request(&mut requests)? {
        answer(request, stream, shared)?;
    }
    Ok(())
}

fn answer(request: Request, stream: &Arc<UnixStream>, shared: &Shared) -> io::Result<()> {
    let cookie = request.cookie;
    // Answers may come from whoever releases the disk too: each is written whole, under the lock.
    let reply = |error: u32, data: &[u8]| {
        let _state = shared.state();
        wire::reply(&mut &**stream, cookie, error, data)
    };
    let bytes = request.offset..request.offset.saturating_add(request.length);
    if bytes.end > shared.size {
        return reply(Errno::NoSpace as u32, &[]);
    }
    let rule = shared.rule(&request, &bytes);
    let mut data = Vec::new();
    match rule.as_ref().map(|rule| rule.then) {
        Some(Then::Fail(errno)) => {
            let good = rule.map_or(0, |rule| rule.good_before(&bytes));
            shared.carry_out(&request, good)?;
            return reply(errno as u32, &[]);
        }
        Some(Then::Hang) => {
            shared.state().hanging.push((Arc::clone(stream), cookie));
            return Ok(());
        }
        Some(Then::Vanish) => {
            let mut state = shared.state();
            state.vanished = true;
            for stream in &state.connections {
                let _ = stream.shutdown(Shutdown::Both);
            }
            return Ok(());
        }
        Some(Then::Lie) if request.operation != Operation::Read => {}
        Some(Then::Delay(late)) => {
            std::thread::sleep(late);
            data = shared.carry_out(&request, request.length)?;
            shared.note(request, &bytes);
        }
        Some(Then::FlipBit) => {
            data = shared.carry_out(&request, request.length)?;
            let mut places: BTreeSet<u64> = shared.flips(&bytes);
            places.extend(rule.map(|rule| rule.place()));
            for place in places {
                let at = usize::try_from(place.saturating_sub(bytes.start)).ok();
                if let Some(byte) = at.and_then(|at| data.get_mut(at)) {
                    *byte ^= 1;
                }
            }
        }
        Some(Then::Misdirect(to)) if request.operation == Operation::Write => {
            let room = usize::try_from(shared.size.saturating_sub(to)).unwrap_or(usize::MAX);
            let lands = &request.data[..request.data.len().min(room)];
            shared.file.write_all_at(lands, to)?;
        }
        Some(Then::Lie | Then::Misdirect(_)) | None => {
            data = shared.carry_out(&request, request.length)?;
            shared.note(request, &bytes);
        }
    }
    reply(0, &data)
}

#[cfg(test)]
mod tests;

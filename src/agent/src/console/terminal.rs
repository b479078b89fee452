//! One console: shows what there is, takes keys, lends itself to a shell, and gets over being hung up.
//!
//! A console is *ours* (it shows the status screen or a page), or *lent*: to a program we started, or to a session that we
//! found on it, such as a shell that outlived the agent before us. On a lent one only errors are shown, as plain lines:
//! failure is never silent, and nothing else gets into somebody's way.
//!
//! Nothing here blocks. What a line cannot carry is not queued: lines of the log wait in the log itself, and a head that
//! was overtaken by the next is never drawn.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use speediso_model::log::{LogLevel, LogSource};
use speediso_sys::disks::DiskScope;
use speediso_sys::roots::Roots;
use speediso_sys::terminal;
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::board::{Board, Status};
use super::child::{self, Program};
use super::grid::harmless_text;
use super::keys::{ASK_SIZE, Key, Keys};
use super::pace::Pace;
use super::pages::Pager;
use super::painter::{Area, Painter};
use super::qr::{self, Glyphs};
use super::view::{View, Wish, keys};
use crate::inventory;
use crate::logs::{Logs, Reader};
use crate::ready::watched;

/// What a serial line is taken for until its terminal says otherwise.
const SERIAL: Area = Area { rows: 24, cols: 80 };
/// A line whose speed the kernel does not tell.
const SLOW: u32 = 960;
/// A page that nobody reads gives way to the status.
const PAGE_FOR: Duration = Duration::from_secs(120);
/// Between an Escape and what belongs to it.
const ESCAPE: Duration = Duration::from_millis(200);
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// Larger answers to a question about the size are no terminal's.
const LARGEST: Area = Area { rows: 200, cols: 400 };

pub(super) struct Console {
    pub(super) path: PathBuf,
    /// A screen of the kernel's own, rather than a line to somebody's.
    pub(super) vt: bool,
    pub(super) shell: bool,
    pub(super) logs: Logs,
    pub(super) board: Board,
}

/// Why a console is no longer ours.
enum End {
    Lend(Program),
    HungUp,
}

impl Console {
    /// Runs for ever.
    pub(super) async fn run(self) {
        let reader = self.logs.reader();
        let mut next = 0;
        loop {
            if let Ok(file) = open(&self.path) {
                self.while_held(&file, &reader, &mut next).await;
                match Session::new(&self, file, &reader, &mut next) {
                    Ok(mut session) => {
                        if let End::Lend(program) = session.run().await {
                            drop(session);
                            self.lend(program, &reader, &mut next).await;
                            continue;
                        }
                    }
                    Err(error) => tracing::debug!("console {}: {error}", self.path.display()),
                }
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    async fn lend(&self, program: Program, reader: &Reader, next: &mut u64) {
        let mut child = match child::start(program, &self.path, self.vt) {
            Ok(child) => child,
            Err(error) => return tracing::warn!("console {}: starting {program:?}: {error}", self.path.display()),
        };
        loop {
            tokio::select! {
                _ = child.wait() => return,
                () = tokio::time::sleep(LOOK_AGAIN) => {
                    if let Ok(file) = open(&self.path) {
                        self.errors(&file, reader, next);
                    }
                }
            }
        }
    }

    /// Waits until nobody else has it.
    async fn while_held(&self, file: &File, reader: &Reader, next: &mut u64) {
        while terminal::has_session(&Roots::live(), file).unwrap_or(false) {
            self.errors(file, reader, next);
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    fn errors(&self, mut file: &File, reader: &Reader, next: &mut u64) {
        let batch = self.logs.after(*next, usize::MAX);
        for line in batch.lines.iter().filter(|l| l.level == LogLevel::Error && l.source == LogSource::Agent) {
            // A terminal that takes nothing shows nothing; the log has it.
            let _ = file.write(format!("\r\n{}\r\n", harmless_text(&line.to_string())).as_bytes());
        }
        *next = batch.next;
        reader.reached(*next);
    }
}

fn open(path: &Path) -> io::Result<File> {
    // Nobody's controlling terminal by our opening it, and no waiting for a line without a listener.
    OpenOptions::new().read(true).write(true).custom_flags(libc::O_NOCTTY | libc::O_NONBLOCK).open(path)
}

/// A console while it is ours.
struct Session<'a> {
    console: &'a Console,
    file: AsyncFd<File>,
    painter: Painter,
    view: View,
    page_until: Option<Instant>,
    keys: Keys,
    pace: Pace,
    /// Being written.
    pending: Vec<u8>,
    /// The status changed, or is not shown yet.
    dirty: bool,
    asked_size: bool,
    details: Option<JoinHandle<String>>,
    status: watch::Receiver<Status>,
    reader: &'a Arc<Reader>,
    next: &'a mut u64,
}

impl<'a> Session<'a> {
    fn new(console: &'a Console, file: File, reader: &'a Arc<Reader>, next: &'a mut u64) -> io::Result<Self> {
        terminal::set_raw(&file)?;
        let area = area(&file).unwrap_or(SERIAL);
        let rate = (!console.vt).then(|| terminal::bytes_per_second(&file).unwrap_or(SLOW));
        Ok(Self {
            file: watched(file)?,
            painter: Painter::new(area),
            view: View::Status,
            page_until: None,
            keys: Keys::default(),
            pace: Pace::new(rate, Instant::now()),
            pending: Vec::new(),
            dirty: true,
            asked_size: false,
            details: None,
            status: console.board.subscribe(),
            console,
            reader,
            next,
        })
    }

    /// Until it is lent or hung up. Woken by: room to write, a key, a line of the log, a change of the status, the
    /// inventory when it was asked for, and the moment from which the line may be given more.
    async fn run(&mut self) -> End {
        let mut newest = self.console.logs.newest();
        loop {
            if self.pending.is_empty() {
                newest.mark_unchanged();
                self.compose();
            }
            let timer = self.timer();
            tokio::select! {
                ready = self.file.writable(), if !self.pending.is_empty() => {
                    let Ok(mut ready) = ready else { return End::HungUp };
                    let pending = &self.pending;
                    match ready.try_io(|file| { let mut file = file.get_ref(); file.write(pending) }) {
                        Ok(Ok(n)) => { self.pending.drain(..n); }
                        Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                        Ok(Err(_)) => return End::HungUp,
                        Err(_full) => {}
                    }
                }
                ready = self.file.readable() => {
                    let Ok(mut ready) = ready else { return End::HungUp };
                    // One at a time: what is typed behind an `s` is the shell's.
                    let mut byte = [0];
                    match ready.try_io(|file| { let mut file = file.get_ref(); file.read(&mut byte) }) {
                        Ok(Ok(1)) => {
                            if let Some(key) = self.keys.take(byte[0])
                                && let Some(end) = self.press(key).await
                            {
                                return end;
                            }
                        }
                        Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                        Ok(_) => return End::HungUp,
                        Err(_nothing) => {}
                    }
                }
                _ = newest.changed() => {}
                _ = self.status.changed() => self.dirty = true,
                text = async { match &mut self.details { Some(task) => task.await, None => std::future::pending().await } } => {
                    self.details = None;
                    let text = text.unwrap_or_else(|error| format!("reading the machine: {error}"));
                    self.show(Pager::from_start("Details of this machine", &text));
                }
                () = tokio::time::sleep_until(timer.unwrap_or_else(Instant::now).into()), if timer.is_some() => {
                    if let Some(key) = self.keys.pause()
                        && let Some(end) = self.press(key).await
                    {
                        return end;
                    }
                }
            }
        }
    }

    /// When to look again without being woken.
    fn timer(&self) -> Option<Instant> {
        let now = Instant::now();
        let escape = self.keys.is_waiting().then(|| now + ESCAPE);
        let behind = self.pending.is_empty()
            && matches!(self.view, View::Status)
            && *self.next < *self.console.logs.newest().borrow();
        let lines = behind.then(|| self.pace.free_at().max(now + Duration::from_millis(5)));
        let head =
            (self.pending.is_empty() && self.dirty).then(|| self.pace.head_at().max(now + Duration::from_millis(5)));
        [escape, lines, head, self.page_until].into_iter().flatten().min()
    }

    /// Decides what to write next, if anything may be written now.
    fn compose(&mut self) {
        let now = Instant::now();
        if let Some(area) = area(self.file.get_ref()) {
            let before = self.painter.area();
            self.painter.resize(area);
            self.dirty |= before != area;
        }
        if self.page_until.is_some_and(|until| until <= now) {
            self.back();
        }
        if now < self.pace.free_at() {
            return;
        }
        let (mut of_head, area) = (0, self.painter.area());
        match &self.view {
            View::Status => {
                if !self.painter.shows_status() {
                    of_head = self.enter();
                } else {
                    let lines = self.lines();
                    self.pending.extend(self.painter.lines(&lines));
                    if self.dirty && now >= self.pace.head_at() {
                        let head = self.painter.status(&self.status.borrow_and_update(), keys(self.console.shell), &[]);
                        of_head = head.len();
                        self.pending.extend(head);
                        self.dirty = false;
                    }
                }
            }
            page => {
                let grid = match page {
                    View::Pager(pager) => pager.grid(area),
                    _ => qr::grid(&self.status.borrow(), area, self.glyphs()),
                };
                of_head = 1;
                self.pending.extend(self.painter.page(grid));
                self.dirty = false;
                // Lines that come meanwhile are shown on the way back.
                self.reader.reached(u64::MAX);
            }
        }
        self.pace.gave(self.pending.len(), of_head, now);
    }

    fn glyphs(&self) -> Glyphs {
        if self.console.vt { Glyphs::HalfBlocks } else { Glyphs::Ascii }
    }

    /// The whole status screen, with as many of the last lines as it holds.
    fn enter(&mut self) -> usize {
        let most = self.painter.log_rows() as u64;
        let newest = *self.console.logs.newest().borrow();
        let from = newest.saturating_sub(most.saturating_sub(1));
        let batch = self.console.logs.after(from, usize::MAX);
        let tail: Vec<String> =
            batch.lines.iter().filter(|l| l.source == LogSource::Agent).map(|l| l.to_string()).collect();
        let bytes = self.painter.status(&self.status.borrow_and_update(), keys(self.console.shell), &tail);
        self.dirty = false;
        self.pending.extend(&bytes);
        self.reached(batch.next);
        bytes.len()
    }

    /// As many lines as the line takes now.
    fn lines(&mut self) -> Vec<String> {
        let (mut lines, mut bytes, portion) = (Vec::new(), 0, self.pace.portion());
        loop {
            let batch = self.console.logs.after(*self.next, 1);
            let Some(line) = batch.lines.first() else { break };
            if batch.lost > 0 {
                lines.push(format!(
                    "({} lines were too many for this console; see /run/speediso/agent.log)",
                    batch.lost
                ));
            }
            if line.source == LogSource::Kernel {
                // Those it prints it has put here by itself, and perhaps into the middle of our head.
                if line.level.syslog_severity() < printed_below() {
                    self.painter.disturbed();
                    self.dirty = true;
                }
            } else {
                let text = line.to_string();
                bytes += text.len() + 2;
                lines.push(text);
            }
            self.reached(batch.next);
            if bytes >= portion {
                break;
            }
        }
        lines
    }

    fn reached(&mut self, next: u64) {
        *self.next = next;
        self.reader.reached(next);
    }

    fn show(&mut self, pager: Pager) {
        self.view = View::Pager(pager);
        self.page_until = Some(Instant::now() + PAGE_FOR);
        self.dirty = true;
    }

    fn back(&mut self) {
        self.view = View::Status;
        self.page_until = None;
        self.dirty = true;
    }

    async fn press(&mut self, key: Key) -> Option<End> {
        if !self.console.vt && !self.asked_size {
            // Only once somebody is there: to a line that is merely recorded nothing is asked.
            self.asked_size = true;
            self.pending.extend_from_slice(ASK_SIZE);
        }
        let wish = self.view.press(key, self.painter.area(), self.console.shell);
        self.page_until = (!matches!(self.view, View::Status)).then(|| Instant::now() + PAGE_FOR);
        self.dirty = true;
        match wish {
            Wish::Nothing => {}
            Wish::Repaint => self.painter.disturbed(),
            Wish::Resize(area) => {
                let sensible = (4..=LARGEST.rows).contains(&area.rows) && (20..=LARGEST.cols).contains(&area.cols);
                if sensible && area != self.painter.area() && !self.console.vt {
                    self.painter.resize(area);
                }
            }
            Wish::NoShell => {
                let said = self.painter.lines(&["no shell here: speediso.console_shell=off".to_owned()]);
                self.pending.extend(said);
            }
            Wish::Log => {
                let lines = self.console.logs.kept().iter().map(|line| line.to_string()).collect();
                self.show(Pager::from_end("Log", lines));
            }
            Wish::Details => {
                self.show(Pager::from_start("Details of this machine", "reading the machine ..."));
                self.details =
                    Some(tokio::task::spawn_blocking(|| inventory::page(&inventory::look(DiskScope::default()))));
            }
            Wish::Shell => return Some(self.leave(Program::Shell).await),
            Wish::NetworkDoctor => return Some(self.leave(Program::NetworkDoctor).await),
        }
        None
    }

    /// Gives the terminal away empty. What does not get through in time is not worth waiting for.
    async fn leave(&mut self, program: Program) -> End {
        self.pending.extend(self.painter.leave());
        let written = async {
            while !self.pending.is_empty() {
                let mut ready = self.file.writable().await?;
                let pending = &self.pending;
                if let Ok(written) = ready.try_io(|file| {
                    let mut file = file.get_ref();
                    file.write(pending)
                }) {
                    let n = written?;
                    self.pending.drain(..n);
                }
            }
            Ok::<(), io::Error>(())
        };
        match tokio::time::timeout(Duration::from_secs(2), written).await {
            Ok(Err(_)) => End::HungUp,
            _ => End::Lend(program),
        }
    }
}

/// The kernel prints what is more severe than this: the first figure of `/proc/sys/kernel/printk`.
fn printed_below() -> u8 {
    let text = std::fs::read_to_string("/proc/sys/kernel/printk").unwrap_or_default();
    // Unknown: as if it printed everything.
    text.split_whitespace().next().and_then(|n| n.parse().ok()).unwrap_or(u8::MAX)
}

fn area(file: &File) -> Option<Area> {
    terminal::size(file).map(|size| Area { rows: size.rows.into(), cols: size.cols.into() })
}

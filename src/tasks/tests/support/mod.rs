//! Real loop devices and a real, and sometimes lying, HTTP server.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "tests; each file uses a part"
)]

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use speediso_model::build::BuildInfo;
use speediso_model::fault::FaultCode;
use speediso_model::hints::RootDeviceHints;
use speediso_model::image::{Compression, ImageDigest, ImageFormat, ImageSource};
use speediso_model::outcome::{Outcome, TaskResult};
use speediso_model::task::Task;
use speediso_sys::disks::DiskScope;
use speediso_sys::roots::Roots;
use speediso_tasks::ctx::{Cancel, Patience, ProgressUpdate, Reporter, TaskCtx};
use speediso_tasks::tools::Tools;

pub const MIB: u64 = 1 << 20;

/// Runs a tool to its end; its whole output on failure.
#[track_caller]
pub fn tool(program: &str, args: &[&str]) -> String {
    let out = Command::new(program).args(args).output().unwrap_or_else(|e| panic!("{program} is needed: {e}"));
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(out.status.success(), "{program} {args:?}: {}\n{text}{}", out.status, String::from_utf8_lossy(&out.stderr));
    text
}

/// A file as a disk. Detached on drop; `SPEEDISO_KEEP=1` keeps it for looking.
pub struct LoopDisk {
    pub device: String,
    pub file: PathBuf,
    _dir: Option<tempfile::TempDir>,
}

impl LoopDisk {
    #[track_caller]
    pub fn new(size: u64, sector: u32) -> Self {
        assert!(nix_is_root(), "loop devices need root: run the tests as root");
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("disk");
        File::create(&file).unwrap().set_len(size).unwrap();
        let mut disk = Self::attach(&file, sector);
        disk._dir = Some(dir);
        disk
    }

    #[track_caller]
    pub fn attach(file: &Path, sector: u32) -> Self {
        let sector = sector.to_string();
        let out = tool("losetup", &["-f", "--show", "-b", &sector, file.to_str().unwrap()]);
        Self { device: out.trim().to_owned(), file: file.to_owned(), _dir: None }
    }

    /// One that was attached already.
    pub fn named(device: String, file: &Path) -> Self {
        Self { device, file: file.to_owned(), _dir: None }
    }

    /// Fills it with bytes that tell whether anybody wrote.
    pub fn fill(&self, seed: u8) -> [u8; 32] {
        let file = File::options().write(true).open(&self.file).unwrap();
        let size = file.metadata().unwrap().len();
        let mut block = vec![0u8; usize::try_from(MIB).unwrap()];
        for at in (0..size).step_by(block.len()) {
            for (i, byte) in block.iter_mut().enumerate() {
                *byte = seed.wrapping_add((at / MIB) as u8).wrapping_mul(31).wrapping_add((i % 251) as u8);
            }
            let n = block.len().min(usize::try_from(size - at).unwrap());
            file.write_all_at(&block[..n], at).unwrap();
        }
        file.sync_all().unwrap();
        tool("blockdev", &["--flushbufs", &self.device]);
        self.digest()
    }

    /// Of what is on the medium.
    pub fn digest(&self) -> [u8; 32] {
        tool("blockdev", &["--flushbufs", &self.device]);
        Sha256::digest(std::fs::read(&self.file).unwrap()).into()
    }

    /// As somebody else would.
    pub fn write(&self, offset: u64, bytes: &[u8]) {
        let device = std::fs::OpenOptions::new().write(true).open(&self.device).unwrap();
        device.write_all_at(bytes, offset).unwrap();
        device.sync_all().unwrap();
    }

    pub fn bytes(&self, offset: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        File::open(&self.file).unwrap().read_exact_at(&mut bytes, offset).unwrap();
        bytes
    }

    /// Its file is what a loop device has for a serial number.
    pub fn hints(&self) -> RootDeviceHints {
        RootDeviceHints { serial: Some(self.file.to_str().unwrap().into()), ..RootDeviceHints::default() }
    }
}

impl Drop for LoopDisk {
    fn drop(&mut self) {
        if std::env::var_os("SPEEDISO_KEEP").is_some() {
            eprintln!("kept {} on {}", self.device, self.file.display());
            if let Some(dir) = self._dir.take() {
                let _ = dir.keep();
            }
            return;
        }
        let _ = Command::new("losetup").args(["-d", &self.device]).status();
    }
}

fn nix_is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|m| std::os::unix::fs::MetadataExt::uid(&m) == 0)
}

/// Keeps what it is told.
#[derive(Default)]
pub struct Told(pub Mutex<Vec<String>>);

impl Reporter for Told {
    fn step_began(&self, step: &str) {
        self.0.lock().unwrap().push(format!("began {step}"));
    }
    fn step_ended(&self, step: &str, _: &str) {
        self.0.lock().unwrap().push(format!("ended {step}"));
    }
    fn notice(&self, text: &str) {
        self.0.lock().unwrap().push(text.into());
    }
    fn progress(&self, update: ProgressUpdate) {
        assert!(update.total.is_none_or(|t| update.current <= t), "progress beyond its total: {update:?}");
    }
}

pub struct Bench {
    pub ctx: TaskCtx,
    _runtime: tokio::runtime::Runtime,
}

impl Bench {
    pub fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let ctx = TaskCtx {
            roots: Roots::live(),
            scope: DiskScope { loops: true },
            skip: Default::default(),
            reporter: Arc::new(Told::default()),
            cancel: Cancel::default(),
            http: http_client(),
            runtime: runtime.handle().clone(),
            probe: None,
            boot_mac: None,
            build: BuildInfo::default(),
            uploads: None,
            resuming: false,
            sharing: None,
            tools: Tools::of_system(None),
            patience: Patience {
                connect: Duration::from_secs(5),
                stall: Duration::from_secs(1),
                tries: 6,
                first_pause: Duration::from_millis(10),
                longest_pause: Duration::from_millis(50),
            },
        };
        Self { ctx, _runtime: runtime }
    }

    /// Plans and executes, as the engine does.
    #[track_caller]
    pub fn run(&self, task: &Task) -> TaskResult {
        match speediso_tasks::plan(task, &self.ctx) {
            Ok(plan) => speediso_tasks::execute(task, &plan.digest(), &self.ctx),
            Err(fault) => TaskResult::failed(task.kind(), Outcome::FailedUnchanged, fault),
        }
    }
}

fn http_client() -> reqwest::Client {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    reqwest::Client::builder().tls_backend_preconfigured(config).no_proxy().build().unwrap()
}

/// How a server answers.
#[derive(Clone)]
pub enum Answer {
    Whole,
    Status(u16),
    /// Announces everything and ends after this many bytes.
    CutAfter(usize),
    /// No Content-Length, ends after this many bytes.
    SilentCutAfter(usize),
    /// Announces this much less than it sends.
    AnnounceLess(usize),
}

/// Serves one body to everybody until it is dropped.
pub struct Server {
    pub url: String,
    stop: Arc<std::sync::atomic::AtomicBool>,
    address: std::net::SocketAddr,
    thread: Option<std::thread::JoinHandle<()>>,
}

/// What a scripted server does with one request.
pub struct Reply {
    pub head: String,
    pub body: Vec<u8>,
    pub then: Then,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Then {
    Close,
    /// Keeps the connection and says nothing more.
    Stall,
    /// Goes on with a byte now and then.
    Drip,
}

/// The range that a request asks for.
pub type Asked = Option<(usize, Option<usize>)>;

impl Server {
    pub fn serve(body: Vec<u8>, answer: Answer) -> Self {
        let body = Arc::new(body);
        Self::script(move |_, _| reply(&body, &answer))
    }

    /// Answers the n-th request (from 0) as `script` says.
    pub fn script(script: impl Fn(usize, Asked) -> Reply + Send + Sync + 'static) -> Self {
        Self::start(move |n, _, asked| script(n, asked))
    }

    /// Serves the files of a directory, after `change` has seen their bytes: the number of the request and the name.
    pub fn files(root: &Path, change: impl Fn(usize, &str, &mut Vec<u8>) + Send + Sync + 'static) -> Self {
        let root = root.to_owned();
        Self::start(move |n, name, asked| match std::fs::read(root.join(name)) {
            Ok(mut bytes) => {
                change(n, name, &mut bytes);
                ranged(&bytes, asked, usize::MAX, "\"one\"")
            }
            Err(_) => Reply { head: "404 no".into(), body: Vec::new(), then: Then::Close },
        })
    }

    fn start(script: impl Fn(usize, &str, Asked) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let script = Arc::new(script);
        let thread = std::thread::spawn(move || {
            for (n, stream) in listener.incoming().enumerate() {
                if stopped.load(std::sync::atomic::Ordering::Relaxed) {
                    return;
                }
                let (script, stopped) = (Arc::clone(&script), Arc::clone(&stopped));
                std::thread::spawn(move || stream.map(|s| respond(s, n, &*script, &stopped)));
            }
        });
        Self { url: format!("http://{address}/image"), stop, address, thread: Some(thread) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, std::sync::atomic::Ordering::Relaxed);
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn respond(
    mut stream: TcpStream,
    n: usize,
    script: &dyn Fn(usize, &str, Asked) -> Reply,
    stop: &std::sync::atomic::AtomicBool,
) {
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut request = Vec::new();
    let mut byte = [0];
    while !request.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|n| n == 1) {
        request.push(byte[0]);
    }
    let request = String::from_utf8_lossy(&request).to_lowercase();
    let asked = request.lines().find_map(|l| l.strip_prefix("range: bytes=")).and_then(|range| {
        let (first, last) = range.split_once('-')?;
        Some((first.parse().ok()?, last.parse().ok()))
    });
    let path = request.split(' ').nth(1).unwrap_or_default().trim_start_matches('/');
    let Reply { head, body, then } = script(n, path, asked);
    // The client may have gone: that is its right.
    let _ = write!(stream, "HTTP/1.1 {head}\r\nConnection: close\r\n\r\n");
    let _ = stream.write_all(&body);
    let _ = stream.flush();
    while then != Then::Close && !stop.load(std::sync::atomic::Ordering::Relaxed) {
        std::thread::sleep(Duration::from_millis(100));
        if then == Then::Drip && stream.write_all(&[0]).is_err() {
            return;
        }
    }
}

fn reply(body: &[u8], answer: &Answer) -> Reply {
    let (status, length, sent) = match answer {
        Answer::Whole => (200, Some(body.len()), body),
        Answer::Status(status) => (*status, Some(0), &body[..0]),
        Answer::CutAfter(n) => (200, Some(body.len()), &body[..*n]),
        Answer::SilentCutAfter(n) => (200, None, &body[..*n]),
        Answer::AnnounceLess(n) => (200, Some(body.len() - n), body),
    };
    let length = length.map_or_else(String::new, |n| format!("\r\nContent-Length: {n}"));
    Reply { head: format!("{status} X{length}"), body: sent.to_vec(), then: Then::Close }
}

/// As a good server does it, but for ending after `most` bytes.
pub fn ranged(body: &[u8], asked: Asked, most: usize, etag: &str) -> Reply {
    let (first, last) =
        asked.map_or((0, body.len() - 1), |(first, last)| (first, last.unwrap_or(usize::MAX).min(body.len() - 1)));
    let head = match asked {
        None => format!("200 OK\r\nAccept-Ranges: bytes\r\nETag: {etag}\r\nContent-Length: {}", body.len()),
        Some(_) => format!(
            "206 Part\r\nETag: {etag}\r\nContent-Range: bytes {first}-{last}/{}\r\nContent-Length: {}",
            body.len(),
            last + 1 - first
        ),
    };
    let sent = &body[first..=last];
    Reply { head, body: sent[..sent.len().min(most)].to_vec(), then: Then::Close }
}

/// A disk image with a GPT made by sgdisk, and content that is everywhere different.
pub fn image(size: u64, sector: u32) -> Vec<u8> {
    let disk = LoopDisk::new(size, sector);
    disk.fill(77);
    tool("sgdisk", &["-Z", &disk.device]);
    tool("sgdisk", &["-n", "1:0:+2M", "-t", "1:ef00", "-n", "2:0:0", "-c", "2:root", &disk.device]);
    tool("blockdev", &["--flushbufs", &disk.device]);
    std::fs::read(&disk.file).unwrap()
}

pub fn source(url: &str, bytes: &[u8], compression: Compression) -> ImageSource {
    let digest = ImageDigest::sha256(Sha256::digest(bytes).into());
    ImageSource {
        url: url.into(),
        mirrors: Vec::new(),
        digest: Some(digest),
        checksums: None,
        signature: None,
        accept_unverified: false,
        format: ImageFormat::Raw,
        compression,
        size: None,
        max_window: None,
    }
}

/// By the tools that people use for it.
pub fn compress(compression: Compression, bytes: &[u8]) -> Vec<u8> {
    if compression == Compression::None {
        return bytes.to_vec();
    }
    // The tools are called as the formats are.
    let program = compression.name();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("image");
    std::fs::write(&file, bytes).unwrap();
    let out = Command::new(program).args(["-1", "-c"]).arg(&file).output();
    let out = out.unwrap_or_else(|e| panic!("{program} is needed: {e}"));
    assert!(out.status.success(), "{program}: {}", String::from_utf8_lossy(&out.stderr));
    out.stdout
}

#[track_caller]
pub fn failed(result: &TaskResult, outcome: Outcome, code: FaultCode) {
    let fault = result.fault.as_ref().unwrap_or_else(|| panic!("must fail: {result:?}"));
    assert_eq!((result.outcome, fault.code), (outcome, code), "{fault}");
}

/// Neither table nor signature: nothing that boots or is assembled.
#[track_caller]
pub fn has_no_table(disk: &LoopDisk) {
    assert!(disk.bytes(0, 1 << 20).iter().all(|b| *b == 0), "the start must be zeroed");
    let end = std::fs::metadata(&disk.file).unwrap().len() - MIB;
    assert!(disk.bytes(end, 1 << 20).iter().all(|b| *b == 0), "the end must be zeroed");
}

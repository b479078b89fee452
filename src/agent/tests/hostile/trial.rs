//! One image, one disk, one agent.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use speediso_model::fault::FaultCode;
use speediso_model::image::{Compression, ImageFormat, ImageSource};
use speediso_model::outcome::{Outcome, TaskResult};
use speediso_model::task::{Task, WriteImageTask};

use crate::support::{LoopDisk, MIB, Server, has_no_table, ranged, source};

/// Beside the pages of the program itself, whatever the image: with those of what ships the process stays below 64 MiB.
const MOST_MEMORY: u64 = 56 * MIB;
/// An honest image of this size takes a second, or several on a busy machine.
const DEADLINE: Duration = Duration::from_secs(60);
pub(crate) const DISK: u64 = 20 * MIB;

/// What is left of the disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Left {
    /// Everything: it was refused before the first write.
    Unchanged,
    /// Nothing that boots.
    NoTable,
}

/// How the agent ended.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) result: TaskResult,
    pub(crate) peak: u64,
    pub(crate) took: Duration,
}

/// Everything that the agent needs to be tried out.
pub(crate) struct Trials {
    dir: tempfile::TempDir,
    machine: String,
    disk: LoopDisk,
    before: [u8; 32],
    worst: u64,
}

impl Trials {
    pub(crate) fn new() -> Self {
        Self::on(DISK)
    }

    pub(crate) fn on(size: u64) -> Self {
        let roots = speediso_sys::roots::Roots::live();
        let machine = speediso_agent::run::this_machine(&roots);
        let machine = machine.macs.first().expect("this machine has a network interface").clone();
        let disk = LoopDisk::new(size, 512);
        let before = if size <= DISK { disk.fill(5) } else { [0; 32] };
        Self { dir: tempfile::tempdir().unwrap(), machine, disk, before, worst: 0 }
    }

    pub(crate) fn disk(&self) -> &LoopDisk {
        &self.disk
    }

    /// Has the agent write what this server has.
    #[track_caller]
    pub(crate) fn run(&mut self, image: ImageSource) -> Told {
        let task = WriteImageTask::new(self.disk.hints(), image);
        let file = serde_json::json!({
            "version": 1,
            "machine": self.machine,
            "expires": "2100-01-01T00:00:00Z",
            "order": uuid::Uuid::new_v4(),
            "tasks": [Task::WriteImage(task)],
        });
        let path: PathBuf = self.dir.path().join("tasks.json");
        std::fs::write(&path, file.to_string()).unwrap();
        let began = Instant::now();
        let mut agent = Command::new(env!("CARGO_BIN_EXE_speediso-agent"))
            .args(["run", "--json", "--allow-loop", "--arm", &self.machine, "--tasks"])
            .arg(&path)
            .arg("--state-dir")
            .arg(self.dir.path().join("state"))
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let peak = watch(&mut agent, began);
        let took = began.elapsed();
        let out = agent.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&out.stdout).into_owned();
        // Neither a signal nor a panic.
        assert!(out.status.code().is_some_and(|code| [0, 1, 2, 64, 77].contains(&code)), "{}: {said}", out.status);
        let line = said.lines().last().unwrap_or_else(|| panic!("it said nothing ({})", out.status));
        let result = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
        self.worst = self.worst.max(peak);
        assert!(peak <= MOST_MEMORY, "{peak} bytes of memory for {result:?}");
        Told { result, peak, took }
    }

    /// The image must be refused like this.
    #[track_caller]
    pub(crate) fn refused(&mut self, what: &str, image: ImageSource, code: FaultCode, left: Left) -> Told {
        let told = self.run(image);
        let fault = told.result.fault.as_ref().unwrap_or_else(|| panic!("{what} was written: {:?}", told.result));
        println!("{what}: {:.1} s, {} MiB, {fault}", told.took.as_secs_f64(), told.peak / MIB);
        let outcome = if left == Left::Unchanged { Outcome::FailedUnchanged } else { Outcome::FailedChanged };
        assert_eq!((told.result.outcome, fault.code), (outcome, code), "{what}: {fault}");
        match left {
            Left::Unchanged => assert!(self.disk.digest() == self.before, "{what}: the disk was written to"),
            Left::NoTable => {
                has_no_table(&self.disk);
                self.before = self.disk.fill(5);
            }
        }
        told
    }

    /// These bytes, whatever a digest over them says.
    #[track_caller]
    pub(crate) fn bytes(
        &mut self,
        what: &str,
        (compression, format): (Compression, ImageFormat),
        body: &[u8],
        code: FaultCode,
        left: Left,
    ) {
        let (image, _server) = served(compression, format, body);
        self.refused(what, image, code, left);
    }
}

impl Drop for Trials {
    fn drop(&mut self) {
        println!("the most memory that any of them took: {} MiB", self.worst / MIB);
    }
}

/// An image with the right digest, and the server that has it.
pub(crate) fn served(compression: Compression, format: ImageFormat, body: &[u8]) -> (ImageSource, Server) {
    let bytes = body.to_vec();
    let server = Server::script(move |_, asked| ranged(&bytes, asked, usize::MAX, "\"one\""));
    let mut image = source(&server.url, body, compression);
    image.format = format;
    (image, server)
}

/// Waits for its end and returns the most memory that it held. The agent's last words take it longer than we wait
/// between two looks, so nothing that came before is missed.
#[track_caller]
fn watch(agent: &mut Child, began: Instant) -> u64 {
    let status = format!("/proc/{}/status", agent.id());
    let mut peak = 0;
    while agent.try_wait().unwrap().is_none() {
        if began.elapsed() > DEADLINE {
            agent.kill().unwrap();
            panic!("it was not done after {DEADLINE:?}");
        }
        let kib = std::fs::read_to_string(&status).ok().and_then(|text| {
            let field = |name| -> Option<u64> {
                text.lines().find_map(|line| line.strip_prefix(name)?.trim().trim_end_matches(" kB").parse().ok())
            };
            // The pages of the program itself lie in the ramdisk anyway; and what these tests run is twice what ships.
            Some(field("VmHWM:")?.saturating_sub(field("RssFile:")?))
        });
        peak = peak.max(kib.unwrap_or(0) * 1024);
        std::thread::sleep(Duration::from_millis(3));
    }
    assert!(peak > 0, "it was never seen");
    peak
}

//! The engine as a front door meets it: starts that wait, journals that cannot be written, who listens at the end.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use speediso_agent::engine::{DISK_PATIENCE, Engine, StartGate, Submission, Surroundings};
use speediso_agent::state::StateDir;
use speediso_model::event::{Event, EventKind};
use speediso_model::fault::{Fault, FaultCode};
use speediso_model::hints::RootDeviceHints;
use speediso_model::id::RunId;
use speediso_model::outcome::Outcome;
use speediso_model::plan::{Plan, PlanDigest};
use speediso_model::task::{InventoryTask, PowerAction, PowerTask, Task, WipeLevel, WipeTargets, WipeTask};
use speediso_sys::disks::DiskScope;
use speediso_sys::roots::Roots;

/// Answers nothing, as a controller that is away.
struct Silent;

#[async_trait]
impl StartGate for Silent {
    async fn permit(&self, _: RunId, _: &Plan, _: &PlanDigest) -> Result<(), Fault> {
        std::future::pending().await
    }

    fn listens(&self) -> bool {
        true
    }
}

fn engine(state: &Path) -> Engine {
    engine_with(state, DiskScope::default(), DISK_PATIENCE)
}

fn engine_with(state: &Path, scope: DiskScope, disk_patience: Duration) -> Engine {
    let (http, _) = speediso_agent::tls::client(
        &[],
        None,
        speediso_agent::tls::Validity::Checked,
        speediso_agent::tls::Purpose::Images,
    )
    .unwrap();
    let surroundings = Surroundings {
        skip: Default::default(),
        roots: Roots::live(),
        scope,
        http,
        probe: None,
        boot_mac: None,
        build: Default::default(),
        disk_patience,
        sharing: None,
        tools: speediso_tasks::tools::Tools::of_system(None),
    };
    Engine::start(&StateDir::open(state).unwrap(), surroundings).unwrap()
}

fn power() -> Task {
    Task::Power(PowerTask { action: PowerAction::PowerOff })
}

fn submission(run: RunId, task: Task) -> Submission {
    Submission { run, task, dry_run: false, skip: Default::default(), gate: Arc::new(Silent) }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_waits_for_leave_can_be_cancelled() {
    let dir = tempfile::tempdir().unwrap();
    let engine = engine(dir.path());
    let run = RunId::random();
    engine.submit(submission(run, power())).unwrap();
    // A second one is not begun beside it.
    assert!(engine.submit(submission(RunId::random(), power())).is_err());
    while !engine.unacknowledged(100, usize::MAX).iter().any(|e| matches!(e.kind, EventKind::Planned { .. })) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    engine.cancel(run);
    let result = engine.ended(run).await.unwrap();
    assert_eq!(result.outcome, Outcome::FailedUnchanged);
    assert_eq!(result.fault.map(|f| f.code), Some(FaultCode::Cancelled));
    engine.at_rest().await;
    assert!(engine.runs().iter().all(|r| !r.started));
}

/// Unmounts when dropped.
struct Tmpfs<'a>(&'a Path);

impl Drop for Tmpfs<'_> {
    fn drop(&mut self) {
        let _ = nix::mount::umount(self.0);
    }
}

#[tokio::test]
async fn what_cannot_be_journalled_is_not_begun() {
    let dir = tempfile::tempdir().unwrap();
    nix::mount::mount(Some("none"), dir.path(), Some("tmpfs"), nix::mount::MsFlags::empty(), Some("size=32k"))
        .expect("the tests run as root");
    let _unmount = Tmpfs(dir.path());
    let engine = engine(dir.path());
    let mut filler = std::fs::File::create(dir.path().join("filler")).unwrap();
    while std::io::Write::write_all(&mut filler, &[1; 512]).is_ok() {}
    // The journal's own last page has room for a few lines yet.
    let refused = loop {
        let run = RunId::random();
        match engine.submit(submission(run, Task::Inventory(InventoryTask::default()))) {
            Ok(()) => engine.ended(run).await.unwrap(),
            Err(fault) => break (run, fault),
        };
    };
    assert_eq!(refused.1.code, FaultCode::Io, "{}", refused.1);
    assert!(engine.runs().iter().all(|r| r.id != refused.0), "it counts as begun");

    // Once there is room again, the journal goes on where it was whole.
    drop(filler);
    std::fs::remove_file(dir.path().join("filler")).unwrap();
    let run = RunId::random();
    engine.submit(submission(run, Task::Inventory(InventoryTask::default()))).unwrap();
    engine.ended(run).await.unwrap();
    let journal = std::fs::read_to_string(dir.path().join("journal.jsonl")).unwrap();
    assert!(journal.lines().all(|line| serde_json::from_str::<Event>(line).is_ok()));
    assert!(journal.contains(&run.to_string()));
}

/// Lets everything begin.
struct Open;

#[async_trait]
impl StartGate for Open {
    async fn permit(&self, _: RunId, _: &Plan, _: &PlanDigest) -> Result<(), Fault> {
        Ok(())
    }

    fn listens(&self) -> bool {
        false
    }
}

fn tool(program: &str, args: &[&str]) -> String {
    let out = Command::new(program).args(args).output().unwrap_or_else(|e| panic!("{program} is needed: {e}"));
    assert!(out.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8_lossy(&out.stdout).trim().to_owned()
}

/// A disk whose medium is a file in a file system that can be frozen: then every write to it hangs in the kernel.
struct FreezingDisk {
    dir: tempfile::TempDir,
    disk: String,
    below: String,
}

impl FreezingDisk {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
        std::fs::File::create(path("fs")).unwrap().set_len(64 << 20).unwrap();
        tool("mkfs.ext4", &["-q", &path("fs")]);
        let below = tool("losetup", &["-f", "--show", &path("fs")]);
        std::fs::create_dir(path("mnt")).unwrap();
        tool("mount", &["-t", "ext4", &below, &path("mnt")]);
        tool("fallocate", &["-l", "24MiB", &path("mnt/disk")]);
        let disk = tool("losetup", &["-f", "--show", &path("mnt/disk")]);
        Self { dir, disk, below }
    }

    fn file(&self) -> String {
        self.dir.path().join("mnt/disk").to_str().unwrap().to_owned()
    }

    fn freeze(&self, on: bool) {
        let mount = self.dir.path().join("mnt");
        let done = Command::new("fsfreeze").arg(if on { "-f" } else { "-u" }).arg(mount).status().unwrap();
        assert!(done.success() || !on);
    }
}

impl Drop for FreezingDisk {
    fn drop(&mut self) {
        self.freeze(false);
        for (program, arg) in [
            ("losetup", vec!["-d", &self.disk]),
            ("umount", vec![self.dir.path().join("mnt").to_str().unwrap()]),
            ("losetup", vec!["-d", &self.below]),
        ] {
            let _ = Command::new(program).args(arg).status();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_hangs_ends_its_task_and_stays_claimed() {
    let disk = FreezingDisk::new();
    let dir = tempfile::tempdir().unwrap();
    let engine = engine_with(dir.path(), DiskScope { loops: true }, Duration::from_secs(1));
    let hints = RootDeviceHints { serial: Some(disk.file().into()), ..RootDeviceHints::default() };
    let wipe = Task::Wipe(WipeTask::new(WipeTargets::Hints(vec![hints]), WipeLevel::Clear));
    let submit = |run| {
        engine.submit(Submission {
            run,
            task: wipe.clone(),
            dry_run: false,
            skip: Default::default(),
            gate: Arc::new(Open),
        })
    };
    disk.freeze(true);
    let run = RunId::random();
    submit(run).unwrap();
    let result = tokio::time::timeout(Duration::from_secs(30), engine.ended(run)).await.expect("it ends").unwrap();
    let fault = result.fault.unwrap();
    assert_eq!((result.outcome, fault.code), (Outcome::Unknown, FaultCode::DiskHung), "{fault}");
    assert!(fault.message.contains(&disk.disk), "{fault}");

    // The thread that hangs still has the disk: nobody else gets it.
    let second = RunId::random();
    submit(second).unwrap();
    let refused = engine.ended(second).await.unwrap();
    assert_eq!(refused.outcome, Outcome::FailedUnchanged);
    assert_eq!(refused.fault.map(|f| f.code), Some(FaultCode::DiskInUse));

    // Should it come back, that changes nothing about what was said.
    disk.freeze(false);
    let came_back = |e: &Event| matches!(&e.kind, EventKind::Notice { text } if text.contains("given up"));
    while !engine.unacknowledged(1000, usize::MAX).iter().any(came_back) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let ends = engine.unacknowledged(1000, usize::MAX);
    let ends = ends.iter().filter(|e| e.run == Some(run) && matches!(e.kind, EventKind::Ended { .. })).count();
    assert_eq!((ends, engine.ended(run).await.unwrap().outcome), (1, Outcome::Unknown));
}

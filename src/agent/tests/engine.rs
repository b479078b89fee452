//! The engine as a front door meets it: starts that wait, journals that cannot be written, who listens at the end.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use speediso_agent::engine::{Engine, StartGate, Submission, Surroundings};
use speediso_agent::state::StateDir;
use speediso_model::event::EventKind;
use speediso_model::fault::{Fault, FaultCode};
use speediso_model::id::RunId;
use speediso_model::outcome::Outcome;
use speediso_model::plan::{Plan, PlanDigest};
use speediso_model::task::{InventoryTask, PowerAction, PowerTask, Task};
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
    let (http, _) = speediso_agent::tls::client(
        &[],
        None,
        speediso_agent::tls::Validity::Checked,
        speediso_agent::tls::Purpose::Images,
    )
    .unwrap();
    let surroundings = Surroundings {
        roots: Roots::live(),
        scope: DiskScope::default(),
        http,
        probe: None,
        boot_mac: None,
        build: Default::default(),
    };
    Engine::start(&StateDir::open(state).unwrap(), surroundings).unwrap()
}

fn power() -> Task {
    Task::Power(PowerTask { action: PowerAction::PowerOff })
}

fn submission(run: RunId, task: Task) -> Submission {
    Submission { run, task, dry_run: false, gate: Arc::new(Silent) }
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
        match engine.submit(submission(run, Task::Inventory(InventoryTask {}))) {
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
    engine.submit(submission(run, Task::Inventory(InventoryTask {}))).unwrap();
    engine.ended(run).await.unwrap();
    let journal = std::fs::read_to_string(dir.path().join("journal.jsonl")).unwrap();
    assert!(journal.lines().all(|line| serde_json::from_str::<speediso_model::event::Event>(line).is_ok()));
    assert!(journal.contains(&run.to_string()));
}

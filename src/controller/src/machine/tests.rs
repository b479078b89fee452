#![allow(clippy::unwrap_used)]

use std::collections::HashSet;

use proptest::prelude::*;
use speediso_model::id::{NodeId, OrderId};
use speediso_model::image::{Compression, ImageDigest, ImageFormat, ImageSource};
use speediso_model::order::{Order, OrderState, OrderTask, TaskState};
use speediso_model::outcome::{Changed, Outcome, TaskResult};
use speediso_model::plan::Plan;
use speediso_model::task::{InventoryTask, PowerAction, PowerTask, ReadBack, Task, WriteImageTask};

use super::*;

fn boot(n: u128) -> BootId {
    BootId(uuid::Uuid::from_u128(n))
}

fn machine() -> Machine {
    let mut node = Node::new("m1".into(), NodeState::Enroll, SystemVendor::default(), vec!["52:54:00:00:00:01".into()]);
    node.id = NodeId(uuid::Uuid::from_u128(1));
    Machine { node, session: None, order: None, now: 1_000_000 }
}

fn write_image() -> Task {
    let device = serde_json::from_value(serde_json::json!({"serial": "S1"})).unwrap();
    let image = ImageSource {
        url: "https://192.0.2.1/i".into(),
        mirrors: Vec::new(),
        digest: Some(ImageDigest::sha256([0; 32])),
        checksums: None,
        signature: None,
        accept_unverified: false,
        format: ImageFormat::Raw,
        compression: Compression::None,
        size: None,
        max_window: None,
    };
    Task::WriteImage(WriteImageTask { read_back: ReadBack::None, ..WriteImageTask::new(device, image) })
}

fn power() -> Task {
    Task::Power(PowerTask { action: PowerAction::Reboot })
}

fn order(tasks: Vec<Task>) -> OrderRecord {
    OrderRecord::new(Order {
        id: OrderId::random(),
        node: NodeId(uuid::Uuid::from_u128(1)),
        profile: None,
        state: OrderState::Open,
        tasks: tasks.into_iter().map(|task| OrderTask { task, state: TaskState::Queued }).collect(),
        dry_run: false,
        skip_block_devices: Default::default(),
        by: "me".into(),
        created: jiff::Timestamp::UNIX_EPOCH,
        closed: None,
        notes: None,
    })
}

fn plan(task: &str) -> Plan {
    Plan {
        task: task.into(),
        destructive: false,
        devices: Vec::new(),
        effects: vec![task.into()],
        untouched: Vec::new(),
    }
}

fn begin(m: &mut Machine, epoch: Epoch, kind: &str) -> RunId {
    let grant = m.next(epoch, RunId::random(), &mut Effects::default()).unwrap().expect("a grant");
    let plan = plan(kind);
    m.start(grant.run, epoch, &plan, &plan.digest(), &mut Effects::default()).unwrap();
    grant.run
}

fn done() -> TaskResult {
    TaskResult::verified("a", "a", Changed::Changed)
}

fn failed(outcome: Outcome, code: FaultCode) -> TaskResult {
    TaskResult::failed("a", outcome, Fault::new(code, "x"))
}

#[test]
fn an_install_moves_the_node_from_deploying_to_active() {
    let mut m = machine();
    let fx = &mut Effects::default();
    m.open(order(vec![write_image(), power()]), fx).unwrap();
    assert_eq!(m.node.state, NodeState::Deploying);
    let epoch = m.admit(boot(1), "k".into(), fx);
    let run = begin(&mut m, epoch, "write_image");
    m.end(run, epoch, done(), fx).unwrap();
    begin(&mut m, epoch, "power");
    assert_eq!(m.node.state, NodeState::Deploying);
    m.seen_again(fx);
    assert_eq!(m.node.state, NodeState::Active);
    let order = &m.order.as_ref().unwrap().order;
    assert_eq!(order.state, OrderState::Done);
    assert!(order.closed.is_some());
    match &order.tasks[1].state {
        TaskState::Ended { result, .. } => assert_eq!(result.used, "seen at the boot server"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_power_task_that_was_not_started_is_not_ended_by_a_boot() {
    let mut m = machine();
    let fx = &mut Effects::default();
    m.open(order(vec![power()]), fx).unwrap();
    let epoch = m.admit(boot(1), "k".into(), fx);
    m.next(epoch, RunId::random(), fx).unwrap().expect("a grant");
    m.seen_again(fx);
    assert!(matches!(m.order.as_ref().unwrap().order.tasks[0].state, TaskState::Granted { .. }));
}

#[test]
fn silence_after_power_is_the_end_and_silence_in_a_write_is_not() {
    let mut m = machine();
    let fx = &mut Effects::default();
    m.open(order(vec![write_image(), power()]), fx).unwrap();
    let epoch = m.admit(boot(1), "k".into(), fx);
    let run = begin(&mut m, epoch, "write_image");
    m.now += LEASE + 1;
    m.notice_silence(fx);
    assert!(matches!(m.order.as_ref().unwrap().order.tasks[0].state, TaskState::Running { .. }));
    m.now += LONG_SILENCE;
    assert!(fx.alerts.is_empty());
    m.notice_silence(fx);
    m.notice_silence(fx);
    assert_eq!(fx.alerts.len(), 1, "one alert for one silence");
    // The agent was only cut off.
    m.renew(None);
    m.end(run, epoch, done(), fx).unwrap();
    begin(&mut m, epoch, "power");
    m.now += LEASE + 1;
    m.notice_silence(fx);
    assert_eq!(m.order.as_ref().unwrap().order.state, OrderState::Done);
}

#[test]
fn an_interrupted_write_is_tried_once_more_and_then_left_to_a_person() {
    let mut m = machine();
    let fx = &mut Effects::default();
    m.open(order(vec![write_image()]), fx).unwrap();
    let first = m.admit(boot(1), "k1".into(), fx);
    let run1 = begin(&mut m, first, "write_image");
    let second = m.admit(boot(2), "k2".into(), fx);
    assert!(matches!(m.order.as_ref().unwrap().order.tasks[0].state, TaskState::Queued));
    let run2 = begin(&mut m, second, "write_image");
    assert_ne!(run1, run2);
    // The agent itself says that it died: as good as a lost one.
    m.end(run2, second, failed(Outcome::Unknown, FaultCode::AgentDied), fx).unwrap();
    assert_eq!(m.order.as_ref().unwrap().order.state, OrderState::Interrupted);
    assert_eq!(m.node.state, NodeState::Maintenance);
    assert!(m.next(second, RunId::random(), fx).unwrap().is_none(), "nothing is granted until a person decides");
    m.retry("me", fx).unwrap();
    assert_eq!(m.node.state, NodeState::Deploying);
    let run3 = begin(&mut m, second, "write_image");
    m.end(run3, second, done(), fx).unwrap();
    assert_eq!(m.node.state, NodeState::Active);
}

#[test]
fn a_start_is_idempotent_by_run_and_digest() {
    let mut m = machine();
    let fx = &mut Effects::default();
    m.open(order(vec![write_image()]), fx).unwrap();
    let epoch = m.admit(boot(1), "k".into(), fx);
    let run = begin(&mut m, epoch, "write_image");
    let same = plan("write_image");
    assert_eq!(m.start(run, epoch, &same, &same.digest(), fx).unwrap(), Started::Before);
    let mut other = plan("write_image");
    other.effects.push("more".into());
    assert_eq!(m.start(run, epoch, &other, &other.digest(), fx).unwrap_err().code, FaultCode::PlanMismatch);
    assert_eq!(m.start(run, epoch, &other, &same.digest(), fx).unwrap_err().code, FaultCode::PlanMismatch);
    assert_eq!(m.start(RunId::random(), epoch, &same, &same.digest(), fx).unwrap_err().code, FaultCode::OrderClosed);
    assert_eq!(m.start(run, Epoch(0), &same, &same.digest(), fx).unwrap_err().code, FaultCode::EpochStale);
}

#[test]
fn work_without_leave_is_not_believed() {
    let mut m = machine();
    let fx = &mut Effects::default();
    m.open(order(vec![write_image()]), fx).unwrap();
    let epoch = m.admit(boot(1), "k".into(), fx);
    let run = m.next(epoch, RunId::random(), fx).unwrap().unwrap().run;
    m.end(run, epoch, done(), fx).unwrap();
    let record = m.order.as_ref().unwrap();
    let TaskState::Ended { result, .. } = &record.order.tasks[0].state else { panic!("{:?}", record.order.tasks) };
    assert_eq!(result.outcome, Outcome::Unknown);
    assert_eq!(result.fault.as_ref().map(|f| f.code), Some(FaultCode::ProtocolError));
}

#[test]
fn protection_stops_orders_starts_and_retries() {
    let mut m = machine();
    let fx = &mut Effects::default();
    m.protect(true, "me", fx);
    assert_eq!(m.open(order(vec![write_image()]), fx).unwrap_err().code, FaultCode::MachineProtected);
    let mut dry = order(vec![write_image()]);
    dry.order.dry_run = true;
    m.open(dry, fx).unwrap();
    assert_eq!(m.node.state, NodeState::Enroll, "a dry run moves nothing");
    m.cancel("me", fx).unwrap();
    m.order = None;
    m.protect(false, "me", fx);
    m.open(order(vec![write_image()]), fx).unwrap();
    let epoch = m.admit(boot(1), "k".into(), fx);
    let run = m.next(epoch, RunId::random(), fx).unwrap().unwrap().run;
    m.protect(true, "me", fx);
    let plan = plan("write_image");
    assert_eq!(m.start(run, epoch, &plan, &plan.digest(), fx).unwrap_err().code, FaultCode::MachineProtected);
}

#[test]
fn cancelling_asks_what_runs_to_stop_and_hands_out_nothing_more() {
    let mut m = machine();
    let fx = &mut Effects::default();
    m.open(order(vec![write_image(), power()]), fx).unwrap();
    let epoch = m.admit(boot(1), "k".into(), fx);
    let run = begin(&mut m, epoch, "write_image");
    m.cancel("me", fx).unwrap();
    assert_eq!(m.to_stop(&[]), vec![run]);
    // It was through before it could stop: that task is verified all the same.
    m.end(run, epoch, done(), fx).unwrap();
    let order = &m.order.as_ref().unwrap().order;
    assert_eq!(order.state, OrderState::Cancelled);
    assert!(matches!(order.tasks[0].state, TaskState::Ended { .. }));
    assert!(m.next(epoch, RunId::random(), fx).unwrap().is_none());
    assert_eq!(m.node.state, NodeState::Manageable);
}

#[test]
fn an_order_of_a_machine_that_never_comes_back_can_be_cancelled() {
    let mut m = machine();
    let fx = &mut Effects::default();
    m.open(order(vec![write_image(), power()]), fx).unwrap();
    let epoch = m.admit(boot(1), "k".into(), fx);
    begin(&mut m, epoch, "write_image");
    m.now += LEASE + 1;
    m.cancel("me", fx).unwrap();
    assert_eq!(m.order.as_ref().unwrap().order.state, OrderState::Cancelled);
    assert_eq!(m.node.state, NodeState::Maintenance, "the disk is not to be trusted");
}

#[test]
fn a_clash_revokes_and_quarantines_until_released() {
    let mut m = machine();
    let fx = &mut Effects::default();
    m.open(order(vec![write_image()]), fx).unwrap();
    let epoch = m.admit(boot(1), "k".into(), fx);
    m.clash("test", fx);
    assert_eq!(m.node.state, NodeState::Quarantined);
    assert_eq!(m.next(epoch, RunId::random(), fx).unwrap_err().code, FaultCode::EpochStale);
    assert_eq!(m.arm("me", fx).unwrap_err().code, FaultCode::IdentityClash);
    assert!(!m.wants_ramdisk());
    m.release("me", fx).unwrap();
    assert_eq!(m.node.state, NodeState::Manageable);
    assert_eq!(m.next(epoch, RunId::random(), fx).unwrap_err().code, FaultCode::EpochStale, "revoked stays revoked");
    assert!(m.wants_ramdisk());
}

#[test]
fn a_stranger_cannot_push_the_real_key_out_nor_change_the_node() {
    let mut m = machine();
    let fx = &mut Effects::default();
    let key = |n: i64| WaitingKey {
        key: format!("k{n}"),
        code: format!("CODE-{n:04}"),
        seen: 1000 + n,
        build: speediso_model::build::BuildInfo::default(),
    };
    let before = m.node.clone();
    m.wait_for_approval(key(0), fx);
    for n in 1..20 {
        // The real one polls between the strangers.
        m.wait_for_approval(WaitingKey { seen: 2000 + n, ..key(0) }, fx);
        m.wait_for_approval(key(n), fx);
    }
    assert!(m.node.waiting.iter().any(|w| w.key == "k0"));
    assert_eq!(m.node.waiting.len(), 4);
    assert_eq!(Node { waiting: Vec::new(), ..m.node.clone() }, before);
    assert_eq!(m.approve("CODE-9999", "me", fx).unwrap_err().code, FaultCode::NotApproved);
    m.approve(" code-0000 ", "me", fx).unwrap();
    assert_eq!(m.node.approved.as_deref(), Some("k0"));
}

/// What can happen, in any order.
#[derive(Clone, Debug)]
enum Step {
    Open(u8),
    Boot,
    Next { stale: bool },
    Start { nth: u8, stale: bool, other_plan: bool },
    End { nth: u8, outcome: u8 },
    Wait(bool),
    Renew,
    Cancel,
    Retry,
    Protect(bool),
    AtBootServer,
    Clash,
    Release,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    use Step::*;
    let step = prop_oneof![
        2 => any::<u8>().prop_map(Open),
        2 => Just(Boot),
        6 => prop::bool::weighted(0.1).prop_map(|stale| Next { stale }),
        6 => (any::<u8>(), prop::bool::weighted(0.1), prop::bool::weighted(0.1)).prop_map(|(nth, stale, other_plan)| Start { nth, stale, other_plan }),
        4 => (any::<u8>(), 0u8..6).prop_map(|(nth, outcome)| End { nth, outcome }),
        2 => any::<bool>().prop_map(Wait),
        2 => Just(Renew),
        1 => Just(Cancel),
        1 => Just(Retry),
        1 => prop::bool::weighted(0.3).prop_map(Protect),
        1 => Just(AtBootServer),
        1 => prop::bool::weighted(0.2).prop_map(|clash| if clash { Clash } else { Release }),
    ];
    prop::collection::vec(step, 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// However things fall: a run is granted once, starts at most once, and only under the newest epoch, unprotected
    /// and uncancelled; an order's state is the sum of its tasks; a closed order never changes again.
    #[test]
    fn no_interleaving_starts_twice(steps in steps()) {
        let mut m = machine();
        let mut runs: Vec<RunId> = vec![RunId(uuid::Uuid::from_u128(999))];
        let mut started: HashSet<RunId> = HashSet::new();
        let mut boots = 0;
        for step in steps {
            let mut fx = Effects::default();
            let fx = &mut fx;
            let epoch = m.node.epoch;
            let before = m.order.clone();
            match step {
                Step::Open(kind) => {
                    let tasks = match kind % 3 {
                        0 => vec![write_image(), power()],
                        1 => vec![Task::Inventory(InventoryTask::default()), write_image()],
                        _ => vec![power()],
                    };
                    let _ = m.open(order(tasks), fx);
                }
                Step::Boot => {
                    if m.node.state != NodeState::Quarantined {
                        boots += 1;
                        m.admit(boot(boots), format!("k{boots}"), fx);
                    }
                }
                Step::Next { stale } => {
                    let epoch = if stale { Epoch(epoch.0.wrapping_sub(1)) } else { epoch };
                    if let Ok(Some(grant)) = m.next(epoch, RunId::random(), fx) {
                        prop_assert!(!stale);
                        if !runs.contains(&grant.run) {
                            prop_assert_eq!(fx.grants.len(), 1);
                            runs.push(grant.run);
                        }
                    }
                }
                Step::Start { nth, stale, other_plan } => {
                    let run = runs[usize::from(nth) % runs.len()];
                    let epoch = if stale { Epoch(epoch.0.wrapping_sub(1)) } else { epoch };
                    let kind = m.order.as_ref()
                        .and_then(|o| o.order.tasks.iter().find(|t| t.state.run() == Some(run)))
                        .map_or("power", |t| t.task.kind());
                    let mut plan = plan(kind);
                    if other_plan {
                        plan.effects.push("more".into());
                    }
                    let answer = m.start(run, epoch, &plan, &plan.digest(), fx);
                    if fx.start.is_some() {
                        prop_assert_eq!(answer.unwrap(), Started::Now);
                        prop_assert!(started.insert(run), "started twice");
                        prop_assert!(!stale);
                        let record = m.order.as_ref().unwrap();
                        let index = record.order.tasks.iter().position(|t| t.state.run() == Some(run)).unwrap();
                        prop_assert!(!(m.node.protected && record.order.tasks[index].task.is_destructive()));
                        prop_assert!(before.unwrap().cancelling.is_none());
                    }
                }
                Step::End { nth, outcome } => {
                    let run = runs[usize::from(nth) % runs.len()];
                    let result = match outcome {
                        0 => failed(Outcome::FailedUnchanged, FaultCode::NoMatchingDisk),
                        1 => failed(Outcome::FailedChanged, FaultCode::DiskIo),
                        2 => failed(Outcome::Unknown, FaultCode::AgentDied),
                        _ => done(),
                    };
                    if m.check_epoch(epoch).is_ok() {
                        let _ = m.end(run, epoch, result, fx);
                    }
                }
                Step::Wait(long) => {
                    m.now += if long { LEASE + LONG_SILENCE } else { LEASE / 2 };
                    m.notice_silence(fx);
                }
                Step::Renew => m.renew(None),
                Step::Cancel => { let _ = m.cancel("me", fx); }
                Step::Retry => { let _ = m.retry("me", fx); }
                Step::Protect(on) => m.protect(on, "me", fx),
                Step::AtBootServer => m.seen_again(fx),
                Step::Clash => { m.clash("test", fx); }
                Step::Release => { let _ = m.release("me", fx); }
            }
            if let Some(record) = &m.order {
                prop_assert_eq!(record.order.state, OrderState::of(&record.order.tasks));
                prop_assert_eq!(record.order.closed.is_some(), !record.order.state.is_open());
                let active = record.order.tasks.iter().filter(|t| matches!(t.state, TaskState::Granted { .. } | TaskState::Running { .. })).count();
                prop_assert!(active <= 1, "one task at a time");
                // Nobody is asked to stop what a person did not cancel.
                if record.cancelling.is_none() {
                    let stop = m.to_stop(&[]);
                    prop_assert!(record.order.tasks.iter().all(|t| t.state.run().is_none_or(|r| !stop.contains(&r))));
                }
            }
            // As the service does: a closed order is not loaded again.
            m.order = m.order.take().filter(|o| o.order.state.is_open());
        }
    }
}

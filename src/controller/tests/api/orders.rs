//! Orders from their opening to their end.

use std::time::{Duration, Instant};

use crate::support::{Site, declined, done, plan, reboot, write_image};
use serde_json::{Value, json};
use speediso_model::api::{HeartbeatRequest, Lease, List, NodeView, OrderView, StoredEvent, path};
use speediso_model::event::{Event, EventKind, Progress};
use speediso_model::fault::{Fault, FaultCode};
use speediso_model::id::RunId;
use speediso_model::node::NodeState;
use speediso_model::order::{OrderState, TaskState};
use speediso_model::outcome::{Outcome, TaskResult};

#[tokio::test]
async fn an_install_from_order_to_own_disk() {
    let site = Site::start().await;
    let agent = site.admitted(1).await;
    let inventory = json!({"epoch": agent.epoch(), "inventory": {"hostname": "x"}});
    let _: Lease = crate::support::answer(agent.client.request(reqwest::Method::PUT, path::INVENTORY).json(&inventory))
        .await
        .unwrap();
    assert_eq!(site.node(&agent).await.state, NodeState::Manageable);
    let order = site.order(&agent, json!({"tasks": [write_image(), reboot()]})).await.unwrap().order;
    assert_eq!(site.node(&agent).await.state, NodeState::Deploying);
    declined(site.order(&agent, json!({"profile": "inventory"})).await, 409, FaultCode::OrderClosed);

    let grant = agent.grant().await;
    assert_eq!((grant.index, grant.of, grant.attempt, grant.task.kind()), (0, 2, 1, "write_image"));
    assert_eq!(agent.grant().await, grant, "the same run until it has begun");
    let plan1 = plan("write_image");
    agent.start(grant.run, &plan1).await.unwrap();
    agent.start(grant.run, &plan1).await.unwrap();
    assert!(agent.next().await.unwrap().grant.is_none(), "nothing else while it runs");
    let progress = Progress {
        run: grant.run,
        stage: "writing".into(),
        current: 5,
        total: Some(10),
        unit: "bytes".into(),
        rate: 1.0,
        device: None,
        uptime_ms: 5,
    };
    agent.report(vec![], vec![progress]).await.unwrap();
    assert_eq!(site.order_now(order.id).await.progress[0].current, 5);
    assert_eq!(site.node(&agent).await.progress.len(), 1);
    assert!(!agent.end(grant.run, done()).await.unwrap().late);
    assert!(!agent.end(grant.run, done()).await.unwrap().late, "said again, it is the same end");
    assert!(site.order_now(order.id).await.progress.is_empty());

    let power = agent.grant().await;
    agent.start(power.run, &plan("power")).await.unwrap();
    assert_eq!(site.order_now(order.id).await.order.state, OrderState::Running);
    let script = site.boot_script(1).await;
    assert!(!script.contains("vmlinuz"), "the machine boots its own disk now: {script}");
    let view = site.order_now(order.id).await;
    assert_eq!(view.order.state, OrderState::Done);
    assert_eq!(site.node(&agent).await.state, NodeState::Active);
    let events: List<StoredEvent> =
        site.operator.get(&format!("{}?order={}", path::STORED_EVENTS, order.id)).await.unwrap();
    assert!(events.items.iter().any(|e| e.text.contains("is active now") || e.text.contains("is done")));
}

#[tokio::test]
async fn a_shell_order_leads_one_boot_into_the_ramdisk() {
    let site = Site::start().await;
    let agent = site.admitted(1).await;
    assert!(!site.boot_script(1).await.contains("vmlinuz"));
    let order = site.order(&agent, json!({"profile": "shell"})).await.unwrap().order;
    assert_eq!(order.state, OrderState::Done);
    assert!(site.boot_script(1).await.contains("speediso.token="));
}

#[tokio::test]
async fn waiting_agents_are_woken_by_an_order() {
    let site = Site::start().await;
    let agent = site.admitted(1).await;
    let begun = Instant::now();
    let (answer, _) = tokio::join!(agent.next_within(20), async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        site.order(&agent, json!({"profile": "inventory"})).await.unwrap()
    });
    assert!(answer.unwrap().grant.is_some());
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn what_must_not_start_does_not() {
    let site = Site::start().await;
    let agent = site.admitted(1).await;
    let protect = path::NODE_PROTECT.replace("{node}", &agent.node());
    let _: NodeView = site.operator.post(&protect, &json!({"protected": true})).await.unwrap();
    declined(site.order(&agent, json!({"tasks": [write_image()]})).await, 409, FaultCode::MachineProtected);
    let _: NodeView = site.operator.post(&protect, &json!({"protected": false})).await.unwrap();
    let order = site.order(&agent, json!({"tasks": [write_image()]})).await.unwrap().order;
    let run = agent.grant().await.run;
    let _: NodeView = site.operator.post(&protect, &json!({"protected": true})).await.unwrap();
    declined(agent.start(run, &plan("write_image")).await, 409, FaultCode::MachineProtected);
    let _: NodeView = site.operator.post(&protect, &json!({"protected": false})).await.unwrap();
    declined(agent.start(RunId::random(), &plan("write_image")).await, 409, FaultCode::OrderClosed);
    declined(agent.start(run, &plan("power")).await, 409, FaultCode::PlanMismatch);
    let _: OrderView =
        site.operator.post(&path::ORDER_CANCEL.replace("{order}", &order.id.to_string()), &json!({})).await.unwrap();
    declined(agent.start(run, &plan("write_image")).await, 409, FaultCode::OrderClosed);
    // An agent that has the run in hand hears of it with its next sign of life.
    let body = HeartbeatRequest { epoch: agent.epoch(), running: vec![run], address: Some("192.0.2.9".into()) };
    let lease: Lease = agent.client.post(path::HEARTBEAT, &body).await.unwrap();
    assert_eq!(lease.cancel, [run]);
    assert_eq!(site.node(&agent).await.address.as_deref(), Some("192.0.2.9"));
    assert_eq!(site.order_now(order.id).await.order.state, OrderState::Cancelled);
    declined(
        site.operator.post::<Value>(&path::ORDER_CANCEL.replace("{order}", &order.id.to_string()), &json!({})).await,
        409,
        FaultCode::OrderClosed,
    );
}

#[tokio::test]
async fn a_dry_run_starts_nothing_and_moves_no_node() {
    let site = Site::start().await;
    let agent = site.admitted(1).await;
    let before = site.node(&agent).await.state;
    let order = site.order(&agent, json!({"tasks": [write_image()], "dry_run": true})).await.unwrap().order;
    let grant = agent.grant().await;
    assert!(grant.dry_run);
    declined(agent.start(grant.run, &plan("write_image")).await, 409, FaultCode::NotArmed);
    let fault = Fault::new(FaultCode::NoMatchingDisk, "no disk");
    agent.end(grant.run, TaskResult::failed("a", Outcome::FailedUnchanged, fault)).await.unwrap();
    assert_eq!(site.order_now(order.id).await.order.state, OrderState::Failed);
    assert_eq!(site.node(&agent).await.state, before);
}

#[tokio::test]
async fn the_superseded_boot_leaves_evidence_and_nothing_else() {
    let site = Site::start().await;
    let old = site.admitted(1).await;
    let order = site.order(&old, json!({"tasks": [write_image()]})).await.unwrap().order;
    let run = old.grant().await.run;
    old.start(run, &plan("write_image")).await.unwrap();
    let new = site.booted_again(1).await;
    assert_eq!(new.epoch().0, 2);
    declined(old.next().await, 403, FaultCode::EpochStale);
    declined(old.start(run, &plan("write_image")).await, 403, FaultCode::EpochStale);
    assert!(old.end(run, done()).await.unwrap().late);
    assert!(old.end(run, done()).await.unwrap().late);
    let text = |text: &str| EventKind::Notice { text: text.into() };
    let event = Event { seq: 1, run: Some(run), uptime_ms: 1, kind: text("still here") };
    assert_eq!(old.report(vec![event], vec![]).await.unwrap().acknowledged, 1);
    let view = site.order_now(order.id).await.order;
    assert!(matches!(view.tasks[0].state, TaskState::Queued), "it is tried again: {:?}", view.tasks[0].state);
    let events: List<StoredEvent> = site.operator.get(path::STORED_EVENTS).await.unwrap();
    assert_eq!(events.items.iter().filter(|e| e.late).count(), 2, "one result, one event");
    let again = new.grant().await;
    assert_ne!(again.run, run);
    assert_eq!(again.attempt, 2);
}

#[tokio::test]
async fn events_are_taken_once_and_in_order() {
    let site = Site::start().await;
    let agent = site.admitted(1).await;
    let event =
        |seq: u64| Event { seq, run: None, uptime_ms: seq, kind: EventKind::Notice { text: format!("n{seq}") } };
    assert_eq!(agent.report(vec![event(1), event(2)], vec![]).await.unwrap().acknowledged, 2);
    assert_eq!(agent.report(vec![event(1), event(2), event(3)], vec![]).await.unwrap().acknowledged, 3);
    assert_eq!(agent.report(vec![event(5)], vec![]).await.unwrap().acknowledged, 3, "4 is missing");
    assert_eq!(agent.report(vec![event(4), event(5)], vec![]).await.unwrap().acknowledged, 5);
    let url = format!("{}?node={}", path::STORED_EVENTS, agent.node());
    let events: List<StoredEvent> = site.operator.get(&url).await.unwrap();
    let mine: Vec<_> = events.items.iter().filter(|e| e.source == "agent").map(|e| e.text.as_str()).collect();
    assert_eq!(mine, ["n1", "n2", "n3", "n4", "n5"]);
    // A watcher is woken by the next one.
    let after = events.items.last().unwrap().cursor;
    let url = format!("{url}&after={after}&wait=20");
    let (woken, _) = tokio::join!(site.operator.get::<List<StoredEvent>>(&url), async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        agent.report(vec![event(6)], vec![]).await.unwrap()
    });
    assert_eq!(woken.unwrap().items[0].text, "n6");
}

#[tokio::test]
async fn many_questions_at_once_give_one_run() {
    let site = Site::start().await;
    let agent = std::sync::Arc::new(site.admitted(1).await);
    site.order(&agent, json!({"tasks": [write_image()]})).await.unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..16 {
        let agent = std::sync::Arc::clone(&agent);
        tasks.spawn(async move { agent.grant().await.run });
    }
    let mut runs = tasks.join_all().await;
    runs.dedup();
    assert_eq!(runs.len(), 1);
    // And many starts with different plans begin one of them.
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..16 {
        let (agent, run) = (std::sync::Arc::clone(&agent), runs[0]);
        tasks.spawn(async move {
            let mut plan = plan("write_image");
            plan.effects.push(n.to_string());
            agent.start(run, &plan).await.is_ok()
        });
    }
    assert_eq!(tasks.join_all().await.into_iter().filter(|ok| *ok).count(), 1);
}

#[tokio::test]
async fn what_is_malformed_is_said_to_be() {
    let site = Site::start().await;
    let agent = site.admitted(1).await;
    for (body, code) in [
        (json!({}), FaultCode::TaskInvalid),
        (json!({"profile": "inventory", "tasks": [reboot()]}), FaultCode::TaskInvalid),
        (json!({"profile": "teleport"}), FaultCode::TaskUnknown),
        (json!({"profile": "inventory", "fast": true}), FaultCode::TaskInvalid),
        (json!({"tasks": [{"task": "inventory", "fast": true}]}), FaultCode::TaskInvalid),
        (
            json!({"tasks": [{"task": "wipe", "devices": "all_disks", "level": "purge", "methods": ["overwrite"]}]}),
            FaultCode::TaskInvalid,
        ),
    ] {
        declined(site.order(&agent, body).await, 400, code);
    }
    let deep = format!("{}{}", "[".repeat(5000), "]".repeat(5000));
    let request = site.operator.request(reqwest::Method::POST, path::RULES).body(deep);
    declined(crate::support::answer::<Value>(request).await, 400, FaultCode::TaskInvalid);
    let request = site.operator.request(reqwest::Method::POST, path::RULES).body(vec![b' '; 10 << 20]);
    declined(crate::support::answer::<Value>(request).await, 413, FaultCode::ProtocolError);
    declined(site.operator.get::<Value>("/v1/nodes/none").await, 404, FaultCode::TaskInvalid);
    declined(site.operator.get::<Value>("/v1/nothing").await, 404, FaultCode::TaskInvalid);
    declined(site.operator.post::<Value>(path::ALERTS, &json!({})).await, 405, FaultCode::TaskInvalid);
}

/// As if its agent had been silent for so long.
async fn fall_silent(site: &Site, agent: &crate::support::Agent, ms: i64) {
    let store = &site.server.state.service.store;
    let mut tx = store.write().await.unwrap();
    let node = agent.admission.as_ref().unwrap().node;
    let mut session = tx.session(node, agent.epoch()).await.unwrap().unwrap();
    session.lease_until = tx.now() - ms;
    tx.put_session(&session).await.unwrap();
    tx.commit().await.unwrap();
    site.server.state.service.notice_silence().await.unwrap();
}

#[tokio::test]
async fn silence_takes_back_what_had_not_begun_and_ends_a_restart() {
    let site = Site::start().await;
    let agent = site.admitted(1).await;
    let order = site.order(&agent, json!({"tasks": [write_image(), reboot()]})).await.unwrap().order;
    let run = agent.grant().await.run;
    fall_silent(&site, &agent, 1).await;
    assert!(!site.node(&agent).await.online);
    assert!(matches!(site.order_now(order.id).await.order.tasks[0].state, TaskState::Queued));
    // The agent was only cut off: what it had in hand is refused, and it gets a new run.
    declined(agent.start(run, &plan("write_image")).await, 409, FaultCode::LeaseLost);
    let again = agent.grant().await.run;
    assert_ne!(again, run);
    assert!(site.node(&agent).await.online);
    agent.start(again, &plan("write_image")).await.unwrap();
    fall_silent(&site, &agent, 11 * 60_000).await;
    assert!(matches!(site.order_now(order.id).await.order.tasks[0].state, TaskState::Running { .. }));
    let alerts: List<speediso_model::api::Alert> = site.operator.get(path::ALERTS).await.unwrap();
    assert_eq!(alerts.items[0].fault.code, FaultCode::LeaseLost);
    agent.end(again, done()).await.unwrap();
    let power = agent.grant().await.run;
    agent.start(power, &plan("power")).await.unwrap();
    fall_silent(&site, &agent, 1).await;
    let view = site.order_now(order.id).await.order;
    assert_eq!(view.state, OrderState::Done);
    match &view.tasks[1].state {
        TaskState::Ended { result, .. } => assert_eq!(result.used, "the agent's last word, then silence"),
        other => panic!("{other:?}"),
    }
}

/// The order expects the disks that the machine had when it was looked at last; without a record it says nothing.
#[tokio::test]
async fn a_decommission_expects_the_recorded_disks() {
    let site = Site::start().await;
    let agent = site.admitted(1).await;
    let decommission = || json!({"profile": "decommission", "parameters": {"level": "clear"}});
    let fault = declined(site.order(&agent, decommission()).await, 400, FaultCode::TaskInvalid);
    assert!(fault.message.contains("inventory first"), "{fault}");

    let disks =
        json!([{"serial": "S1", "model": "M", "size": 4096}, {"serial": "STICK", "removable": true}, {"size": 1}]);
    let inventory = json!({"epoch": agent.epoch(), "inventory": {"hostname": "x", "disks": disks}});
    let _: Lease = crate::support::answer(agent.client.request(reqwest::Method::PUT, path::INVENTORY).json(&inventory))
        .await
        .unwrap();
    let order = site.order(&agent, decommission()).await.unwrap().order;
    assert_eq!(site.node(&agent).await.state, NodeState::Cleaning);
    let task = serde_json::to_value(&order.tasks[0].task).unwrap();
    assert_eq!(task["expect"], json!([{"serial": "S1", "model": "M", "size": 4096}]));
    let grant = agent.grant().await;
    agent.start(grant.run, &plan("wipe")).await.unwrap();
    agent.end(grant.run, done()).await.unwrap();
    assert_eq!(site.node(&agent).await.state, NodeState::Manageable, "wiped for good is not ready to be handed out");
}

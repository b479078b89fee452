//! Burn-ins: what a machine reports is kept, told beside others of its model, and machines that wait are paired.

use reqwest::Method;
use serde_json::{Value, json};
use speediso_controller::store::StoredBurnIn;
use speediso_model::api::{Lease, List, NodeView, path};
use speediso_model::burn_in::NetworkRole;
use speediso_model::burn_in::pairing::PairAnswer;
use speediso_model::burn_in::site::BurnInView;
use speediso_model::fault::FaultCode;
use speediso_model::id::{NodeId, RunId};
use speediso_model::inventory::{Disk, Inventory};
use speediso_model::outcome::{Changed, TaskResult};

use crate::support::{Agent, Answer, Site, answer, declined, mac, plan};

fn report(rate: f64) -> Value {
    let at = "2026-11-21T12:00:00Z";
    json!({"version": 1, "scenario": "quick", "scenario_digest": "d", "began": at, "ended": at, "verdict": "passed",
        "steps": [{"number": 0, "name": "disk", "step": "disk", "began": at, "ended": at, "seconds": 1.0,
            "verdict": {"is": "passed"},
            "measurements": [{"name": "disk.read.bandwidth", "unit": "bytes/s", "value": rate, "where": "sda"}]}]})
}

/// An admitted machine of this model.
async fn of_model(site: &Site, n: u8, product: &str) -> Agent {
    let body = json!({"name": format!("m{n}"), "macs": [mac(n)]});
    site.operator.post::<NodeView>(path::NODES, &body).await.unwrap();
    let mut agent = site.agent(n);
    agent.request.system.manufacturer = "Maker".into();
    agent.request.system.product_name = product.into();
    agent.enrol(Some(site.token(n).await)).await.unwrap();
    agent
}

async fn begun(site: &Site, agent: &Agent, parameters: Value) -> RunId {
    site.order(agent, json!({"profile": "burnin", "parameters": parameters})).await.unwrap();
    let run = agent.grant().await.run;
    agent.start(run, &plan("burn_in")).await.unwrap();
    run
}

async fn burnt_in(site: &Site, agent: &Agent, rate: f64) -> RunId {
    let run = begun(site, agent, json!({})).await;
    let result =
        TaskResult { output: Some(report(rate)), ..TaskResult::verified("burn_in: quick", "disk", Changed::AlreadySo) };
    agent.end(run, result).await.unwrap();
    run
}

async fn reports(site: &Site, agent: &Agent) -> Vec<BurnInView> {
    let found: List<BurnInView> =
        site.operator.get(&path::NODE_BURN_INS.replace("{node}", &agent.node())).await.unwrap();
    found.items
}

#[tokio::test]
async fn a_report_is_kept_and_told_beside_others_of_its_model() {
    let site = Site::start().await;
    let mut agents = Vec::new();
    for n in 1..=6 {
        let agent = of_model(&site, n, "M-1").await;
        burnt_in(&site, &agent, 100.0 + f64::from(n)).await;
        agents.push(agent);
    }
    let slow = of_model(&site, 7, "M-1").await;
    assert!(reports(&site, &slow).await.is_empty());
    burnt_in(&site, &slow, 50.0).await;
    let newest = burnt_in(&site, &slow, 60.0).await;
    let found = reports(&site, &slow).await;
    assert_eq!(found.len(), 2);
    assert_eq!((found[0].run, found[0].report.steps[0].measurements[0].value), (newest, 60.0));
    let compared = &found[0].compared[0];
    assert_eq!((compared.standing.others, compared.standing.percentile), (6, 0.0), "its own older one is no other");
    assert_eq!(compared.values.len(), 6);
    // A run that was refused has nothing to keep.
    let run = begun(&site, &agents[0], json!({})).await;
    agent_fails(&agents[0], run).await;
    assert_eq!(reports(&site, &agents[0]).await.len(), 1);
}

/// Fifty machines of two models, of which each has been burnt in twice, and some whose maker left the fields as they were.
#[tokio::test]
async fn a_machine_stands_among_its_own_model() {
    let site = Site::start().await;
    let mut tx = site.server.state.service.store.write().await.unwrap();
    let now = tx.now();
    for n in 0..60_u32 {
        let (product, first) = match n {
            0..50 if n % 2 == 0 => ("M-1", 100.0),
            0..50 => ("M-2", 900.0),
            _ => ("To Be Filled By O.E.M.", 100.0),
        };
        let node = NodeId::random();
        for (age, rate) in [(2000, 1.0), (1000, first + f64::from(n))] {
            let report = serde_json::from_value(report(rate)).unwrap();
            let (maker, product) = ("Maker".to_owned(), product.to_owned());
            let ended = now - age - i64::from(n);
            tx.put_burn_in(&StoredBurnIn { run: RunId::random(), node, maker, product, ended, report }).await.unwrap();
        }
    }
    tx.commit().await.unwrap();
    let cases = [
        // Below it are 100, 102, 104, 106 and 108; half of the one that is equal counts.
        (1, "M-1", 110.0, Some((22.0, 124.0))),
        (2, "M-1", 99.0, Some((0.0, 124.0))),
        (3, "M-1", 1e9, Some((100.0, 124.0))),
        (4, "M-2", 110.0, Some((0.0, 925.0))),
        (5, "To Be Filled By O.E.M.", 110.0, None),
        (6, "M-3", 110.0, None),
    ];
    for (n, product, rate, expected) in cases {
        let agent = of_model(&site, n, product).await;
        burnt_in(&site, &agent, rate).await;
        let found = &reports(&site, &agent).await[0];
        let standing = found.compared.first().map(|c| (c.standing.percentile, c.standing.median));
        // Machines of the same model that were burnt in meanwhile are others too.
        match (standing, expected) {
            (Some((percentile, median)), Some((p, m))) if n == 1 || n == 4 => assert_eq!((percentile, median), (p, m)),
            (Some((percentile, _)), Some((p, _))) => assert_eq!(percentile, p, "{product} {rate}"),
            (standing, expected) => assert_eq!(standing, expected, "{product}"),
        }
        if n == 1 {
            let values = &found.compared[0].values;
            assert_eq!((values.len(), values[0], values[24]), (25, 100.0, 148.0), "the newest of each, ascending");
        }
    }
}

async fn seen(agent: &Agent, disks: &[&str]) {
    let disk = |serial: &&str| Disk { serial: (*serial).into(), model: "HUS72".into(), ..Disk::default() };
    let inventory = Inventory { disks: disks.iter().map(disk).collect(), ..Inventory::default() };
    let body = json!({"epoch": agent.epoch(), "inventory": inventory});
    let _: Lease = answer(agent.client.request(Method::PUT, path::INVENTORY).json(&body)).await.unwrap();
}

#[tokio::test]
async fn a_restart_that_loses_a_disk_is_no_good_one() {
    let site = Site::start().await;
    let mut agent = site.admitted(1).await;
    seen(&agent, &["S1", "S2"]).await;
    let run = begun(&site, &agent, json!({"reboots": 3})).await;
    let result =
        TaskResult { output: Some(report(1.0)), ..TaskResult::verified("burn_in: quick", "disk", Changed::AlreadySo) };
    agent.end(run, result).await.unwrap();
    for disks in [&["S1", "S2"][..], &["S2"]] {
        let power = agent.grant().await;
        agent.start(power.run, &plan("power")).await.unwrap();
        agent = site.booted_again(1).await;
        seen(&agent, disks).await;
        let look = agent.grant().await;
        assert_eq!(look.task.kind(), "inventory");
        agent.end(look.run, TaskResult::verified("inventory", "sysfs", Changed::AlreadySo)).await.unwrap();
    }
    let found = &reports(&site, &agent).await[0];
    let rounds: Vec<_> = found.reboots.iter().map(|r| (r.outcome.as_str(), r.is_good(), r.is_bad())).collect();
    assert_eq!(rounds, [("verified", true, false), ("verified", false, true), ("queued", false, false)]);
    assert!(found.reboots[1].changes[0].contains("S1") && found.reboots[1].changes[0].ends_with("gone"), "{found:?}");
    assert!(found.reboots[..2].iter().all(|round| round.seconds.is_some()));
    assert!(!found.has_passed(), "the steps kept their limits, and the machine has lost a disk since");
    let page = site.operator.request(Method::GET, &format!("/machines/{}/burn-in", agent.node()));
    assert_eq!(page.send().await.unwrap().status(), 303, "the page is behind the login");
}

#[tokio::test]
async fn a_protected_machine_runs_no_program_of_a_scenario() {
    let site = Site::start().await;
    let agent = site.admitted(1).await;
    let protect = path::NODE_PROTECT.replace("{node}", &agent.node());
    site.operator.post::<NodeView>(&protect, &json!({"protected": true})).await.unwrap();
    let order = |steps: Value| {
        let scenario = json!({"version": 1, "name": "x", "steps": steps});
        site.order(&agent, json!({"profile": "burnin", "parameters": {"scenario": scenario}}))
    };
    let command = json!([{"step": "command", "duration": "1m", "argv": ["iw-probe"], "required": false}]);
    declined(order(command.clone()).await, 409, FaultCode::MachineProtected);
    declined(
        order(json!([{"step": "disk", "duration": "1m", "verify_writes": true}])).await,
        409,
        FaultCode::MachineProtected,
    );
    // What only looks is no matter.
    let reading = order(json!([{"step": "disk", "duration": "1m"}])).await.unwrap();
    let cancel = path::ORDER_CANCEL.replace("{order}", &reading.order.id.to_string());
    let _: Value = site.operator.post(&cancel, &json!({})).await.unwrap();

    // A program that was interrupted is not run a second time by itself.
    site.operator.post::<NodeView>(&protect, &json!({"protected": false})).await.unwrap();
    let ordered = order(command).await.unwrap();
    let run = agent.grant().await.run;
    agent.start(run, &plan("burn_in")).await.unwrap();
    let again = site.booted_again(1).await;
    assert!(again.next().await.unwrap().grant.is_none(), "a person decides");
    assert_eq!(site.order_now(ordered.order.id).await.order.tasks[0].state.name(), "interrupted");
}

async fn agent_fails(agent: &Agent, run: RunId) {
    let fault = speediso_model::fault::Fault::new(FaultCode::Cancelled, "not now");
    let result = TaskResult::failed("burn_in", speediso_model::outcome::Outcome::FailedUnchanged, fault);
    agent.end(run, result).await.unwrap();
}

fn network() -> Value {
    json!({"scenario": {"version": 1, "name": "net", "steps": [{"step": "network", "duration": "10s"}]}})
}

async fn pair(agent: &Agent, run: RunId, address: &str) -> Answer<PairAnswer> {
    let path = path::PAIR.replace("{run}", &run.to_string());
    answer(agent.client.request(Method::POST, &path).json(&json!({"address": address, "terms": "t"}))).await
}

#[tokio::test]
async fn machines_that_wait_are_paired_and_nobody_else_is() {
    let site = Site::start().await;
    let (a, b) = (site.admitted(1).await, site.admitted(2).await);
    let (run_a, run_b) = (begun(&site, &a, network()).await, begun(&site, &b, network()).await);
    assert!(matches!(pair(&a, run_a, "192.0.2.1:4000").await.unwrap(), PairAnswer::Wait { .. }));
    assert!(matches!(pair(&a, run_a, "192.0.2.1:4000").await.unwrap(), PairAnswer::Wait { .. }), "not with itself");
    let PairAnswer::Paired { role, partner, secret, .. } = pair(&b, run_b, "192.0.2.2:5000").await.unwrap() else {
        panic!("somebody waits")
    };
    assert_eq!((role, partner.to_string().as_str()), (NetworkRole::Connect, "192.0.2.1:4000"));
    let PairAnswer::Paired { role, partner, secret: same, .. } = pair(&a, run_a, "192.0.2.1:4000").await.unwrap()
    else {
        panic!("it was found")
    };
    assert_eq!((role, partner.to_string().as_str()), (NetworkRole::Listen, "192.0.2.2:5000"));
    assert!(secret == same && secret.len() == 64);

    declined(pair(&a, run_b, "192.0.2.1:4000").await, 409, FaultCode::NotArmed);
    declined(pair(&a, run_a, "0.0.0.0:4000").await, 400, FaultCode::ProtocolError);
    agent_fails(&a, run_a).await;
    declined(pair(&a, run_a, "192.0.2.1:4000").await, 409, FaultCode::NotArmed);
}

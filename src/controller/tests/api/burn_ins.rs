//! Burn-ins: what a machine reports is kept, told beside others of its model, and machines that wait are paired.

use reqwest::Method;
use serde_json::{Value, json};
use speediso_model::api::{List, path};
use speediso_model::burn_in::NetworkRole;
use speediso_model::burn_in::pairing::PairAnswer;
use speediso_model::burn_in::site::BurnInView;
use speediso_model::fault::FaultCode;
use speediso_model::id::RunId;
use speediso_model::outcome::{Changed, TaskResult};

use crate::support::{Agent, Answer, Site, answer, declined, plan};

fn report(rate: f64) -> Value {
    let at = "2026-11-21T12:00:00Z";
    json!({"version": 1, "scenario": "quick", "scenario_digest": "d", "began": at, "ended": at, "verdict": "passed",
        "steps": [{"number": 0, "name": "disk", "step": "disk", "began": at, "ended": at, "seconds": 1.0,
            "verdict": {"is": "passed"},
            "measurements": [{"name": "disk.read.bandwidth", "unit": "bytes/s", "value": rate, "where": "sda"}]}]})
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
        let agent = site.admitted(n).await;
        burnt_in(&site, &agent, 100.0 + f64::from(n)).await;
        agents.push(agent);
    }
    let slow = site.admitted(7).await;
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

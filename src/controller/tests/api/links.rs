//! Machines that try their link with the controller: the real task against the real program, and who may not.

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};
use speediso_model::api::{Grant, List, NodeView, OrderView, StoredEvent, path};
use speediso_model::burn_in::partner::LinkAnswer;
use speediso_model::burn_in::{BurnInReport, Verdict, Worst};
use speediso_model::fault::FaultCode;
use speediso_model::id::RunId;
use speediso_model::outcome::{Outcome, TaskResult};

use crate::restart::Controller;
use crate::support::{Agent, Answer, Client, Site, answer, declined, mac, plan, script, task_ctx};

fn scenario(with: &str) -> Value {
    let link = json!({"step": "network", "duration": "6s", "with": with, "streams": 2, "datagrams_per_second": 100,
        "required": false});
    json!({"version": 1, "name": "link", "steps": [link, {"step": "pause", "duration": "1s"}]})
}

/// A machine at this controller, with an open order for a burn-in, and its grant.
async fn ordered(controller: &Controller, data: &Path, agent: Option<Agent>) -> (Agent, Client, Grant) {
    let url = format!("https://{}", controller.listen);
    let operator = Client::operator(&url, data);
    let agent = match agent {
        Some(agent) => agent,
        None => {
            let body = json!({"name": "m1", "macs": [mac(1)]});
            operator.post::<NodeView>(path::NODES, &body).await.unwrap();
            let script = script(&format!("http://{}/boot/ipxe?mac={}", controller.boot, mac(1))).await;
            let token = script.split_whitespace().find_map(|w| w.strip_prefix("speediso.token=")).unwrap();
            let mut agent = Agent::new(&url, &std::fs::read_to_string(data.join("ca.pem")).unwrap(), 1);
            agent.enrol(Some(token.to_owned())).await.unwrap();
            agent
        }
    };
    let orders = path::NODE_ORDERS.replace("{node}", &agent.node());
    let body = json!({"profile": "burnin", "parameters": {"scenario": scenario("controller")}});
    operator.post::<OrderView>(&orders, &body).await.unwrap();
    let grant = agent.grant().await;
    (agent, operator, grant)
}

/// As an agent does it: plan, permission, work, report.
async fn burnt_in(agent: &Agent, grant: &Grant, run_dir: &Path) -> (TaskResult, BurnInReport) {
    let mut ctx = task_ctx(agent, grant.run);
    ctx.roots.run = run_dir.to_owned();
    let work = Arc::new((grant.task.clone(), ctx));
    let planned = Arc::clone(&work);
    let plan =
        tokio::task::spawn_blocking(move || speediso_tasks::plan(&planned.0, &planned.1)).await.unwrap().unwrap();
    agent.start(grant.run, &plan).await.unwrap();
    let digest = plan.digest();
    let result = tokio::task::spawn_blocking(move || speediso_tasks::execute(&work.0, &digest, &work.1)).await.unwrap();
    agent.end(grant.run, result.clone()).await.unwrap();
    let report = serde_json::from_value(result.output.clone().unwrap()).unwrap();
    (result, report)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_tries_its_link_with_the_controller() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    // One that is free now; nobody else on this host listens on it a moment later.
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
    let ports = format!("{port}-{port}");
    let any = "127.0.0.1:0";
    let mut controller = Controller::start_with(dir.path(), any, any, &["--link-test-ports", &ports]);
    let (listen, boot) = (controller.listen.clone(), controller.boot.clone());
    let (agent, operator, grant) = ordered(&controller, &data, None).await;
    let (result, report) = burnt_in(&agent, &grant, &dir.path().join("run")).await;
    assert_eq!((result.outcome, report.verdict), (Outcome::Verified, Worst::Passed), "{result:?}");
    let step = &report.steps[0];
    assert_eq!(step.verdict, Verdict::Passed, "{step:?}");
    let value = |name: &str| {
        let found = step.measurements.iter().find(|m| m.name == format!("network.{name}"));
        found.unwrap_or_else(|| panic!("no {name}: {step:?}")).value
    };
    for name in
        ["sent.bandwidth", "received.bandwidth", "both.sent.bandwidth", "both.received.bandwidth", "latency.p99"]
    {
        assert!(value(name) > 0.0, "{name}");
    }
    assert_eq!((value("corrupt_blocks"), value("missing_bytes")), (0.0, 0.0));
    let notices = step.notices.join("\n");
    assert!(notices.contains("from 127.0.0.1 on lo to the controller, 127.0.0.1 on its lo"), "{notices}");
    let opened = format!("is open for m1: 127.0.0.1:{port} on lo");
    let begin = Instant::now();
    loop {
        let events: List<StoredEvent> = operator.get(&format!("{}?limit=200", path::STORED_EVENTS)).await.unwrap();
        let said = |words: &str| events.items.iter().any(|e| e.source == "controller" && e.text.contains(words));
        assert!(said(&opened), "{events:#?}");
        // The controller's end of it comes to its end a moment later than the machine's.
        if said("the port is closed") {
            break;
        }
        assert!(begin.elapsed() < Duration::from_secs(60), "{events:#?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err(), "the port is open for the step only");

    // Started without ports it is nobody's partner: the step is skipped, in words, and is no pass of its own.
    controller.kill();
    let controller = Controller::start(dir.path(), &listen, &boot);
    let (agent, _, grant) = ordered(&controller, &data, Some(agent)).await;
    let (result, report) = burnt_in(&agent, &grant, &dir.path().join("run")).await;
    assert_eq!(result.outcome, Outcome::Verified, "{result:?}");
    let Verdict::Skipped { because } = &report.steps[0].verdict else { panic!("{report:?}") };
    assert!(because[0].contains("--link-test-ports"), "{because:?}");
    assert!(!report.steps[0].measurements.iter().any(|m| m.name.contains("bandwidth")));
}

async fn link(agent: &Agent, run: RunId, address: &str, streams: u8) -> Answer<LinkAnswer> {
    let terms = json!({"stream_seconds": 3, "streams": streams, "datagram_seconds": 2, "datagrams_per_second": 10,
        "datagram_bytes": 700});
    let path = path::LINK.replace("{run}", &run.to_string());
    answer(agent.client.request(Method::POST, &path).json(&json!({"address": address, "terms": terms}))).await
}

#[tokio::test]
async fn only_a_run_that_is_to_try_its_link_gets_a_port() {
    let site = Site::start().await;
    let (a, b) = (site.admitted(1).await, site.admitted(2).await);
    let order = |with| json!({"profile": "burnin", "parameters": {"scenario": scenario(with)}});
    site.order(&a, order("controller")).await.unwrap();
    site.order(&b, order("machine")).await.unwrap();
    let (run_a, run_b) = (a.grant().await.run, b.grant().await.run);
    declined(link(&a, run_a, "127.0.0.1", 2).await, 409, FaultCode::NotArmed);
    let mut looking = plan("burn_in");
    looking.destructive = false;
    a.start(run_a, &looking).await.unwrap();
    b.start(run_b, &looking).await.unwrap();
    declined(link(&b, run_b, "127.0.0.1", 2).await, 409, FaultCode::NotArmed);
    declined(link(&b, run_a, "127.0.0.1", 2).await, 409, FaultCode::NotArmed);
    declined(link(&a, run_a, "0.0.0.0", 2).await, 400, FaultCode::ProtocolError);
    declined(link(&a, run_a, "127.0.0.1", 0).await, 400, FaultCode::ProtocolError);
    declined(link(&site.agent(3), run_a, "127.0.0.1", 2).await, 401, FaultCode::TokenRefused);
    // Those that are to try their links with the controller are paired with nobody.
    let pair = path::PAIR.replace("{run}", &run_a.to_string());
    let body = json!({"address": "127.0.0.1:9", "terms": "t"});
    declined(answer::<Value>(a.client.request(Method::POST, &pair).json(&body)).await, 409, FaultCode::NotArmed);
    let answered = link(&a, run_a, "127.0.0.1", 2).await.unwrap();
    assert!(matches!(&answered, LinkAnswer::No { because } if because.contains("--link-test-ports")), "{answered:?}");
}

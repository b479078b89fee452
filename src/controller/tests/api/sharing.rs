//! Machines that write the same image, as the controller sees them.

use serde_json::{Value, json};
use speediso_model::api::{Alert, List, path};
use speediso_model::fault::FaultCode;
use speediso_model::id::NodeId;
use speediso_model::share::{SegmentMap, ShareAnswer, ShareRequest};

use crate::support::{Agent, Answer, Site, declined, done, plan};

const SEGMENTS: usize = 64;

fn manifest() -> String {
    "ab".repeat(32)
}

fn task(share: bool) -> Value {
    json!({"task": "write_image", "device": {"serial": "S1"}, "read_back": "none", "share": share, "image": {
        "url": "https://192.0.2.1/manifest.json", "digest": format!("sha256:{}", manifest()), "format": "manifest",
        "compression": "none"}})
}

/// A machine in the middle of it.
async fn writing(site: &Site, n: u8, share: bool) -> Agent {
    let agent = site.admitted(n).await;
    site.order(&agent, json!({"tasks": [task(share)]})).await.unwrap();
    let grant = agent.grant().await;
    agent.start(grant.run, &plan("write_image")).await.unwrap();
    agent
}

fn says(agent: &Agent, n: u8) -> ShareRequest {
    ShareRequest {
        epoch: agent.epoch(),
        manifest: manifest(),
        origin: "192.0.2.1".into(),
        address: Some(format!("192.0.2.{n}:40000").parse().unwrap()),
        switch: None,
        have: SegmentMap::none_of(SEGMENTS),
        segment_bytes: 1 << 20,
        fetched_bytes: 0,
        fetched_ms: 0,
        wrong: Vec::new(),
        leaving: false,
    }
}

async fn share(agent: &Agent, said: &ShareRequest) -> Answer<ShareAnswer> {
    agent.client.post(path::SHARE, said).await
}

fn node(agent: &Agent) -> NodeId {
    agent.node().parse().unwrap()
}

#[tokio::test]
async fn each_segment_is_given_to_one_machine_and_each_machine_learns_of_the_others() {
    let site = Site::start().await;
    let (a, b) = (writing(&site, 1, true).await, writing(&site, 2, true).await);
    let first = share(&a, &says(&a, 1)).await.unwrap();
    assert!(first.peers.is_empty() && !first.ticket.is_empty());
    let permit = first.permit.clone().expect("it is entitled");
    assert!(permit.until_ms > first.now_ms);
    let second = share(&b, &says(&b, 2)).await.unwrap();
    assert!(first.ticket.iter().all(|s| !second.ticket.contains(s)), "{first:?} {second:?}");
    let [peer] = second.peers.as_slice() else { panic!("{second:?}") };
    assert_eq!((peer.node, peer.near, peer.address), (node(&a), true, "192.0.2.1:40000".parse().unwrap()));

    // What one holds is not given to the other to fetch, and a measured machine gets what it can do.
    let mut said = says(&a, 1);
    first.ticket.iter().for_each(|s| said.have.insert(s));
    (said.fetched_bytes, said.fetched_ms) = (8 << 20, 1000);
    let more = share(&a, &said).await.unwrap();
    assert_eq!(more.ticket.count(), 32, "8 MiB/s for four seconds, segments of 1 MiB");
    assert!(more.ticket.iter().all(|s| !said.have.contains(s) && !second.ticket.contains(s)));
    let again = share(&b, &says(&b, 2)).await.unwrap();
    assert_eq!(again.ticket, second.ticket, "it keeps what it was given");
    assert_eq!(again.peers[0].have, said.have);

    said.leaving = true;
    share(&a, &said).await.unwrap();
    assert!(share(&b, &says(&b, 2)).await.unwrap().peers.is_empty());
}

#[tokio::test]
async fn only_a_running_task_entitles() {
    let site = Site::start().await;
    let idle = site.admitted(1).await;
    declined(share(&idle, &says(&idle, 1)).await, 409, FaultCode::OrderClosed);
    let alone = writing(&site, 2, false).await;
    declined(share(&alone, &says(&alone, 2)).await, 409, FaultCode::OrderClosed);

    let agent = site.admitted(3).await;
    site.order(&agent, json!({"tasks": [task(true)]})).await.unwrap();
    let grant = agent.grant().await;
    declined(share(&agent, &says(&agent, 3)).await, 409, FaultCode::OrderClosed);
    agent.start(grant.run, &plan("write_image")).await.unwrap();
    let other = ShareRequest { manifest: "cd".repeat(32), ..says(&agent, 3) };
    declined(share(&agent, &other).await, 409, FaultCode::OrderClosed);
    share(&agent, &says(&agent, 3)).await.unwrap();
    // When it is done it may go on giving, but takes no more.
    agent.end(grant.run, done()).await.unwrap();
    let after = share(&agent, &says(&agent, 3)).await.unwrap();
    assert!(after.permit.is_none() && after.ticket.is_empty() && after.peers.is_empty());
}

#[tokio::test]
async fn nonsense_is_declined() {
    let site = Site::start().await;
    let agent = writing(&site, 1, true).await;
    let good = says(&agent, 1);
    for (what, said) in [
        ("manifest", ShareRequest { manifest: "../x".into(), ..good.clone() }),
        ("origin", ShareRequest { origin: "x".repeat(256), ..good.clone() }),
        ("switch", ShareRequest { switch: Some("a\nb".into()), ..good.clone() }),
        ("any address", ShareRequest { address: Some("0.0.0.0:1".parse().unwrap()), ..good.clone() }),
        ("no port", ShareRequest { address: Some("192.0.2.1:0".parse().unwrap()), ..good.clone() }),
        ("a crowd", ShareRequest { wrong: vec![NodeId::random(); 17], ..good.clone() }),
    ] {
        let fault = share(&agent, &said).await.expect_err(what).fault;
        assert_eq!(fault.code, FaultCode::ProtocolError, "{what}: {fault}");
    }
    let mut map = serde_json::to_value(&good).unwrap();
    map["have"] = "5000:00".into();
    agent.client.post::<Value>(path::SHARE, &map).await.expect_err("no such map");
    share(&agent, &good).await.unwrap();
}

#[tokio::test]
async fn a_machine_that_gave_wrong_bytes_is_a_matter_for_a_person() {
    let site = Site::start().await;
    let (a, b) = (writing(&site, 1, true).await, writing(&site, 2, true).await);
    let said = ShareRequest { wrong: vec![node(&b), NodeId::random()], ..says(&a, 1) };
    for _ in 0..2 {
        share(&a, &said).await.unwrap();
    }
    let alerts: List<Alert> = site.operator.get(path::ALERTS).await.unwrap();
    let [alert] = alerts.items.as_slice() else { panic!("one alert: {alerts:?}") };
    assert_eq!((alert.node, alert.fault.code), (Some(node(&b)), FaultCode::ShareWrong));
    assert!(alert.fault.message.contains("m1") && alert.fault.message.contains("m2"), "{}", alert.fault.message);
}

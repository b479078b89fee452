//! Logs of machines: stored once, bounded, without secrets, followed.

use std::time::Duration;

use serde_json::{Value, json};
use speediso_model::api::{Lease, List, path};
use speediso_model::fault::FaultCode;
use speediso_model::log::{LogBoot, LogLevel, LogLine, LogSource, LogsRequest, StoredLine};

use crate::support::{Agent, Answer, Site};

fn line(seq: u64, text: &str) -> LogLine {
    LogLine { seq, uptime_ms: seq, level: LogLevel::Info, source: LogSource::Agent, text: text.into() }
}

async fn deliver(agent: &Agent, lines: Vec<LogLine>, lost: u64) -> Answer<Lease> {
    let request = LogsRequest { epoch: agent.epoch(), lines, lost, network_doctor: None };
    agent.client.post(path::LOGS, &request).await
}

async fn lines(site: &Site, agent: &Agent, query: &str) -> Vec<StoredLine> {
    let path = format!("{}{query}", path::NODE_LOGS.replace("{node}", &agent.node()));
    site.operator.get::<List<StoredLine>>(&path).await.unwrap().items
}

/// The same machine, told to boot the ramdisk again.
async fn again(site: &Site, agent: &Agent) -> Agent {
    site.operator.post::<Value>(&path::NODE_ARM.replace("{node}", &agent.node()), &json!({})).await.unwrap();
    site.booted_again(1).await
}

async fn boots(site: &Site, agent: &Agent) -> Vec<LogBoot> {
    let path = path::NODE_LOG_BOOTS.replace("{node}", &agent.node());
    site.operator.get::<List<LogBoot>>(&path).await.unwrap().items
}

#[tokio::test]
async fn lines_are_stored_once_and_without_secrets() {
    let site = Site::start().await;
    let agent = site.admitted(1).await;
    let task = json!({"task": "capture", "device": {"serial": "S1"},
        "to": {"url": "https://192.0.2.1/i", "headers": {"X-Own": "CANARY-1"}}});
    site.order(&agent, json!({"tasks": [task]})).await.unwrap();
    let said = vec![line(1, "X is CANARY-1\x1b[2J"), line(2, "speediso.token=CANARY-2"), line(3, "well")];
    deliver(&agent, said.clone(), 0).await.unwrap();
    deliver(&agent, said, 4).await.unwrap();
    let stored = lines(&site, &agent, "").await;
    let texts: Vec<&str> = stored.iter().map(|l| l.line.text.as_str()).collect();
    assert_eq!(texts, ["X is (secret) [2J", "speediso.token=(secret)", "well"]);
    let kept = boots(&site, &agent).await;
    assert_eq!((kept.len(), kept[0].lines, kept[0].lost), (1, 3, 4));
    let after = lines(&site, &agent, &format!("?after={}", stored[1].cursor)).await;
    assert_eq!(after, stored[2..]);
}

#[tokio::test]
async fn the_newest_of_the_newest_boots_are_kept() {
    let site = Site::start().await;
    let agent = site.admitted(1).await;
    for batch in 0..21u64 {
        let said = (0..500).map(|n| line(batch * 500 + n + 1, "x")).collect();
        deliver(&agent, said, 0).await.unwrap();
    }
    let kept = boots(&site, &agent).await;
    assert_eq!((kept[0].lines, kept[0].lost), (10_000, 500));
    assert_eq!(lines(&site, &agent, "?limit=1").await[0].line.seq, 501);
    let mut last = agent;
    for _ in 0..6 {
        let old = last.epoch();
        last = again(&site, &last).await;
        assert!(last.epoch() > old);
        deliver(&last, vec![line(1, "booted")], 0).await.unwrap();
    }
    let kept = boots(&site, &last).await;
    assert_eq!(kept.len(), 5);
    assert_eq!(kept[0].epoch, last.epoch());
    assert_eq!(lines(&site, &last, "").await.len(), 5, "lines go with their boot");
}

#[tokio::test]
async fn an_old_boot_delivers_nothing_more() {
    let site = Site::start().await;
    let old = site.admitted(1).await;
    let _new = again(&site, &old).await;
    let declined = deliver(&old, vec![line(1, "late")], 0).await.unwrap_err();
    assert_eq!(declined.fault.code, FaultCode::EpochStale);
}

#[tokio::test]
async fn who_follows_is_woken() {
    let site = Site::start().await;
    let agent = site.admitted(1).await;
    // Woken by the end of its wait alone it would come back with nothing.
    let (seen, ()) = tokio::join!(lines(&site, &agent, "?wait=20"), async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        deliver(&agent, vec![line(1, "news")], 0).await.unwrap();
    });
    assert_eq!(seen[0].line.text, "news");
    let nobody = path::NODE_LOGS.replace("{node}", "6f1f6e0e-54a9-4bd5-a7c0-8f2b2a3c1d11");
    let declined = site.operator.get::<Value>(&nobody).await.unwrap_err();
    assert_eq!(declined.status, 404);
}

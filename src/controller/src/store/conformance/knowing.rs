//! What is known of machines beyond their inventories: burn-ins, who waits for a partner, logs.

use std::slice::from_ref;

use serde_json::json;
use speediso_model::burn_in::BurnInReport;
use speediso_model::burn_in::pairing::{PairRequest, SILENT_MS, Waiting};
use speediso_model::id::{BootId, Epoch, NodeId, RunId};
use speediso_model::log::{LogLevel, LogLine, LogSource, LogsQuery};
use speediso_model::outcome::{Changed, TaskResult};

use super::{node, order, put};
use crate::store::logs::{Delivery, MOST_BOOTS, MOST_LINES};
use crate::store::{Millis, Store, StoredBurnIn};

fn burn_in(node: NodeId, product: &str, ended: Millis) -> StoredBurnIn {
    let at = "2026-01-01T00:00:00Z";
    let report: BurnInReport = serde_json::from_value(json!({
        "version": 1, "scenario": "x", "scenario_digest": "d", "began": at, "ended": at, "verdict": "passed",
        "reasons": ["\u{7} and \"quotes\" and – dashes"], "steps": [],
    }))
    .unwrap();
    StoredBurnIn { run: RunId::random(), node, maker: "Maker".into(), product: product.into(), ended, report }
}

pub(super) async fn burn_ins_are_found_by_machine_and_by_model(store: &dyn Store) {
    let [a, b, c] = [NodeId::random(), NodeId::random(), NodeId::random()];
    let (first, second) = (burn_in(a, "M-1", 1_700_000_000_000), burn_in(a, "M-1", 1_700_000_000_002));
    let (other, older) = (burn_in(b, "M-1", 1_700_000_000_003), burn_in(b, "M-1", 1_700_000_000_001));
    let elsewhere = burn_in(c, "M-2", 1_700_000_000_004);
    let mut tx = store.write().await.unwrap();
    for one in [&first, &second, &other, &older, &elsewhere] {
        tx.put_burn_in(one).await.unwrap();
    }
    // The end of a run is told again: what was stored first stays.
    tx.put_burn_in(&StoredBurnIn { product: "M-9".into(), ..first.clone() }).await.unwrap();
    tx.commit().await.unwrap();

    let mut tx = store.read().await.unwrap();
    assert_eq!(tx.burn_ins(a, 10).await.unwrap(), [second.clone(), first.clone()], "newest first, and whole");
    assert_eq!(tx.burn_ins(a, 1).await.unwrap(), from_ref(&second));
    assert_eq!(tx.burn_ins(NodeId::random(), 10).await.unwrap(), []);
    let of_model = tx.burn_ins_of_model("Maker", "M-1", NodeId::random(), 10).await.unwrap();
    assert_eq!(of_model, [other.clone(), second], "the newest of each machine, whole, newest first");
    assert_eq!(tx.burn_ins_of_model("Maker", "M-1", a, 10).await.unwrap(), [other], "the others");
    assert_eq!(tx.burn_ins_of_model("Maker", "M-1", c, 1).await.unwrap().len(), 1);
    assert_eq!(tx.burn_ins_of_model("Maker", "M-2", c, 10).await.unwrap(), []);
    assert_eq!(tx.burn_ins_of_model("maker", "M-1", a, 10).await.unwrap(), [], "another maker");
}

pub(super) async fn it_is_known_when_a_run_ended(store: &dyn Store) {
    let a = node("a", "52:54:00:00:00:01");
    put(store, &a).await;
    let (order, run) = (order(a.id), RunId::random());
    let mut tx = store.write().await.unwrap();
    tx.put_order(&order).await.unwrap();
    tx.put_grant(run, order.order.id, a.id, Epoch(1)).await.unwrap();
    assert_eq!(tx.run_ended(run).await.unwrap(), None, "it goes on");
    assert_eq!(tx.run_ended(RunId::random()).await.unwrap(), None, "nobody knows it");
    tx.put_end(run, &TaskResult::verified("a", "b", Changed::AlreadySo)).await.unwrap();
    let now = tx.now();
    assert_eq!(tx.run_ended(run).await.unwrap(), Some(now));
}

pub(super) async fn who_waits_for_a_partner_is_forgotten_when_silent(store: &dyn Store) {
    let mut tx = store.write().await.unwrap();
    let now = tx.now();
    let request = PairRequest { address: "[2001:db8::1]:4000".parse().unwrap(), terms: "t".into() };
    let waiting = |since| Waiting::new(RunId::random(), NodeId::random(), "m1", &request, since);
    let (here, silent) = (waiting(now), waiting(now - SILENT_MS));
    tx.put_pairing(&here).await.unwrap();
    tx.put_pairing(&silent).await.unwrap();
    assert_eq!(tx.pairing().await.unwrap(), from_ref(&here));
    // The same run again replaces what it said before.
    let again = Waiting { terms: "other".into(), until: now + 1000, ..here };
    tx.put_pairing(&again).await.unwrap();
    assert_eq!(tx.pairing().await.unwrap(), [again]);
}

fn delivery(node: NodeId, boot: BootId, epoch: u64, seqs: std::ops::Range<u64>) -> Delivery {
    let line = |seq| LogLine {
        seq,
        uptime_ms: u64::from(u32::MAX) + seq,
        level: LogLevel::Warn,
        source: LogSource::Kernel,
        text: format!("line {seq} – \"quoted\""),
    };
    Delivery { node, boot, epoch: Epoch(epoch), lines: seqs.map(line).collect(), lost: 0, network_doctor: None }
}

pub(super) async fn logs_are_kept_once_in_order_and_up_to_a_bound(store: &dyn Store) {
    let (a, b) = (node("a", "52:54:00:00:00:01"), node("b", "52:54:00:00:00:02"));
    put(store, &a).await;
    put(store, &b).await;
    let (boot, other) = (BootId::random(), BootId::random());
    let mut tx = store.write().await.unwrap();
    tx.put_log(&delivery(a.id, boot, 1, 0..5)).await.unwrap();
    tx.put_log(&delivery(b.id, other, 1, 0..2)).await.unwrap();
    // Two of them come again, and the agent could not keep three.
    tx.put_log(&Delivery { lost: 3, ..delivery(a.id, boot, 1, 3..7) }).await.unwrap();
    let findings = json!({"verdict": "bad"});
    tx.put_log(&Delivery { network_doctor: Some(findings.clone()), ..delivery(a.id, boot, 2, 0..0) }).await.unwrap();
    tx.put_log(&delivery(a.id, boot, 2, 0..0)).await.unwrap();
    tx.commit().await.unwrap();

    let mut tx = store.read().await.unwrap();
    let all = tx.log(a.id, &LogsQuery::default()).await.unwrap();
    assert_eq!(all.iter().map(|l| l.line.seq).collect::<Vec<_>>(), [0, 1, 2, 3, 4, 5, 6]);
    assert!(all.windows(2).all(|w| w[0].cursor < w[1].cursor) && all.iter().all(|l| l.boot == boot));
    assert_eq!(all[6].line, delivery(a.id, boot, 1, 6..7).lines[0]);
    let after = LogsQuery { after: all[4].cursor, limit: Some(1), ..LogsQuery::default() };
    assert_eq!(tx.log(a.id, &after).await.unwrap(), [all[5].clone()]);
    let elsewhere = LogsQuery { boot: Some(other), ..LogsQuery::default() };
    assert_eq!(tx.log(a.id, &elsewhere).await.unwrap(), [], "another machine's boot");
    let boots = tx.log_boots(a.id).await.unwrap();
    assert_eq!((boots.len(), boots[0].boot, boots[0].epoch), (1, boot, Epoch(2)));
    assert_eq!((boots[0].lines, boots[0].lost, boots[0].network_doctor.as_ref()), (7, 3, Some(&findings)));
    drop(tx);

    let mut tx = store.write().await.unwrap();
    tx.put_log(&delivery(a.id, boot, 2, 7..u64::from(MOST_LINES) + 2)).await.unwrap();
    let kept = &tx.log_boots(a.id).await.unwrap()[0];
    assert_eq!((kept.lines, kept.lost), (MOST_LINES.into(), 5), "the oldest two made room, and that is said");
    assert_eq!(tx.log(a.id, &LogsQuery { limit: Some(1), ..LogsQuery::default() }).await.unwrap()[0].line.seq, 2);
    for epoch in 3..3 + u64::from(MOST_BOOTS) {
        tx.put_log(&delivery(a.id, BootId::random(), epoch, 0..1)).await.unwrap();
    }
    let epochs: Vec<u64> = tx.log_boots(a.id).await.unwrap().iter().map(|boot| boot.epoch.0).collect();
    assert_eq!(epochs, [7, 6, 5, 4, 3], "the oldest boot is gone, with its lines");
    assert_eq!(tx.log(a.id, &LogsQuery::default()).await.unwrap().len(), 5);
    assert_eq!(tx.log(b.id, &LogsQuery::default()).await.unwrap().len(), 2, "another machine's are its own");
}

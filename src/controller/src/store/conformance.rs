//! What every store must do, as functions over the trait: a second implementation runs the same ones.
#![allow(clippy::unwrap_used)]

mod knowing;

use std::sync::Arc;

use serde_json::Value;
use speediso_model::api::{EventsQuery, RuleRequest};
use speediso_model::certificate::Digest;
use speediso_model::certificate::machine::Gone;
use speediso_model::certificate::site::{CertificateKind, CertificatePolicy, CertificateView, CertificatesQuery};
use speediso_model::event::Progress;
use speediso_model::fault::{Fault, FaultCode};
use speediso_model::id::{BootId, Epoch, NodeId, OrderId, RunId};
use speediso_model::inventory::compare::Change;
use speediso_model::inventory::{Disk, Inventory, SystemVendor};
use speediso_model::node::NodeState;
use speediso_model::order::{Order, OrderState};
use speediso_model::outcome::{Changed, TaskResult};
use speediso_model::plan::Plan;
use speediso_model::share::SegmentMap;
use speediso_model::share::group::Member;
use speediso_model::wipe::WipeLevel;

use self::knowing::{
    burn_ins_are_found_by_machine_and_by_model, it_is_known_when_a_run_ended,
    logs_are_kept_once_in_order_and_up_to_a_bound, who_waits_for_a_partner_is_forgotten_when_silent,
};
use super::record::Noticed;
use super::{Image, NewEvent, Node, OrderRecord, Session, SqliteStore, Start, Store, Token, WipeCertificate};

fn node(name: &str, mac: &str) -> Node {
    let system = SystemVendor { uuid: Some(format!("4C4C4544-{name}")), ..SystemVendor::default() };
    Node::new(name.into(), NodeState::Enroll, system, vec![mac.into()])
}

fn order(node: NodeId) -> OrderRecord {
    OrderRecord::new(Order {
        id: OrderId::random(),
        node,
        profile: Some("shell".into()),
        state: OrderState::Open,
        tasks: Vec::new(),
        dry_run: false,
        skip_block_devices: Default::default(),
        by: "me".into(),
        created: jiff::Timestamp::from_millisecond(1_700_000_000_123).unwrap(),
        closed: None,
        notes: None,
    })
}

async fn put(store: &dyn Store, node: &Node) {
    let mut tx = store.write().await.unwrap();
    tx.put_node(node).await.unwrap();
    tx.commit().await.unwrap();
}

async fn nodes_are_found_by_what_identifies_them(store: &dyn Store) {
    let mut a = node("a", "52:54:00:00:00:01");
    let b = node("b", "52:54:00:00:00:02");
    put(store, &a).await;
    put(store, &b).await;
    let mut tx = store.write().await.unwrap();
    assert_eq!(tx.node(a.id).await.unwrap().as_ref(), Some(&a));
    assert_eq!(tx.node_named("b").await.unwrap(), Some(b.id));
    assert_eq!(tx.node_named("c").await.unwrap(), None);
    assert_eq!(tx.nodes_with(&a.identity()).await.unwrap(), vec![a.clone()]);
    let both: Vec<_> = a.identity().into_iter().chain(b.identity()).collect();
    assert_eq!(tx.nodes_with(&both).await.unwrap().len(), 2);
    // An exchanged network card: the old address names nobody any more.
    let old = a.identity();
    a.macs = vec!["52:54:00:00:00:03".into()];
    a.system.uuid = None;
    tx.put_node(&a).await.unwrap();
    assert!(tx.nodes_with(&old).await.unwrap().is_empty());
    assert_eq!(tx.nodes_with(&a.identity()).await.unwrap().len(), 1);
    tx.commit().await.unwrap();
}

async fn what_was_not_committed_never_was(store: &dyn Store) {
    let a = node("a", "52:54:00:00:00:01");
    let mut tx = store.write().await.unwrap();
    tx.put_node(&a).await.unwrap();
    drop(tx);
    assert!(store.read().await.unwrap().node(a.id).await.unwrap().is_none());
}

async fn writers_exclude_one_another(store: Arc<dyn Store>) {
    let a = node("a", "52:54:00:00:00:01");
    put(&*store, &a).await;
    // Each reads the epoch and writes one more: none may be lost.
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let (store, id) = (Arc::clone(&store), a.id);
        tasks.spawn(async move {
            let mut tx = store.write().await.unwrap();
            let mut node = tx.node(id).await.unwrap().unwrap();
            node.epoch = Epoch(node.epoch.0 + 1);
            tokio::task::yield_now().await;
            tx.put_node(&node).await.unwrap();
            tx.commit().await.unwrap();
        });
    }
    tasks.join_all().await;
    assert_eq!(store.read().await.unwrap().node(a.id).await.unwrap().unwrap().epoch, Epoch(20));
}

async fn one_order_is_open_at_a_time(store: &dyn Store) {
    let a = node("a", "52:54:00:00:00:01");
    put(store, &a).await;
    let mut first = order(a.id);
    let mut tx = store.write().await.unwrap();
    tx.put_order(&first).await.unwrap();
    assert!(tx.put_order(&order(a.id)).await.is_err(), "a second open order");
    drop(tx);
    let mut tx = store.write().await.unwrap();
    tx.put_order(&first).await.unwrap();
    assert_eq!(tx.open_order(a.id).await.unwrap().as_ref(), Some(&first));
    first.order.state = OrderState::Done;
    tx.put_order(&first).await.unwrap();
    assert!(tx.open_order(a.id).await.unwrap().is_none());
    assert_eq!(tx.order(first.order.id).await.unwrap().as_ref(), Some(&first));
    tx.put_order(&order(a.id)).await.unwrap();
    assert_eq!(tx.orders(Some(a.id), 10).await.unwrap().len(), 2);
    assert_eq!(tx.orders(None, 1).await.unwrap().len(), 1);
    tx.commit().await.unwrap();
}

async fn a_run_is_granted_and_started_once(store: &dyn Store) {
    let a = node("a", "52:54:00:00:00:01");
    put(store, &a).await;
    let order = order(a.id);
    let run = RunId::random();
    let plan = Plan { task: "wipe".into(), destructive: true, devices: vec![], effects: vec![], untouched: vec![] };
    let start = Start { at: 5, digest: plan.digest(), plan };
    let mut tx = store.write().await.unwrap();
    tx.put_order(&order).await.unwrap();
    tx.put_grant(run, order.order.id, a.id, Epoch(1)).await.unwrap();
    tx.put_start(run, &start).await.unwrap();
    tx.commit().await.unwrap();
    let mut tx = store.write().await.unwrap();
    assert!(tx.put_grant(run, order.order.id, a.id, Epoch(2)).await.is_err(), "granted again");
    drop(tx);
    let mut tx = store.write().await.unwrap();
    assert!(tx.put_start(run, &Start { at: 6, ..start.clone() }).await.is_err(), "started again");
    drop(tx);
    let mut tx = store.write().await.unwrap();
    assert!(tx.put_start(RunId::random(), &start).await.is_err(), "a run nobody granted");
    drop(tx);
    let mut tx = store.write().await.unwrap();
    let first = TaskResult::verified("a", "first", Changed::Changed);
    tx.put_end(run, &first).await.unwrap();
    tx.put_end(run, &TaskResult::verified("a", "second", Changed::Changed)).await.unwrap();
    let record = tx.run(run).await.unwrap().unwrap();
    assert_eq!((record.epoch, record.started, record.ended), (Epoch(1), Some(start), Some(first)));
    assert!(tx.run(RunId::random()).await.unwrap().is_none());
}

async fn sessions_lapse_by_the_stores_clock(store: &dyn Store) {
    let a = node("a", "52:54:00:00:00:01");
    put(store, &a).await;
    let mut tx = store.write().await.unwrap();
    let now = tx.now();
    assert!((now - jiff::Timestamp::now().as_millisecond()).abs() < 60_000, "milliseconds since 1970");
    let mut session = Session {
        node: a.id,
        epoch: Epoch(1),
        boot_id: BootId::random(),
        key: "k".into(),
        certificate: "c".into(),
        lease_until: now + 1000,
        last_seen: now,
        address: Some("192.0.2.9".into()),
        revoked: false,
        noticed: Noticed::Nothing,
    };
    tx.put_session(&session).await.unwrap();
    assert_eq!(tx.session(a.id, Epoch(1)).await.unwrap().as_ref(), Some(&session));
    assert!(tx.lapsed(600_000).await.unwrap().is_empty());
    session.lease_until = now - 1;
    tx.put_session(&session).await.unwrap();
    assert_eq!(tx.lapsed(600_000).await.unwrap(), vec![a.id]);
    session.noticed = Noticed::LeaseLapsed;
    tx.put_session(&session).await.unwrap();
    assert!(tx.lapsed(600_000).await.unwrap().is_empty());
    session.lease_until = now - 600_001;
    tx.put_session(&session).await.unwrap();
    assert_eq!(tx.lapsed(600_000).await.unwrap(), vec![a.id]);
    session.revoked = true;
    tx.put_session(&session).await.unwrap();
    assert!(tx.lapsed(600_000).await.unwrap().is_empty());
    tx.put_certificate("5a", a.id, Epoch(1)).await.unwrap();
    assert_eq!(tx.certificate("5a").await.unwrap(), Some((a.id, Epoch(1))));
    assert_eq!(tx.certificate("5b").await.unwrap(), None);
}

async fn used_tokens_are_remembered(store: &dyn Store) {
    let a = node("a", "52:54:00:00:00:01");
    put(store, &a).await;
    let mut tx = store.write().await.unwrap();
    let mut used = Token { sha256: "1".into(), node: a.id, expires: 1, used_by: None };
    tx.put_token(&used).await.unwrap();
    used.used_by = Some("k".into());
    tx.put_token(&used).await.unwrap();
    tx.put_token(&Token { sha256: "2".into(), used_by: None, ..used.clone() }).await.unwrap();
    tx.drop_unused_tokens(a.id).await.unwrap();
    assert_eq!(tx.token("1").await.unwrap(), Some(used));
    assert_eq!(tx.token("2").await.unwrap(), None);
}

async fn events_keep_their_order(store: &dyn Store) {
    let (a, b) = (NodeId::random(), NodeId::random());
    let wanted = OrderId::random();
    let mut tx = store.write().await.unwrap();
    for n in 0..10 {
        let event = NewEvent {
            node: if n % 2 == 0 { a } else { b },
            order: (n == 4).then_some(wanted),
            source: "agent".into(),
            late: n == 9,
            text: n.to_string(),
            detail: Value::Null,
        };
        tx.put_event(&event).await.unwrap();
    }
    tx.commit().await.unwrap();
    let mut tx = store.read().await.unwrap();
    let texts = |events: Vec<speediso_model::api::StoredEvent>| events.into_iter().map(|e| e.text).collect::<String>();
    let all = tx.events(&EventsQuery::default()).await.unwrap();
    assert!(all.windows(2).all(|w| w[0].cursor < w[1].cursor));
    assert!(all[9].late && !all[8].late);
    let third = all[2].cursor;
    assert_eq!(texts(all), "0123456789");
    let query = EventsQuery { after: third, node: Some(a), ..EventsQuery::default() };
    assert_eq!(texts(tx.events(&query).await.unwrap()), "468");
    let query = EventsQuery { order: Some(wanted), ..EventsQuery::default() };
    assert_eq!(texts(tx.events(&query).await.unwrap()), "4");
    let query = EventsQuery { order: Some(wanted), node: Some(b), ..EventsQuery::default() };
    assert_eq!(texts(tx.events(&query).await.unwrap()), "");
    let query = EventsQuery { limit: Some(2), ..EventsQuery::default() };
    assert_eq!(texts(tx.events(&query).await.unwrap()), "01");
    assert_eq!(texts(tx.last_events(a, 2).await.unwrap()), "68");
    assert_eq!(tx.event_cursor().await.unwrap(), third + 7);
    drop(tx);
    let boot = BootId::random();
    let mut tx = store.write().await.unwrap();
    tx.put_acknowledged(a, boot, 7).await.unwrap();
    tx.put_acknowledged(a, boot, 5).await.unwrap();
    assert_eq!(tx.acknowledged(a, boot).await.unwrap(), 7, "never backwards");
    assert_eq!(tx.acknowledged(a, BootId::random()).await.unwrap(), 0);
}

async fn only_the_newest_progress_counts(store: &dyn Store) {
    let (node, run) = (NodeId::random(), RunId::random());
    let progress = |current, uptime_ms, device: Option<&str>| Progress {
        run,
        stage: "writing".into(),
        current,
        total: Some(10),
        unit: "bytes".into(),
        rate: 1.0,
        device: device.map(String::from),
        uptime_ms,
    };
    let mut tx = store.write().await.unwrap();
    tx.put_progress(node, &progress(1, 10, None)).await.unwrap();
    tx.put_progress(node, &progress(3, 30, None)).await.unwrap();
    tx.put_progress(node, &progress(2, 20, None)).await.unwrap();
    tx.put_progress(node, &progress(5, 10, Some("/dev/sda"))).await.unwrap();
    let now: Vec<_> = tx.progress(node).await.unwrap().into_iter().map(|p| p.current).collect();
    assert_eq!(now, [3, 5]);
    tx.drop_progress(run).await.unwrap();
    assert!(tx.progress(node).await.unwrap().is_empty());
}

async fn the_rest_is_kept(store: &dyn Store) {
    let a = node("a", "52:54:00:00:00:01");
    put(store, &a).await;
    let mut tx = store.write().await.unwrap();
    tx.put_secret("x", b"1").await.unwrap();
    tx.put_secret("x", b"2").await.unwrap();
    assert_eq!(tx.secret("x").await.unwrap().as_deref(), Some(&b"2"[..]));
    assert_eq!(tx.secret("y").await.unwrap(), None);

    let inventory = Inventory { hostname: "h".into(), ..Inventory::default() };
    assert_eq!(tx.inventory(a.id).await.unwrap(), None);
    tx.put_inventory(a.id, &inventory).await.unwrap();
    assert_eq!(tx.inventory(a.id).await.unwrap(), Some(inventory));

    let fault = Fault::new(FaultCode::DiskIo, "x");
    tx.put_alert("k", Some(a.id), &fault).await.unwrap();
    tx.put_alert("k", Some(a.id), &fault).await.unwrap();
    tx.put_alert("l", None, &fault).await.unwrap();
    let alerts = tx.alerts(10).await.unwrap();
    assert_eq!(alerts.iter().map(|a| a.node).collect::<Vec<_>>(), [None, Some(a.id)]);

    let rule =
        RuleRequest { manufacturer: Some("QEMU".into()), product_name: None, serial_prefix: None, mac_prefix: None };
    let stored = tx.put_rule(&rule).await.unwrap();
    assert_eq!(tx.rules().await.unwrap(), vec![stored.clone()]);
    assert!(tx.drop_rule(stored.id).await.unwrap());
    assert!(!tx.drop_rule(stored.id).await.unwrap());

    let image = Image { name: "i".into(), size: u64::from(u32::MAX) + 1, sha256: "ab".into(), stored: tx.now() };
    tx.put_image(&image).await.unwrap();
    assert_eq!(tx.image("i").await.unwrap().as_ref(), Some(&image));
    assert_eq!(tx.images().await.unwrap(), vec![image]);
}

async fn who_shares_is_forgotten_when_silent(store: &dyn Store) {
    let (n, other) = (NodeId::random(), NodeId::random());
    let mut tx = store.write().await.unwrap();
    let now = tx.now();
    let member = |node, manifest: &str, origin: &str, until| Member {
        node,
        manifest: manifest.into(),
        origin: origin.into(),
        address: Some("192.0.2.1:1".parse().unwrap()),
        switch: None,
        have: SegmentMap::all_of(9),
        segment_bytes: 1,
        ticket: SegmentMap::none_of(9),
        ticket_until: 0,
        rate: Some(5),
        grew: 0,
        until,
    };
    let (here, elsewhere) = (member(n, "m", "o", now + 60_000), member(other, "x", "o", now + 60_000));
    tx.put_sharing(&here).await.unwrap();
    tx.put_sharing(&elsewhere).await.unwrap();
    tx.put_sharing(&member(NodeId::random(), "m", "o", now)).await.unwrap();
    tx.put_sharing(&member(NodeId::random(), "x", "p", now + 60_000)).await.unwrap();
    let found = tx.sharing("m", "o").await.unwrap();
    assert_eq!(found.len(), 2, "this image, and others from the same server: {found:?}");
    assert!(found.contains(&here) && found.contains(&elsewhere));
    // The same machine again replaces what it said before.
    let again = Member { have: SegmentMap::none_of(9), ..here.clone() };
    tx.put_sharing(&again).await.unwrap();
    assert!(tx.sharing("m", "").await.unwrap() == [again]);
    tx.drop_sharing("m", n).await.unwrap();
    assert!(tx.sharing("m", "").await.unwrap().is_empty());
}

fn certificate(number: u64, origin: &str, serial: &str) -> WipeCertificate {
    let document = format!("document {number}\n");
    WipeCertificate {
        view: CertificateView {
            number,
            document: Digest::of(document.as_bytes()),
            issued: jiff::Timestamp::from_millisecond(1000 * i64::try_from(number).unwrap()).unwrap(),
            kind: CertificateKind::Device,
            node: NodeId(uuid::Uuid::from_u128(u128::from(number % 2))),
            node_name: "m".into(),
            order: OrderId(uuid::Uuid::from_u128(5)),
            run: None,
            subject: "a disk".into(),
            serial: serial.into(),
            reached: WipeLevel::Clear,
            method: None,
            key: "k".into(),
        },
        origin: origin.into(),
        disk: "d".into(),
        document,
    }
}

async fn certificates_are_numbered_without_gaps_and_stay(store: &dyn Store) {
    let all: Vec<_> = (1..=3).map(|n| certificate(n, &format!("run {n}"), &format!("Serial-{n}"))).collect();
    let mut tx = store.write().await.unwrap();
    assert_eq!(tx.wipe_certificate_head().await.unwrap(), None);
    for one in &all {
        tx.put_wipe_certificate(one).await.unwrap();
    }
    tx.commit().await.unwrap();
    for wrong in [
        certificate(3, "another", "x"),
        certificate(5, "another", "x"),
        certificate(0, "another", "x"),
        certificate(4, "run 2", "x"),
    ] {
        let mut tx = store.write().await.unwrap();
        assert!(tx.put_wipe_certificate(&wrong).await.is_err(), "{} {}", wrong.view.number, wrong.origin);
    }
    let mut tx = store.read().await.unwrap();
    assert_eq!(tx.wipe_certificate_head().await.unwrap(), Some((3, all[2].view.document.clone())));
    assert_eq!(tx.wipe_certificate(2).await.unwrap().as_ref(), Some(&all[1]));
    assert_eq!(tx.wipe_certificate(u64::MAX).await.unwrap(), None);
    assert_eq!(tx.wipe_certificate_for("run 3").await.unwrap().as_ref(), Some(&all[2]));
    let chain = tx.wipe_certificate_chain(1, 1).await.unwrap();
    assert_eq!(chain, [(2, all[1].document.clone())]);
    let time = |s| Some(jiff::Timestamp::from_second(s).unwrap());
    let any = CertificatesQuery::default;
    for (query, numbers) in [
        (any(), vec![3, 2, 1]),
        (CertificatesQuery { node: Some(all[0].view.node), ..any() }, vec![3, 1]),
        (CertificatesQuery { order: Some(all[0].view.order), limit: Some(2), ..any() }, vec![3, 2]),
        (CertificatesQuery { serial: Some("serial-2".into()), ..any() }, vec![2]),
        (CertificatesQuery { from: time(2), until: time(3), ..any() }, vec![2]),
        (CertificatesQuery { before: Some(2), ..any() }, vec![1]),
    ] {
        let found = tx.wipe_certificates(&query).await.unwrap();
        assert_eq!(found.iter().map(|c| c.view.number).collect::<Vec<_>>(), numbers, "{query:?}");
    }
}

async fn disks_are_remembered_until_they_are_accounted_for(store: &dyn Store) {
    let a = node("a", "52:54:00:00:00:01");
    put(store, &a).await;
    let disk = Disk { serial: "S1".into(), ..Disk::default() };
    let mut tx = store.write().await.unwrap();
    tx.see_disk(a.id, "k", &disk).await.unwrap();
    tx.see_disk(a.id, "k", &Disk { name: "/dev/sdb".into(), ..disk.clone() }).await.unwrap();
    let known = tx.known_disks(a.id).await.unwrap();
    assert_eq!((known.len(), known[0].disk.name.as_str(), &known[0].gone), (1, "/dev/sdb", &None));
    let gone = Gone { why: "sold".into(), by: "me".into(), at: jiff::Timestamp::UNIX_EPOCH };
    assert!(tx.put_gone(a.id, "k", &gone).await.unwrap());
    assert!(!tx.put_gone(a.id, "l", &gone).await.unwrap());
    assert_eq!(tx.known_disks(a.id).await.unwrap()[0].gone, Some(gone));
    tx.see_disk(a.id, "k", &disk).await.unwrap();
    assert_eq!(tx.known_disks(a.id).await.unwrap()[0].gone, None, "it is back");

    assert_eq!(tx.certificate_policy().await.unwrap(), CertificatePolicy::default());
    let policy = CertificatePolicy { location: "here".into(), ..CertificatePolicy::default() };
    tx.put_certificate_policy(&policy).await.unwrap();
    tx.put_certificate_policy(&policy).await.unwrap();
    assert_eq!(tx.certificate_policy().await.unwrap(), policy);
}

async fn changes_of_hardware_are_kept_newest_first(store: &dyn Store) {
    let (a, b) = (node("a", "52:54:00:00:00:01"), node("b", "52:54:00:00:00:02"));
    put(store, &a).await;
    put(store, &b).await;
    let mut tx = store.write().await.unwrap();
    let change = |n: u64| Change { text: format!("disk {n} is gone"), ..Change::default() };
    for n in 1..=205 {
        tx.put_hardware_changes(a.id, Epoch(n), &[change(n), change(0)]).await.unwrap();
    }
    let newest = tx.hardware_changes(a.id, 2).await.unwrap();
    assert_eq!(newest.iter().map(|c| c.epoch).collect::<Vec<_>>(), [Epoch(205), Epoch(204)]);
    assert_eq!(newest[0].changes, [change(205), change(0)]);
    assert_eq!(tx.hardware_changes(a.id, 1000).await.unwrap().len(), 200, "the oldest are dropped");
    assert_eq!(tx.hardware_changes(b.id, 10).await.unwrap(), [], "another machine's are its own");
}

async fn changes_are_seen_once_and_in_order(store: &dyn Store) {
    let mut tx = store.write().await.unwrap();
    tx.touch("a").await.unwrap();
    tx.touch("b").await.unwrap();
    tx.commit().await.unwrap();
    let first = store.changes(0).await.unwrap();
    assert_eq!(first.iter().map(|(t, _)| t.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    let seen = first[1].1;
    assert!(store.changes(seen).await.unwrap().is_empty());
    let mut tx = store.write().await.unwrap();
    tx.touch("a").await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(store.changes(seen).await.unwrap(), vec![("a".to_owned(), seen + 1)]);
}

macro_rules! conformance {
    ($($name:ident),* $(,)?) => {$(
        mod $name {
            #[tokio::test]
            async fn sqlite() {
                let dir = tempfile::tempdir().unwrap();
                let store = super::SqliteStore::open(&dir.path().join("db")).await.unwrap();
                super::$name(&store).await;
            }
        }
    )*};
}

conformance!(
    nodes_are_found_by_what_identifies_them,
    what_was_not_committed_never_was,
    one_order_is_open_at_a_time,
    a_run_is_granted_and_started_once,
    sessions_lapse_by_the_stores_clock,
    used_tokens_are_remembered,
    events_keep_their_order,
    only_the_newest_progress_counts,
    the_rest_is_kept,
    who_shares_is_forgotten_when_silent,
    certificates_are_numbered_without_gaps_and_stay,
    disks_are_remembered_until_they_are_accounted_for,
    changes_of_hardware_are_kept_newest_first,
    changes_are_seen_once_and_in_order,
    burn_ins_are_found_by_machine_and_by_model,
    it_is_known_when_a_run_ended,
    who_waits_for_a_partner_is_forgotten_when_silent,
    logs_are_kept_once_in_order_and_up_to_a_bound,
);

#[tokio::test]
async fn sqlite_writers_exclude_one_another() {
    let dir = tempfile::tempdir().unwrap();
    writers_exclude_one_another(Arc::new(SqliteStore::open(&dir.path().join("db")).await.unwrap())).await;
}

#[tokio::test]
async fn sqlite_keeps_everything_over_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let a = node("a", "52:54:00:00:00:01");
    put(&SqliteStore::open(&path).await.unwrap(), &a).await;
    let store = SqliteStore::open(&path).await.unwrap();
    assert_eq!(store.read().await.unwrap().node(a.id).await.unwrap(), Some(a));
}

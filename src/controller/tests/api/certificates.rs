//! Certificates of sanitization, from the report of a run to what openssl says of them.

use std::process::Command;

use jiff::Timestamp;
use reqwest::Method;
use serde_json::{Value, json};
use speediso_controller::site_key::is_signed;
use speediso_model::api::{Grant, Lease, List, OrderView, StoredEvent, path};
use speediso_model::certificate::machine::KnownDisk;
use speediso_model::certificate::site::{
    CertificateKind, CertificatePolicy, CertificateView, DiskGoneRequest, SiteKeyView,
};
use speediso_model::certificate::{Chain, Document, Subject};
use speediso_model::fault::FaultCode;
use speediso_model::inventory::{Disk, Inventory, SystemVendor, Transport};
use speediso_model::outcome::{DeviceResult, Outcome, TaskResult};
use speediso_model::plan::{DiskIdentity, Plan, PlannedDevice};
use speediso_model::units::Bytes;
use speediso_model::wipe::{AreaKind, Verification, VerificationKind, WipeLevel, WipeMethod, WipeReport, WipedArea};

use crate::support::{Agent, Answer, Site, answer, declined};

fn disk(n: u64) -> Disk {
    Disk {
        name: format!("/dev/sd{}", char::from(b'a' + u8::try_from(n).unwrap())),
        model: "Samsung <SSD> 860".into(),
        vendor: "ATA".into(),
        serial: format!("DISK-{n}"),
        wwn: Some(format!("naa.{n:016x}")),
        size: Bytes(1 << 30),
        logical_sectors: 512,
        tran: Transport::Sata,
        diskseq: Some(n + 1),
        ..Disk::default()
    }
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn report(disk: &Disk) -> WipeReport {
    let size = disk.size;
    WipeReport {
        asked: WipeLevel::Clear,
        reached: Some(WipeLevel::Clear),
        method: WipeMethod::Overwrite,
        steps: vec!["overwrite with a known pattern and read it back".into()],
        areas: vec![WipedArea {
            kind: AreaKind::User,
            name: "all sectors".into(),
            size,
            covered: true,
            how: "overwritten".into(),
        }],
        verification: Verification {
            kind: VerificationKind::Full,
            bytes: size,
            sample: None,
            pattern_seed: Some("9d3c".into()),
            canaries: None,
            in_words: "every byte was as written".into(),
        },
        device_log: Vec::new(),
        firmware: "2B6Q".into(),
        begun: at("2026-11-21T10:00:00Z"),
        ended: at("2026-11-21T10:05:00Z"),
        seconds: 300.25,
        write_mib_per_s: Some(100.0),
        speed_profile: Vec::new(),
        slow_parts: Vec::new(),
        health_before: None,
        health_after: None,
        not_covered: vec!["remapped sectors".into()],
    }
}

fn wiped(disk: &Disk) -> DeviceResult {
    DeviceResult {
        identity: DiskIdentity::of(disk),
        seen_as: disk.name.clone(),
        outcome: Outcome::Verified,
        changed: None,
        used: "overwrite".into(),
        fault: None,
        facts: serde_json::to_value(report(disk)).unwrap(),
    }
}

fn plan(disks: &[Disk]) -> Plan {
    let device = |d: &Disk| PlannedDevice {
        identity: DiskIdentity::of(d),
        seen_as: d.name.clone(),
        actions: Vec::new(),
        found: Vec::new(),
    };
    Plan {
        task: "wipe".into(),
        destructive: true,
        devices: disks.iter().map(device).collect(),
        effects: Vec::new(),
        untouched: Vec::new(),
    }
}

/// What the machine tells it has.
async fn has(agent: &Agent, disks: &[Disk]) {
    let system = SystemVendor { serial_number: "SN-0001".into(), asset_tag: "A-17".into(), ..SystemVendor::default() };
    let inventory = Inventory { disks: disks.to_vec(), system_vendor: system, ..Inventory::default() };
    let body = json!({"epoch": agent.epoch(), "inventory": inventory});
    let _: Lease = answer(agent.client.request(Method::PUT, path::INVENTORY).json(&body)).await.unwrap();
}

/// An order to wipe everything, begun.
async fn begun(site: &Site, agent: &Agent, disks: &[Disk], notes: Value) -> Grant {
    let body = json!({"profile": "wipe", "parameters": {"devices": "all_disks"}, "notes": notes});
    site.order(agent, body).await.unwrap();
    let grant = agent.grant().await;
    agent.start(grant.run, &plan(disks)).await.unwrap();
    grant
}

async fn ended(agent: &Agent, grant: &Grant, devices: Vec<DeviceResult>) {
    let result = TaskResult::from_devices("clear", devices);
    assert!(!agent.end(grant.run, result.clone()).await.unwrap().late);
    // The answer was lost: it is told again.
    assert!(!agent.end(grant.run, result).await.unwrap().late);
}

async fn list(site: &Site, query: &str) -> Vec<CertificateView> {
    let found: List<CertificateView> = site.operator.get(&format!("{}?{query}", path::CERTIFICATES)).await.unwrap();
    found.items
}

async fn text(site: &Site, path: &str) -> String {
    let response = site.operator.request(Method::GET, path).send().await.unwrap();
    assert!(response.status().is_success(), "{path}: {}", response.status());
    response.text().await.unwrap()
}

async fn keys(site: &Site) -> Vec<SiteKeyView> {
    site.operator.get::<List<SiteKeyView>>(path::CERTIFICATE_KEYS).await.unwrap().items
}

async fn documents(site: &Site) -> Vec<Document> {
    let keys = keys(site).await;
    let mut chain = Chain::default();
    let read = |line: &str| {
        let trusted = |k: &speediso_model::certificate::SiteKey| keys.iter().any(|v| v.key == k.to_string());
        let document = Document::open(line.as_bytes(), trusted, is_signed).unwrap();
        chain.push(&document).unwrap();
        document
    };
    text(site, path::CERTIFICATE_CHAIN).await.split_inclusive('\n').map(read).collect()
}

/// What the order's log says about certificates.
async fn said(site: &Site) -> Vec<String> {
    let events: List<StoredEvent> = site.operator.get(path::STORED_EVENTS).await.unwrap();
    events.items.into_iter().map(|e| e.text).filter(|t| t.contains("certificate")).collect()
}

#[tokio::test]
async fn a_machine_that_was_wiped_is_certified_once_and_as_a_whole() {
    let site = Site::start().await;
    let agent = site.admitted(1).await;
    let disks = [disk(0), disk(1)];
    has(&agent, &disks).await;
    let notes = json!({"destination": "sold", "property_numbers": {"DISK-1": "IT-0815"}});
    let grant = begun(&site, &agent, &disks, notes).await;
    assert!(list(&site, "").await.is_empty());
    ended(&agent, &grant, disks.iter().map(wiped).collect()).await;

    let found = list(&site, "").await;
    let kinds: Vec<_> = found.iter().map(|c| (c.number, c.kind)).collect();
    assert_eq!(kinds, [(3, CertificateKind::Machine), (2, CertificateKind::Device), (1, CertificateKind::Device)]);
    let documents = documents(&site).await;
    assert_eq!(documents.len(), 3, "the chain is whole");
    let Subject::Device(second) = &documents[1].statement().subject else { panic!("a device") };
    assert_eq!((second.device.serial.as_str(), second.device.firmware.as_str()), ("DISK-1", "2B6Q"));
    assert_eq!(second.notes.property_number.as_deref(), Some("IT-0815"));
    assert_eq!((second.work.run, second.work.plan.clone()), (grant.run, plan(&disks).digest()));
    assert_eq!((second.machine.asset_tag.as_str(), second.work.ordered_by.as_str()), ("A-17", "operator"));
    let Subject::Machine(machine) = &documents[2].statement().subject else { panic!("a machine") };
    let named: Vec<_> = machine.devices.iter().map(|d| (d.number, &d.document)).collect();
    assert_eq!(named, [(1, documents[0].digest()), (2, documents[1].digest())]);
    assert_eq!(machine.notes.destination.as_deref(), Some("sold"));

    // By node, serial number, order and date.
    for (query, n) in [
        (format!("node={}", agent.node()), 3),
        ("node=6f1f6e0e-54a9-4bd5-a7c0-8f2b2a3c1d11".into(), 0),
        ("serial=disk-1".into(), 1),
        (format!("order={}", grant.order), 3),
        ("from=2026-01-01T00:00:00Z".into(), 3),
        ("until=2026-01-01T00:00:00Z".into(), 0),
        ("before=3&limit=1".into(), 1),
    ] {
        assert_eq!(list(&site, &query).await.len(), n, "{query}");
    }

    // The document is given as it was signed, the page for paper with nothing from the device in its markup.
    assert_eq!(text(&site, "/v1/certificates/2").await, documents[1].text());
    declined(site.operator.get::<Value>("/v1/certificates/4").await, 404, FaultCode::TaskInvalid);
    let page = text(&site, "/v1/certificates/2/page").await;
    for words in
        ["Certificate of sanitization", "Samsung &lt;SSD&gt; 860", "DISK-1", "IT-0815", "A-17", "every byte was"]
    {
        assert!(page.contains(words), "{words}");
    }
    assert!(!page.contains("<SSD>") && !page.contains("<script") && !page.contains("http"), "{page}");

    // Asked for once more, the machine's is the same.
    let at = path::ORDER_CERTIFICATE.replace("{order}", &grant.order.to_string());
    let again: CertificateView = site.operator.post(&at, &json!({})).await.unwrap();
    assert_eq!((again.number, list(&site, "").await.len()), (3, 3));
}

/// As docs/certificates.md tells others to do it: with openssl, sed and sha256sum alone.
#[tokio::test]
async fn others_verify_it_with_openssl() {
    let site = Site::start().await;
    let agent = site.admitted(1).await;
    let disks = [disk(0), disk(1)];
    has(&agent, &disks).await;
    let grant = begun(&site, &agent, &disks, Value::Null).await;
    ended(&agent, &grant, disks.iter().map(wiped).collect()).await;
    let docs = include_str!("../../../../docs/certificates.md");
    let commands = docs.split("```\nsed -E").nth(1).unwrap().split("```").next().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let run = |script: &str| {
        let done = Command::new("bash").args(["-ec", script]).current_dir(dir.path()).output().unwrap();
        (done.status.success(), String::from_utf8_lossy(&done.stdout).trim().to_owned())
    };
    std::fs::write(dir.path().join("42.json"), text(&site, "/v1/certificates/2").await).unwrap();
    std::fs::write(dir.path().join("site.pem"), &keys(&site).await[0].pem).unwrap();
    let chain = text(&site, path::CERTIFICATE_CHAIN).await;
    std::fs::write(dir.path().join("chain.jsonl"), &chain).unwrap();
    let verify = format!("sed -E{commands}");
    assert_eq!(run(&verify), (true, "Signature Verified Successfully".to_owned()));
    assert!(!run(&format!("sed -i s/DISK-1/DISK-2/ 42.json\n{verify}")).0, "another serial number");
    let (_, sum) = run("sed -n 1p chain.jsonl | sha256sum");
    assert!(chain.lines().nth(1).unwrap().contains(&format!("\"previous\":\"{}\"", &sum[..64])), "{sum}");
}

#[tokio::test]
async fn what_deserves_none_gets_none_and_is_told_why() {
    let site = Site::start().await;
    let agent = site.admitted(1).await;
    let (sata, virtio) = (disk(0), Disk { name: "/dev/vda".into(), tran: Transport::Virtio, ..disk(3) });
    let disks = [sata, disk(1), disk(2), virtio];
    has(&agent, &disks).await;
    let grant = begun(&site, &agent, &disks, Value::Null).await;
    let old_form = DeviceResult { facts: json!({"bytes": 5}), ..wiped(&disks[1]) };
    let failed = DeviceResult { outcome: Outcome::FailedChanged, ..wiped(&disks[2]) };
    ended(&agent, &grant, vec![wiped(&disks[0]), old_form, failed, wiped(&disks[3])]).await;
    // One failed disk fails the task and not the others' certificates.
    assert_eq!(list(&site, "").await.iter().map(|c| c.serial.as_str()).collect::<Vec<_>>(), ["DISK-0"]);
    let said = said(&site).await;
    for (disk, why) in [
        ("DISK-1", "report of the wipe cannot be read"),
        ("DISK-2", "its outcome is failed_changed, not verified"),
        ("DISK-3", "a virtual machine (virtio), and the site's policy certifies no volumes"),
        ("whole of m1", "DISK-1"),
    ] {
        assert!(
            said.iter().any(|t| t.starts_with("no certificate") && t.contains(disk) && t.contains(why)),
            "{said:#?}"
        );
    }
    assert_eq!(said.len(), 5, "each told once: {said:#?}");

    // The machine's is refused with the names, whoever asks.
    let at = path::ORDER_CERTIFICATE.replace("{order}", &grant.order.to_string());
    let fault = declined(site.operator.post::<Value>(&at, &json!({})).await, 409, FaultCode::CertificateRefused);
    for serial in ["DISK-1", "DISK-2", "DISK-3"] {
        assert!(fault.message.contains(serial), "{}", fault.message);
    }
    assert!(!fault.message.contains("DISK-0"), "{}", fault.message);
}

#[tokio::test]
async fn a_disk_that_was_recorded_is_missed_until_somebody_says_where_it_is() {
    let site = Site::start().await;
    let agent = site.admitted(1).await;
    has(&agent, &[disk(0), disk(1)]).await;
    site.order(&agent, json!({"profile": "wipe", "parameters": {"devices": "all_disks"}})).await.unwrap();
    // Pulled before the machine is booted to be wiped.
    let agent = site.booted_again(1).await;
    has(&agent, &[disk(0)]).await;
    let grant = agent.grant().await;
    agent.start(grant.run, &plan(&[disk(0)])).await.unwrap();
    ended(&agent, &grant, vec![wiped(&disk(0))]).await;
    assert_eq!(list(&site, "").await.len(), 1);
    let at = path::ORDER_CERTIFICATE.replace("{order}", &grant.order.to_string());
    let fault = declined(site.operator.post::<Value>(&at, &json!({})).await, 409, FaultCode::CertificateRefused);
    assert!(fault.message.contains("DISK-1") && !fault.message.contains("DISK-0"), "{}", fault.message);

    let disks: List<KnownDisk> = site.operator.get(&path::NODE_DISKS.replace("{node}", &agent.node())).await.unwrap();
    assert_eq!(disks.items.len(), 2);
    let gone = path::NODE_DISK_GONE.replace("{node}", &agent.node());
    let say = async |key: &str, why: &str| -> Answer<List<KnownDisk>> {
        site.operator.post(&gone, &DiskGoneRequest { key: key.into(), why: why.into() }).await
    };
    declined(say(&disks.items[0].key, "sold").await, 409, FaultCode::CertificateRefused);
    declined(say("no such disk", "sold").await, 404, FaultCode::TaskInvalid);
    declined(say(&disks.items[1].key, "").await, 400, FaultCode::TaskInvalid);
    say(&disks.items[1].key, "sent back to the maker").await.unwrap();
    let made: CertificateView = site.operator.post(&at, &json!({})).await.unwrap();
    assert_eq!(made.kind, CertificateKind::Machine);
    let documents = documents(&site).await;
    let Subject::Machine(machine) = &documents[1].statement().subject else { panic!("a machine") };
    assert_eq!(machine.devices.len(), 1);
    assert!(machine.left_out[0].contains("DISK-1") && machine.left_out[0].contains("sent back to the maker"));
    // Back in the machine, it is expected again.
    has(&agent, &[disk(0), disk(1)]).await;
    let disks: List<KnownDisk> = site.operator.get(&path::NODE_DISKS.replace("{node}", &agent.node())).await.unwrap();
    assert!(disks.items.iter().all(|d| d.gone.is_none()));
}

#[tokio::test]
async fn policy_lets_a_volume_be_certified_as_one() {
    let site = Site::start().await;
    let agent = site.admitted(1).await;
    let volume = Disk { vendor: "DELL".into(), model: "PERC H730P".into(), tran: Transport::Scsi, ..disk(0) };
    has(&agent, std::slice::from_ref(&volume)).await;
    let policy = json!({"organization": "Example", "location": "Hall 3", "certify_volumes": true});
    let put = |body: Value| {
        answer::<CertificatePolicy>(site.operator.request(Method::PUT, path::CERTIFICATE_POLICY).json(&body))
    };
    declined(put(json!({"organization": "a\u{1b}[2Jb"})).await, 400, FaultCode::TaskInvalid);
    declined(put(json!({"certify_everything": true})).await, 400, FaultCode::TaskInvalid);
    assert!(put(policy).await.unwrap().certify_volumes);
    let grant = begun(&site, &agent, std::slice::from_ref(&volume), Value::Null).await;
    ended(&agent, &grant, vec![wiped(&volume)]).await;
    let page = text(&site, "/v1/certificates/1/page").await;
    assert!(page.contains("a volume of a PERC"), "{page}");
    assert!(page.contains("no statement about any physical medium") && page.contains("Hall 3"));
}

#[tokio::test]
async fn a_late_result_is_evidence_and_no_certificate() {
    let site = Site::start().await;
    let old = site.admitted(1).await;
    has(&old, &[disk(0)]).await;
    let grant = begun(&site, &old, &[disk(0)], Value::Null).await;
    let _new = site.booted_again(1).await;
    assert!(old.end(grant.run, TaskResult::from_devices("clear", vec![wiped(&disk(0))])).await.unwrap().late);
    assert!(list(&site, "").await.is_empty());
    // Nor is there one for what began without leave.
    let site = Site::start().await;
    let agent = site.admitted(1).await;
    has(&agent, &[disk(0)]).await;
    site.order(&agent, json!({"profile": "wipe", "parameters": {"devices": "all_disks"}})).await.unwrap();
    let run = agent.grant().await.run;
    agent.end(run, TaskResult::from_devices("clear", vec![wiped(&disk(0))])).await.unwrap();
    assert!(list(&site, "").await.is_empty());
    assert!(said(&site).await[0].contains("the start of the run was never recorded"));
}

#[tokio::test]
async fn the_chain_goes_on_over_a_new_key_and_refuses_bad_notes() {
    let site = Site::start().await;
    let agent = site.admitted(1).await;
    has(&agent, &[disk(0)]).await;
    let body = json!({"profile": "wipe", "parameters": {"devices": "all_disks"}, "notes": {"destination": "\n"}});
    declined(site.order(&agent, body).await, 400, FaultCode::TaskInvalid);
    for _ in 0..2 {
        let grant = begun(&site, &agent, &[disk(0)], Value::Null).await;
        ended(&agent, &grant, vec![wiped(&disk(0))]).await;
        let view: OrderView = site.order_now(grant.order).await;
        assert_eq!(view.order.state.name(), "done");
        let _: SiteKeyView = site.operator.post(path::CERTIFICATE_KEYS, &json!({})).await.unwrap();
    }
    let keys = keys(&site).await;
    assert_eq!((keys.len(), keys.iter().filter(|k| k.until.is_none()).count()), (3, 1));
    let documents = documents(&site).await;
    assert_eq!(documents.len(), 4);
    assert_ne!(documents[0].key(), documents[2].key());
    // A machine's certificate may name one by an older key; the page of an old one is shown as before.
    assert!(text(&site, "/v1/certificates/1/page").await.contains(&documents[0].key().to_string()));
}

/// With `SPEEDISO_KEEP_PAGES=DIR` the pages stay there to be looked at.
#[tokio::test]
#[ignore = "needs chromium and pdftotext, and some seconds of them: make test-all"]
async fn the_page_prints_on_a4() {
    let site = Site::start().await;
    let agent = site.admitted(1).await;
    let disks = [disk(0), disk(1)];
    has(&agent, &disks).await;
    let grant = begun(&site, &agent, &disks, json!({"destination": "sold"})).await;
    ended(&agent, &grant, disks.iter().map(wiped).collect()).await;
    let dir = tempfile::tempdir().unwrap();
    let dir = std::env::var("SPEEDISO_KEEP_PAGES").map_or_else(|_| dir.path().to_owned(), Into::into);
    for number in [1, 3] {
        let (html, pdf) = (dir.join(format!("{number}.html")), dir.join(format!("{number}.pdf")));
        std::fs::write(&html, text(&site, &format!("/v1/certificates/{number}/page")).await).unwrap();
        let printed = Command::new("chromium")
            .args(["--headless", "--no-sandbox", "--disable-gpu", "--no-pdf-header-footer"])
            .arg(format!("--user-data-dir={}", dir.join("profile").display()))
            .arg(format!("--print-to-pdf={}", pdf.display()))
            .arg(&html)
            .output()
            .expect("chromium: deps.sh installs it");
        assert!(printed.status.success(), "{}", String::from_utf8_lossy(&printed.stderr));
        let text = Command::new("pdftotext").args(["-layout"]).arg(&pdf).arg("-").output().unwrap();
        let text = String::from_utf8_lossy(&text.stdout).into_owned();
        for words in ["Certificate of sanitization", "DISK-0", "Samsung <SSD>", "sold", "CLEARED", "signature"] {
            assert!(text.contains(words), "{words} is not on paper: {text}");
        }
        let info = Command::new("pdfinfo").arg(&pdf).output().unwrap();
        let info = String::from_utf8_lossy(&info.stdout).into_owned();
        assert!(info.contains("A4") || info.contains("594.9") || info.contains("595"), "{info}");
        let pages = info.lines().find_map(|l| l.strip_prefix("Pages:")).unwrap().trim();
        assert!(pages.parse::<u32>().unwrap() <= 2, "{info}");
    }
}

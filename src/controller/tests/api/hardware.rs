//! What an inventory shows against the one before it: kept, shown, and told to a person where something is missing.

use reqwest::Method;
use serde_json::json;
use speediso_model::api::{Alert, Lease, List, NodeView, StoredEvent, path};
use speediso_model::fault::FaultCode;
use speediso_model::inventory::compare::{ChangeKind, Importance, SeenChanges};
use speediso_model::inventory::{Disk, Interface, Inventory, unlisted};
use speediso_model::units::Bytes;

use crate::support::{Agent, Answer, Site, answer, declined};

fn disk(serial: &str) -> Disk {
    let by_path = Some(format!("pci-0000:3b:00.0-sas-{serial}"));
    Disk { serial: serial.into(), model: "HUS72".into(), size: Bytes::gib(4000), by_path, ..Disk::default() }
}

fn machine(disks: &[&str]) -> Inventory {
    let nic = Interface { name: "eno1".into(), mac_address: "52:54:00:00:00:01".into(), ..Interface::default() };
    Inventory { disks: disks.iter().map(|s| disk(s)).collect(), interfaces: vec![nic], ..Inventory::default() }
}

async fn tell(agent: &Agent, inventory: &Inventory) {
    let body = json!({"epoch": agent.epoch(), "inventory": inventory});
    let _: Lease = answer(agent.client.request(Method::PUT, path::INVENTORY).json(&body)).await.unwrap();
}

/// The same machine, started again.
async fn again(site: &Site, agent: &Agent) -> Agent {
    let arm = path::NODE_ARM.replace("{node}", &agent.node());
    site.operator.post::<NodeView>(&arm, &json!({})).await.unwrap();
    site.booted_again(1).await
}

async fn changes(site: &Site, node: &str) -> Answer<List<SeenChanges>> {
    site.operator.get(&path::NODE_CHANGES.replace("{node}", node)).await
}

async fn alerts(site: &Site) -> Vec<Alert> {
    let found: List<Alert> = site.operator.get(path::ALERTS).await.unwrap();
    found.items.into_iter().filter(|a| a.fault.code == FaultCode::HardwareVanished).collect()
}

#[tokio::test]
async fn what_vanished_is_told_once_and_what_changed_is_kept() {
    let site = Site::start().await;
    let agent = site.admitted(1).await;
    tell(&agent, &machine(&["S1", "S2"])).await;
    assert!(changes(&site, &agent.node()).await.unwrap().items.is_empty(), "there was nothing to compare with");
    tell(&agent, &machine(&["S1", "S2"])).await;
    assert!(changes(&site, &agent.node()).await.unwrap().items.is_empty());

    let agent = again(&site, &agent).await;
    tell(&agent, &machine(&["S2", "S3"])).await;
    // The same once more: nothing has changed since.
    tell(&agent, &machine(&["S2", "S3"])).await;
    let seen = changes(&site, &agent.node()).await.unwrap().items;
    let [seen] = seen.as_slice() else { panic!("{seen:#?}") };
    assert_eq!(seen.epoch, agent.epoch());
    let kinds: Vec<_> = seen.changes.iter().map(|c| (c.importance, c.kind)).collect();
    assert_eq!(kinds, [(Importance::Alarm, ChangeKind::Vanished), (Importance::Notable, ChangeKind::Added)]);
    let told = alerts(&site).await;
    assert_eq!(told.len(), 1, "{told:#?}");
    assert!(told[0].fault.message.contains("m1: the disk") && told[0].fault.message.contains("S1"), "{told:#?}");
    let events: List<StoredEvent> = site.operator.get(&format!("{}?limit=200", path::STORED_EVENTS)).await.unwrap();
    let line = events.items.iter().find(|e| e.text.starts_with("the hardware has changed")).expect("an event");
    assert!(line.text.contains("and 1 more"), "{}", line.text);

    // Blind for once: nothing is said to be gone, and nothing is said to be back.
    let blind = Inventory { unread: vec![unlisted::DISKS.because("EIO")], disks: Vec::new(), ..machine(&[]) };
    tell(&agent, &blind).await;
    tell(&agent, &machine(&["S2", "S3"])).await;
    assert_eq!(changes(&site, &agent.node()).await.unwrap().items.len(), 1);
    // Another boot that misses the same disk does so anew.
    tell(&agent, &machine(&["S1", "S2", "S3"])).await;
    let agent = again(&site, &agent).await;
    tell(&agent, &machine(&["S2", "S3"])).await;
    assert_eq!(alerts(&site).await.len(), 2);
    assert_eq!(changes(&site, &agent.node()).await.unwrap().items.len(), 3);

    declined(changes(&site, "00000000-0000-4000-8000-000000000000").await, 404, FaultCode::TaskInvalid);
}

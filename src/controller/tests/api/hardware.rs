//! What an inventory shows against the one before it: kept, shown, and told to a person where something is missing.

use reqwest::Method;
use serde_json::json;
use speediso_model::api::{Alert, Lease, List, NodeView, StoredEvent, path};
use speediso_model::fault::FaultCode;
use speediso_model::inventory::compare::{ChangeKind, Importance, SeenChanges};
use speediso_model::inventory::health::{DiskHealth, NvmeNamespace};
use speediso_model::inventory::{Disk, Interface, Inventory, PciDevice, unlisted};
use speediso_model::units::Bytes;

use crate::support::{Agent, Answer, Site, answer, declined, mac};

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

/// A table of our own: what a distribution ships changes every week.
#[tokio::test]
async fn the_controller_knows_the_names_of_cards() {
    let site = Site::start_with(|dir, settings| {
        let table = dir.join("pci.ids");
        std::fs::write(&table, "15b3  Mellanox Technologies\n\t1015  MT27710 Family [ConnectX-4 Lx]\n").unwrap();
        settings.pci_ids = Some(table);
    })
    .await;
    let agent = site.admitted(1).await;
    let card = |bus: &str, vendor: &str| PciDevice {
        bus: bus.into(),
        vendor_id: vendor.into(),
        product_id: "1015".into(),
        class: "020000".into(),
        kind: "Ethernet controller".into(),
        ..PciDevice::default()
    };
    let pci_devices = vec![card("0000:3b:00.0", "15b3"), card("0000:5e:00.0", "1de5")];
    tell(&agent, &Inventory { pci_devices, ..machine(&[]) }).await;
    let stored: Option<Inventory> =
        site.operator.get(&path::NODE_INVENTORY.replace("{node}", &agent.node())).await.unwrap();
    let titles: Vec<String> = stored.unwrap().pci_devices.iter().map(PciDevice::title).collect();
    assert_eq!(titles, ["Mellanox Technologies MT27710 Family [ConnectX-4 Lx]", "[1de5:1015]"]);
}

/// A storage server as large as they come, every field filled, is taken whole.
#[tokio::test]
async fn a_machine_of_five_hundred_disks_is_no_stranger() {
    let site = Site::start().await;
    let agent = site.admitted(1).await;
    let health = DiskHealth {
        passed: Some(true),
        temperature_c: Some(38),
        temperature_limit_c: Some(60),
        power_on_hours: Some(43_210),
        power_cycles: Some(87),
        unsafe_shutdowns: Some(12),
        percentage_used: Some(7),
        available_spare: Some(100),
        available_spare_threshold: Some(10),
        media_errors: Some(0),
        reallocated_sectors: Some(0),
        pending_sectors: Some(0),
        interface_errors: Some(0),
        bytes_read: Some(987_654_321_987_654),
        bytes_written: Some(123_456_789_123_456),
        ..DiskHealth::default()
    };
    let disks: Vec<Disk> = (0..500)
        .map(|n| Disk {
            name: format!("/dev/disk{n}"),
            wwn: Some(format!("naa.5000c500{n:08x}")),
            firmware: "SN05".into(),
            signatures: vec!["gpt".into(), "linux_raid_member".into()],
            health: Some(health.clone()),
            namespaces: (1..=4).map(|id| NvmeNamespace { id, ..NvmeNamespace::default() }).collect(),
            ..disk(&format!("S{n:05}"))
        })
        .collect();
    let interfaces = (0..100)
        .map(|n| Interface {
            name: format!("enp{n}s0f0np0"),
            // By the first of them it is known.
            mac_address: if n == 0 { mac(1) } else { format!("52:54:00:00:01:{n:02x}") },
            lldp: Some((0..40).map(|kind| (kind, "00".repeat(60))).collect()),
            supported_modes: vec!["100000baseCR4/Full".into(); 30],
            ..Interface::default()
        })
        .collect();
    let large = Inventory { disks, interfaces, ..Inventory::default() };
    let bytes = serde_json::to_vec(&large).unwrap().len();
    println!("{bytes} bytes");
    tell(&agent, &large).await;
    let stored: Option<Inventory> =
        site.operator.get(&path::NODE_INVENTORY.replace("{node}", &agent.node())).await.unwrap();
    let stored = stored.unwrap();
    assert_eq!((stored.disks.len(), stored.interfaces.len()), (500, 100));
    // All of them gone at once is as many changes as are kept, and no more.
    let agent = again(&site, &agent).await;
    tell(&agent, &machine(&["S1"])).await;
    let seen = changes(&site, &agent.node()).await.unwrap().items;
    assert!(seen[0].changes.len() >= 500, "{}", seen[0].changes.len());
}

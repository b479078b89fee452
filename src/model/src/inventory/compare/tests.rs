use proptest::prelude::*;

use super::*;
use crate::inventory::bmc::Bmc;
use crate::inventory::health::DiskHealth;
use crate::inventory::link::{Link, LinkKind};

fn disk(n: u32) -> Disk {
    Disk {
        name: format!("/dev/sd{n}"),
        model: "HUS72".into(),
        serial: format!("S{n}"),
        firmware: "A1".into(),
        size: Bytes::gib(4000),
        logical_sectors: 512,
        tran: Transport::Sas,
        by_path: Some(format!("/dev/disk/by-path/pci-0000:3b:00.0-sas-phy{n}-lun-0")),
        link: Some(Link { kind: LinkKind::Sas, speed_mtps: Some(12_000), ..Link::default() }),
        health: Some(DiskHealth { passed: Some(true), ..DiskHealth::default() }.judged()),
        ..Disk::default()
    }
}

fn module(n: u32) -> MemoryModule {
    MemoryModule {
        slot: format!("A{n}"),
        size_mb: 32 * 1024,
        speed_mts: Some(3200),
        part_number: "M393A4".into(),
        serial_number: format!("30C1{n:04}"),
        ..MemoryModule::default()
    }
}

fn nic(n: u32) -> Interface {
    Interface {
        name: format!("eth{n}"),
        mac_address: format!("52:54:00:00:00:{n:02x}"),
        has_carrier: true,
        up: true,
        speed_mbps: Some(25_000),
        pci_address: Some(format!("0000:{n:02x}:00.0")),
        firmware_version: Some("8.30".into()),
        ..Interface::default()
    }
}

fn machine() -> Inventory {
    let mut machine = Inventory {
        disks: (1..4).map(disk).collect(),
        interfaces: (1..3).map(nic).collect(),
        bmc_address: Some("192.0.2.9".into()),
        bmc: Some(Bmc { firmware: "2.10".into(), ..Bmc::default() }),
        ..Inventory::default()
    };
    machine.memory.modules = (1..9).map(module).collect();
    machine.cpu.model_name = "EPYC 9354".into();
    (machine.cpu.count, machine.cpu.core_count, machine.cpu.socket_count) = (128, 64, 2);
    machine.system_vendor.firmware.version = "1.5".into();
    machine
}

/// The one change that an edit makes.
#[track_caller]
fn one(edit: impl FnOnce(&mut Inventory)) -> Change {
    let mut now = machine();
    edit(&mut now);
    let mut changes = compare(&machine(), &now);
    assert_eq!(changes.len(), 1, "{changes:#?}");
    changes.remove(0)
}

#[track_caller]
fn is(change: &Change, importance: Importance, kind: ChangeKind, part: Part, words: &[&str]) {
    assert_eq!((change.importance, change.kind, change.part), (importance, kind, part), "{change:?}");
    for word in words {
        assert!(change.text.contains(word), "{word} is not in {:?}", change.text);
    }
}

#[test]
fn every_kind_of_change_is_told_in_words() {
    use ChangeKind as K;
    use Importance as I;
    assert_eq!(compare(&machine(), &machine()), []);
    is(
        &one(|m| drop(m.disks.remove(1))),
        I::Alarm,
        K::Vanished,
        Part::Disk,
        &["the disk 3.9 TiB", "S2", "phy2", "is gone"],
    );
    is(&one(|m| m.disks.push(disk(9))), I::Notable, K::Added, Part::Disk, &["serial S9", "is new"]);
    is(
        &one(|m| m.disks[0].serial = "NEW".into()),
        I::Notable,
        K::Swapped,
        Part::Disk,
        &["serial NEW", "is where", "serial S1"],
    );
    is(
        &one(|m| m.disks[0].by_path = disk(7).by_path),
        I::Minor,
        K::Changed,
        Part::Disk,
        &["has moved", "phy1", "phy7"],
    );
    is(&one(|m| m.disks[0].firmware = "A2".into()), I::Notable, K::Changed, Part::Disk, &["is A2 and was A1"]);
    is(&one(|m| m.disks[0].size = Bytes::gib(3999)), I::Notable, K::Changed, Part::Disk, &["its size"]);
    let slow = Some(Link { kind: LinkKind::Sas, speed_mtps: Some(3000), ..Link::default() });
    is(&one(|m| m.disks[0].link = slow), I::Notable, K::Changed, Part::Disk, &["SAS 3.0 Gbit/s and was SAS 12.0"]);
    let failing = DiskHealth { passed: Some(false), ..DiskHealth::default() }.judged();
    is(&one(|m| m.disks[0].health = Some(failing)), I::Alarm, K::Changed, Part::Disk, &["failing now"]);
    is(&one(|m| drop(m.memory.modules.pop())), I::Alarm, K::Vanished, Part::Memory, &["32.0 GiB", "A8", "30C10008"]);
    is(
        &one(|m| m.memory.modules[0].serial_number = "77AA0001".into()),
        I::Notable,
        K::Swapped,
        Part::Memory,
        &["is where"],
    );
    is(&one(|m| m.memory.modules[0].speed_mts = Some(2400)), I::Notable, K::Changed, Part::Memory, &["A1", "2400"]);
    is(&one(|m| m.cpu.socket_count = 1), I::Alarm, K::Vanished, Part::Processor, &["1 of 2"]);
    is(&one(|m| m.cpu.count = 126), I::Notable, K::Changed, Part::Processor, &["126 threads"]);
    is(&one(|m| drop(m.interfaces.remove(0))), I::Alarm, K::Vanished, Part::Interface, &["52:54:00:00:00:01"]);
    is(&one(|m| m.interfaces[0].has_carrier = false), I::Notable, K::Changed, Part::Interface, &["no link"]);
    is(&one(|m| m.interfaces[0].speed_mbps = Some(1000)), I::Notable, K::Changed, Part::Interface, &["1000"]);
    is(
        &one(|m| m.system_vendor.firmware.version = "1.6".into()),
        I::Notable,
        K::Changed,
        Part::Firmware,
        &["1.6 and was 1.5"],
    );
    is(&one(|m| m.bmc_address = Some("192.0.2.8".into())), I::Minor, K::Changed, Part::Bmc, &["192.0.2.8"]);
    is(
        &one(|m| m.bmc = Some(Bmc { firmware: "2.11".into(), ..Bmc::default() })),
        I::Notable,
        K::Changed,
        Part::Bmc,
        &["2.11"],
    );
}

#[test]
fn what_was_not_read_is_no_change() {
    let mut down = machine();
    (down.interfaces[0].has_carrier, down.interfaces[0].up, down.interfaces[0].speed_mbps) = (false, false, None);
    assert_eq!(compare(&machine(), &down), []);
    let mut blind = Inventory { unread: vec![unlisted::DISKS.because("permission denied")], ..Inventory::default() };
    blind.unread.push(unlisted::INTERFACES.because("permission denied"));
    assert_eq!(compare(&machine(), &blind), []);
    assert_eq!(compare(&blind, &machine()), []);
    // An empty list that could be read is another matter.
    let bare = Inventory { unread: vec!["something else".into()], ..Inventory::default() };
    let gone = compare(&machine(), &bare);
    assert_eq!(gone.iter().filter(|c| c.importance == Importance::Alarm).count(), 3 + 2, "{gone:#?}");
}

#[test]
fn two_paths_to_one_disk_are_two_and_a_stick_may_go() {
    let mut before = machine();
    before.disks.push(Disk { by_path: disk(8).by_path, ..disk(1) });
    before.disks.push(Disk { removable: true, tran: Transport::Usb, ..disk(6) });
    let changes = compare(&before, &machine());
    assert_eq!(changes.len(), 2, "{changes:#?}");
    assert_eq!(changes[0].importance, Importance::Alarm);
    assert!(changes[0].text.contains("phy8"), "{changes:#?}");
    assert_eq!((changes[1].importance, changes[1].kind), (Importance::Minor, ChangeKind::Vanished));
}

#[test]
fn five_hundred_disks_are_paired_at_once() {
    let shelf = |from: u32| Inventory { disks: (from..from + 500).map(disk).collect(), ..Inventory::default() };
    let changes = compare(&shelf(0), &shelf(250));
    assert_eq!(changes.len(), 500, "250 are gone, 250 are new, 250 stayed");
}

proptest! {
    /// Whatever is taken out is told once, as what it was; and both ways round it is the same set.
    #[test]
    fn nothing_is_lost_on_the_way(old in prop::collection::btree_set(0u32..40, 0..30), new in prop::collection::btree_set(0u32..40, 0..30)) {
        let of = |set: &std::collections::BTreeSet<u32>| Inventory { disks: set.iter().map(|n| disk(*n)).collect(), ..Inventory::default() };
        let changes = compare(&of(&old), &of(&new));
        let gone = changes.iter().filter(|c| c.kind == ChangeKind::Vanished).count();
        let added = changes.iter().filter(|c| c.kind == ChangeKind::Added).count();
        prop_assert_eq!(gone, old.difference(&new).count());
        prop_assert_eq!(added, new.difference(&old).count());
        prop_assert_eq!(compare(&of(&new), &of(&old)).len(), changes.len());
        prop_assert!(changes.is_sorted());
    }
}

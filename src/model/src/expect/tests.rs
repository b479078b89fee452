use super::*;
use crate::inventory::health::DiskHealth;
use crate::inventory::link::{Link, LinkKind};
use crate::inventory::{Disk, Interface, Inventory, MemoryModule, Transport, unlisted};
use crate::units::Bytes;

fn machine() -> Inventory {
    let mut machine = Inventory::default();
    machine.system_vendor.product_name = "PowerEdge R6615".into();
    machine.system_vendor.firmware.version = "1.5.8".into();
    machine.boot.current_boot_mode = "uefi".into();
    machine.boot.secure_boot = Some(true);
    machine.cpu.model_name = "AMD EPYC 9354 32-Core Processor".into();
    (machine.cpu.socket_count, machine.cpu.core_count, machine.cpu.count) = (2, 64, 128);
    machine.memory.physical_mb = 8 * 32 * 1024;
    machine.memory.modules = (0..8)
        .map(|n| MemoryModule {
            slot: format!("A{n}"),
            size_mb: 32 * 1024,
            speed_mts: Some(4800),
            configured_speed_mts: Some(4800),
            part_number: "M321R4GA3BB6".into(),
            ..MemoryModule::default()
        })
        .collect();
    machine.disks = (0..4)
        .map(|n| Disk {
            name: format!("/dev/nvme{n}n1"),
            serial: format!("N{n}"),
            model: "KCD81".into(),
            firmware: "0105".into(),
            size: Bytes::gib(3577),
            tran: Transport::Nvme,
            link: Some(Link {
                kind: LinkKind::Pcie,
                speed_mtps: Some(16_000),
                max_speed_mtps: Some(16_000),
                width: Some(4),
                max_width: Some(4),
            }),
            health: Some(DiskHealth { passed: Some(true), ..DiskHealth::default() }.judged()),
            ..Disk::default()
        })
        .collect();
    machine.interfaces = (0..2)
        .map(|n| Interface {
            name: format!("eth{n}"),
            mac_address: format!("52:54:00:00:00:0{n}"),
            driver: Some("ice".into()),
            firmware_version: Some("4.40".into()),
            speed_mbps: Some(25_000),
            has_carrier: true,
            up: true,
            ..Interface::default()
        })
        .collect();
    machine
}

fn order() -> Expectation {
    serde_json::from_value(serde_json::json!({
        "system": {"product_name": "<in> R6615", "firmware_version": "1.5.8", "boot_mode": "uefi", "secure_boot": true},
        "cpus": {"count": 2, "model": "<in> EPYC", "cores": ">= 64"},
        "memory": {"size": ">= 256 GiB", "modules": 8, "equal_size": true, "full_speed": true},
        "disks": [{"count": 4, "match": {"transport": "nvme", "size": ">= 3 TiB", "firmware": "0105"}}],
        "no_other_disks": true,
        "disk_health": "none_failing",
        "interfaces": [{"count": ">= 2", "match": {"driver": "<or> ice <or> mlx5_core", "speed_mbps": ">= 25000", "carrier": true}}],
        "links": "full_speed",
    }))
    .expect("a good order")
}

/// The lines that an edit of the machine makes.
fn lines(edit: impl FnOnce(&mut Inventory)) -> Vec<String> {
    let mut machine = machine();
    edit(&mut machine);
    order().unmet(&machine)
}

#[test]
fn a_machine_that_is_as_expected_has_no_unmet_line() {
    assert_eq!(order().unmet(&machine()), Vec::<String>::new());
    assert_eq!(order().check(), Ok(()));
    let written = serde_json::to_string(&order()).expect("written");
    assert_eq!(serde_json::from_str::<Expectation>(&written).expect("read back"), order());
}

#[test]
fn each_unmet_line_says_what_is_and_what_should_be() {
    type Edit = fn(&mut Inventory);
    let cases: [(Edit, &[&str]); 15] = [
        (|m| m.cpu.socket_count = 1, &["the number of processors is 1, expected 2"]),
        (|m| m.cpu.model_name = "Xeon".into(), &["the processor model is \"Xeon\", expected with \"EPYC\" in it"]),
        (|m| m.memory.physical_mb = 1024, &["the memory has 1.0 GiB, expected at least 256.0 GiB"]),
        (|m| m.memory.modules[7].size_mb = 0, &["the number of memory modules is 7, expected 8"]),
        (|m| m.memory.modules[3].size_mb = 16_384, &["A3 has 16.0 GiB, that in A0 32.0 GiB"]),
        (|m| m.memory.modules[3].configured_speed_mts = Some(4400), &["A3 runs at 4400 MT/s, expected its 4800"]),
        (|m| m.memory.modules[3].configured_speed_mts = None, &["the speed of the memory module in A3 is not known"]),
        (
            |m| drop(m.disks.pop()),
            &["there are 3 disks with firmware 0105, size >= 3298534883328, transport nvme, expected 4"],
        ),
        (
            |m| m.disks[0].firmware = "0099".into(),
            &["there are 3 disks", "  /dev/nvme0n1", "no line expects the disk /dev/nvme0n1"],
        ),
        (
            |m| m.disks[0].health = Some(DiskHealth { passed: Some(false), ..DiskHealth::default() }.judged()),
            &["is failing: the disk says"],
        ),
        (
            |m| m.disks[0].health = Some(DiskHealth::unread("it did not answer in time")),
            &["is unknown: it did not answer in time"],
        ),
        (|m| m.disks[0].link.as_mut().expect("one").width = Some(2), &["is attached by PCIe 16.0 GT/s x2 (of x4)"]),
        (
            |m| m.interfaces[1].speed_mbps = Some(10_000),
            &["there are 1 network interfaces with", "speed_mbps is 10000, not at least 25000"],
        ),
        (|m| m.boot.secure_boot = None, &["whether Secure Boot is on is not known, expected on"]),
        (|m| m.system_vendor.firmware.version.clear(), &["the firmware version is not known, expected \"1.5.8\""]),
    ];
    for (edit, words) in cases {
        let lines = lines(edit);
        assert!(!lines.is_empty(), "{words:?}");
        for word in words {
            assert!(lines.iter().any(|l| l.contains(word)), "{word:?} is in none of {lines:#?}");
        }
    }
}

#[test]
fn what_is_not_known_is_not_met() {
    let nothing = Inventory {
        unread: vec![unlisted::DISKS.because("EIO"), unlisted::INTERFACES.because("EIO")],
        ..Inventory::default()
    };
    let lines = order().unmet(&nothing);
    for word in [
        "the disks could not be listed",
        "the network interfaces could not be listed",
        "memory modules",
        "processor model",
    ] {
        assert!(lines.iter().any(|l| l.contains(word)), "{word} is in none of {lines:#?}");
    }
    assert!(!lines.iter().any(|l| l.contains("no line expects")));
    // A suspect disk does not fail, and is not good.
    let mut machine = machine();
    machine.disks[0].health =
        Some(DiskHealth { passed: Some(true), pending_sectors: Some(1), ..DiskHealth::default() }.judged());
    assert_eq!(order().unmet(&machine), Vec::<String>::new());
    let strict = Expectation { disk_health: Some(ExpectedHealth::AllGood), ..Expectation::default() };
    assert_eq!(strict.unmet(&machine).len(), 1);
}

#[test]
fn orders_are_read_strictly() {
    for bad in [
        r#"{"disk":[]}"#,
        r#"{"cpus":{"count":"= 2"}}"#,
        r#"{"cpus":{"count":"2 sockets"}}"#,
        r#"{"cpus":{"model":">= EPYC"}}"#,
        r#"{"memory":{"size":"256GB"}}"#,
        r#"{"disks":[{"match":{"transport":"nvme"}}]}"#,
        r#"{"disks":[{"count":4,"match":{"transport":"floppy"}}]}"#,
        r#"{"disks":[{"count":4,"match":{"name":"/dev/sda"}}]}"#,
        r#"{"disk_health":"fine"}"#,
        r#"{"interfaces":[{"count":1,"match":{"colour":"red"}}]}"#,
        r#"{"links":"wide"}"#,
    ] {
        assert!(serde_json::from_str::<Expectation>(bad).is_err(), "{bad}");
    }
    for (contradictory, word) in [
        ("{}", "nothing is expected"),
        (r#"{"no_other_disks":true}"#, "no line of disks"),
        (r#"{"disks":[{"count":1,"match":{"serial":"x","pick":"smallest"}}]}"#, "pick"),
        (r#"{"disks":[{"count":1,"match":{"array":"root"}}]}"#, "array"),
    ] {
        let expectation: Expectation = serde_json::from_str(contradictory).expect("well formed");
        assert!(expectation.check().expect_err("refused").contains(word), "{contradictory}");
    }
}

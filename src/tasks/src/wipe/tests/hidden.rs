//! What a disk keeps out of sight: areas behind its end, boot partitions, namespaces that no one has attached.

use super::*;

#[test]
fn hidden_areas_are_opened_for_good_or_left_and_said() {
    let bench = Bench::new();
    let hiding = |ata: &mut Ata| (ata.accessible, ata.native) = ((MIB as u64) << 11, (MIB as u64) << 12);
    let with_overlay = |ata: &mut Ata| {
        hiding(ata);
        ata.factory = (3 * MIB as u64) << 11;
    };
    let device = sata(with_overlay);
    let opened = report(&bench.wipe(&purge(), &device));
    assert_eq!(device.changes(), ["set max", "overlay restore", "set max", "sanitize"]);
    let areas: Vec<_> = opened.areas.iter().map(|a| (a.kind, a.size.0 >> 20, a.covered)).collect();
    assert!(areas.contains(&(AreaKind::Hpa, 2, true)) && areas.contains(&(AreaKind::Dco, 2, true)), "{areas:?}");
    assert!(opened.steps.iter().any(|s| s.contains("6.0 MiB now, 2.0 MiB before")), "{:?}", opened.steps);

    let device = sata(hiding);
    let left = report(&bench.wipe(&by(WipeMethod::Overwrite), &device));
    assert!(device.changes().is_empty());
    assert!(left.not_covered.iter().any(|t| t.contains("host protected area (2.0 MiB)")), "{:?}", left.not_covered);

    // The host cannot write what the kernel does not see yet, so nobody says that it was wiped.
    let device = sata(hiding);
    let task = WipeTask { hidden_areas: Some(true), ..by(WipeMethod::Overwrite) };
    let text = fault(&bench.wipe(&task, &device), Outcome::FailedChanged);
    assert!(text.contains("boot the machine again") && device.holds_data(), "{text}");
}

#[test]
fn boot_partitions_are_written_over_and_read_back_or_left_and_said() {
    const SECRET: u8 = 0xee;
    let bench = Bench::new();
    let with_boot = || {
        let boot = [vec![SECRET; 128 << 10], vec![SECRET; 128 << 10]];
        Simulated::new(Kind::Nvme(Nvme { boot, ..Nvme::new() }), MIB)
    };
    let boot = |device: &Simulated| match &device.state().kind {
        Kind::Nvme(nvme) => nvme.boot.clone(),
        _ => panic!("another kind"),
    };
    let is_there = |device: &Simulated| boot(device).iter().any(|bytes| bytes.windows(64).any(|w| w == [SECRET; 64]));
    let device = with_boot();
    let wiped = report(&bench.wipe(&purge(), &device));
    let covered = |report: &WipeReport| {
        report.areas.iter().filter(|area| area.kind == AreaKind::BootPartition && area.covered).count()
    };
    assert_eq!(covered(&wiped), 2);
    assert!(!is_there(&device) && boot(&device)[0] != boot(&device)[1]);

    // Not by default at this level.
    let device = with_boot();
    let left = report(&bench.wipe(&by(WipeMethod::NvmeFormatUserData), &device));
    assert!(covered(&left) == 0 && is_there(&device));
    assert!(left.not_covered.iter().any(|text| text.starts_with("boot partition 1")), "{left:?}");

    let device = with_boot();
    if let Kind::Nvme(nvme) = &mut device.state().kind {
        nvme.boot_protected = true;
    }
    let text = fault(&bench.wipe(&purge(), &device), Outcome::FailedChanged);
    assert!(is_there(&device) && text.contains("boot partition 0") && text.contains("`hidden_areas`"), "{text}");
}

#[test]
fn detached_namespaces_are_erased_too_or_refuse() {
    let bench = Bench::new();
    let two = |attached| Simulated::new(Kind::Nvme(Nvme::new().also(2, attached)), MIB);
    let erased = |device: &Simulated| match &device.state().kind {
        Kind::Nvme(nvme) => nvme.namespaces[&2].erased && !nvme.namespaces[&2].attached,
        _ => false,
    };
    let device = two(false);
    report(&bench.wipe(&purge(), &device));
    assert!(erased(&device), "sanitize takes all namespaces");

    let device = two(false);
    let task = WipeTask { hidden_areas: Some(true), ..by(WipeMethod::NvmeFormatUserData) };
    let formatted = report(&bench.wipe(&task, &device));
    assert_eq!(device.changes(), ["format", "attach", "format", "detach"]);
    assert!(erased(&device) && formatted.areas.iter().any(|a| a.name == "namespace 2" && a.covered));

    let device = two(false);
    let alone = report(&bench.wipe(&by(WipeMethod::NvmeFormatUserData), &device));
    assert!(!erased(&device) && alone.not_covered.iter().any(|t| t.starts_with("namespace 2")), "{alone:?}");

    // Attached it is somebody's disk: what takes all is refused, and what takes one namespace leaves the other alone.
    let device = two(true);
    let text = fault(&bench.wipe(&by(WipeMethod::NvmeSanitizeBlock), &device), Outcome::FailedUnchanged);
    assert!(text.contains("another disk") && device.changes().is_empty() && device.holds_data(), "{text}");
    let one = report(&bench.wipe(&purge(), &device));
    assert_eq!((one.method, device.changes()), (WipeMethod::NvmeFormatCrypto, vec!["format"]));
    let untouched = |device: &Simulated| matches!(&device.state().kind, Kind::Nvme(n) if !n.namespaces[&2].erased);
    assert!(untouched(&device), "the other namespace was not named");
}

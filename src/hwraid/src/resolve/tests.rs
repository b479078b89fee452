use proptest::prelude::*;
use speediso_model::hardware_raid::{DriveInterface, DriveMedia, VolumeLevel};

use super::*;
use crate::judge::judge;
use crate::view::{Controller, Size};

const GIB: u64 = 1 << 30;

fn drive(slot: usize, gib: u64, media: DriveMedia, state: DriveState) -> Drive {
    Drive {
        slot: format!("252:{slot}"),
        address: format!("/e252/s{slot}"),
        serial: format!("S{slot:03}"),
        wwn: None,
        model: "M".into(),
        firmware: String::new(),
        size: Size::exact(gib * GIB),
        media: Some(media),
        interface: Some(DriveInterface::Sas),
        sector: Some(512),
        exposed: state == DriveState::Jbod,
        state,
    }
}

fn volume(id: &str, name: &str, level: VolumeLevel, members: &[usize], gib: u64) -> Volume {
    Volume {
        id: id.into(),
        name: name.into(),
        level: Level::Known(level),
        size: Size::exact(gib * GIB),
        state: VolumeState::Good,
        members: members.iter().map(|n| format!("252:{n}")).collect(),
        wwn: Some(format!("60000000000000000000000000000{id:0>3}")),
        write_back: None,
        strip_kib: None,
    }
}

/// Two small SSDs in front, six disks behind, nothing configured.
fn view() -> View {
    let drives = (0..8)
        .map(|n| match n {
            0 | 1 => drive(n, 480, DriveMedia::Ssd, DriveState::Free),
            _ => drive(n, 4000, DriveMedia::Hdd, DriveState::Free),
        })
        .collect();
    let controller = Controller { id: "0".into(), serial: "C1".into(), ..Controller::default() };
    View { controller, drives, volumes: Vec::new(), foreign: Vec::new() }
}

fn task(text: &str) -> HardwareRaidTask {
    serde_json::from_str(text).expect("an order")
}

fn wish() -> HardwareRaidTask {
    task(
        r#"{"volumes":[{"name":"boot","level":"1","disks":{"count":2,"media":"ssd"},"boot":true},
                      {"name":"data","level":"10","disks":{"count":6,"media":"hdd"}}]}"#,
    )
}

fn slots(volume: &NewVolume) -> Vec<&str> {
    volume.drives.iter().map(|d| d.slot.as_str()).collect()
}

#[test]
fn a_mirror_for_boot_and_raid_10_for_data() {
    let goal = resolve(&wish(), &view(), true).expect("clear and possible");
    let [boot, data] = goal.create.as_slice() else { panic!("{goal:?}") };
    assert_eq!(slots(boot), ["252:0", "252:1"]);
    assert_eq!(slots(data), ["252:2", "252:3", "252:4", "252:5", "252:6", "252:7"]);
    assert_eq!((boot.expected, data.expected), (Bytes::gib(480), Bytes::gib(12000)));
    assert_eq!(goal.boot.as_deref(), Some("boot"));
    assert_eq!(goal.reasons[0], "\"boot\": 2 of 8 drives can be used, 2 needed");
    assert_eq!(boot.in_words(), "make RAID-1 \"boot\" of 480.0 GiB from drives 252:0 serial S000, 252:1 serial S001");
}

#[test]
fn what_is_not_clear_is_refused_with_reasons() {
    let two_of_six = task(r#"{"volumes":[{"name":"a","level":"1","disks":{"count":2,"media":"hdd"}}]}"#);
    let refusal = resolve(&two_of_six, &view(), true).expect_err("which two?");
    assert!(matches!(refusal, Refusal::Ambiguous { found: 6, needed: 2, .. }), "{refusal}");
    assert!(refusal.causes()[0].ends_with("is of Ssd"), "{:?}", refusal.causes());
    let picked = task(r#"{"volumes":[{"name":"a","level":"1","disks":{"count":2,"pick":"smallest"}}]}"#);
    assert_eq!(slots(&resolve(&picked, &view(), true).expect("clear").create[0]), ["252:0", "252:1"]);
    let largest = task(r#"{"volumes":[{"name":"a","level":"5","disks":{"count":3,"pick":"largest"},"hot_spares":1}]}"#);
    let goal = resolve(&largest, &view(), true).expect("clear");
    assert_eq!((slots(&goal.create[0]).len(), goal.create[0].spares.len()), (3, 1));
}

#[test]
fn what_cannot_be_is_refused() {
    let refused = |text: &str, view: &View| resolve(&task(text), view, true).expect_err(text);
    let many = r#"{"volumes":[{"name":"a","level":"10","disks":{"count":8,"media":"hdd"}}]}"#;
    assert!(matches!(refused(many, &view()), Refusal::TooFew { found: 6, needed: 8, .. }));
    let mixed = r#"{"volumes":[{"name":"a","level":"1","disks":{"slots":["252:1","252:2"]}}]}"#;
    assert!(matches!(refused(mixed, &view()), Refusal::Mixed { .. }));
    let large =
        r#"{"volumes":[{"name":"a","level":"1","disks":{"count":2,"media":"ssd"},"size":{"bytes":1099511627776}}]}"#;
    assert!(matches!(refused(large, &view()), Refusal::TooLarge { .. }));
    let absent = r#"{"volumes":[{"name":"a","level":"1","disks":{"serials":["S000","S999"]}}]}"#;
    assert!(refused(absent, &view()).to_string().contains("S999"));
    let twice = r#"{"volumes":[{"name":"a","level":"1","disks":{"slots":["252:0"],"serials":["s000"]}}]}"#;
    assert!(refused(twice, &view()).to_string().contains("named twice"));
    let mut hba = view();
    hba.controller.hba_mode = true;
    assert!(matches!(resolve(&wish(), &hba, true), Err(Refusal::HbaMode { .. })));
    let mut paths = view();
    paths.drives[5].serial = "S004".into();
    assert!(matches!(resolve(&wish(), &paths, true), Err(Refusal::SameSerial { .. })));
}

/// The same, with both volumes made and a third that nobody wishes for.
fn made() -> View {
    let mut view = view();
    view.drives.push(drive(8, 4000, DriveMedia::Hdd, DriveState::Member));
    for drive in &mut view.drives {
        drive.state = DriveState::Member;
    }
    view.volumes = vec![
        volume("1", "boot", VolumeLevel::Raid1, &[0, 1], 480),
        volume("2", "data", VolumeLevel::Raid10, &[2, 3, 4, 5, 6, 7], 12000),
        volume("3", "old", VolumeLevel::Raid0, &[8], 4000),
    ];
    view.controller.boots = Some("1".into());
    view
}

#[test]
fn what_stands_as_wished_is_left_alone() {
    let goal = resolve(&wish(), &made(), true).expect("so already");
    assert!(goal.is_met(), "{goal:?}");
    assert_eq!(goal.kept.len(), 1, "somebody's volume stays");
    // With a teardown it would not be all there is, so all of it goes.
    let goal = resolve(&HardwareRaidTask { teardown: true, ..wish() }, &made(), true);
    // Nine drives match six disks of data then.
    assert!(matches!(goal, Err(Refusal::Ambiguous { found: 7, needed: 6, .. })), "{goal:?}");
    let mut only = made();
    only.volumes.pop();
    only.drives.pop();
    let goal = resolve(&HardwareRaidTask { teardown: true, ..wish() }, &only, true).expect("so already");
    assert!(goal.is_met() && goal.delete.is_empty(), "{goal:?}");
}

#[test]
fn a_teardown_takes_everything_or_nothing() {
    let mut view = made();
    view.volumes[0].state = VolumeState::Bad("Dgrd".into());
    let differs = resolve(&wish(), &view, true).expect_err("degraded, and no teardown");
    assert!(matches!(differs, Refusal::Differs { .. }), "{differs}");
    view.foreign = vec![Foreign { what: "RAID60 in drive group 0".into() }];
    view.controller.preserved_cache = true;
    let goal = resolve(&task(r#"{"teardown":true}"#), &view, true).expect("clear");
    assert_eq!((goal.delete.len(), goal.clear_foreign.len(), goal.discard_cache), (3, 1, true));
    assert!(goal.create.is_empty() && !goal.is_met());
    // Kept cache is somebody's data: nothing is made beside it.
    let more = task(r#"{"volumes":[{"name":"new","level":"0","disks":{"count":1}}]}"#);
    assert_eq!(resolve(&more, &view, true), Err(Refusal::PreservedCache));
}

#[test]
fn a_drive_of_the_systems_is_taken_only_by_a_teardown() {
    let mut view = view();
    view.drives[1].state = DriveState::Jbod;
    assert!(matches!(resolve(&wish(), &view, true), Err(Refusal::TooFew { found: 1, .. })));
    let goal = resolve(&HardwareRaidTask { teardown: true, ..wish() }, &view, true).expect("it may");
    assert_eq!(goal.make_good.iter().map(|d| d.slot.as_str()).collect::<Vec<_>>(), ["252:1"]);
}

#[test]
fn what_is_not_shown_is_not_taken_for_granted() {
    let mut task = wish();
    task.volumes[0].cache = Some(speediso_model::hardware_raid::WriteCache::WriteThrough);
    let refusal = resolve(&task, &made(), true).expect_err("the cache is not shown");
    assert!(refusal.to_string().contains("does not show its write cache"), "{refusal}");
    let mut view = made();
    view.volumes[0].write_back = Some(false);
    assert!(resolve(&task, &view, true).expect("shown, and so").is_met());
    task.volumes[1].hot_spares = 1;
    let refusal = resolve(&task, &view, true).expect_err("no spare");
    assert!(refusal.to_string().contains("there are not 1 spares"), "{refusal}");
    view.drives.push(drive(9, 4000, DriveMedia::Hdd, DriveState::Spare));
    assert!(resolve(&task, &view, true).expect("it is there").is_met());
}

#[test]
fn a_foreign_drive_is_cleared_even_if_no_group_is_listed() {
    let mut view = view();
    view.drives[7].state = DriveState::Foreign;
    let goal = resolve(&HardwareRaidTask { teardown: true, ..wish() }, &view, true).expect("clear");
    assert_eq!(goal.clear_foreign[0].what, "on drive 252:7 serial S007");
    assert!(!crate::judge::torn_down(&goal, &view, &view).is_empty(), "it is still there");
}

#[test]
fn without_names_a_volume_is_known_by_what_it_is() {
    let mut view = made();
    for volume in &mut view.volumes {
        volume.name = "01F42227PDVTF0BRH5T0MOAB64".into();
    }
    let goal = resolve(&wish(), &view, false).expect("so already");
    assert!(goal.is_met(), "{goal:?}");
}

/// What a controller that does as it is told would show.
fn applied(goal: &Goal, view: &View, boots: Option<&str>) -> View {
    let mut after = view.clone();
    after.volumes.retain(|v| !goal.delete.iter().any(|d| d.id == v.id));
    let gone = |slot: &String| goal.delete.iter().any(|v| v.members.contains(slot));
    for drive in &mut after.drives {
        let foreign = drive.state == DriveState::Foreign && !goal.clear_foreign.is_empty();
        let jbod = goal.make_good.iter().any(|d| d.slot == drive.slot);
        if gone(&drive.slot) || foreign || jbod {
            drive.state = DriveState::Free;
        }
    }
    if !goal.clear_foreign.is_empty() {
        after.foreign.clear();
    }
    after.controller.preserved_cache &= !goal.discard_cache;
    for (n, new) in goal.create.iter().enumerate() {
        let id = format!("{}", 100 + n);
        let mut made = volume(&id, &new.name, new.level, &[], 0);
        made.size = Size::exact(new.expected.0);
        made.members = new.slots();
        after.volumes.push(made);
        for drive in &mut after.drives {
            if new.drives.iter().any(|d| d.slot == drive.slot) {
                drive.state = DriveState::Member;
            } else if new.spares.iter().any(|d| d.slot == drive.slot) {
                drive.state = DriveState::Spare;
            }
        }
    }
    if let Some(name) = boots {
        after.controller.boots = after.volumes.iter().find(|v| v.name == name).map(|v| v.id.clone());
    }
    after
}

fn any_view() -> impl Strategy<Value = View> {
    let one = (prop_oneof![Just(480u64), Just(960), Just(4000)], any::<bool>(), 0u8..8);
    (proptest::collection::vec(one, 1..16), any::<bool>(), any::<bool>()).prop_map(|(drives, cache, foreign)| {
        let mut view = view();
        view.drives = drives
            .iter()
            .enumerate()
            .map(|(n, (gib, ssd, state))| {
                let media = if *ssd { DriveMedia::Ssd } else { DriveMedia::Hdd };
                let state = match state {
                    0 => DriveState::Member,
                    1 => DriveState::Jbod,
                    2 if foreign => DriveState::Foreign,
                    3 => DriveState::Unusable("UBad".into()),
                    _ => DriveState::Free,
                };
                drive(n, *gib, media, state)
            })
            .collect();
        let members: Vec<(usize, u64)> = view
            .drives
            .iter()
            .enumerate()
            .filter(|(_, d)| d.state == DriveState::Member)
            .map(|(n, d)| (n, d.size.bytes / GIB))
            .collect();
        view.volumes = members
            .iter()
            .map(|(n, gib)| volume(&n.to_string(), &format!("old{n}"), VolumeLevel::Raid0, &[*n], *gib))
            .collect();
        if view.drives.iter().any(|d| d.state == DriveState::Foreign) {
            view.foreign = vec![Foreign { what: "RAID5".into() }];
        }
        view.controller.preserved_cache = cache;
        view
    })
}

fn any_task() -> impl Strategy<Value = HardwareRaidTask> {
    let level = prop_oneof![
        Just((VolumeLevel::Raid0, 1usize)),
        Just((VolumeLevel::Raid1, 2)),
        Just((VolumeLevel::Raid5, 3)),
        Just((VolumeLevel::Raid10, 4))
    ];
    let media = prop_oneof![Just(None), Just(Some(DriveMedia::Ssd)), Just(Some(DriveMedia::Hdd))];
    let pick = prop_oneof![
        Just(None),
        Just(Some(DrivePick::Smallest)),
        Just(Some(DrivePick::Largest)),
        Just(Some(DrivePick::First))
    ];
    let size = prop_oneof![Just(VolumeSize::Rest), Just(VolumeSize::Bytes(Bytes::gib(500)))];
    let one = (level, media, pick, size, 0usize..2);
    (proptest::collection::vec(one, 1..4), any::<bool>()).prop_map(|(volumes, teardown)| HardwareRaidTask {
        controller: None,
        teardown,
        volumes: volumes
            .into_iter()
            .enumerate()
            .map(|(n, ((level, count), media, pick, size, spares))| VolumeSpec {
                name: format!("v{n}"),
                level,
                disks: DriveChoice { count: Some(count), media, pick, ..DriveChoice::default() },
                size,
                hot_spares: if level == VolumeLevel::Raid0 { 0 } else { spares },
                cache: None,
                strip_kib: None,
                boot: n == 0,
            })
            .collect(),
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    /// Whatever is wished of whatever is there: no drive is used twice, none that holds a volume that stays, none that
    /// is not what was asked for, and no volume is larger than its drives. Carried out, it is as wished, and
    /// wishing again changes nothing.
    #[test]
    fn no_drive_twice_none_that_is_kept_and_sizes_are_right(task in any_task(), view in any_view()) {
        let Ok(goal) = resolve(&task, &view, true) else { return Ok(()) };
        let mut used: Vec<&str> = Vec::new();
        for new in &goal.create {
            let spec = task.volumes.iter().find(|v| v.name == new.name).expect("wished for");
            prop_assert_eq!(new.drives.len(), spec.disks.members());
            prop_assert_eq!(new.spares.len(), spec.hot_spares);
            for drive in new.drives.iter().chain(&new.spares) {
                prop_assert!(!used.contains(&drive.slot.as_str()), "{} twice", drive.slot);
                used.push(&drive.slot);
                prop_assert_eq!(spec.disks.differs(drive), None);
                prop_assert!(!matches!(drive.state, DriveState::Unusable(_)));
                if !task.teardown {
                    prop_assert_eq!(&drive.state, &DriveState::Free);
                }
                let held = goal.kept.iter().any(|v| v.members.contains(&drive.slot));
                prop_assert!(!held, "{} holds a volume that stays", drive.slot);
            }
            let least = new.drives.iter().map(|d| d.size.bytes).min().unwrap_or(0);
            prop_assert!(new.expected.0 <= new.level.capacity(new.drives.len(), least));
            prop_assert!(new.spares.iter().all(|s| s.size.bytes >= least));
        }
        prop_assert!(task.teardown || (goal.delete.is_empty() && goal.clear_foreign.is_empty() && !goal.discard_cache));
        let after = applied(&goal, &view, Some("v0"));
        if let Err(missing) = judge(&goal, &view, &after) {
            prop_assert!(false, "carried out, but {missing:?}");
        }
        let again = resolve(&task, &after, true);
        prop_assert!(again.as_ref().is_ok_and(Goal::is_met), "{again:?}");
        // And a controller that did nothing is not believed.
        if !goal.is_met() && goal.boot.is_none() {
            prop_assert!(judge(&goal, &view, &view).is_err());
        }
    }
}

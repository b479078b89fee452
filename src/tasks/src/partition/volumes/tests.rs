#![allow(clippy::expect_used, reason = "tests")]

use speediso_model::units::{Bytes, MIB};

use super::*;

/// In the form of LVM 2.03.16, of a group like that of tests/boot/partition.rs, where LVM itself is asked.
fn report() -> Report {
    Report::parse("vg-0", &texts()).expect("understood")
}

fn texts() -> [String; 3] {
    [include_str!("fixtures/pvs.json"), include_str!("fixtures/vgs.json"), include_str!("fixtures/lvs.json")]
        .map(str::to_owned)
}

fn members() -> [&'static Path; 2] {
    [Path::new("/dev/loop0"), Path::new("/dev/mapper/second")]
}

fn group() -> VolumeGroup {
    let volume = |name: &str, size, kind| LogicalVolume { name: name.into(), size, kind, content: None };
    let mib = |n: u64| PartitionSize::Bytes(Bytes(n * MIB));
    VolumeGroup {
        name: "vg-0".into(),
        volumes: vec![
            volume("root", mib(320), VolumeKind::Linear),
            volume("mirror", mib(64), VolumeKind::Mirror(2)),
            volume("secret", mib(64), VolumeKind::Linear),
            volume("pool", PartitionSize::Percent(30), VolumeKind::ThinPool),
        ],
    }
}

#[test]
fn a_group_as_ordered_differs_in_nothing() {
    assert_eq!(report().differences(&group(), &members()), Vec::<String>::new());
    // Sizes are whole extents.
    let mut odd = group();
    odd.volumes[0].size = PartitionSize::Bytes(Bytes(320 * MIB - 1));
    assert_eq!(report().differences(&odd, &members()), Vec::<String>::new());
}

#[test]
fn whatever_is_not_as_ordered_is_named() {
    type Spoil = fn(&mut VolumeGroup);
    let spoil: [(Spoil, &str); 9] = [
        (|g| g.volumes[0].name = "home".into(), r#"it has a volume "root" that is not ordered"#),
        (|g| g.volumes[0].size = PartitionSize::Bytes(Bytes(320 * MIB + 1)), "its size is 335544320 bytes"),
        (|g| g.volumes[0].size = PartitionSize::Rest, "which is not the rest"),
        (|g| g.volumes[1].kind = VolumeKind::Linear, r#"its kind is "raid1" instead of "linear""#),
        (|g| g.volumes[1].kind = VolumeKind::Mirror(3), r#"its number of copies is "2" instead of "3""#),
        (|g| g.volumes[3].size = PartitionSize::Percent(31), "which is not 31 %"),
        (|g| g.volumes[3].size = PartitionSize::Percent(28), "which is not 28 %"),
        (|g| drop(g.volumes.remove(2)), r#"it has a volume "secret" that is not ordered"#),
        (|g| g.name = "vg-1".into(), "belongs to another group, or to none"),
    ];
    for (spoil, said) in spoil {
        let mut group = group();
        spoil(&mut group);
        let found = Report::parse(&group.name, &texts()).expect("understood").differences(&group, &members());
        assert!(found.iter().any(|found| found.contains(said)), "{said}: {found:?}");
    }
    let found = report().differences(&group(), &members()[..1]);
    assert!(found.len() == 1 && found[0].contains("2 physical volumes, 0 of them missing, instead of 1"), "{found:?}");
    let other = [Path::new("/dev/loop0"), Path::new("/dev/loop1")];
    assert!(report().differences(&group(), &other)[0].contains("belongs to another group"));
}

#[test]
fn volumes_begin_where_their_extents_do() {
    let (report, group) = (report(), group());
    let starts = |n: usize| report.starts(&group.volumes[n]);
    assert_eq!(starts(0), [Start { device: "/dev/loop0".into(), offset: MIB, length: 320 * MIB }]);
    let mirror = starts(1);
    assert_eq!(mirror.len(), 2);
    assert!(mirror.iter().all(|start| start.length == 64 * MIB) && mirror[0].device != mirror[1].device, "{mirror:?}");
    assert_eq!(starts(3), [], "a pool has no beginning of its own");
}

#[test]
fn what_is_not_understood_is_no_report() {
    for (n, text) in [
        (0, "{}"),
        (1, r#"{"report":[{"vg":[{"vg_name":"vg-0"}]}]}"#),
        (2, r#"{"report":[{"lv":[{"vg_name":"vg-0"}]}]}"#),
    ] {
        let mut texts = texts();
        texts[n] = text.into();
        assert_eq!(Report::parse("vg-0", &texts), None, "{text}");
    }
}

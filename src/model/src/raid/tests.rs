use super::*;
use crate::fault::FaultCode;
use crate::task::Task;
use proptest::prelude::*;

fn parse(arrays: &str, rest: &str) -> Result<Task, serde_json::Error> {
    serde_json::from_str(&format!(r#"{{"task":"raid","arrays":[{arrays}]{rest}}}"#))
}

const TWO: &str = r#""members":{"each":[{"serial":"A"},{"serial":"B"}]}"#;
const FOUR: &str = r#""members":{"matching":{"hints":{"model":"M"},"count":4}}"#;

#[test]
fn a_whole_wish_is_read_and_written_alike() {
    let text = format!(
        r#"{{"name":"esp","level":"1",{TWO},"metadata":"1.0","size":{{"bytes":536870912}},"kind":"esp"}},
           {{"name":"root","level":"1",{TWO},"bitmap":"none","size":"rest","initial_sync":"watch",
             "uuid":"11111111-2222-4333-8444-555555555555"}},
           {{"name":"data","level":"6",{FOUR},"chunk":65536}}"#
    );
    let task = parse(&text, r#","replace":true"#).expect("good");
    task.validate().expect("valid");
    assert!(task.is_destructive() && task.needs_permission() && task.kind() == "raid");
    let again: Task = serde_json::from_value(serde_json::to_value(&task).expect("written")).expect("read");
    assert_eq!(again, task);
    for bad in [r#""colour":"red""#, r#""level":"4""#, r#""metadata":"0.90""#, r#""size":"most""#] {
        assert!(parse(&format!(r#"{{"name":"x",{TWO},{bad}}}"#), "").is_err(), "{bad}");
    }
}

#[test]
fn what_is_wrong_is_said_before_a_disk_is_looked_at() {
    let one = |rest: &str| format!(r#"{{"name":"x","level":"1",{TWO}{rest}}}"#);
    let named = |name: &str| format!(r#"{{"name":"{name}","level":"1",{TWO}}}"#);
    let level = |level: &str, rest: &str| format!(r#"{{"name":"x","level":"{level}",{TWO}{rest}}}"#);
    let cases = [
        (String::new(), "", "arrays: 0"),
        (named(""), "", "name"),
        (named("127"), "", "only digits"),
        (named("a:b"), "", "name"),
        (named(&"n".repeat(29)), "", "1 to 28"),
        (one(r#","spares":1"#), "", "RAID-1 takes 2"),
        (level("0", r#","spares":1"#), "", "spare could be filled"),
        (level("5", ""), "", "RAID-5 takes 3"),
        (level("6", ""), "", "RAID-6 takes 4"),
        (one(r#","chunk":65536"#), "", "a mirror has none"),
        (level("0", r#","chunk":98304"#), "", "power of two"),
        (level("0", r#","chunk":512"#), "", "power of two"),
        (level("0", r#","bitmap":"internal""#), "", "nothing to synchronise"),
        (level("0", r#","initial_sync":"watch""#), "", "nothing to synchronise"),
        (one(r#","size":{"bytes":0}"#), "", "size: zero"),
        (one(r#","uuid":"00000000-0000-0000-0000-000000000000""#), "", "all zero"),
        (one(r#","kind":"esp""#), "", "metadata 1.0"),
        (one(r#","kind":"linux""#), r#","whole_disks":true"#, "no partitions"),
        (format!("{},{}", named("x"), named("X")), "", "twice"),
        (format!("{},{}", named("a"), named("b")), "", "only the last"),
        (format!("{},{}", named("a"), named("b")), r#","whole_disks":true"#, "cannot both"),
        (r#"{"name":"x","level":"1","members":{"each":[{"array":"y"},{"serial":"B"}]}}"#.into(), "", "of another"),
        (r#"{"name":"x","level":"1","members":{"each":[{},{"serial":"B"}]}}"#.into(), "", "empty"),
    ];
    for (arrays, rest, word) in cases {
        let fault = parse(&arrays, rest).expect("well-formed").validate().expect_err(word);
        assert_eq!(fault.code, FaultCode::TaskInvalid, "{fault}");
        assert!(fault.message.contains(word), "{word} is not in {fault}");
    }
}

fn array(level: RaidLevel, size: RaidSize) -> RaidArray {
    RaidArray {
        name: "x".into(),
        level,
        members: DiskSet::Each(Vec::new()),
        spares: 0,
        chunk: None,
        metadata: RaidMetadata::default(),
        bitmap: None,
        size,
        uuid: None,
        kind: None,
        initial_sync: InitialSync::default(),
    }
}

#[test]
fn the_figures_are_those_of_the_levels() {
    let of = |level, members, whole| {
        let array = array(level, RaidSize::Rest);
        lay_out(&[&array], members, 100 * MIB + 512, whole).expect("fits")[0]
    };
    let mirror = of(RaidLevel::Mirror, 2, true);
    assert_eq!((mirror.start, mirror.length, mirror.data_offset), (0, 100 * MIB + 512, MIB));
    assert_eq!((mirror.component, mirror.capacity), (99 * MIB, 99 * MIB));
    // 1 MiB in front, 1 MiB behind for the tables, 1 MiB for the superblock.
    assert_eq!(of(RaidLevel::Stripes, 3, false).capacity, 3 * 97 * MIB);
    assert_eq!(of(RaidLevel::Parity, 3, false).capacity, 2 * 97 * MIB);
    assert_eq!(of(RaidLevel::DoubleParity, 5, false).capacity, 3 * 97 * MIB);
    // 194 chunks on each of 3: 291 with their copies.
    assert_eq!(of(RaidLevel::StripedMirrors, 3, false).capacity, 291 * 512 * KIB);
}

#[test]
fn half_a_chunk_less_is_less() {
    let wanted = 337_656_152_065;
    let array =
        RaidArray { chunk: Some(Bytes(2 * MIB)), ..array(RaidLevel::StripedMirrors, RaidSize::Bytes(Bytes(wanted))) };
    assert!(lay_out(&[&array], 5, 1 << 40, false).expect("fits")[0].capacity >= wanted);
}

#[test]
fn what_does_not_fit_is_refused() {
    let huge = array(RaidLevel::StripedMirrors, RaidSize::Bytes(Bytes(u64::MAX)));
    assert!(lay_out(&[&huge], 2, 1 << 40, false).expect_err("huge").contains("does not fit"));
    let rest = array(RaidLevel::Mirror, RaidSize::Rest);
    assert!(lay_out(&[&rest, &rest], 2, 1 << 40, false).expect_err("rest first").contains("not the last"));
    assert!(lay_out(&[&rest, &rest], 2, 1 << 40, true).is_err());
    assert!(lay_out(&[&rest], 2, 2 * MIB, false).is_err());
}

fn level() -> impl Strategy<Value = RaidLevel> {
    use RaidLevel::{DoubleParity, Mirror, Parity, StripedMirrors, Stripes};
    prop::sample::select(vec![Stripes, Mirror, Parity, DoubleParity, StripedMirrors])
}

proptest! {
    /// Members are aligned, apart from each other and inside; superblock and data have room; what is asked for is there.
    #[test]
    fn members_are_aligned_apart_and_inside(
        disk_mib in 8u64..1 << 24,
        odd in 0u64..4096,
        members in 4usize..12,
        wanted in prop::collection::vec((level(), 1u64..1 << 40, 12u32..24, any::<bool>()), 1..5),
        rest: bool,
    ) {
        let size = disk_mib * MIB + odd * 512;
        let last = wanted.len() - 1;
        let arrays: Vec<RaidArray> = wanted.iter().enumerate().map(|(i, (level, bytes, chunk, at_end))| RaidArray {
            chunk: (*level != RaidLevel::Mirror).then(|| Bytes(1 << chunk)),
            metadata: if *at_end { RaidMetadata::AtEnd } else { RaidMetadata::AtStart },
            ..array(*level, if rest && i == last { RaidSize::Rest } else { RaidSize::Bytes(Bytes(*bytes)) })
        }).collect();
        if let Ok(slots) = lay_out(&arrays.iter().collect::<Vec<_>>(), members, size, false) {
            let mut at = MIB;
            for (array, slot) in arrays.iter().zip(&slots) {
                prop_assert!(slot.start == at && slot.start % MIB == 0 && slot.length % MIB == 0);
                prop_assert!(slot.component > 0 && slot.component % array.chunk_size().unwrap_or(MIB) == 0);
                let room = if array.metadata == RaidMetadata::AtEnd { MIB } else { 0 };
                prop_assert!(slot.data_offset + slot.component + room <= slot.length);
                prop_assert!(room > 0 || slot.data_offset >= MIB);
                if let RaidSize::Bytes(wanted) = array.size {
                    prop_assert!(slot.capacity >= wanted.0);
                }
                at = slot.start + slot.length;
            }
            prop_assert!(at + 33 * 512 <= size);
        }
    }
}

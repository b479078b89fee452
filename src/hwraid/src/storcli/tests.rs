use speediso_model::units::Bytes;

use super::*;
use crate::fixture::{Recorded, fixture};
use crate::view::Level;

fn answer(text: &str) -> Answer {
    let printed = Printed { stdout: text.to_owned(), ..Printed::default() };
    Answer::read(&printed).expect("JSON of storcli").remove(0)
}

fn view() -> View {
    let tool = Recorded::new(
        "storcli64",
        &[
            ("/call show all nolog J", fixture!("storcli/9560-ctrl.json")),
            ("/c0/eall/sall show all nolog J", fixture!("storcli/9560-drives.json")),
            ("/c0/vall show all nolog J", fixture!("storcli/9560-volume-237.json")),
            // Recorded on another machine; it says the same thing wherever there is one.
            ("/c0/fall show nolog J", fixture!("storcli/foreign-one-group.json")),
        ],
    );
    let view = StorCli.look(&tool).expect("understood").remove(0);
    assert_eq!(tool.asked().len(), 4, "one call each");
    view
}

#[test]
fn a_megaraid_its_drives_and_a_volume() {
    let view = view();
    let c = &view.controller;
    assert_eq!(
        (c.id.as_str(), c.model.as_str(), c.serial.as_str(), c.firmware.as_str()),
        ("0", "MegaRAID 9560-8i 4GB", "SKC5120859", "5.240.02-3768")
    );
    assert_eq!(c.pci_addresses, ["0000:c1:00.0"]);
    assert!(!c.preserved_cache && !c.hba_mode);
    let [member, other] = view.drives.as_slice() else { panic!("{:?}", view.drives) };
    assert_eq!((member.slot.as_str(), member.address.as_str()), ("251:3", "/e251/s3"));
    assert_eq!((member.serial.as_str(), &member.state), ("ZVT1LKKW0000C2372X6C", &DriveState::Member));
    assert_eq!(member.size, Size::exact(0x8_2f70_0000 * 512));
    assert_eq!(other.slot, "251:4");
    let [volume] = view.volumes.as_slice() else { panic!("{:?}", view.volumes) };
    assert_eq!((volume.id.as_str(), &volume.level), ("237", &Level::Known(VolumeLevel::Raid0)));
    assert_eq!(volume.size, Size::exact(35_155_607_552 * 512));
    assert_eq!((volume.members.as_slice(), volume.write_back), (["251:3".to_owned()].as_slice(), Some(false)));
    assert_eq!(volume.wwn.as_deref(), Some("600062b212da5d402bd3b47fc3685d94"));
    assert_eq!(volume.strip_kib, Some(256));
    // What one drive gives is what a volume of one drive has.
    assert!(crate::judge::is_size(volume, member.size.bytes, 1));
}

#[test]
fn an_older_version_without_its_own_number() {
    let volumes = volumes(&answer(fixture!("storcli/volume-mirror.json"))).expect("understood");
    assert_eq!(volumes[0].members, ["252:0", "252:1"]);
    assert_eq!((volumes[0].size.bytes, &volumes[0].level), (1_171_062_784 * 512, &Level::Known(VolumeLevel::Raid1)));
    assert!(super::volumes(&answer(fixture!("storcli/no-volumes.json"))).expect("none").is_empty());
}

#[test]
fn foreign_configurations_are_seen_behind_success_and_failure() {
    let of = |text| foreign(&answer(text));
    assert_eq!(of(fixture!("storcli/foreign-one-group.json")).expect("read")[0].what, "RAID60 in drive group 0");
    let incomplete = of(fixture!("storcli/foreign-incomplete.json")).expect("read");
    assert_eq!(incomplete[0].what, "on 15 drives (Incomplete foreign configuration)");
    // An answer about something else is not "none".
    assert!(of(fixture!("storcli/add-vd-ok.json")).is_err());
}

#[test]
fn answers_to_changes_are_words_without_proof() {
    for (text, status) in [
        (fixture!("storcli/add-vd-ok.json"), "Success"),
        (fixture!("storcli/del-vd-ok.json"), "Success"),
        (fixture!("storcli/add-vd-no-room.json"), "Failure"),
        (fixture!("storcli/set-jbod-failed.json"), "Failure"),
        (fixture!("storcli/set-good-failed.json"), "Failure"),
    ] {
        let answer = answer(text);
        assert_eq!(answer.status, status);
        // None of them can pass for a listing.
        assert!(volumes(&answer).is_err() && drives(&answer).is_err());
    }
}

#[test]
fn text_that_is_no_answer() {
    let whole = fixture!("storcli/9560-drives.json");
    for text in ["", "storcli64: not found", "{}", &whole[..whole.len() / 2], r#"{"Controllers":[{}]}"#] {
        let printed = Printed { stdout: text.into(), ..Printed::default() };
        assert!(Answer::read(&printed).is_err(), "{text}");
    }
}

#[test]
fn commands() {
    let view = view();
    let new = NewVolume {
        name: "data".into(),
        level: VolumeLevel::Raid10,
        drives: view.drives.clone(),
        spares: view.drives[1..].to_vec(),
        size: Some(Bytes::gib(100)),
        expected: Bytes(0),
        cache: Some(WriteCache::WriteBack),
        strip_kib: Some(512),
    };
    assert_eq!(
        StorCli.create(&view, &new).expect("known").to_string(),
        "/c0 add vd r10 size=102400MB name=data drives=251:3,251:4 pdperarray=2 wb strip=512 spares=251:4 nolog J"
    );
    // The form of a call whose success is recorded: /c0 add vd r1 name=... drives=35:12-13 strip=512 J
    let mirror = NewVolume { level: VolumeLevel::Raid1, spares: Vec::new(), size: None, cache: None, ..new };
    assert_eq!(
        StorCli.create(&view, &mirror).expect("known").to_string(),
        "/c0 add vd r1 name=data drives=251:3,251:4 strip=512 nolog J"
    );
    assert_eq!(StorCli.delete(&view, &view.volumes[0]).expect("known").to_string(), "/c0/v237 del force nolog J");
    assert_eq!(StorCli.clear_foreign(&view).expect("known").to_string(), "/c0/fall delete nolog J");
    assert_eq!(
        StorCli.discard_cache(&view).expect("known").to_string(),
        "/c0/vall delete preservedcache force nolog J"
    );
    assert_eq!(
        StorCli.make_good(&view, &view.drives[0]).expect("known").to_string(),
        "/c0/e251/s3 set good force nolog J"
    );
}

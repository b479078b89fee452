use speediso_model::hardware_raid::VolumeLevel;
use speediso_model::units::Bytes;

use super::*;
use crate::fixture::{Recorded, fixture};
use crate::view::Level;

fn look(pd: &'static str, ld: &'static str) -> Result<Vec<View>, ToolError> {
    ArcConf.look(&Recorded::new(
        "arcconf",
        &[
            ("list nologs", fixture!("arcconf/list.txt")),
            ("getconfig 1 AD nologs", fixture!("arcconf/3204-ad.txt")),
            ("getconfig 1 PD nologs", pd),
            ("getconfig 1 LD nologs", ld),
        ],
    ))
}

fn empty() -> View {
    look(fixture!("arcconf/3204-no-volumes-pd.txt"), fixture!("arcconf/3204-no-volumes-ld.txt"))
        .expect("understood")
        .remove(0)
}

fn full() -> View {
    look(fixture!("arcconf/3204-two-volumes-pd.txt"), fixture!("arcconf/3204-two-volumes-ld.txt"))
        .expect("understood")
        .remove(0)
}

#[test]
fn the_controller() {
    let c = empty().controller;
    assert_eq!(
        (c.id.as_str(), c.model.as_str(), c.serial.as_str(), c.firmware.as_str()),
        ("1", "Adaptec SmartRAID 3204-8i", "1A5535F3324002BA", "03.01.02.042")
    );
    // Bus 60 is one or the other.
    assert_eq!(c.pci_addresses, ["0000:60:00.0", "0000:3c:00.0"]);
}

#[test]
fn drives_before_they_belong_to_anything() {
    let view = empty();
    assert!(view.volumes.is_empty());
    assert!(view.drives.iter().all(|d| d.state == DriveState::Free && d.exposed));
    let drive = &view.drives[0];
    assert_eq!((drive.slot.as_str(), drive.address.as_str(), drive.sector), ("1:0", "0,8", Some(4096)));
    assert_eq!(drive.size.bytes, 11_444_192 << 20, "without what the controller reserves");
    assert_eq!(view.drives[2].sector, Some(512));
}

#[test]
fn two_volumes_and_their_members() {
    let view = full();
    let [boot, data] = view.volumes.as_slice() else { panic!("{:?}", view.volumes) };
    assert_eq!((boot.name.as_str(), &boot.level), ("RAID1", &Level::Known(VolumeLevel::Raid1)));
    assert_eq!((boot.size.bytes, boot.strip_kib), (11_364_320 << 20, Some(64)));
    assert_eq!(boot.members, ["1:0", "1:1"]);
    assert_eq!(boot.wwn.as_deref(), Some("600508b1001cf1a2e058530ba221fbbb"));
    assert_eq!((data.name.as_str(), &data.level), ("RAID10", &Level::Known(VolumeLevel::Raid10)));
    assert_eq!(data.members, ["1:3", "1:5", "1:4", "1:6"]);
    let free: Vec<&str> = view.drives.iter().filter(|d| d.state == DriveState::Free).map(|d| d.slot.as_str()).collect();
    assert_eq!(free, ["1:2", "1:7"]);
}

#[test]
fn a_listing_that_is_not_whole_is_refused() {
    let whole = fixture!("arcconf/3204-two-volumes-pd.txt");
    let cut = &whole[..whole.find("Device #12").expect("there")];
    let error = look(cut, fixture!("arcconf/3204-two-volumes-ld.txt")).expect_err("cut off");
    assert!(error.to_string().contains("did not complete"), "{error}");
    // Whole, but of another moment: the volumes' drives are not in it.
    let error = look(fixture!("arcconf/3204-no-volumes-pd.txt"), fixture!("arcconf/3204-two-volumes-ld.txt"))
        .expect_err("no such drives");
    assert!(error.to_string().contains("where no drive is"), "{error}");
}

#[test]
fn commands() {
    let view = empty();
    let new = NewVolume {
        name: "boot".into(),
        level: VolumeLevel::Raid1,
        drives: view.drives[..2].to_vec(),
        spares: Vec::new(),
        size: None,
        expected: Bytes(0),
        cache: None,
        strip_kib: Some(64),
    };
    assert_eq!(
        ArcConf.create(&view, &new).expect("known").to_string(),
        "create 1 logicaldrive stripesize 64 name boot max 1 0 8 0 9 noprompt nologs"
    );
    let full = full();
    assert_eq!(
        ArcConf.delete(&full, &full.volumes[1]).expect("known").to_string(),
        "delete 1 logicaldrive 1 noprompt nologs"
    );
    assert!(ArcConf.make_boot(&full, &full.volumes[0].id).is_err());
}

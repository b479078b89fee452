use speediso_model::hardware_raid::{DriveInterface, DriveMedia, VolumeLevel};

use super::*;
use crate::fixture::{Recorded, fixture};
use crate::view::Level;

const LIST: &str = "controller all show config detail";

fn view(text: &'static str) -> View {
    let mut views = SsaCli.look(&Recorded::new("ssacli", &[(LIST, text)])).expect("understood");
    assert_eq!(views.len(), 1);
    views.remove(0)
}

#[test]
fn an_empty_controller_has_free_drives() {
    let view = view(fixture!("ssacli/p822-no-volumes.txt"));
    let c = &view.controller;
    assert_eq!(
        (c.id.as_str(), c.model.as_str(), c.serial.as_str(), c.firmware.as_str(), c.status.as_str()),
        ("2", "Smart Array P822", "PDVTF0BRH5T0MO", "4.68", "OK")
    );
    assert_eq!(c.cache, ["Cache Status: OK", "Battery/Capacitor Status: OK"]);
    assert!(c.pci_addresses.is_empty() && !c.hba_mode && c.boots.is_none());
    assert!(view.volumes.is_empty());
    let [first, second] = view.drives.as_slice() else { panic!("{:?}", view.drives) };
    assert_eq!((first.slot.as_str(), first.serial.as_str()), ("5I:1:1", "6SL7G55D0000N4173JLT"));
    assert_eq!((second.slot.as_str(), second.size.bytes), ("5I:1:2", 600_000_000_000));
    assert_eq!(
        (&second.state, second.media, second.interface, second.sector),
        (&DriveState::Free, Some(DriveMedia::Hdd), Some(DriveInterface::Sas), Some(512))
    );
    assert_eq!(second.model, "HP EF0600FARNA");
}

#[test]
fn a_volume_lies_on_the_data_drives_of_its_array() {
    let view = view(fixture!("ssacli/p822-mirror-50g.txt"));
    let [volume] = view.volumes.as_slice() else { panic!("{:?}", view.volumes) };
    assert_eq!(volume.level, Level::Known(VolumeLevel::Raid1));
    assert_eq!((volume.size.bytes, &volume.state), (50 << 30, &VolumeState::Good));
    assert_eq!(volume.members, ["5I:1:1", "5I:1:2"]);
    assert_eq!(volume.wwn.as_deref(), Some("600508b1001c02bdbcb659b8a264186a"));
    assert_eq!(volume.strip_kib, Some(256));
    assert!(view.drives.iter().all(|d| d.state == DriveState::Member));
}

#[test]
fn levels_that_nobody_can_wish_for_are_still_read() {
    let view = view(fixture!("ssacli/p822-raid50.txt"));
    assert_eq!(view.volumes[0].level, Level::Other("RAID 50".into()));
    assert_eq!(view.volumes[0].members.len(), 6);
    let free: Vec<&str> = view.drives.iter().filter(|d| d.state == DriveState::Free).map(|d| d.slot.as_str()).collect();
    assert_eq!(free, ["6I:1:7"]);
}

#[test]
fn in_hba_mode_every_drive_is_the_systems() {
    let view = view(fixture!("ssacli/p822-hba-mode.txt"));
    assert!(view.controller.hba_mode);
    assert_eq!(view.controller.pci_addresses, ["0000:0d:00.0"]);
    // The short list of the drive cage is not taken for a second drive.
    let [drive] = view.drives.as_slice() else { panic!("{:?}", view.drives) };
    assert_eq!((&drive.state, drive.exposed), (&DriveState::Jbod, true));
}

#[test]
fn the_boot_volume_is_read() {
    let mut controller = Controller::default();
    for line in lines(fixture!("ssacli/boot-volume.txt")) {
        controller_line(&mut controller, line.key, line.value.expect("key and value"));
    }
    assert_eq!(controller.boots.as_deref(), Some("2"));
}

#[test]
fn cut_off_or_foreign_text_is_not_taken_for_an_answer() {
    let whole = fixture!("ssacli/p822-mirror-50g.txt");
    let in_drive = whole.find("Native Block Size").expect("a drive");
    let before_size = whole[..in_drive].rfind("         Size: ").expect("its size");
    for text in ["", "Error: No controllers detected.", &whole[..before_size]] {
        let said = read(text);
        assert!(said.as_ref().map_or(true, Vec::is_empty), "{said:?}");
    }
}

#[test]
fn commands() {
    let before = view(fixture!("ssacli/p822-no-volumes.txt"));
    let new = |level, size| NewVolume {
        name: "boot".into(),
        level,
        drives: before.drives.clone(),
        spares: Vec::new(),
        size,
        expected: speediso_model::units::Bytes(0),
        cache: None,
        strip_kib: None,
    };
    let command = SsaCli.create(&before, &new(VolumeLevel::Raid1, None)).expect("known");
    assert_eq!(command.to_string(), "controller slot=2 create type=logicaldrive drives=5I:1:1,5I:1:2 raid=1");
    assert_eq!(command.stdin, Some("y\n"));
    let size = Some(speediso_model::units::Bytes::gib(50));
    let command = SsaCli.create(&before, &new(VolumeLevel::Raid10, size)).expect("known");
    assert!(command.to_string().ends_with("raid=1+0 size=51200"), "{command}");
    let after = view(fixture!("ssacli/p822-mirror-50g.txt"));
    let command = SsaCli.delete(&after, &after.volumes[0]).expect("known");
    assert_eq!(command.to_string(), "controller slot=2 logicaldrive 1 delete forced");
    let command = SsaCli.make_boot(&after, &after.volumes[0].id).expect("known");
    assert_eq!(command.to_string(), "controller slot=2 logicaldrive 1 modify bootvolume=primary");
    assert!(SsaCli.discard_cache(&after).is_err());
}

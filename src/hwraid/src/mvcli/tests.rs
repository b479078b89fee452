use speediso_model::units::Bytes;

use super::*;
use crate::fixture::{Recorded, fixture};
use crate::view::Level;

fn look(pd: &'static str, vd: &'static str) -> Result<Vec<View>, ToolError> {
    MvCli.look(&Recorded::new(
        "mvcli",
        &[("info -o hba", fixture!("mvcli/boss-hba.txt")), ("info -o pd", pd), ("info -o vd", vd)],
    ))
}

#[test]
fn a_boss_with_its_mirror() {
    let view = look(fixture!("mvcli/boss-pd.txt"), fixture!("mvcli/boss-vd.txt")).expect("understood").remove(0);
    assert_eq!(view.controller.model, "Marvell 1b4b-9230 (1028-1fe2)");
    assert_eq!(view.controller.firmware, "2.5.13.1210");
    let [volume] = view.volumes.as_slice() else { panic!("{:?}", view.volumes) };
    assert_eq!((volume.id.as_str(), volume.name.as_str()), ("0", "Test_MvcliCreateVirtualDisk"));
    assert_eq!((&volume.level, &volume.state), (&Level::Known(VolumeLevel::Raid1), &VolumeState::Good));
    assert_eq!(
        (volume.size.bytes, volume.members.as_slice()),
        (228_872 << 20, ["0".to_owned(), "1".to_owned()].as_slice())
    );
    let serials: Vec<&str> = view.drives.iter().map(|d| d.serial.as_str()).collect();
    assert_eq!(serials, ["18341E6651A9", "18341E6651BA"]);
    assert!(view.drives.iter().all(|d| d.state == DriveState::Member && d.media == Some(DriveMedia::Ssd)));
    // A mirror of what its drives give.
    assert!(crate::judge::is_size(volume, view.drives[0].size.bytes, 2));
}

#[test]
fn no_volume_is_believed_only_of_empty_drives() {
    let view =
        look(fixture!("mvcli/boss-pd.txt"), fixture!("mvcli/create-ok.txt")).expect("no blocks anywhere").remove(0);
    assert!(view.volumes.is_empty());
    assert!(view.drives.iter().all(|d| d.state == DriveState::Free));
    let holds = Printed { stdout: fixture!("mvcli/create-ok.txt").into(), ..Printed::default() };
    assert!(volumes(&holds, true).is_err(), "blocks of a volume that is not listed");
}

#[test]
fn lines_of_other_programs_are_passed_over() {
    let printed = Printed { stdout: fixture!("mvcli/9230-vd-offline.txt").into(), ..Printed::default() };
    let volumes = volumes(&printed, true).expect("understood");
    assert_eq!(volumes[0].state, VolumeState::Bad("offline".into()));
    assert_eq!((volumes[0].name.as_str(), volumes[0].members.len()), ("created_ra", 1));
}

#[test]
fn commands() {
    let view = look(fixture!("mvcli/boss-pd.txt"), fixture!("mvcli/create-ok.txt")).expect("understood").remove(0);
    let mut new = NewVolume {
        name: "boot".into(),
        level: VolumeLevel::Raid1,
        drives: view.drives.clone(),
        spares: Vec::new(),
        size: None,
        expected: Bytes(0),
        cache: None,
        strip_kib: None,
    };
    assert_eq!(MvCli.create(&view, &new).expect("known").to_string(), "create -o vd -r 1 -d 0,1 -n boot");
    new.size = Some(Bytes::gib(1));
    assert!(MvCli.create(&view, &new).is_err());
    let full = look(fixture!("mvcli/boss-pd.txt"), fixture!("mvcli/boss-vd.txt")).expect("understood").remove(0);
    let delete = MvCli.delete(&full, &full.volumes[0]).expect("known");
    assert_eq!((delete.to_string().as_str(), delete.stdin), ("delete -o vd -i 0", Some("y\n")));
}

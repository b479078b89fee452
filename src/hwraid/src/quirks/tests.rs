use speediso_model::inventory::Disk;
use speediso_model::raid_volume;

use super::*;
use crate::fixture::fixture;

fn function(driver: Option<&str>, vendor: u16, device: u16, subsystem_vendor: u16) -> PciFunction {
    PciFunction { address: "0000:3b:00.0".into(), vendor, device, subsystem_vendor, driver: driver.map(str::to_owned) }
}

#[test]
fn the_data_is_whole() {
    assert!(version() > 0);
    for family in [Family::StorCli, Family::SsaCli, Family::ArcConf, Family::MvCli] {
        let files = family.files();
        assert!(files.paths.iter().all(|p| p.starts_with('/')) && !files.paths.is_empty(), "{family:?}");
        assert!(DATA.controllers.iter().any(|c| c.family == Some(family)), "{family:?}");
        assert!(all().iter().any(|q| q.family == family), "{family:?}");
    }
    let sources = (DATA.tools.iter().map(|t| &t.source))
        .chain(DATA.controllers.iter().map(|c| &c.source))
        .chain(all().iter().map(|q| &q.source));
    assert!(sources.into_iter().all(|source| source.len() > 10), "every entry says whence it comes");
    let hex = |text: &String| text.len() == 4 && u16::from_str_radix(text, 16).is_ok();
    assert!(
        DATA.controllers.iter().flat_map(|c| c.devices.iter().chain(&c.vendor).chain(&c.subsystem_vendors)).all(hex)
    );
    let mut ids: Vec<&str> = all().iter().map(|q| q.id.as_str()).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), all().len(), "an id is there twice");
}

#[test]
fn controllers_are_told_by_driver_and_by_ids() {
    let family = |f: &PciFunction| recognise(f).map(|rule| rule.family);
    // The ids of the recorded controllers.
    assert_eq!(family(&function(Some("megaraid_sas"), 0x1000, 0x10e2, 0x1028)), Some(Some(Family::StorCli)));
    assert_eq!(family(&function(None, 0x1000, 0x005d, 0x8086)), Some(Some(Family::StorCli)), "no driver is loaded");
    assert_eq!(family(&function(Some("smartpqi"), 0x9005, 0x028f, 0x9005)), Some(Some(Family::ArcConf)));
    assert_eq!(family(&function(Some("smartpqi"), 0x9005, 0x028f, 0x1590)), Some(Some(Family::SsaCli)), "HPE sells it");
    assert_eq!(family(&function(Some("ahci"), 0x1b4b, 0x9230, 0x1028)), Some(Some(Family::MvCli)));
    assert_eq!(family(&function(Some("mpt3sas"), 0x1000, 0x0097, 0x1000)), Some(None), "known, and no adaptor");
    assert_eq!(family(&function(Some("ahci"), 0x8086, 0xa352, 0x8086)), None);
    assert_eq!(family(&function(Some("nvme"), 0x144d, 0xa808, 0x144d)), None);
}

#[test]
fn volumes_are_told_from_drives() {
    let mut seen = 0;
    for line in fixture!("inquiry.tsv").lines().filter(|l| !l.starts_with('#')) {
        let fields: Vec<&str> = line.split('\t').collect();
        let [vendor, model, hctl, driver, volume, _source] = fields.as_slice() else { panic!("{line}") };
        let disk =
            Disk { vendor: (*vendor).into(), model: (*model).into(), hctl: Some((*hctl).into()), ..Disk::default() };
        let driver = Some(*driver).filter(|d| *d != "-");
        assert_eq!(raid_volume::recognise(&disk, driver).is_some(), *volume == "yes", "{line}");
        seen += 1;
    }
    assert!(seen > 15);
    // A volume of a card whose maker is not in the list is told by where it hangs.
    let disk = Disk { vendor: "ACME".into(), hctl: Some("0:2:0:0".into()), ..Disk::default() };
    assert!(raid_volume::recognise(&disk, Some("megaraid_sas")).is_some());
    assert!(raid_volume::recognise(&disk, Some("ahci")).is_none());
}

//! Marvell 88SE9230, which is Dell's BOSS-S1 and the M.2 mirrors of Lenovo and Supermicro: `mvcli`. One volume on two
//! drives; the system sees the volume as an ordinary SATA disk.

use speediso_model::hardware_raid::{DriveInterface, DriveMedia, VolumeLevel};

use crate::goal::NewVolume;
use crate::printed::{Base, Line, Size, level, lines};
use crate::tool::{Adaptor, Command, Printed, Tool, ToolError, Waits};
use crate::view::{Controller, Drive, DriveState, View, Volume, VolumeState};

const TOOL: &str = "mvcli";

pub(crate) struct MvCli;

impl MvCli {
    fn waits<T>(verb: &'static str, why: &'static str) -> Result<T, Waits> {
        Err(Waits { tool: TOOL, verb, why })
    }
}

impl Adaptor for MvCli {
    fn look(&self, tool: &dyn Tool) -> Result<Vec<View>, ToolError> {
        let ask = |object| {
            let command = Command::new(["info", "-o", object]);
            tool.run(&command).map(|printed| (command, printed))
        };
        let (command, printed) = ask("hba")?;
        let controller = controller(&printed.stdout).map_err(|e| ToolError::not_understood(&command, e, &printed))?;
        let (command, printed) = ask("pd")?;
        let (mut drives, blocks) =
            drives(&printed.stdout).map_err(|e| ToolError::not_understood(&command, e, &printed))?;
        let (command, printed) = ask("vd")?;
        let volumes = volumes(&printed, blocks).map_err(|e| ToolError::not_understood(&command, e, &printed))?;
        for drive in &mut drives {
            if volumes.iter().any(|v| v.members.contains(&drive.slot)) {
                drive.state = DriveState::Member;
            }
        }
        Ok(vec![View { controller, drives, volumes, foreign: Vec::new() }])
    }

    fn keeps_names(&self) -> bool {
        true
    }

    fn delete(&self, _: &View, volume: &Volume) -> Result<Command, Waits> {
        Ok(Command::new(["delete", "-o", "vd", "-i"]).arg(&volume.id).answering_yes())
    }

    fn clear_foreign(&self, _: &View) -> Result<Command, Waits> {
        Self::waits("clearing foreign configurations", "no published output shows one")
    }

    fn discard_cache(&self, _: &View) -> Result<Command, Waits> {
        Self::waits("discarding kept cache", "these controllers have none")
    }

    fn make_good(&self, _: &View, _: &Drive) -> Result<Command, Waits> {
        Self::waits("taking a drive that is handed through", "a drive without a volume is free as it is")
    }

    fn create(&self, _: &View, volume: &NewVolume) -> Result<Command, Waits> {
        if !matches!(volume.level, VolumeLevel::Raid0 | VolumeLevel::Raid1) {
            return Self::waits("levels other than 0 and 1", "these controllers have two drives");
        }
        if volume.size.is_some() {
            return Self::waits("volumes smaller than their drives", "no published output shows it");
        }
        if !volume.spares.is_empty() || volume.cache.is_some() {
            return Self::waits("spares and write cache", "these controllers have none");
        }
        let drives: Vec<&str> = volume.drives.iter().map(|d| d.address.as_str()).collect();
        let mut command = Command::new(["create", "-o", "vd", "-r"])
            .arg(volume.level.name())
            .arg("-d")
            .arg(drives.join(","))
            .arg("-n")
            .arg(&volume.name);
        if let Some(strip) = volume.strip_kib {
            command = command.arg("-b").arg(strip.to_string());
        }
        Ok(command)
    }

    fn make_boot(&self, _: &View, _: &str) -> Result<Command, Waits> {
        Self::waits("choosing the boot volume", "there is only one, and the firmware boots it")
    }
}

/// One adapter, whose heading differs between versions. Several are not told apart: commands take no adapter.
fn controller(text: &str) -> Result<Controller, String> {
    let mut read = Controller::default();
    let mut adapters = 0;
    for Line { key, value, .. } in lines(text) {
        let Some(value) = value else { continue };
        match key {
            "Adapter ID" | "controller ID" => {
                adapters += 1;
                value.clone_into(&mut read.id);
            }
            "Product" => read.model = format!("Marvell {value}"),
            "Sub Product" => read.model = format!("{} ({value})", read.model),
            "Firmware version" => value.clone_into(&mut read.firmware),
            "Image health" => value.clone_into(&mut read.status),
            _ => {}
        }
    }
    match adapters {
        1 if !read.model.is_empty() => Ok(read),
        n => Err(format!("{n} adapters")),
    }
}

/// The drives, and whether any of them holds a block of a volume.
fn drives(text: &str) -> Result<(Vec<Drive>, bool), String> {
    let mut drives: Vec<Drive> = Vec::new();
    let (mut blocks, mut total) = (false, None);
    for Line { key, value, .. } in lines(text) {
        let value = value.unwrap_or_default();
        match key {
            "PD ID" => drives.push(Drive {
                slot: value.to_owned(),
                address: value.to_owned(),
                serial: String::new(),
                wwn: None,
                model: String::new(),
                firmware: String::new(),
                size: Size::exact(0),
                media: None,
                interface: None,
                sector: Some(512),
                state: DriveState::Free,
                exposed: false,
            }),
            "Total # of PD" => total = value.parse::<usize>().ok(),
            // The key is there without a value when there are none.
            "block ids" => blocks |= !value.is_empty(),
            _ => {
                if let Some(drive) = drives.last_mut() {
                    drive_line(drive, key, value)?;
                }
            }
        }
    }
    if total != Some(drives.len()) {
        return Err(format!("{total:?} drives are said, {} listed", drives.len()));
    }
    match drives.iter().find(|d| d.size.bytes == 0) {
        Some(drive) => Err(format!("drive {} has no size", drive.slot)),
        None => Ok((drives, blocks)),
    }
}

fn drive_line(drive: &mut Drive, key: &str, value: &str) -> Result<(), String> {
    match key {
        "Type" => {
            drive.interface = match value {
                "SATA PD" => Some(DriveInterface::Sata),
                _ => None,
            };
        }
        "model" => value.clone_into(&mut drive.model),
        "Serial" => value.clone_into(&mut drive.serial),
        "Firmware version" => value.clone_into(&mut drive.firmware),
        "SSD Type" => drive.media = Some(if value == "SSD" { DriveMedia::Ssd } else { DriveMedia::Hdd }),
        // What is left of it beside the controller's own records; zero once it is all taken.
        "Size" => drive.size = Size::parse(value, Base::Binary).ok_or_else(|| format!("a drive of {value:?}"))?,
        "PD valid size" => {
            let valid = Size::parse(value, Base::Binary).ok_or_else(|| format!("a drive of {value:?}"))?;
            if valid.bytes > 0 {
                drive.size = valid;
            }
        }
        _ => {}
    }
    Ok(())
}

/// What is printed when there is no volume is not published, so that there is none is taken from the drives: they hold
/// no blocks.
fn volumes(printed: &Printed, blocks: bool) -> Result<Vec<Volume>, String> {
    let mut volumes: Vec<Volume> = Vec::new();
    let mut total = None;
    for Line { key, value, .. } in lines(&printed.stdout) {
        let value = value.unwrap_or_default();
        match key {
            "id" => volumes.push(Volume {
                id: value.to_owned(),
                name: String::new(),
                level: level("?"),
                size: Size::exact(0),
                state: VolumeState::Bad("no status".into()),
                members: Vec::new(),
                wwn: None,
                write_back: None,
                strip_kib: None,
            }),
            "Total # of VD" => total = value.parse::<usize>().ok(),
            _ => {
                if let Some(volume) = volumes.last_mut() {
                    volume_line(volume, key, value)?;
                }
            }
        }
    }
    match total {
        Some(n) if n == volumes.len() => {}
        None if volumes.is_empty() && !blocks => {}
        _ => return Err(format!("{total:?} volumes are said, {} listed; drives hold blocks: {blocks}", volumes.len())),
    }
    match volumes.iter().find(|v| v.size.bytes == 0 || v.members.is_empty()) {
        Some(volume) => Err(format!("volume {} has no size or no drives", volume.id)),
        None => Ok(volumes),
    }
}

fn volume_line(volume: &mut Volume, key: &str, value: &str) -> Result<(), String> {
    match key {
        "name" => value.clone_into(&mut volume.name),
        // Some versions say more in a second line, `VD status: optimal`; this one is in all of them.
        "status" => {
            volume.state = if value == "functional" { VolumeState::Good } else { VolumeState::Bad(value.to_owned()) };
        }
        "Stripe size" => volume.strip_kib = value.parse().ok(),
        "RAID mode" => volume.level = level(value),
        "size" => volume.size = Size::parse(value, Base::Binary).ok_or_else(|| format!("a volume of {value:?}"))?,
        "PD RAID setup" => volume.members = value.split_whitespace().map(str::to_owned).collect(),
        _ => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests;

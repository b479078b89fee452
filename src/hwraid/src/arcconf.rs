//! Adaptec, now Microchip: `arcconf`. Text for people, one section after the other.

use speediso_model::hardware_raid::{DriveInterface, DriveMedia};

use crate::goal::NewVolume;
use crate::printed::{Base, Line, Size, level, lines};
use crate::tool::{Adaptor, Command, Tool, ToolError, Waits};
use crate::view::{Controller, Drive, DriveState, View, Volume, VolumeState, bare_wwn};

const TOOL: &str = "arcconf";

pub(crate) struct ArcConf;

impl ArcConf {
    fn waits<T>(verb: &'static str, why: &'static str) -> Result<T, Waits> {
        Err(Waits { tool: TOOL, verb, why })
    }
}

impl Adaptor for ArcConf {
    fn look(&self, tool: &dyn Tool) -> Result<Vec<View>, ToolError> {
        let list = Command::new(["list", "nologs"]);
        let printed = tool.run(&list)?;
        let ids = controllers(&printed.stdout).map_err(|what| ToolError::not_understood(&list, what, &printed))?;
        ids.iter().map(|id| look_at(tool, id)).collect()
    }

    fn keeps_names(&self) -> bool {
        true
    }

    fn delete(&self, view: &View, volume: &Volume) -> Result<Command, Waits> {
        Ok(Command::new(["delete"])
            .arg(&view.controller.id)
            .arg("logicaldrive")
            .arg(&volume.id)
            .arg("noprompt")
            .arg("nologs"))
    }

    fn clear_foreign(&self, _: &View) -> Result<Command, Waits> {
        Self::waits("clearing foreign configurations", "these controllers show a foreign array as one of their own")
    }

    fn discard_cache(&self, _: &View) -> Result<Command, Waits> {
        Self::waits("discarding kept cache", "no published output shows it")
    }

    fn make_good(&self, _: &View, _: &Drive) -> Result<Command, Waits> {
        Self::waits("initialising a drive", "no published output shows a drive before and after it")
    }

    fn create(&self, view: &View, volume: &NewVolume) -> Result<Command, Waits> {
        if !volume.spares.is_empty() {
            return Self::waits("making hot spares", "no published output shows it");
        }
        if volume.cache.is_some() {
            return Self::waits("setting the write cache", "its words differ between the generations");
        }
        let mut command = Command::new(["create"]).arg(&view.controller.id).arg("logicaldrive");
        if let Some(strip) = volume.strip_kib {
            command = command.arg("stripesize").arg(strip.to_string());
        }
        command = command.arg("name").arg(&volume.name);
        command = match volume.size {
            Some(size) => command.arg((size.0 >> 20).to_string()),
            None => command.arg("max"),
        };
        command = command.arg(volume.level.name());
        // Channel and device, two arguments for each drive.
        command.args.extend(volume.drives.iter().flat_map(|d| d.address.split(',').map(str::to_owned)));
        Ok(command.arg("noprompt").arg("nologs"))
    }

    fn make_boot(&self, _: &View, _: &str) -> Result<Command, Waits> {
        Self::waits("choosing the boot volume", "no published output shows it")
    }
}

fn look_at(tool: &dyn Tool, id: &str) -> Result<View, ToolError> {
    let ask = |what: &str| -> Result<_, ToolError> {
        let command = Command::new(["getconfig"]).arg(id).arg(what).arg("nologs");
        let printed = tool.run(&command)?;
        // Without its last line the listing may have been cut off.
        if !printed.stdout.contains("Command completed successfully.") {
            return Err(ToolError::not_understood(&command, "it did not complete", &printed));
        }
        Ok((command, printed))
    };
    let (command, printed) = ask("AD")?;
    let controller =
        controller(id, &printed.stdout).map_err(|what| ToolError::not_understood(&command, what, &printed))?;
    let (command, printed) = ask("PD")?;
    let drives = drives(&printed.stdout).map_err(|what| ToolError::not_understood(&command, what, &printed))?;
    let (command, printed) = ask("LD")?;
    let volumes = volumes(&printed.stdout).map_err(|what| ToolError::not_understood(&command, what, &printed))?;
    let view = View { controller, drives, volumes, foreign: Vec::new() };
    if let Some(slot) = view.volumes.iter().flat_map(|v| &v.members).find(|slot| view.drive(slot).is_none()) {
        return Err(ToolError::not_understood(&command, format!("a member in {slot}, where no drive is"), &printed));
    }
    Ok(view)
}

/// `Controller 1:  : Optimal, Slot 10, ...`
fn controllers(text: &str) -> Result<Vec<String>, String> {
    let mut found = None;
    let mut ids = Vec::new();
    for line in lines(text) {
        match line {
            Line { key: "Controllers found", value: Some(n), .. } => found = n.parse::<usize>().ok(),
            Line { key, value: Some(_), .. } => {
                if let Some(id) = key.strip_prefix("Controller ").map(|k| k.trim_end_matches([':', ' ']))
                    && !id.is_empty()
                    && id.bytes().all(|b| b.is_ascii_digit())
                {
                    ids.push(id.to_owned());
                }
            }
            _ => {}
        }
    }
    match found {
        Some(n) if n == ids.len() => Ok(ids),
        _ => Err(format!("{found:?} controllers are said, {} listed", ids.len())),
    }
}

fn controller(id: &str, text: &str) -> Result<Controller, String> {
    let mut read = Controller { id: id.to_owned(), ..Controller::default() };
    for Line { key, value, .. } in lines(text) {
        let Some(value) = value else { continue };
        match key {
            "Controller Model" => value.clone_into(&mut read.model),
            "Controller Serial Number" => value.clone_into(&mut read.serial),
            "Controller Status" => value.clone_into(&mut read.status),
            "Controller Mode" => read.hba_mode = value.starts_with("HBA"),
            "Firmware" if read.firmware.is_empty() => value.clone_into(&mut read.firmware),
            "PCI Address (Domain:Bus:Device:Function)" => read.pci_addresses = pci_addresses(value),
            "Cache Status" => read.cache.push(format!("{key}: {value}")),
            _ => {}
        }
    }
    if read.model.is_empty() { Err("no controller model".into()) } else { Ok(read) }
}

/// `0:60:0:0`. Whether bus 60 is 0x60 or 0x3c no published output tells: both are possible, and the one that the
/// kernel has counts.
fn pci_addresses(text: &str) -> Vec<String> {
    let read = |radix| -> Option<String> {
        let n: Vec<u32> = text.split(':').map(|part| u32::from_str_radix(part, radix).ok()).collect::<Option<_>>()?;
        let [domain, bus, device, function] = n.as_slice() else { return None };
        Some(format!("{domain:04x}:{bus:02x}:{device:02x}.{function:x}"))
    };
    let mut both: Vec<String> = [16, 10].into_iter().filter_map(read).collect();
    both.dedup();
    both
}

fn drives(text: &str) -> Result<Vec<Drive>, String> {
    let mut drives: Vec<Drive> = Vec::new();
    // Enclosures and expanders are devices too, and say so in the first line.
    let mut is_drive = false;
    for Line { key, value, .. } in lines(text) {
        if key.starts_with("Device #") {
            is_drive = false;
        } else if key == "Device is a Hard drive" {
            is_drive = true;
            drives.push(Drive {
                slot: String::new(),
                address: String::new(),
                serial: String::new(),
                wwn: None,
                model: String::new(),
                firmware: String::new(),
                size: Size::exact(0),
                media: None,
                interface: None,
                sector: None,
                state: DriveState::Unusable("no state".into()),
                exposed: false,
            });
        }
        if let (true, Some(drive), Some(value)) = (is_drive, drives.last_mut(), value) {
            drive_line(drive, key, value)?;
        }
    }
    if let Some(drive) = drives.iter().find(|d| d.slot.is_empty() || d.address.is_empty() || d.size.bytes == 0) {
        return Err(format!("drive {:?} has no location, channel or size", drive.serial));
    }
    Ok(drives)
}

fn drive_line(drive: &mut Drive, key: &str, value: &str) -> Result<(), String> {
    match key {
        "State" => {
            drive.state = match value {
                "Ready" => DriveState::Free,
                "Online" => DriveState::Member,
                "Raw (Pass Through)" | "Raw" | "JBOD" => DriveState::Jbod,
                other if other.contains("Hot Spare") || other.contains("Hot-Spare") => DriveState::Spare,
                other => DriveState::Unusable(other.to_owned()),
            };
        }
        "Drive Configuration Type" if value == "HBA" => drive.state = DriveState::Jbod,
        "Reported Channel,Device(T:L)" => value.split('(').next().unwrap_or_default().clone_into(&mut drive.address),
        "Reported Location" => drive.slot = slot(value).ok_or_else(|| format!("a drive at {value:?}"))?,
        "Model" => value.clone_into(&mut drive.model),
        "Firmware" => value.clone_into(&mut drive.firmware),
        "Serial number" => value.clone_into(&mut drive.serial),
        "World-wide name" => drive.wwn = bare_wwn(value),
        // 4K Bytes, 512 Bytes.
        "Block Size" => {
            drive.sector = match value {
                "4K Bytes" => Some(4096),
                other => other.strip_suffix(" Bytes").and_then(|n| n.parse().ok()),
            };
        }
        // What a volume can have: less than the whole by what is reserved for the controller's own records.
        "Unused Size" | "Used Size" => {
            let size = Size::parse(value, Base::Binary).ok_or_else(|| format!("a drive with {value:?}"))?;
            drive.size = Size { bytes: drive.size.bytes + size.bytes, within: size.within };
        }
        "Transfer Speed" => {
            drive.interface = match value.split(' ').next() {
                Some("SAS") => Some(DriveInterface::Sas),
                Some("SATA") => Some(DriveInterface::Sata),
                Some("NVMe" | "PCIe") => Some(DriveInterface::Nvme),
                _ => None,
            };
        }
        "SSD" => drive.media = Some(if value == "Yes" { DriveMedia::Ssd } else { DriveMedia::Hdd }),
        "Drive Exposed to OS" => drive.exposed = value == "True",
        _ => {}
    }
    Ok(())
}

/// `Enclosure 1, Slot 0(Connector 0:CN0)` and `Enclosure:1, Slot:0) 8DGY...` -> `1:0`.
fn slot(text: &str) -> Option<String> {
    let number = |word: &str| -> Option<String> {
        let rest = text.split_once(word)?.1.trim_start_matches([' ', ':']);
        let n: String = rest.chars().take_while(char::is_ascii_digit).collect();
        (!n.is_empty()).then_some(n)
    };
    Some(format!("{}:{}", number("Enclosure")?, number("Slot")?))
}

fn volumes(text: &str) -> Result<Vec<Volume>, String> {
    let mut volumes: Vec<Volume> = Vec::new();
    let mut none = false;
    for Line { indent, key, value } in lines(text) {
        if let Some(id) =
            key.strip_prefix("Logical Device number ").or_else(|| key.strip_prefix("Logical device number "))
        {
            volumes.push(Volume {
                id: id.trim().to_owned(),
                name: String::new(),
                level: level("?"),
                size: Size::exact(0),
                state: VolumeState::Bad("no status".into()),
                members: Vec::new(),
                wwn: None,
                write_back: None,
                strip_kib: None,
            });
        }
        none |= key.eq_ignore_ascii_case("No logical devices configured");
        let (Some(volume), Some(value), 3) = (volumes.last_mut(), value, indent) else { continue };
        volume_line(volume, key, value)?;
    }
    if volumes.is_empty() && !none {
        return Err("neither logical devices nor the word that there are none".into());
    }
    if let Some(volume) = volumes.iter().find(|v| v.size.bytes == 0 || v.members.is_empty()) {
        return Err(format!("logical device {} has no size or no drives", volume.id));
    }
    Ok(volumes)
}

fn volume_line(volume: &mut Volume, key: &str, value: &str) -> Result<(), String> {
    match key {
        "Logical Device name" | "Logical device name" => value.clone_into(&mut volume.name),
        "RAID level" => volume.level = level(value),
        "Status of Logical Device" | "Status of logical device" => {
            volume.state = if value == "Optimal" { VolumeState::Good } else { VolumeState::Bad(value.to_owned()) };
        }
        "Size" => volume.size = Size::parse(value, Base::Binary).ok_or_else(|| format!("a volume of {value:?}"))?,
        "Stripe-unit size" => volume.strip_kib = value.strip_suffix(" KB").and_then(|n| n.parse().ok()),
        "Volume Unique Identifier" | "Unique Identifier" => volume.wwn = bare_wwn(value),
        // `Device 8 : Present (..., Enclosure:1, Slot:0) SERIAL` and `Group 0, Segment 0 : ...`
        key if (key.starts_with("Device ") || key.contains("Segment ")) && value.contains("Slot:") => {
            volume.members.push(slot(value).ok_or_else(|| format!("a member at {value:?}"))?);
        }
        _ => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests;

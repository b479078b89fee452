//! HPE Smart Array: `ssacli`, and `hpssacli` before it. It prints text for people, in which indentation says what
//! belongs to what.

use speediso_model::hardware_raid::{DriveInterface, DriveMedia};

use crate::goal::NewVolume;
use crate::printed::{Base, Line, Size, level, lines};
use crate::tool::{Adaptor, Command, Tool, ToolError, Waits};
use crate::view::{Controller, Drive, DriveState, View, Volume, VolumeState, bare_wwn};
use speediso_model::hardware_raid::VolumeLevel;

const TOOL: &str = "ssacli";

pub(crate) struct SsaCli;

impl SsaCli {
    fn waits<T>(verb: &'static str, why: &'static str) -> Result<T, Waits> {
        Err(Waits { tool: TOOL, verb, why })
    }

    fn at(view: &View) -> Command {
        Command::new(["controller"]).arg(format!("slot={}", view.controller.id))
    }
}

impl Adaptor for SsaCli {
    fn look(&self, tool: &dyn Tool) -> Result<Vec<View>, ToolError> {
        let command = Command::new(["controller", "all", "show", "config", "detail"]);
        let printed = tool.run(&command)?;
        let views = read(&printed.stdout).map_err(|what| ToolError::not_understood(&command, what, &printed))?;
        if views.is_empty() {
            return Err(ToolError::not_understood(&command, "no controller", &printed));
        }
        Ok(views)
    }

    /// A label can only be given to a volume that is there already.
    fn keeps_names(&self) -> bool {
        false
    }

    fn delete(&self, view: &View, volume: &Volume) -> Result<Command, Waits> {
        Ok(Self::at(view).arg("logicaldrive").arg(&volume.id).arg("delete").arg("forced"))
    }

    fn clear_foreign(&self, _: &View) -> Result<Command, Waits> {
        Self::waits("clearing foreign configurations", "these controllers show a foreign array as one of their own")
    }

    fn discard_cache(&self, _: &View) -> Result<Command, Waits> {
        Self::waits("discarding kept cache", "no published output shows it")
    }

    fn make_good(&self, _: &View, _: &Drive) -> Result<Command, Waits> {
        Self::waits("leaving HBA mode", "it takes effect at the next boot only")
    }

    fn create(&self, view: &View, volume: &NewVolume) -> Result<Command, Waits> {
        if !volume.spares.is_empty() {
            return Self::waits("making hot spares", "no published output shows it");
        }
        if volume.cache.is_some() || volume.strip_kib.is_some() {
            return Self::waits("setting cache and strip size", "no published output shows it");
        }
        let drives: Vec<&str> = volume.drives.iter().map(|d| d.address.as_str()).collect();
        let raid = if volume.level == VolumeLevel::Raid10 { "1+0" } else { volume.level.name() };
        let mut command = Self::at(view)
            .arg("create")
            .arg("type=logicaldrive")
            .arg(format!("drives={}", drives.join(",")))
            .arg(format!("raid={raid}"));
        if let Some(size) = volume.size {
            command = command.arg(format!("size={}", size.0 >> 20));
        }
        Ok(command.answering_yes())
    }

    fn make_boot(&self, view: &View, id: &str) -> Result<Command, Waits> {
        Ok(Self::at(view).arg("logicaldrive").arg(id).arg("modify").arg("bootvolume=primary"))
    }
}

/// Where the listing is.
#[derive(Default)]
struct Place {
    view: Option<View>,
    /// Drives that were listed since the array began; they are the members of its volumes.
    array: Vec<String>,
    /// How many volumes had been read when the array began.
    first_volume: usize,
    in_array: bool,
    part: Part,
}

#[derive(Default, PartialEq)]
enum Part {
    #[default]
    Other,
    Controller,
    Volume,
    Drive,
}

fn read(text: &str) -> Result<Vec<View>, String> {
    let mut views = Vec::new();
    let mut place = Place::default();
    for line in lines(text) {
        match (line.indent, line.value) {
            (0, None) if line.key.contains(" in Slot ") => {
                views.extend(place.finish()?);
                place = Place::begin(line.key)?;
            }
            _ => place.take(line)?,
        }
    }
    views.extend(place.finish()?);
    Ok(views)
}

impl Place {
    fn begin(heading: &str) -> Result<Self, String> {
        let (model, rest) = heading.split_once(" in Slot ").ok_or("no slot")?;
        let id: String = rest.chars().take_while(char::is_ascii_digit).collect();
        if id.is_empty() {
            return Err(format!("a controller in slot {rest:?}"));
        }
        let controller = Controller { id, model: model.trim().to_owned(), ..Controller::default() };
        let view = View { controller, drives: Vec::new(), volumes: Vec::new(), foreign: Vec::new() };
        Ok(Self { view: Some(view), part: Part::Controller, ..Self::default() })
    }

    fn take(&mut self, line: Line<'_>) -> Result<(), String> {
        let Some(view) = &mut self.view else { return Ok(()) };
        match line {
            Line { indent: 3, key: "Array", value: Some(_) } => {
                self.end_array()?;
                self.in_array = true;
                self.part = Part::Other;
            }
            Line { indent: 3, value: None, .. } => {
                self.end_array()?;
                self.part = Part::Other;
            }
            Line { indent: 3, key, value: Some(value) } if self.part == Part::Controller => {
                controller_line(&mut view.controller, key, value);
            }
            Line { indent: 6, key: "Logical Drive", value: Some(id) } => {
                view.volumes.push(Volume {
                    id: id.to_owned(),
                    name: String::new(),
                    level: level("?"),
                    size: Size::exact(0),
                    state: VolumeState::Bad("no status".into()),
                    members: Vec::new(),
                    wwn: None,
                    write_back: None,
                    strip_kib: None,
                });
                self.part = Part::Volume;
            }
            // With a parenthesis it is one of the short list of a drive cage, listed again below.
            Line { indent: 6, key, value: None } if key.starts_with("physicaldrive ") && !key.contains('(') => {
                let slot = key.trim_start_matches("physicaldrive ").trim().to_owned();
                self.array.push(slot.clone());
                view.drives.push(Drive {
                    address: slot.clone(),
                    slot,
                    serial: String::new(),
                    wwn: None,
                    model: String::new(),
                    firmware: String::new(),
                    size: Size::exact(0),
                    media: None,
                    interface: None,
                    sector: None,
                    state: DriveState::Unusable("no status".into()),
                    exposed: false,
                });
                self.part = Part::Drive;
            }
            Line { indent: 9.., key, value: Some(value) } => match self.part {
                Part::Volume => view.volumes.last_mut().map_or(Ok(()), |v| volume_line(v, key, value))?,
                Part::Drive => view.drives.last_mut().map_or(Ok(()), |d| drive_line(d, key, value))?,
                Part::Controller | Part::Other => {}
            },
            _ => {}
        }
        Ok(())
    }

    /// A volume lies on all data drives of its array.
    fn end_array(&mut self) -> Result<(), String> {
        let Some(view) = &mut self.view else { return Ok(()) };
        if self.in_array {
            let members: Vec<String> = self
                .array
                .iter()
                .filter(|slot| view.drive(slot).is_some_and(|d| d.state == DriveState::Member))
                .cloned()
                .collect();
            for volume in &mut view.volumes[self.first_volume..] {
                if members.is_empty() {
                    return Err(format!("logical drive {} has no drives", volume.id));
                }
                volume.members.clone_from(&members);
            }
        }
        self.array.clear();
        self.first_volume = view.volumes.len();
        self.in_array = false;
        Ok(())
    }

    fn finish(mut self) -> Result<Option<View>, String> {
        self.end_array()?;
        let Some(view) = self.view else { return Ok(None) };
        if let Some(drive) = view.drives.iter().find(|d| d.size.bytes == 0) {
            return Err(format!("drive {} has no size", drive.slot));
        }
        if let Some(volume) = view.volumes.iter().find(|v| v.size.bytes == 0) {
            return Err(format!("logical drive {} has no size", volume.id));
        }
        Ok(Some(view))
    }
}

fn controller_line(controller: &mut Controller, key: &str, value: &str) {
    match key {
        "Serial Number" => value.clone_into(&mut controller.serial),
        "Firmware Version" => value.clone_into(&mut controller.firmware),
        "Controller Status" => value.clone_into(&mut controller.status),
        "HBA Mode Enabled" => controller.hba_mode = value == "True",
        "PCI Address (Domain:Bus:Device.Function)" => {
            controller.pci_addresses = vec![value.to_ascii_lowercase()];
        }
        "Primary Boot Volume" => {
            // `logicaldrive 1 (600508B1...)`, or `None`.
            controller.boots = value.strip_prefix("logicaldrive ").and_then(|v| v.split(' ').next()).map(str::to_owned);
        }
        "Cache Status" | "Battery/Capacitor Status" => controller.cache.push(format!("{key}: {value}")),
        _ => {}
    }
}

fn volume_line(volume: &mut Volume, key: &str, value: &str) -> Result<(), String> {
    match key {
        // 600 GB of a drive are decimal, 558.9 GB of a volume on it binary.
        "Size" => volume.size = Size::parse(value, Base::Binary).ok_or_else(|| format!("a volume of {value:?}"))?,
        "Fault Tolerance" => volume.level = level(value),
        "Status" => {
            volume.state = if value == "OK" { VolumeState::Good } else { VolumeState::Bad(value.to_owned()) };
        }
        "Unique Identifier" => volume.wwn = bare_wwn(value),
        "Logical Drive Label" => value.clone_into(&mut volume.name),
        "Strip Size" => volume.strip_kib = value.strip_suffix(" KB").and_then(|n| n.parse().ok()),
        _ => {}
    }
    Ok(())
}

fn drive_line(drive: &mut Drive, key: &str, value: &str) -> Result<(), String> {
    match key {
        "Size" => drive.size = Size::parse(value, Base::Decimal).ok_or_else(|| format!("a drive of {value:?}"))?,
        "Serial Number" => value.clone_into(&mut drive.serial),
        "WWID" => drive.wwn = bare_wwn(value),
        // `HP      EF0600FARNA`: vendor and product of the INQUIRY.
        "Model" => drive.model = value.split_whitespace().collect::<Vec<_>>().join(" "),
        "Firmware Revision" => value.clone_into(&mut drive.firmware),
        "Native Block Size" => drive.sector = value.parse().ok(),
        "Logical/Physical Block Size" => drive.sector = value.split('/').next().and_then(|n| n.parse().ok()),
        "Drive exposed to OS" => drive.exposed = value == "True",
        "Interface Type" => {
            drive.interface = match value {
                v if v.contains("NVMe") => Some(DriveInterface::Nvme),
                v if v.contains("SAS") => Some(DriveInterface::Sas),
                v if v.contains("SATA") => Some(DriveInterface::Sata),
                _ => None,
            };
            drive.media = Some(if value.starts_with("Solid State") { DriveMedia::Ssd } else { DriveMedia::Hdd });
        }
        // Comes before the type, and only a drive that is well can be any of those.
        "Status" => drive.state = if value == "OK" { DriveState::Free } else { DriveState::Unusable(value.into()) },
        "Drive Type" if drive.state == DriveState::Free => {
            drive.state = match value {
                "Unassigned Drive" => DriveState::Free,
                "Data Drive" => DriveState::Member,
                "HBA Mode Drive" => DriveState::Jbod,
                other if other.contains("Spare") => DriveState::Spare,
                other => DriveState::Unusable(other.to_owned()),
            };
        }
        // One that is failing is still part of its array.
        "Drive Type" if value == "Data Drive" => drive.state = DriveState::Member,
        _ => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests;

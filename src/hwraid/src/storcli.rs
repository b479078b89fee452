//! Broadcom MegaRAID and Dell PERC: `storcli64` and `perccli64`, one program under two names. With `J` at the end it
//! prints JSON; `nolog` keeps it from writing a log into the working directory.

use serde_json::Value;
use speediso_model::hardware_raid::{DriveInterface, DriveMedia, VolumeLevel, WriteCache};

use crate::goal::NewVolume;
use crate::printed::{Base, Size, level};
use crate::tool::{Adaptor, Command, Printed, Tool, ToolError, Waits, whole};
use crate::view::{Controller, Drive, DriveState, Foreign, View, Volume, VolumeState, bare_wwn};

const TOOL: &str = "storcli";

pub(crate) struct StorCli;

impl Adaptor for StorCli {
    fn look(&self, tool: &dyn Tool) -> Result<Vec<View>, ToolError> {
        let command = json(vec!["/call".into(), "show".into(), "all".into()]);
        let answers = ask(tool, &command)?;
        answers.iter().map(|answer| look_at(tool, &command, answer)).collect()
    }

    fn keeps_names(&self) -> bool {
        true
    }

    fn delete(&self, view: &View, volume: &Volume) -> Result<Command, Waits> {
        // It looks for mounts and operating systems itself and declines; that nothing is in use was seen before.
        Ok(json(vec![format!("/c{}/v{}", view.controller.id, volume.id), "del".into(), "force".into()]))
    }

    fn clear_foreign(&self, view: &View) -> Result<Command, Waits> {
        Ok(json(vec![format!("/c{}/fall", view.controller.id), "delete".into()]))
    }

    fn discard_cache(&self, view: &View) -> Result<Command, Waits> {
        Ok(json(vec![
            format!("/c{}/vall", view.controller.id),
            "delete".into(),
            "preservedcache".into(),
            "force".into(),
        ]))
    }

    fn make_good(&self, view: &View, drive: &Drive) -> Result<Command, Waits> {
        Ok(json(vec![
            format!("/c{}{}", view.controller.id, drive.address),
            "set".into(),
            "good".into(),
            "force".into(),
        ]))
    }

    fn create(&self, view: &View, volume: &NewVolume) -> Result<Command, Waits> {
        let slots = |drives: &[Drive]| drives.iter().map(|d| d.slot.as_str()).collect::<Vec<_>>().join(",");
        let mut args =
            vec![format!("/c{}", view.controller.id), "add".into(), "vd".into(), format!("r{}", volume.level.name())];
        if let Some(size) = volume.size {
            args.push(format!("size={}MB", size.0 >> 20));
        }
        args.push(format!("name={}", volume.name));
        args.push(format!("drives={}", slots(&volume.drives)));
        if volume.level == VolumeLevel::Raid10 {
            args.push("pdperarray=2".into());
        }
        match volume.cache {
            Some(WriteCache::WriteThrough) => args.push("wt".into()),
            Some(WriteCache::WriteBack) => args.push("wb".into()),
            None => {}
        }
        if let Some(strip) = volume.strip_kib {
            args.push(format!("strip={strip}"));
        }
        if !volume.spares.is_empty() {
            args.push(format!("spares={}", slots(&volume.spares)));
        }
        Ok(json(args))
    }

    fn make_boot(&self, _: &View, _: &str) -> Result<Command, Waits> {
        Err(Waits { tool: TOOL, verb: "choosing the boot volume", why: "no output with a known origin shows it" })
    }
}

fn json(args: Vec<String>) -> Command {
    Command { args, stdin: None }.arg("nolog").arg("J")
}

/// One answer for each controller. It is read whatever it says of its success.
fn ask(tool: &dyn Tool, command: &Command) -> Result<Vec<Answer>, ToolError> {
    let printed = tool.run(command)?;
    Answer::read(&printed).map_err(|what| ToolError::not_understood(command, what, &printed))
}

struct Answer {
    status: String,
    description: String,
    data: Value,
    printed: Printed,
}

impl Answer {
    fn read(printed: &Printed) -> Result<Vec<Self>, String> {
        let value: Value = serde_json::from_str(&printed.stdout).map_err(|e| e.to_string())?;
        let controllers = value.get("Controllers").and_then(Value::as_array).ok_or("no list of controllers")?;
        controllers
            .iter()
            .map(|c| {
                let said = c.get("Command Status").ok_or("no command status")?;
                Ok(Self {
                    status: text(said, "Status"),
                    description: text(said, "Description"),
                    data: c.get("Response Data").cloned().unwrap_or(Value::Null),
                    printed: printed.clone(),
                })
            })
            .collect()
    }

    fn succeeded(&self) -> bool {
        self.status == "Success"
    }
}

/// Numbers and strings alike; older versions write the one, newer the other.
fn text(value: &Value, key: &str) -> String {
    match value.get(key) {
        Some(Value::String(text)) => text.trim().to_owned(),
        Some(Value::Number(number)) => number.to_string(),
        _ => String::new(),
    }
}

fn look_at(tool: &dyn Tool, command: &Command, answer: &Answer) -> Result<View, ToolError> {
    let not_understood = |command: &Command, what: String| ToolError::not_understood(command, what, &answer.printed);
    if !answer.succeeded() {
        return Err(ToolError::Declined {
            command: command.to_string(),
            said: answer.description.clone(),
            printed: whole(&answer.printed),
        });
    }
    let controller = controller(&answer.data).map_err(|what| not_understood(command, what))?;
    let of_one = |object: &str, verb: &[&str]| {
        let mut args = vec![format!("/c{}/{object}", controller.id)];
        args.extend(verb.iter().map(|v| (*v).to_owned()));
        let command = json(args);
        ask(tool, &command).and_then(|mut answers| match (answers.pop(), answers.is_empty()) {
            (Some(answer), true) => Ok((command.clone(), answer)),
            (_, _) => Err(not_understood(&command, "not one controller".into())),
        })
    };
    let (command, answer) = of_one("eall/sall", &["show", "all"])?;
    let drives = drives(&answer).map_err(|what| ToolError::not_understood(&command, what, &answer.printed))?;
    let (command, answer) = of_one("vall", &["show", "all"])?;
    let volumes = volumes(&answer).map_err(|what| ToolError::not_understood(&command, what, &answer.printed))?;
    if let Some(slot) = volumes.iter().flat_map(|v| &v.members).find(|s| drives.iter().all(|d| d.slot != **s)) {
        return Err(ToolError::not_understood(
            &command,
            format!("a member in {slot}, where no drive is"),
            &answer.printed,
        ));
    }
    let (command, answer) = of_one("fall", &["show"])?;
    let foreign = foreign(&answer).map_err(|what| ToolError::not_understood(&command, what, &answer.printed))?;
    Ok(View { controller, drives, volumes, foreign })
}

fn controller(data: &Value) -> Result<Controller, String> {
    let part = |name: &str| data.get(name).cloned().unwrap_or(Value::Null);
    let (basics, status, version, hardware) = (part("Basics"), part("Status"), part("Version"), part("HwCfg"));
    let preserved = text(&status, "Any Offline VD Cache Preserved");
    let read = Controller {
        id: text(&basics, "Controller"),
        model: text(&basics, "Model"),
        serial: text(&basics, "Serial Number"),
        firmware: text(&version, "Firmware Version"),
        pci_addresses: pci_address(&text(&basics, "PCI Address")).into_iter().collect(),
        status: text(&status, "Controller Status"),
        cache: [("BBU", text(&hardware, "BBU")), ("memory", text(&hardware, "On Board Memory Size"))]
            .into_iter()
            .filter(|(_, value)| !value.is_empty())
            .map(|(key, value)| format!("{key}: {value}"))
            .collect(),
        preserved_cache: preserved == "Yes",
        // Where all drives are handed through there is no such line; the others say RAID-Mode.
        hba_mode: text(&status, "Current Personality").starts_with("HBA"),
        boots: None,
    };
    if read.id.is_empty() || read.model.is_empty() {
        return Err("no number or model of the controller".into());
    }
    if preserved.is_empty() {
        return Err("it does not say whether its cache keeps data".into());
    }
    Ok(read)
}

/// `00:c1:00:00`: domain, bus, device and function, in hexadecimal.
fn pci_address(text: &str) -> Option<String> {
    let n: Vec<u32> = text.split(':').map(|part| u32::from_str_radix(part, 16).ok()).collect::<Option<_>>()?;
    let [domain, bus, device, function] = n.as_slice() else { return None };
    Some(format!("{domain:04x}:{bus:02x}:{device:02x}.{function:x}"))
}

fn drives(answer: &Answer) -> Result<Vec<Drive>, String> {
    if !answer.succeeded() {
        return Err(answer.description.clone());
    }
    let data = answer.data.as_object().ok_or("no drives")?;
    let mut drives = Vec::new();
    for (key, value) in data {
        let Some(path) = key.strip_prefix("Drive ").filter(|p| !p.contains(' ')) else { continue };
        let short = value.get(0).ok_or_else(|| format!("{key} says nothing"))?;
        let detail = data.get(&format!("Drive {path} - Detailed Information")).unwrap_or(&Value::Null);
        let attributes = detail.get(format!("Drive {path} Device attributes")).unwrap_or(&Value::Null);
        drives.push(drive(path, short, attributes)?);
    }
    drives.sort_by_key(|d: &Drive| slot_order(&d.slot));
    if drives.is_empty() { Err("no drives".into()) } else { Ok(drives) }
}

fn slot_order(slot: &str) -> Vec<u32> {
    slot.split(':').map(|n| n.trim().parse().unwrap_or(u32::MAX)).collect()
}

fn drive(path: &str, short: &Value, attributes: &Value) -> Result<Drive, String> {
    let slot = text(short, "EID:Slt");
    // `/c0/e251/s4`: what follows the controller.
    let address = path.find("/e").or_else(|| path.find("/s")).map(|at| path[at..].to_owned());
    let group = text(short, "DG");
    let state = match text(short, "State").as_str() {
        _ if group == "F" => DriveState::Foreign,
        "UGood" => DriveState::Free,
        "JBOD" => DriveState::Jbod,
        "Onln" | "Offln" | "Rbld" | "Cpybck" | "Msng" => DriveState::Member,
        "GHS" | "DHS" => DriveState::Spare,
        other => DriveState::Unusable(format!("in state {other}")),
    };
    let size = sectors(&text(attributes, "Coerced size"), &text(short, "SeSz"))
        .or_else(|| Size::parse(&text(short, "Size"), Base::Binary))
        .ok_or_else(|| format!("drive {slot} has no size"))?;
    Ok(Drive {
        address: address.ok_or_else(|| format!("drive {slot} has no path"))?,
        serial: text(attributes, "SN"),
        wwn: bare_wwn(&text(attributes, "WWN")),
        model: text(short, "Model"),
        firmware: text(attributes, "Firmware Revision"),
        size,
        media: match text(short, "Med").as_str() {
            "HDD" => Some(DriveMedia::Hdd),
            "SSD" => Some(DriveMedia::Ssd),
            _ => None,
        },
        interface: match text(short, "Intf").as_str() {
            "SAS" => Some(DriveInterface::Sas),
            "SATA" => Some(DriveInterface::Sata),
            "NVMe" => Some(DriveInterface::Nvme),
            _ => None,
        },
        sector: sector(&text(short, "SeSz")),
        exposed: state == DriveState::Jbod,
        state,
        slot,
    })
}

/// `512B`, `4 KB`
fn sector(text: &str) -> Option<u32> {
    match text {
        "512B" => Some(512),
        "4 KB" | "4KB" => Some(4096),
        _ => None,
    }
}

/// `16.370 TB [0x82f700000 Sectors]`
fn sectors(text: &str, sector_size: &str) -> Option<Size> {
    let hex = text.split_once("[0x")?.1.split(' ').next()?;
    let bytes = u64::from_str_radix(hex, 16).ok()?.checked_mul(sector(sector_size)?.into())?;
    Some(Size::exact(bytes))
}

fn volumes(answer: &Answer) -> Result<Vec<Volume>, String> {
    // Versions differ in whether that is a success.
    if answer.description.trim_end_matches('.') == "No VDs have been configured" {
        return Ok(Vec::new());
    }
    if !answer.succeeded() {
        return Err(answer.description.clone());
    }
    let data = answer.data.as_object().ok_or("no volumes")?;
    let mut volumes = Vec::new();
    for (key, value) in data {
        let Some(id) = key.rsplit_once("/v").map(|(_, id)| id).filter(|_| key.starts_with("/c")) else { continue };
        let short = value.get(0).ok_or_else(|| format!("{key} says nothing"))?;
        let members = data.get(&format!("PDs for VD {id}")).and_then(Value::as_array).cloned().unwrap_or_default();
        let properties = data.get(&format!("VD{id} Properties")).unwrap_or(&Value::Null);
        volumes.push(volume(id, short, &members, properties)?);
    }
    volumes.sort_by_key(|v: &Volume| v.id.parse::<u32>().unwrap_or(u32::MAX));
    if volumes.is_empty() { Err("neither volumes nor the word that there are none".into()) } else { Ok(volumes) }
}

fn volume(id: &str, short: &Value, members: &[Value], properties: &Value) -> Result<Volume, String> {
    let exact = properties.get("Number of Blocks").and_then(Value::as_u64).and_then(|n| n.checked_mul(512));
    // Blocks are of 512 bytes unless the drives' are not.
    let native = members.first().and_then(|m| sector(&text(m, "SeSz"))) == Some(512);
    let size = exact
        .filter(|_| native)
        .map(Size::exact)
        .or_else(|| Size::parse(&text(short, "Size"), Base::Binary))
        .ok_or_else(|| format!("volume {id} has no size"))?;
    let is_spare = |m: &Value| matches!(text(m, "State").as_str(), "DHS" | "GHS");
    let strip = text(properties, "Strip Size");
    let cache = text(short, "Cache");
    Ok(Volume {
        id: id.to_owned(),
        name: text(short, "Name"),
        level: level(&text(short, "TYPE")),
        size,
        state: match text(short, "State").as_str() {
            "Optl" => VolumeState::Good,
            other => VolumeState::Bad(other.to_owned()),
        },
        members: members.iter().filter(|m| !is_spare(m)).map(|m| text(m, "EID:Slt")).collect(),
        wwn: bare_wwn(&text(properties, "SCSI NAA Id")),
        write_back: (!cache.is_empty()).then(|| cache.contains("WB")),
        strip_kib: Size::parse(&strip, Base::Binary).and_then(|s| u32::try_from(s.bytes >> 10).ok()),
    })
}

/// That there is one is said by groups, or by a failure that counts drives: a group that is not whole cannot be shown.
fn foreign(answer: &Answer) -> Result<Vec<Foreign>, String> {
    let groups = answer.data.get("FOREIGN CONFIGURATION").and_then(Value::as_array);
    if let Some(groups) = groups {
        let said = |g: &Value| Foreign { what: format!("{} in drive group {}", text(g, "Type"), text(g, "DG")) };
        return Ok(groups.iter().map(said).collect());
    }
    match answer.data.get("Total Foreign PDs").and_then(Value::as_u64) {
        Some(0) => return Ok(Vec::new()),
        Some(n) => return Ok(vec![Foreign { what: format!("on {n} drives ({})", answer.description) }]),
        None => {}
    }
    if answer.description.eq_ignore_ascii_case("couldn't find any foreign configuration") {
        return Ok(Vec::new());
    }
    Err(format!("neither foreign configurations nor the word that there are none: {}", answer.description))
}

#[cfg(test)]
mod tests;

//! LVM by its own program, which sees nothing but the devices it is given: a volume group of whoever had another disk
//! before is not looked at, let alone activated.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};
use speediso_model::fault::{Fault, FaultCode};
use speediso_model::task::{LogicalVolume, PartitionSize, VolumeGroup, VolumeKind};
use speediso_model::units::Bytes;

use super::device;
use crate::tools::Toolbox;

pub(super) const PROGRAM: &str = "lvm";
const TRIES: u32 = 20;
const PAUSE: Duration = Duration::from_millis(250);

/// What the kernel needs for these volumes.
pub(super) fn modules(group: &VolumeGroup) -> Vec<&'static str> {
    let mut modules = vec!["dm_mod"];
    for volume in &group.volumes {
        match volume.kind {
            VolumeKind::Linear => {}
            VolumeKind::Mirror(_) => modules.extend(["raid1", "dm_raid"]),
            VolumeKind::ThinPool | VolumeKind::Thin(_) => modules.push("dm_thin_pool"),
        }
    }
    modules
}

/// A volume group whose volumes are active; deactivated in any case.
pub(super) struct Active<'a> {
    name: String,
    config: String,
    toolbox: &'a Toolbox<'a>,
    is_active: bool,
}

/// What LVM says of a volume.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Seen {
    pub(super) size: u64,
    segment_type: String,
    pool: String,
}

impl<'a> Active<'a> {
    /// Makes the group over these devices, without volumes.
    pub(super) fn new(group: &VolumeGroup, members: &[PathBuf], toolbox: &'a Toolbox<'a>) -> Result<Self, Fault> {
        let members: Vec<String> = members.iter().map(|path| path.display().to_string()).collect();
        let active = Self { name: group.name.clone(), config: configuration(&members), toolbox, is_active: true };
        for member in &members {
            active.run(&["pvcreate", "-ff", "--yes", "--zero", "y", "--dataalignment", "1m", member])?;
        }
        let mut arguments = vec!["vgcreate", "--yes", group.name.as_str()];
        arguments.extend(members.iter().map(String::as_str));
        active.run(&arguments)?;
        Ok(active)
    }

    pub(super) fn add(&self, volume: &LogicalVolume) -> Result<(), Fault> {
        let mut arguments: Vec<String> = ["lvcreate", "--yes", "--name", &volume.name].map(str::to_owned).into();
        let mut add = |words: &[&str]| arguments.extend(words.iter().map(|word| (*word).to_owned()));
        match &volume.kind {
            // What was there before does not come to light in a new volume.
            VolumeKind::Linear => add(&["--wipesignatures", "y", "--zero", "y"]),
            VolumeKind::Mirror(copies) => {
                let more = copies.saturating_sub(1).to_string();
                add(&["--type", "raid1", "--mirrors", &more, "--wipesignatures", "y", "--zero", "y"]);
            }
            VolumeKind::ThinPool => add(&["--type", "thin-pool"]),
            VolumeKind::Thin(pool) => add(&["--type", "thin", "--thinpool", pool]),
        }
        // It takes whole sectors only, and makes whole extents of them.
        let bytes = |bytes: Bytes| format!("{}b", bytes.0.checked_next_multiple_of(512).unwrap_or(bytes.0));
        match (&volume.kind, volume.size) {
            (VolumeKind::Thin(_), PartitionSize::Bytes(size)) => add(&["--virtualsize", &bytes(size)]),
            (_, PartitionSize::Bytes(size)) => add(&["--size", &bytes(size)]),
            (_, PartitionSize::Percent(of)) => add(&["--extents", &format!("{of}%VG")]),
            (_, PartitionSize::Rest) => add(&["--extents", "100%FREE"]),
        }
        arguments.push(self.name.clone());
        self.run(&arguments).map(drop)
    }

    pub(super) fn path(&self, volume: &LogicalVolume) -> PathBuf {
        // How device mapper keeps the dash between the two apart from those in them.
        let double = |name: &str| name.replace('-', "--");
        device::mapped(&format!("{}-{}", double(&self.name), double(&volume.name)))
    }

    /// Whether the volume is what was ordered, by what LVM reads from its own records.
    pub(super) fn look(&self, volume: &LogicalVolume) -> Result<Seen, Fault> {
        let name = format!("{}/{}", self.name, volume.name);
        let columns = "lv_size,segtype,pool_lv";
        let text =
            self.run(&["lvs", "--reportformat", "json", "--units", "b", "--nosuffix", "--options", columns, &name])?;
        let seen = parse(&text).ok_or_else(|| {
            Fault::new(FaultCode::ToolFailed, format!("lvm says of {name} what is not understood")).because(text)
        })?;
        let is_so = seen.segment_type == volume.kind.segment_type()
            && match &volume.kind {
                VolumeKind::Thin(pool) => seen.pool == *pool,
                VolumeKind::Linear | VolumeKind::Mirror(_) | VolumeKind::ThinPool => true,
            }
            && match volume.size {
                PartitionSize::Bytes(bytes) => seen.size >= bytes.0,
                PartitionSize::Percent(_) | PartitionSize::Rest => seen.size > 0,
            };
        if is_so {
            return Ok(seen);
        }
        Err(Fault::new(FaultCode::VerifyFailed, format!("the volume {name} was made, but is {seen:?}")))
    }

    pub(super) fn deactivate(mut self) -> Result<(), Fault> {
        self.is_active = false;
        self.shut()
    }

    fn shut(&self) -> Result<(), Fault> {
        let shut = || self.run(&["vgchange", "--activate", "n", &self.name]).map(drop);
        for _ in 1..TRIES {
            if shut().is_ok() {
                return Ok(());
            }
            std::thread::sleep(PAUSE);
        }
        shut()
    }

    fn run<S: AsRef<str>>(&self, arguments: &[S]) -> Result<String, Fault> {
        run(&self.config, arguments, self.toolbox)
    }
}

/// The first of the arguments is the command.
pub(super) fn run<S: AsRef<str>>(config: &str, arguments: &[S], toolbox: &Toolbox<'_>) -> Result<String, Fault> {
    let (command, rest) = arguments.split_at(1);
    let words: Vec<&str> = command.iter().map(AsRef::as_ref).collect();
    let all: Vec<&str> = words.into_iter().chain(["--config", config]).chain(rest.iter().map(AsRef::as_ref)).collect();
    toolbox.run(PROGRAM, &all)
}

impl Drop for Active<'_> {
    fn drop(&mut self) {
        if self.is_active {
            // There is an error to be told already.
            let _ = self.shut();
        }
    }
}

/// lvm.conf(5), all of it: there is no file. Nothing waits for udev or a daemon, nothing is kept on a disk.
pub(super) fn configuration(members: &[String]) -> String {
    let accepted: Vec<String> = members.iter().map(|path| format!("\"a|^{path}$|\"")).collect();
    format!(
        "devices {{ filter=[{}, \"r|.*|\"] use_devicesfile=0 obtain_device_list_from_udev=0 \
         external_device_info_source=\"none\" md_component_detection=0 multipath_component_detection=0 }} \
         global {{ use_lvmpolld=0 use_lvmlockd=0 event_activation=0 thin_check_executable=\"\" }} \
         activation {{ udev_sync=0 udev_rules=0 monitoring=0 }} backup {{ backup=0 archive=0 }}",
        accepted.join(", ")
    )
}

fn parse(text: &str) -> Option<Seen> {
    let report: Value = serde_json::from_str(text).ok()?;
    let volume = report.pointer("/report/0/lv/0")?;
    let field = |name: &str| volume.get(name)?.as_str();
    Some(Seen {
        size: field("lv_size")?.parse().ok()?,
        segment_type: field("segtype")?.to_owned(),
        pool: field("pool_lv")?.to_owned(),
    })
}

impl Seen {
    pub(super) fn facts(&self, volume: &LogicalVolume) -> Value {
        json!({"name": volume.name, "kind": self.segment_type, "bytes": self.size})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lvm_reports_is_read() {
        let text = r#"{"report": [{"lv": [{"lv_size":"536870912", "segtype":"raid1", "pool_lv":""}]}]}"#;
        let seen = Seen { size: 1 << 29, segment_type: "raid1".into(), pool: String::new() };
        assert_eq!(parse(text), Some(seen));
        for odd in ["", "{}", r#"{"report":[{"lv":[{"lv_size":"x","segtype":"","pool_lv":""}]}]}"#] {
            assert_eq!(parse(odd), None);
        }
    }

    #[test]
    fn nothing_but_the_members_is_seen() {
        let config = configuration(&["/dev/loop3".into()]);
        assert!(config.contains(r#"filter=["a|^/dev/loop3$|", "r|.*|"]"#), "{config}");
    }
}

//! A volume group that is there already, by LVM's own report of it: whether it is the one ordered. It is read only, and
//! nothing is activated: where a volume begins on its physical volumes is in the report.

use std::path::{Path, PathBuf};

use serde_json::Value;
use speediso_model::fault::{Fault, FaultCode};
use speediso_model::task::{LogicalVolume, PartitionSize, VolumeGroup, VolumeKind};

use super::lvm;
use crate::tools::Toolbox;

const PVS: &str = "pv_name,vg_name,pe_start";
const VGS: &str = "vg_name,vg_extent_size,vg_extent_count,vg_free_count,pv_count,vg_missing_pv_count";
const LVS: &str = "lv_name,vg_name,lv_size,segtype,pool_lv,stripes,seg_start,seg_size,devices";

/// What LVM says of a group.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Report {
    extent: u64,
    extents: u64,
    free: u64,
    /// Of the group, wherever they are.
    n_members: u64,
    n_missing: u64,
    /// Device, its group, and where its extents begin.
    members: Vec<(String, String, u64)>,
    /// One line for each segment.
    segments: Vec<Segment>,
}

#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Segment {
    /// Without the brackets of those that LVM hides.
    volume: String,
    is_hidden: bool,
    /// Of the volume.
    size: u64,
    kind: String,
    pool: String,
    /// Of a mirror: its copies.
    stripes: u64,
    start: u64,
    length: u64,
    /// `/dev/loop3(0)`, `root_rimage_0(0)`
    devices: Vec<(String, u64)>,
}

/// The beginning of a volume.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Start {
    /// The physical volume.
    pub(super) device: PathBuf,
    pub(super) offset: u64,
    /// How much of the volume lies there in one piece.
    pub(super) length: u64,
}

impl Report {
    /// # Errors
    /// When lvm fails, or says what is not understood.
    pub(super) fn of(group: &str, members: &[&Path], toolbox: &Toolbox<'_>) -> Result<Self, Fault> {
        let paths: Vec<String> = members.iter().map(|path| path.display().to_string()).collect();
        let config = lvm::configuration(&paths);
        let ask = |command: &str, columns: &str| {
            let format = ["--readonly", "--reportformat", "json", "--units", "b", "--nosuffix", "--options", columns];
            // Hidden ones too: copies are.
            let all: &[&str] = if command == "lvs" { &["--all"] } else { &[] };
            lvm::run(&config, &[&[command][..], &format[..], all].concat(), toolbox)
        };
        let texts = [ask("pvs", PVS)?, ask("vgs", VGS)?, ask("lvs", LVS)?];
        Self::parse(group, &texts).ok_or_else(|| {
            let mut fault = Fault::new(FaultCode::ToolFailed, "lvm says of what is there what is not understood");
            fault.causes = texts.into();
            fault
        })
    }

    fn parse(group: &str, [pvs, vgs, lvs]: &[String; 3]) -> Option<Self> {
        let mut report = Self::default();
        for row in rows(pvs, "pv")? {
            report.members.push((word(&row, "pv_name")?, word(&row, "vg_name")?, number(&row, "pe_start")?));
        }
        let is_this = |row: &Value| word(row, "vg_name").is_some_and(|name| name == group);
        let Some(row) = rows(vgs, "vg")?.into_iter().find(is_this) else { return Some(report) };
        report.extent = number(&row, "vg_extent_size")?;
        report.extents = number(&row, "vg_extent_count")?;
        report.free = number(&row, "vg_free_count")?;
        report.n_members = number(&row, "pv_count")?;
        report.n_missing = number(&row, "vg_missing_pv_count")?;
        for row in rows(lvs, "lv")?.iter().filter(|row| is_this(row)) {
            report.segments.push(Segment::read(row)?);
        }
        Some(report)
    }

    /// In what the group is not as ordered, what is inside of its volumes aside.
    pub(super) fn differences(&self, group: &VolumeGroup, members: &[&Path]) -> Vec<String> {
        let mut differs = Vec::new();
        for member in members {
            let is_it =
                |(device, name, _): &&(String, String, u64)| Path::new(device) == *member && *name == group.name;
            if !self.members.iter().any(|found| is_it(&found)) {
                differs.push("a physical volume of it belongs to another group, or to none".to_owned());
            }
        }
        if self.extent == 0 {
            differs.push("there is no such group".into());
            return differs;
        }
        if self.n_members != members.len() as u64 || self.n_missing > 0 {
            let (n, missing) = (self.n_members, self.n_missing);
            differs
                .push(format!("it has {n} physical volumes, {missing} of them missing, instead of {}", members.len()));
        }
        let mut seen: Vec<&str> = self.segments.iter().filter(|s| !s.is_hidden).map(|s| s.volume.as_str()).collect();
        seen.dedup();
        for extra in seen.iter().filter(|name| group.volumes.iter().all(|volume| volume.name != **name)) {
            differs.push(format!("it has a volume {extra:?} that is not ordered"));
        }
        for volume in &group.volumes {
            differs.extend(self.volume(volume).into_iter().map(|what| format!("volume {:?}: {what}", volume.name)));
        }
        differs
    }

    fn volume(&self, wanted: &LogicalVolume) -> Vec<String> {
        let found: Vec<&Segment> = self.segments.iter().filter(|s| !s.is_hidden && s.volume == wanted.name).collect();
        let Some(first) = found.first() else { return vec!["it is not there".into()] };
        let mut differs = Vec::new();
        let mut compare = |what: &str, found: &str, wanted: &str| {
            if found != wanted {
                differs.push(format!("its {what} is {found:?} instead of {wanted:?}"));
            }
        };
        for segment in &found {
            compare("kind", &segment.kind, wanted.kind.segment_type());
        }
        match &wanted.kind {
            VolumeKind::Thin(pool) => compare("pool", &first.pool, pool),
            VolumeKind::Mirror(copies) => compare("number of copies", &first.stripes.to_string(), &copies.to_string()),
            VolumeKind::Linear | VolumeKind::ThinPool => {}
        }
        differs.extend(self.size(wanted, first.size));
        differs
    }

    /// Sizes are whole extents. Of percents LVM rounds up, and takes less where something else is in the way.
    fn size(&self, wanted: &LogicalVolume, found: u64) -> Option<String> {
        let copies = match wanted.kind {
            VolumeKind::Mirror(copies) => u64::from(copies),
            VolumeKind::Linear | VolumeKind::ThinPool | VolumeKind::Thin(_) => 1,
        };
        let extents = found / self.extent;
        let is_so = match wanted.size {
            PartitionSize::Bytes(bytes) => bytes.0.checked_next_multiple_of(self.extent) == Some(found),
            PartitionSize::Percent(of) => {
                let most = (self.extents * u64::from(of)).div_ceil(100);
                (most / copies).saturating_sub(copies) <= extents && extents <= most / copies
            }
            // What is left over would not have been.
            PartitionSize::Rest => found > 0 && self.free < copies.max(2),
        };
        (!is_so).then(|| format!("its size is {found} bytes, which is not {}", wanted.size))
    }

    /// Where each copy of a volume begins; none of a thin one, whose places only its pool knows.
    pub(super) fn starts(&self, volume: &LogicalVolume) -> Vec<Start> {
        let first = |name: &str| self.segments.iter().find(|s| s.volume == name && s.start == 0);
        let place = |segment: &Segment| {
            let [(device, extent)] = segment.devices.as_slice() else { return None };
            let (_, _, begin) = self.members.iter().find(|(path, ..)| path == device)?;
            let offset = extent.checked_mul(self.extent)?.checked_add(*begin)?;
            Some(Start { device: device.into(), offset, length: segment.length })
        };
        let Some(segment) = first(&volume.name) else { return Vec::new() };
        let places: Option<Vec<Start>> = match volume.kind {
            VolumeKind::Linear => place(segment).map(|start| vec![start]),
            VolumeKind::Mirror(_) => segment.devices.iter().map(|(leg, _)| first(leg).and_then(place)).collect(),
            VolumeKind::ThinPool | VolumeKind::Thin(_) => None,
        };
        places.unwrap_or_default()
    }
}

fn rows(text: &str, what: &str) -> Option<Vec<Value>> {
    let report: Value = serde_json::from_str(text).ok()?;
    report.pointer(&format!("/report/0/{what}"))?.as_array().cloned()
}

fn word(row: &Value, name: &str) -> Option<String> {
    row.get(name)?.as_str().map(str::to_owned)
}

fn number(row: &Value, name: &str) -> Option<u64> {
    row.get(name)?.as_str()?.parse().ok()
}

impl Segment {
    fn read(row: &Value) -> Option<Self> {
        let name = word(row, "lv_name")?;
        let hidden = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
        let devices = word(row, "devices")?;
        let device = |text: &str| {
            let (device, extent) = text.strip_suffix(')')?.rsplit_once('(')?;
            Some((device.to_owned(), extent.parse().ok()?))
        };
        Some(Self {
            volume: hidden.unwrap_or(&name).to_owned(),
            is_hidden: hidden.is_some(),
            size: number(row, "lv_size")?,
            kind: word(row, "segtype")?,
            pool: word(row, "pool_lv")?,
            stripes: number(row, "stripes")?,
            start: number(row, "seg_start")?,
            length: number(row, "seg_size")?,
            devices: devices.split(',').filter(|text| !text.is_empty()).map(device).collect::<Option<_>>()?,
        })
    }
}

#[cfg(test)]
mod tests;

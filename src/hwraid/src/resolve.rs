//! From a wish and what a controller shows to a goal, with the reasons; or why not.

use speediso_model::hardware_raid::{DriveChoice, DrivePick, HardwareRaidTask, VolumeSize, VolumeSpec};
use speediso_model::units::Bytes;

use crate::goal::{Goal, NewVolume};
use crate::view::{Drive, DriveState, Foreign, Level, View, Volume, VolumeState};

/// Why nothing is done.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refusal {
    #[error("{controller} hands all drives through (HBA mode); it makes no volumes until its mode is changed")]
    HbaMode { controller: String },
    /// Fewer drives than are needed. Of each that is not taken it says why.
    #[error("{volume}: {found} drives can be used, {needed} are needed")]
    TooFew { volume: String, found: usize, needed: usize, why: Vec<String> },
    #[error("{volume}: {found} drives match, {needed} are needed, and the wish does not say which to pick")]
    Ambiguous { volume: String, found: usize, needed: usize, why: Vec<String> },
    #[error("{volume}: drive {drive} {reason}")]
    Drive { volume: String, drive: String, reason: String },
    #[error("{volume}: drives {one} and {other} cannot be in one volume: {reason}")]
    Mixed { volume: String, one: String, other: String, reason: String },
    #[error("{volume}: {wanted} are asked for, {capacity} is what the drives give")]
    TooLarge { volume: String, wanted: Bytes, capacity: Bytes },
    #[error("{volume} exists, but {reason}")]
    Differs { volume: String, reason: String },
    #[error("the controller's cache keeps data of volumes that are gone")]
    PreservedCache,
    #[error("drives {one} and {other} have the same serial number {serial}")]
    SameSerial { one: String, other: String, serial: String },
}

impl Refusal {
    /// What would permit it, or help.
    #[must_use]
    pub fn advice(&self) -> &'static str {
        match self {
            Self::HbaMode { .. } => "change the controller's mode in its setup, or use software RAID",
            Self::TooFew { .. } | Self::TooLarge { .. } | Self::Mixed { .. } => {
                "change the wish, or the drives; teardown frees drives of old volumes"
            }
            Self::Ambiguous { .. } => "name the drives, narrow the choice, or say pick",
            Self::Drive { .. } => "look at the drive; teardown frees drives of old volumes",
            Self::Differs { .. } => "give the volume another name, or order a teardown",
            Self::PreservedCache => {
                "bring the missing drives back so that it is written, or order a teardown, which discards it"
            }
            Self::SameSerial { .. } => "look at the controller's own listing; one drive may be seen over two paths",
        }
    }

    /// For each drive that was not taken, the reason.
    #[must_use]
    pub fn causes(&self) -> &[String] {
        match self {
            Self::TooFew { why, .. } | Self::Ambiguous { why, .. } => why,
            _ => &[],
        }
    }
}

/// `names` says whether volumes of this controller keep the names they were given.
///
/// # Errors
/// When the wish is impossible on this controller, or not clear.
pub fn resolve(task: &HardwareRaidTask, view: &View, names: bool) -> Result<Goal, Refusal> {
    if view.controller.hba_mode {
        return Err(Refusal::HbaMode { controller: view.controller.to_string() });
    }
    // A drive is told apart by its serial number in the plan; two with one number could change places.
    for (i, one) in view.drives.iter().enumerate() {
        if let Some(other) = view.drives[i + 1..].iter().find(|o| !o.serial.is_empty() && o.serial == one.serial) {
            return Err(Refusal::SameSerial {
                one: one.slot.clone(),
                other: other.slot.clone(),
                serial: one.serial.clone(),
            });
        }
    }
    let mut goal = Goal { names, ..Goal::default() };
    let mut standing: Vec<&Volume> = view.volumes.iter().collect();
    let mut open: Vec<&VolumeSpec> = Vec::new();
    let mut met: Vec<&VolumeSpec> = Vec::new();
    for spec in &task.volumes {
        match stands(spec, view, &standing, names, &met) {
            Ok(Some(at)) => {
                let volume = standing.remove(at);
                met.push(spec);
                goal.reasons.push(format!("{:?} is {volume} on drives {}", spec.name, view.named(&volume.members)));
                goal.already.push((spec.name.clone(), volume.id.clone()));
            }
            Ok(None) => open.push(spec),
            Err(_) if task.teardown => open.push(spec),
            Err(refusal) => return Err(refusal),
        }
    }
    goal.kept = standing.into_iter().cloned().collect();
    let foreign_drives = view.drives.iter().any(|d| d.state == DriveState::Foreign);
    let stray = !goal.kept.is_empty() || !view.foreign.is_empty() || foreign_drives || view.controller.preserved_cache;
    if task.teardown && (stray || !open.is_empty()) {
        // All or nothing: what a teardown leaves is the same whatever was there before.
        goal = Goal {
            delete: view.volumes.clone(),
            clear_foreign: foreign(view),
            discard_cache: view.controller.preserved_cache,
            names,
            ..Goal::default()
        };
        open = task.volumes.iter().collect();
    } else if !open.is_empty() && view.controller.preserved_cache {
        return Err(Refusal::PreservedCache);
    }
    choose_all(&open, view, task.teardown, &mut goal)?;
    boot(task, view, &mut goal);
    Ok(goal)
}

/// Every foreign configuration, also one that only its drives tell of.
fn foreign(view: &View) -> Vec<Foreign> {
    let mut all = view.foreign.clone();
    if all.is_empty() {
        let of_drive = |d: &&Drive| d.state == DriveState::Foreign;
        all.extend(view.drives.iter().filter(of_drive).map(|d| Foreign { what: format!("on drive {d}") }));
    }
    all
}

/// Which of the standing volumes is the one wished for.
fn stands(
    spec: &VolumeSpec,
    view: &View,
    standing: &[&Volume],
    names: bool,
    met: &[&VolumeSpec],
) -> Result<Option<usize>, Refusal> {
    if names {
        let Some(at) = standing.iter().position(|v| v.name == spec.name) else { return Ok(None) };
        return match differs(spec, view, standing[at], met) {
            None => Ok(Some(at)),
            Some(reason) => Err(Refusal::Differs { volume: standing[at].to_string(), reason }),
        };
    }
    Ok(standing.iter().position(|v| differs(spec, view, v, met).is_none()))
}

/// Why a volume is not the one wished for.
fn differs(spec: &VolumeSpec, view: &View, volume: &Volume, met: &[&VolumeSpec]) -> Option<String> {
    if volume.level != Level::Known(spec.level) {
        return Some(format!("it is {}, not {}", volume.level, spec.level));
    }
    if let VolumeState::Bad(state) = &volume.state {
        return Some(format!("its state is {state}"));
    }
    if volume.members.len() != spec.disks.members() {
        return Some(format!("it has {} drives, not {}", volume.members.len(), spec.disks.members()));
    }
    for slot in &volume.members {
        let Some(drive) = view.drive(slot) else { return Some(format!("there is no drive {slot}")) };
        if let Some(reason) = spec.disks.differs(drive) {
            return Some(format!("drive {drive} {reason}"));
        }
    }
    if let Some(reason) = crate::judge::other_settings(volume, spec.cache, spec.strip_kib) {
        return Some(reason);
    }
    if spec.hot_spares > 0 && !enough_spares(view, met, spec) {
        return Some(format!("there are not {} spares for it", spec.hot_spares));
    }
    let members: Vec<&Drive> = volume.members.iter().filter_map(|slot| view.drive(slot)).collect();
    let wanted = match spec.size {
        VolumeSize::Bytes(size) => size.0,
        VolumeSize::Rest => spec.level.capacity(members.len(), smallest(&members)),
    };
    (!crate::judge::is_size(volume, wanted, members.len()))
        .then(|| format!("it has {}, not {}", Bytes(volume.size.bytes), Bytes(wanted)))
}

/// Whether every volume that is met, and one more, can have spares of its own: for which volume a spare stands by is
/// not shown, so one must not count for two.
fn enough_spares(view: &View, met: &[&VolumeSpec], more: &VolumeSpec) -> bool {
    let spares: Vec<&Drive> = view.drives.iter().filter(|d| d.state == DriveState::Spare).collect();
    let needs: Vec<&VolumeSpec> =
        met.iter().copied().chain([more]).flat_map(|s| std::iter::repeat_n(s, s.hot_spares)).collect();
    let mut taken = vec![None; spares.len()];
    (0..needs.len()).all(|need| place(need, &needs, &spares, &mut taken, &mut vec![false; spares.len()]))
}

/// Finds a spare for one need, moving others to another of theirs where that helps (Kuhn's matching).
fn place(
    need: usize,
    needs: &[&VolumeSpec],
    spares: &[&Drive],
    taken: &mut [Option<usize>],
    seen: &mut [bool],
) -> bool {
    for at in 0..spares.len() {
        if seen[at] || needs[need].disks.differs(spares[at]).is_some() {
            continue;
        }
        seen[at] = true;
        if taken[at].is_none_or(|other| place(other, needs, spares, taken, seen)) {
            taken[at] = Some(need);
            return true;
        }
    }
    false
}

fn smallest(drives: &[&Drive]) -> u64 {
    drives.iter().map(|d| d.size.bytes).min().unwrap_or(0)
}

/// Chooses drives for all volumes that are to be made, those with named drives first so that no other takes them.
fn choose_all(open: &[&VolumeSpec], view: &View, teardown: bool, goal: &mut Goal) -> Result<(), Refusal> {
    let mut taken: Vec<String> = Vec::new();
    let mut chosen: Vec<(usize, NewVolume)> = Vec::new();
    let mut order: Vec<usize> = (0..open.len()).collect();
    order.sort_by_key(|i| !open[*i].disks.names_drives());
    for i in order {
        let spec = open[i];
        let volume = choose(spec, view, teardown, &taken, &mut goal.reasons)?;
        for drive in volume.drives.iter().chain(&volume.spares) {
            taken.push(drive.slot.clone());
            if drive.state == DriveState::Jbod {
                goal.make_good.push(drive.clone());
            }
        }
        chosen.push((i, volume));
    }
    chosen.sort_by_key(|(i, _)| *i);
    goal.create = chosen.into_iter().map(|(_, volume)| volume).collect();
    Ok(())
}

fn choose(
    spec: &VolumeSpec,
    view: &View,
    teardown: bool,
    taken: &[String],
    reasons: &mut Vec<String>,
) -> Result<NewVolume, Refusal> {
    let name = format!("volume {:?}", spec.name);
    let unfit = |drive: &Drive| {
        if taken.contains(&drive.slot) {
            return Some("is taken by another volume of this wish".to_owned());
        }
        unusable(drive, teardown).or_else(|| spec.disks.differs(drive))
    };
    let needed = spec.disks.members() + spec.hot_spares;
    let mut drives: Vec<&Drive> = if spec.disks.names_drives() {
        let mut named = Vec::new();
        for wanted in spec.disks.slots.iter().chain(&spec.disks.serials) {
            let is_it =
                |d: &&Drive| d.slot == *wanted || (!d.serial.is_empty() && d.serial.eq_ignore_ascii_case(wanted));
            let refuse = |reason: String| Refusal::Drive { volume: name.clone(), drive: wanted.clone(), reason };
            let drive = view.drives.iter().find(is_it).ok_or_else(|| refuse("is not on this controller".into()))?;
            if named.iter().any(|d: &&Drive| d.slot == drive.slot) {
                return Err(refuse("is named twice".into()));
            }
            if let Some(reason) = unfit(drive) {
                return Err(refuse(reason));
            }
            named.push(drive);
        }
        named
    } else {
        let mut fit: Vec<&Drive> = view.drives.iter().filter(|d| unfit(d).is_none()).collect();
        let explained = || {
            view.drives
                .iter()
                .map(|d| format!("{d}, {}: {}", Bytes(d.size.bytes), unfit(d).unwrap_or_else(|| "can be used".into())))
                .collect()
        };
        if fit.len() < needed {
            return Err(Refusal::TooFew { volume: name, found: fit.len(), needed, why: explained() });
        }
        match spec.disks.pick {
            Some(DrivePick::First) => {}
            // Stable: among equals the first slots.
            Some(DrivePick::Smallest) => fit.sort_by_key(|d| d.size.bytes),
            Some(DrivePick::Largest) => fit.sort_by_key(|d| std::cmp::Reverse(d.size.bytes)),
            None if fit.len() > needed => {
                return Err(Refusal::Ambiguous { volume: name, found: fit.len(), needed, why: explained() });
            }
            None => {}
        }
        reasons.push(format!(
            "{:?}: {} of {} drives can be used, {needed} {}",
            spec.name,
            fit.len(),
            view.drives.len(),
            match spec.disks.pick {
                Some(DrivePick::Smallest) => "smallest taken",
                Some(DrivePick::Largest) => "largest taken",
                Some(DrivePick::First) => "first taken",
                None => "needed",
            }
        ));
        fit.truncate(needed);
        fit
    };
    check_alike(&name, &drives)?;
    // The last of them stand by: with `smallest` and `largest` alike no spare is smaller than the smallest member.
    if spec.disks.pick == Some(DrivePick::Largest) && spec.hot_spares > 0 {
        drives.rotate_left(spec.hot_spares);
    }
    let spares: Vec<Drive> = drives.split_off(spec.disks.members()).into_iter().cloned().collect();
    let least = smallest(&drives);
    if let Some(spare) = spares.iter().find(|s| s.size.most() < least) {
        return Err(Refusal::Drive {
            volume: name,
            drive: spare.slot.clone(),
            reason: "is too small to stand by".into(),
        });
    }
    let capacity = spec.level.capacity(drives.len(), least);
    let size = match spec.size {
        VolumeSize::Rest => None,
        VolumeSize::Bytes(wanted) if wanted.0 > capacity => {
            return Err(Refusal::TooLarge { volume: name, wanted, capacity: Bytes(capacity) });
        }
        VolumeSize::Bytes(wanted) => Some(wanted),
    };
    let wasted: u64 = drives.iter().map(|d| d.size.bytes - least).sum();
    if size.is_none() && wasted > least / 100 {
        reasons.push(format!("{:?}: its drives are of different sizes; {} stay unused", spec.name, Bytes(wasted)));
    }
    Ok(NewVolume {
        name: spec.name.clone(),
        level: spec.level,
        drives: drives.into_iter().cloned().collect(),
        spares,
        expected: size.unwrap_or(Bytes(capacity)),
        size,
        cache: spec.cache,
        strip_kib: spec.strip_kib,
    })
}

/// Why no volume can be made of a drive, by what it is now.
fn unusable(drive: &Drive, teardown: bool) -> Option<String> {
    if drive.serial.is_empty() {
        return Some("has no serial number, so nobody could say later which it was".into());
    }
    match &drive.state {
        DriveState::Free => None,
        DriveState::Unusable(said) => Some(format!("cannot be used: {said}")),
        // A teardown deletes volumes; whether that frees their spares no published output shows.
        DriveState::Spare => Some("is a spare; free it with the controller's own tool".into()),
        _ if teardown => None,
        state => Some(format!("is {state}")),
    }
}

/// Controllers take drives of different kinds into one volume, or do not, each in its own way; here it is not done.
fn check_alike(volume: &str, drives: &[&Drive]) -> Result<(), Refusal> {
    let Some((first, others)) = drives.split_first() else { return Ok(()) };
    for other in others {
        let reason = if first.media != other.media {
            "one is an SSD, the other is not"
        } else if first.interface != other.interface {
            "their interfaces differ"
        } else if first.sector != other.sector {
            "their sector sizes differ"
        } else {
            continue;
        };
        return Err(Refusal::Mixed {
            volume: volume.to_owned(),
            one: first.slot.clone(),
            other: other.slot.clone(),
            reason: reason.into(),
        });
    }
    Ok(())
}

fn boot(task: &HardwareRaidTask, view: &View, goal: &mut Goal) {
    let Some(spec) = task.volumes.iter().find(|v| v.boot) else { return };
    let stands = goal.already.iter().find(|(name, _)| *name == spec.name).map(|(_, id)| id);
    if stands.is_none() || stands != view.controller.boots.as_ref() {
        goal.boot = Some(spec.name.clone());
    }
}

/// Why a drive does not have what a choice asks for.
trait Differs {
    fn differs(&self, drive: &Drive) -> Option<String>;
}

impl Differs for DriveChoice {
    fn differs(&self, drive: &Drive) -> Option<String> {
        if self.names_drives()
            && !self.slots.contains(&drive.slot)
            && !self.serials.iter().any(|s| s.eq_ignore_ascii_case(&drive.serial))
        {
            return Some("is not one of those that are named".into());
        }
        if self.media.is_some() && self.media != drive.media {
            return Some(drive.media.map_or("does not say what medium it has".into(), |m| format!("is of {m:?}")));
        }
        if self.interface.is_some() && self.interface != drive.interface {
            return Some(drive.interface.map_or("does not say its interface".into(), |i| format!("is on {i:?}")));
        }
        if let Some(model) = &self.model
            && !model.trim().eq_ignore_ascii_case(drive.model.trim())
        {
            return Some(format!("is a {:?}", drive.model.trim()));
        }
        // By the printed size, which is rounded: a drive that may be large enough is.
        if self.min_size.is_some_and(|min| drive.size.most() < min.0) {
            return Some(format!("has only {}", Bytes(drive.size.bytes)));
        }
        if self.max_size.is_some_and(|max| drive.size.least() > max.0) {
            return Some(format!("has {}", Bytes(drive.size.bytes)));
        }
        None
    }
}

#[cfg(test)]
mod tests;

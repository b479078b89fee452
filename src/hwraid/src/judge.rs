//! Whether a controller now shows what was to be done.

use std::fmt;

use crate::goal::{Goal, NewVolume};
use crate::view::{DriveState, Level, View, Volume, VolumeState};
use speediso_model::hardware_raid::WriteCache;
use speediso_model::units::{Bytes, MIB};

/// Something that is not as it should be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Missing(pub String);

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Compares the whole controller with the goal. `Ok` gives, in the order of the goal, the volume that each new one became.
///
/// # Errors
/// Everything that is not as it should be.
pub fn judge<'a>(goal: &Goal, before: &View, now: &'a View) -> Result<Vec<&'a Volume>, Vec<Missing>> {
    let mut missing = taken_away(goal, before, now, true);
    let mut made = Vec::new();
    for new in &goal.create {
        match find(new, now, goal.names) {
            Ok(volume) => made.push(volume),
            Err(why) => missing.push(why),
        }
    }
    for (name, id) in &goal.already {
        if !now.volumes.iter().any(|v| v.id == *id && v.state == VolumeState::Good) {
            missing.push(Missing(format!("volume {id}, which was {name:?}, is no longer there or no longer good")));
        }
    }
    for kept in &goal.kept {
        if !now.volumes.iter().any(|v| v.id == kept.id && v.members == kept.members && v.level == kept.level) {
            missing.push(Missing(format!("{kept}, which was to stay, is not there as it was")));
        }
    }
    let expected = goal.create.len() + goal.already.len() + goal.kept.len();
    if missing.is_empty() && now.volumes.len() != expected {
        missing.push(Missing(format!("{} volumes are there, {expected} were to be", now.volumes.len())));
    }
    if missing.is_empty() { Ok(made) } else { Err(missing) }
}

/// What a teardown was to take away and is still there, before anything new is made.
#[must_use]
pub fn torn_down(goal: &Goal, before: &View, now: &View) -> Vec<Missing> {
    taken_away(goal, before, now, false)
}

fn taken_away(goal: &Goal, before: &View, now: &View, made: bool) -> Vec<Missing> {
    let mut missing = Vec::new();
    if now.controller.serial != before.controller.serial {
        missing.push(Missing(format!("the controller is now {}, it was {}", now.controller, before.controller)));
    }
    for gone in &goal.delete {
        // A new volume may get the number of an old one, but not its name on the bus.
        let same = |v: &&Volume| v.id == gone.id && v.wwn == gone.wwn && v.members == gone.members;
        let is_new = |v: &Volume| made && goal.create.iter().any(|new| find_in(new, v, goal.names).is_ok());
        if now.volumes.iter().find(same).is_some_and(|v| gone.wwn.is_some() || !is_new(v)) {
            missing.push(Missing(format!("{gone} is still there")));
        }
    }
    if !goal.clear_foreign.is_empty() {
        let drives = now.drives.iter().filter(|d| d.state == DriveState::Foreign).map(|d| format!("on drive {d}"));
        let left = now.foreign.iter().map(|f| f.what.clone()).chain(drives);
        missing.extend(left.map(|what| Missing(format!("a foreign configuration is still there: {what}"))));
    }
    if goal.discard_cache && now.controller.preserved_cache {
        missing.push(Missing("the cache still keeps data of volumes that are gone".into()));
    }
    for drive in &goal.make_good {
        if now.drive(&drive.slot).is_none_or(|d| d.serial != drive.serial || d.state == DriveState::Jbod) {
            missing.push(Missing(format!("drive {drive} is still handed through, or gone")));
        }
    }
    missing
}

/// The volume that lies on exactly these drives; no other can be the new one.
fn find<'a>(new: &NewVolume, now: &'a View, names: bool) -> Result<&'a Volume, Missing> {
    for drive in new.drives.iter().chain(&new.spares) {
        let found = now.drive(&drive.slot).map(|d| d.serial.as_str());
        if found != Some(drive.serial.as_str()) {
            let seen = found.map_or("nothing".to_owned(), |s| format!("serial {s}"));
            return Err(Missing(format!("in slot {} is {seen}, it was serial {}", drive.slot, drive.serial)));
        }
    }
    let slots = sorted(&new.slots());
    let on_them: Vec<&Volume> = now.volumes.iter().filter(|v| sorted(&v.members) == slots).collect();
    let [volume] = on_them.as_slice() else {
        return Err(Missing(format!("{} volumes lie on the drives of {:?}", on_them.len(), new.name)));
    };
    find_in(new, volume, names)?;
    if let Some(spare) = new.spares.iter().find(|s| now.drive(&s.slot).is_none_or(|d| d.state != DriveState::Spare)) {
        return Err(Missing(format!("drive {spare} is no spare")));
    }
    Ok(volume)
}

fn find_in(new: &NewVolume, volume: &Volume, names: bool) -> Result<(), Missing> {
    let wrong = |what: String| Err(Missing(format!("{volume}, made for {:?}: {what}", new.name)));
    if names && volume.name != new.name {
        return wrong("it has another name".into());
    }
    if sorted(&volume.members) != sorted(&new.slots()) {
        return wrong("it lies on other drives".into());
    }
    if volume.level != Level::Known(new.level) {
        return wrong(format!("it is {}, not {}", volume.level, new.level));
    }
    if let VolumeState::Bad(state) = &volume.state {
        return wrong(format!("its state is {state}"));
    }
    if !is_size(volume, new.expected.0, new.drives.len()) {
        return wrong(format!("it has {}, not {}", Bytes(volume.size.bytes), new.expected));
    }
    if let Some(reason) = other_settings(volume, new.cache, new.strip_kib) {
        return wrong(reason);
    }
    Ok(())
}

/// Why a volume does not have the settings wished for. One that does not show them is not believed to have them.
pub(crate) fn other_settings(volume: &Volume, cache: Option<WriteCache>, strip_kib: Option<u32>) -> Option<String> {
    if let Some(wanted) = cache {
        match volume.write_back {
            None => return Some("it does not show its write cache".into()),
            Some(write_back) if write_back != (wanted == WriteCache::WriteBack) => {
                return Some(format!("its cache is {}", if write_back { "write back" } else { "write through" }));
            }
            Some(_) => {}
        }
    }
    match (strip_kib, volume.strip_kib) {
        (Some(_), None) => Some("it does not show its strips".into()),
        (Some(wanted), Some(found)) if wanted != found => Some(format!("its strips have {found} KiB, not {wanted}")),
        _ => None,
    }
}

/// Whether a volume has the size that was expected. Controllers round to whole strips and keep something for
/// themselves on each drive: 2 % and 64 MiB a drive are given away, and what printing rounded.
#[must_use]
pub(crate) fn is_size(volume: &Volume, expected: u64, drives: usize) -> bool {
    let drives = u64::try_from(drives).unwrap_or(u64::MAX);
    let slack = (expected / 50).saturating_add(drives.saturating_mul(64 * MIB));
    volume.size.least() <= expected.saturating_add(slack) && volume.size.most() >= expected.saturating_sub(slack)
}

fn sorted(slots: &[String]) -> Vec<String> {
    let mut slots = slots.to_vec();
    slots.sort();
    slots
}

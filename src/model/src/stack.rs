//! What stands on the disks of a machine: partitions, arrays, mapped devices, caches, file systems; and in which order it
//! can be taken down.
//!
//! The kernel's own description, as a graph: each device knows what it stands on. A disk stands on nothing. Everything
//! here is pure, so that it can be tried on machines that nobody has.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::fault::{Fault, FaultCode};

/// What a device of the stack is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum What {
    Disk,
    Partition,
    /// md, also one that never started and a container of arrays (DDF, IMSM).
    Array {
        level: String,
        metadata: String,
        state: String,
    },
    /// Device mapper: LVM, LUKS, multipath, dmraid.
    Mapped {
        name: String,
        uuid: String,
        targets: Vec<String>,
    },
    /// A disk with a cache before it (bcache).
    Cached,
    /// The caches of such disks, which the kernel knows by a UUID only.
    CacheSet,
    /// Registered with bcache, without its cache: nothing to be seen above it.
    CacheWaiting,
    /// A mounted btrfs, which has a number of its own whatever it stands on.
    Btrfs,
    Loop {
        file: String,
    },
    /// Nothing we know how to stop.
    Other,
}

/// A place where a file system is mounted.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Mounted {
    /// The later one may hide, or stand in, the earlier one.
    pub order: usize,
    pub at: String,
}

/// One device.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Device {
    /// The kernel's, without `/dev/`; unique.
    pub name: String,
    /// `major:minor`; empty for what has none.
    pub number: String,
    pub what: What,
    /// What it stands on, by name.
    pub on: BTreeSet<String>,
    pub mounts: Vec<Mounted>,
    /// Devices and files on it that are swapped to.
    pub swaps: Vec<String>,
    /// The live system runs from it.
    pub live: bool,
}

impl Device {
    #[must_use]
    pub fn new(name: &str, what: What, on: impl IntoIterator<Item = String>) -> Self {
        Self {
            name: name.to_owned(),
            number: String::new(),
            what,
            on: on.into_iter().collect(),
            mounts: Vec::new(),
            swaps: Vec::new(),
            live: false,
        }
    }

    /// Whether it is the same device still: what may change while it is taken down is left out.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        let same_kind = match (&self.what, &other.what) {
            (What::Array { level, metadata, .. }, What::Array { level: l, metadata: m, .. }) => {
                level == l && metadata == m
            }
            (What::Mapped { name, uuid, .. }, What::Mapped { name: n, uuid: u, .. }) => name == n && uuid == u,
            (one, other) => one == other,
        };
        same_kind && self.number == other.number && self.on == other.on
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let on = || self.on.iter().map(String::as_str).collect::<Vec<_>>().join(" and ");
        match &self.what {
            What::Disk => write!(f, "disk {}", self.name),
            What::Partition => write!(f, "partition {}", self.name),
            What::Array { level, metadata, state } => {
                // One that has not started has no level yet.
                let level = match level.as_str() {
                    "" if metadata.starts_with("external:") => "container",
                    "" => "level unknown",
                    level => level,
                };
                write!(f, "array {} ({level}, metadata {metadata}, {state}) on {}", self.name, on())
            }
            What::Mapped { name, uuid, targets } => {
                let owner = match uuid.split_once('-').map(|(owner, _)| owner) {
                    Some("LVM") => "LVM, ",
                    Some("CRYPT") => "encryption, ",
                    Some("mpath") => "multipath, ",
                    Some("DMRAID") => "dmraid, ",
                    _ => "",
                };
                // The name is whatever its maker liked: quoted, so that it cannot pass for something else.
                write!(f, "mapped device {} ({owner}{}, {name:?}) on {}", self.name, targets.join(" and "), on())
            }
            What::Cached => write!(f, "cached disk {} (bcache) on {}", self.name, on()),
            What::CacheSet => write!(f, "{} (caches of bcache) on {}", self.name, on()),
            What::CacheWaiting => write!(f, "{} (bcache without its cache)", self.name),
            What::Btrfs => write!(f, "{} on {}", self.name, on()),
            What::Loop { file } => write!(f, "loop device {} over {file:?}", self.name),
            What::Other => write!(f, "{} on {}", self.name, on()),
        }
    }
}

/// One thing to do. What it is done to is the device of its step.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Act {
    SwapOff {
        of: String,
    },
    Unmount {
        at: String,
    },
    /// Stop, remove, unregister: whatever the kind of the device calls it.
    Stop,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Step {
    pub act: Act,
    pub device: Device,
    /// The disks below, by name.
    pub disks: BTreeSet<String>,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.act {
            Act::SwapOff { of } => write!(f, "stop swapping to {of}"),
            Act::Unmount { at } => write!(f, "unmount {at} ({})", self.device.name),
            Act::Stop => write!(f, "take down {}", self.device),
        }
    }
}

/// All of them.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Stack {
    devices: BTreeMap<String, Device>,
}

impl FromIterator<Device> for Stack {
    fn from_iter<T: IntoIterator<Item = Device>>(devices: T) -> Self {
        Self { devices: devices.into_iter().map(|device| (device.name.clone(), device)).collect() }
    }
}

impl Stack {
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Device> {
        self.devices.get(name)
    }

    /// What stands directly on it.
    pub fn above<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Device> {
        self.devices.values().filter(move |device| device.on.contains(name))
    }

    /// Everything that stands on these, themselves included.
    #[must_use]
    pub fn over(&self, names: &BTreeSet<String>) -> BTreeSet<String> {
        self.spread(names, |name| self.above(name).map(|device| device.name.clone()).collect())
    }

    /// Everything that these stand on, themselves included.
    #[must_use]
    pub fn under(&self, names: &BTreeSet<String>) -> BTreeSet<String> {
        self.spread(names, |name| {
            self.devices.get(name).map(|device| device.on.iter().cloned().collect()).unwrap_or_default()
        })
    }

    fn spread(&self, from: &BTreeSet<String>, next: impl Fn(&str) -> Vec<String>) -> BTreeSet<String> {
        let mut reached = from.clone();
        let mut open: Vec<String> = from.iter().cloned().collect();
        while let Some(name) = open.pop() {
            open.extend(next(&name).into_iter().filter(|found| reached.insert(found.clone())));
        }
        reached
    }

    fn disks_under(&self, name: &str) -> BTreeSet<String> {
        let mut under = self.under(&BTreeSet::from([name.to_owned()]));
        // What a device stands on and nobody describes is taken for a disk, so that it is missed among those named.
        under.retain(|name| self.devices.get(name).is_none_or(|device| device.what == What::Disk));
        under
    }

    /// How to take down everything that stands on the `named` disks, from the top.
    ///
    /// # Errors
    /// When it reaches a disk that is not named, the live system, a mount that must not go, or something that we
    /// cannot stop. Whatever is in the way is named.
    pub fn take_down(&self, named: &BTreeSet<String>, unmount: bool) -> Result<Vec<Step>, Fault> {
        let order = self.sorted_downwards(&self.over(named))?;
        self.refuse(&order, named, unmount)?;
        let step = |device: &Device, act| Step { act, device: device.clone(), disks: self.disks_under(&device.name) };

        // A swap file keeps its mount, and a mount may stand in another of any device.
        let swaps = order.iter().flat_map(|device| {
            device.swaps.iter().map(|of| step(device, Act::SwapOff { of: of.clone() })).collect::<Vec<_>>()
        });
        let mut mounts: Vec<(&Mounted, &Device)> =
            order.iter().flat_map(|device| device.mounts.iter().map(|mount| (mount, *device))).collect();
        mounts.sort_by_key(|(mount, _)| std::cmp::Reverse(mount.order));
        let unmounts = mounts.into_iter().map(|(mount, device)| step(device, Act::Unmount { at: mount.at.clone() }));
        let stops = order
            .iter()
            .filter(|device| !matches!(device.what, What::Disk | What::Partition | What::Btrfs))
            .map(|device| step(device, Act::Stop));
        Ok(swaps.chain(unmounts).chain(stops).collect())
    }

    fn refuse(&self, order: &[&Device], named: &BTreeSet<String>, unmount: bool) -> Result<(), Fault> {
        let reached = |device: &Device, code, why: String| Err(Fault::new(code, why).because(device.to_string()));
        for device in order {
            if device.live {
                return reached(device, FaultCode::DiskInUse, format!("the live system runs from {}", device.name));
            }
            let mut others: Vec<String> = self.disks_under(&device.name).difference(named).cloned().collect();
            if !others.is_empty() {
                others.sort();
                let (others, s) = (others.join(", "), if others.len() == 1 { "" } else { "s" });
                return reached(
                    device,
                    FaultCode::DiskInUse,
                    format!(
                        "{} also stands on disk{s} {others}, not named in the task; nothing was changed",
                        device.name
                    ),
                );
            }
            match &device.what {
                What::Loop { file } => {
                    return reached(
                        device,
                        FaultCode::DiskInUse,
                        format!("loop device {} reads {file:?}, which lies there: detach it first", device.name),
                    );
                }
                What::Other => {
                    return reached(
                        device,
                        FaultCode::Unsupported,
                        format!("{} stands there, which this version cannot take down", device.name),
                    );
                }
                What::Btrfs if device.mounts.is_empty() => {
                    return reached(
                        device,
                        FaultCode::DiskInUse,
                        format!("{} is mounted where this process does not see it", device.name),
                    );
                }
                _ => {}
            }
            if let (Some(mount), false) = (device.mounts.first(), unmount) {
                return reached(
                    device,
                    FaultCode::DiskInUse,
                    format!("{} is mounted at {}: unmount it, or set `unmount` in the task", device.name, mount.at),
                );
            }
        }
        Ok(())
    }

    /// Sorted such that whatever stands on a device comes before it.
    fn sorted_downwards(&self, names: &BTreeSet<String>) -> Result<Vec<&Device>, Fault> {
        let mut left: BTreeMap<&str, &Device> =
            names.iter().filter_map(|name| self.devices.get_key_value(name)).map(|(k, v)| (k.as_str(), v)).collect();
        let mut order = Vec::new();
        while !left.is_empty() {
            let free: Vec<&str> =
                left.keys().filter(|name| !left.values().any(|other| other.on.contains(**name))).copied().collect();
            if free.is_empty() {
                let names = left.keys().copied().collect::<Vec<_>>().join(", ");
                return Err(Fault::new(FaultCode::Internal, format!("each of {names} stands on another of them")));
            }
            order.extend(free.iter().filter_map(|name| left.remove(name)));
        }
        Ok(order)
    }
}

#[cfg(test)]
mod tests;

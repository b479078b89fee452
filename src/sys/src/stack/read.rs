//! Reading it.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use speediso_model::stack::{Device, Mounted, Stack, What};

use super::{number, number_at, unescaped};
use crate::disks::{self, DiskScope};
use crate::dm;
use crate::roots::{Roots, read_line, read_number};

/// Everything that stands on anything, and the disks.
///
/// # Errors
/// When the devices or the mounts cannot be listed.
pub fn read(roots: &Roots, scope: DiskScope) -> io::Result<Stack> {
    let mut reader = Reader { roots, scope, mapper: dm::Control::open(roots).ok(), devices: Vec::new() };
    reader.devices()?;
    reader.caches();
    reader.spanning_file_systems();
    let mounts = reader.mounts()?;
    reader.swaps(&mounts)?;
    reader.loops(&mounts);
    Ok(reader.devices.into_iter().collect())
}

struct Reader<'a> {
    roots: &'a Roots,
    scope: DiskScope,
    mapper: Option<dm::Control>,
    devices: Vec<Device>,
}

/// A line of proc_pid_mountinfo(5).
struct Mount {
    number: String,
    at: String,
    source: String,
}

impl Reader<'_> {
    fn devices(&mut self) -> io::Result<()> {
        let block = self.roots.sys.join("block");
        for entry in std::fs::read_dir(&block)? {
            let Ok(name) = entry?.file_name().into_string() else { continue };
            let dir = block.join(&name);
            // Paths of a multipath NVMe namespace.
            if read_number(&dir.join("hidden")) == Some(1) {
                continue;
            }
            let device = self.whole(&name, &dir);
            self.devices.push(device);
            for part in names(&dir).into_iter().filter(|part| dir.join(part).join("partition").exists()) {
                let mut device = Device::new(&part, What::Partition, [name.clone()]);
                device.number = read_line(&dir.join(&part).join("dev")).unwrap_or_default();
                self.devices.push(device);
            }
        }
        Ok(())
    }

    fn whole(&self, name: &str, dir: &Path) -> Device {
        let text = |file: &str| read_line(&dir.join(file)).unwrap_or_default();
        let mut on: BTreeSet<String> = names(&dir.join("slaves")).into_iter().collect();
        let number = text("dev");
        let what = if disks::is_disk(name, self.scope) {
            on.clear();
            What::Disk
        } else if dir.join("md").is_dir() {
            on.extend(names(&dir.join("md")).iter().filter_map(|file| file.strip_prefix("dev-").map(str::to_owned)));
            let metadata = text("md/metadata_version");
            // `external:/md127/0`, or with a minus for a slash while it is read-only: an array inside a container.
            let container = metadata.strip_prefix("external:").and_then(|path| path.strip_prefix(['/', '-']));
            on.extend(container.and_then(|path| path.split('/').next()).map(str::to_owned));
            What::Array { level: text("md/level"), metadata, state: text("md/array_state") }
        } else if dir.join("dm").is_dir() {
            let targets = self.mapper.as_ref().zip(self::number(&number));
            let targets = targets.and_then(|(mapper, number)| mapper.targets(number).ok()).unwrap_or_default();
            What::Mapped { name: text("dm/name"), uuid: text("dm/uuid"), targets }
        } else if name.starts_with("bcache") {
            on.extend(link(&dir.join("bcache/cache")).map(|set| format!("bcache/{set}")));
            What::Cached
        } else if name.starts_with("loop") {
            What::Loop { file: text("loop/backing_file") }
        } else {
            What::Other
        };
        let mut device = Device::new(name, what, on);
        device.number = number;
        device
    }

    /// Caches, and disks that wait for theirs, are seen only from the devices below them.
    fn caches(&mut self) {
        let mut found: Vec<Device> = Vec::new();
        for below in &self.devices {
            let dir = self.directory(&below.name).join("bcache");
            if below.what == What::Cached || !dir.is_dir() {
                continue;
            }
            if let Some(set) = link(&dir.join("set")) {
                let name = format!("bcache/{set}");
                match found.iter_mut().find(|device| device.name == name) {
                    Some(set) => drop(set.on.insert(below.name.clone())),
                    None => found.push(Device::new(&name, What::CacheSet, [below.name.clone()])),
                }
            } else if !self.devices.iter().any(|d| d.what == What::Cached && d.on.contains(&below.name)) {
                let name = format!("bcache/{}", below.name);
                found.push(Device::new(&name, What::CacheWaiting, [below.name.clone()]));
            }
        }
        self.devices.extend(found);
    }

    /// In sysfs: `block/NAME`, or below its disk for a partition.
    fn directory(&self, name: &str) -> PathBuf {
        self.roots.sys.join("class/block").join(name)
    }

    fn spanning_file_systems(&mut self) {
        let dir = self.roots.sys.join("fs/btrfs");
        for uuid in names(&dir) {
            let on = names(&dir.join(&uuid).join("devices"));
            if !on.is_empty() {
                self.devices.push(Device::new(&format!("btrfs/{uuid}"), What::Btrfs, on));
            }
        }
    }

    fn mounts(&mut self) -> io::Result<Vec<Mount>> {
        let text = std::fs::read_to_string(self.roots.proc.join("self/mountinfo"))?;
        let mounts: Vec<Mount> = text.lines().filter_map(Mount::parse).collect();
        let exe = std::fs::read_link(self.roots.proc.join("self/exe")).unwrap_or_default();
        // The one that hides the others there is the last.
        let ours = mounts.iter().rposition(|mount| {
            let longer = |other: &Mount| exe.starts_with(&other.at) && other.at.len() > mount.at.len();
            exe.starts_with(&mount.at) && !mounts.iter().any(longer)
        });
        for (order, mount) in mounts.iter().enumerate() {
            let Some(index) = self.index_of(mount) else { continue };
            self.devices[index].live |= mount.at == "/" || ours == Some(order);
            self.devices[index].mounts.push(Mounted { order, at: mount.at.clone() });
        }
        Ok(mounts)
    }

    /// The device of a mount. btrfs has a number that no device has; what it was mounted by is one of its devices.
    fn index_of(&self, mount: &Mount) -> Option<usize> {
        let by_number = |number: &str| self.devices.iter().position(|device| device.number == number);
        let index = by_number(&mount.number).or_else(|| {
            let source = Path::new(&mount.source).strip_prefix(&self.roots.dev).ok()?;
            let name = source.to_str()?.replace('/', "!");
            let by_name = self.devices.iter().position(|device| device.name == name);
            by_name.or_else(|| by_number(&number_at(Path::new(&mount.source))?))
        })?;
        let name = &self.devices[index].name;
        let spans = |device: &Device| device.what == What::Btrfs && device.on.contains(name);
        Some(self.devices.iter().position(spans).unwrap_or(index))
    }

    fn swaps(&mut self, mounts: &[Mount]) -> io::Result<()> {
        let text = match std::fs::read_to_string(self.roots.proc.join("swaps")) {
            // A kernel without swap has no such file.
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            read => read?,
        };
        for path in text.lines().skip(1).filter_map(|line| line.split_whitespace().next()).map(unescaped) {
            let name = Path::new(&path).strip_prefix(&self.roots.dev).ok().and_then(Path::to_str);
            let by_name = name.and_then(|name| self.devices.iter().position(|device| device.name == name));
            if let Some(index) = by_name.or_else(|| self.index_at(&path, mounts)) {
                self.devices[index].swaps.push(path);
            }
        }
        Ok(())
    }

    fn loops(&mut self, mounts: &[Mount]) {
        for index in 0..self.devices.len() {
            let What::Loop { file } = &self.devices[index].what else { continue };
            let Some(below) = self.index_at(file, mounts) else { continue };
            let below = self.devices[below].name.clone();
            self.devices[index].on.insert(below);
        }
    }

    /// The device that a path leads to, or on whose file system it lies.
    fn index_at(&self, path: &str, mounts: &[Mount]) -> Option<usize> {
        let number = number_at(Path::new(path))?;
        let by_number = self.devices.iter().position(|device| device.number == number);
        by_number.or_else(|| mounts.iter().find(|mount| mount.number == number).and_then(|mount| self.index_of(mount)))
    }
}

impl Mount {
    fn parse(line: &str) -> Option<Self> {
        let (mount, filesystem) = line.split_once(" - ")?;
        let mut fields = mount.split(' ').skip(2);
        let (number, at) = (fields.next()?.to_owned(), unescaped(fields.nth(1)?));
        Some(Self { number, at, source: unescaped(filesystem.split(' ').nth(1)?) })
    }
}

/// In order, so that the same machine reads the same.
fn names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    names
}

fn link(path: &Path) -> Option<String> {
    std::fs::read_link(path).ok()?.file_name()?.to_str().map(str::to_owned)
}

#[cfg(test)]
#[path = "read_tests.rs"]
mod tests;

//! Which disks there are, from sysfs.
//!
//! Only whole disks that could hold a system: no partitions, no dm, zram, ram or optical drives, and of md only the arrays
//! that tasks of this boot made or assembled. What stands on a disk is reported as a reason for which it is not free.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use speediso_model::inventory::{Disk, Transport, Use};
use speediso_model::raid_volume;
use speediso_model::units::Bytes;

use crate::md::KnownArray;
use crate::roots::{Roots, read_line, read_number};
use crate::{by_path, disk_link, ioctl, live, pci, sysfs};

/// Which kinds of disk count.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct DiskScope {
    /// Loop devices too: for tests and for trying things on a workstation.
    pub loops: bool,
}

/// Its length has sixteen bits; serial numbers have some twenty bytes.
const VPD_LIMIT: u64 = 4096;

/// sysfs counts in sectors of 512 bytes, whatever the device's own size is.
const SYSFS_SECTOR: u64 = 512;

/// All disks, in the order of their names.
///
/// # Errors
/// When `/sys/block` cannot be listed. A disk whose attributes are missing is listed with what there is.
pub fn read(roots: &Roots, scope: DiskScope) -> io::Result<Vec<Disk>> {
    let mut names: Vec<String> = std::fs::read_dir(roots.sys.join("block"))?
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| is_disk(name, scope))
        // Paths of a multipath NVMe namespace, which have no device node of their own.
        .filter(|name| read_number(&roots.sys.join("block").join(name).join("hidden")) != Some(1))
        // A loop device without a file, a card reader without a card: nothing to choose, so nothing more is read of it.
        // A disk that cannot even tell its size is there all the same.
        .filter(|name| read_number(&roots.sys.join("block").join(name).join("size")) != Some(0))
        .chain(KnownArray::all(roots).into_iter().map(|array| array.device))
        .collect();
    names.sort();
    let uses = Uses::read(roots)?;
    let mut disks: Vec<Disk> = names.iter().map(|name| read_one(roots, name, &uses)).collect();
    live::mark(roots, &mut disks);
    Ok(disks)
}

pub(crate) fn is_disk(name: &str, scope: DiskScope) -> bool {
    let prefix = name.trim_end_matches(|c: char| c.is_ascii_digit());
    match prefix {
        "loop" => scope.loops,
        "md" | "dm-" | "zram" | "ram" | "sr" | "fd" | "nbd" | "zd" | "bcache" | "drbd" => false,
        // Boot and replay-protected areas of eMMC stand beside the disk; multipath members hide behind their head.
        _ => !(name.starts_with("mmcblk") && (name.contains("boot") || name.contains("rpmb"))),
    }
}

/// The disk behind an open descriptor: whatever sysfs says of the device number that the descriptor really has, with
/// size, sector size and sequence number from the descriptor itself.
///
/// # Errors
/// When it is not a whole disk, or has gone.
pub fn identify(roots: &Roots, file: &File) -> io::Result<Disk> {
    let rdev = file.metadata()?.rdev();
    let (major, minor) = (nix::sys::stat::major(rdev), nix::sys::stat::minor(rdev));
    let link = roots.sys.join(format!("dev/block/{major}:{minor}"));
    let dir = std::fs::canonicalize(&link)?;
    let name = dir
        .file_name()
        .and_then(|n| n.to_str())
        .filter(|name| roots.sys.join("block").join(name).exists())
        .ok_or_else(|| io::Error::other(format!("device {major}:{minor} is not a whole disk")))?;
    let mut disk = read_one(roots, name, &Uses::read(roots)?);
    disk.size = Bytes(ioctl::size_in_bytes(file)?);
    disk.logical_sectors = ioctl::logical_sector_size(file)?;
    disk.physical_sectors = ioctl::physical_sector_size(file)?;
    disk.diskseq = ioctl::disk_sequence(file).or(disk.diskseq);
    Ok(disk)
}

fn read_one(roots: &Roots, name: &str, uses: &Uses) -> Disk {
    let dir = roots.sys.join("block").join(name);
    let device = dir.join("device");
    let text = |path: PathBuf| read_line(&path).unwrap_or_default();
    let tran = transport(&dir, name);
    let is_loop = tran == Transport::Loop;
    let serial = match tran {
        // A loop device has no serial number: its file is what it is.
        Transport::Loop => text(dir.join("loop/backing_file")),
        Transport::Virtio => text(dir.join("serial")),
        _ => read_line(&device.join("serial")).or_else(|| vpd_serial(&device)).unwrap_or_default(),
    };
    let array = name.starts_with("md").then(|| KnownArray::all(roots).into_iter().find(|a| a.device == name)).flatten();
    let wwn = read_line(&dir.join("wwid")).or_else(|| read_line(&device.join("wwid"))).filter(|w| is_wwn(w));
    let mut disk = Disk {
        name: roots.dev.join(name.replace('!', "/")).display().to_string(),
        model: if is_loop { String::new() } else { text(device.join("model")) },
        vendor: if is_loop { String::new() } else { vendor(&device) },
        serial: printable(&serial),
        wwn: wwn.map(|w| printable(&w)),
        firmware: read_line(&device.join("firmware_rev"))
            .or_else(|| read_line(&device.join("rev")))
            .unwrap_or_default(),
        size: Bytes(read_number(&dir.join("size")).unwrap_or(0).saturating_mul(SYSFS_SECTOR)),
        rotational: read_number(&dir.join("queue/rotational")) == Some(1),
        removable: read_number(&dir.join("removable")) == Some(1),
        read_only: read_number(&dir.join("ro")) == Some(1),
        logical_sectors: sector(&dir.join("queue/logical_block_size")),
        physical_sectors: sector(&dir.join("queue/physical_block_size")),
        tran,
        by_path: by_path(roots, name),
        hctl: hctl(&device),
        diskseq: read_number(&dir.join("diskseq")),
        in_use: uses.of(roots, name),
        link: disk_link::of_disk(roots, name),
        ..Disk::default()
    }
    .with_wwn_forms();
    let driver = pci::driver_of_disk(roots, name);
    disk.raid_volume = raid_volume::recognise(&disk, driver.as_deref()).map(str::to_owned);
    match array {
        Some(array) => array.as_disk(disk),
        None => disk,
    }
}

fn sector(path: &Path) -> u32 {
    read_number(path).and_then(|n| u32::try_from(n).ok()).unwrap_or(512)
}

fn vendor(device: &Path) -> String {
    // libata says "ATA" for every SATA disk, and virtio a PCI number: neither is a vendor.
    read_line(&device.join("vendor")).filter(|v| v != "ATA" && !v.starts_with("0x")).unwrap_or_default()
}

fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).collect::<String>().trim().to_owned()
}

/// `eui.`, `naa.`, `uuid.` and `nvme.` names are unique in the world; `t10.` ones only say vendor and model again.
fn is_wwn(text: &str) -> bool {
    ["eui.", "naa.", "uuid.", "nvme."].iter().any(|p| text.starts_with(p))
        && text.bytes().any(|b| b.is_ascii_digit() && b != b'0')
}

/// SCSI's unit serial number page (SPC-5, 7.7.20): four bytes of header, then text.
fn vpd_serial(device: &Path) -> Option<String> {
    let page = sysfs::bytes(&device.join("vpd_pg80"), VPD_LIMIT).ok()?;
    let [_, 0x80, high, low, serial @ ..] = page.as_slice() else { return None };
    let length = usize::from(u16::from_be_bytes([*high, *low]));
    let text = String::from_utf8_lossy(serial.get(..length).unwrap_or(serial));
    Some(printable(&text)).filter(|s| !s.is_empty())
}

fn transport(dir: &Path, name: &str) -> Transport {
    if name.starts_with("loop") {
        return Transport::Loop;
    }
    // The path of the device says through what it is attached.
    let path = std::fs::canonicalize(dir).unwrap_or_else(|_| dir.to_path_buf());
    let part = |test: &dyn Fn(&str) -> bool| path.components().any(|c| c.as_os_str().to_str().is_some_and(test));
    let numbered = |prefix: &'static str| {
        move |c: &str| c.strip_prefix(prefix).is_some_and(|rest| rest.starts_with(|d: char| d.is_ascii_digit()))
    };
    if name.starts_with("nvme") {
        Transport::Nvme
    } else if name.starts_with("mmcblk") {
        Transport::Mmc
    } else if part(&numbered("usb")) {
        Transport::Usb
    } else if part(&numbered("ata")) {
        Transport::Sata
    } else if part(&|c| c.starts_with("end_device-")) {
        Transport::Sas
    } else if part(&|c| c.starts_with("rport-")) {
        Transport::Fc
    } else if part(&numbered("session")) {
        Transport::Iscsi
    } else if name.starts_with("vd") && part(&numbered("virtio")) {
        Transport::Virtio
    } else if name.starts_with("sd") {
        Transport::Scsi
    } else {
        Transport::Unknown
    }
}

fn hctl(device: &Path) -> Option<String> {
    let target = std::fs::canonicalize(device).ok()?;
    let name = target.file_name()?.to_str()?;
    let numbers: Vec<&str> = name.split(':').collect();
    (numbers.len() == 4 && numbers.iter().all(|n| n.parse::<u64>().is_ok())).then(|| name.to_owned())
}

/// The same with and without a udev.
fn by_path(roots: &Roots, name: &str) -> Option<String> {
    if by_path::is_virtual(roots, name) {
        return None;
    }
    let id = by_path::id_path(roots, name)?;
    Some(roots.dev.join("disk/by-path").join(id).display().to_string())
}

/// Mounts and swaps of the whole system, read once.
struct Uses {
    mounts: Vec<Mount>,
    swaps: Vec<String>,
}

/// One line of proc_pid_mountinfo(5).
struct Mount {
    /// Of the device, as `major:minor`; btrfs and others that span devices have one of their own here.
    number: String,
    at: String,
    source: String,
}

impl Mount {
    fn parse(line: &str) -> Option<Self> {
        let (mount, filesystem) = line.split_once(" - ")?;
        let mut fields = mount.split(' ').skip(2);
        let (number, at) = (fields.next()?.to_owned(), fields.nth(1)?.to_owned());
        Some(Self { number, at, source: filesystem.split(' ').nth(1)?.to_owned() })
    }
}

impl Uses {
    /// What cannot be read is not taken for "nothing is mounted".
    fn read(roots: &Roots) -> io::Result<Self> {
        let mounts = sysfs::whole(&roots.proc.join("self/mountinfo"))?;
        // A kernel without swap has no such file.
        let swaps = match sysfs::whole(&roots.proc.join("swaps")) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => String::new(),
            read => read?,
        };
        Ok(Self {
            mounts: mounts.lines().filter_map(Mount::parse).collect(),
            swaps: swaps.lines().skip(1).filter_map(|l| Some(l.split_whitespace().next()?.to_owned())).collect(),
        })
    }

    fn of(&self, roots: &Roots, disk: &str) -> Vec<Use> {
        let dir = roots.sys.join("block").join(disk);
        let mut parts = vec![(disk.to_owned(), dir.clone())];
        for entry in std::fs::read_dir(&dir).into_iter().flatten().flatten() {
            if entry.path().join("partition").exists()
                && let Ok(name) = entry.file_name().into_string()
            {
                parts.push((name, entry.path()));
            }
        }
        parts.sort();
        let mut uses = Vec::new();
        for (name, dir) in parts {
            let device = roots.dev.join(name.replace('!', "/")).display().to_string();
            let number = read_line(&dir.join("dev"));
            let mounted = |m: &&Mount| Some(&m.number) == number.as_ref() || m.source == device;
            for mount in self.mounts.iter().filter(mounted) {
                uses.push(Use::Mounted { device: device.clone(), at: mount.at.clone() });
            }
            if self.swaps.contains(&device) {
                uses.push(Use::Swap { device: device.clone() });
            }
            let mut holders: Vec<String> = std::fs::read_dir(dir.join("holders"))
                .into_iter()
                .flatten()
                .filter_map(|e| e.ok()?.file_name().into_string().ok())
                .collect();
            holders.sort();
            uses.extend(holders.into_iter().map(|name| Use::Holder { device: device.clone(), name }));
        }
        uses
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// A machine's sysfs in a directory.
    struct Fixture {
        dir: tempfile::TempDir,
    }

    impl Fixture {
        fn new() -> Self {
            let dir = tempfile::tempdir().expect("a temporary directory");
            fs::create_dir_all(dir.path().join("sys/block")).expect("made");
            fs::create_dir_all(dir.path().join("proc/self")).expect("made");
            fs::write(dir.path().join("proc/self/mountinfo"), "").expect("written");
            Self { dir }
        }

        fn roots(&self) -> Roots {
            Roots::under(self.dir.path())
        }

        fn write(&self, path: &str, content: impl AsRef<[u8]>) {
            let path = self.dir.path().join(path);
            fs::create_dir_all(path.parent().expect("below the fixture")).expect("made");
            fs::write(path, content).expect("written");
        }

        /// A disk below `devices/`, linked from `block/` as the kernel does it.
        fn disk(&self, name: &str, parent: &str, attributes: &[(&str, &[u8])]) {
            let dir = format!("sys/devices/{parent}/block/{name}");
            self.write(&format!("{dir}/size"), "2048\n");
            for (file, content) in attributes {
                self.write(&format!("{dir}/{file}"), content);
            }
            std::os::unix::fs::symlink(self.dir.path().join(dir), self.dir.path().join(format!("sys/block/{name}")))
                .expect("linked");
        }
    }

    #[test]
    fn disks_are_read_and_the_rest_left_out() {
        let fixture = Fixture::new();
        fixture.disk(
            "sda",
            "pci0/ata1/host0/target0:0:0/0:0:0:0",
            &[
                ("device/model", b"Samsung SSD 860 \n"),
                ("device/vendor", b"ATA     \n"),
                ("device/vpd_pg80", b"\x00\x80\x00\x0a  S3Z9NB12\x00\x00"),
                ("device/wwid", b"naa.5002538e40f2a1b3\n"),
                ("device/rev", b"2B6Q\n"),
                ("queue/rotational", b"0\n"),
                ("queue/logical_block_size", b"512\n"),
                ("diskseq", b"9\n"),
            ],
        );
        fixture.disk(
            "nvme0n1",
            "pci0/nvme/nvme0",
            &[
                ("device/serial", b"PHLN1234 \n"),
                ("wwid", b"eui.01000000010000005cd2e4a1\n"),
                ("queue/logical_block_size", b"4096\n"),
            ],
        );
        fixture.disk("vda", "pci0/virtio1", &[("serial", b"DEMO-TARGET"), ("device/vendor", b"0x1af4\n")]);
        fixture.disk("sdb", "pci0/usb1/1-1/host4/target4:0:0/4:0:0:0", &[("removable", b"1\n"), ("ro", b"1\n")]);
        for hidden in ["md0", "dm-0", "zram0", "sr0", "loop0", "ram0", "mmcblk0boot0"] {
            fixture.disk(hidden, &format!("virtual/{hidden}x"), &[]);
        }
        fixture.disk("sdc", "pci0/usb2/host5/empty-reader", &[("size", b"0\n")]);

        let disks = read(&fixture.roots(), DiskScope::default()).expect("listed");
        let names: Vec<_> = disks.iter().map(|d| d.name.rsplit('/').next().unwrap_or_default()).collect();
        assert_eq!(names, ["nvme0n1", "sda", "sdb", "vda"]);
        let [nvme, sda, sdb, vda] = disks.as_slice() else { panic!("four disks") };
        assert_eq!((sda.serial.as_str(), sda.model.as_str(), sda.vendor.as_str()), ("S3Z9NB12", "Samsung SSD 860", ""));
        assert_eq!(
            (sda.tran, sda.wwn.as_deref(), sda.diskseq),
            (Transport::Sata, Some("naa.5002538e40f2a1b3"), Some(9))
        );
        assert_eq!((nvme.tran, nvme.serial.as_str(), nvme.logical_sectors), (Transport::Nvme, "PHLN1234", 4096));
        assert!(sdb.removable && sdb.read_only && sdb.tran == Transport::Usb);
        assert_eq!((vda.serial.as_str(), vda.tran, vda.vendor.as_str()), ("DEMO-TARGET", Transport::Virtio, ""));
        assert_eq!(vda.size, Bytes(2048 * 512));
    }

    #[test]
    fn whatever_stands_on_a_disk_is_seen() {
        let fixture = Fixture::new();
        fixture.disk(
            "sda",
            "pci0/host0",
            &[
                ("dev", b"8:0\n"),
                ("sda1/partition", b"1\n"),
                ("sda1/dev", b"8:1\n"),
                ("sda2/partition", b"2\n"),
                ("sda2/dev", b"8:2\n"),
                ("sda2/holders/md127/x", b""),
                ("sda3/partition", b"3\n"),
                ("sda3/dev", b"8:3\n"),
            ],
        );
        fixture.write("proc/self/mountinfo", "36 35 8:1 / /mnt/old rw,noatime shared:1 - ext4 /dev/sda1 rw\n");
        let swap = format!(
            "Filename Type Size Used Priority\n{} partition 1 0 -2\n",
            fixture.dir.path().join("dev/sda3").display()
        );
        fixture.write("proc/swaps", swap);
        let disks = read(&fixture.roots(), DiskScope::default()).expect("listed");
        let uses = &disks[0].in_use;
        assert!(matches!(&uses[0], Use::Mounted { at, .. } if at == "/mnt/old"), "{uses:?}");
        assert!(matches!(&uses[1], Use::Holder { name, .. } if name == "md127"), "{uses:?}");
        assert!(matches!(&uses[2], Use::Swap { device } if device.ends_with("sda3")), "{uses:?}");
    }

    #[test]
    fn names_that_identify_nothing_are_no_wwn() {
        assert!(is_wwn("naa.5002538e40f2a1b3") && is_wwn("eui.0025385a71b0a0c1"));
        assert!(!is_wwn("t10.ATA     QEMU HARDDISK   QM00001") && !is_wwn("eui.0000000000000000") && !is_wwn(""));
    }
}

//! What is built on the disks of one machine. In each script `$a`, `$b`, ... are the disks of the case.

pub(crate) mod fabric;
pub(crate) mod firmware;

use speediso_lab::Bus;

pub(crate) struct Kind {
    pub(crate) mib: u64,
    pub(crate) bus: Bus,
    pub(crate) sector: u32,
}

const NVME: Kind = Kind { mib: 64, bus: Bus::Nvme, sector: 512 };
const NVME_4K: Kind = Kind { mib: 64, bus: Bus::Nvme, sector: 4096 };
const AHCI: Kind = Kind { mib: 64, bus: Bus::Ahci, sector: 512 };
const SCSI: Kind = Kind { mib: 64, bus: Bus::Scsi, sector: 512 };
const VIRTIO: Kind = Kind { mib: 64, bus: Bus::Virtio, sector: 512 };
const LARGE: Kind = Kind { mib: 160, bus: Bus::Scsi, sector: 512 };

pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) disks: &'static [Kind],
    pub(crate) make: &'static str,
    /// Fails unless it stands.
    pub(crate) stands: &'static str,
    pub(crate) unmount: bool,
}

impl Case {
    pub(crate) fn serials(&self) -> Vec<String> {
        (b'A'..).take(self.disks.len()).map(|letter| format!("{}{}", self.name, char::from(letter))).collect()
    }

    pub(crate) fn script(&self) -> String {
        let disks = self.serials().into_iter().zip('a'..);
        let names: String = disks.map(|(serial, letter)| format!("{letter}=$(d {serial})\n")).collect();
        format!("{names}{}\n{}", self.make, self.stands)
    }
}

const fn case(name: &'static str, disks: &'static [Kind], make: &'static str, stands: &'static str) -> Case {
    Case { name, disks, make, stands, unmount: false }
}

const fn mounted(name: &'static str, disks: &'static [Kind], make: &'static str, stands: &'static str) -> Case {
    Case { name, disks, make, stands, unmount: true }
}

/// AHCI has six ports, and these come first.
pub(crate) fn cases() -> Vec<Case> {
    vec![
        mounted(
            "LUKS",
            &[AHCI],
            "echo -n secret | t cryptsetup luksFormat -q --type luks2 --pbkdf pbkdf2 --pbkdf-force-iterations 1000 $a -
             echo -n secret | t cryptsetup open --key-file - $a luks
             t mke2fs -q -t ext4 /dev/mapper/luks && mkdir -p /mnt/luks && mount -t ext4 /dev/mapper/luks /mnt/luks",
            "grep -q /mnt/luks /proc/mounts",
        ),
        case(
            "RAID1",
            &[AHCI, NVME],
            "md /dev/md101 -e 1.2 -l 1 -n 2 --assume-clean $a $b
             t sgdisk -n 1:2048:+8M -n 2:0:0 /dev/md101 && t mke2fs -q -t ext4 /dev/md101p2",
            "[ -e /sys/block/md101/md101p2 ]",
        ),
        case("RAID1-090", &[SCSI, SCSI], "md /dev/md102 -e 0.90 -l 1 -n 2 $a $b", "grep -q '^md102 : active' /proc/mdstat"),
        case(
            "STOPPED",
            &[SCSI, VIRTIO],
            "md /dev/md103 -e 1.0 -l 1 -n 2 --assume-clean $a $b && t mke2fs -q -t ext4 /dev/md103 && mdadm -q --stop /dev/md103",
            "! grep -q md103 /proc/mdstat",
        ),
        case(
            "RAID5",
            &[SCSI, SCSI, NVME],
            "md /dev/md104 -e 1.1 -l 5 -n 3 --assume-clean $a $b $c && mdadm -q /dev/md104 --fail $b",
            "grep -q '^md104 : active.*raid5' /proc/mdstat",
        ),
        case(
            "HALF",
            &[SCSI, SCSI, SCSI],
            "md /dev/md105 -e 1.2 -l 5 -n 3 --assume-clean $a $b $c && mdadm -q --stop /dev/md105
             echo md105 >/sys/module/md_mod/parameters/new_array
             echo 1.2 >/sys/block/md105/md/metadata_version && number $a >/sys/block/md105/md/new_dev",
            "grep -q '^md105 : inactive' /proc/mdstat",
        ),
        case(
            "RAID10",
            &[SCSI, SCSI],
            "for x in $a $b; do t sgdisk -n 1:2048:0 $x; w ${x}1; done
             md /dev/md106 -e 1.2 -l 10 -n 2 --assume-clean ${a}1 ${b}1 && mkswap /dev/md106 && swapon /dev/md106",
            "grep -q md106 /proc/swaps",
        ),
        case(
            "RAID0",
            &[SCSI, VIRTIO],
            "md /dev/md107 -e 1.2 -l 0 -n 2 $a $b && mdadm -q --readonly /dev/md107",
            "grep -q '^md107 : active (read-only)' /proc/mdstat",
        ),
        case(
            "CROSSED",
            &[SCSI, SCSI],
            "for x in $a $b; do t sgdisk -n 1:2048:+30M -n 2:0:0 $x; w ${x}2; done
             md /dev/md108 -e 1.2 -l 1 -n 2 --assume-clean ${a}1 ${b}1 && md /dev/md109 -e 1.1 -l 0 -n 2 ${a}2 ${b}2
             lvm pvcreate -qq -y /dev/md108 && lvm vgcreate -qq crossed /dev/md108 && lvm lvcreate -qq -y -Zn -Wn -L 8M -n one crossed
             echo -n secret | t cryptsetup luksFormat -q --type luks1 --pbkdf-force-iterations 1000 /dev/md109 -
             echo -n secret | t cryptsetup open --key-file - /dev/md109 crossed-luks",
            "[ -e /dev/mapper/crossed-one ] && [ -e /dev/mapper/crossed-luks ]",
        ),
        case(
            "DDF",
            &[SCSI, SCSI],
            "md /dev/md110 -e ddf -l container -n 2 $a $b && md /dev/md111 -l 1 -n 2 /dev/md110 || true",
            "grep -q '^md110 :' /proc/mdstat",
        ),
        case(
            "IMSM",
            &[SCSI, SCSI],
            "md /dev/md112 -e imsm -l container -n 2 $a $b && md /dev/md113 -l 1 -n 2 /dev/md112 || true",
            "grep -q '^md112 :' /proc/mdstat",
        ),
        case(
            "LINEAR",
            &[SCSI, NVME],
            "lvm pvcreate -qq -y $a $b && lvm vgcreate -qq linear $a $b && lvm lvcreate -qq -y -Zn -Wn -l 100%FREE -n all linear",
            "[ -e /dev/mapper/linear-all ]",
        ),
        case(
            "THIN",
            &[SCSI],
            "lvm pvcreate -qq -y $a && lvm vgcreate -qq thin $a
             lvm lvcreate -qq -y -Zn -L 16M --poolmetadatasize 4M -T thin/pool && lvm lvcreate -qq -y -Wn -V 64M -T thin/pool -n one",
            "[ -e /dev/mapper/thin-one ]",
        ),
        case(
            "INACTIVE",
            &[SCSI, SCSI],
            "lvm pvcreate -qq -y $a $b && lvm vgcreate -qq inactive $a $b && lvm lvcreate -qq -y -Zn -Wn -l 100%FREE -n all inactive
             lvm vgchange -qq -an inactive",
            "[ ! -e /dev/mapper/inactive-all ]",
        ),
        case(
            "LUKS1",
            &[SCSI],
            "echo -n secret | t cryptsetup luksFormat -q --type luks1 --pbkdf-force-iterations 1000 $a -",
            "true",
        ),
        case(
            "SWAP",
            &[SCSI],
            "t sgdisk -n 1:2048:0 $a; w ${a}1; mkswap ${a}1 && swapon ${a}1",
            "grep -q '^/dev/sd.*1 ' /proc/swaps",
        ),
        mounted(
            "SWAPFILE",
            &[SCSI],
            "t mke2fs -q -t ext4 $a && mkdir -p /mnt/swap && mount -t ext4 $a /mnt/swap
             dd if=/dev/zero of=/mnt/swap/a\\ file bs=1M count=8 2>/dev/null && chmod 600 /mnt/swap/a\\ file
             mkswap /mnt/swap/a\\ file && swapon /mnt/swap/a\\ file",
            "grep -q '^/mnt/swap' /proc/swaps",
        ),
        case(
            "BCACHE",
            &[SCSI, LARGE],
            "t make-bcache --writeback --bucket 256k -B $a -C $b
             for x in $b $a; do echo $x >/sys/fs/bcache/register || true; done; w /sys/block/bcache0/bcache/cache
             t mke2fs -q -t ext4 /dev/bcache0",
            "[ -e /sys/block/bcache0/bcache/cache ]",
        ),
        case(
            "WAITING",
            &[SCSI, SCSI],
            "t make-bcache -B $a -C $b; echo $a >/sys/fs/bcache/register; w /sys/block/${a##*/}/bcache",
            "ls -d /sys/block/sd*/bcache",
        ),
        mounted(
            "BTRFS",
            &[LARGE, LARGE],
            "t mkfs.btrfs -q -d raid1 -m raid1 $a $b && mkdir -p /mnt/btrfs && mount -t btrfs -o device=$a,device=$b $a /mnt/btrfs",
            "grep -q /mnt/btrfs /proc/mounts",
        ),
        case(
            "MAPPED",
            &[SCSI],
            "t dmsetup create --manglename none '.. etc;passwd' --table \"0 $(size $a) linear $(number $a) 0\"
             for b in /sys/block/dm-*; do grep -q passwd $b/dm/name && ln -sf /dev/${b##*/} /dev/disk-by-dm; done",
            "grep -q 'etc;passwd' /sys/block/dm-*/dm/name",
        ),
        mounted(
            "DEEP",
            &[NVME_4K, VIRTIO],
            "md /dev/md120 -e 1.2 -l 1 -n 2 --assume-clean $a $b || md /dev/md120 -e 1.2 -l 1 -n 1 --force $a
             echo -n secret | t cryptsetup luksFormat -q --type luks2 --pbkdf pbkdf2 --pbkdf-force-iterations 1000 /dev/md120 -
             echo -n secret | t cryptsetup open --key-file - /dev/md120 deep
             lvm pvcreate -qq -y /dev/mapper/deep && lvm vgcreate -qq deepvg /dev/mapper/deep
             lvm lvcreate -qq -y -Zn -Wn -L 16M -n one deepvg && lvm lvcreate -qq -y -Zn -Wn -L 8M -n two deepvg
             t mke2fs -q -t ext4 /dev/mapper/deepvg-one && mkdir -p /mnt/deep && mount -t ext4 /dev/mapper/deepvg-one /mnt/deep
             mkdir /mnt/deep/inner && t mke2fs -q -t ext4 /dev/mapper/deepvg-two && mount -t ext4 /dev/mapper/deepvg-two /mnt/deep/inner",
            "grep -q /mnt/deep/inner /proc/mounts",
        ),
        case(
            "TABLE",
            &[NVME_4K],
            "t sgdisk -n 1:256:+8M -n 2:0:0 $a; w ${a}p2; t mke2fs -q -t ext4 ${a}p1 && mkswap ${a}p2",
            "ls /sys/class/block | grep -q 'nvme.*p2'",
        ),
        // In the firmware there is an entry that boots from it.
        case(
            "EFI",
            &[SCSI],
            "t sgdisk -n 1:2048:0 -t 1:EF00 -u 1:0e0f1011-1213-4415-9617-18191a1b1c1d $a",
            "ls /sys/firmware/efi/efivars | grep -q BootOrder",
        ),
        // Last: whoever looks for volumes once it is there waits for a path that never comes.
        case(
            "PATHS",
            &[SCSI],
            "t dmsetup create paths --table \"0 $(size $a) multipath 1 queue_if_no_path 0 1 1 round-robin 0 1 1 $(number $a) 1000\"
             t dmsetup message paths 0 \"fail_path $(number $a)\"
             setsid dd if=/dev/mapper/paths of=/dev/null bs=4k count=1 >/dev/null 2>&1 </dev/null &",
            "grep -q paths /sys/block/dm-*/dm/name",
        ),
    ]
}

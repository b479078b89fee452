//! How a disk wants to be written: what the kernel knows of its physical blocks and stripes.

use crate::roots::{Roots, read_line, read_number};
use speediso_model::inventory::Disk;

/// In bytes; 0 where the disk says nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Topology {
    pub physical: u64,
    /// Smallest request that is not read, changed and written again: a chunk of an array.
    pub minimum: u64,
    /// A stripe of an array.
    pub optimal: u64,
    /// Where the first physical block begins whose start is also one of a logical sector.
    pub offset: u64,
}

impl Topology {
    /// What cannot be read is 0.
    #[must_use]
    pub fn of(roots: &Roots, disk: &Disk) -> Self {
        let name = disk.name.strip_prefix("/dev/").unwrap_or(&disk.name).replace('/', "!");
        let dir = roots.sys.join("block").join(name);
        let number = |file: &str| read_number(&dir.join("queue").join(file)).unwrap_or(0);
        Self {
            physical: u64::from(disk.physical_sectors),
            minimum: number("minimum_io_size"),
            optimal: number("optimal_io_size"),
            // -1 for devices stacked so that no start is right for all of them.
            offset: read_line(&dir.join("alignment_offset")).and_then(|text| text.parse().ok()).unwrap_or(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_said_is_nothing() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let block = dir.path().join("sys/block/cciss!c0d0");
        std::fs::create_dir_all(block.join("queue")).expect("made");
        let write = |file: &str, text: &str| std::fs::write(block.join(file), text).expect("written");
        write("queue/minimum_io_size", "65536\n");
        write("queue/optimal_io_size", "196608\n");
        write("alignment_offset", "-1\n");
        let roots = Roots::under(dir.path());
        let disk = Disk { name: "/dev/cciss/c0d0".into(), physical_sectors: 4096, ..Disk::default() };
        let seen = Topology::of(&roots, &disk);
        assert_eq!(seen, Topology { physical: 4096, minimum: 65536, optimal: 196_608, offset: 0 });
        write("alignment_offset", "3584\n");
        assert_eq!(Topology::of(&roots, &disk).offset, 3584);
        let other = Disk { name: "/dev/sda".into(), ..Disk::default() };
        assert_eq!(Topology::of(&roots, &other), Topology::default());
    }
}

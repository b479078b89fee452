//! Growing the file system that an image brought, once it has been verified and read back.
//!
//! By the kernel's own driver where that can (ext4, XFS, btrfs), over a loop device that shows only this partition: the
//! claim on the disk is never let go of. NTFS needs `ntfsresize`.

use serde_json::{Value, json};
use speediso_model::fault::{Fault, FaultCode};
use speediso_model::units::{Bytes, MIB};
use speediso_sys::buffer::AlignedBuffer;
use speediso_sys::grow::Growable;
use speediso_sys::window::Window;

use crate::ctx::TaskCtx;
use crate::place::Place;
use crate::single::OnDisk as _;

/// As much as holds every superblock looked for.
const PROBE: usize = 128 << 10;

/// A file system and how large it says it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum FileSystem {
    Kernel(Growable),
    Ntfs,
}

struct Found {
    kind: FileSystem,
    size: u64,
    /// What may stay over at the end, being less than a unit of allocation.
    rest: u64,
}

/// Makes the file system in `place` as large as it.
pub(super) fn grow(place: Place<'_>, ctx: &TaskCtx) -> Result<Value, Fault> {
    let found = look(place)?;
    if (found.size..found.size + MIB).contains(&place.size()) {
        return Ok(json!({"file_system": found.name(), "bytes_before": found.size, "bytes": found.size}));
    }
    let failed =
        |what: &str| format!("growing the {} on {} (byte {}): {what}", found.name(), place.name(), place.start());
    let window = Window::open(place.disk(), place.start(), place.size())
        .map_err(|e| Fault::new(FaultCode::Io, failed("no loop device to show it by")).because(e.to_string()))?;
    if found.kind == FileSystem::Kernel(Growable::Btrfs) {
        // The ramdisk has it in the archive only; without it the kernel says that there is no driver.
        let _ = ctx.tools.ready(&["mkfs.btrfs"], &["btrfs"], ctx);
    }
    match found.kind {
        FileSystem::Kernel(kind) => kind.grow(window.path(), place.size()).map_err(|e| match e.kind() {
            std::io::ErrorKind::Unsupported => {
                Fault::new(FaultCode::ToolMissing, failed("this kernel has no driver for it"))
            }
            _ => Fault::new(FaultCode::VerifyFailed, failed("the kernel declines")).because(e.to_string()),
        })?,
        FileSystem::Ntfs => ntfsresize(&window, ctx).map_err(|fault| fault.because(failed("ntfsresize")))?,
    }
    window.close().map_err(|e| Fault::new(FaultCode::DiskIo, failed("writing it out")).because(e.to_string()))?;
    place.flush()?;
    // What the medium says counts, not what the kernel said.
    let after = look(place)?;
    if after.size < found.size || after.size + after.rest < place.size() {
        return Err(Fault::new(
            FaultCode::VerifyFailed,
            failed(&format!("it has {} afterwards, of {}", Bytes(after.size), Bytes(place.size()))),
        ));
    }
    Ok(json!({"file_system": found.name(), "bytes_before": found.size, "bytes": after.size}))
}

fn ntfsresize(window: &Window<'_>, ctx: &TaskCtx) -> Result<(), Fault> {
    const PROGRAM: &str = "ntfsresize";
    let toolbox = ctx.tools.ready(&[PROGRAM], &[], ctx)?;
    let device = window.path().display().to_string();
    // It looks at the whole volume and changes nothing the first time.
    toolbox.run(PROGRAM, &["--no-action", "--no-progress-bar", "--force", &device])?;
    toolbox.run(PROGRAM, &["--no-progress-bar", "--force", &device]).map(drop)
}

impl Found {
    fn name(&self) -> &'static str {
        match self.kind {
            FileSystem::Kernel(kind) => kind.name(),
            FileSystem::Ntfs => "ntfs",
        }
    }
}

fn look(place: Place<'_>) -> Result<Found, Fault> {
    let mut start = AlignedBuffer::zeroed(PROBE);
    place.read_at(0, &mut start).on(place.disk())?;
    recognise(&start).map_err(|what| {
        Fault::new(
            FaultCode::Unsupported,
            format!("what begins at byte {} of {} cannot be grown: {what}", place.start(), place.name()),
        )
    })
}

/// What can be grown, or what is there instead. Every field is checked before it is used: the bytes are the image's.
fn recognise(start: &[u8]) -> Result<Found, &'static str> {
    let bytes = |at: usize, n: usize| start.get(at..at + n).unwrap_or_default();
    let le = |at: usize, n: usize| bytes(at, n).iter().rev().fold(0u64, |sum, b| sum << 8 | u64::from(*b));
    let be = |at: usize, n: usize| bytes(at, n).iter().fold(0u64, |sum, b| sum << 8 | u64::from(*b));
    // Documentation/filesystems/ext4/super.rst: the superblock is at 1024.
    if le(1024 + 0x38, 2) == 0xef53 {
        let shift = le(1024 + 0x18, 4);
        let has_64_bits = le(1024 + 0x60, 4) & 0x80 != 0;
        if shift > 6 {
            return Err("an ext4 whose block size makes no sense");
        }
        let block_size = 1024 << shift;
        let blocks = le(1024 + 4, 4) | if has_64_bits { le(1024 + 0x150, 4) << 32 } else { 0 };
        // A last group too small for its own tables is left away.
        let group = block_size * 8 * block_size;
        return found(FileSystem::Kernel(Growable::Ext4 { block_size }), blocks, block_size, group);
    }
    // XFS Algorithms & Data Structures, "Superblocks".
    if bytes(0, 4) == b"XFSB" {
        let block_size = be(4, 4);
        let inode_percent = u32::from(start.get(127).copied().unwrap_or_default());
        if !block_size.is_power_of_two() || !(512..=65536).contains(&block_size) || inode_percent > 100 {
            return Err("an XFS whose block size makes no sense");
        }
        // An allocation group has at least 64 blocks.
        return found(
            FileSystem::Kernel(Growable::Xfs { block_size, inode_percent }),
            be(8, 8),
            block_size,
            64 * block_size,
        );
    }
    // btrfs on-disk format: the superblock is at 64 KiB.
    if bytes(0x1_0040, 8) == b"_BHRfS_M" {
        if le(0x1_0088, 8) != 1 {
            return Err("a btrfs over several devices");
        }
        return found(FileSystem::Kernel(Growable::Btrfs), le(0x1_0070, 8), 1, MIB);
    }
    if bytes(3, 8) == b"NTFS    " {
        return found(FileSystem::Ntfs, le(0x28, 8), le(0x0b, 2), MIB);
    }
    Err(match () {
        () if bytes(0, 6) == b"LUKS\xba\xbe" => "it is encrypted (LUKS)",
        () if bytes(512, 8) == b"LABELONE" => "it belongs to LVM",
        () if bytes(4086, 10) == b"SWAPSPACE2" => "it is swap",
        () if bytes(510, 2) == [0x55, 0xaa] => "a FAT, or nothing known",
        () => "no file system that is known",
    })
}

fn found(kind: FileSystem, units: u64, unit: u64, rest: u64) -> Result<Found, &'static str> {
    let size = units.checked_mul(unit).filter(|size| *size > 0).ok_or("a file system whose size makes no sense")?;
    Ok(Found { kind, size, rest })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn whatever_is_there_is_looked_at_without_harm(noise in prop::collection::vec(any::<u8>(), 0..2048), at in 0usize..3, magic in 0usize..4) {
            let mut start = vec![0; PROBE];
            let to = [0, 1024, 0x1_0000][at];
            start[to..to + noise.len()].copy_from_slice(&noise);
            let (place, word): (usize, &[u8]) =
                [(0, &b"XFSB"[..]), (1024 + 0x38, &b"\x53\xef"[..]), (0x1_0040, &b"_BHRfS_M"[..]), (3, &b"NTFS    "[..])][magic];
            start[place..place + word.len()].copy_from_slice(word);
            if let Ok(found) = recognise(&start) {
                prop_assert!(found.size > 0);
                if let FileSystem::Kernel(Growable::Ext4 { block_size } | Growable::Xfs { block_size, .. }) = found.kind {
                    prop_assert!(block_size >= 512);
                }
            }
        }
    }
}

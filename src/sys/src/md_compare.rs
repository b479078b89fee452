//! Having the kernel compare the members of an array with one another: `check` of `sync_action`, in
//! Documentation/admin-guide/md.rst. It reads, counts what differs, and repairs nothing.
//!
//! Places are counted on each member; at level 10, whose members do not all hold the same, over what the array offers.

use std::io;
use std::path::PathBuf;

use crate::roots::Roots;

const SYSFS_SECTOR: u64 = 512;

fn attribute(roots: &Roots, device: &str, name: &str) -> PathBuf {
    roots.sys.join("block").join(device).join("md").join(name)
}

fn bounds(roots: &Roots, device: &str, from: u64, to: Option<u64>) -> io::Result<()> {
    let write = |name: &str, value: String| std::fs::write(attribute(roots, device, name), value);
    // Never the wrong way round, or the kernel declines.
    write("sync_min", "0".into())?;
    write("sync_max", to.map_or_else(|| "max".into(), |to| (to / SYSFS_SECTOR).to_string()))?;
    write("sync_min", (from / SYSFS_SECTOR).to_string())
}

/// Begins. Both bounds are multiples of the chunk; without the second it goes to the end. With it the kernel stops there and
/// waits to be told more, so that [`end`] is always due.
///
/// # Errors
/// When the kernel declines: something goes on in the array already.
pub fn begin(roots: &Roots, device: &str, from: u64, to: Option<u64>) -> io::Result<()> {
    bounds(roots, device, from, to)?;
    std::fs::write(attribute(roots, device, "sync_action"), "check")
}

/// Stops it where it is, and lets the next sync go over everything again.
///
/// # Errors
/// What the kernel says.
pub fn end(roots: &Roots, device: &str) -> io::Result<()> {
    std::fs::write(attribute(roots, device, "sync_action"), "idle")?;
    bounds(roots, device, 0, None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_is_told_in_its_sectors() {
        let dir = tempfile::tempdir().expect("a directory");
        let roots = Roots::under(dir.path());
        let md = roots.sys.join("block/md127/md");
        std::fs::create_dir_all(&md).expect("made");
        let read = |name: &str| std::fs::read_to_string(md.join(name)).expect("written");
        begin(&roots, "md127", 1 << 20, Some(3 << 20)).expect("begun");
        assert_eq!(
            (read("sync_min"), read("sync_max"), read("sync_action")),
            ("2048".into(), "6144".into(), "check".into())
        );
        end(&roots, "md127").expect("ended");
        assert_eq!(
            (read("sync_min"), read("sync_max"), read("sync_action")),
            ("0".into(), "max".into(), "idle".into())
        );
    }
}

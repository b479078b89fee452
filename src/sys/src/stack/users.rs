//! Which processes hold a device or a file system: for people who have to end them.

use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;

use crate::roots::{Roots, read_line};

/// More would not help anybody.
const LIMIT: usize = 8;

/// Those that have the block device open.
pub(super) fn of_device(roots: &Roots, number: &str) -> Vec<String> {
    find(roots, |metadata| metadata.file_type().is_block_device() && written(metadata.rdev()) == number)
}

/// Those that have a file, a directory or their program on it.
pub(super) fn of_file_system(roots: &Roots, number: &str) -> Vec<String> {
    find(roots, |metadata| written(metadata.dev()) == number)
}

fn written(device: u64) -> String {
    format!("{}:{}", nix::sys::stat::major(device), nix::sys::stat::minor(device))
}

/// Processes come and go while they are looked at: what cannot be read is left out.
fn find(roots: &Roots, is_it: impl Fn(&std::fs::Metadata) -> bool) -> Vec<String> {
    let holds = |process: &Path| {
        let files = std::fs::read_dir(process.join("fd")).into_iter().flatten().flatten().map(|entry| entry.path());
        ["cwd", "root", "exe"]
            .iter()
            .map(|name| process.join(name))
            .chain(files)
            .any(|path| std::fs::metadata(path).is_ok_and(|metadata| is_it(&metadata)))
    };
    let Ok(processes) = std::fs::read_dir(&roots.proc) else { return Vec::new() };
    processes
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok().map(|pid| (pid, entry.path())))
        .filter(|(_, path)| holds(path))
        .map(|(pid, path)| format!("process {pid} ({})", read_line(&path.join("comm")).unwrap_or_default()))
        .take(LIMIT)
        .collect()
}

//! What costs size, by group.

use std::collections::BTreeMap;

use anyhow::Result;

use crate::assemble::{Base, group_of};
use crate::ramdisk::compress;
use crate::tree::Entry;

/// Quick, and within a few per cent of what the group takes in the real archive.
const ESTIMATE_LEVEL: i32 = 9;

/// A table: group, number of files, uncompressed and compressed size, largest first.
pub fn by_group(base: &Base, agent: Option<&[u8]>) -> Result<String> {
    let mut groups: BTreeMap<&str, (usize, Vec<u8>)> = BTreeMap::new();
    for (path, entry) in base.tree.iter() {
        if let (Some(group), Entry::File { data, .. }) = (group_of(&base.kernel, path, entry), entry) {
            let (files, bytes) = groups.entry(group).or_default();
            *files += 1;
            bytes.extend_from_slice(data);
        }
    }
    if let Some(agent) = agent {
        groups.insert("agent", (1, agent.to_vec()));
    }
    let mut rows = Vec::new();
    for (group, (files, bytes)) in groups {
        rows.push((group, files, bytes.len(), compress(&bytes, ESTIMATE_LEVEL)?.len()));
    }
    rows.sort_by_key(|&(_, _, _, compressed)| std::cmp::Reverse(compressed));
    let mut text = format!("{:<16} {:>5} {:>12} {:>12}\n", "group", "files", "KiB", "KiB zstd");
    let (mut all_files, mut all_bytes, mut all_compressed) = (0, 0, 0);
    for (group, files, bytes, compressed) in rows {
        text.push_str(&format!("{group:<16} {files:>5} {:>12} {:>12}\n", bytes >> 10, compressed >> 10));
        all_files += files;
        all_bytes += bytes;
        all_compressed += compressed;
    }
    let vmlinuz = std::fs::metadata(&base.kernel.vmlinuz)?.len();
    text.push_str(&format!("{:<16} {:>5} {:>12} {:>12}\n", "total", all_files, all_bytes >> 10, all_compressed >> 10));
    text.push_str(&format!("{:<16} {:>5} {:>12} {:>12}\n", "vmlinuz", 1, "", vmlinuz >> 10));
    Ok(text)
}

//! Memory: how much there is to be had, and which processors are near it.

use std::fs;

use crate::cores::{online, parse_list};
use crate::roots::{Roots, read_line};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Available {
    pub total: u64,
    /// What can be had without swapping, by the kernel's estimate.
    pub available: u64,
}

/// In bytes; `None` where procfs does not say.
#[must_use]
pub fn available(roots: &Roots) -> Option<Available> {
    let text = fs::read_to_string(roots.proc.join("meminfo")).ok()?;
    Some(Available { total: kib(&text, "MemTotal:")?, available: kib(&text, "MemAvailable:")? })
}

fn kib(text: &str, key: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.split_once(key).map(|(_, value)| value))?;
    value.split_ascii_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)
}

/// A part of the memory with the processors that are near it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Node {
    pub number: u32,
    /// Empty for memory without processors (CXL, high-bandwidth memory).
    pub cores: Vec<u32>,
    pub total: u64,
    pub free: u64,
}

/// Those that have memory. A kernel without NUMA has one node.
#[must_use]
pub fn nodes(roots: &Roots) -> Vec<Node> {
    let mut nodes: Vec<Node> = fs::read_dir(roots.sys.join("devices/system/node"))
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|e| {
            let number = e.file_name().to_str()?.strip_prefix("node")?.parse().ok()?;
            let info = fs::read_to_string(e.path().join("meminfo")).ok()?;
            let cores = read_line(&e.path().join("cpulist")).map(|list| parse_list(&list)).unwrap_or_default();
            Some(Node { number, cores, total: kib(&info, "MemTotal:")?, free: kib(&info, "MemFree:")? })
        })
        .filter(|node| node.total > 0)
        .collect();
    nodes.sort_by_key(|node| node.number);
    if nodes.is_empty()
        && let Some(Available { total, available }) = available(roots)
    {
        nodes.push(Node { number: 0, cores: online(roots), total, free: available });
    }
    nodes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_with_memory_and_their_processors() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let roots = Roots::under(dir.path());
        assert!(nodes(&roots).is_empty() && available(&roots).is_none());
        fs::create_dir_all(&roots.proc).expect("made");
        fs::write(roots.proc.join("meminfo"), "MemTotal:  2000 kB\nMemFree: 100 kB\nMemAvailable:   1500 kB\n")
            .expect("written");
        fs::create_dir_all(dir.path().join("sys/devices/system/cpu")).expect("made");
        fs::write(dir.path().join("sys/devices/system/cpu/online"), "0-3").expect("written");
        let one = nodes(&roots);
        assert_eq!(one, [Node { number: 0, cores: vec![0, 1, 2, 3], total: 2_048_000, free: 1_536_000 }]);
        for (number, cores, total) in [(0, "0-1", 1000), (1, "2-3", 1000), (2, "", 500), (3, "", 0)] {
            let node = dir.path().join(format!("sys/devices/system/node/node{number}"));
            fs::create_dir_all(&node).expect("made");
            fs::write(node.join("cpulist"), cores).expect("written");
            let info = format!("Node {number} MemTotal: {total} kB\nNode {number} MemFree:  {total} kB\n");
            fs::write(node.join("meminfo"), info).expect("written");
        }
        let three = nodes(&roots);
        assert_eq!(three.iter().map(|n| (n.number, n.cores.len())).collect::<Vec<_>>(), [(0, 2), (1, 2), (2, 0)]);
        assert_eq!(three[2].free, 512_000);
    }
}

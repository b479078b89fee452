//! NUMA nodes, from sysfs.

use std::collections::BTreeMap;
use std::path::Path;

use speediso_model::inventory::{NumaCore, NumaMemory, NumaNic, NumaNode, NumaTopology, cpu_list};
use speediso_model::units::{Bytes, KIB};

use super::memory::kib_after;
use crate::roots::Roots;
use crate::sysfs;

/// Empty where the kernel knows no nodes.
#[must_use]
pub fn read(roots: &Roots, unread: &mut Vec<String>) -> NumaTopology {
    let mut topology = NumaTopology::default();
    let dir = roots.sys.join("devices/system/node");
    let listed = sysfs::entries(&dir).unwrap_or_else(|error| {
        sysfs::gap(unread, "NUMA nodes", &error);
        Vec::new()
    });
    for (name, path) in listed {
        let Some(node) = name.strip_prefix("node").and_then(|n| n.parse().ok()) else { continue };
        match sysfs::lines(&path.join("meminfo")).map(|text| kib_after(&text, "MemTotal:")) {
            Ok(Some(size_kb)) => topology.ram.push(NumaMemory { numa_node: node, size_kb }),
            Ok(None) => unread.push(format!("memory of NUMA node {node} could not be read: there is no MemTotal")),
            Err(error) => sysfs::gap(unread, &format!("memory of NUMA node {node}"), &error),
        }
        let size_kb = topology.ram.last().filter(|ram| ram.numa_node == node).map_or(0, |ram| ram.size_kb);
        // A node of memory alone has an empty list.
        let cpus = sysfs::read(&path.join("cpulist")).unwrap_or_default();
        topology.cpus.extend(cores(roots, node, &cpus));
        let distances = sysfs::read(&path.join("distance")).unwrap_or_default();
        topology.nodes.push(NumaNode {
            node,
            cpus,
            memory: Bytes(size_kb.saturating_mul(KIB)),
            distances: distances.split_whitespace().filter_map(|distance| distance.parse().ok()).collect(),
        });
    }
    topology.nics = nics(&roots.sys.join("class/net"), unread);
    topology
}

/// The node's processors, gathered into cores.
fn cores(roots: &Roots, node: u32, cpus: &str) -> Vec<NumaCore> {
    let mut cores: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for thread in cpu_list(cpus) {
        let core = roots.sys.join(format!("devices/system/cpu/cpu{thread}/topology/core_id"));
        if let Some(core) = sysfs::number(&core) {
            cores.entry(core).or_default().push(thread);
        }
    }
    cores.into_iter().map(|(cpu, thread_siblings)| NumaCore { cpu, numa_node: node, thread_siblings }).collect()
}

fn nics(dir: &Path, unread: &mut Vec<String>) -> Vec<NumaNic> {
    let listed = sysfs::entries(dir).unwrap_or_else(|error| {
        sysfs::gap(unread, "NUMA nodes of network interfaces", &error);
        Vec::new()
    });
    // A virtio device's own directory has none, but the PCI function around it.
    let node_of = |path: &Path| {
        sysfs::number(&path.join("device/numa_node")).or_else(|| sysfs::number(&path.join("device/../numa_node")))
    };
    listed.into_iter().filter_map(|(name, path)| Some(NumaNic { numa_node: node_of(&path)?, name })).collect()
}

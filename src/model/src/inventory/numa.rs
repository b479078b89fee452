//! Which processors, memory and network cards are near each other.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::units::Bytes;

/// `ram`, `cpus` and `nics` are ironic-python-agent's; `nodes` is the same from the other side, with distances.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct NumaTopology {
    pub ram: Vec<NumaMemory>,
    pub cpus: Vec<NumaCore>,
    pub nics: Vec<NumaNic>,
    pub nodes: Vec<NumaNode>,
}

#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct NumaMemory {
    pub numa_node: u32,
    pub size_kb: u64,
}

/// A core.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct NumaCore {
    /// The core's number, which repeats from socket to socket.
    pub cpu: u32,
    pub numa_node: u32,
    /// The logical processors that it is.
    pub thread_siblings: Vec<u32>,
}

#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct NumaNic {
    pub name: String,
    /// -1 where the machine has no nodes, or does not say.
    pub numa_node: i32,
}

#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct NumaNode {
    pub node: u32,
    /// The kernel's form: `0-15,32-47`.
    pub cpus: String,
    pub memory: Bytes,
    /// To each node in their order; 10 is itself.
    pub distances: Vec<u32>,
}

/// More processors than any kernel can have.
const LIMIT: usize = 8192;

/// `0-3,8` -> 0, 1, 2, 3, 8. What is not of that form is left out.
#[must_use]
pub fn cpu_list(text: &str) -> Vec<u32> {
    let mut all = Vec::new();
    for part in text.trim().split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        if let (Ok(first), Ok(last)) = (first.trim().parse::<u32>(), last.trim().parse::<u32>()) {
            all.extend((first..=last).take(LIMIT - all.len()));
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_processors() {
        assert_eq!(cpu_list("0-3,8\n"), [0, 1, 2, 3, 8]);
        assert_eq!(cpu_list(""), Vec::<u32>::new());
        assert_eq!(cpu_list("7-5,x,2"), [2]);
        assert_eq!(cpu_list("0-4294967295,0-4294967295").len(), LIMIT);
    }
}

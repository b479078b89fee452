//! How much memory is taken, and by which threads. Pure.

use speediso_model::burn_in::MemoryStep;
use speediso_model::units::{Bytes, MIB};
use speediso_sys::numa::{Available, Node};
use speediso_sys::region::LockedRegion;

/// Below this a kernel with a network card and an ssh server gets into trouble.
const LEAST_RESERVE: Bytes = Bytes::mib(96);
/// Less is not worth a thread of its own.
const LEAST_PART: u64 = 16 * MIB;

/// One thread's part.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Portion {
    pub(super) node: u32,
    /// Bound to the node, on machines with several.
    pub(super) bind: bool,
    pub(super) core: Option<u32>,
    pub(super) bytes: u64,
}

pub(super) fn floor_to_page(bytes: u64) -> u64 {
    bytes - bytes % LockedRegion::PAGE as u64
}

/// What stays with the system.
pub(super) fn reserve(step: &MemoryStep, available: Available) -> u64 {
    step.reserve.unwrap_or(Bytes(available.total / 20).max(LEAST_RESERVE)).0
}

/// As much of each node as it has of what is free, shared among its processors.
pub(super) fn portions(step: &MemoryStep, available: Available, reserve: u64, nodes: &[Node]) -> Vec<Portion> {
    let most = available.available.saturating_sub(reserve);
    let wanted = step.size.map_or(most, |size| size.0.min(most));
    let free: u64 = nodes.iter().map(|node| node.free).sum();
    let bind = nodes.len() > 1;
    let mut portions = Vec::new();
    for node in nodes {
        // In 128 bits: terabytes times terabytes.
        let share = u128::from(wanted) * u128::from(node.free) / u128::from(free.max(1));
        let mut bytes = u64::try_from(share).unwrap_or(0);
        if bind {
            // The kernel's own reserves are in it.
            bytes = bytes.min(node.free - node.free / 32);
        }
        let threads = (bytes / LEAST_PART).clamp(1, node.cores.len().max(1) as u64);
        let each = floor_to_page(bytes / threads);
        if each == 0 {
            continue;
        }
        let cores = node.cores.iter().map(|core| Some(*core)).chain(node.cores.is_empty().then_some(None));
        let first = portions.len();
        portions.extend((0..threads).zip(cores).map(|(_, core)| Portion {
            node: node.number,
            bind,
            core,
            bytes: each,
        }));
        // What does not divide goes to the first, so that a size asked for is had whole.
        if let Some(portion) = portions.get_mut(first) {
            portion.bytes = floor_to_page(bytes - each * (threads - 1));
        }
    }
    portions
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn node(number: u32, cores: std::ops::Range<u32>, free: u64) -> Node {
        Node { number, cores: cores.collect(), total: free, free }
    }

    proptest! {
        #[test]
        fn the_reserve_is_never_touched(
            total in 0_u64..1 << 45, used in 0_u64..1 << 45, size in prop::option::of(0_u64..1 << 45),
            kept in prop::option::of(0_u64..1 << 40), frees in prop::collection::vec((0_u64..1 << 42, 0_u32..200), 0..9),
        ) {
            let available = Available { total, available: total.saturating_sub(used) };
            let step = MemoryStep { size: size.map(Bytes), reserve: kept.map(Bytes), ..MemoryStep::default() };
            let nodes: Vec<Node> = (0..).zip(&frees).map(|(n, (free, cores))| node(n, 0..*cores, *free)).collect();
            let reserve = reserve(&step, available);
            let portions = portions(&step, available, reserve, &nodes);
            let taken: u64 = portions.iter().map(|p| p.bytes).sum();
            prop_assert!(taken + reserve <= available.available || taken == 0);
            prop_assert!(size.is_none_or(|size| taken <= size));
            prop_assert!(portions.iter().all(|p| p.bytes > 0 && p.bytes % 4096 == 0));
        }
    }

    #[test]
    fn nodes_get_their_share_and_threads() {
        let available = Available { total: 100 << 30, available: 96 << 30 };
        let step = MemoryStep::default();
        assert_eq!(reserve(&step, available), 5 << 30);
        let nodes = [node(0, 0..4, 64 << 30), node(1, 4..8, 32 << 30), node(2, 0..0, 1 << 20)];
        let portions = portions(&step, available, 5 << 30, &nodes);
        assert_eq!(portions.iter().filter(|p| p.node == 0).count(), 4);
        assert!(portions.iter().all(|p| p.bind));
        assert_eq!(portions.last().map(|p| (p.node, p.core)), Some((2, None)));
        let of = |n| portions.iter().filter(|p| p.node == n).map(|p| p.bytes).sum::<u64>();
        assert!(of(0) > of(1) * 19 / 10 && of(0) < of(1) * 21 / 10);
        let small = Available { total: 256 << 20, available: 150 << 20 };
        assert_eq!(reserve(&step, small), 96 << 20);
        let exact = MemoryStep { size: Some(Bytes::mib(33)), ..MemoryStep::default() };
        let parts = super::portions(&exact, available, 5 << 30, &[node(0, 0..4, 64 << 30)]);
        assert_eq!((parts.len(), parts.iter().map(|p| p.bytes).sum::<u64>()), (2, 33 << 20));
    }
}

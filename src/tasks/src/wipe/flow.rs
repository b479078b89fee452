//! Moving bytes to or from one disk with several requests under way, in little memory.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use speediso_model::fault::Fault;
use speediso_sys::buffer::AlignedBuffer;

use crate::ctx::TaskCtx;

/// How large each request is and how many are under way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Load {
    pub(crate) chunk: usize,
    pub(crate) depth: usize,
}

impl Load {
    /// For all disks of a task together.
    const MEMORY: usize = 12 << 20;
    const LARGEST: usize = 512 << 10;
    const SMALLEST: usize = 64 << 10;
    const DEEPEST: usize = 4;

    /// Two requests keep a disk busy while the next is made, four also a fast one; with many disks they become smaller
    /// before they become fewer.
    pub(crate) fn for_disks(n: usize) -> Self {
        let each = Self::MEMORY / n.max(1);
        let chunk = (each / 2).clamp(Self::SMALLEST, Self::LARGEST).next_power_of_two();
        let chunk = if chunk > Self::LARGEST || 2 * chunk > each.max(2 * Self::SMALLEST) { chunk / 2 } else { chunk };
        Self { chunk, depth: (each / chunk).clamp(2, Self::DEEPEST) }
    }
}

/// A part of a disk that one request takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Piece {
    pub(crate) offset: u64,
    pub(crate) length: usize,
}

/// All of `from..to`, piece by piece.
pub(crate) fn pieces(from: u64, to: u64, chunk: usize) -> impl Iterator<Item = Piece> + Send {
    (from..to)
        .step_by(chunk)
        .map(move |offset| Piece { offset, length: usize::try_from(to - offset).map_or(chunk, |left| left.min(chunk)) })
}

/// Does `work` on every piece, `depth` of them at a time, and tells `done` of each. Ends at the first fault.
pub(crate) fn run(
    load: Load,
    pieces: impl Iterator<Item = Piece> + Send,
    ctx: &TaskCtx,
    work: impl Fn(Piece, &mut [u8]) -> Result<(), Fault> + Sync,
    done: impl FnMut(Piece) + Send,
) -> Result<(), Fault> {
    let (pieces, done) = (Mutex::new(pieces), Mutex::new(done));
    let failed = AtomicBool::new(false);
    let one_after_another = || -> Result<(), Fault> {
        let mut buffer = AlignedBuffer::zeroed(load.chunk);
        while !failed.load(Ordering::Relaxed) {
            ctx.cancel.check()?;
            let next = pieces.lock().unwrap_or_else(PoisonError::into_inner).next();
            let Some(piece) = next else { break };
            work(piece, &mut buffer[..piece.length])?;
            let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
            (*done)(piece);
        }
        Ok(())
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..load.depth)
            .map(|_| scope.spawn(|| one_after_another().inspect_err(|_| failed.store(true, Ordering::Relaxed))))
            .collect();
        // All have ended before the first fault is told.
        let ended: Vec<_> = workers.into_iter().map(thread::ScopedJoinHandle::join).collect();
        ended.into_iter().try_for_each(|one| one.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn many_disks_share_the_memory_of_a_few() {
        assert_eq!(Load::for_disks(1), Load { chunk: 512 << 10, depth: 4 });
        assert_eq!(Load::for_disks(8), Load { chunk: 512 << 10, depth: 3 });
        for n in 1..=96 {
            let load = Load::for_disks(n);
            assert!(load.chunk.is_power_of_two() && load.chunk <= 512 << 10 && load.depth >= 2, "{n}: {load:?}");
            assert!(n * load.chunk * load.depth <= Load::MEMORY, "{n} disks: {load:?}");
        }
    }

    proptest! {
        #[test]
        fn pieces_cover_everything_once(from in 0u64..1 << 30, length in 1u64..1 << 24) {
            let mut at = from;
            for piece in pieces(from, from + length, 64 << 10) {
                prop_assert_eq!(piece.offset, at);
                prop_assert!(piece.length > 0 && piece.length <= 64 << 10);
                at += piece.length as u64;
            }
            prop_assert_eq!(at, from + length);
        }
    }
}

//! What a disk was asked in its life, and what a power cut at any moment would have left of it.
//!
//! A drive with a write cache keeps what was written before the last flush that it confirmed. Of what came after, any
//! sector may be the old or the new one.

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use super::plan::is_change;
use super::wire::Operation;

const SECTOR: usize = 512;

/// One request that was answered with success.
#[derive(Clone, Debug)]
pub struct Done {
    pub operation: Operation,
    pub offset: u64,
    pub length: u64,
    /// Of a write, if the disk records.
    pub(super) data: Vec<u8>,
}

/// Everything that was done, in order.
#[derive(Clone, Debug, Default)]
pub struct History(pub(super) Vec<Done>);

impl History {
    /// How many requests there were: a power cut can come before each, and after the last.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    #[must_use]
    pub fn flushes(&self) -> usize {
        self.0.iter().filter(|done| done.operation == Operation::Flush).count()
    }

    /// The same life of a drive that only says that it has flushed.
    #[must_use]
    pub fn of_a_liar(&self) -> Self {
        Self(self.0.iter().filter(|done| done.operation != Operation::Flush).cloned().collect())
    }

    /// A disk that was `before` all this, after a power cut before the `n`th request. The seed decides which of the
    /// sectors in its cache the drive had written.
    #[must_use]
    pub fn cut(&self, before: &[u8], n: usize, seed: u64) -> Vec<u8> {
        let lived = &self.0[..n.min(self.0.len())];
        let safe = lived.iter().rposition(|done| done.operation == Operation::Flush).map_or(0, |at| at + 1);
        let mut disk = before.to_vec();
        let mut coin = StdRng::seed_from_u64(seed);
        for (at, done) in lived.iter().enumerate().filter(|(_, done)| is_change(done.operation)) {
            let start = usize::try_from(done.offset).unwrap_or(usize::MAX);
            let length = usize::try_from(done.length).unwrap_or(usize::MAX);
            // In one case of three all of a request is lost or all is kept.
            let (whole, kept) = (coin.random_ratio(1, 3), coin.random::<bool>());
            let piece = if at < safe { length.max(1) } else { SECTOR };
            for from in (0..length).step_by(piece) {
                let to = length.min(from + piece);
                let stays = at < safe || if whole { kept } else { coin.random() };
                if stays {
                    let place = &mut disk[start + from..start + to];
                    match done.data.get(from..to) {
                        Some(data) => place.copy_from_slice(data),
                        None => place.fill(0),
                    }
                }
            }
        }
        disk
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(offset: u64, byte: u8) -> Done {
        Done { operation: Operation::Write, offset, length: 1024, data: vec![byte; 1024] }
    }

    #[test]
    fn what_was_flushed_stays_and_the_rest_is_a_gamble() {
        let flush = Done { operation: Operation::Flush, offset: 0, length: 0, data: Vec::new() };
        let history = History(vec![write(0, 1), flush, write(0, 2), write(1024, 3)]);
        let before = vec![9; 2048];
        let mut seen = std::collections::BTreeSet::new();
        for seed in 0..200 {
            assert_eq!(history.cut(&before, 0, seed), before);
            let disk = history.cut(&before, 2, seed);
            assert!(disk[..1024].iter().all(|b| *b == 1) && disk[1024..] == before[1024..]);
            let disk = history.cut(&before, 4, seed);
            assert!(disk[..1024].iter().all(|b| [1, 2].contains(b)), "nothing older than the flush");
            assert!(disk.chunks(SECTOR).all(|sector| sector.iter().all(|b| *b == sector[0])), "sectors are whole");
            seen.insert([disk[0], disk[512], disk[1024], disk[1536]]);
        }
        assert_eq!(seen.len(), 16, "every mixture comes up");
    }
}

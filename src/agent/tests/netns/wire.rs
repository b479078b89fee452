//! A wire that is worse than a cable: every frame goes through this program, which loses, delays and repeats some. What the
//! kernel has for it (netem) is a module that many hosts lack.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::net::if_::if_nametoindex;
use speediso_sys::ether::Ether;

/// What happens to frames, in both directions.
#[derive(Clone, Copy)]
pub(crate) struct Trouble {
    /// Of a thousand.
    pub(crate) lost: u64,
    pub(crate) repeated: u64,
    pub(crate) delay: Duration,
    /// At most so much more, for each frame anew: later ones overtake.
    pub(crate) jitter: Duration,
    /// Those that never arrive.
    pub(crate) refuses: fn(&[u8]) -> bool,
}

impl Default for Trouble {
    fn default() -> Self {
        Self { lost: 0, repeated: 0, delay: Duration::ZERO, jitter: Duration::ZERO, refuses: |_| false }
    }
}

/// What has happened so far.
pub(crate) struct Wire(Arc<Counts>);

#[derive(Default)]
struct Counts {
    lost: AtomicU32,
    repeated: AtomicU32,
}

impl Wire {
    /// Between two ports of this thread's namespace, until `done`.
    pub(crate) fn lay(one: &str, other: &str, trouble: Trouble, done: &Arc<AtomicBool>) -> Self {
        let counts = Arc::new(Counts::default());
        let open = |port: &str| Ether::open(if_nametoindex(port).expect("there")).expect("root");
        for (seed, from, to) in [(1, one, other), (2, other, one)] {
            let (inward, outward) = (open(from), open(to));
            let (counts, done) = (Arc::clone(&counts), Arc::clone(done));
            thread::spawn(move || carry(&inward, &outward, trouble, Chance(seed), &counts, &done));
        }
        Self(counts)
    }

    pub(crate) fn lost(&self) -> u32 {
        self.0.lost.load(Ordering::Relaxed)
    }

    pub(crate) fn repeated(&self) -> u32 {
        self.0.repeated.load(Ordering::Relaxed)
    }
}

/// The same in every run, as far as the frames are (a linear congruential generator; Knuth's constants).
struct Chance(u64);

impl Chance {
    fn per_mille(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % 1000
    }
}

fn carry(inward: &Ether, outward: &Ether, trouble: Trouble, mut chance: Chance, counts: &Counts, done: &AtomicBool) {
    let mut bytes = [0; 4096];
    let mut waiting: BinaryHeap<Reverse<(Instant, u64, Vec<u8>)>> = BinaryHeap::new();
    let mut number = 0;
    while !done.load(Ordering::Relaxed) {
        while let Ok(seen) = inward.receive(&mut bytes) {
            if seen.is_own {
                continue;
            }
            let frame = &bytes[..seen.length];
            if chance.per_mille() < trouble.lost || (trouble.refuses)(frame) {
                counts.lost.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            let again = chance.per_mille() < trouble.repeated;
            counts.repeated.fetch_add(u32::from(again), Ordering::Relaxed);
            for _ in 0..=u32::from(again) {
                let more = trouble.jitter * u32::try_from(chance.per_mille()).expect("below 1000") / 1000;
                number += 1;
                waiting.push(Reverse((Instant::now() + trouble.delay + more, number, frame.to_vec())));
            }
        }
        while let Some(Reverse((due, _, frame))) = waiting.peek()
            && *due <= Instant::now()
        {
            // The port may not be up yet: one more that is lost.
            let _ = outward.send(frame);
            waiting.pop();
        }
        thread::sleep(Duration::from_millis(1));
    }
}

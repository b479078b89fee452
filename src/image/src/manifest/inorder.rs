//! Work on several threads whose results come out in the order of the input.

use std::num::NonZero;
use std::panic::resume_unwind;
use std::sync::mpsc::sync_channel;
use std::sync::{Mutex, PoisonError};
use std::thread;

/// Gives what `feed` yields to `threads` threads in turn, each with a `worker` of its own, and their results in the same
/// order to `sink`, on one more thread. `feed` is called on the caller's thread.
///
/// Each thread has at most one item waiting, one at work and one result waiting: memory is bounded by
/// `3 * threads + 2` items, whoever is the slowest.
///
/// # Errors
/// The first in the order of the input.
pub(super) fn in_order<I, O, E, W>(
    threads: NonZero<usize>,
    mut feed: impl FnMut() -> Result<Option<I>, E>,
    worker: impl Fn() -> Result<W, E> + Sync,
    mut sink: impl FnMut(O) -> Result<(), E> + Send,
) -> Result<(), E>
where
    I: Send,
    O: Send,
    E: Send,
    W: FnMut(I) -> Result<O, E>,
{
    thread::scope(|scope| {
        let mut inputs = Vec::new();
        let mut outputs = Vec::new();
        for _ in 0..threads.get() {
            let (input, items) = sync_channel(1);
            let (done, results) = sync_channel(1);
            let worker = &worker;
            scope.spawn(move || {
                let mut work = match worker() {
                    Ok(work) => work,
                    // If the sink is gone it has stopped at an earlier error.
                    Err(e) => return drop(done.send(Err(e))),
                };
                for item in items {
                    if done.send(work(item)).is_err() {
                        return;
                    }
                }
            });
            inputs.push(input);
            outputs.push(results);
        }
        let sinking = scope.spawn(move || {
            for results in outputs.iter().cycle() {
                match results.recv() {
                    Ok(result) => sink(result?)?,
                    // The next item in turn was never fed. (Or its thread panicked, which the scope passes on.)
                    Err(_) => break,
                }
            }
            Ok(())
        });
        let mut fed = Ok(());
        for input in inputs.iter().cycle() {
            match feed() {
                Ok(Some(item)) => {
                    if input.send(item).is_err() {
                        break;
                    }
                }
                Ok(None) => break,
                Err(e) => {
                    fed = Err(e);
                    break;
                }
            }
        }
        drop(inputs);
        sinking.join().unwrap_or_else(|panic| resume_unwind(panic))?;
        fed
    })
}

/// How many threads to use when each holds some `per_thread` bytes.
pub(super) fn threads(per_thread: usize) -> NonZero<usize> {
    const MEMORY: usize = 256 << 20;
    threads_within(MEMORY, per_thread)
}

/// The same where there is less memory.
pub(super) fn threads_within(memory: usize, per_thread: usize) -> NonZero<usize> {
    let cores = thread::available_parallelism().map_or(1, NonZero::get);
    NonZero::new(cores.min(memory / per_thread.max(1))).unwrap_or(NonZero::<usize>::MIN)
}

/// Buffers to be used again: the allocator of musl would give each large one back to the kernel.
#[derive(Debug, Default)]
pub(super) struct Pool(Mutex<Vec<Vec<u8>>>);

impl Pool {
    pub(super) fn take(&self) -> Vec<u8> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default()
    }

    pub(super) fn give(&self, buffer: Vec<u8>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(buffer);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::expect_used, reason = "tests")]
    use super::*;
    use std::time::Duration;

    fn run(n: u64, fail_at: Option<u64>, feed_fails_at: Option<u64>) -> (Result<(), u64>, Vec<u64>) {
        let mut next = 0;
        let mut seen = Vec::new();
        let result = in_order(
            NonZero::new(3).expect("three"),
            || {
                if feed_fails_at == Some(next) {
                    return Err(1000 + next);
                }
                next += 1;
                Ok((next <= n).then(|| next - 1))
            },
            || {
                Ok(|item: u64| {
                    // Every seventh is slow, so that others would overtake it if they could.
                    if item.is_multiple_of(7) {
                        thread::sleep(Duration::from_millis(3));
                    }
                    if fail_at == Some(item) { Err(item) } else { Ok(item) }
                })
            },
            |item| {
                seen.push(item);
                Ok(())
            },
        );
        (result, seen)
    }

    #[test]
    fn results_keep_the_order() {
        for n in [0, 1, 2, 3, 4, 50] {
            assert_eq!(run(n, None, None), (Ok(()), (0..n).collect()));
        }
    }

    #[test]
    fn the_first_error_ends_it_and_nothing_comes_after() {
        assert_eq!(run(50, Some(14), None), (Err(14), (0..14).collect()));
        assert_eq!(run(50, None, Some(20)), (Err(1020), (0..20).collect()));
        // The item's error is the earlier one in the order of the input.
        assert_eq!(run(50, Some(20), Some(21)), (Err(20), (0..20).collect()));
    }

    #[test]
    fn a_panic_is_passed_on() {
        let panicked = std::panic::catch_unwind(|| {
            let mut left = 9;
            in_order(
                NonZero::new(2).expect("two"),
                || {
                    left -= 1;
                    Ok::<_, ()>((left > 0).then_some(left))
                },
                || Ok(|item| if item == 5 { panic!("as the test wants") } else { Ok(item) }),
                |_| Ok(()),
            )
        });
        assert!(panicked.is_err());
    }
}

//! Requests to one disk, several at a time, each of them timed. An error ends nothing: its place is narrowed down, noted,
//! and the rest goes on.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use speediso_model::burn_in::Series;
use speediso_model::fault::{Fault, FaultCode};
use speediso_model::latency::LatencyHistogram;

use super::findings::Findings;
use super::map::{Region, SpeedMap, rate};
use super::medium::{Failed, Medium};
use crate::ctx::{Meter, TaskCtx};
use crate::wipe::flow::{self, Load, Piece};

/// To which a bad place is narrowed down; a drive's own sector is not larger.
const UNIT: usize = 4096;
/// Bad units of one request that are named; the rest of it is one more.
const BAD_UNITS: usize = 16;

/// What a phase came to.
#[derive(Clone, Debug, Default)]
pub(super) struct Phase {
    pub(super) bytes: u64,
    pub(super) elapsed: Duration,
    pub(super) latency: LatencyHistogram,
    pub(super) regions: Vec<Region>,
    /// Bytes per second since the begin.
    pub(super) over_time: Series,
    /// Why it ended before its time: cancelled, or too bad to go on with.
    pub(super) broken_off: Option<Fault>,
}

impl Phase {
    /// More of the same, later.
    pub(super) fn add(&mut self, more: Self) {
        let begin = self.elapsed.as_secs_f64();
        for (at, low, high) in more.over_time.points {
            self.over_time.push(begin + at, low);
            self.over_time.push(begin + at, high);
        }
        self.bytes += more.bytes;
        self.elapsed += more.elapsed;
        self.latency.merge(&more.latency);
        self.broken_off = self.broken_off.take().or(more.broken_off);
    }
}

/// The same kind of request all over.
pub(super) struct Requests<'a, 'f> {
    pub(super) stage: &'static str,
    /// Of its failures, such as `read_errors`.
    pub(super) errors: &'static str,
    pub(super) load: Load,
    /// Bytes that will be moved, where that is known.
    pub(super) total: Option<u64>,
    /// Whether a map of the disk comes of it.
    pub(super) mapped: bool,
    pub(super) findings: &'a Findings<'f>,
}

struct Tally<'a> {
    latency: LatencyHistogram,
    bytes: u64,
    map: Option<SpeedMap>,
    meter: Meter<'a>,
    pace: Pace,
}

/// Bytes per second, four times a second.
#[derive(Debug)]
struct Pace {
    begin: Instant,
    since: Instant,
    bytes: u64,
    series: Series,
}

impl Pace {
    const STEP: Duration = Duration::from_millis(250);

    fn new(begin: Instant) -> Self {
        Self { begin, since: begin, bytes: 0, series: Series::default() }
    }

    fn moved(&mut self, bytes: u64, now: Instant) {
        self.bytes += bytes;
        let elapsed = now.saturating_duration_since(self.since);
        if elapsed >= Self::STEP {
            let at = now.saturating_duration_since(self.begin).as_secs_f64();
            self.series.push((at * 10.0).round() / 10.0, rate(self.bytes, elapsed));
            (self.since, self.bytes) = (now, 0);
        }
    }
}

/// Carries the pieces out until they end, somebody cancels, or the disk is given up. `ask` does one request; what it is
/// given is a part of a piece after an error. `check` looks at what was moved.
pub(super) fn carry_out<M: Medium + ?Sized>(
    disk: &M,
    ctx: &TaskCtx,
    requests: &Requests<'_, '_>,
    pieces: impl Iterator<Item = Piece> + Send,
    prepare: impl Fn(Piece, &mut [u8]) + Sync,
    ask: impl Fn(u64, &mut [u8]) -> Result<(), Failed> + Sync,
    check: impl Fn(u64, &[u8]) + Sync,
) -> Phase {
    let begin = Instant::now();
    let map = requests.total.filter(|_| requests.mapped);
    let tally = Mutex::new(Tally {
        latency: LatencyHistogram::default(),
        bytes: 0,
        map: map.map(|total| SpeedMap::new(0, total, requests.load.chunk as u64)),
        meter: Meter::new(ctx, requests.stage, disk.name(), requests.total),
        pace: Pace::new(begin),
    });
    let ended = flow::run(
        requests.load,
        pieces,
        ctx,
        |piece, buffer| {
            prepare(piece, buffer);
            let asked = Instant::now();
            let answer = ask(piece.offset, buffer);
            let now = Instant::now();
            if let Err(failed) = answer {
                if !disk.is_there() {
                    let message = format!("{} went away at byte {}", disk.name(), piece.offset);
                    return Err(Fault::new(FaultCode::DiskVanished, message).because(failed.0));
                }
                let mut good_from = 0;
                for bad in narrow(piece.offset, buffer, failed, &ask) {
                    let at = usize::try_from(bad.offset - piece.offset).unwrap_or(buffer.len());
                    check(piece.offset + good_from as u64, &buffer[good_from..at]);
                    good_from = at + usize::try_from(bad.length).unwrap_or(0);
                    requests.findings.failed(requests.errors, disk.name(), bad.offset, bad.length, bad.why.0)?;
                }
                check(piece.offset + good_from as u64, &buffer[good_from..]);
            } else {
                check(piece.offset, buffer);
            }
            requests.findings.bearable(disk.name())?;
            let mut tally = tally.lock().unwrap_or_else(PoisonError::into_inner);
            tally.latency.record(now.saturating_duration_since(asked));
            tally.bytes += piece.length as u64;
            tally.pace.moved(piece.length as u64, now);
            if let Some(map) = &mut tally.map {
                map.moved(piece.length as u64, now);
            }
            let bytes = tally.bytes;
            tally.meter.at(bytes);
            Ok(())
        },
        |_| {},
    );
    let now = Instant::now();
    let tally = tally.into_inner().unwrap_or_else(PoisonError::into_inner);
    Phase {
        bytes: tally.bytes,
        elapsed: now - begin,
        latency: tally.latency,
        regions: tally.map.map(|map| map.finish(now)).unwrap_or_default(),
        over_time: tally.pace.series,
        broken_off: ended.err(),
    }
}

/// A stretch that fails by itself.
struct Bad {
    offset: u64,
    length: u64,
    why: Failed,
}

/// Asks again for halves, quarters and so on of what failed. The good parts are done then.
fn narrow(
    offset: u64,
    buffer: &mut [u8],
    why: Failed,
    ask: &impl Fn(u64, &mut [u8]) -> Result<(), Failed>,
) -> Vec<Bad> {
    let mut bad = Vec::new();
    let mut parts = vec![(0, buffer.len(), why)];
    while let Some((at, length, why)) = parts.pop() {
        if length <= UNIT || bad.len() >= BAD_UNITS {
            bad.push(Bad { offset: offset + at as u64, length: length as u64, why });
            continue;
        }
        let half = (length / 2).next_multiple_of(UNIT);
        let before = parts.len();
        // The later half goes under the earlier one, so that places come in order.
        for (at, length) in [(at + half, length - half), (at, half)] {
            if let Some(part) = buffer.get_mut(at..at + length)
                && let Err(why) = ask(offset + at as u64, part)
            {
                parts.push((at, length, why));
            }
        }
        if parts.len() == before {
            // It failed whole and both halves succeed: it may have passed, but it did fail.
            bad.push(Bad { offset: offset + at as u64, length: length as u64, why });
        }
    }
    bad
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_place_is_narrowed_down_and_the_rest_is_done() {
        let done = Mutex::new(Vec::new());
        let ask = |offset: u64, part: &mut [u8]| {
            let bytes = offset..offset + part.len() as u64;
            if [70_000u64, 200_000].iter().any(|bad| bytes.contains(bad)) {
                return Err(Failed("no".into()));
            }
            done.lock().unwrap_or_else(PoisonError::into_inner).push(bytes);
            Ok(())
        };
        let mut buffer = vec![0; 1 << 18];
        let bad = narrow(0, &mut buffer, Failed("no".into()), &ask);
        let places: Vec<(u64, u64)> = bad.iter().map(|b| (b.offset, b.length)).collect();
        assert_eq!(places, [(17 * 4096, 4096), (48 * 4096, 4096)]);
        let bytes: u64 = done.lock().unwrap_or_else(PoisonError::into_inner).iter().map(|r| r.end - r.start).sum();
        assert_eq!(bytes, (1 << 18) - 2 * 4096, "everything else was asked for and given");
    }

    #[test]
    fn a_request_that_fails_once_counts_as_well() {
        let bad = narrow(0, &mut [0; 8192], Failed("once".into()), &|_, _| Ok(()));
        assert_eq!((bad.len(), bad[0].offset, bad[0].length), (1, 0, 8192));
        let bad = narrow(0, &mut vec![0; 1 << 20], Failed("dead".into()), &|_, _| Err(Failed("dead".into())));
        assert!(bad.len() < 40, "{} places of one request", bad.len());
        assert_eq!(bad.iter().map(|b| b.length).sum::<u64>(), 1 << 20);
    }
}

//! Disks that lie, lose, swap, flip and fail: whatever is wrong with one is found, at its place and by its kind.
//!
//! The disk is memory here, so that hundreds of faults take seconds. The same faults behind the kernel's own drivers are
//! in tests/boot/burn_in.rs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use rand::{Rng as _, SeedableRng as _};
use speediso_sys::passthrough::Passthrough;

use super::findings::{Finding, Findings, Found};
use super::map;
use super::medium::{Failed, Medium, Writable};
use super::reading::{self, Share};
use super::twice::{self, Twice};
use super::writing::{self, Plan, Written};
use crate::wipe::flow::Load;
use crate::wipe::tests::Bench;

const SECTOR: u64 = 512;
const SIZE: u64 = 16 << 20;

/// What is wrong with one sector.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Bad {
    /// It cannot be read.
    Read,
    /// It cannot be written.
    Write,
    /// A bit of it is always 0 or always 1, whichever it should not be.
    Stuck(usize),
    /// A bit of it is wrong the first time it is read.
    Once(usize),
    /// Writes to it are lost.
    Lost,
    /// Writes to it are lost once there was a first one.
    LostLater,
    /// Writes to it land in this sector instead.
    Elsewhere(u64),
}

struct BadDisk {
    content: Mutex<Vec<u8>>,
    bad: Mutex<BTreeMap<u64, Bad>>,
    slow: std::ops::Range<u64>,
}

impl BadDisk {
    fn new(bad: &[(u64, Bad)]) -> Self {
        Self {
            content: Mutex::new(vec![0; usize::try_from(SIZE).unwrap_or(0)]),
            bad: Mutex::new(bad.iter().copied().collect()),
            slow: 0..0,
        }
    }

    fn sectors(offset: u64, length: usize) -> impl Iterator<Item = (u64, usize)> {
        (0..length).step_by(512).map(move |at| ((offset + at as u64) / SECTOR, at))
    }

    fn rest(&self, offset: u64, length: usize) {
        if self.slow.contains(&offset) {
            std::thread::sleep(Duration::from_micros(length as u64 / 40));
        }
    }
}

fn place(sector: u64) -> std::ops::Range<usize> {
    let at = usize::try_from(sector * SECTOR).unwrap_or(usize::MAX - 512);
    at..at + 512
}

impl Medium for BadDisk {
    fn name(&self) -> &str {
        "/dev/bad"
    }

    fn size(&self) -> u64 {
        SIZE
    }

    fn sector_size(&self) -> u64 {
        SECTOR
    }

    fn read_at(&self, offset: u64, data: &mut [u8]) -> Result<(), Failed> {
        self.rest(offset, data.len());
        let mut bad = self.bad.lock().unwrap_or_else(PoisonError::into_inner);
        let content = self.content.lock().unwrap_or_else(PoisonError::into_inner);
        for (sector, at) in Self::sectors(offset, data.len()) {
            let unit = &mut data[at..at + 512];
            unit.copy_from_slice(&content[place(sector)]);
            match bad.get(&sector) {
                Some(Bad::Read) => return Err(Failed(format!("sector {sector} cannot be read"))),
                Some(Bad::Stuck(bit)) => unit[bit / 8] ^= 1 << (bit % 8),
                Some(Bad::Once(bit)) => {
                    unit[bit / 8] ^= 1 << (bit % 8);
                    bad.remove(&sector);
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn is_there(&self) -> bool {
        true
    }

    fn device(&self) -> Option<&dyn Passthrough> {
        None
    }
}

impl Writable for BadDisk {
    fn write_at(&self, offset: u64, data: &[u8]) -> Result<(), Failed> {
        self.rest(offset, data.len());
        let mut bad = self.bad.lock().unwrap_or_else(PoisonError::into_inner);
        let mut content = self.content.lock().unwrap_or_else(PoisonError::into_inner);
        for (sector, at) in Self::sectors(offset, data.len()) {
            let unit = &data[at..at + 512];
            match bad.get(&sector).copied() {
                Some(Bad::Write) => return Err(Failed(format!("sector {sector} cannot be written"))),
                Some(Bad::Lost) => {}
                Some(Bad::LostLater) => {
                    content[place(sector)].copy_from_slice(unit);
                    bad.insert(sector, Bad::Lost);
                }
                Some(Bad::Elsewhere(other)) => content[place(other)].copy_from_slice(unit),
                _ => content[place(sector)].copy_from_slice(unit),
            }
        }
        Ok(())
    }

    fn flush(&self) -> Result<(), Failed> {
        Ok(())
    }
}

/// One at a time: what is written to the wrong place must not be put right by a thread that is behind.
const LARGE: Load = Load { chunk: 64 << 10, depth: 1 };
const SMALL: Load = Load { chunk: 4096, depth: 3 };

fn write(bench: &Bench, disk: &BadDisk, random_for: Duration) -> (Written, Found) {
    let findings = Findings::new(&|_| {});
    let plan = Plan { large: LARGE, small: SMALL, random_for };
    let written = writing::verified(disk, plan, &findings, &bench.ctx);
    (written, findings.take())
}

/// Sectors far from one another, so that each fault is one of its own.
fn places(seed: u64, n: usize) -> Vec<u64> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut slots: Vec<u64> = (0..SIZE / SECTOR / 64).collect();
    slots.shuffle(&mut random);
    slots[..n].iter().map(|slot| slot * 64 + random.random_range(0..64)).collect()
}

#[track_caller]
fn found_at(found: &Found, sector: u64, kinds: &[&str]) -> bool {
    let at = sector * SECTOR;
    found.places.iter().any(|p| kinds.contains(&p.kind) && (p.offset..p.offset + p.length).contains(&at))
}

#[test]
fn a_good_disk_has_nothing_wrong() {
    let bench = Bench::new();
    let (written, found) = write(&bench, &BadDisk::new(&[]), Duration::from_millis(200));
    assert!(found.counts.is_empty() && written.broken_off().is_none(), "{found:?}");
    assert!(written.rounds > 0 && written.random_write.latency.count() > 0);
    assert_eq!((written.sequential.bytes, written.read_back.bytes), (SIZE, SIZE));
    assert_eq!(written.random_read.latency.count(), written.random_write.latency.count());
    // The next run is not fooled by what this one left.
    assert!(written.read_back.regions.len() > 10);
}

/// A hundred of each kind, ten to a disk.
#[test]
fn every_fault_is_found_at_its_place_and_by_its_kind() {
    let bench = Bench::new();
    type Make = fn(u64) -> Bad;
    let kinds: [(&str, Make, &[&str]); 6] = [
        ("unreadable", |_| Bad::Read, &["read_errors"]),
        ("unwritable", |_| Bad::Write, &["write_errors"]),
        ("stuck", |n| Bad::Stuck(usize::try_from(n * 37 % 4096).unwrap_or(0)), &["stuck_bits"]),
        ("flipped once", |n| Bad::Once(usize::try_from(n * 41 % 4096).unwrap_or(0)), &["transient_bits"]),
        ("lost", |_| Bad::Lost, &["lost_writes"]),
        // To a place that was written before, so that it stays damaged.
        ("elsewhere", |n| Bad::Elsewhere(n.saturating_sub(16384)), &["lost_writes"]),
    ];
    for (name, make, expected) in kinds {
        let mut caught = 0;
        for seed in 0..10 {
            let mut sectors = places(seed, 10);
            if name == "elsewhere" {
                sectors.iter_mut().for_each(|s| *s = 16384 + *s / 2);
            }
            let bad: Vec<(u64, Bad)> = sectors.iter().map(|s| (*s, make(*s))).collect();
            let (_, found) = write(&bench, &BadDisk::new(&bad), Duration::ZERO);
            for (sector, bad) in &bad {
                assert!(found_at(&found, *sector, expected), "{name}: sector {sector} (seed {seed}): {found:?}");
                if let Bad::Elsewhere(other) = bad {
                    assert!(found_at(&found, *other, &["misdirected_writes"]), "{name}: sector {other}: {found:?}");
                }
                caught += 1;
            }
            if name == "unwritable" {
                assert_eq!(found.mismatches(), 0, "what was not written is not lost as well: {found:?}");
            }
        }
        assert_eq!(caught, 100, "{name}");
    }
}

/// Random writes find a bad sector again and again, and the last pass once more: each counts once, and far more of them
/// count than are named.
#[test]
fn every_bad_sector_counts_once_for_its_kind() {
    let bench = Bench::new();
    // A sector of every stretch of 64, so that no two are one place.
    let sector = |n: u64| n * 64 + n % 61;
    let (stuck, lost) = (150..320, 330..500);
    let bad: Vec<(u64, Bad)> = stuck
        .clone()
        .map(|n| (sector(n), Bad::Stuck(usize::try_from(n % 4096).unwrap_or(0))))
        .chain(lost.clone().map(|n| (sector(n), Bad::Lost)))
        .collect();
    let (written, found) = write(&bench, &BadDisk::new(&bad), Duration::from_millis(600));
    assert!(written.rounds > 0 && written.broken_off().is_none(), "{found:?}");
    assert_eq!((found.count("stuck_bits"), found.count("lost_writes")), (170, 170));
    assert_eq!((found.mismatches(), found.errors(), found.counts.len()), (340, 0, 2));
    assert_eq!(found.places.len(), 100, "the rest is counted and not named");

    // Without random writes, which would heal what a misdirected one damaged.
    let elsewhere: Vec<(u64, Bad)> = (0..120).map(|n| (16_384 + sector(n), Bad::Elsewhere(sector(n)))).collect();
    let (_, found) = write(&bench, &BadDisk::new(&elsewhere), Duration::ZERO);
    assert_eq!((found.count("misdirected_writes"), found.count("lost_writes")), (120, 120));
    assert_eq!(found.mismatches(), 240);
}

/// Nobody writes to it, and still it reads otherwise: a sector that flips when it is read, and one that changes.
#[test]
fn what_reads_otherwise_the_second_time_is_found() {
    let bench = Bench::new();
    let content: Vec<u8> = (0..SIZE).map(|n| u8::try_from(n * 31 % 251).unwrap_or(0)).collect();
    let disk = BadDisk { content: Mutex::new(content), ..BadDisk::new(&[]) };
    let findings = Findings::new(&|_| {});
    let share = Share::of(SIZE, 100, LARGE.chunk);
    let twice = Twice::over(share.bytes() / LARGE.chunk as u64, SMALL.chunk);
    reading::sequentially(&disk, share, LARGE, &findings, &bench.ctx, |offset, found| twice.meet(offset, found));
    let places = twice.places();
    assert_eq!(places.len(), 256, "one of every request");

    let read = |time| reading::randomly(&disk, time, SMALL, Some(&twice), &findings, &bench.ctx);
    read(Duration::from_millis(300));
    assert!(twice.compared() > 0);
    disk.bad.lock().expect("whole").insert(places[7] / SECTOR, Bad::Once(5));
    let changed = place(places[100] / SECTOR);
    disk.content.lock().expect("whole")[changed].fill(0xee);
    // Until each place had its turn several times.
    let before = twice.compared();
    while twice.compared() < before + 4 * 256 {
        read(Duration::from_millis(100));
    }
    let found = findings.take();
    assert_eq!((found.count(twice::KIND), found.mismatches()), (2, 0), "{found:?}");
    let said = |at: u64| found.places.iter().find(|p| p.offset == at).map(|p| p.what.clone()).unwrap_or_default();
    assert!(said(places[7]).contains("as the first time"), "{found:?}");
    assert!(said(places[100]).contains("something else"), "{found:?}");
}

#[test]
fn a_write_that_is_lost_later_is_found_by_the_random_ones() {
    let bench = Bench::new();
    let bad: Vec<(u64, Bad)> = (0..10).map(|n| (n * 3000 + 5, Bad::LostLater)).collect();
    // Of a small disk every second block is written in each round: it goes on until all of them have had their turn.
    let seen = Mutex::new(BTreeSet::new());
    let tell = |finding: &Finding| {
        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.insert(finding.offset);
        if seen.len() == bad.len() {
            bench.ctx.cancel.cancel();
        }
    };
    let findings = Findings::new(&tell);
    let plan = Plan { large: LARGE, small: SMALL, random_for: Duration::from_secs(600) };
    let written = writing::verified(&BadDisk::new(&bad), plan, &findings, &bench.ctx);
    let found = findings.take();
    assert!(written.rounds > 0 && written.read_back.bytes == 0, "the rounds found them, not the last pass");
    for (sector, _) in &bad {
        assert!(found_at(&found, *sector, &["lost_writes"]), "sector {sector}: {found:?}");
    }
    assert!(found.places.iter().any(|p| p.what.contains("pass 0")), "{found:?}");
}

#[test]
fn reading_names_what_cannot_be_read_and_what_is_slow() {
    let bench = Bench::new();
    let sectors = places(7, 20);
    let bad: Vec<(u64, Bad)> = sectors.iter().map(|s| (*s, Bad::Read)).collect();
    let slow = 4 << 20..6 << 20;
    let disk = BadDisk { slow: slow.clone(), ..BadDisk::new(&bad) };
    let findings = Findings::new(&|_| {});
    let share = Share::of(SIZE, 100, LARGE.chunk);
    let phase = reading::sequentially(&disk, share, LARGE, &findings, &bench.ctx, |_, _| {});
    let found = findings.take();
    assert!(sectors.iter().all(|s| found_at(&found, *s, &["read_errors"])), "{found:?}");
    assert_eq!(found.errors(), 20);
    assert!(found.places.iter().all(|p| p.length == 4096));
    let regions = map::slow(&phase.regions);
    assert!(
        regions.iter().all(|r| slow.start <= r.offset + (1 << 19) && r.offset < slow.end + (1 << 19)),
        "{regions:?}"
    );
    assert!(regions.iter().map(|r| r.length).sum::<u64>() >= 1 << 20, "{regions:?}");
}

#[test]
fn a_disk_that_fails_all_over_is_given_up() {
    let bench = Bench::new();
    let bad: Vec<(u64, Bad)> = (0..SIZE / SECTOR).map(|s| (s, Bad::Read)).collect();
    let findings = Findings::new(&|_| {});
    let disk = BadDisk::new(&bad);
    let begin = Instant::now();
    let phase = reading::randomly(&disk, Duration::from_secs(600), SMALL, None, &findings, &bench.ctx);
    let fault = phase.broken_off.expect("nobody reads on");
    assert!(fault.message.contains("/dev/bad") && fault.message.contains("at byte"), "{fault}");
    assert!(begin.elapsed() < Duration::from_secs(500), "long before its time");
    bench.ctx.cancel.cancel();
    let good = BadDisk::new(&[]);
    let findings = Findings::new(&|_| {});
    let share = Share::of(SIZE, 100, LARGE.chunk);
    let phase = reading::sequentially(&good, share, LARGE, &findings, &bench.ctx, |_, _| {});
    assert_eq!(phase.broken_off.map(|f| f.code), Some(speediso_model::fault::FaultCode::Cancelled));
}

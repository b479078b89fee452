//! The disk step: the drive's test of itself, reading or verified writing all along, then requests anywhere, on all disks
//! at the same time, each with its own end.
//!
//! Reading needs no more than a look ([`Peek`]). Writing takes a [`ClaimedDisk`] of an identity in the permitted plan; so
//! does a self-test, since it is a command that does more than ask.

mod findings;
mod health;
mod map;
mod measure;
mod medium;
mod mismatch;
mod reading;
#[cfg(test)]
mod tests;
mod twice;
mod work;
mod writing;

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use speediso_model::burn_in::{DiskSelfTest, DiskStep, Measurement, Verdict, judge};
use speediso_model::fault::{Fault, FaultCode};
use speediso_model::hints::describe;
use speediso_model::inventory::Disk;
use speediso_model::outcome::{Changed, DeviceResult, Outcome};
use speediso_model::plan::{Action, DiskIdentity, PlannedDevice};
use speediso_model::units::Bytes;
use speediso_model::wipe::WipeTargets;
use speediso_sys::claim::ClaimedDisk;
use speediso_sys::passthrough::self_test::Language;
use speediso_sys::peek::Peek;

use self::findings::{Finding, Findings as Places, Found};
use self::measure::Measured;
use self::medium::Medium;
use self::reading::Share;
use self::twice::Twice;
use self::writing::Plan;
use super::live::Live;
use super::work::{Findings, Planned, Work};
use crate::ctx::TaskCtx;
use crate::single::{self, Ended};
use crate::wipe::choose_disks;
use crate::wipe::flow::Load;

pub(super) struct Disks {
    step: DiskStep,
}

impl Disks {
    pub(super) fn new(step: DiskStep) -> Self {
        Self { step }
    }

    /// Which disks are meant, of those that are here.
    fn chosen<'a>(&self, all: &'a [Disk]) -> Result<Vec<&'a Disk>, Fault> {
        if self.step.verify_writes || matches!(self.step.devices, WipeTargets::Hints(_)) {
            return choose_disks(&self.step.devices, all);
        }
        // A disk that somebody uses can still be read.
        Ok(all.iter().filter(|d| !d.removable && d.array.is_none() && d.excluded.is_none()).collect())
    }

    fn in_words(&self) -> String {
        let test = match self.step.self_test {
            None => "",
            Some(DiskSelfTest::Short) => "short self-test, then ",
            Some(DiskSelfTest::Extended) => "extended self-test, then ",
        };
        if self.step.verify_writes {
            return format!("{test}write a pattern over the whole disk and read it back; what is there is lost");
        }
        match self.step.share {
            Some(share) if share < 100 => format!("{test}read {share} % of the disk, and anywhere"),
            _ => format!("{test}read the whole disk, and anywhere"),
        }
    }
}

impl Work for Disks {
    fn plan(&self, ctx: &TaskCtx) -> Result<Planned, Fault> {
        let all = single::read_disks(ctx)?;
        let disks = self.chosen(&all)?;
        let what = self.in_words();
        let device = |disk: &Disk| PlannedDevice {
            identity: DiskIdentity::of(disk),
            seen_as: disk.name.clone(),
            actions: vec![Action { what: what.clone(), offset: Bytes(0), length: disk.size }],
            found: if self.step.verify_writes { single::signatures(ctx, &disk.name) } else { Vec::new() },
        };
        let effect = match disks.len() {
            0 => "no disk is here".to_owned(),
            n => format!("on {n} disks at a time: {what}"),
        };
        Ok(Planned { effect, devices: disks.into_iter().map(device).collect() })
    }

    fn run(&self, live: &Live<'_>) -> Findings {
        let all = match single::read_disks(live.ctx) {
            Ok(all) => all,
            Err(fault) => return Findings::inconclusive(fault.to_string()),
        };
        let disks = match self.chosen(&all) {
            Ok(disks) if disks.is_empty() => return Findings::inconclusive("no disk is here"),
            Ok(disks) => disks,
            Err(fault) => return Findings::inconclusive(fault.to_string()),
        };
        let n = disks.len();
        let tested: Vec<Tested> = live.following(|ctx| {
            thread::scope(|scope| {
                let workers: Vec<_> =
                    disks.iter().map(|disk| (*disk, scope.spawn(move || self.test(disk, n, live, ctx)))).collect();
                let ended = |(disk, worker): (&Disk, thread::ScopedJoinHandle<'_, Tested>)| {
                    worker.join().unwrap_or_else(|_| Tested::panicked(disk, self.step.verify_writes))
                };
                workers.into_iter().map(ended).collect()
            })
        });
        let mut findings = Findings::default();
        for one in tested {
            findings.changed |= one.changed;
            findings.measurements.extend(one.measurements);
            findings.unread.extend(one.unread);
            findings.notices.extend(one.notices);
            findings.inconclusive.extend(one.inconclusive);
            findings.devices.push(one.device);
        }
        findings
    }
}

/// What became of one disk.
struct Tested {
    device: DeviceResult,
    measurements: Vec<Measurement>,
    unread: Vec<String>,
    notices: Vec<String>,
    inconclusive: Vec<String>,
    changed: bool,
}

impl Tested {
    fn not_begun(disk: &Disk, fault: Fault) -> Self {
        let why = fault.to_string();
        Self {
            device: ended(disk, Ended::unchanged(fault)),
            measurements: Vec::new(),
            unread: Vec::new(),
            notices: Vec::new(),
            inconclusive: vec![format!("{}: {why}", place(disk))],
            changed: false,
        }
    }

    fn panicked(disk: &Disk, writes: bool) -> Self {
        let fault = Fault::new(FaultCode::Internal, format!("the burn-in of {} panicked", disk.name));
        let ended_as = if writes { Outcome::Unknown } else { Outcome::FailedUnchanged };
        let device = ended(disk, Ended::failed(ended_as, "not finished", fault.clone()));
        Self { device, changed: writes, ..Self::not_begun(disk, fault) }
    }
}

fn place(disk: &Disk) -> String {
    let name = disk.name.strip_prefix("/dev/").unwrap_or(&disk.name);
    if disk.serial.trim().is_empty() { name.to_owned() } else { format!("{name} {}", disk.serial.trim()) }
}

fn ended(disk: &Disk, ended: Ended) -> DeviceResult {
    DeviceResult {
        identity: DiskIdentity::of(disk),
        seen_as: disk.name.clone(),
        outcome: ended.outcome,
        changed: ended.changed,
        used: ended.used,
        fault: ended.fault,
        facts: ended.facts,
    }
}

/// A disk, held as firmly as the step needs it.
enum Held {
    Claimed(ClaimedDisk),
    Looked(Peek),
}

impl Disks {
    fn hold(&self, disk: &Disk, live: &Live<'_>, ctx: &TaskCtx) -> Result<(Held, Option<String>), Fault> {
        let looked = || Peek::open(&ctx.roots, disk).map(Held::Looked);
        if !self.step.verify_writes && self.step.self_test.is_none() {
            return Ok((looked()?, None));
        }
        let identity = DiskIdentity::of(disk);
        if !live.permitted.iter().any(|device| device.identity == identity) {
            let message = format!("{} is not in the plan that was permitted", describe(disk));
            return Err(Fault::new(FaultCode::PlanMismatch, message));
        }
        match ClaimedDisk::claim(&ctx.roots, ctx.scope, &identity, false) {
            Ok(claimed) => Ok((Held::Claimed(claimed), None)),
            Err(fault) if self.step.verify_writes => Err(fault),
            Err(fault) => Ok((looked()?, Some(format!("no self-test: {fault}")))),
        }
    }

    fn test(&self, disk: &Disk, n: usize, live: &Live<'_>, ctx: &TaskCtx) -> Tested {
        let (held, no_test) = match self.hold(disk, live, ctx) {
            Ok(held) => held,
            Err(fault) => return Tested::not_begun(disk, fault),
        };
        let medium: &dyn Medium = match &held {
            Held::Claimed(claimed) => claimed,
            Held::Looked(peek) => peek,
        };
        let place = place(disk);
        let mut unread = Vec::new();
        let mut inconclusive: Vec<String> = no_test.into_iter().map(|why| format!("{place}: {why}")).collect();
        let mut measured = Measured::new(place.clone(), disk.size.0);

        let spoken = medium.device().map(|device| health::language(disk, device).map(|language| (device, language)));
        let spoken = spoken.transpose().unwrap_or_else(|why| {
            unread.push(format!("{place}: what the drive counts: {why}"));
            None
        });
        let before = spoken.and_then(|(device, language)| match health::read(device, language) {
            Ok(None) => {
                unread.push(format!("{place}: what the drive counts: it keeps no record of itself"));
                None
            }
            Ok(health) => health,
            Err(why) => {
                unread.push(format!("{place}: what the drive counts: {why}"));
                None
            }
        });
        if let Some(kind) = self.step.self_test {
            let language = spoken.map(|(_, language)| language);
            self.self_test(kind, &held, language, &place, &mut measured, &mut inconclusive, ctx);
        }

        let tell = |finding: &Finding| {
            live.fault(&format!("{place}: {} bytes at byte {}: {}", finding.length, finding.offset, finding.what));
        };
        let places = Places::new(&tell);
        let done = AtomicBool::new(false);
        let mut compared = None;
        let (broken_off, temperatures) = thread::scope(|scope| {
            let watching = spoken.map(|(device, language)| {
                let done = &done;
                scope.spawn(move || health::watch(device, language, &|| done.load(Ordering::Relaxed)))
            });
            let broken_off = match &held {
                Held::Claimed(claimed) if self.step.verify_writes => {
                    self.write(claimed, n, live.step.duration.duration(), &places, &mut measured, ctx)
                }
                _ => {
                    let twice = self.twice(disk, n, medium);
                    let time = live.step.duration.duration();
                    let broken_off = self.read(medium, n, time, twice.as_ref(), &places, &mut measured, ctx);
                    compared = twice.map(|twice| twice.compared());
                    broken_off
                }
            };
            done.store(true, Ordering::Relaxed);
            (broken_off, watching.and_then(|thread| thread.join().ok()))
        });
        measured.temperature(temperatures.unwrap_or_default());
        if let (Some((device, language)), Some(before)) = (spoken, &before) {
            match health::read(device, language) {
                Ok(after) => {
                    let after = after.unwrap_or_default();
                    for (name, more) in health::grown(before, &after) {
                        measured.push(Measurement::count(format!("disk.new.{name}"), more));
                    }
                    if let Some(passed) = after.passed {
                        measured.push(Measurement::count("disk.failing", u64::from(!passed)));
                    }
                }
                Err(why) => unread.push(format!("{place}: what the drive counts, afterwards: {why}")),
            }
        }
        let found = places.take();
        measured.found(&found, self.step.verify_writes);
        match compared {
            Some(compared) => measured.read_twice(compared, &found),
            None if self.step.verify_writes => {}
            None => {
                unread.push(format!("{place}: whether it reads the same twice: somebody uses it, and may write to it"));
            }
        }
        self.conclude(disk, live, measured, &found, broken_off, unread, inconclusive)
    }

    #[allow(clippy::too_many_arguments, reason = "one call")]
    fn self_test(
        &self,
        kind: DiskSelfTest,
        held: &Held,
        language: Option<Language>,
        place: &str,
        measured: &mut Measured,
        inconclusive: &mut Vec<String>,
        ctx: &TaskCtx,
    ) {
        let default = match kind {
            DiskSelfTest::Short => Duration::from_mins(30),
            DiskSelfTest::Extended => Duration::from_hours(72),
        };
        let within = self.step.self_test_within.map_or(default, speediso_model::burn_in::Seconds::duration);
        let Held::Claimed(claimed) = held else { return };
        let tested = match language {
            Some(language) => health::self_test(claimed, language, kind, within, ctx),
            None => health::Tested::Unknown("it has no commands for that".into()),
        };
        match tested {
            health::Tested::Passed => measured.push(Measurement::count("disk.self_test.failed", 0)),
            health::Tested::Failed(what) => {
                measured.push(Measurement::count("disk.self_test.failed", 1));
                measured.notices.push(format!("{place}: its test of itself: {what}"));
            }
            health::Tested::Unknown(why) => inconclusive.push(format!("{place}: self-test: {why}")),
        }
    }

    /// Large requests all along: memory is shared by all disks.
    fn large(n: usize) -> Load {
        const MEMORY: usize = 48 << 20;
        const CHUNK: usize = 512 << 10;
        Load { chunk: CHUNK, depth: (MEMORY / n.max(1) / CHUNK).clamp(2, 8) }
    }

    fn small(&self, sector: u64) -> Load {
        const BLOCK: u64 = 4096;
        let chunk = usize::try_from(sector.max(BLOCK)).unwrap_or(4096);
        Load { chunk, depth: self.step.queue_depth.unwrap_or(16).into() }
    }

    /// For a disk that nobody uses: what others write to may change between two reads.
    fn twice(&self, disk: &Disk, n: usize, medium: &dyn Medium) -> Option<Twice> {
        let large = Self::large(n).chunk;
        let requests = Share::of(medium.size(), self.step.share.unwrap_or(100), large).bytes() / large as u64;
        disk.in_use.is_empty().then(|| Twice::over(requests, self.small(medium.sector_size()).chunk))
    }

    #[allow(clippy::too_many_arguments, reason = "one call")]
    fn read(
        &self,
        medium: &dyn Medium,
        n: usize,
        anywhere_for: Duration,
        twice: Option<&Twice>,
        places: &Places<'_>,
        measured: &mut Measured,
        ctx: &TaskCtx,
    ) -> Option<Fault> {
        let large = Self::large(n);
        let share = Share::of(medium.size(), self.step.share.unwrap_or(100), large.chunk);
        let meet = |offset: u64, found: &[u8]| {
            if let Some(twice) = twice {
                twice.meet(offset, found);
            }
        };
        let along = reading::sequentially(medium, share, large, places, ctx, meet);
        measured.along("read", &along);
        measured.slow_regions(&[("read", &along)]);
        if along.broken_off.is_some() {
            return along.broken_off;
        }
        let anywhere = reading::randomly(medium, anywhere_for, self.small(medium.sector_size()), twice, places, ctx);
        measured.anywhere("random_read", &anywhere);
        anywhere.broken_off
    }

    fn write(
        &self,
        disk: &ClaimedDisk,
        n: usize,
        anywhere_for: Duration,
        places: &Places<'_>,
        measured: &mut Measured,
        ctx: &TaskCtx,
    ) -> Option<Fault> {
        let (large, small) = (Self::large(n), self.small(disk.sector_size()));
        let written = writing::verified(disk, Plan { large, small, random_for: anywhere_for }, places, ctx);
        measured.along("write", &written.sequential);
        measured.along("read", &written.read_back);
        measured.slow_regions(&[("written", &written.sequential), ("read", &written.read_back)]);
        measured.anywhere("random_write", &written.random_write);
        measured.anywhere("random_read", &written.random_read);
        written.broken_off().cloned()
    }

    /// The disk's own end, by the same limits that the step is judged by.
    #[allow(clippy::too_many_arguments, reason = "one call")]
    fn conclude(
        &self,
        disk: &Disk,
        live: &Live<'_>,
        measured: Measured,
        found: &Found,
        broken_off: Option<Fault>,
        unread: Vec<String>,
        mut inconclusive: Vec<String>,
    ) -> Tested {
        let wrote = self.step.verify_writes;
        let limits: Vec<_> = live.step.limits.iter().cloned().chain(live.step.kind.default_limits()).collect();
        if let Some(fault) = &broken_off {
            inconclusive.push(format!("{}: {fault}", place(disk)));
        }
        let verdict = judge(&measured.measurements, &limits, &inconclusive);
        let fault = match (broken_off, &verdict) {
            (Some(fault), _) => Some(fault),
            (None, Verdict::Passed) => None,
            (None, Verdict::Failed { .. }) => Some(because(FaultCode::HardwareFault, disk, "has a fault", &verdict)),
            (None, _) => Some(because(FaultCode::BurnInInconclusive, disk, "could not be judged", &verdict)),
        };
        let used = self.in_words();
        let mut end = match fault {
            None => Ended::verified(if wrote { Changed::Changed } else { Changed::AlreadySo }, used, Value::Null),
            Some(fault) if wrote => Ended::failed(Outcome::FailedChanged, used, fault),
            Some(fault) => Ended::failed(Outcome::FailedUnchanged, used, fault),
        };
        end.facts = json!({
            "counts": found.counts,
            "places": found
                .places
                .iter()
                .map(|p| json!({"kind": p.kind, "offset": p.offset, "length": p.length, "what": p.what}))
                .collect::<Vec<_>>(),
        });
        Tested {
            device: ended(disk, end),
            measurements: measured.measurements,
            unread,
            notices: measured.notices,
            inconclusive,
            changed: wrote,
        }
    }
}

fn because(code: FaultCode, disk: &Disk, what: &str, verdict: &Verdict) -> Fault {
    const MOST: usize = 10;
    let mut fault = Fault::new(code, format!("{} {what}", describe(disk)));
    fault.causes = verdict.reasons().into_iter().take(MOST).collect();
    fault
}

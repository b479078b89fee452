//! Making what disks hold unreadable, and seeing that it is.
//!
//! Level *clear*: every addressable sector is overwritten, the last time with a [`pattern`] that is read back from the
//! medium. Nothing here discards or asks the device to zero: what reads as zeroes need not have been overwritten.
//! Disks are worked on in parallel; each ends by itself, and the worst counts.

mod pattern;

use std::thread;
use std::time::Instant;

use rand::seq::index::sample;
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use serde_json::{Value, json};
use speediso_model::fault::{Fault, FaultCode};
use speediso_model::hints::{Rejection, describe, unusable};
use speediso_model::inventory::Disk;
use speediso_model::outcome::{Changed, Outcome, TaskResult};
use speediso_model::plan::{Action, DiskIdentity, Plan, PlanDigest, PlannedDevice};
use speediso_model::task::{WipePass, WipeTargets, WipeTask, WipeVerify};
use speediso_model::units::{Bytes, MIB};
use speediso_sys::buffer::AlignedBuffer;
use speediso_sys::claim::ClaimedDisk;

use self::pattern::Pattern;
use crate::ctx::{Meter, TaskCtx};
use crate::gptedit::Edges;
use crate::single::{self, Ended, OnDisk as _, device_result, mib_per_second};

const KIND: &str = "wipe";
/// Small enough that dozens of disks are wiped at once in the memory of a small machine.
const CHUNK: usize = 1 << 20;
/// Into how many parts the speed profile divides a disk.
const SLICES: u64 = 32;

pub(crate) fn plan(task: &WipeTask, ctx: &TaskCtx) -> Result<Plan, Fault> {
    let all = single::read_disks(ctx)?;
    let mut chosen: Vec<&Disk> = Vec::new();
    match &task.devices {
        WipeTargets::Hints(hints) => {
            for hint in hints {
                let disk = hint.resolve(&all)?;
                if chosen.iter().any(|c| c.name == disk.name) {
                    return Err(Fault::new(FaultCode::TaskInvalid, format!("{} is named twice", describe(disk))));
                }
                chosen.push(disk);
            }
        }
        WipeTargets::AllDisks => {
            for disk in all.iter().filter(|d| !d.removable && d.array.is_none()) {
                // A disk in use is not left out: the order says all, and "all but some" is not what it says.
                if let Some(Rejection::Unusable { code, reason }) = unusable(disk, false) {
                    return Err(Fault::new(code, format!("{}: {reason}", describe(disk))));
                }
                chosen.push(disk);
            }
            if let Some((one, other)) = same_disk_twice(&chosen) {
                return Err(Fault::new(
                    FaultCode::AmbiguousDisk,
                    format!("{} and {} have one WWN: two paths to one disk?", describe(one), describe(other)),
                ));
            }
            if chosen.is_empty() {
                return Err(Fault::new(FaultCode::NoMatchingDisk, "no disk here is fixed"));
            }
        }
    }
    let devices = chosen
        .iter()
        .map(|disk| PlannedDevice {
            identity: DiskIdentity::of(disk),
            seen_as: disk.name.clone(),
            actions: passes(task).map(|what| Action { what, offset: Bytes(0), length: disk.size }).collect(),
            found: single::signatures(ctx, &disk.name),
        })
        .collect();
    let plan = Plan { task: KIND.into(), destructive: true, devices, effects: Vec::new(), untouched: Vec::new() };
    Ok(plan.with_untouched(&all))
}

/// Two paths to one disk, wiped at once, would write over each other.
fn same_disk_twice<'a>(disks: &[&'a Disk]) -> Option<(&'a Disk, &'a Disk)> {
    disks.iter().enumerate().find_map(|(i, one)| {
        let wwn = one.wwn.as_ref()?;
        disks[i + 1..].iter().find(|other| other.wwn.as_ref() == Some(wwn)).map(|other| (*one, *other))
    })
}

fn passes(task: &WipeTask) -> impl Iterator<Item = String> {
    let verify = match task.verify {
        WipeVerify::Full => "all of it".to_owned(),
        WipeVerify::SamplePercent(percent) => format!("{percent} % at random, and start and end,"),
    };
    task.passes_before
        .iter()
        .map(|pass| match pass {
            WipePass::Zeroes => "overwrite with zeroes".to_owned(),
            WipePass::Random => "overwrite with random bytes".to_owned(),
        })
        .chain([format!("overwrite with a known pattern and read {verify} back")])
}

pub(crate) fn execute(task: &WipeTask, expected: &PlanDigest, ctx: &TaskCtx) -> TaskResult {
    let asked = format!("clear: {}", passes(task).collect::<Vec<_>>().join(", "));
    let disks = match claim_all(task, expected, ctx) {
        Ok(disks) => disks,
        Err(fault) => return TaskResult::failed(&asked, Outcome::FailedUnchanged, fault),
    };
    let results = thread::scope(|scope| {
        let workers: Vec<_> = disks.iter().map(|disk| (disk, scope.spawn(|| run(task, disk, ctx)))).collect();
        workers
            .into_iter()
            .map(|(disk, worker)| {
                let ended = worker.join().unwrap_or_else(|_| {
                    let fault = Fault::new(FaultCode::Internal, format!("wiping {} panicked", disk.name()));
                    Ended::failed(Outcome::Unknown, "none", fault)
                });
                device_result(disk, ended)
            })
            .collect()
    });
    TaskResult::from_devices(&asked, results)
}

/// All of them or none: a wipe that cannot have one of its disks changes nothing on the others.
fn claim_all(task: &WipeTask, expected: &PlanDigest, ctx: &TaskCtx) -> Result<Vec<ClaimedDisk>, Fault> {
    let plan = plan(task, ctx)?;
    single::hold_to(expected, &plan)?;
    ctx.cancel.check()?;
    let removable = |identity: &DiskIdentity| match &task.devices {
        WipeTargets::AllDisks => false,
        WipeTargets::Hints(hints) => hints.iter().any(|h| {
            h.allow_removable && h.serial.as_deref().is_none_or(|s| s.trim().eq_ignore_ascii_case(&identity.serial))
        }),
    };
    plan.devices
        .iter()
        .map(|d| ClaimedDisk::claim(&ctx.roots, ctx.scope, &d.identity, removable(&d.identity)))
        .collect()
}

fn run(task: &WipeTask, disk: &ClaimedDisk, ctx: &TaskCtx) -> Ended {
    let mut done = Progressed::default();
    match wipe(task, disk, ctx, &mut done) {
        Ok(ended) => ended,
        Err(fault) if !done.begun => Ended::unchanged(fault),
        Err(fault) => {
            let fault = fault.because(format!(
                "{} had been overwritten in pass {} of {}",
                Bytes(done.bytes),
                done.pass,
                task.passes_before.len() + 1
            ));
            Ended::failed(Outcome::FailedChanged, "overwriting, not finished", fault)
        }
    }
}

#[derive(Default)]
struct Progressed {
    /// Whether anything may have been written.
    begun: bool,
    pass: usize,
    bytes: u64,
}

fn wipe(task: &WipeTask, disk: &ClaimedDisk, ctx: &TaskCtx, done: &mut Progressed) -> Result<Ended, Fault> {
    let begun = Instant::now();
    let name = disk.name();
    ctx.cancel.check()?;
    done.begun = true;
    if disk.size() >= 2 * MIB {
        // First what would make the disk boot or be assembled again, so that an interrupted wipe leaves no disk that
        // looks whole.
        Edges::zeroed(disk.size()).write(disk)?;
    }
    let seed: u64 = rand::rng().random();
    for pass in &task.passes_before {
        done.pass += 1;
        match pass {
            WipePass::Zeroes => overwrite(disk, ctx, "writing zeroes", done, |_, buffer| buffer.fill(0))?,
            WipePass::Random => {
                let mut random = StdRng::seed_from_u64(rand::rng().random());
                overwrite(disk, ctx, "writing random bytes", done, |_, buffer| random.fill(buffer))?
            }
        };
    }
    done.pass += 1;
    ctx.reporter.step_began(&format!("overwrite {name}"));
    let pattern = Pattern { seed };
    let profile = overwrite(disk, ctx, "overwriting", done, |offset, buffer| pattern.fill(offset, buffer))?;
    let rate = mib_per_second(disk.size(), begun.elapsed());
    ctx.reporter.step_ended(&format!("overwrite {name}"), &format!("{} at {rate} MiB/s", Bytes(disk.size())));

    ctx.reporter.step_began(&format!("verify {name}"));
    let verified = verify(task.verify, pattern, disk, ctx)?;
    ctx.reporter.step_ended(&format!("verify {name}"), &format!("{} read back and compared", Bytes(verified.bytes)));
    let table_read = disk.reread_table().on(disk)?;
    // Of its members superblocks, copies, parity and what lies beyond the array were not reached.
    let level = disk.disk().array.is_none().then_some("clear");

    let slow = slow_slices(&profile);
    if !slow.is_empty() {
        ctx.reporter.notice(&format!("{name} is slow in {} of {SLICES} parts: look at its health", slow.len()));
    }
    Ok(Ended::verified(
        Changed::Changed,
        match level {
            Some(level) => format!("{level}: overwritten {} times, {}", task.passes_before.len() + 1, verified.method),
            None => format!("array overwritten, {}: reaches no level for its member disks", verified.method),
        },
        json!({
            "level": level,
            "bytes": disk.size(),
            "pattern_seed": format!("{seed:016x}"),
            "verified_bytes": verified.bytes,
            "sample": verified.sample,
            "seconds": (begun.elapsed().as_secs_f64() * 10.0).round() / 10.0,
            "write_mib_per_s": rate,
            "speed_profile_mib_per_s": profile,
            "slow_slices": slow,
            "kernel_read_the_table": table_read,
            "not_covered": "areas that the disk does not address: remapped sectors, over-provisioning, hidden areas",
        }),
    ))
}

/// Writes the whole disk once. Returns MiB/s for each of [`SLICES`] parts.
fn overwrite(
    disk: &ClaimedDisk,
    ctx: &TaskCtx,
    stage: &'static str,
    done: &mut Progressed,
    mut fill: impl FnMut(u64, &mut [u8]),
) -> Result<Vec<f64>, Fault> {
    let mut meter = Meter::new(ctx, stage, disk.name(), Some(disk.size()));
    let mut buffer = AlignedBuffer::zeroed(CHUNK);
    let slice = disk.size().div_ceil(SLICES).max(1);
    let mut profile = Vec::new();
    let (mut slice_begun, mut slice_from) = (Instant::now(), 0);
    done.bytes = 0;
    while done.bytes < disk.size() {
        ctx.cancel.check()?;
        let length = usize::try_from(disk.size() - done.bytes).unwrap_or(CHUNK).min(CHUNK);
        fill(done.bytes, &mut buffer[..length]);
        disk.write_at(done.bytes, &buffer[..length]).on(disk)?;
        done.bytes += length as u64;
        meter.at(done.bytes);
        if done.bytes - slice_from >= slice || done.bytes == disk.size() {
            profile.push(mib_per_second(done.bytes - slice_from, slice_begun.elapsed()));
            (slice_begun, slice_from) = (Instant::now(), done.bytes);
        }
    }
    disk.flush().on(disk)?;
    Ok(profile)
}

struct Verified {
    method: String,
    bytes: u64,
    sample: Value,
}

fn verify(mode: WipeVerify, pattern: Pattern, disk: &ClaimedDisk, ctx: &TaskCtx) -> Result<Verified, Fault> {
    let n = disk.size().div_ceil(CHUNK as u64);
    let (chosen, method, sample): (Vec<u64>, String, Value) = match mode {
        WipeVerify::Full => ((0..n).collect(), "read back whole from the medium".into(), Value::Null),
        WipeVerify::SamplePercent(percent) => {
            let seed: u64 = rand::rng().random();
            let count = usize::try_from((n * u64::from(percent)).div_ceil(100)).unwrap_or(usize::MAX);
            let all = usize::try_from(n).unwrap_or(usize::MAX);
            let mut chosen: Vec<u64> = sample(&mut StdRng::seed_from_u64(seed), all, count.min(all))
                .into_iter()
                .map(|i| i as u64)
                .chain([0, n - 1])
                .collect();
            chosen.sort_unstable();
            chosen.dedup();
            let facts =
                json!({"percent": percent, "seed": format!("{seed:016x}"), "unit": CHUNK, "units": chosen.len()});
            (chosen, format!("{percent} % at random, and start and end, read back from the medium"), facts)
        }
    };
    let length_of = |i: u64| usize::try_from(disk.size() - i * CHUNK as u64).unwrap_or(CHUNK).min(CHUNK);
    let total: u64 = chosen.iter().map(|i| length_of(*i) as u64).sum();
    let mut meter = Meter::new(ctx, "verifying", disk.name(), Some(total));
    let (mut buffer, mut scratch) = (AlignedBuffer::zeroed(CHUNK), vec![0; CHUNK]);
    let mut read = 0;
    for i in chosen {
        ctx.cancel.check()?;
        let (offset, length) = (i * CHUNK as u64, length_of(i));
        disk.read_at(offset, &mut buffer[..length]).on(disk)?;
        if let Some(at) = pattern.first_difference(offset, &buffer[..length], &mut scratch) {
            return Err(Fault::new(
                FaultCode::ReadBackMismatch,
                format!("{} does not return at byte {at} what was written there", disk.name()),
            ));
        }
        read += length as u64;
        meter.at(read);
    }
    Ok(Verified { method, bytes: read, sample })
}

/// Parts that took more than three times the median.
fn slow_slices(profile: &[f64]) -> Vec<usize> {
    let mut sorted = profile.to_vec();
    sorted.sort_by(f64::total_cmp);
    let Some(median) = sorted.get(sorted.len() / 2) else { return Vec::new() };
    profile.iter().enumerate().filter(|(_, rate)| **rate * 3.0 < *median).map(|(i, _)| i).collect()
}

#[cfg(test)]
mod tests {
    use super::slow_slices;

    #[test]
    fn a_slow_region_is_a_finding() {
        assert!(slow_slices(&[]).is_empty());
        assert!(slow_slices(&[100.0, 90.0, 110.0]).is_empty());
        assert_eq!(slow_slices(&[100.0, 20.0, 110.0, 105.0]), [1]);
    }
}

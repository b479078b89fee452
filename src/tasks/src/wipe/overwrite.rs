//! Every addressable sector written by the host, the last time with a pattern that is read back.

use std::path::Path;
use std::time::Instant;

use rand::{RngCore as _, SeedableRng as _, rngs::StdRng};
use sha2::{Digest as _, Sha256};
use speediso_model::fault::Fault;
use speediso_model::inventory::Disk;
use speediso_model::task::{WipePass, WipeTask};
use speediso_model::units::{Bytes, MIB};
use speediso_model::wipe::Verification;
use speediso_sys::buffer::AlignedBuffer;
use speediso_sys::roots::{Roots, read_line};

use super::flow::{self, Load};
use super::pattern::{self, Kind, Pattern, UNIT, mix};
use super::profile::SpeedProfile;
use super::target::{On as _, Target};
use super::{Progressed, verify};
use crate::ctx::{Meter, TaskCtx};
use crate::single::mib_per_second;

/// How far back a resumed pass begins before the place up to which it finds its pattern: more than what was under way
/// when its predecessor ended.
const STEP_BACK: u64 = 64 * MIB;

pub(super) struct Overwritten {
    pub(super) steps: Vec<String>,
    pub(super) verification: Verification,
    pub(super) mib_per_second: f64,
    pub(super) profile: Vec<f64>,
}

/// A number that is the same all through one boot for one disk and one purpose, and that nobody could have known before.
pub(super) fn boot_seed(roots: &Roots, disk: &Disk, purpose: &str) -> u64 {
    let boot = read_line(&roots.proc.join(Path::new("sys/kernel/random/boot_id"))).unwrap_or_default();
    let of = format!("{boot}|{purpose}|{}|{}|{}", disk.serial, disk.wwn.as_deref().unwrap_or_default(), disk.model);
    let digest = Sha256::digest(of);
    digest.iter().take(8).fold(0, |seed, byte| seed << 8 | u64::from(*byte))
}

pub(super) fn overwrite(
    task: &WipeTask,
    device: &dyn Target,
    load: Load,
    ctx: &TaskCtx,
    done: &mut Progressed,
) -> Result<Overwritten, Fault> {
    let (name, size) = (device.name(), device.size());
    let mut steps = Vec::new();
    let tag = boot_seed(&ctx.roots, device.disk(), "overwrite");
    let begun_before = if ctx.resuming { frontier(device, tag)? } else { None };
    let seed = begun_before.map_or_else(|| u64::from(rand::random::<u32>()) << 32 | tag & 0xffff_ffff, |found| found.0);
    let from = begun_before.map_or(0, |found| found.1);
    done.begun = true;
    if from > 0 {
        let text =
            format!("{name} holds the pattern of this task's interrupted run up to byte {from}: it goes on there");
        ctx.reporter.notice(&text);
        steps.push(text);
        // What the run before wrote and did not flush.
        device.flush().on(device)?;
    } else {
        if ctx.resuming {
            let text = format!("{name} holds nothing of this task's interrupted run: it begins again");
            ctx.reporter.notice(&text);
            steps.push(text);
        }
        clear_edges(device)?;
        for pass in &task.passes_before {
            done.pass += 1;
            let random = rand::random::<u64>();
            match pass {
                WipePass::Zeroes => {
                    write_all(device, load, ctx, "writing zeroes", 0, done, |_, buffer| buffer.fill(0))?;
                    steps.push("overwritten with zeroes".into());
                }
                WipePass::Random => {
                    write_all(device, load, ctx, "writing random bytes", 0, done, |at, buffer| {
                        StdRng::seed_from_u64(mix(random ^ mix(at))).fill_bytes(buffer);
                    })?;
                    steps.push("overwritten with random bytes".into());
                }
            }
        }
    }
    done.pass = task.passes_before.len() + 1;
    let step = format!("overwrite {name}");
    ctx.reporter.step_began(&step);
    let pattern = Pattern { kind: Kind::Overwrite, seed };
    let begun = Instant::now();
    let profile = write_all(device, load, ctx, "overwriting", from, done, |at, buffer| pattern.fill(at, buffer))?;
    let rate = mib_per_second(size - from, begun.elapsed());
    ctx.reporter.step_ended(&step, &format!("{} at {rate} MiB/s", Bytes(size - from)));
    steps.push(format!("overwritten with a pattern that differs in every sector (seed {seed:016x})"));

    let step = format!("verify {name}");
    ctx.reporter.step_began(&step);
    let verification = verify::pattern(task.verify, pattern, device, load, ctx)?;
    ctx.reporter.step_ended(&step, &format!("{} read back and compared", verification.bytes));
    steps.push(verification.in_words.clone());
    Ok(Overwritten { steps, verification, mib_per_second: rate, profile })
}

/// First what would make the disk boot or be assembled again, so that an interrupted wipe leaves no disk that looks
/// whole.
fn clear_edges(device: &dyn Target) -> Result<(), Fault> {
    if device.size() < 2 * MIB {
        return Ok(());
    }
    let zeroes = AlignedBuffer::zeroed(1 << 20);
    for offset in [device.size() - MIB, 0] {
        device.write_at(offset, &zeroes).on(device)?;
        device.flush().on(device)?;
    }
    Ok(())
}

/// Seed and place of the pattern that a run of this boot has begun to write here. It is the seed that says so: half of it
/// cannot be known before this boot.
fn frontier(device: &dyn Target, tag: u64) -> Result<Option<(u64, u64)>, Fault> {
    const GRAIN: u64 = MIB;
    let sector = device.sector_size().max(UNIT as u64);
    let mut buffer = AlignedBuffer::zeroed(usize::try_from(sector).unwrap_or(UNIT));
    let mut seed_at = |offset: u64| -> Result<Option<u64>, Fault> {
        device.read_at(offset, &mut buffer).on(device)?;
        Ok(pattern::seed_of(Kind::Overwrite, offset, &buffer).filter(|seed| (seed ^ tag) & 0xffff_ffff == 0))
    };
    let Some(seed) = seed_at(0)? else { return Ok(None) };
    // The pass goes from the start to the end: what holds the pattern is one stretch, but for what was under way.
    let (mut holds, mut lacks) = (0, device.size() / GRAIN);
    while lacks - holds > 1 {
        let middle = holds + (lacks - holds) / 2;
        if seed_at(middle * GRAIN)? == Some(seed) { holds = middle } else { lacks = middle }
    }
    let from = (holds * GRAIN).saturating_sub(STEP_BACK);
    Ok((from > 0).then_some((seed, from)))
}

/// Writes the disk from `from` to its end. Returns MiB/s for parts of equal length.
fn write_all(
    device: &dyn Target,
    load: Load,
    ctx: &TaskCtx,
    stage: &'static str,
    from: u64,
    done: &mut Progressed,
    fill: impl Fn(u64, &mut [u8]) + Sync,
) -> Result<Vec<f64>, Fault> {
    let size = device.size();
    let mut meter = Meter::new(ctx, stage, device.name(), Some(size));
    let mut profile = SpeedProfile::of(size - from);
    done.bytes = from;
    let written = flow::run(
        load,
        flow::pieces(from, size, load.chunk),
        ctx,
        |piece, buffer| {
            fill(piece.offset, buffer);
            device.write_at(piece.offset, buffer).on(device)
        },
        |piece| {
            done.bytes += piece.length as u64;
            meter.at(done.bytes);
            profile.add(piece.length as u64, done.bytes == size);
        },
    );
    // Also after a fault: what was written before it is on the medium then, and not in a cache.
    let flushed = device.flush().on(device);
    written.and(flushed)?;
    Ok(profile.mib_per_second)
}

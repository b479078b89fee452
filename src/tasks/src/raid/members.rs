//! Whether all members of an array hold what was written to it.
//!
//! What is read back from an array comes from some of its members: of a mirror one would do. So after a task has written
//! to an array, none may have dropped out of it, and once they agree the kernel is asked to compare what they hold, or a
//! disk that loses writes would come to light when the other one is gone.

use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use speediso_model::fault::{Fault, FaultCode};
use speediso_model::outcome::{Changed, Outcome};
use speediso_model::units::{Bytes, GIB, MIB};
use speediso_sys::claim::ClaimedDisk;
use speediso_sys::md::{KnownArray, MdArray};
use speediso_sys::md_compare;
use speediso_sys::process::within;

use super::sync::{ANSWER, PATIENCE, failed_members, hangs, is_whole, look};
use crate::ctx::{Meter, TaskCtx};
use crate::single::Ended;

type Failed = (Outcome, Fault);

/// Up to here everything is compared; of larger ones as much, in so many stretches.
const ALL_UP_TO: u64 = GIB;
const STRETCHES: u64 = 16;
const STRETCH: u64 = ALL_UP_TO / STRETCHES;
const POLL: Duration = Duration::from_millis(50);

/// A task's end on a disk that is an array: not verified unless its members hold, too.
pub(crate) fn hold(disk: &ClaimedDisk, ended: Ended, ctx: &TaskCtx) -> Ended {
    if disk.disk().array.is_none() || (ended.outcome, ended.changed) != (Outcome::Verified, Some(Changed::Changed)) {
        return ended;
    }
    match check(disk, ctx) {
        Ok(in_words) => Ended { used: format!("{}; {in_words}", ended.used), ..ended },
        Err((outcome, fault)) => Ended::failed(outcome, format!("{}; not by all members", ended.used), fault),
    }
}

/// The same for a task that has something left to do which depends on it. Nothing for a disk that is no array.
pub(crate) fn check(disk: &ClaimedDisk, ctx: &TaskCtx) -> Result<String, Failed> {
    match &disk.disk().array {
        Some(name) => check_array(name, &disk.disk().serial, ctx),
        None => Ok(String::new()),
    }
}

fn check_array(name: &str, uuid: &str, ctx: &TaskCtx) -> Result<String, Failed> {
    let Some(known) = KnownArray::all(&ctx.roots).into_iter().find(|known| known.uuid == uuid) else {
        let fault = Fault::new(FaultCode::DiskVanished, format!("array {name:?} ({uuid}) runs no more"));
        return Err((Outcome::Unknown, fault));
    };
    let found = look(&known.device, ctx)?;
    none_failed(&known, &found)?;
    if found.sync_action.is_none() {
        return Ok("stripes, which hold everything once".into());
    }
    if !is_whole(&found) {
        return Ok("the members are not compared: they are still being brought to agree".into());
    }
    let compared = compare(name, &known.device, &found, ctx)?;
    // Whoever cannot be read drops out only now.
    none_failed(&known, &look(&known.device, ctx)?)?;
    Ok(compared)
}

fn none_failed(known: &KnownArray, found: &MdArray) -> Result<(), Failed> {
    match failed_members(found, known.members.len()) {
        None => Ok(()),
        Some(what) => {
            let message =
                format!("array {:?} (/dev/{}) lost a disk while it was written: {what}", known.name, known.device);
            let fault = Fault::new(FaultCode::ArrayDegraded, message)
                .because("what was written reads back from the others; nothing protects it");
            Err((Outcome::FailedChanged, fault))
        }
    }
}

/// Has the kernel compare the members, which must be in sync. Says how much of them was compared.
pub(super) fn compare(name: &str, device: &str, array: &MdArray, ctx: &TaskCtx) -> Result<String, Failed> {
    // Where the members do not all hold the same, the kernel counts over the array.
    let length = if array.level == "raid10" { array.size } else { array.component };
    let seed: u64 = rand::random();
    let parts = parts(length, array.chunk.max(MIB), seed);
    let total = parts.iter().map(|part| part.length(length)).sum();
    let step = format!("compare the members of {name}");
    ctx.reporter.step_began(&step);
    let mut meter = Meter::new(ctx, "comparing the members", name, Some(total));
    let mut done = 0;
    for part in &parts {
        let mismatched = one(device, *part, length, ctx, |at| meter.at(done + at))?;
        done += part.length(length);
        if mismatched > 0 {
            let fault = Fault::new(
                FaultCode::ReadBackMismatch,
                format!(
                    "the members of array {name:?} (/dev/{device}) do not agree: {} differ between bytes {} and {}",
                    Bytes(mismatched),
                    part.from,
                    part.to.unwrap_or(length)
                ),
            );
            let mut fault =
                fault.because("one of them does not keep what is written to it; which one, the kernel does not say");
            fault.advice =
                "tear the array down, wipe its disks one by one to find the bad one, replace it, order again".into();
            return Err((Outcome::FailedChanged, fault));
        }
    }
    let in_words = if total == length {
        "all members read and compared by the kernel".to_owned()
    } else {
        format!(
            "{} of {} of the members read and compared by the kernel (seed {seed:016x})",
            Bytes(total),
            Bytes(length)
        )
    };
    ctx.reporter.step_ended(&step, &in_words);
    Ok(in_words)
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Part {
    from: u64,
    /// None is the end.
    to: Option<u64>,
}

impl Part {
    fn length(self, of: u64) -> u64 {
        self.to.unwrap_or(of).saturating_sub(self.from)
    }
}

/// Everything, or start, end, and one stretch out of each of as many equal ones between.
fn parts(length: u64, unit: u64, seed: u64) -> Vec<Part> {
    if length <= ALL_UP_TO {
        return vec![Part { from: 0, to: None }];
    }
    let mut random = StdRng::seed_from_u64(seed);
    let (first, last) = (STRETCH, (length - STRETCH) / unit * unit);
    let between = (last - first) / (STRETCHES - 2);
    let mut parts = vec![Part { from: 0, to: Some(first) }];
    parts.extend((0..STRETCHES - 2).filter_map(|n| {
        let from = first + n * between + random.random_range(0..=between.saturating_sub(STRETCH));
        let from = from.next_multiple_of(unit);
        (from + STRETCH <= last).then_some(Part { from, to: Some(from + STRETCH) })
    }));
    parts.push(Part { from: last, to: None });
    parts
}

/// Bytes in which the members differ.
fn one(device: &str, part: Part, length: u64, ctx: &TaskCtx, mut told: impl FnMut(u64)) -> Result<u64, Failed> {
    let (from, to) = (part.from, part.to);
    ask(device, ctx, "begins no comparison", move |roots, device| md_compare::begin(roots, device, from, to))?;
    let seen = wait(device, part, length, ctx, &mut told);
    // Whatever was seen: the kernel waits there to be told more.
    let ended = ask(device, ctx, "does not end a comparison", md_compare::end);
    let array = seen?;
    ended?;
    Ok(array.mismatched)
}

fn wait(device: &str, part: Part, length: u64, ctx: &TaskCtx, told: &mut impl FnMut(u64)) -> Result<MdArray, Failed> {
    let mut last = (0, Instant::now());
    loop {
        if let Err(fault) = ctx.cancel.check() {
            let fault = fault.because("what was written reads back; its members were not compared to the end");
            return Err((Outcome::FailedChanged, fault));
        }
        let found = look(device, ctx)?;
        let at = found.synced.map_or(0, |(at, _)| at);
        let is_over = found.sync_action.as_deref() != Some("check") || part.to.is_some_and(|to| at >= to);
        if is_over {
            return Ok(found);
        }
        told(at.clamp(part.from, part.to.unwrap_or(length)) - part.from);
        if at != last.0 {
            last = (at, Instant::now());
        } else if last.1.elapsed() > PATIENCE {
            return Err((Outcome::Unknown, hangs(device, "comparing its members does not get on", PATIENCE)));
        }
        std::thread::sleep(POLL);
    }
}

/// What waits for the array's lock may wait for ever.
fn ask(
    device: &str,
    ctx: &TaskCtx,
    otherwise: &str,
    what: impl FnOnce(&speediso_sys::roots::Roots, &str) -> std::io::Result<()> + Send + 'static,
) -> Result<(), Failed> {
    let (roots, name) = (ctx.roots.clone(), device.to_owned());
    match within(ANSWER, move || what(&roots, &name)) {
        Some(Ok(())) => Ok(()),
        Some(Err(error)) => {
            let fault =
                Fault::from_error(FaultCode::Io, &error).because(format!("the kernel {otherwise} in /dev/{device}"));
            Err((Outcome::FailedChanged, fault))
        }
        None => Err((Outcome::Unknown, hangs(device, &format!("the kernel {otherwise}"), ANSWER))),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::expect_used, reason = "tests")]
    use super::*;
    use crate::wipe::tests::Bench;
    use proptest::prelude::*;
    use speediso_model::inventory::Disk;
    use speediso_model::plan::DiskIdentity;
    use speediso_sys::roots::Roots;

    const UUID: &str = "0f3cb2a1-1111-4222-8333-444455556666";

    /// A mirror in sysfs, with these attributes changed.
    fn seen(change: &[(&str, &str)]) -> Result<String, Failed> {
        let dir = tempfile::tempdir().expect("a directory");
        let mut bench = Bench::new();
        bench.ctx.roots = Roots::under(dir.path());
        let write = |(name, content): &(&str, &str)| {
            let path = bench.ctx.roots.sys.join("block/md127").join(name);
            std::fs::create_dir_all(path.parent().expect("below")).expect("made");
            std::fs::write(path, content).expect("written");
        };
        let mirror = [
            ("diskseq", "21"),
            ("size", "202752"),
            ("md/level", "raid1"),
            ("md/raid_disks", "2"),
            ("md/metadata_version", "1.2"),
            ("md/array_state", "active"),
            ("md/degraded", "0"),
            ("md/sync_action", "recover"),
            ("md/dev-vda1/state", "in_sync"),
            ("md/dev-vdb1/state", "in_sync"),
        ];
        mirror.iter().chain(change).for_each(write);
        let member = DiskIdentity::of(&Disk::default());
        let known = KnownArray {
            name: "root".into(),
            uuid: UUID.into(),
            level: "RAID-1".into(),
            device: "md127".into(),
            diskseq: 21,
            members: vec![member.clone(), member],
        };
        known.remember(&bench.ctx.roots).expect("written");
        check_array("root", UUID, &bench.ctx)
    }

    #[test]
    fn a_member_that_has_not_everything_is_told() {
        let words = seen(&[]).expect("whole as far as can be seen");
        assert!(words.contains("still being brought to agree"), "{words}");
        assert!(seen(&[("md/level", "raid0"), ("md/sync_action", "")]).is_ok(), "stripes");
        for (change, code, said) in [
            (("md/dev-vdb1/state", "faulty,write_error"), FaultCode::ArrayDegraded, "/dev/vdb1 has failed"),
            (("md/dev-vdb1/bad_blocks", "2048 8\n"), FaultCode::ArrayDegraded, "4096 bytes, the first at byte 1048576"),
            (("md/dev-vdc1/state", "spare"), FaultCode::ArrayDegraded, "it has 3 members, not 2"),
            (("diskseq", "22"), FaultCode::DiskVanished, "runs no more"),
        ] {
            let (outcome, fault) = seen(&[change]).expect_err(said);
            assert!(outcome != Outcome::Verified && fault.code == code && fault.to_string().contains(said), "{fault}");
        }
    }

    proptest! {
        #[test]
        fn parts_lie_in_order_on_whole_chunks_and_go_to_the_end(mib in 1u64..1 << 26, chunk in 0u32..7, seed: u64) {
            let (length, unit) = (mib * MIB, MIB << chunk);
            let parts = parts(length, unit, seed);
            prop_assert_eq!(parts[0].from, 0);
            prop_assert!(parts.last().is_some_and(|part| part.to.is_none()));
            for pair in parts.windows(2) {
                prop_assert!(pair[0].to.is_some_and(|to| to <= pair[1].from));
            }
            for part in &parts {
                prop_assert!(part.from.is_multiple_of(unit) && part.to.is_none_or(|to| to.is_multiple_of(unit)));
                prop_assert!(part.from < length);
            }
            let total: u64 = parts.iter().map(|part| part.length(length)).sum();
            prop_assert!(total == length || total >= ALL_UP_TO / 2, "{total} of {length}");
        }
    }
}

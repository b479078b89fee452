//! Until the members of an array agree: watched, told, and given up where it hangs.

use std::time::{Duration, Instant};

use speediso_model::fault::{Fault, FaultCode};
use speediso_model::outcome::Outcome;
use speediso_sys::md::{MdArray, MdMember};
use speediso_sys::process::within;

use super::members;
use crate::ctx::{ProgressUpdate, TaskCtx};
use crate::single::mib_per_second;

const EVERY: Duration = Duration::from_millis(500);
/// For the kernel to say how an array does.
pub(super) const ANSWER: Duration = Duration::from_secs(30);
/// For any array to get on. A disk that hangs is given up by its driver well before.
pub(super) const PATIENCE: Duration = Duration::from_secs(300);

/// An array whose sync is waited for.
pub(super) struct Watched {
    pub(super) name: String,
    pub(super) device: String,
    pub(super) n_members: usize,
    pub(super) component: u64,
}

/// An array whose members agree.
pub(super) struct Synced {
    pub(super) name: String,
    pub(super) seconds: f64,
    pub(super) mib_per_s: f64,
    /// How it is known that they do.
    pub(super) compared: String,
}

/// What the kernel says of an array, or that it says nothing.
pub(super) fn look(device: &str, ctx: &TaskCtx) -> Result<MdArray, (Outcome, Fault)> {
    let (roots, name) = (ctx.roots.clone(), device.to_owned());
    match within(ANSWER, move || MdArray::read(&roots, &name)) {
        Some(Ok(array)) => Ok(array),
        Some(Err(error)) => Err((
            Outcome::FailedChanged,
            Fault::from_error(FaultCode::Io, &error).because(format!("looking at the array {device}")),
        )),
        None => Err((Outcome::Unknown, hangs(device, "the kernel does not say how the array does", ANSWER))),
    }
}

pub(super) fn hangs(device: &str, what: &str, after: Duration) -> Fault {
    let mut fault =
        Fault::new(FaultCode::TimedOut, format!("array /dev/{device} hangs: {what} (waited {} s)", after.as_secs()));
    fault.advice =
        "nothing on the array's disks can be trusted; power-cycle the machine, look at the disks, then order \
                    again with replace"
            .into();
    fault
}

/// Lets the arrays be written and waits until each is whole.
pub(super) fn watch(arrays: &[Watched], ctx: &TaskCtx) -> Result<Vec<Synced>, (Outcome, Fault)> {
    for array in arrays {
        let (roots, device) = (ctx.roots.clone(), array.device.clone());
        match within(ANSWER, move || MdArray::activate(&roots, &device)) {
            Some(Ok(())) => {}
            Some(Err(e)) => {
                let fault =
                    Fault::from_error(FaultCode::Io, &e).because(format!("letting /dev/{} be written", array.device));
                return Err((Outcome::FailedChanged, fault));
            }
            None => return Err((Outcome::Unknown, hangs(&array.device, "it cannot be made writable", ANSWER))),
        }
    }
    let begun = Instant::now();
    let mut done: Vec<Synced> = Vec::new();
    let mut last: (u64, Instant) = (0, begun);
    // Of each, how much of a member was done when it was seen last: once one has failed the kernel does not say.
    let mut reached = vec![0; arrays.len()];
    let mut rate = Rate::new();
    while done.len() < arrays.len() {
        if let Err(fault) = ctx.cancel.check() {
            let fault = fault.because("the arrays are there; the kernel goes on synchronising them in the background");
            return Err((Outcome::FailedChanged, fault));
        }
        let mut sum = 0;
        for (array, reached) in arrays.iter().zip(&mut reached) {
            if done.iter().any(|synced| synced.name == array.name) {
                sum += array.component;
                continue;
            }
            let found = look(&array.device, ctx)?;
            failed_member(array, &found, *reached)?;
            if is_whole(&found) {
                let seconds = begun.elapsed().as_secs_f64();
                let mib_per_s = mib_per_second(array.component, begun.elapsed());
                let compared = String::new();
                done.push(Synced {
                    name: array.name.clone(),
                    seconds: (seconds * 10.0).round() / 10.0,
                    mib_per_s,
                    compared,
                });
                sum += array.component;
            } else if let Some((current, _)) = found.synced {
                *reached = current.min(array.component);
                sum += *reached;
            }
        }
        if sum != last.0 {
            last = (sum, Instant::now());
        } else if last.1.elapsed() > PATIENCE {
            let stuck: Vec<&str> = arrays
                .iter()
                .filter(|a| !done.iter().any(|synced| synced.name == a.name))
                .map(|a| a.device.as_str())
                .collect();
            return Err((Outcome::Unknown, hangs(&stuck.join(", /dev/"), "its sync does not get on", PATIENCE)));
        }
        ctx.reporter.progress(ProgressUpdate {
            stage: "synchronising",
            device: Some(arrays.iter().map(|a| a.name.as_str()).collect::<Vec<_>>().join(", ")),
            current: sum,
            total: Some(arrays.iter().map(|a| a.component).sum()),
            unit: "bytes",
            rate: rate.at(sum),
        });
        if done.len() < arrays.len() {
            std::thread::sleep(EVERY);
        }
    }
    // Not before all are done: arrays that share their disks take turns.
    for synced in &mut done {
        let Some(array) = arrays.iter().find(|array| array.name == synced.name) else { continue };
        synced.compared = members::compare(&array.name, &array.device, &look(&array.device, ctx)?, ctx)?;
        failed_member(array, &look(&array.device, ctx)?, array.component)?;
    }
    Ok(done)
}

pub(super) fn is_whole(array: &MdArray) -> bool {
    let is_idle = array.sync_action.as_deref().is_none_or(|action| action == "idle");
    array.degraded == 0 && array.is_consistent && is_idle
}

/// A failed member ends the wait at once: with a spare the kernel goes on, but the array is not the one ordered.
fn failed_member(array: &Watched, found: &MdArray, reached: u64) -> Result<(), (Outcome, Fault)> {
    let Some(what) = failed_members(found, array.n_members) else { return Ok(()) };
    let fault = Fault::new(
        FaultCode::ArrayDegraded,
        format!(
            "array {:?} (/dev/{}) lost a disk while its members were synchronised: {what}",
            array.name, array.device
        ),
    );
    let component = array.component;
    Err((
        Outcome::FailedChanged,
        fault.because(format!("it was seen last at byte {reached} of the {component} of each member")),
    ))
}

/// Which members are not what they were, in words.
pub(super) fn failed_members(found: &MdArray, n_members: usize) -> Option<String> {
    let failed: Vec<&str> = found.members.iter().filter(|m| m.is("faulty")).map(|m| m.device.as_str()).collect();
    if !failed.is_empty() {
        return Some(format!("its member /dev/{} has failed", failed.join(", /dev/")));
    }
    if found.members.len() != n_members {
        return Some(format!("it has {} members, not {n_members}", found.members.len()));
    }
    found.members.iter().find_map(bad_blocks)
}

/// The kernel goes on with a member that has noted such places, and counts the array as whole.
pub(super) fn bad_blocks(member: &MdMember) -> Option<String> {
    let (first, _) = member.bad_blocks.first()?;
    let bytes: u64 = member.bad_blocks.iter().map(|(_, length)| length).sum();
    Some(format!("its member /dev/{} does not keep at least {bytes} bytes, the first at byte {first}", member.device))
}

/// Bytes per second, since the last time that there was something to see.
struct Rate {
    at: Instant,
    sum: u64,
    rate: f64,
}

impl Rate {
    fn new() -> Self {
        Self { at: Instant::now(), sum: 0, rate: 0.0 }
    }

    fn at(&mut self, sum: u64) -> f64 {
        let elapsed = self.at.elapsed();
        if sum > self.sum && elapsed > Duration::ZERO {
            #[allow(clippy::cast_precision_loss, reason = "a rate for people")]
            let rate = (sum - self.sum) as f64 / elapsed.as_secs_f64();
            *self = Self { at: Instant::now(), sum, rate };
        }
        self.rate
    }
}

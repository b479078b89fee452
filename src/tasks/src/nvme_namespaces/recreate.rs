//! Deleting, making, attaching, and looking at what came of it.

use std::time::Duration;

use speediso_model::fault::{Fault, FaultCode};
use speediso_model::outcome::{Changed, Outcome};
use speediso_model::units::Bytes;
use speediso_sys::nvme_controller::Shown;
use speediso_sys::passthrough::{CommandError, Passthrough, nvme};

use super::wish::Wish;
use super::{already, asked, facts, namespaces};
use crate::ctx::TaskCtx;
use crate::single::Ended;

/// For the kernel to make a disk of the namespace.
const LOOKS: u32 = 100;
const BETWEEN: Duration = Duration::from_millis(100);

/// A controller of which everything that is to be lost is held; in tests a simulated one.
pub(super) trait Controller {
    fn name(&self) -> &str;
    fn device(&self) -> &dyn Passthrough;
    /// Lets go of the disks that were, and has the kernel look again.
    fn rescan(&mut self) -> Result<(), CommandError>;
    fn shown(&self, namespace: u32) -> Option<Shown>;
    fn pause(&self, time: Duration);
}

/// How far it is, for whoever has to go on from there.
#[derive(Debug, Default)]
struct Done {
    detached: Vec<u32>,
    deleted: Vec<u32>,
    made: Option<u32>,
    /// The controller has taken the order to delete one, whatever it shows afterwards.
    took: bool,
    /// A command that changes something got no answer.
    unknown: bool,
}

impl Done {
    fn has_changed(&self) -> bool {
        self.took || !self.detached.is_empty() || !self.deleted.is_empty() || self.made.is_some()
    }

    /// Notes whether an answer arrived.
    fn sent<T>(&mut self, name: &str, answer: Result<T, CommandError>) -> Result<T, Fault> {
        answer.map_err(|error| {
            self.unknown |= matches!(error, CommandError::Lost { .. } | CommandError::Nonsense { .. });
            asked(&error).because(format!("this is about {name}"))
        })
    }
}

pub(super) fn recreate(wish: &Wish, controller: &mut dyn Controller, ctx: &TaskCtx) -> Ended {
    if wish.is_so() {
        return already(wish);
    }
    let mut done = Done::default();
    let fault = match carry_out(wish, controller, ctx, &mut done) {
        Ok(ended) => return ended,
        Err(fault) => fault,
    };
    // What was not deleted goes back to where it was, so that its disk can be named again.
    for id in done.detached.clone().into_iter().filter(|id| !done.deleted.contains(id)) {
        if wish.attached.contains(&id) && nvme::attach(controller.device(), id, wish.controller, true).is_ok() {
            done.detached.retain(|other| *other != id);
        }
    }
    // As well as it can: the kernel may have noticed by itself.
    let rescanned = controller.rescan();
    let outcome = match (&done, done.has_changed()) {
        (Done { unknown: true, .. }, _) => Outcome::Unknown,
        (_, false) => Outcome::FailedUnchanged,
        (_, true) => Outcome::FailedChanged,
    };
    let fault = what_stands(fault, &done, controller);
    let fault = match rescanned {
        Err(error) => fault.because(error.to_string()),
        Ok(()) => fault,
    };
    Ended::failed(outcome, "NVMe Namespace Management, not finished", fault)
}

/// Says what there is now, by the controller's own word if it gives it.
fn what_stands(mut fault: Fault, done: &Done, controller: &dyn Controller) -> Fault {
    if !done.has_changed() && !done.unknown {
        return fault;
    }
    if !done.deleted.is_empty() {
        fault = fault.because(format!("deleted, with all that was on them: namespaces {:?}", done.deleted));
    }
    if !done.detached.iter().all(|id| done.deleted.contains(id)) {
        let left: Vec<_> = done.detached.iter().filter(|id| !done.deleted.contains(id)).collect();
        fault = fault.because(format!("detached and still there with its data: namespaces {left:?}"));
    }
    let name = controller.name();
    let now = match namespaces(controller.device()) {
        Ok(list) if list.is_empty() => format!("{name} has no namespace now"),
        Ok(list) => {
            let list: Vec<String> = list
                .iter()
                .map(|(id, attached)| format!("{id} ({})", if *attached { "attached" } else { "detached" }))
                .collect();
            format!("{name} has these namespaces now: {}", list.join(", "))
        }
        Err(_) => format!("{name} does not tell which namespaces it has now"),
    };
    fault = fault.because(now);
    fault.advice =
        "order nvme_namespaces again, naming the controller by its serial number, the disks that are left, and \
                    detached: true"
            .into();
    fault
}

fn carry_out(wish: &Wish, controller: &mut dyn Controller, ctx: &TaskCtx, done: &mut Done) -> Result<Ended, Fault> {
    let name = controller.name().to_owned();
    let step = format!("delete the namespaces of {name}");
    ctx.reporter.step_began(&step);
    for id in wish.doomed() {
        if wish.attached.contains(&id) {
            let detached = nvme::attach(controller.device(), id, wish.controller, false);
            done.sent(&name, detached)?;
            done.detached.push(id);
        }
        let deleted = nvme::delete_namespace(controller.device(), id);
        done.sent(&name, deleted)?;
        done.deleted.push(id);
        done.took = true;
    }
    let left = namespaces(controller.device())?;
    if !left.is_empty() {
        done.deleted.retain(|id| left.iter().all(|(other, _)| other != id));
        let message = format!("{name} reports success, but has namespaces still that it was told to delete");
        return Err(Fault::new(FaultCode::VerifyFailed, message));
    }
    // The kernel drops the disks that were before a new one takes the number of one of them.
    controller.rescan().map_err(|e| asked(&e))?;
    ctx.reporter.step_ended(&step, &format!("{} deleted", done.deleted.len()));

    let step = format!("make a namespace on {name}");
    ctx.reporter.step_began(&step);
    let free = nvme::controller(controller.device()).map_err(|e| asked(&e))?.unallocated;
    let blocks = wish.blocks_of(free);
    if blocks == 0 {
        let message = format!("{name} has {} unallocated after all its namespaces were deleted", Bytes(free));
        return Err(Fault::new(FaultCode::VerifyFailed, message));
    }
    let made = nvme::create_namespace(controller.device(), blocks, wish.format);
    let id = done.sent(&name, made)?;
    done.made = Some(id);
    let attached = nvme::attach(controller.device(), id, wish.controller, true);
    done.sent(&name, attached)?;
    controller.rescan().map_err(|e| asked(&e))?;
    seen(wish, id, blocks, controller)?;
    ctx.reporter.step_ended(&step, &format!("namespace {id} of {blocks} blocks of {} bytes", wish.format.bytes));
    Ok(Ended::verified(Changed::Changed, "NVMe Namespace Management: deleted all, made one", facts(wish, id, blocks)))
}

/// The controller has to say so, and the kernel to have the disk.
fn seen(wish: &Wish, id: u32, blocks: u64, controller: &dyn Controller) -> Result<(), Fault> {
    let name = controller.name();
    let failed = |what: String| Err(Fault::new(FaultCode::VerifyFailed, format!("{name} {what}")));
    let all = namespaces(controller.device())?;
    if all != [(id, true)] {
        return failed(format!("reports success, but does not show namespace {id} as its only one"));
    }
    let now = nvme::namespace(controller.device(), id).map_err(|e| asked(&e))?;
    if (now.blocks, now.format()) != (blocks, Some(wish.format)) {
        return failed(format!(
            "made namespace {id} of {} blocks, not the {blocks} of {} bytes that it was told",
            now.blocks, wish.format.bytes
        ));
    }
    let wanted = Shown { size: now.size().0, sector_size: wish.format.bytes };
    for _ in 0..LOOKS {
        if controller.shown(id) == Some(wanted) {
            return Ok(());
        }
        controller.pause(BETWEEN);
    }
    failed(format!("has namespace {id}, but the kernel shows no disk of it: boot the machine again"))
}

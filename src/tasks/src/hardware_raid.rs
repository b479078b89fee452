//! The volumes of a hardware RAID controller, made by the vendor's own tool.
//!
//! The crate `hwraid` decides what is to be done and what a tool must be told; here it is planned for this machine and
//! carried out. Disks of the system that go away with it are claimed first, so that none of them is in use, and what
//! counts in the end is what the controller lists and what the kernel shows.

mod intent;
mod program;

use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;
use speediso_hwraid::{Adaptor, Missing, Printed, Step, Tool as _, ToolError, View, Volume, judge, torn_down};
use speediso_model::fault::{Fault, FaultCode};
use speediso_model::hardware_raid::HardwareRaidTask;
use speediso_model::inventory::Disk;
use speediso_model::outcome::{Changed, DeviceResult, Outcome, TaskResult};
use speediso_model::plan::{DiskIdentity, Plan, PlanDigest};
use speediso_model::raid_volume;
use speediso_sys::claim::ClaimedDisk;

use self::intent::{Intent, intend};
use crate::ctx::TaskCtx;
use crate::single::hold_to;

const KIND: &str = "hardware_raid";
/// How long a volume may take to become a disk.
const APPEARS: Duration = Duration::from_secs(60);

pub(crate) fn plan(task: &HardwareRaidTask, ctx: &TaskCtx) -> Result<Plan, Fault> {
    intend(task, ctx).map(|intent| intent.plan)
}

pub(crate) fn execute(task: &HardwareRaidTask, expected: &PlanDigest, ctx: &TaskCtx) -> TaskResult {
    let names: Vec<String> = task.volumes.iter().map(|v| format!("{} {:?}", v.level, v.name)).collect();
    let asked = match (task.teardown, names.is_empty()) {
        (true, true) => "teardown".to_owned(),
        (true, false) => format!("teardown, then {}", names.join(", ")),
        (false, _) => names.join(", "),
    };
    let refused = |fault| TaskResult::failed(&asked, Outcome::FailedUnchanged, fault);
    let claimed = intend(task, ctx).and_then(|intent| {
        hold_to(expected, &intent.plan)?;
        ctx.cancel.check()?;
        let claim = |disk: &Disk| ClaimedDisk::claim(&ctx.roots, ctx.scope, &DiskIdentity::of(disk), true);
        let disks = intent.lost.iter().map(claim).collect::<Result<Vec<_>, _>>()?;
        Ok((intent, disks))
    });
    let (intent, disks) = match claimed {
        Ok(claimed) => claimed,
        Err(fault) => return refused(fault),
    };
    let lost: Vec<(DiskIdentity, String)> =
        disks.iter().map(|disk| (disk.identity().clone(), disk.name().to_owned())).collect();
    let used = intent.method();
    let mut run = Run { intent: &intent, ctx, said: Vec::new(), touched: false };
    let (outcome, changed, fault, view) = match run.carry_out(disks) {
        Ok(view) => {
            let changed = if intent.goal.is_met() { Changed::AlreadySo } else { Changed::Changed };
            (Outcome::Verified, Some(changed), None, Some(view))
        }
        Err(Broken { outcome, mut fault, view }) => {
            fault.causes.append(&mut run.said);
            (outcome, None, Some(fault), view.map(|v| *v))
        }
    };
    let device = |(identity, seen_as): (DiskIdentity, String)| DeviceResult {
        identity,
        seen_as,
        outcome,
        changed,
        used: used.clone(),
        fault: fault.clone(),
        facts: json!({"was": "a disk of this controller"}),
    };
    TaskResult {
        outcome,
        changed,
        asked,
        used: used.clone(),
        fault: fault.clone(),
        devices: lost.into_iter().map(device).collect(),
        output: view.map(|view| intent.report(ctx, &view)),
    }
}

/// How a run did not come to its end.
struct Broken {
    outcome: Outcome,
    fault: Fault,
    /// What the controller shows now, if it does.
    view: Option<Box<View>>,
}

struct Run<'a> {
    intent: &'a Intent,
    ctx: &'a TaskCtx,
    /// What the tool answered to each change: no proof of anything, and the first thing to read if it went wrong.
    said: Vec<String>,
    /// A change was asked for.
    touched: bool,
}

impl Run<'_> {
    fn carry_out(&mut self, claimed: Vec<ClaimedDisk>) -> Result<View, Broken> {
        let Intent { goal, view: before, .. } = self.intent;
        if goal.is_met() {
            return Ok(before.clone());
        }
        let adaptor = self.intent.adaptor();
        let waits = |e: speediso_hwraid::Waits| Broken {
            outcome: Outcome::FailedUnchanged,
            fault: Fault::from_error(FaultCode::Unsupported, &e),
            view: None,
        };
        let teardown = goal.teardown(adaptor, before).map_err(waits)?;
        let creation = goal.creation(adaptor, before).map_err(waits)?;
        let mut now = before.clone();
        if !teardown.is_empty() {
            for step in &teardown {
                self.take(step)?;
            }
            now = self.look(adaptor)?;
            self.hold(&torn_down(goal, before, &now), &now)?;
        }
        // The disks that went away are let go of: as long as somebody holds one, the kernel keeps its name.
        drop(claimed);
        for (n, step) in creation.iter().enumerate() {
            self.take(step)?;
            now = self.look(adaptor)?;
            let mut so_far = goal.clone();
            so_far.create.truncate(n + 1);
            self.hold(&judge(&so_far, before, &now).err().unwrap_or_default(), &now)?;
        }
        let made: Vec<Volume> = match judge(goal, before, &now) {
            Ok(made) => made.into_iter().cloned().collect(),
            Err(missing) => return Err(self.not_so(&missing, now)),
        };
        if let Some(name) = &goal.boot {
            now = self.boot_from(name, &made, now)?;
        }
        for volume in &made {
            self.wait_for_disk(volume, &now)?;
        }
        Ok(now)
    }

    /// One change. That the tool was content is not asked; that it did not run, is.
    fn take(&mut self, step: &Step) -> Result<(), Broken> {
        if let Err(fault) = self.ctx.cancel.check() {
            let outcome = if self.touched { Outcome::FailedChanged } else { Outcome::FailedUnchanged };
            return Err(Broken { outcome, fault, view: None });
        }
        self.ctx.reporter.step_began(&step.what);
        let was_touched = self.touched;
        self.touched = true;
        match self.intent.program.run(&step.command) {
            Ok(Printed { status, stdout, stderr }) => {
                let status = status.map_or("a signal".to_owned(), |code| code.to_string());
                let answer = format!("{} ended with {status}: {} {}", step.command, stdout.trim(), stderr.trim());
                self.said.push(answer.trim().to_owned());
                self.ctx.reporter.step_ended(&step.what, "told; what the controller shows decides");
                Ok(())
            }
            Err(error @ ToolError::Start { .. }) if !was_touched => Err(Broken {
                outcome: Outcome::FailedUnchanged,
                fault: Fault::from_error(FaultCode::ToolFailed, &error),
                view: None,
            }),
            // It may have done it, or may be doing it yet.
            Err(error) => Err(Broken {
                outcome: Outcome::Unknown,
                fault: Fault::from_error(FaultCode::ToolFailed, &error).because(step.what.clone()),
                view: None,
            }),
        }
    }

    fn look(&self, adaptor: &dyn Adaptor) -> Result<View, Broken> {
        self.intent.look_again(adaptor).map_err(|fault| Broken { outcome: Outcome::Unknown, fault, view: None })
    }

    fn hold(&self, missing: &[Missing], now: &View) -> Result<(), Broken> {
        if missing.is_empty() { Ok(()) } else { Err(self.not_so(missing, now.clone())) }
    }

    /// The controller does not show what it was told. It may still be as it was: then nothing is lost.
    fn not_so(&self, missing: &[Missing], now: View) -> Broken {
        let before = &self.intent.view;
        let unchanged = now.volumes == before.volumes
            && now.drives == before.drives
            && now.foreign == before.foreign
            && now.controller.preserved_cache == before.controller.preserved_cache;
        let mut fault =
            Fault::new(FaultCode::VerifyFailed, format!("{} does not show what it was told to do", now.controller));
        fault.causes = missing.iter().map(ToString::to_string).collect();
        fault.advice = if unchanged {
            "the controller is as it was; what its tool answered is in the causes".into()
        } else {
            "look at the controller with its own tool before ordering again; what it answered is in the causes".into()
        };
        Broken {
            outcome: if unchanged { Outcome::FailedUnchanged } else { Outcome::FailedChanged },
            fault,
            view: Some(Box::new(now)),
        }
    }

    fn boot_from(&mut self, name: &str, made: &[Volume], now: View) -> Result<View, Broken> {
        let adaptor = self.intent.adaptor();
        let goal = &self.intent.goal;
        let at = goal.create.iter().position(|new| new.name == name);
        let standing = goal.already.iter().find(|(wished, _)| wished == name).map(|(_, id)| id);
        let volume = match at {
            Some(at) => made.get(at),
            None => now.volumes.iter().find(|v| Some(&v.id) == standing),
        };
        let Some(volume) = volume.cloned() else {
            return Err(self.not_so(&[Missing(format!("there is no volume {name:?} to boot from"))], now));
        };
        let step = goal.booting(adaptor, &now, &volume.id).map_err(|e| Broken {
            outcome: Outcome::FailedChanged,
            fault: Fault::from_error(FaultCode::Unsupported, &e),
            view: None,
        })?;
        if let Some(step) = step {
            self.take(&step)?;
        }
        let now = self.look(adaptor)?;
        if now.controller.boots.as_ref() != Some(&volume.id) {
            let boots = now.controller.boots.clone().unwrap_or_else(|| "none".into());
            return Err(self.not_so(&[Missing(format!("the controller boots from volume {boots}, not {volume}"))], now));
        }
        Ok(now)
    }

    /// A volume counts once the kernel has a disk of its name and size.
    fn wait_for_disk(&self, volume: &Volume, now: &View) -> Result<(), Broken> {
        let began = Instant::now();
        loop {
            let found = self.intent.kernel_disk(self.ctx, volume).map_err(|fault| Broken {
                outcome: Outcome::Unknown,
                fault,
                view: Some(Box::new(now.clone())),
            })?;
            if let Some(disk) = found {
                if raid_volume::of(&disk).is_none() {
                    let text = format!("{} does not call itself a RAID volume in a way that is known here", disk.name);
                    self.ctx.reporter.notice(&text);
                }
                return Ok(());
            }
            if began.elapsed() >= APPEARS {
                let text = format!("{volume} is on the controller, and the kernel has shown no disk of it");
                return Err(Broken {
                    outcome: Outcome::FailedChanged,
                    fault: Fault::new(FaultCode::VerifyFailed, text),
                    view: Some(Box::new(now.clone())),
                });
            }
            thread::sleep(Duration::from_millis(200));
        }
    }
}

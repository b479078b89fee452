//! Reboot and power off.
//!
//! The agent calls [`perform`] itself, after every report has been delivered: nothing can be told afterwards. Whether
//! it happened is seen from outside, by the next boot or by the silence.

use std::convert::Infallible;

use speediso_model::fault::{Fault, FaultCode};
use speediso_model::outcome::{Outcome, TaskResult};
use speediso_model::plan::{Plan, PlanDigest};
use speediso_model::task::{PowerAction, PowerTask};
use speediso_sys::power;

use crate::single::hold_to;

const KIND: &str = "power";

fn name(action: PowerAction) -> &'static str {
    match action {
        PowerAction::Reboot => "reboot",
        PowerAction::PowerOff => "power off",
    }
}

pub(crate) fn plan(task: &PowerTask) -> Plan {
    Plan {
        task: KIND.to_owned(),
        destructive: false,
        devices: Vec::new(),
        effects: vec![format!("{} at once, without asking what runs", name(task.action))],
        untouched: Vec::new(),
    }
}

pub(crate) fn execute(task: &PowerTask, expected: &PlanDigest) -> TaskResult {
    let fault = match hold_to(expected, &plan(task)).and_then(|()| perform(task.action)) {
        Err(fault) => fault,
        Ok(never) => match never {},
    };
    TaskResult::failed(name(task.action), Outcome::FailedUnchanged, fault)
}

/// Flushes and does it.
///
/// # Errors
/// When the kernel refuses: without the right to, or inside a container.
pub fn perform(action: PowerAction) -> Result<Infallible, Fault> {
    match action {
        PowerAction::Reboot => power::reboot(),
        PowerAction::PowerOff => power::power_off(),
    }
    .map_err(|e| Fault::from_error(FaultCode::Io, &e).because(format!("asking the kernel to {}", name(action))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_plan_ends_nothing() {
        let reboot = PowerTask { action: PowerAction::Reboot };
        let off = PowerTask { action: PowerAction::PowerOff };
        assert_ne!(plan(&reboot).digest(), plan(&off).digest());
        // Reached only because the plans differ: this machine goes on.
        let result = execute(&reboot, &plan(&off).digest());
        assert_eq!(result.outcome, Outcome::FailedUnchanged);
        assert_eq!(result.fault.expect("a fault").code, FaultCode::PlanMismatch);
    }
}

//! Disks that somebody has locked, or that the firmware has frozen: what the task permits to do about it.

use std::time::Duration;

use speediso_model::abilities::{Abilities, AtaAbilities, choose};
use speediso_model::fault::{Fault, FaultCode};
use speediso_model::hints::describe;
use speediso_model::inventory::Disk;
use speediso_model::task::{DiskKey, Unfreeze, WipeTask};
use speediso_sys::passthrough::{CommandError, ata};
use speediso_sys::roots::Roots;
use speediso_sys::suspend;

use super::log::{Log, asked};
use super::probe;
use super::target::Target;

/// Long enough for every supply to go down, short enough for whoever waits for the machine.
const SLEEP: Duration = Duration::from_secs(15);

/// What becomes of a disk before the method has it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Opening {
    /// What the disk will be able to do then.
    pub(super) abilities: Abilities,
    pub(super) thaws: bool,
    pub(super) unlocks: bool,
}

impl Opening {
    /// By what the disk answers and the task gives. Nothing is opened that need not be.
    pub(super) fn of(task: &WipeTask, disk: &Disk, abilities: &Abilities) -> Self {
        let closed = |abilities| Self { abilities, thaws: false, unlocks: false };
        let Abilities::Ata(now) = abilities else { return closed(abilities.clone()) };
        let has_key = now.security_enabled && ata_key(task, disk).is_some();
        let opened = |ata: &AtaAbilities| if has_key { ata.opened() } else { ata.clone() };
        let awake = Abilities::Ata(if now.security_frozen { now.clone() } else { opened(now) });
        let unlocks = has_key && !now.security_frozen;
        let chosen = |abilities: &Abilities| choose(task, disk, abilities).ok();
        let may_thaw = task.unfreeze == Some(Unfreeze::Suspend) && (now.security_frozen || now.sanitize_frozen);
        if may_thaw {
            let thawed = Abilities::Ata(opened(&now.thawed()));
            // Also where something weaker would be permitted: thawing was permitted too, and comes first.
            if chosen(&thawed).is_some() && chosen(&thawed) != chosen(&awake) {
                return Self { abilities: thawed, thaws: true, unlocks: has_key };
            }
        }
        Self { abilities: awake, thaws: false, unlocks }
    }

    pub(super) fn in_words(&self) -> Vec<String> {
        let mut words = Vec::new();
        if self.thaws {
            words.push("suspend the machine to memory for a moment: the disk is frozen".into());
        }
        if self.unlocks {
            words.push("take away its ATA password, by the key that the task gives".into());
        }
        words
    }
}

fn ata_key<'a>(task: &'a WipeTask, disk: &Disk) -> Option<(&'a DiskKey, ata::Password<'a>)> {
    let key = task.key_of(disk)?;
    Some((key, ata::Password { text: &key.ata_password.as_ref()?.0, master: key.ata_master }))
}

/// Takes the password away, if there is one and the task has it. Gives what the disk can do then, and says what was done.
pub(super) fn unlock(
    task: &WipeTask,
    device: &dyn Target,
    abilities: &Abilities,
    log: &mut Log,
) -> Result<Option<(Abilities, String)>, Fault> {
    let name = device.name();
    let (Abilities::Ata(now), Some((key, password))) = (abilities, ata_key(task, device.disk())) else {
        return Ok(None);
    };
    if !now.security_enabled || now.security_frozen {
        return Ok(None);
    }
    let whose = if key.ata_master { "master" } else { "user" };
    // The general advice for a command that is declined is of no use here.
    let with_advice = |fault: Fault, why: String| {
        let mut fault = fault.because(why);
        fault.advice = "give the disk's own password under keys, or have whoever set it take it away".into();
        fault
    };
    if now.security_locked {
        log.changing(name, "ATA SECURITY UNLOCK", ata::security_unlock(device, password)).map_err(|fault| {
            let why = format!(
                "the {whose} password of the task is not the one, or the disk is set to give nobody but its user access \
                 (maximum security); of five wrong ones it takes note, then it has to be power-cycled"
            );
            with_advice(fault, why)
        })?;
    }
    log.changing(name, "ATA SECURITY DISABLE PASSWORD", ata::security_disable(device, password)).map_err(|fault| {
        let locked = if now.security_locked { "it is unlocked until its power is gone, and " } else { "" };
        let why = format!("{locked}the disk keeps its password: the {whose} password of the task is not the one");
        with_advice(fault, why)
    })?;
    let then = probe::abilities(device.disk(), device);
    if let Abilities::Ata(ata) = &then
        && !ata.security_enabled
    {
        return Ok(Some((
            then,
            format!("took away the ATA password that was set, by the {whose} password of the task"),
        )));
    }
    let message = format!("{name} reports success, but still has an ATA password");
    Err(Fault::new(FaultCode::VerifyFailed, message))
}

/// Whether the machine can be suspended, for a plan that says so.
pub(super) fn check_suspend(roots: &Roots) -> Result<(), Fault> {
    suspend::check(roots).map_err(|e| {
        Fault::from_error(FaultCode::Unsupported, &e).because("unfreeze: suspend was given, and a disk is frozen")
    })
}

pub(super) fn suspend(roots: &Roots) -> Result<(), Fault> {
    suspend::suspend(roots, SLEEP).map_err(|e| Fault::from_error(FaultCode::Unsupported, &e))
}

/// Whether the disk is awake after a suspension; firmware may freeze it again on the way back.
pub(super) fn check_thawed(device: &dyn Target) -> Result<(), Fault> {
    let now: Result<_, CommandError> = ata::abilities(device);
    let now = asked(device.name(), now)?;
    if now.security_frozen || now.sanitize_frozen {
        let message = format!("{} is frozen still, after the machine was suspended", describe(device.disk()));
        return Err(Fault::new(FaultCode::Unsupported, message).because(
            "its firmware freezes it again when it wakes up; pull the disk out and in while the live system runs",
        ));
    }
    Ok(())
}

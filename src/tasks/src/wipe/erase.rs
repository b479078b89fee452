//! Having the device erase itself: which commands, how to know when it has ended, and what a failure leaves behind.

use std::time::Duration;

use speediso_model::abilities::{Abilities, NvmeAbilities, Opal};
use speediso_model::fault::{Fault, FaultCode};
use speediso_model::plan::hex;
use speediso_model::wipe::{WipeMethod, WipeTask};
use speediso_sys::passthrough::opal::{self, RevertError};
use speediso_sys::passthrough::{CommandError, Declining, ata, nvme, scsi};

use super::log::{Log, asked, fault};
use super::target::Target;
use crate::ctx::{Meter, TaskCtx};

/// How often a device that works by itself is asked, growing from the first to the second.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// Without any progress for so long it is given up: large disks take most of a day for one overwrite, but they count.
const STANDSTILL: Duration = Duration::from_hours(24);
/// Devices reset themselves at the end of a sanitize; for a while nothing answers.
const SILENCE: Duration = Duration::from_mins(2);

/// One look at a sanitize.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Look {
    /// None is going on, and the last one, if there ever was any, has succeeded.
    Ended {
        raw: String,
    },
    /// With its progress, of 65536.
    Going(Option<u16>),
    Failed {
        raw: String,
        meaning: String,
    },
}

/// Looks once. NVMe tells which kind is going on, the others do not.
fn look(device: &dyn Target, abilities: &Abilities) -> Result<(Look, Option<WipeMethod>), CommandError> {
    match abilities {
        Abilities::Nvme(_) => {
            let log = nvme::sanitize_log(device)?;
            let raw = hex(&log.raw);
            let kind = [
                (nvme::SanitizeAction::Block, WipeMethod::NvmeSanitizeBlock),
                (nvme::SanitizeAction::Crypto, WipeMethod::NvmeSanitizeCrypto),
                (nvme::SanitizeAction::Overwrite, WipeMethod::NvmeSanitizeOverwrite),
            ];
            let kind = kind.into_iter().find(|(action, _)| log.is(*action)).map(|(_, method)| method);
            let look = match log.state {
                nvme::SanitizeState::InProgress => Look::Going(Some(log.progress)),
                nvme::SanitizeState::Failed => {
                    Look::Failed { raw, meaning: "the most recent sanitize operation failed".into() }
                }
                nvme::SanitizeState::Never | nvme::SanitizeState::Done => Look::Ended { raw },
            };
            Ok((look, kind))
        }
        Abilities::Ata(_) => {
            let status = ata::sanitize_status(device)?;
            let registers = status.registers;
            let raw = format!("count {:04x} lba {:012x}", registers.count, registers.lba);
            let look = if status.in_progress {
                Look::Going(Some(status.progress))
            } else if status.succeeded {
                Look::Ended { raw }
            } else {
                Look::Failed { raw, meaning: "not completed without error".into() }
            };
            Ok((look, None))
        }
        Abilities::Scsi(_) => Ok((
            match scsi::sanitize_status(device)? {
                scsi::SanitizeStatus::Idle => Look::Ended { raw: "no sense".into() },
                scsi::SanitizeStatus::InProgress(progress) => Look::Going(progress),
                scsi::SanitizeStatus::Failed(sense) => {
                    Look::Failed { raw: hex(&sense.raw), meaning: sense.to_string() }
                }
            },
            None,
        )),
        Abilities::ReadWrite(_) => Ok((Look::Ended { raw: String::new() }, None)),
    }
}

/// How a device's sanitize stands before anything was sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Before {
    Idle,
    /// Going on, and of which kind, where the device tells.
    Going(Option<WipeMethod>),
    /// None has ended well. If that is because one has failed, the device takes nothing but another one.
    MayBeClosed,
}

pub(super) fn before(device: &dyn Target, abilities: &Abilities) -> Result<Before, Fault> {
    let sanitizes = match abilities {
        Abilities::Nvme(n) => n.sanitize_block || n.sanitize_crypto || n.sanitize_overwrite,
        Abilities::Ata(a) => a.sanitize_block || a.sanitize_crypto || a.sanitize_overwrite,
        Abilities::Scsi(s) => s.sanitize_block || s.sanitize_crypto || s.sanitize_overwrite,
        Abilities::ReadWrite(_) => false,
    };
    if !sanitizes {
        return Ok(Before::Idle);
    }
    Ok(match asked(device.name(), look(device, abilities))? {
        (Look::Going(_), kind) => Before::Going(kind),
        (Look::Failed { .. }, _) => Before::MayBeClosed,
        (Look::Ended { .. }, _) => Before::Idle,
    })
}

/// Waits until the sanitize that is going on has ended, and fails if it failed.
pub(super) fn watch(device: &dyn Target, abilities: &Abilities, ctx: &TaskCtx, log: &mut Log) -> Result<(), Fault> {
    let (name, size) = (device.name(), device.size());
    let mut meter = Meter::new(ctx, "the device erases itself", name, Some(size));
    let (mut pause, mut still, mut silent) = (FIRST_PAUSE, Duration::ZERO, Duration::ZERO);
    let mut last = None;
    loop {
        if ctx.cancel.is_cancelled() {
            return Err(Fault::new(
                FaultCode::Cancelled,
                format!(
                    "{name}: the task was cancelled; what the device has begun it goes on with, and nothing stops it"
                ),
            ));
        }
        match look(device, abilities) {
            Ok((Look::Ended { raw }, _)) => {
                log.says("sanitize status", &raw, "ended with success");
                meter.at(size);
                return Ok(());
            }
            Ok((Look::Failed { raw, meaning }, _)) => {
                log.says("sanitize status", &raw, &meaning);
                return Err(Fault::new(
                    FaultCode::DiskIo,
                    format!("{name}: the device could not sanitize itself; it stays closed until a sanitize succeeds"),
                )
                .because(meaning));
            }
            Ok((Look::Going(progress), _)) => {
                silent = Duration::ZERO;
                still = if progress != last { Duration::ZERO } else { still + pause };
                last = progress;
                let of = u128::from(size) * u128::from(progress.unwrap_or(0)) / 65536;
                meter.at(u64::try_from(of).unwrap_or(size).min(size.saturating_sub(1)));
            }
            Err(error) => {
                silent += pause;
                if silent > SILENCE {
                    log.unknown = true;
                    log.says("sanitize status", &error.raw(), &error);
                    return Err(fault(name, &error).because("the device was erasing itself when it fell silent"));
                }
            }
        }
        if still > STANDSTILL {
            log.unknown = true;
            let hours = STANDSTILL.as_secs() / 3600;
            let message = format!("{name}: the device's sanitize has made no progress for {hours} hours");
            return Err(Fault::new(FaultCode::TimedOut, message));
        }
        device.pause(pause);
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Has the device erase itself by `method`, and comes back when it has ended.
pub(super) fn erase(
    method: WipeMethod,
    task: &WipeTask,
    device: &dyn Target,
    abilities: &Abilities,
    ctx: &TaskCtx,
    log: &mut Log,
) -> Result<(), Fault> {
    use WipeMethod as M;
    let (name, detached_too) = (device.name(), task.covers_hidden_areas());
    let by_scsi = |action, log: &mut Log| log.changing(name, "SCSI SANITIZE", scsi::sanitize(device, action));
    let by_ata = |action, log: &mut Log| log.changing(name, "ATA SANITIZE DEVICE", ata::sanitize(device, action));
    match (method, abilities) {
        (M::NvmeSanitizeBlock, Abilities::Nvme(_)) => by_nvme(nvme::SanitizeAction::Block, device, log)?,
        (M::NvmeSanitizeCrypto, Abilities::Nvme(_)) => by_nvme(nvme::SanitizeAction::Crypto, device, log)?,
        (M::NvmeSanitizeOverwrite, Abilities::Nvme(_)) => by_nvme(nvme::SanitizeAction::Overwrite, device, log)?,
        (M::NvmeFormatUserData, Abilities::Nvme(able)) => {
            return format(nvme::SecureErase::UserData, M::NvmeFormatUserData, detached_too, device, able, log);
        }
        (M::NvmeFormatCrypto, Abilities::Nvme(able)) => {
            return format(nvme::SecureErase::Crypto, M::NvmeFormatCrypto, detached_too, device, able, log);
        }
        (M::AtaSanitizeBlock, Abilities::Ata(_)) => by_ata(ata::SanitizeAction::Block, log)?,
        (M::AtaSanitizeCrypto, Abilities::Ata(_)) => by_ata(ata::SanitizeAction::Crypto, log)?,
        (M::AtaSanitizeOverwrite, Abilities::Ata(_)) => by_ata(ata::SanitizeAction::Overwrite, log)?,
        (M::AtaSecurityErase, Abilities::Ata(able)) => {
            return security_erase(ata::SecurityErase::Normal, able.erase_minutes, device, ctx, log);
        }
        (M::AtaSecurityEraseEnhanced, Abilities::Ata(able)) => {
            return security_erase(ata::SecurityErase::Enhanced, able.enhanced_erase_minutes, device, ctx, log);
        }
        (M::OpalRevert, Abilities::Nvme(able)) => return opal_revert(&able.opal, opal::Way::Nvme, task, device, log),
        (M::OpalRevert, Abilities::Ata(able)) => return opal_revert(&able.opal, opal::Way::Ata, task, device, log),
        (M::OpalRevert, Abilities::Scsi(able)) => return opal_revert(&able.opal, opal::Way::Scsi, task, device, log),
        (M::ScsiSanitizeBlock, Abilities::Scsi(_)) => by_scsi(scsi::SanitizeAction::Block, log)?,
        (M::ScsiSanitizeCrypto, Abilities::Scsi(_)) => by_scsi(scsi::SanitizeAction::Crypto, log)?,
        (M::ScsiSanitizeOverwrite, Abilities::Scsi(_)) => by_scsi(scsi::SanitizeAction::Overwrite, log)?,
        _ => {
            let message = format!("{} was chosen for {name}, which does not speak it", method.name());
            return Err(Fault::new(FaultCode::Internal, message));
        }
    }
    watch(device, abilities, ctx, log)
}

/// Blocks that stay allocated can be read afterwards; a device that cannot promise that says so, and deallocates.
fn by_nvme(action: nvme::SanitizeAction, device: &dyn Target, log: &mut Log) -> Result<(), Fault> {
    let keeping = nvme::sanitize(device, action, true);
    if keeping.as_ref().is_err_and(|e| e.declining() == Some(Declining::Unsupported)) {
        log.says("NVMe Sanitize, no deallocation", "", "declined; without that wish then");
        return log.changing(device.name(), "NVMe Sanitize", nvme::sanitize(device, action, false));
    }
    log.changing(device.name(), "NVMe Sanitize, no deallocation", keeping)
}

fn format(
    erase: nvme::SecureErase,
    method: WipeMethod,
    detached_too: bool,
    device: &dyn Target,
    able: &NvmeAbilities,
    log: &mut Log,
) -> Result<(), Fault> {
    let name = device.name();
    let one = |id: u32, log: &mut Log| {
        let in_use = asked(name, nvme::namespace(device, id))?.in_use;
        let command = format!("NVMe Format NVM, namespace {id}");
        log.changing(name, &command, nvme::format(device, Some(id), in_use, erase))
    };
    one(able.namespace, log)?;
    if able.takes_all(method) || !detached_too {
        return Ok(());
    }
    let controller = asked(name, nvme::controller(device))?.id;
    for other in able.detached() {
        let attach = |yes, log: &mut Log| {
            let command = format!("NVMe Namespace Attachment, {} {}", if yes { "attach" } else { "detach" }, other.id);
            log.changing(name, &command, nvme::attach(device, other.id, controller, yes))
        };
        attach(true, log)?;
        // Detached again whatever became of it: that is how it was found.
        let formatted = one(other.id, log);
        let detached = attach(false, log);
        formatted.and(detached)?;
    }
    Ok(())
}

/// The disk makes itself new keys, and nobody's password is left. Whether it is open afterwards is asked, not believed.
fn opal_revert(able: &Opal, way: opal::Way, task: &WipeTask, device: &dyn Target, log: &mut Log) -> Result<(), Fault> {
    let (name, command) = (device.name(), "TCG Revert by PSID");
    let (Opal::Has(able), Some(psid)) = (able, task.psid_of(device.disk())) else {
        return Err(Fault::new(
            FaultCode::Internal,
            format!("opal_revert was chosen for {name}, which cannot be reverted"),
        ));
    };
    match opal::revert_by_psid(device, way, able.com_id, &psid) {
        Ok(()) => log.changing(name, command, Ok(()))?,
        // A session that was not opened has changed nothing, even if its answer got lost.
        Err(RevertError::Before(error)) => {
            log.says("TCG StartSession as PSID", &error.raw(), &error);
            let mut fault = fault(name, &error);
            fault.advice = "compare the PSID under keys with the label of this very disk".into();
            return Err(fault);
        }
        // Once told to, it may have new keys whatever it answers.
        Err(RevertError::During(error)) => {
            log.begun = true;
            log.unknown |= error.declining().is_none();
            log.says(command, &error.raw(), &error);
            return Err(fault(name, &error));
        }
    }
    match opal::discover(device, way) {
        Opal::Has(now) if !now.locked && !now.locking_enabled => {
            log.says("TCG Level 0 Discovery", "", &now);
            Ok(())
        }
        now => {
            let message = format!("{name} reports success of a revert, but is not as from the factory: {now:?}");
            Err(Fault::new(FaultCode::VerifyFailed, message))
        }
    }
}

/// A password has to be set for the erase. It must not stay: the next one who gets the disk would not get at it.
fn security_erase(
    kind: ata::SecurityErase,
    minutes: Option<u32>,
    device: &dyn Target,
    ctx: &TaskCtx,
    log: &mut Log,
) -> Result<(), Fault> {
    let name = device.name();
    ctx.reporter.notice(&format!(
        "{name} gets the ATA user password {:?} for its erase; should the power fail now, that opens it",
        ata::ERASE_PASSWORD
    ));
    log.changing(name, "ATA SECURITY SET PASSWORD", ata::security_set_password(device))?;
    let command = match kind {
        ata::SecurityErase::Normal => "ATA SECURITY ERASE UNIT",
        ata::SecurityErase::Enhanced => "ATA SECURITY ERASE UNIT, enhanced",
    };
    let erased = log.changing(name, command, ata::security_erase(device, kind, minutes));
    // A successful erase takes the password away; what counts is whether it is away.
    let still_set = match ata::abilities(device) {
        Ok(now) => now.security_enabled,
        Err(_) => true,
    };
    if still_set
        && let Err(kept) = log.changing(name, "ATA SECURITY DISABLE PASSWORD", ata::security_disable_ours(device))
    {
        let mut fault = erased.err().unwrap_or_else(|| kept.clone());
        fault = fault.because(format!(
            "the disk keeps the ATA user password {:?} (security level high): disable it with that (hdparm \
             --security-disable {0})",
            ata::ERASE_PASSWORD
        ));
        return Err(fault.because(kept.to_string()));
    }
    erased
}

//! Everything of a device that can hold data: what the method takes, what is opened for it, and what stays.

use speediso_model::abilities::{Abilities, AtaAbilities, is_sanitize};
use speediso_model::fault::{Fault, FaultCode};
use speediso_model::inventory::Disk;
use speediso_model::raid_volume;
use speediso_model::units::Bytes;
use speediso_model::wipe::{AreaKind, WipeMethod, WipedArea};
use speediso_sys::passthrough::ata;

use super::boot_partitions;
use super::log::{Log, asked};
use super::target::Target;

/// Whether a method is said by its standard to take remapped and spare sectors too.
fn takes_reserved(method: WipeMethod) -> bool {
    use WipeMethod as M;
    is_sanitize(method) || matches!(method, M::NvmeFormatCrypto | M::AtaSecurityEraseEnhanced | M::OpalRevert)
}

/// As they are after a success of `method`; `hidden` if the task covers hidden areas.
pub(super) fn of(disk: &Disk, abilities: &Abilities, method: WipeMethod, hidden: bool) -> Vec<WipedArea> {
    let area = |kind, name: String, size, covered, how: &str| WipedArea { kind, name, size, covered, how: how.into() };
    let mut areas = Vec::new();
    let own = match method {
        WipeMethod::Overwrite => "written by the host",
        _ => "erased by the device",
    };
    areas.push(area(AreaKind::User, "addressable sectors".into(), disk.size, true, own));
    match abilities {
        Abilities::Nvme(nvme) => {
            for other in &nvme.others {
                let (covered, how) = if nvme.takes_all(method) {
                    (true, "erased with the controller")
                } else if other.attached {
                    (false, "another disk of this machine")
                } else if hidden && method != WipeMethod::Overwrite {
                    (true, "attached, erased by the device, detached again")
                } else {
                    (false, "detached; the task did not ask for it (hidden_areas)")
                };
                areas.push(area(AreaKind::Namespace, format!("namespace {}", other.id), other.size, covered, how));
            }
            if let Some(size) = nvme.boot_partition {
                for n in 0..2 {
                    let (covered, how) = boot_partitions::covered(nvme, hidden);
                    areas.push(area(AreaKind::BootPartition, format!("boot partition {n}"), size, covered, how));
                }
            }
        }
        Abilities::Ata(ata) => {
            for (kind, name, told, size) in [
                (AreaKind::Hpa, "host protected area", ata.native, ata.hidden_by_hpa()),
                (AreaKind::Dco, "device configuration overlay", ata.factory, ata.hidden_by_dco()),
            ] {
                if told.is_none() {
                    // Firmware freezes the question on many machines.
                    let how = "the disk does not tell whether it has one";
                    areas.push(area(kind, name.into(), Bytes(0), false, how));
                }
                if size > Bytes(0) {
                    let how = if hidden {
                        "opened for good, then erased by the device; not read back"
                    } else {
                        "the task did not ask for it (hidden_areas)"
                    };
                    areas.push(area(kind, name.into(), size, hidden, how));
                }
            }
        }
        Abilities::Scsi(_) | Abilities::ReadWrite(_) => {}
    }
    let reserved = takes_reserved(method) && raid_volume::of(disk).is_none();
    let how = if reserved { "the standard has this method take them" } else { "not reached by this method" };
    areas.push(area(AreaKind::Reserved, "remapped and spare sectors".into(), Bytes(0), reserved, how));
    areas
}

/// What a certificate must not leave out.
pub(super) fn not_covered(areas: &[WipedArea], disk: &Disk) -> Vec<String> {
    let mut texts: Vec<String> = areas
        .iter()
        .filter(|a| !a.covered)
        .map(|a| {
            if a.size > Bytes(0) {
                format!("{} ({}): {}", a.name, a.size, a.how)
            } else {
                format!("{}: {}", a.name, a.how)
            }
        })
        .collect();
    if let Some(what) = raid_volume::of(disk) {
        texts.push(format!("it is {what}: nothing is said of its member disks"));
    }
    texts
}

/// Gives back what the disk hides, for good. Returns what was done, in words.
pub(super) fn open(
    able: &AtaAbilities,
    method: WipeMethod,
    device: &dyn Target,
    log: &mut Log,
) -> Result<Vec<String>, Fault> {
    let (hpa, overlay) = (able.hidden_by_hpa(), able.hidden_by_dco());
    if hpa == Bytes(0) && overlay == Bytes(0) {
        return Ok(Vec::new());
    }
    let name = device.name();
    let mut steps = Vec::new();
    // In this order: while a host protected area is set, disks do not take the overlay away.
    if hpa > Bytes(0) {
        log.changing(name, "ATA SET MAX ADDRESS", ata::open_native(device))?;
        steps.push(format!("opened a host protected area of {hpa}"));
    }
    if overlay > Bytes(0) {
        log.changing(name, "ATA DEVICE CONFIGURATION RESTORE", ata::overlay_restore(device))?;
        log.changing(name, "ATA SET MAX ADDRESS", ata::open_native(device))?;
        steps.push(format!("took away a device configuration overlay that hid {overlay}"));
    }
    let now = asked(name, ata::abilities(device))?;
    let wanted = able.factory.max(able.native).unwrap_or(able.accessible);
    if now.accessible != wanted {
        return Err(Fault::new(
            FaultCode::VerifyFailed,
            format!(
                "{name} hides {} still after its hidden areas were opened",
                Bytes(wanted.0.saturating_sub(now.accessible.0))
            ),
        ));
    }
    steps.push(format!("the disk has {wanted} now, {} before", able.accessible));
    if method == WipeMethod::Overwrite {
        // The host writes through the kernel, which has taken the disk's measure before.
        return Err(Fault::new(
            FaultCode::DiskChanged,
            format!("{name} had hidden areas ({hpa} and {overlay}), which are open now; nothing was written yet"),
        )
        .because("boot the machine again, so that the kernel sees the disk whole, and order the wipe again"));
    }
    Ok(steps)
}

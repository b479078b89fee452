//! What a device can do to forget, as it says itself, and which method is taken of it. Pure: the same answers always
//! choose the same method, so the choice can stand in a plan.

mod opal;

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::inventory::Disk;
use crate::raid_volume;
use crate::units::Bytes;
use crate::wipe::{WipeLevel, WipeMethod, WipeTask};
pub use opal::{Opal, OpalAbilities, SecurityClass};

/// What a device answered when it was asked.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Abilities {
    Nvme(NvmeAbilities),
    Ata(AtaAbilities),
    Scsi(ScsiAbilities),
    /// It can be read and written, and nothing else is known of it; with the reason.
    ReadWrite(String),
}

#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct NvmeAbilities {
    pub sanitize_crypto: bool,
    pub sanitize_block: bool,
    pub sanitize_overwrite: bool,
    /// Format NVM at all, that is with user data erase.
    pub format: bool,
    pub format_crypto: bool,
    /// Format with erasure takes every namespace, whichever is named.
    pub format_takes_all: bool,
    pub namespace_management: bool,
    /// Of the disk itself.
    pub namespace: u32,
    /// All others of the controller.
    pub others: Vec<OtherNamespace>,
    /// Each of two, where the controller tells.
    pub boot_partition: Option<Bytes>,
    /// Of the controller: all its namespaces are one to it.
    #[serde(default)]
    pub opal: Opal,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct OtherNamespace {
    pub id: u32,
    pub size: Bytes,
    /// A disk of this machine; otherwise nobody can read it until it is attached again.
    pub attached: bool,
}

#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct AtaAbilities {
    pub sanitize_crypto: bool,
    pub sanitize_block: bool,
    pub sanitize_overwrite: bool,
    /// SANITIZE FREEZE LOCK was given; only a power cycle ends it.
    pub sanitize_frozen: bool,
    pub security: bool,
    pub security_enhanced: bool,
    pub security_enabled: bool,
    pub security_locked: bool,
    pub security_frozen: bool,
    /// Too many wrong passwords since power on.
    pub security_expired: bool,
    pub erase_minutes: Option<u32>,
    pub enhanced_erase_minutes: Option<u32>,
    /// What the host addresses now.
    pub accessible: Bytes,
    /// What it would address without a host protected area, or with the accessible maximum raised.
    pub native: Option<Bytes>,
    /// What it would address without a device configuration overlay as well.
    pub factory: Option<Bytes>,
    #[serde(default)]
    pub opal: Opal,
}

#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct ScsiAbilities {
    pub sanitize_crypto: bool,
    pub sanitize_block: bool,
    pub sanitize_overwrite: bool,
    #[serde(default)]
    pub opal: Opal,
}

impl NvmeAbilities {
    pub fn detached(&self) -> impl Iterator<Item = &OtherNamespace> {
        self.others.iter().filter(|n| !n.attached)
    }

    /// Whether `method` erases namespaces that were not named.
    #[must_use]
    pub fn takes_all(&self, method: WipeMethod) -> bool {
        match method {
            WipeMethod::NvmeFormatCrypto | WipeMethod::NvmeFormatUserData => self.format_takes_all,
            // To TCG the whole controller is one device.
            WipeMethod::OpalRevert => true,
            _ => is_sanitize(method),
        }
    }
}

impl AtaAbilities {
    /// As it will be once its password is taken away.
    #[must_use]
    pub fn opened(&self) -> Self {
        Self { security_enabled: false, security_locked: false, ..self.clone() }
    }

    /// As it will be once its power was gone for a moment.
    #[must_use]
    pub fn thawed(&self) -> Self {
        Self { security_frozen: false, sanitize_frozen: false, ..self.clone() }
    }

    /// Bytes that a host protected area or a lowered maximum address hides.
    #[must_use]
    pub fn hidden_by_hpa(&self) -> Bytes {
        Bytes(self.native.map_or(0, |native| native.0.saturating_sub(self.accessible.0)))
    }

    /// Bytes that a device configuration overlay hides beyond that.
    #[must_use]
    pub fn hidden_by_dco(&self) -> Bytes {
        let native = self.native.unwrap_or(self.accessible);
        Bytes(self.factory.map_or(0, |factory| factory.0.saturating_sub(native.0)))
    }
}

#[must_use]
pub fn is_sanitize(method: WipeMethod) -> bool {
    use WipeMethod as M;
    matches!(
        method,
        M::NvmeSanitizeBlock
            | M::NvmeSanitizeCrypto
            | M::NvmeSanitizeOverwrite
            | M::AtaSanitizeBlock
            | M::AtaSanitizeCrypto
            | M::AtaSanitizeOverwrite
            | M::ScsiSanitizeBlock
            | M::ScsiSanitizeCrypto
            | M::ScsiSanitizeOverwrite
    )
}

/// Why a method is not the one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Declined {
    pub method: WipeMethod,
    pub why: String,
}

impl fmt::Display for Declined {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.method.name(), self.why)
    }
}

impl Abilities {
    /// What it says of itself as a self-encrypting disk.
    #[must_use]
    pub fn opal(&self) -> &Opal {
        match self {
            Self::Nvme(nvme) => &nvme.opal,
            Self::Ata(ata) => &ata.opal,
            Self::Scsi(scsi) => &scsi.opal,
            Self::ReadWrite(_) => &Opal::None,
        }
    }

    /// Whether the device takes `method` as it is now, or why not.
    ///
    /// # Errors
    /// The reason, for people.
    pub fn offers(&self, method: WipeMethod) -> Result<(), String> {
        use WipeMethod as M;
        let says = |yes: bool, what: &str| if yes { Ok(()) } else { Err(format!("the device does not offer {what}")) };
        let other = || Err("the device does not speak this command set".to_owned());
        match (method, self) {
            (M::OpalRevert, Self::ReadWrite(why)) => Err(why.clone()),
            (M::OpalRevert, _) => self.opal().reverts(),
            // Sanitize and format are declined too while a range is locked (TCG SIIS, 4.3 and 5.3).
            _ if self.opal().is_locked() => Err(OPAL_LOCKED.into()),
            (M::Overwrite, Self::Ata(ata)) if ata.security_locked => Err(LOCKED.into()),
            (M::Overwrite, _) => Ok(()),
            (_, Self::ReadWrite(why)) => Err(why.clone()),
            (M::NvmeSanitizeBlock, Self::Nvme(n)) => says(n.sanitize_block, "sanitize by block erase"),
            (M::NvmeSanitizeCrypto, Self::Nvme(n)) => says(n.sanitize_crypto, "sanitize by crypto erase"),
            (M::NvmeSanitizeOverwrite, Self::Nvme(n)) => says(n.sanitize_overwrite, "sanitize by overwriting"),
            (M::NvmeFormatUserData, Self::Nvme(n)) => says(n.format, "Format NVM"),
            (M::NvmeFormatCrypto, Self::Nvme(n)) => says(n.format && n.format_crypto, "Format NVM with crypto erase"),
            (M::AtaSanitizeBlock, Self::Ata(a)) => a.sanitizes(a.sanitize_block, "BLOCK ERASE EXT"),
            (M::AtaSanitizeCrypto, Self::Ata(a)) => a.sanitizes(a.sanitize_crypto, "CRYPTO SCRAMBLE EXT"),
            (M::AtaSanitizeOverwrite, Self::Ata(a)) => a.sanitizes(a.sanitize_overwrite, "OVERWRITE EXT"),
            (M::AtaSecurityErase, Self::Ata(a)) => a.erases(a.security, "SECURITY ERASE UNIT"),
            (M::AtaSecurityEraseEnhanced, Self::Ata(a)) => {
                a.erases(a.security && a.security_enhanced, "SECURITY ERASE UNIT, enhanced")
            }
            (M::ScsiSanitizeBlock, Self::Scsi(s)) => says(s.sanitize_block, "SANITIZE, block erase"),
            (M::ScsiSanitizeCrypto, Self::Scsi(s)) => says(s.sanitize_crypto, "SANITIZE, cryptographic erase"),
            (M::ScsiSanitizeOverwrite, Self::Scsi(s)) => says(s.sanitize_overwrite, "SANITIZE, overwrite"),
            _ => other(),
        }
    }
}

const LOCKED: &str =
    "it is locked with an ATA password; give that password under keys (ata_password), or have its maker open it";
const OPAL_LOCKED: &str = "it is locked (TCG Opal); give the PSID of its label under keys, which opens it by making it \
                           forget everything (opal_revert)";

impl AtaAbilities {
    fn sanitizes(&self, offered: bool, what: &str) -> Result<(), String> {
        if !offered {
            return Err(format!("the device does not offer SANITIZE DEVICE, {what}"));
        }
        if self.sanitize_frozen {
            return Err("SANITIZE DEVICE is frozen (the firmware gave SANITIZE FREEZE LOCK); \
                        a power cycle of the disk alone, pulling it out and in, ends that, and unfreeze: suspend may"
                .into());
        }
        if self.security_locked {
            return Err(LOCKED.into());
        }
        Ok(())
    }

    fn erases(&self, offered: bool, what: &str) -> Result<(), String> {
        if !offered {
            return Err(format!("the device does not offer {what}"));
        }
        if self.security_frozen {
            return Err("ATA security is frozen, as most firmware leaves it at boot; \
                        pull the disk out and in while the live system runs, switch it off in the set-up, or let the \
                        machine be suspended for a moment (unfreeze: suspend)"
                .into());
        }
        if self.security_locked {
            return Err(LOCKED.into());
        }
        if self.security_enabled {
            return Err(
                "somebody has set an ATA password; give it under keys (ata_password), and it is taken away".into()
            );
        }
        if self.security_expired {
            return Err("its count of password attempts is used up; power-cycle the disk".into());
        }
        Ok(())
    }
}

/// The method for one disk.
///
/// For `purge` any purge method, block erase before crypto erase (whose premise, that all data was always encrypted under
/// that key, the host cannot see) before overwriting by the device. For `clear` overwriting by the host, whose result can
/// be read back byte by byte. Another method only if the task names it.
///
/// # Errors
/// Why each method that was considered is not possible.
pub fn choose(task: &WipeTask, disk: &Disk, abilities: &Abilities) -> Result<WipeMethod, Vec<Declined>> {
    let mut declined = Vec::new();
    let mut levels = vec![task.level];
    if task.level == WipeLevel::Purge && task.allow.contains(&WipeLevel::Clear) {
        levels.push(WipeLevel::Clear);
    }
    for level in levels {
        for method in considered(task, level) {
            if declined.iter().any(|d: &Declined| d.method == method) {
                continue;
            }
            match fits(task, disk, abilities, method) {
                Ok(()) => return Ok(method),
                Err(why) => declined.push(Declined { method, why }),
            }
        }
    }
    Err(declined)
}

fn considered(task: &WipeTask, level: WipeLevel) -> Vec<WipeMethod> {
    if !task.methods.is_empty() {
        // A method that reaches more than is asked is welcome if it is named.
        return task.methods.iter().copied().filter(|m| m.level() >= level).collect();
    }
    match level {
        WipeLevel::Purge => WipeMethod::ALL.into_iter().filter(|m| m.level() == WipeLevel::Purge).collect(),
        WipeLevel::Clear => vec![WipeMethod::Overwrite],
    }
}

fn fits(task: &WipeTask, disk: &Disk, abilities: &Abilities, method: WipeMethod) -> Result<(), String> {
    if method != WipeMethod::Overwrite
        && let Some(what) = raid_volume::of(disk)
    {
        return Err(format!("it is {what}; the member disks behind the RAID controller have to be wiped one by one"));
    }
    abilities.offers(method)?;
    if method == WipeMethod::OpalRevert && task.psid_of(disk).is_none() {
        return Err("it needs the PSID printed on the disk's label, under keys".into());
    }
    if !task.passes_before.is_empty() && method != WipeMethod::Overwrite {
        return Err("the task asks for passes of the host, which belong to overwriting".into());
    }
    let Abilities::Nvme(nvme) = abilities else { return Ok(()) };
    let ids = |mut of: Box<dyn Iterator<Item = &OtherNamespace> + '_>| -> Option<String> {
        let first = of.next()?.id.to_string();
        Some(of.fold(first, |text, n| format!("{text}, {}", n.id)))
    };
    if nvme.takes_all(method) {
        // They are disks of their own, and nobody named them.
        return match ids(Box::new(nvme.others.iter().filter(|n| n.attached))) {
            Some(others) => Err(format!(
                "it would erase namespace {others} of the same controller as well, which is another disk; \
                 detach or delete it first, or choose a method for one namespace"
            )),
            None => Ok(()),
        };
    }
    if task.covers_hidden_areas()
        && let Some(detached) = ids(Box::new(nvme.detached()))
    {
        let formats = matches!(method, WipeMethod::NvmeFormatCrypto | WipeMethod::NvmeFormatUserData);
        if !formats || !nvme.namespace_management {
            return Err(format!(
                "namespace {detached} is detached and would keep its data; name a method that takes it, or hidden_areas: false"
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;

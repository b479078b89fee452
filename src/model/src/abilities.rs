//! What a device can do to forget, as it says itself, and which method is taken of it. Pure: the same answers always
//! choose the same method, so the choice can stand in a plan.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::inventory::Disk;
use crate::raid_volume;
use crate::units::Bytes;
use crate::wipe::{WipeLevel, WipeMethod, WipeTask};

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
}

#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct ScsiAbilities {
    pub sanitize_crypto: bool,
    pub sanitize_block: bool,
    pub sanitize_overwrite: bool,
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
            _ => is_sanitize(method),
        }
    }
}

impl AtaAbilities {
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
    /// Whether the device takes `method` as it is now, or why not.
    ///
    /// # Errors
    /// The reason, for people.
    pub fn offers(&self, method: WipeMethod) -> Result<(), String> {
        use WipeMethod as M;
        let says = |yes: bool, what: &str| if yes { Ok(()) } else { Err(format!("the device does not offer {what}")) };
        let other = || Err("the device does not speak this command set".to_owned());
        match (method, self) {
            (M::Overwrite, Self::Ata(ata)) if ata.security_locked => Err(LOCKED.into()),
            (M::Overwrite, _) => Ok(()),
            (M::OpalRevert, _) => Err("this version does not issue it".into()),
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

const LOCKED: &str = "it is locked with an ATA password; unlock it with that password, or have its maker do it";

impl AtaAbilities {
    fn sanitizes(&self, offered: bool, what: &str) -> Result<(), String> {
        if !offered {
            return Err(format!("the device does not offer SANITIZE DEVICE, {what}"));
        }
        if self.sanitize_frozen {
            return Err("SANITIZE DEVICE is frozen (the firmware gave SANITIZE FREEZE LOCK); \
                        a power cycle of the disk alone, pulling it out and in, ends that"
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
                        pull the disk out and in while the live system runs, or switch it off in the set-up"
                .into());
        }
        if self.security_locked {
            return Err(LOCKED.into());
        }
        if self.security_enabled {
            return Err("somebody has set an ATA password, which must be disabled with that password first".into());
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
mod tests {
    use super::*;
    use crate::inventory::Transport;
    use crate::wipe::{WipePass, WipeTargets};
    use proptest::prelude::*;

    fn task(level: WipeLevel) -> WipeTask {
        WipeTask::new(WipeTargets::AllDisks, level)
    }

    fn nvme() -> NvmeAbilities {
        NvmeAbilities { sanitize_crypto: true, sanitize_block: true, format: true, namespace: 1, ..Default::default() }
    }

    fn reasons(declined: &[Declined]) -> String {
        declined.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn the_strongest_method_whose_result_can_be_judged_comes_first() {
        let disk = Disk::default();
        let (clear, purge) = (task(WipeLevel::Clear), task(WipeLevel::Purge));
        assert_eq!(choose(&purge, &disk, &Abilities::Nvme(nvme())), Ok(WipeMethod::NvmeSanitizeBlock));
        assert_eq!(choose(&clear, &disk, &Abilities::Nvme(nvme())), Ok(WipeMethod::Overwrite));
        let named = WipeTask { methods: vec![WipeMethod::NvmeSanitizeCrypto], ..purge };
        assert_eq!(choose(&named, &disk, &Abilities::Nvme(nvme())), Ok(WipeMethod::NvmeSanitizeCrypto));
    }

    #[test]
    fn what_cannot_be_purged_is_refused_with_the_reason_of_each_method() {
        let virtio = Abilities::ReadWrite("a virtio disk has no commands of its own".into());
        let declined = choose(&task(WipeLevel::Purge), &Disk::default(), &virtio).expect_err("refused");
        assert!(reasons(&declined).contains("virtio") && declined.len() == 10, "{declined:?}");
        let allowed = WipeTask { allow: vec![WipeLevel::Clear], ..task(WipeLevel::Purge) };
        assert_eq!(choose(&allowed, &Disk::default(), &virtio), Ok(WipeMethod::Overwrite));

        let sanitizes = Abilities::Scsi(ScsiAbilities { sanitize_block: true, ..Default::default() });
        let volume = Disk { tran: Transport::Scsi, model: "PERC H730P".into(), ..Disk::default() };
        let declined = choose(&task(WipeLevel::Purge), &volume, &sanitizes).expect_err("refused");
        assert!(reasons(&declined).contains("RAID controller"), "{declined:?}");
    }

    #[test]
    fn frozen_and_locked_disks_say_what_to_do() {
        let frozen = AtaAbilities { security: true, security_frozen: true, ..Default::default() };
        let by_security = WipeTask { methods: vec![WipeMethod::AtaSecurityErase], ..task(WipeLevel::Clear) };
        let declined = choose(&by_security, &Disk::default(), &Abilities::Ata(frozen)).expect_err("refused");
        assert!(reasons(&declined).contains("pull the disk out and in"), "{declined:?}");
        let locked = Abilities::Ata(AtaAbilities { security_locked: true, ..Default::default() });
        let declined = choose(&task(WipeLevel::Clear), &Disk::default(), &locked).expect_err("refused");
        assert!(reasons(&declined).contains("ATA password"), "{declined:?}");
    }

    #[test]
    fn another_namespace_is_another_disk() {
        let other = |attached| OtherNamespace { id: 2, size: Bytes::gib(1), attached };
        let mut abilities = nvme();
        abilities.others = vec![other(true)];
        let purge = task(WipeLevel::Purge);
        let declined = choose(&purge, &Disk::default(), &Abilities::Nvme(abilities.clone())).expect_err("refused");
        assert!(reasons(&declined).contains("namespace 2"), "{declined:?}");
        // Detached, it is nobody's disk: a sanitize takes it, an overwrite would leave it behind.
        abilities.others = vec![other(false)];
        let detached = Abilities::Nvme(abilities);
        assert_eq!(choose(&purge, &Disk::default(), &detached), Ok(WipeMethod::NvmeSanitizeBlock));
        let all_of_it = WipeTask { hidden_areas: Some(true), ..task(WipeLevel::Clear) };
        let declined = choose(&all_of_it, &Disk::default(), &detached).expect_err("refused");
        assert!(reasons(&declined).contains("would keep its data"), "{declined:?}");
        assert_eq!(choose(&task(WipeLevel::Clear), &Disk::default(), &detached), Ok(WipeMethod::Overwrite));
    }

    proptest! {
        /// Whatever a device can: what is chosen is offered, reaches what was asked or allowed, and was named if any were.
        #[test]
        fn nothing_weaker_is_ever_chosen(
            bits in prop::collection::vec(any::<bool>(), 12),
            kind in 0..4,
            purge: bool,
            allow: bool,
            named in prop::collection::vec(prop::sample::select(WipeMethod::ALL.to_vec()), 0..3),
            passes: bool,
        ) {
            let abilities = match kind {
                0 => Abilities::Nvme(NvmeAbilities {
                    sanitize_crypto: bits[0], sanitize_block: bits[1], sanitize_overwrite: bits[2], format: bits[3],
                    format_crypto: bits[4], format_takes_all: bits[5], namespace_management: bits[6], namespace: 1,
                    others: bits[7].then_some(OtherNamespace { id: 2, size: Bytes(1), attached: bits[8] }).into_iter().collect(),
                    boot_partition: None,
                }),
                1 => Abilities::Ata(AtaAbilities {
                    sanitize_crypto: bits[0], sanitize_block: bits[1], sanitize_overwrite: bits[2], sanitize_frozen: bits[3],
                    security: bits[4], security_enhanced: bits[5], security_enabled: bits[6], security_locked: bits[7],
                    security_frozen: bits[8], security_expired: bits[9], ..Default::default()
                }),
                2 => Abilities::Scsi(ScsiAbilities { sanitize_crypto: bits[0], sanitize_block: bits[1], sanitize_overwrite: bits[2] }),
                _ => Abilities::ReadWrite("nothing known".into()),
            };
            let level = if purge { WipeLevel::Purge } else { WipeLevel::Clear };
            let task = WipeTask {
                methods: named.clone(),
                allow: allow.then_some(WipeLevel::Clear).into_iter().collect(),
                passes_before: passes.then_some(WipePass::Zeroes).into_iter().collect(),
                ..task(level)
            };
            match choose(&task, &Disk::default(), &abilities) {
                Ok(method) => {
                    prop_assert!(abilities.offers(method).is_ok());
                    prop_assert!(method.level() >= level || allow);
                    prop_assert!(named.is_empty() || named.contains(&method));
                    if let Abilities::Nvme(nvme) = &abilities {
                        prop_assert!(!nvme.takes_all(method) || nvme.others.iter().all(|n| !n.attached));
                    }
                }
                Err(declined) => prop_assert!(declined.iter().all(|d| !d.why.is_empty())),
            }
        }
    }
}

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
    assert!(reasons(&declined).contains("virtio") && declined.len() == 11, "{declined:?}");
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
fn a_revert_needs_a_disk_that_encrypts_and_its_label() {
    use crate::wipe::{DiskKey, DiskSecret};
    let disk = Disk { serial: "S1".into(), ..Disk::default() };
    let key = |psid: &str| DiskKey {
        serial: "S1".into(),
        psid: Some(DiskSecret(psid.into())),
        ata_password: None,
        ata_master: false,
    };
    let with_label = WipeTask { keys: vec![key(&"A1".repeat(16))], ..task(WipeLevel::Purge) };
    let locked = OpalAbilities {
        class: SecurityClass::Opal2,
        com_id: 0x1000,
        encrypts: true,
        locking_enabled: true,
        locked: true,
    };
    let with = |opal: Opal| Abilities::Nvme(NvmeAbilities { opal, ..nvme() });
    let locked_disk = with(Opal::Has(locked.clone()));
    assert_eq!(choose(&with_label, &disk, &locked_disk), Ok(WipeMethod::OpalRevert));
    let declined = choose(&task(WipeLevel::Purge), &disk, &locked_disk).expect_err("no label");
    assert!(reasons(&declined).contains("printed on the disk's label"), "{declined:?}");
    assert!(reasons(&declined).contains("it is locked (TCG Opal)"), "{declined:?}");
    // Open, the device's own sanitize comes first.
    let open = with(Opal::Has(OpalAbilities { locked: false, ..locked.clone() }));
    assert_eq!(choose(&with_label, &disk, &open), Ok(WipeMethod::NvmeSanitizeBlock));
    let named = WipeTask { methods: vec![WipeMethod::OpalRevert], ..with_label };
    for (opal, why) in [
        (Opal::None, "no self-encrypting disk"),
        (Opal::Unread("nobody answers".into()), "nobody answers"),
        (Opal::Has(OpalAbilities { class: SecurityClass::Pyrite, ..locked.clone() }), "Pyrite"),
        (Opal::Has(OpalAbilities { encrypts: false, ..locked.clone() }), "does not encrypt"),
        (Opal::Has(OpalAbilities { class: SecurityClass::Enterprise, ..locked }), "Enterprise"),
    ] {
        let declined = choose(&named, &disk, &with(opal)).expect_err(why);
        assert!(reasons(&declined).contains(why), "{declined:?}");
    }
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
                opal: Opal::None,
            }),
            1 => Abilities::Ata(AtaAbilities {
                sanitize_crypto: bits[0], sanitize_block: bits[1], sanitize_overwrite: bits[2], sanitize_frozen: bits[3],
                security: bits[4], security_enhanced: bits[5], security_enabled: bits[6], security_locked: bits[7],
                security_frozen: bits[8], security_expired: bits[9], ..Default::default()
            }),
            2 => Abilities::Scsi(ScsiAbilities { sanitize_crypto: bits[0], sanitize_block: bits[1], sanitize_overwrite: bits[2], opal: Opal::None }),
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

//! Disks that somebody has locked or the firmware has frozen.

use speediso_model::abilities::Abilities;
use speediso_model::task::Unfreeze;

use super::*;
use crate::wipe::open::Opening;
use crate::wipe::probe;

fn password(text: &str) -> [u8; 32] {
    let mut block = [0; 32];
    block[..text.len()].copy_from_slice(text.as_bytes());
    block
}

fn locked(change: impl FnOnce(&mut Ata)) -> Simulated {
    sata(|ata| {
        (ata.locked, ata.password, ata.master) = (true, Some(password("old")), Some(password("maker")));
        change(ata);
    })
}

fn with(keys: DiskKey, task: WipeTask) -> WipeTask {
    WipeTask { keys: vec![keys], ..task }
}

fn has_password(device: &Simulated) -> bool {
    matches!(&device.state().kind, Kind::Ata(ata) if ata.password.is_some())
}

#[test]
fn a_password_that_the_task_gives_is_taken_away_and_the_disk_wiped() {
    let bench = Bench::new();
    for task in [purge(), by(WipeMethod::Overwrite), by(WipeMethod::AtaSecurityErase)] {
        let device = locked(|_| ());
        let report = report(&bench.wipe(&with(key(None, Some("old")), task), &device));
        assert_eq!(device.changes()[..2], ["unlock", "disable password"]);
        assert!(report.steps[0].contains("took away the ATA password"), "{:?}", report.steps);
        assert!(!has_password(&device) && !device.holds_data());
    }
    // By the maker's; and one that is set on a disk that is open.
    let by_master = DiskKey { ata_master: true, ..key(None, Some("maker")) };
    report(&bench.wipe(&with(by_master, purge()), &locked(|_| ())));
    let open = locked(|ata| ata.locked = false);
    report(&bench.wipe(&with(key(None, Some("old")), by(WipeMethod::AtaSecurityErase)), &open));
    assert_eq!(open.changes()[0], "disable password");
}

#[test]
fn a_wrong_password_changes_nothing_and_a_disk_without_one_needs_none() {
    let bench = Bench::new();
    let device = locked(|_| ());
    let wrong = with(key(None, Some("new-secret")), purge());
    for _ in 0..5 {
        let text = fault(&bench.wipe(&wrong, &device), Outcome::FailedUnchanged);
        assert!(text.contains("user password of the task is not the one"), "{text}");
        assert!(!text.contains("new-secret"), "the secret is told: {text}");
    }
    // Now the right one is not taken either.
    fault(&bench.wipe(&with(key(None, Some("old")), purge()), &device), Outcome::FailedUnchanged);
    assert!(device.changes().is_empty() && has_password(&device));
    let maximum = locked(|ata| ata.maximum = true);
    let by_master = DiskKey { ata_master: true, ..key(None, Some("maker")) };
    let text = fault(&bench.wipe(&with(by_master, purge()), &maximum), Outcome::FailedUnchanged);
    assert!(text.contains("maximum security"), "{text}");
    // What is not locked is wiped as ever, and the key of another disk is not tried.
    let plain = sata(|_| ());
    report(&bench.wipe(&with(key(None, Some("old")), purge()), &plain));
    assert_eq!(plain.changes(), ["sanitize"]);
    let others = DiskKey { serial: "ANOTHER".into(), ..key(None, Some("old")) };
    let text = fault(&bench.wipe(&with(others, purge()), &locked(|_| ())), Outcome::FailedUnchanged);
    assert!(text.contains("under keys"), "{text}");
}

#[test]
fn a_password_that_stays_is_told() {
    let bench = Bench::new();
    let device = locked(|ata| ata.keeps_password = true);
    let text = fault(&bench.wipe(&with(key(None, Some("old")), purge()), &device), Outcome::FailedChanged);
    assert!(text.contains("unlocked until its power is gone"), "{text}");
    assert_eq!(device.changes(), ["unlock"]);
    assert!(device.holds_data());
    // What cannot be wiped even then is not opened.
    let device = locked(|ata| (ata.sanitizes, ata.enhanced) = (0, false));
    fault(&bench.wipe(&with(key(None, Some("old")), purge()), &device), Outcome::FailedUnchanged);
    assert!(device.changes().is_empty() && has_password(&device));
}

#[test]
fn only_what_is_frozen_and_may_be_thawed_suspends_the_machine() {
    let opening = |task: &WipeTask, device: &Simulated| {
        Opening::of(task, device.disk(), &probe::abilities(device.disk(), device))
    };
    let frozen = || sata(|ata| (ata.frozen, ata.sanitize_frozen) = (true, true));
    let may = WipeTask { unfreeze: Some(Unfreeze::Suspend), ..purge() };
    assert!(opening(&may, &frozen()).thaws && !opening(&purge(), &frozen()).thaws);
    assert!(!opening(&may, &sata(|_| ())).thaws && !opening(&may, &nvme()).thaws);
    // Overwriting does not mind, unless the disk is locked as well.
    let overwrite = WipeTask { unfreeze: Some(Unfreeze::Suspend), ..by(WipeMethod::Overwrite) };
    assert!(!opening(&overwrite, &frozen()).thaws);
    let both = locked(|ata| ata.frozen = true);
    assert!(!opening(&overwrite, &both).thaws, "without the password it would be of no use");
    let open = opening(&with(key(None, Some("old")), overwrite), &both);
    assert!(open.thaws && open.unlocks, "{open:?}");
    // A weaker method that is permitted too does not come before the thaw that is permitted.
    let allowed = WipeTask { allow: vec![WipeLevel::Clear], ..may };
    let open = opening(&allowed, &frozen());
    assert!(open.thaws && matches!(&open.abilities, Abilities::Ata(ata) if !ata.sanitize_frozen), "{open:?}");
    assert_eq!(open.in_words().len(), 1);
}

#[test]
fn a_disk_locked_by_nobody_knows_whom_forgets_everything_by_its_label() {
    let bench = Bench::new();
    for device in [nvme(), sata(|_| ()), sas()] {
        let device = device.opal(Opal::locked(PSID));
        let text = fault(&bench.wipe(&purge(), &device), Outcome::FailedUnchanged);
        assert!(text.contains("it is locked (TCG Opal)") && text.contains("PSID"), "{text}");
        let reverted = report(&bench.wipe(&with(key(Some(PSID), None), purge()), &device));
        assert_eq!((reverted.method, device.changes()), (WipeMethod::OpalRevert, vec!["revert", "revert"]));
        assert!(reverted.verification.canaries.is_some_and(|c| c.planted > 100 && c.found_after == 0));
        assert!(!device.holds_data());
        // Open, it has better methods again.
        let again = report(&bench.wipe(&with(key(Some(PSID), None), purge()), &device));
        assert_ne!(again.method, WipeMethod::OpalRevert);
    }
}

#[test]
fn a_wrong_label_changes_nothing_and_a_revert_that_lies_is_found_out() {
    let bench = Bench::new();
    let wrong = with(key(Some(&"X".repeat(32)), None), purge());
    let device = nvme().opal(Opal::locked(PSID));
    for _ in 0..5 {
        let text = fault(&bench.wipe(&wrong, &device), Outcome::FailedUnchanged);
        assert!(text.contains("not its PSID") && !text.contains("XXXX"), "{text}");
    }
    let text = fault(&bench.wipe(&wrong, &device), Outcome::FailedUnchanged);
    assert!(text.contains("locked out"), "{text}");
    assert!(device.changes().is_empty());
    let right = with(key(Some(PSID), None), purge());
    let lies = nvme().opal(Opal::locked(PSID)).quirk(Quirk::Lies);
    assert!(fault(&bench.wipe(&right, &lies), Outcome::FailedChanged).contains("did not erase"));
    let pyrite = nvme().opal(Opal::locked(PSID).of_class(0x303, false));
    assert!(fault(&bench.wipe(&right, &pyrite), Outcome::FailedUnchanged).contains("Pyrite"));
    // Its namespaces are one to it, and the other one is somebody's disk.
    let two = Simulated::new(Kind::Nvme(Nvme::new().also(2, true)), MIB).opal(Opal::locked(PSID));
    assert!(fault(&bench.wipe(&right, &two), Outcome::FailedUnchanged).contains("another disk"));
    assert!(two.changes().is_empty() && two.state().core.is_locked());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever is locked how, and whatever keys are given: unchanged means that nothing was sent, verified that nothing
    /// can be read, and a secret is in no report and no fault.
    #[test]
    fn keys_open_what_they_are_of_and_are_told_nobody(
        kind in 0..3,
        locked: bool,
        frozen: bool,
        opal: bool,
        quirk in prop::sample::select(vec![Quirk::None, Quirk::Lies, Quirk::LeavesSome, Quirk::Fails, Quirk::Aborts]),
        password_given in prop::sample::select(vec![None, Some("sesame-open"), Some("sesame-wrong")]),
        psid_given in prop::sample::select(vec![None, Some(PSID), Some("WRONGWRONGWRONGWRONGWRONGWRONG12")]),
        clear: bool,
    ) {
        let device = match kind {
            0 => nvme(),
            1 => sata(|ata| {
                (ata.locked, ata.frozen) = (locked, frozen);
                ata.password = locked.then(|| password("sesame-open"));
            }),
            _ => sas(),
        };
        let device = if opal { device.opal(Opal::locked(PSID)) } else { device };
        let device = device.quirk(quirk);
        let level = if clear { WipeLevel::Clear } else { WipeLevel::Purge };
        let keys = (password_given.is_some() || psid_given.is_some()).then(|| key(psid_given, password_given));
        let task = WipeTask { keys: keys.into_iter().collect(), ..WipeTask::new(WipeTargets::AllDisks, level) };
        let bench = Bench::new();
        let ended = bench.wipe(&task, &device);
        match ended.outcome {
            Outcome::Verified => prop_assert!(!device.holds_data()),
            Outcome::FailedUnchanged => prop_assert!(device.changes().is_empty() && device.holds_data()),
            Outcome::FailedChanged | Outcome::Unknown => prop_assert!(ended.fault.is_some()),
        }
        let told = format!("{:?} {:?} {:?}", ended.fault, ended.facts, bench.told.0.lock());
        for secret in ["sesame", PSID, "WRONGWRONG"] {
            prop_assert!(!told.contains(secret), "{told}");
        }
    }
}

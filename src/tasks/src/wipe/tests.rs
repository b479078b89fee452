//! Wipes of simulated disks: what a method issues, how its end is known, and that no misbehaviour passes for a success.
//!
//! This is our reading of the specifications on both sides. No real disk has confirmed it.

mod hidden;
mod locked;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use proptest::prelude::*;
use speediso_model::build::BuildInfo;
use speediso_model::hints::SkipList;
use speediso_model::outcome::Outcome;
use speediso_model::task::{DiskKey, DiskSecret, WipeLevel, WipeMethod, WipeTargets, WipeTask, WipeVerify};
use speediso_model::wipe::{AreaKind, VerificationKind, WipeReport};
use speediso_sys::disks::DiskScope;
use speediso_sys::passthrough::{Passthrough as _, ata, health, nvme as nvme_commands};
use speediso_sys::roots::Roots;

use super::flow::Load;
use super::simulator::{Ata, ERASURE, Kind, Nvme, Opal, Quirk, Scsi, Simulated};
use super::target::Target;
use crate::ctx::{Cancel, Patience, ProgressUpdate, Reporter, TaskCtx};
use crate::single::Ended;
use crate::tools::Tools;

const MIB: usize = 2;

#[derive(Default)]
struct Told(Mutex<Vec<String>>);

impl Reporter for Told {
    fn step_began(&self, _: &str) {}
    fn step_ended(&self, _: &str, _: &str) {}
    fn notice(&self, text: &str) {
        self.0.lock().expect("whole").push(text.into());
    }
    fn progress(&self, update: ProgressUpdate) {
        assert!(update.total.is_none_or(|total| update.current <= total), "{update:?}");
    }
}

pub(crate) struct Bench {
    pub(crate) ctx: TaskCtx,
    told: Arc<Told>,
    _runtime: tokio::runtime::Runtime,
}

impl Bench {
    pub(crate) fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let told = Arc::new(Told::default());
        let patience = Patience {
            connect: Duration::ZERO,
            stall: Duration::ZERO,
            tries: 1,
            first_pause: Duration::ZERO,
            longest_pause: Duration::ZERO,
        };
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("its own")
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        let ctx = TaskCtx {
            roots: Roots::live(),
            scope: DiskScope::default(),
            reporter: Arc::clone(&told) as Arc<dyn Reporter>,
            cancel: Cancel::default(),
            http: reqwest::Client::builder().tls_backend_preconfigured(tls).build().expect("a client"),
            runtime: runtime.handle().clone(),
            probe: None,
            boot_mac: None,
            build: BuildInfo::default(),
            patience,
            uploads: None,
            resuming: false,
            sharing: None,
            skip: SkipList::default(),
            tools: Tools::of_system(None),
        };
        Self { ctx, told, _runtime: runtime }
    }

    fn wipe(&self, task: &WipeTask, device: &Simulated) -> Ended {
        super::run(task, device, Load { chunk: 64 << 10, depth: 2 }, &self.ctx)
    }
}

fn purge() -> WipeTask {
    WipeTask::new(WipeTargets::AllDisks, WipeLevel::Purge)
}

fn by(method: WipeMethod) -> WipeTask {
    let level = method.level();
    WipeTask { methods: vec![method], keys: vec![key(Some(PSID), None)], ..WipeTask::new(WipeTargets::AllDisks, level) }
}

const PSID: &str = "0123456789ABCDEFGHIJKLMNOPQRSTUV";

/// Of the simulated disk.
fn key(psid: Option<&str>, ata_password: Option<&str>) -> DiskKey {
    let secret = |text: &str| DiskSecret(text.into());
    DiskKey {
        serial: "SIMULATED".into(),
        psid: psid.map(secret),
        ata_password: ata_password.map(secret),
        ata_master: false,
    }
}

fn nvme() -> Simulated {
    Simulated::new(Kind::Nvme(Nvme::new()), MIB)
}

fn sata(change: impl FnOnce(&mut Ata)) -> Simulated {
    let mut ata = Ata::new(MIB);
    change(&mut ata);
    Simulated::new(Kind::Ata(ata), MIB)
}

fn sas() -> Simulated {
    Simulated::new(Kind::Scsi(Scsi::new()), MIB)
}

fn device_for(method: WipeMethod) -> Simulated {
    let name = method.name();
    if method == WipeMethod::OpalRevert {
        nvme().opal(Opal::locked(PSID))
    } else if name.starts_with("nvme") {
        nvme()
    } else if name.starts_with("ata") {
        sata(|_| ())
    } else {
        sas()
    }
}

fn by_device() -> impl Iterator<Item = WipeMethod> {
    WipeMethod::ALL.into_iter().filter(|m| *m != WipeMethod::Overwrite)
}

#[track_caller]
fn report(ended: &Ended) -> WipeReport {
    assert_eq!(ended.outcome, Outcome::Verified, "{:?}", ended.fault);
    serde_json::from_value(ended.facts.clone()).expect("a report")
}

#[track_caller]
fn fault(ended: &Ended, outcome: Outcome) -> String {
    let fault = ended.fault.as_ref().expect("a fault");
    assert_eq!(ended.outcome, outcome, "{fault}");
    fault.to_string()
}

#[test]
fn every_method_erases_and_says_what_it_did() {
    let bench = Bench::new();
    for method in by_device().chain([WipeMethod::Overwrite]) {
        let device = device_for(method);
        let report = report(&bench.wipe(&by(method), &device));
        assert!(!device.holds_data(), "{}", method.name());
        assert_eq!((report.method, report.reached), (method, Some(method.level())));
        let canaries = report.verification.canaries.as_ref();
        assert_eq!(canaries.is_none(), method == WipeMethod::Overwrite, "{}", method.name());
        assert!(canaries.is_none_or(|c| c.planted > 100 && c.found_after == 0));
        let by_simulator = report.not_covered.iter().any(|t| t.contains("simulator only"));
        let tried = matches!(method, WipeMethod::Overwrite | WipeMethod::NvmeFormatUserData);
        assert_eq!(by_simulator, !tried, "{}", method.name());
        assert_eq!(report.device_log.is_empty(), method == WipeMethod::Overwrite);
    }
}

#[test]
fn a_device_that_lies_is_found_out() {
    let bench = Bench::new();
    for method in by_device() {
        for quirk in [Quirk::Lies, Quirk::LeavesSome] {
            for verify in [WipeVerify::Full, WipeVerify::SamplePercent(1)] {
                let device = device_for(method).quirk(quirk);
                let ended = bench.wipe(&WipeTask { verify, ..by(method) }, &device);
                let text = fault(&ended, Outcome::FailedChanged);
                assert!(text.contains("did not erase"), "{} {quirk:?}: {text}", method.name());
            }
        }
    }
}

#[test]
fn a_device_that_fails_says_so_and_keeps_no_password() {
    let bench = Bench::new();
    for method in by_device().filter(|m| !m.name().contains("format")) {
        let device = device_for(method).quirk(Quirk::Fails);
        let text = fault(&bench.wipe(&by(method), &device), Outcome::FailedChanged);
        assert!(text.contains("/dev/simulated"), "{text}");
        if let Kind::Ata(ata) = &device.state().kind {
            assert!(ata.password.is_none(), "{} leaves a password", method.name());
        }
        assert!(!text.contains("keeps the ATA user password"), "{text}");
    }
    let stubborn = sata(|ata| ata.keeps_password = true).quirk(Quirk::Fails);
    let text = fault(&bench.wipe(&by(WipeMethod::AtaSecurityErase), &stubborn), Outcome::FailedChanged);
    assert!(text.contains("keeps the ATA user password \"speediso\""), "{text}");
    assert!(bench.told.0.lock().expect("whole").iter().any(|t| t.contains("should the power fail")));
}

#[test]
fn a_device_that_aborts_erases_nothing_and_nothing_weaker_is_tried() {
    let bench = Bench::new();
    for method in by_device() {
        let device = device_for(method).quirk(Quirk::Aborts);
        // The marks were planted already, so the disk is not as it was; before a revert none are.
        let unchanged = method == WipeMethod::OpalRevert;
        let outcome = if unchanged { Outcome::FailedUnchanged } else { Outcome::FailedChanged };
        fault(&bench.wipe(&by(method), &device), outcome);
        assert!(device.holds_data());
        let erasing = |c: &&str| !matches!(*c, "set password" | "disable password");
        assert_eq!(device.changes().iter().filter(|c| erasing(c)).count(), 0, "{}", method.name());
    }
}

#[test]
fn silence_is_waited_out_and_death_is_unknown() {
    let bench = Bench::new();
    for device in [nvme(), sata(|_| ()), sas()] {
        report(&bench.wipe(&purge(), &device.quirk(Quirk::FallsSilent)));
    }
    for device in [nvme(), sata(|_| ()), sas()] {
        fault(&bench.wipe(&purge(), &device.quirk(Quirk::Dies)), Outcome::Unknown);
    }
}

/// The agent of this boot began a sanitize and died.
#[test]
fn a_sanitize_in_flight_is_watched_by_the_next_agent_and_not_begun_again() {
    for device in [nvme(), sata(|_| ()), sas()] {
        let mut bench = Bench::new();
        // Dies in the middle: here, by being cancelled at a poll.
        let cancel = bench.ctx.cancel.clone();
        std::thread::scope(|scope| {
            let watcher = scope.spawn(|| {
                while device.changes().is_empty() {
                    std::thread::yield_now();
                }
                cancel.cancel();
            });
            let ended = bench.wipe(&purge(), &device);
            watcher.join().expect("watched");
            // It may have been too quick for us; then there is nothing to see.
            if ended.outcome != Outcome::Verified {
                fault(&ended, Outcome::FailedChanged);
            }
        });
        if device.state().core.erasure.is_none() {
            continue;
        }
        bench.ctx.cancel = Cancel::default();
        bench.ctx.resuming = true;
        let report = report(&bench.wipe(&purge(), &device));
        assert_eq!(device.changes(), ["sanitize"], "it was begun once");
        assert!(report.steps[0].contains("watched to its end"), "{:?}", report.steps);
        assert!(report.verification.canaries.is_some_and(|c| c.planted > 100), "the marks of the agent before");
        assert!(!device.holds_data());
    }
}

/// Of another boot nobody knows the marks. NVMe tells what is going on; the others do not, and are erased again.
#[test]
fn a_sanitize_of_another_boot_is_adopted_only_if_its_kind_is_known() {
    let bench = Bench::new();
    let device = nvme();
    nvme_commands::sanitize(&device, nvme_commands::SanitizeAction::Block, true).expect("begun");
    device.pause(ERASURE / 10);
    let adopted = report(&bench.wipe(&purge(), &device));
    assert_eq!((device.changes(), adopted.verification.canaries), (vec!["sanitize"], None));
    assert!(adopted.verification.in_words.contains("no marks were planted"));

    let device = nvme();
    nvme_commands::sanitize(&device, nvme_commands::SanitizeAction::Crypto, true).expect("begun");
    let again = report(&bench.wipe(&purge(), &device));
    assert_eq!(device.changes(), ["sanitize", "sanitize"], "another kind than the one wanted");
    assert!(again.verification.canaries.is_some());

    let device = sata(|_| ());
    ata::sanitize(&device, ata::SanitizeAction::Block).expect("begun");
    assert!(report(&bench.wipe(&purge(), &device)).verification.canaries.is_some());
    assert_eq!(device.changes(), ["sanitize", "sanitize"]);
}

#[test]
fn a_failed_sanitize_is_repaired_by_the_next() {
    let bench = Bench::new();
    let device = nvme().quirk(Quirk::Fails);
    fault(&bench.wipe(&purge(), &device), Outcome::FailedChanged);
    device.state().core.quirk = Quirk::None;
    // Nothing can be written until a sanitize succeeds, marks neither.
    let repaired = report(&bench.wipe(&purge(), &device));
    assert!(repaired.verification.canaries.is_none() && !device.holds_data());
    assert!(repaired.steps[0].contains("takes no marks"), "{:?}", repaired.steps);
}

#[test]
fn frozen_and_locked_disks_are_left_alone() {
    let bench = Bench::new();
    let frozen = sata(|ata| (ata.frozen, ata.sanitize_frozen) = (true, true));
    for task in [purge(), by(WipeMethod::AtaSecurityErase)] {
        let text = fault(&bench.wipe(&task, &frozen), Outcome::FailedUnchanged);
        assert!(text.contains("frozen"), "{text}");
    }
    let locked = sata(|ata| (ata.locked, ata.password) = (true, Some([7; 32])));
    for task in [purge(), by(WipeMethod::Overwrite)] {
        let text = fault(&bench.wipe(&task, &locked), Outcome::FailedUnchanged);
        assert!(text.contains("ATA password"), "{text}");
    }
    let with_password = sata(|ata| ata.password = Some([7; 32]));
    let text = fault(&bench.wipe(&by(WipeMethod::AtaSecurityErase), &with_password), Outcome::FailedUnchanged);
    assert!(text.contains("somebody has set"), "{text}");
    assert!(frozen.changes().is_empty() && locked.changes().is_empty() && with_password.changes().is_empty());
}

#[test]
fn what_a_device_does_not_offer_is_not_sent() {
    let bench = Bench::new();
    let no_deallocation = Simulated::new(Kind::Nvme(Nvme { sanitizes: 0b10 | 1 << 29, ..Nvme::new() }), MIB);
    report(&bench.wipe(&purge(), &no_deallocation));
    let silent = Simulated::new(Kind::Scsi(Scsi { reports_nothing: true, ..Scsi::new() }), MIB);
    let text = fault(&bench.wipe(&purge(), &silent), Outcome::FailedUnchanged);
    assert!(text.contains("scsi_sanitize_block"), "{text}");
    let allowed = WipeTask { allow: vec![WipeLevel::Clear], ..purge() };
    let report = report(&bench.wipe(&allowed, &silent));
    assert_eq!((report.asked, report.reached), (WipeLevel::Purge, Some(WipeLevel::Clear)));
    assert_eq!(report.verification.kind, VerificationKind::Full);
}

#[test]
fn a_simulated_disk_is_asked_as_a_real_one() {
    let device = nvme();
    let controller = nvme_commands::controller(&device).expect("answered");
    assert_eq!((controller.id, controller.sanitize, controller.namespaces), (7, 0b111, 32));
    let namespace = nvme_commands::namespace(&device, device.nvme_namespace().expect("1")).expect("answered");
    assert_eq!((namespace.size().0, namespace.format().map(|f| f.bytes)), ((MIB as u64) << 20, Some(512)));
    let health = health::nvme(&device).expect("answered");
    assert_eq!((health.power_on_hours, health.percentage_used, health.temperature_c), (Some(1234), Some(3), Some(40)));
    let abilities = ata::abilities(&sata(|_| ())).expect("answered");
    assert_eq!((abilities.accessible.0, abilities.erase_minutes), ((MIB as u64) << 20, Some(60)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// Whatever the device is and however it misbehaves: verified means that nothing can be read, at the level that was
    /// asked or allowed; unchanged means that nothing was sent that changes anything.
    #[test]
    fn no_misbehaviour_passes_for_a_success(
        kind in 0..3,
        quirk in prop::sample::select(vec![Quirk::None, Quirk::Lies, Quirk::LeavesSome, Quirk::Fails, Quirk::Aborts, Quirk::FallsSilent, Quirk::Dies]),
        bits in prop::collection::vec(any::<bool>(), 8),
        purge: bool,
        allow: bool,
        hidden in prop::option::of(any::<bool>()),
        named in prop::collection::vec(prop::sample::select(WipeMethod::ALL.to_vec()), 0..3),
    ) {
        let device = match kind {
            0 => {
                let mut nvme = Nvme { sanitizes: u32::from(bits[0]) | u32::from(bits[1]) << 1, ..Nvme::new() };
                if bits[2] { nvme = nvme.also(2, bits[3]); }
                nvme.format_attributes = u8::from(bits[4]) << 1 | u8::from(bits[5]) << 2;
                Simulated::new(Kind::Nvme(nvme), MIB)
            }
            1 => sata(|ata| {
                ata.sanitizes = u16::from(bits[0]) << 13 | u16::from(bits[1]) << 15;
                (ata.frozen, ata.sanitize_frozen, ata.keeps_password) = (bits[2], bits[3], bits[4]);
                if bits[5] { ata.native *= 2; ata.factory *= 2; }
                if bits[6] { ata.factory += 2048; }
            }),
            _ => Simulated::new(Kind::Scsi(Scsi {
                sanitizes: (1..=3).zip(&bits).filter(|(_, b)| **b).map(|(n, _)| n).collect(),
                reports_nothing: bits[3],
            }), MIB),
        }.quirk(quirk);
        let level = if purge { WipeLevel::Purge } else { WipeLevel::Clear };
        let task = WipeTask {
            methods: named,
            allow: allow.then_some(WipeLevel::Clear).into_iter().collect(),
            hidden_areas: hidden,
            ..WipeTask::new(WipeTargets::AllDisks, level)
        };
        let ended = Bench::new().wipe(&task, &device);
        match ended.outcome {
            Outcome::Verified => {
                prop_assert!(!device.holds_data());
                let report: WipeReport = serde_json::from_value(ended.facts).expect("a report");
                prop_assert!(report.reached >= Some(level) || allow, "{:?}", report);
                let detached = report.areas.iter().filter(|a| a.kind == AreaKind::Namespace && a.covered);
                if let Kind::Nvme(nvme) = &device.state().kind {
                    prop_assert!(detached.count() == 0 || nvme.namespaces[&2].erased);
                }
            }
            Outcome::FailedUnchanged => {
                prop_assert!(device.changes().is_empty() && device.holds_data());
                prop_assert!(ended.fault.is_some());
            }
            Outcome::FailedChanged | Outcome::Unknown => prop_assert!(ended.fault.is_some()),
        }
        if let Kind::Ata(ata) = &device.state().kind {
            let told = ended.fault.is_some_and(|f| f.to_string().contains("keeps the ATA user password"));
            prop_assert!(ata.password.is_none() || told, "a password stays and nobody says so");
        }
    }
}

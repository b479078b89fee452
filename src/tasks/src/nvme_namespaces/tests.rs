//! Namespaces of a simulated controller: no emulator here carries these commands out. Our reading of the specification on
//! both sides; no real controller has confirmed it.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;
use speediso_model::fault::{Fault, FaultCode};
use speediso_model::outcome::{Changed, Outcome};
use speediso_model::task::NvmeNamespacesTask;
use speediso_sys::nvme_controller::Shown;
use speediso_sys::passthrough::{CommandError, Passthrough};

use super::recreate::{Controller, recreate};
use super::wish::Wish;
use crate::single::Ended;
use crate::wipe::simulator::{GRAIN, Kind, Nvme, Quirk, Simulated, Space};
use crate::wipe::tests::Bench;

const CAPACITY: u64 = 8 << 20;

struct Bay {
    device: Simulated,
    /// The kernel makes no disk of what is new.
    blind: bool,
}

impl Bay {
    fn new(namespaces: BTreeMap<u32, Space>) -> Self {
        let nvme = Nvme { namespaces, capacity: CAPACITY, ..Nvme::new() };
        Self { device: Simulated::new(Kind::Nvme(nvme), 1), blind: false }
    }

    fn nvme<T>(&self, look: impl FnOnce(&mut Nvme) -> T) -> T {
        match &mut self.device.state().kind {
            Kind::Nvme(nvme) => look(nvme),
            _ => panic!("an NVMe controller"),
        }
    }

    fn namespaces(&self) -> BTreeMap<u32, Space> {
        self.nvme(|nvme| nvme.namespaces.clone())
    }

    fn attached(&self) -> Vec<u32> {
        self.namespaces().into_iter().filter(|(_, n)| n.attached).map(|(id, _)| id).collect()
    }

    fn wish(&self, task: &NvmeNamespacesTask, named: &[u32]) -> Result<Wish, Fault> {
        Wish::of(task, "the simulated controller", named, &self.device)
    }

    fn run(&mut self, task: &NvmeNamespacesTask) -> Ended {
        match self.wish(task, &self.attached()) {
            Ok(wish) => recreate(&wish, self, &Bench::new().ctx),
            Err(fault) => Ended::unchanged(fault),
        }
    }
}

impl Controller for Bay {
    fn name(&self) -> &str {
        "the simulated controller"
    }

    fn device(&self) -> &dyn Passthrough {
        &self.device
    }

    fn rescan(&mut self) -> Result<(), CommandError> {
        Ok(())
    }

    fn shown(&self, namespace: u32) -> Option<Shown> {
        let space = self.namespaces().get(&namespace).copied().filter(|n| n.attached && !self.blind)?;
        let sector_size = if space.format == 0 { 4096 } else { 512 };
        Some(Shown { size: space.blocks? * u64::from(sector_size), sector_size })
    }

    fn pause(&self, _: Duration) {}
}

fn space(mib: u64, attached: bool) -> Space {
    Space { blocks: Some(mib << 11), ..Space::new(attached) }
}

fn bay(namespaces: &[(u32, Space)]) -> Bay {
    Bay::new(namespaces.iter().copied().collect())
}

fn task(sector_size: u32, detached: bool) -> NvmeNamespacesTask {
    NvmeNamespacesTask { devices: Vec::new(), controller: Some("SIMULATED".into()), sector_size, detached }
}

#[test]
fn one_namespace_takes_the_place_of_all_and_again_there_is_nothing_to_do() {
    let mut bay = bay(&[(1, space(1, true)), (3, space(2, true)), (4, space(1, false))]);
    let ended = bay.run(&task(4096, true));
    assert_eq!((ended.outcome, ended.changed), (Outcome::Verified, Some(Changed::Changed)), "{:?}", ended.fault);
    assert_eq!(bay.device.changes(), ["detach", "delete", "detach", "delete", "delete", "create", "attach"]);
    let now = bay.namespaces();
    assert_eq!(now.len(), 1);
    assert_eq!((now[&1].blocks, now[&1].format, now[&1].attached), (Some(CAPACITY / 4096), 0, true));
    assert_eq!(ended.facts["deleted"], serde_json::json!([1, 3, 4]));
    let again = bay.run(&task(4096, false));
    assert_eq!((again.outcome, again.changed), (Outcome::Verified, Some(Changed::AlreadySo)));
    assert_eq!(bay.device.changes().len(), 7, "nothing was sent");
    // Another sector size is another wish; an empty controller is filled.
    assert_eq!(bay.run(&task(512, false)).changed, Some(Changed::Changed));
    bay.nvme(|nvme| nvme.namespaces.clear());
    assert_eq!(bay.run(&task(512, false)).outcome, Outcome::Verified);
}

#[test]
fn what_is_not_named_or_is_anothers_is_not_lost() {
    let refused = |bay: &Bay, task: &NvmeNamespacesTask, named: &[u32], code, word: &str| {
        let fault = bay.wish(task, named).expect_err(word);
        assert!(fault.code == code && fault.to_string().contains(word), "{fault}");
        assert!(bay.device.changes().is_empty());
    };
    let two = bay(&[(1, space(1, true)), (2, space(1, true))]);
    refused(&two, &task(512, false), &[1], FaultCode::TaskInvalid, "namespace 2 is a disk of its own");
    refused(&two, &task(512, false), &[1, 2, 3], FaultCode::DiskChanged, "no namespace 3 any more");
    let hidden = bay(&[(1, space(1, true)), (2, space(1, false))]);
    refused(&hidden, &task(512, false), &[1], FaultCode::Unsupported, "detached: true");
    let shared = bay(&[(1, Space { shared: true, ..space(1, true) })]);
    refused(&shared, &task(512, true), &[1], FaultCode::Unsupported, "with controllers [9]");
    // Attached to another controller only, it looks detached from here.
    let others = bay(&[(1, space(1, true)), (2, Space { shared: true, ..space(1, false) })]);
    refused(&others, &task(512, true), &[1], FaultCode::Unsupported, "with controllers [9]");
    let fixed = bay(&[(1, space(1, true))]);
    fixed.nvme(|nvme| nvme.optional &= !(1 << 3));
    refused(&fixed, &task(512, false), &[1], FaultCode::Unsupported, "Namespace Management");
    let mute = bay(&[(1, space(1, true))]);
    mute.nvme(|nvme| nvme.capacity = 0);
    refused(&mute, &task(512, false), &[1], FaultCode::Unsupported, "how much capacity");
}

#[test]
fn a_power_cut_anywhere_is_told_truly_and_can_be_ordered_away() {
    // Two are detached and deleted, one is made and attached: six commands.
    for power in 1..=6 {
        let mut bay = bay(&[(1, space(1, true)), (2, space(1, true))]);
        bay.nvme(|nvme| nvme.power_for = Some(power));
        let ended = bay.run(&task(4096, false));
        let fault = ended.fault.expect("it did not end well");
        assert_eq!(ended.outcome, Outcome::Unknown, "after {power}: {fault}");
        assert!(fault.to_string().contains("does not tell which namespaces"), "{fault}");
        // The next boot, which finds whatever is left.
        bay.nvme(|nvme| nvme.power_for = None);
        let again = bay.run(&task(4096, true));
        assert_eq!(again.outcome, Outcome::Verified, "after {power}: {:?}", again.fault);
        assert_eq!(bay.nvme(|nvme| nvme.namespaces[&1].blocks), Some(CAPACITY / 4096));
    }
}

#[test]
fn a_controller_that_declines_or_lies_is_found_out() {
    let run = |quirk, blind| {
        let mut bay = bay(&[(1, space(1, true)), (2, space(1, true))]);
        bay.blind = blind;
        bay.device.state().core.quirk = quirk;
        let ended = bay.run(&task(512, false));
        assert_eq!(ended.outcome, Outcome::FailedChanged, "{quirk:?}");
        let fault = ended.fault.expect("a fault");
        (fault.to_string(), fault.advice)
    };
    let (text, advice) = run(Quirk::Aborts, false);
    assert!(text.contains("not so much capacity") && text.contains("has no namespace now"), "{text}");
    assert!(advice.contains("naming the controller"), "{advice}");
    assert!(run(Quirk::Lies, false).0.contains("told to delete"));
    assert!(run(Quirk::LeavesSome, false).0.contains("not the 16384 of 512 bytes"));
    assert!(run(Quirk::None, true).0.contains("boot the machine again"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Whatever is there and whatever goes wrong: verified means one namespace over everything; unchanged means that all
    /// is as it was; what the task does not permit is never gone.
    #[test]
    fn nothing_passes_for_a_success_and_nothing_unnamed_is_lost(
        there in prop::collection::btree_map(1u32..6, (1u64..3, any::<bool>(), prop::bool::weighted(0.1)), 0..4),
        quirk in prop::sample::select(vec![Quirk::None, Quirk::Lies, Quirk::LeavesSome, Quirk::Aborts]),
        power in prop::option::of(1usize..8),
        detached: bool,
        blind in prop::bool::weighted(0.1),
        four_k: bool,
    ) {
        let spaces = there.iter().map(|(id, (mib, attached, shared))| (*id, Space { shared: *shared, ..space(*mib, *attached) }));
        let mut bay = Bay::new(spaces.collect());
        bay.blind = blind;
        bay.nvme(|nvme| nvme.power_for = power);
        bay.device.state().core.quirk = quirk;
        let before = bay.namespaces();
        let ended = bay.run(&task(if four_k { 4096 } else { 512 }, detached));
        let now = bay.namespaces();
        match ended.outcome {
            Outcome::Verified => {
                let [only] = now.values().collect::<Vec<_>>()[..] else { panic!("{now:?}") };
                let sector = if only.format == 0 { 4096 } else { 512 };
                prop_assert_eq!(only.format == 0, four_k);
                prop_assert!(only.attached && only.blocks.is_some_and(|b| CAPACITY - b * sector < GRAIN));
                prop_assert!(ended.changed == Some(Changed::Changed) || now == before);
            }
            Outcome::FailedUnchanged => prop_assert_eq!(&now, &before),
            Outcome::FailedChanged | Outcome::Unknown => prop_assert!(ended.fault.is_some()),
        }
        for (id, space) in &before {
            if space.shared || !(space.attached || detached) {
                prop_assert_eq!(now.get(id), Some(space), "namespace {} was not to be touched", id);
            }
        }
    }
}

//! Not one byte outside of the plan: real claims on real loop devices that come, go, and come back under other names.
//!
//! Each round has its own hints, sizes, sector sizes, doubles, write protection and skip list, and may change the
//! machine between the plan and its execution. Every write goes through the tasks' own path; afterwards all files are
//! compared with what they were.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod support;

use std::path::PathBuf;
use std::process::Command;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};
use speediso_model::fault::FaultCode;
use speediso_model::hints::{Pick, RootDeviceHints, SizeHint, SkipList, TextHint};
use speediso_model::outcome::Outcome;
use speediso_model::task::{Task, WipeLevel, WipeTargets, WipeTask};
use speediso_model::units::Bytes;
use support::{Bench, LoopDisk};

const KIB: u64 = 1024;
const SIZES: [u64; 4] = [64 * KIB, 64 * KIB, 96 * KIB, 128 * KIB];
const FILES: usize = 6;

/// Files, and the devices that they are at the moment.
struct Machine {
    dir: tempfile::TempDir,
    files: Vec<PathBuf>,
    devices: Vec<(usize, LoopDisk)>,
}

impl Machine {
    fn new(dice: &mut StdRng) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let files: Vec<PathBuf> = (0..FILES).map(|n| dir.path().join(format!("disk{n}"))).collect();
        for file in &files {
            let mut content = vec![0u8; usize::try_from(*SIZES.choose(dice).unwrap()).unwrap()];
            dice.fill(content.as_mut_slice());
            std::fs::write(file, content).unwrap();
        }
        let mut machine = Self { dir, files, devices: Vec::new() };
        for n in 0..FILES {
            machine.plug(dice, n, None);
        }
        machine
    }

    /// As a free device, or as the one of this name if nobody was faster.
    fn plug(&mut self, dice: &mut StdRng, file: usize, as_name: Option<String>) {
        let mut losetup = Command::new("losetup");
        losetup.args(["-b", if dice.random_bool(0.7) { "512" } else { "4096" }]);
        if dice.random_bool(0.1) {
            losetup.arg("-r");
        }
        match &as_name {
            Some(name) => losetup.arg(name),
            None => losetup.args(["-f", "--show"]),
        };
        let out = losetup.arg(&self.files[file]).output().unwrap();
        if !out.status.success() {
            assert!(as_name.is_some(), "{}", String::from_utf8_lossy(&out.stderr));
            return;
        }
        let device = as_name.unwrap_or_else(|| String::from_utf8(out.stdout).unwrap().trim().to_owned());
        self.devices.push((file, LoopDisk::named(device, &self.files[file])));
    }

    /// Pulls one, and pushes it or another in, under its own name or a new one.
    fn change(&mut self, dice: &mut StdRng) {
        if !self.devices.is_empty() && dice.random_bool(0.8) {
            let (file, device) = self.devices.swap_remove(dice.random_range(0..self.devices.len()));
            let name = device.device.clone();
            drop(device);
            let file = if dice.random_bool(0.5) { file } else { dice.random_range(0..FILES) };
            let as_name = dice.random_bool(0.5).then_some(name);
            self.plug(dice, file, as_name);
        } else {
            // A double: two devices with one serial number.
            let double = dice.random_range(0..FILES);
            self.plug(dice, double, None);
            if self.devices.len() > FILES + 1 {
                self.devices.remove(0);
            }
        }
    }

    fn contents(&self) -> Vec<Vec<u8>> {
        self.files.iter().map(|file| std::fs::read(file).unwrap()).collect()
    }

    /// Never anything but what lies in our directory: this machine's own disks are not for playing.
    fn hints(&self, dice: &mut StdRng) -> RootDeviceHints {
        let ours = TextHint::Contains(self.dir.path().to_str().unwrap().into());
        let one = |dice: &mut StdRng| self.files.choose(dice).unwrap().to_str().unwrap().to_owned();
        let serial = match dice.random_range(0..4) {
            0 => TextHint::OneOf(vec![one(dice), one(dice)]),
            1 => ours,
            _ => TextHint::Equal(one(dice)),
        };
        let size = Bytes(*SIZES.choose(dice).unwrap());
        RootDeviceHints {
            serial: Some(serial),
            size: match dice.random_range(0..6) {
                0 => Some(SizeHint::Equal(size)),
                1 => Some(SizeHint::AtLeast(size)),
                _ => None,
            },
            pick: *[Pick::Only, Pick::Only, Pick::Smallest, Pick::Largest].choose(dice).unwrap(),
            ..RootDeviceHints::default()
        }
    }

    fn task(&self, dice: &mut StdRng) -> Task {
        let count = if dice.random_bool(0.8) { 1 } else { 2 };
        let devices = WipeTargets::Hints((0..count).map(|_| self.hints(dice)).collect());
        Task::Wipe(WipeTask::new(devices, WipeLevel::Clear))
    }
}

#[derive(Default, Debug)]
struct Seen {
    wiped: usize,
    refused: usize,
    swapped: usize,
}

fn play(rounds: usize, seed: u64) -> Seen {
    let mut dice = StdRng::seed_from_u64(seed);
    let mut machine = Machine::new(&mut dice);
    let mut bench = Bench::new();
    let mut seen = Seen::default();
    for round in 0..rounds {
        if dice.random_bool(0.3) {
            machine.change(&mut dice);
        }
        let skip = if dice.random_bool(0.3) {
            vec![RootDeviceHints { pick: Pick::Only, ..machine.hints(&mut dice) }]
        } else {
            Vec::new()
        };
        bench.ctx.skip = SkipList(skip);
        let task = machine.task(&mut dice);
        let before = machine.contents();
        let planned = speediso_tasks::plan(&task, &bench.ctx);
        let Ok(plan) = planned else {
            seen.refused += 1;
            assert!(machine.contents() == before, "round {round} of seed {seed}: a plan wrote");
            continue;
        };
        let named: Vec<usize> = plan
            .devices
            .iter()
            .map(|device| {
                let file = machine.files.iter().position(|file| file.to_str() == Some(&device.identity.serial));
                file.expect("only our files are named")
            })
            .collect();
        for hints in &bench.ctx.skip.0 {
            let skipped =
                |n: &usize| hints.serial == Some(machine.files[*n].to_str().unwrap().into()) && hints.size.is_none();
            assert!(!named.iter().any(skipped), "round {round} of seed {seed}: a skipped disk is planned for");
        }
        let swapped = dice.random_bool(0.3);
        if swapped {
            machine.change(&mut dice);
        }
        let result = speediso_tasks::execute(&task, &plan.digest(), &bench.ctx);
        let changed: Vec<usize> =
            machine.contents().iter().zip(&before).enumerate().filter(|(_, (a, b))| a != b).map(|(n, _)| n).collect();
        let allowed: &[usize] = match result.outcome {
            Outcome::Verified => &named,
            Outcome::FailedUnchanged => &[],
            other => panic!("round {round} of seed {seed}: {other:?} {:?}", result.fault),
        };
        assert!(
            changed.iter().all(|n| allowed.contains(n)),
            "round {round} of seed {seed}: {changed:?} changed, {allowed:?} were planned; {plan}"
        );
        match result.outcome {
            Outcome::Verified => {
                seen.wiped += 1;
                for n in named {
                    assert_eq!(&machine.contents()[n][..8], b"SPDWIPE1", "round {round} of seed {seed}");
                }
            }
            _ => {
                let code = result.fault.unwrap().code;
                let expected = [
                    FaultCode::PlanMismatch,
                    FaultCode::AmbiguousDisk,
                    FaultCode::NoMatchingDisk,
                    FaultCode::DiskChanged,
                    FaultCode::DiskReadOnly,
                    FaultCode::TaskInvalid,
                ];
                assert!(swapped && expected.contains(&code), "round {round} of seed {seed}: {code}");
                seen.swapped += 1;
            }
        }
    }
    seen
}

#[test]
fn not_one_byte_outside_of_the_plan() {
    let seen = play(250, 1);
    assert!(seen.wiped > 30 && seen.refused > 20 && seen.swapped > 3, "{seen:?}");
}

#[test]
#[ignore = "minutes: more than ten thousand topologies, enough for what is counted"]
fn not_one_byte_outside_of_ten_thousand_plans() {
    let seen = play(12_000, 2);
    println!("{seen:?}");
    assert!(seen.wiped > 1500 && seen.refused > 1000 && seen.swapped > 150, "{seen:?}");
}

//! Restarts that a signed task file orders, counted in a variable of the firmware.
//!
//! The machine comes back to the same file after each of them, and the variable says how far it is. It is written and read
//! back before every restart, and what it says can only grow: whatever happens in between, there are no more restarts than
//! the file says. After each the hardware is looked at, which must be what it was when the loop began.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::json;
use speediso_model::fault::{Fault, FaultCode};
use speediso_model::id::OrderId;
use speediso_model::inventory::Inventory;
use speediso_model::inventory::compare::Fingerprint;
use speediso_model::outcome::{Changed, Outcome, TaskResult};
use speediso_model::task::{InventoryTask, PowerAction, PowerTask, Task};
use speediso_sys::efi;
use speediso_sys::roots::Roots;

use super::local::VENDOR;

const COUNT: &str = "SpeedisoReboots";
const VERSION: u32 = 1;
/// A machine that takes longer has had its clock set, or its power cut, in between.
const LONGEST: i64 = 86_400;

/// As the variable holds it: JSON, some hundred bytes, to be read by people too.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Count {
    version: u32,
    order: OrderId,
    /// Restarts that were begun.
    begun: u16,
    /// When the last of them was begun, in seconds since 1970 by the machine's own clock.
    left: i64,
    /// What the machine had when the loop began.
    hardware: Fingerprint,
    /// How long each took until the hardware was looked at again; none where the clock does not tell.
    took: Vec<Option<u32>>,
}

impl Count {
    /// It has come back and was looked at.
    fn arrived(&mut self, now: i64) {
        if self.took.len() < usize::from(self.begun) {
            let seconds = now - self.left;
            let took = u32::try_from(seconds).ok().filter(|_| seconds < LONGEST);
            self.took.push(took);
        }
    }

    fn leaves(&mut self, now: i64) {
        self.begun += 1;
        self.left = now;
    }

    fn in_words(&self) -> String {
        let took = self.took.iter().flatten();
        match (took.clone().min(), took.max()) {
            (Some(least), Some(most)) => format!("{} restarts, {least} to {most} s each", self.took.len()),
            _ => format!("{} restarts", self.took.len()),
        }
    }
}

/// Whether restarts can be counted here at all: asked before anything of a file is done.
///
/// # Errors
/// `unsupported` on a machine that keeps nothing from one boot to the next.
pub fn possible(reboots: u16, roots: &Roots) -> Result<(), Fault> {
    if reboots == 0 || efi::is_uefi(roots) {
        return Ok(());
    }
    Err(Fault::new(
        FaultCode::Unsupported,
        format!("the task file asks for {reboots} restarts, and this machine boots by BIOS: nothing was done"),
    )
    .because("restarts without a controller are counted in a variable of UEFI firmware, and BIOS has none")
    .because("boot the machine by UEFI, or order the burn-in through a controller, which keeps count itself"))
}

/// Whether the restarts of this order have begun and not ended.
///
/// # Errors
/// When the count cannot be read: it is not taken for none.
pub fn under_way(order: OrderId, roots: &Roots) -> Result<bool, Fault> {
    Ok(read(order, roots)?.is_some())
}

fn unreadable(why: &dyn std::fmt::Display) -> Fault {
    Fault::new(FaultCode::FirmwareVariable, format!("reading the count of restarts ({COUNT})")).because(why.to_string())
}

fn read(order: OrderId, roots: &Roots) -> Result<Option<Count>, Fault> {
    let Some(variable) = efi::read(roots, COUNT, VENDOR).map_err(|e| unreadable(&e))? else { return Ok(None) };
    let count: Count = serde_json::from_slice(&variable.data).map_err(|e| unreadable(&e))?;
    if count.version != VERSION {
        return Err(unreadable(&format!("it has version {}", count.version)));
    }
    // One that was given up: the next loop writes over it.
    Ok(Some(count).filter(|count| count.order == order))
}

/// Written, and seen to be written.
fn write(count: &Count, roots: &Roots) -> Result<(), Fault> {
    let failed = |why: &dyn std::fmt::Display| {
        Fault::new(FaultCode::FirmwareVariable, "the restart could not be counted, so it is not done")
            .because(why.to_string())
    };
    let data = serde_json::to_vec(count).map_err(|e| failed(&e))?;
    efi::write(roots, COUNT, VENDOR, efi::DURABLE, &data).map_err(|e| failed(&e))?;
    match read(count.order, roots)? {
        Some(written) if written == *count => Ok(()),
        _ => Err(failed(&format!("the firmware does not give back what was written to {COUNT}"))),
    }
}

fn forget(roots: &Roots) {
    if let Err(error) = efi::delete(roots, COUNT, VENDOR) {
        tracing::warn!("{error}, ignoring: the order is on record as begun, and is not begun again");
    }
}

/// What a look at the hardware found. What could not be listed cannot be compared.
fn hardware(looked: &TaskResult) -> Result<Fingerprint, Fault> {
    let inventory = looked.output.clone().map(serde_json::from_value::<Inventory>);
    let Some(Ok(inventory)) = inventory else {
        return Err(Fault::new(FaultCode::Internal, "the inventory of this boot cannot be read"));
    };
    let print = Fingerprint::of(&inventory);
    match print.missing().as_slice() {
        [] => Ok(print),
        missing => Err(Fault::new(
            FaultCode::BurnInInconclusive,
            format!(
                "the {} could not be listed, so nobody can say whether they are the same",
                missing.join(" and the ")
            ),
        )),
    }
}

/// One boot's part of the loop: looks, compares, and restarts once more or ends it. `run` carries a task out; a restart
/// that is done does not come back from it.
pub(super) async fn go_on(
    reboots: u16,
    order: OrderId,
    roots: &Roots,
    run: impl AsyncFn(Task) -> TaskResult,
    tell: impl Fn(String),
) -> TaskResult {
    let asked = format!("{reboots} restarts");
    let failed = |fault| TaskResult::failed(&asked, Outcome::FailedUnchanged, fault);
    let looked = run(Task::Inventory(InventoryTask::default())).await;
    if !looked.outcome.is_success() {
        return looked;
    }
    let now = Timestamp::now().as_second();
    let (mut count, hardware) = match (read(order, roots), hardware(&looked)) {
        (Ok(Some(count)), Ok(hardware)) => (count, hardware),
        (Ok(None), Ok(hardware)) => (
            Count { version: VERSION, order, begun: 0, left: now, hardware: hardware.clone(), took: Vec::new() },
            hardware,
        ),
        (Err(fault), _) | (_, Err(fault)) => return failed(fault),
    };
    count.arrived(now);
    let output = json!({"restarts": reboots, "done": count.took.len(), "seconds": count.took});
    let changes = count.hardware.changes(&hardware);
    if !changes.is_empty() {
        forget(roots);
        let message = format!("after restart {} of {reboots} the hardware is not what it was", count.begun);
        let fault = changes.into_iter().fold(Fault::new(FaultCode::HardwareFault, message), Fault::because);
        return TaskResult { output: Some(output), ..failed(fault) };
    }
    if let Some(took) = count.took.last() {
        let took = took.map(|seconds| format!(" after {seconds} s")).unwrap_or_default();
        tell(format!("restart {} of {reboots}: back{took}, with the same hardware", count.begun));
    }
    if count.begun >= reboots {
        forget(roots);
        let used = format!("{}, each with the same hardware", count.in_words());
        tell(used.clone());
        return TaskResult { output: Some(output), ..TaskResult::verified(&asked, &used, Changed::AlreadySo) };
    }
    count.leaves(now);
    if let Err(fault) = write(&count, roots) {
        return failed(fault);
    }
    tell(format!("restart {} of {reboots} begins", count.begun));
    run(Task::Power(PowerTask { action: PowerAction::Reboot })).await
}

#[cfg(test)]
pub(super) mod tests {
    #![allow(clippy::expect_used, reason = "tests")]
    use super::*;
    use speediso_model::inventory::Disk;
    use std::cell::RefCell;

    /// As it is after the first restart was begun.
    pub(in crate::doors) fn under_way_for(order: OrderId, roots: &Roots) {
        let hardware = Fingerprint::default();
        let count = Count { version: VERSION, order, begun: 1, left: 0, hardware, took: Vec::new() };
        write(&count, roots).expect("written");
    }

    fn order() -> OrderId {
        "6f1f6e0e-54a9-4bd5-a7c0-8f2b2a3c1d11".parse().expect("an id")
    }

    /// A machine with firmware variables in a directory, disks by their serial numbers, and a count of its restarts.
    struct Machine {
        _dir: tempfile::TempDir,
        roots: Roots,
        disks: RefCell<Vec<&'static str>>,
        restarts: RefCell<u32>,
        told: RefCell<Vec<String>>,
    }

    impl Machine {
        fn new() -> Self {
            let dir = tempfile::tempdir().expect("a temporary directory");
            let roots = Roots::under(dir.path());
            std::fs::create_dir_all(&roots.efivars).expect("made");
            Self {
                _dir: dir,
                roots,
                disks: RefCell::new(vec!["A", "B"]),
                restarts: RefCell::default(),
                told: RefCell::default(),
            }
        }

        async fn boot(&self, reboots: u16) -> TaskResult {
            let run = async |task: Task| match task {
                Task::Inventory(_) => {
                    let disk = |serial: &&str| Disk { serial: (*serial).into(), ..Disk::default() };
                    let mut inventory =
                        Inventory { disks: self.disks.borrow().iter().map(disk).collect(), ..Inventory::default() };
                    inventory.cpu.count = 2;
                    let output = serde_json::to_value(inventory).ok();
                    TaskResult { output, ..TaskResult::verified("inventory", "sysfs", Changed::AlreadySo) }
                }
                Task::Power(power) => {
                    assert_eq!(power.action, PowerAction::Reboot);
                    *self.restarts.borrow_mut() += 1;
                    TaskResult::verified("reboot", "reboot", Changed::Changed)
                }
                other => panic!("{other:?}"),
            };
            go_on(reboots, order(), &self.roots, run, |text| self.told.borrow_mut().push(text)).await
        }

        fn variable(&self) -> std::path::PathBuf {
            self.roots.efivars.join(format!("{COUNT}-{VENDOR}"))
        }
    }

    #[tokio::test]
    async fn three_restarts_are_three() {
        let machine = Machine::new();
        for boot in 1..=3 {
            machine.boot(3).await;
            assert_eq!(*machine.restarts.borrow(), boot);
            assert_eq!(under_way(order(), &machine.roots), Ok(true));
            let size = machine.variable().metadata().expect("it is there").len();
            assert!(size < 1000, "firmware has little room: {size} bytes");
        }
        let last = machine.boot(3).await;
        assert_eq!((last.outcome, *machine.restarts.borrow()), (Outcome::Verified, 3), "{last:?}");
        assert_eq!(last.output.expect("figures")["done"], 3);
        assert_eq!(under_way(order(), &machine.roots), Ok(false));
        assert!(!machine.variable().exists(), "what has ended leaves no room taken");
        let told = machine.told.borrow().join("\n");
        assert!(told.contains("restart 2 of 3: back after 0 s, with the same hardware"), "{told}");
        assert!(told.contains("3 restarts, 0 to 0 s each, each with the same hardware"), "{told}");
    }

    #[tokio::test]
    async fn other_hardware_ends_it() {
        let machine = Machine::new();
        machine.boot(5).await;
        machine.boot(5).await;
        machine.disks.borrow_mut().pop();
        let ended = machine.boot(5).await;
        let fault = ended.fault.expect("a fault");
        assert_eq!((ended.outcome, fault.code), (Outcome::FailedUnchanged, FaultCode::HardwareFault));
        assert!(fault.message.contains("restart 2 of 5") && fault.causes[0].contains("disks"), "{fault}");
        assert_eq!(*machine.restarts.borrow(), 2, "and it does not restart again");
        assert_eq!(under_way(order(), &machine.roots), Ok(false));
    }

    #[tokio::test]
    async fn nothing_restarts_that_is_not_counted() {
        // A directory stands where the variable would be: it can be neither read nor written.
        let machine = Machine::new();
        std::fs::create_dir(machine.variable()).expect("made");
        let ended = machine.boot(3).await;
        assert_eq!(ended.fault.expect("a fault").code, FaultCode::FirmwareVariable);
        assert_eq!(*machine.restarts.borrow(), 0);

        for garbage in ["", "{}", "\x07\0\0\0{\"version\":1}", "\x07\0\0\0not json"] {
            let machine = Machine::new();
            std::fs::write(machine.variable(), garbage).expect("written");
            assert_eq!(under_way(order(), &machine.roots).expect_err("not none").code, FaultCode::FirmwareVariable);
            machine.boot(3).await;
            assert_eq!(*machine.restarts.borrow(), 0, "{garbage:?}");
        }
    }

    #[tokio::test]
    async fn the_file_says_how_many_and_another_order_is_another_loop() {
        let machine = Machine::new();
        machine.boot(3).await;
        let mut count = read(order(), &machine.roots).expect("read").expect("begun");
        // More than the file says, whoever wrote that.
        count.begun = 500;
        write(&count, &machine.roots).expect("written");
        let ended = machine.boot(3).await;
        assert_eq!((ended.outcome, *machine.restarts.borrow()), (Outcome::Verified, 1));

        count.order = OrderId::random();
        write(&count, &machine.roots).expect("written");
        assert_eq!(under_way(order(), &machine.roots), Ok(false));
        machine.boot(1).await;
        assert_eq!(*machine.restarts.borrow(), 2, "the old count is written over");
    }

    #[test]
    fn a_clock_that_jumps_tells_nothing() {
        let hardware = Fingerprint::default();
        let mut count = Count { version: VERSION, order: order(), begun: 0, left: 0, hardware, took: Vec::new() };
        for (left, now) in [(1000, 1090), (1000, 10), (1000, 1000 + LONGEST)] {
            count.leaves(left);
            count.arrived(now);
            // A second look in one boot counts no restart.
            count.arrived(now + 5);
        }
        assert_eq!(count.took, [Some(90), None, None]);
        assert_eq!(count.in_words(), "3 restarts, 90 to 90 s each");
    }

    #[test]
    fn a_machine_without_variables_is_refused() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let roots = Roots::under(dir.path());
        assert_eq!(possible(0, &roots), Ok(()));
        let fault = possible(3, &roots).expect_err("BIOS");
        assert_eq!(fault.code, FaultCode::Unsupported);
        assert!(fault.message.contains("BIOS") && fault.causes[1].contains("controller"), "{fault}");
        std::fs::create_dir_all(&roots.efivars).expect("made");
        assert_eq!(possible(3, &roots), Ok(()));
    }
}

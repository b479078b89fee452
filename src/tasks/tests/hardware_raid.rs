//! The task against a stand-in for the vendor's tool: a shell script that prints recorded outputs of the real one
//! (src/hwraid/fixtures/INDEX.md), and goes from one to the next when it is told what the real one was told. It proves
//! what we do with what a tool prints, and nothing about a controller.
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "tests")]

mod support;

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::PathBuf;

use speediso_model::fault::FaultCode;
use speediso_model::outcome::{Changed, Outcome, TaskResult};
use speediso_model::task::Task;
use speediso_sys::roots::Roots;

use crate::support::Bench;

const SSACLI: &str = "usr/sbin/ssacli";
const LIST: &str = "controller all show config detail";
const CREATE: &str = "controller slot=2 create type=logicaldrive drives=5I:1:1,5I:1:2 raid=1 size=51200";
const DELETE: &str = "controller slot=2 logicaldrive 1 delete forced";
const P822: &str = "0000:05:00.0";

const EMPTY: &str = include_str!("../../hwraid/fixtures/ssacli/p822-no-volumes.txt");
const MIRROR: &str = include_str!("../../hwraid/fixtures/ssacli/p822-mirror-50g.txt");
const RAID50: &str = include_str!("../../hwraid/fixtures/ssacli/p822-raid50.txt");

/// A machine in a directory: one controller, and what its tool says now.
struct Machine {
    dir: tempfile::TempDir,
    bench: Bench,
}

impl Machine {
    fn new(address: &str, vendor: &str, device: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut bench = Bench::new();
        bench.ctx.roots = Roots::under(dir.path());
        let machine = Self { dir, bench };
        let function = format!("sys/devices/pci0000:00/{address}");
        machine.write(&format!("{function}/class"), "0x010400\n");
        machine.write(&format!("{function}/vendor"), &format!("0x{vendor}\n"));
        machine.write(&format!("{function}/device"), &format!("0x{device}\n"));
        fs::create_dir_all(machine.path("sys/block")).unwrap();
        fs::create_dir_all(machine.path("sys/bus/pci/devices")).unwrap();
        symlink(machine.path(&function), machine.path(&format!("sys/bus/pci/devices/{address}"))).unwrap();
        machine.write("proc/self/mountinfo", "");
        machine
    }

    fn smart_array(now: &str) -> Self {
        let machine = Self::new(P822, "103c", "323b");
        machine.write("now", now);
        machine
    }

    fn path(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    fn write(&self, path: &str, content: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    /// A program that answers `told` as the shell lines beside it say; every call is noted, every other is an error.
    fn tool(&self, program: &str, answers: &[(&str, &str)]) {
        let dir = self.dir.path().display();
        let mut script = format!("#!/bin/sh\nset -u\nD={dir}\necho \"$*\" >> $D/calls\ncase \"$*\" in\n");
        for (told, lines) in answers {
            script.push_str(&format!("{told:?}) {lines} ;;\n"));
        }
        script.push_str("*) echo \"not recorded: $*\" >&2; exit 9 ;;\nesac\n");
        self.write(program, &script);
        fs::set_permissions(self.path(program), fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// Shell lines after which the kernel has a disk on this controller.
    fn disk_lines(address: &str, name: &str, wwn: &str, sectors: u64) -> String {
        let dir = format!("$D/sys/devices/pci0000:00/{address}/host0/target0:1:0/0:1:0:0");
        format!(
            "mkdir -p {dir}/block/{name}/queue; echo {sectors} > {dir}/block/{name}/size; \
             echo naa.{wwn} > {dir}/wwid; echo HP > {dir}/vendor; echo LOGICAL VOLUME > {dir}/model; \
             echo 8:0 > {dir}/block/{name}/dev; ln -s {dir} {dir}/block/{name}/device; \
             ln -s {dir}/block/{name} $D/sys/block/{name}"
        )
    }

    fn calls(&self) -> Vec<String> {
        let text = fs::read_to_string(self.path("calls")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// What the tool was told besides being asked.
    fn changes(&self) -> Vec<String> {
        self.calls()
            .into_iter()
            .filter(|call| call != LIST && !call.starts_with("getconfig") && call != "list nologs")
            .collect()
    }

    fn run(&self, task: &str) -> TaskResult {
        self.bench.run(&order(task))
    }
}

#[track_caller]
fn order(task: &str) -> Task {
    serde_json::from_str(task).expect("an order")
}

const WISH: &str = r#"{"task":"hardware_raid","volumes":[
    {"name":"boot","level":"1","disks":{"count":2,"interface":"sas"},"size":{"bytes":53687091200}}]}"#;
const TEARDOWN: &str = r#"{"task":"hardware_raid","teardown":true}"#;

/// The mirror that the recorded controller made, as the kernel shows it.
fn mirror_appears() -> String {
    Machine::disk_lines(P822, "sda", "600508b1001c02bdbcb659b8a264186a", 104_857_600)
}

#[test]
fn a_mirror_is_made_and_seen() {
    let machine = Machine::smart_array(EMPTY);
    machine.write("mirror", MIRROR);
    let create = format!("read yes; test $yes = y || exit 1; cp $D/mirror $D/now; {}", mirror_appears());
    machine.tool(SSACLI, &[(LIST, "cat $D/now"), (CREATE, &create)]);
    let plan = speediso_tasks::plan(&order(WISH), &machine.bench.ctx).expect("a plan");
    assert!(plan.destructive && plan.devices.is_empty());
    assert_eq!(
        plan.effects,
        [
            "controller Smart Array P822 serial PDVTF0BRH5T0MO at 0000:05:00.0, firmware 4.68",
            "because \"boot\": 2 of 2 drives can be used, 2 needed",
            "make RAID-1 \"boot\" of 50.0 GiB from drives 5I:1:1 serial 6SL7G55D0000N4173JLT, \
             5I:1:2 serial 6SL7H2DM0000B41800Y0",
        ]
    );
    assert!(machine.changes().is_empty(), "planning changes nothing");
    let result = machine.run(WISH);
    assert_eq!((result.outcome, result.changed), (Outcome::Verified, Some(Changed::Changed)), "{:?}", result.fault);
    assert_eq!(machine.changes(), [CREATE]);
    let output = result.output.expect("the controller");
    assert_eq!(output["volumes"][0]["wwn"], "600508b1001c02bdbcb659b8a264186a");
    assert!(output["volumes"][0]["disk"].as_str().is_some_and(|d| d.ends_with("/dev/sda")), "{output}");
    assert_eq!(output["pci_address"], P822);
    // And once more: it is so.
    let again = machine.run(WISH);
    assert_eq!((again.outcome, again.changed), (Outcome::Verified, Some(Changed::AlreadySo)), "{:?}", again.fault);
    assert_eq!(machine.changes(), [CREATE]);
}

#[test]
fn without_its_tool_nothing_is_done_and_it_is_said_how_to_add_it() {
    let machine = Machine::smart_array(EMPTY);
    let fault = machine.run(WISH).fault.expect("refused");
    assert_eq!(fault.code, FaultCode::ToolMissing);
    assert!(fault.message.contains("HPE Smart Array at 0000:05:00.0 [103c:323b]"), "{fault}");
    assert!(fault.message.contains("ssacli") && fault.causes[0].contains("/usr/sbin/ssacli"), "{fault}");
    assert!(fault.advice.contains("docs/hardware-raid.md"), "{}", fault.advice);
    let none = Machine::new("0000:00:17.0", "8086", "a352").run(WISH).fault.expect("refused");
    assert_eq!(none.code, FaultCode::Unsupported);
}

#[test]
fn success_in_words_is_not_believed() {
    let machine = Machine::smart_array(EMPTY);
    machine.tool(SSACLI, &[(LIST, "cat $D/now"), (CREATE, "echo Success")]);
    let result = machine.run(WISH);
    assert_eq!(result.outcome, Outcome::FailedUnchanged, "the controller is as it was");
    let fault = result.fault.expect("and that is told");
    assert_eq!(fault.code, FaultCode::VerifyFailed);
    assert!(fault.causes.iter().any(|c| c.contains("Success")), "what the tool said is there: {fault}");
}

#[test]
fn another_volume_than_the_one_wished_for_is_a_failure() {
    let machine = Machine::smart_array(EMPTY);
    machine.write("other", RAID50);
    machine.tool(SSACLI, &[(LIST, "cat $D/now"), (CREATE, "cp $D/other $D/now")]);
    let result = machine.run(WISH);
    assert_eq!(result.outcome, Outcome::FailedChanged, "{:?}", result.fault);
}

#[test]
fn a_controller_that_falls_silent_in_the_middle_leaves_it_unknown() {
    let machine = Machine::smart_array(EMPTY);
    machine.tool(SSACLI, &[(LIST, "cat $D/now"), (CREATE, "echo Error: No controllers detected. > $D/now; exit 1")]);
    let result = machine.run(WISH);
    assert_eq!(result.outcome, Outcome::Unknown, "{:?}", result.fault);
    assert_eq!(result.fault.expect("a fault").code, FaultCode::ToolFailed);
}

#[test]
fn a_drive_changed_between_plan_and_run_refuses() {
    let machine = Machine::smart_array(EMPTY);
    machine.tool(SSACLI, &[(LIST, "cat $D/now")]);
    let plan = speediso_tasks::plan(&order(WISH), &machine.bench.ctx).expect("a plan");
    machine.write("now", &EMPTY.replace("6SL7H2DM0000B41800Y0", "SOMEBODYELSES"));
    let result = speediso_tasks::execute(&order(WISH), &plan.digest(), &machine.bench.ctx);
    assert_eq!(result.outcome, Outcome::FailedUnchanged);
    assert_eq!(result.fault.expect("refused").code, FaultCode::PlanMismatch);
    assert!(machine.changes().is_empty());
}

#[test]
fn a_teardown_is_seen_and_changes_nothing_the_second_time() {
    let machine = Machine::smart_array(MIRROR);
    machine.write("empty", EMPTY);
    machine.tool(SSACLI, &[(LIST, "cat $D/now"), (DELETE, "cp $D/empty $D/now")]);
    let result = machine.run(TEARDOWN);
    assert_eq!((result.outcome, result.changed), (Outcome::Verified, Some(Changed::Changed)), "{:?}", result.fault);
    let again = machine.run(TEARDOWN);
    assert_eq!((again.outcome, again.changed), (Outcome::Verified, Some(Changed::AlreadySo)), "{:?}", again.fault);
    assert_eq!(machine.changes(), [DELETE]);
}

#[test]
fn a_volume_that_is_in_use_is_not_torn_down() {
    let machine = Machine::smart_array(MIRROR);
    machine.tool(SSACLI, &[(LIST, "cat $D/now"), ("appear", &mirror_appears())]);
    let script = machine.path(SSACLI);
    assert!(std::process::Command::new(script).arg("appear").status().unwrap().success());
    let plan = speediso_tasks::plan(&order(TEARDOWN), &machine.bench.ctx).expect("a plan");
    let [device] = plan.devices.as_slice() else { panic!("the volume's disk goes away: {plan}") };
    assert_eq!(device.identity.wwn.as_deref(), Some("naa.600508b1001c02bdbcb659b8a264186a"));
    machine.write("proc/self/mountinfo", "30 1 8:0 / /srv rw - ext4 /dev/sda rw\n");
    let fault = machine.run(TEARDOWN).fault.expect("refused");
    assert_eq!(fault.code, FaultCode::DiskInUse);
    assert!(fault.message.contains("/srv"), "{fault}");
    assert_eq!(machine.changes(), ["appear"]);
}

/// "A mirror for boot, RAID-10 for data": a controller that was recorded with exactly these two.
#[test]
fn what_a_recorded_controller_has_is_already_so() {
    const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../hwraid/fixtures/arcconf");
    let machine = Machine::new("0000:3c:00.0", "9005", "028f");
    let listing = |file: &str| format!("cat {FIXTURES}/{file}.txt");
    let (list, ad) = (listing("list"), listing("3204-ad"));
    let full = |state: &str| (listing(&format!("3204-{state}-pd")), listing(&format!("3204-{state}-ld")));
    let program = |(pd, ld): (String, String)| {
        machine.tool(
            "usr/sbin/arcconf",
            &[
                ("list nologs", &list),
                ("getconfig 1 AD nologs", &ad),
                ("getconfig 1 PD nologs", &pd),
                ("getconfig 1 LD nologs", &ld),
            ],
        );
    };
    let wish = r#"{"task":"hardware_raid","controller":{"serial":"1A5535F3324002BA"},"volumes":[
        {"name":"RAID1","level":"1","disks":{"slots":["1:0","1:1"]}},
        {"name":"RAID10","level":"10","disks":{"slots":["1:3","1:4","1:5","1:6"],"interface":"sas","media":"hdd"}}]}"#;
    program(full("two-volumes"));
    let result = machine.run(wish);
    assert_eq!((result.outcome, result.changed), (Outcome::Verified, Some(Changed::AlreadySo)), "{:?}", result.fault);
    // The same controller before: the mirror alone can be planned, with what it would be told.
    program(full("no-volumes"));
    let mirror = r#"{"task":"hardware_raid","volumes":[{"name":"RAID1","level":"1","disks":{"slots":["1:0","1:1"]}}]}"#;
    let plan = speediso_tasks::plan(&order(mirror), &machine.bench.ctx).expect("a plan");
    assert!(plan.effects.last().is_some_and(|e| e.starts_with("make RAID-1 \"RAID1\" of 10.8 TiB")), "{plan}");
    let boot = mirror.replace(r#""disks""#, r#""boot":true,"disks""#);
    let waits = speediso_tasks::plan(&order(&boot), &machine.bench.ctx).expect_err("not known for this tool");
    assert_eq!(waits.code, FaultCode::Unsupported);
    assert!(machine.changes().is_empty());
}

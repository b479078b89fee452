//! Who dies in the middle of a write, and what is said about it afterwards.

#![allow(clippy::unwrap_used)]

use std::process::Command;

use serde_json::{Value, json};
use speediso_lab::{Lab, Machine, Programs, Site};
use speediso_model::api::{List, OrderView, StoredEvent};
use speediso_model::certificate::site::{CertificateView, SiteKeyView};
use speediso_model::node::NodeState;
use speediso_model::order::{OrderState, TaskState};
use speediso_model::outcome::Outcome;
use speediso_tests::{BOOT, LiveSsh, Ramdisk, SOON, TestDisk, WORK, boot_words, code_on_console, programs};

const MAC: &str = "52:54:00:12:02:01";
const UUID: &str = "33333333-3333-4333-8333-333333333333";
/// Large enough that its wipe takes a while under emulation, also while a controller starts.
const DISK_MIB: u64 = 2048;

struct Scene<'lab> {
    machine: Machine<'lab>,
    ssh: LiveSsh,
}

/// An approved and inventoried machine in the live system, without PXE.
fn admitted<'lab>(lab: &'lab Lab, site: &Site<'lab>, programs: &Programs, disk: &TestDisk) -> Scene<'lab> {
    let mut ssh = LiveSsh::with_fresh_key(lab, "crash").unwrap();
    let words = boot_words(lab, MAC, UUID, "CRASH").unwrap().join(" ");
    let machine = Ramdisk::of(programs)
        .machine("crash", &format!("{words} speediso.ssh=on speediso.sshkey=\"{}\"", ssh.public))
        .memory_mib(512)
        .mac(MAC)
        .uuid(UUID)
        .serial("CRASH")
        .disk(disk.plugged())
        .power_on(lab)
        .unwrap();
    ssh.to(lab, &machine).unwrap();
    let node = site.wait_machine("CRASH", "pending", BOOT, |node| node.code.is_some()).unwrap();
    let code = code_on_console(machine.serial()).unwrap();
    site.json::<Value>(&["approve", &node.id.to_string(), "--code", &code, "--name", "crash"]).unwrap();
    site.wait_machine("CRASH", "manageable", SOON, |node| node.state == NodeState::Manageable).unwrap();
    Scene { machine, ssh }
}

fn wipe(site: &Site<'_>) -> String {
    let parameters = json!({ "devices": { "hints": [{ "serial": "CRASHDISK" }] }, "level": "clear" });
    site.apply("wipe", "crash", &parameters).unwrap().order.id.to_string()
}

fn is_writing(view: &OrderView) -> bool {
    view.order.tasks.iter().any(|task| matches!(task.state, TaskState::Running { .. }))
        && view.progress.iter().any(|progress| progress.current > 0)
}

/// How often the store says that a run was started, and for how many different runs.
fn starts(site: &Site<'_>, order: &str) -> Vec<String> {
    let answered = site.ask(["--json", "events", "--order", order]).unwrap();
    answered
        .stdout
        .lines()
        .filter_map(|line| serde_json::from_str::<StoredEvent>(line).ok())
        .filter(|event| event.detail["event"] == "started")
        .map(|event| event.detail["run"].to_string())
        .collect()
}

/// The wipe has one certificate, which verifies without the controller, and not with another letter in it.
fn is_certified(lab: &Lab, site: &Site<'_>, programs: &Programs) {
    let listed: List<CertificateView> = site.json(&["certificates", "--node", "crash"]).unwrap();
    let [one] = listed.items.as_slice() else { panic!("one certificate, not {listed:?}") };
    let keys: List<SiteKeyView> = site.json(&["certificate", "keys"]).unwrap();
    let file = lab.dir().join("certificate");
    let got = site.ask(["certificate", "get", &one.number.to_string(), "--out", &file.to_string_lossy()]).unwrap();
    assert!(got.status.success(), "{}", got.stderr);
    let verify = || {
        let mut command = Command::new(&programs.cli);
        command.arg("verify-certificate").arg(&file).args(["--key", &keys.items[0].key]);
        command.output().unwrap()
    };
    let said = verify();
    let text = String::from_utf8_lossy(&said.stdout);
    assert!(said.status.success() && text.contains("CRASHDISK") && text.contains("Hall 7"), "{said:?}");
    let document = std::fs::read_to_string(&file).unwrap();
    assert!(document.contains("virtual machine"), "{document}");
    std::fs::write(&file, document.replacen("CRASHDISK", "CRASHDISC", 1)).unwrap();
    assert_eq!(verify().status.code(), Some(1));
}

/// The controller is killed in the middle of a wipe and started again on the same data: the wipe goes on meanwhile, is
/// reported, and was started exactly once.
#[test]
fn a_killed_controller_loses_nothing_and_starts_nothing_twice() {
    let programs = programs().unwrap();
    let lab = Lab::builder().build().unwrap();
    let mut site = Site::start(&lab, &programs, 0).unwrap();
    let disk = TestDisk::with_data(&lab, "CRASHDISK", DISK_MIB).unwrap();
    let scene = admitted(&lab, &site, &programs, &disk);
    // A virtual disk is no medium of its own: it takes the site's word to certify it.
    site.json::<Value>(&["certificate", "policy", "--certify-volumes", "true", "--organization", "Hall 7"]).unwrap();
    let order = wipe(&site);
    site.wait_order(&order, "writing", SOON, is_writing).unwrap();

    site.kill_controller();
    let refused = site.ask(["machines"]).unwrap();
    assert_eq!(refused.status.code(), Some(69), "{}", refused.stderr);
    // Long enough that the agent has noticed.
    std::thread::sleep(std::time::Duration::from_secs(5));
    site.start_controller().unwrap();

    let done = site.wait_order(&order, "done", WORK, |view| !view.order.state.is_open()).unwrap();
    assert_eq!(done.order.state, OrderState::Done, "{:?}", done.order.tasks);
    let started = starts(&site, &order);
    assert_eq!(started.len(), 1, "{started:?}");
    is_certified(&lab, &site, &programs);
    drop(scene.machine);
    assert!(!disk.is_untouched().unwrap(), "the disk still has its data");
    assert!(!disk.has_table().unwrap());
}

/// The agent is killed in the middle of a wipe: it comes back as the same boot, says of the run it was in that nobody can
/// know, and the wipe, which is safe to repeat, is done by a second run. Killed five times in a minute it stays down, and
/// says so.
#[test]
fn a_killed_agent_comes_back_and_tells_the_truth() {
    let programs = programs().unwrap();
    let lab = Lab::builder().build().unwrap();
    let site = Site::start(&lab, &programs, 0).unwrap();
    let disk = TestDisk::with_data(&lab, "CRASHDISK", DISK_MIB).unwrap();
    let scene = admitted(&lab, &site, &programs, &disk);
    let epoch = site.machines().unwrap().iter().find(|node| node.name == "crash").unwrap().epoch;
    let order = wipe(&site);
    site.wait_order(&order, "writing", SOON, is_writing).unwrap();

    // The supervisor has the same name and must live: it is told apart by its argument.
    let kill = "for p in $(pidof speediso-agent); do grep -q boot /proc/$p/cmdline && kill -9 $p; done; true";
    scene.ssh.run(kill, SOON).unwrap();
    let done =
        site.wait_order(&order, "done", WORK, |view| matches!(view.order.state, OrderState::Done | OrderState::Failed));
    let done = done.unwrap();
    assert_eq!(done.order.state, OrderState::Done, "{:?}", done.order.tasks);
    let started = starts(&site, &order);
    assert_eq!(started.len(), 2, "one run that was cut off and one that was done: {started:?}");
    assert_ne!(started[0], started[1]);
    let events = site.ask(["--json", "events", "--order", &order]).unwrap().stdout;
    assert!(events.contains("agent-died"), "nothing says that the agent died:\n{events}");
    let node = site.machines().unwrap().into_iter().find(|node| node.name == "crash").unwrap();
    assert_eq!(node.epoch, epoch, "the restarted agent came as another boot");
    assert!(matches!(
        &done.order.tasks[0].state,
        TaskState::Ended { result, .. } if result.outcome == Outcome::Verified
    ));
    assert!(!disk.is_untouched().unwrap());

    // Killed again and again it is not restarted for ever: the console says so, and ssh stays.
    let Scene { mut machine, ssh } = scene;
    for _ in 0..20 {
        if machine.serial().text().contains("nothing is restarted any more") {
            break;
        }
        ssh.run(kill, SOON).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(700));
    }
    machine.wait_for("nothing is restarted any more", SOON).unwrap();
    ssh.run("true", SOON).unwrap();
}

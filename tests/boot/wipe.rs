//! Wipes in a machine: the kernel's own drivers, media that are read afterwards from outside by a scan that knows nothing
//! of our code, and commands that the emulator really carries out or really refuses.

#![allow(clippy::unwrap_used)]

mod odd_disks;

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use speediso_lab::{Bus, Disk, Lab, MachineSpec};
use speediso_model::outcome::{Changed, Outcome, TaskResult};
use speediso_model::wipe::{WipeLevel, WipeMethod, WipeReport};
use speediso_tests::{BOOT, LiveSsh, Ramdisk, SOON, TestDisk, WORK, programs, stack_archive};

const MACHINE: &str = "WIPED";
const MIB: u64 = 1 << 20;
const SIZE: u64 = 48 * MIB;
/// What belongs to somebody and must not be read afterwards; every 64 KiB of a disk.
const CANARY: &[u8] = b"canary of the test: this belongs to somebody";
const EVERY: u64 = 64 << 10;

/// A medium full of canaries.
fn medium(lab: &Lab, name: &str) -> PathBuf {
    let path = lab.dir().join(format!("{name}.raw"));
    let file = File::create(&path).unwrap();
    file.set_len(SIZE).unwrap();
    for at in (0..SIZE).step_by(usize::try_from(EVERY).unwrap()) {
        file.write_all_at(CANARY, at + at / EVERY % 4096).unwrap();
    }
    path
}

/// How many canaries a search of the raw file finds.
fn canaries(path: &Path) -> u64 {
    let bytes = std::fs::read(path).unwrap();
    bytes.windows(CANARY.len()).filter(|window| *window == CANARY).count() as u64
}

const ALL_CANARIES: u64 = SIZE / EVERY;

fn by_serial(serial: &str, level: &str, more: &Value) -> Value {
    let mut task = json!({"task": "wipe", "devices": {"hints": [{"serial": serial}]}, "level": level});
    for (key, value) in more.as_object().into_iter().flatten() {
        task[key] = value.clone();
    }
    task
}

fn task_file(task: &Value) -> String {
    json!({
        "version": 1,
        "machine": MACHINE,
        "expires": "2100-01-01T00:00:00Z",
        "order": "88888888-8888-4888-8888-888888888888",
        "tasks": [task],
    })
    .to_string()
}

/// The agent's local door in the live system.
struct Door {
    ssh: LiveSsh,
}

impl Door {
    fn start(&self, case: &str, task: &Value, background: bool) {
        let run = format!(
            "mkdir -p /tmp/{case} && cd /tmp/{case} && cat >task.json <<'END'\n{}\nEND\n\
             (speediso-agent run --json --arm {MACHINE} --state-dir /tmp/{case}/state --tasks task.json \
             >out 2>err </dev/null; echo $? >rc){}",
            task_file(task),
            if background { " >/dev/null 2>&1 &" } else { "" }
        );
        self.ssh.run(&run, BOOT).unwrap();
    }

    fn result(&self, case: &str, limit: Duration) -> TaskResult {
        let end = Instant::now() + limit;
        loop {
            let said = self.ssh.run(&format!("cat /tmp/{case}/out; true"), SOON).unwrap();
            if let Some(line) = said.lines().find(|line| line.contains("\"outcome\"")) {
                return serde_json::from_str(line).unwrap();
            }
            if Instant::now() > end {
                let why = self.ssh.run(&format!("tail -n 20 /tmp/{case}/err; dmesg | tail -n 20"), SOON);
                panic!("no result of {case}: {}", why.unwrap_or_default());
            }
            std::thread::sleep(Duration::from_secs(1));
        }
    }

    fn run(&self, case: &str, task: &Value) -> TaskResult {
        self.start(case, task, false);
        self.result(case, WORK)
    }
}

#[track_caller]
fn report(result: &TaskResult) -> WipeReport {
    assert_eq!(result.outcome, Outcome::Verified, "{:?}", result.fault);
    serde_json::from_value(result.devices[0].facts.clone()).unwrap()
}

#[track_caller]
fn refused(result: &TaskResult, words: &[&str]) {
    let fault = result.fault.as_ref().unwrap().to_string();
    assert_eq!(
        (result.outcome, result.fault.as_ref().unwrap().code.name()),
        (Outcome::FailedUnchanged, "unsupported"),
        "{fault}"
    );
    for word in words {
        assert!(fault.contains(word), "{word} is not in: {fault}");
    }
}

/// A machine with one disk for each way of attaching it, and an NVMe controller with a second, detached namespace.
fn machine(ssh: &LiveSsh, media: &BTreeMap<&str, PathBuf>) -> MachineSpec {
    let words = format!("speediso.sshkey=\"{}\"", ssh.public);
    let mut spec = Ramdisk::of(&programs().unwrap()).machine("wiped", &words).memory_mib(768).serial(MACHINE);
    let disk = |name: &str| Disk::new(&media[name], name);
    spec = spec
        .disk(disk("SATA").bus(Bus::Ahci))
        .disk(disk("NVME").bus(Bus::Nvme).detached_namespace(&media["DETACHED"]))
        .disk(disk("SCSI").bus(Bus::Scsi))
        .disk(disk("VIRTIO"))
        .disk(disk("PULLED").hot_plug())
        .disk(disk("READONLY").read_only())
        .disk(disk("CUT"));
    spec
}

#[test]
fn wiped_disks_hold_nothing_and_what_cannot_be_purged_is_refused() {
    let lab = Lab::builder().build().unwrap();
    let names = ["SATA", "NVME", "DETACHED", "SCSI", "VIRTIO", "PULLED", "READONLY", "CUT"];
    let media: BTreeMap<&str, PathBuf> = names.into_iter().map(|name| (name, medium(&lab, name))).collect();
    assert!(media.values().all(|path| canaries(path) == ALL_CANARIES));
    let neighbour = TestDisk::with_data(&lab, "NEIGHBOUR", 32).unwrap();
    let mut ssh = LiveSsh::with_fresh_key(&lab, "wiped").unwrap();
    let spec = machine(&ssh, &media).disk(neighbour.plugged());
    let files = lab.dir().join("files");
    std::fs::create_dir(&files).unwrap();
    stack_archive(&files.join("stack.tar")).unwrap();
    let _server = lab.serve_files(odd_disks::PORT, &files).unwrap();
    let machine = spec.power_on(&lab).unwrap();
    ssh.to(&lab, &machine).unwrap();
    let door = Door { ssh };
    door.ssh.run("true", BOOT).unwrap();

    // Purge where there is no method for it: each says why, and nothing is changed. QEMU has no sanitize at all.
    let nothing = json!({});
    refused(&door.run("purge-nvme", &by_serial("NVME", "purge", &nothing)), &["nvme_sanitize_block", "does not offer"]);
    refused(&door.run("purge-sata", &by_serial("SATA", "purge", &nothing)), &["ata_sanitize_block", "SANITIZE DEVICE"]);
    refused(&door.run("purge-scsi", &by_serial("SCSI", "purge", &nothing)), &["scsi_sanitize_block", "does not offer"]);
    refused(&door.run("purge-virtio", &by_serial("VIRTIO", "purge", &nothing)), &["virtio disk has no commands"]);
    let all_of_it = json!({"hidden_areas": true});
    refused(&door.run("hidden", &by_serial("NVME", "clear", &all_of_it)), &["namespace 2 is detached"]);
    let read_only = door.run("read-only", &by_serial("READONLY", "clear", &nothing));
    let fault = read_only.fault.unwrap();
    assert_eq!((read_only.outcome, fault.code.name()), (Outcome::FailedUnchanged, "disk-read-only"), "{fault}");
    assert!(media.values().all(|path| canaries(path) == ALL_CANARIES), "a refusal has changed a disk");

    // The NVMe disk by its own command, the detached namespace with it.
    let by_format = json!({"methods": ["nvme_format_user_data"], "hidden_areas": true});
    let formatted = report(&door.run("format", &by_serial("NVME", "clear", &by_format)));
    assert_eq!((formatted.method, formatted.reached), (WipeMethod::NvmeFormatUserData, Some(WipeLevel::Clear)));
    assert!(formatted.areas.iter().any(|a| a.name == "namespace 2" && a.covered), "{:?}", formatted.areas);
    assert!(formatted.verification.canaries.is_some_and(|c| c.planted > 100 && c.found_after == 0));
    assert!(formatted.health_after.is_some_and(|h| h.passed == Some(true)));
    // As it was found: nobody has got a new disk.
    // Its path beside the disk is the kernel's multipath.
    let disks = door.ssh.run("ls -d /sys/block/nvme*n2 /sys/block/nvme0n1; true", SOON).unwrap();
    assert_eq!(disks, "/sys/block/nvme0n1");

    // Another sector size, which the kernel sees too; asked again there is nothing to do.
    let four_k = json!({"task": "nvme_format", "device": {"serial": "NVME"}, "sector_size": 4096});
    for (case, changed) in [("four-k", Changed::Changed), ("four-k-again", Changed::AlreadySo)] {
        let result = door.run(case, &four_k);
        assert_eq!((result.outcome, result.changed), (Outcome::Verified, Some(changed)), "{:?}", result.fault);
    }
    let sectors = door.ssh.run("cat /sys/block/nvme0n1/queue/logical_block_size", SOON).unwrap();
    assert_eq!(sectors, "4096");

    // The rest by overwriting, three at once; one is pulled out in the middle.
    let hints: Vec<Value> = ["SATA", "SCSI", "VIRTIO"].iter().map(|s| json!({"serial": s})).collect();
    let together = json!({"task": "wipe", "devices": {"hints": hints}, "level": "purge", "allow": ["clear"]});
    let together = door.run("together", &together);
    assert_eq!((together.outcome, together.devices.len()), (Outcome::Verified, 3), "{:?}", together.fault);
    for device in &together.devices {
        let report: WipeReport = serde_json::from_value(device.facts.clone()).unwrap();
        assert_eq!((report.asked, report.reached), (WipeLevel::Purge, Some(WipeLevel::Clear)));
        assert_eq!(report.verification.bytes.0, SIZE);
        let sata = device.identity.serial == "SATA";
        assert_eq!(report.health_before.is_some(), sata, "only the SATA disk tells of its health");
    }
    odd_disks::are_told_truly(&door);

    let slowly = json!({"passes_before": vec!["random"; 20]});
    door.start("pulled", &by_serial("PULLED", "clear", &slowly), true);
    door.ssh.run("until grep -q permitted /tmp/pulled/err; do sleep 0.2; done; sleep 1", SOON).unwrap();
    machine.unplug_disk(4).unwrap();
    let pulled = door.result("pulled", WORK);
    let fault = pulled.fault.unwrap();
    assert_eq!((pulled.outcome, fault.code.name()), (Outcome::Unknown, "disk-vanished"), "{fault}");

    // A recorded disk that is not here: the others are wiped, and nobody says that all is well.
    let expect = json!({"expect": [{"serial": "SCSI"}, {"serial": "GONE", "model": "M", "size": SIZE}]});
    let incomplete = door.run("expect", &by_serial("SCSI", "clear", &expect));
    let outcomes: Vec<_> = incomplete.devices.iter().map(|d| (d.identity.serial.as_str(), d.outcome)).collect();
    assert_eq!(outcomes, [("SCSI", Outcome::Verified), ("GONE", Outcome::Unknown)]);
    assert_eq!(incomplete.outcome, Outcome::Unknown);

    // The power fails in the middle.
    door.start("cut", &by_serial("CUT", "clear", &slowly), true);
    door.ssh.run("until grep -q permitted /tmp/cut/err; do sleep 0.2; done; sleep 1", SOON).unwrap();
    let Door { mut ssh } = door;
    let machine = machine.power_on_again(&spec).unwrap();
    ssh.to(&lab, &machine).unwrap();
    let door = Door { ssh };
    let again = report(&door.run("after-the-cut", &by_serial("CUT", "clear", &nothing)));
    // Nothing is taken for done that another boot began.
    assert!(!again.steps.iter().any(|step| step.contains("goes on there")), "{:?}", again.steps);
    assert_eq!(again.verification.bytes.0, SIZE);
    drop(machine);

    for name in ["SATA", "NVME", "DETACHED", "SCSI", "VIRTIO", "CUT"] {
        assert_eq!(canaries(&media[name]), 0, "{name} still holds somebody's data");
    }
    assert_eq!(canaries(&media["READONLY"]), ALL_CANARIES);
    neighbour.assert_untouched().unwrap();
}

//! Partitioning in the mini ramdisk: what the host has no drivers for (LVM, LUKS), the tools archive as the controller
//! serves it, disks of both sector sizes, and a disk that fails in the middle or loses its power.
//!
//! One machine, one boot. It is judged from inside by the programs themselves, called as a person would, and from outside by
//! what this system's tools read from the disks' files.

#![allow(clippy::unwrap_used)]

use std::process::Command;

use serde_json::{Value, json};
use speediso_lab::nbd::{BadDisk, Errno, On, Rule, Then};
use speediso_lab::{Bus, Disk, Lab, Site, tool};
use speediso_model::outcome::{Changed, Outcome, TaskResult};
use speediso_tests::{BOOT, LiveSsh, Ramdisk, SOON, TestDisk, WORK, boot_words, programs};

const MACHINE: &str = "PARTITION";
const MAC: &str = "52:54:00:12:09:01";
const UUID: &str = "99999999-9999-4999-8999-999999999999";
const MIB: u64 = 1 << 20;
const KEY: &str = "a secret that is nowhere to be seen";
const HTTP: u16 = 8082;

/// The machine, and a place from which it fetches its task files.
struct Scene {
    ssh: LiveSsh,
    files: std::path::PathBuf,
}

impl Scene {
    /// What a dry run prints.
    fn plan(&self, name: &str, task: &Value) -> String {
        self.fetch(name, task);
        self.shell(&format!(
            "speediso-agent run --dry-run --arm {MACHINE} --state-dir /tmp/{name}.state --tasks /tmp/{name} 2>&1; true"
        ))
    }

    fn fetch(&self, name: &str, task: &Value) {
        let file = json!({
            "version": 1,
            "machine": MACHINE,
            "expires": "2100-01-01T00:00:00Z",
            "order": "77777777-7777-4777-8777-777777777777",
            "tasks": [task],
        });
        std::fs::write(self.files.join(name), file.to_string()).unwrap();
        self.shell(&format!("wget -q -O /tmp/{name} http://192.0.2.1:{HTTP}/{name}"));
    }

    fn run(&self, name: &str, task: &Value) -> TaskResult {
        self.fetch(name, task);
        let said = self.shell(&format!(
            "cd /tmp && speediso-agent run --json --arm {MACHINE} --state-dir /tmp/{name}.state --tasks {name} 2>{name}.err || true"
        ));
        let line = said.lines().find(|line| line.starts_with('{'));
        let line = line.unwrap_or_else(|| panic!("{name}: {said}\n{}", self.shell(&format!("cat /tmp/{name}.err"))));
        serde_json::from_str(line).unwrap()
    }

    #[track_caller]
    fn verified(&self, name: &str, task: &Value) -> TaskResult {
        let result = self.run(name, task);
        assert_eq!(
            (result.outcome, result.changed),
            (Outcome::Verified, Some(Changed::Changed)),
            "{name}: {result:#?}"
        );
        result
    }

    fn shell(&self, command: &str) -> String {
        self.ssh.run(command, WORK).unwrap()
    }

    /// One of the archive's programs, with the archive's own loader.
    fn tool(&self, program: &str, arguments: &str) -> String {
        const TOOLS: &str = "/run/speediso/tools";
        self.shell(&format!(
            "DM_DISABLE_UDEV=1 LVM_SYSTEM_DIR= {TOOLS}/lib64/ld-linux-x86-64.so.2 --library-path {TOOLS}/lib/x86_64-linux-gnu \
             {TOOLS}/sbin/{program} {arguments}"
        ))
    }
}

fn hinted(serial: &str, partitions: &Value) -> Value {
    json!({"device": {"serial": serial}, "partitions": partitions})
}

fn fs(kind: &str, label: &str) -> Value {
    json!({"file_system": {"kind": kind, "label": label}})
}

/// LVM over two disks, one of them encrypted: linear, mirrored, a pool, and an encrypted volume.
fn volumes() -> Value {
    let luks = json!({"luks": {"key": KEY, "unlock_ms": 50, "content": {"lvm": "vg-0"}}});
    let part = |content: Value| json!([{"name": "pv", "kind": "lvm", "size": "rest", "content": content}]);
    let mut task = hinted("FIRST", &part(json!({"lvm": "vg-0"})));
    task["task"] = json!("partition");
    task["more_disks"] = json!([hinted("SECOND", &part(luks))]);
    task["volume_groups"] = json!([{"name": "vg-0", "volumes": [
        {"name": "root", "size": {"bytes": 320 * MIB}, "content": fs("xfs", "root")},
        {"name": "mirror", "size": {"bytes": 64 * MIB}, "kind": {"mirror": 2}, "content": fs("ext4", "mirror")},
        {"name": "secret", "size": {"bytes": 64 * MIB},
         "content": {"luks": {"key": KEY, "unlock_ms": 50, "content": fs("ext4", "secret")}}},
        {"name": "pool", "size": {"percent": 30}, "kind": "thin_pool"},
    ]}]);
    task
}

/// The same with a thin volume, which nobody can look into without starting its pool.
fn with_thin() -> Value {
    let mut task = volumes();
    let thin = json!({"name": "thin", "size": {"bytes": 4096 * MIB}, "kind": {"thin": "pool"}, "content": fs("btrfs", "thin")});
    task["volume_groups"][0]["volumes"].as_array_mut().unwrap().push(thin);
    task
}

/// What is there is recognised, and what differs is named before anything is lost.
fn found_again(scene: &Scene) {
    let so = |name: &str, task: &Value| {
        let result = scene.run(name, task);
        assert_eq!(
            (result.outcome, result.changed),
            (Outcome::Verified, Some(Changed::AlreadySo)),
            "{name}: {result:#?}"
        );
    };
    so("volumes-again", &volumes());
    so("system-again", &system());
    let plan = scene.plan("no-keys", &system());
    assert!(plan.contains("not seen before the work begins: ") && !plan.contains("not as ordered"), "{plan}");
    let change = |task: &Value, pointer: &str, to: Value| {
        let mut task = task.clone();
        *task.pointer_mut(pointer).unwrap() = to;
        task
    };
    let volume = |n: usize, field: &str| format!("/volume_groups/0/volumes/{n}/{field}");
    let root = "/partitions/1/content/luks";
    for (name, task, said) in [
        (
            "other-label",
            change(&system(), &format!("{root}/label"), json!("cr-home")),
            "its label is \"cr-root\" instead of \"cr-home\"",
        ),
        ("other-name", change(&system(), "/partitions/0/name", json!("efi")), "partition 1 has another name"),
        ("other-group", change(&volumes(), "/partitions/0/kind", json!("linux")), "partition 1 has another kind"),
    ] {
        let plan = scene.plan(name, &task);
        assert!(plan.contains("not as ordered: ") && plan.contains(said), "{name}: {plan}");
    }
    // What only the key or LVM's report shows is said by the step that looks; a wrong key makes it anew, which the last of them
    // does to leave the disk with one.
    let thin = change(&with_thin(), &volume(0, "size"), json!({"bytes": 324 * MIB}));
    let key = change(&system(), &format!("{root}/key"), json!("another secret, as long"));
    for (name, task, words) in [
        ("thin", thin, &["\"thin\": it is not there", "its size is 335544320 bytes"][..]),
        ("other-key", key, &["the key of the order does not open it"]),
    ] {
        scene.verified(name, &task);
        let log = scene.shell(&format!("cat /tmp/{name}.err"));
        assert!(words.iter().all(|word| log.contains(word)), "{name}: {log}");
    }
}

fn lvm_is_there(scene: &Scene) {
    let opened = format!(
        "printf '%s' '{KEY}' | DM_DISABLE_UDEV=1 /run/speediso/tools/lib64/ld-linux-x86-64.so.2 \
         --library-path /run/speediso/tools/lib/x86_64-linux-gnu /run/speediso/tools/sbin/cryptsetup \
         open --key-file - /dev/vdb1 second"
    );
    scene.shell(&opened);
    let config = "--config 'activation{udev_sync=0 udev_rules=0 monitoring=0} global{use_lvmpolld=0 thin_check_executable=\"\"}'";
    scene.tool("lvm", &format!("vgchange -ay {config} vg-0"));
    let seen = scene
        .tool("lvm", &format!("lvs {config} --noheadings --separator , -o lv_name,segtype,lv_size --units m vg-0"));
    for line in ["root,linear,320.00m", "mirror,raid1,64.00m", "pool,thin-pool"] {
        assert!(seen.lines().any(|seen| seen.trim().starts_with(line)), "{line} is not in\n{seen}");
    }
    // The kernel's own drivers find the file systems whole.
    scene.shell(
        "mkdir -p /tmp/m && mount -t xfs -o ro /dev/mapper/vg--0-root /tmp/m && umount /tmp/m && \
         mount -t ext4 -o ro /dev/mapper/vg--0-mirror /tmp/m && umount /tmp/m",
    );
    scene.tool("lvm", &format!("vgchange -an {config} vg-0"));
    scene.tool("cryptsetup", "close second");
}

/// NVMe with sectors of 4096 bytes: a system's usual layout, encrypted.
fn system() -> Value {
    let mut task = hinted(
        "SYSTEM4K",
        &json!([
            {"name": "esp", "kind": "esp", "size": {"bytes": 264 * MIB}, "content": fs("vfat", "ESP")},
            {"name": "root", "kind": "root", "size": "rest",
             "content": {"luks": {"key": KEY, "label": "cr-root", "uuid": UUID, "unlock_ms": 50, "content": fs("ext4", "root")}}},
        ]),
    );
    task["task"] = json!("partition");
    task
}

fn keeping(serial: &str) -> Value {
    let mut task = hinted(
        serial,
        &json!([
            {"name": "new", "kind": "linux", "size": {"bytes": 12 * MIB}, "content": fs("ext4", "new")},
        ]),
    );
    task["task"] = json!("partition");
    task["keep"] = json!([{"label": "data"}]);
    task
}

/// An old disk with three partitions, of which the second is somebody's data.
fn old_disk(lab: &Lab, serial: &str) -> std::path::PathBuf {
    let path = lab.dir().join(format!("{serial}.raw"));
    let noise: Vec<u8> = (0..48 * MIB).map(|n| u8::try_from((n * 31 + n / 4096) % 251).unwrap()).collect();
    std::fs::write(&path, noise).unwrap();
    let sgdisk = |args: &[&str]| tool::run(Command::new(tool::find("sgdisk").unwrap()).args(args).arg(&path)).unwrap();
    sgdisk(&["-Z"]);
    sgdisk(&["-n", "1:0:+16M", "-c", "1:old", "-n", "2:0:+8M", "-c", "2:data", "-n", "3:0:0", "-c", "3:last"]);
    path
}

#[test]
fn lvm_luks_and_the_tools_archive_in_the_ramdisk() {
    let lab = Lab::builder().build().unwrap();
    let programs = programs().unwrap();
    let _site = Site::start(&lab, &programs, 0).unwrap();
    let files = lab.dir().join("files");
    std::fs::create_dir(&files).unwrap();
    let _server = lab.serve_files(HTTP, &files).unwrap();
    // Only where the tools are: this machine takes no orders from the controller.
    let words = boot_words(&lab, MAC, UUID, MACHINE).unwrap();
    let tools = words.iter().find(|word| word.starts_with("speediso.tools=")).expect("the boot script names the tools");

    let blank = |serial: &str, mib: u64| TestDisk::blank(&lab, serial, mib).unwrap();
    let (first, second, system_disk) = (blank("FIRST", 640), blank("SECOND", 640), blank("SYSTEM4K", 640));
    let neighbour = TestDisk::with_data(&lab, "NEIGHBOUR", 32).unwrap();
    let cut_file = old_disk(&lab, "CUT");
    let before = std::fs::read(&cut_file).unwrap();
    let cut = BadDisk::start(&cut_file, Vec::new()).unwrap();
    cut.record();
    let broken_file = old_disk(&lab, "BROKEN");
    // In the middle of the new file system.
    let rule = Rule::new(On::Change, Then::Fail(Errno::Io)).touching(9 * MIB..10 * MIB).once_written(MIB);
    let broken = BadDisk::start(&broken_file, vec![rule]).unwrap();

    let mut ssh = LiveSsh::with_fresh_key(&lab, "part").unwrap();
    let machine = Ramdisk::of(&programs)
        .machine("part", &format!("{tools} speediso.sshkey=\"{}\"", ssh.public))
        .memory_mib(768)
        .mac(MAC)
        .serial(MACHINE)
        .disk(first.plugged())
        .disk(second.plugged())
        .disk(system_disk.plugged().bus(Bus::Nvme).sector_size(4096))
        .disk(Disk::nbd(cut.socket(), "CUT"))
        .disk(Disk::nbd(broken.socket(), "BROKEN"))
        .disk(neighbour.plugged())
        .power_on(&lab)
        .unwrap();
    ssh.to(&lab, &machine).unwrap();
    ssh.run("true", BOOT).unwrap();
    let scene = Scene { ssh, files };

    let made = scene.verified("volumes", &volumes());
    assert_eq!(made.devices.len(), 2);
    let groups = &made.devices[0].facts["volume_groups"][0]["volumes"];
    assert_eq!(groups.as_array().unwrap().len(), 4, "{groups}");
    lvm_is_there(&scene);
    scene.verified("system", &system());
    let dump = scene.tool("cryptsetup", "luksDump /dev/nvme0n1p2");
    assert!(dump.contains(UUID) && dump.contains("cr-root"), "{dump}");
    found_again(&scene);

    let result = scene.verified("keeping", &keeping("CUT"));
    assert_eq!(result.devices[0].facts["kept"][0]["number"], 2);
    let result = scene.run("broken", &keeping("BROKEN"));
    assert_eq!(result.outcome, Outcome::FailedChanged, "{result:#?}");
    let said = result.fault.unwrap().to_string();
    assert!(said.contains("the kept partition 2 is as it was"), "{said}");

    // The key is in no report, no log and no file that stays.
    let leaks = scene.shell(&format!(
        "grep -l '{KEY}' /tmp/*.err /tmp/*.state/* /run/speediso/* 2>/dev/null; dmesg | grep '{KEY}'; true"
    ));
    assert_eq!(leaks, "");
    assert!(!machine.serial().text().contains(KEY));
    scene.ssh.run("sync", SOON).unwrap();
    drop(machine);

    neighbour.assert_untouched().unwrap();
    for disk in [&first, &second] {
        let table = tool::run(Command::new(tool::find("sgdisk").unwrap()).arg("-v").arg(&disk.path)).unwrap();
        assert!(table.contains("No problems found"), "{table}");
    }
    let history = cut.history();
    let after = std::fs::read(&cut_file).unwrap();
    power_cuts(&history, &before, &after);
}

/// At every moment the table is the old one or the new one, whole, and what is kept is what it was.
fn power_cuts(history: &speediso_lab::nbd::History, before: &[u8], after: &[u8]) {
    const SEEDS: u64 = 4;
    let at = |mib: u64| usize::try_from(mib * MIB).unwrap();
    let (edge, end) = (at(1), before.len() - at(1));
    let kept = at(17)..at(25);
    assert_eq!(before[kept.clone()], after[kept.clone()]);
    let (mut old, mut new) = (0, 0);
    for n in 0..=history.len() {
        for seed in 0..SEEDS {
            let disk = history.cut(before, n, seed);
            assert!(
                disk[kept.clone()] == before[kept.clone()],
                "what is kept, after a cut before request {n} (seed {seed})"
            );
            // Either end is whole, and whichever it is, all it speaks of is there.
            let (has_old, has_new) = (
                disk[..edge] == before[..edge] || disk[end..] == before[end..],
                disk[..edge] == after[..edge] || disk[end..] == after[end..],
            );
            assert!(has_old || has_new, "no whole table after a cut before request {n} (seed {seed})");
            if has_new {
                assert!(
                    disk[edge..end] == after[edge..end],
                    "the new table too early, before request {n} (seed {seed})"
                );
            }
            old += u32::from(has_old);
            new += u32::from(has_new);
        }
    }
    assert!(old > 0 && new > 0);
    println!("{} power cuts: {old} with the old table, {new} with the new one", (history.len() as u64 + 1) * SEEDS);
}

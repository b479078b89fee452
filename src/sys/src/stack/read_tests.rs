#![allow(clippy::expect_used, reason = "tests")]

use std::fs;
use std::os::unix::fs::symlink;

use speediso_model::stack::{Act, Step};

use super::*;

/// A machine's sysfs and procfs in a directory.
struct Machine {
    dir: tempfile::TempDir,
    mounts: String,
}

impl Machine {
    fn new() -> Self {
        let machine = Self { dir: tempfile::tempdir().expect("a temporary directory"), mounts: String::new() };
        machine.write("sys/block/.keep", "");
        machine
    }

    fn write(&self, path: &str, content: &str) {
        let path = self.dir.path().join(path);
        fs::create_dir_all(path.parent().expect("below the machine")).expect("made");
        fs::write(path, content).expect("written");
    }

    fn device(&self, name: &str, number: &str, on: &[&str], files: &[(&str, &str)]) {
        self.write(&format!("sys/block/{name}/dev"), number);
        for below in on {
            self.write(&format!("sys/block/{name}/slaves/{below}/dev"), "");
        }
        for (file, content) in files {
            self.write(&format!("sys/block/{name}/{file}"), content);
        }
        self.class(name, &format!("sys/block/{name}"));
    }

    fn partition(&self, disk: &str, name: &str, number: &str) {
        self.write(&format!("sys/block/{disk}/{name}/partition"), "1");
        self.write(&format!("sys/block/{disk}/{name}/dev"), number);
        self.class(name, &format!("sys/block/{disk}/{name}"));
    }

    fn class(&self, name: &str, target: &str) {
        let class = self.dir.path().join("sys/class/block");
        fs::create_dir_all(&class).expect("made");
        symlink(self.dir.path().join(target), class.join(name)).expect("linked");
    }

    fn mount(&mut self, number: &str, at: &str, source: &str) {
        let source = source.replace("/dev", &self.dir.path().join("dev").display().to_string());
        self.mounts.push_str(&format!("36 35 {number} / {at} rw shared:1 - fs {source} rw\n"));
    }

    fn read(&self) -> Stack {
        self.write("proc/self/mountinfo", &self.mounts);
        read(&Roots::under(self.dir.path()), DiskScope::default()).expect("read")
    }
}

fn steps(stack: &Stack, named: &[&str]) -> Vec<String> {
    let named = named.iter().map(|name| (*name).to_owned()).collect();
    stack.take_down(&named, true).expect("steps").iter().map(ToString::to_string).collect()
}

#[test]
fn arrays_on_partitions_with_partitions_on_them() {
    let mut machine = Machine::new();
    for (disk, n) in [("sda", 0), ("sdb", 16)] {
        machine.device(disk, &format!("8:{n}"), &[], &[]);
        machine.partition(disk, &format!("{disk}1"), &format!("8:{}", n + 1));
    }
    let md = [("md/level", "raid1"), ("md/metadata_version", "1.2"), ("md/array_state", "clean")];
    machine.device("md127", "9:127", &["sda1", "sdb1"], &md);
    machine.partition("md127", "md127p1", "259:0");
    machine.mount("259:0", "/mnt/old\\040root", "/dev/md127p1");
    let stack = machine.read();
    assert_eq!(
        steps(&stack, &["sda", "sdb"]),
        ["unmount /mnt/old root (md127p1)", "take down array md127 (raid1, metadata 1.2, clean) on sda1 and sdb1"]
    );
    assert_eq!(stack.get("md127p1").map(|device| device.number.as_str()), Some("259:0"));
}

/// Half of an array, of which sysfs has no slaves yet: the members are named inside of md.
#[test]
fn half_assembled_arrays_and_containers() {
    let machine = Machine::new();
    machine.device("sda", "8:0", &[], &[]);
    machine.device("sdb", "8:16", &[], &[]);
    let inactive = [("md/level", ""), ("md/metadata_version", "external:ddf"), ("md/array_state", "inactive")];
    machine.device("md127", "9:127", &["sda"], &inactive);
    machine.write("sys/block/md127/md/dev-sdb/state", "");
    let inside = [("md/level", "raid1"), ("md/metadata_version", "external:-md127/0"), ("md/array_state", "readonly")];
    machine.device("md126", "9:126", &["sda", "sdb"], &inside);
    let stack = machine.read();
    let names: Vec<String> = steps(&stack, &["sda", "sdb"]);
    assert!(
        names[0].starts_with("take down array md126") && names[1].starts_with("take down array md127"),
        "{names:?}"
    );
    assert!(names[1].contains("(container, metadata external:ddf, inactive) on sda and sdb"), "{names:?}");
}

#[test]
fn logical_volumes_encryption_and_swap() {
    let machine = Machine::new();
    machine.device("nvme0n1", "259:0", &[], &[]);
    machine.partition("nvme0n1", "nvme0n1p2", "259:2");
    machine.device("dm-0", "253:0", &["nvme0n1p2"], &[("dm/name", "vg-swap"), ("dm/uuid", "LVM-abc")]);
    machine.device("dm-1", "253:1", &["dm-0"], &[("dm/name", "../../etc"), ("dm/uuid", "CRYPT-LUKS2-x")]);
    let swap = machine.dir.path().join("dev/dm-1");
    machine.write("proc/swaps", &format!("Filename Type Size Used Priority\n{} partition 8 0 -2\n", swap.display()));
    let stack = machine.read();
    assert_eq!(
        steps(&stack, &["nvme0n1"]),
        [
            format!("stop swapping to {}", swap.display()),
            "take down mapped device dm-1 (encryption, , \"../../etc\") on dm-0".into(),
            "take down mapped device dm-0 (LVM, , \"vg-swap\") on nvme0n1p2".into(),
        ]
    );
}

#[test]
fn caches_are_seen_from_below() {
    let machine = Machine::new();
    for (n, name) in ["sda", "sdb", "sdc"].iter().enumerate() {
        machine.device(name, &format!("8:{}", 16 * n), &[], &[]);
    }
    machine.device("bcache0", "252:0", &["sda"], &[]);
    machine.write("sys/fs/bcache/5e7/stop", "");
    let set = machine.dir.path().join("sys/fs/bcache/5e7");
    for (dir, name) in [("block/sda/bcache", "cache"), ("block/bcache0/bcache", "cache"), ("block/sdb/bcache", "set")] {
        let dir = machine.dir.path().join("sys").join(dir);
        fs::create_dir_all(&dir).expect("made");
        symlink(&set, dir.join(name)).expect("linked");
    }
    machine.write("sys/block/sdc/bcache/stop", "");
    let stack = machine.read();
    let found = steps(&stack, &["sda", "sdb"]);
    assert_eq!(
        found,
        [
            "take down cached disk bcache0 (bcache) on bcache/5e7 and sda",
            "take down bcache/5e7 (caches of bcache) on sdb"
        ]
    );
    assert_eq!(steps(&stack, &["sdc"]), ["take down bcache/sdc (bcache without its cache)"]);
    let alone = stack.take_down(&["sdb".to_owned()].into(), true).expect_err("sda is not named");
    assert!(alone.message.contains("sda, not named"), "{alone}");
}

/// btrfs has a number of its own and stands on all of its devices, whichever it was mounted by.
#[test]
fn btrfs_spans_its_devices() {
    let mut machine = Machine::new();
    machine.device("vda", "252:0", &[], &[]);
    machine.device("vdb", "252:16", &[], &[]);
    for disk in ["vda", "vdb"] {
        machine.write(&format!("sys/fs/btrfs/f00d/devices/{disk}/dev"), "");
    }
    machine.write("sys/fs/btrfs/features/raid56", "0");
    machine.mount("0:45", "/srv", "/dev/vdb");
    let stack = machine.read();
    assert_eq!(steps(&stack, &["vda", "vdb"]), ["unmount /srv (btrfs/f00d)"]);
    let fault = stack.take_down(&["vda".to_owned()].into(), true).expect_err("vdb is not named");
    assert!(fault.message.contains("vdb"), "{fault}");
}

#[test]
fn what_the_live_system_runs_from_is_known() {
    let mut machine = Machine::new();
    machine.device("sda", "8:0", &[], &[]);
    machine.partition("sda", "sda1", "8:1");
    machine.partition("sda", "sda2", "8:2");
    machine.mount("8:1", "/", "/dev/sda1");
    machine.mount("8:2", "/opt", "/dev/sda2");
    machine.write("proc/self/x", "");
    symlink("/opt/speediso/agent", machine.dir.path().join("proc/self/exe")).expect("linked");
    let stack = machine.read();
    assert!(stack.get("sda1").is_some_and(|device| device.live), "the root");
    assert!(stack.get("sda2").is_some_and(|device| device.live), "our own program");
}

/// What was planned and what is there under the same name are compared before anything is done.
#[test]
fn another_device_under_the_name_is_not_taken_down() {
    let machine = Machine::new();
    machine.device("sda", "8:0", &[], &[]);
    machine.device("dm-0", "253:0", &["sda"], &[("dm/name", "theirs"), ("dm/uuid", "LVM-2")]);
    machine.read();
    let what = What::Mapped { name: "ours".into(), uuid: "LVM-1".into(), targets: Vec::new() };
    let mut device = Device::new("dm-0", what, ["sda".to_owned()]);
    device.number = "253:0".into();
    let step = Step { act: Act::Stop, device, disks: BTreeSet::from(["sda".to_owned()]) };
    let roots = Roots::under(machine.dir.path());
    let error = crate::stack::carry_out(&roots, DiskScope::default(), &step).expect_err("another");
    assert!(matches!(error, crate::stack::StopError::Changed(_)), "{error}");
    // One that has gone by itself needs nothing.
    let mut gone = step;
    gone.device.name = "dm-7".into();
    crate::stack::carry_out(&roots, DiskScope::default(), &gone).expect("it is down");
}

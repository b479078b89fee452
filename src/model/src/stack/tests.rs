#![allow(clippy::expect_used, reason = "tests")]

use proptest::prelude::*;

use super::*;

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn device(name: &str, what: What, on: &[&str]) -> Device {
    Device::new(name, what, set(on))
}

fn array(name: &str, on: &[&str]) -> Device {
    device(name, What::Array { level: "raid1".into(), metadata: "1.2".into(), state: "clean".into() }, on)
}

fn mapped(name: &str, label: &str, uuid: &str, on: &[&str]) -> Device {
    let what = What::Mapped { name: label.into(), uuid: uuid.into(), targets: vec!["linear".into()] };
    device(name, what, on)
}

/// LUKS on LVM on an array over partitions of two disks, mounted; a swap on the second disk.
fn usual() -> Vec<Device> {
    let mut crypt = mapped("dm-1", "secret", "CRYPT-LUKS2-1", &["dm-0"]);
    crypt.mounts = vec![Mounted { order: 7, at: "/srv".into() }, Mounted { order: 9, at: "/srv/inner".into() }];
    let mut swap = device("sdb2", What::Partition, &["sdb"]);
    swap.swaps = vec!["/dev/sdb2".into()];
    vec![
        device("sda", What::Disk, &[]),
        device("sdb", What::Disk, &[]),
        device("sdc", What::Disk, &[]),
        device("sda1", What::Partition, &["sda"]),
        device("sdb1", What::Partition, &["sdb"]),
        swap,
        array("md127", &["sda1", "sdb1"]),
        mapped("dm-0", "vg-../../etc", "LVM-1", &["md127"]),
        crypt,
    ]
}

fn words(steps: &[Step]) -> Vec<String> {
    steps.iter().map(ToString::to_string).collect()
}

#[test]
fn from_the_top_down() {
    let stack: Stack = usual().into_iter().collect();
    let steps = stack.take_down(&set(&["sda", "sdb"]), true).expect("all named");
    assert_eq!(
        words(&steps),
        [
            "stop swapping to /dev/sdb2",
            "unmount /srv/inner (dm-1)",
            "unmount /srv (dm-1)",
            "take down mapped device dm-1 (encryption, linear, \"secret\") on dm-0",
            "take down mapped device dm-0 (LVM, linear, \"vg-../../etc\") on md127",
            "take down array md127 (raid1, metadata 1.2, clean) on sda1 and sdb1",
        ]
    );
    assert_eq!(steps[0].disks, set(&["sdb"]));
    assert!(steps[1..].iter().all(|step| step.disks == set(&["sda", "sdb"])));
    assert!(stack.take_down(&set(&["sdc"]), false).expect("nothing there").is_empty());
}

#[test]
fn a_disk_that_is_not_named_refuses_and_is_named() {
    let stack: Stack = usual().into_iter().collect();
    let fault = stack.take_down(&set(&["sda"]), true).expect_err("sdb is not named");
    assert_eq!(fault.code, FaultCode::DiskInUse);
    assert!(fault.message.contains("disk sdb, not named"), "{fault}");
    // A member that is gone from sysfs, or of a kind that nobody describes, is as good as a disk.
    let stack: Stack = [device("sda", What::Disk, &[]), array("md0", &["sda", "unheard"])].into_iter().collect();
    assert!(stack.take_down(&set(&["sda"]), true).expect_err("unheard").message.contains("unheard"));
}

#[test]
fn mounts_need_leave_and_the_live_system_stays() {
    let stack: Stack = usual().into_iter().collect();
    let fault = stack.take_down(&set(&["sda", "sdb"]), false).expect_err("mounted");
    assert!(fault.message.contains("dm-1 is mounted at /srv: unmount it, or set `unmount`"), "{fault}");
    let mut devices = usual();
    devices[3].live = true;
    let stack: Stack = devices.into_iter().collect();
    let fault = stack.take_down(&set(&["sda", "sdb"]), true).expect_err("live");
    assert!(fault.message.contains("the live system runs from sda1"), "{fault}");
}

#[test]
fn what_cannot_be_stopped_is_said() {
    for (what, code) in [
        (What::Other, FaultCode::Unsupported),
        (What::Loop { file: "/dev/sda".into() }, FaultCode::DiskInUse),
        (What::Btrfs, FaultCode::DiskInUse),
    ] {
        let stack: Stack = [device("sda", What::Disk, &[]), device("x", what, &["sda"])].into_iter().collect();
        assert_eq!(stack.take_down(&set(&["sda"]), true).expect_err("no way").code, code);
    }
    let circle: Stack =
        [device("sda", What::Disk, &[]), array("md0", &["sda", "md1"]), array("md1", &["md0"])].into_iter().collect();
    assert_eq!(circle.take_down(&set(&["sda"]), true).expect_err("a circle").code, FaultCode::Internal);
}

/// The container of a DDF or IMSM set is held by the same disks as its arrays, and goes after them.
#[test]
fn arrays_go_before_their_container() {
    let stack: Stack = [
        device("sda", What::Disk, &[]),
        device("sdb", What::Disk, &[]),
        array("md126", &["sda", "sdb", "md127"]),
        device(
            "md127",
            What::Array { level: String::new(), metadata: "external:imsm".into(), state: "inactive".into() },
            &["sda", "sdb"],
        ),
    ]
    .into_iter()
    .collect();
    let steps = stack.take_down(&set(&["sda", "sdb"]), false).expect("steps");
    let names: Vec<&str> = steps.iter().map(|step| step.device.name.as_str()).collect();
    assert_eq!(names, ["md126", "md127"]);
}

/// Stacks of any shape: each device stands on some that come before it.
fn stacks() -> impl Strategy<Value = Vec<Device>> {
    let on = prop::collection::vec(prop::collection::vec(any::<prop::sample::Index>(), 1..4), 0..24);
    (1usize..6, on).prop_map(|(disks, on)| {
        let mut devices: Vec<Device> = (0..disks).map(|n| device(&format!("sd{n}"), What::Disk, &[])).collect();
        for (n, below) in on.into_iter().enumerate() {
            let below: Vec<String> = below.iter().map(|index| index.get(&devices).name.clone()).collect();
            let mut next = array(&format!("md{n}"), &[]);
            next.on = below.into_iter().collect();
            devices.push(next);
        }
        devices
    })
}

proptest! {
    /// Whatever the topology: no step touches a disk that is not named, nothing goes before what stands on it, and
    /// nothing stays.
    #[test]
    fn only_named_disks_and_all_of_it(devices in stacks(), named in prop::collection::btree_set(0usize..6, 1..6)) {
        let stack: Stack = devices.iter().cloned().collect();
        let named: BTreeSet<String> = named.iter().map(|n| format!("sd{n}")).filter(|n| stack.get(n).is_some()).collect();
        match stack.take_down(&named, true) {
            Ok(steps) => {
                let mut left = devices;
                for step in &steps {
                    prop_assert!(step.disks.is_subset(&named));
                    prop_assert!(!left.iter().any(|device| device.on.contains(&step.device.name)), "{step} is stood on");
                    left.retain(|device| device.name != step.device.name);
                }
                prop_assert!(!left.iter().any(|device| device.on.iter().any(|on| named.contains(on))));
            }
            Err(fault) => {
                prop_assert_eq!(fault.code, FaultCode::DiskInUse);
                prop_assert!(fault.message.contains("not named"));
            }
        }
    }
}

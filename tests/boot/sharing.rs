//! Several virtual machines that write one image at once, over a network of their own: the server's bytes grow far
//! slower than their number.

#![allow(clippy::unwrap_used)]

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;
use speediso_lab::{Lab, Machine, Programs, Site, tool};
use speediso_model::api::{NodeView, OrderView};
use speediso_model::node::NodeState;
use speediso_model::order::TaskState;
use speediso_model::outcome::{Outcome, TaskResult};
use speediso_model::task::Task;
use speediso_tests::{BOOT, Ramdisk, TestDisk, WORK, boot_words, programs};

const MACHINES: u64 = 4;
const IMAGE_MIB: u64 = 96;

/// Every machine has the whole image on its disk, verified, and the server gave little more than one of them.
#[test]
#[ignore = "four emulated machines at once take two cores for minutes; make test-all runs it"]
fn machines_give_each_other_what_they_have() {
    let programs = programs().unwrap();
    let lab = Lab::builder().build().unwrap();
    let site = Site::start(&lab, &programs, 0).unwrap();
    let added = site.ask(["rule", "add", "--serial-prefix", "SHARE-"]).unwrap();
    assert!(added.status.success(), "{}", added.stderr);
    let raw = image(&lab);
    let packed = lab.dir().join("shared");
    tool::run(Command::new(&programs.cli).args(["image", "pack"]).arg(&raw).arg("-o").arg(&packed)).unwrap();
    let stored = site.add_image(&packed).unwrap();

    let disks: Vec<TestDisk> =
        (1..=MACHINES).map(|n| TestDisk::blank(&lab, &format!("SHAREDISK{n}"), IMAGE_MIB + 32).unwrap()).collect();
    let machines: Vec<Machine<'_>> = (1u64..).zip(&disks).map(|(n, disk)| power_on(&lab, &programs, n, disk)).collect();
    let ids: Vec<String> = (1..=MACHINES)
        .map(|n| {
            let ready = |node: &NodeView| node.online && node.state == NodeState::Manageable;
            site.wait_machine(&format!("SHARE-{n}"), "manageable", BOOT, ready).unwrap().id.to_string()
        })
        .collect();

    let orders: Vec<String> = ids
        .iter()
        .zip(&disks)
        .map(|(id, disk)| {
            let parameters = json!({
                "device": { "serial": disk.serial },
                "image": stored,
                "wipe": "none",
                "share": true,
                "then": "power_off",
            });
            site.apply("lininstall", id, &parameters).unwrap().order.id.to_string()
        })
        .collect();
    let (mut from_server, mut from_peers) = (0, 0);
    for order in &orders {
        let view = site.wait_order(order, "written", WORK, |view| written(view).is_some()).unwrap();
        let result = written(&view).unwrap();
        assert_eq!(result.outcome, Outcome::Verified, "{result:?}");
        let facts = &result.devices[0].facts;
        from_server += facts["source_bytes"].as_u64().unwrap();
        from_peers += facts["peer_bytes"].as_u64().unwrap();
    }
    drop(machines);
    for disk in &disks {
        assert!(disk.holds(&raw).unwrap(), "{} has other bytes", disk.serial);
    }
    let image = IMAGE_MIB << 20;
    println!("{MACHINES} machines: {from_server} bytes from the server, {from_peers} from one another, image {image}");
    // Without sharing it would be all of them; what none has yet may be asked for twice.
    assert!(from_server < image * 2, "{from_server} bytes from the server for an image of {image}");
    assert!(from_peers > image * (MACHINES - 2), "{from_peers} bytes from one another");
}

fn power_on<'lab>(lab: &'lab Lab, programs: &Programs, n: u64, disk: &TestDisk) -> Machine<'lab> {
    let (mac, serial) = (format!("52:54:00:12:07:{n:02x}"), format!("SHARE-{n}"));
    let uuid = format!("77777777-7777-4777-8777-{n:012}");
    let words = boot_words(lab, &mac, &uuid, &serial).unwrap().join(" ");
    Ramdisk::of(programs)
        .machine(&format!("share{n}"), &words)
        .memory_mib(384)
        .cpus(1)
        .mac(&mac)
        .uuid(&uuid)
        .serial(&serial)
        .disk(disk.plugged())
        .power_on(lab)
        .unwrap()
}

fn written(view: &OrderView) -> Option<&TaskResult> {
    view.order.tasks.iter().find_map(|task| match (&task.task, &task.state) {
        (Task::WriteImage(_), TaskState::Ended { result, .. }) => Some(result),
        _ => None,
    })
}

/// One partition of bytes that do not compress, so that stored bytes are the disk's.
fn image(lab: &Lab) -> PathBuf {
    let raw = lab.dir().join("shared.raw");
    let mut file = std::fs::File::create(&raw).unwrap();
    file.set_len(IMAGE_MIB << 20).unwrap();
    tool::run(Command::new("sgdisk").args(["-n", "1:0:0", "-t", "1:ef00"]).arg(&raw)).unwrap();
    fill(&mut file, &raw);
    raw
}

fn fill(file: &mut std::fs::File, raw: &Path) {
    use std::io::{Read as _, Seek as _};
    let mut random = std::fs::File::open("/dev/urandom").unwrap();
    let mut block = vec![0; 1 << 20];
    for mib in 2..IMAGE_MIB - 2 {
        random.read_exact(&mut block).unwrap();
        file.seek(std::io::SeekFrom::Start(mib << 20)).unwrap();
        file.write_all(&block).unwrap();
    }
    file.sync_all().unwrap();
    assert_eq!(raw.metadata().unwrap().len(), IMAGE_MIB << 20);
}

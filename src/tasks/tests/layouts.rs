//! `partition` on real loop devices of both sector sizes, with the real programs, judged by tools we did not write.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod support;

use std::process::Command;
use std::sync::Arc;

use serde_json::{Value, json};
use speediso_model::fault::FaultCode;
use speediso_model::outcome::{Changed, Outcome, TaskResult};
use speediso_model::task::Task;
use speediso_tasks::tools::Tools;
use support::{Bench, LoopDisk, MIB, Told, failed, tool};

const UUID: &str = "5eed0000-0000-4000-8000-00000000000";

fn task(disk: &LoopDisk, more: &Value) -> Task {
    let mut task = json!({"task": "partition", "device": disk.hints(), "partitions": []});
    task.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    serde_json::from_value(task).unwrap()
}

#[track_caller]
fn verified(result: &TaskResult, changed: Changed) {
    assert_eq!((result.outcome, result.changed), (Outcome::Verified, Some(changed)), "{result:#?}");
}

/// What `sfdisk` reads from the table.
fn table(disk: &LoopDisk) -> Value {
    let verdict = tool("sfdisk", &["--verify", &disk.device]);
    assert!(verdict.contains("No errors detected"), "{verdict}");
    serde_json::from_str(&tool("sfdisk", &["--json", &disk.device])).unwrap()
}

#[track_caller]
fn assert_good_gpt(disk: &LoopDisk) {
    let verdict = tool("sgdisk", &["-v", &disk.device]);
    assert!(verdict.contains("No problems found"), "{verdict}");
    assert!(!verdict.to_lowercase().contains("caution"), "{verdict}");
}

/// A loop device over one partition, for tools that want a device.
struct Part(String);

impl Part {
    fn of(disk: &LoopDisk, sector: u32, start: u64, bytes: u64) -> Self {
        let [sector, start, bytes] = [u64::from(sector), start, bytes].map(|n| n.to_string());
        let file = disk.file.to_str().unwrap();
        let out = tool("losetup", &["-f", "--show", "-r", "-b", &sector, "-o", &start, "--sizelimit", &bytes, file]);
        Self(out.trim().to_owned())
    }

    fn value(&self, tag: &str) -> String {
        let out = Command::new("blkid").args(["-p", "-o", "value", "-s", tag, &self.0]).output().unwrap();
        String::from_utf8_lossy(&out.stdout).trim().to_owned()
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        let _ = Command::new("losetup").args(["-d", &self.0]).status();
    }
}

fn file_systems() -> Value {
    let part = |name: &str, kind: &str, mib: u64, fs: &str, label: &str, uuid: Option<String>| {
        let mut format = json!({"kind": fs, "label": label});
        if let Some(uuid) = uuid {
            format["uuid"] = json!(uuid);
        }
        json!({"name": name, "kind": kind, "size": {"bytes": mib << 20}, "content": {"file_system": format}})
    };
    let uuid = |n: u32| Some(format!("{UUID}{n}"));
    json!([
        part("esp", "esp", 264, "vfat", "ESP", Some("1234-ABCD".into())),
        part("root", "root", 64, "ext4", "root", uuid(1)),
        part("home", "home", 300, "xfs", "home", uuid(2)),
        part("srv", "srv", 128, "btrfs", "srv", uuid(3)),
        part("swap", "swap", 16, "swap", "swap", uuid(4)),
        part("win", "windows_data", 32, "ntfs", "win", None),
        {"name": "bios", "kind": "bios_boot", "size": {"bytes": MIB}, "number": 14, "flags": ["required", "no_auto"]},
        {"name": "rest", "kind": "linux", "size": "rest", "uuid": format!("{UUID}9")},
    ])
}

#[test]
fn every_file_system_is_made_and_found_by_others() {
    let bench = Bench::new();
    for sector in [512, 4096] {
        let disk = LoopDisk::new(900 * MIB, sector);
        // Somebody's array and file system, which must not come to light again.
        disk.write(0, &[0xa5; 8192]);
        disk.write(5 * MIB, &[0x5a; 1 << 16]);
        let task = task(&disk, &json!({"disk_uuid": format!("{UUID}0"), "partitions": file_systems()}));
        verified(&bench.run(&task), Changed::Changed);

        assert_good_gpt(&disk);
        let table = table(&disk);
        assert_eq!(table["partitiontable"]["id"].as_str().unwrap().to_lowercase(), format!("{UUID}0"));
        let entries = table["partitiontable"]["partitions"].as_array().unwrap();
        let expected = [
            ("1", "esp", "C12A7328-F81F-11D2-BA4B-00A0C93EC93B", "vfat", "1234-ABCD", vec!["fsck.vfat", "-n"]),
            ("2", "root", "4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709", "ext4", "1", vec!["fsck.ext4", "-f", "-n"]),
            ("3", "home", "933AC7E1-2EB4-4F13-B844-0E14E2AEF915", "xfs", "2", vec!["xfs_repair", "-n"]),
            ("4", "srv", "3B8F8425-20E0-4F3B-907F-1A25A76F98E8", "btrfs", "3", vec!["btrfs", "check", "--readonly"]),
            ("5", "swap", "0657FD6D-A4AB-43C4-84E5-0933C84B4F4F", "swap", "4", vec![]),
            ("6", "win", "EBD0A0A2-B9E5-4433-87C0-68B6B72699C7", "ntfs", "", vec!["ntfsfix", "-n"]),
            ("14", "bios", "21686148-6449-6E6F-744E-656564454649", "", "", vec![]),
            ("7", "rest", "0FC63DAF-8483-4772-8E79-3D69D8477DE4", "", "", vec![]),
        ];
        for (number, name, kind, fs, uuid, check) in expected {
            let ends =
                |node: &str| node.strip_prefix(&disk.device).map(|rest| rest.trim_start_matches('p')) == Some(number);
            let entry = entries
                .iter()
                .find(|e| e["node"].as_str().is_some_and(ends))
                .unwrap_or_else(|| panic!("{number}: {table}"));
            assert_eq!((entry["name"].as_str(), entry["type"].as_str()), (Some(name), Some(kind)));
            let bytes = |field: &str| entry[field].as_u64().unwrap() * u64::from(sector);
            let (start, length) = (bytes("start"), bytes("size"));
            assert!(start.is_multiple_of(MIB) && length.is_multiple_of(MIB));
            let part = Part::of(&disk, sector, start, length);
            assert_eq!(part.value("TYPE"), fs, "partition {number}");
            if !uuid.is_empty() {
                let uuid = if uuid.len() == 1 { format!("{UUID}{uuid}") } else { uuid.to_owned() };
                assert_eq!(part.value("UUID"), uuid);
            }
            if !fs.is_empty() {
                assert_eq!(part.value("LABEL").to_lowercase(), name, "partition {number}");
            }
            if let [program, arguments @ ..] = check.as_slice() {
                let arguments: Vec<&str> = arguments.iter().copied().chain([part.0.as_str()]).collect();
                tool(program, &arguments);
            }
        }
        let bios = tool("sgdisk", &["-i", "14", &disk.device]);
        assert!(bios.contains("Attribute flags: 8000000000000001"), "{bios}");

        let once = tool("sha256sum", &[disk.file.to_str().unwrap()]);
        verified(&bench.run(&task), Changed::AlreadySo);
        assert_eq!(tool("sha256sum", &[disk.file.to_str().unwrap()]), once, "the second time changes nothing");
        // Another label is another layout.
        let mut other = serde_json::to_value(&task).unwrap();
        other["partitions"][1]["content"]["file_system"]["label"] = json!("other");
        verified(&bench.run(&serde_json::from_value(other).unwrap()), Changed::Changed);
    }
}

#[test]
fn an_mbr_is_what_others_read() {
    let bench = Bench::new();
    for sector in [512, 4096] {
        let disk = LoopDisk::new(128 * MIB, sector);
        tool("sgdisk", &["-n", "1:0:0", &disk.device]);
        let more = json!({"table": "mbr", "partitions": [
            {"name": "boot", "kind": "linux", "size": {"bytes": 16 * MIB}, "flags": ["legacy_boot"],
             "content": {"file_system": {"kind": "ext4"}}},
            {"name": "swap", "kind": "swap", "size": {"percent": 25}},
            {"name": "fat", "kind": {"mbr": 0x0c}, "size": "rest", "number": 4},
        ]});
        let task = task(&disk, &more);
        verified(&bench.run(&task), Changed::Changed);
        let table = table(&disk);
        assert_eq!(table["partitiontable"]["label"], "dos");
        let entries = table["partitiontable"]["partitions"].as_array().unwrap();
        let seen: Vec<(&str, bool, u64)> = entries
            .iter()
            .map(|e| {
                (
                    e["type"].as_str().unwrap(),
                    e["bootable"] == true,
                    e["size"].as_u64().unwrap() * u64::from(sector) / MIB,
                )
            })
            .collect();
        assert_eq!(seen, [("83", true, 16), ("82", false, 31), ("c", false, 79)]);
        assert!(entries[2]["node"].as_str().unwrap().ends_with('4'));
        let gone = Command::new("sgdisk").args(["-v", &disk.device]).output().unwrap();
        assert!(String::from_utf8_lossy(&gone.stdout).contains("MBR"), "no GPT may be left");
        assert_eq!(tool("blkid", &["-p", "-o", "value", "-s", "PTTYPE", &disk.device]).trim(), "dos");
        verified(&bench.run(&task), Changed::AlreadySo);

        // Kept by number, beside new ones, with the disk's number.
        let id = table["partitiontable"]["id"].clone();
        let before = disk.bytes(17 * MIB, 31 << 20);
        let keep = json!({"table": "mbr", "keep": [{"number": 2}], "partitions": [
            {"name": "", "kind": "linux", "size": "rest"},
        ]});
        let result = bench.run(&self::task(&disk, &keep));
        verified(&result, Changed::Changed);
        let table = self::table(&disk);
        assert_eq!(table["partitiontable"]["id"], id);
        assert_eq!(table["partitiontable"]["partitions"][1]["type"], "82");
        assert_eq!(disk.bytes(17 * MIB, 31 << 20), before);
    }
}

/// Without volumes, for which this kernel need not have device mapper.
#[test]
fn a_volume_group_is_found_again_and_another_is_not_taken_for_it() {
    let bench = Bench::new();
    let disk = LoopDisk::new(64 * MIB, 512);
    let order = |group: &str| {
        task(
            &disk,
            &json!({
                "partitions": [
                    {"name": "boot", "kind": "boot", "size": {"bytes": 16 * MIB}, "content": {"file_system": {"kind": "ext4"}}},
                    {"name": "pv", "kind": "lvm", "size": "rest", "content": {"lvm": group}},
                ],
                "volume_groups": [{"name": group, "volumes": []}],
            }),
        )
    };
    let holds = |order: &Task| speediso_tasks::plan(order, &bench.ctx).unwrap().devices[0].found.join("\n");
    verified(&bench.run(&order("vg-a")), Changed::Changed);
    let before = disk.digest();
    assert_eq!(holds(&order("vg-a")), "everything as ordered: nothing will be changed");
    verified(&bench.run(&order("vg-a")), Changed::AlreadySo);
    let found = holds(&order("vg-b"));
    assert!(found.contains("not as ordered: volume group \"vg-b\": ") && found.contains("will be lost"), "{found}");
    assert_eq!(disk.digest(), before, "a look writes nothing");
    verified(&bench.run(&order("vg-b")), Changed::Changed);
    // Its label is there, what it stands for is not.
    disk.write(17 * MIB + 4096, &[0; 1 << 20]);
    let found = holds(&order("vg-b"));
    assert!(!found.contains("everything as ordered"), "{found}");
    verified(&bench.run(&order("vg-b")), Changed::Changed);
}

fn kept_disk(sector: u32) -> LoopDisk {
    let disk = LoopDisk::new(96 * MIB, sector);
    disk.fill(7);
    tool("sgdisk", &["-Z", &disk.device]);
    tool(
        "sgdisk",
        &[
            "-n",
            "1:0:+16M",
            "-c",
            "1:old",
            "-n",
            "5:0:+20M",
            "-c",
            "5:data",
            "-n",
            "7:0:0",
            "-c",
            "7:last",
            &disk.device,
        ],
    );
    disk
}

#[test]
fn what_is_kept_is_the_same_to_the_byte() {
    let bench = Bench::new();
    for sector in [512, 4096] {
        for keep in [json!({"label": "data"}), json!({"number": 5})] {
            let disk = kept_disk(sector);
            let before = disk.bytes(17 * MIB, 20 << 20);
            let unique = |text: &str| text.lines().find(|l| l.starts_with("Partition unique GUID")).map(str::to_owned);
            let guid = unique(&tool("sgdisk", &["-i", "5", &disk.device]));
            let more = json!({"keep": [keep], "partitions": [
                {"name": "a", "kind": "root", "size": {"bytes": 8 * MIB}, "content": {"file_system": {"kind": "ext4"}}},
                {"name": "b", "kind": "linux", "size": "rest"},
            ]});
            let task = task(&disk, &more);
            let plan = speediso_tasks::plan(&task, &bench.ctx).unwrap();
            let found = plan.devices[0].found.join("\n");
            assert!(found.contains("5 \"data\" (nothing known): stays") && found.contains("1 \"old\""), "{found}");
            let result = bench.run(&task);
            verified(&result, Changed::Changed);
            let kept = &result.devices[0].facts["kept"][0];
            assert_eq!((&kept["number"], &kept["bytes_read"]), (&json!(5), &json!(20 * MIB)));
            assert_eq!(kept["blake3_before"], json!(blake3(&before)));
            assert_eq!(disk.bytes(17 * MIB, 20 << 20), before);
            assert_good_gpt(&disk);
            assert_eq!(unique(&tool("sgdisk", &["-i", "5", &disk.device])), guid);
            let numbers: Vec<_> = table(&disk)["partitiontable"]["partitions"]
                .as_array()
                .unwrap()
                .iter()
                .map(|e| {
                    (e["name"].as_str().unwrap().to_owned(), e["start"].as_u64().unwrap() * u64::from(sector) / MIB)
                })
                .collect();
            assert_eq!(numbers, [("a".into(), 1), ("b".into(), 37), ("data".into(), 17)]);
        }
    }
}

fn blake3(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex().to_string()
}

#[test]
fn what_cannot_be_made_changes_nothing() {
    let bench = Bench::new();
    let part = |more: Value| {
        let mut part = json!({"name": "p", "kind": "linux", "size": "rest"});
        part.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!([part])
    };
    let esp = json!({"kind": "esp", "content": {"file_system": {"kind": "vfat"}}});
    let cases = [
        (512, json!({"partitions": part(json!({"size": {"bytes": 1u64 << 40}}))}), FaultCode::DiskTooSmall),
        (4096, json!({"partitions": part(esp)}), FaultCode::DiskTooSmall),
        (
            512,
            json!({"partitions": part(json!({"content": {"file_system": {"kind": "xfs"}}}))}),
            FaultCode::DiskTooSmall,
        ),
        (512, json!({"keep": [{"label": "nobody"}], "partitions": part(json!({}))}), FaultCode::PartitionTable),
        (512, json!({"keep": [{"number": 5}], "partitions": part(json!({"number": 5}))}), FaultCode::PartitionTable),
        (
            512,
            json!({"keep": [{"number": 5}, {"label": "data"}], "partitions": part(json!({}))}),
            FaultCode::PartitionTable,
        ),
        (
            512,
            json!({"keep": [{"number": 1}], "table": "mbr", "partitions": part(json!({}))}),
            FaultCode::PartitionTable,
        ),
        (
            512,
            json!({"keep": [{"number": 7}], "partitions": part(json!({"size": {"bytes": 60 * MIB}}))}),
            FaultCode::DiskTooSmall,
        ),
    ];
    for (sector, more, code) in cases {
        let disk = kept_disk(sector);
        let before = disk.digest();
        failed(&bench.run(&task(&disk, &more)), Outcome::FailedUnchanged, code);
        assert_eq!(disk.digest(), before, "{more}");
    }

    // Two of one name.
    let disk = kept_disk(512);
    tool("sgdisk", &["-c", "7:data", &disk.device]);
    let before = disk.digest();
    let two = json!({"keep": [{"label": "data"}], "partitions": part(json!({}))});
    failed(&bench.run(&task(&disk, &two)), Outcome::FailedUnchanged, FaultCode::PartitionTable);
    // Somebody holds it: an exclusive opening, as a mount or an array does it.
    let held = std::os::unix::fs::OpenOptionsExt::custom_flags(std::fs::OpenOptions::new().read(true), libc::O_EXCL)
        .open(&disk.device)
        .unwrap();
    let any = json!({"partitions": part(json!({}))});
    failed(&bench.run(&task(&disk, &any)), Outcome::FailedUnchanged, FaultCode::DiskInUse);
    drop(held);
    tool("blockdev", &["--setro", &disk.device]);
    let result = bench.run(&task(&disk, &any));
    // The device keeps it for whoever has it next.
    tool("blockdev", &["--setrw", &disk.device]);
    failed(&result, Outcome::FailedUnchanged, FaultCode::DiskReadOnly);
    assert_eq!(disk.digest(), before);
}

#[test]
fn an_mbr_ends_at_two_tebibytes() {
    let bench = Bench::new();
    let disk = LoopDisk::new(3 << 40, 512);
    let whole = json!({"table": "mbr", "partitions": [{"name": "", "kind": "linux", "size": "rest"}]});
    failed(&bench.run(&task(&disk, &whole)), Outcome::FailedUnchanged, FaultCode::Unsupported);
    let below = json!({"table": "mbr", "partitions": [{"name": "", "kind": "linux", "size": {"bytes": (1u64 << 41) - 2 * MIB}}]});
    verified(&bench.run(&task(&disk, &below)), Changed::Changed);
    table(&disk);
}

#[test]
fn a_program_that_cannot_be_had_is_known_before_anything_is_lost() {
    let mut bench = Bench::new();
    bench.ctx.tools = Tools::new(Vec::new(), None, None, "/nowhere".into());
    let disk = kept_disk(512);
    let before = disk.digest();
    let more = json!({"partitions": [
        {"name": "a", "kind": "root", "size": "rest", "content": {"file_system": {"kind": "ext4"}}},
    ]});
    let result = bench.run(&task(&disk, &more));
    failed(&result, Outcome::FailedUnchanged, FaultCode::ToolMissing);
    let said = result.fault.unwrap().to_string();
    assert!(said.contains("mkfs.ext4") && said.contains("tools archive") && said.contains("live system"), "{said}");
    assert_eq!(disk.digest(), before);
    // Without a file system nothing is missing.
    let bare = json!({"partitions": [{"name": "a", "kind": "root", "size": "rest"}]});
    verified(&bench.run(&task(&disk, &bare)), Changed::Changed);
}

/// A program that fails in the middle: no table, and the rest told.
#[test]
fn a_program_that_fails_leaves_no_table() {
    let mut bench = Bench::new();
    let dir = tempfile::tempdir().unwrap();
    for (name, script) in [("mkfs.ext4", "#!/bin/sh\necho it broke >&2\nexit 3\n"), ("mkswap", "#!/bin/sh\nexit 0\n")] {
        let path = dir.path().join(name);
        std::fs::write(&path, script).unwrap();
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    }
    bench.ctx.tools = Tools::new(vec![dir.path().into()], None, None, "/nowhere".into());
    let told = Arc::new(Told::default());
    bench.ctx.reporter = Arc::clone(&told) as _;
    let made = |kind: &str, keep: Value| {
        json!({"keep": keep, "partitions": [
            {"name": "a", "kind": "root", "size": {"bytes": 8 * MIB}, "content": {"file_system": {"kind": kind}}},
        ]})
    };
    let disk = kept_disk(512);
    let result = bench.run(&task(&disk, &made("ext4", json!([]))));
    failed(&result, Outcome::FailedChanged, FaultCode::ToolFailed);
    assert!(result.fault.unwrap().to_string().contains("it broke"));
    support::has_no_table(&disk);
    // One that says that it did, and did not.
    failed(&bench.run(&task(&disk, &made("swap", json!([])))), Outcome::FailedChanged, FaultCode::VerifyFailed);
    support::has_no_table(&disk);

    let disk = kept_disk(4096);
    let before = disk.bytes(17 * MIB, 20 << 20);
    let result = bench.run(&task(&disk, &made("ext4", json!([{"label": "data"}]))));
    failed(&result, Outcome::FailedChanged, FaultCode::ToolFailed);
    assert!(result.fault.unwrap().to_string().contains("the kept partition 5 is as it was"));
    assert_eq!(disk.bytes(17 * MIB, 20 << 20), before);
    let verdict = tool("sgdisk", &["-v", &disk.device]);
    assert!(verdict.contains("No problems found"), "{verdict}");
    assert!(tool("sgdisk", &["-p", &disk.device]).contains("last"), "the old table");
    assert!(disk.bytes(MIB, 1 << 20).iter().all(|b| *b == 0), "nothing begins in what was to go");
}

//! Teardown on loop devices: signatures of many kinds, judged by tools that are not ours. What the kernel has to take
//! down is tried in a virtual machine (tests/boot/teardown.rs).
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "tests")]

mod support;

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use speediso_model::fault::FaultCode;
use speediso_model::outcome::{Changed, Outcome, TaskResult};
use speediso_model::task::Task;
use speediso_model::teardown::TeardownTask;
use speediso_model::wipe::WipeTargets;
use support::{Bench, LoopDisk, MIB, tool};

fn child() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let path = test.parent().and_then(Path::parent).unwrap().join("examples/probe-superblock");
    assert!(path.exists(), "{} is missing: build it with cargo build -p speediso-sys --examples", path.display());
    path
}

fn bench() -> Bench {
    let mut bench = Bench::new();
    bench.ctx.probe = Some(child());
    bench
}

fn task(disks: &[&LoopDisk]) -> TeardownTask {
    let hints = disks.iter().map(|disk| disk.hints()).collect();
    TeardownTask { devices: WipeTargets::Hints(hints), unmount: false, disconnect: false }
}

fn teardown(bench: &Bench, disks: &[&LoopDisk]) -> TaskResult {
    bench.run(&Task::Teardown(task(disks)))
}

/// What tools that are not ours find.
fn found(disk: &LoopDisk) -> String {
    tool("blockdev", &["--flushbufs", &disk.device]);
    let mut all = String::new();
    for (program, args) in [("wipefs", &["-n"][..]), ("blkid", &["-p"][..]), ("mdadm", &["--examine"][..])] {
        let output = Command::new(program).args(args).arg(&disk.device).output().expect(program);
        all.push_str(&String::from_utf8_lossy(&output.stdout));
    }
    all
}

#[track_caller]
fn is_clear(name: &str, disk: &LoopDisk, result: &TaskResult) {
    assert_eq!(result.outcome, Outcome::Verified, "{name}: {:?}", result.fault);
    assert_eq!(result.changed, Some(Changed::Changed), "{name}");
    assert_eq!(found(disk), "", "{name}");
    // And a second time there is nothing to do.
    let before = disk.digest();
    let again = teardown(&bench(), &[disk]);
    assert_eq!(
        (again.outcome, again.changed),
        (Outcome::Verified, Some(Changed::AlreadySo)),
        "{name}: {:?}",
        again.fault
    );
    assert_eq!(disk.digest(), before, "{name}");
}

/// Writes bytes of a format whose tools are not to be had.
fn put(disk: &LoopDisk, at: u64, bytes: &[u8]) {
    let file = File::options().write(true).open(&disk.device).unwrap();
    file.write_all_at(bytes, at).unwrap();
    file.sync_all().unwrap();
}

/// A name, the disk's size, its sectors, and what makes what is left over on it.
type LeftOver = (&'static str, u64, u32, fn(&LoopDisk));

fn made(program: &str, args: &[&str], disk: &LoopDisk) {
    let args: Vec<&str> = args.iter().copied().chain([disk.device.as_str()]).collect();
    tool(program, &args);
}

/// Each of these is recognised by at least one of the judges before.
const LEFT_OVERS: &[LeftOver] = &[
    ("ext4", 32 * MIB, 512, |d| made("mke2fs", &["-q", "-t", "ext4"], d)),
    ("xfs", 512 * MIB, 512, |d| made("mkfs.xfs", &["-q"], d)),
    ("xfs of 4096", 512 * MIB, 4096, |d| made("mkfs.xfs", &["-q"], d)),
    ("btrfs with its mirror", 256 * MIB, 512, |d| made("mkfs.btrfs", &["-q"], d)),
    ("vfat", 32 * MIB, 512, |d| made("mkfs.vfat", &[], d)),
    ("ntfs", 32 * MIB, 512, |d| made("mkntfs", &["-q", "-F", "-Q"], d)),
    ("swap", 16 * MIB, 512, |d| made("mkswap", &["-q"], d)),
    ("swap of 4096", 16 * MIB, 4096, |d| made("mkswap", &["-q"], d)),
    ("an LVM volume", 32 * MIB, 512, |d| {
        made("lvm", &["pvcreate", "-qq", "-y", "--config", "devices/dir=\"/dev\"", "--metadatacopies", "2"], d);
    }),
    ("GPT", 16 * MIB, 512, |d| made("sgdisk", &["-n1:2048:+4M", "-n2:0:0"], d)),
    ("GPT of 4096", 16 * MIB, 4096, |d| made("sgdisk", &["-n1:256:+4M", "-n2:0:0"], d)),
    ("hybrid MBR", 16 * MIB, 512, |d| made("sgdisk", &["-n1:2048:+4M", "-n2:0:0", "-h", "1"], d)),
    ("only the backup of a GPT", 16 * MIB, 512, |d| {
        made("sgdisk", &["-n1:2048:0"], d);
        put(d, 0, &[0; 34 * 512]);
    }),
    ("BIOS boot code alone", 16 * MIB, 512, |d| put(d, 510, &[0x55, 0xaa])),
    ("logical partitions that go in circles", 16 * MIB, 512, looping_records),
    ("ZFS' four labels", 64 * MIB, 512, |d| {
        for label in [0, 256 << 10, 64 * MIB - (512 << 10), 64 * MIB - (256 << 10)] {
            for slot in 0..8 {
                put(d, label + (128 << 10) + slot * 1024, &0x00ba_b10c_u64.to_le_bytes());
            }
        }
    }),
    ("LUKS2's second header", 32 * MIB, 512, |d| {
        put(d, 0, b"LUKS\xba\xbe\x00\x02");
        put(d, 16 << 10, b"SKUL\xba\xbe\x00\x02");
        put(d, 4 * MIB, b"SKUL\xba\xbe\x00\x02");
    }),
    ("bcache", 32 * MIB, 512, |d| made("make-bcache", &["--wipe-bcache", "-B"], d)),
    ("ISO 9660, hybrid", 32 * MIB, 512, iso),
    ("Intel", 32 * MIB, 512, |d| put(d, 32 * MIB - 1024, b"Intel Raid ISM Cfg Sig. 1.1.00")),
    ("Highpoint and Promise", 32 * MIB, 512, |d| {
        put(d, 32 * MIB - 63 * 512, b"Promise Technology, Inc.");
        put(d, 9 * 512 + 32, &0x5a78_16f0_u32.to_le_bytes());
    }),
    ("ext4 under swap under xfs", 512 * MIB, 512, |d| {
        made("mke2fs", &["-q", "-t", "ext4"], d);
        let head = d.bytes(1024, 4096);
        made("mkfs.xfs", &["-q", "-f"], d);
        put(d, 1024, &head);
        put(d, 4096 - 10, b"SWAPSPACE2");
    }),
];

/// An extended partition whose second record leads back to the first.
fn looping_records(disk: &LoopDisk) {
    let record = |entries: &[(u8, u32, u32)]| {
        let mut sector = [0u8; 512];
        for (n, (kind, start, size)) in entries.iter().enumerate() {
            let entry = &mut sector[446 + 16 * n..462 + 16 * n];
            entry[4] = *kind;
            entry[8..12].copy_from_slice(&start.to_le_bytes());
            entry[12..16].copy_from_slice(&size.to_le_bytes());
        }
        sector[510..].copy_from_slice(&[0x55, 0xaa]);
        sector
    };
    put(disk, 0, &record(&[(0x05, 2048, 24576)]));
    put(disk, MIB, &record(&[(0x83, 64, 1024), (0x05, 4096, 2048)]));
    put(disk, 3 * MIB, &record(&[(0x83, 64, 1024), (0x05, 4096, 2048)]));
}

fn iso(disk: &LoopDisk) {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("file"), "x").unwrap();
    let image = dir.path().join("image.iso");
    let (image, files) = (image.to_str().unwrap(), dir.path().to_str().unwrap());
    tool("xorriso", &["-as", "mkisofs", "-quiet", "-partition_offset", "16", "-o", image, files]);
    put(disk, 0, &std::fs::read(image).unwrap());
}

#[test]
fn every_kind_of_left_over_is_cleared() {
    for &(name, size, sector, make) in LEFT_OVERS {
        let disk = LoopDisk::new(size, sector);
        make(&disk);
        assert_ne!(found(&disk), "", "{name}: the judges see nothing of it");
        let result = teardown(&bench(), &[&disk]);
        println!("{name}: {}", result.devices[0].facts["signatures"]);
        is_clear(name, &disk, &result);
    }
}

/// What was inside of partitions does not come back with the next table that is made alike.
#[test]
fn the_same_table_shows_nothing_again() {
    const TABLE: [&str; 3] = ["-n1:2048:+32M", "-n2:0:+64M", "-n3:0:0"];
    let disk = LoopDisk::new(512 * MIB, 512);
    made("sgdisk", &TABLE, &disk);
    let part = |start: u64, length: u64, program: &str, args: &[&str]| {
        let range = ["--offset", &start.to_string(), "--sizelimit", &length.to_string()].map(str::to_owned);
        let args_of: Vec<&str> =
            range.iter().map(String::as_str).chain(["-f", "--show", disk.device.as_str()]).collect();
        let window = tool("losetup", &args_of);
        tool(program, &[args, &[window.trim()][..]].concat());
        tool("losetup", &["-d", window.trim()]);
    };
    part(MIB, 32 * MIB, "mkfs.vfat", &[]);
    part(33 * MIB, 64 * MIB, "mke2fs", &["-q", "-t", "ext4"]);
    part(97 * MIB, 414 * MIB, "mkfs.btrfs", &["-q"]);
    let result = teardown(&bench(), &[&disk]);
    is_clear("partitions", &disk, &result);
    let facts = result.devices[0].facts["signatures"].to_string();
    for kind in ["partition 1: vfat", "partition 2: ext4", "partition 3: btrfs", "gpt partition table"] {
        assert!(facts.contains(kind), "{kind} is not in {facts}");
    }
    made("sgdisk", &TABLE, &disk);
    for (number, start, length) in [(1, MIB, 32 * MIB), (2, 33 * MIB, 64 * MIB), (3, 97 * MIB, 414 * MIB)] {
        let (offset, size) = (start.to_string(), length.to_string());
        let output = Command::new("blkid").args(["-p", "-O", &offset, "-S", &size, &disk.device]).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), "", "partition {number} has come back");
    }
}

#[test]
fn members_that_are_not_named_refuse_it() {
    let (one, two) = (LoopDisk::new(256 * MIB, 512), LoopDisk::new(256 * MIB, 512));
    tool("mkfs.btrfs", &["-q", "-f", "-d", "raid1", "-m", "raid1", &one.device, &two.device]);
    let before = (one.digest(), two.digest());
    let refused = teardown(&bench(), &[&one]);
    let fault = refused.fault.expect("refused");
    assert_eq!((refused.outcome, fault.code), (Outcome::FailedUnchanged, FaultCode::DiskInUse));
    assert!(fault.message.contains(&two.device) && fault.message.contains("not named"), "{fault}");
    assert_eq!((one.digest(), two.digest()), before);
    let both = teardown(&bench(), &[&one, &two]);
    assert_eq!(both.outcome, Outcome::Verified, "{:?}", both.fault);
    assert_eq!(found(&one) + &found(&two), "");
}

#[test]
fn a_mounted_disk_needs_leave() {
    let disk = LoopDisk::new(32 * MIB, 512);
    made("mke2fs", &["-q", "-t", "ext4"], &disk);
    let dir = tempfile::tempdir().unwrap();
    tool("mount", &[&disk.device, dir.path().to_str().unwrap()]);
    let refused = teardown(&bench(), &[&disk]).fault.expect("refused");
    assert_eq!(refused.code, FaultCode::DiskInUse);
    assert!(refused.message.contains("set `unmount`"), "{refused}");
    // Somebody works in it: told who, and nothing is written.
    let held = File::create(dir.path().join("open")).unwrap();
    let leave = TeardownTask { unmount: true, ..task(&[&disk]) };
    let busy = bench().run(&Task::Teardown(leave.clone()));
    let fault = busy.fault.expect("busy");
    assert_eq!((busy.outcome, fault.code), (Outcome::FailedUnchanged, FaultCode::DiskInUse));
    assert!(fault.message.contains(&format!("process {}", std::process::id())), "{fault}");
    drop(held);
    let done = bench().run(&Task::Teardown(leave));
    is_clear("mounted", &disk, &done);
    assert!(done.devices[0].facts["taken_down"][0].as_str().unwrap().starts_with("unmount "), "{done:?}");
}

#[test]
fn a_plan_of_before_does_not_count() {
    let disk = LoopDisk::new(16 * MIB, 512);
    made("mkswap", &["-q"], &disk);
    let bench = bench();
    let task = Task::Teardown(task(&[&disk]));
    let plan = speediso_tasks::plan(&task, &bench.ctx).unwrap();
    assert!(plan.to_string().contains("clear swap") && plan.destructive, "{plan}");
    made("mke2fs", &["-q", "-F", "-t", "ext4"], &disk);
    let before = disk.digest();
    let result = speediso_tasks::execute(&task, &plan.digest(), &bench.ctx);
    assert_eq!((result.outcome, result.fault.unwrap().code), (Outcome::FailedUnchanged, FaultCode::PlanMismatch));
    assert_eq!(disk.digest(), before);
}

/// A table that says it has 2^32 entries, and one whose partitions lie everywhere.
#[test]
fn hostile_tables_do_no_harm_to_others() {
    let (disk, other) = (LoopDisk::new(16 * MIB, 512), LoopDisk::new(16 * MIB, 512));
    let beside = other.fill(3);
    for (at, bytes) in [
        (512 + 80, u32::MAX.to_le_bytes().to_vec()),
        (512 + 84, u32::MAX.to_le_bytes().to_vec()),
        (1024 + 32, u64::MAX.to_le_bytes().to_vec()),
        (1024 + 40, (u64::MAX / 2).to_le_bytes().to_vec()),
    ] {
        made("sgdisk", &["--zap-all"], &disk);
        made("sgdisk", &["-n1:2048:+4M", "-n2:0:0"], &disk);
        put(&disk, at, &bytes);
        let result = teardown(&bench(), &[&disk]);
        assert_eq!(result.outcome, Outcome::Verified, "{at}: {:?}", result.fault);
        assert_eq!(found(&disk), "", "{at}");
    }
    assert_eq!(other.digest(), beside);
}

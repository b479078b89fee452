//! `wipe`, `partition` and `config_drive` on real loop devices, checked with other people's tools.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod support;

use speediso_model::fault::FaultCode;
use speediso_model::outcome::{Changed, Outcome};
use speediso_model::task::{
    ConfigDriveContent, ConfigDriveFormat, ConfigDriveTask, PartitionKind, PartitionSize, PartitionSpec, PartitionTask,
    Task, WipeLevel, WipePass, WipeTargets, WipeTask, WipeVerify,
};
use speediso_model::units::Bytes;
use support::{Bench, LoopDisk, MIB, tool};

#[test]
fn a_wiped_disk_holds_nothing_and_its_neighbour_everything() {
    let bench = Bench::new();
    let neighbour = LoopDisk::new(8 * MIB, 512);
    let before = neighbour.fill(9);
    for (sector, verify, passes_before) in [
        (512, WipeVerify::Full, vec![WipePass::Zeroes, WipePass::Random]),
        (4096, WipeVerify::SamplePercent(10), vec![]),
    ] {
        // Not a multiple of the buffer.
        let (a, b) = (LoopDisk::new(21 * MIB + 8192, sector), LoopDisk::new(13 * MIB, sector));
        for disk in [&a, &b] {
            disk.fill(2);
            tool("mke2fs", &["-q", "-F", &disk.device]);
        }
        let canary = b"0123456789 this belongs to somebody else";
        let task = Task::Wipe(WipeTask {
            passes_before,
            verify,
            ..WipeTask::new(WipeTargets::Hints(vec![a.hints(), b.hints()]), WipeLevel::Clear)
        });
        std::os::unix::fs::FileExt::write_all_at(
            &std::fs::File::options().write(true).open(&a.file).unwrap(),
            canary,
            9_999_999,
        )
        .unwrap();
        let result = bench.run(&task);
        assert_eq!((result.outcome, result.devices.len()), (Outcome::Verified, 2), "{result:?}");
        for disk in [&a, &b] {
            let blkid = std::process::Command::new("blkid").args(["-p", &disk.device]).output().unwrap();
            assert_eq!(blkid.status.code(), Some(2), "blkid finds {}", String::from_utf8_lossy(&blkid.stdout));
            let bytes = std::fs::read(&disk.file).unwrap();
            assert!(!bytes.windows(canary.len()).any(|w| w == canary));
            // Every sector says where it is.
            for (i, unit) in bytes.chunks_exact(512).enumerate() {
                assert_eq!(unit[16..24], (i as u64 * 512).to_le_bytes(), "sector {i} of {}", disk.device);
            }
        }
        assert_eq!(neighbour.digest(), before);
    }
}

fn layout(disk: &LoopDisk) -> PartitionTask {
    PartitionTask::new(
        disk.hints(),
        vec![
            PartitionSpec::new("esp", PartitionKind::Esp, PartitionSize::Bytes(Bytes(4 * MIB))),
            PartitionSpec::new("root", PartitionKind::Linux, PartitionSize::Rest),
        ],
    )
}

#[test]
fn a_new_table_is_right_and_made_once() {
    let bench = Bench::new();
    for sector in [512, 4096] {
        let disk = LoopDisk::new(32 * MIB, sector);
        disk.fill(8);
        let task = Task::Partition(layout(&disk));
        let result = bench.run(&task);
        assert_eq!((result.outcome, result.changed), (Outcome::Verified, Some(Changed::Changed)), "{result:?}");
        let check = tool("sgdisk", &["-v", &disk.device]);
        assert!(check.contains("No problems found"), "{check}");
        let info = tool("sgdisk", &["-i", "2", &disk.device]);
        assert!(info.contains("'root'") && info.contains("0FC63DAF"), "{info}");
        // Nothing of before comes to light at the start of a partition.
        assert!(
            disk.bytes(MIB, 1 << 20).iter().all(|b| *b == 0) && disk.bytes(5 * MIB, 1 << 20).iter().all(|b| *b == 0)
        );

        let once = disk.digest();
        let again = bench.run(&task);
        assert_eq!((again.outcome, again.changed), (Outcome::Verified, Some(Changed::AlreadySo)), "{again:?}");
        assert_eq!(disk.digest(), once, "the second time must change nothing");

        // The same table is not the same disk: what is in a partition goes, and a damaged copy of the table too.
        for spoilt in [5 * MIB + 4096, 32 * MIB - 16 * 1024] {
            disk.write(spoilt, b"somebody's data");
            let third = bench.run(&task);
            assert_eq!((third.outcome, third.changed), (Outcome::Verified, Some(Changed::Changed)), "{third:?}");
            assert!(disk.bytes(5 * MIB, 1 << 20).iter().all(|b| *b == 0));
            let check = tool("sgdisk", &["-v", &disk.device]);
            assert!(check.contains("No problems found"), "{check}");
        }
    }
}

#[test]
fn a_config_drive_is_found_and_read_by_others() {
    let bench = Bench::new();
    for (sector, format, label) in
        [(512, ConfigDriveFormat::NoCloud, "CIDATA"), (4096, ConfigDriveFormat::Config2, "config-2")]
    {
        let disk = LoopDisk::new(64 * MIB, sector);
        tool("sgdisk", &["-n", "1:0:+16M", &disk.device]);
        let content = |hostname: &str| ConfigDriveContent {
            format,
            instance_id: "i-1".into(),
            hostname: hostname.into(),
            ssh_keys: vec![format!("ssh-ed25519 {}", "A".repeat(68))],
            user_data: Some("#cloud-config\n{}\n".into()),
            network: None,
        };
        let task = |hostname: &str| {
            Task::ConfigDrive(ConfigDriveTask { device: disk.hints(), content: Some(content(hostname)), image: None })
        };
        // Twice: the second replaces the first instead of standing beside it.
        for hostname in ["first", "second"] {
            let result = bench.run(&task(hostname));
            assert_eq!(result.outcome, Outcome::Verified, "{result:?}");
        }
        let check = tool("sgdisk", &["-v", &disk.device]);
        assert!(check.contains("No problems found"), "{check}");
        let table = tool("sgdisk", &["-p", &disk.device]);
        assert_eq!(
            table.lines().filter(|l| l.trim_start().starts_with(|c: char| c.is_ascii_digit())).count(),
            2,
            "{table}"
        );
        let info = tool("sgdisk", &["-i", "2", &disk.device]);
        let first: u64 = info
            .lines()
            .find_map(|l| l.strip_prefix("First sector: "))
            .and_then(|l| l.split(' ').next())
            .unwrap()
            .parse()
            .unwrap();
        // A second loop device shows what stands in the partition.
        let offset = (first * u64::from(sector)).to_string();
        let sectors = sector.to_string();
        let part = tool(
            "losetup",
            &["-f", "--show", "-b", &sectors, "-o", &offset, "--sizelimit", "8388608", disk.file.to_str().unwrap()],
        );
        let part = part.trim();
        let seen =
            std::process::Command::new("blkid").args(["-p", "-o", "value", "-s", "LABEL", part]).output().unwrap();
        let fsck = std::process::Command::new("fsck.vfat").args(["-n", part]).output().unwrap();
        let file = if format == ConfigDriveFormat::NoCloud { "meta-data" } else { "openstack/latest/meta_data.json" };
        let meta = std::process::Command::new("mtype").args(["-i", part, &format!("::/{file}")]).output().unwrap();
        tool("losetup", &["-d", part]);
        assert_eq!(String::from_utf8_lossy(&seen.stdout).trim().to_lowercase(), label.to_lowercase());
        assert!(fsck.status.success(), "{}", String::from_utf8_lossy(&fsck.stdout));
        assert!(meta.status.success(), "{}", String::from_utf8_lossy(&meta.stderr));
        let meta: serde_json::Value = serde_json::from_slice(&meta.stdout).unwrap();
        assert!(meta["local-hostname"] == "second" || meta["hostname"] == "second", "{meta}");
    }
}

#[test]
fn no_table_and_no_room_change_nothing() {
    let bench = Bench::new();
    let disk = LoopDisk::new(32 * MIB, 512);
    let task = Task::ConfigDrive(ConfigDriveTask {
        device: disk.hints(),
        content: Some(ConfigDriveContent {
            format: ConfigDriveFormat::NoCloud,
            instance_id: "i".into(),
            hostname: "h".into(),
            ssh_keys: Vec::new(),
            user_data: None,
            network: None,
        }),
        image: None,
    });
    let before = disk.fill(3);
    let result = bench.run(&task);
    assert_eq!((result.outcome, result.fault.unwrap().code), (Outcome::FailedUnchanged, FaultCode::PartitionTable));
    assert_eq!(disk.digest(), before);
    tool("sgdisk", &["-Z", &disk.device]);
    tool("sgdisk", &["-n", "1:0:0", &disk.device]);
    let before = disk.digest();
    let result = bench.run(&task);
    assert_eq!((result.outcome, result.fault.unwrap().code), (Outcome::FailedUnchanged, FaultCode::DiskTooSmall));
    assert_eq!(disk.digest(), before);
}

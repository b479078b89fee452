//! Disks become images on servers that take them well, badly, and not at all; and become disks again.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

#[path = "support/store.rs"]
#[allow(unreachable_pub, reason = "as support")]
mod store;
mod support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use speediso_image::manifest::{Chunk, ImageDirectory};
use speediso_model::capture::{CaptureTarget, CaptureTask};
use speediso_model::fault::FaultCode;
use speediso_model::image::{Compression, ImageFormat};
use speediso_model::outcome::{Changed, Outcome, TaskResult};
use speediso_model::partition::PartitionName;
use speediso_model::task::{Task, WriteImageTask};
use store::{PutServer, Taking};
use support::*;

/// ESP, root on ext4, swap-like noise without a filesystem; a gap before the end.
struct System {
    disk: LoopDisk,
    dir: tempfile::TempDir,
}

impl System {
    fn new(sector: u32) -> Self {
        let disk = LoopDisk::new(96 * MIB, sector);
        disk.fill(9);
        tool("sgdisk", &["-Z", &disk.device]);
        let parts =
            ["-n", "1:0:+34M", "-t", "1:ef00", "-c", "1:esp", "-n", "2:0:+40M", "-c", "2:root", "-n", "3:0:+8M"];
        tool("sgdisk", &[&parts[..], &["-c", "3:other", &disk.device]].concat());
        let system = Self { disk, dir: tempfile::tempdir().unwrap() };
        system.with(1, 34, |esp| {
            let cluster = (4096 / sector).to_string();
            tool("mkfs.vfat", &["-F", "16", "-s", &cluster, "-S", &sector.to_string(), esp]);
        });
        system.with(2, 40, |root| {
            tool("mkfs.ext4", &["-q", "-F", "-b", "4096", "-E", "nodiscard", root]);
            system.mounted(root, "rw", |at| {
                for n in 0..40u8 {
                    std::fs::write(at.join(format!("f{n}")), vec![n; 9000 * usize::from(n)]).unwrap();
                }
                for n in (0..40).step_by(3) {
                    std::fs::remove_file(at.join(format!("f{n}"))).unwrap();
                }
            });
        });
        system
    }

    /// The kernel here scans no partitions of loop devices, so each gets a loop device of its own.
    fn with(&self, number: u64, mib: u64, work: impl FnOnce(&str)) {
        with_partition(&self.disk, number, mib, work);
    }

    fn mounted<T>(&self, device: &str, how: &str, work: impl FnOnce(&Path) -> T) -> T {
        let at = self.dir.path().join("mnt");
        std::fs::create_dir_all(&at).unwrap();
        tool("mount", &["-o", how, device, at.to_str().unwrap()]);
        let done = work(&at);
        tool("umount", &[at.to_str().unwrap()]);
        done
    }

    fn files(&self, disk: &LoopDisk) -> BTreeMap<PathBuf, blake3::Hash> {
        let mut found = BTreeMap::new();
        with_partition(disk, 2, 40, |root| {
            tool("e2fsck", &["-fn", root]);
            self.mounted(root, "ro", |at| {
                for entry in std::fs::read_dir(at).unwrap().map(Result::unwrap).filter(|e| e.path().is_file()) {
                    found.insert(entry.path(), blake3::hash(&std::fs::read(entry.path()).unwrap()));
                }
            });
        });
        assert_eq!(found.len(), 26);
        found
    }
}

fn with_partition(disk: &LoopDisk, number: u64, mib: u64, work: impl FnOnce(&str)) {
    let start = [0, 1, 35, 75][usize::try_from(number).unwrap()] * MIB;
    let (offset, size) = (start.to_string(), (mib * MIB).to_string());
    let sector = tool("blockdev", &["--getss", &disk.device]);
    let options = ["-f", "--show", "-b", sector.trim(), "-o", &offset, "--sizelimit", &size];
    tool("blockdev", &["--flushbufs", &disk.device]);
    let device = tool("losetup", &[&options[..], &[disk.file.to_str().unwrap()]].concat());
    work(device.trim());
    tool("losetup", &["-d", device.trim()]);
    tool("blockdev", &["--flushbufs", &disk.device]);
}

fn task(disk: &LoopDisk, server: &PutServer) -> CaptureTask {
    let headers = BTreeMap::from([("Authorization".to_owned(), "Bearer xyz".to_owned())]);
    let to = CaptureTarget { store: None, url: Some(server.url.clone()), headers };
    CaptureTask { device: disk.hints(), partition: None, to, level: 3 }
}

fn capture(bench: &Bench, task: &CaptureTask) -> TaskResult {
    bench.run(&Task::Capture(task.clone()))
}

/// What the server has, as a directory.
fn fetched(server: &PutServer) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(server.names(), ["chunks.bin", "chunks.idx", "manifest.json"]);
    for name in server.names() {
        std::fs::write(dir.path().join(&name), server.file(&name)).unwrap();
    }
    dir
}

#[track_caller]
fn verified(result: &TaskResult) -> &serde_json::Value {
    assert_eq!(result.outcome, Outcome::Verified, "{:?}", result.fault);
    assert_eq!(result.changed, Some(Changed::AlreadySo));
    &result.devices[0].facts
}

#[test]
fn a_disk_is_captured_and_deployed_again() {
    for sector in [512, 4096] {
        let (bench, system, server) = (Bench::new(), System::new(sector), PutServer::well());
        let before = system.disk.digest();
        let capturing = task(&system.disk, &server);
        let plan = speediso_tasks::plan(&Task::Capture(capturing.clone()), &bench.ctx).unwrap();
        let shown = plan.to_string();
        assert!(!plan.destructive && shown.contains("partition 2 \"root\": ext2/3/4"), "{shown}");
        assert!(shown.contains("/images/web") && !shown.contains("secret"), "{shown}");

        let result = capture(&bench, &capturing);
        let facts = verified(&result);
        println!("{facts:#}");
        assert_eq!(system.disk.digest(), before, "a capture only reads");
        assert_eq!(facts["disk_bytes"], 96 * MIB);
        // 34 MiB of ESP and most of 40 MiB of root are free.
        let used = facts["used_bytes"].as_u64().unwrap();
        assert!((30 * MIB..50 * MIB).contains(&used), "{used}");
        assert!(facts["stored_bytes"].as_u64().unwrap() < used);
        let kept: Vec<bool> =
            facts["filesystems"].as_array().unwrap().iter().map(|found| !found["kept_whole"].is_null()).collect();
        assert_eq!(kept, [false, false, true]);

        // All that is not known to be free is in the image as it is on the disk.
        let dir = fetched(&server);
        let image = ImageDirectory::open(dir.path(), None).unwrap();
        assert_eq!(image.manifest.sector_size(), Some(sector));
        assert!(image.index.chunks().filter(|chunk| *chunk == Chunk::Zero).count() > 40);
        let raw = dir.path().join("raw");
        image.unpack(&raw, &mut |_| {}).unwrap();
        let (raw, disk) = (std::fs::read(raw).unwrap(), std::fs::read(&system.disk.file).unwrap());
        let same = |from: usize, to: usize| raw[from << 20..to << 20] == disk[from << 20..to << 20];
        assert!(same(0, 1) && same(75, 96), "what no filesystem describes is kept");

        let target = LoopDisk::new(120 * MIB, sector);
        target.fill(4);
        let files = Server::files(dir.path(), |_, _, _| {});
        let mut image = source(&files.url.replace("/image", "/manifest.json"), b"", Compression::None);
        image.format = ImageFormat::Manifest;
        image.digest = Some(facts["digest"].as_str().unwrap().parse().unwrap());
        let write = WriteImageTask::new(target.hints(), image);
        let written = bench.run(&Task::WriteImage(write));
        assert_eq!(written.outcome, Outcome::Verified, "{:?}", written.fault);
        assert!(tool("sgdisk", &["-v", &target.device]).contains("No problems found"));
        assert_eq!(system.files(&target), system.files(&system.disk));
        with_partition(&target, 1, 34, |esp| drop(tool("fsck.vfat", &["-n", esp])));
    }
}

#[test]
fn a_partition_is_found_by_each_of_its_names() {
    let (bench, system) = (Bench::new(), System::new(512));
    let uuid = tool("sfdisk", &["--part-uuid", &system.disk.device, "2"]).trim().parse().unwrap();
    for name in [PartitionName::Number(2), PartitionName::Label("root".into()), PartitionName::Uuid(uuid)] {
        let server = PutServer::well();
        let result = capture(&bench, &CaptureTask { partition: Some(name), ..task(&system.disk, &server) });
        assert_eq!(verified(&result)["disk_bytes"], 40 * MIB);
        let dir = fetched(&server);
        let image = ImageDirectory::open(dir.path(), None).unwrap();
        assert_eq!((image.manifest.disk_size(), image.manifest.sector_size()), (40 * MIB, None));
        let raw = dir.path().join("raw");
        image.unpack(&raw, &mut |_| {}).unwrap();
        tool("e2fsck", &["-fn", raw.to_str().unwrap()]);
    }
    let server = PutServer::well();
    for name in [PartitionName::Number(4), PartitionName::Label("swap".into())] {
        let result = capture(&bench, &CaptureTask { partition: Some(name), ..task(&system.disk, &server) });
        failed(&result, Outcome::FailedUnchanged, FaultCode::PartitionTable);
        assert_eq!(result.fault.unwrap().causes.len(), 3, "the partitions that there are");
    }
    assert!(server.log().is_empty());
}

#[test]
fn a_server_that_does_not_take_it_well_is_never_a_success() {
    use FaultCode::{UploadBroken, UploadMismatch, UploadRefused};
    let (bench, system) = (Bench::new(), System::new(512));
    let before = system.disk.digest();
    for (file, taking, codes) in [
        ("chunks.bin", Taking::Status(403), &[UploadRefused, UploadBroken][..]),
        ("chunks.bin", Taking::Status(507), &[UploadRefused, UploadBroken]),
        ("chunks.bin", Taking::Status(500), &[UploadBroken]),
        ("chunks.bin", Taking::CutAfter(500_000), &[UploadBroken]),
        ("chunks.bin", Taking::Stall, &[UploadBroken]),
        ("chunks.bin", Taking::Flip, &[UploadMismatch]),
        ("chunks.bin", Taking::Shorten, &[UploadMismatch]),
        ("chunks.bin", Taking::Hasty, &[UploadMismatch, UploadBroken]),
        ("chunks.bin", Taking::Redirect, &[UploadRefused, UploadBroken]),
        ("chunks.idx", Taking::Status(403), &[UploadRefused]),
        ("chunks.idx", Taking::Status(503), &[UploadBroken]),
        ("chunks.idx", Taking::Flip, &[UploadMismatch]),
        ("manifest.json", Taking::Redirect, &[UploadRefused]),
        ("manifest.json", Taking::Status(403), &[UploadRefused]),
        ("manifest.json", Taking::Flip, &[UploadMismatch]),
    ] {
        let server = PutServer::start(move |name, _| if name == file { taking } else { Taking::Well });
        let result = capture(&bench, &task(&system.disk, &server));
        let fault = result.fault.as_ref().unwrap_or_else(|| panic!("{file} {taking:?} must fail: {result:?}"));
        println!("{file} {taking:?}: {fault}");
        assert_eq!(result.outcome, Outcome::FailedUnchanged, "{file} {taking:?}: {fault}");
        assert!(codes.contains(&fault.code), "{file} {taking:?}: {fault}");
        assert!(!fault.to_string().contains("secret"), "{fault}");
        // Half an image is taken away again; nothing is left that could be taken for one.
        let left: Vec<String> =
            server.names().into_iter().filter(|name| taking != Taking::Hasty || name != file).collect();
        assert!(left.is_empty(), "{file} {taking:?} leaves {left:?}");
    }
    assert_eq!(system.disk.digest(), before);
}

#[test]
fn small_files_are_sent_again_and_nothing_is_overwritten() {
    let (bench, system) = (Bench::new(), System::new(512));
    let flaky = PutServer::start(|name, before| match (name, before) {
        ("chunks.idx", 0 | 1) => Taking::Status(503),
        ("manifest.json", 0) => Taking::CutAfter(10),
        _ => Taking::Well,
    });
    verified(&capture(&bench, &task(&system.disk, &flaky)));
    let puts = flaky.log().iter().filter(|entry| entry.starts_with("PUT")).count();
    assert_eq!(puts, 1 + 3 + 2);
    for there in ["chunks.bin", "chunks.idx", "manifest.json"] {
        let server = PutServer::well();
        server.put(there, b"somebody's");
        let result = capture(&bench, &task(&system.disk, &server));
        failed(&result, Outcome::FailedUnchanged, FaultCode::UploadRefused);
        assert_eq!(server.file(there), b"somebody's");
        assert!(server.log().iter().all(|entry| entry.starts_with("GET")), "{:?}", server.log());
    }
}

#[test]
fn a_disk_that_cannot_be_read_leaves_no_image() {
    let (bench, system, server) = (Bench::new(), System::new(512), PutServer::well());
    // The medium ends in the middle of the third partition, while the disk says it goes on.
    let plan = speediso_tasks::plan(&Task::Capture(task(&system.disk, &server)), &bench.ctx).unwrap();
    std::fs::File::options().write(true).open(&system.disk.file).unwrap().set_len(78 * MIB).unwrap();
    let result = speediso_tasks::execute(&Task::Capture(task(&system.disk, &server)), &plan.digest(), &bench.ctx);
    let fault = result.fault.as_ref().expect("a fault");
    println!("{fault}");
    assert_eq!(result.outcome, Outcome::FailedUnchanged);
    assert_eq!(fault.code, FaultCode::DiskIo);
    assert!(fault.message.contains("at byte") && fault.message.contains(&system.disk.device), "{fault}");
    assert!(server.names().is_empty(), "{:?}", server.names());
}

#[test]
fn what_is_in_use_or_has_nowhere_to_go_is_refused() {
    let (bench, system, server) = (Bench::new(), System::new(512), PutServer::well());
    let held = speediso_sys::claim::ClaimedDisk::claim(
        &bench.ctx.roots,
        bench.ctx.scope,
        &speediso_tasks::plan(&Task::Capture(task(&system.disk, &server)), &bench.ctx).unwrap().devices[0].identity,
        false,
    );
    failed(&capture(&bench, &task(&system.disk, &server)), Outcome::FailedUnchanged, FaultCode::DiskInUse);
    drop(held.unwrap());
    let mut to_store = task(&system.disk, &server);
    to_store.to = CaptureTarget { store: Some("web1".into()), ..CaptureTarget::default() };
    failed(&capture(&bench, &to_store), Outcome::FailedUnchanged, FaultCode::Unsupported);
    // Another table than that of the plan.
    let capturing =
        Task::Capture(CaptureTask { partition: Some(PartitionName::Number(3)), ..task(&system.disk, &server) });
    let plan = speediso_tasks::plan(&capturing, &bench.ctx).unwrap();
    tool("sgdisk", &["-d", "3", "-n", "3:0:+4M", &system.disk.device]);
    let result = speediso_tasks::execute(&capturing, &plan.digest(), &bench.ctx);
    failed(&result, Outcome::FailedUnchanged, FaultCode::PlanMismatch);
    assert!(server.log().is_empty(), "{:?}", server.log());
}

#[test]
fn a_capture_that_is_cancelled_sends_no_end() {
    let (bench, system) = (Bench::new(), System::new(512));
    let cancel = bench.ctx.cancel.clone();
    let server = PutServer::start(move |_, _| {
        cancel.cancel();
        Taking::Well
    });
    failed(&capture(&bench, &task(&system.disk, &server)), Outcome::FailedUnchanged, FaultCode::Cancelled);
    // The data may have been on its way still when it was taken back; an image it is not.
    assert!(!server.names().contains(&"manifest.json".to_owned()));
}

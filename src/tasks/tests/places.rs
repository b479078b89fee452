//! Images that go elsewhere than over one whole disk: into a partition, around what is kept, onto several disks; and
//! file systems that grow.
#![allow(clippy::unwrap_used, clippy::panic, clippy::cast_possible_truncation, reason = "tests")]

mod support;

use std::path::Path;
use std::process::Command;

use speediso_image::manifest::{PackOptions, pack};
use speediso_model::fault::FaultCode;
use speediso_model::image::{Compression, ImageFormat, ImageSource};
use speediso_model::outcome::{Outcome, TaskResult};
use speediso_model::task::{Grow, PartitionName, Task, WriteImageTask};
use speediso_model::units::Bytes;
use support::*;

const MB: usize = 1 << 20;

fn run(bench: &Bench, task: WriteImageTask) -> TaskResult {
    bench.run(&Task::WriteImage(task))
}

#[track_caller]
fn verified(result: &TaskResult) {
    assert_eq!(result.outcome, Outcome::Verified, "{result:?}");
}

/// A disk with an ESP, a root and, at its very end, data.
fn partitioned(size: u64, data_start: &str) -> LoopDisk {
    let disk = LoopDisk::new(size, 512);
    disk.fill(11);
    tool("sgdisk", &["-Z", &disk.device]);
    let data = format!("5:{data_start}:0");
    tool(
        "sgdisk",
        &[
            "-n",
            "1:0:+2M",
            "-t",
            "1:ef00",
            "-c",
            "1:esp",
            "-n",
            "2:0:+8M",
            "-c",
            "2:root",
            "-n",
            &data,
            "-c",
            "5:data",
            &disk.device,
        ],
    );
    // The BIOS would run it.
    disk.write(0, &[0x90; 440]);
    disk
}

/// Start and length of a partition as sgdisk sees it, in bytes.
fn place(disk: &LoopDisk, number: u32) -> (u64, usize) {
    let text = tool("sgdisk", &["-i", &number.to_string(), &disk.device]);
    let value = |name: &str| -> u64 {
        let line = text.lines().find(|l| l.starts_with(name)).unwrap_or_else(|| panic!("no {name} in {text}"));
        line.split(' ').nth(2).unwrap().parse().unwrap()
    };
    let (first, last) = (value("First sector:"), value("Last sector:"));
    (first * 512, usize::try_from((last + 1 - first) * 512).unwrap())
}

fn noise(length: usize, seed: u8) -> Vec<u8> {
    (0..length).map(|i| (i % 251) as u8 ^ seed ^ (i >> 12) as u8).collect()
}

#[test]
fn an_image_goes_into_a_partition_and_nowhere_else() {
    let bench = Bench::new();
    let disk = partitioned(32 * MIB, "+1M");
    let before = disk.bytes(0, 32 * MB);
    let (start, length) = place(&disk, 2);
    let bytes = noise(length - 3 * MB, 1);
    let server = Server::serve(bytes.clone(), Answer::Whole);
    let image = source(&server.url, &bytes, Compression::None);
    let uuid = tool("sgdisk", &["-i", "2", &disk.device]);
    let uuid = uuid.lines().find_map(|l| l.strip_prefix("Partition unique GUID: ")).unwrap().trim().parse().unwrap();
    for name in [PartitionName::Number(2), PartitionName::Label("root".into()), PartitionName::Uuid(uuid)] {
        let task = WriteImageTask { partition: Some(name), ..WriteImageTask::new(disk.hints(), image.clone()) };
        verified(&run(&bench, task));
        let mut expected = before.clone();
        let at = usize::try_from(start).unwrap();
        expected[at..at + bytes.len()].copy_from_slice(&bytes);
        let tail = at + length - MB;
        expected[tail..tail + MB].fill(0);
        assert!(disk.bytes(0, 32 * MB) == expected, "something else than the partition was written");
    }
}

#[test]
fn what_does_not_fit_a_partition_changes_nothing() {
    let bench = Bench::new();
    let disk = partitioned(32 * MIB, "+1M");
    let before = disk.digest();
    let fits = noise(4 * MB, 1);
    let large = noise(9 * MB, 1);
    let whole_disk = image(8 * MIB, 512);
    let named = |label: &str| Some(PartitionName::Label(label.into()));
    for (bytes, partition, code) in [
        (&large, named("root"), FaultCode::ImageTooLarge),
        (&fits, named("rooot"), FaultCode::PartitionTable),
        (&fits, Some(PartitionName::Number(3)), FaultCode::PartitionTable),
        (&whole_disk, named("root"), FaultCode::ImageFormat),
    ] {
        let server = Server::serve(bytes.clone(), Answer::Whole);
        let image = source(&server.url, bytes, Compression::None);
        let task = WriteImageTask { partition, ..WriteImageTask::new(disk.hints(), image) };
        failed(&run(&bench, task), Outcome::FailedUnchanged, code);
        assert_eq!(disk.digest(), before);
    }
}

#[test]
fn a_partition_that_failed_holds_no_file_system() {
    let bench = Bench::new();
    let disk = partitioned(32 * MIB, "+1M");
    let (start, length) = place(&disk, 2);
    let mut expected = disk.bytes(0, 32 * MB);
    let bytes = noise(length, 1);
    let server = Server::serve(bytes.clone(), Answer::Whole);
    let image = source(&server.url, &bytes[1..], Compression::None);
    let task = WriteImageTask { partition: Some(PartitionName::Number(2)), ..WriteImageTask::new(disk.hints(), image) };
    let result = run(&bench, task);
    failed(&result, Outcome::FailedChanged, FaultCode::ImageDigestMismatch);
    let after = disk.bytes(0, 32 * MB);
    let at = usize::try_from(start).unwrap();
    assert!(after[at..at + MB].iter().all(|b| *b == 0) && after[at + length - MB..at + length].iter().all(|b| *b == 0));
    expected[at..at + length].copy_from_slice(&after[at..at + length]);
    assert!(after == expected, "something else than the partition was written");
}

fn keeping(disk: &LoopDisk, image: ImageSource) -> WriteImageTask {
    WriteImageTask { keep_partitions: vec!["data".into()], ..WriteImageTask::new(disk.hints(), image) }
}

#[test]
fn what_is_to_be_kept_survives_an_image_of_any_format() {
    let bench = Bench::new();
    // The image ends before the data, or has a partition of the same name in the same place.
    for (beside, format) in [
        (true, ImageFormat::Raw),
        (true, ImageFormat::Qcow2),
        (true, ImageFormat::Manifest),
        (false, ImageFormat::Raw),
        (false, ImageFormat::Manifest),
    ] {
        let disk = partitioned(48 * MIB, "32M");
        let (start, length) = place(&disk, 5);
        let (data, guid) = (disk.bytes(start, length), tool("sgdisk", &["-i", "5", &disk.device]));
        let bytes = if beside {
            image(24 * MIB, 512)
        } else {
            let other = partitioned(48 * MIB, "32M");
            other.write(8 * MIB, &noise(38 * MB, 9));
            tool("blockdev", &["--flushbufs", &other.device]);
            std::fs::read(&other.file).unwrap()
        };
        let dir = tempfile::tempdir().unwrap();
        let (server, source) = served(&bytes, format, dir.path());
        let result = run(&bench, keeping(&disk, source));
        verified(&result);
        assert!(disk.bytes(start, length) == data, "{format:?}: what was to be kept has changed");
        assert_eq!(tool("sgdisk", &["-i", "5", &disk.device]), guid, "{format:?}: its entry has changed");
        assert!(tool("sgdisk", &["-v", &disk.device]).contains("No problems found"));
        assert!(tool("sgdisk", &["-p", &disk.device]).contains("root"));
        let until = if beside { 23 * MB } else { usize::try_from(start).unwrap() };
        assert!(disk.bytes(MIB, until - MB) == bytes[MB..until], "{format:?}: the image did not arrive");
        assert!(disk.bytes(0, 440) == bytes[..440], "{format:?}: the boot code is the image's");
        drop(server);
    }
}

/// The image in a format, and a server that has it.
fn served(bytes: &[u8], format: ImageFormat, dir: &Path) -> (Server, ImageSource) {
    let raw = dir.join("raw");
    std::fs::write(&raw, bytes).unwrap();
    let (name, digest_of) = match format {
        ImageFormat::Raw => ("raw", raw.clone()),
        ImageFormat::Qcow2 => {
            let to = dir.join("qcow2");
            tool("qemu-img", &["convert", "-f", "raw", "-O", "qcow2", raw.to_str().unwrap(), to.to_str().unwrap()]);
            ("qcow2", to)
        }
        ImageFormat::Tar => panic!("files are not a disk"),
        ImageFormat::Manifest => {
            let options = PackOptions { chunk_size: Some(1 << 20), level: Some(1), key: None, name: None };
            pack(&mut &bytes[..], None, &options, &dir.join("packed"), &mut |_| {}).unwrap();
            ("packed/manifest.json", dir.join("packed/manifest.json"))
        }
    };
    let server = Server::files(dir, |_, _, _| {});
    let mut image = source(
        &server.url.replace("/image", &format!("/{name}")),
        &std::fs::read(digest_of).unwrap(),
        Compression::None,
    );
    image.format = format;
    (server, image)
}

#[test]
fn what_conflicts_with_what_is_kept_changes_nothing() {
    let bench = Bench::new();
    let small = image(24 * MIB, 512);
    let no_table = noise(24 * MB, 4);
    let long = image(40 * MIB, 512);
    let other_place = {
        let disk = partitioned(48 * MIB, "30M");
        tool("blockdev", &["--flushbufs", &disk.device]);
        std::fs::read(&disk.file).unwrap()
    };
    for (bytes, keep, grow) in [
        (&long, "data", Grow::No),
        (&other_place, "data", Grow::No),
        (&no_table, "data", Grow::No),
        (&small, "dota", Grow::No),
        (&small, "data", Grow::Partition),
    ] {
        let disk = partitioned(48 * MIB, "32M");
        let before = disk.digest();
        let dir = tempfile::tempdir().unwrap();
        for format in [ImageFormat::Raw, ImageFormat::Qcow2, ImageFormat::Manifest] {
            let (_server, source) = served(bytes, format, dir.path());
            let _ = std::fs::remove_dir_all(dir.path().join("packed-before"));
            let task = WriteImageTask { keep_partitions: vec![keep.into()], grow, ..keeping(&disk, source) };
            failed(&run(&bench, task), Outcome::FailedUnchanged, FaultCode::PartitionTable);
            assert_eq!(disk.digest(), before);
        }
    }
}

#[test]
fn a_failure_leaves_what_is_kept_and_the_old_table_but_nothing_that_starts() {
    let bench = Bench::new();
    let disk = partitioned(48 * MIB, "32M");
    let (start, length) = place(&disk, 5);
    let (data, table) = (disk.bytes(start, length), tool("sgdisk", &["-p", &disk.device]));
    let bytes = image(24 * MIB, 512);
    let server = Server::serve(bytes.clone(), Answer::Whole);
    let result = run(&bench, keeping(&disk, source(&server.url, &bytes[1..], Compression::None)));
    failed(&result, Outcome::FailedChanged, FaultCode::ImageDigestMismatch);
    assert!(disk.bytes(start, length) == data, "what was to be kept has changed");
    assert_eq!(tool("sgdisk", &["-p", &disk.device]), table);
    assert!(disk.bytes(0, 440).iter().all(|b| *b == 0), "the boot code must be gone");
    for number in [1, 2] {
        let (at, _) = place(&disk, number);
        assert!(disk.bytes(at, 128 << 10).iter().all(|b| *b == 0), "partition {number} must not be mountable");
    }
}

#[test]
fn several_disks_take_one_stream_and_one_that_fails_stops_no_other() {
    let bench = Bench::new();
    let bytes = image(24 * MIB, 512);
    let requests = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counted = std::sync::Arc::clone(&requests);
    let body = bytes.clone();
    let server = Server::script(move |_, asked| {
        counted.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        ranged(&body, asked, usize::MAX, "\"one\"")
    });
    // The middle one lies on a file system that has no room for it.
    let full = tempfile::tempdir().unwrap();
    let mount = Mounted::tmpfs(full.path(), "12m");
    let file = full.path().join("disk");
    std::fs::File::create(&file).unwrap().set_len(64 * MIB).unwrap();
    let disks = [LoopDisk::new(30 * MIB, 512), LoopDisk::attach(&file, 512), LoopDisk::new(41 * MIB, 512)];
    let task = WriteImageTask {
        copies: disks[1..].iter().map(LoopDisk::hints).collect(),
        ..WriteImageTask::new(disks[0].hints(), source(&server.url, &bytes, Compression::None))
    };
    let result = run(&bench, task);
    let outcomes: Vec<_> = result.devices.iter().map(|d| d.outcome).collect();
    assert_eq!(outcomes[0], Outcome::Verified, "{result:?}");
    assert_ne!(outcomes[1], Outcome::Verified, "{result:?}");
    assert_eq!(outcomes[2], Outcome::Verified, "{result:?}");
    assert_ne!(result.outcome, Outcome::Verified, "the worst counts");
    assert_eq!(requests.load(std::sync::atomic::Ordering::Relaxed), 1, "one stream for all");
    for disk in [&disks[0], &disks[2]] {
        assert!(disk.bytes(MIB, 22 * MB) == bytes[MB..23 * MB]);
        assert!(tool("sgdisk", &["-v", &disk.device]).contains("No problems found"));
    }
    drop(disks);
    drop(mount);
}

#[test]
fn one_disk_named_twice_or_one_too_small_changes_none() {
    let bench = Bench::new();
    let bytes = image(24 * MIB, 512);
    let server = Server::serve(bytes.clone(), Answer::Whole);
    let (large, small) = (LoopDisk::new(30 * MIB, 512), LoopDisk::new(20 * MIB, 512));
    let before = (large.fill(1), small.fill(2));
    for (copy, code) in [(&large, FaultCode::AmbiguousDisk), (&small, FaultCode::ImageTooLarge)] {
        let task = WriteImageTask {
            copies: vec![copy.hints()],
            ..WriteImageTask::new(large.hints(), source(&server.url, &bytes, Compression::None))
        };
        failed(&run(&bench, task), Outcome::FailedUnchanged, code);
        assert_eq!((large.digest(), small.digest()), before);
    }
}

/// Something mounted, until dropped.
struct Mounted<'a>(&'a Path);

impl<'a> Mounted<'a> {
    fn tmpfs(at: &'a Path, size: &str) -> Self {
        tool("mount", &["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs", at.to_str().unwrap()]);
        Self(at)
    }

    /// Whatever file system is on the device.
    fn device(device: &str, at: &'a Path, options: &str) -> Self {
        tool("mount", &["-o", options, device, at.to_str().unwrap()]);
        Self(at)
    }
}

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0).status();
    }
}

/// A file system with one file, as large as the partition it is for.
struct Kind {
    name: &'static str,
    make: &'static [&'static str],
    check: &'static [&'static str],
    mib: u64,
}

/// ext4 is grown in a virtual machine (tests/tests/grow.rs): its driver asks for a capability that a test may not have.
const KINDS: [Kind; 3] = [
    Kind { name: "xfs", make: &["mkfs.xfs", "-q", "-f"], check: &["xfs_repair", "-n"], mib: 320 },
    Kind { name: "btrfs", make: &["mkfs.btrfs", "-q", "-f"], check: &["btrfs", "check", "--readonly"], mib: 128 },
    Kind { name: "ntfs", make: &["mkfs.ntfs", "-q", "-f", "-F"], check: &["ntfsfix", "-n"], mib: 24 },
];

impl Kind {
    fn make(&self) -> Vec<u8> {
        let dir = tempfile::tempdir().unwrap();
        let (file, note) = (dir.path().join("fs"), dir.path().join("note"));
        std::fs::File::create(&file).unwrap().set_len(self.mib * MIB).unwrap();
        tool(self.make[0], &[&self.make[1..], &[file.to_str().unwrap()]].concat());
        std::fs::write(&note, noise(3 * MB, 5)).unwrap();
        if self.name == "ntfs" {
            tool("ntfscp", &[file.to_str().unwrap(), note.to_str().unwrap(), "note"]);
        } else {
            let at = tempfile::tempdir().unwrap();
            let _mounted = Mounted::device(file.to_str().unwrap(), at.path(), "loop");
            std::fs::copy(&note, at.path().join("note")).unwrap();
        }
        std::fs::read(file).unwrap()
    }

    /// Whole, as large as its place, and with its file.
    #[track_caller]
    fn check(&self, device: &str, size: u64) {
        tool(self.check[0], &[&self.check[1..], &[device]].concat());
        let at = tempfile::tempdir().unwrap();
        let (note, total) = if self.name == "ntfs" {
            let out = Command::new("ntfscat").args(["--force", device, "note"]).output().unwrap();
            let info = tool("ntfsresize", &["--info", "--force", "--no-progress-bar", device]);
            let line = info.lines().find_map(|l| l.strip_prefix("Current volume size: ")).unwrap().to_owned();
            (out.stdout, line.split(' ').next().unwrap().parse().unwrap())
        } else {
            let _mounted = Mounted::device(device, at.path(), "ro");
            let df = tool("df", &["--output=size", "-B1", at.path().to_str().unwrap()]);
            (std::fs::read(at.path().join("note")).unwrap(), df.lines().nth(1).unwrap().trim().parse().unwrap())
        };
        assert!(note == noise(3 * MB, 5), "{}: the file is not what it was", self.name);
        let total: u64 = total;
        assert!(total > size * 85 / 100 && total <= size, "{}: {total} of {size}", self.name);
    }
}

/// A disk image whose last partition is exactly the file system.
fn with_last_partition(file_system: &[u8]) -> Vec<u8> {
    let size = 3 * MIB + file_system.len() as u64 + MIB;
    let disk = LoopDisk::new(size, 512);
    tool("sgdisk", &["-Z", &disk.device]);
    let end = 3 * 2048 + file_system.len() / 512 - 1;
    let root = format!("1:6144:{end}");
    tool("sgdisk", &["-n", "14:2048:+1M", "-t", "14:ef02", "-n", &root, "-c", "1:root", &disk.device]);
    disk.write(3 * MIB, file_system);
    tool("blockdev", &["--flushbufs", &disk.device]);
    std::fs::read(&disk.file).unwrap()
}

/// Part of a disk as a device.
fn window(disk: &LoopDisk, start: u64, length: usize) -> LoopDisk {
    let (start, length) = (start.to_string(), length.to_string());
    let file = disk.file.to_str().unwrap();
    let out = tool("losetup", &["-f", "--show", "-o", &start, "--sizelimit", &length, file]);
    LoopDisk::named(out.trim().to_owned(), &disk.file)
}

#[test]
fn the_last_partition_and_its_file_system_take_the_rest_of_the_disk() {
    let bench = Bench::new();
    for kind in &KINDS {
        let bytes = with_last_partition(&kind.make());
        let sent = compress(Compression::Zstd, &bytes);
        let server = Server::serve(sent.clone(), Answer::Whole);
        for (free, more) in [(None, 700), (Some(Bytes(66 * MIB)), 900)] {
            let size = bytes.len() as u64 + more * MIB + 512 * 7;
            let disk = LoopDisk::new(size, 512);
            let task = WriteImageTask {
                grow: Grow::FileSystem,
                leave_free: free,
                ..WriteImageTask::new(disk.hints(), source(&server.url, &sent, Compression::Zstd))
            };
            let result = run(&bench, task);
            verified(&result);
            assert_eq!(result.devices[0].facts["grown"]["file_system"], kind.name, "{result:?}");
            let (start, length) = place(&disk, 1);
            let end = start + length as u64;
            let wanted = (size - MIB - free.map_or(0, |f| f.0)) / MIB * MIB;
            assert_eq!((start, end), (3 * MIB, wanted), "{}", kind.name);
            assert!(tool("sgdisk", &["-v", &disk.device]).contains("No problems found"));
            let part = window(&disk, start, length);
            kind.check(&part.device, length as u64);
        }
    }
}

#[test]
fn a_file_system_grows_into_the_partition_it_was_written_to() {
    let bench = Bench::new();
    let kind = KINDS.iter().find(|k| k.name == "btrfs").unwrap();
    let bytes = kind.make();
    let server = Server::serve(bytes.clone(), Answer::Whole);
    let disk = LoopDisk::new(600 * MIB, 512);
    tool("sgdisk", &["-n", "1:0:+400M", "-c", "1:home", "-n", "2:0:0", &disk.device]);
    let task = WriteImageTask {
        partition: Some(PartitionName::Label("home".into())),
        grow: Grow::FileSystem,
        ..WriteImageTask::new(disk.hints(), source(&server.url, &bytes, Compression::None))
    };
    verified(&run(&bench, task));
    let (start, length) = place(&disk, 1);
    let part = window(&disk, start, length);
    kind.check(&part.device, length as u64);
}

#[test]
fn what_cannot_be_grown_is_no_success() {
    let bench = Bench::new();
    let swap = {
        let mut bytes = vec![0; 16 * MB];
        bytes[4086..4096].copy_from_slice(b"SWAPSPACE2");
        bytes
    };
    // It says of itself that it has errors, and its superblock's checksum is not right either.
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("fs");
    std::fs::File::create(&file).unwrap().set_len(24 * MIB).unwrap();
    tool("mkfs.ext4", &["-q", "-F", file.to_str().unwrap()]);
    let mut broken = std::fs::read(file).unwrap();
    broken[1024 + 0x3a] = 2;
    for (content, code) in [(swap, FaultCode::Unsupported), (broken, FaultCode::VerifyFailed)] {
        let bytes = with_last_partition(&content);
        let server = Server::serve(bytes.clone(), Answer::Whole);
        let disk = LoopDisk::new(100 * MIB, 512);
        let image = source(&server.url, &bytes, Compression::None);
        let task = WriteImageTask { grow: Grow::FileSystem, ..WriteImageTask::new(disk.hints(), image) };
        failed(&run(&bench, task), Outcome::FailedChanged, code);
        has_no_table(&disk);
    }
}

//! Disks that lose bytes, fill up and fail in the middle of a write.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod support;

use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use speediso_image::manifest::{PackOptions, pack};
use speediso_model::fault::FaultCode;
use speediso_model::image::{Compression, ImageFormat, ImageSource};
use speediso_model::outcome::{Outcome, TaskResult};
use speediso_model::task::{Task, WipeLevel, WipeTargets, WipeTask, WriteImageTask};
use support::*;

/// Of the disk: written early, whatever the order of the format.
const LOST: u64 = 3 * MIB + 77;

/// Once the byte has arrived on the medium, it becomes another one there.
fn lose_a_byte(medium: &Path, image: &[u8]) {
    let file = std::fs::File::options().read(true).write(true).open(medium).unwrap();
    let place = usize::try_from(LOST).unwrap();
    let expected = &image[place..place + 4096];
    let (mut found, end) = (vec![0; 4096], Instant::now() + Duration::from_secs(20));
    loop {
        file.read_exact_at(&mut found, LOST).unwrap();
        if found == expected {
            break file.write_all_at(&[!expected[0]], LOST).unwrap();
        }
        assert!(Instant::now() < end, "the byte at {LOST} was never written");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn write(bench: &Bench, disk: &LoopDisk, image: ImageSource) -> TaskResult {
    let task = WriteImageTask::new(disk.hints(), image);
    bench.run(&Task::WriteImage(task))
}

#[track_caller]
fn lost(result: &TaskResult, disk: &LoopDisk) {
    failed(result, Outcome::FailedChanged, FaultCode::ReadBackMismatch);
    let message = result.fault.as_ref().map(|f| f.message.clone()).unwrap_or_default();
    // The piece that has it is named by its first and last byte.
    let numbers: Vec<u64> = message.split(' ').filter_map(|word| word.parse().ok()).collect();
    assert!(matches!(numbers[..], [from, to] if (from..to).contains(&LOST)), "{message}");
    has_no_table(disk);
}

#[test]
fn a_byte_that_the_disk_has_lost_is_found_by_reading_back() {
    let image = image(16 * MIB, 512);
    let bench = Bench::new();

    // The connection breaks in the middle; while the second half is asked for, the first one is damaged on the disk.
    let disk = LoopDisk::new(16 * MIB, 512);
    let (body, medium) = (image.clone(), disk.file.clone());
    let server = Server::script(move |n, asked| {
        if n == 1 {
            lose_a_byte(&medium, &body);
        }
        ranged(&body, asked, 9 << 20, "\"one\"")
    });
    lost(&write(&bench, &disk, source(&server.url, &image, Compression::None)), &disk);

    let dir = tempfile::tempdir().unwrap();
    let options = PackOptions { chunk_size: Some(1 << 20), level: Some(1), key: None, name: None };
    let packed = pack(&mut &image[..], None, &options, &dir.path().join("image"), &mut |_| {}).unwrap();
    let disk = LoopDisk::new(16 * MIB, 512);
    let (whole, medium) = (image.clone(), disk.file.clone());
    let data = std::sync::atomic::AtomicUsize::new(0);
    // Requests of four chunks, beginning at the front: the last one waits for what the first has brought.
    let server = Server::files(&dir.path().join("image"), move |_, name, _| {
        if name == "chunks.bin" && data.fetch_add(1, std::sync::atomic::Ordering::Relaxed) == 4 {
            lose_a_byte(&medium, &whole);
        }
    });
    let mut of_manifest = source(&server.url.replace("/image", "/manifest.json"), b"", Compression::None);
    of_manifest.format = ImageFormat::Manifest;
    of_manifest.digest = Some(packed.manifest_sha256);
    lost(&write(&bench, &disk, of_manifest), &disk);
}

/// A disk that says it is larger than what is below it.
struct FullDisk {
    disk: Option<LoopDisk>,
    dir: tempfile::TempDir,
}

impl FullDisk {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        tool("mount", &["-t", "tmpfs", "-o", "size=8m", "none", dir.path().to_str().unwrap()]);
        let file = dir.path().join("disk");
        std::fs::File::create(&file).unwrap().set_len(16 * MIB).unwrap();
        Self { disk: Some(LoopDisk::attach(&file, 512)), dir }
    }

    fn disk(&self) -> &LoopDisk {
        self.disk.as_ref().unwrap()
    }
}

impl Drop for FullDisk {
    fn drop(&mut self) {
        drop(self.disk.take());
        let _ = std::process::Command::new("umount").arg("-l").arg(self.dir.path()).status();
    }
}

#[track_caller]
fn full(result: &TaskResult, disk: &LoopDisk) {
    failed(result, Outcome::FailedChanged, FaultCode::DiskIo);
    let fault = result.fault.as_ref().unwrap();
    let region = format!("of {}", disk.device);
    assert!(fault.message.contains(&region) && fault.message.contains("at byte"), "{fault}");
}

#[test]
fn a_disk_that_fails_in_the_middle_is_never_a_success() {
    let (bench, image) = (Bench::new(), image(16 * MIB, 512));
    let disk = FullDisk::new();
    let server = Server::serve(image.clone(), Answer::Whole);
    let result = write(&bench, disk.disk(), source(&server.url, &image, Compression::None));
    full(&result, disk.disk());
    assert!(disk.disk().bytes(0, 1 << 20).iter().all(|b| *b == 0), "the start must be zeroed");

    let disk = FullDisk::new();
    let wipe = WipeTask::new(WipeTargets::Hints(vec![disk.disk().hints()]), WipeLevel::Clear);
    full(&bench.run(&Task::Wipe(wipe)), disk.disk());
}

//! Manifest images on real loop devices, from servers that serve, lie and go away.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod support;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use speediso_image::manifest::{PackOptions, PackSummary, pack};
use speediso_model::fault::FaultCode;
use speediso_model::image::{Compression, ImageDigest, ImageFormat};
use speediso_model::outcome::{Outcome, TaskResult};
use speediso_model::task::{ReadBack, Task, WriteImageTask, WriteMode};
use support::*;

/// With data, holes of many sizes, and a piece that occurs twice.
fn disk_image(sector: u32) -> Vec<u8> {
    let mut bytes = image(24 * MIB, sector);
    bytes[3 << 20..7 << 20].fill(0);
    bytes[9_000_000..9_700_000].fill(0);
    let twice = bytes[10 << 20..12 << 20].to_vec();
    bytes[15 << 20..17 << 20].copy_from_slice(&twice);
    bytes
}

fn packed(image: &[u8], out: &Path, chunk_size: u32) -> PackSummary {
    let options = PackOptions { chunk_size: Some(chunk_size), level: Some(1), key: None, name: None };
    pack(&mut &image[..], Some(image.len() as u64), &options, out, &mut |_| {}).unwrap()
}

fn write(
    bench: &Bench,
    disk: &LoopDisk,
    servers: &[&Server],
    digest: &ImageDigest,
    mode: WriteMode,
    read_back: ReadBack,
) -> TaskResult {
    let url = |server: &&Server| server.url.replace("/image", "/manifest.json");
    let mut image = source(&url(&servers[0]), b"", Compression::None);
    image.mirrors = servers[1..].iter().map(url).collect();
    image.format = ImageFormat::Manifest;
    image.digest = Some(digest.clone());
    bench.run(&Task::WriteImage(WriteImageTask {
        read_back,
        mode,
        share: true,
        ..WriteImageTask::new(disk.hints(), image)
    }))
}

#[track_caller]
fn good(result: &TaskResult, disk: &LoopDisk, image: &[u8]) {
    assert_eq!(result.outcome, Outcome::Verified, "{:?}", result.fault);
    let tail = image.len() - (1 << 20);
    // But for the table, whose backup moves to the end of a larger disk.
    assert!(disk.bytes(1 << 20, tail - (1 << 20)) == image[1 << 20..tail], "the disk holds something else");
    assert!(tool("sgdisk", &["-v", &disk.device]).contains("No problems found"));
}

fn fact(result: &TaskResult, name: &str) -> u64 {
    result.devices[0].facts[name].as_u64().unwrap_or_else(|| panic!("{name}: {}", result.devices[0].facts))
}

#[test]
fn chunks_of_every_size_arrive_on_disks_of_both_kinds() {
    for (sector, chunk_size, room) in
        [(512, 64 << 10, 0), (512, 1 << 20, 5 * MIB + 512), (4096, 1 << 20, 3 * MIB), (512, 16 << 20, MIB)]
    {
        let (bench, dir) = (Bench::new(), tempfile::tempdir().unwrap());
        let image = disk_image(sector);
        let summary = packed(&image, &dir.path().join("image"), chunk_size);
        let server = Server::files(&dir.path().join("image"), |_, _, _| {});
        let disk = LoopDisk::new(24 * MIB + room, sector);
        disk.fill(3);
        let result = write(&bench, &disk, &[&server], &summary.manifest_sha256, WriteMode::Full, ReadBack::Full);
        good(&result, &disk, &image);
        assert!(fact(&result, "zero_bytes") >= 4 * MIB || chunk_size > 1 << 20);
    }
}

#[test]
fn delta_writes_what_differs_and_fetches_no_more() {
    let (bench, dir) = (Bench::new(), tempfile::tempdir().unwrap());
    let image = disk_image(512);
    let summary = packed(&image, &dir.path().join("image"), 1 << 20);
    let server = Server::files(&dir.path().join("image"), |_, _, _| {});
    let disk = LoopDisk::new(24 * MIB, 512);
    let digest = &summary.manifest_sha256;
    let first = write(&bench, &disk, &[&server], digest, WriteMode::Delta, ReadBack::Full);
    good(&first, &disk, &image);

    // One byte within data, one within a hole.
    disk.write(13 << 20, b"x");
    disk.write(5 << 20, b"x");
    let again = write(&bench, &disk, &[&server], digest, WriteMode::Delta, ReadBack::Full);
    good(&again, &disk, &image);
    // The chunk with the byte, and those at the start and the end, which are held back and so never found there.
    assert!(fact(&again, "source_bytes") <= 3 * (1 << 20), "{}", fact(&again, "source_bytes"));
    assert!(fact(&again, "kept_bytes") >= 16 << 20, "{}", fact(&again, "kept_bytes"));
}

#[test]
fn what_an_interrupted_run_has_written_is_not_fetched_again() {
    let (mut bench, dir) = (Bench::new(), tempfile::tempdir().unwrap());
    let image = disk_image(512);
    // Stored as they are, so that what is fetched can be counted in chunks.
    let options = PackOptions { chunk_size: Some(1 << 20), level: None, key: None, name: None };
    let summary = pack(&mut &image[..], None, &options, &dir.path().join("image"), &mut |_| {}).unwrap();
    let digest = &summary.manifest_sha256;
    let disk = LoopDisk::new(24 * MIB, 512);
    disk.fill(3);
    // The first byte, asked for on trial, and seven requests are answered; then there is nothing but zeroes.
    let requests = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&requests);
    let server = Server::files(&dir.path().join("image"), move |_, name, bytes| {
        if name == "chunks.bin" && counted.fetch_add(1, Ordering::Relaxed) > 7 {
            bytes.fill(0);
        }
    });
    let result = write(&bench, &disk, &[&server], digest, WriteMode::Full, ReadBack::Full);
    assert_eq!(result.outcome, Outcome::FailedChanged, "{:?}", result.fault);
    has_no_table(&disk);

    bench.ctx.resuming = true;
    let server = Server::files(&dir.path().join("image"), |_, _, _| {});
    let result = write(&bench, &disk, &[&server], digest, WriteMode::Full, ReadBack::Full);
    good(&result, &disk, &image);
    assert!(result.used.contains("taken up"), "{}", result.used);
    // Which requests came first is up to the workers; each but the first and the last has left a whole chunk on the disk.
    let fetched = fact(&result, "source_bytes");
    assert!(fetched <= summary.data_size - (5 << 20), "{fetched} of {}", summary.data_size);
    assert!(fact(&result, "kept_bytes") >= 5 << 20, "{}", fact(&result, "kept_bytes"));
}

#[test]
fn a_server_with_wrong_bytes_is_found_out_and_another_asked() {
    let (bench, dir) = (Bench::new(), tempfile::tempdir().unwrap());
    let image = disk_image(512);
    let summary = packed(&image, &dir.path().join("image"), 1 << 20);
    let spoil = |_: usize, name: &str, bytes: &mut Vec<u8>| {
        if name == "chunks.bin" {
            let at = bytes.len() / 2;
            bytes[at] ^= 1;
        }
    };
    let bad = Server::files(&dir.path().join("image"), spoil);
    let good_one = Server::files(&dir.path().join("image"), |_, _, _| {});
    let digest = &summary.manifest_sha256;
    let disk = LoopDisk::new(24 * MIB, 512);
    let result = write(&bench, &disk, &[&bad, &good_one], digest, WriteMode::Full, ReadBack::Full);
    good(&result, &disk, &image);
    // Alone it is the end, and no table is left.
    let result = write(&bench, &disk, &[&bad], digest, WriteMode::Full, ReadBack::None);
    failed(&result, Outcome::FailedChanged, FaultCode::ImageDigestMismatch);
    has_no_table(&disk);
}

#[test]
fn a_server_that_fails_now_and_then_costs_nothing_but_time() {
    let (bench, dir) = (Bench::new(), tempfile::tempdir().unwrap());
    let image = disk_image(512);
    let summary = packed(&image, &dir.path().join("image"), 64 << 10);
    let data = std::fs::read(dir.path().join("image/chunks.bin")).unwrap();
    let good_files = Server::files(&dir.path().join("image"), |_, _, _| {});
    let cut = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&cut);
    // Has the manifest of nobody, and the data in parts that end too early two times in three.
    let flaky = Server::script(move |n, asked| {
        let most = if n % 3 == 0 { usize::MAX } else { 1000 };
        counted.fetch_add(u64::from(n % 3 != 0), Ordering::Relaxed);
        ranged(&data, asked, most, "\"one\"")
    });
    let disk = LoopDisk::new(24 * MIB, 512);
    let result =
        write(&bench, &disk, &[&good_files, &flaky], &summary.manifest_sha256, WriteMode::Full, ReadBack::Sample);
    good(&result, &disk, &image);
    assert!(cut.load(Ordering::Relaxed) > 0, "the flaky server was never asked");
}

#[test]
fn what_can_be_known_beforehand_changes_nothing() {
    let (bench, dir) = (Bench::new(), tempfile::tempdir().unwrap());
    let image = disk_image(512);
    let summary = packed(&image, &dir.path().join("image"), 1 << 20);
    let root = dir.path().join("image");
    let flip = |file: &'static str, at: usize| {
        move |_: usize, name: &str, bytes: &mut Vec<u8>| {
            if name == file {
                bytes[at] ^= 1;
            }
        }
    };
    let digest = &summary.manifest_sha256;
    let cases: Vec<(&str, Server, u64, u32, FaultCode)> = vec![
        ("manifest", Server::files(&root, flip("manifest.json", 30)), 24, 512, FaultCode::ImageDigestMismatch),
        ("index", Server::files(&root, flip("chunks.idx", 100)), 24, 512, FaultCode::ImageFormat),
        ("disk too small", Server::files(&root, |_, _, _| {}), 23, 512, FaultCode::ImageTooLarge),
        ("other sectors", Server::files(&root, |_, _, _| {}), 24, 4096, FaultCode::SectorSizeMismatch),
        ("no data", Server::files(dir.path(), |_, _, _| {}), 24, 512, FaultCode::ImageRefused),
    ];
    for (name, server, size, sector, code) in cases {
        let disk = LoopDisk::new(size * MIB, sector);
        let before = disk.fill(4);
        let result = write(&bench, &disk, &[&server], digest, WriteMode::Full, ReadBack::Full);
        println!("{name}: {:?}", result.fault);
        failed(&result, Outcome::FailedUnchanged, code);
        assert_eq!(disk.digest(), before, "{name}");
    }
}

//! qcow2 images on real loop devices, from servers with and without ranges.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod support;

use speediso_model::fault::FaultCode;
use speediso_model::image::{Compression, ImageFormat};
use speediso_model::outcome::{Outcome, TaskResult};
use speediso_model::task::{Task, WriteImageTask};
use support::*;

/// With data, and holes of many sizes.
fn disk_image(sector: u32) -> Vec<u8> {
    let mut bytes = image(24 * MIB, sector);
    bytes[3 << 20..7 << 20].fill(0);
    bytes[9_000_000..9_700_000].fill(0);
    bytes
}

fn qcow2(image: &[u8], options: &[&str]) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let (raw, out) = (dir.path().join("raw"), dir.path().join("qcow2"));
    std::fs::write(&raw, image).unwrap();
    let mut args = vec!["convert", "-f", "raw", "-O", "qcow2"];
    args.extend(options);
    args.extend([raw.to_str().unwrap(), out.to_str().unwrap()]);
    tool("qemu-img", &args);
    std::fs::read(out).unwrap()
}

fn write(bench: &Bench, disk: &LoopDisk, server: &Server, bytes: &[u8], compression: Compression) -> TaskResult {
    let mut image = source(&server.url, bytes, compression);
    image.format = ImageFormat::Qcow2;
    bench.run(&Task::WriteImage(WriteImageTask::new(disk.hints(), image)))
}

fn with_ranges(body: Vec<u8>) -> Server {
    Server::script(move |_, asked| ranged(&body, asked, usize::MAX, "\"one\""))
}

#[track_caller]
fn good(result: &TaskResult, disk: &LoopDisk, image: &[u8], map: &str) {
    assert_eq!(result.outcome, Outcome::Verified, "{:?}", result.fault);
    let tail = image.len() - (1 << 20);
    assert!(disk.bytes(1 << 20, tail - (1 << 20)) == image[1 << 20..tail], "the disk holds something else");
    assert!(tool("sgdisk", &["-v", &disk.device]).contains("No problems found"));
    let used = &result.devices[0].used;
    assert!(used.contains(map), "{used}");
}

#[test]
fn every_kind_arrives_where_ranges_are_sent_and_where_not() {
    for (sector, options) in [
        (512, &[][..]),
        (512, &["-c"]),
        (4096, &["-c", "-o", "compression_type=zstd,cluster_size=2M"]),
        (512, &["-o", "compat=0.10,cluster_size=256k"]),
    ] {
        let (bench, image) = (Bench::new(), disk_image(sector));
        let bytes = qcow2(&image, options);
        let servers = [
            (with_ranges(bytes.clone()), "map read ahead"),
            (Server::serve(bytes.clone(), Answer::Whole), "map learnt"),
        ];
        for (server, map) in servers {
            let disk = LoopDisk::new(27 * MIB, sector);
            disk.fill(9);
            good(&write(&bench, &disk, &server, &bytes, Compression::None), &disk, &image, map);
        }
        let packed = compress(Compression::Gzip, &bytes);
        let disk = LoopDisk::new(24 * MIB, sector);
        disk.fill(9);
        let server = with_ranges(packed.clone());
        good(&write(&bench, &disk, &server, &packed, Compression::Gzip), &disk, &image, "map learnt");
    }
}

#[test]
fn a_connection_that_breaks_is_taken_up() {
    let (bench, image) = (Bench::new(), disk_image(512));
    let bytes = qcow2(&image, &["-c"]);
    let (body, step) = (bytes.clone(), bytes.len() / 4 + 1);
    let server = Server::script(move |_, asked| ranged(&body, asked, step, "\"one\""));
    let disk = LoopDisk::new(24 * MIB, 512);
    disk.fill(9);
    let result = write(&bench, &disk, &server, &bytes, Compression::None);
    good(&result, &disk, &image, "map read ahead");
    assert_eq!(result.devices[0].facts["connections_lost"], 3);
}

#[test]
fn what_can_be_known_beforehand_changes_nothing() {
    let bench = Bench::new();
    let image = disk_image(512);
    let plain = qcow2(&image, &[]);
    let patched = |at: usize, bytes: &[u8]| {
        let mut image = plain.clone();
        image[at..at + bytes.len()].copy_from_slice(bytes);
        image
    };
    let l1 = usize::try_from(u64::from_be_bytes(plain[40..48].try_into().unwrap())).unwrap();
    let cases = [
        ("a backing file", patched(8, &4096u64.to_be_bytes()), 512, FaultCode::ImageFormat),
        ("an external data file", patched(72, &4u64.to_be_bytes()), 512, FaultCode::ImageFormat),
        ("encrypted", patched(32, &1u32.to_be_bytes()), 512, FaultCode::ImageFormat),
        ("a disk that is too large", patched(24, &(25u64 << 20).to_be_bytes()), 512, FaultCode::ImageTooLarge),
        ("a table outside the file", patched(l1, &(1u64 << 50).to_be_bytes()), 512, FaultCode::ImageFormat),
        ("another sector size", plain.clone(), 4096, FaultCode::SectorSizeMismatch),
        ("clusters below the sector", qcow2(&image, &["-o", "cluster_size=2k"]), 4096, FaultCode::SectorSizeMismatch),
        ("no qcow2", image.clone(), 512, FaultCode::ImageFormat),
    ];
    for (what, bytes, sector, code) in cases {
        let disk = LoopDisk::new(24 * MIB, sector);
        let before = disk.fill(9);
        let result = write(&bench, &disk, &with_ranges(bytes.clone()), &bytes, Compression::None);
        eprintln!("{what}");
        failed(&result, Outcome::FailedUnchanged, code);
        assert!(disk.digest() == before, "{what}: the disk was changed");
    }
}

#[test]
fn what_shows_later_leaves_no_partition_table() {
    let bench = Bench::new();
    let image = disk_image(512);
    let plain = qcow2(&image, &[]);
    let l1 = usize::try_from(u64::from_be_bytes(plain[40..48].try_into().unwrap())).unwrap();
    let l2 = usize::from(u16::from_be_bytes(plain[l1 + 5..l1 + 7].try_into().unwrap())) << 8;

    // The first request is the stream; the map comes by ranges, and is another one.
    let (honest, mut other) = (plain.clone(), plain.clone());
    let (first, second) = other[l2..l2 + 16].split_at_mut(8);
    first.swap_with_slice(second);
    let server =
        Server::script(move |n, asked| ranged(if n == 0 { &honest } else { &other }, asked, usize::MAX, "\"a\""));
    let disk = LoopDisk::new(24 * MIB, 512);
    let result = write(&bench, &disk, &server, &plain, Compression::None);
    failed(&result, Outcome::FailedChanged, FaultCode::ImageChanged);
    has_no_table(&disk);

    // A byte of the data: only the digest shows it.
    let mut bad = plain.clone();
    let last = bad.len() - 100_000;
    bad[last] ^= 1;
    let disk = LoopDisk::new(24 * MIB, 512);
    let result = write(&bench, &disk, &with_ranges(bad), &plain, Compression::None);
    failed(&result, Outcome::FailedChanged, FaultCode::ImageDigestMismatch);
    has_no_table(&disk);
}

//! `write_image` on real loop devices, from servers that behave and servers that do not.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod support;

use speediso_model::fault::FaultCode;
use speediso_model::image::Compression;
use speediso_model::outcome::{Changed, Outcome};
use speediso_model::task::{Task, WriteImageTask};
use speediso_model::units::Bytes;
use support::*;

fn task(disk: &LoopDisk, image: speediso_model::image::ImageSource) -> Task {
    Task::WriteImage(WriteImageTask::new(disk.hints(), image))
}

#[test]
fn raw_and_zstd_images_arrive_and_the_neighbour_stays() {
    let bench = Bench::new();
    let neighbour = LoopDisk::new(8 * MIB, 512);
    let before = neighbour.fill(9);
    for (sector, compression) in [
        (512, Compression::None),
        (4096, Compression::Zstd),
        (512, Compression::Zstd),
        (512, Compression::Gzip),
        (512, Compression::Xz),
        (512, Compression::Bzip2),
        (512, Compression::Lz4),
    ] {
        let bytes = image(24 * MIB, sector);
        let sent = compress(compression, &bytes);
        let server = Server::serve(sent.clone(), Answer::Whole);
        let disk = LoopDisk::new(37 * MIB + 4096, sector);
        disk.fill(3);
        let result = bench.run(&task(&disk, source(&server.url, &sent, compression)));
        assert_eq!((result.outcome, result.changed), (Outcome::Verified, Some(Changed::Changed)), "{result:?}");

        let check = tool("sgdisk", &["-v", &disk.device]);
        assert!(check.contains("No problems found"), "{check}");
        let parts = tool("sgdisk", &["-p", &disk.device]);
        assert!(parts.contains("root"), "{parts}");
        // Everything between the tables is the image's.
        let middle = usize::try_from(MIB).unwrap();
        assert_eq!(disk.bytes(MIB, 22 * middle), bytes[middle..23 * middle], "the middle must be the image's");
    }
    assert_eq!(neighbour.digest(), before, "the neighbour was written to");
}

#[test]
fn an_image_as_large_as_the_disk_fits() {
    let bench = Bench::new();
    let bytes = image(16 * MIB, 512);
    let server = Server::serve(bytes.clone(), Answer::Whole);
    let disk = LoopDisk::new(16 * MIB, 512);
    let result = bench.run(&task(&disk, source(&server.url, &bytes, Compression::None)));
    assert_eq!(result.outcome, Outcome::Verified, "{result:?}");
    assert_eq!(disk.bytes(0, bytes.len()), bytes);
}

#[test]
fn what_can_be_known_beforehand_changes_nothing() {
    let bench = Bench::new();
    let disk = LoopDisk::new(20 * MIB, 512);
    let before = disk.fill(5);
    let bytes = image(16 * MIB, 512);
    let large = vec![0u8; usize::try_from(21 * MIB).unwrap()];
    let large_zst = zstd::bulk::compress(&large, 1).unwrap();
    let four_k = image(16 * MIB, 4096);
    let gzip = [&[0x1f, 0x8b, 8, 0][..], &bytes].concat();
    let cases: Vec<(&str, &[u8], Answer, Compression, FaultCode)> = vec![
        ("one byte too large", &large, Answer::Whole, Compression::None, FaultCode::ImageTooLarge),
        ("too large after decompression", &large_zst, Answer::Whole, Compression::Zstd, FaultCode::ImageTooLarge),
        ("made for other sectors", &four_k, Answer::Whole, Compression::None, FaultCode::SectorSizeMismatch),
        ("gzip called raw", &gzip, Answer::Whole, Compression::None, FaultCode::ImageFormat),
        ("raw called zstd", &bytes, Answer::Whole, Compression::Zstd, FaultCode::ImageFormat),
        ("not there", &bytes, Answer::Status(404), Compression::None, FaultCode::ImageRefused),
        ("server in trouble", &bytes, Answer::Status(503), Compression::None, FaultCode::ImageUnreachable),
        ("not even a MiB", &bytes[..600_000], Answer::Whole, Compression::None, FaultCode::ImageFormat),
        ("cut within the first MiB", &bytes, Answer::CutAfter(500_000), Compression::None, FaultCode::ImageTruncated),
    ];
    for (name, sent, answer, compression, code) in cases {
        let server = Server::serve(sent.to_vec(), answer);
        let result = bench.run(&task(&disk, source(&server.url, sent, compression)));
        println!("{name}: {:?}", result.fault);
        failed(&result, Outcome::FailedUnchanged, code);
        assert_eq!(disk.digest(), before, "{name}: something was written");
    }
    let mut announced = source("http://127.0.0.1:1/none", &bytes, Compression::None);
    announced.size = Some(Bytes(21 * MIB));
    failed(&bench.run(&task(&disk, announced)), Outcome::FailedUnchanged, FaultCode::ImageTooLarge);
    let nobody = source("http://127.0.0.1:1/none", &bytes, Compression::None);
    failed(&bench.run(&task(&disk, nobody)), Outcome::FailedUnchanged, FaultCode::ImageUnreachable);
    assert_eq!(disk.digest(), before);
}

#[test]
fn what_shows_later_leaves_no_partition_table() {
    let bench = Bench::new();
    let bytes = image(16 * MIB, 512);
    let zst = zstd::encode_all(&bytes[..], 1).unwrap();
    let mut trailing = zst.clone();
    trailing.extend_from_slice(b"and something more");
    let mut flipped = bytes.clone();
    flipped[9_000_000] ^= 1;
    let half = zst.len() / 2;
    type Case<'a> = (&'a str, &'a [u8], &'a [u8], Answer, Compression, FaultCode);
    let cases: Vec<Case<'_>> = vec![
        ("one bit differs", &flipped, &bytes, Answer::Whole, Compression::None, FaultCode::ImageDigestMismatch),
        (
            "cut in the middle",
            &bytes,
            &bytes,
            Answer::CutAfter(9_000_000),
            Compression::None,
            FaultCode::ImageTruncated,
        ),
        (
            "cut without a length",
            &bytes,
            &bytes,
            Answer::SilentCutAfter(9_000_000),
            Compression::None,
            FaultCode::ImageDigestMismatch,
        ),
        ("zstd cut in the middle", &zst, &zst, Answer::CutAfter(half), Compression::Zstd, FaultCode::ImageTruncated),
        (
            "zstd cut without a length",
            &zst,
            &zst,
            Answer::SilentCutAfter(half),
            Compression::Zstd,
            FaultCode::ImageTruncated,
        ),
        (
            "data after the last frame",
            &trailing,
            &trailing,
            Answer::Whole,
            Compression::Zstd,
            FaultCode::ImageTrailingData,
        ),
        (
            "less announced than meant",
            &bytes,
            &bytes,
            Answer::AnnounceLess(4096),
            Compression::None,
            FaultCode::ImageDigestMismatch,
        ),
    ];
    for (name, sent, named, answer, compression, code) in cases {
        let disk = LoopDisk::new(20 * MIB, 512);
        tool("sgdisk", &["-n", "1:0:0", &disk.device]);
        let server = Server::serve(sent.to_vec(), answer);
        let result = bench.run(&task(&disk, source(&server.url, named, compression)));
        println!("{name}: {:?}", result.fault);
        failed(&result, Outcome::FailedChanged, code);
        has_no_table(&disk);
    }
    // A stream that does not say how large it is, and is larger than the disk: a table would tell.
    let noise: Vec<u8> = bytes.iter().rev().copied().collect();
    for (bytes, outcome) in [(&bytes, Outcome::FailedUnchanged), (&noise, Outcome::FailedChanged)] {
        let zst = zstd::encode_all(&bytes[..], 1).unwrap();
        let disk = LoopDisk::new(8 * MIB, 512);
        let server = Server::serve(zst.clone(), Answer::Whole);
        let result = bench.run(&task(&disk, source(&server.url, &zst, Compression::Zstd)));
        failed(&result, outcome, FaultCode::ImageTooLarge);
        has_no_table(&disk);
    }
}

#[test]
fn cancelling_stops_and_says_what_is_left() {
    let bench = Bench::new();
    let bytes = image(16 * MIB, 512);
    let server = Server::serve(bytes.clone(), Answer::Whole);
    let disk = LoopDisk::new(20 * MIB, 512);
    let before = disk.fill(1);
    let task = task(&disk, source(&server.url, &bytes, Compression::None));
    bench.ctx.cancel.cancel();
    failed(&bench.run(&task), Outcome::FailedUnchanged, FaultCode::Cancelled);
    assert_eq!(disk.digest(), before);
}

//! Servers made to do harm: what they say about an image, and what they send for one.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod support;

use std::time::{Duration, Instant};

use speediso_model::fault::FaultCode;
use speediso_model::image::{Compression, ImageFormat};
use speediso_model::outcome::{Outcome, TaskResult};
use speediso_model::task::{Task, WriteImageTask};
use support::*;

const DEADLINE: Duration = Duration::from_secs(30);

fn write(bench: &Bench, disk: &LoopDisk, server: &Server, format: ImageFormat, of: &[u8]) -> TaskResult {
    let mut image = source(&server.url, of, Compression::None);
    image.format = format;
    let task = WriteImageTask::new(disk.hints(), image);
    let began = Instant::now();
    let result = bench.run(&Task::WriteImage(task));
    assert!(began.elapsed() < DEADLINE, "{:?} for {result:?}", began.elapsed());
    result
}

fn says(head: String, body: Vec<u8>) -> impl Fn(usize, Asked) -> Reply {
    move |_, _| Reply { head: head.clone(), body: body.clone(), then: Then::Close }
}

/// Whatever stands in the head of an answer, nothing is written before it was understood.
#[test]
fn heads_that_make_no_sense_change_nothing() {
    use FaultCode::{ImageRefused, ImageTooLarge, ImageUnreachable};
    let (bench, disk) = (Bench::new(), LoopDisk::new(8 * MIB, 512));
    let before = disk.fill(9);
    let body = image(4 * MIB, 512);
    let long = "x".repeat(2 << 20);
    let cases: Vec<(&str, String, FaultCode)> = vec![
        ("8 EiB announced", format!("200 OK\r\nContent-Length: {}", u64::MAX / 2), ImageTooLarge),
        ("a sector too much announced", format!("200 OK\r\nContent-Length: {}", 8 * MIB + 512), ImageTooLarge),
        ("more than can be said", "200 OK\r\nContent-Length: 99999999999999999999999".into(), ImageUnreachable),
        ("less than nothing", "200 OK\r\nContent-Length: -1".into(), ImageUnreachable),
        ("two lengths", "200 OK\r\nContent-Length: 4194304\r\nContent-Length: 7".into(), ImageUnreachable),
        ("a head of 2 MiB", format!("200 OK\r\nX-Long: {long}"), ImageUnreachable),
        ("ten thousand fields", format!("200 OK{}", "\r\nX: y".repeat(10_000)), ImageUnreachable),
        ("not HTTP", "\0\0\0\0".into(), ImageUnreachable),
        (
            "a part that was not asked for",
            "206 Part\r\nContent-Range: bytes 0-9/10\r\nContent-Length: 10".into(),
            ImageRefused,
        ),
        ("encoded for the way", "200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4194304".into(), ImageRefused),
        ("to itself, for ever", "302 Found\r\nLocation: /image\r\nContent-Length: 0".into(), ImageRefused),
        ("to a file", "302 Found\r\nLocation: file:///etc/shadow\r\nContent-Length: 0".into(), ImageRefused),
    ];
    for (what, head, code) in cases {
        let server = Server::script(says(head, body.clone()));
        let result = write(&bench, &disk, &server, ImageFormat::Raw, &body);
        println!("{what}: {:?}", result.fault.as_ref().map(ToString::to_string));
        failed(&result, Outcome::FailedUnchanged, code);
        assert_eq!(disk.digest(), before, "{what}: something was written");
    }
}

/// A body that does not end, where the length is not said: it ends with the disk, or with what such a file may have.
#[test]
fn bodies_without_end_are_cut_off() {
    let bench = Bench::new();
    let disk = LoopDisk::new(8 * MIB, 512);
    let server = Server::script(says("200 OK".into(), vec![0; 24 << 20]));
    failed(&write(&bench, &disk, &server, ImageFormat::Raw, b""), Outcome::FailedChanged, FaultCode::ImageTooLarge);
    has_no_table(&disk);
    let before = disk.fill(3);
    let result = write(&bench, &disk, &server, ImageFormat::Manifest, b"");
    failed(&result, Outcome::FailedUnchanged, FaultCode::ImageFormat);
    assert_eq!(disk.digest(), before);

    // RFC 9112, 7.1: a chunk that says it has 16 EiB, and one whose length is no number.
    for chunk in ["ffffffffffffffff\r\n", "fffffffffffffffff\r\n", "zz\r\n", "-1\r\n"] {
        let mut body = chunk.as_bytes().to_vec();
        body.extend(vec![0; 3 << 20]);
        let server = Server::script(says("200 OK\r\nTransfer-Encoding: chunked".into(), body));
        let result = write(&bench, &disk, &server, ImageFormat::Raw, b"");
        println!("{chunk:?}: {:?}", result.fault.as_ref().map(ToString::to_string));
        assert!(!result.outcome.is_success());
        if result.outcome == Outcome::FailedChanged {
            has_no_table(&disk);
        }
    }
}

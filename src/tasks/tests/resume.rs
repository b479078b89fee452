//! Servers that break, stall, change and lie in the middle of an image: what can be taken up again is, at the cost of
//! the bytes that were lost and no more; what cannot is an error, and never an image.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use speediso_model::fault::FaultCode;
use speediso_model::image::Compression;
use speediso_model::outcome::{Outcome, TaskResult};
use speediso_model::task::{Task, WriteImageTask};
use support::*;

const ALL: [Compression; 6] =
    [Compression::None, Compression::Gzip, Compression::Zstd, Compression::Xz, Compression::Bzip2, Compression::Lz4];

fn write(bench: &Bench, disk: &LoopDisk, urls: &[&str], bytes: &[u8], compression: Compression) -> TaskResult {
    let mut image = source(urls[0], bytes, compression);
    image.mirrors = urls[1..].iter().map(|u| (*u).to_owned()).collect();
    bench.run(&Task::WriteImage(WriteImageTask::new(disk.hints(), image)))
}

#[track_caller]
fn good(result: &TaskResult, disk: &LoopDisk, image: &[u8]) {
    assert_eq!(result.outcome, Outcome::Verified, "{:?}", result.fault);
    // All but the table, whose backup was moved to the end of the larger disk.
    assert!(disk.bytes(1 << 20, 8 << 20) == image[1 << 20..9 << 20]);
    assert!(tool("sgdisk", &["-v", &disk.device]).contains("No problems found"));
}

fn lost(result: &TaskResult) -> u64 {
    result.devices[0].facts["connections_lost"].as_u64().expect("it is counted")
}

#[test]
fn a_connection_that_breaks_is_taken_up_where_it_broke() {
    let image = image(16 * MIB, 512);
    for compression in ALL {
        let (bench, disk) = (Bench::new(), LoopDisk::new(20 * MIB, 512));
        let sent = compress(compression, &image);
        let step = sent.len() / 5 + 1;
        let total = Arc::new(AtomicUsize::new(0));
        let (body, counted) = (sent.clone(), Arc::clone(&total));
        let server = Server::script(move |_, asked| {
            let reply = ranged(&body, asked, step, "\"one\"");
            counted.fetch_add(reply.body.len(), Ordering::Relaxed);
            reply
        });
        let result = write(&bench, &disk, &[&server.url], &sent, compression);
        good(&result, &disk, &image);
        assert_eq!(lost(&result), 4, "{compression:?}");
        assert_eq!(total.load(Ordering::Relaxed), sent.len(), "{compression:?}: nothing is sent twice");
    }
}

#[test]
fn a_server_without_ranges_costs_time_and_nothing_else() {
    let (bench, disk) = (Bench::new(), LoopDisk::new(20 * MIB, 512));
    let image = image(16 * MIB, 512);
    let body = image.clone();
    let server = Server::script(move |n, _| {
        let most = if n == 0 { 9_000_000 } else { usize::MAX };
        ranged(&body, None, most, "\"one\"")
    });
    let result = write(&bench, &disk, &[&server.url], &image, Compression::None);
    good(&result, &disk, &image);
    assert_eq!(lost(&result), 1);
}

#[test]
fn a_server_in_trouble_is_waited_for() {
    let image = image(16 * MIB, 512);
    for status in [500, 502, 503, 429, 408] {
        let (bench, disk) = (Bench::new(), LoopDisk::new(20 * MIB, 512));
        let body = image.clone();
        let server = Server::script(move |n, asked| match n {
            // Before the first byte, and in the middle.
            0 | 2 | 3 => {
                Reply { head: format!("{status} no\r\nContent-Length: 0"), body: Vec::new(), then: Then::Close }
            }
            1 => ranged(&body, asked, 9_000_000, "\"one\""),
            _ => ranged(&body, asked, usize::MAX, "\"one\""),
        });
        good(&write(&bench, &disk, &[&server.url], &image, Compression::None), &disk, &image);
    }
}

#[test]
fn a_stall_and_a_drip_are_breaks() {
    let image = image(16 * MIB, 512);
    for then in [Then::Stall, Then::Drip] {
        let (bench, disk) = (Bench::new(), LoopDisk::new(20 * MIB, 512));
        let body = image.clone();
        let server = Server::script(move |n, asked| {
            if n > 0 {
                return ranged(&body, asked, usize::MAX, "\"one\"");
            }
            let mut reply = ranged(&body, asked, 5_000_000, "\"one\"");
            reply.then = then;
            if then == Then::Drip {
                // What drips in is the image's own, so that only the pace is wrong.
                reply.body.truncate(5_000_000 - 5_000_000 % 512);
            }
            reply
        });
        let result = write(&bench, &disk, &[&server.url], &image, Compression::None);
        if then == Then::Stall {
            good(&result, &disk, &image);
        } else {
            // The bytes that dripped in were not the image's: the digest knows.
            failed(&result, Outcome::FailedChanged, FaultCode::ImageDigestMismatch);
            has_no_table(&disk);
        }
        assert!(result.outcome != Outcome::Verified || lost(&result) == 1);
    }
}

#[test]
fn another_server_takes_over() {
    let (bench, disk) = (Bench::new(), LoopDisk::new(20 * MIB, 512));
    let image = image(16 * MIB, 512);
    let (a, b) = (image.clone(), image.clone());
    // The first dies for good in the middle; the second never had it; the third has it under another ETag.
    let first = Server::script(move |n, asked| match n {
        0 => ranged(&a, asked, 6_000_000, "\"a\""),
        _ => Reply { head: "503 no".into(), body: Vec::new(), then: Then::Close },
    });
    let second = Server::serve(Vec::new(), Answer::Status(404));
    let third = Server::script(move |_, asked| ranged(&b, asked, usize::MAX, "\"b\""));
    let result = write(&bench, &disk, &[&first.url, &second.url, &third.url], &image, Compression::None);
    good(&result, &disk, &image);
    // One that has another file under the same name is caught by the digest.
    let (c, mut d) = (image.clone(), image.clone());
    d[12_000_000] ^= 1;
    let first = Server::script(move |_, asked| match asked {
        None => ranged(&c, asked, 6_000_000, "\"a\""),
        Some(_) => Reply { head: "404 gone".into(), body: Vec::new(), then: Then::Close },
    });
    let other = Server::script(move |_, asked| ranged(&d, asked, usize::MAX, "\"d\""));
    let result = write(&bench, &disk, &[&first.url, &other.url], &image, Compression::None);
    failed(&result, Outcome::FailedChanged, FaultCode::ImageDigestMismatch);
    has_no_table(&disk);
}

#[test]
fn what_changed_meanwhile_is_not_mixed() {
    let image = image(16 * MIB, 512);
    type Script = Box<dyn Fn(&[u8], Asked) -> Reply + Send + Sync>;
    let cases: Vec<(&str, FaultCode, Script)> = vec![
        ("another ETag, whole", FaultCode::ImageChanged, Box::new(|b, _| ranged(b, None, usize::MAX, "\"two\""))),
        ("shorter", FaultCode::ImageChanged, Box::new(|b, a| ranged(&b[..10_000_000], a, usize::MAX, "\"one\""))),
        (
            "ends before",
            FaultCode::ImageChanged,
            Box::new(|_, _| Reply { head: "416 no".into(), body: Vec::new(), then: Then::Close }),
        ),
        (
            "another range",
            FaultCode::ImageRefused,
            Box::new(|b, a| ranged(b, a.map(|(first, last)| (first + 512, last)), usize::MAX, "\"one\"")),
        ),
        (
            "a range that is not named",
            FaultCode::ImageRefused,
            Box::new(|b, _| Reply { head: "206 part".into(), body: b.to_vec(), then: Then::Close }),
        ),
        (
            "gone",
            FaultCode::ImageRefused,
            Box::new(|_, _| Reply { head: "404 no".into(), body: Vec::new(), then: Then::Close }),
        ),
        (
            "in trouble for good",
            FaultCode::ImageUnreachable,
            Box::new(|_, _| Reply { head: "503 no".into(), body: Vec::new(), then: Then::Close }),
        ),
        (
            "never more than this",
            FaultCode::ImageTruncated,
            Box::new(|b, a| ranged(b, a.map(|(first, _)| (first, Some(first + 99))), 0, "\"one\"")),
        ),
    ];
    for (name, code, later) in cases {
        let (bench, disk) = (Bench::new(), LoopDisk::new(20 * MIB, 512));
        let body = image.clone();
        let server = Server::script(move |n, asked| match n {
            0 => ranged(&body, asked, 9_000_000, "\"one\""),
            _ => later(&body, asked),
        });
        let result = write(&bench, &disk, &[&server.url], &image, Compression::None);
        println!("{name}: {:?}", result.fault);
        failed(&result, Outcome::FailedChanged, code);
        has_no_table(&disk);
    }
}

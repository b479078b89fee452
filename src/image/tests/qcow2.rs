//! qcow2 images as qemu makes them, and as nobody should: the bytes must be those of `qemu-img convert`, or there is an
//! error.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::cast_possible_truncation, reason = "tests")]

use std::fs;
use std::io::{self, Read};
use std::path::PathBuf;
use std::process::Command;

use speediso_image::qcow2::{Extents, GuestReader, HEADER_PROBE, Header, Layout, Qcow2Error, ReadAt};
use tempfile::TempDir;

const MIB: usize = 1 << 20;

#[track_caller]
fn tool(program: &str, args: &[&str]) {
    let out = Command::new(program).args(args).output().unwrap_or_else(|e| panic!("{program} is needed: {e}"));
    assert!(out.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&out.stderr));
}

/// Images in a directory that goes away.
struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// From a raw image with text, noise and holes.
    fn converted(&self, size: usize, options: &[&str]) -> Vec<u8> {
        let (raw, out) = (self.path("disk.raw"), self.path("disk.qcow2"));
        fs::write(&raw, disk(size)).unwrap();
        let mut args = vec!["convert", "-f", "raw", "-O", "qcow2"];
        args.extend(options);
        args.extend([raw.to_str().unwrap(), out.to_str().unwrap()]);
        tool("qemu-img", &args);
        fs::read(out).unwrap()
    }

    /// Empty at first, then as `qemu-io` writes it.
    fn written(&self, size: &str, options: &str, commands: &[&str]) -> Vec<u8> {
        let out = self.path("disk.qcow2");
        let out_name = out.to_str().unwrap();
        tool("qemu-img", &["create", "-q", "-f", "qcow2", "-o", options, out_name, size]);
        for command in commands {
            tool("qemu-io", &["-f", "qcow2", "-c", command, out_name]);
        }
        fs::read(out).unwrap()
    }

    /// What qemu says the disk is.
    fn oracle(&self, image: &[u8]) -> Vec<u8> {
        let (from, to) = (self.path("oracle.qcow2"), self.path("oracle.raw"));
        fs::write(&from, image).unwrap();
        tool("qemu-img", &["convert", "-f", "qcow2", "-O", "raw", from.to_str().unwrap(), to.to_str().unwrap()]);
        fs::read(to).unwrap()
    }
}

fn disk(size: usize) -> Vec<u8> {
    let mut bytes = vec![0; size];
    let mut noise = blake3::Hasher::new().update(b"noise").finalize_xof();
    for (n, part) in bytes.chunks_mut(300_000).enumerate() {
        match n % 4 {
            0 => noise.fill(part),
            1 => part.iter_mut().zip(b"all work and no play ".iter().cycle()).for_each(|(to, from)| *to = *from),
            2 => part.iter_mut().take(70).for_each(|b| *b = n as u8),
            _ => {}
        }
    }
    bytes
}

struct Bytes<'a>(&'a [u8]);

impl ReadAt for Bytes<'_> {
    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let start = usize::try_from(offset).unwrap();
        let part = self.0.get(start..start + buffer.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        buffer.copy_from_slice(part);
        Ok(())
    }
}

/// Gives what it has in small pieces of changing size.
struct Dribble<'a>(&'a [u8], usize);

impl Read for Dribble<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.1 = (self.1 * 31 + 7) % 100_003;
        let n = self.0.len().min(buffer.len()).min(self.1 + 1);
        let (now, later) = self.0.split_at(n);
        buffer[..n].copy_from_slice(now);
        self.0 = later;
        Ok(n)
    }
}

fn header(image: &[u8]) -> Result<Header, Qcow2Error> {
    Header::parse(&image[..image.len().min(HEADER_PROBE)])
}

fn guest<R: Read>(mut extents: Extents<R>, size: u64) -> Result<Vec<u8>, Qcow2Error> {
    // What is never handed out stays as it is here, and must be zeroed by what the holes say.
    let mut disk = vec![0xee; usize::try_from(size).unwrap()];
    let mut buffer = vec![0; 2 * MIB];
    while let Some(extent) = extents.next(&mut buffer)? {
        let at = usize::try_from(extent.guest).unwrap();
        disk[at..at + extent.length].copy_from_slice(&buffer[..extent.length]);
    }
    let holes = extents.into_holes().expect("it has ended");
    for hole in holes {
        let hole = hole.start as usize..hole.end as usize;
        assert!(disk[hole.clone()].iter().all(|b| *b == 0xee), "what was handed out is no hole");
        disk[hole].fill(0);
    }
    Ok(disk)
}

/// With the map read from `map` and the stream from `image`.
fn ahead_of(map: &[u8], image: &[u8]) -> Result<Vec<u8>, Qcow2Error> {
    let header = header(map)?;
    let layout = Layout::read(&header, &mut Bytes(map), map.len() as u64)?;
    let size = header.virtual_size;
    guest(Extents::with_layout(Dribble(image, 1), header, layout, Some(image.len() as u64)), size)
}

fn ahead(image: &[u8]) -> Result<Vec<u8>, Qcow2Error> {
    ahead_of(image, image)
}

fn streamed(image: &[u8]) -> Result<Vec<u8>, Qcow2Error> {
    let header = header(image)?;
    let size = header.virtual_size;
    guest(Extents::in_stream_order(Dribble(image, 1), header), size)
}

/// In the order of the disk, in pieces of changing size.
fn in_order(image: &[u8]) -> Result<Vec<u8>, Qcow2Error> {
    let mut reader = GuestReader::new(header(image)?, Bytes(image), image.len() as u64)?;
    let (mut disk, mut buffer, mut size) = (Vec::new(), vec![0; 200_000], 1);
    loop {
        size = (size * 31 + 7) % 199_999 + 1;
        match reader.read(&mut buffer[..size]).map_err(Qcow2Error::Source)? {
            0 => return Ok(disk),
            n => disk.extend_from_slice(&buffer[..n]),
        }
    }
}

#[track_caller]
fn same(found: Result<Vec<u8>, Qcow2Error>, expected: &[u8], what: &str) {
    let found = found.unwrap_or_else(|e| panic!("{what}: {e}"));
    let differs = found.iter().zip(expected).position(|(a, b)| a != b);
    assert_eq!((found.len(), differs), (expected.len(), None), "{what}");
}

#[test]
fn what_qemu_img_converts_is_read_ahead_and_in_stream_order() {
    let cases: [(&str, &[&str]); 10] = [
        ("plain", &[]),
        ("version 2", &["-o", "compat=0.10"]),
        ("version 2, zlib", &["-c", "-o", "compat=0.10"]),
        ("zlib", &["-c"]),
        ("zstd", &["-c", "-o", "compression_type=zstd"]),
        ("small clusters", &["-o", "cluster_size=512"]),
        ("4 KiB clusters, zlib", &["-c", "-o", "cluster_size=4k"]),
        ("large clusters", &["-o", "cluster_size=2M"]),
        ("large clusters, zstd", &["-c", "-o", "cluster_size=2M,compression_type=zstd"]),
        ("allocated beforehand", &["-o", "preallocation=metadata"]),
    ];
    for (what, options) in cases {
        for size in [9 * MIB, 5 * MIB + 512] {
            let folder = Folder::new();
            let image = folder.converted(size, options);
            let oracle = folder.oracle(&image);
            assert!(oracle == disk(size), "{what}: qemu itself must agree");
            same(ahead(&image), &oracle, what);
            same(in_order(&image), &oracle, what);
            match streamed(&image) {
                // Small tables come one by one, so some stand behind what they map.
                Err(Qcow2Error::NeedsRanges { .. }) if what.contains("small") || what.contains("4 KiB") => {}
                found => same(found, &oracle, &format!("{what}, as a stream")),
            }
        }
    }
}

#[test]
fn what_a_machine_has_written_is_read() {
    let folder = Folder::new();
    let image = folder.written(
        "300M",
        "cluster_size=64k",
        &[
            "write -P 9 250M 3M",
            "write -P 1 0 1M",
            "write -P 2 64k 64k",
            "write -z 512k 256k",
            "write -P 3 40M 100k",
            "discard 250M 1M",
            "write -P 4 120M 2M",
            "write -P 5 299M 1M",
            "write -z -u 120M 64k",
        ],
    );
    let oracle = folder.oracle(&image);
    same(ahead(&image), &oracle, "in any order");
    same(in_order(&image), &oracle, "in the disk's order");
    assert_eq!(oracle[120 * MIB + (64 << 10)], 4);

    let with_snapshot = folder.path("disk.qcow2");
    let name = with_snapshot.to_str().unwrap();
    tool("qemu-img", &["snapshot", "-c", "before", name]);
    tool("qemu-io", &["-f", "qcow2", "-c", "write -P 7 40M 1M", name]);
    let image = fs::read(&with_snapshot).unwrap();
    let oracle = folder.oracle(&image);
    assert_eq!((header(&image).unwrap().snapshots, oracle[40 * MIB]), (1, 7));
    same(ahead(&image), &oracle, "the active layer of an image with a snapshot");
}

#[test]
fn an_empty_disk_is_one_hole() {
    let folder = Folder::new();
    for options in ["cluster_size=64k", "compat=0.10", "preallocation=metadata"] {
        let image = folder.written("7M", options, &[]);
        same(ahead(&image), &vec![0; 7 * MIB], options);
        same(in_order(&image), &vec![0; 7 * MIB], options);
    }
}

#[test]
fn the_start_is_there_before_the_stream() {
    for options in [&[][..], &["-c", "-o", "cluster_size=4k"], &["-c"]] {
        let folder = Folder::new();
        let image = folder.converted(5 * MIB, options);
        let header = header(&image).unwrap();
        let layout = Layout::read(&header, &mut Bytes(&image), image.len() as u64).unwrap();
        let mut start = vec![1; 8192];
        layout.start(&header, &mut Bytes(&image), &mut start).unwrap();
        assert!(start == disk(5 * MIB)[..8192], "{options:?}");
    }
}

fn patched(image: &[u8], at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut image = image.to_vec();
    image[at..at + bytes.len()].copy_from_slice(bytes);
    image
}

fn be64(image: &[u8], at: usize) -> u64 {
    u64::from_be_bytes(image[at..at + 8].try_into().unwrap())
}

/// The message, which names the field: whoever made the image wants to know.
#[track_caller]
fn refused(image: &[u8], message: &str) {
    for (how, found) in [("ahead", ahead(image)), ("streamed", streamed(image))] {
        let error = found.expect_err(message).to_string();
        // In stream order some of it is found where it shows: at another place, or as something behind.
        let other = how == "streamed"
            && ["gone by", "overlap", "ends at byte"].iter().any(|other| error.contains(other))
            && ["overlap", "outside", "ends at"].iter().any(|of| message.contains(of));
        assert!(error.contains(message) || other, "{how}: {error:?} must say {message:?}");
    }
}

#[test]
fn hostile_headers_are_refused() {
    let folder = Folder::new();
    let image = folder.converted(5 * MIB, &[]);
    let cases: [(usize, &[u8], &str); 25] = [
        (0, b"QFX\xfb", "not a qcow2 image"),
        (4, &1u32.to_be_bytes(), "version 1"),
        (4, &4u32.to_be_bytes(), "version 4"),
        (8, &512u64.to_be_bytes(), "backing file"),
        (16, &9u32.to_be_bytes(), "backing file"),
        (20, &8u32.to_be_bytes(), "cluster_bits"),
        (20, &22u32.to_be_bytes(), "cluster_bits"),
        (20, &u32::MAX.to_be_bytes(), "cluster_bits"),
        (24, &0u64.to_be_bytes(), "size"),
        (24, &u64::MAX.to_be_bytes(), "virtual size"),
        (32, &1u32.to_be_bytes(), "encrypted"),
        (32, &2u32.to_be_bytes(), "encrypted"),
        (36, &0u32.to_be_bytes(), "l1_size"),
        (36, &u32::MAX.to_be_bytes(), "l1_size"),
        (40, &0u64.to_be_bytes(), "l1_table_offset"),
        (40, &65537u64.to_be_bytes(), "l1_table_offset"),
        (40, &u64::MAX.to_be_bytes(), "l1_table_offset"),
        (72, &2u64.to_be_bytes(), "corrupt"),
        (72, &4u64.to_be_bytes(), "external file"),
        (72, &16u64.to_be_bytes(), "extended L2"),
        (72, &(1u64 << 40).to_be_bytes(), "not known"),
        (96, &7u32.to_be_bytes(), "refcount_order"),
        (100, &100u32.to_be_bytes(), "header_length"),
        (100, &u32::MAX.to_be_bytes(), "header_length"),
        (104, &[1], "compression_type"),
    ];
    for (at, bytes, message) in cases {
        refused(&patched(&image, at, bytes), message);
    }
    refused(&patched(&patched(&image, 104, &[2]), 72, &8u64.to_be_bytes()), "compression type 2");
    // Dirty is about reference counts alone.
    same(ahead(&patched(&image, 72, &1u64.to_be_bytes())), &disk(5 * MIB), "dirty");
    assert!(header(&image).unwrap().within(5 << 20).is_ok());
    assert!(matches!(header(&image).unwrap().within((5 << 20) - 1), Err(Qcow2Error::VirtualSize { .. })));
    for length in [0, 4, 71, 100, 103] {
        assert!(header(&image[..length]).is_err(), "{length}");
    }
}

#[test]
fn hostile_tables_are_refused() {
    let folder = Folder::new();
    let image = folder.converted(5 * MIB, &[]);
    let l1 = usize::try_from(be64(&image, 40)).unwrap();
    let offset = |at: usize| usize::try_from(be64(&image, at) & 0x00ff_ffff_ffff_fe00).unwrap();
    let l2 = offset(l1);
    let with = |at: usize, value: u64| patched(&image, at, &value.to_be_bytes());
    let copied = 1u64 << 63;
    let end = (image.len() as u64).next_multiple_of(65536);
    refused(&with(l1, copied | 1), "reserved");
    refused(&with(l1, copied | 1 << 60 | l2 as u64), "reserved");
    refused(&with(l1, copied | (l2 as u64 + 512)), "not a multiple");
    refused(&with(l1, copied | end), "outside");
    refused(&with(l1, copied | l1 as u64), "overlap");
    refused(&with(l2, copied | 2 | offset(l2) as u64), "reserved");
    refused(&with(l2, copied | (offset(l2) as u64 + 512)), "not a multiple");
    refused(&with(l2, copied | end), "outside");
    refused(&with(l2, copied | (1 << 55)), "outside");
    // Mapped twice: the guest's second cluster is the first, or a table, or the header's neighbour.
    refused(&with(l2 + 8, be64(&image, l2)), "overlap");
    refused(&with(l2 + 8, copied | l2 as u64), "overlap");
    refused(&with(l2 + 8, copied | l1 as u64), "overlap");

    let compressed = folder.converted(5 * MIB, &["-c"]);
    let l1 = usize::try_from(be64(&compressed, 40)).unwrap();
    let l2 = usize::try_from(be64(&compressed, l1) & 0x00ff_ffff_ffff_fe00).unwrap();
    // Noise does not shrink and is not compressed; what follows it is.
    let l2 = (l2..).step_by(8).find(|at| be64(&compressed, *at) & 1 << 62 != 0).unwrap();
    let entry = be64(&compressed, l2);
    let with = |at: usize, value: u64| patched(&compressed, at, &value.to_be_bytes());
    refused(&with(l2, entry | copied), "reserved");
    refused(&with(l2 + 8, entry), "overlap");
    refused(&with(l2, 1 << 62 | (compressed.len() as u64 + 4096)), "outside");
    // As many sectors as can be said: they overlap what follows, or do not exist.
    refused(&with(l2, entry | 0xff << 54), "overlap");
    let data = usize::try_from(entry & ((1 << 54) - 1)).unwrap();
    refused(&patched(&compressed, data, &[0xff; 64]), "the compressed cluster at byte");
}

#[test]
fn an_image_that_ends_early_is_never_whole() {
    let folder = Folder::new();
    for options in [&[][..], &["-c"]] {
        let image = folder.converted(3 * MIB, options);
        for cut in (0..image.len()).step_by(4099).chain([image.len() - 1]) {
            let short = &image[..cut];
            assert!(ahead(short).is_err() || ahead(short).unwrap() == disk(3 * MIB), "ahead, cut at {cut}");
            assert!(ahead_of(&image, short).is_err(), "the map of the whole, cut at {cut}");
            if let Ok(found) = streamed(short) {
                // Padding of the last sector or cluster may be missing; data may not.
                assert!(found == disk(3 * MIB), "streamed, cut at {cut}");
            }
        }
    }
}

#[test]
fn a_map_that_changed_meanwhile_is_noticed() {
    let folder = Folder::new();
    let image = folder.converted(5 * MIB, &[]);
    let l1 = usize::try_from(be64(&image, 40)).unwrap();
    let l2 = usize::try_from(be64(&image, l1) & 0x00ff_ffff_ffff_fe00).unwrap();
    for at in [24 + 7, 47, l1 + 3, l1 + 7, l2 + 6, l2 + 100, l2 + 65535] {
        let mut changed = image.clone();
        changed[at] ^= 1;
        assert!(matches!(ahead_of(&image, &changed), Err(Qcow2Error::ChangedMeanwhile { .. })), "byte {at}");
    }
    let longer = [&image[..], &[0; 512]].concat();
    assert!(matches!(ahead_of(&image, &longer), Err(Qcow2Error::ChangedMeanwhile { .. })));
}

/// Any damage to the map gives an error or the disk of another image, but no panic and no endless loop.
#[test]
fn flipped_bits_end_in_an_error_or_a_disk() {
    let folder = Folder::new();
    let (mut tried, mut refused) = (0, 0);
    for options in [&["-o", "cluster_size=4k"][..], &["-c", "-o", "cluster_size=4k"]] {
        let image = folder.converted(600_064, options);
        let l1 = usize::try_from(be64(&image, 40)).unwrap();
        let l2 = usize::try_from(be64(&image, l1) & 0x00ff_ffff_ffff_fe00).unwrap();
        let places = (0..112).chain(l1..l1 + 16).chain(l2..l2 + 400);
        for at in places {
            for bit in 0..8 {
                let flipped = patched(&image, at, &[image[at] ^ 1 << bit]);
                // A size that was flipped upwards is the caller's to refuse.
                let Ok(header) = header(&flipped).and_then(|h| h.within(64 << 20)) else {
                    refused += 1;
                    continue;
                };
                tried += 1;
                assert!(header.virtual_size <= 64 << 20);
                refused += usize::from(ahead(&flipped).is_err());
                let _ = streamed(&flipped);
            }
        }
    }
    assert!(tried > 5_000 && refused > 1000, "{tried} tried, {refused} refused");
}

#[test]
fn the_source_s_own_error_comes_through() {
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::other("the line is down"))
        }
    }
    let folder = Folder::new();
    let image = folder.converted(3 * MIB, &[]);
    let cut = (&image[..100_000]).chain(Broken);
    let mut extents = Extents::in_stream_order(cut, header(&image).unwrap());
    let mut buffer = vec![0; 2 * MIB];
    let error = loop {
        match extents.next(&mut buffer) {
            Ok(extent) => assert!(extent.is_some(), "it must not end"),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, Qcow2Error::Source(e) if e.to_string() == "the line is down"));
    assert!(matches!(extents.next(&mut buffer), Err(Qcow2Error::FailedBefore)));
    assert!(extents.into_holes().is_none(), "nothing is known of what was not read");
}

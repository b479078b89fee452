//! Files into new file systems: that all of it arrives, that nothing gets out, and what is left when it fails.
#![allow(clippy::unwrap_used, clippy::panic, clippy::cast_possible_truncation, reason = "tests")]

mod support;

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::Command;

use speediso_model::fault::FaultCode;
use speediso_model::image::{Compression, ImageFormat};
use speediso_model::outcome::{Outcome, TaskResult};
use speediso_model::task::{FileSystemKind, NewFileSystem, PartitionName, ReadBack, Task, WriteImageTask};
use support::*;

const MB: usize = 1 << 20;

/// With one partition between two others.
fn disk(mib: u64) -> LoopDisk {
    let disk = LoopDisk::new(mib * MIB, 512);
    disk.fill(3);
    tool("sgdisk", &["-Z", &disk.device]);
    let middle = format!("2:2M:{}M", mib - 2);
    tool("sgdisk", &["-n", "1:1M:+512K", "-n", &middle, "-c", "2:root", &disk.device]);
    disk
}

fn task(
    disk: &LoopDisk,
    server: &Server,
    bytes: &[u8],
    compression: Compression,
    kind: FileSystemKind,
) -> WriteImageTask {
    let mut image = source(&server.url, bytes, compression);
    image.format = ImageFormat::Tar;
    WriteImageTask {
        partition: Some(PartitionName::Label("root".into())),
        file_system: Some(NewFileSystem {
            kind,
            label: Some("os-root".into()),
            uuid: Some("5beed150-0000-4000-8000-000000000001".parse().unwrap()),
        }),
        ..WriteImageTask::new(disk.hints(), image)
    }
}

fn run(bench: &Bench, task: &WriteImageTask) -> TaskResult {
    bench.run(&Task::WriteImage(task.clone()))
}

/// By GNU tar, in the format of POSIX, with everything.
fn archive(tree: &Path) -> Vec<u8> {
    let out = Command::new("tar")
        .args(["--format=posix", "--xattrs", "--xattrs-include=*", "--numeric-owner", "-cf", "-", "-C"])
        .args([tree, Path::new(".")])
        .output()
        .unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    out.stdout
}

/// One of everything.
fn tree() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::create_dir_all(at("usr/bin")).unwrap();
    fs::create_dir_all(at("etc/deep").join("d".repeat(120)).join("e".repeat(120))).unwrap();
    fs::create_dir(at("empty")).unwrap();
    fs::set_permissions(at("empty"), fs::Permissions::from_mode(0o1777)).unwrap();
    let noise: Vec<u8> = (0..3 * MB).map(|i| (i % 251) as u8 ^ (i >> 12) as u8).collect();
    fs::write(at("usr/bin/large"), &noise).unwrap();
    fs::write(at("usr/bin/su"), b"#!/bin/sh\n").unwrap();
    fs::set_permissions(at("usr/bin/su"), fs::Permissions::from_mode(0o4755)).unwrap();
    fs::write(at("etc/nothing"), b"").unwrap();
    fs::write(at("etc/deep").join("d".repeat(120)).join("e".repeat(120)).join("f".repeat(200)), b"far").unwrap();
    fs::write(at("etc/na\u{ef}ve \"quoted\" name"), b"x").unwrap();
    std::os::unix::fs::lchown(at("etc/nothing"), Some(3_000_000), Some(70_000)).unwrap();
    symlink("usr/bin", at("bin")).unwrap();
    symlink("/etc/nothing", at("etc/absolute")).unwrap();
    symlink("nowhere", at("etc/dangling")).unwrap();
    std::os::unix::fs::lchown(at("etc/dangling"), Some(12), Some(34)).unwrap();
    fs::hard_link(at("usr/bin/large"), at("usr/bin/same")).unwrap();
    tool("mknod", &[at("etc/pipe").to_str().unwrap(), "p"]);
    tool("mknod", &[at("etc/null").to_str().unwrap(), "c", "1", "3"]);
    xattr::set(at("usr/bin/su"), "user.note", b"kept \0 and not text").unwrap();
    // The capability cap_net_raw=ep, as ping has it.
    let raw = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    xattr::set(at("usr/bin/large"), "security.capability", &raw).unwrap();
    tool("touch", &["-h", "-d", "2020-02-02 02:02:02.123456789", at("etc/nothing").to_str().unwrap()]);
    tool("touch", &["-h", "-d", "1969-12-31 12:00:00", at("etc/dangling").to_str().unwrap()]);
    tool("touch", &["-d", "2021-01-01 00:00:00", at("usr").to_str().unwrap()]);
    fs::File::create(at("sparse")).unwrap().set_len(5 * MIB).unwrap();
    dir
}

/// Something mounted, until dropped.
struct Mounted(tempfile::TempDir, String);

impl Mounted {
    fn partition(disk: &LoopDisk) -> Self {
        let text = tool("sgdisk", &["-i", "2", &disk.device]);
        let sector = |name: &str| -> u64 {
            text.lines().find_map(|l| l.strip_prefix(name)?.trim().split(' ').next()?.parse().ok()).unwrap()
        };
        let (first, last) = (sector("First sector:"), sector("Last sector:"));
        let (offset, size) = ((first * 512).to_string(), ((last + 1 - first) * 512).to_string());
        let file = disk.file.to_str().unwrap();
        let device = tool("losetup", &["-r", "-f", "--show", "-o", &offset, "--sizelimit", &size, file]);
        let device = device.trim().to_owned();
        let at = tempfile::tempdir().unwrap();
        tool("mount", &["-o", "ro", &device, at.path().to_str().unwrap()]);
        Self(at, device)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0.path()).status();
        let _ = Command::new("losetup").args(["-d", &self.1]).status();
    }
}

#[test]
fn everything_of_a_tree_arrives() {
    let bench = Bench::new();
    let tree = tree();
    let bytes = archive(tree.path());
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), &bytes).unwrap();
    for (kind, mib, compression, read_back) in [
        (FileSystemKind::Ext4, 48, Compression::None, ReadBack::Full),
        (FileSystemKind::Ext4, 48, Compression::Zstd, ReadBack::Sample),
        (FileSystemKind::Xfs, 340, Compression::Gzip, ReadBack::Full),
        (FileSystemKind::Btrfs, 160, Compression::Xz, ReadBack::Full),
    ] {
        let sent = compress(compression, &bytes);
        let server = Server::serve(sent.clone(), Answer::Whole);
        let disk = disk(mib);
        let neighbours = (disk.bytes(0, 2 * MB), disk.bytes((mib - 2) * MIB + 512, 2 * MB - 512));
        let task = WriteImageTask { read_back, ..task(&disk, &server, &sent, compression, kind) };
        let result = run(&bench, &task);
        assert_eq!(result.outcome, Outcome::Verified, "{kind:?}: {result:?}");
        let now = (disk.bytes(0, 2 * MB), disk.bytes((mib - 2) * MIB + 512, 2 * MB - 512));
        assert!(now == neighbours, "{kind:?}: something else than the partition was written");
        let mounted = Mounted::partition(&disk);
        let at = mounted.0.path();
        // GNU tar compares content, owners, modes, times and links.
        let archive = file.path().to_str().unwrap();
        tool("tar", &["--compare", "--numeric-owner", "-f", archive, "-C", at.to_str().unwrap()]);
        assert_eq!(xattr::get(at.join("usr/bin/su"), "user.note").unwrap().unwrap(), b"kept \0 and not text");
        assert!(xattr::get(at.join("usr/bin/same"), "security.capability").unwrap().is_some());
        let value = |name: &str| tool("blkid", &["-p", "-o", "value", "-s", name, &mounted.1]).trim().to_owned();
        assert_eq!((value("TYPE"), value("LABEL")), (kind.name().into(), "os-root".into()));
        assert_eq!(value("UUID"), "5beed150-0000-4000-8000-000000000001");
    }
}

/// Written by hand, since no tool makes it.
fn hostile(entries: &[(&str, tar::EntryType, &str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, kind, link, content) in entries {
        let mut header = tar::Header::new_ustar();
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        header.set_entry_type(*kind);
        header.set_mode(0o755);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_600_000_000);
        header.set_size(content.len() as u64);
        if !link.is_empty() {
            header.set_link_name_literal(link).unwrap();
        }
        header.set_cksum();
        builder.append(&header, *content).unwrap();
    }
    builder.into_inner().unwrap()
}

#[test]
fn links_lead_nowhere_outside_and_later_files_replace_earlier() {
    use tar::EntryType::{Directory, Link, Regular, Symlink};
    let bench = Bench::new();
    let outside = tempfile::tempdir().unwrap();
    let target = outside.path().to_str().unwrap().to_owned();
    let inside = target.trim_start_matches('/').to_owned() + "/";
    let bytes = hostile(&[
        (&inside, Directory, "", b""),
        ("absolute", Symlink, &target, b""),
        ("absolute/evil", Regular, "", b"through an absolute link"),
        ("climbing", Symlink, "../../../../../../../../tmp", b""),
        ("climbing/evil-by-climbing", Regular, "", b"through a climbing link"),
        ("twice", Regular, "", b"the first"),
        ("linked", Link, "twice", b""),
        ("twice", Regular, "", b"the second"),
        ("missing/way/file", Regular, "", b"x"),
    ]);
    let server = Server::serve(bytes.clone(), Answer::Whole);
    let disk = disk(32);
    let result = run(&bench, &task(&disk, &server, &bytes, Compression::None, FileSystemKind::Ext4));
    assert_eq!(result.outcome, Outcome::Verified, "{result:?}");
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0, "something got out");
    assert!(!Path::new("/tmp/evil-by-climbing").exists(), "something got out");
    let mounted = Mounted::partition(&disk);
    let read = |name: &str| fs::read_to_string(mounted.0.path().join(name)).unwrap();
    assert_eq!(read(&(inside + "evil")), "through an absolute link");
    assert_eq!(read("tmp/evil-by-climbing"), "through a climbing link");
    assert_eq!((read("twice"), read("linked")), ("the second".into(), "the first".into()));
}

#[test]
fn what_is_not_right_leaves_no_file_system() {
    use tar::EntryType::{Char, Directory, Regular, Symlink};
    let bench = Bench::new();
    let good = archive(tree().path());
    let mut longer = good.clone();
    longer.extend_from_slice(&[0; 512]);
    longer.extend_from_slice(b"more");
    let mut broken = good.clone();
    broken[512 * 40..512 * 44].fill(0x55);
    let acl = {
        let mut builder = tar::Builder::new(Vec::new());
        builder.append_pax_extensions([("SCHILY.acl.access", &b"user::rwx"[..])]).unwrap();
        let mut header = tar::Header::new_ustar();
        header.set_path("x").unwrap();
        header.set_size(0);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_cksum();
        builder.append(&header, &b""[..]).unwrap();
        builder.into_inner().unwrap()
    };
    let line_break = {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a\n".to_owned() + &"b".repeat(150)), b"x").unwrap();
        archive(dir.path())
    };
    let large = hostile(&[("large", Regular, "", &vec![7; 40 * MB])]);
    let cases: Vec<(&str, Vec<u8>, FaultCode)> = vec![
        ("cut in a file", good[..2 * MB].to_vec(), FaultCode::ImageTruncated),
        ("more behind it", longer, FaultCode::ImageTrailingData),
        ("an ACL", acl, FaultCode::ImageFormat),
        ("a name of two lines", line_break, FaultCode::ImageFormat),
        ("too large", large, FaultCode::ImageTooLarge),
        ("a way out", hostile(&[("a/../../x", Regular, "", b"x")]), FaultCode::ImageFormat),
        (
            "a file over a directory",
            hostile(&[("a/", Directory, "", b""), ("a", Regular, "", b"x")]),
            FaultCode::ImageFormat,
        ),
        ("a device without numbers", hostile(&[("a", Char, "", b"")]), FaultCode::ImageFormat),
        ("a link to nothing", hostile(&[("a", Symlink, "", b"")]), FaultCode::ImageFormat),
        ("a kind nobody knows", hostile(&[("a", tar::EntryType::new(b'V'), "", b"")]), FaultCode::ImageFormat),
        ("e2fsck's own", hostile(&[("lost+found/x", Regular, "", b"x")]), FaultCode::ImageFormat),
    ];
    for (name, bytes, code) in cases {
        let server = Server::serve(bytes.clone(), Answer::Whole);
        let disk = disk(32);
        let result = run(&bench, &task(&disk, &server, &bytes, Compression::None, FileSystemKind::Ext4));
        println!("{name}: {:?}", result.fault);
        failed(&result, Outcome::FailedChanged, code);
        no_file_system(&disk);
    }
    for (name, bytes, named) in [("another digest", &good, &good[1..]), ("a broken header", &broken, &broken[..])] {
        let server = Server::serve(bytes.clone(), Answer::Whole);
        let disk = disk(32);
        let result = run(&bench, &task(&disk, &server, named, Compression::None, FileSystemKind::Ext4));
        println!("{name}: {:?}", result.fault);
        assert_eq!(result.outcome, Outcome::FailedChanged, "{result:?}");
        no_file_system(&disk);
    }
    // What is no archive at all changes nothing.
    let disk = disk(32);
    let before = disk.digest();
    let noise = vec![1; 8 * MB];
    let server = Server::serve(noise.clone(), Answer::Whole);
    let result = run(&bench, &task(&disk, &server, &noise, Compression::None, FileSystemKind::Ext4));
    failed(&result, Outcome::FailedUnchanged, FaultCode::ImageFormat);
    assert_eq!(disk.digest(), before);
}

#[track_caller]
fn no_file_system(disk: &LoopDisk) {
    assert!(disk.bytes(2 * MIB, MB).iter().all(|b| *b == 0), "the partition must not be mountable");
    assert!(tool("sgdisk", &["-v", &disk.device]).contains("No problems found"));
}

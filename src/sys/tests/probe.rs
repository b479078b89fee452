//! libblkid in its confined child, on images made by the real tools.

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use speediso_sys::blkid::{ProbeError, Signature, probe_file_in_child, probe_in_child};

/// The example that cargo builds beside the tests: the same `child_main` that the agent runs.
fn child() -> PathBuf {
    let test = std::env::current_exe().expect("this test has a path");
    let debug = test.parent().and_then(Path::parent).expect("target/TRIPLE/debug/deps");
    let path = debug.join("examples/probe-superblock");
    assert!(path.exists(), "{} is missing: build it with cargo build -p speediso-sys --examples", path.display());
    path
}

fn run(program: &str, arguments: &[&str], image: &Path) {
    let output = Command::new(program)
        .args(arguments)
        .arg(image)
        .output()
        .unwrap_or_else(|e| panic!("{program} is needed for this test (see make deps): {e}"));
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
}

fn image(dir: &tempfile::TempDir, mib: u64) -> PathBuf {
    let path = dir.path().join("disk.img");
    File::create(&path).and_then(|f| f.set_len(mib << 20)).expect("an empty image");
    path
}

fn probed(path: &Path) -> Vec<Signature> {
    probe_file_in_child(&child(), File::open(path).expect("the image"), Duration::from_secs(10)).expect("an answer")
}

fn kinds(found: &[Signature]) -> Vec<(Option<u32>, &str)> {
    found.iter().map(|s| (s.partition, s.kind.as_str())).collect()
}

#[test]
fn file_systems_are_recognised() {
    for (program, arguments, kind, label) in [
        ("mke2fs", &["-q", "-t", "ext4", "-L", "root"][..], "ext4", "root"),
        ("mkfs.vfat", &["-n", "CIDATA"][..], "vfat", "CIDATA"),
        ("mkswap", &["-q", "-L", "swap"][..], "swap", "swap"),
    ] {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = image(&dir, 64);
        run(program, arguments, &path);
        let found = probed(&path);
        assert!(found.iter().any(|s| s.kind == kind && s.label == label && !s.uuid.is_empty()), "{program}: {found:?}");
    }
}

#[test]
fn partitions_are_looked_into_without_the_kernel() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = image(&dir, 64);
    run("sgdisk", &["-n1:2048:+16M", "-t1:ef00", "-n2:0:0", "-t2:8300"], &path);
    let inner = dir.path().join("inner.img");
    File::create(&inner).and_then(|f| f.set_len(16 << 20)).expect("an empty image");
    run("mkfs.vfat", &["-n", "ESP"], &inner);
    let mut disk = File::options().write(true).open(&path).expect("the image");
    disk.seek(SeekFrom::Start(1 << 20)).expect("sought");
    disk.write_all(&std::fs::read(&inner).expect("the file system")).expect("written");
    let found = probed(&path);
    assert_eq!(kinds(&found), [(None, "gpt"), (Some(1), "vfat")], "{found:?}");
    let words: Vec<String> = probe_in_child(&child(), &path).expect("an answer");
    assert!(words[0].starts_with("gpt partition table "), "{words:?}");
    assert!(words[1].starts_with("partition 1: vfat \"ESP\" "), "{words:?}");
}

#[test]
fn nothing_is_nothing() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    assert_eq!(probed(&image(&dir, 8)), []);
}

/// Noise, and file systems with noise thrown over their superblocks, at many places: an answer or a failure that says
/// so, within time, and never an end of ours.
#[test]
fn damaged_superblocks_cost_at_most_the_child() {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for round in 0..16 {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = image(&dir, 4);
        match round % 4 {
            0 => run("mke2fs", &["-q", "-t", "ext4"], &path),
            1 => run("mkfs.vfat", &[], &path),
            2 => run("sgdisk", &["-n1:0:0"], &path),
            _ => {}
        }
        let mut bytes = std::fs::read(&path).expect("the image");
        if round % 4 == 3 {
            bytes.iter_mut().for_each(|b| *b = random().to_le_bytes()[3]);
        }
        for _ in 0..200 {
            let at = usize::try_from(random() % (128 * 1024)).expect("small");
            bytes[at] = random().to_le_bytes()[2];
        }
        std::fs::write(&path, &bytes).expect("written");
        let begun = Instant::now();
        match probe_file_in_child(&child(), File::open(&path).expect("the image"), Duration::from_secs(10)) {
            Ok(_) | Err(ProbeError::Failed { .. }) => {}
            Err(other) => panic!("round {round}: {other}"),
        }
        assert!(begun.elapsed() < Duration::from_secs(10), "round {round}");
    }
}

#[test]
fn a_child_that_hangs_fails_or_lies_is_told_apart() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = image(&dir, 1);
    let script = |name: &str, text: &str| {
        use std::os::unix::fs::PermissionsExt;
        let script = dir.path().join(name);
        std::fs::write(&script, format!("#!/bin/sh\n{text}\n")).expect("written");
        std::fs::set_permissions(&script, PermissionsExt::from_mode(0o755)).expect("executable");
        script
    };
    let run = |exe: &Path| probe_file_in_child(exe, File::open(&path).expect("the image"), Duration::from_millis(500));
    let begun = Instant::now();
    assert!(matches!(run(&script("hangs", "exec /bin/sleep 60")), Err(ProbeError::Deadline(_))));
    assert!(begun.elapsed() < Duration::from_secs(5));
    let Err(ProbeError::Failed { said, .. }) = run(&script("fails", "echo bad superblock >&2; exit 3")) else {
        panic!("a failure is none")
    };
    assert_eq!(said, "bad superblock");
    assert!(matches!(run(&script("lies", "echo '[{\"kind\": 7}]'")), Err(ProbeError::Answer(_))));
    assert!(matches!(
        run(&script("floods", "exec /usr/bin/yes")),
        Err(ProbeError::Failed { .. } | ProbeError::Deadline(_))
    ));
    assert!(matches!(run(Path::new("/nonexistent")), Err(ProbeError::Start { .. })));
}

//! The real builder on the real packages: the same inputs give the same bytes, for whoever builds.
//!
//! Needs apt's lists, and the network if the cache is cold; without them the tests fail rather than pass unseen.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use sha2::{Digest, Sha256};

const BUILDER: &str = env!("CARGO_BIN_EXE_speediso-initramfs");
const FILES: [&str; 7] =
    ["vmlinuz", "initramfs.img", "speediso.efi", "tools.tar.zst", "build.json", "manifest.txt", "SHA256SUMS"];

/// Any static program will do as the agent; the builder itself is one.
fn build(command: &mut Command, out: &Path, more: &[&str]) -> Output {
    command.args(["build", "--agent", BUILDER, "--out"]).arg(out).args(more).output().unwrap()
}

#[track_caller]
fn succeed(output: &Output) -> String {
    assert!(output.status.success(), "the build failed:\n{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn digests(build: &Path) -> Vec<(&'static str, Vec<u8>)> {
    FILES.iter().map(|&name| (name, Sha256::digest(fs::read(build.join(name)).unwrap()).to_vec())).collect()
}

fn cache() -> PathBuf {
    std::env::var_os("SPEEDISO_CACHE").map_or_else(
        || {
            let base = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
            base.unwrap_or_else(|| PathBuf::from(std::env::var_os("HOME").unwrap()).join(".cache")).join("speediso")
        },
        PathBuf::from,
    )
}

#[test]
fn two_builds_and_one_by_another_user_are_the_same_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let (first, second, third) = (dir.path().join("1st"), dir.path().join("2nd"), dir.path().join("3rd"));
    succeed(&build(&mut Command::new(BUILDER), &first, &["--number", "7"]));
    // Another umask and another time zone must leave no trace.
    let mut other = Command::new("sh");
    other.args(["-c", "umask 077; exec \"$0\" \"$@\"", BUILDER]).env("TZ", "Asia/Tokyo");
    succeed(&build(&mut other, &second, &["--number", "7"]));
    let expected = digests(&first.join("7"));
    assert_eq!(expected, digests(&second.join("7")));

    // An unprivileged user, with a copy of what it could have made itself; the copy is not writable for it.
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let (home, shared) = (dir.path().join("home"), dir.path().join("cache"));
    fs::create_dir(&home).unwrap();
    fs::create_dir(&third).unwrap();
    copy_cache(&cache(), &shared);
    let agent = dir.path().join("agent");
    fs::copy(BUILDER, &agent).unwrap();
    let mut command = if running_as_root() {
        for owned in [&home, &third] {
            std::os::unix::fs::chown(owned, Some(65534), Some(65534)).unwrap();
        }
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(&agent);
        command
    } else {
        Command::new(&agent)
    };
    command.env("HOME", &home).env("SPEEDISO_CACHE", &shared).env_remove("TMPDIR");
    let args = ["build", "--number", "7", "--agent"];
    let output = command.args(args).arg(&agent).arg("--out").arg(&third).output().unwrap();
    succeed(&output);
    assert_eq!(expected, digests(&third.join("7")));

    // And the manifest of sizes tells of every part.
    let listing = fs::read_to_string(first.join("7/manifest.txt")).unwrap();
    for path in [
        " /init\n",
        " /sbin/speediso-agent\n",
        " /usr/sbin/dropbear\n",
        " /dev/console\n",
        "/nvme.ko\n",
        " /sbin/cryptsetup\n",
        "/dm-thin-pool.ko\n",
    ] {
        assert!(listing.contains(path), "{path:?} is missing from\n{listing}");
    }
}

#[test]
fn the_same_inputs_keep_their_number() {
    let dir = tempfile::tempdir().unwrap();
    let said = succeed(&build(&mut Command::new(BUILDER), dir.path(), &[]));
    assert!(said.starts_with("ramdisk: build 1 in "), "{said}");
    let said = succeed(&build(&mut Command::new(BUILDER), dir.path(), &[]));
    assert!(said.starts_with("ramdisk: build 1 is up to date"), "{said}");
    let mut later = Command::new(BUILDER);
    later.env("SOURCE_DATE_EPOCH", "1900000000");
    let said = succeed(&build(&mut later, dir.path(), &[]));
    assert!(said.starts_with("ramdisk: build 2 in "), "{said}");
    assert_eq!(fs::read_link(dir.path().join("latest")).unwrap(), Path::new("2"));
}

#[test]
fn an_unknown_module_and_a_dynamic_agent_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let manifest = dir.path().join("manifest.json");
    let text = include_str!("../manifest.json").replacen(r#"["nvme"]"#, r#"["nvme", "warp_drive"]"#, 1);
    fs::write(&manifest, text).unwrap();
    let out = dir.path().join("out");
    let output = build(&mut Command::new(BUILDER), &out, &["--manifest", manifest.to_str().unwrap()]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success());
    assert!(said.contains("has no module warp_drive: correct the manifest"), "{said}");

    let output = Command::new(BUILDER).args(["build", "--agent", "/bin/sh", "--out"]).arg(&out).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success());
    assert!(said.contains("the agent /bin/sh is not static"), "{said}");
    assert!(!out.exists(), "a refused build leaves nothing");
}

/// Only what a build reads, and in a form that another user may read but not change.
fn copy_cache(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for kind in ["debs", "kernels", "unpacked", "bases", "tools"] {
        let copied = Command::new("cp").args(["-a", "--reflink=auto"]).arg(from.join(kind)).arg(to).status().unwrap();
        assert!(copied.success(), "copying {kind} of the cache");
    }
    assert!(Command::new("chmod").args(["-R", "a+rX,a-w"]).arg(to).status().unwrap().success());
}

fn running_as_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0)
}

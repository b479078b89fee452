//! The real builder on the real packages: the same inputs give the same bytes, for whoever builds.
//!
//! Needs apt's lists, and the network if the cache is cold; without them the tests fail rather than pass unseen.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use sha2::{Digest, Sha256};

const BUILDER: &str = env!("CARGO_BIN_EXE_speediso-initramfs");
const FILES: [&str; 12] = [
    "vmlinuz",
    "initramfs.img",
    "speediso.efi",
    "tools.tar.zst",
    "addon.img",
    "addon.licences.txt",
    "build.json",
    "manifest.txt",
    "packages.lock.json",
    "sbom.cdx.json",
    "sources.txt",
    "SHA256SUMS",
];
/// Mounts the cache read-only where the user can reach it, with no network, and gives up every right.
const UNPRIVILEGED: &str = r#"mount --bind "$1" "$2" && mount -o remount,bind,ro "$2" && shift 2 &&
    exec setpriv --reuid=65534 --regid=65534 --clear-groups "$@""#;

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
    succeed(&build(&mut Command::new(BUILDER), &first, &["--number", "7", "--addon"]));
    let expected = digests(&first.join("7"));
    let lock = first.join("7/packages.lock.json");

    // By the lock, with another umask and in another time zone.
    let mut other = Command::new("sh");
    other.args(["-c", "umask 077; exec \"$0\" \"$@\"", BUILDER]).env("TZ", "Asia/Tokyo");
    succeed(&build(&mut other, &second, &["--number", "7", "--addon", "--lock", lock.to_str().unwrap()]));
    assert_eq!(expected, digests(&second.join("7")));

    // By the lock again: an unprivileged user, without a network, with a cache that cannot be written.
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let (home, shared) = (dir.path().join("home"), dir.path().join("cache"));
    for made in [&home, &third, &shared] {
        fs::create_dir(made).unwrap();
    }
    let agent = dir.path().join("agent");
    fs::copy(BUILDER, &agent).unwrap();
    let mut command = if running_as_root() {
        for owned in [&home, &third] {
            std::os::unix::fs::chown(owned, Some(65534), Some(65534)).unwrap();
        }
        let mut command = Command::new("unshare");
        command.args(["--mount", "--net", "sh", "-c", UNPRIVILEGED, "sh"]).args([&cache(), &shared, &agent]);
        command.env("SPEEDISO_CACHE", &shared);
        command
    } else {
        Command::new(&agent)
    };
    command.env("HOME", &home).env_remove("TMPDIR");
    let args = ["build", "--number", "7", "--addon", "--agent"];
    let output = command.args(args).arg(&agent).arg("--lock").arg(&lock).arg("--out").arg(&third).output().unwrap();
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
        "/e100.ko\n",
        " /lib/firmware/e100/d102e_ucode.bin\n",
    ] {
        assert!(listing.contains(path), "{path:?} is missing from\n{listing}");
    }
    the_bill_of_materials_is_one(&first.join("7"));
    a_build_is_verified_and_signed(&first, dir.path());
}

/// What the schema of CycloneDX 1.5 requires, and that nothing packed is missing from it.
#[track_caller]
fn the_bill_of_materials_is_one(build: &Path) {
    let json = |name: &str| -> Value { serde_json::from_slice(&fs::read(build.join(name)).unwrap()).unwrap() };
    let bill = json("sbom.cdx.json");
    assert_eq!(
        (&bill["bomFormat"], &bill["specVersion"], &bill["version"]),
        (&"CycloneDX".into(), &"1.5".into(), &1.into())
    );
    let serial = bill["serialNumber"].as_str().unwrap().strip_prefix("urn:uuid:").unwrap();
    let lengths: Vec<usize> = serial.split('-').map(str::len).collect();
    assert_eq!(lengths, [8, 4, 4, 4, 12]);
    assert!(bill["metadata"]["timestamp"].as_str().unwrap().ends_with('Z'));
    let types = [
        "application",
        "framework",
        "library",
        "container",
        "platform",
        "operating-system",
        "device",
        "firmware",
        "file",
    ];
    let components = bill["components"].as_array().unwrap();
    let mut references = BTreeSet::from(["speediso"]);
    for component in components {
        assert!(types.contains(&component["type"].as_str().unwrap()), "{component}");
        assert!(!component["name"].as_str().unwrap().is_empty());
        assert!(references.insert(component["bom-ref"].as_str().unwrap()), "twice: {component}");
        for hash in component["hashes"].as_array().into_iter().flatten() {
            assert_eq!(hash["alg"], "SHA-256");
            let content = hash["content"].as_str().unwrap();
            assert!(content.len() == 64 && content.bytes().all(|b| b.is_ascii_hexdigit()), "{hash}");
        }
        // Either one expression, or licences by identifier or name.
        let licences = component["licenses"].as_array().cloned().unwrap_or_default();
        let named = |l: &Value| l["license"]["id"].is_string() || l["license"]["name"].is_string();
        let expression = matches!(licences.as_slice(), [one] if one["expression"].is_string());
        assert!(expression || licences.iter().all(named), "{component}");
        for property in component["properties"].as_array().into_iter().flatten() {
            assert!(property["name"].is_string() && property["value"].is_string());
        }
    }
    for dependency in bill["dependencies"].as_array().unwrap() {
        let known = |reference: &Value| references.contains(reference.as_str().unwrap());
        assert!(known(&dependency["ref"]) && dependency["dependsOn"].as_array().unwrap().iter().all(known));
    }
    let sources = fs::read_to_string(build.join("sources.txt")).unwrap();
    for package in json("packages.lock.json")["packages"].as_array().unwrap() {
        let (name, sha256) = (package["name"].as_str().unwrap(), &package["sha256"]);
        let listed = components.iter().any(|c| c["name"] == name && c["hashes"][0]["content"] == *sha256);
        assert!(listed, "{name} is not in the bill of materials");
        assert!(sources.contains(name), "{name} has no source in\n{sources}");
    }
    let linux = sources.lines().find(|line| line.starts_with("apt-get source linux=")).unwrap();
    assert!(linux.contains("# linux-image-"), "{linux}");
}

#[track_caller]
fn a_build_is_verified_and_signed(builds: &Path, dir: &Path) {
    let run = |args: &[&str]| Command::new(BUILDER).args(args).arg("--out").arg(builds).output().unwrap();
    let key = dir.join("key.hex");
    // RFC 8032, 7.1, test 1: a seed and its public key.
    fs::write(&key, "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60").unwrap();
    let public = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
    let unsigned = run(&["verify", "--key", public]);
    assert!(!unsigned.status.success());
    assert!(String::from_utf8_lossy(&unsigned.stderr).contains("the build is not signed"));
    succeed(&run(&["sign", "--key", key.to_str().unwrap()]));
    let said = succeed(&run(&["verify", "--key", public]));
    assert!(said.contains(&format!("11 files are as published; signed by {public}")), "{said}");
    // Another program's opinion: the signature is a plain one over the file.
    let signature = fs::read_to_string(builds.join("7/SHA256SUMS.sig")).unwrap();
    let bytes: Vec<u8> = (0..128).step_by(2).map(|n| u8::from_str_radix(&signature[n..n + 2], 16).unwrap()).collect();
    fs::write(dir.join("sig"), bytes).unwrap();
    let der: Vec<u8> = (0..64).step_by(2).map(|n| u8::from_str_radix(&public[n..n + 2], 16).unwrap()).collect();
    fs::write(dir.join("pub.der"), [&[0x30, 0x2a, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 3, 0x21, 0][..], &der].concat())
        .unwrap();
    let openssl = Command::new("openssl")
        .args([
            "pkeyutl", "-verify", "-rawin", "-pubin", "-keyform", "DER", "-inkey", "pub.der", "-sigfile", "sig", "-in",
        ])
        .arg(builds.join("7/SHA256SUMS"))
        .current_dir(dir)
        .output()
        .unwrap();
    assert!(openssl.status.success(), "{openssl:?}");
    let efi = builds.join("7/speediso.efi");
    let mut bytes = fs::read(&efi).unwrap();
    bytes[70_000] ^= 1;
    fs::write(&efi, bytes).unwrap();
    let said = String::from_utf8(run(&["verify", "--key", public]).stderr).unwrap();
    assert!(said.contains("is not the build that was published: speediso.efi has the SHA-256"), "{said}");
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
fn what_cannot_be_built_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let site = dir.path().join("site.json");
    let refused = |manifest: Option<&str>, more: &[&str]| {
        let mut args = Vec::new();
        if let Some(text) = manifest {
            fs::write(&site, text).unwrap();
            args = vec!["--manifest", site.to_str().unwrap()];
        }
        args.extend(more);
        let output = build(&mut Command::new(BUILDER), &out, &args);
        assert!(!output.status.success(), "{manifest:?} {more:?}");
        assert!(!out.exists(), "a refused build leaves nothing");
        String::from_utf8(output.stderr).unwrap()
    };
    let group =
        |modules: &str| format!(r#"{{ "modules": [ {{ "group": "g", "reason": "r", "modules": [{modules}] }} ] }}"#);
    for (manifest, more, said) in [
        (Some(group(r#""e100", "warp_drive""#)), &[][..], "has no module warp_drive: correct the manifest"),
        (Some("{ \"moduls\": [] }".to_owned()), &[], "unknown field `moduls`"),
        (Some("{".to_owned()), &[], "site.json: reading the manifest: EOF"),
        (
            Some(r#"{ "files": [ { "reason": "r", "from": "none.txt", "to": "/etc/x" } ] }"#.to_owned()),
            &[],
            "none.txt, which the manifest names",
        ),
        (
            Some(r#"{ "programs": [ { "package": "no-such-package", "reason": "r", "files": {} } ] }"#.to_owned()),
            &[],
            "no-such-package",
        ),
        (
            Some(r#"{ "programs": [ { "package": "ethtool", "reason": "r", "files": { "/sbin/ethtool": "/sbin/ethtool" } } ] }"#.to_owned()),
            &[],
            "no package under `libraries` in the manifest holds libmnl.so.0: add the one that does",
        ),
        (None, &["--kernel", "no-such-kernel"], "choosing the kernel no-such-kernel"),
        (None, &["--lock", "/dev/null"], "reading the lock /dev/null"),
        (None, &["--arch", "mips"], "x86_64 or aarch64"),
        (None, &["--arch", "aarch64"], "is for x86_64, and the ramdisk for aarch64"),
    ] {
        let stderr = refused(manifest.as_deref(), more);
        assert!(stderr.contains(said), "{said:?} is not in\n{stderr}");
    }
    // A lock that lacks a package does not fall back to apt's newest.
    let lock = dir.path().join("lock.json");
    fs::write(&lock, r#"{ "version": 1, "arch": "x86_64", "kernels": {}, "packages": [] }"#).unwrap();
    let said = refused(None, &["--lock", lock.to_str().unwrap()]);
    assert!(said.contains("the lock has no kernel linux-image-amd64"), "{said}");

    let output = Command::new(BUILDER).args(["build", "--agent", "/bin/sh", "--out"]).arg(&out).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success());
    assert!(said.contains("the agent /bin/sh is not static"), "{said}");
}

fn running_as_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0)
}

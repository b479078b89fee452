//! What a site adds, on the real packages, without the minute that compressing takes; and the page of hardware.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;
use std::process::Command;

use speediso_initramfs::arch::Arch;
use speediso_initramfs::assemble;
use speediso_initramfs::cache::Cache;
use speediso_initramfs::contents::Kind;
use speediso_initramfs::crates;
use speediso_initramfs::extra::Extra;
use speediso_initramfs::manifest::{BUILT_IN, Manifest};
use speediso_initramfs::supply::Supply;

const BUILDER: &str = env!("CARGO_BIN_EXE_speediso-initramfs");

#[test]
fn modules_firmware_packages_and_files_come_by_one_manifest() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("support.txt"), "call us\n").unwrap();
    let extra = Extra::parse(
        r#"{ "modules": [ { "group": "old", "reason": "an old card", "modules": ["e100", "pcnet32"],
                            "firmware": ["non-free-firmware/firmware-misc-nonfree"] } ],
             "without": [ { "module": "hv_netvsc", "reason": "no Hyper-V here" } ],
             "blacklist": [ { "module": "pcnet32", "reason": "only by hand" } ],
             "programs": [ { "package": "ethtool", "reason": "cards by hand", "files": { "/sbin/ethtool": "/sbin/ethtool" } } ],
             "libraries": ["libmnl0"],
             "files": [ { "reason": "whom to call", "from": "support.txt", "to": "/etc/support" } ] }"#,
    )
    .unwrap();
    let manifest = extra.over(Manifest::parse(BUILT_IN).unwrap()).unwrap();
    let base = assemble::base(&manifest, dir.path(), &Supply::of_user().unwrap()).unwrap();
    let listing = base.tree.listing();
    for path in [
        "/e100.ko\n",
        "/pcnet32.ko\n",
        "/mii.ko\n",
        " /lib/firmware/e100/d101m_ucode.bin\n",
        " /sbin/ethtool\n",
        "/libmnl.so.0\n",
        " /etc/support\n",
        "/nvme.ko\n",
    ] {
        assert!(listing.contains(path), "{path:?} is missing from\n{listing}");
    }
    assert!(!listing.contains("/hv_netvsc.ko"), "it was left out");
    assert!(!listing.contains("/lib/firmware/tigon"), "only what the group's modules name");
    let part = |path: &str| base.contents.part_of(path).map(|part| (part.kind, part.reason.as_str()));
    assert_eq!(part("lib/firmware/e100/d102e_ucode.bin"), Some((Kind::Firmware, "an old card")));
    assert_eq!(part("etc/support"), Some((Kind::Site, "whom to call")));
    assert!(base.packages.iter().any(|package| package.name == "firmware-misc-nonfree"));
    assert!(base.missing_firmware.is_empty(), "{:?}", base.missing_firmware);
}

/// A kernel as a package file is the same as by its name.
#[test]
fn a_kernel_may_be_a_file() {
    let supply = Supply::of_user().unwrap();
    let by_name = supply.kernel("linux-image-amd64").unwrap();
    let file = by_name.fetch(supply.cache()).unwrap();
    let by_file = supply.kernel(file.to_str().unwrap()).unwrap();
    assert_eq!((&by_file.name, &by_file.version, &by_file.sha256), (&by_name.name, &by_name.version, &by_name.sha256));
    let other = Supply::new(Cache::of_user().unwrap(), Arch::Aarch64, None);
    let error = format!("{:#}", other.kernel(file.to_str().unwrap()).unwrap_err());
    assert!(error.ends_with("is for amd64 and not for arm64"), "{error}");
}

#[test]
fn the_agents_crates_are_those_of_the_workspace() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let crates = crates::of_agent(root, Arch::X86_64).unwrap();
    let find = |name: &str| crates.iter().find(|one| one.name == name);
    assert_eq!(find("speediso-agent").unwrap().checksum, None);
    let rustls = find("rustls").unwrap();
    assert_eq!(rustls.checksum.as_ref().map(String::len), Some(64));
    assert!(rustls.licence.as_ref().unwrap().contains("Apache-2.0"));
    for absent in ["speediso-controller", "proptest", "sqlx"] {
        assert!(find(absent).is_none(), "{absent} is not linked into the agent");
    }
}

#[test]
fn the_page_of_hardware_is_current() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/hardware.md");
    let output = Command::new(BUILDER).args(["hardware", "--check", "--to"]).arg(page).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

//! Boot loaders other than iPXE, with the entries that the controller renders as they are, and firmware that needs none.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use speediso_lab::{Chain, Firmware, GATEWAY, Lab, Loader, Machine, MachineSpec, Site, Web, tool};
use speediso_tests::builder::{initramfs, path};
use speediso_tests::{BOOT, SOON, programs};

/// What the kernel says that it was started with.
fn command_line(machine: &mut Machine<'_>) -> String {
    // It says so twice: by the second time the first line is whole.
    machine.wait_for("Kernel command line:", 2 * BOOT).unwrap();
    let console = machine.serial().text();
    console.lines().find(|line| line.contains("] Command line:")).unwrap().to_owned()
}

fn with_dashes(machine: &Machine<'_>) -> String {
    format!("01-{}", machine.mac().replace(':', "-"))
}

/// PXELINUX fetches configuration, kernel and ramdisk over HTTP through the web server of a small site; asked for by the
/// machine's UUID, the entry has no MAC address in it, and PXELINUX adds the one that it booted from (`IPAPPEND 2`). GRUB, in
/// UEFI, asks by its MAC address. Either way the agent enrols over the interface that was booted from.
#[test]
fn pxelinux_and_grub_boot_what_the_controller_renders() {
    const UUID: &str = "11111111-2222-4333-8444-555555555555";
    let programs = programs().unwrap();
    let url = format!("http://{GATEWAY}");
    let lab = Lab::builder()
        .loader(Loader::Pxelinux { prefix: Some(format!("{url}/boot/")) })
        .loader(Loader::Grub { boot_url: url.clone() })
        .chain(Chain::Url(format!("{url}/boot/ipxe")))
        .build()
        .unwrap();
    let mut site = Site::prepare(&lab, &programs, 0).unwrap();
    site.behind(&url);
    site.start_controller().unwrap();
    let _web = Web::of_site(&lab, programs.boot_files.parent().unwrap(), lab.dir()).unwrap();
    let _: Value = site.json(&["create", "known", "--mac", "52:54:00:12:00:71", "--uuid", UUID]).unwrap();
    let _: Value = site.json(&["arm", "known"]).unwrap();

    let spec = |name: &str, firmware| MachineSpec::new(name).firmware(firmware).memory_mib(512).cpus(1);
    // With a second card, so that it matters which one was booted from.
    let known = spec("bios", Firmware::Bios).mac("52:54:00:12:00:71").uuid(UUID).serial("BIOS-1");
    let mut bios = known.second_nic("52:54:00:12:00:72").power_on(&lab).unwrap();
    let mut uefi = spec("uefi", Firmware::Uefi).serial("UEFI-1").power_on(&lab).unwrap();

    let line = command_line(&mut bios);
    assert!(line.contains("speediso.token=") && line.contains(" ip=dhcp "), "{line}");
    assert!(line.trim_end().ends_with(&format!("BOOTIF={}", with_dashes(&bios))), "{line}");
    let line = command_line(&mut uefi);
    assert!(line.contains(&format!("BOOTIF={}", with_dashes(&uefi))) && line.contains(" ip=dhcp "), "{line}");
    // By its token at once, and after a person has looked.
    site.wait_machine("BIOS-1", "enrolled", BOOT, |node| node.online).unwrap();
    site.wait_machine("UEFI-1", "pending", BOOT, |node| node.code.is_some()).unwrap();
    for machine in [&mut bios, &mut uefi] {
        let own = format!("{}/24 on", machine.address());
        machine.wait_for(&own, SOON).unwrap();
    }
}

/// A site with TFTP alone: PXELINUX and one entry for all, as `speediso boot-files` writes it.
#[test]
#[ignore = "two minutes: kernel and ramdisk come by TFTP; `make test-all` runs it"]
fn pxelinux_over_tftp_alone() {
    let programs = programs().unwrap();
    let lab = Lab::builder()
        .loader(Loader::Pxelinux { prefix: None })
        .chain(Chain::Url("pxelinux.0".to_owned()))
        .build()
        .unwrap();
    let site = Site::start(&lab, &programs, 0).unwrap();
    let to = lab.dir().join("files");
    let written = tool::run(site.cli(["boot-files", "--interface", "br0", "--address", "192.0.2.1/24"]).args([
        "--range",
        "192.0.2.100-192.0.2.199",
        "--bios",
        "pxelinux",
        "--tftp-only",
        "--controller",
        &format!("https://{}", Site::api()),
        "--to",
        path(&to).unwrap(),
    ]))
    .unwrap();
    assert!(written.contains("pxelinux.cfg/default"), "{written}");
    let tftp = lab.tftp_root();
    fs::create_dir(tftp.join("pxelinux.cfg")).unwrap();
    fs::copy(to.join("tftp/pxelinux.cfg/default"), tftp.join("pxelinux.cfg/default")).unwrap();
    for file in ["vmlinuz", "initramfs.img"] {
        fs::copy(programs.boot_files.join(file), tftp.join(file)).unwrap();
    }
    let mut machine =
        MachineSpec::new("m").firmware(Firmware::Bios).memory_mib(512).cpus(1).serial("TFTP-1").power_on(&lab).unwrap();
    let line = command_line(&mut machine);
    assert!(line.contains(&format!("BOOTIF={}", with_dashes(&machine))), "{line}");
    site.wait_machine("TFTP-1", "pending", BOOT, |node| node.code.is_some()).unwrap();
}

/// UEFI firmware fetches a build as one EFI program over HTTP by itself, no boot loader in between.
#[test]
#[ignore = "two minutes: firmware waits for PXE before it tries HTTP; `make test-all` runs it"]
fn firmware_boots_over_http_by_itself() {
    let programs = programs().unwrap();
    let url = format!("http://{GATEWAY}:8081/speediso.efi");
    let lab = Lab::builder().loader(Loader::Http { url }).build().unwrap();
    let files = lab.dir().join("files");
    fs::create_dir(&files).unwrap();
    let builds = programs.boot_files.parent().unwrap();
    let site = Site::start(&lab, &programs, 0).unwrap();
    let words = format!(
        "console=ttyS0,115200 speediso.controller=https://{} speediso.ca=sha256:{}",
        Site::api(),
        fingerprint(&site.ca_file())
    );
    let to = files.join("speediso.efi");
    initramfs(&programs, &["uki", "--out", path(builds).unwrap(), "--cmdline", &words, "--to", path(&to).unwrap()])
        .unwrap();
    let server = lab.serve_files(8081, &files).unwrap();
    let mut machine = MachineSpec::new("m").memory_mib(768).cpus(1).serial("HTTP-1").power_on(&lab).unwrap();
    let line = command_line(&mut machine);
    assert!(line.contains(&words), "{line}");
    site.wait_machine("HTTP-1", "pending", BOOT, |node| node.code.is_some()).unwrap();
    assert!(server.requests().iter().any(|request| request.contains("/speediso.efi")), "{:?}", server.requests());
    machine.wait_for(&format!("{}/24 on", machine.address()), SOON).unwrap();
}

/// SHA-256 of a certificate, as `speediso.ca=` wants it.
fn fingerprint(certificate: &Path) -> String {
    let shown =
        tool::run(Command::new("openssl").args(["x509", "-noout", "-fingerprint", "-sha256", "-in"]).arg(certificate))
            .unwrap();
    shown.trim().rsplit('=').next().unwrap().replace(':', "").to_ascii_lowercase()
}

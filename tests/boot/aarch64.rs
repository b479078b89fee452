//! The agent and the ramdisk of another kind of machine: compiled here, started there.

#![allow(clippy::unwrap_used)]

use serde_json::json;
use speediso_lab::{Bus, Lab, MachineSpec, Processor, Start};
use speediso_model::outcome::{Changed, Outcome};
use speediso_tests::{BOOT, LiveSsh, Orders, SOON, TestDisk, WORK, aarch64_builds, sha256};

const MACHINE: &str = "ARM";
const PORT: u16 = 8081;

#[test]
#[ignore = "compiles the agent a second time (make ramdisk-aarch64), emulates another processor: make test-all"]
fn the_ramdisk_for_aarch64_knows_its_machine_and_writes_an_image() {
    let build = aarch64_builds().unwrap().join("latest");
    let lab = Lab::builder().build().unwrap();
    let mut ssh = LiveSsh::with_fresh_key(&lab, "arm").unwrap();
    let target = TestDisk::blank(&lab, "TARGET", 64).unwrap();
    let neighbour = TestDisk::with_data(&lab, "NEIGHBOUR", 64).unwrap();
    let image = lab.dir().join("files/system.raw");
    std::fs::create_dir(image.parent().unwrap()).unwrap();
    let bytes: Vec<u8> = (0_u32..8 << 20).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    std::fs::write(&image, &bytes).unwrap();
    let _files = lab.serve_files(PORT, image.parent().unwrap()).unwrap();
    let machine = MachineSpec::new("arm")
        .processor(Processor::Aarch64)
        .serial(MACHINE)
        .disk(target.plugged().bus(Bus::Nvme))
        .disk(neighbour.plugged())
        .start_with(Start::Kernel {
            kernel: build.join("vmlinuz"),
            initrd: build.join("initramfs.img"),
            append: format!("console=ttyAMA0 speediso.sshkey=\"{}\"", ssh.public),
        })
        .power_on(&lab)
        .unwrap();
    ssh.to(&lab, &machine).unwrap();
    let kernel = ssh.run("uname -mr; speediso-agent --version", BOOT).unwrap();
    assert!(kernel.contains("-arm64 aarch64") && kernel.contains("-arm64)"), "{kernel}");
    let inventory: serde_json::Value =
        serde_json::from_str(&ssh.run("speediso-agent inventory --json", SOON).unwrap()).unwrap();
    assert_eq!(inventory["cpu"]["architecture"], "aarch64");
    assert!(inventory["cpu"]["model_name"].as_str().unwrap().starts_with("virt"), "{}", inventory["cpu"]);
    assert_eq!(inventory["system_vendor"]["serial_number"], MACHINE);

    let orders = Orders { ssh: &ssh, machine: MACHINE };
    let source = json!({
        "url": format!("http://192.0.2.1:{PORT}/system.raw"),
        "digest": format!("sha256:{}", sha256(&image).unwrap()),
        "compression": "none",
    });
    let write = json!({"task": "write_image", "device": {"serial": "TARGET"}, "image": source});
    let written = orders.run(&[write], WORK).unwrap().remove(0);
    assert_eq!((written.outcome, written.changed), (Outcome::Verified, Some(Changed::Changed)), "{written:#?}");
    ssh.run("sync", SOON).unwrap();
    drop(machine);
    assert!(target.read(0, bytes.len()).unwrap() == bytes, "the file behind the disk is not the image");
    neighbour.assert_untouched().unwrap();
}

//! Figures that take a machine: time to enrol, and how little memory is enough.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};
use speediso_lab::{Disk, Firmware, Lab, MachineSpec, Programs, Site, Start, tool};

use crate::show::{fact, seconds};

const LIMIT: Duration = Duration::from_secs(300);

fn direct(programs: &Programs, name: &str, words: &str) -> MachineSpec {
    MachineSpec::new(name).firmware(Firmware::Bios).start_with(Start::Kernel {
        kernel: programs.boot_files.join("vmlinuz"),
        initrd: programs.boot_files.join("initramfs.img"),
        append: format!("console=ttyS0,115200 {words}"),
    })
}

/// From the kernel's first line on the console until the controller lists the machine. Firmware and PXE are not ours.
pub(super) fn until_enrolled(lab: &Lab, programs: &Programs, rounds: u32) -> Result<()> {
    let site = Site::start(lab, programs, 0)?;
    let script = tool::run(
        lab.command("curl").args(["-sSf", "http://192.0.2.1:8080/boot/ipxe?mac=52:54:00:00:00:00&uuid=&serial="]),
    )?;
    let words: Vec<&str> = script.split_whitespace().filter(|word| word.starts_with("speediso.")).collect();
    for round in 1..=rounds {
        let serial = format!("BENCH-{round}");
        let mut machine = direct(programs, &format!("enrol{round}"), &words.join(" ")).serial(&serial).power_on(lab)?;
        machine.wait_for("Linux version", LIMIT)?;
        let began = Instant::now();
        site.wait_machine(&serial, "listed", LIMIT, |_| true)?;
        fact(format!("round {round}: {}", seconds(began.elapsed())));
    }
    Ok(())
}

/// Installs the tiny image, armed, in ever less memory until it does not work any more.
pub(super) fn smallest_memory(lab: &Lab, programs: &Programs, root: &Path) -> Result<()> {
    let image = root.join("target/images/tiny.raw");
    if !image.is_file() {
        tool::run(Command::new(root.join("tests/images/tiny.sh")).arg(&image).current_dir(root))?;
    }
    let bytes = std::fs::read(&image).with_context(|| format!("reading {}", image.display()))?;
    let digest: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    let _server = lab.serve_files(8081, image.parent().context("the image lies in a directory")?)?;
    let mut smallest = None;
    for mib in [512, 384, 320, 256, 224, 192] {
        let disk = lab.dir().join(format!("memory-{mib}.raw"));
        std::fs::File::create(&disk)?.set_len(128 << 20)?;
        let words = format!(
            "SPEEDISO=lininstall speediso.arm=BENCH speediso.image=http://192.0.2.1:8081/tiny.raw \
             speediso.digest=sha256:{digest} speediso.root_device=serial=MEMORY speediso.wipe=none"
        );
        let mut machine = direct(programs, &format!("memory{mib}"), &words)
            .memory_mib(mib)
            .cpus(1)
            .serial("BENCH")
            .disk(Disk::new(&disk, "MEMORY"))
            .no_reboot()
            .power_on(lab)?;
        let ended = machine.wait_exit(LIMIT).is_ok();
        let installed = std::fs::read(&disk)?.get(1 << 20..2 << 20) == bytes.get(1 << 20..2 << 20);
        fact(format!("{mib} MiB: {}", if ended && installed { "boots and installs" } else { "does not" }));
        if !(ended && installed) {
            break;
        }
        smallest = Some(mib);
    }
    match smallest {
        Some(mib) => fact(format!("smallest: {mib} MiB (aim: 384 MiB)")),
        None => bail!("the machine did not install in 512 MiB either; see {}", lab.keep_logs().display()),
    }
    Ok(())
}

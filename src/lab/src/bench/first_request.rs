//! How much later the agent is at its controller than an empty ramdisk is at its first program, with the same kernel on
//! the same machine, in turn. The address is static, so that no DHCP server's pace is counted.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use speediso_lab::{Firmware, Lab, Machine, MachineSpec, Programs, Site, Start, tool};

use crate::show::{fact, seconds};

const LIMIT: Duration = Duration::from_secs(300);
const POLL: Duration = Duration::from_millis(5);
const AIM: Duration = Duration::from_millis(1500);
/// Both times begin here: firmware and the loading of the files are not ours.
const KERNEL: &str = "Linux version";
/// On the agent's screen once the controller has answered.
const ANSWERED: &str = "waits for approval";
const EMPTY: &str = "EMPTY-INIT";
/// Says that it runs and does nothing more.
const INIT: &str = "#include <unistd.h>\n\
    int main(void) { write(1, \"EMPTY-INIT\\n\", 11); for (;;) pause(); }\n";

pub(super) fn against_empty(lab: &Lab, programs: &Programs, rounds: u32) -> Result<()> {
    let site = Site::start(lab, programs, 0)?;
    let script = tool::run(
        lab.command("curl").args(["-sSf", "http://192.0.2.1:8080/boot/ipxe?mac=52:54:00:00:00:00&uuid=&serial="]),
    )?;
    let words: Vec<&str> = script.split_whitespace().filter(|word| word.starts_with("speediso.")).collect();
    let words = format!("ip=192.0.2.250::192.0.2.1:255.255.255.0:bench::none {}", words.join(" "));
    let ours = programs.boot_files.join("initramfs.img");
    let empty = empty_ramdisk(lab.dir())?;
    let (mut differences, mut empties, mut requests) = (Vec::new(), Vec::new(), Vec::new());
    for round in 1..=rounds {
        let nothing = {
            let machine = machine(lab, programs, &format!("empty{round}"), &empty, "")?;
            until(&machine, EMPTY)?
        };
        let serial = format!("FIRST-{round}");
        let request = {
            let machine = machine(lab, programs, &serial.to_lowercase(), &ours, &words)?;
            let answered = until(&machine, ANSWERED)?;
            site.wait_machine(&serial, "listed", LIMIT, |_| true)?;
            answered
        };
        fact(format!("round {round}: empty {}, first request answered {}", seconds(nothing), seconds(request)));
        differences.push(request.saturating_sub(nothing));
        empties.push(nothing);
        requests.push(request);
    }
    fact(format!(
        "empty {}, first request answered {}: {} later (aim: {})",
        seconds(median(&mut empties)),
        seconds(median(&mut requests)),
        seconds(median(&mut differences)),
        seconds(AIM)
    ));
    Ok(())
}

fn machine<'lab>(lab: &'lab Lab, programs: &Programs, name: &str, initrd: &Path, words: &str) -> Result<Machine<'lab>> {
    let spec = MachineSpec::new(name).firmware(Firmware::Bios).start_with(Start::Kernel {
        kernel: programs.boot_files.join("vmlinuz"),
        initrd: initrd.to_owned(),
        append: format!("console=ttyS0,115200 {words}"),
    });
    Ok(spec.serial(&name.to_uppercase()).power_on(lab)?)
}

/// When `what` is on the console, more exactly than a test has to know it.
fn after(machine: &Machine<'_>, what: &str) -> Result<Instant> {
    let begun = Instant::now();
    while !machine.serial().text().contains(what) {
        if begun.elapsed() > LIMIT {
            bail!("{what:?} is not on the console after {LIMIT:?}; its tail:\n{}", machine.serial().tail());
        }
        std::thread::sleep(POLL);
    }
    Ok(Instant::now())
}

fn until(machine: &Machine<'_>, what: &str) -> Result<Duration> {
    let began = after(machine, KERNEL)?;
    Ok(after(machine, what)?.duration_since(began))
}

fn empty_ramdisk(dir: &Path) -> Result<PathBuf> {
    let root = dir.join("empty");
    fs::create_dir(&root)?;
    fs::write(dir.join("init.c"), INIT)?;
    tool::run(
        Command::new("musl-gcc").args(["-static", "-Os", "-s", "-o"]).arg(root.join("init")).arg(dir.join("init.c")),
    )
    .context("compiling the empty ramdisk's only program")?;
    let image = dir.join("empty.img");
    let mut pack = Command::new("cpio");
    pack.args(["-o", "-H", "newc", "--quiet", "-F"]).arg(&image).current_dir(&root);
    let list = dir.join("empty.list");
    fs::write(&list, "init\n")?;
    pack.stdin(fs::File::open(&list)?);
    tool::run(&mut pack)?;
    Ok(image)
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

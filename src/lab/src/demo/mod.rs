//! The whole way of one bare machine, driven through the tools that an operator has: `speediso-controller`, `speediso`,
//! ssh, and eyes on the machine's console.

mod disks;
mod ssh;

use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use speediso_lab::{Accel, Disk, Firmware, Lab, Machine, MachineSpec, Programs, Site, Start, cached_accel, repository};
use speediso_model::api::NodeView;
use speediso_model::node::NodeState;

use crate::show::{Show, fact, mib};
use disks::Disks;
use ssh::Ssh;

const SERIAL: &str = "DEMO-0001";
const NAME: &str = "web1";
/// From power on to the agent's first word under emulation: about half a minute. The limit is for a busy machine.
const BOOT_LIMIT: Duration = Duration::from_secs(300);
const INSTALL_LIMIT: Duration = Duration::from_secs(900);
const LOGIN_LIMIT: Duration = Duration::from_secs(420);

pub(crate) fn run(firmware: Firmware) -> Result<()> {
    let root = repository(&std::env::current_dir()?).context("run the demo inside the repository")?;
    let mut show = Show::default();
    let image = debian_image(&root, &mut show)?;
    if !nix::unistd::geteuid().is_root() {
        return become_root();
    }
    let programs = Programs::beside_this(&root)?;
    let lab = Lab::builder().build()?;
    let result = drive(&lab, &programs, &image, firmware, &mut show);
    if result.is_err() {
        println!("\nWhat the programs and the machine said is kept in {}", lab.keep_logs().display());
    }
    result
}

/// A network namespace and taps take root; nothing else here does, so it is asked for only now.
pub(crate) fn become_root() -> Result<()> {
    println!("\nThe private network (a namespace, a bridge, a tap device) takes root: going on through sudo.");
    let error = Command::new("sudo")
        .arg("--preserve-env=SPEEDISO_CACHE,SPEEDISO_LAB_DIR,SPEEDISO_ACCEL,KEEP,FIRMWARE,MACHINES,HOME,PATH")
        .arg(std::env::current_exe()?)
        .args(std::env::args_os().skip(1))
        .exec();
    Err(error).context("starting sudo")
}

/// A Debian disk image made from packages; the script keeps it by content.
pub(crate) fn debian_image(root: &Path, show: &mut Show) -> Result<PathBuf> {
    let raw = root.join("target/images/debian.raw");
    show.phase("Debian image from packages", "3 minutes the first time, seconds when cached", || {
        std::fs::create_dir_all(root.join("target/images"))?;
        let status = Command::new(root.join("tests/images/debian.sh"))
            .arg(&raw)
            .current_dir(root)
            .status()
            .context("starting tests/images/debian.sh")?;
        ensure!(status.success(), "tests/images/debian.sh ended with {status}");
        let packed = root.join("target/images/debian.raw.zst");
        fact(format!("{}: {} as a disk, {} to fetch", packed.display(), size(&raw)?, size(&packed)?));
        Ok(packed)
    })
}

fn size(path: &Path) -> Result<String> {
    Ok(mib(std::fs::metadata(path).with_context(|| format!("looking at {}", path.display()))?.len()))
}

fn drive(lab: &Lab, programs: &Programs, image: &Path, firmware: Firmware, show: &mut Show) -> Result<()> {
    let accel = accel(programs)?;
    let (site, image) = show.phase("Controller and its image store", "5 s", || {
        let site = Site::start(lab, programs, 0)?;
        fact(format!(
            "dashboard: {}/ (CA: {}, token: {})",
            site.url(),
            site.ca_file().display(),
            site.token_file().display()
        ));
        let image = site.add_image(image)?;
        fact(format!("image stored: {}", image["url"].as_str().unwrap_or_default()));
        Ok((site, image))
    })?;
    let (disks, mut ssh, key) = show.phase("Two disks: one blank, one with data", "2 s", || {
        let disks = Disks::make(lab.dir())?;
        fact(format!("{}: {}, blank", disks::TARGET_SERIAL, mib(disks::TARGET_BYTES)));
        fact(format!("{}: ext4 with random data, SHA-256 {}", disks::DATA_SERIAL, disks.data_digest));
        let (ssh, key) = Ssh::with_fresh_key(lab.dir())?;
        Ok((disks, ssh, key))
    })?;

    let mut machine = MachineSpec::new(NAME)
        .firmware(firmware)
        .accel(accel)
        .serial(SERIAL)
        .start_with(Start::Network)
        .disk(Disk::new(&disks.target, disks::TARGET_SERIAL))
        .disk(Disk::new(&disks.data, disks::DATA_SERIAL))
        .power_on(lab)?;
    show.phase("Power on: PXE, live system, enrolment", "40 s", || {
        fact(format!("{firmware:?} machine, {accel:?}; its console: {}", machine.serial().path().display()));
        enrol(&site, &machine)
    })?;
    show.phase("Inventory", "5 s", || {
        site.wait_machine(SERIAL, "inventoried", BOOT_LIMIT, |node| node.state == NodeState::Manageable)?;
        fact(site.ask(["machine", NAME])?.stdout);
        Ok(())
    })?;
    show.phase("lininstall: wipe, image, config drive, boot entry", "1 to 2 minutes", || install(&site, &image, &key))?;

    let forward = lab.forward(0, SocketAddr::from((machine.address(), 22)))?;
    ssh.through(forward.local().port());
    let first = show.phase("First start from its own disk, login over ssh", "1 to 2 minutes", || {
        let first = Seen::over(&ssh, LOGIN_LIMIT)?;
        first.show();
        ensure!(first.hostname == NAME, "the host name is {:?}, not {NAME:?}", first.hostname);
        disks.check_data()?;
        fact(format!("{} is byte for byte what it was", disks::DATA_SERIAL));
        Ok(first)
    })?;
    show.phase("Reboot, network first again", "1 to 2 minutes", || again(&site, &ssh, &first))?;
    disks.check_data()?;

    if lab.is_kept() {
        show.summary();
        return how_to_go_on(lab, &site, &machine, &mut ssh);
    }
    show.phase("Power off", "20 s", || {
        ssh.start("sudo systemctl poweroff")?;
        machine.wait_exit(Duration::from_secs(180))?;
        disks.check_data()?;
        fact(format!("{} is still byte for byte what it was", disks::DATA_SERIAL));
        Ok(())
    })?;
    show.summary();
    sizes(programs)?;
    fact(format!("serial log: {}", lab.keep_logs().join(format!("{NAME}.serial.log")).display()));
    fact("nothing was left running; with KEEP=1 the machine, the controller and its dashboard stay for a look");
    Ok(())
}

pub(crate) fn accel(programs: &Programs) -> Result<Accel> {
    Ok(cached_accel(&programs.boot_files.join("vmlinuz"), &cache_dir())?)
}

/// Where this project keeps what takes long to make.
pub(crate) fn cache_dir() -> PathBuf {
    std::env::var_os("SPEEDISO_CACHE")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache/speediso")))
        .unwrap_or_else(|| PathBuf::from("/var/cache/speediso"))
}

/// The machine appears by itself; a person compares the code on its console with the one in the list and admits it.
fn enrol(site: &Site<'_>, machine: &Machine<'_>) -> Result<()> {
    let node = site.wait_machine(SERIAL, "pending with a code", BOOT_LIMIT, |node| {
        node.state == NodeState::Pending && node.code.is_some()
    })?;
    fact(format!("{} {} is pending", node.system.manufacturer, node.system.serial_number));
    let code = code_on_console(machine, &node)?;
    fact(format!("its console shows the code {code}: approving it under the name {NAME}"));
    let id = node.id.to_string();
    let _: Value = site.json(&["approve", &id, "--code", &code, "--name", NAME])?;
    Ok(())
}

/// Looks at the console for a code, as a person does: the approval is for the machine one sees, so what counts is what
/// is shown there and not what the list says.
fn code_on_console(machine: &Machine<'_>, node: &NodeView) -> Result<String> {
    for _ in 0..150 {
        let text = machine.serial().text();
        if let Some(code) = text.lines().rev().find_map(code_in) {
            return Ok(code.to_owned());
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    bail!("the console of {} shows no approval code; its tail:\n{}", node.system.serial_number, machine.serial().tail())
}

/// `7K3F-09QX`: four and four of Crockford's letters, on a line that speaks of a code.
fn code_in(line: &str) -> Option<&str> {
    let is_letter = |c: char| c.is_ascii_digit() || (c.is_ascii_uppercase() && !"ILOU".contains(c));
    if !line.to_lowercase().contains("code") {
        return None;
    }
    line.split(|c: char| !c.is_ascii_alphanumeric() && c != '-').find(|word| {
        word.len() == 9 && word.char_indices().all(|(at, c)| if at == 4 { c == '-' } else { is_letter(c) })
    })
}

fn install(site: &Site<'_>, image: &Value, key: &str) -> Result<()> {
    let parameters = json!({
        "device": { "serial": disks::TARGET_SERIAL },
        "image": image,
        "config_drive": { "instance_id": format!("demo-{}", std::process::id()), "hostname": NAME, "ssh_keys": [key] },
        "boot_label": "debian",
    });
    let file = site.params(&parameters)?;
    // The terminal is the command's own: bars where there is one, lines where there is none.
    let status = site
        .cli(["apply", "lininstall", NAME, "--params", &file.to_string_lossy(), "--follow"])
        .status()
        .context("starting speediso")?;
    ensure!(status.success(), "the order ended with {status}");
    let node = site.wait_machine(SERIAL, "installed", INSTALL_LIMIT, |node| node.state == NodeState::Active)?;
    fact(format!("{NAME} is {}", node.state.name()));
    Ok(())
}

/// What a login shows of the installed system.
struct Seen {
    hostname: String,
    boot_id: String,
    machine_id: String,
    system: String,
}

impl Seen {
    fn over(ssh: &Ssh, limit: Duration) -> Result<Self> {
        let text = ssh.run(
            "hostname; cat /proc/sys/kernel/random/boot_id /etc/machine-id; . /etc/os-release; echo $PRETTY_NAME on $(findmnt -no SOURCE,SIZE /)",
            limit,
        )?;
        let mut lines = text.lines().map(str::to_owned);
        let mut next = || lines.next().with_context(|| format!("the machine answered only {text:?}"));
        Ok(Self { hostname: next()?, boot_id: next()?, machine_id: next()?, system: next()? })
    }

    fn show(&self) {
        fact(format!("logged in: host name {}, {}", self.hostname, self.system));
        fact(format!("boot {}, machine id {}", self.boot_id, self.machine_id));
    }
}

/// The same machine boots from the network again: no order is open, so it is sent to its own disk.
fn again(site: &Site<'_>, ssh: &Ssh, first: &Seen) -> Result<()> {
    let before = site.orders()?.len();
    ssh.start("sudo systemctl reboot")?;
    let end = std::time::Instant::now() + LOGIN_LIMIT;
    let second = loop {
        let seen = Seen::over(ssh, LOGIN_LIMIT)?;
        if seen.boot_id != first.boot_id {
            break seen;
        }
        // Still the old boot on its way down.
        ensure!(std::time::Instant::now() < end, "the machine did not reboot within {LOGIN_LIMIT:?}");
        std::thread::sleep(Duration::from_secs(1));
    };
    second.show();
    ensure!(second.machine_id == first.machine_id, "the machine id changed: this is another installation");
    let after = site.orders()?.len();
    ensure!(after == before, "the controller had {before} orders and has {after}");
    fact("another boot of the same installation; the controller has no new order");
    Ok(())
}

fn sizes(programs: &Programs) -> Result<()> {
    let files = &programs.boot_files;
    let (kernel, ramdisk) = (files.join("vmlinuz"), files.join("initramfs.img"));
    fact(format!("kernel {}, ramdisk {}", size(&kernel)?, size(&ramdisk)?));
    Ok(())
}

/// Everything stays, since KEEP is set: gives it forwards of their own and says how to get in and how to end it.
fn how_to_go_on(lab: &Lab, site: &Site<'_>, machine: &Machine<'_>, ssh: &mut Ssh) -> Result<()> {
    let me = std::env::current_exe()?;
    let open = |name: &str, target: SocketAddr| -> Result<u16> {
        let mut command = Command::new(&me);
        command.args(["forward", lab.name(), &target.to_string()]);
        let line = lab.spawn(name, command)?.wait_for("127.0.0.1:", Duration::from_secs(10))?;
        let port = line.rsplit(':').next().and_then(|port| port.trim().parse().ok());
        port.with_context(|| format!("the forward said {line:?}"))
    };
    let api = open("forward-api", Site::api())?;
    ssh.through(open("forward-ssh", SocketAddr::from((machine.address(), 22)))?);
    fact(format!("dashboard   https://127.0.0.1:{api}/"));
    fact(format!(
        "speediso    export SPEEDISO_CONTROLLER=https://127.0.0.1:{api} SPEEDISO_CA_FILE={} SPEEDISO_TOKEN_FILE={}",
        site.ca_file().display(),
        site.token_file().display()
    ));
    fact(format!("log in      {}", ssh.line()));
    fact(format!("serial log  {}", machine.serial().path().display()));
    fact(format!("end it all  sudo {} end {}", me.display(), lab.name()));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::code_in;

    #[test]
    fn a_code_is_read_as_a_person_reads_it() {
        assert_eq!(code_in("approve with code 7K3F-09QX please"), Some("7K3F-09QX"));
        assert_eq!(code_in("Code: 0000-ZZZZ."), Some("0000-ZZZZ"));
        assert_eq!(code_in("code 7K3F-09QI"), None);
        assert_eq!(code_in("serial 7K3F-09QX"), None);
        assert_eq!(code_in("code page 437"), None);
    }
}

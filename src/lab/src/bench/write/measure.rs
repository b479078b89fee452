//! One run of one case: time, processor time, memory.

use std::fs::{self, File};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::resource::{Usage, UsageWho, getrusage};
use serde_json::{Value, json};

use super::ipa::Ipa;

/// Looking at every process costs a millisecond or two, which those that are measured should have: what runs for long is
/// looked at this seldom.
const SAMPLE: Duration = Duration::from_millis(50);

/// Nothing that is measured takes longer than this, unless it hangs.
const LIMIT: Duration = Duration::from_secs(180);

#[derive(Clone, Copy, Debug)]
pub(in crate::bench) struct Measured {
    pub(in crate::bench) wall: f64,
    /// User and system, of everything the case started.
    pub(in crate::bench) cpu: f64,
    /// Resident: the peaks of those of its processes that lived at the same time, where that was most.
    pub(in crate::bench) peak_mib: f64,
    /// What the whole machine worked meanwhile: the server and the kernel's own threads too.
    pub(in crate::bench) machine: f64,
    /// What the machine was ready to work, while its host ran others on its processors.
    pub(in crate::bench) stolen: f64,
}

pub(in crate::bench) fn pipe(line: &str, dir: &Path) -> Result<Measured> {
    let mut command = Command::new("bash");
    command.args(["-euo", "pipefail", "-c", line]);
    run(&mut command, dir)
}

/// The agent's local door with one task.
pub(super) fn agent(agent: &Path, dir: &Path, pin: &str, task: &Value) -> Result<Measured> {
    agent_with(agent, dir, &["--ca", pin], task)
}

/// What it said is in `case.log`.
pub(in crate::bench) fn agent_with(agent: &Path, dir: &Path, more: &[&str], task: &Value) -> Result<Measured> {
    let machine = this_machine()?;
    let file = json!({
        "version": 1,
        "machine": machine,
        "expires": "2100-01-01T00:00:00Z",
        "order": uuid::Uuid::new_v4().to_string(),
        "tasks": [task],
    });
    fs::write(dir.join("task.json"), file.to_string())?;
    let mut command = Command::new(agent);
    command.args(["run", "--allow-loop", "--json", "--arm", &machine]).args(more);
    command.arg("--tasks").arg(dir.join("task.json")).arg("--state-dir").arg(dir.join("state"));
    run(&mut command, dir)
}

/// What it says itself of the time that its work took: its start is not part of that.
pub(super) fn ipa(line: &str, dir: &Path, ca: &Path) -> Result<Measured> {
    let driver = dir.join("ipa.py");
    fs::write(&driver, Ipa::driver())?;
    let mut command = Command::new("bash");
    command
        .args(["-euo", "pipefail", "-c", line])
        .env("REQUESTS_CA_BUNDLE", ca)
        .env("TMPDIR", dir)
        .env("DRIVER", driver);
    let measured = run(&mut command, dir)?;
    let log = fs::read_to_string(dir.join("case.log"))?;
    let told = log.lines().rev().find_map(|line| serde_json::from_str::<Value>(line).ok());
    let told = told.with_context(|| format!("it told no figures:\n{log}"))?;
    let seconds = |name: &str| told[name].as_f64().with_context(|| format!("{name} is missing in {told}"));
    Ok(Measured { wall: seconds("wall_s")?, cpu: seconds("cpu_s")?, ..measured })
}

fn run(command: &mut Command, dir: &Path) -> Result<Measured> {
    let log = File::create(dir.join("case.log"))?;
    // A group of its own, so that its processes can be told from others.
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).process_group(0);
    let (before, machine) = (spent()?, Machine::now()?);
    let began = Instant::now();
    let mut child = command.spawn().with_context(|| format!("starting {:?}", command.get_program()))?;
    let mut peak_kib = 0;
    let mut look_again = began;
    let status = loop {
        if Instant::now() >= look_again {
            peak_kib = peak_kib.max(peaks(&child));
            look_again = Instant::now() + (began.elapsed() / 8).min(SAMPLE);
        }
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if began.elapsed() > LIMIT {
            child.kill()?;
            child.wait()?;
            bail!("still not done after {} s", LIMIT.as_secs());
        }
        std::thread::sleep(Duration::from_millis(1));
    };
    let wall = began.elapsed().as_secs_f64();
    ensure!(status.success(), "ended with {status}:\n{}", fs::read_to_string(dir.join("case.log"))?);
    #[allow(clippy::cast_precision_loss, reason = "memory of one machine")]
    let peak_mib = peak_kib as f64 / 1024.0;
    let now = Machine::now()?;
    let (machine, stolen) = (now.worked - machine.worked, now.stolen - machine.stolen);
    Ok(Measured { wall, cpu: spent()? - before, peak_mib, machine, stolen })
}

/// Seconds since the machine's start, of all its processors.
struct Machine {
    worked: f64,
    stolen: f64,
}

impl Machine {
    /// proc_stat(5): user, nice, system, idle, iowait, irq, softirq, steal, in hundredths (`USER_HZ` of x86 and arm).
    fn now() -> Result<Self> {
        let stat = fs::read_to_string("/proc/stat")?;
        let line = stat.lines().find_map(|line| line.strip_prefix("cpu ")).context("/proc/stat has no line cpu")?;
        let ticks: Vec<f64> = line.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
        let [user, nice, system, _idle, _iowait, irq, softirq, steal, ..] = ticks[..] else {
            bail!("/proc/stat says too little: {line}");
        };
        Ok(Self { worked: (user + nice + system + irq + softirq) / 100.0, stolen: steal / 100.0 })
    }
}

/// By children that have ended and were waited for.
fn spent() -> Result<f64> {
    Ok(cpu_seconds(getrusage(UsageWho::RUSAGE_CHILDREN)?))
}

pub(super) fn cpu_seconds(usage: Usage) -> f64 {
    #[allow(clippy::cast_precision_loss, reason = "seconds")]
    let seconds = |t: nix::sys::time::TimeVal| t.tv_sec() as f64 + t.tv_usec() as f64 / 1e6;
    seconds(usage.user_time()) + seconds(usage.system_time())
}

/// KiB that the processes of the child's group have had at most, each by the kernel's own mark: looking seldom misses nothing
/// but the last moments of one that ends. Those that have ended gave theirs back, and do not count.
fn peaks(child: &Child) -> u64 {
    let group = child.id().to_string();
    let of = |pid: &str| -> Option<u64> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // proc_pid_stat(5): after the name in parentheses come state, parent, group.
        let in_group = stat.rsplit_once(')')?.1.split_whitespace().nth(2)? == group;
        let status = in_group.then(|| fs::read_to_string(format!("/proc/{pid}/status")).ok()).flatten()?;
        status.lines().find_map(|l| l.strip_prefix("VmHWM:"))?.split_whitespace().next()?.parse().ok()
    };
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    processes.filter_map(|entry| of(entry.file_name().to_str()?)).sum()
}

/// The task file must name the machine it is for: here by a MAC address.
fn this_machine() -> Result<String> {
    let macs = fs::read_dir("/sys/class/net")?.flatten().filter(|nic| nic.path().join("device").exists());
    let mac = macs.filter_map(|nic| fs::read_to_string(nic.path().join("address")).ok()).next();
    Ok(mac.context("no network interface of this machine has a device behind it")?.trim().to_owned())
}

//! `speediso-agent run`: the local door on any machine, for people and for tests.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use speediso_model::fault::{Fault, FaultClass, FaultCode};
use speediso_model::hints::SkipList;
use speediso_model::inventory::Inventory;
use speediso_model::outcome::{Changed, Outcome, TaskResult};
use speediso_model::taskfile::TaskFile;
use speediso_sys::disks::DiskScope;
use speediso_sys::roots::Roots;
use speediso_sys::{dmi, machine, nics};
use speediso_tasks::tools::Tools;

use crate::doors::local::{Machine, Permitted};
use crate::engine::{DISK_PATIENCE, Engine, Surroundings};
use crate::state::StateDir;
use crate::tls::{self, Purpose, Validity};
use crate::{build, cmdline, console, parameters};

/// Exit status: 0 verified, 1 failed and nothing changed, 2 failed and changed, 3 unknown, 64 bad input, 77 refused.
#[derive(Args, Debug)]
pub struct RunArgs {
    /// Task file (JSON)
    #[arg(long, value_name = "FILE")]
    tasks: PathBuf,
    /// Make and print the plans, change nothing
    #[arg(long)]
    dry_run: bool,
    /// DESTROYS DATA as the task file says: this machine's serial number, UUID or a MAC address
    #[arg(long, value_name = "NAME")]
    arm: Option<String>,
    /// Public key (64 hex digits) of the task file's signature (FILE.sig)
    #[arg(long, value_name = "HEX", conflicts_with = "arm")]
    tasks_key: Option<String>,
    /// Refuse a destructive task unless its plan has this digest, as --dry-run printed it; once for each such task
    #[arg(long, value_name = "DIGEST")]
    expect_plan: Vec<String>,
    /// SHA-256 of a CA certificate (sha256:HEX) for images over https; may be repeated
    #[arg(long, value_name = "PIN")]
    ca: Vec<String>,
    /// Where the tools archive that was made with this ramdisk is
    #[arg(long, value_name = "URL or FILE")]
    tools_archive: Option<String>,
    /// Loop devices count as disks
    #[arg(long)]
    allow_loop: bool,
    /// Print results as JSON, one line each
    #[arg(long)]
    json: bool,
    /// Where journal and lock are kept
    #[arg(long, value_name = "DIR", default_value = "/run/speediso")]
    state_dir: PathBuf,
    /// How long a disk may take to answer one request before the task is given up as unknown
    #[arg(long, value_name = "SECONDS", default_value_t = DISK_PATIENCE.as_secs(), value_parser = clap::value_parser!(u64).range(5..))]
    disk_patience: u64,
    /// More log
    #[arg(long)]
    debug: bool,
}

/// Carries it out and returns the exit status.
pub async fn run(args: RunArgs) -> u8 {
    console::log_to_stderr(args.debug);
    let json = args.json;
    match carry_out(args).await {
        Ok(results) => {
            let worst = results.iter().map(|r| r.outcome).max().unwrap_or(Outcome::FailedUnchanged);
            for result in &results {
                print(result, json);
            }
            let fault = results.iter().find_map(|r| r.fault.as_ref());
            match worst {
                Outcome::Verified => 0,
                // An earlier task of the file has changed something.
                Outcome::FailedUnchanged if results.iter().any(|r| r.changed == Some(Changed::Changed)) => 2,
                Outcome::FailedUnchanged => fault.map_or(1, exit_code),
                Outcome::FailedChanged => 2,
                Outcome::Unknown => 3,
            }
        }
        Err(fault) => {
            if json {
                println!("{}", serde_json::json!({"error": fault}));
            }
            eprintln!("speediso-agent: {fault}\n  do: {}", fault.advice);
            exit_code(&fault)
        }
    }
}

fn exit_code(fault: &Fault) -> u8 {
    match (fault.code, fault.class) {
        (FaultCode::TaskInvalid | FaultCode::CmdlineInvalid | FaultCode::Unsupported, _) => 64,
        (_, FaultClass::Refused) => 77,
        _ => 1,
    }
}

fn print(result: &TaskResult, json: bool) {
    if json {
        match serde_json::to_string(result) {
            Ok(text) => println!("{text}"),
            Err(error) => eprintln!("speediso-agent: {error}"),
        }
        return;
    }
    println!("{}: {}", result.outcome.name(), result.used);
    for device in &result.devices {
        println!("  {} [{}]: {} {}", device.seen_as, device.identity, device.outcome.name(), device.facts);
    }
    if let Some(fault) = &result.fault {
        println!("  {fault}\n  {}\n  do: {}", result.outcome.meaning(), fault.advice);
    }
}

async fn carry_out(args: RunArgs) -> Result<Vec<TaskResult>, Fault> {
    let bad = |what: String| Fault::new(FaultCode::CmdlineInvalid, what);
    let read = |path: &std::path::Path| {
        std::fs::read(path).map_err(|e| bad(format!("reading {}", path.display())).because(e.to_string()))
    };
    let bytes = read(&args.tasks)?;
    let roots = Roots::live();
    let state = StateDir::open(&args.state_dir)?;
    let machine = this_machine(&roots);
    let permitted = if args.dry_run {
        let file = TaskFile::parse(&bytes)?;
        machine.must_be(&file.machine)?;
        Permitted::to_look_at(file.tasks).skipping(file.skip_block_devices)
    } else if let Some(key) = &args.tasks_key {
        let key: speediso_model::image::ImageDigest =
            format!("sha256:{key}").parse().map_err(|_| bad("--tasks-key has 64 hex digits".into()))?;
        let key = key.as_sha256().ok_or_else(|| bad("--tasks-key has 64 hex digits".into()))?;
        let mut name = args.tasks.as_os_str().to_owned();
        name.push(".sig");
        let signature = String::from_utf8_lossy(&read(std::path::Path::new(&name))?).into_owned();
        Permitted::by_signature(&bytes, &signature, &key, &machine, &state, &roots)?
    } else {
        let file = TaskFile::parse(&bytes)?;
        Permitted::by_hand(file, args.arm.as_deref(), &machine)?
    };
    let permitted = permitted.in_one_boot()?.expecting(args.expect_plan);
    let mut pins = Vec::new();
    for pin in &args.ca {
        let parsed: Option<speediso_model::image::ImageDigest> = pin.parse().ok();
        pins.push(parsed.and_then(|p| p.as_sha256()).ok_or_else(|| bad(format!("--ca {pin}")))?);
    }
    let (http, _) = tls::client(&pins, None, Validity::Checked, Purpose::Images)?;
    let surroundings = Surroundings {
        roots: roots.clone(),
        scope: DiskScope { loops: args.allow_loop },
        skip: skip_of_boot(&roots)?,
        http,
        probe: std::env::current_exe().ok(),
        boot_mac: machine::boot::interface(&roots),
        build: build::read(),
        disk_patience: Duration::from_secs(args.disk_patience),
        sharing: None,
        tools: Tools::of_system(args.tools_archive.or_else(|| tools_of_boot(&roots))),
    };
    let engine = Engine::start(&state, surroundings)?;
    let shown = tokio::spawn(console::show_progress(engine.clone()));
    let results = permitted.run(&engine, &state, &roots, args.dry_run).await;
    shown.abort();
    // The consoles' last lines come from other threads.
    tokio::time::sleep(Duration::from_millis(10)).await;
    Ok(results)
}

/// What the boot entry says to leave alone: that holds for a person at the machine too.
///
/// # Errors
/// When it says so in words that are not understood.
pub fn skip_of_boot(roots: &Roots) -> Result<SkipList, Fault> {
    cmdline::skip_list(&parameters::of_boot(roots)?)
}

/// Where the boot entry says that the tools archive is.
fn tools_of_boot(roots: &Roots) -> Option<String> {
    parameters::config(&parameters::of_boot(roots).ok()?).ok()?.tools
}

/// This machine by the names orders use.
#[must_use]
pub fn this_machine(roots: &Roots) -> Machine {
    let (system, _) = dmi::read(roots);
    let interfaces = nics::read(roots).unwrap_or_default();
    Machine { system, macs: Inventory { interfaces, ..Inventory::default() }.macs() }
}

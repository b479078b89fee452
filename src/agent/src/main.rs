//! `speediso-agent`: only dispatches.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use speediso_agent::disks::DisksArgs;
use speediso_agent::doctor::{self, DoctorArgs};
use speediso_agent::inventory::InventoryArgs;
use speediso_agent::lldp::LldpArgs;
use speediso_agent::run::{self, RunArgs};
use speediso_agent::{boot, build, cmdline, console, disks, drivers, inventory, lldp, shell, supervise};
use speediso_sys::roots::Roots;

/// The Speediso provisioning agent.
#[derive(Parser, Debug)]
#[command(name = "speediso-agent", disable_version_flag = true, max_term_width = 100)]
struct Cli {
    /// Print version and build
    #[arg(short = 'V', long)]
    version: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand, Debug)]
#[allow(clippy::large_enum_variant, reason = "one per process")]
enum Command {
    /// Carry out a task file on this machine, or show what it would do (--dry-run)
    Run(RunArgs),
    /// Show what this machine has
    Inventory(InventoryArgs),
    /// Show the disks, or which of them given hints would take, and why (--hints)
    Disks(DisksArgs),
    /// Show which switch and port each interface is plugged into
    Lldp(LldpArgs),
    NetworkDoctor(DoctorArgs),
    /// In the ramdisk: restart the agent when it dies
    Supervise,
    /// In the ramdisk: the agent itself
    Boot,
    /// In the ramdisk: a driver for every device, and these modules (used by its start)
    #[command(hide = true)]
    LoadDrivers {
        unasked: Vec<String>,
    },
    /// Examine the disk on standard input (used by the agent itself)
    #[command(hide = true)]
    ProbeSuperblock,
    /// Read the parameters on the medium on standard input (used by the agent itself)
    #[command(hide = true)]
    ReadParameters {
        id: uuid::Uuid,
    },
}

fn main() -> ExitCode {
    let mut arguments = std::env::args_os();
    if shell::is_called(arguments.next().as_ref()) {
        return shell::run(arguments);
    }
    let cli = Cli::parse();
    if cli.version {
        println!("speediso-agent {}", build::read());
        return ExitCode::SUCCESS;
    }
    // Whoever comes in early sees the same machine as later.
    if matches!(cli.command, Some(Command::Run(_) | Command::Inventory(_) | Command::Disks(_))) {
        if drivers::Loading::Disks.goes_on() {
            eprintln!("speediso-agent: drivers are still being loaded; waiting for the disks");
        }
        drivers::Loading::Disks.wait();
    }
    match cli.command {
        Some(Command::ProbeSuperblock) => match speediso_sys::blkid::child_main() {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(&error),
        },
        Some(Command::ReadParameters { id }) => match speediso_sys::medium::child_main(id) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(&error),
        },
        Some(Command::Inventory(args)) => ExitCode::from(inventory::run(&args)),
        Some(Command::Disks(args)) => ExitCode::from(disks::run(&args)),
        Some(Command::Lldp(args)) => ExitCode::from(lldp::run(&args)),
        Some(Command::LoadDrivers { unasked }) => drivers::load(&unasked),
        Some(Command::Supervise) => {
            let roots = Roots::live();
            let line = cmdline::of(&roots);
            let consoles = console::Supervised::start(roots.clone(), cmdline::console_style(&line));
            supervise::run(&consoles, &roots, &line)
        }
        Some(command) => match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
            Ok(runtime) => runtime.block_on(dispatch(command)),
            Err(error) => fail(&error),
        },
        None => {
            eprintln!("speediso-agent: which command? see --help");
            ExitCode::from(64)
        }
    }
}

async fn dispatch(command: Command) -> ExitCode {
    match command {
        Command::Run(args) => ExitCode::from(run::run(args).await),
        Command::NetworkDoctor(args) => ExitCode::from(Box::pin(doctor::run(args)).await),
        // On the heap: all that an agent ever waits for is one large future.
        Command::Boot => match Box::pin(boot::run()).await {
            Ok(never) => match never {},
            Err(fault) => fail(&fault),
        },
        Command::Disks(_)
        | Command::Inventory(_)
        | Command::Lldp(_)
        | Command::Supervise
        | Command::LoadDrivers { .. }
        | Command::ProbeSuperblock
        | Command::ReadParameters { .. } => ExitCode::FAILURE,
    }
}

fn fail(error: &dyn std::fmt::Display) -> ExitCode {
    eprintln!("speediso-agent: {error}");
    ExitCode::FAILURE
}

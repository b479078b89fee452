//! `speediso-lab`: the laboratory by hand. `demo` shows the whole way of a machine; the rest is for looking around.

#![forbid(unsafe_code)]

mod bench;
mod demo;
mod open;
mod show;

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand, ValueEnum};

use speediso_lab::hall::Hall;
use speediso_lab::{
    Chain, Disk, Firmware, Forward, Lab, MachineSpec, Namespace, cached_accel, end_on_signal, leave_to_signal, runs,
    sweep,
};

#[derive(Parser)]
#[command(name = "speediso-lab", about = "Virtual machines that boot over PXE, in a network of their own", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// The whole way of a bare machine: boot over PXE, enrol, install, log in, reboot (KEEP=1 leaves it running)
    Demo {
        #[arg(long, value_enum, env = "FIRMWARE", default_value = "uefi")]
        firmware: FirmwareArg,
    },
    /// A small site to try things on: DHCP, TFTP, web server, controller and machines, until Ctrl-C
    Lab {
        /// How many machines
        #[arg(long, env = "MACHINES", default_value_t = 2)]
        machines: u8,
        /// Their firmware; several with commas between are given in turn
        #[arg(long, value_enum, env = "FIRMWARE", value_delimiter = ',', default_values = ["uefi"])]
        firmware: Vec<FirmwareArg>,
        #[arg(long, default_value_t = 1024)]
        memory_mib: u32,
        /// Of each machine's one disk
        #[arg(long, default_value_t = 8)]
        disk_gib: u64,
        /// Addresses come from another DHCP server; this site only says what to boot
        #[arg(long)]
        proxy: bool,
        /// Port of 127.0.0.1 for API and dashboard; any free one if 0
        #[arg(long, default_value_t = 0)]
        port: u16,
    },
    /// Sizes, memory, time to enrol, and writing against the usual pipes
    Bench {
        #[arg(long)]
        agent: PathBuf,
        #[arg(long, default_value = "builds")]
        builds: PathBuf,
        #[arg(long, default_value_t = 5)]
        rounds: u32,
        /// Only the writing, and only cases with this in their name, several with commas between; `wipe`, `memory`,
        /// `inventory`: only that
        #[arg(long)]
        only: Option<String>,
    },
    /// What sharing an image saves in a hall of machines, simulated with the code that decides in the field
    Sharing {
        /// Of the disk
        #[arg(long, default_value_t = 2048)]
        image_mib: u32,
        /// Machines; several with commas between
        #[arg(long, value_delimiter = ',', default_values_t = [1, 10, 50, 200])]
        machines: Vec<usize>,
        #[arg(long, default_value_t = 32)]
        per_switch: usize,
    },
    /// Boot one blank machine over PXE into an iPXE script and show its console
    Boot {
        #[arg(long, value_enum, default_value = "uefi")]
        firmware: FirmwareArg,
        /// iPXE script to serve over TFTP; one that greets and exits if not given
        #[arg(long)]
        script: Option<PathBuf>,
        /// Raw disk images, in this order
        #[arg(long)]
        disk: Vec<PathBuf>,
        /// Directory to serve inside at http://192.0.2.1:8080/
        #[arg(long)]
        files: Option<PathBuf>,
        #[arg(long, default_value_t = 1024)]
        memory_mib: u32,
        /// Power the machine off after so many seconds
        #[arg(long, default_value_t = 60)]
        seconds: u64,
    },
    /// Lead a port of this machine's loopback into a laboratory that runs, until ended
    Forward { name: String, target: SocketAddr },
    /// Say whether virtual machines with this kernel run under KVM here or are emulated (SPEEDISO_ACCEL decides otherwise)
    Accel { kernel: PathBuf },
    /// Show what runs, or was left behind
    List,
    /// End a laboratory that was kept running
    End { name: String },
    /// Clean up after laboratories that were killed
    Sweep,
}

#[derive(Clone, Copy, ValueEnum)]
enum FirmwareArg {
    Bios,
    Uefi,
}

impl From<FirmwareArg> for Firmware {
    fn from(arg: FirmwareArg) -> Self {
        match arg {
            FirmwareArg::Bios => Self::Bios,
            FirmwareArg::Uefi => Self::Uefi,
        }
    }
}

fn main() -> ExitCode {
    end_on_signal();
    let result = run(Cli::parse().command);
    leave_to_signal();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("speediso-lab: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<()> {
    match command {
        Command::Demo { firmware } => demo::run(firmware.into()),
        Command::Lab { machines, firmware, memory_mib, disk_gib, proxy, port } => open::run(&open::Options {
            machines,
            firmware: firmware.into_iter().map(Firmware::from).collect(),
            memory_mib,
            disk_gib,
            proxy,
            port,
        }),
        Command::Bench { agent, builds, rounds, only } => {
            bench::run(&bench::Options { agent, builds, rounds: rounds.max(1), only })
        }
        Command::Sharing { image_mib, machines, per_switch } => {
            bench::sharing(&Hall { image_mib, per_switch: per_switch.max(1), ..Hall::default() }, &machines);
            Ok(())
        }
        Command::Accel { kernel } => {
            println!("{:?}", cached_accel(&kernel, &demo::cache_dir())?);
            Ok(())
        }
        Command::Forward { name, target } => {
            let forward = Forward::start(&Namespace::existing(&name), 0, target)?;
            println!("{}", forward.local());
            loop {
                std::thread::park();
            }
        }
        Command::Boot { firmware, script, disk, files, memory_mib, seconds } => {
            let script = match script {
                Some(path) => std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?,
                None => "#!ipxe\necho hello from ${platform}, ${net0/mac} at ${net0/ip}\nexit 1\n".to_owned(),
            };
            let lab = Lab::builder().chain(Chain::Script(script)).build()?;
            let _server = files.map(|root| lab.serve_files(8080, &root)).transpose()?;
            let mut spec = MachineSpec::new("machine").firmware(firmware.into()).memory_mib(memory_mib);
            for (n, disk) in disk.iter().enumerate() {
                spec = spec.disk(Disk::new(disk, &format!("DISK{n}")));
            }
            show(&spec, &lab, Duration::from_secs(seconds))
        }
        Command::List => {
            for run in runs() {
                let state = match (run.kept, run.owned) {
                    (true, _) => "kept",
                    (false, true) => "running",
                    (false, false) => "left behind",
                };
                println!("{}\t{state}", run.name);
            }
            Ok(())
        }
        Command::End { name } => match runs().into_iter().find(|run| run.name == name) {
            Some(run) => {
                run.end();
                Ok(())
            }
            None => bail!("no laboratory is called {name}; `speediso-lab list` shows those that exist"),
        },
        Command::Sweep => {
            for name in sweep() {
                println!("cleaned up {name}");
            }
            Ok(())
        }
    }
}

/// Powers a machine on and passes its console on until it ends or its time is over.
fn show(spec: &MachineSpec, lab: &Lab, limit: Duration) -> Result<()> {
    let mut machine = spec.power_on(lab)?;
    let end = Instant::now() + limit;
    let mut shown = 0;
    while machine.is_on() && Instant::now() < end {
        let mark = machine.serial().mark();
        print!("{}", machine.serial().text_after(shown));
        std::io::stdout().flush()?;
        shown = mark;
        std::thread::sleep(Duration::from_millis(200));
    }
    Ok(())
}

//! Drivers while the ramdisk starts: `speediso-agent load-drivers` loads them, beside the agent, which waits for those of
//! its network cards before it sets up the network, and for all of them before it looks for a disk.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use speediso_sys::module;
use speediso_sys::roots::Roots;
use speediso_tasks::drivers::{Modules, Wishes};

use crate::cmdline;
use crate::mounting;

/// Most modules of the ramdisk, compressed. Where each belongs is a link to where it is once this is mounted.
const PACK: &str = "packed.squashfs";
const PACK_PLACE: &str = "packed";
/// What the kernel needs for that.
const OPENED_BY: [&str; 2] = ["loop", "squashfs"];

/// There while drivers are loaded. `/etc/rcS` makes both, and removes what is left of them once the loader has ended,
/// however that was.
const LOADING: &str = "/run/drivers.loading";
const LOADING_NETWORK: &str = "/run/drivers.loading/network";
/// A controller may take minutes to start; one that takes longer is told of, and done without.
const PATIENCE: Duration = Duration::from_secs(300);
const POLL: Duration = Duration::from_millis(20);

/// What somebody waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Drivers {
    Network,
    All,
}

impl Drivers {
    fn are_loading(self) -> bool {
        Path::new(match self {
            Self::Network => LOADING_NETWORK,
            Self::All => LOADING,
        })
        .exists()
    }

    /// Until they are loaded, which they are at once wherever somebody else does that.
    pub(crate) async fn loaded(self) {
        let begun = Instant::now();
        while self.are_loading() {
            if begun.elapsed() > PATIENCE {
                return self.give_up();
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// The same for a thread of its own.
    pub(crate) fn wait(self) {
        let begun = Instant::now();
        while self.are_loading() {
            if begun.elapsed() > PATIENCE {
                return self.give_up();
            }
            std::thread::sleep(POLL);
        }
    }

    fn give_up(self) {
        tracing::error!(
            "drivers: some are still being loaded after {} s; proceeding without them: disks or network cards may be \
             missing (their reason is in dmesg, what waits in ps)",
            PATIENCE.as_secs()
        );
    }
}

/// A driver for every device that this ramdisk has one for, and the modules `unasked`, which no device asks for in time.
/// What cannot be loaded is said and passed over: the rest of the machine is of use without it.
#[must_use]
pub fn load(unasked: &[String]) -> ExitCode {
    let roots = Roots::live();
    let wishes = Wishes::read(Path::new("/etc/modprobe.d"), &cmdline::of(&roots));
    let release = module::kernel_release().unwrap_or_default();
    let directory = Path::new("/lib/modules").join(release);
    let modules = match Modules::read(&directory, wishes, open_pack) {
        Ok(modules) => modules,
        Err(error) => {
            say(&format!("reading the tables of modules in {}: {error}", directory.display()));
            return ExitCode::FAILURE;
        }
    };
    let network_is_there = || {
        // Not there: nobody waits.
        let _ = fs::remove_file(LOADING_NETWORK);
    };
    for failed in modules.coldplug(unasked, &roots, network_is_there) {
        say(&format!("loading the driver {} failed: {}", failed.module, failed.why));
    }
    // For what the kernel asks modprobe for later.
    if let Err(why) = modules.open_pack() {
        say(&format!("opening the packed drivers, most of what this ramdisk has, failed: {why}"));
    }
    ExitCode::SUCCESS
}

/// In one piece: `/etc/rcS` lets it go to the kernel's log, which takes each write for a line, and which the agent shows.
fn say(text: &str) {
    let _ = io::stderr().write_all(format!("speediso: {text}\n").as_bytes());
}

/// A ramdisk may have no pack. One that is open already stays so.
fn open_pack(modules: &Modules) -> Result<(), String> {
    let place = modules.directory().join(PACK_PLACE);
    let file = match File::open(modules.directory().join(PACK)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        file => file.map_err(|e| format!("{PACK}: {e}"))?,
    };
    if mounting::is_mounted(&place).map_err(|e| e.to_string())? {
        return Ok(());
    }
    for name in OPENED_BY {
        modules.load(name).map_err(|why| format!("{name}: {why}"))?;
    }
    let length = file.metadata().map_err(|e| e.to_string())?.len();
    mounting::squashfs(&file, length, &place).map_err(|e| e.to_string())
}

//! Drivers while the ramdisk starts: `speediso-agent load-drivers` loads them, beside the agent, which waits for those of
//! its network cards before it sets up the network, and for all of them before it looks for a disk.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use speediso_sys::disks::{self, DiskScope};
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

/// A directory that is there while drivers are loaded. `/etc/rcS` makes it with both marks in it, and removes it once the
/// loader has ended, however that was.
const MARKS: &str = "/run/drivers.loading";
const NETWORK_MARK: &str = "network";
const DRIVERS_MARK: &str = "drivers";
/// A controller may take minutes to start; one that takes longer is told of, and done without.
const PATIENCE: Duration = Duration::from_secs(300);
const POLL: Duration = Duration::from_millis(20);
static TOLD: AtomicBool = AtomicBool::new(false);

/// What has not come to its end yet while the ramdisk starts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Loading {
    /// Drivers of network cards.
    Network,
    Drivers,
    /// All that, and disks still show up.
    Disks,
}

impl Loading {
    /// Waits for its end. Whether there was anything to wait for: nothing is, where somebody else loads drivers.
    pub(crate) async fn ended(self) -> bool {
        let begun = Instant::now();
        let goes_on = self.goes_on();
        while self.is_awaited(begun) {
            tokio::time::sleep(POLL).await;
        }
        goes_on
    }

    /// The same for a thread of its own.
    pub fn wait(self) {
        let begun = Instant::now();
        while self.is_awaited(begun) {
            thread::sleep(POLL);
        }
    }

    /// For a system that loads drivers by itself: what hangs here is not waited for there.
    pub(crate) fn forget() {
        let _ = fs::remove_dir_all(MARKS);
    }

    #[must_use]
    pub fn goes_on(self) -> bool {
        let marks = Path::new(MARKS);
        match self {
            Self::Network => marks.join(NETWORK_MARK).exists(),
            Self::Drivers => marks.join(DRIVERS_MARK).exists(),
            Self::Disks => marks.exists(),
        }
    }

    fn is_awaited(self, begun: Instant) -> bool {
        if !self.goes_on() {
            return false;
        }
        let awaited = begun.elapsed() < PATIENCE;
        // Once, whoever waits.
        if !awaited && !TOLD.swap(true, Ordering::Relaxed) {
            tracing::error!(
                "drivers: some are still being loaded after {} s; proceeding without them: disks or network cards may be \
                 missing; what to do: look for what waits (ps, dmesg), then reboot",
                PATIENCE.as_secs()
            );
        }
        awaited
    }
}

/// Waits until no further disk shows up: SATA and SAS links are found in the background, after their drivers are there.
pub(crate) fn settle_disks(roots: &Roots) {
    const POLL: Duration = Duration::from_millis(250);
    const QUIET: u32 = 8;
    const LONGEST: u32 = 80;
    let names = || -> Vec<String> {
        disks::read(roots, DiskScope::default()).unwrap_or_default().into_iter().map(|d| d.name).collect()
    };
    let (mut seen, mut same) = (names(), 0);
    for _ in 0..LONGEST {
        thread::sleep(POLL);
        let now = names();
        same = if now == seen { same + 1 } else { 0 };
        seen = now;
        if same >= QUIET {
            return;
        }
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
    // Not there: nobody waits.
    let ended = |mark: &str| _ = fs::remove_file(Path::new(MARKS).join(mark));
    for failed in modules.coldplug(unasked, &roots, || ended(NETWORK_MARK)) {
        say(&format!("loading the driver {} failed: {}", failed.module, failed.why));
    }
    // For what the kernel asks modprobe for later.
    if let Err(why) = modules.open_pack() {
        say(&format!("opening the packed drivers, most of what this ramdisk has, failed: {why}"));
    }
    ended(DRIVERS_MARK);
    if Loading::Disks.goes_on() {
        settle_disks(&roots);
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

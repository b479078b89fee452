//! `speediso-agent load-drivers`: what the ramdisk's start runs so that disks and network cards are there.

use std::path::Path;
use std::process::ExitCode;

use speediso_sys::module;
use speediso_sys::roots::Roots;
use speediso_tasks::drivers::{Modules, Wishes};

use crate::cmdline;

/// A driver for every device that this ramdisk has one for, and the modules `unasked`, which no device asks for in time.
/// What cannot be loaded is said and passed over: the rest of the machine is of use without it.
#[must_use]
pub fn load(unasked: &[String]) -> ExitCode {
    let roots = Roots::live();
    let wishes = Wishes::read(Path::new("/etc/modprobe.d"), &cmdline::of(&roots));
    let release = module::kernel_release().unwrap_or_default();
    let directory = Path::new("/lib/modules").join(release);
    let modules = match Modules::read(&directory, wishes) {
        Ok(modules) => modules,
        Err(error) => {
            eprintln!("speediso: reading the tables of modules in {}: {error}", directory.display());
            return ExitCode::FAILURE;
        }
    };
    for failed in modules.coldplug(unasked, &roots) {
        eprintln!("speediso: loading the driver {} failed: {}", failed.module, failed.why);
    }
    ExitCode::SUCCESS
}

//! The kernel that runs, from procfs.

use speediso_model::inventory::{Kernel, without_secrets};

use crate::roots::Roots;
use crate::sysfs;

#[must_use]
pub fn read(roots: &Roots, unread: &mut Vec<String>) -> Kernel {
    let text = |name: &str| sysfs::read(&roots.proc.join(name));
    let line = sysfs::lines(&roots.proc.join("cmdline")).unwrap_or_else(|error| {
        sysfs::gap(unread, "the kernel's command line", &error);
        String::new()
    });
    Kernel {
        release: text("sys/kernel/osrelease").unwrap_or_default(),
        version: text("sys/kernel/version").unwrap_or_default(),
        command_line: without_secrets(&line),
        uptime_s: text("uptime").and_then(|up| up.split('.').next()?.parse().ok()).unwrap_or(0),
        tainted: sysfs::number(&roots.proc.join("sys/kernel/tainted")),
    }
}

/// The interface that the boot loader used, as it says on the command line (BOOTIF).
#[must_use]
pub fn boot_mac(roots: &Roots) -> Option<String> {
    let line = sysfs::lines(&roots.proc.join("cmdline")).ok()?;
    let words = line.split(|c: char| c.is_whitespace() || c == '\0');
    let value = words.rev().find_map(|word| word.strip_prefix("BOOTIF="))?;
    speediso_model::inventory::canonical_mac(value.trim_matches('"'))
}

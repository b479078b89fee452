//! How a machine's processor is run. KVM is used only where a real kernel has been seen to start under it: a
//! `/dev/kvm` that exists and does not boot anything is no rare thing on rented machines.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, UNIX_EPOCH};

use crate::error::{Doing, Result};
use crate::log::Log;
use crate::tool;

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Accel {
    /// Emulation: slow, and the same everywhere.
    #[default]
    Tcg,
    Kvm,
}

/// A kernel that finds no root device says so within a second or two under a KVM that works.
const PATIENCE: Duration = Duration::from_secs(12);
const SIGN_OF_LIFE: &str = "Kernel panic - not syncing: VFS";

/// What to use for this kernel on this machine: found out once, then remembered below `cache`.
///
/// `SPEEDISO_ACCEL=tcg` or `kvm` decides without asking.
pub fn cached_accel(kernel: &Path, cache: &Path) -> Result<Accel> {
    match std::env::var("SPEEDISO_ACCEL").as_deref() {
        Ok("kvm") => return Ok(Accel::Kvm),
        Ok("tcg") => return Ok(Accel::Tcg),
        _ => {}
    }
    if fs::File::options().read(true).write(true).open("/dev/kvm").is_err() {
        return Ok(Accel::Tcg);
    }
    let remembered = cache.join("accel");
    let key = key(kernel)?;
    if let Ok(text) = fs::read_to_string(&remembered)
        && let Some(answer) = text.strip_prefix(&key)
    {
        return Ok(if answer.trim() == "kvm" { Accel::Kvm } else { Accel::Tcg });
    }
    let (accel, word) = if starts_under_kvm(kernel)? { (Accel::Kvm, "kvm") } else { (Accel::Tcg, "tcg") };
    fs::create_dir_all(cache)
        .and_then(|()| fs::write(&remembered, format!("{key}{word}\n")))
        .doing(|| format!("writing {}", remembered.display()))?;
    Ok(accel)
}

/// The answer holds for one kernel of the guest on one kernel of the host.
fn key(kernel: &Path) -> Result<String> {
    let host = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let metadata = fs::metadata(kernel).doing(|| format!("looking at the kernel {}", kernel.display()))?;
    let modified = metadata
        .modified()
        .ok()
        .and_then(|time| time.duration_since(UNIX_EPOCH).ok())
        .map_or(0, |since| since.as_secs());
    Ok(format!("{} {} {modified} ", host.trim(), metadata.len()))
}

fn starts_under_kvm(kernel: &Path) -> Result<bool> {
    let dir = tempfile::tempdir().doing(|| "making a directory for the KVM probe".to_owned())?;
    let serial: PathBuf = dir.path().join("serial.log");
    let mut qemu = Command::new(tool::find("qemu-system-x86_64")?)
        .args(["-nodefaults", "-no-user-config", "-no-reboot", "-machine", "q35,graphics=off", "-display", "none"])
        .args(["-accel", "kvm", "-cpu", "host", "-m", "256M"])
        .args(["-append", "console=ttyS0 panic=-1", "-kernel"])
        .arg(kernel)
        .arg("-serial")
        .arg(format!("file:{}", serial.display()))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .doing(|| "starting qemu-system-x86_64 for the KVM probe".to_owned())?;
    let log = Log::at(&serial);
    let end = Instant::now() + PATIENCE;
    let mut alive = false;
    while !alive && Instant::now() < end {
        let ended = qemu.try_wait().doing(|| "waiting for the KVM probe".to_owned())?.is_some();
        alive = log.text().contains(SIGN_OF_LIFE);
        if ended {
            break;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    // It may have ended by itself: that is no error, and it must not be left behind otherwise.
    let _ = qemu.kill();
    let _ = qemu.wait();
    Ok(alive)
}

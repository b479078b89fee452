//! Suspending the machine to memory for a moment, so that its disks lose their power.
//!
//! Only suspending to memory (S3, `deep`) does that; the kernel's other way (`s2idle`) leaves them on. The clock is told to
//! wake the machine before it is put to sleep, and without such a clock it is not put to sleep at all.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

use crate::roots::{Roots, read_line};

#[derive(Debug, thiserror::Error)]
pub enum SuspendError {
    #[error("this machine cannot be suspended to memory: {0}")]
    Unable(String),
    #[error("setting {path}")]
    Declined {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// The kernel came back at once, or took the order for another.
    #[error("the kernel took the order to suspend, but the machine did not sleep")]
    DidNotSleep,
}

/// Whether the machine can sleep and be woken by its clock. Changes nothing.
///
/// # Errors
/// [`SuspendError::Unable`] with what it lacks.
pub fn check(roots: &Roots) -> Result<(), SuspendError> {
    let unable = |what: &str| Err(SuspendError::Unable(what.to_owned()));
    let has = |file: &str, word: &str| {
        let line = read_line(&roots.sys.join(file)).unwrap_or_default();
        line.split_whitespace().any(|w| w.trim_matches(['[', ']']) == word)
    };
    if !has("power/state", "mem") || !has("power/mem_sleep", "deep") {
        return unable("its firmware offers no S3, or the kernel does not use it");
    }
    if !alarm(roots).exists() {
        return unable("it has no clock that could wake it up");
    }
    Ok(())
}

fn alarm(roots: &Roots) -> PathBuf {
    roots.sys.join("class/rtc/rtc0/wakealarm")
}

/// What is not there is not made.
fn set(path: &Path, text: &str) -> Result<(), SuspendError> {
    use std::io::Write as _;
    let written = fs::OpenOptions::new()
        .write(true)
        .truncate(true)
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(|source| SuspendError::Declined { path: path.to_owned(), source })
}

/// How long the machine has slept since it was booted.
fn slept() -> Duration {
    let read = |clock| clock_gettime(clock).map(Duration::from).unwrap_or_default();
    read(ClockId::CLOCK_BOOTTIME).saturating_sub(read(ClockId::CLOCK_MONOTONIC))
}

/// Suspends, and comes back when the clock has woken the machine.
///
/// # Errors
/// When the machine cannot, the kernel or a driver declines, or it was seen not to sleep. Then it is awake, and no alarm is
/// left.
pub fn suspend(roots: &Roots, time: Duration) -> Result<(), SuspendError> {
    check(roots)?;
    let alarm = alarm(roots);
    // One that is set has to go before another is taken.
    set(&alarm, "0\n")?;
    set(&alarm, &format!("+{}\n", time.as_secs().max(1)))?;
    let undo = |error| {
        let _ = set(&alarm, "0\n");
        error
    };
    if !read_line(&alarm).is_some_and(|line| line.trim_start_matches('+').parse::<u64>().is_ok_and(|at| at > 0)) {
        return Err(undo(SuspendError::Unable("its clock does not keep the alarm".into())));
    }
    set(&roots.sys.join("power/mem_sleep"), "deep\n").map_err(undo)?;
    let before = slept();
    set(&roots.sys.join("power/state"), "mem\n").map_err(undo)?;
    if slept().saturating_sub(before) < Duration::from_secs(1) {
        return Err(undo(SuspendError::DidNotSleep));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::expect_used, reason = "tests")]
    use super::*;

    fn machine(state: &str, mem_sleep: &str, has_clock: bool) -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("a directory");
        let write = |path: &str, text: &str| {
            let path = dir.path().join("sys").join(path);
            fs::create_dir_all(path.parent().expect("inside")).expect("made");
            fs::write(path, text).expect("written");
        };
        write("power/state", state);
        write("power/mem_sleep", mem_sleep);
        if has_clock {
            write("class/rtc/rtc0/wakealarm", "");
        }
        dir
    }

    #[test]
    fn a_machine_that_cannot_sleep_or_wake_is_left_awake() {
        for (state, mem_sleep, has_clock, why) in [
            ("freeze disk", "s2idle [deep]", true, "no S3"),
            ("freeze mem disk", "[s2idle]", true, "no S3"),
            ("freeze mem disk", "[s2idle] deep", false, "no clock"),
        ] {
            let dir = machine(state, mem_sleep, has_clock);
            let roots = Roots::under(dir.path());
            let error = suspend(&roots, Duration::from_secs(5)).expect_err(why);
            assert!(error.to_string().contains(why), "{error}");
            assert_eq!(fs::read_to_string(dir.path().join("sys/power/state")).expect("read"), state);
        }
    }

    #[test]
    fn a_kernel_that_comes_back_at_once_has_not_slept_and_keeps_no_alarm() {
        let dir = machine("freeze mem disk", "[s2idle] deep", true);
        let roots = Roots::under(dir.path());
        check(&roots).expect("it can");
        assert!(matches!(suspend(&roots, Duration::from_secs(5)), Err(SuspendError::DidNotSleep)));
        let read = |path: &str| fs::read_to_string(dir.path().join("sys").join(path)).expect("read");
        assert_eq!((read("power/mem_sleep").as_str(), read("power/state").as_str()), ("deep\n", "mem\n"));
        assert_eq!(read("class/rtc/rtc0/wakealarm"), "0\n");
    }
}

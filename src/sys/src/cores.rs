//! Logical processors one by one: which are online, how fast they run, how often they were throttled; and binding a
//! thread to one.

use std::fs;
use std::io;

use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

use crate::roots::{Roots, read_line, read_number};

/// Those that the kernel schedules on, ascending.
#[must_use]
pub fn online(roots: &Roots) -> Vec<u32> {
    read_line(&roots.sys.join("devices/system/cpu/online")).map(|list| parse_list(&list)).unwrap_or_default()
}

/// `0-3,8,10-11`, as sysfs writes sets. What cannot be read of it is left out.
#[must_use]
pub fn parse_list(list: &str) -> Vec<u32> {
    // No machine has more, and a range from a broken file must not fill the memory.
    const MOST: u32 = 1 << 16;
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.trim().parse::<u32>().ok()?..=last.trim().parse::<u32>().ok()?.min(MOST))
    };
    list.split(',').filter_map(range).flatten().collect()
}

/// Binds the calling thread.
///
/// # Errors
/// When the processor is offline, or forbidden to us by a cpuset.
pub fn pin_to(core: u32) -> io::Result<()> {
    let mut set = CpuSet::new();
    let core = usize::try_from(core).map_err(io::Error::other)?;
    set.set(core).and_then(|()| sched_setaffinity(Pid::from_raw(0), &set)).map_err(io::Error::from)
}

/// What each runs at now, in MHz; empty where the kernel does not say.
#[must_use]
pub fn frequencies(roots: &Roots) -> Vec<f64> {
    let governed =
        |core: u32| read_number(&roots.sys.join(format!("devices/system/cpu/cpu{core}/cpufreq/scaling_cur_freq")));
    #[allow(clippy::cast_precision_loss, reason = "MHz")]
    let governed: Vec<f64> = online(roots).into_iter().filter_map(governed).map(|khz| khz as f64 / 1000.0).collect();
    if !governed.is_empty() {
        return governed;
    }
    let info = fs::read_to_string(roots.proc.join("cpuinfo")).unwrap_or_default();
    info.lines()
        .filter_map(|line| line.split_once(':').filter(|(key, _)| key.trim() == "cpu MHz")?.1.trim().parse().ok())
        .filter(|mhz: &f64| mhz.is_finite() && *mhz > 0.0)
        .collect()
}

/// How often any was throttled since the kernel started: every core's own count, and the highest of the packages'.
/// `None` where the kernel counts none (virtual machines, processors without thermal interrupts).
#[must_use]
pub fn throttled(roots: &Roots) -> Option<u64> {
    let count = |core: &u32, what: &str| {
        read_number(&roots.sys.join(format!("devices/system/cpu/cpu{core}/thermal_throttle/{what}_throttle_count")))
    };
    let cores = online(roots);
    let own: Vec<u64> = cores.iter().filter_map(|core| count(core, "core")).collect();
    let package = cores.iter().filter_map(|core| count(core, "package")).max();
    if own.is_empty() && package.is_none() { None } else { Some(own.iter().sum::<u64>() + package.unwrap_or(0)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_sysfs_lists() {
        assert_eq!(parse_list("0-3,8,10-11"), [0, 1, 2, 3, 8, 10, 11]);
        assert!(parse_list("").is_empty() && parse_list("x-y,5-").is_empty());
        assert!(parse_list("0-4294967295").len() <= (1 << 16) + 1);
    }

    #[test]
    fn what_is_counted_and_what_is_not() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let roots = Roots::under(dir.path());
        let cpu = dir.path().join("sys/devices/system/cpu");
        fs::create_dir_all(&cpu).expect("made");
        fs::write(cpu.join("online"), "0-1\n").expect("written");
        assert_eq!((online(&roots), throttled(&roots), frequencies(&roots).len()), (vec![0, 1], None, 0));
        for (core, own) in [(0, "2"), (1, "3")] {
            let throttle = cpu.join(format!("cpu{core}/thermal_throttle"));
            fs::create_dir_all(&throttle).expect("made");
            fs::write(throttle.join("core_throttle_count"), own).expect("written");
            fs::write(throttle.join("package_throttle_count"), "7").expect("written");
            fs::create_dir_all(cpu.join(format!("cpu{core}/cpufreq"))).expect("made");
            fs::write(cpu.join(format!("cpu{core}/cpufreq/scaling_cur_freq")), "1200000\n").expect("written");
        }
        assert_eq!(throttled(&roots), Some(12));
        assert_eq!(frequencies(&roots), [1200.0, 1200.0]);
    }

    #[test]
    fn a_thread_runs_where_it_is_bound() {
        let cores = online(&Roots::live());
        let last = *cores.last().expect("a machine has processors");
        std::thread::spawn(move || {
            pin_to(last).expect("it is online");
            let set = nix::sched::sched_getaffinity(Pid::from_raw(0)).expect("readable");
            let bound: Vec<usize> = (0..CpuSet::count()).filter(|n| set.is_set(*n).unwrap_or(false)).collect();
            assert_eq!(bound, [last as usize]);
        })
        .join()
        .expect("it ran");
        assert!(pin_to(1 << 20).is_err());
    }
}

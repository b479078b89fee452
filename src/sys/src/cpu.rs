//! Processors, from `/proc/cpuinfo` and sysfs.

use std::collections::BTreeSet;
use std::fs;
use std::io;

use speediso_model::inventory::Cpu;

use crate::roots::{Roots, read_number};

/// What the kernel says of the processors.
///
/// # Errors
/// When `/proc/cpuinfo` cannot be read.
pub fn read(roots: &Roots) -> io::Result<Cpu> {
    let mut cpu = parse(&fs::read_to_string(roots.proc.join("cpuinfo"))?);
    // The highest frequency it can reach, if a governor knows it; cpuinfo tells only what it does at this moment.
    let highest = roots.sys.join("devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq");
    if let Some(khz) = read_number(&highest) {
        cpu.frequency = format!("{}.{:03}", khz / 1000, khz % 1000);
    }
    Ok(cpu)
}

fn parse(text: &str) -> Cpu {
    let mut cpu = Cpu { architecture: std::env::consts::ARCH.to_owned(), ..Cpu::default() };
    let mut sockets = BTreeSet::new();
    let mut cores = BTreeSet::new();
    for block in text.split("\n\n") {
        let mut socket = None;
        let mut core = None;
        let mut is_processor = false;
        for line in block.lines() {
            let Some((key, value)) = line.split_once(':') else { continue };
            let value = value.trim();
            match key.trim() {
                "processor" => is_processor = true,
                "model name" if cpu.model_name.is_empty() => value.clone_into(&mut cpu.model_name),
                "cpu MHz" if cpu.frequency.is_empty() => value.clone_into(&mut cpu.frequency),
                // `Features` is what aarch64 calls them.
                "flags" | "Features" if cpu.flags.is_empty() => {
                    cpu.flags = value.split_ascii_whitespace().map(str::to_owned).collect();
                }
                "physical id" => socket = Some(value.to_owned()),
                "core id" => core = Some(value.to_owned()),
                _ => {}
            }
        }
        if is_processor {
            cpu.count += 1;
            // A machine that does not say (a small virtual one, aarch64) has one socket, and a core per processor.
            let socket = socket.unwrap_or_default();
            cores.insert((socket.clone(), core.unwrap_or_else(|| format!("processor {}", cpu.count))));
            sockets.insert(socket);
        }
    }
    cpu.socket_count = u32::try_from(sockets.len()).unwrap_or(u32::MAX);
    cpu.core_count = u32::try_from(cores.len()).unwrap_or(u32::MAX);
    cpu
}

#[cfg(test)]
mod tests {
    use super::*;

    fn processor(number: u32, socket: u32, core: u32) -> String {
        format!(
            "processor\t: {number}\nmodel name\t: Example CPU @ 2.10GHz\ncpu MHz\t\t: 1200.000\nphysical id\t: {socket}\n\
             core id\t\t: {core}\nflags\t\t: fpu sse2 sha_ni\n\n"
        )
    }

    #[test]
    fn sockets_cores_and_threads_are_told_apart() {
        // Two sockets of two cores with two threads each; core ids repeat in every socket.
        let mut text = String::new();
        for number in 0..8 {
            text.push_str(&processor(number, number % 2, number / 2 % 2));
        }
        let cpu = parse(&text);
        assert_eq!((cpu.socket_count, cpu.core_count, cpu.count), (2, 4, 8));
        assert_eq!(cpu.model_name, "Example CPU @ 2.10GHz");
        assert_eq!(cpu.frequency, "1200.000");
        assert_eq!(cpu.flags, ["fpu", "sse2", "sha_ni"]);
    }

    #[test]
    fn a_silent_kernel_gives_counts_only() {
        let cpu = parse("processor\t: 0\nFeatures\t: fp asimd\n\nprocessor\t: 1\nFeatures\t: fp asimd\n");
        assert_eq!((cpu.socket_count, cpu.core_count, cpu.count), (1, 2, 2));
        assert_eq!(cpu.flags, ["fp", "asimd"]);
        assert_eq!(parse("").count, 0);
    }

    #[test]
    fn the_governor_knows_the_highest_frequency() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let roots = Roots::under(dir.path());
        assert!(read(&roots).is_err());
        fs::create_dir_all(dir.path().join("proc")).expect("made");
        fs::write(dir.path().join("proc/cpuinfo"), processor(0, 0, 0)).expect("written");
        let freq = dir.path().join("sys/devices/system/cpu/cpu0/cpufreq");
        fs::create_dir_all(&freq).expect("made");
        fs::write(freq.join("cpuinfo_max_freq"), "3500000\n").expect("written");
        assert_eq!(read(&roots).expect("read").frequency, "3500.000");
    }

    #[test]
    fn this_machine_has_processors() {
        let cpu = read(&Roots::live()).expect("procfs");
        assert!(cpu.count >= 1 && cpu.core_count >= 1 && cpu.socket_count >= 1, "{cpu:?}");
    }
}

//! Processors, from `/proc/cpuinfo` and sysfs.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;

use speediso_model::inventory::{Cache, Cpu, Frequencies, cpu_list};
use speediso_model::units::{Bytes, GIB, KIB, MIB};

use crate::roots::Roots;
use crate::sysfs;

/// What the kernel says of the processors.
///
/// # Errors
/// When `/proc/cpuinfo` cannot be read.
pub fn read(roots: &Roots) -> io::Result<Cpu> {
    let mut cpu = parse(&sysfs::lines(&roots.proc.join("cpuinfo"))?);
    let dir = roots.sys.join("devices/system/cpu");
    cpu.frequencies = frequencies(&dir, &cpu.frequency);
    // The highest frequency it can reach, if a governor knows it; cpuinfo tells only what it does at this moment.
    if let Some(khz) = sysfs::number::<u64>(&dir.join("cpu0/cpufreq/cpuinfo_max_freq")) {
        cpu.frequency = format!("{}.{:03}", khz / 1000, khz % 1000);
    }
    cpu.caches = caches(&dir);
    cpu.vulnerabilities = sysfs::entries(&dir.join("vulnerabilities"))?
        .into_iter()
        .filter_map(|(name, path)| Some((name, sysfs::read(&path)?)))
        .collect();
    cpu.online = sysfs::read(&dir.join("online"));
    cpu.offline = sysfs::read(&dir.join("offline"));
    Ok(cpu)
}

fn frequencies(dir: &Path, now: &str) -> Frequencies {
    let governor = dir.join("cpu0/cpufreq");
    let mhz = |name: &str| sysfs::number::<u32>(&governor.join(name)).map(|khz| khz / 1000);
    let told = now.split('.').next().and_then(|mhz| mhz.parse().ok());
    Frequencies {
        current_mhz: mhz("scaling_cur_freq").or(told),
        min_mhz: mhz("cpuinfo_min_freq"),
        // Intel's driver has one name for it, ACPI's interface the other.
        base_mhz: mhz("base_frequency")
            .or_else(|| sysfs::number::<u32>(&dir.join("cpu0/acpi_cppc/nominal_freq")).filter(|mhz| *mhz > 0)),
        max_mhz: mhz("cpuinfo_max_freq"),
    }
}

/// Level, kind, size, ways and line of a cache: in this order they are listed.
type Shape = (u8, String, u64, Option<u32>, Option<u32>);

/// Every cache once, however many processors share it.
fn caches(dir: &Path) -> Vec<Cache> {
    let mut found: BTreeMap<Shape, u32> = BTreeMap::new();
    // The processors whose cache of an index was counted with another's.
    let mut counted: BTreeMap<String, BTreeSet<u32>> = BTreeMap::new();
    for (name, path) in sysfs::entries(dir).unwrap_or_default() {
        let Some(number) = name.strip_prefix("cpu").and_then(|n| n.parse::<u32>().ok()) else { continue };
        for (index, cache) in sysfs::entries(&path.join("cache")).unwrap_or_default() {
            if !index.starts_with("index") || counted.get(&index).is_some_and(|seen| seen.contains(&number)) {
                continue;
            }
            let (Some(level), Some(size)) =
                (sysfs::number::<u8>(&cache.join("level")), sysfs::read(&cache.join("size")).and_then(|s| size_of(&s)))
            else {
                continue;
            };
            let kind = sysfs::read(&cache.join("type")).unwrap_or_default();
            let ways = sysfs::number(&cache.join("ways_of_associativity")).filter(|ways: &u32| *ways > 0);
            let line = sysfs::number(&cache.join("coherency_line_size")).filter(|line: &u32| *line > 0);
            *found.entry((level, kind, size, ways, line)).or_default() += 1;
            let shared = sysfs::read(&cache.join("shared_cpu_list")).unwrap_or_default();
            counted.entry(index).or_default().extend(cpu_list(&shared));
        }
    }
    found
        .into_iter()
        .map(|((level, kind, size, ways, line), count)| Cache {
            level,
            kind,
            size: Bytes(size),
            count,
            ways,
            line_bytes: line,
        })
        .collect()
}

/// `32K`, `2M`
fn size_of(text: &str) -> Option<u64> {
    let (figure, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let unit = match unit {
        "" => 1,
        "K" => KIB,
        "M" => MIB,
        "G" => GIB,
        _ => return None,
    };
    figure.parse::<u64>().ok()?.checked_mul(unit)
}

fn parse(text: &str) -> Cpu {
    let mut cpu = Cpu { architecture: std::env::consts::ARCH.to_owned(), ..Cpu::default() };
    let mut sockets = BTreeSet::new();
    let mut cores = BTreeSet::new();
    let mut microcode = BTreeSet::new();
    let list = |value: &str| value.split_ascii_whitespace().map(str::to_owned).collect();
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
                "vendor_id" if cpu.vendor.is_empty() => value.clone_into(&mut cpu.vendor),
                "cpu family" => cpu.family = cpu.family.or_else(|| value.parse().ok()),
                "model" => cpu.model = cpu.model.or_else(|| value.parse().ok()),
                "stepping" => cpu.stepping = cpu.stepping.or_else(|| value.parse().ok()),
                "microcode" => {
                    microcode.insert(value.to_owned());
                }
                "cpu MHz" if cpu.frequency.is_empty() => value.clone_into(&mut cpu.frequency),
                // `Features` is what aarch64 calls them.
                "flags" | "Features" if cpu.flags.is_empty() => cpu.flags = list(value),
                "bugs" if cpu.bugs.is_empty() => cpu.bugs = list(value),
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
    cpu.threads_per_core = cpu.count.checked_div(cpu.core_count).unwrap_or(0);
    cpu.microcode = microcode.into_iter().collect();
    cpu.hypervisor = cpu.flags.iter().any(|flag| flag == "hypervisor");
    cpu
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn processor(number: u32, socket: u32, core: u32) -> String {
        format!(
            "processor\t: {number}\nvendor_id\t: GenuineIntel\ncpu family\t: 6\nmodel\t\t: 85\n\
             model name\t: Example CPU @ 2.10GHz\nstepping\t: 7\nmicrocode\t: 0x500{socket}\ncpu MHz\t\t: 1200.000\n\
             physical id\t: {socket}\ncore id\t\t: {core}\nflags\t\t: fpu sse2 sha_ni\nbugs\t\t: spectre_v1 mds\n\n"
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
        assert_eq!((cpu.socket_count, cpu.core_count, cpu.count, cpu.threads_per_core), (2, 4, 8, 2));
        assert_eq!(cpu.model_name, "Example CPU @ 2.10GHz");
        assert_eq!(cpu.frequency, "1200.000");
        assert_eq!(cpu.flags, ["fpu", "sse2", "sha_ni"]);
        assert_eq!(
            (cpu.vendor.as_str(), cpu.family, cpu.model, cpu.stepping),
            ("GenuineIntel", Some(6), Some(85), Some(7))
        );
        assert_eq!(cpu.microcode, ["0x5000", "0x5001"], "sockets that differ are seen");
        assert_eq!(cpu.bugs, ["spectre_v1", "mds"]);
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
        for (name, khz) in
            [("cpuinfo_max_freq", 3_500_000), ("cpuinfo_min_freq", 800_000), ("base_frequency", 2_100_000)]
        {
            fs::write(freq.join(name), format!("{khz}\n")).expect("written");
        }
        let cpu = read(&roots).expect("read");
        assert_eq!(cpu.frequency, "3500.000");
        let known =
            Frequencies { current_mhz: Some(1200), min_mhz: Some(800), base_mhz: Some(2100), max_mhz: Some(3500) };
        assert_eq!(cpu.frequencies, known);
    }

    #[test]
    fn a_shared_cache_is_one_cache() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        for n in 0..4 {
            for (index, level, kind, size, shared) in [
                (0, "1", "Data", "32K", format!("{}-{}", n / 2 * 2, n / 2 * 2 + 1)),
                (3, "3", "Unified", "16M", "0-3".to_owned()),
            ] {
                let cache = dir.path().join(format!("cpu{n}/cache/index{index}"));
                fs::create_dir_all(&cache).expect("made");
                let files = [("level", level), ("type", kind), ("size", size), ("shared_cpu_list", &shared)];
                for (file, content) in files {
                    fs::write(cache.join(file), content).expect("written");
                }
            }
        }
        let caches = caches(dir.path());
        let seen: Vec<_> = caches.iter().map(|c| (c.level, c.kind.as_str(), c.size, c.count)).collect();
        assert_eq!(seen, [(1, "Data", Bytes(32 * KIB), 2), (3, "Unified", Bytes(16 * MIB), 1)]);
    }

    #[test]
    fn this_machine_has_processors() {
        let cpu = read(&Roots::live()).expect("procfs");
        assert!(cpu.count >= 1 && cpu.core_count >= 1 && cpu.socket_count >= 1, "{cpu:?}");
    }
}

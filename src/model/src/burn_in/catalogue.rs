//! Every measurement that the steps of ours yield. A limit on any other name is a mistake of the scenario.

use super::disk::DISK;
use super::limit::Limit;
use super::measurement::unit;
use super::network::NETWORK;
use super::pattern::matches;
use super::step::StepKind;

/// A measurement by its name.
#[derive(Clone, Copy, Debug)]
pub struct Known {
    pub name: &'static str,
    pub unit: &'static str,
    pub meaning: &'static str,
    /// At most this, unless the scenario says otherwise.
    pub default_max: Option<f64>,
}

pub(super) const fn known(name: &'static str, unit: &'static str, meaning: &'static str) -> Known {
    Known { name, unit, meaning, default_max: None }
}

pub(super) const fn none_allowed(name: &'static str, meaning: &'static str) -> Known {
    Known { name, unit: unit::COUNT, meaning, default_max: Some(0.0) }
}

/// Of every step, from before it to after it.
pub const COMMON: &[Known] = &[
    none_allowed("machine.mce", "machine check exceptions that the kernel counted"),
    none_allowed("machine.hardware_errors", "lines of the kernel's log that report a hardware error"),
    none_allowed("edac.corrected", "memory errors that were corrected, per memory controller"),
    none_allowed("edac.uncorrected", "memory errors that were not, per memory controller"),
];

const CPU: &[Known] = &[
    none_allowed("cpu.errors", "wrong results, per core"),
    known("cpu.rate", unit::PER_SECOND, "verified kernels per second, per core"),
    known("cpu.frequency.min", unit::MEGAHERTZ, "lowest frequency of any core under load"),
    known("cpu.frequency.max", unit::MEGAHERTZ, "highest frequency of any core under load"),
    known("cpu.temperature.max", unit::CELSIUS, "highest reading, per sensor of the processors"),
    known("cpu.throttled", unit::COUNT, "throttling events that the kernel counted, all cores together"),
];

const MEMORY: &[Known] = &[
    none_allowed("memory.errors", "words that were read back wrong, per node"),
    known("memory.tested", unit::BYTES, "memory under test, per node"),
    known("memory.share", unit::PERCENT, "memory under test, of all that the kernel has"),
    known("memory.sweeps", unit::COUNT, "how often every word was read back and compared"),
    known("memory.passes", unit::COUNT, "whole passes through all patterns"),
    known("memory.bandwidth.write", unit::BYTES_PER_SECOND, "filling with a pattern, all threads of a node together"),
    known("memory.bandwidth.read", unit::BYTES_PER_SECOND, "reading and comparing, all threads of a node together"),
];

const SENSORS: &[Known] = &[
    known("sensor.temperature.min", unit::CELSIUS, "lowest reading, per sensor"),
    known("sensor.temperature.max", unit::CELSIUS, "highest reading, per sensor"),
    known("sensor.fan.min", unit::RPM, "lowest reading, per sensor"),
    known("sensor.fan.max", unit::RPM, "highest reading, per sensor"),
    known("sensor.voltage.min", unit::VOLTS, "lowest reading, per sensor"),
    known("sensor.voltage.max", unit::VOLTS, "highest reading, per sensor"),
    known("sensor.current.min", unit::AMPERES, "lowest reading, per sensor"),
    known("sensor.current.max", unit::AMPERES, "highest reading, per sensor"),
    known("sensor.power.min", unit::WATTS, "lowest reading, per sensor"),
    known("sensor.power.max", unit::WATTS, "highest reading, per sensor"),
    known("sensor.critical", unit::COUNT, "sensors of the BMC that were beyond a critical threshold of its own"),
];

/// A program that ran to its end.
const PROGRAM: &[Known] =
    &[known("program.status", unit::COUNT, "exit status"), known("program.seconds", unit::SECONDS, "how long it ran")];

const FIO: &[Known] = &[
    none_allowed("fio.errors", "reads that failed"),
    known("fio.read.bandwidth", unit::BYTES_PER_SECOND, "of all disks of the step together"),
    known("fio.read.iops", unit::PER_SECOND, "of all disks of the step together"),
    known("fio.read.latency.p99", unit::MICROSECONDS, "99 of 100 reads were answered within it"),
    known("fio.read.latency.max", unit::MICROSECONDS, "the longest"),
];

const GPU: &[Known] = &[
    known("gpu.count", unit::COUNT, "GPUs that the program saw"),
    none_allowed("gpu.faulty", "GPUs with wrong results"),
];

impl StepKind {
    /// What it yields, besides [`COMMON`].
    #[must_use]
    pub fn yields(&self) -> &'static [Known] {
        match self {
            Self::Cpu(_) => CPU,
            Self::Memory(_) => MEMORY,
            Self::Sensors(_) => SENSORS,
            Self::Command(_) | Self::StressNg(_) => PROGRAM,
            Self::Fio(_) => FIO,
            Self::Gpu(_) => GPU,
            Self::Disk(_) => DISK,
            Self::Network(_) => NETWORK,
            Self::Pause(_) => &[],
        }
    }

    /// The limits that hold unless the scenario says otherwise.
    #[must_use]
    pub fn default_limits(&self) -> Vec<Limit> {
        let of = |k: &Known| k.default_max.map(|max| Limit::default_max(k.name, max));
        let mut limits: Vec<Limit> = self.yields().iter().chain(COMMON).filter_map(of).collect();
        if let Self::Command(_) | Self::StressNg(_) = self {
            limits.push(Limit::default_max("program.status", 0.0));
        }
        limits
    }

    /// Whether a limit can say anything about this step.
    pub(super) fn knows(&self, limit: &Limit) -> Result<(), String> {
        let own: Vec<String> = match self {
            // What these yield is in their parameters, or in what they print.
            Self::StressNg(stress) => stress.metrics(),
            Self::Command(command) => match command.names() {
                Some(names) => names,
                None => return Ok(()),
            },
            _ => Vec::new(),
        };
        let meant: Vec<&Known> =
            self.yields().iter().chain(COMMON).filter(|k| matches(&limit.measurement, k.name)).collect();
        if meant.is_empty() && !own.iter().any(|name| matches(&limit.measurement, name)) {
            return Err(format!("{} yields no {:?}", self.word(), limit.measurement));
        }
        let signed = |k: &&Known| [unit::CELSIUS, unit::VOLTS, unit::AMPERES, unit::WATTS].contains(&k.unit);
        if let Some(max) = limit.max.filter(|max| *max < 0.0)
            && own.is_empty()
            && !meant.iter().any(signed)
        {
            return Err(format!("{}: max {max} is below 0, which nothing can keep", limit.measurement));
        }
        Ok(())
    }
}

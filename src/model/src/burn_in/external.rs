//! Programs of others: a command of the scenario's, and the usual engines where they are present.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::image::ImageDigest;
use crate::units::{Bytes, MIB};
use crate::wipe::WipeTargets;

const MOST_OUTPUT: Bytes = Bytes(16 * MIB);

/// A program, called by its arguments and never through a shell.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CommandStep {
    /// The first is the program: a plain name, looked for where the live system keeps programs; or an absolute path,
    /// which needs `digest`.
    pub argv: Vec<String>,
    /// Of the program's file. It is copied, and what runs is what was hashed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<ImageDigest>,
    /// All of it, besides `PATH` and `LC_ALL`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub environment: BTreeMap<String, String>,
    /// How much of what it prints is read; 1 MiB when absent, 16 MiB at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<Bytes>,
    /// How measurements are found in what it prints on its standard output.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub metrics: Vec<MetricRule>,
}

/// Exactly one of `json`, `line` and `lines`.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MetricRule {
    /// Path to a number in JSON output (RFC 6901): `/jobs/0/read/bw_bytes`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub json: Option<String>,
    /// A line, in which `{value}` is the number, `{where}` a word that says where, `*` anything, and blanks any blanks:
    /// `{where}: signal {value} dBm*`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<String>,
    /// Every line that reads `name value unit` is a measurement.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub lines: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    /// Which, should several lines match.
    #[serde(default, skip_serializing_if = "Take::is_last")]
    pub take: Take,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Take {
    First,
    #[default]
    Last,
    Min,
    Max,
    Sum,
}

impl Take {
    fn is_last(&self) -> bool {
        *self == Self::Last
    }
}

impl CommandStep {
    /// The names of its measurements, unless it is its output that names them.
    pub(super) fn names(&self) -> Option<Vec<String>> {
        (!self.metrics.iter().any(|rule| rule.lines))
            .then(|| self.metrics.iter().filter_map(|rule| rule.name.clone()).collect())
    }

    pub(super) fn check(&self) -> Result<(), String> {
        let Some(program) = self.argv.first().filter(|p| !p.is_empty()) else {
            return Err("argv: the program is missing".into());
        };
        if self.argv.iter().map(String::len).sum::<usize>() > 64 << 10 || self.argv.iter().any(|a| a.contains('\0')) {
            return Err("argv: more than 64 KiB, or a NUL".into());
        }
        if program.contains('/') && (!program.starts_with('/') || self.digest.is_none()) {
            return Err(format!("argv: {program:?} is a path: an absolute one, with a digest"));
        }
        if self.digest.as_ref().is_some_and(|digest| digest.as_sha256().is_none()) {
            return Err("digest: only sha256 is done".into());
        }
        let name = |n: &str| !n.is_empty() && n.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        if let Some((key, _)) = self.environment.iter().find(|(k, v)| !name(k) || v.contains('\0')) {
            return Err(format!("environment: {key:?} is not the name of a variable, or its value has a NUL"));
        }
        if self.output.is_some_and(|o| o.0 == 0 || o > MOST_OUTPUT) {
            return Err(format!("output: 1 byte to {MOST_OUTPUT}"));
        }
        self.metrics
            .iter()
            .enumerate()
            .try_for_each(|(i, rule)| rule.check().map_err(|what| format!("metrics[{i}]: {what}")))
    }
}

impl MetricRule {
    fn check(&self) -> Result<(), String> {
        let kinds = [self.json.is_some(), self.line.is_some(), self.lines].into_iter().filter(|k| *k).count();
        if kinds != 1 {
            return Err("exactly one of json, line and lines is needed".into());
        }
        if self.lines {
            return match (&self.name, &self.unit, self.take) {
                (None, None, Take::Last) => Ok(()),
                _ => Err("lines name themselves: no name, unit or take beside it".into()),
            };
        }
        if self.name.as_deref().is_none_or(str::is_empty) || self.unit.as_deref().is_none_or(str::is_empty) {
            return Err("name and unit are needed".into());
        }
        if let Some(path) = self.json.as_ref().filter(|p| !p.starts_with('/')) {
            return Err(format!("json: {path:?} does not begin with /"));
        }
        if let Some(line) = self.line.as_ref().filter(|l| l.matches("{value}").count() != 1) {
            return Err(format!("line: {line:?} does not have one {{value}}"));
        }
        if let Some(line) = self.line.as_ref().filter(|l| l.matches("{where}").count() > 1) {
            return Err(format!("line: {line:?} has {{where}} more than once"));
        }
        Ok(())
    }
}

/// fio reads disks with `--readonly`. Writing with verification is the step `disk`, which claims its disks.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FioStep {
    pub devices: WipeTargets,
    #[serde(default)]
    pub pattern: FioPattern,
    /// 4 KiB when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub block: Option<Bytes>,
    /// Requests at once per disk; 32 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub depth: Option<u32>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FioPattern {
    Sequential,
    #[default]
    Random,
}

impl FioStep {
    pub(super) fn check(&self) -> Result<(), String> {
        if let WipeTargets::Hints(hints) = &self.devices
            && (hints.is_empty() || hints.iter().any(crate::hints::RootDeviceHints::is_empty))
        {
            return Err("devices: no disk is named".into());
        }
        if self.block.is_some_and(|b| !b.0.is_multiple_of(512) || b.0 == 0 || b > Bytes::mib(64)) {
            return Err("block: a multiple of 512 bytes, at most 64 MiB".into());
        }
        if self.depth.is_some_and(|d| d == 0 || d > 4096) {
            return Err("depth: 1 to 4096".into());
        }
        Ok(())
    }
}

/// Stressors of processors, caches and memory, which touch nothing else of the machine. Of the others some load modules,
/// set the clock, write files or try every device there is.
const HARMLESS: &[&str] = &[
    "atomic",
    "bigheap",
    "branch",
    "bsearch",
    "cache",
    "cacheline",
    "cpu",
    "crypt",
    "fma",
    "fp",
    "funccall",
    "hash",
    "heapsort",
    "hsearch",
    "icache",
    "l1cache",
    "lockbus",
    "longjmp",
    "lsearch",
    "malloc",
    "matrix",
    "matrix-3d",
    "memcpy",
    "memfd",
    "memrate",
    "memthrash",
    "mergesort",
    "misaligned",
    "mmap",
    "nop",
    "opcode",
    "prefetch",
    "qsort",
    "radixsort",
    "regs",
    "rotate",
    "shellsort",
    "skiplist",
    "stack",
    "str",
    "stream",
    "tree",
    "trig",
    "tsearch",
    "vecfp",
    "vecmath",
    "vecshuf",
    "vecwide",
    "vm",
    "vm-rw",
    "wcs",
    "zlib",
];

/// stress-ng, always with `--verify`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StressNgStep {
    pub stressors: Vec<Stressor>,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Stressor {
    /// As stress-ng calls it: `cpu`, `vm`, `matrix`.
    pub name: String,
    /// 0 is one per core.
    #[serde(default)]
    pub workers: u32,
    /// Further options without the dashes: `{"vm-bytes": "80%", "cpu-method": "all"}`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub options: BTreeMap<String, String>,
}

impl StressNgStep {
    /// Whether all of its stressors are known to touch processors, caches and memory only.
    #[must_use]
    pub fn is_harmless(&self) -> bool {
        self.stressors.iter().all(|stressor| HARMLESS.contains(&stressor.name.as_str()))
    }

    /// One per stressor: `stress_ng.cpu.bogo_ops`.
    pub(super) fn metrics(&self) -> Vec<String> {
        self.stressors.iter().map(|s| format!("stress_ng.{}.bogo_ops", s.name)).collect()
    }

    pub(super) fn check(&self) -> Result<(), String> {
        let word =
            |w: &str| !w.is_empty() && w.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        if self.stressors.is_empty() {
            return Err("stressors: none is named".into());
        }
        for stressor in &self.stressors {
            // An option is of the stressor whose name it begins with: no way to stress-ng's own (--log-file, --exec).
            let own =
                |option: &str| word(option) && option.strip_prefix(&stressor.name).is_some_and(|o| o.starts_with('-'));
            if !word(&stressor.name)
                || stressor.name.starts_with('-')
                || ["hdd", "exec", "dev", "rawdev"].contains(&stressor.name.as_str())
            {
                return Err(format!("stressors: {:?} is none that is run here", stressor.name));
            }
            if let Some((option, _)) = stressor.options.iter().find(|(o, v)| !own(o) || v.starts_with('-')) {
                return Err(format!("stressors: {option:?} is not an option of {}", stressor.name));
            }
        }
        Ok(())
    }
}

/// gpu_burn.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GpuStep {
    /// Percent of the GPUs' memory; 95 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<u8>,
    /// Where gpu_burn and its compiled kernels are; `/opt/gpu-burn` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub directory: Option<String>,
}

impl GpuStep {
    pub(super) fn check(&self) -> Result<(), String> {
        if self.memory.is_some_and(|m| !(1..=100).contains(&m)) {
            return Err("memory: 1 to 100 percent".into());
        }
        match self.directory.as_ref().filter(|d| !d.starts_with('/') || d.contains("..")) {
            Some(directory) => Err(format!("directory: {directory:?} is not an absolute path")),
            None => Ok(()),
        }
    }
}

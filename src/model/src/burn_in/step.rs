//! The steps: a closed list. What all have in common (name, duration, limits) stands beside what each takes.

use schemars::JsonSchema;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use super::disk::DiskStep;
use super::external::{CommandStep, FioStep, GpuStep, StressNgStep};
use super::limit::Limit;
use super::network::NetworkStep;
use super::seconds::Seconds;
use crate::units::Bytes;

/// On the wire one flat object: `{"step": "cpu", "duration": "30m", "limits": [...], ...}`.
#[derive(Clone, PartialEq, Debug, Serialize, JsonSchema)]
pub struct Step {
    /// For reports; the kind of the step when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// How long it works. For a command, and for a self-test of disks, how long it may take at most.
    pub duration: Seconds,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub limits: Vec<Limit>,
    /// With `false`, a step that cannot be judged (its program is absent, say) leaves the whole as it is.
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub required: bool,
    #[serde(flatten)]
    pub kind: StepKind,
}

fn yes() -> bool {
    true
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_yes(value: &bool) -> bool {
    *value
}

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "step", rename_all = "snake_case")]
pub enum StepKind {
    /// Verified arithmetic on every core.
    Cpu(CpuStep),
    /// Patterns in nearly all free memory, locked, written and read back.
    Memory(MemoryStep),
    /// Disks: read, or verified writes.
    Disk(DiskStep),
    /// Traffic with a partner, both directions.
    Network(NetworkStep),
    /// Reads sensors while other steps of its group work, or alone.
    Sensors(SensorsStep),
    /// A program with parsed metrics.
    Command(CommandStep),
    /// fio, reading disks.
    Fio(FioStep),
    /// stress-ng.
    StressNg(StressNgStep),
    /// gpu_burn.
    Gpu(GpuStep),
    /// Waits: lets a machine cool down, or soak.
    Pause(PauseStep),
}

#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CpuStep {
    /// Logical processors; all that are online when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cores: Vec<u32>,
}

/// In which order memory is filled, and with what.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum MemoryPattern {
    /// Every word holds its own place: finds address lines that are stuck or shorted.
    OwnAddress,
    /// Words that look random and differ everywhere, and their inverse.
    Random,
    /// A word and its inverse, written over each other upwards and downwards.
    MovingInversions,
    /// A single one in a field of zeros through all 64 places.
    WalkingOnes,
    /// Neighbouring rows hold the inverse of each other.
    Rows,
    /// Reads rows again and again, past the caches, and looks at those between.
    Neighbours,
}

impl MemoryPattern {
    pub const ALL: [Self; 6] =
        [Self::OwnAddress, Self::Random, Self::MovingInversions, Self::WalkingOnes, Self::Rows, Self::Neighbours];

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::OwnAddress => "own_address",
            Self::Random => "random",
            Self::MovingInversions => "moving_inversions",
            Self::WalkingOnes => "walking_ones",
            Self::Rows => "rows",
            Self::Neighbours => "neighbours",
        }
    }
}

#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MemoryStep {
    /// How much; nearly all that is available when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<Bytes>,
    /// Left to the system; 5 % of the memory when absent, and at least 96 MiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reserve: Option<Bytes>,
    /// All, in turn, when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub patterns: Vec<MemoryPattern>,
    /// Ends after so many passes through all patterns, should the duration be longer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub passes: Option<u32>,
}

#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SensorsStep {
    /// Which sensors, by `chip/label` with `*`; all when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sensors: Vec<String>,
    /// Between two readings; 2 s when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub every: Option<Seconds>,
}

#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PauseStep {}

impl<'de> Deserialize<'de> for Step {
    // By hand: serde can have either flattened fields or no unknown ones.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut fields = Map::deserialize(deserializer)?;
        let kind_of = fields.get("step").and_then(Value::as_str).unwrap_or("step").to_owned();
        let mut take = |field: &str| fields.remove(field).filter(|value| !value.is_null());
        let (name, duration, limits, required) = (take("name"), take("duration"), take("limits"), take("required"));
        fn read<T: serde::de::DeserializeOwned, E: serde::de::Error>(
            kind: &str,
            field: &str,
            value: Value,
        ) -> Result<T, E> {
            serde_json::from_value(value).map_err(|e| E::custom(format_args!("{kind}: {field}: {e}")))
        }
        let duration = duration.ok_or_else(|| D::Error::custom(format_args!("{kind_of}: duration is missing")))?;
        Ok(Self {
            name: name.map(|value| read(&kind_of, "name", value)).transpose()?,
            duration: read(&kind_of, "duration", duration)?,
            limits: limits.map_or(Ok(Vec::new()), |value| read(&kind_of, "limits", value))?,
            required: required.map_or(Ok(true), |value| read(&kind_of, "required", value))?,
            kind: serde_json::from_value(Value::Object(fields))
                .map_err(|e| D::Error::custom(format_args!("{kind_of}: {e}")))?,
        })
    }
}

impl StepKind {
    /// The word on the wire.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Cpu(_) => "cpu",
            Self::Memory(_) => "memory",
            Self::Disk(_) => "disk",
            Self::Network(_) => "network",
            Self::Sensors(_) => "sensors",
            Self::Command(_) => "command",
            Self::Fio(_) => "fio",
            Self::StressNg(_) => "stress_ng",
            Self::Gpu(_) => "gpu",
            Self::Pause(_) => "pause",
        }
    }
}

impl Step {
    #[must_use]
    pub fn new(kind: StepKind, duration: Seconds) -> Self {
        Self { name: None, duration, limits: Vec::new(), required: true, kind }
    }

    /// As reports call it.
    #[must_use]
    pub fn title(&self) -> &str {
        self.name.as_deref().unwrap_or_else(|| self.kind.word())
    }

    /// Whether it may lose somebody's data.
    #[must_use]
    pub fn is_destructive(&self) -> bool {
        self.writes_disks() || self.runs_programs()
    }

    #[must_use]
    pub fn writes_disks(&self) -> bool {
        matches!(&self.kind, StepKind::Disk(disk) if disk.verify_writes)
    }

    /// Whether it runs, with root's rights, what the scenario names and nobody here knows: such a program can do to the
    /// machine whatever it likes, past every claim and plan.
    #[must_use]
    pub fn runs_programs(&self) -> bool {
        match &self.kind {
            StepKind::Command(_) => true,
            StepKind::StressNg(stress) => !stress.is_harmless(),
            StepKind::Gpu(gpu) => gpu.directory.is_some(),
            _ => false,
        }
    }

    /// Everything wrong that can be seen without a machine.
    pub(super) fn check(&self) -> Result<(), String> {
        if self.duration.0 == 0 {
            return Err("duration: a step of 0 s proves nothing".into());
        }
        if self.duration > Seconds::MOST {
            return Err(format!("duration: {} is longer than {}", self.duration, Seconds::MOST));
        }
        if self.name.as_ref().is_some_and(|n| n.is_empty() || n.chars().count() > 64 || n.chars().any(char::is_control))
        {
            return Err("name: 1 to 64 printable characters".into());
        }
        if self.limits.len() > 256 {
            return Err("limits: more than 256".into());
        }
        for (i, limit) in self.limits.iter().enumerate() {
            limit.check().and_then(|()| self.kind.knows(limit)).map_err(|what| format!("limits[{i}]: {what}"))?;
        }
        match &self.kind {
            StepKind::Cpu(cpu) => cpu.check(),
            StepKind::Memory(memory) => memory.check(),
            StepKind::Disk(disk) => disk.check(),
            StepKind::Network(network) => network.check(),
            StepKind::Sensors(sensors) => sensors.check(),
            StepKind::Command(command) => command.check(),
            StepKind::Fio(fio) => fio.check(),
            StepKind::StressNg(stress) => stress.check(),
            StepKind::Gpu(gpu) => gpu.check(),
            StepKind::Pause(_) => Ok(()),
        }
    }
}

impl CpuStep {
    fn check(&self) -> Result<(), String> {
        let mut cores = self.cores.clone();
        cores.sort_unstable();
        match cores.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => Err(format!("cores: {} is named twice", pair[0])),
            None => Ok(()),
        }
    }
}

impl MemoryStep {
    fn check(&self) -> Result<(), String> {
        const LEAST: Bytes = Bytes::mib(1);
        if self.size.is_some_and(|size| size < LEAST) {
            return Err(format!("size: less than {LEAST} proves nothing"));
        }
        if self.passes == Some(0) {
            return Err("passes: 0 proves nothing".into());
        }
        Ok(())
    }
}

impl SensorsStep {
    fn check(&self) -> Result<(), String> {
        match (&self.every, self.sensors.iter().any(String::is_empty)) {
            (Some(Seconds(0)), _) => Err("every: 0 s is no pause".into()),
            (_, true) => Err("sensors: a pattern is empty".into()),
            _ => Ok(()),
        }
    }
}

//! What a step is to the engine.

use std::sync::Arc;

use speediso_model::burn_in::{Measurement, Step, StepKind};
use speediso_model::fault::Fault;
use speediso_model::outcome::DeviceResult;
use speediso_model::plan::PlannedDevice;

use super::live::Live;
use super::meddle::Meddler;
use super::{command, cpu, disk, external, memory, network, pause, sensors};
use crate::ctx::TaskCtx;

/// A step that is ready to work.
pub(crate) trait Work: Send + Sync {
    /// What it would do, without doing it. The same machine gives the same plan.
    ///
    /// # Errors
    /// Why the whole burn-in would be refused.
    fn plan(&self, ctx: &TaskCtx) -> Result<Planned, Fault>;

    /// Works until `live` is over or everything is done. Whatever it cannot do, it says in what it gives back.
    fn run(&self, live: &Live<'_>) -> Findings;
}

#[derive(Debug, Default)]
pub(crate) struct Planned {
    /// In words.
    pub(crate) effect: String,
    pub(crate) devices: Vec<PlannedDevice>,
}

impl Planned {
    pub(crate) fn effect(text: impl Into<String>) -> Self {
        Self { effect: text.into(), devices: Vec::new() }
    }
}

/// What a step found. It does not judge: limits do.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    pub(crate) measurements: Vec<Measurement>,
    /// What could not be measured and has no limit of its own.
    pub(crate) unread: Vec<String>,
    pub(crate) notices: Vec<String>,
    /// Why it cannot be judged, whatever was measured.
    pub(crate) inconclusive: Vec<String>,
    /// Why nothing of it was done, where that says nothing of this machine.
    pub(crate) skipped: Option<String>,
    /// What a program printed, its beginning.
    pub(crate) output: Option<String>,
    /// Its disks, each with its own end.
    pub(crate) devices: Vec<DeviceResult>,
    /// Whether a disk was written, or may have been.
    pub(crate) changed: bool,
}

impl Findings {
    pub(crate) fn inconclusive(why: impl Into<String>) -> Self {
        Self { inconclusive: vec![why.into()], ..Self::default() }
    }

    pub(crate) fn skipped(why: impl Into<String>) -> Self {
        Self { skipped: Some(why.into()), ..Self::default() }
    }
}

/// # Errors
/// `unsupported` for a kind of step that this build does not have.
pub(super) fn of(step: &Step, meddler: &Arc<dyn Meddler>) -> Result<Box<dyn Work>, Fault> {
    Ok(match &step.kind {
        StepKind::Cpu(kind) => Box::new(cpu::Cpu::new(kind.clone(), meddler.clone())),
        StepKind::Memory(kind) => Box::new(memory::Memory::new(kind.clone(), meddler.clone())),
        StepKind::Sensors(kind) => Box::new(sensors::Sensors::new(kind.clone())),
        StepKind::Command(kind) => Box::new(command::Command::new(kind.clone())),
        StepKind::Fio(kind) => Box::new(external::Fio::new(kind.clone())),
        StepKind::StressNg(kind) => Box::new(external::StressNg::new(kind.clone())),
        StepKind::Gpu(kind) => Box::new(external::Gpu::new(kind.clone())),
        StepKind::Pause(_) => Box::new(pause::Pause),
        StepKind::Disk(kind) => Box::new(disk::Disks::new(kind.clone())),
        StepKind::Network(kind) => Box::new(network::Network::new(kind.clone())),
    })
}

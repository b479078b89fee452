//! Waiting: lets a machine cool down, or soak. What the kernel counts meanwhile counts as ever.

use speediso_model::fault::Fault;

use super::live::Live;
use super::work::{Findings, Planned, Work};
use crate::ctx::TaskCtx;

pub(super) struct Pause;

impl Work for Pause {
    fn plan(&self, _: &TaskCtx) -> Result<Planned, Fault> {
        Ok(Planned::effect("waits"))
    }

    fn run(&self, live: &Live<'_>) -> Findings {
        live.wait(live.step.duration.duration());
        Findings::default()
    }
}

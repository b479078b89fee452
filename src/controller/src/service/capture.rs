//! Who may send an image.

use speediso_model::fault::{Fault, FaultCode};
use speediso_model::id::RunId;
use speediso_model::order::TaskState;
use speediso_model::task::Task;

use super::{Agent, Result, Service, load};

impl Service {
    /// Under which name the run may store an image: it was begun, has not ended, is this agent's, and its order says so.
    ///
    /// # Errors
    /// When it may not.
    pub async fn capture_name(&self, agent: Agent, run: RunId) -> Result<String> {
        let mut tx = self.store.read().await?;
        let machine = load(&mut *tx, agent.node).await?.now;
        machine.check_epoch(agent.epoch)?;
        let tasks = machine.order.iter().flat_map(|record| &record.order.tasks);
        let running = |state: &TaskState| matches!(state, TaskState::Running { run: of, epoch, .. } if *of == run && *epoch == agent.epoch);
        let name = tasks.filter(|task| running(&task.state)).find_map(|task| match &task.task {
            Task::Capture(capture) => capture.to.store.clone(),
            _ => None,
        });
        name.ok_or_else(|| {
            let message = format!("the run {run} is no capture into the image store that was begun and goes on");
            Fault::new(FaultCode::NotArmed, message).into()
        })
    }

    /// # Errors
    /// When the store fails.
    pub async fn is_running(&self, run: RunId) -> Result<bool> {
        let mut tx = self.store.read().await?;
        let Some(record) = tx.run(run).await? else { return Ok(false) };
        let order = tx.order(record.order).await?;
        let running = |state: &TaskState| matches!(state, TaskState::Running { run: of, .. } if *of == run);
        Ok(order.is_some_and(|record| record.order.tasks.iter().any(|task| running(&task.state))))
    }
}

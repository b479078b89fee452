//! The tasks. Each first *plans* (looks, changes nothing), then *acts* on disks it has claimed, then looks again.
//!
//! [`execute`] makes the plan a second time on the claimed disks and refuses if it is not the one whose start was
//! permitted: between the two the machine may have changed.

#![forbid(unsafe_code)]

mod boot_entry;
pub mod burn_in;
mod capture;
mod config_drive;
pub mod ctx;
mod devices;
pub mod drivers;
mod fetch;
mod gptedit;
mod hardware_raid;
mod inventory;
pub mod live;
mod nvme_format;
mod nvme_namespaces;
mod partition;
mod place;
mod power;
mod raid;
pub mod share;
mod single;
mod table;
mod teardown;
pub mod tools;
mod wipe;
mod write_image;

use speediso_model::fault::Fault;
use speediso_model::outcome::{Outcome, TaskResult};
use speediso_model::plan::{Plan, PlanDigest};
use speediso_model::task::Task;

pub use crate::ctx::TaskCtx;
pub use crate::inventory::{Look, collect as collect_inventory, look};
pub use crate::power::perform as perform_power;

/// What the task would do on this machine now.
///
/// # Errors
/// Why it would be refused.
pub fn plan(task: &Task, ctx: &TaskCtx) -> Result<Plan, Fault> {
    task.validate()?;
    match task {
        Task::Inventory(_) => Ok(inventory::plan()),
        Task::Wipe(task) => wipe::plan(task, ctx),
        Task::Teardown(task) => teardown::plan(task, ctx),
        Task::NvmeFormat(task) => nvme_format::plan(task, ctx),
        Task::NvmeNamespaces(task) => nvme_namespaces::plan(task, ctx),
        Task::HardwareRaid(task) => hardware_raid::plan(task, ctx),
        Task::Partition(task) => partition::plan(task, ctx),
        Task::Raid(task) => raid::plan(task, ctx),
        Task::WriteImage(task) => write_image::plan(task, ctx),
        Task::Capture(task) => capture::plan(task, ctx),
        Task::ConfigDrive(task) => config_drive::plan(task, ctx),
        Task::BootEntry(task) => boot_entry::plan(task, ctx),
        Task::BurnIn(task) => burn_in::plan(task, ctx),
        Task::Power(task) => Ok(power::plan(task)),
    }
}

/// Does it. Blocks until it has ended; `ctx.cancel` ends it earlier at a safe point.
///
/// A panic is the caller's to turn into [`Outcome::Unknown`].
#[must_use]
pub fn execute(task: &Task, expected: &PlanDigest, ctx: &TaskCtx) -> TaskResult {
    if let Err(fault) = task.validate() {
        return TaskResult::failed(task.kind(), Outcome::FailedUnchanged, fault);
    }
    match task {
        Task::Inventory(task) => inventory::execute(task, ctx),
        Task::Wipe(task) => wipe::execute(task, expected, ctx),
        Task::Teardown(task) => teardown::execute(task, expected, ctx),
        Task::NvmeFormat(task) => nvme_format::execute(task, expected, ctx),
        Task::NvmeNamespaces(task) => nvme_namespaces::execute(task, expected, ctx),
        Task::HardwareRaid(task) => hardware_raid::execute(task, expected, ctx),
        Task::Partition(task) => partition::execute(task, expected, ctx),
        Task::Raid(task) => raid::execute(task, expected, ctx),
        Task::WriteImage(task) => write_image::execute(task, expected, ctx),
        Task::Capture(task) => capture::execute(task, expected, ctx),
        Task::ConfigDrive(task) => config_drive::execute(task, expected, ctx),
        Task::BootEntry(task) => boot_entry::execute(task, expected, ctx),
        Task::BurnIn(task) => burn_in::execute(task, expected, ctx),
        Task::Power(task) => power::execute(task, expected),
    }
}

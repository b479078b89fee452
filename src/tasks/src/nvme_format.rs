//! The sector size of an NVMe namespace. Formatting loses everything on it, so it is planned, claimed and checked like any
//! other way to lose data; a namespace that has such sectors already is left as it is.

use std::time::Duration;

use serde_json::json;
use speediso_model::fault::{Fault, FaultCode};
use speediso_model::hints::describe;
use speediso_model::inventory::{Disk, Transport};
use speediso_model::nvme_format::NvmeFormatTask;
use speediso_model::outcome::{Changed, Outcome, TaskResult};
use speediso_model::plan::{Action, Plan, PlanDigest};
use speediso_model::units::Bytes;
use speediso_sys::claim::ClaimedDisk;
use speediso_sys::passthrough::nvme::{self, LbaFormat, SecureErase};
use speediso_sys::passthrough::{CommandError, Passthrough};
use speediso_sys::peek::Peek;

use crate::ctx::TaskCtx;
use crate::single::{self, Ended, execute_on};

const KIND: &str = "nvme_format";
/// For the kernel to look at the namespace again.
const LOOKS: u32 = 50;
const BETWEEN: Duration = Duration::from_millis(100);

/// What is, and what is to be.
struct Formats {
    namespace: u32,
    now: LbaFormat,
    wanted: LbaFormat,
}

impl Formats {
    fn of(task: &NvmeFormatTask, disk: &Disk, device: &dyn Passthrough) -> Result<Self, Fault> {
        let refused = |why: &str| Fault::new(FaultCode::Unsupported, format!("{}: {why}", describe(disk)));
        if disk.tran != Transport::Nvme {
            return Err(refused("only NVMe disks can be given another sector size"));
        }
        let asked = |error: CommandError| Fault::from_error(FaultCode::DiskIo, &error);
        let controller = nvme::controller(device).map_err(asked)?;
        if !controller.can_format() {
            return Err(refused("its controller does not offer Format NVM"));
        }
        let id = device.nvme_namespace().map_err(asked)?;
        let others = nvme::namespaces(device).map_err(asked)?.len() > 1;
        if controller.format_attributes & 1 != 0 && others {
            return Err(refused("its controller formats all namespaces at once, and there are others"));
        }
        let namespace = nvme::namespace(device, id).map_err(asked)?;
        let now = namespace.format().ok_or_else(|| refused("it does not tell the format it has"))?;
        if now.bytes == task.sector_size && now.metadata == 0 {
            return Ok(Self { namespace: id, now, wanted: now });
        }
        let wanted = namespace.best_format(task.sector_size).ok_or_else(|| {
            let sizes: Vec<String> = namespace.formats.iter().map(|f| format!("{}+{}", f.bytes, f.metadata)).collect();
            refused(&format!(
                "it has no format of {} bytes without metadata, only {}",
                task.sector_size,
                sizes.join(", ")
            ))
        })?;
        Ok(Self { namespace: id, now, wanted })
    }

    fn in_words(&self) -> String {
        if self.now == self.wanted {
            return format!("namespace {} has sectors of {} bytes already", self.namespace, self.now.bytes);
        }
        format!(
            "format namespace {} from sectors of {}+{} bytes to {} (everything on it is lost)",
            self.namespace, self.now.bytes, self.now.metadata, self.wanted.bytes
        )
    }
}

pub(crate) fn plan(task: &NvmeFormatTask, ctx: &TaskCtx) -> Result<Plan, Fault> {
    single::plan_for(KIND, &task.device, ctx, |disk| {
        let seen = Peek::open(&ctx.roots, disk)?;
        let what = Formats::of(task, disk, &seen)?.in_words();
        Ok(vec![Action { what, offset: Bytes(0), length: disk.size }])
    })
}

pub(crate) fn execute(task: &NvmeFormatTask, expected: &PlanDigest, ctx: &TaskCtx) -> TaskResult {
    let asked = format!("sectors of {} bytes", task.sector_size);
    execute_on(&asked, &task.device, expected, ctx, || plan(task, ctx), |disk| format(task, disk, ctx))
}

fn format(task: &NvmeFormatTask, disk: &ClaimedDisk, ctx: &TaskCtx) -> Ended {
    let formats = match Formats::of(task, disk.disk(), disk) {
        Ok(formats) => formats,
        Err(fault) => return Ended::unchanged(fault),
    };
    let facts =
        json!({"sector_size": formats.wanted.bytes, "before": formats.now.bytes, "lba_format": formats.wanted.index});
    if formats.now == formats.wanted {
        return Ended::verified(Changed::AlreadySo, "the namespace had this sector size", facts);
    }
    let step = format!("format {}", disk.name());
    ctx.reporter.step_began(&step);
    let formatted = nvme::format(disk, Some(formats.namespace), formats.wanted.index, SecureErase::None);
    if let Err(error) = formatted {
        let outcome = match &error {
            CommandError::Declined { .. } | CommandError::NoWay { .. } => Outcome::FailedUnchanged,
            CommandError::Lost { .. } | CommandError::Nonsense { .. } => Outcome::Unknown,
        };
        return Ended::failed(outcome, "Format NVM", Fault::from_error(FaultCode::DiskIo, &error));
    }
    match seen(&formats, disk) {
        Ok(()) => {
            ctx.reporter.step_ended(&step, &formats.in_words());
            Ended::verified(Changed::Changed, "Format NVM without secure erase", facts)
        }
        Err(fault) => Ended::failed(Outcome::FailedChanged, "Format NVM", fault),
    }
}

/// The device has to say so, and the kernel to see it.
fn seen(formats: &Formats, disk: &ClaimedDisk) -> Result<(), Fault> {
    let failed = |what: &str| Fault::new(FaultCode::VerifyFailed, format!("{} {what}", disk.name()));
    let now = nvme::namespace(disk, formats.namespace).map_err(|e| Fault::from_error(FaultCode::DiskIo, &e))?;
    if now.format() != Some(formats.wanted) {
        return Err(failed("reports success and has not the format that was asked for"));
    }
    for _ in 0..LOOKS {
        if disk.current_sector_size() == Some(formats.wanted.bytes) {
            return Ok(());
        }
        std::thread::sleep(BETWEEN);
    }
    Err(failed("is formatted, but the kernel still works with the sector size of before: boot the machine again"))
}

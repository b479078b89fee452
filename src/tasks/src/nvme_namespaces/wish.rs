//! What is there, what is to be, and why it may not be.

use speediso_model::fault::{Fault, FaultCode};
use speediso_model::task::NvmeNamespacesTask;
use speediso_model::units::{Bytes, MIB};
use speediso_sys::passthrough::nvme::{self, LbaFormat};
use speediso_sys::passthrough::{CommandError, Passthrough};

use super::{asked, namespaces};

/// A controller with all that counts, as it answers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Wish {
    /// The number of the controller in its subsystem.
    pub(super) controller: u16,
    /// Namespaces that are disks of this machine, and that the task names.
    pub(super) attached: Vec<u32>,
    /// Those that nobody sees.
    pub(super) detached: Vec<u32>,
    pub(super) format: LbaFormat,
    /// In what steps a size grows.
    pub(super) grain: u64,
    /// All that can be had.
    pub(super) capacity: u64,
    unallocated: u64,
    /// The one that there is has the wished format.
    has_format: bool,
}

impl Wish {
    /// Refuses whatever cannot be done or may not be lost. `named` are the namespaces whose disks the task names.
    pub(super) fn of(
        task: &NvmeNamespacesTask,
        name: &str,
        named: &[u32],
        device: &dyn Passthrough,
    ) -> Result<Self, Fault> {
        let refused = |why: String| Err(Fault::new(FaultCode::Unsupported, format!("{name} {why}")));
        let ask = |e: CommandError| asked(&e);
        let controller = nvme::controller(device).map_err(ask)?;
        if !controller.manages_namespaces() {
            return refused(
                "does not offer Namespace Management (OACS, bit 3): its namespaces are as its maker made them".into(),
            );
        }
        if controller.capacity == 0 {
            return refused("does not tell how much capacity it has (TNVMCAP)".into());
        }
        let all = namespaces(device)?;
        let of = |wanted| all.iter().filter(move |(_, attached)| *attached == wanted).map(|(id, _)| *id).collect();
        let (mut attached, detached): (Vec<u32>, Vec<u32>) = (of(true), of(false));
        if let Some(other) = attached.iter().find(|id| !named.contains(id)) {
            return Err(Fault::new(
                FaultCode::TaskInvalid,
                format!(
                    "{name}: namespace {other} is a disk of its own that the task does not name, and would be lost"
                ),
            )
            .because("name every disk of the controller under devices"));
        }
        if let Some(gone) = named.iter().find(|id| !attached.contains(id)) {
            let message = format!("{name} has no namespace {gone} any more");
            return Err(Fault::new(FaultCode::DiskChanged, message));
        }
        if !detached.is_empty() && !task.detached {
            return Err(Fault::new(
                FaultCode::Unsupported,
                format!("{name} has namespaces {detached:?} that are attached nowhere; nobody can see what they hold"),
            )
            .because("detached: true permits to delete them"));
        }
        // In the order in which the plan names them, so that two looks are equal.
        attached.sort_by_key(|id| named.iter().position(|n| n == id));
        for id in attached.iter().chain(&detached) {
            let others: Vec<u16> = match nvme::attached_to(device, *id) {
                Ok(list) => list.into_iter().filter(|other| *other != controller.id).collect(),
                // There is nobody else who could have it.
                Err(e) if e.declining().is_some() && !controller.may_have_siblings => Vec::new(),
                Err(e) => return Err(ask(e)),
            };
            if !others.is_empty() {
                return refused(format!(
                    "shares namespace {id} with controllers {others:?}, behind which others may use it"
                ));
            }
        }
        let formats = nvme::common_formats(device).map_err(ask)?;
        let Some(format) = nvme::best_of(&formats, task.sector_size) else {
            let has: Vec<String> = formats.iter().map(|f| format!("{}+{}", f.bytes, f.metadata)).collect();
            let wanted = task.sector_size;
            return refused(format!("has no format of {wanted} bytes without metadata, only {}", has.join(", ")));
        };
        let grain = nvme::granularity(device, format).map_err(ask)?.unwrap_or(MIB).max(u64::from(format.bytes));
        let has_format = match (attached.as_slice(), detached.as_slice()) {
            ([only], []) => nvme::namespace(device, *only).map_err(ask)?.format() == Some(format),
            _ => false,
        };
        Ok(Self {
            controller: controller.id,
            attached,
            detached,
            format,
            grain,
            capacity: controller.capacity,
            unallocated: controller.unallocated,
            has_format,
        })
    }

    /// Less than one step is left over: a larger one could not be made.
    pub(super) fn is_so(&self) -> bool {
        self.has_format && self.unallocated < self.grain
    }

    /// All that are deleted.
    pub(super) fn doomed(&self) -> Vec<u32> {
        self.attached.iter().chain(&self.detached).copied().collect()
    }

    /// As many blocks as so many free bytes make.
    pub(super) fn blocks_of(&self, free: u64) -> u64 {
        free / self.grain * self.grain / u64::from(self.format.bytes)
    }

    /// What happens beside the disks that are named.
    pub(super) fn effects(&self, name: &str) -> Vec<String> {
        if self.is_so() {
            return Vec::new();
        }
        let unseen = self.detached.iter().map(|id| format!("{name}: delete namespace {id}, which is attached nowhere"));
        let (capacity, sector) = (Bytes(self.capacity), self.format.bytes);
        unseen
            .chain([format!("{name}: make one namespace of all its {capacity}, with sectors of {sector} bytes")])
            .collect()
    }
}

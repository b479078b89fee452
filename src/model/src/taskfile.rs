//! The task file of the local front door: orders for one machine without a controller.
//!
//! At boot (`speediso.tasks=`) it must be signed: an ed25519 signature over the file's bytes stands beside it, under
//! the same name with `.sig`, as 128 hex digits.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::fault::{Fault, FaultCode};
use crate::hints::SkipList;
use crate::id::OrderId;
use crate::profile::BurnInParameters;
use crate::task::Task;

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TaskFile {
    /// 1.
    pub version: u32,
    /// SMBIOS serial number or UUID, or a MAC address, of the one machine it is for.
    pub machine: String,
    /// After this nothing of it is started.
    pub expires: jiff::Timestamp,
    /// Recorded when done; a file whose order is recorded is refused.
    pub order: OrderId,
    pub tasks: Vec<Task>,
    /// Restarts after the tasks, each followed by a look at the hardware, which must be what it was. They are counted in a
    /// variable of the firmware, so the machine must boot by UEFI.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub reboots: u16,
    /// Disks that none of them may touch.
    #[serde(default, skip_serializing_if = "SkipList::is_empty")]
    pub skip_block_devices: SkipList,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_zero(n: &u16) -> bool {
    *n == 0
}

impl TaskFile {
    /// As many as an order of the controller's may have.
    pub const MOST_REBOOTS: u16 = BurnInParameters::MOST_REBOOTS;

    /// # Errors
    /// `task-invalid` with place and reason when any part of it is not understood or not valid.
    pub fn parse(bytes: &[u8]) -> Result<Self, Fault> {
        let file: Self = serde_json::from_slice(bytes)
            .map_err(|e| Fault::new(FaultCode::TaskInvalid, format!("reading the task file: {e}")))?;
        if file.version != 1 {
            return Err(Fault::new(
                FaultCode::TaskInvalid,
                format!("the task file has version {}; this agent knows version 1", file.version),
            ));
        }
        if file.tasks.is_empty() {
            return Err(Fault::new(FaultCode::TaskInvalid, "the task file has no tasks"));
        }
        if file.reboots > Self::MOST_REBOOTS {
            let message = format!("reboots: more than {}", Self::MOST_REBOOTS);
            return Err(Fault::new(FaultCode::TaskInvalid, message));
        }
        if file.reboots > 0 && file.tasks.iter().any(|task| matches!(task, Task::Power(_))) {
            let message = "reboots: the restarts come after all tasks, so no power task may be among them";
            return Err(Fault::new(FaultCode::TaskInvalid, message));
        }
        file.skip_block_devices.check().map_err(|what| Fault::new(FaultCode::TaskInvalid, what))?;
        file.tasks.iter().try_for_each(Task::validate)?;
        Ok(file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_file_is_whole_or_refused() {
        let good = r#"{"version":1,"machine":"S1","expires":"2030-01-01T00:00:00Z",
            "order":"6f1f6e0e-54a9-4bd5-a7c0-8f2b2a3c1d11","tasks":[{"task":"inventory"}]}"#;
        TaskFile::parse(good.as_bytes()).expect("good");
        for (from, to) in [
            ("\"version\":1", "\"version\":2"),
            ("\"machine\":\"S1\",", ""),
            ("{\"task\":\"inventory\"}", ""),
            ("\"inventory\"", "\"inventorize\""),
            ("\"tasks\"", "\"comment\":1,\"tasks\""),
            ("}]}", "}]"),
            ("\"tasks\"", "\"reboots\":201,\"tasks\""),
            ("{\"task\":\"inventory\"}]", "{\"task\":\"power\",\"action\":\"reboot\"}],\"reboots\":1"),
            ("\"tasks\"", "\"skip_block_devices\":[{}],\"tasks\""),
            ("\"tasks\"", "\"skip_block_devices\":[{\"name\":\"sda\"}],\"tasks\""),
        ] {
            let bad = good.replace(from, to);
            assert_ne!(bad, good);
            assert_eq!(TaskFile::parse(bad.as_bytes()).expect_err(&bad).code, FaultCode::TaskInvalid);
        }
    }
}

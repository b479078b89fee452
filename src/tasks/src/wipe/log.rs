//! What was sent to a device and what it answered, for the report.

use std::fmt::Display;

use speediso_model::fault::{Fault, FaultCode};
use speediso_model::wipe::DeviceStatus;
use speediso_sys::passthrough::{CommandError, Declining};

#[derive(Debug, Default)]
pub(super) struct Log {
    pub(super) statuses: Vec<DeviceStatus>,
    /// The device may have begun to change itself.
    pub(super) begun: bool,
    /// A command that changes it got lost: nobody can say what it did.
    pub(super) unknown: bool,
}

impl Log {
    pub(super) fn says(&mut self, command: &str, raw: &str, meaning: impl Display) {
        self.statuses.push(DeviceStatus {
            command: command.to_owned(),
            raw: raw.to_owned(),
            meaning: meaning.to_string(),
        });
    }

    /// For a command that changes the device.
    pub(super) fn changing<T>(
        &mut self,
        device: &str,
        command: &str,
        answer: Result<T, CommandError>,
    ) -> Result<T, Fault> {
        match answer {
            Ok(value) => {
                self.begun = true;
                self.says(command, "00", "success");
                Ok(value)
            }
            Err(error) => {
                let lost = matches!(error, CommandError::Lost { .. } | CommandError::Nonsense { .. });
                self.begun |= lost;
                self.unknown |= lost;
                self.says(command, &error.raw(), &error);
                Err(fault(device, &error))
            }
        }
    }
}

/// For a question, which leaves no trace.
pub(super) fn asked<T>(device: &str, answer: Result<T, CommandError>) -> Result<T, Fault> {
    answer.map_err(|error| fault(device, &error))
}

pub(super) fn fault(device: &str, error: &CommandError) -> Fault {
    let code = match error {
        CommandError::NoWay { .. } => FaultCode::Unsupported,
        CommandError::Declined { kind: Declining::Unsupported, .. } => FaultCode::Unsupported,
        CommandError::Declined { .. } | CommandError::Lost { .. } | CommandError::Nonsense { .. } => FaultCode::DiskIo,
    };
    let mut fault = Fault::from_error(code, error);
    fault.message = format!("{device}: {}", fault.message);
    fault
}

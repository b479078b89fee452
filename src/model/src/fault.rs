//! An error as it travels from an agent to an operator.
//!
//! Every fault has a code that scripts can use and `docs/errors.md` explains; the class, and with it whether a retry
//! may help, follows from the code and never from the text.

use std::error::Error;
use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What kind of trouble it is, which decides who acts.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FaultClass {
    /// May pass by itself: retried with back-off.
    Transient,
    /// Declined on purpose, to protect something. The message names what would permit it.
    Refused,
    /// The machine is at fault.
    Hardware,
    /// The order, the image or the site's configuration is at fault.
    Operator,
    /// We are at fault.
    Bug,
    #[serde(other)]
    Unknown,
}

macro_rules! fault_codes {
    ($($(#[$doc:meta])* $name:ident, $wire:literal, $class:ident, $advice:literal;)*) => {
        /// The closed list of faults. Explained one by one in `docs/errors.md`.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize, JsonSchema)]
        pub enum FaultCode {
            $($(#[$doc])* #[serde(rename = $wire)] $name,)*
            /// A code from a newer writer.
            #[serde(other, rename = "other")]
            Other,
        }

        impl FaultCode {
            pub const ALL: &'static [FaultCode] = &[$(FaultCode::$name,)*];

            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$name => $wire,)* Self::Other => "other" }
            }

            #[must_use]
            pub fn class(self) -> FaultClass {
                match self { $(Self::$name => FaultClass::$class,)* Self::Other => FaultClass::Unknown }
            }

            /// What to do next, in one sentence.
            #[must_use]
            pub fn advice(self) -> &'static str {
                match self { $(Self::$name => $advice,)* Self::Other => "see the message" }
            }
        }
    };
}

fault_codes! {
    // Boot and configuration
    CmdlineInvalid, "cmdline-invalid", Operator, "correct the kernel command line in the boot entry";
    CmdlineTruncated, "cmdline-truncated", Operator, "shorten the kernel command line: x86 cuts it at 2048 bytes";
    TaskUnknown, "task-unknown", Operator, "correct the name in SPEEDISO; nothing of the list was run";
    TaskInvalid, "task-invalid", Operator, "correct the task; nothing of it was run";
    Unsupported, "unsupported", Operator, "ask for a method this build has; nothing weaker was tried instead";
    LiveUnusable, "live-unusable", Operator, "build the live image again for this build, or give the machine more memory; the mini system goes on";
    // Network and trust
    NoLink, "no-link", Transient, "check cable and switch port; the agent keeps trying";
    NoDhcp, "no-dhcp", Transient, "check that a DHCP server answers on this network, or give ip= on the command line";
    ControllerUnreachable, "controller-unreachable", Transient, "check the controller and the way to it; the agent keeps trying";
    TlsPinMismatch, "tls-pin-mismatch", Refused, "boot with speediso.ca= of the right controller; if it is right, somebody is in between";
    TlsFailed, "tls-failed", Transient, "check the controller's certificate and the machine's clock";
    ClockWrong, "clock-wrong", Transient, "the clock could not be set from the controller; check GET /v1/time";
    TokenRefused, "token-refused", Refused, "arm the machine again and boot it anew: a token works once, for ten minutes, for one machine";
    IdentityClash, "identity-clash", Refused, "two agents claim one machine; find the second before releasing the quarantine";
    NotApproved, "not-approved", Refused, "approve the machine with the code on its console";
    ProtocolError, "protocol-error", Bug, "agent and controller disagree about the protocol; compare their versions";
    // Choosing a disk
    NoMatchingDisk, "no-matching-disk", Operator, "compare the hints with the disks listed";
    AmbiguousDisk, "ambiguous-disk", Operator, "add a serial number or WWN to the hints, so that one disk matches";
    DiskInUse, "disk-in-use", Refused, "give a `teardown` task that names the disk, release it by hand (unmount, swapoff, stop what holds it), or choose another";
    DiskRemovable, "disk-removable", Refused, "remove the medium, or name it by serial and set allow_removable";
    DiskSkipped, "disk-skipped", Refused, "choose another disk, or take this one off the skip list that names it";
    DiskLiveSystem, "disk-live-system", Refused, "start the machine over the network, or take the medium out, then order again";
    DisksUnequal, "disks-unequal", Operator, "name disks of one size and one sector size, or say in the order that they may differ";
    DiskReadOnly, "disk-read-only", Hardware, "clear the write protection of the disk or replace it";
    DiskChanged, "disk-changed", Refused, "the disk is not the one of the plan any more; order again after looking at the machine";
    DiskTooSmall, "disk-too-small", Operator, "choose a larger disk or a smaller image";
    DiskNotEmpty, "disk-not-empty", Refused, "free the disks with the task teardown, or set replace in this one; without either nothing is touched";
    ArrayDiffers, "array-differs", Refused, "correct the order, or free the disks with the task teardown first";
    ArrayDegraded, "array-degraded", Hardware, "replace the disk named, tear the array down, and order again";
    SectorSizeMismatch, "sector-size-mismatch", Operator, "use an image made for this sector size, or reformat the disk's namespace";
    DiskIo, "disk-io", Hardware, "look at the kernel log and the disk's health; replace the disk if it repeats";
    DiskVanished, "disk-vanished", Hardware, "look at cabling, backplane and power of the disk";
    DiskHung, "disk-hung", Hardware, "the disk does not answer: power-cycle the machine, then look at disk, cabling and controller";
    // Knowing the machine
    HardwareUnexpected, "hardware-unexpected", Hardware, "compare the lines with the machine and with the order; put in what is missing, or correct what is expected";
    HardwareVanished, "hardware-vanished", Hardware, "look whether somebody took it out; if nobody did, reseat it and look at its slot, cable and power";
    HardwareFailing, "hardware-failing", Hardware, "replace the part before something that matters is put on it";
    // Images
    ImageUnreachable, "image-unreachable", Transient, "check the image's URL from the machine's network";
    ImageRefused, "image-refused", Operator, "the image's server declined; check URL and permissions";
    ImageDigestMismatch, "image-digest-mismatch", Operator, "the bytes are not those the order names; check the digest and the server; the disk has no partition table";
    ImageTruncated, "image-truncated", Transient, "the image ended early; the disk has no partition table; order again";
    ImageChanged, "image-changed", Transient, "the image was replaced while it was fetched; order again, with the new digest if that is meant";
    ImageTrailingData, "image-trailing-data", Operator, "the image has data after its end; make it anew";
    ImageFormat, "image-format", Operator, "the image is not what the order says; check format and compression";
    ImageTooLarge, "image-too-large", Operator, "choose a larger disk or a smaller image";
    ImageWindow, "image-window-too-large", Operator, "compress with a smaller window, or name max_window in the task";
    // Uploads
    UploadBroken, "upload-broken", Transient, "the way to the image's server broke; no image is there; order again";
    UploadRefused, "upload-refused", Operator, "the server did not take the image; check its address, permissions and free space, and whether one of this name is there already";
    UploadMismatch, "upload-mismatch", Operator, "the server does not hold what was sent to it, and no image is there; look at the server, then order again";
    StoreFull, "store-full", Operator, "make room in the controller's image store, then order again";
    ShareWrong, "share-wrong-bytes", Hardware, "check memory, network card and cable of the machine that gave them; if they are well, who else could have changed the bytes";
    // Verification
    ReadBackMismatch, "read-back-mismatch", Hardware, "the disk does not return what was written; replace it";
    VerifyFailed, "verify-failed", Hardware, "what was done could not be seen afterwards; look at the device";
    PartitionTable, "partition-table-invalid", Operator, "the partition table is damaged or lacks what the task needs";
    // Burn-in
    HardwareFault, "hardware-fault", Hardware, "replace or reseat the part that the reason names, then run the burn-in again; do not hand the machine out";
    BurnInInconclusive, "burn-in-inconclusive", Operator, "see the reasons: bring what was missing, or say in the scenario that the step is not required; the machine has not passed";
    // Permission
    NotArmed, "not-armed", Refused, "destructive work needs an open order, a signed task file, or speediso.arm= naming this machine";
    MachineMismatch, "machine-mismatch", Refused, "the order names another machine";
    MachineProtected, "machine-protected", Refused, "unmark the machine as protected first";
    OrderClosed, "order-closed", Refused, "give a new order";
    OrderExpired, "order-expired", Refused, "sign a new task file or give a new order";
    AlreadyDone, "already-done", Refused, "this order was carried out before; give a new one";
    SignatureInvalid, "signature-invalid", Refused, "sign the task file with the key named in speediso.tasks_key";
    PlanMismatch, "plan-mismatch", Refused, "the machine is not as it was when the plan was made; look at the new plan";
    CertificateRefused, "certificate-refused", Refused, "see the message for what a certificate needs; wipe again, or say where a missing disk is";
    LeaseLost, "lease-lost", Transient, "the controller gave the node to a newer boot or was away too long; nothing new is started";
    EpochStale, "epoch-stale", Refused, "this boot has been superseded by a newer one of the same machine";
    Cancelled, "cancelled", Refused, "the order was cancelled";
    TimedOut, "timed-out", Hardware, "the task took longer than it may; look at the device";
    // Firmware and tools
    FirmwareVariable, "firmware-variable", Hardware, "the firmware did not keep the variable; look at its setup and free space";
    LoaderMissing, "loader-missing", Operator, "the image has no boot loader where the task says";
    ToolMissing, "tool-missing", Operator, "add the tool to the ramdisk's manifest";
    ToolFailed, "tool-failed", Hardware, "see the tool's whole output in the causes";
    // Ourselves
    AgentDied, "agent-died", Bug, "the agent ended in the middle of the task; look at the device before using it";
    Io, "io", Hardware, "see the causes";
    Internal, "internal", Bug, "report this with the machine's log";
}

impl fmt::Display for FaultCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A fault with what an operator needs to act on it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Fault {
    pub code: FaultCode,
    pub class: FaultClass,
    /// What happened, to which device: lower case, no full stop.
    pub message: String,
    /// The chain of causes, outermost first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<String>,
    /// What to do next.
    pub advice: String,
}

impl Fault {
    #[must_use]
    pub fn new(code: FaultCode, message: impl Into<String>) -> Self {
        Self { code, class: code.class(), message: message.into(), causes: Vec::new(), advice: code.advice().into() }
    }

    /// From an error, with its whole chain of sources.
    #[must_use]
    pub fn from_error(code: FaultCode, error: &dyn Error) -> Self {
        let mut fault = Self::new(code, error.to_string());
        let mut source = error.source();
        while let Some(cause) = source {
            fault.causes.push(cause.to_string());
            source = cause.source();
        }
        fault
    }

    #[must_use]
    pub fn because(mut self, cause: impl Into<String>) -> Self {
        self.causes.push(cause.into());
        self
    }

    /// Whether trying the same again may help without anybody's doing.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        self.class == FaultClass::Transient
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} [{}]", self.message, self.code)?;
        for cause in &self.causes {
            write!(f, ": {cause}")?;
        }
        Ok(())
    }
}

impl Error for Fault {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_distinct_and_survive_the_wire() {
        let mut seen = std::collections::HashSet::new();
        for code in FaultCode::ALL {
            assert!(seen.insert(code.name()), "{code} twice");
            let text = serde_json::to_string(code).expect("a string");
            assert_eq!(text, format!("\"{}\"", code.name()));
            assert_eq!(serde_json::from_str::<FaultCode>(&text).expect("its own text"), *code);
        }
        let newer: FaultCode = serde_json::from_str("\"quantum-decoherence\"").expect("lenient");
        assert_eq!(newer, FaultCode::Other);
    }
}

//! Disks that are not there: what the specifications say of the commands that no emulator carries out.
//!
//! A [`Simulated`] disk takes the very bytes that would go to a device, takes them apart by the specification, and keeps a
//! state and a medium. Its clock goes on only while somebody waits for it. What is shown with it holds of our reading of
//! the specifications; no real disk has confirmed it.

mod ata;
mod nvme;
mod opal;
mod scsi;

use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use speediso_model::fault::{Fault, FaultCode};
use speediso_model::inventory::{Disk, Transport};
use speediso_model::units::Bytes;
use speediso_sys::claim::DiskError;
use speediso_sys::passthrough::{CommandError, Data, NvmeCommand, Passthrough, ScsiAnswer};

pub(crate) use self::ata::Ata;
pub(crate) use self::nvme::{GRAIN, Nvme, Space};
pub(crate) use self::opal::Opal;
pub(crate) use self::scsi::Scsi;
use super::pattern::mix;
use super::target::Target;

/// How long an erasure takes on the simulated clock.
pub(crate) const ERASURE: Duration = Duration::from_secs(600);

/// What is wrong with a device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Quirk {
    None,
    /// Says that it succeeded and erases nothing.
    Lies,
    /// Erases all but a stretch in the middle.
    LeavesSome,
    /// Fails half-way.
    Fails,
    /// Knows the command by its own word, and aborts it.
    Aborts,
    /// Erases, and answers nothing for a minute meanwhile.
    FallsSilent,
    /// Does not answer any more once it has begun.
    Dies,
}

/// What an erasure leaves on the medium.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Leaves {
    Zeroes,
    Pattern(u32),
    /// What was there, under another key.
    Noise,
}

/// An erasure that the device carries out by itself.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Erasure {
    pub(crate) leaves: Leaves,
    pub(crate) begun: Duration,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Ended {
    Never,
    Well,
    Badly,
}

/// What all kinds of device have in common.
pub(crate) struct Core {
    pub(crate) bytes: Vec<u8>,
    pub(crate) clock: Duration,
    pub(crate) quirk: Quirk,
    pub(crate) erasure: Option<Erasure>,
    pub(crate) ended: Ended,
    /// Names of the commands that changed something, in order.
    pub(crate) changes: Vec<&'static str>,
    /// Of a self-encrypting disk.
    pub(crate) opal: Option<Opal>,
    /// How many keys it has had.
    keys: u64,
}

impl Core {
    pub(crate) fn begin(&mut self, leaves: Leaves) {
        self.erasure = Some(Erasure { leaves, begun: self.clock });
    }

    /// Of 65536.
    pub(crate) fn progress(&self) -> u16 {
        let part = self.erasure.map_or(0, |e| (self.clock - e.begun).as_millis() * 65536 / ERASURE.as_millis());
        u16::try_from(part.min(65535)).unwrap_or(u16::MAX)
    }

    /// Lets what is going on come to where it is by now.
    pub(crate) fn settle(&mut self) {
        let Some(erasure) = self.erasure else { return };
        let elapsed = self.clock - erasure.begun;
        if self.quirk == Quirk::Fails && elapsed >= ERASURE / 2 {
            self.scrub(erasure.leaves, self.bytes.len() / 2);
            (self.erasure, self.ended) = (None, Ended::Badly);
        } else if elapsed >= ERASURE {
            self.erase(erasure.leaves);
            self.erasure = None;
        }
    }

    /// At once, as this device does it.
    pub(crate) fn erase(&mut self, leaves: Leaves) {
        let all = self.bytes.len();
        match self.quirk {
            Quirk::Lies => {}
            Quirk::LeavesSome => {
                let kept = self.bytes[all / 2..all / 2 + all / 16].to_vec();
                self.scrub(leaves, all);
                self.bytes[all / 2..all / 2 + all / 16].copy_from_slice(&kept);
            }
            _ => self.scrub(leaves, all),
        }
        self.ended = Ended::Well;
    }

    /// By its security processor.
    pub(crate) fn is_locked(&self) -> bool {
        self.opal.as_ref().is_some_and(|opal| opal.locked)
    }

    /// Security commands of whatever command set; whether they were taken.
    pub(crate) fn secure(&mut self, protocol: u8, specific: u16, data: &mut Data<'_>) -> bool {
        match data {
            Data::In(_) => match self.opal.as_mut().and_then(|opal| opal.receive(protocol, specific)) {
                Some(page) => {
                    give(data, &page);
                    true
                }
                None => false,
            },
            Data::Out(message) => Opal::send(self, protocol, specific, message).is_some(),
            Data::None => false,
        }
    }

    fn scrub(&mut self, leaves: Leaves, length: usize) {
        // Never the same again: noise over noise would be what was there.
        self.keys += 1;
        let key = mix(self.keys);
        for (i, byte) in self.bytes[..length].iter_mut().enumerate() {
            *byte = match leaves {
                Leaves::Zeroes => 0,
                Leaves::Pattern(word) => word.to_le_bytes()[i % 4],
                Leaves::Noise => *byte ^ mix(i as u64 ^ key).to_le_bytes()[3],
            };
        }
    }

    /// Whether the device is out of reach just now.
    fn is_silent(&self) -> bool {
        let Some(erasure) = self.erasure else { return false };
        let elapsed = self.clock - erasure.begun;
        match self.quirk {
            Quirk::FallsSilent => (ERASURE / 4..ERASURE / 4 + Duration::from_mins(1)).contains(&elapsed),
            Quirk::Dies => elapsed > ERASURE / 4,
            _ => false,
        }
    }
}

pub(crate) enum Kind {
    Nvme(Nvme),
    Ata(Ata),
    Scsi(Scsi),
}

pub(crate) struct State {
    pub(crate) core: Core,
    pub(crate) kind: Kind,
}

pub(crate) struct Simulated {
    disk: Disk,
    state: Mutex<State>,
}

impl Simulated {
    pub(crate) fn new(kind: Kind, mib: usize) -> Self {
        let tran = match kind {
            Kind::Nvme(_) => Transport::Nvme,
            Kind::Ata(_) => Transport::Sata,
            Kind::Scsi(_) => Transport::Sas,
        };
        let disk = Disk {
            name: "/dev/simulated".into(),
            serial: "SIMULATED".into(),
            model: "A disk that is not there".into(),
            firmware: "1.0".into(),
            size: Bytes::mib(mib as u64),
            logical_sectors: 512,
            physical_sectors: 512,
            tran,
            ..Disk::default()
        };
        let secret = b"somebody's data ";
        let core = Core {
            bytes: secret.iter().copied().cycle().take(mib << 20).collect(),
            clock: Duration::ZERO,
            quirk: Quirk::None,
            erasure: None,
            ended: Ended::Never,
            changes: Vec::new(),
            opal: None,
            keys: 0,
        };
        Self { disk, state: Mutex::new(State { core, kind }) }
    }

    /// As a self-encrypting disk.
    pub(crate) fn opal(self, opal: Opal) -> Self {
        self.state().core.opal = Some(opal);
        self
    }

    pub(crate) fn quirk(self, quirk: Quirk) -> Self {
        self.state().core.quirk = quirk;
        self
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("a test that panicked has failed already")
    }

    /// Whether anything of what was there can be read.
    pub(crate) fn holds_data(&self) -> bool {
        self.state().core.bytes.windows(16).step_by(512).any(|w| w == b"somebody's data ")
    }

    pub(crate) fn changes(&self) -> Vec<&'static str> {
        self.state().core.changes.clone()
    }

    fn lost(name: &'static str) -> CommandError {
        CommandError::Lost { command: name, source: std::io::Error::from_raw_os_error(libc::EIO) }
    }

    fn failed(&self, operation: &'static str, offset: u64, length: usize) -> DiskError {
        let source = std::io::Error::from_raw_os_error(libc::EIO);
        DiskError::Io { operation, device: self.disk.name.clone(), offset, length: length as u64, source }
    }

    /// The part of the medium, unless the device gives nobody its data now.
    fn with_bytes(
        &self,
        operation: &'static str,
        offset: u64,
        length: usize,
        act: impl FnOnce(&mut [u8]),
    ) -> Result<(), DiskError> {
        let mut state = self.state();
        state.core.settle();
        let closed = state.core.erasure.is_some()
            || state.core.ended == Ended::Badly
            || matches!(&state.kind, Kind::Ata(ata) if ata.locked)
            || state.core.is_locked();
        let at = usize::try_from(offset).unwrap_or(usize::MAX);
        match state.core.bytes.get_mut(at..at.saturating_add(length)) {
            Some(bytes) if !closed => {
                act(bytes);
                Ok(())
            }
            _ => Err(self.failed(operation, offset, length)),
        }
    }
}

impl Target for Simulated {
    fn disk(&self) -> &Disk {
        &self.disk
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> Result<(), DiskError> {
        self.with_bytes("writing", offset, data.len(), |bytes| bytes.copy_from_slice(data))
    }

    fn read_at(&self, offset: u64, data: &mut [u8]) -> Result<(), DiskError> {
        self.with_bytes("reading", offset, data.len(), |bytes| data.copy_from_slice(bytes))
    }

    fn flush(&self) -> Result<(), DiskError> {
        Ok(())
    }

    fn fault(&self, error: &DiskError) -> Fault {
        Fault::from_error(FaultCode::DiskIo, error)
    }

    fn reread_table(&self) -> Result<bool, DiskError> {
        Ok(true)
    }

    fn pause(&self, time: Duration) {
        self.state().core.clock += time;
    }
}

impl Passthrough for Simulated {
    fn nvme(
        &self,
        name: &'static str,
        command: &NvmeCommand,
        data: Data<'_>,
        _: Duration,
    ) -> Result<u32, CommandError> {
        let mut state = self.state();
        let State { core, kind } = &mut *state;
        core.settle();
        if core.is_silent() {
            return Err(Self::lost(name));
        }
        let Kind::Nvme(nvme) = kind else { panic!("{name} sent to another kind of disk") };
        nvme.take(core, name, command, data)
    }

    fn nvme_namespace(&self) -> Result<u32, CommandError> {
        Ok(nvme::THIS)
    }

    fn scsi(&self, name: &'static str, cdb: &[u8], data: Data<'_>, _: Duration) -> Result<ScsiAnswer, CommandError> {
        let mut state = self.state();
        let State { core, kind } = &mut *state;
        core.settle();
        if core.is_silent() {
            return Err(Self::lost(name));
        }
        match kind {
            Kind::Ata(ata) => Ok(ata.take(core, name, cdb, data)),
            Kind::Scsi(scsi) => Ok(scsi.take(core, name, cdb, data)),
            Kind::Nvme(_) => panic!("{name} sent to another kind of disk"),
        }
    }
}

/// INQUIRY data of a disk by this vendor.
fn inquiry(vendor: &[u8], data: &mut Data<'_>) {
    let mut page = [b' '; 36];
    (page[0], page[1], page[2], page[3], page[4]) = (0, 0, 6, 2, 31);
    page[8..8 + vendor.len()].copy_from_slice(vendor);
    page[16..25].copy_from_slice(b"SIMULATED");
    give(data, &page);
}

/// As much of it as there is room for.
fn give(data: &mut Data<'_>, bytes: &[u8]) {
    if let Data::In(room) = data {
        let n = room.len().min(bytes.len());
        room[..n].copy_from_slice(&bytes[..n]);
    }
}

//! An NVMe controller (NVMe base specification 2.0).

use std::collections::BTreeMap;

use speediso_sys::passthrough::{CommandError, Data, NvmeCommand, nvme};

use super::{Core, Ended, Leaves, Quirk, give};

pub(crate) const THIS: u32 = 1;

const INVALID_OPCODE: i32 = 0x01;
const INVALID_FIELD: i32 = 0x02;
const INVALID_NAMESPACE: i32 = 0x0b;
const OPERATION_DENIED: i32 = 0x15;
const SANITIZE_FAILED: i32 = 0x1c;
const SANITIZE_IN_PROGRESS: i32 = 0x1d;
const INVALID_LOG_PAGE: i32 = 0x109;
const INVALID_FORMAT: i32 = 0x10a;
const INSUFFICIENT_CAPACITY: i32 = 0x115;
const ALREADY_ATTACHED: i32 = 0x118;
const NOT_ATTACHED: i32 = 0x11a;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Space {
    pub(crate) attached: bool,
    pub(crate) erased: bool,
    /// None: as many as the medium has.
    pub(crate) blocks: Option<u64>,
    pub(crate) format: u8,
    /// Another controller has it as well.
    pub(crate) shared: bool,
}

impl Space {
    /// As it comes from the maker: sectors of 512 bytes.
    pub(crate) fn new(attached: bool) -> Self {
        Self { attached, erased: false, blocks: None, format: 1, shared: false }
    }
}

/// In what steps namespaces grow.
pub(crate) const GRAIN: u64 = 64 << 10;
/// Of both formats, by their numbers.
const SECTORS: [u64; 2] = [4096, 512];

#[derive(Clone, Debug)]
pub(crate) struct Nvme {
    pub(crate) namespaces: BTreeMap<u32, Space>,
    /// SANICAP.
    pub(crate) sanitizes: u32,
    /// FNA.
    pub(crate) format_attributes: u8,
    /// OACS.
    pub(crate) optional: u16,
    /// Dword 10 of the last sanitize.
    pub(crate) last_action: u32,
    /// Of all namespaces together, in bytes; 0 if it does not tell.
    pub(crate) capacity: u64,
    /// The two, alike in size; empty for a controller without.
    pub(crate) boot: [Vec<u8>; 2],
    /// What was downloaded and not yet stored.
    pub(crate) downloaded: Vec<u8>,
    /// Declines to store anything in them.
    pub(crate) boot_protected: bool,
    /// After so many commands that manage namespaces the power fails: the next is carried out, and nothing is answered any more.
    pub(crate) power_for: Option<usize>,
}

impl Nvme {
    /// One namespace, and all that there is of erasing.
    pub(crate) fn new() -> Self {
        Self {
            namespaces: BTreeMap::from([(THIS, Space::new(true))]),
            sanitizes: 0b111,
            format_attributes: 0b100,
            optional: 0b1010,
            last_action: 0,
            capacity: 0,
            boot: [Vec::new(), Vec::new()],
            downloaded: Vec::new(),
            boot_protected: false,
            power_for: None,
        }
    }

    pub(crate) fn also(mut self, id: u32, attached: bool) -> Self {
        self.namespaces.insert(id, Space::new(attached));
        self
    }

    pub(super) fn take(
        &mut self,
        core: &mut Core,
        name: &'static str,
        command: &NvmeCommand,
        mut data: Data<'_>,
    ) -> Result<u32, CommandError> {
        let declined = |status| Err(nvme::declined(name, status));
        let lost = || CommandError::Lost { command: name, source: std::io::Error::from_raw_os_error(libc::EIO) };
        let manages = matches!(command.opcode, 0x0d | 0x15);
        match self.power_for {
            Some(0) => return Err(lost()),
            Some(left) if manages => self.power_for = Some(left - 1),
            _ => {}
        }
        let answer = match command.opcode {
            0x06 => self.identify(core, name, command, &mut data),
            0x02 => self.log(core, name, command, &mut data),
            // While it sanitizes, and after it has failed, it takes next to nothing (5.24, figure 349).
            _ if core.erasure.is_some() => declined(SANITIZE_IN_PROGRESS),
            0x84 if core.is_locked() => declined(OPERATION_DENIED),
            0x84 => self.sanitize(core, name, command),
            _ if core.ended == Ended::Badly => declined(SANITIZE_FAILED),
            0x81 | 0x82 => {
                let (protocol, specific) = (command.cdw10 >> 24, command.cdw10 >> 8 & 0xffff);
                assert_eq!(usize::try_from(command.cdw11).ok(), Some(data.len()), "{name}: as long as it says");
                let (protocol, specific) = (u8::try_from(protocol).unwrap_or(0), u16::try_from(specific).unwrap_or(0));
                if core.secure(protocol, specific, &mut data) { Ok(0) } else { declined(INVALID_FIELD) }
            }
            0x80 if core.is_locked() => declined(OPERATION_DENIED),
            0x80 => self.format(core, name, command),
            0x0d => self.manage(core, name, command, &data),
            0x15 => self.attach(core, name, command, &data),
            0x10 | 0x11 => self.boot(core, name, command, &data),
            _ => declined(INVALID_OPCODE),
        };
        // The last one before the power fails is carried out, and nobody hears of it.
        if manages && self.power_for == Some(0) { Err(lost()) } else { answer }
    }

    fn blocks(core: &Core, space: &Space) -> u64 {
        space.blocks.unwrap_or(core.bytes.len() as u64 / SECTORS[usize::from(space.format)])
    }

    /// What no namespace has.
    pub(crate) fn unallocated(&self, core: &Core) -> u64 {
        let used = self.namespaces.values().map(|n| Self::blocks(core, n) * SECTORS[usize::from(n.format)]);
        self.capacity.saturating_sub(used.sum())
    }

    fn identify(
        &self,
        core: &Core,
        name: &'static str,
        command: &NvmeCommand,
        data: &mut Data<'_>,
    ) -> Result<u32, CommandError> {
        let mut page = vec![0; 4096];
        let formats = |page: &mut [u8]| {
            page[25] = 1;
            page[128..132].copy_from_slice(&[0, 0, 12, 0]);
            page[132..136].copy_from_slice(&[0, 0, 9, 2]);
        };
        let space = |page: &mut [u8], n: &Space| {
            page[..8].copy_from_slice(&Self::blocks(core, n).to_le_bytes());
            page[26] = n.format;
            formats(page);
        };
        let manages = self.optional & 1 << 3 != 0;
        let found = self.namespaces.get(&command.namespace);
        match (command.cdw10 & 0xff, found) {
            (0x00, _) if command.namespace == u32::MAX && manages => formats(&mut page),
            (0x00, Some(n)) if n.attached => space(&mut page, n),
            // Zeroes for one that is not active.
            (0x00, Some(_)) => {}
            (0x11, Some(n)) => space(&mut page, n),
            (0x12, Some(n)) if manages => {
                let ids: &[u16] = match (n.attached, n.shared) {
                    (true, true) => &[7, 9],
                    (true, false) => &[7],
                    (false, true) => &[9],
                    (false, false) => &[],
                };
                let count = u16::try_from(ids.len()).unwrap_or(0);
                for (word, place) in [count].iter().chain(ids).zip(page.chunks_exact_mut(2)) {
                    place.copy_from_slice(&word.to_le_bytes());
                }
            }
            (0x16, _) if self.capacity > 0 => {
                // One step for all formats: 64 KiB.
                page[32..40].copy_from_slice(&GRAIN.to_le_bytes());
                page[40..48].copy_from_slice(&GRAIN.to_le_bytes());
            }
            (0x00 | 0x11 | 0x12, None) => return Err(nvme::declined(name, INVALID_NAMESPACE)),
            (0x01, _) => {
                page[4..24].copy_from_slice(b"SIMULATED           ");
                page[78..80].copy_from_slice(&7u16.to_le_bytes());
                page[280..288].copy_from_slice(&self.capacity.to_le_bytes());
                page[296..304].copy_from_slice(&self.unallocated(core).to_le_bytes());
                page[64..67].copy_from_slice(b"1.0");
                page[256..258].copy_from_slice(&(self.optional | u16::from(core.opal.is_some())).to_le_bytes());
                page[328..332].copy_from_slice(&self.sanitizes.to_le_bytes());
                page[516..520].copy_from_slice(&32u32.to_le_bytes());
                page[524] = self.format_attributes;
            }
            (cns @ (0x02 | 0x10), _) => {
                let ids = self.namespaces.iter().filter(|(_, n)| cns == 0x10 || n.attached).map(|(id, _)| *id);
                for (id, place) in ids.zip(page.chunks_exact_mut(4)) {
                    place.copy_from_slice(&id.to_le_bytes());
                }
            }
            _ => return Err(nvme::declined(name, INVALID_FIELD)),
        }
        give(data, &page);
        Ok(0)
    }

    fn log(
        &self,
        core: &Core,
        name: &'static str,
        command: &NvmeCommand,
        data: &mut Data<'_>,
    ) -> Result<u32, CommandError> {
        let asked = (usize::try_from(command.cdw10 >> 16).unwrap_or(0) + 1) * 4;
        assert_eq!(asked, data.len(), "{name} asks for another length than it has room for");
        let mut page = [0; 512];
        match command.cdw10 & 0xff {
            0x15 if !self.boot[0].is_empty() => {
                let which = usize::from(command.cdw10 & 1 << 8 != 0);
                let units = u32::try_from(self.boot[which].len() >> 17).unwrap_or(0);
                let mut bytes = vec![0x15, 0, 0, 0];
                bytes.extend(units.to_le_bytes());
                bytes.resize(16, 0);
                bytes.extend(&self.boot[which]);
                let from =
                    usize::try_from(u64::from(command.cdw13) << 32 | u64::from(command.cdw12)).unwrap_or(usize::MAX);
                give(data, bytes.get(from..).unwrap_or_default());
                return Ok(0);
            }
            0x81 => {
                let status: u16 = match (core.erasure, core.ended) {
                    (Some(_), _) => 2,
                    (None, Ended::Never) => 0,
                    (None, Ended::Well) => 1,
                    (None, Ended::Badly) => 3,
                };
                let progress = if core.erasure.is_some() { core.progress() } else { u16::MAX };
                page[..2].copy_from_slice(&progress.to_le_bytes());
                page[2..4].copy_from_slice(&status.to_le_bytes());
                page[4..8].copy_from_slice(&self.last_action.to_le_bytes());
            }
            0x02 => {
                page[1..3].copy_from_slice(&(273u16 + 40).to_le_bytes());
                page[5] = 3;
                page[128..130].copy_from_slice(&1234u16.to_le_bytes());
            }
            _ => return Err(nvme::declined(name, INVALID_LOG_PAGE)),
        }
        give(data, &page);
        Ok(0)
    }

    /// Firmware Image Download and Firmware Commit (5.13 and 5.12), for boot partitions only.
    fn boot(
        &mut self,
        core: &mut Core,
        name: &'static str,
        command: &NvmeCommand,
        data: &Data<'_>,
    ) -> Result<u32, CommandError> {
        const WRITE_PROHIBITED: i32 = 0x11e;
        if self.boot[0].is_empty() || core.quirk == Quirk::Aborts {
            return Err(nvme::declined(name, INVALID_OPCODE));
        }
        if let (0x11, Data::Out(bytes)) = (command.opcode, data) {
            assert_eq!(bytes.len() / 4, command.cdw10 as usize + 1, "{name}: as long as it says");
            assert_eq!(self.downloaded.len() / 4, command.cdw11 as usize, "{name}: one piece after the other");
            self.downloaded.extend_from_slice(bytes);
            return Ok(0);
        }
        let image = std::mem::take(&mut self.downloaded);
        match (command.cdw10 >> 3 & 7, self.boot_protected) {
            (6, true) => Err(nvme::declined(name, WRITE_PROHIBITED)),
            (6, false) => {
                core.changes.push("boot partition");
                let stored = &mut self.boot[usize::from(command.cdw10 >> 31 == 1)];
                assert_eq!(image.len(), stored.len(), "{name}: all of it");
                if core.quirk != Quirk::Lies {
                    *stored = image;
                }
                Ok(0)
            }
            _ => Err(nvme::declined(name, INVALID_FIELD)),
        }
    }

    fn sanitize(&mut self, core: &mut Core, name: &'static str, command: &NvmeCommand) -> Result<u32, CommandError> {
        const NO_DEALLOCATE: u32 = 1 << 9;
        /// In SANICAP: no deallocation cannot be had.
        const INHIBITED: u32 = 1 << 29;
        let (leaves, offered) = match command.cdw10 & 0x7 {
            2 => (Leaves::Zeroes, self.sanitizes & 2),
            3 => {
                assert_eq!(command.cdw10 >> 4 & 0xf, 1, "0 would mean 16 passes");
                (Leaves::Pattern(command.cdw11), self.sanitizes & 4)
            }
            4 => (Leaves::Noise, self.sanitizes & 1),
            _ => (Leaves::Zeroes, 0),
        };
        let wishes_too_much = command.cdw10 & NO_DEALLOCATE != 0 && self.sanitizes & INHIBITED != 0;
        if offered == 0 || wishes_too_much || core.quirk == Quirk::Aborts {
            return Err(nvme::declined(name, INVALID_FIELD));
        }
        core.changes.push("sanitize");
        self.last_action = command.cdw10;
        if core.quirk != Quirk::Lies {
            self.namespaces.values_mut().for_each(|n| n.erased = true);
        }
        core.begin(leaves);
        Ok(0)
    }

    fn format(&mut self, core: &mut Core, name: &'static str, command: &NvmeCommand) -> Result<u32, CommandError> {
        let (format, erase) = (command.cdw10 & 0xf, command.cdw10 >> 9 & 0x7);
        let leaves = match erase {
            1 => Leaves::Zeroes,
            2 if self.format_attributes & 4 != 0 => Leaves::Noise,
            _ => return Err(nvme::declined(name, INVALID_FIELD)),
        };
        let active = self.namespaces.get(&command.namespace).is_some_and(|n| n.attached);
        if format > 1 || core.quirk == Quirk::Aborts || self.optional & 2 == 0 {
            return Err(nvme::declined(name, INVALID_FIELD));
        }
        if !active {
            return Err(nvme::declined(name, INVALID_NAMESPACE));
        }
        core.changes.push("format");
        let all = self.format_attributes & 3 != 0;
        for (id, space) in &mut self.namespaces {
            if all || *id == command.namespace {
                space.erased |= core.quirk != Quirk::Lies;
            }
        }
        if all || command.namespace == THIS {
            core.erase(leaves);
        }
        Ok(0)
    }

    fn attach(
        &mut self,
        core: &mut Core,
        name: &'static str,
        command: &NvmeCommand,
        data: &Data<'_>,
    ) -> Result<u32, CommandError> {
        let Data::Out(list) = data else { return Err(nvme::declined(name, INVALID_FIELD)) };
        assert_eq!(list[..4], [1, 0, 7, 0], "a list of this one controller");
        if self.optional & 1 << 3 == 0 {
            return Err(nvme::declined(name, INVALID_OPCODE));
        }
        let Some(space) = self.namespaces.get_mut(&command.namespace) else {
            return Err(nvme::declined(name, INVALID_NAMESPACE));
        };
        let attaches = command.cdw10 == 0;
        if space.attached == attaches {
            return Err(nvme::declined(name, if attaches { ALREADY_ATTACHED } else { NOT_ATTACHED }));
        }
        core.changes.push(if attaches { "attach" } else { "detach" });
        space.attached = attaches;
        Ok(0)
    }

    /// Namespace Management (5.23).
    fn manage(
        &mut self,
        core: &mut Core,
        name: &'static str,
        command: &NvmeCommand,
        data: &Data<'_>,
    ) -> Result<u32, CommandError> {
        let declined = |status| Err(nvme::declined(name, status));
        if self.optional & 1 << 3 == 0 {
            return declined(INVALID_OPCODE);
        }
        match (command.cdw10 & 0xf, data) {
            (1, Data::None) => {
                if !self.namespaces.contains_key(&command.namespace) {
                    return declined(INVALID_NAMESPACE);
                }
                core.changes.push("delete");
                if core.quirk != Quirk::Lies {
                    self.namespaces.remove(&command.namespace);
                }
                Ok(0)
            }
            (0, Data::Out(page)) => {
                assert_eq!((page.len(), command.namespace), (4096, 0), "{name}: a page, and no number");
                let word = |at: usize| page[at..at + 8].iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte));
                let (blocks, capacity, format) = (word(0), word(8), page[26]);
                assert_eq!(blocks, capacity, "{name}: nothing was to be provisioned thinly");
                if format > 1 || page[29] != 0 {
                    return declined(INVALID_FORMAT);
                }
                let bytes = blocks * SECTORS[usize::from(format)];
                if core.quirk == Quirk::Aborts
                    || blocks == 0
                    || !bytes.is_multiple_of(GRAIN)
                    || bytes > self.unallocated(core)
                {
                    return declined(INSUFFICIENT_CAPACITY);
                }
                core.changes.push("create");
                let blocks = if core.quirk == Quirk::LeavesSome { blocks / 2 } else { blocks };
                let id = (1..).find(|id| !self.namespaces.contains_key(id)).unwrap_or(u32::MAX);
                self.namespaces.insert(id, Space { blocks: Some(blocks), format, ..Space::new(false) });
                Ok(id)
            }
            _ => declined(INVALID_FIELD),
        }
    }
}

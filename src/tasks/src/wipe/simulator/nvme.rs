//! An NVMe controller (NVMe base specification 2.0).

use std::collections::BTreeMap;

use speediso_sys::passthrough::{CommandError, Data, NvmeCommand, nvme};

use super::{Core, Ended, Leaves, Quirk, give};

pub(in super::super) const THIS: u32 = 1;

const INVALID_OPCODE: i32 = 0x01;
const INVALID_FIELD: i32 = 0x02;
const INVALID_NAMESPACE: i32 = 0x0b;
const SANITIZE_FAILED: i32 = 0x1c;
const SANITIZE_IN_PROGRESS: i32 = 0x1d;
const INVALID_LOG_PAGE: i32 = 0x109;

#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Space {
    pub(in super::super) attached: bool,
    pub(in super::super) erased: bool,
}

#[derive(Clone, Debug)]
pub(in super::super) struct Nvme {
    pub(in super::super) namespaces: BTreeMap<u32, Space>,
    /// SANICAP.
    pub(in super::super) sanitizes: u32,
    /// FNA.
    pub(in super::super) format_attributes: u8,
    /// OACS.
    pub(in super::super) optional: u16,
    /// Dword 10 of the last sanitize.
    pub(in super::super) last_action: u32,
}

impl Nvme {
    /// One namespace, and all that there is of erasing.
    pub(in super::super) fn new() -> Self {
        let namespaces = BTreeMap::from([(THIS, Space { attached: true, erased: false })]);
        Self { namespaces, sanitizes: 0b111, format_attributes: 0b100, optional: 0b1010, last_action: 0 }
    }

    pub(in super::super) fn also(mut self, id: u32, attached: bool) -> Self {
        self.namespaces.insert(id, Space { attached, erased: false });
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
        match command.opcode {
            0x06 => self.identify(core, name, command, &mut data),
            0x02 => self.log(core, name, command, &mut data),
            // While it sanitizes, and after it has failed, it takes next to nothing (5.24, figure 349).
            0x84 if core.erasure.is_some() => declined(SANITIZE_IN_PROGRESS),
            _ if core.erasure.is_some() => declined(SANITIZE_IN_PROGRESS),
            0x84 => self.sanitize(core, name, command),
            _ if core.ended == Ended::Badly => declined(SANITIZE_FAILED),
            0x80 => self.format(core, name, command),
            0x15 => self.attach(core, name, command, &data),
            _ => declined(INVALID_OPCODE),
        }
    }

    fn blocks(core: &Core) -> u64 {
        core.bytes.len() as u64 / 512
    }

    fn identify(
        &self,
        core: &Core,
        name: &'static str,
        command: &NvmeCommand,
        data: &mut Data<'_>,
    ) -> Result<u32, CommandError> {
        let mut page = vec![0; 4096];
        let space = |page: &mut [u8]| {
            page[..8].copy_from_slice(&Self::blocks(core).to_le_bytes());
            // Two formats: 4096 and 512 bytes, the second in use.
            (page[25], page[26]) = (1, 1);
            page[128..132].copy_from_slice(&[0, 0, 12, 0]);
            page[132..136].copy_from_slice(&[0, 0, 9, 2]);
        };
        let found = self.namespaces.get(&command.namespace);
        match (command.cdw10 & 0xff, found) {
            (0x00, Some(n)) if n.attached => space(&mut page),
            // Zeroes for one that is not active.
            (0x00, Some(_)) => {}
            (0x11, Some(_)) => space(&mut page),
            (0x00 | 0x11, None) => return Err(nvme::declined(name, INVALID_NAMESPACE)),
            (0x01, _) => {
                page[78..80].copy_from_slice(&7u16.to_le_bytes());
                page[64..67].copy_from_slice(b"1.0");
                page[256..258].copy_from_slice(&self.optional.to_le_bytes());
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
        core.changes.push(if command.cdw10 == 0 { "attach" } else { "detach" });
        space.attached = command.cdw10 == 0;
        Ok(0)
    }
}

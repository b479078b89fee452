//! The MBR: four records at the end of the first sector. Logical partitions are not made: whoever needs a fifth takes a
//! GPT.

use speediso_model::fault::{Fault, FaultCode};

/// After the boot code: the disk's number, then the records, then the signature.
const DISK_ID: usize = 440;
const RECORDS: usize = 446;
const RECORD: usize = 16;
const SIGNATURE: [u8; 2] = [0x55, 0xaa];
/// "Beyond what cylinders can say": everything has counted in sectors for thirty years.
const NO_CHS: [u8; 3] = [0xfe, 0xff, 0xff];
const EXTENDED: [u8; 3] = [0x05, 0x0f, 0x85];
const PROTECTIVE: u8 = 0xee;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Record {
    pub(super) kind: u8,
    pub(super) active: bool,
    /// In logical sectors.
    pub(super) first: u32,
    pub(super) count: u32,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Mbr {
    pub(super) disk_id: u32,
    pub(super) records: [Option<Record>; 4],
}

impl Mbr {
    /// `None` where there is no such table: no signature, a GPT's protection, or a boot sector of a file system, in which
    /// the records are code.
    pub(super) fn read(sector: &[u8]) -> Option<Self> {
        if sector.get(510..512) != Some(&SIGNATURE) {
            return None;
        }
        let word = |at: usize| sector.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_le_bytes);
        let mut records = [None; 4];
        for (i, record) in records.iter_mut().enumerate() {
            let at = RECORDS + i * RECORD;
            let (status, kind) = (*sector.get(at)?, *sector.get(at + 4)?);
            let read = Record { kind, active: status == 0x80, first: word(at + 8), count: word(at + 12) };
            if status & 0x7f != 0 || kind == PROTECTIVE {
                return None;
            }
            *record = (kind != 0 && read.count > 0).then_some(read);
        }
        Some(Self { disk_id: word(DISK_ID), records })
    }

    /// Over the first sector, the boot code of which stays.
    pub(super) fn write(&self, sector: &mut [u8]) {
        sector[DISK_ID..DISK_ID + 4].copy_from_slice(&self.disk_id.to_le_bytes());
        sector[DISK_ID + 4..RECORDS].fill(0);
        for (i, record) in self.records.iter().enumerate() {
            let bytes = &mut sector[RECORDS + i * RECORD..][..RECORD];
            bytes.fill(0);
            if let Some(record) = record {
                bytes[0] = if record.active { 0x80 } else { 0 };
                bytes[1..4].copy_from_slice(&NO_CHS);
                bytes[4] = record.kind;
                bytes[5..8].copy_from_slice(&NO_CHS);
                bytes[8..12].copy_from_slice(&record.first.to_le_bytes());
                bytes[12..].copy_from_slice(&record.count.to_le_bytes());
            }
        }
        sector[510..512].copy_from_slice(&SIGNATURE);
    }

    /// Whether one of the records leads to logical partitions.
    pub(super) fn is_extended(&self) -> bool {
        self.records.iter().flatten().any(|record| EXTENDED.contains(&record.kind))
    }
}

/// Sectors of a partition, as far as 32 bits can say them.
pub(super) fn record(start: u64, length: u64, sector: u64, kind: u8, active: bool) -> Result<Record, Fault> {
    let beyond = |_| {
        Fault::new(
            FaultCode::Unsupported,
            format!("an MBR counts up to 4294967295 sectors; the partition from byte {start} goes beyond"),
        )
        .because("ask for a GPT, or for partitions that end before")
    };
    let first = u32::try_from(start / sector).map_err(beyond)?;
    let count = u32::try_from(length / sector).map_err(beyond)?;
    // The last sector must have a number, too.
    u32::try_from((start + length) / sector - 1).map_err(beyond)?;
    Ok(Record { kind, active, first, count })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::expect_used, reason = "tests")]
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_was_written_is_read(id: u32, n in 0usize..5, first in 1u32..1 << 20, boot: u8) {
            let mut records = [None; 4];
            for (i, record) in records.iter_mut().enumerate().take(n) {
                let nth = u32::try_from(i).expect("small");
                *record = Some(Record { kind: 0x83, active: i == 2, first: first * (nth + 1), count: first });
            }
            let mbr = Mbr { disk_id: id, records };
            let mut sector = [boot; 512];
            mbr.write(&mut sector);
            prop_assert!(sector[..440].iter().all(|b| *b == boot), "the boot code stays");
            prop_assert_eq!(Mbr::read(&sector), Some(mbr));
        }

        #[test]
        fn whatever_is_there_is_read_without_harm(noise in prop::collection::vec(any::<u8>(), 0..600)) {
            let _ = Mbr::read(&noise);
        }
    }

    #[test]
    fn beyond_32_bits_there_is_nothing() {
        const MIB: u64 = 1 << 20;
        let two_tib = 1u64 << 41;
        assert!(record(MIB, two_tib - MIB, 512, 0x83, false).is_ok());
        for (start, length, sector) in [(MIB, two_tib, 512), (two_tib, MIB, 512), (MIB, 1 << 44, 4096)] {
            assert_eq!(record(start, length, sector, 0x83, false).expect_err("beyond").code, FaultCode::Unsupported);
        }
        assert!(record(MIB, two_tib, 4096, 0x83, false).is_ok(), "with sectors of 4096 it goes to 16 TiB");
    }
}

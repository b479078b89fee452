//! How a disk is, in whichever language it speaks. Questions only: a disk need not be claimed.

use speediso_model::inventory::health::{BlockFormat, DiskHealth, NvmeNamespace, SelfTest, TestOutcome};

use super::{CommandError, Passthrough, le16, le32, le64, nvme, scsi, scsi_log, smart};

/// Of an NVMe drive: the SMART log (NVMe base specification 2.0, 5.16.1.3) and its record of self-tests (5.16.1.7).
///
/// # Errors
/// When no answer can be had.
pub fn nvme(device: &dyn Passthrough) -> Result<DiskHealth, CommandError> {
    const WARNINGS: [&str; 6] = [
        "the spare blocks are below their threshold",
        "the temperature is outside of its limits",
        "reliability is degraded by errors of the medium",
        "it has made itself read-only",
        "the backup of its volatile memory has failed",
        "its persistent memory region is unreliable",
    ];
    const HEAT: u8 = 1 << 1;
    // A data unit is a thousand sectors of 512 bytes.
    const DATA_UNIT: u64 = 512_000;
    let mut page = [0; 512];
    nvme::log(device, "NVMe SMART log", 0x02, &mut page)?;
    let controller = nvme::controller(device)?;
    let celsius = |kelvin: u16| (kelvin > 0).then(|| i32::from(kelvin) - 273);
    // Counters have 16 bytes; none has ever filled 8.
    let count = |at: usize| if le64(&page, at + 8) == 0 { Some(le64(&page, at)) } else { Some(u64::MAX) };
    let warnings = page[0];
    Ok(DiskHealth {
        passed: Some(warnings & !HEAT & 0x3f == 0),
        warnings: (0..6).filter(|bit| warnings >> bit & 1 != 0).map(|bit: usize| WARNINGS[bit].to_owned()).collect(),
        temperature_c: celsius(le16(&page, 1)),
        temperature_limit_c: celsius(controller.warning_temperature),
        power_on_hours: count(128),
        power_cycles: count(112),
        unsafe_shutdowns: count(144),
        percentage_used: Some(page[5]),
        available_spare: Some(page[3]),
        available_spare_threshold: Some(page[4]),
        media_errors: count(160),
        bytes_read: count(32).map(|n| n.saturating_mul(DATA_UNIT)),
        bytes_written: count(48).map(|n| n.saturating_mul(DATA_UNIT)),
        // Bit 4 of OACS: without the command there is no log.
        self_test: if controller.optional_commands & (1 << 4) != 0 { nvme_self_test(device) } else { None },
        ..DiskHealth::default()
    }
    .judged())
}

/// The newest; none if the log is empty or cannot be read.
fn nvme_self_test(device: &dyn Passthrough) -> Option<SelfTest> {
    let mut page = [0; 564];
    nvme::log(device, "NVMe device self-test log", 0x06, &mut page).ok()?;
    let kind = |code: u8| match code {
        1 => "short".to_owned(),
        2 => "extended".to_owned(),
        other => format!("{other:#x}"),
    };
    if page[0] & 0xf != 0 {
        let outcome = TestOutcome::InProgress;
        return Some(SelfTest { kind: kind(page[0] & 0xf), outcome, ..SelfTest::default() });
    }
    let entry = &page[4..32];
    let outcome = match entry[0] & 0xf {
        0x0 => TestOutcome::Passed,
        0x5..=0x7 => TestOutcome::Failed,
        0xf => return None,
        0x1..=0x4 | 0x8 | 0x9 => TestOutcome::Aborted,
        _ => TestOutcome::Unknown,
    };
    Some(SelfTest {
        kind: kind(entry[0] >> 4),
        outcome,
        at_hours: Some(le64(entry, 4)),
        first_bad_lba: (entry[2] & 2 != 0).then(|| le64(entry, 16)),
    })
}

/// All namespaces of the drive with their formats.
///
/// # Errors
/// When no answer can be had.
pub fn namespaces(device: &dyn Passthrough) -> Result<Vec<NvmeNamespace>, CommandError> {
    let this = device.nvme_namespace()?;
    let one = |(id, attached)| {
        let found = nvme::namespace(device, id)?;
        let format = |f: &nvme::LbaFormat| BlockFormat {
            index: f.index,
            bytes: f.bytes,
            metadata: f.metadata,
            performance: f.performance,
            in_use: f.index == found.in_use,
        };
        let formats = found.formats.iter().map(format).collect();
        Ok(NvmeNamespace { id, size: found.size(), attached, this: id == this, formats })
    };
    nvme::namespaces(device)?.into_iter().map(one).collect()
}

/// Of a disk behind SCSI commands, which may be an ATA one; none if it keeps no record of itself.
///
/// # Errors
/// When no answer can be had.
pub fn scsi_or_ata(device: &dyn Passthrough) -> Result<Option<DiskHealth>, CommandError> {
    if scsi::inquiry(device)?.is_ata() { smart::health(device) } else { scsi_log::health(device) }
}

/// What a SATA disk says of its link: speed now, and its best, in millions of transfers a second.
///
/// # Errors
/// When no answer can be had.
pub fn sata_speeds(device: &dyn Passthrough) -> Result<(Option<u32>, Option<u32>), CommandError> {
    const GENERATIONS: [u32; 4] = [0, 1500, 3000, 6000];
    let identity = super::ata::identify(device)?;
    // ACS-4, words 76 and 77; neither is valid as all zeroes or all ones.
    let best = (1..=3usize).rev().find(|n| {
        let word = identity.word(76);
        word != 0xffff && word >> n & 1 != 0
    });
    let now = usize::from(identity.word(77) >> 1 & 7);
    Ok((GENERATIONS.get(now).copied().filter(|s| *s > 0), best.map(|n| GENERATIONS[n])))
}

/// For parsers of log pages: a number of up to eight bytes, the first the highest.
pub(super) fn big_endian(bytes: &[u8]) -> u64 {
    // More than eight would be counters nobody has reached.
    bytes.iter().fold(0u64, |n, b| n << 8 | u64::from(*b))
}

/// `le32` and a byte more, for ATA's raw values.
pub(super) fn le48(bytes: &[u8], at: usize) -> u64 {
    u64::from(le32(bytes, at)) | u64::from(le16(bytes, at + 4)) << 32
}

#[cfg(test)]
mod tests;

//! What ATA disks record of themselves: SMART attributes, device statistics, self-tests (ACS-4 and SAT-4).
//!
//! Attributes are the makers' own; read are those whose meaning all of them share. Device statistics are standardised, and
//! count where both are there.

use speediso_model::inventory::health::{DiskHealth, SelfTest, TestOutcome};

use super::ata::{self, Fields, READ_LOG_EXT, SMART, SMART_KEY, SMART_READ_LOG, SMART_RETURN_STATUS, send};
use super::health::le48;
use super::{CommandError, Data, Passthrough, SOON, le16, le32, le64};

pub(super) const SELF_TEST_LOG: u8 = 0x06;
pub(super) const STATISTICS_LOG: u8 = 0x04;

/// `None` for a disk without SMART, or with it switched off.
pub(super) fn health(device: &dyn Passthrough) -> Result<Option<DiskHealth>, CommandError> {
    let identity = ata::identify(device)?;
    if !identity.has_smart() {
        return Ok(None);
    }
    let asking = Fields { feature: SMART_RETURN_STATUS, lba: SMART_KEY, ..Fields::default() };
    let status = send(device, "ATA SMART RETURN STATUS", SMART, asking, Data::None, SOON)?;
    let mut health = DiskHealth {
        // The disk turns its key round when it expects to fail.
        passed: match status.lba >> 8 & 0xffff {
            0xc24f => Some(true),
            0x2cf4 => Some(false),
            // Translators that keep the registers to themselves.
            _ => None,
        },
        ..DiskHealth::default()
    };
    match ata::smart_data(device) {
        Ok(page) => attributes(&page, &mut health),
        Err(e) if e.declining().is_some() => {}
        Err(e) => return Err(e),
    }
    // Bit 5 of word 84: general purpose logging.
    if identity.bit(84, 5) {
        statistics(device, &mut health);
    }
    // Bit 1 of word 84: self-tests.
    if identity.bit(84, 1) {
        health.self_test = self_test(device);
    }
    Ok(Some(health.judged()))
}

/// Twelve bytes each from byte 2 on: the number, flags, value, worst, six raw bytes.
fn attributes(page: &[u8], health: &mut DiskHealth) {
    let raw = |id: u8| page.get(2..362)?.chunks_exact(12).find(|a| a[0] == id).map(|a| le48(a, 5));
    health.reallocated_sectors = raw(5).map(|n| n & 0xffff_ffff);
    // Some makers keep minutes or milliseconds in the upper bytes.
    health.power_on_hours = raw(9).map(|n| n & 0xffff_ffff);
    health.power_cycles = raw(12).map(|n| n & 0xffff_ffff);
    health.unsafe_shutdowns = raw(174).or_else(|| raw(192)).map(|n| n & 0xffff_ffff);
    health.media_errors = raw(187);
    // The lowest byte is the temperature; minimum and maximum follow it on many.
    health.temperature_c = raw(194).or_else(|| raw(190)).and_then(|t| i32::try_from(t & 0xff).ok()).filter(|t| *t > 0);
    health.pending_sectors = raw(197).map(|n| n & 0xffff_ffff);
    health.interface_errors = raw(199).map(|n| n & 0xffff_ffff);
}

/// Pages of log 04h (ACS-4, 9.5); the first lists the others.
fn statistics(device: &dyn Passthrough, health: &mut DiskHealth) {
    let read = |page: u8| {
        let mut bytes = vec![0; 512];
        let lba = u64::from(STATISTICS_LOG) | u64::from(page) << 8;
        let fields = Fields { count: 1, lba, extended: true, ..Fields::default() };
        send(device, "ATA READ LOG EXT", READ_LOG_EXT, fields, Data::In(&mut bytes), SOON).ok()?;
        // Each page names itself; some translators give the first again.
        (bytes[2] == page).then_some(bytes)
    };
    let Some(list) = read(0) else { return };
    let listed = list.get(9..9 + usize::from(list[8])).unwrap_or_default();
    for page in listed.iter().filter(|page| matches!(page, 1 | 5 | 7)) {
        let Some(bytes) = read(*page) else { continue };
        // Supported, and valid.
        let value = |at: usize| {
            let word = le64(&bytes, at);
            (word >> 62 == 3).then_some(word)
        };
        match page {
            1 => {
                health.power_cycles = value(8).map(|v| v & 0xffff_ffff).or(health.power_cycles);
                health.power_on_hours = value(16).map(|v| v & 0xffff_ffff).or(health.power_on_hours);
                let sectors = |at| value(at).map(|v| (v & 0xffff_ffff_ffff).saturating_mul(512));
                (health.bytes_written, health.bytes_read) = (sectors(24), sectors(40));
            }
            5 => {
                let degrees = |at| value(at).map(|v| i32::from(i8::from_le_bytes([v.to_le_bytes()[0]])));
                health.temperature_c = degrees(8).or(health.temperature_c);
                // The highest at which it may be operated.
                health.temperature_limit_c = degrees(88);
            }
            _ => health.percentage_used = value(8).map(|v| v.to_le_bytes()[0]),
        }
    }
}

/// 24 bytes each from byte 2 on; byte 508 says which is the newest.
fn self_test(device: &dyn Passthrough) -> Option<SelfTest> {
    let mut page = vec![0; 512];
    let lba = SMART_KEY | u64::from(SELF_TEST_LOG);
    let fields = Fields { feature: SMART_READ_LOG, count: 1, lba, ..Fields::default() };
    send(device, "ATA SMART READ LOG", SMART, fields, Data::In(&mut page), SOON).ok()?;
    let newest = usize::from(page[508]).checked_sub(1)?;
    let entry = page.get(2 + newest * 24..26 + newest * 24).filter(|_| newest < 21)?;
    let outcome = match entry[1] >> 4 {
        0 => TestOutcome::Passed,
        1 | 2 => TestOutcome::Aborted,
        3..=8 => TestOutcome::Failed,
        0xf => TestOutcome::InProgress,
        _ => TestOutcome::Unknown,
    };
    let kind = match entry[0] & 0x7f {
        1 => "short".to_owned(),
        2 => "extended".to_owned(),
        3 => "conveyance".to_owned(),
        4 => "selective".to_owned(),
        other => format!("{other:#x}"),
    };
    let lba = u64::from(le32(entry, 5));
    Some(SelfTest {
        kind,
        outcome,
        at_hours: Some(le16(entry, 2).into()),
        first_bad_lba: (outcome == TestOutcome::Failed && lba != 0xffff_ffff).then_some(lba),
    })
}

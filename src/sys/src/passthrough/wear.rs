//! The counts of a drive that a burn-in compares: none of them may grow.

use speediso_model::wipe::Health;

use super::self_test::Language;
use super::{CommandError, Passthrough, ata, nvme};

/// What the drive has counted. What it does not count is absent.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Wear {
    /// Its own verdict.
    pub passed: Option<bool>,
    pub temperature_c: Option<i32>,
    /// Named counts: `reallocated_sectors`, `pending_sectors`, `uncorrectable_sectors`, `crc_errors`, `media_errors`.
    pub counts: Vec<(&'static str, u64)>,
}

/// # Errors
/// When the drive does not answer.
pub fn read(device: &dyn Passthrough, language: Language) -> Result<Wear, CommandError> {
    let of = |health: Health| Wear {
        passed: health.passed,
        temperature_c: health.temperature_c,
        counts: health.media_errors.map(|n| ("media_errors", n)).into_iter().collect(),
    };
    match language {
        Language::Nvme => nvme::health(device).map(of),
        Language::Ata => {
            let mut wear = ata::health(device).map(of)?;
            let page = ata::smart_data(device)?;
            for (attribute, name) in [
                (5, "reallocated_sectors"),
                (197, "pending_sectors"),
                (198, "uncorrectable_sectors"),
                (199, "crc_errors"),
            ] {
                let found = page[2..362].chunks_exact(12).find(|a| a[0] == attribute);
                wear.counts.extend(found.map(|a| {
                    // Makers keep other things in the upper bytes.
                    (name, u64::from(u32::from_le_bytes([a[5], a[6], a[7], a[8]])))
                }));
            }
            Ok(wear)
        }
        // Its counts are in log pages that not every drive fills; asked for, they would be guessed at.
        Language::Scsi => Ok(Wear::default()),
    }
}

//! What a drive counts about itself, before, meanwhile and after; and its test of itself.

use std::thread;
use std::time::{Duration, Instant};

use speediso_model::burn_in::{DiskSelfTest, Series};
use speediso_model::inventory::health::DiskHealth;
use speediso_model::inventory::{Disk, Transport};
use speediso_sys::claim::ClaimedDisk;
use speediso_sys::passthrough::self_test::{self, Language, SelfTest, SelfTestState};
use speediso_sys::passthrough::{Passthrough, health};

use crate::ctx::TaskCtx;

/// How often its temperature is read while it works.
const EVERY: Duration = Duration::from_secs(10);
/// How often a self-test is asked for.
const LOOK: Duration = Duration::from_secs(5);

/// How a drive is spoken to; `Err` says why not.
pub(super) fn language(disk: &Disk, device: &dyn Passthrough) -> Result<Language, String> {
    match disk.tran {
        Transport::Nvme => Ok(Language::Nvme),
        Transport::Sata | Transport::Sas | Transport::Scsi | Transport::Unknown => {
            Language::of_scsi(device).map_err(|e| e.to_string())
        }
        Transport::Loop => Err("a loop device is a file and counts nothing".into()),
        Transport::Virtio => Err("a virtio disk counts nothing".into()),
        _ => Err("drives that are attached like this are not asked".into()),
    }
}

/// What the drive says of itself; nothing if it keeps no record.
pub(super) fn read(device: &dyn Passthrough, language: Language) -> Result<Option<DiskHealth>, String> {
    let read = match language {
        Language::Nvme => health::nvme(device).map(Some),
        Language::Ata | Language::Scsi => health::scsi_or_ata(device),
    };
    read.map_err(|e| e.to_string())
}

/// Counts that grew, and by how much. One that was not there before has no increase that could be told.
pub(super) fn grown(before: &DiskHealth, after: &DiskHealth) -> Vec<(&'static str, u64)> {
    let counts = |health: &DiskHealth| {
        [
            ("reallocated_sectors", health.reallocated_sectors),
            ("pending_sectors", health.pending_sectors),
            ("media_errors", health.media_errors),
            ("interface_errors", health.interface_errors),
        ]
    };
    let pairs = counts(before).into_iter().zip(counts(after));
    pairs.filter_map(|((name, before), (_, after))| Some((name, after?.saturating_sub(before?)))).collect()
}

/// Reads the temperature until `done` says so.
pub(super) fn watch(device: &dyn Passthrough, language: Language, done: &dyn Fn() -> bool) -> Series {
    let begin = Instant::now();
    let mut series = Series::default();
    let mut next = begin;
    while !done() {
        if Instant::now() >= next {
            next += EVERY;
            if let Some(celsius) = read(device, language).ok().flatten().and_then(|health| health.temperature_c) {
                series.push(begin.elapsed().as_secs_f64().round(), f64::from(celsius));
            }
        }
        thread::sleep(Duration::from_millis(100));
    }
    series
}

/// How the drive's test of itself ended.
#[derive(Debug)]
pub(super) enum Tested {
    Passed,
    Failed(String),
    /// It could not be made, or not to its end.
    Unknown(String),
}

/// Begins it and waits for its end, by the drive's own word.
pub(super) fn self_test(
    disk: &ClaimedDisk,
    language: Language,
    kind: DiskSelfTest,
    within: Duration,
    ctx: &TaskCtx,
) -> Tested {
    let test = match kind {
        DiskSelfTest::Short => SelfTest::Short,
        DiskSelfTest::Extended => SelfTest::Extended,
    };
    // What runs is somebody else's, and would be ended by ours.
    if let Ok(SelfTestState::Running { .. }) = self_test::state(disk, language) {
        return Tested::Unknown("the drive is testing itself already".into());
    }
    if let Err(error) = self_test::begin(disk, language, test) {
        return Tested::Unknown(format!("the drive takes no such test: {error}"));
    }
    let begin = Instant::now();
    let mut told = None;
    loop {
        if let Err(cancelled) = ctx.cancel.check() {
            return Tested::Unknown(cancelled.message);
        }
        match self_test::state(disk, language) {
            Ok(SelfTestState::Running { percent_done }) => {
                if percent_done != told {
                    told = percent_done;
                    ctx.reporter.progress(crate::ctx::ProgressUpdate {
                        stage: "testing itself",
                        device: Some(disk.name().to_owned()),
                        current: percent_done.unwrap_or(0).into(),
                        total: Some(100),
                        unit: "percent",
                        rate: 0.0,
                    });
                }
            }
            Ok(SelfTestState::Passed) => return Tested::Passed,
            Ok(SelfTestState::Failed { what, first_bad }) => {
                let place = first_bad.map(|lba| format!(", first at sector {lba}")).unwrap_or_default();
                return Tested::Failed(format!("{what}{place}"));
            }
            Ok(SelfTestState::Aborted(why)) => return Tested::Unknown(format!("it was ended {why}")),
            // The log of a test that has just begun may still be empty.
            Ok(SelfTestState::Never) => {}
            Err(error) => return Tested::Unknown(format!("its log cannot be read: {error}")),
        }
        if begin.elapsed() > within {
            return Tested::Unknown(format!("it has not ended within {} s", within.as_secs()));
        }
        thread::sleep(LOOK.min(within / 10).max(Duration::from_millis(20)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_grew_counts() {
        let health = |reallocated, pending, media| DiskHealth {
            reallocated_sectors: Some(reallocated),
            pending_sectors: Some(pending),
            media_errors: media,
            ..DiskHealth::default()
        };
        let grown = grown(&health(5, 8, None), &health(7, 0, Some(3)));
        assert_eq!(grown, [("reallocated_sectors", 2), ("pending_sectors", 0)]);
    }
}

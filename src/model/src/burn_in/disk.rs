//! What a disk step takes, and what it yields.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::catalogue::{Known, known, none_allowed};
use super::measurement::unit;
use super::seconds::Seconds;
use crate::wipe::WipeTargets;

/// A test that a drive makes of itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DiskSelfTest {
    /// Minutes: the electronics, and a sample of the medium.
    Short,
    /// Hours: the whole medium.
    Extended,
}

/// The drive's own test first, then all along the disk, however long that takes, then requests anywhere for the step's
/// duration. All disks at the same time, each with its own end.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DiskStep {
    #[serde(default = "all_disks")]
    pub devices: WipeTargets,
    /// DESTROYS DATA: writes patterns over the disks and reads them back. Without it disks are only read.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub verify_writes: bool,
    /// Percent of each disk that is read all along, the same share of each of its 256 parts; 100 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share: Option<u8>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub self_test: Option<DiskSelfTest>,
    /// How long the self-test may take; 30 minutes or 3 days when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub self_test_within: Option<Seconds>,
    /// Requests under way at a time on each disk, when anywhere; 16 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue_depth: Option<u8>,
}

impl Default for DiskStep {
    fn default() -> Self {
        Self {
            devices: all_disks(),
            verify_writes: false,
            share: None,
            self_test: None,
            self_test_within: None,
            queue_depth: None,
        }
    }
}

fn all_disks() -> WipeTargets {
    WipeTargets::AllDisks
}

pub(super) const DISK: &[Known] = &[
    none_allowed("disk.errors", "requests that failed, per disk"),
    none_allowed("disk.mismatches", "sectors that were not as they had been written, each once, per disk"),
    none_allowed(
        "disk.inconsistent_reads",
        "blocks that read otherwise than minutes before, though nobody wrote to them; only of disks that nobody uses",
    ),
    known("disk.read_twice", unit::COUNT, "blocks that were read again and compared"),
    none_allowed("disk.failing", "1 if the drive itself says that it is failing"),
    none_allowed("disk.self_test.failed", "1 if the drive's test of itself failed"),
    none_allowed("disk.new.reallocated_sectors", "more than before the step"),
    none_allowed("disk.new.pending_sectors", "more than before the step"),
    none_allowed("disk.new.media_errors", "more than before the step"),
    none_allowed("disk.new.interface_errors", "transfers over the cable that were damaged, more than before the step"),
    known("disk.mismatches.stuck_bits", unit::COUNT, "few wrong bits, and the same when read again"),
    known("disk.mismatches.transient_bits", unit::COUNT, "few wrong bits, and others when read again"),
    known("disk.mismatches.lost_writes", unit::COUNT, "sectors with what was there before"),
    known("disk.mismatches.misdirected_writes", unit::COUNT, "sectors with what was written for another place"),
    known("disk.mismatches.foreign_content", unit::COUNT, "sectors with something else"),
    known("disk.temperature.max", unit::CELSIUS, "highest that the drive told"),
    known("disk.slow_regions", unit::COUNT, "parts of the disk below a third of its median speed"),
    known("disk.read.bandwidth", unit::BYTES_PER_SECOND, "all along"),
    known("disk.read.slowest_region", unit::BYTES_PER_SECOND, "median of the slowest of its parts"),
    known("disk.read.latency.p99", unit::MICROSECONDS, "all along, large requests"),
    known("disk.read.latency.max", unit::MICROSECONDS, "all along, large requests"),
    known("disk.write.bandwidth", unit::BYTES_PER_SECOND, "all along"),
    known("disk.write.slowest_region", unit::BYTES_PER_SECOND, "median of the slowest of its parts"),
    known("disk.write.latency.p99", unit::MICROSECONDS, "all along, large requests"),
    known("disk.write.latency.max", unit::MICROSECONDS, "all along, large requests"),
    known("disk.random_read.iops", unit::PER_SECOND, "4 KiB anywhere"),
    known("disk.random_read.latency.p50", unit::MICROSECONDS, "4 KiB anywhere"),
    known("disk.random_read.latency.p90", unit::MICROSECONDS, "4 KiB anywhere"),
    known("disk.random_read.latency.p99", unit::MICROSECONDS, "4 KiB anywhere"),
    known("disk.random_read.latency.p99.9", unit::MICROSECONDS, "4 KiB anywhere"),
    known("disk.random_read.latency.max", unit::MICROSECONDS, "4 KiB anywhere"),
    known("disk.random_write.iops", unit::PER_SECOND, "4 KiB anywhere"),
    known("disk.random_write.latency.p50", unit::MICROSECONDS, "4 KiB anywhere"),
    known("disk.random_write.latency.p90", unit::MICROSECONDS, "4 KiB anywhere"),
    known("disk.random_write.latency.p99", unit::MICROSECONDS, "4 KiB anywhere"),
    known("disk.random_write.latency.p99.9", unit::MICROSECONDS, "4 KiB anywhere"),
    known("disk.random_write.latency.max", unit::MICROSECONDS, "4 KiB anywhere"),
];

impl DiskStep {
    pub(super) fn check(&self) -> Result<(), String> {
        match &self.devices {
            WipeTargets::Hints(hints) if hints.is_empty() => return Err("devices: no disk is named".into()),
            WipeTargets::Hints(hints) if hints.iter().any(crate::hints::RootDeviceHints::is_empty) => {
                return Err("devices: the root device hints are empty".into());
            }
            _ => {}
        }
        match self.share {
            Some(0 | 101..) => return Err("share: 1 to 100 percent".into()),
            Some(_) if self.verify_writes => return Err("share: verified writes go over the whole disk".into()),
            _ => {}
        }
        if matches!(self.queue_depth, Some(0 | 65..)) {
            return Err("queue_depth: 1 to 64".into());
        }
        match (self.self_test, self.self_test_within) {
            (_, Some(Seconds(0))) => Err("self_test_within: 0 s is no time".into()),
            (_, Some(within)) if within > Seconds::MOST => {
                Err(format!("self_test_within: longer than {}", Seconds::MOST))
            }
            (None, Some(_)) => Err("self_test_within: there is no self_test".into()),
            _ => Ok(()),
        }
    }
}

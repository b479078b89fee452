//! What a certificate is made of.

use std::time::Instant;

use speediso_model::abilities::Abilities;
use speediso_model::task::WipeTask;
use speediso_model::wipe::{Health, TriedOn, Verification, VerificationKind, WipeMethod, WipeReport};

use super::log::Log;
use super::profile::slow_parts;
use super::target::Target;
use super::{areas, probe};

/// From the beginning of a wipe.
pub(super) struct Begun {
    pub(super) at: jiff::Timestamp,
    pub(super) clock: Instant,
    pub(super) health: Option<Health>,
}

/// What the method has yielded.
pub(super) struct Yield {
    pub(super) steps: Vec<String>,
    pub(super) verification: Verification,
    pub(super) mib_per_second: Option<f64>,
    pub(super) profile: Vec<f64>,
}

pub(super) fn make(
    task: &WipeTask,
    method: WipeMethod,
    device: &dyn Target,
    abilities: &Abilities,
    begun: Begun,
    yielded: Yield,
    log: &mut Log,
) -> WipeReport {
    let areas = areas::of(device.disk(), abilities, method, task.covers_hidden_areas());
    let mut not_covered = areas::not_covered(&areas, device.disk());
    if method.tried_on() == TriedOn::Simulator {
        not_covered.push(format!(
            "the way this program issues {} was tried on its own simulator only, not on real hardware",
            method.name()
        ));
    }
    let verified = yielded.verification.kind != VerificationKind::None;
    let is_array = device.disk().array.is_some();
    if is_array {
        not_covered.push("of its member disks: superblocks, copies, parity and what lies beyond the array".into());
    }
    WipeReport {
        asked: task.level,
        // An array says nothing of its member disks.
        reached: (verified && !is_array).then(|| method.level()),
        method,
        steps: yielded.steps,
        not_covered,
        areas,
        verification: yielded.verification,
        device_log: std::mem::take(&mut log.statuses),
        firmware: device.disk().firmware.clone(),
        begun: begun.at,
        ended: jiff::Timestamp::now(),
        seconds: (begun.clock.elapsed().as_secs_f64() * 10.0).round() / 10.0,
        write_mib_per_s: yielded.mib_per_second,
        slow_parts: slow_parts(&yielded.profile),
        speed_profile: yielded.profile,
        health_before: begun.health,
        health_after: probe::health(abilities, device),
    }
}

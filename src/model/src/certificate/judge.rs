//! Whether a wipe deserves a certificate. Everything that forbids one is here, and nothing is asked of anybody: the
//! report of the agent is compared with the order, the recorded start and the inventory.

use std::time::Duration;

use serde_json::Value;

use super::medium::media_type;
use super::words::is_at_least;
use super::{Area, Canaries, Device, DeviceAnswer, Health, Medium, Sample, Sanitization, Verification};
use crate::inventory::Disk;
use crate::outcome::{DeviceResult, Outcome};
use crate::plan::{DiskIdentity, Plan};
use crate::units::Bytes;
use crate::wipe::{self, AreaKind, VerificationKind, WipeLevel, WipeMethod, WipeReport, WipeTask, WipeVerify};

/// Why there is no certificate.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refusal {
    #[error("its outcome is {}, not verified", .0.name())]
    NotVerified(Outcome),
    #[error("the start of the run was never recorded")]
    NotStarted,
    #[error("the plan whose start was recorded does not name it")]
    NotPlanned,
    #[error("the agent's report of the wipe cannot be read ({0}): was the ramdisk made before certificates?")]
    Report(String),
    #[error("the order asked for {}, the report says {}", .ordered.name(), .reported.name())]
    OtherLevel { ordered: WipeLevel, reported: WipeLevel },
    #[error("{} was asked for and {} was reached", .asked.name(), .reached.map_or("no level", |level| level.name()))]
    LevelNotReached { asked: WipeLevel, reached: Option<WipeLevel> },
    #[error("the report claims {} by a method that reaches {} at most", .claimed.name(), .method.level().name())]
    BeyondMethod { claimed: WipeLevel, method: WipeMethod },
    #[error("it was not verified: {0}")]
    NoVerification(String),
    #[error("{name} ({size}) was not covered: {how}")]
    NotCovered { name: String, size: Bytes, how: String },
    #[error("the areas that were covered are smaller than the device: {covered} of {size}")]
    AreasTooSmall { covered: Bytes, size: Bytes },
    #[error("it is a volume of {0}, and the site's policy certifies no volumes")]
    Volume(String),
    #[error("the times of the report contradict one another")]
    Times,
}

/// What is known of one device's wipe.
#[derive(Clone, Copy, Debug)]
pub struct Evidence<'a> {
    pub task: &'a WipeTask,
    /// Whose start was recorded.
    pub plan: Option<&'a Plan>,
    pub result: &'a DeviceResult,
    /// As the machine's inventory has it.
    pub disk: Option<&'a Disk>,
    /// The site's policy: a volume gets a certificate that says that it is one.
    pub certify_volumes: bool,
}

/// What a certificate says of the device itself; who, where and when is added by whoever keeps the records.
#[derive(Clone, PartialEq, Debug)]
pub struct Judged {
    pub device: Device,
    pub sanitization: Sanitization,
    pub verification: Verification,
    pub device_log: Vec<DeviceAnswer>,
    pub health_before: Option<Health>,
    pub health_after: Option<Health>,
    pub begun: jiff::Timestamp,
    pub ended: jiff::Timestamp,
    pub duration_ms: u64,
    pub remarks: Vec<String>,
}

/// # Errors
/// Whatever forbids a certificate, the gravest first.
pub fn judge(evidence: &Evidence<'_>) -> Result<Judged, Refusal> {
    let Evidence { task, plan, result, disk, certify_volumes } = *evidence;
    if !result.outcome.is_success() {
        return Err(Refusal::NotVerified(result.outcome));
    }
    let plan = plan.ok_or(Refusal::NotStarted)?;
    if !plan.devices.iter().any(|d| is_same(&d.identity, &result.identity)) {
        return Err(Refusal::NotPlanned);
    }
    let report = read(&result.facts)?;
    check_level(task.level, &report)?;
    check_verification(task, &report, result.identity.size)?;
    check_areas(&report, result.identity.size)?;
    let duration_ms = duration(&report)?;
    let medium = Medium::of(&result.seen_as, &result.identity, disk);
    if let Medium::Volume { of } = &medium
        && !certify_volumes
    {
        return Err(Refusal::Volume(of.clone()));
    }
    Ok(Judged {
        device: device(result, disk, &report, medium.clone()),
        remarks: remarks(&report, &medium),
        begun: report.begun,
        ended: report.ended,
        duration_ms,
        health_before: report.health_before.as_ref().map(health),
        health_after: report.health_after.as_ref().map(health),
        device_log: report
            .device_log
            .into_iter()
            .map(|l| DeviceAnswer { command: l.command, raw: l.raw, meaning: l.meaning })
            .collect(),
        verification: verification(report.verification),
        sanitization: Sanitization {
            asked: task.level,
            // `check_level` has seen that it is there.
            reached: report.reached.unwrap_or(WipeLevel::Clear),
            method: report.method,
            steps: report.steps,
            areas: report.areas.into_iter().map(area).collect(),
            not_covered: report.not_covered,
        },
    })
}

/// Opening hidden areas and formatting change sizes; what a device is called they do not.
fn is_same(planned: &DiskIdentity, wiped: &DiskIdentity) -> bool {
    let names = |i: &DiskIdentity| (i.serial.clone(), i.wwn.clone(), i.model.clone(), i.diskseq);
    names(planned) == names(wiped)
}

fn read(facts: &Value) -> Result<WipeReport, Refusal> {
    serde_json::from_value(facts.clone()).map_err(|e| Refusal::Report(e.to_string()))
}

fn check_level(asked: WipeLevel, report: &WipeReport) -> Result<(), Refusal> {
    if report.asked != asked {
        return Err(Refusal::OtherLevel { ordered: asked, reported: report.asked });
    }
    let Some(reached) = report.reached.filter(|r| is_at_least(*r, asked)) else {
        return Err(Refusal::LevelNotReached { asked, reached: report.reached });
    };
    if !is_at_least(report.method.level(), reached) {
        return Err(Refusal::BeyondMethod { claimed: reached, method: report.method });
    }
    Ok(())
}

fn check_verification(task: &WipeTask, report: &WipeReport, size: Bytes) -> Result<(), Refusal> {
    let no = |why: String| Err(Refusal::NoVerification(why));
    let seen = &report.verification;
    if let Some(canaries) = seen.canaries.as_ref().filter(|c| c.found_after > 0) {
        return no(format!("{} of {} canaries were found again", canaries.found_after, canaries.planted));
    }
    // How much is read back is the order's to say where the host wrote; a device that erased itself has no pattern.
    let ordered = (report.method == WipeMethod::Overwrite).then_some(task.verify);
    match seen.kind {
        VerificationKind::None => no("nothing was read back".into()),
        VerificationKind::Full if seen.bytes < size => no(format!("{} of {size} were read back", seen.bytes)),
        VerificationKind::Full => Ok(()),
        VerificationKind::Sample => match (&seen.sample, ordered) {
            (_, Some(WipeVerify::Full)) => no("the order asked for all of it to be read back, a sample was".into()),
            (Some(s), Some(WipeVerify::SamplePercent(asked))) if s.percent < asked => {
                no(format!("{} percent were read back, {asked} were asked for", s.percent))
            }
            (Some(s), _) if s.percent > 0 && s.units > 0 && seen.bytes.0 > 0 => Ok(()),
            _ => no("the sample is empty".into()),
        },
        VerificationKind::DeviceStatus if report.method == WipeMethod::Overwrite => {
            no("an overwritten device has no status to tell".into())
        }
        VerificationKind::DeviceStatus if report.device_log.is_empty() => no("the device's status is missing".into()),
        VerificationKind::DeviceStatus if seen.canaries.as_ref().is_none_or(|c| c.planted == 0) => {
            no("nothing was planted before and searched for after: there is the device's word only".into())
        }
        VerificationKind::DeviceStatus => Ok(()),
    }
}

fn check_areas(report: &WipeReport, size: Bytes) -> Result<(), Refusal> {
    // What the host cannot address is listed; everything that a user could have written must be gone.
    let users = || report.areas.iter().filter(|a| a.kind != AreaKind::Reserved);
    if let Some(area) = users().find(|a| !a.covered) {
        return Err(Refusal::NotCovered { name: area.name.clone(), size: area.size, how: area.how.clone() });
    }
    let covered = users().fold(0u64, |sum, a| sum.saturating_add(a.size.0));
    if covered < size.0 || covered == 0 {
        return Err(Refusal::AreasTooSmall { covered: Bytes(covered), size });
    }
    Ok(())
}

fn duration(report: &WipeReport) -> Result<u64, Refusal> {
    if report.ended < report.begun {
        return Err(Refusal::Times);
    }
    let duration = Duration::try_from_secs_f64(report.seconds).map_err(|_| Refusal::Times)?;
    u64::try_from(duration.as_millis()).map_err(|_| Refusal::Times)
}

fn device(result: &DeviceResult, disk: Option<&Disk>, report: &WipeReport, medium: Medium) -> Device {
    let DiskIdentity { serial, wwn, model, size, logical_sectors, .. } = result.identity.clone();
    // The kernel's translation layer gives "ATA" for every SATA drive.
    let vendor = disk.map(|d| d.vendor.trim()).filter(|v| !v.is_empty() && *v != "ATA");
    Device {
        manufacturer: vendor.map(str::to_owned),
        model,
        serial,
        wwn,
        firmware: report.firmware.clone(),
        size,
        sector_size: logical_sectors,
        media_type: media_type(&medium, disk),
        medium,
        seen_as: result.seen_as.clone(),
    }
}

fn remarks(report: &WipeReport, medium: &Medium) -> Vec<String> {
    let mut remarks = Vec::new();
    if let Medium::Volume { of } = medium {
        remarks.push(format!(
            "The device is a volume of {of}. This certificate is no statement about any physical medium."
        ));
    }
    if report.method == WipeMethod::Overwrite {
        remarks.push(
            "Overwriting reaches what the host can address. Remapped sectors and over-provisioned flash are out of its \
             reach."
                .into(),
        );
    }
    match report.verification.kind {
        VerificationKind::Sample => {
            remarks.push("A sample was read back, not the whole device; the seed lets others choose the same places.".into());
        }
        VerificationKind::DeviceStatus => remarks.push(
            "That the data are gone is judged by the device's own status and by marks that were planted before and not \
             found after."
                .into(),
        ),
        VerificationKind::Full | VerificationKind::None => {}
    }
    if report.areas.iter().any(|a| a.kind == AreaKind::Reserved && !a.covered) {
        remarks.push("Reserved areas that the method does not reach are listed with the areas.".into());
    }
    remarks
}

fn area(area: wipe::WipedArea) -> Area {
    Area { kind: area.kind, name: area.name, size: area.size, covered: area.covered, how: area.how }
}

fn verification(seen: wipe::Verification) -> Verification {
    Verification {
        kind: seen.kind,
        bytes: seen.bytes,
        sample: seen.sample.map(|s| Sample { percent: s.percent, seed: s.seed, unit: s.unit, units: s.units }),
        pattern_seed: seen.pattern_seed,
        canaries: seen.canaries.map(|c| Canaries { seed: c.seed, planted: c.planted, found_after: c.found_after }),
        in_words: seen.in_words,
    }
}

fn health(seen: &wipe::Health) -> Health {
    Health {
        passed: seen.passed,
        power_on_hours: seen.power_on_hours,
        reallocated: seen.reallocated,
        percentage_used: seen.percentage_used,
        media_errors: seen.media_errors,
        temperature_c: seen.temperature_c,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certificate::samples::{Wiped, report};
    use crate::inventory::Transport;
    use crate::wipe::{Canaries, DeviceStatus, Sample, WipedArea};

    /// What becomes of a good wipe with one thing changed.
    fn with(change: impl FnOnce(&mut Wiped)) -> Result<Judged, Refusal> {
        let mut wiped = Wiped::good();
        change(&mut wiped);
        wiped.judge()
    }

    fn with_report(change: impl FnOnce(&mut WipeReport)) -> Result<Judged, Refusal> {
        with(|w| {
            let mut report = report();
            change(&mut report);
            w.report(&report);
        })
    }

    #[track_caller]
    fn refused(judged: Result<Judged, Refusal>, words: &str) {
        let text = judged.expect_err("this deserves none").to_string();
        assert!(text.contains(words), "{text}");
    }

    #[test]
    fn a_good_wipe_deserves_one() {
        let judged = with(|_| ()).expect("deserved");
        assert_eq!(judged.device.media_type, "solid-state drive, SATA");
        assert_eq!((judged.device.manufacturer, judged.duration_ms), (None, 1500));
        assert_eq!(judged.sanitization.reached, WipeLevel::Clear);
        assert!(judged.remarks[0].contains("host can address"), "{:?}", judged.remarks);
    }

    #[test]
    fn what_was_not_seen_to_be_done_gets_none() {
        for outcome in [Outcome::FailedUnchanged, Outcome::FailedChanged, Outcome::Unknown] {
            refused(with(|w| w.result.outcome = outcome), outcome.name());
        }
        refused(with(|w| w.plan = None), "never recorded");
        refused(with(|w| w.result.identity.serial = "OTHER".into()), "does not name it");
        refused(with(|w| w.result.facts = serde_json::json!({"bytes": 5})), "cannot be read");
        refused(with(|w| w.result.facts = Value::Null), "cannot be read");
    }

    #[test]
    fn the_level_asked_must_be_reached_by_a_method_that_can() {
        refused(with_report(|r| r.asked = WipeLevel::Purge), "the order asked for clear");
        refused(with_report(|r| r.reached = None), "no level");
        refused(with_report(|r| r.reached = Some(WipeLevel::Purge)), "reaches clear at most");
        let purge = |method, reached| {
            with(|w| {
                w.task.level = WipeLevel::Purge;
                let mut report = report();
                (report.asked, report.reached, report.method) = (WipeLevel::Purge, reached, method);
                w.report(&report);
            })
        };
        refused(purge(WipeMethod::AtaSanitizeBlock, Some(WipeLevel::Clear)), "clear was reached");
        assert!(purge(WipeMethod::AtaSanitizeBlock, Some(WipeLevel::Purge)).is_ok());
        // More than was asked for is no harm.
        let more = with_report(|r| (r.reached, r.method) = (Some(WipeLevel::Purge), WipeMethod::AtaSanitizeCrypto));
        assert_eq!(more.expect("deserved").sanitization.reached, WipeLevel::Purge);
    }

    #[test]
    fn it_must_have_been_verified_as_asked() {
        refused(with_report(|r| r.verification.kind = VerificationKind::None), "nothing was read back");
        refused(with_report(|r| r.verification.bytes.0 -= 1), "were read back");
        refused(with_report(|r| r.verification.kind = VerificationKind::Sample), "all of it");
        let sampled = |asked: u8, percent: u8, units: u64| {
            with(|w| {
                w.task.verify = WipeVerify::SamplePercent(asked);
                let mut report = report();
                report.verification.kind = VerificationKind::Sample;
                report.verification.sample = Some(Sample { percent, seed: "5e".into(), unit: Bytes(1 << 20), units });
                w.report(&report);
            })
        };
        refused(sampled(10, 5, 9), "5 percent were read back, 10");
        refused(sampled(10, 10, 0), "empty");
        assert!(sampled(10, 10, 9).is_ok());
        let by_status = |log: bool, canaries: Option<(u64, u64)>| {
            with_report(|r| {
                r.method = WipeMethod::AtaSanitizeCrypto;
                r.verification.kind = VerificationKind::DeviceStatus;
                if log {
                    let (command, raw, meaning) = ("SANITIZE STATUS".into(), "80".into(), "done".into());
                    r.device_log = vec![DeviceStatus { command, raw, meaning }];
                }
                r.verification.canaries =
                    canaries.map(|(planted, found_after)| Canaries { seed: "c4".into(), planted, found_after });
            })
        };
        refused(by_status(false, Some((8, 0))), "status is missing");
        refused(by_status(true, None), "the device's word only");
        refused(by_status(true, Some((0, 0))), "the device's word only");
        refused(by_status(true, Some((8, 1))), "1 of 8 canaries");
        assert!(by_status(true, Some((8, 0))).is_ok());
        refused(with_report(|r| r.verification.kind = VerificationKind::DeviceStatus), "no status to tell");
    }

    #[test]
    fn what_a_user_could_have_written_must_be_covered() {
        let area = |kind, covered| WipedArea { kind, name: "there".into(), size: Bytes(512), covered, how: "x".into() };
        for kind in [AreaKind::User, AreaKind::Hpa, AreaKind::Dco, AreaKind::Namespace, AreaKind::BootPartition] {
            refused(with_report(|r| r.areas.push(area(kind, false))), "there (512 B) was not covered");
        }
        let judged = with_report(|r| r.areas.push(area(AreaKind::Reserved, false))).expect("listed, not refused");
        assert_eq!(judged.sanitization.areas.len(), 2);
        assert!(judged.remarks.iter().any(|r| r.contains("Reserved")));
        refused(with_report(|r| r.areas.clear()), "smaller than the device");
        refused(with_report(|r| r.areas[0].size.0 -= 1), "smaller than the device");
    }

    #[test]
    fn a_volume_needs_the_sites_word_and_says_so() {
        let volume = |certify| {
            with(|w| {
                w.disk.tran = Transport::Scsi;
                w.certify_volumes = certify;
            })
        };
        refused(volume(false), "certifies no volumes");
        let judged = volume(true).expect("by policy");
        assert!(judged.remarks[0].contains("no statement about any physical medium"), "{:?}", judged.remarks);
        assert!(judged.device.media_type.starts_with("volume of"));
    }

    #[test]
    fn times_must_be_possible() {
        refused(with_report(|r| r.ended = r.begun - jiff::Span::new().seconds(1)), "contradict");
        refused(with_report(|r| r.seconds = -1.0), "contradict");
    }
}

//! A good wipe, for tests to spoil. The signature is a hash here: what the real one is worth, the command line's tests
//! show.
#![allow(clippy::expect_used, reason = "tests")]

use jiff::Timestamp;
use sha2::{Digest as _, Sha512};
use uuid::Uuid;

use super::document::{Digest, Document, SiteKey};
use super::judge::{Evidence, Judged, Refusal, judge};
use super::{CertificateNotes, DeviceAnswer, DeviceCertificate, Format, Issuer, Machine, Statement, Subject, Work};
use crate::build::BuildInfo;
use crate::id::{Epoch, NodeId, OrderId, RunId};
use crate::inventory::{Disk, Transport};
use crate::outcome::{DeviceResult, Outcome};
use crate::plan::{DiskIdentity, Plan, PlanDigest, PlannedDevice};
use crate::units::Bytes;
use crate::wipe::{
    AreaKind, Verification, VerificationKind, WipeLevel, WipeMethod, WipeReport, WipeTargets, WipeTask, WipedArea,
};

pub(crate) const KEY: SiteKey = SiteKey([0xa7; 32]);
const SIZE: Bytes = Bytes(480_103_981_056);

pub(crate) fn sign(bytes: &[u8]) -> [u8; 64] {
    Sha512::digest(bytes).into()
}

pub(crate) fn is_signed(_: &SiteKey, bytes: &[u8], signature: &[u8; 64]) -> bool {
    sign(bytes) == *signature
}

pub(crate) fn seal(statement: Statement) -> Document {
    Document::seal(statement, KEY, sign).expect("short enough")
}

fn at(text: &str) -> Timestamp {
    text.parse().expect("a time")
}

pub(crate) fn disk() -> Disk {
    Disk {
        name: "/dev/sda".into(),
        model: "Samsung SSD 860".into(),
        vendor: "ATA".into(),
        serial: "S3Z9NB12".into(),
        wwn: Some("naa.5002538e40f2a1b3".into()),
        firmware: "2B6Q".into(),
        size: SIZE,
        logical_sectors: 512,
        physical_sectors: 4096,
        tran: Transport::Sata,
        diskseq: Some(9),
        ..Disk::default()
    }
}

pub(crate) fn identity_of(disk: &Disk) -> DiskIdentity {
    DiskIdentity::of(disk)
}

pub(crate) fn report() -> WipeReport {
    WipeReport {
        asked: WipeLevel::Clear,
        reached: Some(WipeLevel::Clear),
        method: WipeMethod::Overwrite,
        steps: vec!["overwrite with a known pattern".into()],
        areas: vec![WipedArea {
            kind: AreaKind::User,
            name: "all sectors".into(),
            size: SIZE,
            covered: true,
            how: "overwritten".into(),
        }],
        verification: Verification {
            kind: VerificationKind::Full,
            bytes: SIZE,
            sample: None,
            pattern_seed: Some("9d3c".into()),
            canaries: None,
            in_words: "all of it was read back".into(),
        },
        device_log: Vec::new(),
        firmware: "2B6Q".into(),
        begun: at("2026-11-21T10:00:00Z"),
        ended: at("2026-11-21T11:59:00Z"),
        seconds: 1.5,
        write_mib_per_s: Some(480.0),
        speed_profile: vec![480.0],
        slow_parts: Vec::new(),
        health_before: None,
        health_after: None,
        not_covered: vec!["remapped sectors".into()],
    }
}

pub(crate) struct Wiped {
    pub(crate) task: WipeTask,
    pub(crate) plan: Option<Plan>,
    pub(crate) result: DeviceResult,
    pub(crate) disk: Disk,
    pub(crate) certify_volumes: bool,
}

impl Wiped {
    pub(crate) fn good() -> Self {
        let disk = disk();
        let identity = identity_of(&disk);
        let planned = PlannedDevice {
            identity: identity.clone(),
            seen_as: disk.name.clone(),
            actions: Vec::new(),
            found: Vec::new(),
        };
        Self {
            task: WipeTask::new(WipeTargets::AllDisks, WipeLevel::Clear),
            plan: Some(Plan {
                task: "wipe".into(),
                destructive: true,
                devices: vec![planned],
                effects: Vec::new(),
                untouched: Vec::new(),
            }),
            result: DeviceResult {
                identity,
                seen_as: disk.name.clone(),
                outcome: Outcome::Verified,
                changed: None,
                used: "overwrite".into(),
                fault: None,
                facts: serde_json::to_value(report()).expect("JSON"),
            },
            disk,
            certify_volumes: false,
        }
    }

    pub(crate) fn report(&mut self, report: &WipeReport) {
        self.result.facts = serde_json::to_value(report).expect("JSON");
    }

    pub(crate) fn judge(&self) -> Result<Judged, Refusal> {
        judge(&Evidence {
            task: &self.task,
            plan: self.plan.as_ref(),
            result: &self.result,
            disk: Some(&self.disk),
            certify_volumes: self.certify_volumes,
        })
    }
}

pub(crate) fn machine() -> Machine {
    Machine {
        node: NodeId(Uuid::from_u128(1)),
        name: "web1".into(),
        manufacturer: "Example".into(),
        product: "R1".into(),
        serial: "CZ3029XKLM".into(),
        uuid: Some("4c4c4544-0042".into()),
        chassis_serial: "C1".into(),
        asset_tag: "A-17".into(),
    }
}

pub(crate) fn certificate() -> DeviceCertificate {
    let judged = Wiped::good().judge().expect("good");
    let answer = DeviceAnswer { command: "IDENTIFY DEVICE".into(), raw: "50".into(), meaning: "done".into() };
    DeviceCertificate {
        device: judged.device,
        machine: machine(),
        sanitization: judged.sanitization,
        verification: judged.verification,
        device_log: vec![answer],
        health_before: None,
        health_after: None,
        work: Work {
            order: OrderId(Uuid::from_u128(2)),
            ordered_by: "operator".into(),
            ordered: at("2026-11-21T09:58:00Z"),
            task: 0,
            run: RunId(Uuid::from_u128(3)),
            epoch: Epoch(4),
            plan: PlanDigest("0d".repeat(32)),
            permitted: at("2026-11-21T09:59:00Z"),
            begun: judged.begun,
            ended: judged.ended,
            duration_ms: judged.duration_ms,
            tool: BuildInfo { number: 42, version: "0.1.0".into(), kernel: "6.1.0".into(), built: 1_700_000_000 },
        },
        notes: CertificateNotes::default().of_machine(),
        remarks: judged.remarks,
    }
}

pub(crate) fn statement(number: u64, previous: Digest) -> Statement {
    Statement {
        format: Format::V1,
        number,
        previous,
        issued: at("2026-11-21T12:00:00Z"),
        issuer: Issuer {
            organization: "Example".into(),
            location: "Hall 3".into(),
            responsible: "A. Person".into(),
            program: "speediso-controller 0.1.0".into(),
        },
        subject: Subject::Device(certificate()),
    }
}

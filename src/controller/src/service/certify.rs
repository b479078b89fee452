//! Certificates of sanitization: made in the transaction that stores the end of a run, so that an end that was
//! acknowledged has its certificates, and a report that arrives twice has one.

use speediso_model::certificate::machine::{disk_key, find, whole};
use speediso_model::certificate::site::{CertificateKind, CertificatePolicy, CertificateView, CertificatesQuery};
use speediso_model::certificate::{
    CertifiedDevice, Chain, DeviceCertificate, Document, Evidence, Format, Issuer, Machine as MachineIdentity,
    MachineCertificate, Statement, Subject, Work, judge,
};
use speediso_model::fault::{Fault, FaultCode};
use speediso_model::id::{NodeId, OrderId, RunId};
use speediso_model::inventory::{Disk, Inventory};
use speediso_model::order::TaskState;
use speediso_model::outcome::{DeviceResult, TaskResult};
use speediso_model::task::{Task, WipeTargets, WipeTask};

use super::{Failure, Result};
use crate::machine::CONTROLLER;
use crate::site_key::{SiteSigner, is_signed};
use crate::store::{NewEvent, Node, OrderRecord, RunRecord, Transaction, WipeCertificate};
use crate::wake;

const PROGRAM: &str = concat!("speediso-controller ", env!("CARGO_PKG_VERSION"));

/// Of what a run is certified.
struct Ended<'a> {
    node: &'a Node,
    order: &'a OrderRecord,
    run: RunRecord,
    place: usize,
    task: &'a WipeTask,
    inventory: Inventory,
    policy: CertificatePolicy,
}

/// Gives the certificates that the end of a run deserves, and says why where it deserves none.
pub(super) async fn certify(
    tx: &mut dyn Transaction,
    node: &Node,
    order: &OrderRecord,
    run: RunId,
    result: &TaskResult,
) -> Result<()> {
    let tasks = &order.order.tasks;
    let Some(place) =
        tasks.iter().position(|t| matches!(&t.state, TaskState::Ended { run: ended, .. } if *ended == run))
    else {
        return Ok(());
    };
    let Task::Wipe(task) = &tasks[place].task else { return Ok(()) };
    if order.order.dry_run {
        return Ok(());
    }
    let Some(run) = tx.run(run).await? else { return Ok(()) };
    let inventory = tx.inventory(node.id).await?.unwrap_or_default();
    let policy = tx.certificate_policy().await?;
    let ended = Ended { node, order, run, place, task, inventory, policy };
    let mut made = 0;
    for (index, device) in result.devices.iter().enumerate() {
        let name = format!("{} ({})", device.seen_as, device.identity);
        match ended.device(tx, index, device).await? {
            Ok(number) => {
                made += 1;
                say(tx, &ended, format!("certificate {number} of sanitization for {name}")).await?;
            }
            Err(why) => say(tx, &ended, format!("no certificate of sanitization for {name}: {why}")).await?,
        }
    }
    // The machine's comes after the last wipe of its order. Whoever wiped some disks did not ask for it.
    let later = tasks[place + 1..].iter().any(|t| matches!(t.task, Task::Wipe(_)) && !t.state.is_final());
    if made == 0 || later || task.devices != WipeTargets::AllDisks {
        return Ok(());
    }
    let text = match machine(tx, node, order, &ended.policy).await? {
        Ok(made) => format!("certificate {} of sanitization for the whole of {}", made.view.number, node.name),
        Err(why) => format!("no certificate for the whole of {}: {why}", node.name),
    };
    say(tx, &ended, text).await
}

impl Ended<'_> {
    /// The number of the device's certificate, or why it gets none.
    async fn device(
        &self,
        tx: &mut dyn Transaction,
        index: usize,
        result: &DeviceResult,
    ) -> Result<std::result::Result<u64, String>> {
        let disk = find(&result.identity, &self.inventory.disks);
        let started = self.run.started.as_ref();
        let judged = judge(&Evidence {
            task: self.task,
            plan: started.map(|s| &s.plan),
            result,
            disk,
            certify_volumes: self.policy.certify_volumes,
        });
        let (judged, started) = match (judged, started) {
            (Ok(judged), Some(started)) => (judged, started),
            (Err(refusal), _) => return Ok(Err(refusal.to_string())),
            (Ok(_), None) => return Ok(Err("the start of the run was never recorded".into())),
        };
        let order = &self.order.order;
        let notes = order.notes.clone().unwrap_or_default().of_device(&result.identity.serial);
        let (serial, method) = (judged.device.serial.clone(), judged.sanitization.method);
        let subject = Subject::Device(DeviceCertificate {
            device: judged.device,
            machine: identity(self.node, &self.inventory),
            sanitization: judged.sanitization,
            verification: judged.verification,
            device_log: judged.device_log,
            health_before: judged.health_before,
            health_after: judged.health_after,
            work: Work {
                order: order.id,
                ordered_by: order.by.clone(),
                ordered: order.created,
                task: u32::try_from(self.place).unwrap_or(u32::MAX),
                run: self.run.id,
                epoch: self.run.epoch,
                plan: started.digest.clone(),
                permitted: timestamp(started.at),
                begun: judged.begun,
                ended: judged.ended,
                duration_ms: judged.duration_ms,
                tool: self.node.build.clone(),
            },
            notes,
            remarks: judged.remarks,
        });
        let made = New {
            origin: format!("run {} device {index}", self.run.id),
            disk: disk.map_or_else(|| format!("unrecorded {}", result.identity), disk_key),
            node: self.node,
            order: order.id,
            run: Some(self.run.id),
            serial,
            method: Some(method),
            policy: &self.policy,
        };
        Ok(made.put(tx, subject).await?.map(|c| c.view.number))
    }
}

/// The certificate of the whole machine, or why there is none. Made once for each order.
pub(super) async fn machine(
    tx: &mut dyn Transaction,
    node: &Node,
    order: &OrderRecord,
    policy: &CertificatePolicy,
) -> Result<std::result::Result<WipeCertificate, String>> {
    let origin = format!("order {}", order.order.id);
    if let Some(made) = tx.wipe_certificate_for(&origin).await? {
        return Ok(Ok(made));
    }
    let query = CertificatesQuery { order: Some(order.order.id), ..CertificatesQuery::default() };
    let mut certified = Vec::new();
    for certificate in tx.wipe_certificates(&query).await? {
        let document = match open(tx, &certificate.document).await {
            Ok(document) => document,
            // An end that cannot be stored would be told for ever.
            Err(Failure::Refused(fault)) => return Ok(Err(fault.to_string())),
            Err(failure) => return Err(failure),
        };
        if let Subject::Device(device) = &document.statement().subject {
            certified.push((certificate.disk.clone(), in_machine(&document, device)));
        }
    }
    let known = tx.known_disks(node.id).await?;
    let whole = match whole(&known, &certified) {
        Ok(whole) => whole,
        Err(incomplete) => return Ok(Err(incomplete.to_string())),
    };
    let mut remarks = vec![
        "The devices are those that this site's controller ever recorded in the machine. A device that it never saw is \
         not among them."
            .to_owned(),
    ];
    if whole.devices.iter().any(|d| !d.medium.is_physical()) {
        remarks.push("Some devices are volumes. About the physical media under them this is no statement.".into());
    }
    let inventory = tx.inventory(node.id).await?.unwrap_or_default();
    let subject = Subject::Machine(MachineCertificate {
        machine: identity(node, &inventory),
        order: order.order.id,
        ordered_by: order.order.by.clone(),
        reached: whole.reached,
        devices: whole.devices,
        left_out: whole.left_out,
        notes: order.order.notes.clone().unwrap_or_default().of_machine(),
        remarks,
    });
    let serial = node.system.serial_number.trim().to_owned();
    let (order, disk) = (order.order.id, String::new());
    New { origin, disk, node, order, run: None, serial, method: None, policy }.put(tx, subject).await
}

fn in_machine(document: &Document, device: &DeviceCertificate) -> CertifiedDevice {
    CertifiedDevice {
        number: document.statement().number,
        document: document.digest().clone(),
        model: device.device.model.clone(),
        serial: device.device.serial.clone(),
        size: device.device.size,
        reached: device.sanitization.reached,
        method: device.sanitization.method,
        medium: device.device.medium.clone(),
    }
}

/// A certificate on its way to the end of the chain.
struct New<'a> {
    origin: String,
    disk: String,
    node: &'a Node,
    order: OrderId,
    run: Option<RunId>,
    serial: String,
    method: Option<speediso_model::wipe::WipeMethod>,
    policy: &'a CertificatePolicy,
}

impl New<'_> {
    async fn put(
        self,
        tx: &mut dyn Transaction,
        subject: Subject,
    ) -> Result<std::result::Result<WipeCertificate, String>> {
        if let Some(made) = tx.wipe_certificate_for(&self.origin).await? {
            return Ok(Ok(made));
        }
        let chain = tx.wipe_certificate_head().await?.map_or_else(Chain::default, |(n, d)| Chain::after(n, d));
        let kind = match &subject {
            Subject::Device(_) => CertificateKind::Device,
            Subject::Machine(_) => CertificateKind::Machine,
        };
        let (description, reached) = (subject.describe(), subject.reached());
        let issued = timestamp(tx.now());
        let statement = Statement {
            format: Format::V1,
            number: chain.next_number(),
            previous: chain.head().clone(),
            issued,
            issuer: Issuer {
                organization: self.policy.organization.clone(),
                location: self.policy.location.clone(),
                responsible: self.policy.responsible.clone(),
                program: PROGRAM.to_owned(),
            },
            subject,
        };
        let sealed = match SiteSigner::current(tx).await?.seal(statement) {
            Ok(sealed) => sealed,
            Err(error) => return Ok(Err(error.to_string())),
        };
        let certificate = WipeCertificate {
            view: CertificateView {
                number: chain.next_number(),
                document: sealed.digest().clone(),
                issued,
                kind,
                node: self.node.id,
                node_name: self.node.name.clone(),
                order: self.order,
                run: self.run,
                subject: description,
                serial: self.serial,
                reached,
                method: self.method,
                key: sealed.key().to_string(),
            },
            origin: self.origin,
            disk: self.disk,
            document: sealed.text().to_owned(),
        };
        tx.put_wipe_certificate(&certificate).await?;
        Ok(Ok(certificate))
    }
}

fn identity(node: &Node, inventory: &Inventory) -> MachineIdentity {
    // What the machine says now, or what it was recorded with.
    let system = if inventory.system_vendor.serial_number.is_empty() { &node.system } else { &inventory.system_vendor };
    MachineIdentity {
        node: node.id,
        name: node.name.clone(),
        manufacturer: system.manufacturer.clone(),
        product: system.product_name.clone(),
        serial: system.serial_number.clone(),
        uuid: system.uuid.clone(),
        chassis_serial: system.chassis_serial.clone(),
        asset_tag: system.asset_tag.clone(),
    }
}

/// A stored document, seen to be whole: the store is not trusted with what a signature is for.
pub(super) async fn open(tx: &mut dyn Transaction, text: &str) -> Result<Document> {
    let keys = tx.site_keys().await?;
    let opened = Document::open(text.as_bytes(), |k| keys.iter().any(|s| s.key == k.to_string()), is_signed);
    opened.map_err(|error| {
        let fault = Fault::new(FaultCode::SignatureInvalid, "a certificate in the store is not as it was signed");
        let advice = "restore the store from a backup, and find out who changed it".to_owned();
        Failure::Refused(Fault { advice, ..fault.because(error.to_string()) })
    })
}

async fn say(tx: &mut dyn Transaction, ended: &Ended<'_>, text: String) -> Result<()> {
    let (node, order) = (ended.node.id, Some(ended.order.order.id));
    tracing::info!(node = %ended.node.name, "{text}");
    let (source, detail) = (CONTROLLER.to_owned(), serde_json::Value::Null);
    tx.put_event(&NewEvent { node, order, source, late: false, text, detail }).await?;
    Ok(tx.touch(wake::EVENTS).await?)
}

pub(super) fn timestamp(at: crate::store::Millis) -> jiff::Timestamp {
    jiff::Timestamp::from_millisecond(at).unwrap_or(jiff::Timestamp::UNIX_EPOCH)
}

/// Remembers the disks of an inventory, and of the one before if that was stored by a controller that did not.
pub(super) async fn see_disks(tx: &mut dyn Transaction, node: NodeId, disks: &[Disk]) -> Result<()> {
    if tx.known_disks(node).await?.is_empty()
        && let Some(before) = tx.inventory(node).await?
    {
        for disk in &before.disks {
            tx.see_disk(node, &disk_key(disk), disk).await?;
        }
    }
    for disk in disks {
        tx.see_disk(node, &disk_key(disk), disk).await?;
    }
    Ok(())
}

//! Discovering the hardware. What cannot be read is said, never guessed.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use speediso_model::build::BuildInfo;
use speediso_model::inventory::{Boot, Inventory, Memory, canonical_mac, unlisted};
use speediso_model::outcome::{Changed, Outcome, TaskResult};
use speediso_model::plan::Plan;
use speediso_model::task::InventoryTask;
use speediso_model::units::MIB;
use speediso_model::{fault, inventory};
use speediso_sys::disks::DiskScope;
use speediso_sys::roots::{self, Roots};
use speediso_sys::{blkid, cpu, disks, dmi, machine, nics};
use sysinfo::System;

use crate::ctx::TaskCtx;
use crate::devices;

const KIND: &str = "inventory";

pub(crate) fn plan() -> Plan {
    Plan { task: KIND.to_owned(), destructive: false, devices: Vec::new(), effects: Vec::new(), untouched: Vec::new() }
}

pub(crate) fn execute(task: &InventoryTask, ctx: &TaskCtx) -> TaskResult {
    if let Err(fault) = ctx.cancel.check() {
        return TaskResult::failed(KIND, Outcome::FailedUnchanged, fault);
    }
    if task.expect.as_ref().is_some_and(|e| e.names_switches()) {
        devices::await_neighbours(&ctx.roots, &ctx.cancel);
    }
    ctx.reporter.step_began("look");
    let inventory = collect(ctx);
    let summary = summary(&inventory);
    ctx.reporter.step_ended("look", &summary);
    for gap in &inventory.unread {
        ctx.reporter.notice(gap);
    }
    let result = match task.expect.as_ref().map(|e| e.unmet(&inventory)) {
        None => TaskResult::verified(KIND, "kernel, SMBIOS tables and libblkid", Changed::AlreadySo),
        Some(unmet) if unmet.is_empty() => {
            ctx.reporter.notice("the machine is as expected");
            TaskResult::verified(
                KIND,
                "kernel, SMBIOS tables and libblkid, held against what is expected",
                Changed::AlreadySo,
            )
        }
        Some(unmet) => TaskResult::failed(KIND, Outcome::FailedUnchanged, unexpected(&inventory, unmet)),
    };
    match serde_json::to_value(&inventory) {
        Ok(output) => TaskResult { output: Some(output), ..result },
        Err(error) => TaskResult::failed(
            KIND,
            Outcome::FailedUnchanged,
            fault::Fault::from_error(fault::FaultCode::Internal, &error),
        ),
    }
}

/// With one cause for each line that is not met.
fn unexpected(inventory: &Inventory, unmet: Vec<String>) -> fault::Fault {
    let system = &inventory.system_vendor;
    let message = format!(
        "{} {} with serial number {:?} is not what was expected; nothing was changed",
        system.manufacturer, system.product_name, system.serial_number
    );
    fault::Fault { causes: unmet, ..fault::Fault::new(fault::FaultCode::HardwareUnexpected, message.trim()) }
}

fn summary(inventory: &Inventory) -> String {
    format!(
        "{} processors, {} of memory, {} disks, {} interfaces",
        inventory.cpu.count,
        inventory.memory.total,
        inventory.disks.len(),
        inventory.interfaces.len()
    )
}

/// What looking takes: much less than a task's surroundings, so that looking alone is cheap.
#[derive(Clone, Debug)]
pub struct Look {
    pub roots: Roots,
    pub scope: DiskScope,
    /// The program that examines a disk in a child of its own.
    pub probe: Option<PathBuf>,
    /// MAC address of the interface that was booted from.
    pub boot_mac: Option<String>,
    pub build: BuildInfo,
}

impl Look {
    fn with(ctx: &TaskCtx) -> Self {
        Self {
            roots: ctx.roots.clone(),
            scope: ctx.scope,
            probe: ctx.probe.clone(),
            boot_mac: ctx.boot_mac.clone(),
            build: ctx.build.clone(),
        }
    }
}

/// Everything this machine tells, in a second or so; a stuck disk costs its probing deadline, not the inventory.
#[must_use]
pub fn collect(ctx: &TaskCtx) -> Inventory {
    look(&Look::with(ctx))
}

/// The same without a task. A part that cannot be read is a line in `unread`, and takes no other part with it.
#[must_use]
pub fn look(ctx: &Look) -> Inventory {
    let roots = &ctx.roots;
    let mut unread = Vec::new();
    let bmc = devices::begin_bmc(roots);
    let smbios = dmi::examine(roots);
    unread.extend(smbios.problems);
    let mut cpu = cpu::read(roots).unwrap_or_else(|e| {
        unread.push(format!("processors could not be read: {e}"));
        inventory::Cpu::default()
    });
    // Kernels of 64-bit ARM name no model. The firmware does.
    if let Some(socket) = smbios.sockets.iter().find(|socket| socket.populated) {
        for (name, told) in [(&mut cpu.model_name, &socket.version), (&mut cpu.vendor, &socket.manufacturer)] {
            if name.is_empty() {
                name.clone_from(told);
            }
        }
    }
    cpu.sockets = smbios.sockets;
    let total = machine::memory::total(roots, &mut unread);
    let plugged: u64 = smbios.modules.iter().map(|m| m.size_mb).sum();
    let disks = disks(ctx, &mut unread);
    let interfaces = interfaces(ctx, &mut unread);
    let boot = Boot { pxe_interface: boot_mac(ctx), ..machine::boot::read(roots, &mut unread) };
    let pci_devices = machine::pci::read(roots, &mut unread);
    let mut inventory = Inventory {
        hostname: host_name(roots, &mut unread),
        system_vendor: smbios.system,
        cpu,
        memory: Memory {
            total,
            physical_mb: if plugged > 0 { plugged } else { total.0 / MIB },
            modules: smbios.modules,
            empty_slots: smbios.empty_slots,
            arrays: smbios.arrays,
        },
        disks,
        interfaces,
        boot,
        numa_topology: machine::numa::read(roots, &mut unread),
        gpus: machine::pci::gpus(roots, &pci_devices),
        pci_devices,
        usb_devices: machine::usb::read(roots, &mut unread),
        tpm: machine::tpm::read(roots, &mut unread),
        sensors: machine::hwmon::read(roots, &mut unread),
        boards: smbios.boards,
        chassis: smbios.chassis,
        slots: smbios.slots,
        onboard_devices: smbios.onboard_devices,
        power_supplies: smbios.power_supplies,
        kernel: machine::kernel::read(roots, &mut unread),
        build: ctx.build.clone(),
        unread,
        ..Inventory::default()
    };
    bmc.end(&mut inventory);
    machine::names::add(roots, &mut inventory);
    inventory
}

/// A captured machine's own, or the live one's.
fn host_name(roots: &Roots, unread: &mut Vec<String>) -> String {
    let captured = roots::read_line(&roots.proc.join("sys/kernel/hostname"));
    let name = captured.or_else(|| System::host_name().ok()).unwrap_or_else(|| {
        unread.push("host name could not be read".to_owned());
        String::new()
    });
    // The kernel's word for a name that nobody has given yet.
    if name == "(none)" { String::new() } else { name }
}

fn disks(ctx: &Look, unread: &mut Vec<String>) -> Vec<inventory::Disk> {
    let mut disks = disks::read(&ctx.roots, ctx.scope).unwrap_or_else(|e| {
        unread.push(unlisted::DISKS.because(e));
        Vec::new()
    });
    devices::ask_disks(&ctx.roots, &mut disks, unread);
    let Some(probe) = &ctx.probe else {
        unread.push("disks were not probed for signatures: no probing child is configured".to_owned());
        return disks;
    };
    let probed = probe_all(probe, &disks);
    for (disk, probed) in disks.iter_mut().zip(probed) {
        match probed {
            None => {}
            Some(Ok(signatures)) => disk.signatures = signatures,
            Some(Err(error)) => {
                unread.push(format!(
                    "{} could not be probed: {}",
                    disk.name,
                    fault::Fault::from_error(fault::FaultCode::DiskIo, &error)
                ));
            }
        }
    }
    disks
}

/// Side by side, since one of them may be dying, but not hundreds of children at once.
fn probe_all(probe: &Path, disks: &[inventory::Disk]) -> Vec<Option<Result<Vec<String>, blkid::ProbeError>>> {
    const AT_ONCE: usize = 16;
    let next = AtomicUsize::new(0);
    let found = Mutex::new(disks.iter().map(|_| None).collect::<Vec<_>>());
    std::thread::scope(|scope| {
        for _ in 0..disks.len().min(AT_ONCE) {
            scope.spawn(|| {
                while let Some((at, disk)) =
                    Some(next.fetch_add(1, Ordering::Relaxed)).and_then(|at| Some((at, disks.get(at)?)))
                {
                    // No medium, nothing to read.
                    if disk.size.0 > 0 {
                        let signatures = blkid::probe_in_child(probe, Path::new(&disk.name));
                        found.lock().unwrap_or_else(PoisonError::into_inner)[at] = Some(signatures);
                    }
                }
            });
        }
    });
    found.into_inner().unwrap_or_else(PoisonError::into_inner)
}

fn interfaces(ctx: &Look, unread: &mut Vec<String>) -> Vec<inventory::Interface> {
    let mut interfaces = nics::read(&ctx.roots).unwrap_or_else(|e| {
        unread.push(unlisted::INTERFACES.because(e));
        Vec::new()
    });
    if let Err(error) = nics::add_addresses(&mut interfaces) {
        unread.push(format!("network addresses could not be read: {error}"));
    }
    devices::ask_interfaces(&ctx.roots, &mut interfaces, unread);
    if let Some(mac) = boot_mac(ctx) {
        for interface in &mut interfaces {
            interface.boot = interface.mac_address == mac;
        }
        if !interfaces.iter().any(|i| i.boot) {
            unread.push(format!(
                "the machine was started over the interface {mac}, which is not here: its driver may be missing"
            ));
        }
    }
    interfaces
}

fn boot_mac(ctx: &Look) -> Option<String> {
    ctx.boot_mac.as_deref().and_then(canonical_mac)
}

//! Discovering the hardware. What cannot be read is said, never guessed.

use std::path::Path;

use speediso_model::inventory::{Boot, Inventory, Memory, MemoryModule, canonical_mac, unlisted};
use speediso_model::outcome::{Changed, Outcome, TaskResult};
use speediso_model::plan::Plan;
use speediso_model::task::InventoryTask;
use speediso_model::units::{Bytes, MIB};
use speediso_model::{fault, inventory};
use speediso_sys::{blkid, cpu, disks, dmi, efi, nics};
use sysinfo::{MemoryRefreshKind, System};

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

/// Everything this machine tells, in a second or so; a stuck disk costs its probing deadline, not the inventory.
#[must_use]
pub fn collect(ctx: &TaskCtx) -> Inventory {
    let mut unread = Vec::new();
    let bmc = devices::begin_bmc(ctx);
    let dmi = dmi::examine(&ctx.roots);
    unread.extend(dmi.problems);
    let cpu = cpu::read(&ctx.roots).unwrap_or_else(|e| {
        unread.push(format!("processors could not be read: {e}"));
        inventory::Cpu::default()
    });
    let memory = memory(dmi.modules, &mut unread);
    let disks = disks(ctx, &mut unread);
    let interfaces = interfaces(ctx, &mut unread);
    let boot = boot(ctx, &mut unread);
    let hostname = System::host_name().unwrap_or_else(|e| {
        unread.push(format!("host name could not be read: {e}"));
        String::new()
    });
    let mut inventory = Inventory {
        hostname,
        system_vendor: dmi.system,
        cpu,
        memory,
        disks,
        interfaces,
        boot,
        build: ctx.build.clone(),
        unread,
        ..Inventory::default()
    };
    bmc.end(&mut inventory);
    inventory
}

/// The running kernel's memory: it has no root to read a captured machine's from.
fn memory(modules: Vec<MemoryModule>, unread: &mut Vec<String>) -> Memory {
    let total = match System::new() {
        Ok(mut system) => {
            system.refresh_memory_specifics(MemoryRefreshKind::nothing().with_ram());
            Bytes(system.total_memory())
        }
        Err(error) => {
            unread.push(format!("memory could not be read: {error}"));
            Bytes(0)
        }
    };
    let plugged: u64 = modules.iter().map(|m| m.size_mb).sum();
    Memory { total, physical_mb: if plugged > 0 { plugged } else { total.0 / MIB }, modules }
}

fn disks(ctx: &TaskCtx, unread: &mut Vec<String>) -> Vec<inventory::Disk> {
    let mut disks = disks::read(&ctx.roots, ctx.scope).unwrap_or_else(|e| {
        unread.push(unlisted::DISKS.because(e));
        Vec::new()
    });
    devices::ask_disks(ctx, &mut disks, unread);
    let Some(probe) = &ctx.probe else {
        unread.push("disks were not probed for signatures: no probing child is configured".to_owned());
        return disks;
    };
    // Side by side: a machine may have dozens, and one of them may be dying.
    let probed: Vec<_> = std::thread::scope(|scope| {
        let running: Vec<_> = disks
            .iter()
            // No medium, nothing to read.
            .map(|disk| (disk.size.0 > 0).then(|| scope.spawn(|| blkid::probe_in_child(probe, Path::new(&disk.name)))))
            .collect();
        running.into_iter().map(|thread| thread.map(std::thread::ScopedJoinHandle::join)).collect()
    });
    for (disk, probed) in disks.iter_mut().zip(probed) {
        match probed {
            None => {}
            Some(Ok(Ok(signatures))) => disk.signatures = signatures,
            Some(Ok(Err(error))) => {
                unread.push(format!(
                    "{} could not be probed: {}",
                    disk.name,
                    fault::Fault::from_error(fault::FaultCode::DiskIo, &error)
                ));
            }
            Some(Err(_)) => unread.push(format!("{} could not be probed: the probe panicked", disk.name)),
        }
    }
    disks
}

fn interfaces(ctx: &TaskCtx, unread: &mut Vec<String>) -> Vec<inventory::Interface> {
    let mut interfaces = nics::read(&ctx.roots).unwrap_or_else(|e| {
        unread.push(unlisted::INTERFACES.because(e));
        Vec::new()
    });
    if let Err(error) = nics::add_addresses(&mut interfaces) {
        unread.push(format!("network addresses could not be read: {error}"));
    }
    devices::ask_interfaces(ctx, &mut interfaces, unread);
    if let Some(mac) = boot_mac(ctx) {
        for interface in &mut interfaces {
            interface.boot = interface.mac_address == mac;
        }
        if !interfaces.iter().any(|i| i.boot) {
            unread.push(format!(
                "the boot loader used interface {mac} (BOOTIF), which is not here: its driver may be missing"
            ));
        }
    }
    interfaces
}

fn boot_mac(ctx: &TaskCtx) -> Option<String> {
    ctx.boot_mac.as_deref().and_then(canonical_mac)
}

fn boot(ctx: &TaskCtx, unread: &mut Vec<String>) -> Boot {
    let uefi = efi::is_uefi(&ctx.roots);
    let secure_boot = if uefi {
        efi::secure_boot(&ctx.roots).unwrap_or_else(|e| {
            unread.push(format!("Secure Boot state could not be read: {e}"));
            None
        })
    } else {
        None
    };
    Boot { current_boot_mode: if uefi { "uefi" } else { "bios" }.to_owned(), pxe_interface: boot_mac(ctx), secure_boot }
}

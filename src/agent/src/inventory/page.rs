//! The inventory as a page for people.

use speediso_model::inventory::{Boot, Inventory, Memory, PcieLink, Sensor, SystemVendor, Use, is_real_identifier};
use speediso_model::units::{Bytes, MIB};

use super::sheet::Sheet;

/// Sections that have nothing to say are left out; what could not be read stands at the end.
#[must_use]
pub fn page(inventory: &Inventory) -> String {
    let mut sheet = Sheet::default();
    system(&mut sheet, inventory);
    boot(&mut sheet, inventory);
    processors(&mut sheet, inventory);
    memory(&mut sheet, &inventory.memory);
    numa(&mut sheet, inventory);
    disks(&mut sheet, inventory);
    network(&mut sheet, inventory);
    gpus(&mut sheet, inventory);
    pci(&mut sheet, inventory);
    usb(&mut sheet, inventory);
    power(&mut sheet, inventory);
    sensors(&mut sheet, &inventory.sensors);
    unread(&mut sheet, inventory);
    sheet.finish()
}

/// Texts that say something, with what they say it of.
fn named(parts: &[(&str, &str)]) -> String {
    let said = parts.iter().map(|(name, value)| (*name, value.trim())).filter(|(_, value)| !value.is_empty());
    let words: Vec<String> =
        said.map(|(name, value)| if name.is_empty() { value.to_owned() } else { format!("{name} {value}") }).collect();
    words.join(", ")
}

/// A serial number as it is, and whether it is one.
fn identity(text: &str) -> String {
    match text {
        "" => "(none)".into(),
        text if is_real_identifier(text) => text.to_owned(),
        text => format!("{text} (a placeholder: it identifies nothing)"),
    }
}

fn text<T: ToString>(value: Option<T>) -> String {
    value.map(|value| value.to_string()).unwrap_or_default()
}

fn system(sheet: &mut Sheet, inventory: &Inventory) {
    let SystemVendor { manufacturer, product_name, version, serial_number, uuid, asset_tag, .. } =
        &inventory.system_vendor;
    sheet.section("SYSTEM");
    sheet.row("machine", &named(&[("", &format!("{manufacturer} {product_name}")), ("version", version)]));
    sheet.row("serial", &identity(serial_number));
    sheet.row("uuid", uuid.as_deref().unwrap_or("(none)"));
    sheet.row("asset tag", asset_tag);
    for board in &inventory.boards {
        let name = format!("{} {}", board.manufacturer, board.product_name);
        sheet.row("board", &named(&[("", name.trim()), ("version", &board.version), ("serial", &board.serial_number)]));
    }
    for chassis in &inventory.chassis {
        let kind = chassis.kind.as_deref().filter(|kind| !matches!(*kind, "Other" | "Unknown")).unwrap_or_default();
        let name = format!("{} {kind}", chassis.manufacturer);
        let height = chassis.height_units.map(|units| format!("{units} U")).unwrap_or_default();
        sheet.row("chassis", &named(&[("", name.trim()), ("", &height), ("serial", &chassis.serial_number)]));
    }
    sheet.row("host name", &inventory.hostname);
    let kernel = &inventory.kernel;
    sheet.row("kernel", &named(&[("", &kernel.release), ("up", &duration(kernel.uptime_s))]));
    sheet.row("command line", &kernel.command_line);
    if let Some(tpm) = &inventory.tpm {
        let parts = [
            ("", tpm.version.as_deref().unwrap_or("of unknown version")),
            ("by", tpm.manufacturer.as_deref().unwrap_or_default()),
            ("firmware", tpm.firmware_version.as_deref().unwrap_or_default()),
            ("PCR banks", &tpm.pcr_banks.join(" ")),
        ];
        sheet.row("TPM", &named(&parts));
    }
}

fn duration(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours) {
        (0, 0) => format!("{minutes} min"),
        (0, _) => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h"),
    }
}

fn boot(sheet: &mut Sheet, inventory: &Inventory) {
    let firmware = &inventory.system_vendor.firmware;
    let boot: &Boot = &inventory.boot;
    sheet.section("FIRMWARE AND BOOT");
    let release = firmware.release.as_deref().unwrap_or_default();
    let parts = [
        ("", firmware.vendor.as_str()),
        ("version", &firmware.version),
        ("of", &firmware.build_date),
        ("release", release),
    ];
    sheet.row("firmware", &named(&parts));
    let uefi = boot.uefi_version.as_deref().unwrap_or_default();
    sheet.row("mode", &named(&[("", &boot.current_boot_mode), ("version", uefi)]));
    if boot.current_boot_mode == "uefi" {
        let secure = match (boot.secure_boot, boot.setup_mode) {
            (Some(true), _) => "on",
            (Some(false), Some(true)) => "off, in setup mode: anybody may enrol keys",
            (Some(false), _) => "off",
            (None, _) => "the firmware does not say",
        };
        sheet.row("secure boot", secure);
    }
    sheet.row("booted from", &text(boot.pxe_interface.as_deref()));
    sheet.row("boot order", &boot.order.join(", "));
    let rows = boot.entries.iter().map(|entry| {
        let mark = if boot.current.as_ref() == Some(&entry.number) { "*" } else { "" };
        let state = if entry.active { "" } else { "off" };
        let file = entry.file.clone().unwrap_or_default();
        vec![format!("{}{mark}", entry.number), state.into(), entry.description.clone(), file]
    });
    sheet.table(&rows.collect::<Vec<_>>());
}

fn processors(sheet: &mut Sheet, inventory: &Inventory) {
    let cpu = &inventory.cpu;
    sheet.section("PROCESSORS");
    sheet.row("model", &cpu.model_name);
    sheet.row(
        "count",
        &format!("{} sockets, {} cores, {} threads, {}", cpu.socket_count, cpu.core_count, cpu.count, cpu.architecture),
    );
    let mhz =
        |name: &'static str, value: Option<u32>| (name, value.map(|mhz| format!("{mhz} MHz")).unwrap_or_default());
    let f = &cpu.frequencies;
    let known = [mhz("now", f.current_mhz), mhz("base", f.base_mhz), mhz("highest", f.max_mhz)];
    sheet.row("frequency", &named(&known.each_ref().map(|(name, value)| (*name, value.as_str()))));
    sheet.row("microcode", &cpu.microcode.join(", "));
    let caches = cpu.caches.iter().map(|cache| {
        let kind = cache.kind.chars().next().filter(|_| cache.kind != "Unified").map(String::from).unwrap_or_default();
        format!("L{}{} {} x {}", cache.level, kind.to_lowercase(), cache.count, cache.size)
    });
    sheet.row("caches", &caches.collect::<Vec<_>>().join(", "));
    let open = cpu.vulnerabilities.iter().filter(|(_, state)| state.starts_with("Vulnerable"));
    sheet.row("vulnerable", &open.map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", "));
    let empty: Vec<&str> = cpu.sockets.iter().filter(|s| !s.populated).map(|s| s.designation.as_str()).collect();
    sheet.row("empty sockets", &empty.join(", "));
}

fn memory(sheet: &mut Sheet, memory: &Memory) {
    sheet.section("MEMORY");
    sheet.row("total", &format!("{} for the kernel, {} plugged in", memory.total, Bytes::mib(memory.physical_mb)));
    let ecc: Vec<&str> = memory.arrays.iter().filter_map(|array| array.error_correction.as_deref()).collect();
    sheet.row("correction", ecc.first().copied().unwrap_or_default());
    let rows = memory.modules.iter().map(|module| {
        let speed = match (module.configured_speed_mts, module.speed_mts) {
            (Some(now), Some(possible)) if now != possible => format!("{now} of {possible} MT/s"),
            (now, possible) => now.or(possible).map(|speed| format!("{speed} MT/s")).unwrap_or_default(),
        };
        vec![
            module.slot.clone(),
            Bytes(module.size_mb.saturating_mul(MIB)).to_string(),
            text(module.kind.as_deref()),
            speed,
            named(&[
                ("", &format!("{} {}", module.manufacturer, module.part_number)),
                ("serial", &module.serial_number),
            ]),
        ]
    });
    sheet.table(&rows.collect::<Vec<_>>());
    sheet.row("empty slots", &memory.empty_slots.iter().map(|slot| slot.slot.as_str()).collect::<Vec<_>>().join(", "));
}

fn numa(sheet: &mut Sheet, inventory: &Inventory) {
    let nodes = &inventory.numa_topology.nodes;
    sheet.section("NUMA NODES");
    if nodes.len() < 2 {
        return;
    }
    let rows = nodes.iter().map(|node| {
        let distances: Vec<String> = node.distances.iter().map(ToString::to_string).collect();
        let cpus = if node.cpus.is_empty() { "no processors".into() } else { format!("processors {}", node.cpus) };
        vec![node.node.to_string(), node.memory.to_string(), cpus, format!("distances {}", distances.join(" "))]
    });
    sheet.table(&rows.collect::<Vec<_>>());
}

fn disks(sheet: &mut Sheet, inventory: &Inventory) {
    sheet.section("DISKS");
    let rows = inventory.disks.iter().map(|disk| {
        let uses = disk.in_use.iter().map(|used| match used {
            Use::Mounted { at, .. } => format!("mounted at {at}"),
            Use::Swap { .. } => "swap".to_owned(),
            Use::Holder { name, .. } => format!("held by {name}"),
        });
        let kind = serde_json::to_value(disk.tran).ok().and_then(|kind| kind.as_str().map(str::to_owned));
        let state: Vec<String> = uses.chain(disk.signatures.iter().cloned()).collect();
        vec![
            disk.name.trim_start_matches("/dev/").to_owned(),
            disk.size.to_string(),
            text(kind),
            disk.serial.clone(),
            named(&[("", disk.model.as_str()), ("firmware", &disk.firmware), ("", &state.join(", "))]),
        ]
    });
    sheet.table(&rows.collect::<Vec<_>>());
}

fn network(sheet: &mut Sheet, inventory: &Inventory) {
    sheet.section("NETWORK");
    let rows = inventory.interfaces.iter().map(|nic| {
        let link = match (nic.has_carrier, nic.speed_mbps) {
            (false, _) => "no link".to_owned(),
            (true, Some(speed)) => format!("{speed} Mbit/s"),
            (true, None) => "link".to_owned(),
        };
        let addresses: Vec<&str> = nic.ipv4_address.iter().chain(&nic.ipv6_address).map(String::as_str).collect();
        let boot = if nic.boot { "booted from" } else { "" };
        vec![
            nic.name.clone(),
            nic.mac_address.clone(),
            link,
            text(nic.driver.as_deref()),
            named(&[("", boot), ("", &addresses.join(" ")), ("at", nic.pci_address.as_deref().unwrap_or_default())]),
        ]
    });
    sheet.table(&rows.collect::<Vec<_>>());
}

fn link_words(link: Option<&PcieLink>) -> String {
    let Some(link) = link else { return String::new() };
    let width = |lanes: Option<u32>| lanes.map_or_else(|| "x?".to_owned(), |lanes| format!("x{lanes}"));
    match link.lanes {
        Some(0) => "no link".into(),
        _ if link.is_narrow() => format!("{} of {}", width(link.lanes), width(link.max_lanes)),
        lanes => width(lanes),
    }
}

fn gpus(sheet: &mut Sheet, inventory: &Inventory) {
    sheet.section("GRAPHICS PROCESSORS");
    let rows = inventory.gpus.iter().map(|gpu| {
        vec![
            gpu.pci_address.clone(),
            gpu.memory_window.to_string(),
            link_words(gpu.link.as_ref()),
            text(gpu.driver.as_deref()),
            gpu.name.clone().unwrap_or_else(|| format!("[{}:{}]", gpu.vendor_id, gpu.product_id)),
        ]
    });
    sheet.table(&rows.collect::<Vec<_>>());
}

fn pci(sheet: &mut Sheet, inventory: &Inventory) {
    sheet.section("PCI DEVICES");
    let (bridges, others): (Vec<_>, Vec<_>) =
        inventory.pci_devices.iter().filter(|device| !device.virtual_function).partition(|device| device.is_bridge());
    let rows = others.iter().map(|device| {
        let node = device.numa_node_id.as_deref().filter(|_| inventory.numa_topology.nodes.len() > 1);
        vec![
            device.bus.clone(),
            node.map(|node| format!("node {node}")).unwrap_or_default(),
            link_words(device.link.as_ref()),
            text(device.driver.as_deref()),
            format!("{}: {}", device.kind, device.title()),
        ]
    });
    sheet.table(&rows.collect::<Vec<_>>());
    let hidden = inventory.pci_devices.len() - others.len();
    if hidden > 0 {
        let virtual_functions = hidden - bridges.len();
        sheet.row(
            "not shown",
            &format!("{} bridges, {virtual_functions} virtual functions (--json has all)", bridges.len()),
        );
    }
}

fn usb(sheet: &mut Sheet, inventory: &Inventory) {
    sheet.section("USB DEVICES");
    let rows = inventory.usb_devices.iter().filter(|device| !device.hub).map(|device| {
        vec![
            device.path.clone(),
            format!("{}:{}", device.vendor_id, device.product_id),
            device.speed_mbps.map(|speed| format!("{speed} Mbit/s")).unwrap_or_default(),
            device.drivers.join(" "),
            // Many products begin with their maker.
            format!(
                "{} {}",
                device.vendor,
                device.product.strip_prefix(device.vendor.as_str()).unwrap_or(&device.product)
            ),
        ]
    });
    sheet.table(&rows.collect::<Vec<_>>());
}

fn power(sheet: &mut Sheet, inventory: &Inventory) {
    sheet.section("POWER SUPPLIES");
    let rows = inventory.power_supplies.iter().map(|supply| {
        let state = match (supply.present, supply.plugged_in) {
            (Some(false), _) => "not present".to_owned(),
            (_, Some(false)) => "not plugged in".to_owned(),
            _ => supply.status.clone().unwrap_or_default(),
        };
        vec![
            supply.location.clone(),
            supply.max_watts.map(|watts| format!("{watts} W")).unwrap_or_default(),
            state,
            format!("{} {}", supply.manufacturer, supply.part_number),
            named(&[("serial", &supply.serial_number)]),
        ]
    });
    sheet.table(&rows.collect::<Vec<_>>());
}

fn sensors(sheet: &mut Sheet, sensors: &[Sensor]) {
    sheet.section("SENSORS");
    let rows = sensors.iter().map(|sensor| {
        let limit = sensor.critical.or(sensor.max).map(|limit| format!("limit {limit:.1}")).unwrap_or_default();
        let alarm = if sensor.alarm == Some(true) { "ALARM" } else { "" };
        vec![
            sensor.chip.clone(),
            sensor.label.clone().unwrap_or_else(|| sensor.channel.clone()),
            format!("{:.1} {}", sensor.value, sensor.unit),
            limit,
            alarm.to_owned(),
        ]
    });
    sheet.table(&rows.collect::<Vec<_>>());
}

fn unread(sheet: &mut Sheet, inventory: &Inventory) {
    sheet.section("NOT READ");
    // Most of what is missing is missing for one reason.
    let closed = inventory.unread.iter().filter(|line| line.contains("ermission denied")).count();
    if closed > 0 {
        sheet.row("", &format!("closed to this user: {closed}; root may read them"));
    }
    for line in &inventory.unread {
        sheet.table(&[vec!["-".into(), line.clone()]]);
    }
}

#[cfg(test)]
mod tests {
    use speediso_model::inventory::{Disk, Interface, MemoryModule, NumaNode, PciDevice, Transport};

    use super::*;

    fn machine() -> Inventory {
        let mut inventory = Inventory {
            hostname: "rack7".into(),
            system_vendor: SystemVendor {
                manufacturer: "Quirk".into(),
                product_name: "R9000".into(),
                serial_number: "To Be Filled By O.E.M.".into(),
                ..SystemVendor::default()
            },
            disks: vec![Disk {
                name: "/dev/nvme0n1".into(),
                model: "Example PM9 with a name that is much longer than any".into(),
                serial: "S6Z9NX0T123456".into(),
                firmware: "GDC7302Q".into(),
                size: Bytes(3_840_755_982_336),
                tran: Transport::Nvme,
                signatures: vec!["gpt".into()],
                in_use: vec![Use::Mounted { device: "/dev/nvme0n1p1".into(), at: "/boot".into() }],
                ..Disk::default()
            }],
            interfaces: vec![Interface {
                name: "enp1s0f0np0".into(),
                mac_address: "52:54:00:a1:00:01".into(),
                has_carrier: true,
                speed_mbps: Some(25_000),
                driver: Some("ice".into()),
                pci_address: Some("0000:3b:00.0".into()),
                ipv4_address: Some("192.0.2.17".into()),
                boot: true,
                ..Interface::default()
            }],
            pci_devices: vec![
                PciDevice { bus: "0000:00:00.0".into(), class: "060000".into(), ..PciDevice::default() },
                PciDevice {
                    bus: "0000:3b:00.0".into(),
                    class: "020000".into(),
                    vendor_id: "8086".into(),
                    product_id: "1593".into(),
                    kind: "Ethernet controller".into(),
                    driver: Some("ice".into()),
                    link: Some(PcieLink { lanes: Some(4), max_lanes: Some(8), ..PcieLink::default() }),
                    numa_node_id: Some("0".into()),
                    ..PciDevice::default()
                },
            ],
            unread: vec![
                "SMBIOS tables could not be read: /sys/firmware/dmi/tables/DMI: Permission denied (os error 13)".into(),
            ],
            ..Inventory::default()
        };
        inventory.boot.current_boot_mode = "bios".into();
        inventory.memory.total = Bytes::gib(62);
        inventory.memory.physical_mb = 64 * 1024;
        inventory.memory.modules = vec![MemoryModule {
            slot: "DIMM_A1".into(),
            size_mb: 65536,
            kind: Some("DDR5".into()),
            speed_mts: Some(5600),
            configured_speed_mts: Some(4800),
            manufacturer: "Chipmaker".into(),
            part_number: "M321R8GA0PB0".into(),
            serial_number: "0BADCAFE".into(),
            ..MemoryModule::default()
        }];
        for node in 0..2 {
            inventory.numa_topology.nodes.push(NumaNode {
                node,
                cpus: format!("{0}-{1}", node * 4, node * 4 + 3),
                memory: Bytes::gib(31),
                distances: vec![10, 21],
            });
        }
        inventory
    }

    #[test]
    fn a_page_for_people() {
        insta::assert_snapshot!(page(&machine()));
    }

    #[test]
    fn every_line_fits_a_console() {
        let mut long = machine();
        long.kernel.command_line = "x".repeat(300);
        long.system_vendor.product_name = "Y ".repeat(90);
        for inventory in [long, Inventory::default()] {
            for line in page(&inventory).lines() {
                assert!(line.chars().count() <= 80, "{line}");
            }
        }
    }
}

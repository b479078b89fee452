//! The parts of a machine's page that are about its devices.

use maud::{Markup, html};
use speediso_model::hints;
use speediso_model::inventory::bmc::Bmc;
use speediso_model::inventory::compare::{Importance, SeenChanges};
use speediso_model::inventory::health::{DiskHealth, Verdict};
use speediso_model::inventory::{Disk, Interface, PciDevice};
use speediso_model::lldp;

pub(super) fn disks(disks: &[Disk]) -> Markup {
    html! {
        table {
            thead { tr { th { "Disk" } th { "Size" } th { "Sector" } th { "Attached by" } th { "Firmware" } th { "Health" } th { "Holds" } } }
            tbody {
                @for disk in disks {
                    tr {
                        td { (hints::describe(disk)) }
                        td.number { (disk.size) }
                        td.number { (disk.logical_sectors) }
                        td {
                            @if let Some(link) = &disk.link { (link) } @else { (format!("{:?}", disk.tran).to_lowercase()) }
                        }
                        td { (disk.firmware) }
                        @match &disk.health { Some(health) => { (self::health(health)) }, None => td { "–" } }
                        td { (disk.signatures.join(", ")) }
                    }
                }
            }
        }
    }
}

fn health(health: &DiskHealth) -> Markup {
    let class = match health.verdict {
        Verdict::Good => "good",
        Verdict::Suspect | Verdict::Unknown => "busy",
        Verdict::Failing => "bad",
    };
    let figures = [
        health.temperature_c.map(|t| format!("{t} °C")),
        health.power_on_hours.map(|h| format!("{h} h")),
        health.percentage_used.map(|p| format!("{p} % used")),
    ];
    html! {
        td class=(class) {
            (health.verdict.name())
            @let figures = figures.into_iter().flatten().collect::<Vec<_>>().join(", ");
            @if !figures.is_empty() { br; small { (figures) } }
            @for reason in &health.reasons { br; small { (reason) } }
        }
    }
}

pub(super) fn interfaces(interfaces: &[Interface]) -> Markup {
    html! {
        table {
            thead { tr { th { "Interface" } th { "MAC" } th { "Address" } th { "Driver" } th { "Firmware" } th { "Link" } th { "Plugged into" } } }
            tbody {
                @for nic in interfaces {
                    tr {
                        td { (nic.name) @if nic.boot { " " small { "booted from" } } }
                        td { (nic.mac_address) }
                        td { (nic.ipv4_address.as_deref().unwrap_or("–")) }
                        td { (nic.driver.as_deref().unwrap_or("–")) }
                        td { (nic.firmware_version.as_deref().unwrap_or("–")) }
                        td {
                            @if nic.has_carrier { "up" } @else { "down" }
                            @if let Some(speed) = nic.speed_mbps { ", " (speed) " Mbit/s" }
                        }
                        td {
                            @match lldp::switch_of(&nic.neighbours) {
                                Some(switch) => (switch.in_words()),
                                None => (nic.neighbours.iter().map(lldp::Neighbour::in_words).collect::<Vec<_>>().join(", ")),
                            }
                        }
                    }
                }
            }
        }
    }
}

/// What is plugged in; bridges and the functions of the board itself are in the inventory only.
pub(super) fn cards(devices: &[PciDevice]) -> Markup {
    let cards: Vec<&PciDevice> = devices.iter().filter(|device| device.is_card()).collect();
    html! {
        @if !cards.is_empty() {
            table {
                thead { tr { th { "PCI" } th { "Kind" } th { "Device" } th { "Slot" } th { "Driver" } } }
                tbody {
                    @for card in cards {
                        tr {
                            td { (card.bus) }
                            td { (card.kind) }
                            td { (card.title()) @if let Some(name) = &card.subsystem_name { br; small { (name) } } }
                            td { (card.slot.as_deref().unwrap_or("–")) }
                            td { (card.driver.as_deref().unwrap_or("–")) }
                        }
                    }
                }
            }
        }
    }
}

pub(super) fn bmc(bmc: &Bmc) -> Markup {
    html! {
        p {
            "BMC: firmware " (bmc.firmware) ", IPMI " (bmc.ipmi_version)
            @for lan in &bmc.lan { ", " (lan.address.as_deref().unwrap_or("no address")) " (" (lan.mac) ")" }
            @if let Some(log) = &bmc.event_log { ", " (log.entries) " lines in its event log" @if log.overflow { ", which is full" } }
        }
    }
}

pub(super) fn changes(seen: &[SeenChanges]) -> Markup {
    html! {
        @if !seen.is_empty() {
            h2 { "Changes of the hardware" }
            table {
                tbody {
                    @for seen in seen {
                        @for change in &seen.changes {
                            tr {
                                td { (seen.seen) }
                                td class=(if change.importance == Importance::Alarm { "bad" } else { "" }) { (change.text) }
                            }
                        }
                    }
                }
            }
        }
    }
}

//! What people read: tables, events, errors.

use anyhow::Result;
use comfy_table::{Table, presets};
use serde::Serialize;
use speediso_model::api::{Alert, ImageView, List, NodeView, OrderView, Rule, StoredEvent};
use speediso_model::certificate::machine::KnownDisk;
use speediso_model::certificate::site::{CertificatePolicy, CertificateView, SiteKeyView};
use speediso_model::certificate::words::method_name;
use speediso_model::fault::{Fault, FaultClass};
use speediso_model::hints;
use speediso_model::inventory::Inventory;
use speediso_model::inventory::compare::SeenChanges;
use speediso_model::lldp;
use speediso_model::order::{Order, TaskState};
use speediso_model::units::Bytes;

use crate::client::{Declined, Unreachable};

/// The same answer for scripts or for people.
pub(crate) fn print<T: Serialize>(json: bool, value: &T, people: impl FnOnce(&T) -> String) -> Result<()> {
    if json {
        println!("{}", serde_json::to_string_pretty(value)?);
    } else {
        println!("{}", people(value));
    }
    Ok(())
}

pub(crate) fn print_error(error: &anyhow::Error) {
    eprint!("{}", error_text(error));
}

fn error_text(error: &anyhow::Error) -> String {
    let fault = error.downcast_ref::<Declined>().map(|d| &d.fault).or_else(|| error.downcast_ref::<Fault>());
    if let Some(fault) = fault {
        return format!("speediso: {}", fault_text(fault));
    }
    let mut text = format!("speediso: {error}\n");
    for cause in error.chain().skip(1) {
        text.push_str(&format!("  because: {cause}\n"));
    }
    text
}

fn fault_text(fault: &Fault) -> String {
    let mut text = format!("{} [{}]\n", fault.message, fault.code);
    for cause in &fault.causes {
        text.push_str(&format!("  because: {cause}\n"));
    }
    text.push_str(&format!("  do: {}\n", fault.advice));
    text
}

/// `sysexits.h`: 64 usage is clap's 2 here, 69 unavailable, 77 permission.
pub(crate) fn exit_code_of(error: &anyhow::Error) -> u8 {
    if error.downcast_ref::<Unreachable>().is_some() {
        return 69;
    }
    match error.downcast_ref::<Declined>() {
        Some(declined) if declined.fault.class == FaultClass::Refused => 77,
        _ => 1,
    }
}

pub(crate) fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header.to_vec());
    table
}

pub(crate) fn finish(table: &Table, none: &str) -> String {
    if table.is_empty() { none.to_owned() } else { table.trim_fmt() }
}

fn or_dash(text: &str) -> &str {
    if text.is_empty() { "-" } else { text }
}

pub(crate) fn machines(nodes: &List<NodeView>) -> String {
    let mut table = table(&["NAME", "STATE", "SERIAL", "ADDRESS", "ONLINE", "BUILD", "ORDER / CODE"]);
    for node in &nodes.items {
        let mut state = node.state.name().to_owned();
        if node.protected {
            state.push_str(" (protected)");
        }
        let last = match (&node.code, node.open_order) {
            (Some(code), _) => format!("code {code}"),
            (None, Some(order)) => order.to_string(),
            (None, None) => "-".into(),
        };
        table.add_row(vec![
            node.name.as_str(),
            &state,
            or_dash(&node.system.serial_number),
            node.address.as_deref().unwrap_or("-"),
            if node.online { "yes" } else { "no" },
            &node.build.number.to_string(),
            &last,
        ]);
    }
    finish(&table, "no machine was seen yet")
}

pub(crate) fn machine(node: &NodeView, inventory: Option<&Inventory>, changes: &[SeenChanges]) -> String {
    let mut lines = vec![
        format!("{} ({})", node.name, node.id),
        format!("  state     {}{}", node.state.name(), if node.protected { ", protected" } else { "" }),
    ];
    lines.extend(node.reason.as_ref().map(|r| format!("  reason    {r}")));
    lines.extend(node.code.as_ref().map(|c| format!("  code      {c}")));
    lines.push(format!(
        "  system    {} {}, serial {}, uuid {}",
        or_dash(&node.system.manufacturer),
        or_dash(&node.system.product_name),
        or_dash(&node.system.serial_number),
        node.system.uuid.as_deref().unwrap_or("-")
    ));
    lines.push(format!("  ramdisk   {}", node.build));
    lines.extend(node.address.as_ref().map(|a| format!("  address   {a}")));
    lines.extend(node.open_order.map(|o| format!("  order     {o}")));
    let Some(inventory) = inventory else {
        lines.push("  inventory not taken yet".into());
        return lines.join("\n");
    };
    let cpu = &inventory.cpu;
    lines.push(format!(
        "  cpu       {} x {} ({} cores, {} sockets)",
        cpu.count,
        or_dash(&cpu.model_name),
        cpu.core_count,
        cpu.socket_count
    ));
    lines.push(format!("  memory    {} ({} MiB plugged in)", inventory.memory.total, inventory.memory.physical_mb));
    lines.push(format!("  boot      {}", or_dash(&inventory.boot.current_boot_mode)));
    for disk in &inventory.disks {
        let found =
            if disk.signatures.is_empty() { String::new() } else { format!(": {}", disk.signatures.join(", ")) };
        let health = disk.health.as_ref().map(|h| format!(", health {}", h.verdict.name())).unwrap_or_default();
        lines.push(format!("  disk      {}{health}{found}", hints::describe(disk)));
    }
    for nic in &inventory.interfaces {
        lines.push(format!(
            "  nic       {} {} {} {}",
            nic.name,
            nic.mac_address,
            nic.ipv4_address.as_deref().unwrap_or("no address"),
            if nic.has_carrier { "link" } else { "no link" }
        ));
        lines.extend(lldp::switch_of(&nic.neighbours).map(|s| format!("            plugged into {}", s.in_words())));
    }
    for card in inventory.pci_devices.iter().filter(|device| device.is_card()) {
        lines.push(format!("  card      {} {}: {}", card.bus, card.kind, card.title()));
    }
    if let Some(bmc) = &inventory.bmc {
        let address = inventory.bmc_address.as_deref().unwrap_or("no address");
        lines.push(format!("  bmc       {address}, firmware {}, IPMI {}", bmc.firmware, bmc.ipmi_version));
    }
    lines.extend(inventory.unread.iter().map(|u| format!("  unread    {u}")));
    for seen in changes {
        lines.extend(seen.changes.iter().map(|c| format!("  changed   {} {}", seen.seen, c.text)));
    }
    lines.join("\n")
}

pub(crate) fn orders(orders: &List<Order>) -> String {
    let mut table = table(&["ORDER", "NODE", "PROFILE", "STATE", "CREATED", "BY"]);
    for order in &orders.items {
        table.add_row(vec![
            order.id.to_string(),
            order.node.to_string(),
            order.profile.clone().unwrap_or_else(|| "tasks".into()),
            order.state.name().into(),
            order.created.to_string(),
            order.by.clone(),
        ]);
    }
    finish(&table, "no order was given yet")
}

pub(crate) fn order(view: &OrderView) -> String {
    let order = &view.order;
    let mut text = format!(
        "order {} for {}: {}{}",
        order.id,
        view.node_name,
        order.state.name(),
        if order.dry_run { " (dry run: nothing was changed)" } else { "" }
    );
    for task in &order.tasks {
        text.push_str(&format!("\n  {:<13} {}", task.task.kind(), task_state(&task.state)));
    }
    text
}

fn task_state(state: &TaskState) -> String {
    let TaskState::Ended { result, .. } = state else {
        return match state {
            TaskState::Cancelled { by } => format!("cancelled by {by}"),
            other => other.name().into(),
        };
    };
    let mut text = format!("{}: {}", result.outcome.name(), result.used);
    if let Some(fault) = &result.fault {
        text = format!("{} ({})", result.outcome.name(), result.outcome.meaning());
        for line in fault_text(fault).lines() {
            text.push_str("\n      ");
            text.push_str(line);
        }
    }
    for device in result.devices.iter().filter(|_| result.devices.len() > 1) {
        text.push_str(&format!("\n      {} {}: {}", device.seen_as, device.outcome.name(), device.used));
    }
    text
}

/// `04:12:09 agent  writing /dev/vda began`
pub(crate) fn event(event: &StoredEvent) -> String {
    let time = event.received.to_string();
    // RFC 3339: the time of day stands between the T and the fraction.
    let time = time.split('T').nth(1).and_then(|t| t.get(..8)).unwrap_or("--:--:--");
    let late = if event.late { " (late: changes nothing)" } else { "" };
    format!("{time} {:<10} {}{late}", event.source, printable(&event.text))
}

/// Control characters from a machine must not drive the operator's terminal.
pub(crate) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' { '\u{fffd}' } else { c }).collect()
}

pub(crate) fn alerts(alerts: &List<Alert>) -> String {
    if alerts.items.is_empty() {
        return "nothing needs a person".into();
    }
    let lines = alerts.items.iter().map(|a| {
        let node = a.node.map_or_else(|| "controller".to_owned(), |n| n.to_string());
        format!("{} {node}: {}", a.raised, fault_text(&a.fault).trim_end())
    });
    lines.collect::<Vec<_>>().join("\n")
}

pub(crate) fn rules(rules: &List<Rule>) -> String {
    let mut table = table(&["RULE", "MANUFACTURER", "PRODUCT", "SERIAL BEGINS", "MAC BEGINS"]);
    for Rule { id, rule } in &rules.items {
        let cell = |v: &Option<String>| v.clone().unwrap_or_else(|| "any".into());
        table.add_row(vec![
            id.to_string(),
            cell(&rule.manufacturer),
            cell(&rule.product_name),
            cell(&rule.serial_prefix),
            cell(&rule.mac_prefix),
        ]);
    }
    finish(&table, "no rule: every machine waits for a person")
}

pub(crate) fn images(images: &List<ImageView>) -> String {
    let mut table = table(&["NAME", "SIZE", "DIGEST"]);
    for image in &images.items {
        table.add_row(vec![image.name.clone(), Bytes(image.size).to_string(), image.digest.clone()]);
    }
    finish(&table, "the store is empty; add an image with: speediso image add FILE")
}

pub(crate) fn certificates(found: &List<CertificateView>) -> String {
    let mut table = table(&["NO.", "ISSUED", "OF", "LEVEL", "METHOD"]);
    for item in &found.items {
        table.add_row(vec![
            item.number.to_string(),
            item.issued.to_string(),
            printable(&item.subject),
            item.reached.name().into(),
            item.method.map_or("all its devices", method_name).into(),
        ]);
    }
    finish(&table, "no certificate; the events of an order say why a wipe got none")
}

pub(crate) fn site_keys(keys: &List<SiteKeyView>) -> String {
    let lines = keys.items.iter().map(|k| {
        let until = k.until.map_or_else(|| "now".to_owned(), |u| u.to_string());
        format!("{}  from {} until {until}\n{}", k.key, k.since, k.pem)
    });
    lines.collect::<Vec<_>>().join("\n")
}

pub(crate) fn certificate_policy(policy: &CertificatePolicy) -> String {
    format!(
        "organization     {}\nlocation         {}\nresponsible      {}\ncertify volumes  {}",
        or_dash(&policy.organization),
        or_dash(&policy.location),
        or_dash(&policy.responsible),
        if policy.certify_volumes { "yes, as volumes" } else { "no" }
    )
}

pub(crate) fn known_disks(disks: &List<KnownDisk>) -> String {
    let mut table = table(&["KEY", "DISK", "LAST SEEN", "GONE"]);
    for known in &disks.items {
        table.add_row(vec![
            printable(&known.key),
            printable(&hints::describe(&known.disk)),
            known.last_seen.to_string(),
            known.gone.as_ref().map_or_else(|| "-".into(), |g| printable(&format!("{} ({})", g.why, g.by))),
        ]);
    }
    finish(&table, "no disk was ever seen in it")
}

#[cfg(test)]
mod tests {
    use super::*;
    use speediso_model::fault::FaultCode;

    #[test]
    fn errors_say_what_why_and_what_to_do() {
        let fault = Fault::new(FaultCode::MachineProtected, "web1 is protected").because("marked on Monday");
        let error = anyhow::Error::new(Declined { fault });
        insta::assert_snapshot!(error_text(&error));
        assert_eq!(exit_code_of(&error), 77);
        let operator = Declined { fault: Fault::new(FaultCode::TaskInvalid, "bad") };
        assert_eq!(exit_code_of(&operator.into()), 1);
    }

    #[test]
    fn hostile_text_does_not_reach_the_terminal() {
        assert_eq!(printable("a\u{1b}[2Jb"), "a\u{fffd}[2Jb");
    }
}

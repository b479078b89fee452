//! The pages, from the same reports the API gives. Every value is escaped by the template; nothing is loaded from
//! elsewhere.

use maud::{DOCTYPE, Markup, PreEscaped, html};
use speediso_model::api::{Alert, NodeView, StoredEvent};
use speediso_model::certificate::site::{CertificateView, CertificatesQuery};
use speediso_model::certificate::words::method_name;
use speediso_model::event::Progress;
use speediso_model::inventory::Inventory;
use speediso_model::inventory::compare::SeenChanges;
use speediso_model::node::NodeState;
use speediso_model::order::{Order, TaskState};
use speediso_model::units::Bytes;

use super::devices;

/// Same-origin files, so that the content security policy needs no exception.
pub(super) const SCRIPT: &str = include_str!("live.js");
pub(super) const STYLE: &str = include_str!("style.css");

pub(super) fn frame(title: &str, body: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (title) " · Speediso" }
                link rel="stylesheet" href="/dashboard/style.css";
                script src="/dashboard/live.js" defer {}
            }
            body {
                header { a href="/" { "Speediso" } " · " a href="/certificates" { "Certificates" } }
                main { (body) }
            }
        }
    }
}

pub(super) fn login(failed: bool) -> Markup {
    frame(
        "log in",
        &html! {
            h1 { "Log in" }
            @if failed { p.bad { "That is not the operator token." } }
            form method="post" action="/login" {
                label { "Operator token (" code { "operator.token" } " in the controller's data directory)"
                    input type="password" name="token" autocomplete="off" required autofocus;
                }
                button { "Log in" }
            }
        },
    )
}

pub(super) fn machines(nodes: &[NodeView], alerts: &[Alert]) -> Markup {
    frame(
        "machines",
        &html! {
            h1 { "Machines" }
            div data-live="/fragments/machines" { (machine_table(nodes, alerts)) }
        },
    )
}

/// The part of the page that is fetched again and again.
pub(super) fn machine_table(nodes: &[NodeView], alerts: &[Alert]) -> Markup {
    html! {
        @for alert in alerts {
            p.bad { strong { (alert.fault.code) } " " (alert.fault.message) " — " (alert.fault.advice) }
        }
        @if nodes.is_empty() {
            p { "No machine was seen yet. Boot one from the network." }
        } @else {
            table {
                thead { tr { th { "Machine" } th { "State" } th { "Serial number" } th { "Address" } th { "Ramdisk" } th { "Now" } } }
                tbody {
                    @for node in nodes {
                        tr {
                            td { a href={ "/machines/" (node.id) } { (node.name) } }
                            td class=(state_class(node.state)) {
                                (node.state.name())
                                @if node.protected { " (protected)" }
                                @if let Some(reason) = &node.reason { br; small { (reason) } }
                            }
                            td { (node.system.serial_number) }
                            td { (node.address.as_deref().unwrap_or("–")) @if !node.online { " " small { "offline" } } }
                            td { "build " (node.build.number) }
                            td {
                                @if let Some(code) = &node.code { "code " strong { (code) } }
                                @for progress in &node.progress { (bar(progress)) }
                                @if node.progress.is_empty() && node.open_order.is_some() { "order open" }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// `detail` is the part that is fetched again and again.
pub(super) fn machine(node: &NodeView, detail: &Markup) -> Markup {
    frame(
        &node.name,
        &html! {
            h1 { (node.name) " " small class=(state_class(node.state)) { (node.state.name()) } }
            div data-live={ "/fragments/machines/" (node.id) } { (detail) }
        },
    )
}

pub(super) fn machine_detail(
    node: &NodeView,
    inventory: Option<&Inventory>,
    changes: &[SeenChanges],
    orders: &[Order],
    events: &[StoredEvent],
) -> Markup {
    html! {
        @for progress in &node.progress { (bar(progress)) }
        dl {
            dt { "Node" } dd { (node.id) }
            dt { "System" } dd { (node.system.manufacturer) " " (node.system.product_name) }
            dt { "Serial number" } dd { (node.system.serial_number) }
            dt { "UUID" } dd { (node.system.uuid.as_deref().unwrap_or("–")) }
            dt { "MAC" } dd { (node.macs.join(", ")) }
            dt { "Address" } dd { (node.address.as_deref().unwrap_or("–")) }
            dt { "Ramdisk" } dd { (node.build) }
            dt { "Epoch" } dd { (node.epoch) }
            @if let Some(code) = &node.code { dt { "Code" } dd { strong { (code) } } }
        }
        @if let Some(inventory) = inventory { (hardware(inventory)) } @else { p { "Not inventoried yet." } }
        (devices::changes(changes))
        p { a href={ "/certificates?node=" (node.id) } { "Certificates of sanitization" } " · " a href={ "/machines/" (node.id) "/burn-in" } { "Burn-in" } }
        h2 { "Orders" }
        @if orders.is_empty() { p { "None." } }
        @for order in orders { (order_table(order)) }
        h2 { "Events" }
        @if events.is_empty() { p { "None." } } @else {
            table {
                tbody {
                    @for event in events {
                        tr {
                            td { (event.received) }
                            td { (event.source) }
                            td { (event.text) @if event.late { " " small { "(late: changed nothing)" } } }
                        }
                    }
                }
            }
        }
    }
}

pub(super) fn certificates(items: &[CertificateView], query: &CertificatesQuery, per_page: u32) -> Markup {
    let full = u32::try_from(items.len()).is_ok_and(|n| n >= per_page);
    let older = items.last().filter(|_| full).map(|last| match query.node {
        Some(node) => format!("/certificates?node={node}&before={}", last.number),
        None => format!("/certificates?before={}", last.number),
    });
    frame(
        "certificates",
        &html! {
            h1 { "Certificates of sanitization" }
            @if query.node.is_some() { p { "Of one machine. " a href="/certificates" { "All" } } }
            @if items.is_empty() {
                p { "None. A certificate is made when the wipe of a disk has ended and was verified." }
            } @else {
                table {
                    thead { tr { th { "No." } th { "Issued" } th { "Of" } th { "Serial number" } th { "Machine" } th { "Level" } th { "Method" } } }
                    tbody {
                        @for item in items {
                            tr {
                                td.number { a href={ "/certificates/" (item.number) } { (item.number) } }
                                td { (item.issued) }
                                td { (item.subject) }
                                td { (item.serial) }
                                td { a href={ "/machines/" (item.node) } { (item.node_name) } }
                                td { (item.reached.name()) }
                                td { (item.method.map_or("all its devices", method_name)) }
                            }
                        }
                    }
                }
                @if let Some(older) = older { p { a href=(older) { "Older ones" } } }
            }
        },
    )
}

fn hardware(inventory: &Inventory) -> Markup {
    html! {
        h2 { "Hardware" }
        p {
            (inventory.cpu.count) " × " (inventory.cpu.model_name) ", " (inventory.memory.total) " memory, "
            (inventory.boot.current_boot_mode)
        }
        (devices::disks(&inventory.disks))
        (devices::interfaces(&inventory.interfaces))
        (devices::cards(&inventory.pci_devices))
        @if let Some(bmc) = &inventory.bmc { (devices::bmc(bmc)) }
        @for unread in &inventory.unread { p { "Not read: " (unread) } }
    }
}

fn order_table(order: &Order) -> Markup {
    html! {
        h3 {
            (order.profile.as_deref().unwrap_or("tasks")) " " small { (order.state.name()) " · " (order.created) " · by " (order.by)
            @if order.dry_run { " · dry run" } }
        }
        table {
            tbody {
                @for task in &order.tasks {
                    tr {
                        td { (task.task.kind()) }
                        @match &task.state {
                            TaskState::Ended { result, .. } => {
                                td class=(if result.outcome.is_success() { "good" } else { "bad" }) { (result.outcome.name()) }
                                td {
                                    (result.used)
                                    @if let Some(fault) = &result.fault {
                                        br; strong { (fault.code) } " " (fault.message) br; (result.outcome.meaning()) "; " (fault.advice)
                                    }
                                }
                            }
                            other => { td { (other.name()) } td {} }
                        }
                    }
                }
            }
        }
    }
}

fn bar(progress: &Progress) -> Markup {
    let amount =
        |n: u64| if progress.unit == "bytes" { Bytes(n).to_string() } else { format!("{n} {}", progress.unit) };
    html! {
        div.progress {
            (progress.stage) " " (progress.device.as_deref().unwrap_or_default()) " "
            @if let Some(total) = progress.total {
                progress max=(total) value=(progress.current) {} " "
                (amount(progress.current)) " of " (amount(total))
            } @else { (amount(progress.current)) }
            @if progress.rate.is_finite() && progress.rate >= 1.0 && progress.unit == "bytes" {
                ", " (PreEscaped(format!("{:.0}", progress.rate / 1_048_576.0))) " MiB/s"
            }
        }
    }
}

fn state_class(state: NodeState) -> &'static str {
    match state {
        NodeState::Active | NodeState::Available | NodeState::Manageable => "good",
        NodeState::Maintenance | NodeState::Quarantined => "bad",
        NodeState::Pending | NodeState::Enroll | NodeState::Deploying | NodeState::Cleaning => "busy",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use speediso_model::build::BuildInfo;
    use speediso_model::fault::{Fault, FaultCode};
    use speediso_model::id::{Epoch, NodeId};
    use speediso_model::inventory::compare::Change;
    use speediso_model::inventory::{Disk, SystemVendor};

    fn hostile() -> NodeView {
        let evil = "<script>alert(1)</script>\"'&";
        NodeView {
            id: NodeId(uuid::Uuid::nil()),
            name: evil.into(),
            state: NodeState::Pending,
            reason: Some(evil.into()),
            protected: true,
            code: Some(evil.into()),
            system: SystemVendor { serial_number: evil.into(), manufacturer: evil.into(), ..SystemVendor::default() },
            macs: vec![evil.into()],
            build: BuildInfo { version: evil.into(), ..BuildInfo::default() },
            address: Some(evil.into()),
            epoch: Epoch(1),
            online: true,
            last_seen: None,
            open_order: None,
            progress: Vec::new(),
        }
    }

    #[test]
    fn what_a_machine_says_of_itself_never_becomes_markup() {
        let node = hostile();
        let inventory = Inventory {
            disks: vec![Disk { model: "<img src=x onerror=alert(1)>".into(), ..Disk::default() }],
            ..Inventory::default()
        };
        let change = Change { text: "<b>gone</b>".into(), ..Change::default() };
        let (seen, epoch) = (jiff::Timestamp::UNIX_EPOCH, Epoch(1));
        let changes = [SeenChanges { seen, epoch, changes: vec![change] }];
        let alert = Alert {
            id: 1,
            node: None,
            raised: jiff::Timestamp::UNIX_EPOCH,
            fault: Fault::new(FaultCode::IdentityClash, "<b>"),
        };
        for page in [
            machines(std::slice::from_ref(&node), &[alert]).into_string(),
            machine(&node, &machine_detail(&node, Some(&inventory), &changes, &[], &[])).into_string(),
        ] {
            assert!(!page.contains("<script>alert") && !page.contains("<img") && !page.contains("<b>"), "{page}");
            assert!(page.contains("&lt;script&gt;"), "the text is shown, escaped");
        }
    }

    #[test]
    fn pages_load_nothing_from_elsewhere() {
        let page = machines(&[hostile()], &[]).into_string() + STYLE + SCRIPT;
        assert!(!page.contains("http:") && !page.contains("https:") && !page.contains("//cdn"));
    }
}

//! A certificate to be printed: one page that needs nothing from elsewhere, not even from us, and runs no script.

use axum::response::Response;
use maud::{Markup, html};
use speediso_model::certificate::words::{area_name, method_name, verification_name};
use speediso_model::certificate::{
    Device, DeviceCertificate, DeviceNotes, Document, Health, Machine, MachineCertificate, Medium, Statement, Subject,
    Verification,
};
use speediso_model::units::Bytes;
use speediso_model::wipe::WipeLevel;

use super::sheet::{self, time};

const STYLE: &str = include_str!("certificate.css");

pub(crate) fn certificate_page(document: &Document) -> Response {
    sheet::response(page(document), STYLE)
}

pub(super) fn page(document: &Document) -> Markup {
    let statement = document.statement();
    let number = statement.number;
    let body = html! {
        div.head {
            div {
                h1 { "Certificate of sanitization" }
                @if !statement.issuer.organization.is_empty() { p { (statement.issuer.organization) } }
            }
            p.number { "No. " strong { (number) } br; (time(statement.issued)) }
        }
        @match &statement.subject {
            Subject::Device(certificate) => (device_certificate(statement, certificate)),
            Subject::Machine(certificate) => (machine_certificate(statement, certificate)),
        }
        (signatures())
        (how_to_verify(document))
    };
    sheet::page(&format!("Certificate of sanitization {number}"), STYLE, &body)
}

fn device_certificate(statement: &Statement, certificate: &DeviceCertificate) -> Markup {
    let DeviceCertificate { device, sanitization, work, .. } = certificate;
    html! {
        div.verdict {
            (verdict(sanitization.reached)) " by " (method_name(sanitization.method)) ", verified."
            @if sanitization.asked != sanitization.reached { " (" (sanitization.asked.name()) " was asked for.)" }
        }
        (volume(&device.medium))
        h2 { "Device" }
        (device_fields(device, &certificate.notes))
        h2 { "Source" }
        (machine_fields(&certificate.machine))
        h2 { "Sanitization" }
        dl {
            dt { "Description" } dd { (sanitization.reached.name()) ", in the sense of NIST SP 800-88 and IEEE 2883" }
            dt { "Method" } dd { (method_name(sanitization.method)) }
            dt { "Steps" } dd { ol { @for step in &sanitization.steps { li { (step) } } } }
            dt { "Tool" } dd { "Speediso, " (work.tool) }
            dt { "Begun, ended" } dd { (time(work.begun)) " to " (time(work.ended)) " (" (duration(work.duration_ms)) ")" }
        }
        h2 { "Areas of the device" }
        table {
            thead { tr { th { "Area" } th { "Kind" } th { "Size" } th { "Covered" } th { "How, or why not" } } }
            tbody {
                @for area in &sanitization.areas {
                    tr {
                        td { (area.name) }
                        td { (area_name(area.kind)) }
                        td.number-cell { (exact(area.size)) }
                        td { @if area.covered { "yes" } @else { strong { "no" } } }
                        td { (area.how) }
                    }
                }
            }
        }
        @if !sanitization.not_covered.is_empty() {
            p { "Not reached by this method: " (sanitization.not_covered.join("; ")) "." }
        }
        h2 { "Verification" }
        (verification(&certificate.verification))
        @if !certificate.device_log.is_empty() {
            h2 { "What the device answered" }
            table {
                thead { tr { th { "Command" } th { "Status" } th { "Meaning" } } }
                tbody {
                    @for answer in &certificate.device_log {
                        tr { td { (answer.command) } td { code { (answer.raw) } } td { (answer.meaning) } }
                    }
                }
            }
        }
        @if certificate.health_before.is_some() || certificate.health_after.is_some() {
            h2 { "Health, as the device tells it" }
            (health(certificate.health_before.as_ref(), certificate.health_after.as_ref()))
        }
        h2 { "Order" }
        dl {
            dt { "Ordered by" } dd { (work.ordered_by) ", " (time(work.ordered)) }
            dt { "Order, task, run" } dd { code { (work.order) " / " (work.task) " / " (work.run) } }
            dt { "Plan, epoch" } dd { code { (work.plan) } " / " (work.epoch) }
            (notes(&certificate.notes))
            (issuer(statement))
        }
        (remarks(&certificate.remarks))
    }
}

fn machine_certificate(statement: &Statement, certificate: &MachineCertificate) -> Markup {
    html! {
        div.verdict {
            (verdict(certificate.reached)) ": every device that was recorded in this machine, "
            (certificate.devices.len()) " in all."
        }
        h2 { "Machine" }
        (machine_fields(&certificate.machine))
        h2 { "Devices" }
        table {
            thead { tr { th { "Certificate" } th { "Model" } th { "Serial number" } th { "Size" } th { "Level" } th { "Method" } } }
            tbody {
                @for device in &certificate.devices {
                    tr {
                        td { "No. " (device.number) }
                        td { (device.model) @if let Medium::Volume { of } = &device.medium { br; "volume of " (of) } }
                        td { (or_none(&device.serial)) }
                        td.number-cell { (exact(device.size)) }
                        td { (device.reached.name()) }
                        td { (method_name(device.method)) }
                    }
                    tr { td {} td colspan="5" { code { "sha256 " (device.document) } } }
                }
            }
        }
        h2 { "Left out" }
        @if certificate.left_out.is_empty() { p { "Nothing." } } @else {
            ul { @for left in &certificate.left_out { li { (left) } } }
        }
        h2 { "Order" }
        dl {
            dt { "Ordered by" } dd { (certificate.ordered_by) }
            dt { "Order" } dd { code { (certificate.order) } }
            (notes(&certificate.notes))
            (issuer(statement))
        }
        (remarks(&certificate.remarks))
    }
}

fn verdict(reached: WipeLevel) -> Markup {
    html! { strong { (match reached { WipeLevel::Clear => "Cleared", WipeLevel::Purge => "Purged" }) } }
}

fn volume(medium: &Medium) -> Markup {
    html! {
        @if let Medium::Volume { of } = medium {
            p.warning { "This is a volume of " (of) ". It is no statement about any physical medium." }
        }
    }
}

fn device_fields(device: &Device, notes: &DeviceNotes) -> Markup {
    html! {
        dl.two {
            dt { "Manufacturer" } dd { (device.manufacturer.as_deref().unwrap_or("not told by the device")) }
            dt { "Model" } dd { (or_none(&device.model)) }
            dt { "Serial number" } dd { strong { (or_none(&device.serial)) } }
            dt { "Property number" } dd { (notes.property_number.as_deref().unwrap_or("–")) }
            dt { "WWN" } dd { (device.wwn.as_deref().unwrap_or("–")) }
            dt { "Firmware" } dd { (or_none(&device.firmware)) }
            dt { "Media type" } dd { (device.media_type) }
            dt { "Size" } dd { (exact(device.size)) ", sectors of " (device.sector_size) " bytes" }
        }
    }
}

fn machine_fields(machine: &Machine) -> Markup {
    html! {
        dl.two {
            dt { "Machine" } dd { (machine.name) }
            dt { "Model" } dd { (or_none(&machine.manufacturer)) " " (machine.product) }
            dt { "Serial number" } dd { (or_none(&machine.serial)) }
            dt { "Asset tag" } dd { (or_none(&machine.asset_tag)) }
            dt { "UUID" } dd { (machine.uuid.as_deref().unwrap_or("–")) }
            dt { "Node" } dd { (machine.node) }
        }
    }
}

fn verification(seen: &Verification) -> Markup {
    html! {
        dl {
            dt { "Method" } dd { (verification_name(seen.kind)) }
            dt { "Result" } dd { (seen.in_words) }
            dt { "Read back" } dd { (exact(seen.bytes)) }
            @if let Some(sample) = &seen.sample {
                dt { "Sample" }
                dd { (sample.percent) " %, " (sample.units) " pieces of " (exact(sample.unit)) ", seed " code { (sample.seed) } }
            }
            @if let Some(seed) = &seen.pattern_seed { dt { "Pattern's seed" } dd { code { (seed) } } }
            @if let Some(canaries) = &seen.canaries {
                dt { "Marks" }
                dd { (canaries.planted) " planted before, " (canaries.found_after) " found after, seed " code { (canaries.seed) } }
            }
        }
    }
}

fn health(before: Option<&Health>, after: Option<&Health>) -> Markup {
    fn show<T: ToString>(value: Option<T>) -> String {
        value.map_or_else(|| "–".to_owned(), |v| v.to_string())
    }
    let row = |name: &str, of: &dyn Fn(&Health) -> String| {
        html! {
            tr { td { (name) } @for health in [before, after] { td { (health.map_or_else(|| "–".to_owned(), of)) } } }
        }
    };
    let passed = |h: &Health| h.passed.map_or("–", |p| if p { "yes" } else { "no" }).to_owned();
    html! {
        table {
            thead { tr { th { "" } th { "Before" } th { "After" } } }
            tbody {
                (row("Passed its own test", &passed))
                (row("Power-on hours", &|h| show(h.power_on_hours)))
                (row("Reallocated sectors", &|h| show(h.reallocated)))
                (row("Wear, percent used", &|h| show(h.percentage_used)))
                (row("Media errors", &|h| show(h.media_errors)))
                (row("Temperature, °C", &|h| show(h.temperature_c)))
            }
        }
    }
}

fn notes(notes: &DeviceNotes) -> Markup {
    let rows = [
        ("Confidentiality before", &notes.confidentiality_before),
        ("Confidentiality after", &notes.confidentiality_after),
        ("Destination", &notes.destination),
        ("Validated by", &notes.validated_by),
        ("Reference", &notes.reference),
    ];
    html! { @for (name, text) in rows { dt { (name) } dd { (text.as_deref().unwrap_or("–")) } } }
}

fn issuer(statement: &Statement) -> Markup {
    let issuer = &statement.issuer;
    html! {
        dt { "Issued by" } dd { (or_none(&issuer.responsible)) " (" (issuer.program) ")" }
        dt { "Location" } dd { (or_none(&issuer.location)) }
    }
}

fn remarks(remarks: &[String]) -> Markup {
    html! {
        @if !remarks.is_empty() {
            h2 { "What this does not say" }
            ul { @for remark in remarks { li { (remark) } } }
        }
    }
}

fn signatures() -> Markup {
    html! {
        div.sign {
            @for who in ["Sanitized by", "Validated by"] { div { (who) ": name, title, date, signature" } }
        }
    }
}

fn how_to_verify(document: &Document) -> Markup {
    let statement = document.statement();
    html! {
        footer {
            p {
                "This sheet is a view of the signed document. Only the document can be verified: "
                code { "speediso verify-certificate FILE --key " (document.key()) }
            }
            p { code { "sha256 of the document " (document.digest()) } }
            p { code { "sha256 of the one before " (statement.previous) } }
        }
    }
}

fn duration(ms: u64) -> String {
    let s = ms / 1000;
    format!("{}:{:02}:{:02}", s / 3600, s / 60 % 60, s % 60)
}

fn exact(size: Bytes) -> String {
    if size.0 < 1024 { size.to_string() } else { format!("{size} ({} bytes)", size.0) }
}

fn or_none(text: &str) -> &str {
    if text.trim().is_empty() { "–" } else { text }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::sheet::tests::{needs_nothing, shown_as_text};
    use super::*;
    use serde_json::{Value, json};
    use speediso_model::certificate::SiteKey;

    fn statement(subject: &Value) -> Value {
        json!({
            "format": "speediso certificate of sanitization, version 1", "number": 7, "previous": "00",
            "issued": "2026-11-21T12:00:00Z", "subject": subject,
            "issuer": {"organization": "o", "location": "l", "responsible": "r", "program": "p"},
        })
    }

    fn subjects() -> [Value; 2] {
        let (id, at) = ("6f1f6e0e-54a9-4bd5-a7c0-8f2b2a3c1d11", "2026-11-21T12:00:00Z");
        let machine = json!({"node": id, "name": "n", "manufacturer": "m", "product": "p", "serial": "s", "uuid": "u",
            "chassis_serial": "c", "asset_tag": "a"});
        let notes = json!({"property_number": "n", "confidentiality_before": "b", "confidentiality_after": "a",
            "destination": "d", "validated_by": "v", "reference": "r"});
        let volume = json!({"volume": {"of": "v"}});
        let device = json!({
            "device": {"manufacturer": "m", "model": "m", "serial": "s", "wwn": "w", "firmware": "f", "size": 4096,
                "sector_size": 512, "media_type": "t", "medium": volume, "seen_as": "d"},
            "machine": machine,
            "sanitization": {"asked": "clear", "reached": "purge", "method": "overwrite", "steps": ["s"],
                "areas": [{"kind": "user", "name": "n", "size": 1, "covered": true, "how": "h"}], "not_covered": ["n"]},
            "verification": {"kind": "sample", "bytes": 1, "sample": {"percent": 1, "seed": "s", "unit": 1, "units": 1},
                "pattern_seed": "p", "canaries": {"seed": "s", "planted": 1, "found_after": 0}, "in_words": "w"},
            "device_log": [{"command": "c", "raw": "r", "meaning": "m"}],
            "health_before": {"passed": true}, "health_after": {"temperature_c": -1},
            "work": {"order": id, "ordered_by": "o", "ordered": at, "task": 0, "run": id, "epoch": 1, "plan": "p",
                "permitted": at, "begun": at, "ended": at, "duration_ms": 3_723_999,
                "tool": {"number": 1, "version": "v", "kernel": "k", "built": 1}},
            "notes": notes, "remarks": ["r"],
        });
        let certified = json!({"number": 1, "document": "d", "model": "m", "serial": "s", "size": 1, "reached": "clear",
            "method": "overwrite", "medium": volume});
        let machine = json!({"machine": machine, "order": id, "ordered_by": "o", "reached": "clear",
            "devices": [certified], "left_out": ["l"], "notes": notes, "remarks": ["r"]});
        [json!({"device": device}), json!({"machine": machine})]
    }

    fn rendered(statement: Statement) -> String {
        page(&Document::seal(statement, SiteKey([1; 32]), |_| [2; 64]).unwrap()).into_string()
    }

    #[test]
    fn no_text_of_a_certificate_becomes_markup() {
        let page = |bad| serde_json::from_value::<Statement>(bad).ok().map(rendered);
        let shown: usize = subjects().iter().map(|subject| shown_as_text(&statement(subject), page)).sum();
        assert!(shown > 40, "only {shown} texts of a certificate are on its page");
    }

    #[test]
    fn a_page_needs_nothing_and_says_what_counts() {
        for subject in subjects() {
            let page = rendered(serde_json::from_value(statement(&subject)).unwrap());
            needs_nothing(&page);
            assert!(
                page.contains("No statement about any") || page.contains("no statement") || page.contains("volume of")
            );
            assert!(page.contains(&"01".repeat(32)), "the key");
        }
        assert_eq!(duration(3_723_999), "1:02:03");
    }
}

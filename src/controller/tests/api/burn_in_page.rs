//! The report of a burn-in as people see it: in a browser, and on paper.

use std::path::Path;
use std::process::Command;

use reqwest::{Method, header};
use serde_json::{Value, json};
use speediso_controller::store::StoredBurnIn;
use speediso_model::fault::{Fault, FaultCode};
use speediso_model::id::{NodeId, RunId};
use speediso_model::outcome::{Outcome, TaskResult};

use crate::support::{Agent, Site, plan};

const BEGAN: &str = "2026-11-21T08:00:00Z";
const ENDED: &str = "2026-11-21T12:21:40Z";

/// A number that looks measured: around `middle`, by at most `part` of it.
fn about(n: u32, middle: f64, part: f64) -> f64 {
    let noise = f64::from(n.wrapping_mul(2_654_435_761) >> 16) / 65_536.0;
    middle * (1.0 + part * (2.0 * noise - 1.0))
}

fn measured(name: &str, place: &str, unit: &str, value: f64) -> Value {
    json!({"name": name, "where": place, "unit": unit, "value": value})
}

fn with_series(mut measured: Value, seconds: u32, part: f64) -> Value {
    let middle = measured["value"].as_f64().unwrap();
    let point = |n: u32| {
        let value = about(n + seconds, middle, part);
        json!([f64::from(n) * f64::from(seconds) / 200.0, value * 0.97, value * 1.02])
    };
    measured["series"] = json!({"samples_per_point": 4, "points": (0..200).map(point).collect::<Vec<_>>()});
    measured
}

fn step(number: usize, name: &str, kind: &str, seconds: f64, measurements: &[Value]) -> Value {
    json!({"number": number, "name": name, "step": kind, "began": BEGAN, "ended": ENDED, "seconds": seconds,
        "verdict": {"is": "passed"}, "measurements": measurements})
}

fn cpu() -> Value {
    let cores = (0..8).flat_map(|core| {
        let place = format!("core {core}");
        [measured("cpu.errors", &place, "count", 0.0), measured("cpu.rate", &place, "1/s", about(core, 1480.0, 0.02))]
    });
    let mut measurements: Vec<Value> = cores.collect();
    measurements.push(with_series(measured("cpu.temperature.max", "coretemp/Package id 0", "°C", 81.0), 1800, 0.04));
    let mut step = step(0, "cpu", "cpu", 1800.0, &measurements);
    step["limits"] = json!([{"measurement": "cpu.errors", "max": 0.0, "from": "default"},
        {"measurement": "cpu.temperature.max", "max": 90.0}]);
    step
}

fn disk() -> Value {
    let size: u64 = 4_000_787_030_016;
    let regions = |slow: std::ops::Range<u32>| -> Vec<Value> {
        let region = |n: u32| {
            let along = 255e6 - 130e6 * (f64::from(n) / 256.0).powi(2);
            let median = if slow.contains(&n) { along / 5.0 } else { about(n, along, 0.01) };
            json!([size / 256 * u64::from(n), median * 0.9, median])
        };
        (0..256).map(region).collect()
    };
    let bucket = |n: i32| json!([120.0 * 1.25f64.powi(n), 9000 / (1 + (n - 14).pow(2) / 6) + 40 - n]);
    let buckets: Vec<Value> = (0..40).map(bucket).collect();
    let mut measurements = Vec::new();
    for (place, slow) in [("sda ZR5AB001", 0..0), ("sdb ZR5AB002", 121..134)] {
        let mut read = with_series(measured("disk.read.bandwidth", place, "bytes/s", 201e6), 4100, 0.05);
        read["map"] = json!({"length": size, "regions": regions(slow.clone())});
        let mut latency = measured("disk.random_read.latency.p99", place, "us", 21_400.0);
        latency["distribution"] = json!({"count": 51_200, "min": 120.0, "mean": 3100.0, "max": 412_000.0,
            "percentiles": [[99.0, 21_400.0]], "buckets": buckets});
        let slowest = if slow.is_empty() { 124e6 } else { 44e6 };
        measurements.extend([
            read,
            measured("disk.read.slowest_region", place, "bytes/s", slowest),
            latency,
            measured("disk.random_read.iops", place, "1/s", 85.3),
            measured("disk.errors", place, "count", if slow.is_empty() { 0.0 } else { 3.0 }),
            measured("disk.new.pending_sectors", place, "count", if slow.is_empty() { 0.0 } else { 8.0 }),
        ]);
    }
    let mut step = step(2, "disks", "disk", 4700.0, &measurements);
    let breach = |name: &str, value: f64| {
        json!({"limit": {"measurement": name, "max": 0.0, "from": "default"},
        "measurement": name, "where": "sdb ZR5AB002", "value": value, "unit": "count"})
    };
    step["verdict"] =
        json!({"is": "failed", "by": [breach("disk.errors", 3.0), breach("disk.new.pending_sectors", 8.0)]});
    step["limits"] = json!([{"measurement": "disk.errors", "max": 0.0, "from": "default"},
        {"measurement": "disk.new.pending_sectors", "max": 0.0, "from": "default"}]);
    step["notices"] = json!([
        "sdb ZR5AB002: bytes 1969231986688 to 1969231990784: reading 4096 bytes: I/O error",
        "sdb ZR5AB002 is slow from byte 1890996680704 to 2094158516224: read at 44.0 MB/s"
    ]);
    step
}

fn report() -> Value {
    let memory = (0..2).flat_map(|node| {
        let place = format!("node {node}");
        [
            measured("memory.errors", &place, "count", 0.0),
            measured("memory.tested", &place, "bytes", 130e9),
            measured("memory.bandwidth.read", &place, "bytes/s", about(node, 61e9, 0.03)),
        ]
    });
    let link = ["sent", "received", "both.sent", "both.received"]
        .iter()
        .map(|way| with_series(measured(&format!("network.{way}.bandwidth"), "eno1", "bit/s", 9.41e9), 40, 0.01));
    let mut skipped = step(4, "link to the controller, again", "network", 0.0, &[]);
    skipped["verdict"] = json!({"is": "skipped", "because": ["there is no controller here that could be the partner"]});
    skipped["required"] = json!(false);
    let mut link = step(3, "link to the controller", "network", 120.0, &link.collect::<Vec<_>>());
    link["notices"] = json!(["from 192.0.2.10 on eno1 to the controller, 192.0.2.1 on its br0"]);
    let mut memory = step(1, "memory", "memory", 7200.0, &memory.collect::<Vec<_>>());
    memory["unread"] = json!(["corrected memory errors: no EDAC driver counts them on this machine"]);
    let reasons = [
        "disks: disk.errors of sdb ZR5AB002 is 3 count (at most 0 allowed, by default)",
        "disks: disk.new.pending_sectors of sdb ZR5AB002 is 8 count (at most 0 allowed, by default)",
    ];
    json!({"version": 1, "scenario": "standard", "scenario_digest": "3f".repeat(32), "began": BEGAN, "ended": ENDED,
        "verdict": "failed", "reasons": reasons, "restarts": 0, "steps": [cpu(), memory, disk(), link, skipped]})
}

/// Others of its model, each a little different.
async fn fleet(site: &Site, product: &str) {
    let mut tx = site.server.state.service.store.write().await.unwrap();
    for n in 0..60 {
        let mut other = report();
        for (i, step) in (0..).zip(other["steps"].as_array_mut().unwrap()) {
            for (j, measured) in (0..).zip(step["measurements"].as_array_mut().unwrap()) {
                measured["value"] = json!(about(n * 1000 + i * 100 + j, measured["value"].as_f64().unwrap(), 0.03));
                for heavy in ["series", "map", "distribution"] {
                    measured.as_object_mut().unwrap().remove(heavy);
                }
            }
        }
        let report = serde_json::from_value(other).unwrap();
        let (run, node, ended) = (RunId::random(), NodeId::random(), tx.now() - i64::from(n));
        let (maker, product) = ("Supermicro".to_owned(), product.to_owned());
        tx.put_burn_in(&StoredBurnIn { run, node, maker, product, ended, report }).await.unwrap();
    }
    tx.commit().await.unwrap();
}

/// As a browser gets it, after a person has logged in.
async fn page(site: &Site, agent: &Agent) -> String {
    let form = format!("token={}", site.operator.token.as_deref().unwrap());
    let login = site.operator.http.post(format!("{}/login", site.url)).body(form);
    let login = login.header(header::CONTENT_TYPE, "application/x-www-form-urlencoded").send().await.unwrap();
    let cookie = login.headers()[header::SET_COOKIE].to_str().unwrap().split(';').next().unwrap().to_owned();
    let url = format!("{}/machines/{}/burn-in", site.url, agent.node());
    let page = site.operator.http.request(Method::GET, url).header(header::COOKIE, cookie).send().await.unwrap();
    let policy = page.headers()[header::CONTENT_SECURITY_POLICY].to_str().unwrap();
    assert!(policy.starts_with("default-src 'none'; style-src 'sha256-"), "{policy}");
    page.text().await.unwrap()
}

fn chromium(dir: &Path, html: &Path, more: &[String]) {
    let output = Command::new("chromium")
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-pdf-header-footer"])
        .arg(format!("--user-data-dir={}", dir.join("profile").display()))
        .args(more)
        .arg(html)
        .output()
        .expect("chromium: deps.sh installs it");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// With `SPEEDISO_KEEP_PAGES=DIR` page, picture and sheets stay there to be looked at.
#[tokio::test]
#[ignore = "needs chromium and pdftotext, and some seconds of them: make test-all"]
async fn the_report_is_read_in_a_browser_and_on_paper() {
    let site = Site::start().await;
    let mut agent = site.agent(1);
    let body = json!({"name": "rack3-17", "macs": [crate::support::mac(1)]});
    let _: Value = site.operator.post(speediso_model::api::path::NODES, &body).await.unwrap();
    agent.request.system.manufacturer = "Supermicro".into();
    agent.request.system.product_name = "SYS-6019P-WTR".into();
    agent.enrol(Some(site.token(1).await)).await.unwrap();
    fleet(&site, "SYS-6019P-WTR").await;
    site.order(&agent, json!({"profile": "burnin", "parameters": {"scenario": "standard", "reboots": 4}}))
        .await
        .unwrap();
    let run = agent.grant().await.run;
    agent.start(run, &plan("burn_in")).await.unwrap();
    let fault = Fault::new(FaultCode::HardwareFault, "the burn-in found a fault");
    let result =
        TaskResult { output: Some(report()), ..TaskResult::failed("burn_in", Outcome::FailedUnchanged, fault) };
    agent.end(run, result).await.unwrap();
    let page = page(&site, &agent).await;
    assert!(page.contains("Burn-in of rack3-17"), "the report was not kept:\n{page}");

    let dir = tempfile::tempdir().unwrap();
    let dir = std::env::var("SPEEDISO_KEEP_PAGES").map_or_else(|_| dir.path().to_owned(), Into::into);
    let (html, png, pdf) = (dir.join("report.html"), dir.join("report.png"), dir.join("report.pdf"));
    std::fs::write(&html, page).unwrap();
    let screenshot = format!("--screenshot={}", png.display());
    chromium(&dir, &html, &[screenshot, "--window-size=820,2600".into()]);
    // PNG, 5.2.2: width and height are the header's first fields.
    let picture = std::fs::read(&png).unwrap();
    let size = |at: usize| u32::from_be_bytes(picture[at..at + 4].try_into().unwrap());
    assert_eq!((&picture[1..4], size(16), size(20)), (&b"PNG"[..], 820, 2600));
    assert!(picture.len() > 60_000, "an empty page is smaller: {} bytes", picture.len());

    chromium(&dir, &html, &[format!("--print-to-pdf={}", pdf.display())]);
    let text = Command::new("pdftotext").arg("-layout").arg(&pdf).arg("-").output().unwrap();
    let text = String::from_utf8_lossy(&text.stdout).into_owned();
    let words = [
        "Burn-in of rack3-17",
        "Failed: a limit was not kept",
        "ZR5AB002 is 3 count",
        "of 60 are below",
        "skipped",
        "Among other machines of this model",
        "SYS-6019P-WTR",
        "start of the device",
    ];
    for words in words {
        assert!(text.contains(words), "{words} is not on paper:\n{text}");
    }
    let info = Command::new("pdfinfo").arg(&pdf).output().unwrap();
    let info = String::from_utf8_lossy(&info.stdout).into_owned();
    let sheets = info.lines().find_map(|l| l.strip_prefix("Pages:")).unwrap().trim().parse::<u32>().unwrap();
    assert!((2..=6).contains(&sheets) && (info.contains("A4") || info.contains("595")), "{info}");
}

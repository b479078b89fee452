//! All that the controller knows of a machine in one file, for whoever is asked for help. Free of secrets: agents hide them,
//! the controller hides them, and so does whoever writes the file.

use std::io::Write;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde::Serialize;
use serde_json::{Value, json};
use speediso_model::api::{Alert, EventsQuery, List, NodeView, StoredEvent, path};
use speediso_model::inventory::Inventory;
use speediso_model::log::{LogBoot, LogSource, StoredLine};
use speediso_model::order::Order;
use speediso_model::redact::Redactor;

use crate::client::Client;
use crate::commands::at;
use crate::{logs, output};

const LEVEL: i32 = 9;

const README: &str = "\
What a Speediso controller knows of one machine.

machine.json        the machine as the controller has it
inventory.json      what it has
orders.json         its orders, without their secrets
events.jsonl        what happened, oldest first
alerts.json         what needed a person
boots.json          boots of which logs are kept, newest first
logs/BOOT.log       the agent's log of a boot
kernel/BOOT.log     the kernel's
network-doctor/     what the agent found out about the network, where it looked
versions.json       of everything involved
";

/// Writes it, whole or not at all, for its owner's eyes.
pub(crate) async fn write(client: &Client, node: &NodeView, file: &Path, json: bool) -> Result<()> {
    let dir = file.parent().filter(|d| !d.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let temporary =
        tempfile::NamedTempFile::new_in(dir).with_context(|| format!("making a file in {}", dir.display()))?;
    let mut bundle = Bundle::new(&temporary, &node.name)?;
    gather(client, node, &mut bundle).await?;
    let files = bundle.finish()?;
    temporary.as_file().sync_all().context("writing the bundle")?;
    temporary.persist(file).with_context(|| format!("writing {}", file.display()))?;
    let told = json!({ "bundle": file.display().to_string(), "files": files });
    output::print(json, &told, |_| format!("{} holds {files} files about {}", file.display(), node.name))
}

async fn gather(client: &Client, node: &NodeView, bundle: &mut Bundle<'_>) -> Result<()> {
    let inventory: Option<Inventory> = client.get(&at(path::NODE_INVENTORY, node.id)).await?;
    let orders: List<Order> = client.get(path::ORDERS).await?;
    let orders: Vec<Order> = orders.items.into_iter().filter(|o| o.node == node.id).collect();
    let alerts: List<Alert> = client.get(path::ALERTS).await?;
    let alerts: Vec<Alert> = alerts.items.into_iter().filter(|a| a.node == Some(node.id)).collect();
    let boots: List<LogBoot> = client.get(&at(path::NODE_LOG_BOOTS, node.id)).await?;

    bundle.text("README.txt", README)?;
    bundle.json("machine.json", node)?;
    bundle.json("inventory.json", &inventory)?;
    bundle.json("orders.json", &orders)?;
    bundle.json("alerts.json", &alerts)?;
    bundle.json("boots.json", &boots.items)?;
    bundle.json(
        "versions.json",
        &json!({ "speediso": env!("CARGO_PKG_VERSION"), "build": node.build, "made": jiff::Timestamp::now() }),
    )?;
    bundle.text("events.jsonl", &events(client, node).await?)?;
    for boot in &boots.items {
        let lines = logs::whole(client, node, boot.boot).await?;
        bundle.text(&format!("logs/{}.log", boot.boot), &of(&lines, |s| s != LogSource::Kernel))?;
        bundle.text(&format!("kernel/{}.log", boot.boot), &of(&lines, |s| s == LogSource::Kernel))?;
        if let Some(findings) = &boot.network_doctor {
            bundle.json(&format!("network-doctor/{}.json", boot.boot), findings)?;
        }
    }
    Ok(())
}

async fn events(client: &Client, node: &NodeView) -> Result<String> {
    let redactor = Redactor::default();
    let mut query = EventsQuery { node: Some(node.id), ..EventsQuery::default() };
    let mut text = String::new();
    loop {
        let events: List<StoredEvent> = client.get_query(path::STORED_EVENTS, &query).await?;
        let Some(last) = events.items.last() else { return Ok(text) };
        query.after = last.cursor;
        for event in &events.items {
            let mut event = serde_json::to_value(event)?;
            redactor.value(&mut event);
            text.push_str(&event.to_string());
            text.push('\n');
        }
    }
}

fn of(lines: &[StoredLine], wanted: impl Fn(LogSource) -> bool) -> String {
    lines.iter().filter(|l| wanted(l.line.source)).map(|l| format!("{}\n", l.line)).collect()
}

struct Bundle<'a> {
    archive: tar::Builder<zstd::Encoder<'static, &'a tempfile::NamedTempFile>>,
    redactor: Redactor,
    folder: String,
    files: u32,
}

impl<'a> Bundle<'a> {
    fn new(file: &'a tempfile::NamedTempFile, name: &str) -> Result<Self> {
        let encoder = zstd::Encoder::new(file, LEVEL).context("setting up the compression")?;
        // A name is an operator's, but what unpacks the archive makes a path of it.
        let name: String = name.chars().filter(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_')).collect();
        let folder = format!("speediso-{name}");
        Ok(Self { archive: tar::Builder::new(encoder), redactor: Redactor::default(), folder, files: 0 })
    }

    fn json(&mut self, name: &str, value: &impl Serialize) -> Result<()> {
        let mut value: Value = serde_json::to_value(value)?;
        self.redactor.value(&mut value);
        self.add(name, serde_json::to_string_pretty(&value)?.as_bytes())
    }

    fn text(&mut self, name: &str, text: &str) -> Result<()> {
        let text: String = text.split_inclusive('\n').map(|line| self.redactor.text(line).into_owned()).collect();
        self.add(name, text.as_bytes())
    }

    fn add(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o600);
        let now = u64::try_from(jiff::Timestamp::now().as_second()).unwrap_or(0);
        header.set_mtime(now);
        let path = format!("{}/{name}", self.folder);
        self.archive.append_data(&mut header, &path, bytes).with_context(|| format!("adding {path}"))?;
        self.files += 1;
        Ok(())
    }

    fn finish(self) -> Result<u32> {
        let encoder = self.archive.into_inner().context("ending the archive")?;
        encoder.finish().and_then(|mut file| file.flush()).context("writing the bundle")?;
        Ok(self.files)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn what_is_put_in_comes_out_without_secrets() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let mut bundle = Bundle::new(&file, "../web 1").expect("begun");
        bundle.json("a.json", &json!({ "password": "CANARY", "url": "https://me:CANARY@h/" })).expect("added");
        bundle.text("logs/b.log", "one\nspeediso.token=CANARY two\nthree\n").expect("added");
        assert_eq!(bundle.finish().expect("ended"), 2);
        let reader = zstd::Decoder::new(file.reopen().expect("open")).expect("zstd");
        let mut found = Vec::new();
        for entry in tar::Archive::new(reader).entries().expect("tar") {
            let mut entry = entry.expect("an entry");
            let mut text = String::new();
            entry.read_to_string(&mut text).expect("text");
            assert!(!text.contains("CANARY"), "{text}");
            found.push((entry.path().expect("a path").display().to_string(), text));
        }
        assert_eq!(found[0].0, "speediso-web1/a.json");
        assert_eq!(found[1], ("speediso-web1/logs/b.log".into(), "one\nspeediso.token=(secret) two\nthree\n".into()));
    }
}

//! What is measured, and against what.

use std::path::Path;

use anyhow::Result;
use serde_json::{Value, json};

use super::Peers;
use super::images::{Images, MANIFEST};
use super::server::Server;

pub(super) enum Way {
    /// The agent with this task, which needs the disk's serial number.
    Agent(Box<dyn Fn(&str) -> Value>),
    /// A line for bash.
    Pipe(String),
    /// The same for a peer that says itself how long its work took.
    Ipa(String),
}

pub(super) struct Case {
    pub(super) name: String,
    pub(super) way: Way,
    /// Whether the disk must hold the image afterwards.
    pub(super) writes: bool,
    /// Names of the cases that it is compared with, and how much faster it is to be.
    pub(super) against: Vec<(&'static str, f64)>,
}

fn pipe(name: &str, line: String) -> Case {
    Case { name: name.into(), way: Way::Pipe(line), writes: true, against: Vec::new() }
}

pub(super) fn all(images: &Images, server: &Server, peers: &Peers, device: &Path, scratch: &Path) -> Result<Vec<Case>> {
    let url = |ending: &str| server.url(&images.name(ending));
    let agent = |name: &str, ending: &str, more: Value, against: &[(&'static str, f64)]| -> Result<Case> {
        let mut image = json!({"url": url(ending), "digest": images.sha256(ending)?});
        let mut task = json!({"task": "write_image", "read_back": "none"});
        for (key, value) in more.as_object().into_iter().flatten() {
            if key == "read_back" { task[key] = value.clone() } else { image[key] = value.clone() }
        }
        task["image"] = image;
        let way = Way::Agent(Box::new(move |serial| {
            let mut task = task.clone();
            task["device"] = json!({"serial": serial});
            task
        }));
        Ok(Case { name: name.into(), way, writes: true, against: against.to_vec() })
    };
    let (ca, device) = (server.ca().display(), device.display());
    let curl = |ending: &str| format!("curl -sSf --cacert {ca} {}", url(ending));
    let dd = format!("dd of={device} bs=4M iflag=fullblock oflag=direct conv=fsync status=none");
    let dgst = "tee >(openssl dgst -sha256 >/dev/null)";
    let bmaptool = |ending: &str| {
        let bmap = images.path("bmap");
        format!("SSL_CERT_FILE={ca} bmaptool -q copy --bmap {} {} {device}", bmap.display(), url(ending))
    };
    let scratch = scratch.join("download");
    let scratch = scratch.display();
    let qemu = |ending: &str| {
        format!(
            "{} > {scratch} && openssl dgst -sha256 {scratch} >/dev/null && \
             qemu-img convert -n -t none -T none -f qcow2 -O raw {scratch} {device} && sync {device}; rm -f {scratch}",
            curl(ending)
        )
    };
    let ironic = |name: &str, way: &str, ending: &str, format: &str| -> Result<Case> {
        let digest = images.sha256(ending)?;
        let digest = digest.trim_start_matches("sha256:");
        let line = format!("{} {way} {} {digest} {format} {device}", peers.ipa.command(), url(ending));
        Ok(Case { name: name.into(), way: Way::Ipa(line), writes: true, against: Vec::new() })
    };
    // Without a signature, which it would check instead of a digest.
    let coreos = |name: &str, ending: &str| -> Option<Case> {
        let command = peers.coreos.as_ref()?.command();
        Some(pipe(name, format!("SSL_CERT_FILE={ca} {command} {} {device}", url(ending))))
    };
    let unverified = [
        coreos("raw: coreos-installer, not verified", ""),
        coreos("gz: coreos-installer, not verified", "gz"),
        coreos("xz: coreos-installer, not verified", "xz"),
    ];
    let mut cases = vec![
        agent(
            "raw: speediso",
            "",
            json!({"compression": "none"}),
            &[
                ("raw: ironic-python-agent, streamed", 3.0),
                ("raw: curl, openssl dgst, dd", 2.0),
                ("raw: bmaptool", 1.0),
                ("raw: coreos-installer, not verified", 1.0),
            ],
        )?,
        ironic("raw: ironic-python-agent, streamed", "stream", "", "raw")?,
        pipe("raw: curl, openssl dgst, dd", format!("{} | {dgst} | {dd}", curl(""))),
        pipe("raw: bmaptool", bmaptool("")),
        agent(
            "zst: speediso",
            "3.zst",
            json!({"compression": "zstd"}),
            &[("zst: curl, openssl dgst, zstd, dd", 1.5), ("zst: bmaptool", 2.0)],
        )?,
        pipe("zst: curl, openssl dgst, zstd, dd", format!("{} | {dgst} | zstd -dcq | {dd}", curl("3.zst"))),
        pipe("zst: bmaptool", bmaptool("3.zst")),
        agent(
            "manifest: speediso",
            MANIFEST,
            json!({"compression": "none", "format": "manifest"}),
            &[("raw: bmaptool", 3.0), ("zst: bmaptool", 3.0)],
        )?,
        agent(
            "gz: speediso",
            "gz",
            json!({"compression": "gzip"}),
            &[("gz: bmaptool", 1.8), ("gz: coreos-installer, not verified", 1.0)],
        )?,
        pipe("gz: curl, openssl dgst, pigz, dd", format!("{} | {dgst} | pigz -dc | {dd}", curl("gz"))),
        pipe("gz: bmaptool", bmaptool("gz")),
        agent(
            "xz: speediso",
            "xz",
            json!({"compression": "xz"}),
            &[("xz: curl, openssl dgst, xz -T2, dd", 1.0), ("xz: coreos-installer, not verified", 1.0)],
        )?,
        pipe("xz: curl, openssl dgst, xz -T2, dd", format!("{} | {dgst} | xz -T2 -dc | {dd}", curl("xz"))),
        agent("xz of 4 MiB blocks: speediso", "blocks.xz", json!({"compression": "xz"}), &[])?,
        agent(
            "qcow2: speediso",
            "qcow2",
            json!({"compression": "none", "format": "qcow2"}),
            &[("qcow2: ironic-python-agent, converted", 3.0), ("qcow2: curl, openssl dgst, qemu-img", 1.0)],
        )?,
        ironic("qcow2: ironic-python-agent, converted", "convert", "qcow2", "qcow2")?,
        pipe("qcow2: curl, openssl dgst, qemu-img", qemu("qcow2")),
        agent(
            "qcow2 with zlib: speediso",
            "z.qcow2",
            json!({"compression": "none", "format": "qcow2"}),
            &[
                ("qcow2 with zlib: ironic-python-agent, converted", 2.0),
                ("qcow2 with zlib: curl, openssl dgst, qemu-img", 1.0),
            ],
        )?,
        ironic("qcow2 with zlib: ironic-python-agent, converted", "convert", "z.qcow2", "qcow2")?,
        pipe("qcow2 with zlib: curl, openssl dgst, qemu-img", qemu("z.qcow2")),
        agent(
            "zst and read back: speediso",
            "3.zst",
            json!({"compression": "zstd", "read_back": "full"}),
            &[("zst and read back: curl, openssl dgst, zstd, dd, dd and cmp", 1.5)],
        )?,
        pipe(
            "zst and read back: curl, openssl dgst, zstd, dd, dd and cmp",
            format!(
                "{} | {dgst} | zstd -dcq | {dd} && dd if={device} bs=4M iflag=direct status=none | cmp - {}",
                curl("3.zst"),
                images.path("").display()
            ),
        ),
    ];
    cases.extend(unverified.into_iter().flatten());
    Ok(cases)
}

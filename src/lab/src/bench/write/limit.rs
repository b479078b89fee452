//! What no program could do better on this machine: the work of each stage, measured alone and in the same run, shared out
//! over the cores without a loss.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result};
use nix::sys::resource::{UsageWho, getrusage};
use nix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};
use speediso_image::manifest::{Chunk, ChunkDecoder, ImageDirectory};
use speediso_lab::tool;

use super::images::{Images, MANIFEST};
use super::measure::cpu_seconds;
use super::server::Server;
use crate::show::fact;

pub(super) struct Limit {
    /// The case that cannot be faster.
    pub(super) case: &'static str,
    /// Processor seconds.
    parts: Vec<(&'static str, f64)>,
    cores: usize,
}

impl Limit {
    pub(super) fn measure(images: &Images, server: &Server, device: &Path) -> Result<Vec<Self>> {
        let manifest = images.path(MANIFEST);
        let folder = manifest.parent().context("a manifest lies in a directory")?;
        let image = ImageDirectory::open(folder, None)?;
        let data = image.manifest.data_name();
        let raw = images.path("");

        let total = fs::metadata(&raw)?.len();
        let [fetch, serve] = fetch(server, &images.name(""))?;
        let hash = digest(&raw)?;
        let of_raw = vec![("fetch", fetch), ("serve", serve), ("hash", hash), ("write", write(device, total)?)];

        let [fetch, serve] = self::fetch(server, &images.name(&format!("image/{data}")))?;
        let decode = decode(&image, &fs::read(folder.join(data))?)?;
        let used = image.index.totals().used_bytes;
        let (written, zeroed) = (write(device, used)?, zero(device, total - used)?);
        let of_manifest = vec![
            ("fetch", fetch),
            ("serve", serve),
            ("decode and verify", decode),
            ("write", written),
            ("zero the rest", zeroed),
        ];

        let qcow2 = images.path("qcow2");
        let [fetch, serve] = self::fetch(server, &images.name("qcow2"))?;
        let hash = digest(&qcow2)?;
        // Its clusters, within the few that hold its tables.
        let used = fs::metadata(&qcow2)?.len();
        let (written, zeroed) = (write(device, used)?, zero(device, total - used)?);
        let of_qcow2 =
            vec![("fetch", fetch), ("serve", serve), ("hash", hash), ("write", written), ("zero the rest", zeroed)];

        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let limits = [("raw: speediso", of_raw), ("manifest: speediso", of_manifest), ("qcow2: speediso", of_qcow2)];
        Ok(limits.into_iter().map(|(case, parts)| Self { case, parts, cores }).collect())
    }

    pub(super) fn seconds(&self) -> f64 {
        #[allow(clippy::cast_precision_loss, reason = "cores of one machine")]
        let cores = self.cores as f64;
        self.parts.iter().map(|(_, seconds)| seconds).sum::<f64>() / cores
    }

    pub(super) fn show(&self, wall: f64) {
        let parts: Vec<String> = self.parts.iter().map(|(name, seconds)| format!("{name} {seconds:.2}")).collect();
        fact(format!(
            "{} takes {:.2} times the limit of {:.2} s ({} processor seconds, over {} cores)",
            self.case,
            wall / self.seconds(),
            self.seconds(),
            parts.join(", "),
            self.cores
        ));
    }

    pub(super) fn data(&self) -> Value {
        let parts: serde_json::Map<String, Value> =
            self.parts.iter().map(|(name, seconds)| ((*name).to_owned(), json!(seconds))).collect();
        json!({"case": self.case, "cpu_s": parts, "cores": self.cores, "seconds": self.seconds()})
    }
}

/// What it costs here, and on the server's side.
fn fetch(server: &Server, file: &str) -> Result<[f64; 2]> {
    let served = server.cpu_seconds()?;
    let url = server.url(file);
    let mut curl = Command::new("curl");
    let fetch = of_child(curl.args(["-sSf", "-o", "/dev/null", "--cacert"]).arg(server.ca()).arg(url))?;
    Ok([fetch, server.cpu_seconds()? - served])
}

fn digest(file: &Path) -> Result<f64> {
    of_child(Command::new("openssl").args(["dgst", "-sha256", "-r"]).arg(file))
}

fn of_child(command: &mut Command) -> Result<f64> {
    let before = cpu_seconds(getrusage(UsageWho::RUSAGE_CHILDREN)?);
    tool::run(command)?;
    Ok(cpu_seconds(getrusage(UsageWho::RUSAGE_CHILDREN)?) - before)
}

fn decode(image: &ImageDirectory, stored: &[u8]) -> Result<f64> {
    let mut out = vec![0; image.manifest.chunk_size() as usize];
    let mut decoder = ChunkDecoder::new()?;
    let before = thread_seconds()?;
    for (number, chunk) in (0..).zip(image.index.chunks()) {
        if let Chunk::Data { offset, length, .. } = chunk {
            let at = usize::try_from(offset)?;
            let decoded = image.manifest.decoded_length(number) as usize;
            decoder.decode(&chunk, &stored[at..at + length as usize], &mut out[..decoded])?;
        }
    }
    Ok(thread_seconds()? - before)
}

fn thread_seconds() -> Result<f64> {
    let time = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?;
    Ok(std::time::Duration::from(time).as_secs_f64())
}

/// The kernel copies into the memory below the disk on threads of its own: for as long as it takes, a core works.
fn write(device: &Path, bytes: u64) -> Result<f64> {
    let of = format!("of={}", device.display());
    let count = format!("count={}", bytes >> 20);
    let begun = Instant::now();
    tool::run(Command::new("dd").args(["if=/dev/zero", &of, &count, "bs=1M", "oflag=direct", "status=none"]))?;
    Ok(begun.elapsed().as_secs_f64())
}

/// What is not written has to read as zeros too.
fn zero(device: &Path, bytes: u64) -> Result<f64> {
    let begun = Instant::now();
    tool::run(Command::new("blkdiscard").args(["-z", "-l", &format!("{}MiB", bytes >> 20)]).arg(device))?;
    Ok(begun.elapsed().as_secs_f64())
}

//! What no program could do better on this machine: the work of each stage of a manifest image, measured alone and in the
//! same run, shared out over the cores without a loss.

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

/// Processor seconds.
pub(super) struct Limit {
    fetch: f64,
    serve: f64,
    decode: f64,
    write: f64,
    cores: f64,
}

impl Limit {
    pub(super) fn measure(images: &Images, server: &Server, device: &Path) -> Result<Self> {
        let manifest = images.path(MANIFEST);
        let folder = manifest.parent().context("a manifest lies in a directory")?;
        let image = ImageDirectory::open(folder, None)?;
        let data = folder.join(image.manifest.data_name());
        let stored = fs::read(&data)?;

        let served = server.cpu_seconds()?;
        let before = cpu_seconds(getrusage(UsageWho::RUSAGE_CHILDREN)?);
        let url = server.url(&images.name(&format!("image/{}", image.manifest.data_name())));
        tool::run(Command::new("curl").args(["-sSf", "-o", "/dev/null", "--cacert"]).arg(server.ca()).arg(url))?;
        let fetch = cpu_seconds(getrusage(UsageWho::RUSAGE_CHILDREN)?) - before;
        let serve = server.cpu_seconds()? - served;

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
        let decode = thread_seconds()? - before;

        // The kernel copies into the memory below the disk on threads of its own: for as long as it takes, a core works.
        let of = format!("of={}", device.display());
        let count = format!("count={}", image.index.totals().used_bytes >> 20);
        let begun = Instant::now();
        tool::run(Command::new("dd").args(["if=/dev/zero", &of, &count, "bs=1M", "oflag=direct", "status=none"]))?;
        let write = begun.elapsed().as_secs_f64();

        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        #[allow(clippy::cast_precision_loss, reason = "cores of one machine")]
        let limit = Self { fetch, serve, decode, write, cores: cores as f64 };
        fact(format!(
            "limit for the manifest image: {:.2} s (fetch {fetch:.2}, serve {serve:.2}, decode and verify {decode:.2}, \
             write {write:.2} processor seconds, over {cores} cores)",
            limit.seconds()
        ));
        Ok(limit)
    }

    pub(super) fn seconds(&self) -> f64 {
        (self.fetch + self.serve + self.decode + self.write) / self.cores
    }

    pub(super) fn data(&self) -> Value {
        json!({
            "fetch_cpu_s": self.fetch,
            "serve_cpu_s": self.serve,
            "decode_cpu_s": self.decode,
            "write_cpu_s": self.write,
            "cores": self.cores,
            "seconds": self.seconds(),
        })
    }
}

fn thread_seconds() -> Result<f64> {
    let time = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?;
    Ok(std::time::Duration::from(time).as_secs_f64())
}

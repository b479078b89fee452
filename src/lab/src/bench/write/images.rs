//! The same disk in every form, made once beside the raw image.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use speediso_lab::tool;

use crate::show::{fact, mib};

/// A manifest image is a directory, named to the agent by the file in it.
pub(super) const MANIFEST: &str = "image/manifest.json";

pub(super) struct Images {
    folder: PathBuf,
    raw: String,
}

impl Images {
    pub(super) fn make(raw: &Path, packed: &Path) -> Result<Self> {
        let folder = raw.parent().context("the image lies in a directory")?.to_owned();
        let name = raw.file_name().and_then(|n| n.to_str()).context("the image has a name")?.to_owned();
        let images = Self { folder, raw: name };
        let path = |ending: &str| images.path(ending).display().to_string();
        let source = raw.display().to_string();
        let pack = std::env::current_exe()?.with_file_name("speediso").display().to_string();
        let lines = [
            ("3.zst", format!("zstd -3 -T0 -q -f -o {} {source}", path("3.zst"))),
            ("gz", format!("pigz -c {source} > {}.part && mv {0}.part {0}", path("gz"))),
            ("xz", format!("xz -T2 -2 -c {source} > {}.part && mv {0}.part {0}", path("xz"))),
            (
                "blocks.xz",
                format!("xz -T2 -2 --block-size=4MiB -c {source} > {}.part && mv {0}.part {0}", path("blocks.xz")),
            ),
            ("qcow2", format!("qemu-img convert -O qcow2 {source} {}.part && mv {0}.part {0}", path("qcow2"))),
            ("z.qcow2", format!("qemu-img convert -c -O qcow2 {source} {}.part && mv {0}.part {0}", path("z.qcow2"))),
            ("bmap", format!("bmaptool create -o {} {source}", path("bmap"))),
            (MANIFEST, format!("rm -rf {0} && {pack} image pack --json -o {0} {source}", path("image"))),
        ];
        // Of what the files here were made. The packed image may be copied again without being another one.
        let (stamp, content) = (images.path("made-of"), sha256(packed)?);
        let same = fs::read_to_string(&stamp).is_ok_and(|before| before == content);
        for (ending, line) in lines {
            if !same || !images.path(ending).exists() {
                tool::run(Command::new("bash").args(["-euo", "pipefail", "-c", &line]))?;
                fact(format!("made {}: {}", images.name(ending), mib(fs::metadata(images.path(ending))?.len())));
            }
        }
        fs::write(stamp, content)?;
        Ok(images)
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The raw image for an empty ending.
    pub(super) fn name(&self, ending: &str) -> String {
        if ending.is_empty() { self.raw.clone() } else { format!("{}.{ending}", self.raw) }
    }

    pub(super) fn path(&self, ending: &str) -> PathBuf {
        self.folder.join(self.name(ending))
    }

    pub(super) fn sha256(&self, ending: &str) -> Result<String> {
        sha256(&self.path(ending))
    }
}

fn sha256(file: &Path) -> Result<String> {
    let line = tool::run(Command::new("openssl").args(["dgst", "-sha256", "-r"]).arg(file))?;
    let digits = line.split_whitespace().next().context("openssl prints the digest first")?;
    Ok(format!("sha256:{digits}"))
}

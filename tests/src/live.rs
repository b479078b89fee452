//! The live flavour as these tests boot it: systemd, sshd and little else, of the build that they boot.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::Value;
use speediso_lab::{Programs, tool};

#[derive(Clone, Debug)]
pub struct LiveFlavour {
    /// The manifest image.
    pub directory: PathBuf,
    /// Of the key that signed it.
    pub key: String,
}

impl LiveFlavour {
    /// Made from packages: two minutes the first time, then seconds. `form` is `squashfs` or `tar`.
    pub fn get(programs: &Programs, form: &str) -> Result<Self> {
        Self::made(programs, "tests/boot/live/live.json", form, &format!("live-{form}"))
    }

    /// With every package of the one that ships: five minutes the first time.
    pub fn that_ships(programs: &Programs) -> Result<Self> {
        Self::made(programs, "initramfs/live.json", "squashfs", "live-full")
    }

    fn made(programs: &Programs, manifest: &str, form: &str, name: &str) -> Result<Self> {
        let root = crate::root()?;
        let directory = root.join("target/images").join(name);
        std::fs::create_dir_all(root.join("target/images"))?;
        let beside = programs.cli.parent().context("programs lie in a directory")?;
        let mut command = Command::new(beside.join("speediso-initramfs"));
        command.arg("live").arg("--agent").arg(beside.join("speediso-agent"));
        command.arg("--out").arg(root.join("builds")).arg("--to").arg(&directory);
        command.arg("--manifest").arg(root.join(manifest)).args(["--form", form]);
        command.arg("--key").arg(root.join("target/images/live.key"));
        let said = tool::run(&mut command)?;
        let key = said.lines().find_map(|line| line.strip_prefix("speediso.live_key="));
        let key = key.with_context(|| format!("the builder named no key:\n{said}"))?.to_owned();
        Ok(Self { directory, key })
    }

    /// Begins as one and is signed, and is none: made at once, for tests that never come to mounting it.
    pub fn stand_in(programs: &Programs, directory: &Path) -> Result<Self> {
        let (raw, seed) = (directory.with_extension("raw"), directory.with_extension("seed"));
        let bytes: Vec<u8> = (0..4u32 << 20).map(|n| (n.wrapping_mul(2_654_435_761) >> 24).to_le_bytes()[0]).collect();
        std::fs::write(&raw, [b"hsqs".as_slice(), &bytes[4..]].concat())?;
        std::fs::write(&seed, "07".repeat(32))?;
        let mut command = Command::new(&programs.cli);
        command.args(["image", "pack"]).arg(&raw).arg("--out").arg(directory).arg("--key").arg(&seed);
        tool::run(&mut command)?;
        let manifest: Value = serde_json::from_slice(&std::fs::read(directory.join("manifest.json"))?)?;
        let key = manifest["signed_by"].as_str().context("the manifest names no key")?.to_owned();
        Ok(Self { directory: directory.to_owned(), key })
    }

    /// A copy that can be spoilt.
    pub fn copy(&self, to: &Path) -> Result<()> {
        std::fs::create_dir_all(to)?;
        for entry in std::fs::read_dir(&self.directory)? {
            let entry = entry?;
            std::fs::copy(entry.path(), to.join(entry.file_name()))?;
        }
        Ok(())
    }
}

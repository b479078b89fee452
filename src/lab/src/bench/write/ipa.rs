//! ironic-python-agent from its package, in an environment of its own that is kept in the cache.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use speediso_lab::tool;

use crate::demo::cache_dir;
use crate::show::fact;

const VERSION: &str = "13.0.0";
/// Calls its code for one image, and measures that alone.
const DRIVER: &str = include_str!("ipa.py");

pub(in crate::bench) struct Ipa {
    python: PathBuf,
}

impl Ipa {
    pub(in crate::bench) fn install() -> Result<Self> {
        let folder = cache_dir().join(format!("ironic-python-agent-{VERSION}"));
        let python = folder.join("bin/python");
        if !folder.join("complete").exists() {
            fact(format!("installing ironic-python-agent {VERSION} with pip (half a minute)"));
            tool::run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&folder))?;
            let package = format!("ironic-python-agent=={VERSION}");
            tool::run(Command::new(&python).args(["-m", "pip", "install", "-q", &package]))?;
            std::fs::write(folder.join("complete"), VERSION).context("marking the environment as complete")?;
        }
        Ok(Self { python })
    }

    /// The interpreter that finds its packages.
    pub(in crate::bench) fn python(&self) -> &Path {
        &self.python
    }

    /// Followed by way, URL, digest, format and disk.
    pub(super) fn command(&self) -> String {
        format!("{} $DRIVER", self.python.display())
    }

    pub(super) fn driver() -> &'static str {
        DRIVER
    }
}

//! coreos-installer from its package, built once and kept in the cache.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};
use speediso_lab::tool;

use crate::demo::cache_dir;
use crate::show::fact;

const VERSION: &str = "0.24.0";
/// It talks to udev, which a machine for tests may not have: in a mount namespace of its own it finds a socket to look
/// at, and an `udevadm` that has nothing to wait for.
const SCRIPT: &str = r#"#!/bin/sh
set -e
mkdir -p /run/udev
mount -t tmpfs tmpfs /run/udev
touch /run/udev/control
mkdir /run/udev/bin
printf '#!/bin/sh\nexit 0\n' >/run/udev/bin/udevadm
chmod +x /run/udev/bin/udevadm
# It finds no signature, as expected, and would read all of its debug information to say so.
export RUST_BACKTRACE=0
PATH=/run/udev/bin:$PATH exec "$(dirname "$0")/coreos-installer" install --insecure --image-url "$1" "$2" >/dev/null 2>&1
"#;

pub(super) struct Coreos {
    script: PathBuf,
}

impl Coreos {
    /// `None`, and said why, where it does not build.
    pub(super) fn install() -> Result<Option<Self>> {
        let folder = cache_dir().join(format!("coreos-installer-{VERSION}"));
        let script = folder.join("bin/install.sh");
        if !folder.join("complete").exists() {
            fact(format!("building coreos-installer {VERSION} (about 8 minutes)"));
            let host = ["--target", "x86_64-unknown-linux-gnu"];
            let mut cargo = Command::new("cargo");
            cargo.args(["install", "coreos-installer", "--locked", "--quiet", "--version", VERSION]).args(host);
            if let Err(error) = tool::run(cargo.arg("--root").arg(&folder)) {
                fact(format!("coreos-installer is left out, it does not build here: {error}"));
                return Ok(None);
            }
            std::fs::write(folder.join("complete"), VERSION).context("marking coreos-installer as complete")?;
        }
        std::fs::write(&script, SCRIPT).context("writing the script that starts coreos-installer")?;
        Ok(Some(Self { script }))
    }

    /// Followed by URL and disk.
    pub(super) fn command(&self) -> String {
        format!("unshare --mount sh {}", self.script.display())
    }
}

//! Which build of the ramdisk this agent runs in.

use speediso_model::build::BuildInfo;

const FILE: &str = "/etc/speediso-build";

/// Outside of a ramdisk: build 0 of this version.
#[must_use]
pub fn read() -> BuildInfo {
    let mut build: BuildInfo =
        std::fs::read(FILE).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default();
    if build.version.is_empty() {
        env!("CARGO_PKG_VERSION").clone_into(&mut build.version);
    }
    build
}

//! What the live root consists of, as data: every group, and everything that is switched off, carries its reason.

use std::collections::BTreeSet;

use serde::Deserialize;

use crate::manifest::ExtraFile;

/// The manifest that is used when none is named.
pub(super) const BUILT_IN: &str = include_str!("../../live.json");

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LiveManifest {
    pub modules: Modules,
    pub packages: Vec<PackageGroup>,
    /// Units that never start.
    pub masked: Vec<Named>,
    /// Generators of systemd that never run.
    pub generators_off: Vec<Named>,
    /// Rules of udev that do not count.
    pub udev_rules_off: Vec<Named>,
    /// Files of the site, relative to the manifest.
    pub files: Vec<ExtraFile>,
}

/// Which of the kernel package's modules the root has.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Modules {
    All,
    /// Those of the ramdisk's built-in manifest.
    Ramdisk,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PackageGroup {
    pub group: String,
    pub reason: String,
    pub packages: Vec<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Named {
    pub reason: String,
    pub names: Vec<String>,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum LiveManifestError {
    #[error("reading the manifest of the live root")]
    Syntax(#[from] serde_json::Error),
    #[error("the manifest of the live root gives no reason for {0}")]
    NoReason(String),
    #[error("the manifest of the live root names {0} twice")]
    Twice(String),
    #[error("{0:?} cannot be the name of a package, a unit or a rule")]
    BadName(String),
}

impl LiveManifest {
    pub(super) fn parse(text: &str) -> Result<Self, LiveManifestError> {
        let manifest: Self = serde_json::from_str(text)?;
        manifest.check()?;
        Ok(manifest)
    }

    pub(super) fn package_names(&self) -> Vec<&str> {
        self.packages.iter().flat_map(|group| &group.packages).map(String::as_str).collect()
    }

    fn off(&self) -> impl Iterator<Item = &Named> {
        self.masked.iter().chain(&self.generators_off).chain(&self.udev_rules_off)
    }

    fn check(&self) -> Result<(), LiveManifestError> {
        let first = |names: &[String]| names.first().cloned().unwrap_or_default();
        let reasons = (self.packages.iter().map(|group| (group.group.clone(), &group.reason)))
            .chain(self.off().map(|named| (first(&named.names), &named.reason)))
            .chain(self.files.iter().map(|file| (file.to.clone(), &file.reason)));
        for (what, reason) in reasons {
            if reason.trim().is_empty() {
                return Err(LiveManifestError::NoReason(what));
            }
        }
        let names = self.packages.iter().flat_map(|group| &group.packages);
        let mut seen = BTreeSet::new();
        for name in names.chain(self.off().flat_map(|named| &named.names)) {
            // They become words of apt's command line and names of files.
            if name.starts_with(['-', '.']) || !name.bytes().all(is_plain) || name.is_empty() {
                return Err(LiveManifestError::BadName(name.clone()));
            }
            if !seen.insert(name) {
                return Err(LiveManifestError::Twice(name.clone()));
            }
        }
        Ok(())
    }
}

fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b'+' | b'@')
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_built_in_one_has_what_people_expect() {
        let manifest = LiveManifest::parse(BUILT_IN).unwrap();
        let names = manifest.package_names();
        for expected in ["openssh-server", "systemd-sysv", "smartmontools", "nvme-cli", "fio", "vim-tiny", "ntfs-3g"] {
            assert!(names.contains(&expected), "{expected}");
        }
        assert_eq!(manifest.modules, Modules::All);
    }

    #[test]
    fn mistakes_are_named() {
        let with = |from: &str, to: &str| {
            let text = r#"{"modules":"ramdisk","packages":[{"group":"g","reason":"r","packages":["kmod"]}],
                "masked":[{"reason":"r","names":["a.timer"]}],"generators_off":[],"udev_rules_off":[],"files":[]}"#;
            LiveManifest::parse(&text.replace(from, to)).map_err(|error| error.to_string())
        };
        with("", "").unwrap();
        assert!(with("\"reason\":\"r\",\"names\"", "\"reason\":\" \",\"names\"").unwrap_err().contains("a.timer"));
        assert!(with("a.timer", "kmod").unwrap_err().ends_with("names kmod twice"));
        assert!(with("\"kmod\"", "\"--purge\"").unwrap_err().starts_with("\"--purge\""));
        assert!(with("\"masked\"", "\"maskd\"").is_err());
    }
}

//! What goes into the ramdisk besides the agent, as data: every group and program carries its reason.

use std::collections::BTreeMap;

use serde::Deserialize;

/// The manifest that is used when none is named.
pub const BUILT_IN: &str = include_str!("../manifest.json");

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Package that depends on the kernel to pack.
    pub kernel: String,
    #[serde(default)]
    pub modules: Vec<ModuleGroup>,
    /// Modules that no device may pull in.
    #[serde(default)]
    pub blacklist: Vec<Blacklisted>,
    #[serde(default)]
    pub module_options: Vec<ModuleOptions>,
    #[serde(default)]
    pub programs: Vec<Program>,
    /// Packages whose shared libraries the programs may use; only those needed are packed.
    #[serde(default)]
    pub libraries: Vec<String>,
    /// Files of the site, relative to the manifest.
    #[serde(default)]
    pub files: Vec<ExtraFile>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModuleGroup {
    pub group: String,
    pub reason: String,
    pub modules: Vec<String>,
    /// Packages in which the firmware is that these modules ask for: `non-free-firmware/firmware-bnx2`, with the
    /// component if it is not in `main`. Only the files that a module names are packed.
    #[serde(default)]
    pub firmware: Vec<String>,
    /// A kernel that lacks some of them is packed without those, and the build says so.
    #[serde(default)]
    pub optional: bool,
    /// Few machines want any of them, or only a task does: they lie compressed in the ramdisk until one is asked for.
    #[serde(default)]
    pub packed: bool,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Blacklisted {
    pub reason: String,
    pub module: String,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModuleOptions {
    pub reason: String,
    pub module: String,
    pub options: String,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Program {
    pub package: String,
    pub reason: String,
    /// Path in the package, path in the ramdisk.
    pub files: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExtraFile {
    pub reason: String,
    pub from: String,
    pub to: String,
    #[serde(default)]
    pub executable: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    #[error("reading the manifest")]
    Syntax(#[from] serde_json::Error),
    #[error("the manifest gives no reason for {0}")]
    NoReason(String),
    #[error("the manifest names the module {0} twice")]
    Twice(String),
    #[error("the manifest has two groups {0}")]
    TwoGroups(String),
    #[error("the manifest leaves out the module {0}, which no group has")]
    NotThere(String),
    #[error("the manifest stands alone and names no kernel")]
    NoKernel,
    #[error("{0:?} is no name of a {1}")]
    BadName(String, &'static str),
}

impl Manifest {
    pub fn parse(text: &str) -> Result<Self, ManifestError> {
        let manifest: Self = serde_json::from_str(text)?;
        manifest.check()?;
        Ok(manifest)
    }

    pub(crate) fn check(&self) -> Result<(), ManifestError> {
        let reasons = (self.modules.iter().map(|g| (&g.group, &g.reason)))
            .chain(self.programs.iter().map(|p| (&p.package, &p.reason)))
            .chain(self.blacklist.iter().map(|b| (&b.module, &b.reason)))
            .chain(self.module_options.iter().map(|o| (&o.module, &o.reason)))
            .chain(self.files.iter().map(|f| (&f.to, &f.reason)));
        for (what, reason) in reasons {
            if reason.trim().is_empty() {
                return Err(ManifestError::NoReason(what.clone()));
            }
        }
        let mut groups = std::collections::BTreeSet::new();
        if let Some(group) = self.modules.iter().find(|group| !groups.insert(&group.group)) {
            return Err(ManifestError::TwoGroups(group.group.clone()));
        }
        let modules = self.modules.iter().flat_map(|group| &group.modules).map(|name| (name, "module"));
        let packages = self.programs.iter().map(|program| &program.package).chain(&self.libraries);
        let packages =
            packages.chain(self.modules.iter().flat_map(|group| &group.firmware)).map(|name| (name, "package"));
        if let Some((name, what)) = modules.chain(packages).find(|(name, _)| !is_name(name)) {
            return Err(ManifestError::BadName(name.clone(), what));
        }
        let mut seen = std::collections::BTreeSet::new();
        for module in self.modules.iter().flat_map(|group| &group.modules) {
            if !seen.insert(module_name(module)) {
                return Err(ManifestError::Twice(module.clone()));
            }
        }
        Ok(())
    }
}

/// They become words of a command line, where nothing may be taken for an option.
fn is_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '+' | '/');
    name.starts_with(|c: char| c.is_ascii_alphanumeric()) && name.chars().all(plain)
}

/// The kernel takes `-` and `_` in module names for the same.
pub fn module_name(name: &str) -> String {
    name.replace('-', "_")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_built_in_manifest_is_sound() {
        let manifest = Manifest::parse(BUILT_IN).unwrap();
        assert!(manifest.modules.iter().any(|group| group.modules.iter().any(|module| module == "nvme")));
    }

    #[test]
    fn refuses_what_would_be_misread() {
        let with = |from: &str, to: &str| Manifest::parse(&BUILT_IN.replacen(from, to, 1)).unwrap_err().to_string();
        assert_eq!(with(r#""nvme"]"#, r#""nvme", "sd-mod"]"#), "the manifest names the module sd_mod twice");
        assert_eq!(
            with(r#""reason": "the disks of most servers of the last ten years""#, r#""reason": " ""#),
            "the manifest gives no reason for nvme"
        );
        assert_eq!(with(r#""libraries""#, r#""librarys""#), "reading the manifest");
        assert_eq!(with(r#""nvme"]"#, r#""nvme", "-o"]"#), "\"-o\" is no name of a module");
        assert_eq!(with(r#""group": "sata""#, r#""group": "nvme""#), "the manifest has two groups nvme");
    }
}

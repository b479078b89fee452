//! A site's own manifest: what is packed beside the built-in one, or left out of it, in one file.

use std::path::Path;

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::arch::Arch;
use crate::manifest::{
    Blacklisted, ExtraFile, Manifest, ManifestError, ModuleGroup, ModuleOptions, Program, module_name,
};

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Extra {
    /// Nothing of the built-in manifest: this one is all there is.
    #[serde(default)]
    pub alone: bool,
    /// Instead of the built-in manifest's.
    #[serde(default)]
    pub kernel: Option<String>,
    /// A group of the same name grows by these modules.
    #[serde(default)]
    pub modules: Vec<ModuleGroup>,
    /// Modules of the built-in manifest that are not packed.
    #[serde(default)]
    pub without: Vec<Blacklisted>,
    #[serde(default)]
    pub blacklist: Vec<Blacklisted>,
    #[serde(default)]
    pub module_options: Vec<ModuleOptions>,
    #[serde(default)]
    pub programs: Vec<Program>,
    #[serde(default)]
    pub libraries: Vec<String>,
    /// Relative to this file.
    #[serde(default)]
    pub files: Vec<ExtraFile>,
}

impl Extra {
    pub fn parse(text: &str) -> Result<Self, ManifestError> {
        Ok(serde_json::from_str(text)?)
    }

    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| format!("reading the manifest {}", path.display()))?;
        Self::parse(&text).with_context(|| format!("in {}", path.display()))
    }

    /// Both together.
    pub fn over(self, built_in: Manifest) -> Result<Manifest, ManifestError> {
        let mut manifest = if self.alone {
            let kernel = self.kernel.clone().ok_or(ManifestError::NoKernel)?;
            Manifest { kernel, ..Manifest::default() }
        } else {
            built_in
        };
        if let Some(kernel) = self.kernel {
            manifest.kernel = kernel;
        }
        for entry in &self.without {
            let gone = module_name(&entry.module);
            let group = manifest.modules.iter_mut().find(|g| g.modules.iter().any(|m| module_name(m) == gone));
            let group = group.ok_or_else(|| ManifestError::NotThere(entry.module.clone()))?;
            group.modules.retain(|module| module_name(module) != gone);
        }
        for group in self.modules {
            // What is packed already, for whatever reason, needs no second one.
            let packed = |module: &String| {
                let name = module_name(module);
                manifest.modules.iter().any(|g| g.modules.iter().any(|m| module_name(m) == name))
            };
            let modules: Vec<String> = group.modules.iter().filter(|module| !packed(module)).cloned().collect();
            match manifest.modules.iter_mut().find(|known| known.group == group.group) {
                Some(known) => {
                    known.modules.extend(modules);
                    known.firmware.extend(group.firmware);
                }
                None => manifest.modules.push(ModuleGroup { modules, ..group }),
            }
        }
        manifest.blacklist.extend(self.blacklist);
        manifest.module_options.extend(self.module_options);
        manifest.programs.extend(self.programs);
        manifest.libraries.extend(self.libraries);
        manifest.libraries.dedup();
        manifest.files.extend(self.files);
        manifest.check()?;
        Ok(manifest)
    }
}

impl Manifest {
    /// For another kernel, or another machine's, which may lack modules that this manifest's own kernel has.
    #[must_use]
    pub fn for_kernel(mut self, kernel: Option<&str>, arch: Arch) -> Self {
        let other = kernel.is_some_and(|kernel| kernel != self.kernel);
        if other || arch != Arch::X86_64 {
            self.modules.iter_mut().for_each(|group| group.optional = true);
        }
        if let Some(kernel) = kernel {
            kernel.clone_into(&mut self.kernel);
        }
        self
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::manifest::BUILT_IN;

    fn merged(text: &str) -> Result<Manifest, ManifestError> {
        Extra::parse(text)?.over(Manifest::parse(BUILT_IN).unwrap())
    }

    fn group<'a>(manifest: &'a Manifest, name: &str) -> &'a ModuleGroup {
        manifest.modules.iter().find(|group| group.group == name).unwrap()
    }

    #[test]
    fn a_site_adds_and_leaves_out() {
        let manifest = merged(
            r#"{ "modules": [ { "group": "virtual", "reason": "ours", "modules": ["pcnet32", "nvme"] },
                              { "group": "old", "reason": "an old card", "modules": ["e100"], "firmware": ["non-free-firmware/firmware-misc-nonfree"] } ],
                 "without": [ { "module": "hv-netvsc", "reason": "no Hyper-V here" } ],
                 "libraries": ["libc6", "libfoo1"],
                 "files": [ { "reason": "who to call", "from": "support.txt", "to": "/etc/support" } ] }"#,
        )
        .unwrap();
        let built_in = Manifest::parse(BUILT_IN).unwrap();
        let virtual_group = group(&manifest, "virtual");
        assert!(virtual_group.modules.contains(&"pcnet32".to_owned()));
        assert!(!virtual_group.modules.contains(&"nvme".to_owned()), "it is in its own group already");
        assert!(!virtual_group.modules.contains(&"hv_netvsc".to_owned()));
        assert_eq!(virtual_group.reason, group(&built_in, "virtual").reason);
        assert_eq!(group(&manifest, "old").modules, ["e100"]);
        assert_eq!((manifest.files.len(), manifest.programs.len()), (1, built_in.programs.len()));
        let alone = merged(r#"{ "alone": true, "kernel": "linux-image-cloud-amd64" }"#).unwrap();
        assert!(alone.modules.is_empty() && alone.programs.is_empty());
    }

    #[test]
    fn mistakes_are_named() {
        for (text, said) in [
            (r#"{ "module": [] }"#, "reading the manifest"),
            (r#"{ "alone": true }"#, "the manifest stands alone and names no kernel"),
            (
                r#"{ "without": [ { "module": "warp", "reason": "x" } ] }"#,
                "the manifest leaves out the module warp, which no group has",
            ),
            (
                r#"{ "modules": [ { "group": "g", "reason": " ", "modules": ["e100"] } ] }"#,
                "the manifest gives no reason for g",
            ),
            (
                r#"{ "modules": [ { "group": "g", "reason": "r", "modules": ["e100", "e100"] } ] }"#,
                "the manifest names the module e100 twice",
            ),
        ] {
            assert_eq!(merged(text).unwrap_err().to_string(), said, "{text}");
        }
        let error = anyhow::Error::from(merged(r#"{ "files": [ { "from": "x" } ] }"#).unwrap_err());
        assert!(format!("{error:#}").contains("missing field `reason`"), "{error:#}");
    }

    #[test]
    fn another_kernel_may_lack_what_the_built_in_manifest_names() {
        let built_in = Manifest::parse(BUILT_IN).unwrap();
        let all_optional = |kernel, arch| {
            let manifest = built_in.clone().for_kernel(kernel, arch);
            manifest.modules.iter().all(|group| group.optional)
        };
        assert!(!all_optional(None, Arch::X86_64) && !all_optional(Some("linux-image-amd64"), Arch::X86_64));
        assert!(all_optional(Some("linux-image-cloud-amd64"), Arch::X86_64) && all_optional(None, Arch::Aarch64));
    }
}

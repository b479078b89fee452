//! The lock of a build: every package that went into it, with version and digest. A build by a lock takes exactly those,
//! asks apt for nothing else, and fails if one is not in it.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use crate::arch::Arch;
use crate::packages::Package;

pub const FILE_NAME: &str = "packages.lock.json";
const VERSION: u32 = 1;

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lock {
    version: u32,
    arch: String,
    /// Package by what the manifest or the command line calls the kernel.
    kernels: BTreeMap<String, String>,
    packages: Vec<Package>,
}

#[derive(PartialEq, Eq, Debug, thiserror::Error)]
pub enum LockError {
    #[error("the lock has no package {0}: it is of another manifest; make a new one by a build without --lock")]
    NoPackage(String),
    #[error("the lock has no kernel {0}: it is of another manifest; make a new one by a build without --lock")]
    NoKernel(String),
}

impl Lock {
    #[must_use]
    pub fn new(arch: Arch) -> Self {
        Self { version: VERSION, arch: arch.to_string(), kernels: BTreeMap::new(), packages: Vec::new() }
    }

    pub fn read(path: &Path, arch: Arch) -> Result<Self> {
        let text = std::fs::read(path).with_context(|| format!("reading the lock {}", path.display()))?;
        let lock: Self =
            serde_json::from_slice(&text).with_context(|| format!("reading the lock {}", path.display()))?;
        ensure!(lock.version == VERSION, "the lock {} is of version {}, not {VERSION}", path.display(), lock.version);
        ensure!(lock.arch == arch.to_string(), "the lock {} is for {}, not {arch}", path.display(), lock.arch);
        for package in &lock.packages {
            let digest = package.sha256.len() == 64 && package.sha256.bytes().all(|b| b.is_ascii_hexdigit());
            ensure!(digest, "the lock {} has no SHA-256 for {}", path.display(), package.name);
        }
        Ok(lock)
    }

    #[must_use]
    pub fn packages(&self) -> &[Package] {
        &self.packages
    }

    pub(crate) fn extend(&mut self, packages: &[Package]) {
        self.packages.extend_from_slice(packages);
        self.packages.sort();
        self.packages.dedup();
    }

    pub(crate) fn note_kernel(&mut self, spec: &str, package: &Package) {
        self.kernels.insert(spec.to_owned(), package.name.clone());
        self.extend(std::slice::from_ref(package));
    }

    /// For `arch`, or the same for all.
    pub(crate) fn package(&self, name: &str, arch: Arch) -> Result<Package> {
        let fits = |package: &&Package| {
            package.name == name && (package.architecture == arch.debian() || package.architecture == "all")
        };
        Ok(self.packages.iter().find(fits).cloned().ok_or_else(|| LockError::NoPackage(name.to_owned()))?)
    }

    pub(crate) fn kernel(&self, spec: &str) -> Result<Package> {
        let name = self.kernels.get(spec).ok_or_else(|| LockError::NoKernel(spec.to_owned()))?;
        self.package(name, self.arch.parse()?)
    }

    pub fn to_json(&self) -> Result<String> {
        Ok(serde_json::to_string_pretty(self)? + "\n")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::apt::Origin;

    fn package(name: &str) -> Package {
        Package {
            name: name.to_owned(),
            version: "1:2.3-4".to_owned(),
            architecture: "amd64".to_owned(),
            sha256: "ab".repeat(32),
            origin: Origin::System,
        }
    }

    #[test]
    fn a_lock_comes_back_and_gives_what_it_has() {
        let mut lock = Lock::new(Arch::X86_64);
        lock.extend(&[package("zlib1g"), package("busybox-static"), package("zlib1g")]);
        lock.note_kernel("linux-image-amd64", &package("linux-image-6.1.0-1-amd64"));
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE_NAME);
        std::fs::write(&path, lock.to_json().unwrap()).unwrap();
        let read = Lock::read(&path, Arch::X86_64).unwrap();
        assert_eq!(read, lock);
        assert_eq!(read.packages().len(), 3);
        assert_eq!(read.kernel("linux-image-amd64").unwrap().name, "linux-image-6.1.0-1-amd64");
        let error = read.package("xz-utils", Arch::X86_64).unwrap_err();
        assert_eq!(error.downcast_ref(), Some(&LockError::NoPackage("xz-utils".to_owned())));
        assert!(read.package("zlib1g", Arch::Aarch64).is_err());
        let error = Lock::read(&path, Arch::Aarch64).unwrap_err().to_string();
        assert!(error.ends_with("is for x86_64, not aarch64"), "{error}");
        std::fs::write(&path, lock.to_json().unwrap().replacen("abab", "xyz", 1)).unwrap();
        assert!(Lock::read(&path, Arch::X86_64).unwrap_err().to_string().contains("no SHA-256 for"));
    }
}

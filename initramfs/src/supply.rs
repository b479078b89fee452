//! Where a build's packages come from: apt's newest, or exactly those of a lock. What was given out is remembered, and
//! is the lock of the next build.

use std::cell::RefCell;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::apt::{Apt, Origin};
use crate::arch::Arch;
use crate::cache::Cache;
use crate::lock::Lock;
use crate::packages::{self, Package};

#[derive(Debug)]
pub struct Supply {
    cache: Cache,
    arch: Arch,
    lock: Option<Lock>,
    given: RefCell<Lock>,
}

impl Supply {
    #[must_use]
    pub fn new(cache: Cache, arch: Arch, lock: Option<Lock>) -> Self {
        Self { cache, arch, lock, given: RefCell::new(Lock::new(arch)) }
    }

    /// With the user's cache, for the machine that this program runs on, of apt's newest.
    pub fn of_user() -> Result<Self> {
        Ok(Self::new(Cache::of_user()?, Arch::HOST, None))
    }

    #[must_use]
    pub fn cache(&self) -> &Cache {
        &self.cache
    }

    #[must_use]
    pub fn arch(&self) -> Arch {
        self.arch
    }

    /// All that was given out so far.
    #[must_use]
    pub fn lock(&self) -> Lock {
        self.given.borrow().clone()
    }

    /// In the order asked for.
    pub fn resolve(&self, names: &[&str]) -> Result<Vec<Package>> {
        self.resolve_from(&Origin::System, names)
    }

    pub fn resolve_from(&self, origin: &Origin, names: &[&str]) -> Result<Vec<Package>> {
        self.resolve_for(self.arch, origin, names)
    }

    /// What the build itself has to run, whatever machine it is for.
    pub fn resolve_to_run(&self, names: &[&str]) -> Result<Vec<Package>> {
        self.resolve_for(Arch::HOST, &Origin::System, names)
    }

    fn resolve_for(&self, arch: Arch, origin: &Origin, names: &[&str]) -> Result<Vec<Package>> {
        let packages = match &self.lock {
            Some(lock) => names.iter().map(|name| lock.package(name, arch)).collect::<Result<Vec<_>>>()?,
            None if names.is_empty() => Vec::new(),
            None => packages::resolve(names, origin, &Apt::of(origin, arch, &self.cache)?)?,
        };
        self.given.borrow_mut().extend(&packages);
        Ok(packages)
    }

    /// The kernel that `spec` names: a package that is one, a package that stands for one (`linux-image-amd64`), either
    /// of another suite (`linux-image-amd64/bookworm-backports`), or a package file (`./linux-image-6.12.9_amd64.deb`).
    pub fn kernel(&self, spec: &str) -> Result<Package> {
        let package = self.find_kernel(spec).with_context(|| format!("choosing the kernel {spec}"))?;
        let fits = package.architecture == self.arch.debian();
        ensure!(fits, "the kernel {spec} is for {} and not for {}", package.architecture, self.arch.debian());
        self.given.borrow_mut().note_kernel(spec, &package);
        Ok(package)
    }

    fn find_kernel(&self, spec: &str) -> Result<Package> {
        if let Some(lock) = &self.lock {
            return lock.kernel(spec);
        }
        let path = Path::new(spec);
        if path.extension().is_some_and(|ending| ending == "deb") {
            return Package::of_file(path);
        }
        let (name, origin) = match spec.split_once('/') {
            Some((name, suite)) => {
                let origin = format!("suite:{suite}").parse::<Origin>().map_err(anyhow::Error::msg)?;
                (name, origin)
            }
            None => (spec, Origin::System),
        };
        let apt = Apt::of(&origin, self.arch, &self.cache)?;
        let name = packages::kernel_of(&self.arch.package(name), &apt)?;
        let mut found = packages::resolve(&[&name], &origin, &apt)?;
        found.pop().context("apt gave no kernel package")
    }
}

//! Kernel modules: the ones the manifest names with all they depend on, from the package's own dependency table.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use sha2::{Digest, Sha256};

use crate::cache::Cache;
use crate::manifest::{Manifest, ModuleGroup, module_name};
use crate::pack;
use crate::packages::{self, Package, hex};
use crate::tool;

/// Changes when the layout of a cached kernel changes.
const FORMAT: &str = "1";

/// A kernel with just the wanted modules, as files.
#[derive(Clone, Debug)]
pub struct Kernel {
    pub release: String,
    pub vmlinuz: PathBuf,
    /// Path below `/lib/modules/<release>`, file, group that brought it in; sorted by path.
    pub modules: Vec<Module>,
    /// `modules.dep`, `modules.alias`, `modules.builtin`: what busybox modprobe reads.
    pub tables: BTreeMap<&'static str, String>,
    /// What optional groups name and this kernel lacks.
    pub absent: Vec<String>,
}

#[derive(Clone, Debug)]
pub struct Module {
    pub path: String,
    pub file: PathBuf,
    pub group: String,
    /// Kept compressed until it is asked for.
    pub packed: bool,
}

impl Module {
    /// As the kernel calls it, with underscores.
    #[must_use]
    pub fn name(&self) -> String {
        name_of(&self.path)
    }
}

/// What depmod found out: by module name, the file and all it needs, nearest first.
#[derive(Debug, Default)]
struct Dependencies {
    by_name: BTreeMap<String, (String, Vec<String>)>,
    built_in: BTreeSet<String>,
}

#[derive(PartialEq, Eq, Debug, thiserror::Error)]
#[error("the kernel {release} has no module {}: correct the manifest", names.join(", "))]
pub struct UnknownModules {
    release: String,
    names: Vec<String>,
}

impl Kernel {
    pub fn from_package(package: &Package, manifest: &Manifest, cache: &Cache) -> Result<Self> {
        let release = package
            .name
            .strip_prefix("linux-image-")
            .map(|name| name.strip_suffix("-unsigned").unwrap_or(name))
            .with_context(|| format!("the package {} is not named after a kernel release", package.name))?
            .to_owned();
        let mut key = Sha256::new();
        key.update(format!("{FORMAT} {}", package.sha256));
        let modules = |g: &ModuleGroup| g.modules.iter().map(|m| (m.clone(), g.optional)).collect::<Vec<_>>();
        let mut wanted: Vec<(String, bool)> = manifest.modules.iter().flat_map(modules).collect();
        wanted.sort();
        for (module, optional) in wanted {
            key.update(format!(" {module}{}", if optional { "?" } else { "" }));
        }
        let dir = cache.entry("kernels", &hex(&key.finalize()), |dir| {
            eprintln!("ramdisk: choosing modules of {release} (about 10 seconds)");
            let work = cache.work_dir()?;
            unpack(package, work.path(), cache)?;
            keep_wanted(work.path(), &release, manifest, dir)
        })?;
        Self::read(&dir, release, manifest)
    }

    /// Patterns of devices with the module that drives them, from `modules.alias`.
    pub fn aliases(&self) -> impl Iterator<Item = (&str, &str)> {
        self.tables.get("modules.alias").into_iter().flat_map(|text| text.lines()).filter_map(|line| {
            let mut words = line.strip_prefix("alias ")?.split_whitespace();
            Some((words.next()?, words.next()?))
        })
    }

    fn read(dir: &Path, release: String, manifest: &Manifest) -> Result<Self> {
        let root = dir.join("lib/modules").join(&release);
        let mut tables = BTreeMap::new();
        for name in ["modules.dep", "modules.alias", "modules.builtin"] {
            tables.insert(name, read(&root.join(name))?);
        }
        let dependencies = Dependencies::parse(&tables["modules.dep"], &tables["modules.builtin"])?;
        let mut modules: BTreeMap<String, Module> = BTreeMap::new();
        let mut absent = Vec::new();
        let is_at_hand = |name: &&str| {
            let named = |group: &ModuleGroup| !group.packed && group.modules.iter().any(|module| module == name);
            dependencies.has(name) && (dependencies.is_built_in(name) || manifest.modules.iter().any(named))
        };
        let can_open = pack::OPENED_BY.iter().all(is_at_hand);
        // What any other group needs as well is at hand.
        let (packed, at_hand): (Vec<_>, Vec<_>) = manifest.modules.iter().partition(|group| group.packed && can_open);
        for group in at_hand.into_iter().chain(packed) {
            let (known, lacking) = dependencies.known(group);
            absent.extend(lacking);
            for path in dependencies.closure(&release, &known)? {
                modules.entry(path.clone()).or_insert_with(|| Module {
                    file: root.join(&path),
                    path,
                    group: group.group.clone(),
                    packed: group.packed && can_open,
                });
            }
        }
        let vmlinuz = dir.join(format!("vmlinuz-{release}"));
        Ok(Self { release, vmlinuz, modules: modules.into_values().collect(), tables, absent })
    }
}

/// Unpacks a kernel's package, its modules in `lib/modules`.
pub(crate) fn unpack(package: &Package, to: &Path, cache: &Cache) -> Result<()> {
    packages::unpack(&package.fetch(cache)?, to)?;
    // Where newer distributions put the same.
    let usr = to.join("usr/lib/modules");
    if usr.is_dir() && !to.join("lib/modules").exists() {
        fs::create_dir_all(to.join("lib"))?;
        fs::rename(&usr, to.join("lib/modules"))?;
    }
    Ok(())
}

/// Copies kernel, chosen modules and new tables from the unpacked package to `to`.
fn keep_wanted(unpacked: &Path, release: &str, manifest: &Manifest, to: &Path) -> Result<()> {
    let below = format!("lib/modules/{release}");
    ensure!(
        unpacked.join(&below).is_dir() && unpacked.join("boot").join(format!("vmlinuz-{release}")).is_file(),
        "the package has no /boot/vmlinuz-{release} with modules in /{below}"
    );
    depmod(unpacked, release)?;
    let from_root = unpacked.join(&below);
    let dependencies =
        Dependencies::parse(&read(&from_root.join("modules.dep"))?, &read(&from_root.join("modules.builtin"))?)?;
    let wanted: Vec<String> = manifest.modules.iter().flat_map(|group| dependencies.known(group).0).collect();
    let copy = |name: &str| -> Result<()> {
        let (from, to) = (from_root.join(name), to.join(&below).join(name));
        fs::create_dir_all(to.parent().unwrap_or(&to))?;
        fs::rename(&from, &to).with_context(|| format!("keeping {}", from.display()))
    };
    for path in dependencies.closure(release, &wanted)? {
        copy(&path)?;
        decompress(&to.join(&below).join(&path))?;
    }
    for table in ["modules.builtin", "modules.builtin.modinfo", "modules.order"] {
        copy(table)?;
    }
    depmod(to, release)?;
    let kernel = format!("vmlinuz-{release}");
    fs::rename(unpacked.join("boot").join(&kernel), to.join(&kernel)).context("keeping the kernel")
}

/// busybox loads plain modules only, and the ramdisk is compressed as a whole, which takes less.
pub(crate) fn decompress(module: &Path) -> Result<()> {
    let (program, package) = match module.extension().and_then(|ending| ending.to_str()) {
        Some("xz") => ("xz", "xz-utils"),
        Some("zst") => ("zstd", "zstd"),
        Some("gz") => ("gzip", "gzip"),
        _ => return Ok(()),
    };
    tool::run(Command::new(program).args(["-d", "-q", "-f"]).arg(module), package)
        .with_context(|| format!("decompressing {}", module.display()))?;
    // zstd keeps what it read.
    if module.exists() {
        fs::remove_file(module)?;
    }
    Ok(())
}

/// Makes the tables of the modules below `root`.
pub(crate) fn depmod(root: &Path, release: &str) -> Result<()> {
    let program = ["/usr/sbin/depmod", "/sbin/depmod"].into_iter().find(|path| Path::new(path).exists());
    let text = tool::run(Command::new(program.unwrap_or("depmod")).arg("-b").arg(root).arg(release), "kmod")
        .context("making the dependency table of the kernel modules")?;
    ensure!(text.trim().is_empty(), "depmod found fault with the kernel modules: {}", text.trim());
    // The order depmod leaves follows the directory on disk, which must not reach an archive.
    for table in ["modules.dep", "modules.alias"] {
        let path = root.join("lib/modules").join(release).join(table);
        let text = read(&path)?;
        let mut lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
        lines.sort_unstable();
        fs::write(&path, lines.join("\n") + "\n")?;
    }
    Ok(())
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))
}

impl Dependencies {
    fn parse(dep: &str, built_in: &str) -> Result<Self> {
        let mut parsed = Self::default();
        for line in dep.lines() {
            let (path, needs) =
                line.split_once(':').with_context(|| format!("modules.dep has the odd line {line:?}"))?;
            let needs = needs.split_whitespace().map(str::to_owned).collect();
            parsed.by_name.insert(name_of(path), (path.to_owned(), needs));
        }
        parsed.built_in = built_in.lines().map(name_of).collect();
        Ok(parsed)
    }

    fn is_built_in(&self, module: &str) -> bool {
        self.built_in.contains(&module_name(module))
    }

    fn has(&self, module: &str) -> bool {
        self.by_name.contains_key(&module_name(module)) || self.is_built_in(module)
    }

    /// The modules of a group that are asked of this kernel, and those that an optional group does without.
    fn known(&self, group: &ModuleGroup) -> (Vec<String>, Vec<String>) {
        let has = |module: &&String| !group.optional || self.has(module);
        let (known, absent): (Vec<&String>, Vec<&String>) = group.modules.iter().partition(has);
        (known.into_iter().cloned().collect(), absent.into_iter().cloned().collect())
    }

    /// Paths of `modules` and of everything they need; what is built into the kernel needs no file.
    fn closure(&self, release: &str, modules: &[String]) -> Result<BTreeSet<String>, UnknownModules> {
        let mut paths = BTreeSet::new();
        let mut unknown = Vec::new();
        for module in modules {
            let name = module_name(module);
            match self.by_name.get(&name) {
                Some((path, needs)) => {
                    paths.insert(path.clone());
                    paths.extend(needs.iter().cloned());
                }
                None if self.built_in.contains(&name) => {}
                None => unknown.push(module.clone()),
            }
        }
        if unknown.is_empty() { Ok(paths) } else { Err(UnknownModules { release: release.to_owned(), names: unknown }) }
    }
}

/// `kernel/drivers/nvme/host/nvme-core.ko` -> `nvme_core`
fn name_of(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    module_name(file.split(".ko").next().unwrap_or(file))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn sample() -> Dependencies {
        let dep = "kernel/drivers/nvme/host/nvme.ko: kernel/drivers/nvme/host/nvme-core.ko kernel/lib/crc64.ko\n\
                   kernel/drivers/nvme/host/nvme-core.ko: kernel/lib/crc64.ko\n\
                   kernel/lib/crc64.ko:\n\
                   kernel/drivers/net/e1000.ko:\n";
        Dependencies::parse(dep, "kernel/drivers/tty/serial/8250/8250.ko\n").unwrap()
    }

    fn names(list: &[&str]) -> Vec<String> {
        list.iter().map(|&name| name.to_owned()).collect()
    }

    #[test]
    fn a_module_brings_what_it_needs_and_nothing_else() {
        let paths = sample().closure("6.1", &names(&["nvme", "8250"])).unwrap();
        let expected =
            ["kernel/drivers/nvme/host/nvme-core.ko", "kernel/drivers/nvme/host/nvme.ko", "kernel/lib/crc64.ko"];
        assert_eq!(paths.into_iter().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn either_dash_names_the_same_module() {
        assert_eq!(
            sample().closure("6.1", &names(&["nvme_core"])).unwrap(),
            sample().closure("6.1", &names(&["nvme-core"])).unwrap()
        );
    }

    #[test]
    fn an_optional_group_does_without() {
        let mut group = ModuleGroup {
            group: "g".into(),
            reason: "r".into(),
            modules: names(&["nvme", "warp", "8250"]),
            firmware: vec![],
            optional: true,
            packed: false,
        };
        assert_eq!(sample().known(&group), (names(&["nvme", "8250"]), names(&["warp"])));
        group.optional = false;
        assert!(sample().closure("6.1", &sample().known(&group).0).is_err());
    }

    #[test]
    fn all_unknown_names_are_reported_at_once() {
        let error = sample().closure("6.1", &names(&["nvmee", "nvme", "e1001"])).unwrap_err();
        assert_eq!(error.to_string(), "the kernel 6.1 has no module nvmee, e1001: correct the manifest");
    }
}

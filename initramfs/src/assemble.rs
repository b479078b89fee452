//! Puts the ramdisk's tree together from packages, manifest and the files under `root/`.

use std::collections::{BTreeSet, VecDeque};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::cache::Cache;
use crate::elf;
use crate::manifest::Manifest;
use crate::modules::Kernel;
use crate::packages::{self, Package};
use crate::tool;
use crate::tree::{Entry, Tree};

/// Where Debian keeps the shared libraries of amd64; the loader looks here without being told.
const LIBRARIES: &str = "/lib/x86_64-linux-gnu";

/// The programs of the ramdisk's own: what runs and its mode.
const OWN_FILES: &[(&str, u32, &str)] = &[
    ("/init", 0o755, include_str!("../root/init")),
    ("/etc/inittab", 0o644, include_str!("../root/etc/inittab")),
    ("/etc/rcS", 0o755, include_str!("../root/etc/rcS")),
    ("/etc/profile", 0o644, include_str!("../root/etc/profile")),
    ("/etc/passwd", 0o644, include_str!("../root/etc/passwd")),
    ("/etc/group", 0o644, include_str!("../root/etc/group")),
    ("/etc/shells", 0o644, include_str!("../root/etc/shells")),
    ("/etc/hosts", 0o644, include_str!("../root/etc/hosts")),
    ("/etc/nsswitch.conf", 0o644, include_str!("../root/etc/nsswitch.conf")),
    ("/etc/mdadm/mdadm.conf", 0o644, include_str!("../root/etc/mdadm.conf")),
];

/// Everything but the agent and the build number.
#[derive(Debug)]
pub struct Base {
    pub tree: Tree,
    pub kernel: Kernel,
    pub packages: Vec<Package>,
    /// Date of the newest file taken from a package, in seconds since 1970: says how old the inputs are at least.
    pub newest: u64,
}

/// Modules and programs of the manifest, with the libraries they need.
pub(crate) fn packages_of(manifest: &Manifest, cache: &Cache) -> Result<Base> {
    let kernel_name = packages::kernel_of(&manifest.kernel)?;
    let mut names = vec![kernel_name.as_str()];
    names.extend(manifest.programs.iter().map(|program| program.package.as_str()));
    names.extend(manifest.libraries.iter().map(String::as_str));
    let resolved = packages::resolve(&names)?;
    let (kernel_package, userland) = resolved.split_first().context("apt gave no kernel package")?;
    let kernel = Kernel::from_package(kernel_package, manifest, cache)?;

    let mut base = Base { tree: Tree::default(), newest: 0, packages: resolved.clone(), kernel };
    base.note_date(&base.kernel.vmlinuz.clone())?;
    base.add_modules(manifest)?;
    let (programs, libraries) = userland.split_at(manifest.programs.len());
    base.add_programs(manifest, programs, libraries, cache)?;
    Ok(base)
}

/// Builds the base. `manifest_dir` is where the manifest's own files are looked for.
pub fn base(manifest: &Manifest, manifest_dir: &Path, cache: &Cache) -> Result<Base> {
    let mut base = packages_of(manifest, cache)?;
    for (path, mode, text) in OWN_FILES {
        base.tree.add_file(path, *mode, text.as_bytes().to_vec())?;
    }
    for dir in ["/dev", "/proc", "/sys", "/run", "/tmp", "/mnt", "/var/log"] {
        base.tree.add_directory(dir, 0o755)?;
    }
    base.tree.add_directory("/root", 0o700)?;
    base.tree.add_directory("/root/.ssh", 0o700)?;
    base.tree.add_directory("/etc/dropbear", 0o700)?;
    base.tree.add_link("/var/run", "/run")?;
    // The kernel opens it for init before /dev is mounted.
    base.tree.add_char_device("/dev/console", 0o600, 5, 1)?;
    base.tree.add_char_device("/dev/null", 0o666, 1, 3)?;
    for file in &manifest.files {
        let from = manifest_dir.join(&file.from);
        let data = fs::read(&from).with_context(|| format!("reading {}, which the manifest names", from.display()))?;
        base.tree.add_file(&file.to, if file.executable { 0o755 } else { 0o644 }, data)?;
    }
    Ok(base)
}

impl Base {
    fn add_modules(&mut self, manifest: &Manifest) -> Result<()> {
        let below = format!("/lib/modules/{}", self.kernel.release);
        for module in &self.kernel.modules {
            let data = fs::read(&module.file).with_context(|| format!("reading {}", module.file.display()))?;
            self.tree.add_file(&format!("{below}/{}", module.path), 0o644, data)?;
        }
        for (name, text) in &self.kernel.tables {
            self.tree.add_file(&format!("{below}/{name}"), 0o644, text.clone().into_bytes())?;
        }
        let mut conf = String::new();
        for entry in &manifest.blacklist {
            conf.push_str(&format!("# {}\nblacklist {}\n", entry.reason, entry.module));
        }
        for entry in &manifest.module_options {
            conf.push_str(&format!("# {}\noptions {} {}\n", entry.reason, entry.module, entry.options));
        }
        if !conf.is_empty() {
            self.tree.add_file("/etc/modprobe.d/speediso.conf", 0o644, conf.into_bytes())?;
        }
        Ok(())
    }

    fn add_programs(
        &mut self,
        manifest: &Manifest,
        packages: &[Package],
        libraries: &[Package],
        cache: &Cache,
    ) -> Result<()> {
        let library_roots = libraries.iter().map(|package| package.unpacked(cache)).collect::<Result<Vec<_>>>()?;
        for (program, package) in manifest.programs.iter().zip(packages) {
            let root = package.unpacked(cache)?;
            for (from, to) in &program.files {
                let file = packages::find_in(&root, from)?;
                if to.starts_with("/etc/") {
                    let data = self.read(&file)?;
                    self.tree.add_file(to, 0o644, data)?;
                    continue;
                }
                self.add_program(&file, to, &library_roots)
                    .with_context(|| format!("packing {from} of the package {}", program.package))?;
                if to == "/bin/busybox" {
                    self.add_applets(&file)?;
                }
            }
        }
        Ok(())
    }

    /// A program with its loader and all libraries that it needs, directly or not.
    fn add_program(&mut self, file: &Path, to: &str, library_roots: &[PathBuf]) -> Result<()> {
        let data = self.read(file)?;
        let linkage = elf::linkage(&data)?;
        self.tree.add_file(to, 0o755, data)?;
        if let Some(loader) = &linkage.interpreter {
            self.add_library(loader, loader, library_roots)?;
        }
        let mut queue: VecDeque<(String, String)> =
            linkage.needed.into_iter().map(|name| (name, to.to_owned())).collect();
        let mut seen = BTreeSet::new();
        while let Some((name, wanted_by)) = queue.pop_front() {
            // The loader is a library too, and is already at the place the programs name.
            if name.starts_with("ld-linux") || !seen.insert(name.clone()) {
                continue;
            }
            let needed = self
                .add_library(&format!("{LIBRARIES}/{name}"), &name, library_roots)
                .with_context(|| format!("{wanted_by} needs the library {name}"))?;
            queue.extend(needed.into_iter().map(|next| (next, name.clone())));
        }
        Ok(())
    }

    /// Adds the library `name` as `to`; gives what it needs in turn.
    fn add_library(&mut self, to: &str, name: &str, library_roots: &[PathBuf]) -> Result<Vec<String>> {
        let soname = name.rsplit('/').next().unwrap_or(name);
        let file = library_roots
            .iter()
            .flat_map(|root| ["lib", "usr/lib"].map(|dir| (root, format!("{dir}/x86_64-linux-gnu/{soname}"))))
            .find_map(|(root, path)| packages::find_in(root, &path).ok())
            .with_context(|| {
                format!("no package under `libraries` in the manifest holds {soname}: add the one that does")
            })?;
        let data = self.read(&file)?;
        let needed = elf::linkage(&data)?.needed;
        self.tree.add_file(to, 0o755, data)?;
        Ok(needed)
    }

    /// One link per busybox command, at the place busybox itself names, unless a real program is there.
    fn add_applets(&mut self, busybox: &Path) -> Result<()> {
        let list = tool::run(Command::new(busybox).arg("--list-full"), "busybox-static")
            .context("asking busybox for its commands")?;
        ensure!(list.lines().any(|path| path == "sbin/modprobe"), "this busybox has no modprobe");
        for path in list.lines().filter(|path| *path != "bin/busybox" && *path != "linuxrc") {
            let path = format!("/{path}");
            if !self.tree.contains(&path) {
                self.tree.add_link(&path, "/bin/busybox")?;
            }
        }
        Ok(())
    }

    fn read(&mut self, file: &Path) -> Result<Vec<u8>> {
        self.note_date(file)?;
        fs::read(file).with_context(|| format!("reading {}", file.display()))
    }

    fn note_date(&mut self, file: &Path) -> Result<()> {
        let modified = fs::metadata(file).with_context(|| format!("reading {}", file.display()))?.mtime();
        self.newest = self.newest.max(u64::try_from(modified).unwrap_or(0));
        Ok(())
    }
}

/// The agent as it is packed: without symbols and debug information, which only cost memory there.
pub fn agent(path: &Path) -> Result<Vec<u8>> {
    let data = fs::read(path).with_context(|| format!("reading the agent {}", path.display()))?;
    let linkage = elf::linkage(&data).with_context(|| format!("reading the agent {}", path.display()))?;
    ensure!(
        linkage.interpreter.is_none(),
        "the agent {} is not static (it asks for the loader {}): build it for x86_64-unknown-linux-musl",
        path.display(),
        linkage.interpreter.unwrap_or_default()
    );
    let work = tempfile::tempdir().context("making a temporary directory")?;
    let stripped = work.path().join("agent");
    tool::run(Command::new("strip").arg("--strip-all").arg("-o").arg(&stripped).arg(path), "binutils")
        .context("stripping the agent")?;
    fs::read(&stripped).context("reading the stripped agent")
}

/// Files of the tree by what brought them in: module group, agent, tables, or the rest (userland).
pub fn group_of<'a>(kernel: &'a Kernel, path: &str, entry: &Entry) -> Option<&'a str> {
    let Entry::File { .. } = entry else { return None };
    let below = format!("lib/modules/{}/", kernel.release);
    match path.strip_prefix(&below) {
        Some(module) => {
            let found = kernel.modules.iter().find(|known| known.path == module);
            Some(found.map_or("module tables", |known| known.group.as_str()))
        }
        None => Some("userland"),
    }
}

//! Puts the ramdisk's tree together from packages, manifest and the files under `root/`.

use std::collections::{BTreeSet, VecDeque};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::arch::Arch;
use crate::contents::{Contents, Kind};
use crate::elf;
use crate::firmware;
use crate::manifest::Manifest;
use crate::modules::{Kernel, Module};
use crate::pack;
use crate::packages::{self, Package};
use crate::supply::Supply;
use crate::tool;
use crate::tree::Tree;

/// The programs of the ramdisk's own: what runs and its mode.
const OWN_FILES: &[(&str, u32, &str)] = &[
    ("/init", 0o755, include_str!("../root/init")),
    ("/etc/inittab", 0o644, include_str!("../root/etc/inittab")),
    ("/etc/rcS", 0o755, include_str!("../root/etc/rcS")),
    ("/etc/switch", 0o755, include_str!("../root/etc/switch")),
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
    pub arch: Arch,
    pub kernel: Kernel,
    pub packages: Vec<Package>,
    pub contents: Contents,
    /// Firmware that modules name and no package of their group has.
    pub missing_firmware: BTreeSet<String>,
    /// Date of the newest file taken from a package, in seconds since 1970: says how old the inputs are at least.
    pub newest: u64,
}

/// Modules and programs of the manifest, with the libraries they need.
pub(crate) fn packages_of(manifest: &Manifest, supply: &Supply) -> Result<Base> {
    let kernel_package = supply.kernel(&manifest.kernel)?;
    let mut names: Vec<&str> = manifest.programs.iter().map(|program| program.package.as_str()).collect();
    names.extend(manifest.libraries.iter().map(String::as_str));
    let userland = supply.resolve(&names)?;
    let kernel = Kernel::from_package(&kernel_package, manifest, supply.cache())?;

    let mut packages = vec![kernel_package];
    packages.extend_from_slice(&userland);
    let mut base = Base {
        tree: Tree::default(),
        arch: supply.arch(),
        newest: 0,
        packages,
        kernel,
        contents: Contents::default(),
        missing_firmware: BTreeSet::new(),
    };
    base.note_date(&base.kernel.vmlinuz.clone())?;
    base.add_modules(manifest, supply)?;
    base.add_firmware(manifest, supply)?;
    let (programs, libraries) = userland.split_at(manifest.programs.len());
    base.add_programs(manifest, programs, libraries, supply)?;
    Ok(base)
}

/// Builds the base. `manifest_dir` is where the manifest's own files are looked for.
pub fn base(manifest: &Manifest, manifest_dir: &Path, supply: &Supply) -> Result<Base> {
    let mut base = packages_of(manifest, supply)?;
    for (path, mode, text) in OWN_FILES {
        base.tree.add_file(path, *mode, text.as_bytes().to_vec())?;
        base.contents.add(Kind::Own, "scripts", "starts the machine up to the agent", None, path);
    }
    for dir in ["/dev", "/proc", "/sys", "/run", "/tmp", "/mnt", "/newroot", "/var/log"] {
        base.tree.add_directory(dir, 0o755)?;
    }
    base.tree.add_directory("/root", 0o700)?;
    base.tree.add_directory("/root/.ssh", 0o700)?;
    base.tree.add_link("/var/run", "/run")?;
    // The kernel opens it for init before /dev is mounted.
    base.tree.add_char_device("/dev/console", 0o600, 5, 1)?;
    base.tree.add_char_device("/dev/null", 0o666, 1, 3)?;
    for file in &manifest.files {
        let from = manifest_dir.join(&file.from);
        let data = fs::read(&from).with_context(|| format!("reading {}, which the manifest names", from.display()))?;
        base.tree.add_file(&file.to, if file.executable { 0o755 } else { 0o644 }, data)?;
        base.contents.add(Kind::Site, &file.to, &file.reason, None, &file.to);
    }
    Ok(base)
}

impl Base {
    fn add_modules(&mut self, manifest: &Manifest, supply: &Supply) -> Result<()> {
        let below = format!("/lib/modules/{}", self.kernel.release);
        for module in &self.kernel.modules {
            let path = format!("{below}/{}", module.path);
            if module.packed {
                // Where it is found once the pack is open, so that depmod's tables are true of it too.
                self.tree.add_link(&path, &format!("{below}/{}/{}", pack::PLACE, module.path))?;
            } else {
                let data = fs::read(&module.file).with_context(|| format!("reading {}", module.file.display()))?;
                self.tree.add_file(&path, 0o644, data)?;
            }
            let group = manifest.modules.iter().find(|group| group.group == module.group);
            let reason = group.map_or("", |group| group.reason.as_str());
            self.contents.add(Kind::Modules, &module.group, reason, Some(&self.packages[0].name), &path);
        }
        let packed: Vec<&Module> = self.kernel.modules.iter().filter(|module| module.packed).collect();
        if !packed.is_empty() {
            let path = format!("{below}/{}", pack::FILE);
            self.tree.add_file(&path, 0o644, pack::of(&packed, supply.cache())?)?;
            self.tree.add_directory(&format!("{below}/{}", pack::PLACE), 0o755)?;
        }
        for (name, text) in &self.kernel.tables {
            let path = format!("{below}/{name}");
            self.tree.add_file(&path, 0o644, text.clone().into_bytes())?;
            self.contents.add(Kind::Own, "module tables", "which device wants which module", None, &path);
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

    /// What the modules of each group ask for, as far as the group's packages have it.
    fn add_firmware(&mut self, manifest: &Manifest, supply: &Supply) -> Result<()> {
        for group in manifest.modules.iter().filter(|group| !group.firmware.is_empty()) {
            let of_group = self.kernel.modules.iter().filter(|module| module.group == group.group);
            let files: Vec<PathBuf> = of_group.map(|module| module.file.clone()).collect();
            let found = firmware::add(&mut self.tree, &files, &group.firmware, supply)
                .with_context(|| format!("the firmware of the group {}", group.group))?;
            for (path, package) in &found.files {
                self.contents.add(Kind::Firmware, package, &group.reason, Some(package), path);
            }
            self.missing_firmware.extend(found.missing);
            self.packages.extend(
                found.packages.into_iter().filter(|package| !self.packages.contains(package)).collect::<Vec<_>>(),
            );
        }
        Ok(())
    }

    fn add_programs(
        &mut self,
        manifest: &Manifest,
        packages: &[Package],
        libraries: &[Package],
        supply: &Supply,
    ) -> Result<()> {
        let cache = supply.cache();
        let with_name = |package: &Package| Ok((package.name.clone(), package.unpacked(cache)?));
        let library_roots = libraries.iter().map(with_name).collect::<Result<Vec<_>>>()?;
        for (program, package) in manifest.programs.iter().zip(packages) {
            let root = package.unpacked(cache)?;
            for (from, to) in &program.files {
                let (from, to) = (&self.arch.path(from), &self.arch.path(to));
                let file = packages::find_in(&root, from)?;
                self.contents.add(Kind::Program, &program.package, &program.reason, Some(&program.package), to);
                if to.starts_with("/etc/") {
                    let data = self.read(&file)?;
                    self.tree.add_file(to, 0o644, data)?;
                    continue;
                }
                self.add_program(&file, to, &library_roots)
                    .with_context(|| format!("packing {from} of the package {}", program.package))?;
                if to == "/bin/busybox" {
                    self.add_applets(&file, &program.package, supply)?;
                }
            }
        }
        Ok(())
    }

    /// A program with its loader and all libraries that it needs, directly or not.
    fn add_program(&mut self, file: &Path, to: &str, library_roots: &[(String, PathBuf)]) -> Result<()> {
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
                .add_library(&format!("/{}/{name}", self.arch.libraries()), &name, library_roots)
                .with_context(|| format!("{wanted_by} needs the library {name}"))?;
            queue.extend(needed.into_iter().map(|next| (next, name.clone())));
        }
        Ok(())
    }

    /// Adds the library `name` as `to`; gives what it needs in turn.
    fn add_library(&mut self, to: &str, name: &str, library_roots: &[(String, PathBuf)]) -> Result<Vec<String>> {
        let soname = name.rsplit('/').next().unwrap_or(name);
        let libraries = self.arch.libraries();
        let (package, file) = library_roots
            .iter()
            .flat_map(|(name, root)| ["", "usr/"].map(|dir| (name, root, format!("{dir}{libraries}/{soname}"))))
            .find_map(|(name, root, path)| Some((name, packages::find_in(root, &path).ok()?)))
            .with_context(|| {
                format!("no package under `libraries` in the manifest holds {soname}: add the one that does")
            })?;
        let data = self.read(&file)?;
        let needed = elf::linkage(&data)?.needed;
        self.tree.add_file(to, 0o755, data)?;
        self.contents.add(Kind::Library, package, "programs need it", Some(package), to);
        Ok(needed)
    }

    /// One link per busybox command, at the place busybox itself names, unless a real program is there.
    fn add_applets(&mut self, busybox: &Path, package: &str, supply: &Supply) -> Result<()> {
        let mut asked = busybox.to_owned();
        if self.arch != Arch::HOST {
            // The same source is built with the same commands for every machine; only this machine's can be asked.
            let mut found = supply.resolve_to_run(&[package])?;
            let ours = found.pop().with_context(|| format!("apt gave no package {package}"))?;
            asked = packages::find_in(&ours.unpacked(supply.cache())?, "/bin/busybox")?;
        }
        let list = tool::run(Command::new(asked).arg("--list-full"), "busybox-static")
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
pub fn agent(path: &Path, arch: Arch) -> Result<Vec<u8>> {
    let data = fs::read(path).with_context(|| format!("reading the agent {}", path.display()))?;
    let linkage = elf::linkage(&data).with_context(|| format!("reading the agent {}", path.display()))?;
    ensure!(
        linkage.interpreter.is_none(),
        "the agent {} is not static (it asks for the loader {}): build it for {}",
        path.display(),
        linkage.interpreter.unwrap_or_default(),
        arch.rust_target()
    );
    let for_arch = Arch::of_elf(&data);
    ensure!(
        for_arch == Some(arch),
        "the agent {} is for {}, and the ramdisk for {arch}",
        path.display(),
        for_arch.map_or("another machine".to_owned(), |arch| arch.to_string())
    );
    let work = tempfile::tempdir().context("making a temporary directory")?;
    let stripped = work.path().join("agent");
    let (strip, package) = arch.strip();
    tool::run(Command::new(strip).arg("--strip-all").arg("-o").arg(&stripped).arg(path), package)
        .context("stripping the agent")?;
    fs::read(&stripped).context("reading the stripped agent")
}

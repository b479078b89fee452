//! A driver for every device that names one, in one program instead of a shell's many.
//!
//! Each device says by its modalias what it is; the tables of depmod say which module that is for, and what it needs
//! before. A driver may show new devices, so it is looked again until none appears. What leads to the network comes first:
//! a storage controller may take many seconds to start, and nothing needs its disks that early.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::CString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::thread;

use speediso_sys::module;
use speediso_sys::roots::Roots;

use super::fits;

/// A disk behind an expander behind a controller behind a bridge takes four.
const ROUNDS: usize = 8;

/// What modprobe.d(5) files and the kernel's command line say about modules.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Wishes {
    blacklist: BTreeSet<String>,
    options: BTreeMap<String, String>,
}

impl Wishes {
    /// Of the files in `directory`, and of `line` (`modprobe.blacklist=a,b` and `module.parameter=value`).
    #[must_use]
    pub fn read(directory: &Path, line: &str) -> Self {
        let mut wishes = Self::default();
        let files = fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path());
        let files: BTreeSet<PathBuf> = files.filter(|path| path.extension().is_some_and(|e| e == "conf")).collect();
        for text in files.iter().filter_map(|path| fs::read_to_string(path).ok()) {
            text.lines().for_each(|line| wishes.conf(line));
        }
        line.split_whitespace().for_each(|word| wishes.word(word));
        wishes
    }

    fn conf(&mut self, line: &str) {
        let mut words = line.split_whitespace();
        match (words.next(), words.next()) {
            (Some("blacklist"), Some(module)) => _ = self.blacklist.insert(plain(module)),
            (Some("options"), Some(module)) => words.for_each(|option| self.option(module, option)),
            _ => {}
        }
    }

    fn word(&mut self, word: &str) {
        match word.split_once('=') {
            Some(("modprobe.blacklist", modules)) => self.blacklist.extend(modules.split(',').map(plain)),
            // `speediso.x=` is not for a module, and of what is, the kernel keeps what it has itself.
            Some((key, value)) => {
                if let Some((module, parameter)) = key.split_once('.') {
                    self.option(module, &format!("{parameter}={value}"));
                }
            }
            None => {}
        }
    }

    fn option(&mut self, module: &str, option: &str) {
        let options = self.options.entry(plain(module)).or_default();
        if !options.is_empty() {
            options.push(' ');
        }
        options.push_str(option);
    }
}

/// Makes the modules available that this system keeps compressed: where each of them belongs is a link.
pub type OpenPack = fn(&Modules) -> Result<(), String>;

/// The modules of this system.
#[derive(Debug)]
pub struct Modules {
    directory: PathBuf,
    open_pack: OpenPack,
    opened: OnceLock<Result<(), String>>,
    by_name: BTreeMap<String, Module>,
    /// Patterns with their modules, by the bus that they begin with.
    aliases: BTreeMap<String, Vec<(String, String)>>,
    wishes: Wishes,
}

#[derive(Debug)]
struct Module {
    path: String,
    /// By name, the first one first.
    needs: Vec<String>,
    /// Why it could not be loaded.
    loaded: OnceLock<Result<(), String>>,
}

/// A module that a device asked for and that the kernel did not take.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NotLoaded {
    pub module: String,
    pub why: String,
}

/// Modules that are loaded after each other, always in the same order, so that no race of ours gives interfaces and disks
/// other names in the next boot.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Lane {
    /// What network cards may be on, and sources of randomness, which the first connection needs.
    Below,
    Network,
    Disks,
    Rest,
}

impl Lane {
    const ALL: [Self; 4] = [Self::Below, Self::Network, Self::Disks, Self::Rest];
    const TO_THE_NETWORK: [Self; 2] = [Self::Below, Self::Network];

    fn of(path: &str) -> Self {
        const BELOW: [&str; 5] = ["virtio/", "hv/", "usb/core/", "usb/host/", "char/hw_random/"];
        const DISKS: [&str; 6] = ["scsi/", "ata/", "nvme/", "block/", "message/", "usb/"];
        let Some(driver) = path.strip_prefix("kernel/drivers/") else { return Self::Rest };
        let is_among = |classes: &[&str]| classes.iter().any(|class| driver.starts_with(class));
        match driver {
            _ if is_among(&BELOW) => Self::Below,
            _ if is_among(&["net/"]) => Self::Network,
            _ if is_among(&DISKS) => Self::Disks,
            _ => Self::Rest,
        }
    }
}

impl Modules {
    /// # Errors
    /// When the tables of depmod are not in `directory`.
    pub fn read(directory: &Path, wishes: Wishes, open_pack: OpenPack) -> io::Result<Self> {
        let dependencies = fs::read_to_string(directory.join("modules.dep"))?;
        let aliases = fs::read_to_string(directory.join("modules.alias"))?;
        Ok(Self::parse(directory.to_owned(), &dependencies, &aliases, wishes, open_pack))
    }

    fn parse(directory: PathBuf, dependencies: &str, aliases: &str, wishes: Wishes, open_pack: OpenPack) -> Self {
        let module = |line: &str| {
            let (path, needs) = line.split_once(':')?;
            let needs = needs.split_whitespace().rev().map(name_of).collect();
            Some((name_of(path), Module { path: path.to_owned(), needs, loaded: OnceLock::new() }))
        };
        let by_name = dependencies.lines().filter_map(module).collect();
        let mut by_bus: BTreeMap<String, Vec<(String, String)>> = BTreeMap::new();
        for (pattern, module) in aliases.lines().filter_map(|line| line.strip_prefix("alias ")?.rsplit_once(' ')) {
            by_bus.entry(bus(pattern).to_owned()).or_default().push((pattern.to_owned(), module.to_owned()));
        }
        Self { directory, open_pack, opened: OnceLock::new(), by_name, aliases: by_bus, wishes }
    }

    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Once, whoever asks first. The first module that is in it does, too.
    ///
    /// # Errors
    /// Why it could not be opened.
    pub fn open_pack(&self) -> Result<(), String> {
        self.opened.get_or_init(|| (self.open_pack)(self)).clone()
    }

    /// Loads what the devices of this machine ask for, and what nobody asks for in time. Says in between that the drivers
    /// of all network cards were loaded.
    #[must_use]
    pub fn coldplug(&self, unasked: &[String], roots: &Roots, network_is_there: impl FnOnce()) -> Vec<NotLoaded> {
        let mut failed = self.rounds(&Lane::TO_THE_NETWORK, roots);
        network_is_there();
        failed.extend(thread::scope(|scope| {
            let beside = scope.spawn(|| self.load_all(unasked.iter().map(String::as_str)));
            let mut failed = self.rounds(&Lane::ALL, roots);
            failed.extend(beside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
            failed
        }));
        failed.sort_by(|a, b| a.module.cmp(&b.module));
        failed.dedup();
        failed
    }

    fn rounds(&self, lanes: &[Lane], roots: &Roots) -> Vec<NotLoaded> {
        let mut failed = Vec::new();
        let mut known = BTreeSet::new();
        for _ in 0..ROUNDS {
            let seen = modaliases(&roots.sys);
            let new: Vec<&String> = seen.difference(&known).collect();
            if new.is_empty() {
                break;
            }
            failed.extend(self.load_lanes(lanes, &self.wanted(&new)));
            known = seen;
        }
        failed
    }

    /// In the order of the devices' names, which is the same in every boot.
    fn wanted(&self, modaliases: &[&String]) -> Vec<&str> {
        let mut wanted = Vec::new();
        for modalias in modaliases {
            let patterns = self.aliases.get(bus(modalias)).map(Vec::as_slice).unwrap_or_default();
            for (_, module) in patterns.iter().filter(|(pattern, _)| fits(pattern, modalias)) {
                if !wanted.contains(&module.as_str()) && !self.wishes.blacklist.contains(&plain(module)) {
                    wanted.push(module);
                }
            }
        }
        wanted
    }

    /// Those of one lane after each other, the lanes side by side.
    fn load_lanes(&self, lanes: &[Lane], wanted: &[&str]) -> Vec<NotLoaded> {
        let lane_of = |name: &str| self.by_name.get(&plain(name)).map(|module| Lane::of(&module.path));
        thread::scope(|scope| {
            let begun = lanes.iter().map(|lane| {
                let of_lane = wanted.iter().copied().filter(move |name| lane_of(name) == Some(*lane));
                scope.spawn(move || self.load_all(of_lane))
            });
            let ended = begun.collect::<Vec<_>>().into_iter().map(thread::ScopedJoinHandle::join);
            ended.flat_map(|lane| lane.unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
        })
    }

    fn load_all<'a>(&self, names: impl Iterator<Item = &'a str>) -> Vec<NotLoaded> {
        let one = |name: &str| self.load(name).err().map(|why| NotLoaded { module: name.to_owned(), why });
        names.filter_map(one).collect()
    }

    /// Once, whoever asks first; the others wait for it. A name without a file is part of the kernel, or of an add-on.
    ///
    /// # Errors
    /// Why the kernel did not take it, or what it needs.
    pub fn load(&self, name: &str) -> Result<(), String> {
        let name = plain(name);
        let Some(module) = self.by_name.get(&name) else { return Ok(()) };
        let load = || {
            module
                .needs
                .iter()
                .try_for_each(|need| self.load(need).map_err(|why| format!("{need}, which it needs: {why}")))?;
            let options = self.wishes.options.get(&name).map(String::as_str).unwrap_or_default();
            let options = CString::new(options).map_err(|e| e.to_string())?;
            let path = self.directory.join(&module.path);
            if path.is_symlink() {
                self.open_pack().map_err(|why| format!("it is packed: {why}"))?;
            }
            match module::load_with(&path, &options) {
                // It looked and found nothing to drive: no fault, whether a device or a table of the firmware made us try.
                Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(()),
                answer => answer.map_err(|e| e.to_string()),
            }
        };
        module.loaded.get_or_init(load).clone()
    }
}

/// What all devices say they are. They are looked for where buses and classes list them: the tree of the devices
/// themselves has ten times as many directories.
fn modaliases(sys: &Path) -> BTreeSet<String> {
    let entries =
        |directory: PathBuf| fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path());
    let of_buses = entries(sys.join("bus")).flat_map(|bus| entries(bus.join("devices")));
    let of_classes = entries(sys.join("class")).flat_map(entries);
    let processors = [sys.join("devices/system/cpu")];
    let texts = of_buses
        .chain(of_classes)
        .chain(processors)
        .filter_map(|device| fs::read_to_string(device.join("modalias")).ok());
    texts.flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>()).filter(|line| !line.is_empty()).collect()
}

/// `pci:v00008086d...` -> `pci`, `acpi*:PNP0501:*` -> `acpi`
fn bus(alias: &str) -> &str {
    &alias[..alias.find([':', '*', '?', '[']).unwrap_or(alias.len())]
}

/// `kernel/drivers/nvme/host/nvme-core.ko` -> `nvme_core`
pub(crate) fn name_of(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    plain(file.split(".ko").next().unwrap_or(file))
}

/// As the kernel calls it.
pub(crate) fn plain(module: &str) -> String {
    module.replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEPENDENCIES: &str = "kernel/drivers/nvme/host/nvme.ko: kernel/drivers/nvme/host/nvme-core.ko kernel/lib/crc64.ko\n\
        kernel/drivers/nvme/host/nvme-core.ko: kernel/lib/crc64.ko\n\
        kernel/lib/crc64.ko:\n\
        kernel/drivers/net/ethernet/intel/e1000/e1000.ko:\n\
        kernel/drivers/watchdog/softdog.ko:\n";
    const ALIASES: &str = "alias pci:v*d*sv*sd*bc01sc08i02* nvme\n\
        alias pci:v00008086d0000100Esv*sd*bc*sc*i* e1000\n\
        alias acpi*:DOG0001:* softdog\n";

    fn modules(directory: &Path, wishes: Wishes) -> Modules {
        Modules::parse(directory.to_owned(), DEPENDENCIES, ALIASES, wishes, |_| Err("no pack".to_owned()))
    }

    fn device(root: &Path, place: &str, modalias: &str) {
        let dir = root.join("sys").join(place);
        fs::create_dir_all(&dir).expect("made");
        fs::write(dir.join("modalias"), format!("{modalias}\n")).expect("written");
    }

    #[test]
    fn devices_ask_for_their_modules_and_a_blacklist_is_obeyed() {
        let dir = tempfile::tempdir().expect("a directory");
        device(dir.path(), "bus/pci/devices/0000:00:03.0", "pci:v00008086d0000100Esv00001AF4sd00001100bc02sc00i00");
        device(dir.path(), "bus/pci/devices/0000:00:02.0", "pci:v00001B36d00000010sv00001AF4sd00001100bc01sc08i02");
        device(dir.path(), "class/nvme/nvme0", "");
        device(dir.path(), "bus/acpi/devices/DOG0001:00", "acpi:DOG0001:");
        let seen = modaliases(&dir.path().join("sys"));
        assert_eq!(seen.len(), 3, "{seen:?}");
        let seen: Vec<&String> = seen.iter().collect();
        assert_eq!(modules(dir.path(), Wishes::default()).wanted(&seen), ["softdog", "nvme", "e1000"]);
        let mut wishes = Wishes::default();
        wishes.conf("blacklist softdog");
        wishes.word("modprobe.blacklist=e1000,other");
        assert_eq!(modules(dir.path(), wishes).wanted(&seen), ["nvme"]);
    }

    /// The files are no modules: the kernel takes none, and each is tried once.
    #[test]
    fn what_cannot_be_loaded_is_named_with_what_it_needed() {
        let dir = tempfile::tempdir().expect("a directory");
        device(dir.path(), "bus/pci/devices/0000:00:02.0", "pci:v00001B36d00000010sv00001AF4sd00001100bc01sc08i02");
        device(dir.path(), "bus/pci/devices/0000:00:03.0", "pci:v00008086d0000100Esv00001AF4sd00001100bc02sc00i00");
        let modules = modules(dir.path(), Wishes::default());
        let tried = |name: &str| modules.by_name[name].loaded.get().is_some();
        let mut first = Vec::new();
        let note = || first.extend(["e1000", "nvme", "softdog"].map(tried));
        let failed = modules.coldplug(&["unheard-of".into(), "nvme-core".into()], &Roots::under(dir.path()), note);
        assert_eq!(first, [true, false, false], "the network comes first");
        let named: Vec<&str> = failed.iter().map(|one| one.module.as_str()).collect();
        assert_eq!(named, ["e1000", "nvme", "nvme-core"]);
        assert!(failed[1..].iter().all(|one| one.why.contains("crc64, which it needs: ")), "{failed:?}");
        assert!(!tried("softdog"), "nobody asked for it");
    }

    #[test]
    fn the_pack_is_opened_for_what_is_in_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let place = dir.path().join("kernel/drivers/net/ethernet/intel/e1000");
        fs::create_dir_all(&place).expect("made");
        std::os::unix::fs::symlink("/nowhere/e1000.ko", place.join("e1000.ko")).expect("linked");
        let modules = modules(dir.path(), Wishes::default());
        assert!(modules.load("softdog").is_err() && modules.opened.get().is_none(), "it is not in the pack");
        assert_eq!(modules.load("e1000"), Err("it is packed: no pack".to_owned()));
    }

    #[test]
    fn files_and_the_command_line_give_options() {
        let dir = tempfile::tempdir().expect("a directory");
        fs::write(dir.path().join("speediso.conf"), "# why\noptions md_mod start_ro=1\nblacklist softdog\n")
            .expect("written");
        fs::write(dir.path().join("not-read.txt"), "blacklist nvme\n").expect("written");
        let wishes = Wishes::read(dir.path(), "quiet libata.force=noncq md-mod.x=2 speediso.ssh=on");
        assert_eq!(wishes.blacklist, BTreeSet::from(["softdog".to_owned()]));
        assert_eq!(wishes.options["libata"], "force=noncq");
        assert_eq!(wishes.options["md_mod"], "start_ro=1 x=2");
    }

    #[test]
    fn what_gives_names_keeps_its_order() {
        for (path, lane) in [
            ("kernel/drivers/net/ethernet/intel/igb/igb.ko", Lane::Network),
            ("kernel/drivers/net/usb/cdc_ether.ko", Lane::Network),
            ("kernel/drivers/usb/host/xhci-pci.ko", Lane::Below),
            ("kernel/drivers/virtio/virtio_pci.ko", Lane::Below),
            ("kernel/drivers/usb/storage/uas.ko", Lane::Disks),
            ("kernel/drivers/scsi/megaraid/megaraid_sas.ko", Lane::Disks),
            ("kernel/drivers/i2c/busses/i2c-i801.ko", Lane::Rest),
            ("kernel/arch/x86/crypto/crc32c-intel.ko", Lane::Rest),
        ] {
            assert_eq!(Lane::of(path), lane, "{path}");
        }
    }
}

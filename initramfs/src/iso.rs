//! One image for sticks, CDs and the virtual media of BMCs, which boots in BIOS and in UEFI mode.
//!
//! From front to back: an ISO 9660 file system with isolinux, kernel and ramdisk (BIOS); an EFI system partition with the
//! same as one EFI program (UEFI); the *parameter partition*, a small FAT file system with [`parameters::FILE`] that people
//! edit on any computer. A GPT makes the last two partitions of a stick, and finds them for us on a CD.
//!
//! The image's id stands in its own kernel command lines (`speediso.medium=`) and is the parameter partition's in the
//! GPT: so the agent knows the partition that belongs to what was booted, and reads no other. The same inputs give the same
//! bytes.

pub mod command;
mod fat;
mod gpt;
pub mod parameters;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail, ensure};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::packages::{self, Package};
use crate::ramdisk::BuildFacts;
use crate::supply::Supply;
use crate::tool;
use crate::uki::{self, Parts};

pub const FILE_NAME: &str = "speediso.iso";
const MIB: usize = 1 << 20;
/// `-V` of the ISO file system, and the label of the partition that people see.
const LABEL: &str = "SPEEDISO";
const PARAMETER_PARTITION: &str = "speediso parameters";
/// Both screens and serial ports; what the controller's boot entries say too.
const CONSOLES: &str = "console=tty0 console=ttyS0,115200";
/// The type that xorriso is told to give the EFI system partition in the table that it writes and we replace.
const ESP_IN_MBR: u8 = 0xef;

/// The boot loader for BIOS, as the distribution built it.
#[derive(Debug)]
pub struct Isolinux {
    mbr: Vec<u8>,
    loader: Vec<u8>,
    library: Vec<u8>,
    pub packages: Vec<Package>,
}

impl Isolinux {
    pub fn fetch(supply: &Supply) -> Result<Self> {
        let packages = supply.resolve(&["isolinux", "syslinux-common"])?;
        let [isolinux, common] = packages.as_slice() else { bail!("apt gave other packages than were asked for") };
        let read = |package: &Package, path: &str| -> Result<Vec<u8>> {
            let file = packages::find_in(&package.unpacked(supply.cache())?, path)?;
            fs::read(&file).with_context(|| format!("reading {}", file.display()))
        };
        Ok(Self {
            mbr: read(isolinux, "/usr/lib/ISOLINUX/isohdpfx.bin")?,
            loader: read(isolinux, "/usr/lib/ISOLINUX/isolinux.bin")?,
            library: read(common, "/usr/lib/syslinux/modules/bios/ldlinux.c32")?,
            packages,
        })
    }
}

/// What goes into an image.
#[derive(Clone, Copy, Debug)]
pub struct Contents<'a> {
    pub facts: &'a BuildFacts,
    pub efi_stub: &'a [u8],
    pub kernel: &'a [u8],
    pub ramdisk: &'a [u8],
    pub isolinux: &'a Isolinux,
    pub id: Uuid,
    /// Further words for the command line, which a signature covers.
    pub cmdline: &'a str,
    /// Key and certificate for Secure Boot.
    pub owner: Option<(&'a Path, &'a Path)>,
    /// The content of [`parameters::FILE`].
    pub parameters: &'a str,
}

/// The id of the image that belongs to a build: the same for the same inputs.
#[must_use]
pub fn id_of_build(facts: &BuildFacts) -> Uuid {
    let digest = Sha256::digest(format!("{FILE_NAME} of build {} from {}", facts.number, facts.inputs));
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    uuid::Builder::from_random_bytes(bytes).into_uuid()
}

/// The image that lies beside a build's other files: no parameters yet.
pub fn of_build(
    facts: &BuildFacts,
    efi_stub: &[u8],
    kernel: &[u8],
    ramdisk: &[u8],
    isolinux: &Isolinux,
) -> Result<Vec<u8>> {
    let contents = Contents {
        facts,
        efi_stub,
        kernel,
        ramdisk,
        isolinux,
        id: id_of_build(facts),
        cmdline: "",
        owner: None,
        parameters: parameters::TEMPLATE,
    };
    make(&contents)
}

pub fn make(contents: &Contents<'_>) -> Result<Vec<u8>> {
    parameters::check(contents.parameters)?;
    let line = cmdline(contents.id, contents.cmdline)?;
    let work = tempfile::tempdir().context("making a directory to work in")?;
    let esp = work.path().join("esp.img");
    fs::write(&esp, esp_of(&program(contents, &line, work.path())?, contents.id)?)?;
    let tree = work.path().join("tree");
    lay_out(contents, &line, &tree)?;
    let made = work.path().join("made.iso");
    xorriso(contents, &esp, &tree, &made)?;
    let mut image = fs::read(&made).context("reading what xorriso made")?;

    let (esp_at, esp_length) = gpt::in_mbr(&image, ESP_IN_MBR).context("looking at what xorriso made")?;
    // Behind what it made; the copy of the table ends the last MiB.
    image.resize(image.len().next_multiple_of(MIB), 0);
    let at = image.len();
    image.extend(parameters::partition(contents.parameters, contents.id)?);
    image.resize((image.len() + gpt::END).next_multiple_of(MIB), 0);
    let partition = |kind, id, name, start, length| gpt::Partition { kind, id, name, start, length };
    gpt::write(
        &mut image,
        derived(contents.id, 1),
        &[
            partition(gpt::EFI_SYSTEM, derived(contents.id, 2), "speediso", esp_at, esp_length),
            partition(gpt::BASIC_DATA, contents.id, PARAMETER_PARTITION, at, parameters::PARTITION_SIZE),
        ],
    )?;
    Ok(image)
}

/// Ids that belong to this image and to no other.
fn derived(id: Uuid, n: u128) -> Uuid {
    Uuid::from_u128(id.as_u128() ^ n)
}

fn cmdline(id: Uuid, more: &str) -> Result<String> {
    ensure!(more.bytes().all(|b| (0x20..0x7f).contains(&b)), "the command line has letters that no kernel takes");
    ensure!(!more.contains("speediso.medium="), "speediso.medium= is the image's own");
    let line = format!("{CONSOLES} speediso.medium={id} {more}");
    // isolinux and x86 keep less than 2,048 bytes.
    ensure!(line.len() <= 2000, "the command line has {} bytes; 2,000 arrive whatever boots it", line.len());
    Ok(line.trim_end().to_owned())
}

fn program(contents: &Contents<'_>, line: &str, work: &Path) -> Result<Vec<u8>> {
    let Contents { facts, efi_stub, kernel, ramdisk, .. } = *contents;
    let os_release = facts.os_release();
    let parts = Parts { os_release: &os_release, cmdline: Some(line), kernel_release: &facts.kernel, kernel, ramdisk };
    let program = uki::compose(efi_stub, &parts)?;
    let Some((key, certificate)) = contents.owner else { return Ok(program) };
    let file = work.join("program.efi");
    fs::write(&file, program)?;
    uki::sign(&file, key, certificate)?;
    fs::read(&file).context("reading the signed program")
}

/// Where firmware looks for a program on a medium that nobody told it of (UEFI 2.10, 3.5.1.1).
fn esp_of(program: &[u8], id: Uuid) -> Result<Vec<u8>> {
    let size = (program.len() + MIB).next_multiple_of(MIB);
    // 16 MiB and more, so that it is FAT16 whatever the program's size.
    let volume = fat::Volume { label: "EFI", serial: serial(derived(id, 2)), size: size.max(16 * MIB) };
    fat::with_files(&volume, &[("EFI/BOOT/BOOTX64.EFI", program)]).context("making the EFI system partition")
}

fn serial(id: Uuid) -> u32 {
    id.as_fields().0
}

/// What the ISO file system holds. Times are the build's.
fn lay_out(contents: &Contents<'_>, line: &str, tree: &Path) -> Result<()> {
    let menu = format!(
        "# A key held down while this starts (Shift) stops at a prompt: `speediso` and further words of the command line.\n\
         SERIAL 0 115200\nDEFAULT speediso\nPROMPT 0\nLABEL speediso\n\
         \x20 KERNEL /boot/vmlinuz\n  INITRD /boot/initramfs.img\n  APPEND {line}\n"
    );
    let about = format!(
        "Speediso {} build {}.\nParameters: edit {} on the partition {LABEL} of this medium.\n",
        contents.facts.version,
        contents.facts.number,
        parameters::FILE
    );
    let files: [(&str, &[u8]); 6] = [
        ("isolinux/isolinux.bin", &contents.isolinux.loader),
        ("isolinux/ldlinux.c32", &contents.isolinux.library),
        ("isolinux/isolinux.cfg", menu.as_bytes()),
        ("boot/vmlinuz", contents.kernel),
        ("boot/initramfs.img", contents.ramdisk),
        ("README.TXT", about.as_bytes()),
    ];
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(contents.facts.built);
    for dir in ["isolinux", "boot"] {
        fs::create_dir_all(tree.join(dir))?;
    }
    for (name, bytes) in files {
        let path = tree.join(name);
        fs::write(&path, bytes).with_context(|| format!("writing {}", path.display()))?;
        fs::File::options().write(true).open(&path)?.set_modified(time)?;
    }
    for dir in ["isolinux", "boot", ""] {
        fs::File::open(tree.join(dir))?.set_modified(time)?;
    }
    Ok(())
}

fn xorriso(contents: &Contents<'_>, esp: &Path, tree: &Path, to: &Path) -> Result<()> {
    let mbr = to.with_file_name("mbr.bin");
    fs::write(&mbr, &contents.isolinux.mbr)?;
    let mut command = Command::new("xorriso");
    // Every date in the file system then is this one, and its UUID follows from it (xorriso's manual, "Environment").
    command.env("SOURCE_DATE_EPOCH", contents.facts.built.to_string());
    // Nobody's own start-up files.
    command.args(["-no_rc", "-as", "mkisofs", "-quiet", "-r", "-V", LABEL, "-o"]).arg(to);
    command.args(["-b", "isolinux/isolinux.bin", "-c", "isolinux/boot.cat", "-no-emul-boot"]);
    command.args(["-boot-load-size", "4", "-boot-info-table", "-isohybrid-mbr"]).arg(&mbr);
    command.args(["-append_partition", "2", "0xef"]).arg(esp);
    command.args(["-eltorito-alt-boot", "-e", "--interval:appended_partition_2:all::", "-no-emul-boot"]);
    tool::run(command.arg(tree), "xorriso")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn facts() -> BuildFacts {
        BuildFacts {
            number: 7,
            version: "0.1.0".to_owned(),
            kernel: "6.1.0".to_owned(),
            built: 1_700_000_000,
            inputs: "sha256:00".to_owned(),
        }
    }

    fn made(id: Uuid, parameters: &str) -> Vec<u8> {
        let supply = Supply::of_user().unwrap();
        let (stub, _) = uki::stub(&supply).unwrap();
        let isolinux = Isolinux::fetch(&supply).unwrap();
        let facts = facts();
        make(&Contents {
            facts: &facts,
            efi_stub: &stub,
            kernel: &[0x5a; 70_000],
            ramdisk: b"070701",
            isolinux: &isolinux,
            id,
            cmdline: "quiet",
            owner: None,
            parameters,
        })
        .unwrap()
    }

    fn of(image: &[u8], start: &str) -> Vec<String> {
        let text = String::from_utf8_lossy(image);
        text.match_indices(start).map(|(at, _)| text[at..].chars().take(52).collect()).collect()
    }

    #[test]
    fn the_same_twice_and_the_id_where_it_belongs() {
        let id = id_of_build(&facts());
        let image = made(id, parameters::TEMPLATE);
        assert!(image == made(id, parameters::TEMPLATE), "the same inputs give the same bytes");
        let (at, length, found) = gpt::find(&image, PARAMETER_PARTITION).unwrap();
        assert_eq!((found, length), (id, parameters::PARTITION_SIZE));
        assert_eq!(&image[at + 54..at + 59], b"FAT12");
        // In isolinux's menu and in the EFI program.
        let wanted = format!("speediso.medium={id}");
        assert_eq!(of(&image, "speediso.medium="), [wanted.clone(), wanted]);

        // Another program reads the ISO file system, with the names as they were given.
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE_NAME);
        fs::write(&path, &image).unwrap();
        let mut list = Command::new("xorriso");
        list.args(["-no_rc", "-indev"]).arg(&path).args(["-find", "/", "-type", "f"]);
        let listed = tool::run(&mut list, "xorriso").unwrap();
        for name in ["/boot/vmlinuz", "/boot/initramfs.img", "/isolinux/isolinux.cfg", "/README.TXT"] {
            assert!(listed.contains(name), "{listed}");
        }
        let mut report = Command::new("xorriso");
        report.args(["-no_rc", "-indev"]).arg(&path).args(["-report_el_torito", "plain"]);
        let report = tool::run(&mut report, "xorriso").unwrap();
        assert!(report.contains("BIOS") && report.contains("UEFI"), "{report}");
    }

    #[test]
    fn parameters_are_written_into_an_image_that_is_there() {
        let mut image = made(Uuid::new_v4(), parameters::TEMPLATE);
        let before = image.clone();
        parameters::put(&mut image, "speediso.sshkey=\"ssh-ed25519 AAAA\"\n").unwrap();
        let (at, length, _) = gpt::find(&image, PARAMETER_PARTITION).unwrap();
        assert!(image[..at] == before[..at] && image[at + length..] == before[at + length..], "nothing else changed");
        assert_eq!(parameters::get(&image).unwrap(), "speediso.sshkey=\"ssh-ed25519 AAAA\"\n");
        assert!(parameters::put(&mut image, "root=/dev/sda1\n").is_err());
        assert!(parameters::put(&mut vec![0; 4 << 20], "").is_err(), "not one of ours");
    }

    #[test]
    fn a_line_that_would_not_arrive_is_refused() {
        assert!(cmdline(Uuid::nil(), &"x".repeat(2000)).is_err());
        assert!(cmdline(Uuid::nil(), "a\nb").is_err());
        assert!(cmdline(Uuid::nil(), "speediso.medium=x").is_err());
    }
}

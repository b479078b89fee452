//! On images with an EFI system partition made by the real tools, and a directory in place of efivarfs.

#![allow(clippy::unwrap_used)]

use std::fs::{self, File};
use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::Path;
use std::process::Command;

use speediso_model::fault::FaultCode;
use speediso_model::inventory::Disk;
use speediso_model::outcome::{Changed, Outcome};
use speediso_model::task::BootPosition;
use speediso_model::units::Bytes;
use speediso_sys::efi::{self, GLOBAL, LoadOption};
use speediso_sys::roots::Roots;

use super::firmware::Change;
use super::{check_boot_code, esp};

const MIB: u64 = 1 << 20;

fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().unwrap_or_else(|e| panic!("{program} is needed: {e}"));
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A GPT disk of 40 MiB whose first partition is an ESP with these files.
fn disk(dir: &Path, files: &[(&str, &[u8])]) -> (File, Disk) {
    let (path, fat) = (dir.join("disk.img"), dir.join("esp.img"));
    File::create(&path).and_then(|f| f.set_len(40 * MIB)).unwrap();
    run("sgdisk", &["-n1:2048:+32M", "-t1:ef00", path.to_str().unwrap()]);
    File::create(&fat).and_then(|f| f.set_len(32 * MIB)).unwrap();
    run("mkfs.vfat", &[fat.to_str().unwrap()]);
    let source = dir.join("file");
    let mut made = Vec::new();
    for (name, content) in files {
        let mut directory = String::from("::");
        let (parents, _) = name.rsplit_once('/').unwrap_or(("", name));
        for part in parents.split('/').filter(|p| !p.is_empty()) {
            directory = format!("{directory}/{part}");
            if !made.contains(&directory) {
                run("mmd", &["-i", fat.to_str().unwrap(), &directory]);
                made.push(directory.clone());
            }
        }
        fs::write(&source, content).unwrap();
        run("mcopy", &["-i", fat.to_str().unwrap(), source.to_str().unwrap(), &format!("::/{name}")]);
    }
    let mut file = File::options().read(true).write(true).open(&path).unwrap();
    file.seek(SeekFrom::Start(MIB)).unwrap();
    file.write_all(&fs::read(&fat).unwrap()).unwrap();
    let disk = Disk { name: "/dev/image".into(), size: Bytes(40 * MIB), logical_sectors: 512, ..Disk::default() };
    (file, disk)
}

fn firmware() -> (tempfile::TempDir, Roots) {
    let dir = tempfile::tempdir().unwrap();
    let roots = Roots::under(dir.path());
    fs::create_dir_all(&roots.efivars).unwrap();
    (dir, roots)
}

#[test]
fn the_best_loader_is_found_by_itself() {
    let dir = tempfile::tempdir().unwrap();
    let all: &[(&str, &[u8])] = &[
        ("EFI/BOOT/BOOTX64.EFI", b"MZ fallback"),
        ("EFI/aaa/grubx64.efi", b"MZ grub"),
        ("EFI/debian/grubx64.efi", b"MZ grub"),
        ("EFI/debian/shimx64.efi", b"MZ shim"),
    ];
    for (count, loader) in [
        (4, "\\EFI\\debian\\shimx64.efi"),
        (3, "\\EFI\\debian\\grubx64.efi"),
        (2, "\\EFI\\aaa\\grubx64.efi"),
        (1, "\\EFI\\BOOT\\BOOTX64.EFI"),
    ] {
        let (file, disk) = disk(dir.path(), &all[..count]);
        let target = esp::find(&file, &disk, None).unwrap();
        assert_eq!(target.loader, loader);
        assert_eq!((target.number, target.first_sector, target.sectors), (1, 2048, 65536));
    }
}

#[test]
fn a_loader_that_is_none_is_missing() {
    let dir = tempfile::tempdir().unwrap();
    let (file, disk) = disk(dir.path(), &[("EFI/debian/shimx64.efi", b"text"), ("EFI/own/x.efi", b"MZ")]);
    assert_eq!(esp::find(&file, &disk, None).unwrap_err().code, FaultCode::LoaderMissing);
    assert_eq!(esp::find(&file, &disk, Some("\\EFI\\own\\X.EFI")).unwrap().loader, "\\EFI\\own\\X.EFI");
    let fault = esp::find(&file, &disk, Some("\\EFI\\own\\y.efi")).unwrap_err();
    assert!(fault.message.contains("\\EFI\\own\\y.efi"), "{fault}");
    // Garbage where the file system was is a finding, not an end of ours.
    file.set_len(MIB).unwrap();
    file.set_len(40 * MIB).unwrap();
    assert!(esp::find(&file, &disk, None).is_err());
}

#[test]
fn an_entry_is_written_ordered_and_found_again() {
    let dir = tempfile::tempdir().unwrap();
    let (file, disk) = disk(dir.path(), &[("EFI/debian/shimx64.efi", b"MZ shim")]);
    let target = esp::find(&file, &disk, None).unwrap();
    let (_dir, roots) = firmware();
    let other = |label: &str| LoadOption::for_file(label, 1, 2048, 9, [9; 16], "\\other.efi");
    efi::set_boot_entry(&roots, 0, &other("PXE")).unwrap();
    efi::set_boot_entry(&roots, 1, &other("speediso")).unwrap();
    let same = LoadOption::for_file("debian", 1, 2048, 9, target.guid, "\\EFI\\DEBIAN\\shimx64.efi");
    efi::set_boot_entry(&roots, 2, &same).unwrap();
    efi::write(&roots, "Boot0003", GLOBAL, efi::DURABLE, &[1]).unwrap();
    efi::set_boot_order(&roots, &[0, 1, 2, 3]).unwrap();
    efi::write(&roots, "BootCurrent", GLOBAL, 6, &[0, 0]).unwrap();

    let towards = || Change::towards(&roots, "speediso", BootPosition::AfterCurrent, vec![target.clone()]).unwrap();
    let ended = towards().carry_out(&roots);
    assert_eq!((ended.outcome, ended.changed), (Outcome::Verified, Some(Changed::Changed)), "{:?}", ended.fault);
    // The network first as before, then the disk; both older entries are gone, the unreadable one is left alone.
    assert_eq!(efi::boot_order(&roots).unwrap(), [0, 4, 3]);
    let entries = efi::boot_entries(&roots).unwrap();
    assert_eq!(entries.iter().map(|e| e.number).collect::<Vec<_>>(), [0, 3, 4]);
    let written = entries[2].option.as_ref().unwrap();
    assert_eq!(written.target(), Some((target.guid, "\\EFI\\debian\\shimx64.efi")));

    let again = towards().carry_out(&roots);
    assert_eq!((again.outcome, again.changed), (Outcome::Verified, Some(Changed::AlreadySo)));
    // A firmware that refuses is told, and what was not changed is said to be so.
    let change = Change::towards(&roots, "new", BootPosition::First, vec![target.clone()]).unwrap();
    fs::create_dir(roots.efivars.join(format!("Boot0001-{GLOBAL}"))).unwrap();
    let refused = change.carry_out(&roots);
    assert!(!refused.outcome.is_success());
    assert_eq!(refused.fault.unwrap().code, FaultCode::FirmwareVariable);
}

/// A mirrored EFI system partition: an entry for each disk, none of a third that is gone, and nothing new the next time.
#[test]
fn a_mirror_has_an_entry_for_each_disk() {
    let (_dir, roots) = firmware();
    let target = |guid: u8| esp::Target {
        loader: "\\EFI\\BOOT\\BOOTX64.EFI".into(),
        number: 1,
        first_sector: 2048,
        sectors: 65536,
        guid: [guid; 16],
    };
    let towards = |targets| Change::towards(&roots, "mirror", BootPosition::First, targets).unwrap();
    let three = towards(vec![target(1), target(2), target(3)]).carry_out(&roots);
    assert_eq!((three.outcome, efi::boot_entries(&roots).unwrap().len()), (Outcome::Verified, 3 + others(&roots)));
    let two = towards(vec![target(1), target(2)]).carry_out(&roots);
    assert_eq!((two.outcome, two.changed), (Outcome::Verified, Some(Changed::Changed)), "{:?}", two.fault);
    let ours: Vec<(String, [u8; 16])> = efi::boot_entries(&roots)
        .unwrap()
        .into_iter()
        .filter_map(|e| e.option)
        .filter(|o| o.description.starts_with("mirror"))
        .map(|o| (o.description.clone(), o.target().unwrap().0))
        .collect();
    assert_eq!(ours, [("mirror".to_owned(), [1; 16]), ("mirror (disk 2)".to_owned(), [2; 16])]);
    let again = towards(vec![target(1), target(2)]).carry_out(&roots);
    assert_eq!((again.outcome, again.changed), (Outcome::Verified, Some(Changed::AlreadySo)));
}

fn others(roots: &Roots) -> usize {
    let is_other = |e: &&efi::BootEntry| e.option.as_ref().is_none_or(|o| !o.description.starts_with("mirror"));
    efi::boot_entries(roots).unwrap().iter().filter(is_other).count()
}

#[test]
fn under_a_bios_boot_code_is_what_counts() {
    let dir = tempfile::tempdir().unwrap();
    let (mut file, disk) = disk(dir.path(), &[]);
    let fault = check_boot_code(&file, &disk).unwrap_err();
    assert!(fault.message.contains("no boot code"), "{fault}");
    file.rewind().unwrap();
    file.write_all(&[0xeb, 0x63]).unwrap();
    check_boot_code(&file, &disk).unwrap();
    file.seek(SeekFrom::Start(510)).unwrap();
    file.write_all(&[0, 0]).unwrap();
    assert!(check_boot_code(&file, &disk).unwrap_err().message.contains("55 AA"));
}

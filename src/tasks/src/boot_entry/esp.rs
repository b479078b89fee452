//! Looking for a boot loader in a disk's EFI system partition, without mounting anything.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt as _;
use std::panic::{AssertUnwindSafe, catch_unwind};

use fatfs::{FileSystem, FsOptions};
use gpt::disk::LogicalBlockSize;
use gpt::partition_types;
use gpt::{GptConfig, GptDisk};
use speediso_model::fault::{Fault, FaultCode};
use speediso_model::hints::describe;
use speediso_model::inventory::Disk;

/// A loader that was found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Target {
    /// Path in the partition, with backslashes.
    pub(super) loader: String,
    pub(super) number: u32,
    pub(super) first_sector: u64,
    pub(super) sectors: u64,
    /// In the byte order of the GPT, which is that of load options.
    pub(super) guid: [u8; 16],
}

/// Reading directories takes far less; a file system whose chains run in circles ends here.
const READ_LIMIT: u64 = 64 << 20;

#[cfg(target_arch = "x86_64")]
const ARCH: &str = "x64";
#[cfg(target_arch = "aarch64")]
const ARCH: &str = "aa64";

/// Finds `wanted`, or the best of the usual loaders, in the first EFI system partition that has it.
pub(super) fn find(file: &File, disk: &Disk, wanted: Option<&str>) -> Result<Target, Fault> {
    // Both parsers read bytes that came from elsewhere. A panic in them is a finding about the disk, and nothing has
    // been changed at this point.
    catch_unwind(AssertUnwindSafe(|| find_inside(file, disk, wanted))).unwrap_or_else(|_| {
        Err(Fault::new(
            FaultCode::PartitionTable,
            format!("partition table or EFI system partition of {} is damaged beyond reading", describe(disk)),
        ))
    })
}

/// Finds a loader in a device that is an EFI system partition itself, without a table: a mirror of such partitions.
pub(super) fn find_bare(file: &File, disk: &Disk, wanted: Option<&str>) -> Result<String, Fault> {
    let window = Window { file, start: 0, length: disk.size.0, at: 0, budget: READ_LIMIT };
    let found = catch_unwind(AssertUnwindSafe(|| loader(window, wanted)))
        .unwrap_or_else(|_| Err(io::Error::other("it is damaged beyond reading")));
    let missing = |why: String| {
        let what = wanted.map_or_else(|| "a boot loader".to_owned(), |path| format!("the boot loader {path}"));
        Fault::new(FaultCode::LoaderMissing, format!("{} does not have {what}", describe(disk))).because(why)
    };
    match found {
        Ok(Some(loader)) => Ok(loader),
        Ok(None) => Err(missing("its file system does not have it".into())),
        Err(e) => Err(missing(format!("it cannot be read as FAT: {e}"))),
    }
}

/// How the firmware finds this partition of this disk.
pub(super) fn partition(file: &File, disk: &Disk, number: u32, loader: &str) -> Result<Target, Fault> {
    catch_unwind(AssertUnwindSafe(|| {
        let table = table(file, disk)?;
        let partition = table.partitions().get(&number).filter(|p| p.is_used());
        let sectors = partition.and_then(|p| p.last_lba.checked_sub(p.first_lba)?.checked_add(1));
        let (Some(partition), Some(sectors)) = (partition, sectors) else {
            return Err(Fault::new(FaultCode::PartitionTable, format!("{} has no partition {number}", describe(disk))));
        };
        Ok(Target {
            loader: loader.to_owned(),
            number,
            first_sector: partition.first_lba,
            sectors,
            guid: partition.part_guid.to_bytes_le(),
        })
    }))
    .unwrap_or_else(|_| {
        Err(Fault::new(FaultCode::PartitionTable, format!("the table of {} is damaged beyond reading", describe(disk))))
    })
}

fn table<'a>(file: &'a File, disk: &Disk) -> Result<GptDisk<Window<'a>>, Fault> {
    let block_size = match disk.logical_sectors {
        512 => LogicalBlockSize::Lb512,
        4096 => LogicalBlockSize::Lb4096,
        other => {
            return Err(Fault::new(FaultCode::Unsupported, format!("{} has sectors of {other} bytes", describe(disk))));
        }
    };
    let whole = Window { file, start: 0, length: disk.size.0, at: 0, budget: READ_LIMIT };
    GptConfig::new().writable(false).logical_block_size(block_size).open_from_device(whole).map_err(|e| {
        Fault::from_error(FaultCode::PartitionTable, &e)
            .because(format!("looking for the EFI system partition of {}", describe(disk)))
    })
}

fn find_inside(file: &File, disk: &Disk, wanted: Option<&str>) -> Result<Target, Fault> {
    let sector = u64::from(disk.logical_sectors);
    let table = table(file, disk)?;
    let mut seen = Vec::new();
    for (number, partition) in table.partitions() {
        if partition.part_type_guid != partition_types::EFI {
            continue;
        }
        let Some(sectors) = partition.last_lba.checked_sub(partition.first_lba).and_then(|n| n.checked_add(1)) else {
            seen.push(format!("partition {number} ends before it begins"));
            continue;
        };
        let (Some(start), Some(length)) = (partition.first_lba.checked_mul(sector), sectors.checked_mul(sector)) else {
            seen.push(format!("partition {number} reaches past any disk"));
            continue;
        };
        let window = Window { file, start, length, at: 0, budget: READ_LIMIT };
        match loader(window, wanted) {
            Ok(Some(loader)) => {
                return Ok(Target {
                    loader,
                    number: *number,
                    first_sector: partition.first_lba,
                    sectors,
                    guid: partition.part_guid.to_bytes_le(),
                });
            }
            Ok(None) => seen.push(format!("partition {number} does not have it")),
            Err(e) => seen.push(format!("partition {number} cannot be read as FAT: {e}")),
        }
    }
    let what = wanted.map_or_else(|| "a boot loader".to_owned(), |path| format!("the boot loader {path}"));
    let mut fault = if seen.is_empty() {
        Fault::new(FaultCode::LoaderMissing, format!("{} has no EFI system partition, so not {what}", describe(disk)))
    } else {
        Fault::new(FaultCode::LoaderMissing, format!("{} does not have {what}", describe(disk)))
    };
    fault.causes = seen;
    Err(fault)
}

/// The path of the loader as the file system spells it.
fn loader(window: Window<'_>, wanted: Option<&str>) -> io::Result<Option<String>> {
    let esp = FileSystem::new(window, FsOptions::new().update_accessed_date(false))?;
    if let Some(wanted) = wanted {
        return Ok(is_program(&esp, wanted).then(|| wanted.to_owned()));
    }
    let Ok(efi) = esp.root_dir().open_dir("EFI") else { return Ok(None) };
    let mut vendors = Vec::new();
    for entry in efi.iter() {
        let entry = entry?;
        let name = entry.file_name();
        // The directory of the removable-media path is no vendor's; it comes last, as the fall-back it is.
        if entry.is_dir() && !matches!(name.as_str(), "." | "..") && !name.eq_ignore_ascii_case("BOOT") {
            vendors.push(name);
        }
    }
    vendors.sort_by_key(|name| (!name.eq_ignore_ascii_case("debian"), name.to_ascii_lowercase()));
    // shim first: with Secure Boot it is the only one that the firmware takes, and without it does no harm.
    let mut candidates: Vec<String> = Vec::new();
    for program in ["shim", "grub"] {
        candidates.extend(vendors.iter().map(|vendor| format!("\\EFI\\{vendor}\\{program}{ARCH}.efi")));
    }
    candidates.push(format!("\\EFI\\systemd\\systemd-boot{ARCH}.efi"));
    candidates.push(format!("\\EFI\\BOOT\\BOOT{}.EFI", ARCH.to_ascii_uppercase()));
    Ok(candidates.into_iter().find(|path| is_program(&esp, path)))
}

/// Whether the file is there and begins as a PE program does.
fn is_program(esp: &FileSystem<Window<'_>>, path: &str) -> bool {
    let Ok(mut file) = esp.root_dir().open_file(&path.trim_start_matches('\\').replace('\\', "/")) else {
        return false;
    };
    let mut magic = [0; 2];
    file.read_exact(&mut magic).is_ok() && &magic == b"MZ"
}

/// A read-only part of a disk.
#[derive(Debug)]
struct Window<'a> {
    file: &'a File,
    start: u64,
    length: u64,
    at: u64,
    /// Bytes that may still be read.
    budget: u64,
}

impl Read for Window<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.length.saturating_sub(self.at);
        let wanted = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        let read = self.file.read_at(&mut buffer[..wanted], self.start.saturating_add(self.at))?;
        self.at += read as u64;
        self.budget = self.budget.checked_sub(read as u64).ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidData, "directories without end: the file system is damaged")
        })?;
        Ok(read)
    }
}

impl Seek for Window<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let target = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(by) => self.length.checked_add_signed(by),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
        };
        self.at = target.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "seeking outside of the disk"))?;
        Ok(self.at)
    }
}

/// Both parsers ask for a writer; neither gets to use it.
impl Write for Window<'_> {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::Error::new(io::ErrorKind::PermissionDenied, "the disk is only looked at"))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

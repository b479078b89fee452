//! Which bytes of a disk are in use, as far as its own filesystems can be believed.
//!
//! A capture leaves out what is *known to be free* and keeps everything else: what no filesystem describes, what lies
//! between partitions, and the whole of a filesystem that is unknown, was not unmounted cleanly, has a feature that is
//! not understood here, or contradicts itself in anything that is looked at. So a mistake here can only be one of two
//! kinds: keeping too much, which costs space, or leaving out what was in use, which loses data. Every doubt is
//! decided for the first.
//!
//! All of it is read as if an enemy wrote it: lengths are compared with limits before they are allocated, no work is
//! more than linear in the size of the disk, and what is remembered is bounded ([`FreeMap`]).

mod bytes;
mod ext4;
mod fat;
mod foreign;
mod free;
mod ntfs;
mod table;
mod xfs;
mod xfslog;

use std::fmt;
use std::io;
use std::ops::Range;

use serde::Serialize;

pub use free::FreeMap;
pub use table::{Partition, Table, TableError, TableKind};

/// Bytes of a disk, anywhere in it.
pub trait ReadAt {
    fn size(&self) -> u64;

    /// Fills `buffer` with the bytes from `offset` on.
    ///
    /// # Errors
    /// When they cannot be read, or are not all within the disk.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()>;
}

impl ReadAt for Vec<u8> {
    fn size(&self) -> u64 {
        self.len() as u64
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let start = usize::try_from(offset).ok();
        let found = start.and_then(|start| self.get(start..start.checked_add(buffer.len())?));
        buffer.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

impl ReadAt for std::fs::File {
    /// Of a block device too, which has no length among its metadata.
    fn size(&self) -> u64 {
        use std::io::Seek as _;
        let mut file = self;
        file.seek(io::SeekFrom::End(0)).unwrap_or(0)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        std::os::unix::fs::FileExt::read_exact_at(self, buffer, offset)
    }
}

/// Why all of a filesystem is kept.
#[derive(Debug, thiserror::Error)]
pub enum Doubt {
    #[error("it was not unmounted cleanly: {0}")]
    Unclean(&'static str),
    #[error("it has a feature that is not understood here: {0}")]
    Feature(String),
    #[error("it contradicts itself: {0}")]
    Inconsistent(&'static str),
    #[error("it cannot be read: {0}")]
    Read(#[from] io::Error),
}

/// What free space is understood of.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Filesystem {
    /// ext2, ext3 and ext4.
    Ext,
    Fat,
    Xfs,
    Ntfs,
}

impl Filesystem {
    const ALL: [Self; 4] = [Self::Ext, Self::Fat, Self::Xfs, Self::Ntfs];

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ext => "ext2/3/4",
            Self::Fat => "FAT",
            Self::Xfs => "XFS",
            Self::Ntfs => "NTFS",
        }
    }

    fn is_at(self, start: &[u8]) -> bool {
        match self {
            Self::Ext => ext4::is_one(start),
            Self::Fat => fat::is_one(start),
            Self::Xfs => xfs::is_one(start),
            Self::Ntfs => ntfs::is_one(start),
        }
    }

    fn free(self, window: &Window<'_>) -> Result<FreeMap, Doubt> {
        match self {
            Self::Ext => ext4::free(window),
            Self::Fat => fat::free(window),
            Self::Xfs => xfs::free(window),
            Self::Ntfs => ntfs::free(window),
        }
    }
}

/// What became of one partition, or of a disk without a table.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Found {
    /// As the kernel counts them; none for a disk without a table.
    pub partition: Option<u32>,
    /// In the table.
    pub label: String,
    pub offset: u64,
    pub length: u64,
    /// What stands in it, in words.
    pub holds: String,
    /// Bytes that are known to be free, and left out.
    pub free: u64,
    /// Why all of it is kept, if that is so.
    pub kept_whole: Option<String>,
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use speediso_model::units::Bytes;
        match self.partition {
            Some(number) => write!(f, "partition {number}")?,
            None => f.write_str("the disk")?,
        }
        if !self.label.is_empty() {
            write!(f, " {:?}", self.label)?;
        }
        write!(f, ": {}, ", self.holds)?;
        match &self.kept_whole {
            None => write!(f, "{} of {} in use", Bytes(self.length - self.free), Bytes(self.length)),
            Some(why) => write!(f, "all of {} kept: {why}", Bytes(self.length)),
        }
    }
}

/// What is free on a disk, and how that was judged.
#[derive(Debug)]
pub struct Survey {
    pub free: FreeMap,
    pub found: Vec<Found>,
    /// Why no table was looked at, if there is something like one.
    pub table_doubt: Option<TableError>,
}

/// Looks at the whole disk: its partitions, or the filesystem on it.
///
/// # Errors
/// When its table cannot be read. What else cannot be read counts as used.
pub fn survey(disk: &dyn ReadAt, sector_size: u32) -> io::Result<Survey> {
    let table = match Table::read(disk, sector_size) {
        Ok(table) => table,
        Err(TableError::Read(error)) => return Err(error),
        Err(doubt) => return Ok(Survey { free: FreeMap::default(), found: Vec::new(), table_doubt: Some(doubt) }),
    };
    let mut survey = Survey { free: FreeMap::default(), found: Vec::new(), table_doubt: None };
    if table.kind == TableKind::None {
        survey.look(disk, None, "", 0..disk.size(), None);
    }
    for partition in &table.partitions {
        let Partition { number, name, range, .. } = partition;
        survey.look(disk, Some(*number), name, range.clone(), partition.container());
    }
    Ok(survey)
}

/// Looks at one partition, as if it were a disk: what is free is counted from its start.
#[must_use]
pub fn survey_partition(disk: &dyn ReadAt, partition: &Partition) -> Survey {
    let window = Window { disk, range: partition.range.clone() };
    let mut survey = Survey { free: FreeMap::default(), found: Vec::new(), table_doubt: None };
    let whole = 0..window.size();
    survey.look(&window, Some(partition.number), &partition.name, whole, partition.container());
    survey
}

impl Survey {
    /// In the order of the disk.
    fn look(
        &mut self,
        disk: &dyn ReadAt,
        partition: Option<u32>,
        label: &str,
        range: Range<u64>,
        container: Option<&'static str>,
    ) {
        let window = Window { disk, range: range.clone() };
        let (holds, free) = match container {
            Some(container) => (container.to_owned(), Err("its partition is a part of something else".to_owned())),
            None => judge(&window),
        };
        let (free, kept_whole) = match free {
            Ok(free) => (free, None),
            Err(why) => (FreeMap::default(), Some(why)),
        };
        self.found.push(Found {
            partition,
            label: label.to_owned(),
            offset: range.start,
            length: range.end - range.start,
            holds,
            free: free.total(),
            kept_whole,
        });
        self.free.append(&free, range.start);
    }
}

/// What stands in a window and what of it is free, or why nothing is left out.
fn judge(window: &Window<'_>) -> (String, Result<FreeMap, String>) {
    let mut start = vec![0; foreign::START.min(usize::try_from(window.size()).unwrap_or(usize::MAX))];
    if let Err(error) = window.read_at(0, &mut start) {
        return ("something".into(), Err(Doubt::Read(error).to_string()));
    }
    // What is left over from an earlier life of the disk may look as good as what is there now: who finds two, knows
    // neither.
    let known: Vec<Filesystem> = Filesystem::ALL.into_iter().filter(|kind| kind.is_at(&start)).collect();
    let foreign = match foreign::signature(&start, window) {
        Ok(foreign) => foreign,
        Err(error) => return ("something".into(), Err(Doubt::Read(error).to_string())),
    };
    match (known.as_slice(), foreign) {
        ([], None) => ("nothing that is known".into(), Err("its free space is not known".into())),
        ([], Some(name)) => (name.into(), Err("its free space is not understood here".into())),
        ([kind], None) => (
            kind.name().into(),
            kind.free(window).map_err(|doubt| doubt.to_string()).and_then(|free| {
                let inside = free.runs().last().is_none_or(|last| last.end <= window.size());
                if inside { Ok(free) } else { Err(Doubt::Inconsistent("it goes beyond its partition").to_string()) }
            }),
        ),
        (several, foreign) => {
            let names: Vec<&str> = several.iter().map(|kind| kind.name()).chain(foreign).collect();
            (names.join(" and "), Err("one of them is a leftover, and nothing says which".into()))
        }
    }
}

/// A part of a disk.
pub(crate) struct Window<'a> {
    disk: &'a dyn ReadAt,
    range: Range<u64>,
}

impl ReadAt for Window<'_> {
    fn size(&self) -> u64 {
        self.range.end - self.range.start
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        if offset.checked_add(buffer.len() as u64).is_none_or(|end| end > self.size()) {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, format!("byte {offset} is outside of it")));
        }
        self.disk.read_at(self.range.start + offset, buffer)
    }
}

impl Window<'_> {
    /// Only for lengths that were compared with a limit.
    fn read(&self, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; length];
        self.read_at(offset, &mut bytes)?;
        Ok(bytes)
    }
}

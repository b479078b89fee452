//! Whether what is on the disks is what was ordered, inside of LVM and of encryptions too.
//!
//! A plan is compared by what can be read without a key; on claimed disks the keys of the order are tried, and what they
//! open is looked at, read only. What differs is named. What cannot be seen is named as well, and is never taken for as ordered.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use speediso_model::fault::{Fault, FaultCode};
use speediso_model::task::{Content, Luks, PartitionTask, VolumeGroup, VolumeKind};
use speediso_sys::window::Window;

use super::medium::Medium;
use super::superblock::{self, PROBE};
use super::volumes::{Report, Start};
use super::wish::{self, Wish};
use super::{device, format, luks, luks_header};
use crate::tools::Toolbox;

#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Compared {
    pub(super) differs: Vec<String>,
    pub(super) unread: Vec<String>,
}

impl Compared {
    pub(super) fn is_so(&self) -> bool {
        self.differs.is_empty() && self.unread.is_empty()
    }

    pub(super) fn add(&mut self, other: Self) {
        self.differs.extend(other.differs);
        self.unread.extend(other.unread);
    }

    /// Without this program or that device it is not seen; an order to stop is no such thing.
    fn not_seen(&mut self, what: &str, fault: Fault) -> Result<(), Fault> {
        match fault.code {
            FaultCode::Cancelled | FaultCode::DiskHung | FaultCode::TimedOut | FaultCode::DiskVanished => Err(fault),
            _ => {
                self.unread.push(format!("{what}: {fault}"));
                Ok(())
            }
        }
    }
}

/// One disk, as far as it shows without a key: its table, and what each partition begins with.
pub(super) fn outside(wish: &Wish, medium: Medium<'_>) -> Result<Compared, Fault> {
    let mut differs = wish.table_differs(medium)?;
    // Where partitions should be, nothing need be.
    let entries = if differs.is_empty() { wish.entries.as_slice() } else { &[] };
    for new in entries {
        let start = || medium.start_of(new.span, PROBE);
        let why = match &new.spec.content {
            None if wish::is_empty(new.span, medium)? => Vec::new(),
            None => vec!["it is not empty".into()],
            Some(content) => outer(content, &start()?),
        };
        differs.extend(why.into_iter().map(|why| format!("{}: {why}", new.describe())));
    }
    Ok(Compared { differs, unread: Vec::new() })
}

/// In what is not as ordered what begins here.
fn outer(content: &Content, start: &[u8]) -> Vec<String> {
    let found = superblock::recognise(start);
    let seen = found.as_ref().map_or_else(|| "nothing known".to_owned(), ToString::to_string);
    match (content, &found) {
        (Content::FileSystem(wanted), Some(found)) => format::is_so(wanted, found).err().into_iter().collect(),
        (Content::Lvm(_), Some(found)) if found.kind == "LVM2_member" => Vec::new(),
        (Content::Luks(wanted), _) => luks_header::differences(wanted, start),
        (Content::FileSystem(_) | Content::Lvm(_), _) => vec![format!("there is {seen}")],
    }
}

/// A physical volume that can be read. Fields go in this order: the encryption before what it lies on.
struct Member<'a> {
    open: Option<luks::Open<'a>>,
    window: Window<'a>,
    medium: Medium<'a>,
    group: &'a str,
}

impl Member<'_> {
    fn path(&self) -> PathBuf {
        self.open.as_ref().map_or_else(|| self.window.path().to_owned(), luks::Open::path)
    }
}

/// What is inside of encryptions and volume groups, on disks that are as ordered from outside. No key is tried on a disk that
/// is not claimed.
pub(super) fn inside<'a>(
    task: &'a PartitionTask,
    disks: &[(Medium<'a>, &'a Wish)],
    toolbox: &'a Toolbox<'a>,
) -> Result<Compared, Fault> {
    let mut compared = Compared::default();
    let mut members = Vec::new();
    for (medium, wish) in disks {
        for new in &wish.entries {
            let what = format!("{} on {}", new.describe(), medium.name());
            match &new.spec.content {
                Some(Content::Lvm(group)) => {
                    let window = device::peephole(*medium, new.span)?;
                    members.push(Member { open: None, window, medium: *medium, group });
                }
                Some(Content::Luks(_)) if matches!(medium, Medium::Seen(_)) => {
                    compared.unread.push(format!("{what}: its key, and what is in it"));
                }
                Some(content @ Content::Luks(luks)) => {
                    let window = device::peephole(*medium, new.span)?;
                    match encrypted(luks, window.path(), toolbox) {
                        Ok((open, inner)) => {
                            compared.differs.extend(inner.into_iter().map(|why| format!("{what}: {why}")));
                            if let Some(group) = content.volume_group() {
                                members.push(Member { open, window, medium: *medium, group });
                            }
                        }
                        Err(fault) => compared.not_seen(&what, fault)?,
                    }
                }
                Some(Content::FileSystem(_)) | None => {}
            }
        }
    }
    for group in &task.volume_groups {
        let own: Vec<&Member<'_>> = members.iter().filter(|member| member.group == group.name).collect();
        let what = format!("volume group {:?}", group.name);
        let n_members = task.contents().filter(|content| content.volume_group() == Some(&group.name)).count();
        if own.len() < n_members {
            compared.unread.push(format!("{what}: not all of its physical volumes can be seen"));
            continue;
        }
        match volume_group(group, &own, toolbox) {
            Ok(found) => compared.add(found),
            Err(fault) => compared.not_seen(&what, fault)?,
        }
    }
    Ok(compared)
}

/// Tries the key, and looks at what it opens. It stays open for whoever has a volume group in it.
fn encrypted<'a>(
    luks: &Luks,
    under: &Path,
    toolbox: &'a Toolbox<'a>,
) -> Result<(Option<luks::Open<'a>>, Vec<String>), Fault> {
    luks::try_key(luks, under, toolbox).map_err(|fault| fault.because("the key of the order does not open it"))?;
    let Some(inner) = luks.content.as_deref() else { return Ok((None, Vec::new())) };
    let open = luks::Open::read_only(luks, under, toolbox)?;
    let differs = outer(inner, &device::start(&open.path(), 0, PROBE as u64)?);
    let differs = differs.into_iter().map(|why| format!("inside of the encryption: {why}")).collect();
    if inner.volume_group().is_some() {
        return Ok((Some(open), differs));
    }
    open.close()?;
    Ok((None, differs))
}

fn volume_group(group: &VolumeGroup, members: &[&Member<'_>], toolbox: &Toolbox<'_>) -> Result<Compared, Fault> {
    let paths: Vec<PathBuf> = members.iter().map(|member| member.path()).collect();
    let paths: Vec<&Path> = paths.iter().map(PathBuf::as_path).collect();
    let report = Report::of(&group.name, &paths, toolbox)?;
    let mut compared = Compared { differs: report.differences(group, &paths), unread: Vec::new() };
    let volumes = if compared.differs.is_empty() { group.volumes.as_slice() } else { &[] };
    for volume in volumes {
        let what = format!("volume {:?}", volume.name);
        let starts = report.starts(volume);
        if starts.is_empty() && volume.kind != VolumeKind::ThinPool {
            compared.unread.push(format!("{what}: what is in it shows only while its pool runs, which writes"));
        }
        for start in &starts {
            let begin = device::start(&start.device, start.offset, start.length)?;
            let mut differs = match &volume.content {
                Some(content) => outer(content, &begin),
                None => superblock::recognise(&begin).map(|found| format!("there is {found}")).into_iter().collect(),
            };
            if let (Some(Content::Luks(luks)), true) = (&volume.content, differs.is_empty()) {
                match in_volume(luks, start, members, toolbox) {
                    Ok(inner) => differs = inner,
                    Err(fault) => compared.not_seen(&what, fault)?,
                }
            }
            compared.differs.extend(differs.into_iter().map(|why| format!("{what}: {why}")));
        }
    }
    let named = |what: String| format!("volume group {:?}: {what}", group.name);
    Ok(Compared {
        differs: compared.differs.into_iter().map(named).collect(),
        unread: compared.unread.into_iter().map(named).collect(),
    })
}

/// An encryption that lies on a volume: its first piece, which has the header, as a device of its own.
fn in_volume(luks: &Luks, start: &Start, members: &[&Member<'_>], toolbox: &Toolbox<'_>) -> Result<Vec<String>, Fault> {
    let unseen = |why: String| Fault::new(FaultCode::Unsupported, why);
    let claimed = members.iter().find(|member| matches!(member.medium, Medium::Claimed(_)));
    let sector = claimed.ok_or_else(|| unseen("its key, and what is in it".into()))?.medium.sector();
    let io = |e: std::io::Error| unseen(format!("no device could be laid over it: {e}"));
    let flags = libc::O_DIRECT | libc::O_CLOEXEC;
    let device = OpenOptions::new().read(true).custom_flags(flags).open(&start.device).map_err(io)?;
    let window = Window::of_device(&device, sector, start.offset, start.length).map_err(io)?;
    Ok(encrypted(luks, window.path(), toolbox)?.1)
}

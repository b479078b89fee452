//! Making what goes into the partitions, while no table shows them yet (with kept partitions: the old one).

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use speediso_model::fault::{Fault, FaultCode};
use speediso_model::task::{Content, Luks, PartitionTask, VolumeGroup};
use speediso_sys::claim::ClaimedDisk;
use speediso_sys::window::Window;

use super::arrange::Span;
use super::format::{self, Place};
use super::medium::Medium;
use super::superblock::{self, PROBE};
use super::wish::{New, Wish};
use super::{device, luks, lvm};
use crate::ctx::TaskCtx;
use crate::tools::Toolbox;

/// What the task needs besides us.
pub(super) fn programs(task: &PartitionTask) -> Vec<&'static str> {
    let mut programs = Vec::new();
    for content in task.contents() {
        programs.extend(content.format().map(|format| format::program(format.kind)));
        if matches!(content, Content::Luks(_)) {
            programs.push(luks::PROGRAM);
        }
    }
    if !task.volume_groups.is_empty() {
        programs.push(lvm::PROGRAM);
    }
    programs.sort_unstable();
    programs.dedup();
    programs
}

/// Of those, what it takes to look at what is there.
pub(super) fn inspecting(task: &PartitionTask) -> Vec<&'static str> {
    let mut programs = programs(task);
    programs.retain(|program| [luks::PROGRAM, lvm::PROGRAM].contains(program));
    programs
}

/// Whether there is to be something that does not show from outside.
pub(super) fn has_inside(task: &PartitionTask) -> bool {
    !inspecting(task).is_empty()
}

pub(super) fn modules(task: &PartitionTask) -> Vec<&'static str> {
    let mut modules: Vec<&str> = task.volume_groups.iter().flat_map(lvm::modules).collect();
    if task.contents().any(|content| matches!(content, Content::Luks(_))) {
        modules.extend(luks::MODULES);
    }
    modules
}

/// A partition that is part of a volume group. Fields go in this order: the encryption before what it lies on.
struct Member<'a> {
    open: Option<luks::Open<'a>>,
    window: Window<'a>,
    disk: &'a ClaimedDisk,
    span: Span,
    group: String,
}

impl Member<'_> {
    fn path(&self) -> PathBuf {
        self.open.as_ref().map_or_else(|| self.window.path().to_owned(), luks::Open::path)
    }

    fn close(self) -> Result<(), Fault> {
        self.open.map_or(Ok(()), luks::Open::close)?;
        device::close(self.window, self.disk, self.span)
    }
}

/// Fills the partitions of all disks; gives what is to be told of the volume groups.
pub(super) fn fill(
    task: &PartitionTask,
    disks: &[(&ClaimedDisk, &Wish)],
    toolbox: &Toolbox<'_>,
    ctx: &TaskCtx,
) -> Result<Value, Fault> {
    let mut members = Vec::new();
    for (disk, wish) in disks {
        for new in &wish.entries {
            ctx.cancel.check()?;
            if let Some(content) = &new.spec.content {
                let step = format!("{} on {}", new.describe(), disk.name());
                ctx.reporter.step_began(&step);
                let member = partition(content, new, disk, toolbox)
                    .map_err(|fault| fault.because(format!("this is about {step}")))?;
                members.extend(member);
                ctx.reporter.step_ended(&step, "made");
            }
        }
    }
    let mut groups = Vec::new();
    for group in &task.volume_groups {
        let step = format!("volume group {}", group.name);
        ctx.reporter.step_began(&step);
        let (own, others): (Vec<_>, Vec<_>) = members.into_iter().partition(|member| member.group == group.name);
        members = others;
        let volumes = volume_group(group, &own, toolbox, ctx)
            .map_err(|fault| fault.because(format!("this is about the volume group {}", group.name)))?;
        own.into_iter().try_for_each(Member::close)?;
        ctx.reporter.step_ended(&step, &format!("{} volumes", volumes.len()));
        groups.push(json!({"name": group.name, "volumes": volumes}));
    }
    Ok(Value::Array(groups))
}

fn partition<'a>(
    content: &Content,
    new: &New,
    disk: &'a ClaimedDisk,
    toolbox: &'a Toolbox<'a>,
) -> Result<Option<Member<'a>>, Fault> {
    let span = new.span;
    let window = device::window(disk, span)?;
    let place = Place { start: span.start, length: span.length(), sector: disk.sector_size() };
    match content {
        Content::FileSystem(format) => {
            device::make(format, window.path(), place, toolbox)?;
            device::close(window, disk, span)?;
            Ok(None)
        }
        Content::Lvm(group) => Ok(Some(Member { open: None, window, disk, span, group: group.clone() })),
        Content::Luks(luks) => {
            let open = encrypted(luks, window.path(), place, toolbox)?;
            if let Some(group) = content.volume_group() {
                return Ok(Some(Member { open: Some(open), window, disk, span, group: group.to_owned() }));
            }
            open.close()?;
            device::close(window, disk, span)?;
            Ok(None)
        }
    }
}

/// With the file system inside, if there is to be one.
fn encrypted<'a>(luks: &Luks, under: &Path, place: Place, toolbox: &'a Toolbox<'a>) -> Result<luks::Open<'a>, Fault> {
    let open = luks::Open::new(luks, under, toolbox)?;
    if let Some(Content::FileSystem(format)) = luks.content.as_deref() {
        let inside = Place { start: 0, length: place.length.saturating_sub(format::LUKS_HEADER), ..place };
        device::make(format, &open.path(), inside, toolbox)?;
    }
    Ok(open)
}

fn volume_group(
    group: &VolumeGroup,
    members: &[Member<'_>],
    toolbox: &Toolbox<'_>,
    ctx: &TaskCtx,
) -> Result<Vec<Value>, Fault> {
    let paths: Vec<PathBuf> = members.iter().map(Member::path).collect();
    let sector = members.iter().map(|member| member.disk.sector_size()).max().unwrap_or(512);
    let active = lvm::Active::new(group, &paths, toolbox)?;
    let mut facts = Vec::new();
    for volume in &group.volumes {
        ctx.cancel.check()?;
        active.add(volume)?;
        let seen = active.look(volume)?;
        let place = Place { start: 0, length: seen.size, sector };
        let path = active.path(volume);
        match &volume.content {
            Some(Content::FileSystem(format)) => device::make(format, &path, place, toolbox)?,
            Some(Content::Luks(luks)) => encrypted(luks, &path, place, toolbox)?.close()?,
            Some(Content::Lvm(_)) | None => {}
        }
        facts.push(seen.facts(volume));
    }
    active.deactivate()?;
    Ok(facts)
}

/// Whether every partition begins with what was made in it, by the disk itself and not by the device it was made on.
pub(super) fn verify(wish: &Wish, disk: &ClaimedDisk) -> Result<(), Fault> {
    for new in &wish.entries {
        let Some(content) = &new.spec.content else { continue };
        let found = superblock::recognise(&Medium::Claimed(disk).start_of(new.span, PROBE)?);
        let is_so = |found: &superblock::Found| match content {
            Content::FileSystem(format) => format::is_so(format, found),
            Content::Lvm(_) if found.kind == "LVM2_member" => Ok(()),
            Content::Luks(luks)
                if found.kind == "crypto_LUKS" && luks.uuid.is_none_or(|uuid| uuid.to_string() == found.uuid) =>
            {
                Ok(())
            }
            Content::Lvm(_) | Content::Luks(_) => Err(format!("there is {found}")),
        };
        let seen = found.as_ref().map_or_else(|| Err("nothing known begins there".to_owned()), is_so);
        seen.map_err(|why| {
            Fault::new(
                FaultCode::VerifyFailed,
                format!("{} was made at byte {} of {}, but {why}", new.describe(), new.span.start, disk.name()),
            )
        })?;
    }
    Ok(())
}

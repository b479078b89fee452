//! Which disks the arrays take, and what has to be done with them. Looks, and changes nothing.

use speediso_model::disk_set::{DiskGroup, DiskSet};
use speediso_model::fault::{Fault, FaultCode};
use speediso_model::hints::describe;
use speediso_model::inventory::{Disk, Use};
use speediso_model::plan::{Action, DiskIdentity, Plan, PlannedDevice};
use speediso_model::raid::{InitialSync, RaidArray, RaidTask, Slot, lay_out};
use speediso_model::units::Bytes;
use speediso_sys::lend::InSysfs;
use speediso_sys::md::KnownArray;

use super::mdadm::{Mdadm, Superblock};
use super::sync::look;
use super::wish::Wish;
use crate::ctx::TaskCtx;
use crate::single::{read_disks, signatures};

pub(super) struct Survey<'a> {
    pub(super) plan: Plan,
    pub(super) groups: Vec<Group<'a>>,
}

/// Arrays that share their disks.
pub(super) struct Group<'a> {
    pub(super) disks: Vec<Disk>,
    pub(super) allow_removable: Vec<bool>,
    pub(super) wishes: Vec<Wish<'a>>,
    pub(super) way: Way,
}

pub(super) enum Way {
    /// The disks are empty, or what is there goes.
    Make,
    /// The arrays are there, by the UUIDs that the task names, and do not run.
    Assemble,
    /// They run, and are as ordered.
    Keep(Vec<KnownArray>),
}

impl<'a> Survey<'a> {
    pub(super) fn of(task: &'a RaidTask, ctx: &TaskCtx) -> Result<Self, Fault> {
        let all = read_disks(ctx)?;
        let known = KnownArray::all(&ctx.roots);
        let is_ours =
            |device: &str| known.iter().any(|k| k.device == device && task.arrays.iter().any(|a| is_it(a, k)));
        // A disk that holds nothing but the very array that is ordered is not in the way of it.
        let mut free = all.clone();
        for disk in &mut free {
            disk.in_use.retain(|held| !matches!(held, Use::Holder { name, .. } if is_ours(name)));
        }
        let mut groups = group(task, &free)?;
        let mut found = Vec::new();
        for group in &mut groups {
            check_disks(task, &group.disks)?;
            place(task, group)?;
            let signatures: Vec<Vec<String>> = group.disks.iter().map(|d| signatures(ctx, &d.name)).collect();
            group.way = way(task, group, &signatures, &known, ctx)?;
            found.push(signatures);
        }
        let plan = plan(&groups, found).with_untouched(&all);
        Ok(Self { plan, groups })
    }
}

fn is_it(array: &RaidArray, known: &KnownArray) -> bool {
    match array.uuid {
        Some(uuid) => known.uuid == uuid.hyphenated().to_string(),
        None => known.name == array.name,
    }
}

/// Resolves the members. Arrays share all of their disks or none.
fn group<'a>(task: &'a RaidTask, disks: &[Disk]) -> Result<Vec<Group<'a>>, Fault> {
    let mut groups: Vec<Group<'a>> = Vec::new();
    for array in &task.arrays {
        let members = array
            .members
            .resolve(disks)
            .map_err(|fault| fault.because(format!("members of array {:?}", array.name)))?;
        let removable: Vec<bool> = match &array.members {
            DiskSet::Each(hints) => hints.iter().map(|h| h.allow_removable).collect(),
            DiskSet::Matching { hints, .. } | DiskSet::Group(DiskGroup { hints, .. }) => {
                vec![hints.allow_removable; members.len()]
            }
        };
        let shared =
            |group: &Group<'_>| members.iter().filter(|m| group.disks.iter().any(|d| d.name == m.name)).count();
        // What they stand on is worked out once all of a group are known.
        let slot = Slot { partition: None, start: 0, length: 0, data_offset: 0, component: 0, capacity: 0 };
        let at = match groups.iter().position(|group| shared(group) > 0) {
            Some(at) => at,
            None => {
                groups.push(Group {
                    disks: members.iter().map(|m| (*m).clone()).collect(),
                    allow_removable: removable,
                    wishes: Vec::new(),
                    way: Way::Make,
                });
                groups.len() - 1
            }
        };
        let group = &mut groups[at];
        let order: Vec<usize> =
            members.iter().filter_map(|m| group.disks.iter().position(|d| d.name == m.name)).collect();
        if order.len() != members.len() || order.len() != group.disks.len() {
            let others: Vec<&str> = group.wishes.iter().map(|w| w.array.name.as_str()).collect();
            return Err(Fault::new(
                FaultCode::TaskInvalid,
                format!(
                    "raid: array {:?} shares some of its disks, but not all, with {}: every disk of a set gets one and the \
                     same partition table",
                    array.name,
                    others.join(", ")
                ),
            ));
        }
        group.wishes.push(Wish { array, slot, order });
    }
    Ok(groups)
}

fn check_disks(task: &RaidTask, disks: &[Disk]) -> Result<(), Fault> {
    let (Some(smallest), Some(largest)) = (disks.iter().min_by_key(|d| d.size), disks.iter().max_by_key(|d| d.size))
    else {
        return Err(Fault::new(FaultCode::NoMatchingDisk, "an array without disks"));
    };
    if let Some(other) = disks.iter().find(|d| d.logical_sectors != smallest.logical_sectors) {
        return Err(Fault::new(
            FaultCode::SectorSizeMismatch,
            format!(
                "{} has sectors of {} bytes, {} of {}: they cannot be members of one array",
                describe(smallest),
                smallest.logical_sectors,
                describe(other),
                other.logical_sectors
            ),
        ));
    }
    if !task.unequal_sizes && largest.size.0 - smallest.size.0 > largest.size.0 / 100 {
        let mut fault = Fault::new(
            FaultCode::DiskTooSmall,
            format!(
                "{} and {} differ in size by more than a hundredth; {} of the larger would stay unused",
                describe(smallest),
                describe(largest),
                Bytes(largest.size.0 - smallest.size.0)
            ),
        );
        fault.advice = "choose disks of one size, or set unequal_sizes in the task".into();
        return Err(fault);
    }
    Ok(())
}

fn place(task: &RaidTask, group: &mut Group<'_>) -> Result<(), Fault> {
    let smallest = group.disks.iter().map(|d| d.size.0).min().unwrap_or(0);
    let arrays: Vec<&RaidArray> = group.wishes.iter().map(|w| w.array).collect();
    let slots = lay_out(&arrays, group.disks.len(), smallest, task.whole_disks)
        .map_err(|what| Fault::new(FaultCode::DiskTooSmall, format!("raid: {what}")))?;
    for (wish, slot) in group.wishes.iter_mut().zip(slots) {
        wish.slot = slot;
    }
    Ok(())
}

fn way(
    task: &RaidTask,
    group: &Group<'_>,
    signatures: &[Vec<String>],
    known: &[KnownArray],
    ctx: &TaskCtx,
) -> Result<Way, Fault> {
    let running: Vec<&KnownArray> =
        group.wishes.iter().filter_map(|wish| known.iter().find(|k| is_it(wish.array, k))).collect();
    if !running.is_empty() {
        return keep(group, &running, ctx);
    }
    let mut causes = Vec::new();
    // Nobody else's array is taken for the one that is meant: it has to be named.
    if group.wishes.iter().all(|wish| wish.array.uuid.is_some()) {
        match superblocks(group, ctx)? {
            Found::All(differences) if differences.is_empty() => return Ok(Way::Assemble),
            Found::All(differences) if !task.replace => return Err(differs(group, differences)),
            Found::Some(of_which) => causes.extend(of_which),
            Found::All(_) | Found::None => {}
        }
    }
    for (disk, found) in group.disks.iter().zip(signatures) {
        if !found.is_empty() {
            causes.push(format!("{} holds {}", describe(disk), found.join("; ")));
        }
    }
    if task.replace {
        return Ok(Way::Make);
    }
    if ctx.probe.is_none() {
        return Err(Fault::new(
            FaultCode::Unsupported,
            "the disks cannot be looked at here; set replace to take them as they are",
        ));
    }
    if !causes.is_empty() {
        let mut fault = Fault::new(
            FaultCode::DiskNotEmpty,
            format!(
                "{} that shall become members are not empty; nothing was touched",
                counted(group.disks.len(), "disk")
            ),
        );
        fault.causes = causes;
        return Err(fault);
    }
    Ok(Way::Make)
}

/// The arrays run: either they are as ordered, or the order is refused, since what runs may be in use.
fn keep(group: &Group<'_>, running: &[&KnownArray], ctx: &TaskCtx) -> Result<Way, Fault> {
    if running.len() < group.wishes.len() {
        let names: Vec<String> = running.iter().map(|k| format!("{:?} (/dev/{})", k.name, k.device)).collect();
        return Err(Fault::new(
            FaultCode::ArrayDiffers,
            format!("of {} on these disks only {} run", counted(group.wishes.len(), "array"), names.join(", ")),
        ));
    }
    let mdadm = Mdadm::find()?;
    let mut differences = Vec::new();
    for (wish, known) in group.wishes.iter().zip(running) {
        let found = look(&known.device, ctx).map_err(|(_, fault)| fault)?;
        let mut numbers = Vec::new();
        let mut of_this = Vec::new();
        for (disk, device) in members(group, wish, ctx) {
            match device {
                Ok(device) => {
                    of_this.extend(match mdadm.examine(&ctx.roots.dev.join(&device.device))? {
                        Some(superblock) if superblock.uuid == known.uuid.replace('-', "") => {
                            wish.differs_from_superblock(&superblock)
                        }
                        _ => vec![format!("{} holds no member of it", describe(disk))],
                    });
                    numbers.push(device.number);
                }
                Err(error) => of_this.push(format!("on {}: {error}", describe(disk))),
            }
        }
        let is_complete = numbers.len() == wish.order.len();
        of_this.extend(wish.differs_from(&found, is_complete.then_some(numbers.as_slice())));
        of_this.sort();
        of_this.dedup();
        differences.extend(of_this.into_iter().map(|what| format!("{:?} (/dev/{}): {what}", known.name, known.device)));
    }
    if differences.is_empty() {
        return Ok(Way::Keep(running.iter().map(|known| (*known).clone()).collect()));
    }
    Err(differs(group, differences))
}

fn differs(group: &Group<'_>, differences: Vec<String>) -> Fault {
    let names: Vec<String> = group.wishes.iter().map(|w| format!("{:?}", w.array.name)).collect();
    let mut fault = Fault::new(
        FaultCode::ArrayDiffers,
        format!("the disks hold {}, but not as ordered; nothing was touched", names.join(", ")),
    );
    fault.causes = differences;
    fault
}

/// What the places of the wished arrays hold of them.
enum Found {
    None,
    /// Each place holds a member, and these are the differences from the wish.
    All(Vec<String>),
    /// An earlier run that did not come to its end, or disks that were exchanged.
    Some(Vec<String>),
}

fn superblocks(group: &Group<'_>, ctx: &TaskCtx) -> Result<Found, Fault> {
    let mdadm = Mdadm::find()?;
    let (mut differences, mut missing, mut n_found) = (Vec::new(), Vec::new(), 0);
    for wish in &group.wishes {
        let uuid = wish.array.uuid.map(|uuid| uuid.simple().to_string()).unwrap_or_default();
        for (disk, device) in members(group, wish, ctx) {
            let found: Option<Superblock> = match device {
                Ok(device) => mdadm.examine(&ctx.roots.dev.join(&device.device))?.filter(|found| found.uuid == uuid),
                Err(_) => None,
            };
            match found {
                Some(superblock) => {
                    n_found += 1;
                    let prefix = format!("{:?} on {}", wish.array.name, describe(disk));
                    differences.extend(
                        wish.differs_from_superblock(&superblock).into_iter().map(|d| format!("{prefix}: {d}")),
                    );
                }
                None => missing.push(format!(
                    "{} holds no member of array {:?} ({uuid}), others do",
                    describe(disk),
                    wish.array.name
                )),
            }
        }
    }
    Ok(match (n_found, missing.is_empty()) {
        (0, _) => Found::None,
        (_, true) => Found::All(differences),
        (_, false) => Found::Some(missing),
    })
}

fn members<'g>(group: &'g Group<'_>, wish: &Wish<'_>, ctx: &TaskCtx) -> Vec<(&'g Disk, std::io::Result<InSysfs>)> {
    wish.order.iter().map(|i| &group.disks[*i]).map(|disk| (disk, InSysfs::of(&ctx.roots, disk, wish.part()))).collect()
}

fn plan(groups: &[Group<'_>], found: Vec<Vec<Vec<String>>>) -> Plan {
    let mut devices = Vec::new();
    let mut effects = Vec::new();
    for (group, found) in groups.iter().zip(found) {
        for ((at, disk), found) in group.disks.iter().enumerate().zip(found) {
            let actions = if matches!(group.way, Way::Make) { actions(group, at, disk) } else { Vec::new() };
            devices.push(PlannedDevice {
                identity: DiskIdentity::of(disk),
                seen_as: disk.name.clone(),
                actions,
                found,
            });
        }
        for (i, wish) in group.wishes.iter().enumerate() {
            effects.push(match &group.way {
                Way::Make => {
                    let sync = match wish.array.initial_sync {
                        InitialSync::Watch => ", synchronised before the task ends",
                        InitialSync::Deferred => "",
                    };
                    format!("make {}{sync}", wish.in_words())
                }
                Way::Assemble => {
                    format!("assemble {} by its UUID, read-only until something writes to it", wish.in_words())
                }
                Way::Keep(known) => format!("keep {} as it is (/dev/{})", wish.in_words(), known[i].device),
            });
        }
    }
    let destructive = groups.iter().any(|group| matches!(group.way, Way::Make));
    Plan { task: super::KIND.into(), destructive, devices, effects, untouched: Vec::new() }
}

fn actions(group: &Group<'_>, at: usize, disk: &Disk) -> Vec<Action> {
    let mut actions = Vec::new();
    if group.wishes.iter().any(|wish| wish.slot.partition.is_some()) {
        let what = "write a new partition table (GPT)".into();
        actions.push(Action { what, offset: Bytes(0), length: disk.size });
    }
    for wish in &group.wishes {
        let place = wish.order.iter().position(|i| *i == at).unwrap_or_default();
        let role = if place < wish.active() {
            format!("member {} of {}", place + 1, wish.active())
        } else {
            "spare".to_owned()
        };
        actions.push(Action {
            what: format!("{role} of array {:?}, emptied", wish.array.name),
            offset: Bytes(wish.slot.start),
            length: if wish.slot.partition.is_some() { Bytes(wish.slot.length) } else { disk.size },
        });
    }
    actions
}

fn counted(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

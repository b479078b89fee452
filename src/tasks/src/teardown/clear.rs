//! Clearing signatures of a claimed disk.

use std::path::Path;

use speediso_model::fault::{Fault, FaultCode};
use speediso_model::units::{Bytes, MIB};
use speediso_sys::blkid::{self, Range, Signature, Survey};
use speediso_sys::buffer::AlignedBuffer;
use speediso_sys::claim::ClaimedDisk;

use super::intent::unsurveyed;
use crate::ctx::{Meter, TaskCtx};
use crate::single::OnDisk as _;

const CHUNK: usize = 1 << 20;
/// Formats that lie over each other come to light one after the other. Real disks need three looks.
const MOST_LOOKS: u32 = 64;

/// What was done.
#[derive(Default, Debug)]
pub(super) struct Cleared {
    /// Something may have been written.
    pub(super) begun: bool,
    /// In words.
    pub(super) found: Vec<String>,
    pub(super) bytes: u64,
    pub(super) table_read: bool,
}

/// The first and the last MiB: most formats keep what they are known by in there, also some that nobody looks for.
pub(super) fn edges(range: &Range) -> impl Iterator<Item = (u64, u64)> + use<> {
    let length = range.length.min(MIB);
    let last = (range.start + range.length - length, length);
    [(range.start, length), last].into_iter().take(if range.length > MIB { 2 } else { 1 })
}

impl Cleared {
    /// From the inside: what lies in partitions goes while there is still a table by which it is found, or it would come
    /// back with the next table that is made alike.
    pub(super) fn clear(&mut self, disk: &ClaimedDisk, probe: &Path, ctx: &TaskCtx) -> Result<(), Fault> {
        let look = || blkid::survey_claimed(probe, disk).map_err(|e| unsurveyed(disk.disk(), &e));
        let mut survey = look()?;
        if survey.signatures.is_empty() {
            return Ok(());
        }
        ctx.cancel.check()?;
        let mut places = Places::new(disk);
        let inner = survey.ranges.iter().filter(|range| range.depth > 0);
        places.add_all(inner.flat_map(edges));
        let mut outer_edges = vec![Range { length: disk.size(), ..Range::default() }];
        for _ in 0..MOST_LOOKS {
            self.note(&survey);
            let deepest = survey.signatures.iter().map(|signature| signature.depth).max();
            match deepest {
                None => {
                    self.table_read = disk.reread_table().on(disk)?;
                    return places.verify(disk);
                }
                Some(0) => places.add_all(outer_edges.drain(..).flat_map(|range| edges(&range))),
                Some(_) => {}
            }
            let here = |signature: &&Signature| Some(signature.depth) == deepest;
            let magics = survey.signatures.iter().filter(here).flat_map(|signature| &signature.magics);
            places.add_all(magics.map(|magic| (magic.offset, magic.length)));
            self.begun = true;
            self.bytes += places.zero(disk, ctx)?;
            survey = look()?;
        }
        let left: Vec<String> = survey.signatures.iter().map(ToString::to_string).collect();
        Err(Fault::new(
            FaultCode::VerifyFailed,
            format!("{} still shows {} after {MOST_LOOKS} times of clearing", disk.name(), left.join(", ")),
        ))
    }

    fn note(&mut self, survey: &Survey) {
        for words in survey.signatures.iter().map(ToString::to_string) {
            if !self.found.contains(&words) {
                self.found.push(words);
            }
        }
    }
}

/// Where zeroes go, in whole sectors, all of them on the disk.
struct Places {
    size: u64,
    sector: u64,
    /// Not yet written.
    open: Vec<(u64, u64)>,
    done: Vec<(u64, u64)>,
}

impl Places {
    fn new(disk: &ClaimedDisk) -> Self {
        Self { size: disk.size(), sector: disk.sector_size(), open: Vec::new(), done: Vec::new() }
    }

    fn add_all(&mut self, places: impl Iterator<Item = (u64, u64)>) {
        self.open.extend(places.filter_map(|(offset, length)| whole_sectors(offset, length, self.size, self.sector)));
    }

    fn zero(&mut self, disk: &ClaimedDisk, ctx: &TaskCtx) -> Result<u64, Fault> {
        let places = merged(std::mem::take(&mut self.open));
        let total = places.iter().map(|(start, end)| end - start).sum();
        let zeroes = AlignedBuffer::zeroed(CHUNK);
        let mut meter = Meter::new(ctx, "clearing", disk.name(), Some(total));
        let mut written = 0;
        for (start, end) in &places {
            for (at, length) in chunks(*start, *end) {
                disk.write_at(at, &zeroes[..length]).on(disk)?;
                written += length as u64;
                meter.at(written);
            }
        }
        disk.flush().on(disk)?;
        self.done.extend(places);
        Ok(total)
    }

    /// From the medium.
    fn verify(&self, disk: &ClaimedDisk) -> Result<(), Fault> {
        let mut buffer = AlignedBuffer::zeroed(CHUNK);
        for (start, end) in merged(self.done.clone()) {
            for (at, length) in chunks(start, end) {
                disk.read_at(at, &mut buffer[..length]).on(disk)?;
                if let Some(wrong) = buffer[..length].iter().position(|byte| *byte != 0) {
                    return Err(Fault::new(
                        FaultCode::ReadBackMismatch,
                        format!("{} was zeroed at byte {} and does not read as zero", disk.name(), at + wrong as u64),
                    )
                    .because(format!("in the place of {} at byte {start}", Bytes(end - start))));
                }
            }
        }
        Ok(())
    }
}

/// Start and end of the sectors that a place touches; `None` for what is not on the disk.
fn whole_sectors(offset: u64, length: u64, size: u64, sector: u64) -> Option<(u64, u64)> {
    let end = offset.checked_add(length)?.min(size);
    let start = offset - offset % sector;
    let end = end.checked_next_multiple_of(sector)?.min(size);
    (offset < size && start < end).then_some((start, end))
}

fn merged(mut places: Vec<(u64, u64)>) -> Vec<(u64, u64)> {
    places.sort_unstable();
    let mut merged: Vec<(u64, u64)> = Vec::new();
    for (start, end) in places {
        match merged.last_mut() {
            Some(last) if start <= last.1 => last.1 = last.1.max(end),
            _ => merged.push((start, end)),
        }
    }
    merged
}

fn chunks(start: u64, end: u64) -> impl Iterator<Item = (u64, usize)> {
    (start..end).step_by(CHUNK).map(move |at| (at, usize::try_from(end - at).unwrap_or(CHUNK).min(CHUNK)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Whatever a disk claims of itself: whole sectors, inside of it, and all that was asked for of it.
        #[test]
        fn zeroes_go_to_whole_sectors_of_the_disk(
            sectors in 1u64..1 << 20,
            four_kib: bool,
            places in prop::collection::vec((any::<u64>(), any::<u64>()), 1..20),
            near in prop::collection::vec((0u64..1 << 30, 0u64..1 << 24), 1..20),
        ) {
            let sector = if four_kib { 4096 } else { 512 };
            let size = sectors * sector;
            let asked: Vec<(u64, u64)> = places.into_iter().chain(near).collect();
            let found = merged(asked.iter().filter_map(|(o, l)| whole_sectors(*o, *l, size, sector)).collect());
            let mut last = None;
            for (start, end) in &found {
                prop_assert!(start < end && *end <= size && start % sector == 0 && end % sector == 0);
                prop_assert!(last.is_none_or(|last| last < *start), "they do not touch");
                last = Some(*end);
            }
            for (offset, length) in asked.iter().filter(|(o, l)| *l > 0 && o.checked_add(*l).is_some_and(|end| end <= size)) {
                prop_assert!(found.iter().any(|(start, end)| start <= offset && offset + length <= *end));
            }
        }

        #[test]
        fn chunks_are_all_of_it(start in 0u64..1 << 40, length in 0u64..10 << 20) {
            let mut at = start;
            for (from, length) in chunks(start, start + length) {
                prop_assert!(from == at && length > 0);
                at += length as u64;
            }
            prop_assert_eq!(at, start + length);
        }
    }

    #[test]
    fn both_ends_or_all_of_it() {
        let of = |start, length| edges(&Range { start, length, ..Range::default() }).collect::<Vec<_>>();
        assert_eq!(of(MIB, 10 * MIB), [(MIB, MIB), (10 * MIB, MIB)]);
        assert_eq!(of(MIB, 1000), [(MIB, 1000)]);
        assert_eq!(of(0, MIB + 512), [(0, MIB), (512, MIB)]);
    }
}

//! Disks that belong together by what is written on them, whether or not anything runs from them: members of one array,
//! volumes of one group, devices of one file system. Clearing one breaks what the others hold.

use std::path::Path;

use speediso_model::fault::{Fault, FaultCode};
use speediso_model::hints::describe;
use speediso_model::inventory::Disk;
use speediso_sys::blkid::Survey;

use super::intent::survey_all;

/// Refuses if a disk that is not named belongs to one that is.
///
/// One that cannot be read is not known to belong to anything, and is not written either.
pub(super) fn refuse_strangers(probe: &Path, named: &[(&Disk, &Survey)], all: &[Disk]) -> Result<(), Fault> {
    if named.iter().all(|(_, survey)| survey.ties.is_empty()) {
        return Ok(());
    }
    let others = all.iter().filter(|disk| !named.iter().any(|(chosen, _)| chosen.name == disk.name));
    let others: Vec<&Disk> = others.collect();
    for (survey, other) in survey_all(probe, &others).into_iter().zip(others) {
        let Ok(survey) = survey else { continue };
        let shared = named.iter().find_map(|(disk, mine)| common(mine, &survey).map(|tie| (*disk, tie)));
        if let Some((disk, tie)) = shared {
            return Err(Fault::new(
                FaultCode::DiskInUse,
                format!(
                    "{} holds a part of what {} holds a part of ({tie}), and is not named in the task; nothing was changed",
                    describe(other),
                    describe(disk)
                ),
            )
            .because("name both, or pull the other disk first if its part is to be kept"));
        }
    }
    Ok(())
}

fn common<'a>(one: &'a Survey, other: &Survey) -> Option<&'a String> {
    one.ties.iter().find(|tie| other.ties.contains(tie))
}

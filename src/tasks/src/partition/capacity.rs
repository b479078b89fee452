//! Whether the volumes of a group fit onto its physical volumes: so that this is known before anything is lost.

use speediso_model::fault::{Fault, FaultCode};
use speediso_model::task::{Content, LogicalVolume, PartitionSize, PartitionTask, VolumeGroup, VolumeKind};
use speediso_model::units::{Bytes, MIB};

use super::format::LUKS_HEADER;
use super::wish::Wish;

/// What `vgcreate` takes where it is told nothing else.
const EXTENT: u64 = 4 * MIB;
/// In front of a physical volume's extents.
const METADATA: u64 = MIB;

pub(super) fn check<'a>(task: &PartitionTask, wishes: &(impl Iterator<Item = &'a Wish> + Clone)) -> Result<(), Fault> {
    task.volume_groups.iter().try_for_each(|group| {
        let members = wishes.clone().flat_map(|wish| &wish.entries).filter_map(|new| {
            let content = new.spec.content.as_ref().filter(|content| content.volume_group() == Some(&group.name))?;
            let header = if matches!(content, Content::Luks(_)) { LUKS_HEADER } else { 0 };
            Some(new.span.length().saturating_sub(header + METADATA) / EXTENT)
        });
        fits(group, members.sum())
    })
}

/// The least that the volumes take; what LVM needs besides it may still be too much.
fn fits(group: &VolumeGroup, extents: u64) -> Result<(), Fault> {
    let mut left = extents;
    for volume in &group.volumes {
        let wanted = least(volume, extents);
        left = left.checked_sub(wanted).ok_or_else(|| {
            let size = |extents: u64| Bytes(extents.saturating_mul(EXTENT));
            Fault::new(
                FaultCode::DiskTooSmall,
                format!(
                    "volume {}/{} does not fit: it takes {}, {} are left of the {} of the group",
                    group.name,
                    volume.name,
                    size(wanted),
                    size(left),
                    size(extents)
                ),
            )
        })?;
    }
    Ok(())
}

/// In extents on all physical volumes together.
fn least(volume: &LogicalVolume, extents: u64) -> u64 {
    let of_one = match volume.size {
        PartitionSize::Bytes(Bytes(bytes)) => bytes.div_ceil(EXTENT),
        // Of the whole group, with all copies.
        PartitionSize::Percent(of) => return extents * u64::from(of) / 100,
        PartitionSize::Rest => 1,
    };
    match volume.kind {
        VolumeKind::Linear => of_one,
        // A copy has an extent of its own to note how it is.
        VolumeKind::Mirror(copies) => of_one.saturating_add(1).saturating_mul(u64::from(copies)),
        // One extent at least for what it notes, and as much for repairing that.
        VolumeKind::ThinPool => of_one.saturating_add(2),
        // Takes what is written to it from its pool.
        VolumeKind::Thin(_) => 0,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::expect_used, reason = "tests")]
    use super::*;

    fn volume(name: &str, size: PartitionSize, kind: VolumeKind) -> LogicalVolume {
        LogicalVolume { name: name.into(), size, kind, content: None }
    }

    #[test]
    fn what_does_not_fit_is_known_before() {
        let mib = |n: u64| PartitionSize::Bytes(Bytes(n * MIB));
        let group = |volumes| VolumeGroup { name: "vg0".into(), volumes };
        let all_fit = |volumes, extents| fits(&group(volumes), extents);
        assert!(all_fit(vec![volume("a", mib(40), VolumeKind::Linear)], 10).is_ok());
        let fault =
            all_fit(vec![volume("a", mib(20), VolumeKind::Linear), volume("b", mib(21), VolumeKind::Linear)], 10);
        let fault = fault.expect_err("41 MiB in 40");
        assert!(fault.code == FaultCode::DiskTooSmall && fault.message.contains("vg0/b"), "{fault}");
        assert!(all_fit(vec![volume("a", mib(16), VolumeKind::Mirror(2))], 10).is_ok());
        assert!(all_fit(vec![volume("a", mib(17), VolumeKind::Mirror(2))], 10).is_err());
        let pool = || volume("pool", mib(32), VolumeKind::ThinPool);
        let thin = volume("thin", mib(1 << 20), VolumeKind::Thin("pool".into()));
        assert!(all_fit(vec![pool(), thin], 10).is_ok(), "a thin volume pretends");
        assert!(all_fit(vec![pool(), volume("rest", PartitionSize::Rest, VolumeKind::Linear)], 10).is_err());
        let huge = volume("a", PartitionSize::Bytes(Bytes(u64::MAX)), VolumeKind::Mirror(8));
        assert!(all_fit(vec![huge], 10).is_err());
    }
}

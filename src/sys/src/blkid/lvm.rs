//! The head of an LVM2 physical volume, as far as a teardown needs it: where its metadata lies, and with which other volumes
//! it belongs together (LVM2, `lib/format_text/layout.h`).

/// What could be read of it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Volume {
    /// Of all physical volumes that the group's metadata names, this one first.
    pub(super) ids: Vec<String>,
    /// Where metadata lies, in bytes from the start of the volume.
    pub(super) areas: Vec<Area>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Area {
    pub(super) offset: u64,
    pub(super) length: u64,
}

/// The label is in one of the first four sectors.
const LABELS: usize = 4;
const SECTOR: usize = 512;
const MOST_AREAS: usize = 4;
/// Usual are 1 MiB less a few KiB. What claims more is cleared up to here.
const LONGEST_AREA: u64 = 16 << 20;
/// Groups of hundreds of volumes have metadata of this size.
const LONGEST_TEXT: u64 = 4 << 20;
const MOST_IDS: usize = 512;

/// `read` gives exactly the bytes asked for, or none.
pub(super) fn read(read: impl Fn(u64, usize) -> Option<Vec<u8>>) -> Volume {
    let mut volume = Volume::default();
    let Some(head) = read(0, LABELS * SECTOR) else { return volume };
    let is_label = |sector: &&[u8]| sector.starts_with(b"LABELONE") && &sector[24..32] == b"LVM2 001";
    let Some(label) = head.chunks_exact(SECTOR).find(is_label) else { return volume };
    let Some(header) = usize::try_from(word(label, 20)).ok().and_then(|at| label.get(at..)) else { return volume };
    let Some(id) = header.get(..32) else { return volume };
    volume.ids.extend(text(id));

    // Behind id and size: pairs of offset and length, of the data until one is zero, then of the metadata.
    let mut pairs = header.get(40..).unwrap_or_default().chunks_exact(16).map(|pair| (long(pair, 0), long(pair, 8)));
    for (offset, _) in pairs.by_ref() {
        if offset == 0 {
            break;
        }
    }
    for (offset, length) in pairs.take_while(|(offset, _)| *offset != 0).take(MOST_AREAS) {
        volume.areas.push(Area { offset, length: length.min(LONGEST_AREA) });
        volume.members(offset, length, &read);
    }
    volume
}

impl Volume {
    /// The ids in the newest text of an area: its header, then where the text lies in the ring behind that.
    fn members(&mut self, area: u64, length: u64, read: impl Fn(u64, usize) -> Option<Vec<u8>>) {
        let Some(header) = read(area, SECTOR) else { return };
        if &header[4..20] != b" LVM2 x[5A%r0N*>" {
            return;
        }
        let (offset, size) = (long(&header, 40), long(&header, 48));
        if size == 0 || size > LONGEST_TEXT.min(length) || offset >= length {
            return;
        }
        // It may go around the end of the ring, which begins behind the header.
        let first = size.min(length - offset);
        let part = |offset: u64, length: u64| read(area.checked_add(offset)?, usize::try_from(length).ok()?);
        let Some(mut metadata) = part(offset, first) else { return };
        metadata.extend(part(SECTOR as u64, size - first).unwrap_or_default());
        self.ids_in(&String::from_utf8_lossy(&metadata));
    }

    /// `id = "..."` of each physical volume: those between `physical_volumes {` and `logical_volumes {`.
    fn ids_in(&mut self, metadata: &str) {
        let Some((_, volumes)) = metadata.split_once("physical_volumes {") else { return };
        let volumes = volumes.split_once("logical_volumes {").map_or(volumes, |(before, _)| before);
        for line in volumes.lines().take(64 * MOST_IDS) {
            let id = line.trim().strip_prefix("id = \"").and_then(|id| id.strip_suffix('"'));
            // Written with dashes here, without in the header.
            let Some(id) = id.and_then(|id| text(id.replace('-', "").as_bytes())) else { continue };
            if !self.ids.contains(&id) && self.ids.len() < MOST_IDS {
                self.ids.push(id);
            }
        }
    }
}

fn text(id: &[u8]) -> Option<String> {
    let is_id = id.len() == 32 && id.iter().all(u8::is_ascii_graphic);
    is_id.then(|| String::from_utf8_lossy(id).into_owned())
}

fn word(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_le_bytes)
}

fn long(bytes: &[u8], at: usize) -> u64 {
    u64::from(word(bytes, at + 4)) << 32 | u64::from(word(bytes, at))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ID: &[u8; 32] = b"aaaaaabbbbccccddddeeeeffffgggggg";

    /// A volume of 2 MiB with one area at 4 KiB.
    fn volume(area: u64, length: u64, text_at: u64, metadata: &str) -> Vec<u8> {
        let mut bytes = vec![0; 2 << 20];
        let label = &mut bytes[512..1024];
        label[..8].copy_from_slice(b"LABELONE");
        label[20..24].copy_from_slice(&32u32.to_le_bytes());
        label[24..32].copy_from_slice(b"LVM2 001");
        label[32..64].copy_from_slice(ID);
        for (n, number) in [1 << 20, 0, 0, 0, area, length, 0, 0].iter().enumerate() {
            label[72 + 8 * n..80 + 8 * n].copy_from_slice(&u64::to_le_bytes(*number));
        }
        bytes[4100..4116].copy_from_slice(b" LVM2 x[5A%r0N*>");
        bytes[4136..4144].copy_from_slice(&text_at.to_le_bytes());
        bytes[4144..4152].copy_from_slice(&(metadata.len() as u64).to_le_bytes());
        let at = usize::try_from(text_at.saturating_add(4096)).unwrap_or(usize::MAX).min(bytes.len() - metadata.len());
        bytes[at..at + metadata.len()].copy_from_slice(metadata.as_bytes());
        bytes
    }

    fn read_from(bytes: &[u8]) -> Volume {
        read(|offset, length| {
            let at = usize::try_from(offset).ok()?;
            bytes.get(at..at.checked_add(length)?).map(<[u8]>::to_vec)
        })
    }

    const METADATA: &str = "vg {\nid = \"vvvvvv-vvvv-vvvv-vvvv-vvvv-vvvv-vvvvvv\"\nphysical_volumes {\npv0 {\n\
        \tid = \"aaaaaa-bbbb-cccc-dddd-eeee-ffff-gggggg\"\n}\npv1 {\n\tid = \"hhhhhh-iiii-jjjj-kkkk-llll-mmmm-nnnnnn\"\n\
        }\n}\nlogical_volumes {\n../../etc {\nid = \"xxxxxx-xxxx-xxxx-xxxx-xxxx-xxxx-xxxxxx\"\n}\n}\n}\n";

    #[test]
    fn members_and_areas_are_read() {
        let found = read_from(&volume(4096, 1 << 20, 1024, METADATA));
        assert_eq!(found.ids, ["aaaaaabbbbccccddddeeeeffffgggggg", "hhhhhhiiiijjjjkkkkllllmmmmnnnnnn"]);
        assert_eq!(found.areas, [Area { offset: 4096, length: 1 << 20 }]);
    }

    #[test]
    fn absurd_lengths_are_bounded() {
        let found = read_from(&volume(4096, u64::MAX, 1024, METADATA));
        assert_eq!(found.areas, [Area { offset: 4096, length: LONGEST_AREA }]);
        for (area, text_at) in [(u64::MAX, 1024), (u64::MAX - 4096, 0), (4096, u64::MAX)] {
            assert_eq!(read_from(&volume(area, u64::MAX, text_at, METADATA)).ids.len(), 1, "{area} {text_at}");
        }
        assert_eq!(read_from(&[0; 4096]), Volume::default());
    }

    proptest! {
        #[test]
        fn any_head_is_read_to_an_end(noise in prop::collection::vec((0usize..8192, any::<u8>()), 0..64)) {
            let mut bytes = volume(4096, 1 << 20, 1024, METADATA);
            for (at, byte) in noise {
                bytes[at] = byte;
            }
            let found = read_from(&bytes);
            prop_assert!(found.ids.len() <= MOST_IDS && found.areas.len() <= MOST_AREAS);
            prop_assert!(found.areas.iter().all(|area| area.length <= LONGEST_AREA));
        }
    }
}

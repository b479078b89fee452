//! One array as it shall be, down to the byte, and in what another one differs from it.

use speediso_model::raid::{RaidArray, RaidLevel, Slot};
use speediso_model::units::Bytes;
use speediso_sys::lend::Part;
use speediso_sys::md::MdArray;

use super::mdadm::Superblock;
use super::sync::bad_blocks;

#[derive(Clone, Debug)]
pub(super) struct Wish<'a> {
    pub(super) array: &'a RaidArray,
    pub(super) slot: Slot,
    /// Which of its group's disks are its members, in their order; the spares come last.
    pub(super) order: Vec<usize>,
}

impl Wish<'_> {
    pub(super) fn active(&self) -> usize {
        self.array.active(self.order.len())
    }

    pub(super) fn part(&self) -> Part {
        let Slot { start, length, .. } = self.slot;
        match self.slot.partition {
            Some(number) => Part::Partition { number, start, length },
            None => Part::Whole,
        }
    }

    /// As the kernel and `mdadm` call it.
    pub(super) fn kernel_level(&self) -> String {
        format!("raid{}", self.array.level.number())
    }

    pub(super) fn module(&self) -> &'static str {
        match self.array.level {
            RaidLevel::Stripes => "raid0",
            RaidLevel::Mirror => "raid1",
            RaidLevel::Parity | RaidLevel::DoubleParity => "raid456",
            RaidLevel::StripedMirrors => "raid10",
        }
    }

    /// `RAID-1 "root" of 2 disks, 1.9 GiB, metadata 1.2, internal bitmap`
    pub(super) fn in_words(&self) -> String {
        let array = self.array;
        let mut text = format!("{} {:?} of {} disks", array.level, array.name, self.active());
        if array.spares > 0 {
            text.push_str(&format!(" and {} spare", array.spares));
        }
        text.push_str(&format!(", {}, metadata {}", Bytes(self.slot.capacity), array.metadata.version()));
        if let Some(chunk) = array.chunk_size() {
            text.push_str(&format!(", chunks of {}", Bytes(chunk)));
        }
        text.push_str(if array.has_bitmap() { ", internal bitmap" } else { ", no bitmap" });
        text
    }

    /// In what the kernel's array is another one; `numbers` are those of the devices that shall be its members, where all of
    /// them are known.
    pub(super) fn differs_from(&self, found: &MdArray, numbers: Option<&[String]>) -> Vec<String> {
        let mut differences = Differences::default();
        differences.compare("level", &self.kernel_level(), &found.level);
        differences.compare("number of members", &self.active(), &found.raid_disks);
        differences.compare("metadata", &self.array.metadata.version(), &found.metadata.as_str());
        differences.compare("internal bitmap", &self.array.has_bitmap(), &found.has_bitmap);
        if let Some(chunk) = self.array.chunk_size() {
            differences.compare("chunk", &Bytes(chunk), &Bytes(found.chunk));
        }
        if self.array.level.is_redundant() {
            differences.compare("size of a member", &self.slot.component, &found.component);
            differences.compare("size", &self.slot.capacity, &found.size);
        } else if found.size < self.slot.capacity {
            // Stripes take what there is behind each superblock, which may be a little more.
            differences.compare("size", &self.slot.capacity, &found.size);
        }
        if let Some(numbers) = numbers {
            let mut wanted = numbers.to_vec();
            let mut present: Vec<String> = found.members.iter().map(|m| m.number.clone()).collect();
            wanted.sort();
            present.sort();
            differences.compare("members (device numbers)", &wanted.join(", "), &present.join(", "));
        }
        for member in found.members.iter().filter(|m| m.is("faulty")) {
            differences.0.push(format!("its member {} has failed", member.device));
        }
        differences.0.extend(found.members.iter().filter_map(bad_blocks));
        differences.0
    }

    /// In what a member's superblock is that of another array.
    pub(super) fn differs_from_superblock(&self, found: &Superblock) -> Vec<String> {
        let mut differences = Differences::default();
        differences.compare("name", &self.array.name, &found.name);
        differences.compare("level", &self.kernel_level(), &found.level);
        differences.compare("number of members", &self.active(), &found.raid_disks);
        differences.compare("metadata", &self.array.metadata.version(), &found.metadata.as_str());
        differences.compare("internal bitmap", &self.array.has_bitmap(), &found.has_bitmap);
        if let Some(chunk) = self.array.chunk_size() {
            differences.compare("chunk", &Bytes(chunk), &Bytes(found.chunk.unwrap_or(0)));
        }
        differences.compare("offset of the data", &self.slot.data_offset, &found.data_offset);
        if self.array.level.is_redundant() {
            differences.compare("size of a member", &self.slot.component, &found.component);
        }
        if let Some(uuid) = self.array.uuid {
            differences.compare("uuid", &uuid.simple().to_string(), &found.uuid);
        }
        if !found.checksum_is_good {
            differences.0.push("the superblock's checksum is wrong".into());
        }
        differences.0
    }
}

#[derive(Default)]
struct Differences(Vec<String>);

impl Differences {
    fn compare<T: PartialEq + std::fmt::Display>(&mut self, what: &str, wanted: &T, found: &T) {
        if wanted != found {
            self.0.push(format!("{what} is {found}, not {wanted}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use speediso_model::disk_set::DiskSet;
    use speediso_model::raid::{InitialSync, RaidMetadata, RaidSize};
    use speediso_sys::md::MdMember;

    fn mirror() -> RaidArray {
        RaidArray {
            name: "root".into(),
            level: RaidLevel::Mirror,
            members: DiskSet::Each(Vec::new()),
            spares: 0,
            chunk: None,
            metadata: RaidMetadata::NearStart,
            bitmap: None,
            size: RaidSize::Rest,
            uuid: None,
            kind: None,
            initial_sync: InitialSync::Deferred,
        }
    }

    fn wish(array: &RaidArray) -> Wish<'_> {
        let slot = Slot {
            partition: Some(1),
            start: 1 << 20,
            length: 100 << 20,
            data_offset: 1 << 20,
            component: 99 << 20,
            capacity: 99 << 20,
        };
        Wish { array, slot, order: vec![0, 1] }
    }

    fn in_kernel() -> MdArray {
        let member = |device: &str, number: &str, slot| MdMember {
            device: device.into(),
            number: number.into(),
            state: "in_sync".into(),
            slot: Some(slot),
            ..MdMember::default()
        };
        MdArray {
            level: "raid1".into(),
            raid_disks: 2,
            metadata: "1.2".into(),
            component: 99 << 20,
            size: 99 << 20,
            has_bitmap: true,
            members: vec![member("vda1", "254:1", 0), member("vdb1", "254:17", 1)],
            ..MdArray::default()
        }
    }

    #[test]
    fn every_field_that_differs_is_named() {
        let array = mirror();
        let wish = wish(&array);
        let numbers = ["254:17".to_owned(), "254:1".to_owned()];
        assert_eq!(wish.differs_from(&in_kernel(), Some(&numbers)), Vec::<String>::new());
        type Spoil = fn(&mut MdArray);
        let spoil: [(Spoil, &str); 9] = [
            (|a| a.level = "raid10".into(), "level is raid10, not raid1"),
            (|a| a.raid_disks = 3, "number of members is 3, not 2"),
            (|a| a.metadata = "1.0".into(), "metadata is 1.0, not 1.2"),
            (|a| a.has_bitmap = false, "internal bitmap is false, not true"),
            (|a| a.component -= 512, "size of a member"),
            (|a| a.size -= 512, "size is"),
            (|a| a.members[1].number = "8:1".into(), "members (device numbers) is 254:1, 8:1, not 254:1, 254:17"),
            (|a| a.members[0].state = "faulty".into(), "its member vda1 has failed"),
            (
                |a| a.members[1].bad_blocks = vec![(1 << 20, 4096), (3 << 20, 512)],
                "does not keep at least 4608 bytes, the first at byte 1048576",
            ),
        ];
        for (spoil, said) in spoil {
            let mut found = in_kernel();
            spoil(&mut found);
            let differences = wish.differs_from(&found, Some(&numbers));
            assert!(differences.len() == 1 && differences[0].contains(said), "{said}: {differences:?}");
        }
    }

    #[test]
    fn what_is_wished_is_said_in_words() {
        let mut array = mirror();
        assert_eq!(wish(&array).in_words(), r#"RAID-1 "root" of 2 disks, 99.0 MiB, metadata 1.2, internal bitmap"#);
        array = RaidArray { level: RaidLevel::Stripes, metadata: RaidMetadata::AtEnd, ..array };
        assert_eq!(
            wish(&array).in_words(),
            r#"RAID-0 "root" of 2 disks, 99.0 MiB, metadata 1.0, chunks of 512.0 KiB, no bitmap"#
        );
    }
}

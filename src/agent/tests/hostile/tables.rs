//! Partition tables made to be misread, met when their backup is moved to the end of a larger disk.

use speediso_model::fault::FaultCode;
use speediso_model::image::{Compression, ImageFormat};
use speediso_model::outcome::Outcome;

use crate::encoded::{crc32, flipped, patched};
use crate::support::{MIB, image, tool};
use crate::trial::{Left, Trials, served};

const RAW: (Compression, ImageFormat) = (Compression::None, ImageFormat::Raw);
const HEADER: usize = 512;
const ENTRIES: usize = 1024;

/// UEFI 2.10, tables 5-5 and 5-6: the image with its primary header and entries changed, and both checksums right
/// again, as far as there are entries where the header says.
fn with(disk: &[u8], changes: &[(usize, &[u8])]) -> Vec<u8> {
    let mut disk = changes.iter().fold(disk.to_vec(), |disk, (at, with)| patched(&disk, *at, with));
    let word = |disk: &[u8], at: usize| u32::from_le_bytes(disk[HEADER + at..HEADER + at + 4].try_into().unwrap());
    let length = (word(&disk, 80) as usize).saturating_mul(word(&disk, 84) as usize);
    let start = u64::from_le_bytes(disk[HEADER + 72..HEADER + 80].try_into().unwrap()).saturating_mul(512) as usize;
    let entries = start.checked_add(length).and_then(|end| disk.get(start..end)).map(crc32);
    if let Some(sum) = entries {
        disk[HEADER + 88..HEADER + 92].copy_from_slice(&sum.to_le_bytes());
    }
    disk[HEADER + 16..HEADER + 20].fill(0);
    let size = (word(&disk, 12) as usize).clamp(92, 512);
    let sum = crc32(&disk[HEADER..HEADER + size]);
    disk[HEADER + 16..HEADER + 20].copy_from_slice(&sum.to_le_bytes());
    disk
}

#[test]
fn a_hostile_table_is_refused_and_nothing_boots() {
    let mut trials = Trials::new();
    let disk = image(16 * MIB, 512);
    let second = ENTRIES + 128;
    let word = u32::to_le_bytes;
    let long = u64::to_le_bytes;
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("2^32 entries", with(&disk, &[(HEADER + 80, &word(u32::MAX))])),
        ("2^25 entries of 128 bytes", with(&disk, &[(HEADER + 80, &word(1 << 25))])),
        ("entries of no size", with(&disk, &[(HEADER + 84, &word(0))])),
        ("entries of 2^31 bytes", with(&disk, &[(HEADER + 84, &word(1 << 31))])),
        ("entries of 127 bytes", with(&disk, &[(HEADER + 84, &word(127))])),
        ("the header's checksum", flipped(&disk, HEADER + 60)),
        ("the entries' checksum", flipped(&disk, ENTRIES + 40)),
        ("the entries behind the disk", with(&disk, &[(HEADER + 72, &long(1 << 40))])),
        ("the entries at the last byte there can be", with(&disk, &[(HEADER + 72, &long(u64::MAX))])),
        ("the entries in the middle of the disk", with(&disk, &[(HEADER + 72, &long(8 * 2048))])),
        ("the entries on top of the header", with(&disk, &[(HEADER + 72, &long(1))])),
        ("a partition over the table", with(&disk, &[(ENTRIES + 32, &long(1))])),
        ("a partition at the very start", with(&disk, &[(ENTRIES + 32, &long(0))])),
        ("a partition behind the disk", with(&disk, &[(second + 40, &long(1 << 40))])),
        ("a partition that ends before it begins", with(&disk, &[(second + 40, &long(5000))])),
        ("a partition to the last sector there can be", with(&disk, &[(second + 40, &long(u64::MAX))])),
        ("two partitions that overlap", with(&disk, &[(second + 32, &long(4000))])),
        ("everything usable, the table too", with(&disk, &[(HEADER + 40, &long(0)), (ENTRIES + 32, &long(2))])),
        (
            "first and last usable sector exchanged",
            with(&disk, &[(HEADER + 40, &long(40_000)), (HEADER + 48, &long(34))]),
        ),
        ("a last usable sector behind the disk", with(&disk, &[(HEADER + 48, &long(1 << 40))])),
        ("the last usable sector that there can be", with(&disk, &[(HEADER + 48, &long(u64::MAX))])),
        ("the header believes to be elsewhere", with(&disk, &[(HEADER + 24, &long(9999))])),
        ("the backup elsewhere", with(&disk, &[(HEADER + 32, &long(77))])),
        ("the backup in the first sector", with(&disk, &[(HEADER + 32, &long(0))])),
        ("nothing but a signature", patched(&disk[..], HEADER + 8, &[0; 504])),
    ];
    for (what, body) in &cases {
        trials.bytes(what, RAW, body, FaultCode::PartitionTable, Left::Unchanged);
    }
    // It would have been at 4096 on such a disk: told by where it stands, before anything is written.
    let four_k = image(16 * MIB, 4096);
    trials.bytes("sectors of 4096 bytes", RAW, &four_k, FaultCode::SectorSizeMismatch, Left::Unchanged);
}

/// What is odd and does no harm is written, and what stands on the disk then is sound.
#[test]
fn an_odd_table_is_made_sound() {
    let mut trials = Trials::new();
    let disk = image(16 * MIB, 512);
    let long = u64::to_le_bytes;
    let unique: Vec<u8> = disk[ENTRIES + 16..ENTRIES + 32].to_vec();
    let second = ENTRIES + 128;
    // A hybrid MBR: the protective record covers what is in front of the first partition, another one the partition.
    let hybrid = [
        &[0, 0, 2, 0, 0xee, 0xff, 0xff, 0xff][..],
        &1u32.to_le_bytes(),
        &2047u32.to_le_bytes(),
        &[0x80, 0, 2, 0, 0x0c, 0xff, 0xff, 0xff],
        &2048u32.to_le_bytes(),
        &4096u32.to_le_bytes(),
    ]
    .concat();
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("the backup beyond everything", with(&disk, &[(HEADER + 32, &long(u64::MAX))])),
        ("the first sector usable", with(&disk, &[(HEADER + 40, &long(0))])),
        ("another backup at the end of the image", flipped(&disk, disk.len() - 512 + 60)),
        ("the image's end zeroed", patched(&disk, disk.len() - 512, &[0; 512])),
        ("a hybrid MBR", patched(&disk, 446, &hybrid)),
        ("no boot signature", patched(&disk, 510, &[0, 0])),
        ("two partitions of one GUID", with(&disk, &[(second + 16, &unique)])),
        ("a name of lone surrogates", with(&disk, &[(second + 56, &[0, 0xd8].repeat(36))])),
        (
            "a path for a name",
            with(&disk, &[(second + 56, &"../../etc\n".encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<_>>())]),
        ),
    ];
    for (what, body) in &cases {
        let (order, _server) = served(RAW.0, RAW.1, body);
        let told = trials.run(order);
        println!("{what}: {:?} {:?}", told.result.outcome, told.result.fault);
        assert_eq!(told.result.outcome, Outcome::Verified, "{what}: {:?}", told.result.fault);
        let start = trials.disk().bytes(0, 1 << 20);
        assert_eq!(start[..446], body[..446], "{what}: the boot code is what it was");
        assert!(!what.contains("hybrid") || start[446..510] == body[446..510], "{what}: so are its records");
        if start[510..512] == [0x55, 0xaa] && !what.contains("GUID") {
            let found = tool("sgdisk", &["-v", &trials.disk().device]);
            assert!(found.contains("No problems found"), "{what}: {found}");
        }
        // Of what is no UTF-16 a name cannot be made again; nobody finds a partition by such a name.
        let length = if what.contains("surrogates") { 128 + 56 } else { 256 };
        let entries = ENTRIES..ENTRIES + length;
        assert_eq!(start[entries.clone()], body[entries], "{what}: the partitions are what they were");
    }
}

//! Images that are something else than the order says.

use speediso_model::fault::FaultCode;
use speediso_model::image::{Compression, ImageFormat};
use speediso_model::outcome::Outcome;

use crate::encoded::{ALL, encode, patched};
use crate::support::{MIB, image, tool};
use crate::trial::{Left, Trials, served};

const RAW: (Compression, ImageFormat) = (Compression::None, ImageFormat::Raw);

#[test]
fn content_that_the_order_does_not_name_is_not_written() {
    use FaultCode::ImageFormat as Format;
    let mut trials = Trials::new();
    let disk = image(16 * MIB, 512);
    let at_start = |magic: &[u8]| patched(&disk, 0, magic);
    // Each begins as another format and is a bootable disk in everything else: it has a boot signature and a GPT.
    let cases: [(&str, Vec<u8>); 10] = [
        ("a qcow2 header before an MBR", at_start(b"QFI\xfb\0\0\0\x03")),
        ("VMDK", at_start(b"KDMV\x01\0\0\0")),
        (
            "a VMDK descriptor with a path of its own",
            at_start(b"# Disk DescriptorFile\nversion=1\ncreateType=\"monolithicFlat\"\nRW 8 FLAT \"/etc/shadow\" 0\n"),
        ),
        ("VHD", at_start(b"conectix")),
        ("VHDX", at_start(b"vhdxfile")),
        ("WIM", at_start(b"MSWIM\0\0\0")),
        ("tar", patched(&disk, 257, b"ustar\x0000")),
        ("legacy lz4", at_start(&[0x02, 0x21, 0x4c, 0x18])),
        ("a skippable zstd frame", at_start(&[0x5f, 0x2a, 0x4d, 0x18])),
        ("xz", at_start(b"\xfd7zXZ\0")),
    ];
    for (what, body) in &cases {
        trials.bytes(what, RAW, body, Format, Left::Unchanged);
        let packed = encode(Compression::Zstd, body);
        let inside = format!("{what}, inside of zstd");
        trials.bytes(&inside, (Compression::Zstd, ImageFormat::Raw), &packed, Format, Left::Unchanged);
    }
    let as_qcow2 = (Compression::None, ImageFormat::Qcow2);
    trials.bytes("a raw image, ordered as qcow2", as_qcow2, &disk, Format, Left::Unchanged);
    let as_manifest = (Compression::None, ImageFormat::Manifest);
    trials.bytes("a raw image, ordered as a manifest", as_manifest, &disk, FaultCode::ImageFormat, Left::Unchanged);
}

/// Every compression inside of every other, and under the name of every other.
#[test]
fn compressed_twice_or_otherwise_is_not_written() {
    let mut trials = Trials::new();
    // Noise, so that the inner one is long enough for a disk image.
    let mut disk = image(4 * MIB, 512);
    blake3::Hasher::new().finalize_xof().fill(&mut disk[1 << 20..5 << 19]);
    for (n, outer) in ALL.into_iter().enumerate() {
        for inner in [ALL[n], ALL[(n + 1) % ALL.len()]] {
            let twice = encode(outer, &encode(inner, &disk));
            let what = format!("{} inside of {}", inner.name(), outer.name());
            trials.bytes(&what, (outer, ImageFormat::Raw), &twice, FaultCode::ImageFormat, Left::Unchanged);
        }
        let (once, other) = (encode(outer, &disk), ALL[(n + 2) % ALL.len()]);
        let what = format!("{} under the name of {}", outer.name(), other.name());
        trials.bytes(&what, (other, ImageFormat::Raw), &once, FaultCode::ImageFormat, Left::Unchanged);
        let what = format!("{} under the name of a raw image", outer.name());
        trials.bytes(&what, RAW, &once, FaultCode::ImageFormat, Left::Unchanged);
    }
}

/// A file that is an ISO 9660 image and a disk with a GPT: what hybrid installation media are. It is written as it is,
/// and what an ISO reader would find in it is nobody's business here.
#[test]
fn a_hybrid_of_iso_and_disk_is_a_disk() {
    let mut trials = Trials::new();
    // The volume descriptor of ISO 9660 has its place in front of the first partition.
    let hybrid = patched(&image(16 * MIB, 512), 32769, b"CD001\x01");
    let (order, _server) = served(Compression::None, ImageFormat::Raw, &hybrid);
    let told = trials.run(order);
    assert_eq!(told.result.outcome, Outcome::Verified, "{:?}", told.result.fault);
    assert_eq!(trials.disk().bytes(32769, 5), b"CD001");
    let found = tool("sgdisk", &["-v", &trials.disk().device]);
    assert!(found.contains("No problems found"), "{found}");
}

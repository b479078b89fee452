//! Images with a map of their own, qcow2 and manifest: maps that lie about places, sizes and numbers.

use std::path::Path;

use sha2::{Digest as _, Sha256};
use speediso_model::fault::FaultCode;
use speediso_model::image::{Compression, ImageDigest, ImageFormat};

use crate::encoded::patched;
use crate::support::{MIB, Server, image, source, tool};
use crate::trial::{Left, Trials};

const QCOW2: (Compression, ImageFormat) = (Compression::None, ImageFormat::Qcow2);

fn converted(disk: &[u8], options: &[&str]) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let (raw, out) = (dir.path().join("raw"), dir.path().join("qcow2"));
    std::fs::write(&raw, disk).unwrap();
    let mut args = vec!["convert", "-f", "raw", "-O", "qcow2"];
    args.extend(options);
    args.extend([raw.to_str().unwrap(), out.to_str().unwrap()]);
    tool("qemu-img", &args);
    std::fs::read(out).unwrap()
}

fn be64(image: &[u8], at: usize) -> u64 {
    u64::from_be_bytes(image[at..at + 8].try_into().unwrap())
}

#[test]
fn a_hostile_qcow2_image_is_refused_before_anything_is_written() {
    use FaultCode::{ImageFormat as Format, ImageTooLarge};
    let mut trials = Trials::new();
    let good = converted(&image(16 * MIB, 512), &[]);
    let l1 = be64(&good, 40) as usize;
    let l2 = (be64(&good, l1) & 0x00ff_ffff_ffff_fe00) as usize;
    let long = u64::to_be_bytes;
    let word = u32::to_be_bytes;
    // A name in the second half of the header's cluster.
    let backed = |name: &str| {
        let named = patched(&good, 2048, name.as_bytes());
        patched(&patched(&named, 8, &long(2048)), 16, &word(name.len() as u32))
    };
    let passwd = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
    let cases: Vec<(&str, Vec<u8>, FaultCode)> = vec![
        ("a backing file that exists", backed(passwd.to_str().unwrap()), Format),
        ("a backing file on another server", backed("https://127.0.0.1:1/base"), Format),
        (
            "a backing file in words of qemu",
            backed("json:{\"driver\":\"raw\",\"file.filename\":\"/dev/zero\"}"),
            Format,
        ),
        ("a data file", patched(&good, 72, &long(4)), Format),
        ("encrypted", patched(&good, 32, &word(1)), Format),
        ("LUKS", patched(&good, 32, &word(2)), Format),
        ("a feature that nobody knows", patched(&good, 72, &long(1 << 63)), Format),
        ("clusters of one byte", patched(&good, 20, &word(0)), Format),
        ("clusters of 2^63 bytes", patched(&good, 20, &word(63)), Format),
        ("16 EiB", patched(&good, 24, &long(u64::MAX)), ImageTooLarge),
        ("8 EiB", patched(&good, 24, &long(1 << 63)), ImageTooLarge),
        ("one sector more than the disk", patched(&good, 24, &long(20 * MIB + 512)), ImageTooLarge),
        ("2^32 L1 entries", patched(&good, 36, &word(u32::MAX)), Format),
        ("the L1 table behind the file", patched(&good, 40, &long(1 << 40)), Format),
        ("the L1 table is its own L2 table", patched(&good, l1, &long(1 << 63 | l1 as u64)), Format),
        ("an L2 table behind the file", patched(&good, l1, &long(1 << 63 | 1 << 50)), Format),
        ("a cluster behind the file", patched(&good, l2, &long(1 << 63 | 1 << 50)), Format),
        ("a cluster that is a table", patched(&good, l2, &long(1 << 63 | l2 as u64)), Format),
        ("all clusters are one", patched(&good, l2, &good[l2..l2 + 8].repeat(256)), Format),
        ("no more than a header", good[..512].to_vec(), Format),
        ("cut in its first cluster", good[..4096].to_vec(), Format),
    ];
    for (what, body, code) in cases {
        trials.bytes(what, QCOW2, &body, code, Left::Unchanged);
    }
    // The snapshots of an image are of no concern, however many it says it has.
    let snapshots = patched(&good, 60, &word(u32::MAX));
    let (order, _server) = crate::trial::served(QCOW2.0, QCOW2.1, &snapshots);
    println!("2^32 snapshots: {:?}", trials.run(order).result.outcome);

    let mut trials = Trials::new();
    let packed = converted(&image(16 * MIB, 512), &["-c"]);
    let l1 = be64(&packed, 40) as usize;
    let l2 = (be64(&packed, l1) & 0x00ff_ffff_ffff_fe00) as usize;
    // Not the first ones, which are looked at before anything is written.
    let entry = (l2 + 1024..).step_by(8).find(|at| be64(&packed, *at) & 1 << 62 != 0).unwrap();
    let data = (be64(&packed, entry) & ((1 << 54) - 1)) as usize;
    // RFC 1951, 3.2.4: a stored block of 65,535 bytes and another one: more than a cluster.
    let bomb = [&[0, 0xff, 0xff, 0, 0][..], &[7; 3000]].concat();
    trials.bytes("a cluster that is damaged", QCOW2, &patched(&packed, data, &[0xff; 64]), Format, Left::NoTable);
    trials.bytes("a cluster that is too long", QCOW2, &patched(&packed, data, &bomb), Format, Left::NoTable);
    trials.bytes("cut in the middle", QCOW2, &packed[..packed.len() / 2], Format, Left::Unchanged);
}

/// A manifest image on a server, its files changed before its digests are made right again.
struct Packed {
    dir: tempfile::TempDir,
}

impl Packed {
    fn new(json: &serde_json::Value, index: &[u8], data: &[u8]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut json = json.clone();
        if json["index"]["blake3"].is_null() {
            json["index"]["blake3"] = blake3::hash(index).to_hex().as_str().into();
        }
        std::fs::write(dir.path().join("manifest.json"), json.to_string()).unwrap();
        std::fs::write(dir.path().join("chunks.idx"), index).unwrap();
        std::fs::write(dir.path().join("chunks.bin"), data).unwrap();
        Self { dir }
    }

    #[track_caller]
    fn refused(&self, trials: &mut Trials, what: &str, code: FaultCode, left: Left) {
        let server = Server::files(self.dir.path(), |_, _, _| {});
        let mut order = source(&server.url.replace("/image", "/manifest.json"), b"", Compression::None);
        let json = std::fs::read(self.dir.path().join("manifest.json")).unwrap();
        order.format = ImageFormat::Manifest;
        order.digest = Some(ImageDigest::sha256(Sha256::digest(json).into()));
        trials.refused(what, order, code, left);
    }
}

/// docs/image-manifest.md.
fn manifest(disk_size: u64, chunk_size: u64, data_size: u64) -> serde_json::Value {
    serde_json::json!({
        "format": "speediso-image", "version": 1, "disk_size": disk_size, "sector_size": 512, "chunk_size": chunk_size,
        "compression": "zstd", "data": {"file": "chunks.bin", "size": data_size},
        "index": {"file": "chunks.idx", "blake3": null}, "signed_by": null,
    })
}

fn index(disk_size: u64, chunk_size: u32, data_size: u64, entries: &[(u64, u32, [u8; 32])]) -> Vec<u8> {
    let mut index = b"SPDISOIX".to_vec();
    index.extend(1u32.to_le_bytes());
    index.extend(chunk_size.to_le_bytes());
    index.extend(disk_size.to_le_bytes());
    index.extend(data_size.to_le_bytes());
    index.extend(512u32.to_le_bytes());
    index.extend(1u32.to_le_bytes());
    index.extend([0; 24]);
    for (offset, length, hash) in entries {
        index.extend(offset.to_le_bytes());
        index.extend(length.to_le_bytes());
        index.extend(hash);
    }
    index
}

#[test]
fn a_hostile_manifest_is_refused() {
    use FaultCode::{ImageDigestMismatch, ImageFormat as Format, ImageTooLarge};
    const CHUNK: u32 = 1 << 20;
    const SIZE: u64 = 2 << 20;
    let mut trials = Trials::new();
    let zero = [0; 32];
    let any = [7; 32];
    let of = |data: &[u8], entries: &[(u64, u32, [u8; 32])]| {
        let length = data.len() as u64;
        Packed::new(&manifest(SIZE, CHUNK.into(), length), &index(SIZE, CHUNK, length, entries), data)
    };
    let data = vec![1; 4096];
    for (what, entries) in [
        ("a chunk behind the data", vec![(0, 4096, any), (1 << 40, 4096, any)]),
        ("a chunk at the last byte there can be", vec![(0, 4096, any), (u64::MAX - 7, 8, any)]),
        ("a chunk larger than a chunk", vec![(0, u32::MAX, any), (0, 0, zero)]),
        ("a gap in the data", vec![(0, 2048, any), (3072, 1024, any)]),
        ("a chunk of nothing with a hash", vec![(0, 0, any), (0, 4096, any)]),
        ("too few chunks", vec![(0, 4096, any)]),
        ("too many chunks", vec![(0, 4096, any), (0, 0, zero), (0, 0, zero)]),
    ] {
        of(&data, &entries).refused(&mut trials, what, Format, Left::Unchanged);
    }
    for (what, json, code) in [
        ("an image of 16 EiB", manifest(u64::MAX - 511, 1 << 20, 1), Format),
        ("a TiB of disk for 20 MiB", manifest(1 << 40, 1 << 20, 1), ImageTooLarge),
        ("chunks of 4 GiB", manifest(SIZE, 1 << 32, 1), Format),
        ("chunks of one byte", manifest(SIZE, 1, 1), Format),
    ] {
        Packed::new(&json, &[0; 64], &data).refused(&mut trials, what, code, Left::Unchanged);
    }
    let mut elsewhere = manifest(SIZE, CHUNK.into(), 4096);
    elsewhere["data"]["file"] = "../../../etc/shadow".into();
    Packed::new(&elsewhere, &[0; 64], &data).refused(&mut trials, "data elsewhere", Format, Left::Unchanged);
    let mut other = manifest(SIZE, CHUNK.into(), 4096);
    other["index"]["blake3"] = "0a".repeat(32).into();
    Packed::new(&other, &index(SIZE, CHUNK, 4096, &[(0, 4096, any), (0, 0, zero)]), &data).refused(
        &mut trials,
        "another index",
        Format,
        Left::Unchanged,
    );

    // What the index says is sound, and the chunks are not.
    let frame = zstd::bulk::compress(&vec![1; CHUNK as usize], 1).unwrap();
    let bomb = zstd::bulk::compress(&vec![0; 1 << 30], 1).unwrap();
    let wide = {
        let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
        encoder.window_log(27).unwrap();
        encoder.include_contentsize(false).unwrap();
        std::io::Write::write_all(&mut encoder, &vec![1; CHUNK as usize]).unwrap();
        encoder.finish().unwrap()
    };
    let two = [&frame[..], &frame].concat();
    // No reader knows which chunks are whole until it has them.
    of(&data, &[(0, 4096, any), (2048, 2048, any)]).refused(
        &mut trials,
        "half of another chunk",
        ImageDigestMismatch,
        Left::NoTable,
    );
    let length = |bytes: &[u8]| bytes.len() as u32;
    for (what, stored) in [
        ("a chunk with another hash", frame.clone()),
        ("a chunk of 1 GiB", bomb),
        ("a chunk with a window of 128 MiB", wide),
        ("a chunk of two frames", two),
        ("a chunk of garbage", vec![0xa5; 5000]),
        ("a chunk that is cut", frame[..frame.len() - 3].to_vec()),
    ] {
        let entries = [(0, length(&stored), any), (0, 0, zero)];
        of(&stored, &entries).refused(&mut trials, what, ImageDigestMismatch, Left::NoTable);
    }
}

/// As many chunks as there may be, of an image as large as they permit, on a disk where it fits: the index is the
/// largest that there is, and its last entry is wrong.
#[test]
fn the_largest_index_fits_into_memory() {
    const CHUNKS: u64 = 1 << 20;
    let size = CHUNKS * 65536;
    let mut trials = Trials::on(size);
    let mut entries = vec![(0, 0, [0; 32]); CHUNKS as usize];
    entries[CHUNKS as usize - 1] = (1 << 50, 1000, [7; 32]);
    let index = index(size, 65536, 1000, &entries);
    let packed = Packed::new(&manifest(size, 65536, 1000), &index, &[1; 1000]);
    let server = Server::files(packed.dir.path(), |_, _, _| {});
    let mut order = source(&server.url.replace("/image", "/manifest.json"), b"", Compression::None);
    let json = std::fs::read(packed.dir.path().join("manifest.json")).unwrap();
    order.format = ImageFormat::Manifest;
    order.digest = Some(ImageDigest::sha256(Sha256::digest(json).into()));
    let told = trials.run(order);
    println!("the largest index: {:?}, {} MiB, {:?}", told.result.fault, told.peak / MIB, told.took);
    assert_eq!(told.result.fault.map(|fault| fault.code), Some(FaultCode::ImageFormat));
}

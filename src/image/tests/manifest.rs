//! Manifest images as their readers meet them: whole, cut, flipped, forged.
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "tests"
)]

use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use speediso_image::manifest::{
    Chunk, ChunkDecoder, HEADER_LENGTH, ImageDirectory, Index, MAX_CHUNKS, MAX_MANIFEST_LENGTH, Manifest,
    ManifestError, PackOptions, PackSummary, SignedBy, SigningKey, StoreError, Stored, pack, verify,
};
use tempfile::TempDir;

const CHUNK: usize = 64 << 10;
const KEY: &[u8] = b"4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb";

fn key() -> SigningKey {
    SigningKey::from_file(KEY).expect("a seed")
}

fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

fn options(key: Option<&SigningKey>) -> PackOptions<'_> {
    PackOptions { chunk_size: Some(CHUNK as u32), level: Some(3), key, name: None }
}

fn pack_to(disk: &[u8], options: &PackOptions<'_>, out: &Path) -> Result<PackSummary, StoreError> {
    pack(&mut &disk[..], Some(disk.len() as u64), options, out, &mut |_| {})
}

/// One of each: noise, text, zeros, noise again, and a last chunk that is short.
fn sample_disk() -> Vec<u8> {
    let mut disk = noise(1, CHUNK);
    disk[512..520].copy_from_slice(b"EFI PART");
    disk.extend(b"all work and no play ".iter().cycle().take(CHUNK));
    disk.resize(3 * CHUNK, 0);
    disk.extend_from_within(..CHUNK);
    disk.extend(noise(2, 1024));
    disk.resize(disk.len() + 512, 7);
    disk
}

fn sample(key: Option<&SigningKey>) -> (TempDir, PathBuf, Vec<u8>) {
    let temporary = tempfile::tempdir().expect("a directory");
    let directory = temporary.path().join("image");
    let disk = sample_disk();
    pack_to(&disk, &options(key), &directory).expect("packed");
    (temporary, directory, disk)
}

fn check(directory: &Path) -> Result<(), StoreError> {
    verify(directory, None, &mut |_| {}).map(|_| ())
}

/// As a reader far away does it: from the bytes of the three files alone.
fn read_by_hand(directory: &Path) -> Vec<u8> {
    let manifest = Manifest::parse(&fs::read(directory.join("manifest.json")).unwrap()).unwrap();
    let index = Index::parse(fs::read(directory.join(manifest.index_name())).unwrap(), &manifest).unwrap();
    let data = fs::read(directory.join(manifest.data_name())).unwrap();
    let mut decoder = ChunkDecoder::new().unwrap();
    let mut disk = vec![0xee; manifest.disk_size() as usize];
    for number in 0..manifest.chunk_count() {
        let range = manifest.disk_range(number);
        let chunk = index.chunk(number);
        let stored = match chunk {
            Chunk::Zero => &[],
            Chunk::Data { offset, length, .. } => &data[offset as usize..][..length as usize],
        };
        decoder.decode(&chunk, stored, &mut disk[range.start as usize..range.end as usize]).unwrap();
    }
    disk
}

#[derive(Clone, Debug)]
enum Piece {
    Zeros(usize),
    Noise(u64, usize),
    Text(u8, usize),
}

fn any_disk() -> impl Strategy<Value = Vec<u8>> {
    // Lengths in sectors, some of whole chunks so that duplicates and declared zeros come about.
    let length = prop_oneof![1usize..300, Just(CHUNK / 512), Just(3 * CHUNK / 512)];
    let piece = prop_oneof![
        length.clone().prop_map(Piece::Zeros),
        (0u64..4, length.clone()).prop_map(|(seed, n)| Piece::Noise(seed, n)),
        (any::<u8>(), length).prop_map(|(byte, n)| Piece::Text(byte, n)),
    ];
    (prop::collection::vec(piece, 1..12), prop_oneof![Just(None), Just(Some(512usize)), Just(Some(4096))]).prop_map(
        |(pieces, sector)| {
            let mut disk = Vec::new();
            for piece in pieces {
                match piece {
                    Piece::Zeros(n) => disk.resize(disk.len() + n * 512, 0),
                    Piece::Noise(seed, n) => disk.extend(noise(seed, n * 512)),
                    Piece::Text(byte, n) => disk.extend((0..n * 512).map(|i| byte.wrapping_add((i % 61) as u8))),
                }
            }
            if let Some(sector) = sector {
                disk.resize(disk.len().max(8192).next_multiple_of(sector), 0);
                // A header in the second 512 bytes would be found first.
                disk[512..520].fill(0);
                disk[sector..sector + 8].copy_from_slice(b"EFI PART");
            }
            disk
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn what_is_packed_comes_out_again(disk in any_disk(), level in prop_oneof![Just(None), (1..4).prop_map(Some)]) {
        let temporary = tempfile::tempdir().unwrap();
        let (directory, again) = (temporary.path().join("a"), temporary.path().join("b"));
        let options = PackOptions { chunk_size: Some(CHUNK as u32), level, key: None, name: None };
        let made = pack_to(&disk, &options, &directory).unwrap();
        prop_assert_eq!(made.disk_size, disk.len() as u64);

        let found = verify(&directory, None, &mut |_| {}).unwrap();
        prop_assert_eq!(found.blake3.to_string(), format!("blake3:{}", blake3::hash(&disk)));
        prop_assert_eq!(found.totals.zero_bytes + found.totals.used_bytes, disk.len() as u64);
        let zeros = disk.chunks(CHUNK).filter(|chunk| chunk.iter().all(|b| *b == 0)).count();
        prop_assert_eq!(found.totals.zero_chunks, zeros as u64);
        prop_assert!(read_by_hand(&directory) == disk);

        let image = ImageDirectory::open(&directory, None).unwrap();
        let sector = |at: usize| disk.get(at..at + 8) == Some(b"EFI PART");
        prop_assert_eq!(image.manifest.sector_size(), sector(512).then_some(512).or(sector(4096).then_some(4096)));
        let file = temporary.path().join("disk.raw");
        image.unpack(&file, &mut |_| {}).unwrap();
        prop_assert!(fs::read(&file).unwrap() == disk);

        // Without its size said before, and from a source that gives it in pieces: the same files.
        struct Pieces<'a>(&'a [u8]);
        impl Read for Pieces<'_> {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                let n = buffer.len().min(self.0.len()).min(4099);
                self.0.read(&mut buffer[..n])
            }
        }
        pack(&mut Pieces(&disk), None, &options, &again, &mut |_| {}).unwrap();
        for name in ["manifest.json", "chunks.idx", "chunks.bin"] {
            prop_assert!(fs::read(directory.join(name)).unwrap() == fs::read(again.join(name)).unwrap(), "{}", name);
        }
    }
}

#[test]
fn the_layout_is_the_documented_one() {
    let (_temporary, directory, disk) = sample(Some(&key()));
    let image = ImageDirectory::open(&directory, Some(&key().public())).expect("good");
    assert_eq!(image.signed_by, SignedBy::Trusted(key().public()));
    assert_eq!((image.manifest.sector_size(), image.manifest.chunk_count()), (Some(512), 5));
    let chunks: Vec<Chunk> = image.index.chunks().collect();
    let Chunk::Data { offset: 0, length, hash, stored: Stored::Raw } = chunks[0] else { panic!("{:?}", chunks[0]) };
    assert_eq!((length as usize, hash), (CHUNK, blake3::hash(&disk[..CHUNK])));
    let Chunk::Data { offset, length: text, stored: Stored::Zstd, .. } = chunks[1] else { panic!("{:?}", chunks[1]) };
    assert_eq!(offset as usize, CHUNK);
    assert_eq!(chunks[2], Chunk::Zero);
    assert_eq!(chunks[3], chunks[0], "stored once");
    let Chunk::Data { offset, .. } = chunks[4] else { panic!("{:?}", chunks[4]) };
    assert_eq!(offset, CHUNK as u64 + u64::from(text));
    let totals = image.index.totals();
    assert_eq!((totals.zero_chunks, totals.shared_chunks, totals.zero_bytes), (1, 1, CHUNK as u64));

    let index = fs::read(directory.join("chunks.idx")).expect("index");
    assert_eq!(index.len(), HEADER_LENGTH + 5 * 44);
    assert_eq!(&index[..16], b"SPDISOIX\x01\0\0\0\0\0\x01\0");
    assert_eq!(index[64 + 44 + 12..64 + 88], blake3::hash(&disk[CHUNK..2 * CHUNK]).as_bytes()[..]);

    let file = directory.join("../disk.raw");
    image.unpack(&file, &mut |_| {}).expect("unpacked");
    let blocks = fs::metadata(&file).expect("there").blocks() * 512;
    assert!(blocks <= disk.len() as u64 - 60 * 1024, "{blocks} bytes are allocated: the hole is none");
    assert!(matches!(image.unpack(&file, &mut |_| {}), Err(StoreError::Exists { .. })));
}

#[test]
fn the_example_of_the_document_is_what_pack_writes() {
    let (_temporary, directory, _) = sample(None);
    let written = fs::read_to_string(directory.join("manifest.json")).expect("text");
    let keys = |text: &str| -> Vec<String> {
        let value: serde_json::Value = serde_json::from_str(text).expect("JSON");
        value.as_object().expect("an object").keys().cloned().collect()
    };
    let document = include_str!("../../../docs/image-manifest.md");
    let example = document.split("```json").nth(1).and_then(|rest| rest.split("```").next()).expect("an example");
    assert_eq!(keys(example), keys(&written));
    Manifest::parse(example.trim().as_bytes()).expect("the example is a manifest");
}

/// Every byte of the manifest and of the index; the data at thousands of places.
#[test]
fn every_flipped_byte_is_noticed() {
    for signed in [false, true] {
        let key = key();
        let (_temporary, directory, _) = sample(signed.then_some(&key));
        let trusted = signed.then(|| key.public());
        let good = Manifest::parse(&fs::read(directory.join("manifest.json")).unwrap()).unwrap();
        let mut tried = 0;
        for name in ["manifest.json", "manifest.json.sig", "chunks.idx", "chunks.bin"] {
            let path = directory.join(name);
            let Ok(content) = fs::read(&path) else { continue };
            // The text at every byte, the data in steps that share no factor with its layout.
            let step = if content.len() > 10_000 { 31 } else { 1 };
            for at in (0..content.len()).step_by(step) {
                let mut bad = content.clone();
                bad[at] ^= 1 << (at % 8);
                if bad[at..at + 1].trim_ascii().is_empty() && content[at..at + 1].trim_ascii().is_empty() {
                    continue; // One white space for another, after the digits of a signature.
                }
                fs::write(&path, &bad).unwrap();
                tried += 1;
                let found = verify(&directory, trusted.as_ref(), &mut |_| {});
                let harmless = match (&found, name) {
                    (Ok(_), "manifest.json") => Manifest::parse(&bad).unwrap() == good && !signed,
                    // Hex digits may be of either case: the signature is the same.
                    (Ok(_), "manifest.json.sig") => bad.eq_ignore_ascii_case(&content),
                    (Ok(_), _) => false,
                    (Err(_), _) => true,
                };
                assert!(harmless, "byte {at} of {name} was flipped, and nobody noticed (signed: {signed})");
            }
            fs::write(&path, &content).unwrap();
        }
        assert!(tried > 2000, "{tried} places");
        verify(&directory, trusted.as_ref(), &mut |_| {}).expect("all is as it was");
    }
}

#[test]
fn cut_and_lengthened_files_are_noticed() {
    let key = key();
    let (_temporary, directory, _) = sample(Some(&key));
    for name in ["manifest.json", "manifest.json.sig", "chunks.idx", "chunks.bin"] {
        let path = directory.join(name);
        let content = fs::read(&path).unwrap();
        for length in [0, 1, content.len() / 2, content.len() - 2] {
            fs::write(&path, &content[..length]).unwrap();
            assert!(check(&directory).is_err(), "{name} cut to {length}");
        }
        fs::write(&path, [&content[..], b"0"].concat()).unwrap();
        assert!(check(&directory).is_err(), "{name} lengthened");
        fs::remove_file(&path).unwrap();
        assert!(check(&directory).is_err(), "{name} is missing");
        fs::write(&path, &content).unwrap();
    }
    check(&directory).expect("all is as it was");
}

#[test]
fn only_the_right_key_over_the_right_bytes_counts() {
    let (signer, other) = (key(), SigningKey::generate().unwrap());
    let (_temporary, directory, _) = sample(Some(&signer));
    let open = |key: &SigningKey| ImageDirectory::open(&directory, Some(&key.public())).map(|image| image.signed_by);
    assert_eq!(open(&signer).expect("good"), SignedBy::Trusted(signer.public()));
    assert!(matches!(open(&other), Err(StoreError::Signature { .. })));
    let named = ImageDirectory::open(&directory, None).expect("good").signed_by;
    assert_eq!(named, SignedBy::Named(signer.public()));

    let signature = directory.join("manifest.json.sig");
    let json = fs::read(directory.join("manifest.json")).unwrap();
    // By another's key: the manifest itself says whose it must be, so it is refused without any key too.
    fs::write(&signature, other.sign(&json)).unwrap();
    assert!(matches!(open(&signer), Err(StoreError::Signature { .. })));
    assert!(matches!(open(&other), Err(StoreError::Signature { .. })), "the manifest names the other one");
    assert!(check(&directory).is_err());
    // Of other bytes.
    fs::write(&signature, signer.sign(&json[1..])).unwrap();
    assert!(matches!(open(&signer), Err(StoreError::Signature { .. })));
    fs::remove_file(&signature).unwrap();
    assert!(matches!(open(&signer), Err(StoreError::Unsigned { .. })));
    assert!(check(&directory).is_err(), "it says that it is signed");

    let (_temporary, directory, _) = sample(None);
    assert_eq!(ImageDirectory::open(&directory, None).expect("good").signed_by, SignedBy::Nobody);
    let unsigned = ImageDirectory::open(&directory, Some(&signer.public()));
    assert!(matches!(unsigned, Err(StoreError::Unsigned { .. })));
    // A signature that was added later, by whatever tool.
    let json = fs::read(directory.join("manifest.json")).unwrap();
    fs::write(directory.join("manifest.json.sig"), signer.sign(&json)).unwrap();
    let image = ImageDirectory::open(&directory, Some(&signer.public())).expect("good");
    assert_eq!(image.signed_by, SignedBy::Trusted(signer.public()));
}

fn manifest_json(changes: &[(&str, serde_json::Value)]) -> Vec<u8> {
    let mut value = serde_json::json!({
        "format": "speediso-image", "version": 1, "disk_size": 1_048_576, "sector_size": 512, "chunk_size": 65536,
        "compression": "zstd", "data": {"file": "chunks.bin", "size": 1000},
        "index": {"file": "chunks.idx", "blake3": "0a".repeat(32)}, "signed_by": null,
    });
    for (pointer, new) in changes {
        *value.pointer_mut(pointer).expect("a field of it") = new.clone();
    }
    serde_json::to_vec(&value).unwrap()
}

#[test]
fn hostile_manifests_are_refused() {
    use serde_json::json;
    Manifest::parse(&manifest_json(&[])).expect("the one that the others are made of");
    let most = MAX_CHUNKS * 65536;
    assert_eq!(Manifest::parse(&manifest_json(&[("/disk_size", json!(most))])).unwrap().chunk_count(), MAX_CHUNKS);
    for (pointer, value) in [
        ("/format", json!("other")),
        ("/format", json!("x".repeat(10_000))),
        ("/version", json!(2)),
        ("/version", json!(-1)),
        ("/version", json!("1")),
        ("/disk_size", json!(0)),
        ("/disk_size", json!(511)),
        ("/disk_size", json!(1_048_577)),
        ("/disk_size", json!(most + 512)),
        ("/disk_size", json!(u64::MAX)),
        ("/disk_size", json!(-512)),
        ("/disk_size", json!(1_048_576.0)),
        ("/disk_size", json!(1e300)),
        ("/sector_size", json!(0)),
        ("/sector_size", json!(520)),
        ("/sector_size", json!(u32::MAX)),
        ("/chunk_size", json!(0)),
        ("/chunk_size", json!(32768)),
        ("/chunk_size", json!(65537)),
        ("/chunk_size", json!(33_554_432)),
        ("/chunk_size", json!(1u64 << 32)),
        ("/compression", json!("xz")),
        ("/compression", json!(null)),
        ("/data/size", json!(1_048_577)),
        ("/data/size", json!(u64::MAX)),
        ("/data/file", json!("")),
        ("/data/file", json!("..")),
        ("/data/file", json!("../chunks.bin")),
        ("/data/file", json!("/etc/shadow")),
        ("/data/file", json!("https:chunks")),
        ("/data/file", json!("a?b")),
        ("/data/file", json!("a\u{0}")),
        ("/data/file", json!("x".repeat(129))),
        ("/data/file", json!("manifest.json.sig")),
        ("/data/file", json!("chunks.idx")),
        ("/index/file", json!("manifest.json")),
        ("/index/blake3", json!("0A".repeat(32))),
        ("/index/blake3", json!("0a".repeat(31))),
        ("/index/blake3", json!("é".repeat(32))),
        ("/signed_by", json!("0A".repeat(32))),
        ("/signed_by", json!("0a")),
        ("/data", json!({"file": "chunks.bin", "size": 1, "more": 1})),
    ] {
        let found = Manifest::parse(&manifest_json(&[(pointer, value.clone())]));
        assert!(found.is_err(), "{pointer} {value}");
        assert!(found.unwrap_err().to_string().len() < 400, "the error does not repeat what is too long");
    }
    // A 4096-byte sector asks for whole ones.
    let odd = [("/disk_size", json!(1_048_576 + 512)), ("/sector_size", json!(4096))];
    assert!(matches!(Manifest::parse(&manifest_json(&odd)), Err(ManifestError::Field { field: "disk_size", .. })));
}

#[test]
fn hostile_json_is_refused() {
    let good = String::from_utf8(manifest_json(&[])).unwrap();
    let deep = format!("{{\"a\":{}", "[".repeat(60_000));
    let wide = format!("{{\"format\":\"speediso-image\",\"version\":1,\"a\":[{}0]}}", "0,".repeat(20_000));
    for (text, why) in [
        (good.replacen('{', "{\"more\":1,", 1), "unknown field"),
        (good.replace("\"signed_by\":null,", "").replace(",\"signed_by\":null", ""), "missing option"),
        (good.replacen("\"version\":1", "\"version\":1,\"version\":1", 1), "twice"),
        (good.clone() + "{}", "trailing"),
        (good[..good.len() - 1].to_owned(), "cut"),
        (good.replacen('{', "[", 1), "not JSON"),
        (deep, "deep"),
        (wide, "wide"),
        (" ".repeat(MAX_MANIFEST_LENGTH) + &good, "too long"),
        (String::new(), "empty"),
        ("null".into(), "null"),
        ("\u{feff}".to_owned() + &good, "byte order mark"),
    ] {
        assert!(Manifest::parse(text.as_bytes()).is_err(), "{why}");
    }
    assert!(matches!(
        Manifest::parse(br#"{"format":"speediso-image","version":2,"new":[1]}"#),
        Err(ManifestError::Version(2))
    ));
}

/// An index whose digest is right, with `change` made to it.
fn with_index(directory: &Path, change: impl FnOnce(&mut Vec<u8>)) -> Result<Index, ManifestError> {
    let mut index = fs::read(directory.join("chunks.idx")).unwrap();
    change(&mut index);
    let mut json: serde_json::Value =
        serde_json::from_slice(&fs::read(directory.join("manifest.json")).unwrap()).unwrap();
    json["index"]["blake3"] = serde_json::json!(blake3::hash(&index).to_string());
    Index::parse(index, &Manifest::parse(&serde_json::to_vec(&json).unwrap()).unwrap())
}

#[test]
fn hostile_indexes_are_refused() {
    let (_temporary, directory, _) = sample(None);
    with_index(&directory, |_| {}).expect("the one that the others are made of");
    type Change = fn(&mut Vec<u8>);
    let entry = |n: usize| HEADER_LENGTH + n * 44;
    assert_eq!(entry(1), 108);
    let changes: [(&str, Change); 12] = [
        ("other magic", |i| i[0] = b'x'),
        ("other chunk size", |i| i[14] = 2),
        ("other disk size", |i| i[16] ^= 1),
        ("reserved bytes", |i| i[63] = 1),
        ("an offset that overflows", |i| i[108..116].fill(0xff)),
        ("an offset beyond the data", |i| i[112] = 1),
        ("a gap", |i| i[108] += 1),
        ("a length over the chunk's", |i| i[64 + 11] = 1),
        ("a length to the end of numbers", |i| i[64 + 8..64 + 12].fill(0xff)),
        ("zeros with a hash", |i| i[64 + 2 * 44 + 43] = 1),
        ("zeros with a place", |i| i[64 + 2 * 44] = 1),
        ("data that nobody has", |i| i[64 + 4 * 44..].fill(0)),
    ];
    for (why, change) in changes {
        let found = with_index(&directory, change);
        assert!(matches!(found, Err(ManifestError::IndexHeader(_) | ManifestError::Entry { .. })), "{why}: {found:?}");
    }
    for (why, change) in [
        ("an entry too few", (|i| i.truncate(i.len() - 44)) as Change),
        ("an entry too many", |i| i.extend([0; 44])),
        ("nothing", |i| i.clear()),
    ] {
        assert!(matches!(with_index(&directory, change), Err(ManifestError::IndexLength { .. })), "{why}");
    }
}

#[test]
fn a_source_of_another_size_is_refused_and_leaves_nothing() {
    struct Broken(usize);
    impl Read for Broken {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let n = buffer.len().min(self.0);
            self.0 -= n;
            if n == 0 { Err(io::Error::other("the cable")) } else { Ok(n) }
        }
    }
    let temporary = tempfile::tempdir().unwrap();
    let out = temporary.path().join("image");
    let disk = sample_disk();
    let length = disk.len() as u64;
    let run = |source: &mut dyn Read, size| {
        let error = pack(source, size, &options(None), &out, &mut |_| {}).expect_err("refused");
        assert!(!out.exists(), "after {error}");
        error
    };
    assert!(matches!(run(&mut &disk[..], Some(length + 512)), StoreError::SourceShort { .. }));
    assert!(matches!(run(&mut &disk[..], Some(length - 512)), StoreError::SourceLong { .. }));
    assert!(matches!(run(&mut &disk[1..], None), StoreError::Unpackable(_)));
    assert!(matches!(run(&mut io::empty(), None), StoreError::Unpackable(_)));
    let at = CHUNK as u64 + 5;
    assert!(matches!(run(&mut Broken(CHUNK + 5), None), StoreError::Source { at: found, .. } if found == at));
    // 64 GiB and a sector are too many chunks of 64 KiB: said before the first byte is read.
    assert!(matches!(run(&mut Broken(0), Some((64 << 30) + 512)), StoreError::Unpackable(_)));
}

#[test]
fn a_directory_with_something_in_it_is_not_touched() {
    let temporary = tempfile::tempdir().unwrap();
    let disk = sample_disk();
    fs::write(temporary.path().join("thesis"), "unsaved").unwrap();
    let found = pack_to(&disk, &options(None), temporary.path());
    assert!(matches!(found, Err(StoreError::NotEmpty { .. })), "{found:?}");
    let file = pack_to(&disk, &options(None), &temporary.path().join("thesis"));
    assert!(matches!(file, Err(StoreError::NotEmpty { .. })), "{file:?}");
    assert_eq!(fs::read_dir(temporary.path()).unwrap().count(), 1);

    let empty = temporary.path().join("empty");
    fs::create_dir(&empty).unwrap();
    pack_to(&disk[1..], &options(None), &empty).expect_err("no whole sectors");
    assert_eq!(fs::read_dir(&empty).unwrap().count(), 0, "the directory stays, as it was");
    pack_to(&disk, &options(None), &empty).expect("an empty one will do");
    let mut names: Vec<_> = fs::read_dir(&empty).unwrap().map(|e| e.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["chunks.bin", "chunks.idx", "manifest.json"]);
}

#[test]
fn a_broken_chunk_names_its_place_and_unpacks_to_nothing() {
    let (temporary, directory, _) = sample(None);
    let path = directory.join("chunks.bin");
    let mut data = fs::read(&path).unwrap();
    data[CHUNK] ^= 1;
    fs::write(&path, data).unwrap();
    let image = ImageDirectory::open(&directory, None).expect("the data is not read yet");
    let out = temporary.path().join("disk.raw");
    let found = image.unpack(&out, &mut |_| {});
    let expected = CHUNK as u64..2 * CHUNK as u64;
    assert!(matches!(found, Err(StoreError::Chunk { chunk: 1, disk, .. }) if disk == expected));
    assert_eq!(fs::read_dir(temporary.path()).unwrap().count(), 1, "nothing but the image");
}

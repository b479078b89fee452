//! Any bytes as a manifest, as a list of digests, and as the stored bytes of a chunk.
#![no_main]

use libfuzzer_sys::fuzz_target;
use speediso_image::checksums;
use speediso_image::manifest::{Chunk, Manifest, Stored, decode_chunk};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(manifest) = Manifest::parse(bytes) {
        let last = manifest.chunk_count() - 1;
        assert_eq!(manifest.disk_range(last).end, manifest.disk_size());
    }
    let _ = checksums::find(bytes, "disk.img");
    let mut out = vec![0; 64 << 10];
    let chunk = Chunk::Data {
        offset: 0,
        length: bytes.len() as u32,
        hash: blake3::hash(bytes),
        stored: if bytes.len() == out.len() { Stored::Raw } else { Stored::Zstd },
    };
    // A frame that holds its own hash would be news.
    assert_eq!(decode_chunk(&chunk, bytes, &mut out).is_ok(), bytes.len() == out.len());
});

//! Any bytes as any compression: an error or an end, and never more memory than a window.
#![no_main]

use std::io::Read;

use libfuzzer_sys::fuzz_target;
use speediso_image::container::{PROBE_LENGTH, looks};
use speediso_image::decode::decoder;
use speediso_model::image::Compression;

const ALL: [Compression; 6] =
    [Compression::None, Compression::Gzip, Compression::Zstd, Compression::Xz, Compression::Bzip2, Compression::Lz4];
/// A bomb goes on for longer than anybody waits.
const MOST: u64 = 4 << 20;

fuzz_target!(|bytes: &[u8]| {
    let Some((choice, source)) = bytes.split_first() else { return };
    let _ = looks(&source[..source.len().min(PROBE_LENGTH)]);
    let compression = ALL[usize::from(*choice) % ALL.len()];
    let Ok(decoded) = decoder(compression, None, source) else { return };
    let mut out = Vec::new();
    let _ = decoded.take(MOST).read_to_end(&mut out);
    if compression == Compression::None {
        assert!(out == source[..source.len().min(MOST as usize)]);
    }
});

//! Any bytes as the start of an image: one thing or another, and never two at once.
#![no_main]

use libfuzzer_sys::fuzz_target;
use speediso_image::container::{Looks, PROBE_LENGTH, agree, agree_decoded, looks};
use speediso_image::gptgeometry;
use speediso_model::image::{Compression, ImageFormat};

const ALL: [Compression; 5] =
    [Compression::Gzip, Compression::Zstd, Compression::Xz, Compression::Bzip2, Compression::Lz4];

fuzz_target!(|bytes: &[u8]| {
    let start = &bytes[..bytes.len().min(PROBE_LENGTH)];
    let found = looks(start);
    let raw = agree(Compression::None, ImageFormat::Raw, start).is_ok();
    let qcow2 = agree(Compression::None, ImageFormat::Qcow2, start).is_ok();
    assert_eq!((raw, qcow2), (found == Looks::Plain, found == Looks::Qcow2));
    assert_eq!(raw, agree_decoded(ImageFormat::Raw, start).is_ok());
    for compression in ALL {
        let agrees = agree(compression, ImageFormat::Raw, start).is_ok();
        assert_eq!(agrees, found == Looks::Compressed(compression));
    }
    // What is told by the first bytes is not told otherwise by more of them.
    if found != Looks::Plain {
        assert_eq!(looks(bytes), found);
    }
    assert!(matches!(gptgeometry::sector_size(bytes), None | Some(512 | 4096)));
});

//! One bit that flips, anywhere in the source: it is noticed by the decoder or by the digest, whatever the compression.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::cast_possible_truncation, reason = "tests")]

use std::io::Read as _;
use std::process::Command;

use speediso_image::decode::decoder;
use speediso_image::trust::Expected;
use speediso_model::image::{Compression, DigestAlgorithm};

fn compress(compression: Compression, bytes: &[u8]) -> Vec<u8> {
    if compression == Compression::None {
        return bytes.to_vec();
    }
    // The tools are called as the formats are.
    let program = compression.name();
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), bytes).expect("written");
    let out = Command::new(program).arg("-c").arg(file.path()).output();
    let out = out.unwrap_or_else(|e| panic!("{program} is needed: {e}"));
    assert!(out.status.success(), "{program}: {}", String::from_utf8_lossy(&out.stderr));
    out.stdout
}

/// As the agent takes it: decoded, and hashed beside that.
fn taken(compression: Compression, source: &[u8], expected: &Expected) -> Result<Vec<u8>, String> {
    let mut out = Vec::new();
    let mut decoded = decoder(compression, None, source).map_err(|e| e.to_string())?;
    decoded.read_to_end(&mut out).map_err(|e| e.to_string())?;
    expected.clone().check(|take| take(source)).map_err(|e| e.to_string())?;
    Ok(out)
}

#[test]
fn every_flipped_bit_is_noticed() {
    let mut image = vec![0; 40_000];
    blake3::Hasher::new().finalize_xof().fill(&mut image[..10_000]);
    image[20_000..].iter_mut().zip(b"all work and no play ".iter().cycle()).for_each(|(to, from)| *to = *from);
    for (compression, algorithm) in [
        (Compression::None, DigestAlgorithm::Sha256),
        (Compression::Gzip, DigestAlgorithm::Blake3),
        (Compression::Zstd, DigestAlgorithm::Sha512),
        (Compression::Xz, DigestAlgorithm::Sha256),
        (Compression::Bzip2, DigestAlgorithm::Sha256),
        (Compression::Lz4, DigestAlgorithm::Blake3),
    ] {
        let mut source = compress(compression, &image);
        let mut hasher = speediso_image::digest::Hasher::new(algorithm);
        hasher.update(&source);
        let expected = Expected::Digest(hasher.digest());
        assert!(taken(compression, &source, &expected).expect("it is whole") == image, "{compression:?}");
        let mut tried = 0;
        for at in (0..source.len()).step_by(11) {
            let bit = 1 << (at % 8);
            source[at] ^= bit;
            assert!(taken(compression, &source, &expected).is_err(), "{compression:?}: byte {at} was flipped");
            source[at] ^= bit;
            tried += 1;
        }
        assert!(tried > 900, "{compression:?}: {tried} places");
    }
}

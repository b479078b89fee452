//! One chunk, from its stored bytes to the disk's and back.

use std::io;

use zstd::bulk::{Compressor, Decompressor};
use zstd::zstd_safe::find_frame_compressed_size;

use super::index::Stored;
use super::{Chunk, ManifestError};

/// Decodes one chunk. Who decodes many keeps a [`ChunkDecoder`].
///
/// # Errors
/// As [`ChunkDecoder::decode`].
pub fn decode_chunk(chunk: &Chunk, stored: &[u8], out: &mut [u8]) -> Result<(), ManifestError> {
    ChunkDecoder::new().map_err(ManifestError::Zstd)?.decode(chunk, stored, out)
}

/// Decodes chunks, one at a time; keeps what zstd needs from one to the next.
pub struct ChunkDecoder {
    zstd: Decompressor<'static>,
}

impl std::fmt::Debug for ChunkDecoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ChunkDecoder").finish_non_exhaustive()
    }
}

impl ChunkDecoder {
    /// # Errors
    /// When there is no memory for zstd.
    pub fn new() -> io::Result<Self> {
        Ok(Self { zstd: Decompressor::new()? })
    }

    /// Decodes `stored`, exactly the bytes that the index names, into `out`, exactly the chunk's part of the disk. What
    /// is in `out` may be used only after `Ok`: its BLAKE3 was right.
    ///
    /// Decoding goes straight into `out`: a frame's window costs no memory, however large it says it is.
    ///
    /// # Errors
    /// When the stored bytes are too few, too many, damaged or others.
    pub fn decode(&mut self, chunk: &Chunk, stored: &[u8], out: &mut [u8]) -> Result<(), ManifestError> {
        let (length, hash, how) = match chunk {
            Chunk::Zero => (0, None, Stored::Raw),
            Chunk::Data { length, hash, stored, .. } => (*length as usize, Some(hash), *stored),
        };
        if stored.len() != length {
            return Err(ManifestError::StoredLength { found: stored.len(), expected: length });
        }
        let Some(hash) = hash else {
            out.fill(0);
            return Ok(());
        };
        let found = match how {
            Stored::Raw if stored.len() == out.len() => {
                out.copy_from_slice(stored);
                stored.len()
            }
            Stored::Raw => stored.len(),
            Stored::Zstd => self.inflate(stored, out)?,
        };
        if found != out.len() {
            return Err(ManifestError::DecodedLength { found, expected: out.len() });
        }
        if blake3::hash(out) != *hash {
            return Err(ManifestError::ChunkDigest);
        }
        Ok(())
    }

    fn inflate(&mut self, stored: &[u8], out: &mut [u8]) -> Result<usize, ManifestError> {
        // zstd would decode any number of frames, and skip the skippable ones among them.
        if find_frame_compressed_size(stored) != Ok(stored.len()) {
            return Err(ManifestError::NotOneFrame);
        }
        self.zstd.decompress_to_buffer(stored, out).map_err(ManifestError::Zstd)
    }
}

/// What becomes of a chunk when it is packed.
#[derive(Debug)]
pub(super) enum Packed {
    Zero,
    /// `stored` is shorter than the chunk if it is compressed.
    Data {
        hash: blake3::Hash,
        stored: Vec<u8>,
    },
}

/// Packs chunks, one at a time.
pub(super) struct ChunkEncoder {
    /// None: everything is stored as it is.
    zstd: Option<Compressor<'static>>,
}

impl ChunkEncoder {
    pub(super) fn new(level: Option<i32>) -> io::Result<Self> {
        Ok(Self { zstd: level.map(Compressor::new).transpose()? })
    }

    /// Gives `chunk` on as it is unless `spare` can have it compressed; the other of the two comes back empty, to be
    /// used again.
    pub(super) fn encode(&mut self, chunk: Vec<u8>, mut spare: Vec<u8>) -> (Packed, Vec<u8>) {
        if is_zero(&chunk) {
            return (Packed::Zero, chunk);
        }
        let hash = blake3::hash(&chunk);
        // A chunk that shrinks by less than 3% costs the reader more than it saves. zstd gives up at the limit, whence
        // an error here means that and nothing else of use: the chunk is as good as it is.
        let limit = chunk.len() * 97 / 100;
        spare.clear();
        spare.resize(limit, 0);
        let length = self.zstd.as_mut().and_then(|zstd| zstd.compress_to_buffer(&chunk, &mut spare[..]).ok());
        match length {
            Some(length) => {
                spare.truncate(length);
                (Packed::Data { hash, stored: spare }, chunk)
            }
            None => (Packed::Data { hash, stored: chunk }, spare),
        }
    }
}

/// By whole words: `memcmp` of musl goes byte by byte.
pub(super) fn is_zero(bytes: &[u8]) -> bool {
    bytes.chunks(4096).all(|block| {
        let (words, rest) = block.as_chunks();
        words.iter().fold(0, |all, word| all | u128::from_ne_bytes(*word)) == 0 && rest.iter().all(|b| *b == 0)
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::expect_used, clippy::cast_possible_truncation, reason = "tests")]
    use super::*;

    fn data(bytes: &[u8], stored: &[u8], how: Stored) -> Chunk {
        Chunk::Data { offset: 0, length: stored.len() as u32, hash: blake3::hash(bytes), stored: how }
    }

    fn frame(bytes: &[u8]) -> Vec<u8> {
        zstd::bulk::compress(bytes, 3).expect("compressed")
    }

    #[test]
    fn only_exactly_one_frame_of_the_right_bytes_is_taken() {
        let bytes = b"speediso ".repeat(1000);
        let mut out = vec![0; bytes.len()];
        let mut decoder = ChunkDecoder::new().expect("a decoder");
        let mut decode = |stored: &[u8], out: &mut [u8]| {
            decoder.decode(&data(&bytes, stored, Stored::Zstd), stored, out).map_err(|e| e.to_string())
        };
        let good = frame(&bytes);
        decode(&good, &mut out).expect("good");
        assert_eq!(out, bytes);

        let skippable = [&[0x50, 0x2a, 0x4d, 0x18, 1, 0, 0, 0, 7][..]].concat();
        let halves = [frame(&bytes[..4500]), frame(&bytes[4500..])].concat();
        for (bad, why) in [
            ([&good[..], b"x"].concat(), "trailing byte"),
            ([&good[..], &skippable].concat(), "trailing skippable frame"),
            ([&skippable[..], &good].concat(), "leading skippable frame"),
            (skippable, "nothing but a skippable frame"),
            (halves, "two frames"),
            (good[..good.len() - 1].to_vec(), "cut"),
            (frame(&bytes[1..]), "shorter"),
            (frame(&[&bytes[..], b"x"].concat()), "longer"),
            (frame(&b"Speediso ".repeat(1000)), "other bytes"),
            (Vec::new(), "empty"),
        ] {
            assert!(decode(&bad, &mut out).is_err(), "{why}");
        }
    }

    #[test]
    fn lengths_must_be_exact() {
        let bytes = [7u8; 512];
        let raw = data(&bytes, &bytes, Stored::Raw);
        let mut out = [0; 513];
        assert!(decode_chunk(&raw, &bytes, &mut out[..512]).is_ok());
        assert!(decode_chunk(&raw, &bytes, &mut out).is_err());
        assert!(decode_chunk(&raw, &bytes, &mut out[..511]).is_err());
        assert!(decode_chunk(&raw, &bytes[1..], &mut out[..512]).is_err());
        assert!(decode_chunk(&Chunk::Zero, &bytes, &mut out).is_err());
        decode_chunk(&Chunk::Zero, &[], &mut out).expect("nothing is stored");
        assert_eq!(out, [0; 513]);
    }

    #[test]
    fn what_does_not_shrink_is_stored_as_it_is() {
        let mut encoder = ChunkEncoder::new(Some(3)).expect("an encoder");
        let mut noise = vec![0; 1 << 16];
        blake3::Hasher::new().finalize_xof().fill(&mut noise);
        let (packed, spare) = encoder.encode(noise.clone(), Vec::new());
        assert!(matches!(packed, Packed::Data { stored, .. } if stored == noise));
        let (packed, spare) = encoder.encode(vec![1; 1 << 16], spare);
        assert!(matches!(packed, Packed::Data { stored, .. } if stored.len() < 100));
        let (packed, _) = encoder.encode(vec![0; 70_000], spare);
        assert!(matches!(packed, Packed::Zero));
    }

    #[test]
    fn one_bit_anywhere_is_not_zero() {
        for length in [1, 15, 16, 17, 4095, 4096, 4097, 9000] {
            let mut bytes = vec![0; length];
            assert!(is_zero(&bytes));
            for at in [0, length / 2, length - 1] {
                bytes[at] = 0x80;
                assert!(!is_zero(&bytes), "{at} of {length}");
                bytes[at] = 0;
            }
        }
    }
}

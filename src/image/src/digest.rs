//! Hashing what goes by.

use std::io::{self, Read};
use std::sync::{Arc, Mutex};

use aws_lc_rs::digest::{Context, SHA256, SHA512};
use speediso_model::image::{DigestAlgorithm, ImageDigest};

/// One digest in the making.
#[derive(Clone)]
pub enum Hasher {
    Sha256(Context),
    Sha512(Context),
    Blake3(Box<blake3::Hasher>),
}

impl std::fmt::Debug for Hasher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Sha256(_) => "Sha256",
            Self::Sha512(_) => "Sha512",
            Self::Blake3(_) => "Blake3",
        })
    }
}

impl Hasher {
    #[must_use]
    pub fn new(algorithm: DigestAlgorithm) -> Self {
        match algorithm {
            DigestAlgorithm::Sha256 => Self::Sha256(Context::new(&SHA256)),
            DigestAlgorithm::Sha512 => Self::Sha512(Context::new(&SHA512)),
            DigestAlgorithm::Blake3 => Self::Blake3(Box::new(blake3::Hasher::new())),
        }
    }

    pub fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(context) | Self::Sha512(context) => context.update(bytes),
            Self::Blake3(hasher) => {
                hasher.update(bytes);
            }
        }
    }

    /// Of everything so far.
    #[must_use]
    pub fn digest(&self) -> ImageDigest {
        match self {
            Self::Sha256(context) => {
                let mut bytes = [0; 32];
                bytes.copy_from_slice(context.clone().finish().as_ref());
                ImageDigest::sha256(bytes)
            }
            Self::Sha512(context) => {
                let mut bytes = [0; 64];
                bytes.copy_from_slice(context.clone().finish().as_ref());
                ImageDigest::sha512(bytes)
            }
            Self::Blake3(hasher) => ImageDigest::blake3(hasher.finalize().into()),
        }
    }
}

/// Passes bytes on and hashes each of them. The digest is asked for by a handle that outlives the reader, since the
/// reader ends up inside of decoders.
#[derive(Debug)]
pub struct Hashing<R> {
    inner: R,
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    hash: Hasher,
    length: u64,
}

/// Knows what a [`Hashing`] reader has passed on so far.
#[derive(Clone, Debug)]
pub struct Hashed(Arc<Mutex<State>>);

impl<R: Read> Hashing<R> {
    pub fn new(inner: R, algorithm: DigestAlgorithm) -> (Self, Hashed) {
        let state = Arc::new(Mutex::new(State { hash: Hasher::new(algorithm), length: 0 }));
        (Self { inner, state: Arc::clone(&state) }, Hashed(state))
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        let mut state = self.state.lock().map_err(|_| io::Error::other("the hashing thread panicked"))?;
        state.hash.update(&buffer[..n]);
        state.length += n as u64;
        Ok(n)
    }
}

impl Hashed {
    /// Digest and number of all bytes so far. `None` if a thread panicked while it held them.
    #[must_use]
    pub fn so_far(&self) -> Option<(ImageDigest, u64)> {
        let state = self.0.lock().ok()?;
        Some((state.hash.digest(), state.length))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The algorithms' own examples for "abc": FIPS 180-4, and BLAKE3's b3sum.
    #[test]
    fn every_byte_counts() {
        for (algorithm, digest) in [
            (DigestAlgorithm::Sha256, "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
            (
                DigestAlgorithm::Sha512,
                "sha512:ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a\
                 2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f",
            ),
            (DigestAlgorithm::Blake3, "blake3:6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85"),
        ] {
            let (mut reader, hashed) = Hashing::new(&b"abc"[..], algorithm);
            io::copy(&mut reader, &mut io::sink()).expect("memory");
            let (found, length) = hashed.so_far().expect("no panic");
            assert_eq!((found.to_string().as_str(), length), (digest, 3));
        }
    }
}

//! Hashing what goes by.

use std::io::{self, Read};
use std::sync::{Arc, Mutex};

use sha2::{Digest as _, Sha256};
use speediso_model::image::ImageDigest;

/// Passes bytes on and hashes each of them. The digest is asked for by a handle that outlives the reader, since the
/// reader ends up inside of decoders.
#[derive(Debug)]
pub struct Hashing<R> {
    inner: R,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    hash: Sha256,
    length: u64,
}

/// Knows what a [`Hashing`] reader has passed on so far.
#[derive(Clone, Debug)]
pub struct Hashed(Arc<Mutex<State>>);

impl<R: Read> Hashing<R> {
    pub fn new(inner: R) -> (Self, Hashed) {
        let state = Arc::new(Mutex::new(State::default()));
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
        Some((ImageDigest::sha256(state.hash.clone().finalize().into()), state.length))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_counts() {
        let (mut reader, hashed) = Hashing::new(&b"abc"[..]);
        io::copy(&mut reader, &mut io::sink()).expect("memory");
        let (digest, length) = hashed.so_far().expect("no panic");
        assert_eq!(length, 3);
        // FIPS 180-4's own example.
        assert_eq!(digest.to_string(), "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }
}

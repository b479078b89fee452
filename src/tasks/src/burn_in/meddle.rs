//! Somebody who spoils results, so that tests see that spoilt results are found.

/// Reached from Rust only: no order and no command line names one.
pub trait Meddler: Send + Sync {
    /// The result of a kernel on a core, before it is compared.
    fn result(&self, _core: u32, _kernel: &str, digest: u64) -> u64 {
        digest
    }

    /// A piece of memory between being written and being read back; `first` is the place of its first word.
    fn memory(&self, _words: &mut [u64], _first: u64) {}

    /// The same, when a word that was wrong is read again: a bit that is stuck is so still.
    fn again(&self, _word: &mut u64, _place: u64) {}
}

/// Nobody.
#[derive(Clone, Copy, Debug, Default)]
pub struct Honest;

impl Meddler for Honest {}

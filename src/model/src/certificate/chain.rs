//! The certificates of a site in order: each names its number and the hash of the one before, so none can be taken out,
//! put in or exchanged without all that follow being signed again.
//!
//! What a chain cannot show is that its end was cut off. Whoever keeps the newest certificate, or its hash, can tell.

use super::document::{Digest, Document};

/// Reads documents in order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Chain {
    next: u64,
    previous: Digest,
}

#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BrokenChain {
    #[error("number {found} stands where number {expected} belongs: one was removed, put in or moved")]
    Number { expected: u64, found: u64 },
    #[error("certificate {number} does not follow the one before it: it names {named}, that is {is}")]
    Link { number: u64, named: Digest, is: Digest },
}

impl Default for Chain {
    fn default() -> Self {
        Self { next: 1, previous: Digest::none() }
    }
}

impl Chain {
    /// The chain as it is after this many certificates, the last of which has this hash.
    #[must_use]
    pub fn after(number: u64, digest: Digest) -> Self {
        Self { next: number + 1, previous: digest }
    }

    /// # Errors
    /// When the document is not the next one. The chain is then as before.
    pub fn push(&mut self, document: &Document) -> Result<(), BrokenChain> {
        let statement = document.statement();
        if statement.number != self.next {
            return Err(BrokenChain::Number { expected: self.next, found: statement.number });
        }
        if statement.previous != self.previous {
            return Err(BrokenChain::Link {
                number: statement.number,
                named: statement.previous.clone(),
                is: self.previous.clone(),
            });
        }
        *self = Self::after(statement.number, document.digest().clone());
        Ok(())
    }

    /// The number of the certificate that would come next.
    #[must_use]
    pub fn next_number(&self) -> u64 {
        self.next
    }

    /// What that one has to name.
    #[must_use]
    pub fn head(&self) -> &Digest {
        &self.previous
    }

    /// How many were read, from the first.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.next - 1
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certificate::samples::{seal, statement};

    fn site(n: u64) -> Vec<Document> {
        let mut chain = Chain::default();
        (0..n)
            .map(|_| {
                let document = seal(statement(chain.next_number(), chain.head().clone()));
                chain.push(&document).expect("the next one");
                document
            })
            .collect()
    }

    fn read<'a>(documents: impl IntoIterator<Item = &'a Document>) -> Result<Chain, BrokenChain> {
        let mut chain = Chain::default();
        documents.into_iter().try_for_each(|d| chain.push(d))?;
        Ok(chain)
    }

    #[test]
    fn a_whole_chain_is_read() {
        let site = site(5);
        let chain = read(&site).expect("whole");
        assert_eq!((chain.len(), chain.head()), (5, site[4].digest()));
        assert!(read(&[]).expect("a site without certificates").is_empty());
    }

    #[test]
    fn what_was_removed_moved_or_put_in_is_found() {
        let whole = site(5);
        for i in 0..4 {
            let mut removed = whole.clone();
            removed.remove(i);
            assert!(matches!(read(&removed), Err(BrokenChain::Number { .. })), "without {}", i + 1);
            let mut moved = whole.clone();
            moved.swap(i, i + 1);
            assert!(read(&moved).is_err(), "{} moved", i + 1);
            let mut twice = whole.clone();
            twice.insert(i, whole[i].clone());
            assert!(read(&twice).is_err(), "{} twice", i + 1);
            // One that the right key signed, with the right number, but not from here: another history.
            let mut other = statement(whole[i].statement().number, whole[i].statement().previous.clone());
            other.issuer.location = "elsewhere".into();
            let mut exchanged = whole.clone();
            exchanged[i] = seal(other);
            assert!(matches!(read(&exchanged), Err(BrokenChain::Link { .. })), "{} exchanged", i + 1);
        }
    }
}

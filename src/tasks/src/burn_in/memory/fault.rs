//! Words that were wrong.

use std::fmt;

/// What happened when the word was read again, past the caches.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Kind {
    /// It was right then: reading failed, not the cell.
    Transient,
    /// It was wrong again, and right after it was written anew.
    Lost,
    /// It stayed wrong.
    Stuck,
}

impl Kind {
    const ALL: [Self; 3] = [Self::Transient, Self::Lost, Self::Stuck];

    fn words(self) -> &'static str {
        match self {
            Self::Transient => "right when read again",
            Self::Lost => "right when written again",
            Self::Stuck => "stuck: wrong when written again",
        }
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct WrongWord {
    pub(super) node: u32,
    /// Virtual address over 8.
    pub(super) place: u64,
    pub(super) physical: Option<u64>,
    pub(super) pattern: &'static str,
    pub(super) expected: u64,
    pub(super) got: u64,
    pub(super) kind: Kind,
}

impl fmt::Display for WrongWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.physical {
            Some(physical) => write!(f, "memory at physical address {physical:#x}")?,
            None => write!(f, "memory at virtual address {:#x}", self.place * 8)?,
        }
        write!(
            f,
            " (node {}, pattern {}): {:016x} instead of {:016x}, bits {:016x}, {}",
            self.node,
            self.pattern,
            self.got,
            self.expected,
            self.got ^ self.expected,
            self.kind.words()
        )
    }
}

/// All are counted, the first are kept.
#[derive(Clone, Debug, Default)]
pub(super) struct Faults {
    kept: Vec<WrongWord>,
    by_kind: [u64; 3],
    /// Not looked at again: there were too many.
    further: u64,
    bits: u64,
}

impl Faults {
    const KEPT: usize = 24;
    /// Beyond this words are counted only: a dead module has a billion of them.
    pub(super) const LOOKED_AT: u64 = 1000;

    pub(super) fn count(&self) -> u64 {
        self.by_kind.iter().sum::<u64>() + self.further
    }

    pub(super) fn push(&mut self, word: WrongWord) {
        self.by_kind[word.kind as usize] += 1;
        self.bits |= word.expected ^ word.got;
        if self.kept.len() < Self::KEPT {
            self.kept.push(word);
        }
    }

    pub(super) fn count_only(&mut self, expected: u64, got: u64) {
        self.further += 1;
        self.bits |= expected ^ got;
    }

    pub(super) fn add(&mut self, other: &Self) {
        let room = Self::KEPT.saturating_sub(self.kept.len());
        self.kept.extend(other.kept.iter().take(room).cloned());
        for (mine, theirs) in self.by_kind.iter_mut().zip(other.by_kind) {
            *mine += theirs;
        }
        self.further += other.further;
        self.bits |= other.bits;
    }

    /// For the report; nothing when nothing was wrong.
    pub(super) fn describe(&self) -> Vec<String> {
        if self.count() == 0 {
            return Vec::new();
        }
        let mut text = format!("{} wrong words, in bits {:016x}", self.count(), self.bits);
        for kind in Kind::ALL {
            let n = self.by_kind[kind as usize];
            if n > 0 {
                text.push_str(&format!("; {n} {}", kind.words()));
            }
        }
        if self.further > 0 {
            text.push_str(&format!("; {} not looked at again", self.further));
        }
        std::iter::once(text).chain(self.kept.iter().map(ToString::to_string)).collect()
    }
}

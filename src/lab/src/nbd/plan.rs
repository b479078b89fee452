//! Which request of a disk goes wrong, and how.

use std::ops::Range;
use std::time::Duration;

use super::wire::Operation;

/// What a rule is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum On {
    Read,
    /// Writing, zeroing or trimming.
    Change,
    Flush,
    Anything,
}

/// What happens instead.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Then {
    /// What lies before the bad place is done, the rest not.
    Fail(Errno),
    /// No answer, until the disk is released.
    Hang,
    /// Done, but late.
    Delay(Duration),
    /// Of what is read, one bit is another one; what is stored is right.
    FlipBit,
    /// Nothing is done and success is told, but of reading.
    Lie,
    /// What is written lands at this offset instead, and success is told.
    Misdirect(u64),
    /// The disk is gone, for this request and all that follow.
    Vanish,
}

/// Those of the protocol.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Errno {
    Io = 5,
    NoSpace = 28,
}

/// One way in which a disk is bad. The first rule that a request meets is the one that counts.
#[derive(Clone, Debug)]
pub struct Rule {
    on: On,
    touching: Range<u64>,
    once_written: Option<u64>,
    times: u32,
    pub(super) then: Then,
}

impl Rule {
    /// Wherever, always.
    pub fn new(on: On, then: Then) -> Self {
        Self { on, touching: 0..u64::MAX, once_written: None, times: u32::MAX, then }
    }

    /// Only requests for a part of these bytes.
    #[must_use]
    pub fn touching(mut self, bytes: Range<u64>) -> Self {
        self.touching = bytes;
        self
    }

    /// Only after the byte at this offset was written since the rule was made.
    #[must_use]
    pub fn once_written(mut self, offset: u64) -> Self {
        self.once_written = Some(offset);
        self
    }

    /// Only so often, then the disk is well again.
    #[must_use]
    pub fn times(mut self, times: u32) -> Self {
        self.times = times;
        self
    }

    /// Whether it is about this request, which counts as one of its times then.
    pub(super) fn meets(&mut self, operation: Operation, bytes: &Range<u64>) -> bool {
        let about = match self.on {
            On::Read => operation == Operation::Read,
            On::Change => is_change(operation),
            On::Flush => operation == Operation::Flush,
            On::Anything => true,
        };
        let place = operation == Operation::Flush || overlap(&self.touching, bytes);
        let meets = about && place && self.once_written.is_none() && self.times > 0;
        if meets {
            self.times -= 1;
        }
        meets
    }

    /// Tells it of a change that was made.
    pub(super) fn saw_change(&mut self, bytes: &Range<u64>) {
        if self.once_written.is_some_and(|offset| bytes.contains(&offset)) {
            self.once_written = None;
        }
    }

    /// How much of these bytes lies before the bad place.
    pub(super) fn good_before(&self, bytes: &Range<u64>) -> u64 {
        self.touching.start.clamp(bytes.start, bytes.end) - bytes.start
    }

    /// The bad place itself.
    pub(super) fn place(&self) -> u64 {
        self.touching.start
    }
}

pub(super) fn is_change(operation: Operation) -> bool {
    matches!(operation, Operation::Write | Operation::Zero | Operation::Trim)
}

fn overlap(a: &Range<u64>, b: &Range<u64>) -> bool {
    a.start < b.end && b.start < a.end
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_meets_what_it_is_about_and_as_often_as_it_says() {
        let mut rule = Rule::new(On::Change, Then::Lie).touching(100..200).times(2);
        assert!(!rule.meets(Operation::Read, &(100..200)));
        assert!(!rule.meets(Operation::Write, &(200..300)), "ranges end before their end");
        assert!(rule.meets(Operation::Write, &(0..101)));
        assert!(rule.meets(Operation::Zero, &(199..300)));
        assert!(!rule.meets(Operation::Trim, &(150..151)), "twice is enough");
        assert_eq!((rule.good_before(&(50..300)), rule.good_before(&(150..300))), (50, 0));
    }

    #[test]
    fn a_rule_can_wait_for_a_write() {
        let mut rule = Rule::new(On::Flush, Then::Hang).once_written(512);
        rule.saw_change(&(0..512));
        assert!(!rule.meets(Operation::Flush, &(0..0)));
        rule.saw_change(&(512..1024));
        assert!(rule.meets(Operation::Flush, &(0..0)));
    }
}

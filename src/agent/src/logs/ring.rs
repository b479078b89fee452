//! The last lines, bounded by their size.

use std::collections::VecDeque;
use std::sync::Arc;

use speediso_model::log::{LogLine, LogSource};

/// What a line costs beside its text.
const OVERHEAD: usize = 64;

#[derive(Debug)]
pub struct Ring {
    lines: VecDeque<Arc<LogLine>>,
    bytes: usize,
    limit: usize,
    /// Of the line that comes next. Counts every line, whatever its source.
    next: u64,
    last_seq: u64,
}

/// Some lines in order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Batch {
    pub lines: Vec<Arc<LogLine>>,
    /// Lines between where the reader was and the first of these.
    pub lost: u64,
    /// Where to go on.
    pub next: u64,
}

impl Ring {
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self { lines: VecDeque::new(), bytes: 0, limit, next: 0, last_seq: 0 }
    }

    /// Keeps a line, and forgets as many old ones as that takes. Returns the number of the next.
    pub fn push(&mut self, line: Arc<LogLine>) -> u64 {
        self.bytes += line.text.len() + OVERHEAD;
        if line.source == LogSource::Agent {
            self.last_seq = line.seq;
        }
        self.lines.push_back(line);
        self.next += 1;
        while self.bytes > self.limit && self.lines.len() > 1 {
            if let Some(old) = self.lines.pop_front() {
                self.bytes -= old.text.len() + OVERHEAD;
            }
        }
        self.next
    }

    /// The lines from number `from` on, at most `most` of them.
    #[must_use]
    pub fn after(&self, from: u64, most: usize) -> Batch {
        let oldest = self.next - self.lines.len() as u64;
        let start = from.clamp(oldest, self.next);
        let skip = usize::try_from(start - oldest).unwrap_or(usize::MAX);
        let lines: Vec<_> = self.lines.iter().skip(skip).take(most).cloned().collect();
        let next = start + lines.len() as u64;
        Batch { lines, lost: start.saturating_sub(from), next }
    }

    /// Of the agent's own lines.
    #[must_use]
    pub fn last_seq(&self) -> u64 {
        self.last_seq
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use speediso_model::log::LogLevel;

    use super::*;

    fn line(seq: u64, length: usize) -> Arc<LogLine> {
        let text = "x".repeat(length);
        Arc::new(LogLine { seq, uptime_ms: 0, level: LogLevel::Info, source: LogSource::Agent, text })
    }

    proptest! {
        /// Whoever reads in any steps sees each line once and in order, or is told how many it missed.
        #[test]
        fn nothing_is_lost_without_a_word(steps in prop::collection::vec((0usize..6, 0usize..40, 1usize..5), 1..60)) {
            let mut ring = Ring::new(600);
            let (mut said, mut at, mut seen, mut lost) = (0u64, 0u64, 0u64, 0u64);
            for (more, length, most) in steps {
                for _ in 0..more {
                    said += 1;
                    ring.push(line(said, length));
                }
                prop_assert!(ring.bytes <= 600 || ring.lines.len() == 1);
                let batch = ring.after(at, most);
                if let Some(first) = batch.lines.first() {
                    prop_assert_eq!(first.seq, at + batch.lost + 1);
                }
                seen += batch.lines.len() as u64;
                lost += batch.lost;
                at = batch.next;
            }
            let rest = ring.after(at, usize::MAX);
            prop_assert_eq!(seen + lost + rest.lost + rest.lines.len() as u64, said);
        }
    }
}

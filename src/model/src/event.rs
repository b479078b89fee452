//! What an agent tells while it works.
//!
//! Two kinds. *Events* are few, numbered from 1 within a boot, and delivered at least once and in order until they are
//! acknowledged. *Progress* is much and may be lost: only the latest counts. The receiver ends in the same state
//! however often either arrives.

use std::collections::VecDeque;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::fault::Fault;
use crate::id::RunId;
use crate::network::NetworkReport;
use crate::outcome::TaskResult;
use crate::plan::{Plan, PlanDigest};
use crate::task::Task;

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Event {
    /// Counts up by one within a boot, over restarts of the agent.
    pub seq: u64,
    /// `None` for what concerns the machine rather than a run.
    #[serde(default)]
    pub run: Option<RunId>,
    /// Milliseconds since the kernel started.
    pub uptime_ms: u64,
    #[serde(flatten)]
    pub kind: EventKind,
}

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "event", rename_all = "snake_case")]
#[allow(clippy::large_enum_variant, reason = "events are few")]
pub enum EventKind {
    /// The agent is up; `restarts` counts how often it died in this boot.
    AgentStarted {
        version: String,
        restarts: u32,
    },
    /// A run exists; nothing was done yet.
    Registered {
        task: Task,
    },
    Planned {
        plan: Plan,
        digest: PlanDigest,
    },
    /// Permission to begin was given; the first change may follow.
    Started {
        digest: PlanDigest,
    },
    StepBegan {
        step: String,
    },
    StepEnded {
        step: String,
        detail: String,
    },
    /// Something worth knowing that ends nothing.
    Notice {
        text: String,
    },
    /// The last event of its run.
    Ended {
        result: TaskResult,
    },
    /// Trouble outside of any run.
    Trouble {
        fault: Fault,
    },
    /// The network was looked at because something of it failed.
    NetworkExamined {
        report: NetworkReport,
    },
    #[serde(other)]
    Unknown,
}

/// How far a step is.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Progress {
    pub run: RunId,
    /// `writing`, `reading back`, ...
    pub stage: String,
    pub current: u64,
    #[serde(default)]
    pub total: Option<u64>,
    /// `bytes`, mostly.
    pub unit: String,
    /// Units per second of late.
    pub rate: f64,
    /// The device, when a run has several.
    #[serde(default)]
    pub device: Option<String>,
    /// Milliseconds since the kernel started: an older report never replaces a newer one.
    pub uptime_ms: u64,
}

/// Events waiting for their acknowledgement.
#[derive(Clone, Debug, Default)]
pub struct EventBuffer {
    waiting: VecDeque<Event>,
    last_seq: u64,
}

impl EventBuffer {
    /// Goes on counting after `last_seq`, as an agent does that was restarted in the same boot.
    #[must_use]
    pub fn continuing(last_seq: u64) -> Self {
        Self { waiting: VecDeque::new(), last_seq }
    }

    /// Numbers an event and keeps it.
    pub fn push(&mut self, run: Option<RunId>, uptime_ms: u64, kind: EventKind) -> Event {
        self.last_seq += 1;
        let event = Event { seq: self.last_seq, run, uptime_ms, kind };
        self.waiting.push_back(event.clone());
        event
    }

    /// Takes back an event that was numbered in this boot before the agent was restarted.
    pub fn restore(&mut self, event: Event) {
        self.last_seq = self.last_seq.max(event.seq);
        self.waiting.push_back(event);
    }

    /// The oldest that are not acknowledged: at most `limit`, and no more than `bytes` of JSON unless the first alone
    /// is larger.
    #[must_use]
    pub fn batch(&self, limit: usize, bytes: usize) -> Vec<Event> {
        let mut total = 0;
        let fits = |(i, event): &(usize, &Event)| {
            total += serde_json::to_vec(event).map_or(0, |json| json.len());
            *i == 0 || total <= bytes
        };
        self.waiting.iter().enumerate().take(limit).take_while(fits).map(|(_, event)| event.clone()).collect()
    }

    /// Forgets what has arrived, all up to and with `seq`.
    pub fn acknowledge(&mut self, seq: u64) {
        while self.waiting.front().is_some_and(|e| e.seq <= seq) {
            self.waiting.pop_front();
        }
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    #[must_use]
    pub fn last_seq(&self) -> u64 {
        self.last_seq
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delivery_has_a_size_and_the_first_goes_whatever_its_own() {
        let mut buffer = EventBuffer::default();
        for length in [5000, 10, 10, 5000] {
            buffer.push(None, 0, EventKind::Notice { text: "x".repeat(length) });
        }
        assert_eq!(buffer.batch(10, 1000).len(), 1);
        buffer.acknowledge(1);
        assert_eq!(buffer.batch(10, 1000).len(), 2);
        assert_eq!(buffer.batch(1, 1000).len(), 1);
        assert_eq!(buffer.batch(10, usize::MAX).len(), 3);
    }
    use proptest::prelude::*;

    proptest! {
        /// A receiver that keeps the highest number and takes only the next one ends with every event once and in
        /// order, however batches and acknowledgements are lost or repeated.
        #[test]
        fn every_event_arrives_once_in_order(fates in prop::collection::vec(0u8..4, 1..80), n in 1u64..20) {
            let mut buffer = EventBuffer::default();
            for i in 0..n {
                buffer.push(None, i, EventKind::Notice { text: i.to_string() });
            }
            let mut received = Vec::new();
            let mut deliver = |batch: &[Event]| {
                for event in batch {
                    if event.seq == received.len() as u64 + 1 {
                        received.push(event.seq);
                    }
                }
                received.len() as u64
            };
            for fate in fates {
                let batch = buffer.batch(3, usize::MAX);
                match fate {
                    0 => {}                                        // the request is lost
                    1 => { deliver(&batch); }                      // the answer is lost
                    2 => { deliver(&batch); let ack = deliver(&batch); buffer.acknowledge(ack); }
                    _ => { let ack = deliver(&batch); buffer.acknowledge(ack); }
                }
            }
            while !buffer.is_empty() {
                let ack = deliver(&buffer.batch(3, usize::MAX));
                buffer.acknowledge(ack);
            }
            prop_assert_eq!(received, (1..=n).collect::<Vec<_>>());
        }
    }

    #[test]
    fn an_event_of_a_newer_agent_is_kept_as_unknown() {
        let event: Event =
            serde_json::from_str(r#"{"seq":3,"uptime_ms":1,"event":"teleported","to":"mars"}"#).expect("lenient");
        assert_eq!(event.kind, EventKind::Unknown);
    }
}

//! Waking those who wait in a long poll.
//!
//! Changes are announced through the store, so that one made by any replica wakes waiters in all of them. Each process
//! has one task that reads the table of changes: at once after its own commits, else four times a second. A waiter
//! that is woken looks into the store again; being woken for nothing costs a look, never a wrong answer.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use speediso_model::id::NodeId;
use tokio::sync::Notify;

use crate::store::Store;

/// Anything new in the store of events.
pub const EVENTS: &str = "events";

/// How late a change made by another replica may be noticed.
const POLL: Duration = Duration::from_millis(250);

/// Something the agent of this node waits for.
#[must_use]
pub fn node(id: NodeId) -> String {
    format!("node:{id}")
}

/// A line of this machine's log.
#[must_use]
pub fn log(id: NodeId) -> String {
    format!("log:{id}")
}

#[derive(Debug, Default)]
pub struct Wakes {
    waiting: Mutex<HashMap<String, Weak<Notify>>>,
    nudge: Notify,
}

impl Wakes {
    /// To be had before looking into the store, so that no change falls between the look and the wait. Use
    /// `notified()` with `enable()`.
    pub fn on(&self, topic: &str) -> Arc<Notify> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(notify) = waiting.get(topic).and_then(Weak::upgrade) {
            return notify;
        }
        waiting.retain(|_, n| n.strong_count() > 0);
        let notify = Arc::new(Notify::new());
        waiting.insert(topic.to_owned(), Arc::downgrade(&notify));
        notify
    }

    /// Something was committed here: look now rather than in a quarter of a second.
    pub fn nudge(&self) {
        self.nudge.notify_one();
    }

    /// Runs for ever.
    pub async fn run(&self, store: &dyn Store) {
        let mut seen = 0;
        loop {
            let _ = tokio::time::timeout(POLL, self.nudge.notified()).await;
            match store.changes(seen).await {
                Ok(changes) => {
                    let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
                    for (topic, seq) in changes {
                        seen = seen.max(seq);
                        if let Some(notify) = waiting.get(&topic).and_then(Weak::upgrade) {
                            notify.notify_waiters();
                        }
                    }
                }
                // Waiters time out and ask again by themselves.
                Err(error) => {
                    tracing::error!(error = &error as &dyn std::error::Error, "reading the changes; proceeding");
                }
            }
        }
    }
}

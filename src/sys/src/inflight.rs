//! What disks were asked for and have not answered yet.
//!
//! A request that hangs in the kernel cannot be taken back, and the thread that made it cannot be ended. Somebody else
//! has to notice, and to say that nobody knows what became of the disk.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// One request.
#[derive(Clone, Debug)]
pub struct Request {
    pub operation: &'static str,
    pub device: String,
    pub offset: u64,
    pub length: u64,
    pub since: Instant,
}

struct Open {
    next: u64,
    requests: BTreeMap<u64, Request>,
}

static OPEN: Mutex<Open> = Mutex::new(Open { next: 0, requests: BTreeMap::new() });

fn open() -> MutexGuard<'static, Open> {
    // Every change is one insertion or one removal.
    OPEN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes the request off the list when it is answered.
pub(crate) struct Asked(u64);

pub(crate) fn ask(operation: &'static str, device: &str, offset: u64, length: u64) -> Asked {
    list(Request { operation, device: device.to_owned(), offset, length, since: Instant::now() })
}

/// A command to the device itself that may take as long as `limit`, hours for some: it counts as waiting only then.
pub(crate) fn ask_within(operation: &'static str, device: &str, limit: Duration) -> Asked {
    list(Request { operation, device: device.to_owned(), offset: 0, length: 0, since: Instant::now() + limit })
}

fn list(request: Request) -> Asked {
    let mut open = open();
    let number = open.next;
    open.next += 1;
    open.requests.insert(number, request);
    Asked(number)
}

impl Drop for Asked {
    fn drop(&mut self) {
        open().requests.remove(&self.0);
    }
}

/// The request to any disk that has waited longest, of those made after `begin`.
#[must_use]
pub fn oldest_since(begin: Instant) -> Option<Request> {
    open().requests.values().filter(|request| request.since >= begin).min_by_key(|request| request.since).cloned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_listed_until_they_are_answered() {
        let begin = Instant::now();
        let first = ask("writing", "/dev/test", 4096, 512);
        let second = ask("reading", "/dev/test", 0, 512);
        let found = oldest_since(begin).map(|r| (r.operation, r.offset));
        assert_eq!(found, Some(("writing", 4096)));
        assert!(oldest_since(Instant::now()).is_none(), "those of before are another's");
        drop(first);
        assert_eq!(oldest_since(begin).map(|r| r.operation), Some("reading"));
        let erasing = ask_within("erasing", "/dev/test", Duration::from_hours(2));
        assert_eq!(oldest_since(begin).map(|r| r.operation), Some("reading"), "hours are what it may take");
        drop(second);
        assert!(oldest_since(begin).is_some_and(|r| r.since.elapsed().is_zero()));
        drop(erasing);
        assert!(oldest_since(begin).is_none());
    }
}

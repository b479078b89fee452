//! One image on one disk, among the machines that write it.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sha2::{Digest as _, Sha256};
use speediso_image::manifest::{Index, Manifest};
use speediso_model::fault::Fault;
use speediso_model::id::{Epoch, NodeId};
use speediso_model::plan::hex;
use speediso_model::share::picker::{From, Picked, Picker};
use speediso_model::share::{Permit, SegmentMap, ShareAnswer, ShareRequest};
use speediso_sys::claim::ClaimedDisk;
use tokio::sync::Notify;

use super::{Layout, Offer, PeerError, Run, Sharing, Wanted};
use crate::ctx::TaskCtx;

/// How often a worker that waits looks whether it is to stop.
const LOOK: Duration = Duration::from_millis(100);
/// Without a word of the controller for so long, everybody fetches for himself.
const CONTROLLER_PATIENCE: Duration = Duration::from_secs(5);
/// How long he does so before he asks again.
const ALONE: Duration = Duration::from_secs(10);
/// Liars that are told of in one announcement.
const MOST_WRONG: usize = 16;

/// A job for one worker.
#[derive(Debug)]
pub(crate) struct Handed {
    pub(crate) run: Run,
    pub(crate) zero: bool,
    picked: Option<Picked>,
}

impl Handed {
    /// Who is to be asked, if it is not the image's server.
    pub(crate) fn peer(&self) -> Option<NodeId> {
        match self.picked?.from {
            From::Origin => None,
            From::Peer(node) => Some(node),
        }
    }

    fn at_origin(&self) -> bool {
        !self.zero && self.peer().is_none()
    }
}

struct State {
    picker: Picker,
    private: Vec<Run>,
    zeroes: Vec<Run>,
    /// Of jobs that came back half done: what is left of them.
    rest: HashMap<(usize, u32), Run>,
    addresses: BTreeMap<NodeId, SocketAddr>,
    wrong: Vec<NodeId>,
    /// So many of them are on their way to the controller.
    wrong_told: usize,
    permit: Option<Permit>,
    permit_key: String,
    /// The controller's clock, and ours when it told.
    heard: Option<(i64, Instant)>,
    last_heard: Instant,
    /// At the image's server now, since when, and what that has come to since the last announcement.
    at_origin: u32,
    origin_since: Instant,
    fetched_bytes: u64,
    fetched_time: Duration,
}

pub struct Swarm {
    manifest: String,
    origin: String,
    segment_bytes: u64,
    layout: Arc<Layout>,
    offer: Offer,
    sharing: Arc<dyn Sharing>,
    begun: Instant,
    state: Mutex<State>,
    changed: Condvar,
    hungry: Notify,
}

impl std::fmt::Debug for Swarm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Swarm").field("manifest", &self.manifest).field("origin", &self.origin).finish_non_exhaustive()
    }
}

/// What is written, as the writer knows it.
pub(crate) struct Image<'a> {
    pub(crate) json: &'a [u8],
    pub(crate) manifest: Arc<Manifest>,
    pub(crate) index: Arc<Index>,
    pub(crate) url: &'a str,
    pub(crate) layout: Layout,
    pub(crate) workers: usize,
}

impl Swarm {
    /// Joins the machines that write this image, if the front door knows a way to them.
    pub(crate) fn join(image: Image<'_>, disk: &ClaimedDisk, ctx: &TaskCtx) -> Option<Arc<Self>> {
        let sharing = Arc::clone(ctx.sharing.as_ref()?);
        let jobs = image.layout.segments();
        if jobs.is_empty() {
            return None;
        }
        let alone = |fault: Fault| {
            ctx.reporter.notice(&format!("not sharing with other machines: {fault}; proceeding with the server alone"));
        };
        let reader = disk.reader().map_err(|e| alone(disk.fault(&e))).ok()?;
        let (manifest, now) = (hex(&Sha256::digest(image.json)), Instant::now());
        let picker = Picker::new(&jobs, image.workers, rand::random(), 0);
        let stored = image.manifest.data_size() / jobs.len().max(1) as u64;
        let (private, zeroes) = (image.layout.private.clone(), image.layout.zeroes.clone());
        let layout = Arc::new(image.layout);
        let have = SegmentMap::none_of(jobs.len());
        let swarm = Arc::new(Self {
            manifest,
            origin: host_of(image.url),
            segment_bytes: stored.max(1),
            offer: Offer::new(image.manifest, image.index, Arc::clone(&layout), reader, have),
            layout,
            sharing: Arc::clone(&sharing),
            begun: now,
            state: Mutex::new(State {
                picker,
                private,
                zeroes,
                rest: HashMap::new(),
                addresses: BTreeMap::new(),
                wrong: Vec::new(),
                wrong_told: 0,
                permit: None,
                permit_key: String::new(),
                heard: None,
                last_heard: now,
                at_origin: 0,
                origin_since: now,
                fetched_bytes: 0,
                fetched_time: Duration::ZERO,
            }),
            changed: Condvar::new(),
            hungry: Notify::new(),
        });
        let at = sharing.join(Arc::clone(&swarm)).map_err(alone).ok()?;
        ctx.reporter.notice(&format!("this image's chunks are given to other machines on {at} while it is written"));
        Some(swarm)
    }

    // ------------------------------------------------------------ for workers

    /// The next job, waited for. `None` when there is nothing left to do, or `stop` says so.
    pub(crate) fn next(&self, stop: &dyn Fn() -> bool) -> Option<Handed> {
        let mut state = self.state();
        loop {
            if stop() {
                return None;
            }
            let now = self.now();
            let own = |run, zero| Some(Handed { run, zero, picked: None });
            let handed = if let Some(run) = state.private.pop() {
                own(run, false)
            } else if let Some(picked) = state.picker.pick(now) {
                let rest = state.rest.remove(&(picked.segment, picked.job));
                let run = rest.or_else(|| self.layout.job(picked.segment, picked.job))?;
                Some(Handed { run, zero: false, picked: Some(picked) })
            } else {
                state.zeroes.pop().and_then(|run| own(run, true))
            };
            if state.picker.ticket_runs_out() {
                self.hungry.notify_one();
            }
            if let Some(handed) = handed {
                if handed.at_origin() {
                    if state.at_origin == 0 {
                        state.origin_since = Instant::now();
                    }
                    state.at_origin += 1;
                }
                return Some(handed);
            }
            if state.picker.is_done() {
                return None;
            }
            state = self.changed.wait_timeout(state, LOOK).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// The job is on the disk, `bytes` of it from the image's server.
    pub(crate) fn done(&self, handed: &Handed, bytes: u64) {
        let mut state = self.state();
        state.fetched_bytes += bytes;
        self.left_origin(&mut state, handed);
        if let Some(picked) = handed.picked {
            let now = self.now();
            if state.picker.done(picked, now) {
                self.offer.add(picked.segment);
            }
        }
        drop(state);
        self.changed.notify_all();
    }

    /// A peer did not give; from chunk `left` on the job is still to be done.
    pub(crate) fn failed(&self, handed: &Handed, left: u64, error: &PeerError) {
        let Some(picked) = handed.picked else { return };
        let mut state = self.state();
        let rest = Run { first: left, count: handed.run.end() - left };
        state.rest.insert((picked.segment, picked.job), rest);
        let now = self.now();
        state.picker.failed(picked, error.how(), now);
        if let (PeerError::Wrong { .. }, From::Peer(node)) = (error, picked.from)
            && state.wrong.len() < MOST_WRONG
        {
            state.wrong.push(node);
        }
        drop(state);
        self.changed.notify_all();
    }

    fn left_origin(&self, state: &mut State, handed: &Handed) {
        if handed.at_origin() {
            state.at_origin -= 1;
            if state.at_origin == 0 {
                state.fetched_time += state.origin_since.elapsed();
            }
        }
    }

    /// Chunks from a peer, decoded, `length` bytes together.
    pub(crate) fn get(
        &self,
        node: NodeId,
        chunks: std::ops::Range<u64>,
        length: usize,
        into: &mut Vec<u8>,
    ) -> Result<(), PeerError> {
        let address = self.state().addresses.get(&node).copied();
        let address = address.ok_or_else(|| PeerError::Silent("it is not named any more".into()))?;
        let wanted = Wanted { node, address, first: chunks.start, last: chunks.end - 1, length };
        self.sharing.get(self, &wanted, into)
    }

    // ------------------------------------------------------------ for the front door

    /// SHA-256 of `manifest.json`, in hex.
    #[must_use]
    pub fn manifest(&self) -> &str {
        &self.manifest
    }

    #[must_use]
    pub fn offer(&self) -> &Offer {
        &self.offer
    }

    /// Whether everything that is shared is on the disk.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.state().picker.is_done()
    }

    /// What there is to tell the controller. What was fetched counts from here on anew.
    #[must_use]
    pub fn announcement(&self, epoch: Epoch, address: Option<SocketAddr>, switch: Option<String>) -> ShareRequest {
        let mut state = self.state();
        if state.at_origin > 0 {
            let passed = state.origin_since.elapsed();
            state.fetched_time += passed;
            state.origin_since = Instant::now();
        }
        ShareRequest {
            epoch,
            manifest: self.manifest.clone(),
            origin: self.origin.clone(),
            address,
            switch,
            have: self.offer.have(),
            segment_bytes: self.segment_bytes,
            fetched_bytes: std::mem::take(&mut state.fetched_bytes),
            fetched_ms: millis(std::mem::take(&mut state.fetched_time)),
            wrong: {
                state.wrong_told = state.wrong.len();
                state.wrong.clone()
            },
            leaving: false,
        }
    }

    /// Takes the controller's word.
    pub fn heed(&self, answer: &ShareAnswer, sent: Instant) {
        let mut state = self.state();
        state.last_heard = Instant::now();
        state.heard = Some((answer.now_ms, Instant::now()));
        let told = std::mem::take(&mut state.wrong_told);
        state.wrong.drain(..told);
        state.permit.clone_from(&answer.permit);
        state.permit_key.clone_from(&answer.permit_key);
        state.addresses.extend(answer.peers.iter().map(|p| (p.node, p.address)));
        let until = millis(sent.duration_since(self.begun)) + answer.ticket_ms;
        state.picker.heed(&answer.peers, &answer.ticket, until);
        drop(state);
        self.changed.notify_all();
    }

    /// The controller did not answer, and will not if `never`. Peers are asked on as long as permits last.
    pub fn unheard(&self, never: bool) {
        let mut state = self.state();
        if never || state.last_heard.elapsed() > CONTROLLER_PATIENCE {
            let until = self.now() + millis(ALONE);
            state.picker.alone(until);
            drop(state);
            self.changed.notify_all();
        }
    }

    /// Ends when the next ticket should be asked for.
    pub async fn hungry(&self) {
        self.hungry.notified().await;
    }

    /// Peers to ask what they hold.
    #[must_use]
    pub fn to_look_at(&self) -> Vec<(NodeId, SocketAddr)> {
        let state = self.state();
        let nodes = state.picker.to_look_at(self.now());
        nodes.into_iter().filter_map(|node| Some((node, *state.addresses.get(&node)?))).collect()
    }

    pub fn holds(&self, node: NodeId, have: &SegmentMap) {
        self.state().picker.holds(node, have);
        self.changed.notify_all();
    }

    #[must_use]
    pub fn permit(&self) -> Option<Permit> {
        self.state().permit.clone()
    }

    /// The key that permits are judged by, and the controller's time now. `None` until it has spoken.
    #[must_use]
    pub fn judge(&self) -> Option<(String, i64)> {
        let state = self.state();
        let (then, at) = state.heard?;
        Some((
            state.permit_key.clone(),
            then.saturating_add(i64::try_from(at.elapsed().as_millis()).unwrap_or(i64::MAX)),
        ))
    }

    fn now(&self) -> u64 {
        millis(self.begun.elapsed())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic in the middle leaves a job that nobody has; the task ends by the panic, not by this.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Host and port, without what may be secret.
fn host_of(url: &str) -> String {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    authority.rsplit('@').next().unwrap_or_default().chars().take(255).collect()
}

/// `n` or `n-m` as a path has it.
#[must_use]
pub fn chunks_of(text: &str) -> Option<(u64, u64)> {
    let number = |t: &str| t.bytes().all(|b| b.is_ascii_digit()).then(|| t.parse::<u64>().ok()).flatten();
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (number(first)?, number(last)?);
    (first <= last).then_some((first, last))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_in_paths() {
        assert_eq!(chunks_of("7"), Some((7, 7)));
        assert_eq!(chunks_of("7-9"), Some((7, 9)));
        for bad in ["", "-", "9-7", "1-", "-1", "+1", "1-2-3", "99999999999999999999"] {
            assert_eq!(chunks_of(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn servers_are_told_apart_by_host_and_port() {
        assert_eq!(host_of("https://user:secret@images.example:8443/a?b=c"), "images.example:8443");
        assert_eq!(host_of("http://[2001:db8::1]/x"), "[2001:db8::1]");
    }
}

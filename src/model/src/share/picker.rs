//! The agent's side: which part of the image to fetch next, and from whom.
//!
//! An image's segments consist of *jobs*, each one request. A job is begun by one worker, and comes back if whoever was
//! asked did not give it. Peers are asked for what fewest of them hold; the image's server for what the controller's
//! ticket names, and, when nothing has come from anywhere for long, for anything: a controller that is gone and peers
//! that give nothing cost time, never the task.

use std::collections::BTreeMap;

use super::{Dice, Peer, SegmentMap};
use crate::id::NodeId;

/// Requests to one peer at once: two, so that it reads one while it sends the other.
const AT_ONE_PEER: usize = 2;
/// Without a job's end for so long, the server is asked for whatever is missing.
pub const PATIENCE_MS: u64 = 20_000;
/// A peer that failed is left alone for this long, and for twice as long each time after that.
const SHUN_MS: u64 = 5_000;
/// One that was busy, for this long.
const BUSY_MS: u64 = 200;

/// Who is to be asked.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum From {
    Origin,
    Peer(NodeId),
}

/// One job, handed out once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Picked {
    pub segment: usize,
    /// Within the segment.
    pub job: u32,
    pub from: From,
}

/// How a request to a peer failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Failed {
    /// It has too much to do, or does not hold it yet.
    Busy,
    /// It is slow, gone, or says no.
    Silent,
    /// Its bytes are not the image's. It is not asked again.
    Wrong,
}

#[derive(Clone, Debug)]
struct Segment {
    jobs: u32,
    /// Jobs from here on were never begun.
    next: u32,
    /// Begun and come back.
    returned: Vec<u32>,
    done: u32,
}

impl Segment {
    fn is_open(&self) -> bool {
        self.next < self.jobs || !self.returned.is_empty()
    }

    fn is_begun(&self) -> bool {
        self.next > 0
    }

    fn take(&mut self) -> Option<u32> {
        if let Some(job) = self.returned.pop() {
            return Some(job);
        }
        let job = (self.next < self.jobs).then_some(self.next)?;
        self.next += 1;
        Some(job)
    }
}

#[derive(Clone, Debug)]
struct Known {
    near: bool,
    have: SegmentMap,
    asked: usize,
    shunned_until: u64,
    failures: u32,
    wrong: bool,
}

#[derive(Clone, Debug)]
pub struct Picker {
    segments: Vec<Segment>,
    have: SegmentMap,
    peers: BTreeMap<NodeId, Known>,
    ticket: SegmentMap,
    ticket_until: u64,
    at_origin: usize,
    /// Workers that may be at the server while peers have something.
    origin_share: usize,
    /// Where in the image this machine begins, so that machines that start together hold different things soon.
    start: usize,
    /// When a job last ended well.
    progress: u64,
    dice: Dice,
}

impl Picker {
    /// `jobs` of each segment, `workers` that will pick, and the time: milliseconds from any beginning.
    #[must_use]
    pub fn new(jobs: &[u32], workers: usize, seed: u64, now: u64) -> Self {
        let mut have = SegmentMap::none_of(jobs.len());
        jobs.iter().enumerate().filter(|(_, n)| **n == 0).for_each(|(s, _)| have.insert(s));
        let mut dice = Dice::new(seed);
        Self {
            segments: jobs.iter().map(|n| Segment { jobs: *n, next: 0, returned: Vec::new(), done: 0 }).collect(),
            ticket: SegmentMap::none_of(jobs.len()),
            have,
            peers: BTreeMap::new(),
            ticket_until: 0,
            at_origin: 0,
            origin_share: workers.div_ceil(2).max(1),
            start: dice.below(jobs.len()),
            progress: now,
            dice,
        }
    }

    /// Segments that are there whole.
    #[must_use]
    pub fn have(&self) -> &SegmentMap {
        &self.have
    }

    #[must_use]
    pub fn is_done(&self) -> bool {
        self.segments.iter().all(|s| s.done == s.jobs)
    }

    /// Whether more of the ticket is begun than is left: time to ask for the next.
    #[must_use]
    pub fn ticket_runs_out(&self) -> bool {
        let left = self.ticket.iter().filter(|s| !self.segments[*s].is_begun()).count();
        !self.is_done() && !self.ticket.is_empty() && left * 2 <= self.ticket.count()
    }

    /// What the controller said: the peers now, and the whole ticket.
    pub fn heed(&mut self, peers: &[Peer], ticket: &SegmentMap, ticket_until: u64) {
        if ticket.len() == self.segments.len() {
            self.ticket = ticket.clone();
            self.ticket_until = ticket_until;
        }
        // Those that were left out are forgotten, unless something is under way or they are not to be asked again.
        self.peers.retain(|node, known| {
            peers.iter().any(|p| p.node == *node) || known.asked > 0 || known.wrong || known.failures > 0
        });
        for known in self.peers.values_mut() {
            known.near = false;
        }
        for peer in peers.iter().filter(|p| p.have.len() == self.segments.len()) {
            let known = self.peers.entry(peer.node).or_insert_with(|| Known {
                near: false,
                have: SegmentMap::none_of(self.segments.len()),
                asked: 0,
                shunned_until: 0,
                failures: 0,
                wrong: false,
            });
            known.near = peer.near;
            // What it said itself may be newer: it only ever comes to hold more.
            peer.have.iter().for_each(|s| known.have.insert(s));
        }
    }

    /// There is no controller: until then the server is asked for anything, beside the peers that are known.
    pub fn alone(&mut self, until: u64) {
        self.ticket = SegmentMap::all_of(self.segments.len());
        self.ticket_until = until;
    }

    /// What a peer says of itself.
    pub fn holds(&mut self, node: NodeId, have: &SegmentMap) {
        if let Some(known) = self.peers.get_mut(&node).filter(|_| have.len() == self.segments.len()) {
            known.have = have.clone();
        }
    }

    /// Peers whose word is worth asking for: not shunned, and not known to hold everything.
    #[must_use]
    pub fn to_look_at(&self, now: u64) -> Vec<NodeId> {
        let worth = |k: &Known| !k.wrong && k.shunned_until <= now && k.have.count() < k.have.len();
        self.peers.iter().filter(|(_, k)| worth(k)).map(|(node, _)| *node).collect()
    }

    /// The next job, or nothing for now.
    pub fn pick(&mut self, now: u64) -> Option<Picked> {
        let ticketed = self.ticketed(now);
        if self.at_origin < self.origin_share
            && let Some(segment) = ticketed
        {
            return self.begin(segment, From::Origin);
        }
        if let Some((segment, node)) = self.held_by_peers(now) {
            return self.begin(segment, From::Peer(node));
        }
        if let Some(segment) = ticketed {
            return self.begin(segment, From::Origin);
        }
        let patient = now.saturating_sub(self.progress) <= PATIENCE_MS;
        let any = (!patient && self.at_origin == 0).then(|| self.segments.iter().position(Segment::is_open)).flatten();
        any.and_then(|segment| self.begin(segment, From::Origin))
    }

    fn ticketed(&self, now: u64) -> Option<usize> {
        let open = |s: &usize| self.segments[*s].is_open();
        if self.ticket_until <= now {
            return None;
        }
        let mut begun = self.ticket.iter().filter(open).filter(|s| self.segments[*s].is_begun());
        let after = self.ticket.iter().filter(open).find(|s| *s >= self.start);
        begun.next().or(after).or_else(|| self.ticket.iter().find(open))
    }

    /// The segment that fewest hold among those that a peer can give now, one that was begun before others; and of the
    /// peers that hold it the nearest with the least to do.
    fn held_by_peers(&mut self, now: u64) -> Option<(usize, NodeId)> {
        let ready = |k: &Known| !k.wrong && k.shunned_until <= now && k.asked < AT_ONE_PEER;
        let mut best: Option<((bool, usize, u64), usize)> = None;
        for (number, segment) in self.segments.iter().enumerate().filter(|(_, s)| s.is_open()) {
            if !self.peers.values().any(|k| ready(k) && k.have.contains(number)) {
                continue;
            }
            let holders = self.peers.values().filter(|k| k.have.contains(number)).count();
            let rank = (!segment.is_begun(), holders, self.dice.roll());
            if best.is_none_or(|(least, _)| rank < least) {
                best = Some((rank, number));
            }
        }
        let (_, segment) = best?;
        let dice = &mut self.dice;
        let holders = self.peers.iter().filter(|(_, k)| ready(k) && k.have.contains(segment));
        let (node, _) = holders.min_by_key(|(_, k)| (k.asked, !k.near, dice.roll()))?;
        Some((segment, *node))
    }

    fn begin(&mut self, segment: usize, from: From) -> Option<Picked> {
        let job = self.segments[segment].take()?;
        match from {
            From::Origin => self.at_origin += 1,
            From::Peer(node) => {
                if let Some(known) = self.peers.get_mut(&node) {
                    known.asked += 1;
                }
            }
        }
        Some(Picked { segment, job, from })
    }

    /// The job is written. Says whether its segment is whole now.
    pub fn done(&mut self, picked: Picked, now: u64) -> bool {
        self.left(picked);
        if let From::Peer(node) = picked.from
            && let Some(known) = self.peers.get_mut(&node)
        {
            known.failures = 0;
        }
        self.progress = now;
        let segment = &mut self.segments[picked.segment];
        segment.done += 1;
        if segment.done == segment.jobs {
            self.have.insert(picked.segment);
        }
        segment.done == segment.jobs
    }

    /// The job was not given, and goes back.
    pub fn failed(&mut self, picked: Picked, how: Failed, now: u64) {
        self.left(picked);
        self.segments[picked.segment].returned.push(picked.job);
        let From::Peer(node) = picked.from else { return };
        let Some(known) = self.peers.get_mut(&node) else { return };
        match how {
            Failed::Busy => known.shunned_until = known.shunned_until.max(now + BUSY_MS),
            Failed::Silent => {
                known.shunned_until = now + (SHUN_MS << known.failures.min(6));
                known.failures += 1;
            }
            Failed::Wrong => known.wrong = true,
        }
    }

    fn left(&mut self, picked: Picked) {
        match picked.from {
            From::Origin => self.at_origin -= 1,
            From::Peer(node) => {
                if let Some(known) = self.peers.get_mut(&node) {
                    known.asked = known.asked.saturating_sub(1);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(have: &[usize], len: usize) -> Peer {
        let mut map = SegmentMap::none_of(len);
        have.iter().for_each(|s| map.insert(*s));
        let address = "192.0.2.1:1".parse().expect("an address");
        Peer { node: NodeId::random(), address, near: true, have: map }
    }

    fn map(of: &[usize], len: usize) -> SegmentMap {
        peer(of, len).have
    }

    #[test]
    fn every_job_is_handed_out_once_and_comes_back_if_it_failed() {
        let mut picker = Picker::new(&[2, 0, 3], 4, 1, 0);
        let everything = peer(&[0, 1, 2], 3);
        picker.heed(std::slice::from_ref(&everything), &map(&[0], 3), 1000);
        let mut seen = Vec::new();
        let mut failed_once = false;
        while let Some(picked) = picker.pick(0) {
            if !failed_once && picked.from != From::Origin {
                failed_once = true;
                picker.failed(picked, Failed::Busy, 0);
                assert!(
                    picker.pick(0).is_none_or(|p| p.from == From::Origin || p == picked),
                    "left alone for a moment"
                );
                picker = {
                    let mut again = Picker::new(&[2, 0, 3], 4, 1, 0);
                    again.heed(std::slice::from_ref(&everything), &map(&[0], 3), 1000);
                    again
                };
                seen.clear();
                continue;
            }
            seen.push((picked.segment, picked.job));
            picker.done(picked, 0);
        }
        seen.sort_unstable();
        assert_eq!(seen, [(0, 0), (0, 1), (2, 0), (2, 1), (2, 2)]);
        assert!(picker.is_done());
        assert_eq!(picker.have(), &SegmentMap::all_of(3));
    }

    #[test]
    fn what_fewest_hold_comes_first() {
        let mut picker = Picker::new(&[1, 1, 1], 4, 1, 0);
        let (a, b) = (peer(&[0, 1, 2], 3), peer(&[0, 1], 3));
        picker.heed(&[a.clone(), b], &map(&[], 3), 0);
        assert_eq!(picker.pick(0), Some(Picked { segment: 2, job: 0, from: From::Peer(a.node) }));
    }

    #[test]
    fn the_server_is_asked_for_the_ticket_only_while_there_is_hope() {
        let mut picker = Picker::new(&[1; 8], 4, 1, 0);
        assert_eq!(picker.pick(PATIENCE_MS), None, "no ticket, no peers: patience");
        picker.heed(&[], &map(&[5], 8), 100);
        assert_eq!(picker.pick(100), None, "the ticket has ended");
        let picked = picker.pick(99).expect("the ticket");
        assert_eq!((picked.segment, picked.from), (5, From::Origin));
        assert_eq!(picker.pick(99), None);
        assert!(picker.done(picked, 99));
        // One at a time, without a controller.
        let picked = picker.pick(99 + PATIENCE_MS + 1).expect("patience has an end");
        assert_eq!(picked.from, From::Origin);
        assert_eq!(picker.pick(99 + PATIENCE_MS + 1), None);
    }

    #[test]
    fn a_peer_that_fails_is_left_alone_for_longer_each_time_and_a_liar_for_ever() {
        let mut picker = Picker::new(&[9], 4, 1, 0);
        let only = peer(&[0], 1);
        let tell = |picker: &mut Picker| picker.heed(std::slice::from_ref(&only), &map(&[], 1), 0);
        tell(&mut picker);
        let mut now = 0;
        for pause in [SHUN_MS, 2 * SHUN_MS] {
            let picked = picker.pick(now).expect("asked");
            picker.failed(picked, Failed::Silent, now);
            // Named again or not, it is remembered.
            tell(&mut picker);
            assert_eq!(picker.pick(now + pause - 1), None);
            now += pause;
        }
        let picked = picker.pick(now).expect("asked");
        picker.failed(picked, Failed::Wrong, now);
        picker.heed(&[], &map(&[], 1), 0);
        tell(&mut picker);
        assert!(picker.pick(u64::MAX / 2).is_some_and(|p| p.from == From::Origin), "never again from the liar");
        assert!(picker.to_look_at(u64::MAX / 2).is_empty());
    }

    #[test]
    fn one_peer_is_not_asked_by_all_workers() {
        let mut picker = Picker::new(&[9], 8, 1, 0);
        picker.heed(&[peer(&[0], 1)], &map(&[], 1), 0);
        assert_eq!(std::iter::from_fn(|| picker.pick(0)).count(), AT_ONE_PEER);
    }

    #[test]
    fn the_next_ticket_is_asked_for_before_this_one_is_through() {
        let mut picker = Picker::new(&[1; 8], 8, 1, 0);
        assert!(!picker.ticket_runs_out(), "who has none waits like the others");
        picker.heed(&[], &map(&[0, 1, 2, 3], 8), 1000);
        assert!(!picker.ticket_runs_out());
        let begun: Vec<_> = (0..2).filter_map(|_| picker.pick(0)).collect();
        assert!(picker.ticket_runs_out());
        begun.into_iter().for_each(|p| {
            picker.done(p, 0);
        });
    }
}

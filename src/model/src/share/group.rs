//! The controller's side: who is named to whom, and who may fetch what from the image's server.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use super::{Dice, Peer, SegmentMap, ShareRequest};
use crate::id::NodeId;

/// Peers that one machine is given at once.
pub const PEERS: usize = 8;
/// Of these, at most so many from its own switch while others have something for it: what only another rack holds must
/// find its way in.
const NEAR_PEERS: usize = 6;
/// Machines that may fetch from one server before anything was measured.
const FIRST_DOWNLOADS: usize = 4;
const MOST_DOWNLOADS: usize = 64;
/// Before a machine's own rate is known its ticket is this part of the image.
const FIRST_PART: usize = 8;
/// A ticket holds what its machine fetches in this time.
const HORIZON_MS: u64 = 4_000;
/// A ticket that is not renewed goes to another.
pub const TICKET_MS: i64 = 10_000;
/// A machine that got nothing new for so long may fetch anything it lacks, whoever else fetches.
const STARVED_MS: i64 = 15_000;
/// Who has not spoken for so long is not named any more.
const MEMBER_MS: i64 = 20_000;
/// Announcements of one group in a second, all together: each is a write to the store.
const ANNOUNCEMENTS: u64 = 50;
const SOONEST_MS: u64 = 500;
const LATEST_MS: u64 = 5_000;

/// A machine that writes an image, or gives of it, as the controller knows it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Member {
    pub node: NodeId,
    pub manifest: String,
    pub origin: String,
    pub address: Option<SocketAddr>,
    pub switch: Option<String>,
    pub have: SegmentMap,
    pub segment_bytes: u64,
    pub ticket: SegmentMap,
    pub ticket_until: i64,
    /// Bytes per second from the server, when something was last fetched.
    pub rate: Option<u64>,
    /// When it last came to hold more, or came here.
    pub grew: i64,
    /// Not named after this.
    pub until: i64,
}

impl Member {
    fn fetches(&self, now: i64) -> bool {
        self.ticket_until > now && !self.ticket.is_empty()
    }

    fn lacks(&self, segment: usize) -> bool {
        !self.have.contains(segment)
    }
}

/// Shorter than this, a rate is chance.
const LEAST_MEASURED_MS: u64 = 50;

/// What follows from what a machine said of itself.
#[derive(Clone, Debug)]
pub struct Heard {
    /// As it is to be remembered, with its ticket.
    pub member: Member,
    pub peers: Vec<Peer>,
}

/// Takes a machine's word. `members` are all who write this image or fetch anything else from the same server;
/// `entitled` is whether it may take, and not only give.
#[must_use]
pub fn hear(members: &[Member], node: NodeId, said: &ShareRequest, entitled: bool, now: i64, dice: &mut Dice) -> Heard {
    let nothing = SegmentMap::none_of(said.have.len());
    let before = members.iter().find(|m| m.node == node && m.manifest == said.manifest);
    // Of another cut of the image nothing can be told.
    let before = before.filter(|b| b.have.len() == said.have.len());
    let measured = (said.fetched_ms >= LEAST_MEASURED_MS && said.fetched_bytes > 0)
        .then(|| said.fetched_bytes.saturating_mul(1000) / said.fetched_ms);
    let mut member = Member {
        node,
        manifest: said.manifest.clone(),
        origin: said.origin.clone(),
        address: said.address,
        switch: said.switch.clone(),
        have: said.have.clone(),
        segment_bytes: said.segment_bytes,
        ticket: before.map_or_else(|| nothing.clone(), |b| b.ticket.clone()),
        ticket_until: before.map_or(0, |b| b.ticket_until),
        rate: measured.or(before.and_then(|b| b.rate)),
        grew: before.filter(|b| !said.have.adds_to(&b.have)).map_or(now, |b| b.grew),
        until: now + MEMBER_MS,
    };
    let mut named = Vec::new();
    let mut granted = nothing;
    if entitled {
        granted = ticket(members, &member, now, dice);
        let chosen = peers(members, &member, now, dice);
        named.extend(
            chosen
                .into_iter()
                .filter_map(|(m, near)| Some(Peer { node: m.node, address: m.address?, near, have: m.have.clone() })),
        );
    }
    (member.ticket, member.ticket_until) = (granted, now + TICKET_MS);
    Heard { member, peers: named }
}

/// Whether two machines are neighbours: by their switch where both are known, by their subnet otherwise.
fn near(a: &Member, b: &Member) -> bool {
    if let (Some(a), Some(b)) = (&a.switch, &b.switch) {
        return a == b;
    }
    match (a.address.map(|a| a.ip()), b.address.map(|b| b.ip())) {
        // Agents do not tell their masks; these are what racks are usually given.
        (Some(IpAddr::V4(a)), Some(IpAddr::V4(b))) => a.octets()[..3] == b.octets()[..3],
        (Some(IpAddr::V6(a)), Some(IpAddr::V6(b))) => a.segments()[..4] == b.segments()[..4],
        _ => false,
    }
}

/// Whom `asker` may ask, and whether they are near. Those that hold something it lacks come first.
#[must_use]
pub fn peers<'a>(group: &'a [Member], asker: &Member, now: i64, dice: &mut Dice) -> Vec<(&'a Member, bool)> {
    let mut candidates: Vec<(&Member, bool, bool, u64)> = group
        .iter()
        .filter(|m| m.node != asker.node && m.manifest == asker.manifest && m.address.is_some() && m.until > now)
        .map(|m| (m, near(m, asker), m.have.adds_to(&asker.have), dice.roll()))
        .collect();
    candidates.sort_unstable_by_key(|(_, near, useful, random)| (!useful, !near, *random));
    let far_useful = candidates.iter().filter(|(_, near, useful, _)| *useful && !near).count();
    let reserved = far_useful.min(PEERS - NEAR_PEERS);
    let mut chosen: Vec<(&Member, bool)> = Vec::new();
    let mut left_out = Vec::new();
    for (member, near, useful, _) in candidates {
        if chosen.len() < PEERS - reserved || (useful && !near) {
            chosen.push((member, near));
        } else {
            left_out.push((member, near));
        }
        if chosen.len() == PEERS {
            return chosen;
        }
    }
    chosen.extend(left_out);
    chosen.truncate(PEERS);
    chosen
}

/// Whether the server bears another download beside these. It does as long as each still gets at least half of what one
/// was seen to get: beyond that, more downloads only cut the same bytes into smaller parts. Those that were not measured
/// yet are few among those that were, so that a hall that is switched on at once is let in by degrees.
fn admits(members: &[Member], origin: &str, now: i64) -> bool {
    let known = || members.iter().filter(|m| m.origin == origin && m.until > now);
    let (mut n, mut unmeasured, mut sum) = (0usize, 0usize, 0u64);
    for member in known().filter(|m| m.fetches(now)) {
        n += 1;
        match member.rate {
            Some(rate) => sum = sum.saturating_add(rate),
            None => unmeasured += 1,
        }
    }
    let measured = n - unmeasured;
    let best = known().filter_map(|m| m.rate).max().unwrap_or(0);
    let still_fast = measured == 0 || sum / measured as u64 >= best / 2;
    n < FIRST_DOWNLOADS || (n < MOST_DOWNLOADS && still_fast && unmeasured < FIRST_DOWNLOADS.max(measured / 2))
}

/// What `asker` may fetch from the server from now on. `members` are all who fetch this image, or anything else from the
/// same server; `asker`'s own record among them does not matter.
///
/// A segment is fetched by one machine, if nobody has it: then the server gives each about once.
#[must_use]
pub fn ticket(members: &[Member], asker: &Member, now: i64, dice: &mut Dice) -> SegmentMap {
    let len = asker.have.len();
    let others: Vec<&Member> =
        members.iter().filter(|m| m.node != asker.node && m.manifest == asker.manifest && m.until > now).collect();
    let mut taken = SegmentMap::none_of(len);
    let mut held = SegmentMap::none_of(len);
    for other in others.iter().filter(|o| o.have.len() == len) {
        if other.fetches(now) {
            other.ticket.iter().for_each(|s| taken.insert(s));
        }
        if other.address.is_some() {
            other.have.iter().for_each(|s| held.insert(s));
        }
    }
    let most = match asker.rate {
        Some(rate) => rate.saturating_mul(HORIZON_MS) / 1000 / asker.segment_bytes.max(1),
        None => len.div_ceil(FIRST_PART) as u64,
    };
    let most = usize::try_from(most).unwrap_or(len).clamp(1, len.max(1));

    let mut granted = SegmentMap::none_of(len);
    // What it was given before and others did not get since; it may be in the middle of it.
    let kept = asker.ticket.iter().filter(|s| asker.lacks(*s) && !taken.contains(*s));
    kept.take(most).for_each(|s| granted.insert(s));

    let free: Vec<usize> = (0..len)
        .filter(|s| asker.lacks(*s) && !taken.contains(*s) && !held.contains(*s) && !granted.contains(*s))
        .collect();
    let already_in = asker.fetches(now) && !granted.is_empty();
    let elsewhere: Vec<Member> = members.iter().filter(|m| m.node != asker.node).cloned().collect();
    if !free.is_empty() && (already_in || admits(&elsewhere, &asker.origin, now)) {
        // From anywhere, so that machines do not all begin at the same place; then in order, as disks like it.
        let start = dice.below(free.len());
        let room = most - granted.count();
        free.iter().cycle().skip(start).take(room.min(free.len())).for_each(|s| granted.insert(*s));
    }
    if granted.is_empty() && now - asker.grew > STARVED_MS {
        let lacking: Vec<usize> = (0..len).filter(|s| asker.lacks(*s)).collect();
        if !lacking.is_empty() {
            granted.insert(lacking[dice.below(lacking.len())]);
        }
    }
    granted
}

/// How long a member of a group of `n` waits before it speaks again.
#[must_use]
pub fn again_ms(n: usize) -> u64 {
    (n as u64 * 1000 / ANNOUNCEMENTS).clamp(SOONEST_MS, LATEST_MS)
}

#[cfg(test)]
mod tests {
    use super::*;

    const N: usize = 64;

    fn member(rack: usize, n: u8) -> Member {
        Member {
            node: NodeId::random(),
            manifest: "m".into(),
            origin: "o".into(),
            address: Some(format!("10.0.{rack}.{n}:1").parse().expect("an address")),
            switch: Some(format!("switch {rack}")),
            have: SegmentMap::none_of(N),
            segment_bytes: 1 << 20,
            ticket: SegmentMap::none_of(N),
            ticket_until: 0,
            rate: None,
            grew: 0,
            until: 1000,
        }
    }

    fn dice() -> Dice {
        Dice::new(7)
    }

    #[test]
    fn neighbours_come_first_but_other_racks_are_not_shut_out() {
        let mut group: Vec<Member> = (0..60).map(|n| member(n / 20, u8::try_from(n).expect("small"))).collect();
        group.iter_mut().for_each(|m| m.have.insert(3));
        let asker = member(1, 200);
        let chosen = peers(&group, &asker, 0, &mut dice());
        assert_eq!(chosen.len(), PEERS);
        assert_eq!(chosen.iter().filter(|(_, near)| *near).count(), NEAR_PEERS);
        assert!(chosen.iter().all(|(m, near)| *near == (m.switch == asker.switch)));
        // Alone in its rack with something to give, it is asked by everybody.
        group.iter_mut().filter(|m| m.switch == asker.switch).for_each(|m| m.have.remove(3));
        group[25].have.insert(5);
        let chosen = peers(&group, &asker, 0, &mut dice());
        assert_eq!(chosen[0].0.node, group[25].node);
        assert!(chosen.iter().skip(1).all(|(_, near)| !near), "those with something to give before those without");
    }

    #[test]
    fn nobody_is_named_who_is_gone_or_gives_nothing_or_has_another_image() {
        let asker = member(0, 1);
        let (mut gone, mut closed, mut other) = (member(0, 2), member(0, 3), member(0, 4));
        gone.until = 10;
        closed.address = None;
        other.manifest = "another".into();
        let group = [gone, closed, other, asker.clone(), member(0, 5)];
        let chosen = peers(&group, &asker, 10, &mut dice());
        assert_eq!(chosen.iter().map(|(m, _)| m.node).collect::<Vec<_>>(), [group[4].node]);
    }

    #[test]
    fn without_switches_the_subnet_decides() {
        let (mut a, mut b) = (member(3, 1), member(3, 2));
        b.switch = None;
        assert!(near(&a, &b));
        b.address = Some("10.0.4.1:1".parse().expect("an address"));
        assert!(!near(&a, &b));
        a.address = Some("[2001:db8:0:1::1]:1".parse().expect("an address"));
        assert!(!near(&a, &b));
        b.address = Some("[2001:db8:0:1::2]:1".parse().expect("an address"));
        assert!(near(&a, &b));
    }

    #[test]
    fn no_segment_is_given_to_two_nor_one_that_somebody_holds() {
        let mut group: Vec<Member> = (0..3).map(|n| member(0, n)).collect();
        group[0].have.insert(9);
        let mut seen = SegmentMap::none_of(N);
        seen.insert(9);
        for i in 1..3 {
            let ticket = ticket(&group, &group[i], 100, &mut dice());
            assert_eq!(ticket.count(), N / FIRST_PART);
            assert!(ticket.iter().all(|s| !seen.contains(s)), "{ticket:?}");
            ticket.iter().for_each(|s| seen.insert(s));
            (group[i].ticket, group[i].ticket_until) = (ticket, 100 + TICKET_MS);
        }
        // One that is silent loses what it was given.
        group.iter_mut().for_each(|m| m.until = 1_000_000);
        let mut late = member(0, 9);
        late.rate = Some(100 << 20);
        late.grew = 100 + TICKET_MS;
        assert_eq!(ticket(&group, &late, 100 + TICKET_MS, &mut dice()).count(), N - 1);
    }

    #[test]
    fn a_measured_machine_gets_what_it_can_fetch_in_time_and_keeps_what_it_has_begun() {
        let mut asker = member(0, 1);
        asker.rate = Some(2 << 20);
        asker.ticket = SegmentMap::all_of(N);
        asker.ticket_until = 500;
        let granted = ticket(&[], &asker, 100, &mut dice());
        assert_eq!(granted.iter().collect::<Vec<_>>(), (0..8).collect::<Vec<_>>());
        asker.rate = Some(1);
        assert_eq!(ticket(&[], &asker, 100, &mut dice()).count(), 1);
    }

    #[test]
    fn downloads_are_admitted_as_long_as_each_is_worth_it() {
        let fetching = |rate: Option<u64>| {
            let mut m = member(0, 0);
            m.ticket.insert(0);
            (m.ticket_until, m.rate) = (500, rate);
            m
        };
        let members = |rates: &[Option<u64>]| rates.iter().map(|r| fetching(*r)).collect::<Vec<_>>();
        assert!(admits(&[], "o", 100));
        assert!(admits(&members(&[None; 3]), "o", 100));
        assert!(!admits(&members(&[None; 4]), "o", 100), "let in by degrees");
        assert!(admits(&members(&[Some(100); 20]), "o", 100), "nobody is slowed yet");
        let mut slowed = members(&[Some(40); 20]);
        let mut before = fetching(Some(100));
        before.ticket_until = 0;
        slowed.push(before);
        assert!(!admits(&slowed, "o", 100), "one alone was more than twice as fast");
        assert!(admits(&slowed, "another server", 100));
        assert!(!admits(&members(&[Some(100); MOST_DOWNLOADS]), "o", 100));
    }

    #[test]
    fn who_gets_nothing_is_let_in_whatever_the_others_do() {
        let mut group: Vec<Member> = (0..8).map(|n| member(0, n)).collect();
        for m in &mut group {
            m.ticket = SegmentMap::all_of(N);
            (m.ticket_until, m.until) = (1_000_000, 1_000_000);
        }
        let asker = member(0, 9);
        assert!(ticket(&group, &asker, STARVED_MS, &mut dice()).is_empty());
        assert_eq!(ticket(&group, &asker, STARVED_MS + 1, &mut dice()).count(), 1);
    }

    #[test]
    fn a_large_group_speaks_seldom() {
        assert_eq!((again_ms(1), again_ms(100), again_ms(10_000)), (SOONEST_MS, 2_000, LATEST_MS));
    }
}

//! A hall of machines that write the same image, simulated.
//!
//! What decides is what decides in the field: the controller's `share::group` and the agents' `share::picker`. What is
//! modelled is the rest: links that share their bandwidth evenly among the transfers on them (which is less than TCP
//! makes of them), requests, announcements, and machines that leave once they have read back what they wrote. Time goes
//! in small steps, and the same seed gives the same run.

use std::collections::HashMap;
use std::net::SocketAddr;

use speediso_model::id::{Epoch, NodeId};
use speediso_model::share::group::{self, Member, TICKET_MS};
use speediso_model::share::picker::{Failed, From, Picked, Picker};
use speediso_model::share::{Dice, REQUESTS, ShareRequest};
use uuid::Uuid;

const STEP_MS: u64 = 10;
/// Idle workers look again, as they do in the agent.
const LOOK_MS: u64 = 100;
const SOONEST_MS: u64 = 200;
const AROUND_MS: u64 = 1_000;
const WORKERS: usize = 8;
const MIB: f64 = 1_048_576.0;
/// Requests that a machine answers or lets wait: those beyond `REQUESTS` wait half a second for their turn, in which it
/// answers some more. Waiting is modelled as sharing its link.
const QUEUED: usize = 4 * REQUESTS;
/// Of the disk: its first and last MiB, which each machine fetches for itself.
const PRIVATE_MIB: f64 = 2.0;
const PRIVATE: Picked = Picked { segment: usize::MAX, job: 0, from: From::Origin };

/// What there is.
#[derive(Clone, Debug)]
pub struct Hall {
    pub machines: usize,
    pub per_switch: usize,
    /// Of the disk, in requests of 2 MiB.
    pub image_mib: u32,
    /// What is stored of each byte of the disk.
    pub stored: f64,
    /// MiB per second, each way.
    pub machine_link: f64,
    pub server_link: f64,
    pub switch_uplink: f64,
    /// Between the first machine's start and the last one's.
    pub spread_ms: u64,
    /// How long a machine gives after it has everything: it reads back what it wrote.
    pub stays_ms: u64,
    pub sharing: bool,
    pub seed: u64,
}

impl Default for Hall {
    fn default() -> Self {
        Self {
            machines: 1,
            per_switch: 32,
            image_mib: 2048,
            stored: 0.4,
            // 1 and 10 Gbit/s, less what TLS, TCP and Ethernet take.
            machine_link: 112.0,
            server_link: 1120.0,
            switch_uplink: 1120.0,
            spread_ms: 5_000,
            stays_ms: 5_000,
            sharing: true,
            seed: 1,
        }
    }
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub origin_mib: f64,
    pub peer_mib: f64,
    /// Of what peers gave, between machines on the same switch.
    pub near_mib: f64,
    /// From the start of the first machine to the end of the last.
    pub seconds: f64,
    /// Of each machine's own time.
    pub slowest_seconds: f64,
    /// Announcements to the controller in its busiest second.
    pub announcements: u32,
}

#[derive(Clone, Copy)]
struct Transfer {
    picked: Picked,
    left: f64,
    size: f64,
}

struct Machine {
    node: NodeId,
    begins: u64,
    begun: bool,
    picker: Picker,
    transfers: Vec<Transfer>,
    announced: u64,
    again: u64,
    looked_around: u64,
    looked: u64,
    fetched: u64,
    fetched_ms: u64,
    ended: Option<u64>,
}

impl Machine {
    fn is_here(&self, now: u64, stays: u64) -> bool {
        self.begins <= now && self.ended.is_none_or(|at| now < at + stays)
    }
}

fn node(n: usize) -> NodeId {
    NodeId(Uuid::from_u128(n as u128 + 1))
}

fn address(n: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, u8::try_from(n / 250).unwrap_or(0), u8::try_from(n % 250).unwrap_or(0)], 1))
}

/// Runs it to the end.
///
/// # Panics
/// When the machines do not all end within an hour of their time: that is a fault in what is simulated.
#[must_use]
pub fn run(hall: &Hall) -> Outcome {
    Run::new(hall).run_to_end()
}

struct Run<'a> {
    hall: &'a Hall,
    jobs: Vec<u32>,
    machines: Vec<Machine>,
    members: HashMap<NodeId, Member>,
    dice: Dice,
    now: u64,
    origin: f64,
    peer: f64,
    near: f64,
    announcements: HashMap<u64, u32>,
}

impl<'a> Run<'a> {
    fn new(hall: &'a Hall) -> Self {
        let requests = hall.image_mib.div_ceil(2).max(1);
        let per_segment = requests.div_ceil(1024);
        let whole = usize::try_from(requests / per_segment).unwrap_or(1);
        let mut jobs = vec![per_segment; whole];
        let rest = requests % per_segment;
        if rest > 0 {
            jobs.push(rest);
        }
        let mut dice = Dice::new(hall.seed);
        let machines = (0..hall.machines)
            .map(|n| Machine {
                node: node(n),
                begins: if n == 0 { 0 } else { dice.roll() % (hall.spread_ms + 1) },
                begun: false,
                picker: Picker::new(&jobs, WORKERS, dice.roll(), 0),
                transfers: Vec::new(),
                announced: 0,
                again: 0,
                looked_around: 0,
                looked: 0,
                fetched: 0,
                fetched_ms: 0,
                ended: None,
            })
            .collect();
        Self {
            hall,
            jobs,
            machines,
            members: HashMap::new(),
            dice,
            now: 0,
            origin: 0.0,
            peer: 0.0,
            near: 0.0,
            announcements: HashMap::new(),
        }
    }

    fn run_to_end(mut self) -> Outcome {
        while self.machines.iter().any(|m| m.ended.is_none()) {
            assert!(self.now < 3_600_000, "the machines do not come to an end");
            for n in 0..self.machines.len() {
                if self.machines[n].is_here(self.now, self.hall.stays_ms) {
                    self.speak(n);
                    self.look_around(n);
                    self.begin_transfers(n);
                } else {
                    let gone = self.machines[n].node;
                    self.members.remove(&gone);
                }
            }
            self.move_bytes();
            self.now += STEP_MS;
        }
        let own = |m: &Machine| m.ended.unwrap_or(0) - m.begins;
        #[allow(clippy::cast_precision_loss, reason = "seconds for people")]
        let seconds = |ms: u64| ms as f64 / 1000.0;
        Outcome {
            origin_mib: self.origin,
            peer_mib: self.peer,
            near_mib: self.near,
            seconds: seconds(self.machines.iter().filter_map(|m| m.ended).max().unwrap_or(0)),
            slowest_seconds: seconds(self.machines.iter().map(own).max().unwrap_or(0)),
            announcements: self.announcements.values().copied().max().unwrap_or(0),
        }
    }

    fn clock(&self) -> i64 {
        i64::try_from(self.now).unwrap_or(i64::MAX)
    }

    /// The announcement and its answer.
    fn speak(&mut self, n: usize) {
        let (now, clock) = (self.now, self.clock());
        let machine = &mut self.machines[n];
        if !self.hall.sharing {
            machine.picker.alone(u64::MAX);
            return;
        }
        let soon = machine.picker.ticket_runs_out() && now >= machine.announced + SOONEST_MS;
        if now < machine.again && !soon {
            return;
        }
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "some millions")]
        let segment_bytes = (f64::from(self.jobs[0]) * 2.0 * MIB * self.hall.stored) as u64;
        let said = ShareRequest {
            epoch: Epoch(1),
            manifest: "image".into(),
            origin: "server".into(),
            address: Some(address(n)),
            switch: Some(format!("switch {}", n / self.hall.per_switch)),
            have: machine.picker.have().clone(),
            segment_bytes,
            fetched_bytes: std::mem::take(&mut machine.fetched),
            fetched_ms: std::mem::take(&mut machine.fetched_ms),
            wrong: Vec::new(),
            leaving: false,
        };
        let mut members: Vec<Member> = self.members.values().cloned().collect();
        members.sort_by_key(|m| m.node);
        let heard = group::hear(&members, machine.node, &said, machine.ended.is_none(), clock, &mut self.dice);
        let until = now + u64::try_from(TICKET_MS).unwrap_or(0);
        machine.picker.heed(&heard.peers, &heard.member.ticket, until);
        machine.announced = now;
        machine.again = now + group::again_ms(members.len());
        machine.looked = 0;
        self.members.insert(machine.node, heard.member);
        *self.announcements.entry(now / 1000).or_default() += 1;
    }

    fn index(node: NodeId) -> usize {
        usize::try_from(node.0.as_u128() - 1).unwrap_or(0)
    }

    fn look_around(&mut self, n: usize) {
        if self.now < self.machines[n].looked_around + AROUND_MS {
            return;
        }
        self.machines[n].looked_around = self.now;
        for peer in self.machines[n].picker.to_look_at(self.now) {
            self.hears_of(n, peer);
        }
    }

    fn hears_of(&mut self, n: usize, peer: NodeId) {
        let other = &self.machines[Self::index(peer)];
        if other.is_here(self.now, self.hall.stays_ms) {
            let have = other.picker.have().clone();
            self.machines[n].picker.holds(peer, &have);
        }
    }

    fn given_by(&self, peer: NodeId) -> usize {
        let from = |t: &&Transfer| t.picked.from == From::Peer(peer);
        self.machines.iter().map(|m| m.transfers.iter().filter(from).count()).sum()
    }

    fn begin_transfers(&mut self, n: usize) {
        let now = self.now;
        if self.machines[n].transfers.len() == WORKERS || now < self.machines[n].looked {
            return;
        }
        if !std::mem::replace(&mut self.machines[n].begun, true) {
            let size = PRIVATE_MIB * self.hall.stored;
            self.machines[n].transfers.push(Transfer { picked: PRIVATE, left: size, size });
        }
        self.machines[n].looked = now + LOOK_MS;
        while self.machines[n].transfers.len() < WORKERS {
            let Some(picked) = self.machines[n].picker.pick(now) else { return };
            let size = match picked.from {
                From::Origin => 2.0 * self.hall.stored,
                From::Peer(peer) => {
                    let other = &self.machines[Self::index(peer)];
                    let failed = if !other.is_here(now, self.hall.stays_ms) {
                        Some(Failed::Silent)
                    } else if !other.picker.have().contains(picked.segment) || self.given_by(peer) >= QUEUED {
                        Some(Failed::Busy)
                    } else {
                        None
                    };
                    if let Some(how) = failed {
                        self.machines[n].picker.failed(picked, how, now);
                        continue;
                    }
                    2.0
                }
            };
            self.machines[n].transfers.push(Transfer { picked, left: size, size });
        }
    }

    fn move_bytes(&mut self) {
        let rack = |n: usize| n / self.hall.per_switch;
        let racks = rack(self.machines.len()) + 1;
        let (mut up, mut down) = (vec![0u32; self.machines.len()], vec![0u32; self.machines.len()]);
        let (mut rack_out, mut rack_in, mut server) = (vec![0u32; racks], vec![0u32; racks], 0u32);
        for (n, machine) in self.machines.iter().enumerate() {
            for transfer in &machine.transfers {
                down[n] += 1;
                match transfer.picked.from {
                    From::Origin => {
                        server += 1;
                        rack_in[rack(n)] += 1;
                    }
                    From::Peer(peer) => {
                        let from = Self::index(peer);
                        up[from] += 1;
                        if rack(from) != rack(n) {
                            rack_out[rack(from)] += 1;
                            rack_in[rack(n)] += 1;
                        }
                    }
                }
            }
        }
        #[allow(clippy::cast_precision_loss, reason = "ten milliseconds")]
        let step = STEP_MS as f64 / 1000.0;
        let share = |capacity: f64, n: u32| capacity / f64::from(n.max(1));
        let mut ended = Vec::new();
        for (n, machine) in self.machines.iter_mut().enumerate() {
            if machine.transfers.iter().any(|t| t.picked.from == From::Origin) {
                machine.fetched_ms += STEP_MS;
            }
            for transfer in &mut machine.transfers {
                let mut rate = share(self.hall.machine_link, down[n]);
                match transfer.picked.from {
                    From::Origin => {
                        rate = rate.min(share(self.hall.server_link, server));
                        rate = rate.min(share(self.hall.switch_uplink, rack_in[rack(n)]));
                    }
                    From::Peer(peer) => {
                        let from = Self::index(peer);
                        rate = rate.min(share(self.hall.machine_link, up[from]));
                        if rack(from) != rack(n) {
                            rate = rate.min(share(self.hall.switch_uplink, rack_out[rack(from)]));
                            rate = rate.min(share(self.hall.switch_uplink, rack_in[rack(n)]));
                        }
                    }
                }
                transfer.left -= rate * step;
            }
            machine.transfers.retain(|t| {
                if t.left <= 0.0 {
                    ended.push((n, *t));
                }
                t.left > 0.0
            });
        }
        for (n, transfer) in ended {
            self.arrived(n, transfer);
        }
    }

    fn arrived(&mut self, n: usize, transfer: Transfer) {
        let now = self.now + STEP_MS;
        let same_switch = |other: usize| other / self.hall.per_switch == n / self.hall.per_switch;
        match transfer.picked.from {
            From::Origin => {
                self.origin += transfer.size;
                #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "some millions")]
                let bytes = (transfer.size * MIB) as u64;
                self.machines[n].fetched += bytes;
            }
            From::Peer(peer) => {
                self.peer += transfer.size;
                if same_switch(Self::index(peer)) {
                    self.near += transfer.size;
                }
                self.hears_of(n, peer);
            }
        }
        let machine = &mut self.machines[n];
        if transfer.picked == PRIVATE {
            return;
        }
        machine.picker.done(transfer.picked, now);
        machine.looked = 0;
        if machine.picker.is_done() {
            machine.ended.get_or_insert(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of a small image what each machine fetches for itself is more of the whole than usual.
    fn small(machines: usize) -> Hall {
        Hall { machines, image_mib: 512, ..Hall::default() }
    }

    #[test]
    fn one_machine_is_not_slower_for_sharing() {
        let (with, without) = (run(&small(1)), run(&Hall { sharing: false, ..small(1) }));
        assert!((with.origin_mib - without.origin_mib).abs() < 1.0, "{with:?} {without:?}");
        assert!(with.seconds < without.seconds * 1.2 + 0.3, "{with:?} {without:?}");
    }

    #[test]
    fn two_hundred_machines_cost_the_server_little_more_than_one() {
        let (one, many) = (run(&small(1)), run(&small(200)));
        println!("{one:?}\n{many:?}");
        assert!(many.origin_mib < 3.0 * one.origin_mib, "{many:?}");
        assert!(many.announcements < 200, "{many:?}");
        // 200 times the image through the server alone would take so long.
        let alone = 200.0 * one.origin_mib / Hall::default().server_link;
        assert!(many.seconds < 3.0 * alone, "{many:?} {alone}");
    }

    #[test]
    fn machines_that_leave_at_once_or_come_late_find_what_they_need() {
        let one = run(&small(1));
        let hall = Hall { stays_ms: 0, spread_ms: 60_000, ..small(40) };
        let many = run(&hall);
        assert!(many.origin_mib < 40.0 * one.origin_mib, "{many:?}");
        assert!(many.slowest_seconds < 60.0, "{many:?}");
    }
}

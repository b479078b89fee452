//! Neighbours, for as long as they said that they hold.

use std::time::{Duration, Instant};

use speediso_model::lldp::{Heard, MOST_NEIGHBOURS, Neighbour};
use speediso_sys::lldp::Port;

#[derive(Debug, Default)]
pub(super) struct Table(Vec<(Heard, Instant)>);

impl Table {
    pub(super) fn take(&mut self, interface: &str, neighbour: Neighbour, raw: Vec<(u8, String)>, now: Instant) {
        let here = |h: &Heard| h.interface == interface;
        self.0.retain(|(h, until)| *until > now && !(here(h) && h.neighbour.is(&neighbour)));
        // It takes itself back.
        if neighbour.ttl_seconds == 0 {
            return;
        }
        // The first ones stay: whoever makes up neighbours does not push out the switch.
        if self.0.iter().filter(|(h, _)| here(h)).count() < MOST_NEIGHBOURS {
            let until = now + Duration::from_secs(neighbour.ttl_seconds.into());
            self.0.push((Heard { interface: interface.to_owned(), neighbour, raw }, until));
        }
    }

    /// What was heard on interfaces that are gone or down holds no more.
    pub(super) fn keep_only(&mut self, ports: &[Port]) {
        let now = Instant::now();
        self.0.retain(|(h, until)| *until > now && ports.iter().any(|p| p.name == h.interface));
    }

    /// In an order that does not change by itself.
    pub(super) fn heard(&self) -> Vec<Heard> {
        let mut all: Vec<Heard> = self.0.iter().map(|(h, _)| h.clone()).collect();
        let key = |h: &Heard| (h.interface.clone(), h.neighbour.chassis.clone(), h.neighbour.port.clone());
        all.sort_by_key(key);
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use speediso_model::lldp::Identifier;

    fn neighbour(chassis: &str, ttl_seconds: u16) -> Neighbour {
        let chassis = Identifier { value: chassis.into(), ..Identifier::default() };
        Neighbour { chassis, ttl_seconds, ..Neighbour::default() }
    }

    #[test]
    fn neighbours_hold_as_long_as_they_say_and_a_flood_pushes_nobody_out() {
        let begin = Instant::now();
        let mut table = Table::default();
        let names = |table: &Table| table.heard().into_iter().map(|h| h.neighbour.chassis.value).collect::<Vec<_>>();
        table.take("eth0", neighbour("leaf", 120), Vec::new(), begin);
        table.take("eth0", neighbour("short", 10), Vec::new(), begin);
        table.take("eth0", neighbour("leaf", 120), Vec::new(), begin + Duration::from_secs(9));
        assert_eq!(names(&table), ["leaf", "short"], "said twice, it is one");
        table.take("eth1", neighbour("spine", 120), Vec::new(), begin + Duration::from_secs(11));
        assert_eq!(names(&table), ["leaf", "spine"], "the short one is over");
        table.take("eth1", neighbour("spine", 0), Vec::new(), begin + Duration::from_secs(12));
        assert_eq!(names(&table), ["leaf"], "it took itself back");
        for n in 0..1000 {
            table.take("eth0", neighbour(&format!("made-up-{n}"), 120), Vec::new(), begin + Duration::from_secs(13));
        }
        assert_eq!(names(&table).len(), MOST_NEIGHBOURS);
        assert!(names(&table).contains(&"leaf".to_owned()));
        table.keep_only(&[]);
        assert_eq!(names(&table), Vec::<String>::new(), "the interface is down");
    }
}

//! Who tries the link with whom: machines that wait for a partner at the same time. Pure; the controller keeps the rows.

use std::net::SocketAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::network::NetworkRole;
use crate::id::{NodeId, RunId};

/// A machine that has not asked for so long does not wait any more.
pub const SILENT_MS: i64 = 20_000;
/// How often a waiting machine asks.
pub const AGAIN_MS: u64 = 2_000;

/// "I wait for a partner": said by an agent in a network step without one of its own, again and again.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PairRequest {
    /// Where it listens, should it be the one that stays.
    pub address: SocketAddr,
    /// What it is going to do, in words: only machines with the same terms are paired.
    pub terms: String,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "pair", rename_all = "snake_case")]
pub enum PairAnswer {
    Wait {
        again_ms: u64,
    },
    Paired {
        role: NetworkRole,
        /// Where the partner listens, or from where it comes.
        partner: SocketAddr,
        /// Of the partner, for people.
        name: String,
        /// 64 hexadecimal digits, for these two and this time only.
        secret: String,
    },
}

/// A machine that waits, or was paired a moment ago.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Waiting {
    pub run: RunId,
    pub node: NodeId,
    pub name: String,
    pub address: SocketAddr,
    pub terms: String,
    /// When it first asked.
    pub since: i64,
    /// Until when the row counts.
    pub until: i64,
    pub paired: Option<PairAnswer>,
}

impl Waiting {
    #[must_use]
    pub fn new(run: RunId, node: NodeId, name: &str, request: &PairRequest, now: i64) -> Self {
        Self {
            run,
            node,
            name: name.to_owned(),
            address: request.address,
            terms: request.terms.clone(),
            since: now,
            until: now + SILENT_MS,
            paired: None,
        }
    }
}

/// Hears a machine among those that wait; gives its answer and the rows that changed. Who has waited longest is paired
/// first and stays where it is.
#[must_use]
pub fn hear(rows: &[Waiting], mut asker: Waiting, now: i64, secret: &str) -> (PairAnswer, Vec<Waiting>) {
    if let Some(before) = rows.iter().find(|row| row.run == asker.run) {
        // Its answer was lost, or somebody was found meanwhile.
        if let Some(answer) = &before.paired
            && before.address == asker.address
        {
            return (answer.clone(), Vec::new());
        }
        asker.since = before.since;
    }
    let fits = |row: &&Waiting| {
        row.node != asker.node
            && row.until > now
            && row.paired.is_none()
            && row.terms == asker.terms
            && row.address.is_ipv4() == asker.address.is_ipv4()
    };
    let Some(mut stays) = rows.iter().filter(fits).min_by_key(|row| (row.since, row.run.0)).cloned() else {
        return (PairAnswer::Wait { again_ms: AGAIN_MS }, vec![asker]);
    };
    let secret = secret.to_owned();
    let goes = PairAnswer::Paired {
        role: NetworkRole::Connect,
        partner: stays.address,
        name: stays.name.clone(),
        secret: secret.clone(),
    };
    stays.paired = Some(PairAnswer::Paired {
        role: NetworkRole::Listen,
        partner: asker.address,
        name: asker.name.clone(),
        secret,
    });
    asker.paired = Some(goes.clone());
    // Long enough to ask once more.
    (stays.until, asker.until) = (now + 3 * SILENT_MS, now + 3 * SILENT_MS);
    (goes, vec![stays, asker])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use uuid::Uuid;

    fn machine(n: u8, terms: &str, now: i64) -> Waiting {
        let request = PairRequest { address: SocketAddr::from(([192, 0, 2, n], 4000)), terms: terms.into() };
        let id = Uuid::from_u128(n.into());
        Waiting::new(RunId(id), NodeId(id), &format!("m{n}"), &request, now)
    }

    fn keep(rows: &mut Vec<Waiting>, changed: Vec<Waiting>) {
        for row in changed {
            rows.retain(|r| r.run != row.run);
            rows.push(row);
        }
    }

    #[test]
    fn two_that_wait_find_one_another_and_share_a_secret() {
        let mut rows = Vec::new();
        let (answer, changed) = hear(&rows, machine(1, "t", 0), 0, "s0");
        assert_eq!(answer, PairAnswer::Wait { again_ms: AGAIN_MS });
        keep(&mut rows, changed);
        let (second, changed) = hear(&rows, machine(2, "t", 1000), 1000, "s1");
        keep(&mut rows, changed);
        let PairAnswer::Paired { role: NetworkRole::Connect, partner, secret, name } = &second else {
            panic!("{second:?}")
        };
        assert_eq!((partner.to_string().as_str(), name.as_str(), secret.as_str()), ("192.0.2.1:4000", "m1", "s1"));
        let (first, changed) = hear(&rows, machine(1, "t", 2000), 2000, "s2");
        assert!(changed.is_empty());
        assert!(matches!(&first, PairAnswer::Paired { role: NetworkRole::Listen, secret, .. } if secret == "s1"));
        assert_eq!(hear(&rows, machine(2, "t", 3000), 3000, "s3").0, second, "a lost answer is given again");
    }

    #[test]
    fn nobody_is_paired_with_itself_with_the_silent_or_with_other_work() {
        let waiting = |row| matches!(hear(&[row], machine(2, "t", 0), SILENT_MS, "s").0, PairAnswer::Wait { .. });
        let good = || machine(1, "t", SILENT_MS);
        assert!(!waiting(good()));
        assert!(waiting(machine(1, "t", 0)), "it has fallen silent");
        assert!(waiting(machine(1, "other", SILENT_MS)));
        assert!(waiting(Waiting { node: machine(2, "t", 0).node, ..good() }));
        assert!(waiting(Waiting { address: "[2001:db8::1]:4000".parse().expect("an address"), ..good() }));
    }

    proptest! {
        #[test]
        fn pairs_are_pairs(order in prop::collection::vec(0u8..8, 1..60)) {
            let mut rows = Vec::new();
            for (now, n) in (0i64..).zip(order) {
                let (_, changed) = hear(&rows, machine(n, "t", now), now, &format!("s{now}"));
                keep(&mut rows, changed);
            }
            let of = |row: &Waiting| match &row.paired {
                Some(PairAnswer::Paired { role, secret, partner, .. }) => Some((secret.clone(), *role, *partner)),
                _ => None,
            };
            for row in &rows {
                let Some((secret, role, partner)) = of(row) else { continue };
                let others: Vec<_> = rows.iter().filter(|r| r.run != row.run && of(r).is_some_and(|o| o.0 == secret)).collect();
                prop_assert_eq!(others.len(), 1);
                prop_assert_eq!(others[0].address, partner);
                prop_assert!(of(others[0]).is_some_and(|o| o.1 != role && o.2 == row.address));
            }
            prop_assert!(rows.iter().filter(|r| r.paired.is_none()).count() <= 1, "two that wait are paired");
        }
    }
}

//! Keeping a lease while the agent lives. When it is over the address goes, and one is asked for anew for ever. An address
//! that changes is reported in the log, and connections over the old one break: that is the network's doing, and the
//! agent's client connects again.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::apply::{self, Settings, apply};
use super::dhcp::{Client, Failure};
use super::lease::Lease;
use super::link::{Links, Nic};
use super::resolver::Resolver;
use super::term::{ANSWER_WAIT, Answer, Ended, Keeper, Term};

const ASK_ANEW: Duration = Duration::from_secs(60);

/// `None` for a lease that never ends.
pub(super) fn start(nic: Nic, lease: Lease, hostname: Option<&str>, resolver: Resolver, metric: u32) -> Option<Keeper> {
    lease.duration?;
    let client = Client::new(&nic, hostname);
    Some(Keeper::of(async move { keep(&nic, lease, &client, &resolver, metric).await }))
}

async fn keep(nic: &Nic, mut lease: Lease, client: &Client, resolver: &Resolver, metric: u32) {
    loop {
        // T1, T2 and the end count from the grant, which is now.
        let (next, was_lost) = match prolonged(nic, &lease, client).await {
            Some(next) => (next, false),
            None => (anew(nic, client).await, true),
        };
        // An address that was lost is gone from the interface, even if the same one is granted again.
        if was_lost || Settings::from_lease(&next) != Settings::from_lease(&lease) {
            tracing::warn!(nic = %nic, before = %lease.address, now = %next.address, server = %next.server, "the lease changed");
            put_in_force(nic, &next, resolver, metric).await;
        }
        lease = next;
        if lease.duration.is_none() {
            return;
        }
    }
}

/// Has the lease prolonged; `None` when it was refused or ran out, and the address is gone.
async fn prolonged(nic: &Nic, lease: &Lease, client: &Client) -> Option<Lease> {
    let term = Term::from_now(lease.renew_after, lease.rebind_after, lease.duration?);
    let asked = term.prolonged(move |turn| async move {
        let server = turn.asks_its_server.then_some(lease.server);
        match client.extend(lease, server, turn.wait).await {
            Ok(next) if next.address == lease.address => {
                tracing::debug!(nic = %nic, server = %next.server, "the lease was prolonged");
                return Answer::Prolonged(next);
            }
            Ok(other) => {
                tracing::warn!(nic = %nic, offered = %other.address, "ignoring an answer for another address");
            }
            Err(Failure::Refused { server }) => {
                tracing::error!(nic = %nic, address = %lease.address, %server, "the server took the address back");
                return Answer::Refused;
            }
            Err(failure) => tracing::warn!(nic = %nic, %failure, "the lease was not prolonged yet"),
        }
        Answer::NotYet
    });
    match asked.await {
        Ok(next) => return Some(next),
        Err(Ended::Refused) => {}
        Err(Ended::RanOut) => {
            tracing::error!(nic = %nic, address = %lease.address, "the lease ran out: no DHCP server prolonged it");
        }
    }
    // Somebody else may have the address from now on.
    if let Ok(links) = Links::connect()
        && let Err(error) = links.remove_other_addresses(nic, None).await
    {
        tracing::error!(nic = %nic, %error, "proceeding though the old address could not be removed");
    }
    None
}

async fn anew(nic: &Nic, client: &Client) -> Lease {
    loop {
        let begun = Instant::now();
        match client.obtain(ASK_ANEW).await {
            Ok(obtained) => return obtained.lease,
            Err(failure) => tracing::error!(nic = %nic, %failure, "still without an address"),
        }
        // A socket that cannot be opened fails at once; asking takes its time by itself.
        sleep_until(begun + ANSWER_WAIT).await;
    }
}

async fn put_in_force(nic: &Nic, lease: &Lease, resolver: &Resolver, metric: u32) {
    let mut notes = Vec::new();
    let settings = Settings::from_lease(lease);
    let applied = match Links::connect() {
        Ok(links) => apply(&links, nic, &settings, metric, &mut notes).await,
        Err(error) => Err(super::error::kernel(&error, "configuring the new lease")),
    };
    if let Err(fault) = applied {
        tracing::error!(nic = %nic, %fault, "the new lease could not be put in force");
    }
    apply::names(nic, &settings, resolver, &mut notes);
    for note in notes {
        tracing::warn!(nic = %nic, "{note}");
    }
}

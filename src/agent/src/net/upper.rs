//! Bonds and VLANs, made as the command line says. What an agent made that died is taken as it is.

use std::path::Path;
use std::time::Duration;

use rtnetlink::packet_route::link::InfoKind;
use rtnetlink::{LinkBond, LinkUnspec, LinkVlan};
use speediso_model::fault::{Fault, FaultCode};
use speediso_model::inventory::canonical_mac;
use tokio::time::{Instant, sleep};

use super::error;
use super::layer::{Bond, Members, Vlan};
use super::link::{LinkError, Links, Nic};
use super::{NIC_WAIT, Tried, no_carrier, v6};

/// Not `bond0`: the module makes one of that name by itself when it is loaded.
const BOND: &str = "uplink";
/// The kernel's limit is 16 with the terminating NUL.
const NAME: usize = 15;
/// After the first member has its link, for the others to find theirs.
const OTHERS: Duration = Duration::from_secs(2);
const POLL: Duration = Duration::from_millis(100);

/// Whether an interface is meant by a kernel name or a MAC address.
pub(super) fn is_named(nic: &Nic, name: &str) -> bool {
    nic.name == name || canonical_mac(name).as_ref() == Some(&nic.mac)
}

/// All cards, as soon as those are here that the bond names: drivers may still be finding theirs.
pub(super) async fn cards(links: &Links, wanted: &Bond) -> Result<Vec<Nic>, Fault> {
    let begun = Instant::now();
    loop {
        let all = links.list().await.map_err(|e| error::kernel(&e, "listing network interfaces"))?;
        let is_complete = match &wanted.members {
            Members::AllWithLink => true,
            Members::Named(names) => names.iter().all(|name| all.iter().any(|nic| is_named(nic, name))),
        };
        if is_complete || begun.elapsed() >= NIC_WAIT {
            return Ok(all);
        }
        sleep(POLL).await;
    }
}

/// Makes the bond and returns it.
pub(super) async fn bond(
    links: &Links,
    all: &[Nic],
    wanted: &Bond,
    carrier_wait: Duration,
    notes: &mut Vec<String>,
) -> Result<Nic, Fault> {
    if let Some(made) = existing(links, BOND, &InfoKind::Bond).await? {
        return Ok(made);
    }
    let members = members(links, all, wanted, carrier_wait, notes).await?;
    let mut message = LinkBond::new(BOND).mode(wanted.mode).miimon(wanted.miimon);
    if let Some(rate) = wanted.lacp_rate {
        message = message.ad_lacp_rate(rate);
    }
    if let Some(hash) = wanted.hash {
        message = message.xmit_hash_policy(hash);
    }
    if let Some(least) = wanted.min_links {
        message = message.min_links(least);
    }
    links.add(message.build(), BOND, "making the bond").await.map_err(|e| not_made(&e, "speediso.bond"))?;
    let bond = find(links, BOND).await?;
    for member in &members {
        let joined = async {
            // The kernel takes only members that are down.
            links
                .change(LinkUnspec::new_with_index(member.index).down().build(), member, "setting the interface down")
                .await?;
            let message = LinkUnspec::new_with_index(member.index).controller(bond.index).build();
            links.change(message, member, "adding the interface to the bond").await?;
            links.set_up(member).await
        };
        joined.await.map_err(|e| not_made(&e, "speediso.bond"))?;
    }
    if let Some(name) = &wanted.primary {
        match members.iter().find(|nic| is_named(nic, name)) {
            Some(primary) => {
                let message = LinkBond::new(BOND).index(bond.index).primary(primary.index).build();
                links
                    .change(message, &bond, "naming the bond's primary member")
                    .await
                    .map_err(|e| not_made(&e, "speediso.bond"))?;
            }
            None => notes.push(format!("primary={name} is no member of the bond: ignored")),
        }
    }
    links.set_up(&bond).await.map_err(|e| not_made(&e, "speediso.bond"))?;
    let list = members.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    notes.push(format!("{BOND} is a bond of {list}"));
    // With the address of its first member now.
    find(links, BOND).await
}

async fn members(
    links: &Links,
    all: &[Nic],
    wanted: &Bond,
    carrier_wait: Duration,
    notes: &mut Vec<String>,
) -> Result<Vec<Nic>, Fault> {
    let names = match &wanted.members {
        Members::AllWithLink => return with_link(links, all, carrier_wait).await,
        Members::Named(names) => names,
    };
    let mut members: Vec<Nic> = Vec::new();
    for name in names {
        match all.iter().find(|nic| is_named(nic, name)) {
            Some(nic) if members.contains(nic) => {}
            Some(nic) => members.push(nic.clone()),
            // A bond is there for this very case; that it is incomplete is said.
            None => {
                notes
                    .push(format!("there is no interface {name} as speediso.bond= names: the bond is made without it"));
            }
        }
    }
    if members.is_empty() {
        let mut fault = Fault::new(FaultCode::NoLink, "none of the interfaces that speediso.bond= names is here");
        fault.causes = all.iter().map(|nic| format!("there is {nic}")).collect();
        fault.advice =
            "correct the members in speediso.bond=, or look for the card's driver in the kernel log".to_owned();
        return Err(fault);
    }
    Ok(members)
}

async fn with_link(links: &Links, all: &[Nic], limit: Duration) -> Result<Vec<Nic>, Fault> {
    for nic in all.iter().filter(|nic| !nic.is_up) {
        links.set_up(nic).await.map_err(|e| not_made(&e, "speediso.bond"))?;
    }
    let begun = Instant::now();
    let mut first = None;
    loop {
        let now = links.list().await.map_err(|e| error::kernel(&e, "listing network interfaces"))?;
        let linked: Vec<Nic> = now.into_iter().filter(|nic| nic.has_carrier).collect();
        if !linked.is_empty() {
            let first = *first.get_or_insert_with(Instant::now);
            if linked.len() == all.len() || first.elapsed() >= OTHERS {
                return Ok(linked);
            }
        } else if begun.elapsed() >= limit {
            let dark = |nic: &Nic| Tried { nic: nic.clone(), had_link: false, what: no_carrier(limit) };
            return Err(error::nothing_worked(&all.iter().map(dark).collect::<Vec<_>>()));
        }
        sleep(POLL).await;
    }
}

/// Makes the VLAN on each of `parents` and returns what stands in their place.
pub(super) async fn vlan(links: &Links, parents: &[Nic], wanted: &Vlan) -> Result<Vec<Nic>, Fault> {
    let mut made = Vec::new();
    for parent in parents {
        // What is untagged there is another network, whose routers have no say.
        v6::leave(Path::new("/proc"), &parent.name);
        if !parent.is_up {
            links.set_up(parent).await.map_err(|e| not_made(&e, "speediso.vlan"))?;
        }
        let name = vlan_name(parent, wanted.id);
        if existing(links, &name, &InfoKind::Vlan).await?.is_none() {
            let message = LinkVlan::new(&name, parent.index, wanted.id).up().build();
            links.add(message, &name, "making the VLAN").await.map_err(|e| not_made(&e, "speediso.vlan"))?;
        }
        made.push(find(links, &name).await?);
    }
    Ok(made)
}

fn vlan_name(parent: &Nic, id: u16) -> String {
    let usual = format!("{}.{id}", parent.name);
    if usual.len() <= NAME { usual } else { format!("vlan{}.{id}", parent.index) }
}

async fn existing(links: &Links, name: &str, kind: &InfoKind) -> Result<Option<Nic>, Fault> {
    let found = links.named(name).await.map_err(|e| error::kernel(&e, "listing network interfaces"))?;
    match found {
        Some(nic) if nic.made_as.as_ref() == Some(kind) => Ok(Some(nic)),
        Some(nic) => Err(Fault::new(FaultCode::Internal, format!("{nic} is in the way: that name is needed"))),
        None => Ok(None),
    }
}

async fn find(links: &Links, name: &str) -> Result<Nic, Fault> {
    let found = links.named(name).await.map_err(|e| error::kernel(&e, "listing network interfaces"))?;
    found.ok_or_else(|| Fault::new(FaultCode::Internal, format!("the kernel made {name} and does not show it")))
}

fn not_made(error: &LinkError, key: &str) -> Fault {
    let mut fault = Fault::from_error(FaultCode::NoLink, error);
    fault.message = format!("what {key}= asks for could not be made");
    fault.causes.insert(0, error.to_string());
    fault.advice =
        format!("see the causes; correct {key}= in the boot entry, or add the kernel module (bonding, 8021q)");
    fault
}

//! What disks, network cards and the BMC tell when they are asked, beyond what the kernel knows of them anyway.
//!
//! Whoever does not answer costs the others nothing: each is asked by a thread of its own, and what has not come in time
//! is said to be unread. Nothing here changes anything.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use speediso_model::abilities::Abilities;
use speediso_model::inventory::bmc::Bmc;
use speediso_model::inventory::health::{DiskHealth, NvmeNamespace};
use speediso_model::inventory::link::{Link, LinkKind};
use speediso_model::inventory::{Disk, Interface, Inventory, Transport};
use speediso_model::lldp;
use speediso_sys::ipmi::{self, IpmiDevice};
use speediso_sys::lldp::Memory;
use speediso_sys::passthrough::{CommandError, health};
use speediso_sys::peek::Peek;
use speediso_sys::roots::Roots;
use speediso_sys::{ethtool, nics};

use crate::ctx::Cancel;
use crate::wipe::probe;

/// For all disks together. One that is well answers within a second, one that spins up within ten.
const DISKS: Duration = Duration::from_secs(12);
/// For the BMC: each question takes it some milliseconds, and it has hundreds of sensors.
const BMC: Duration = Duration::from_secs(4);
/// Of threads that do next to nothing.
const STACK: usize = 256 << 10;
const MOST_NAMES: usize = 8;

/// What a disk says.
#[derive(Debug, Default)]
struct Answer {
    health: Option<DiskHealth>,
    abilities: Option<Abilities>,
    namespaces: Vec<NvmeNamespace>,
    /// Speed now and at best.
    sata: Option<(Option<u32>, Option<u32>)>,
    /// What it did not tell beside its health.
    gaps: Vec<String>,
}

fn has_commands(disk: &Disk) -> bool {
    matches!(disk.tran, Transport::Nvme | Transport::Sata | Transport::Sas | Transport::Scsi | Transport::Unknown)
}

/// Asks every disk that takes commands for its health and abilities.
pub(crate) fn ask_disks(roots: &Roots, disks: &mut [Disk], unread: &mut Vec<String>) {
    if roots.is_live() {
        let roots = roots.clone();
        ask_all(disks, DISKS, unread, move |disk| ask(&roots, disk));
    }
}

fn ask(roots: &Roots, disk: &Disk) -> Result<Answer, String> {
    let in_words = |error: &dyn std::error::Error| {
        let source = error.source().map(|s| format!(": {s}")).unwrap_or_default();
        format!("{error}{source}")
    };
    // The causes name no disk, so that many of one reason can be told together.
    let device = Peek::open(roots, disk)
        .map_err(|fault| if fault.causes.is_empty() { fault.message } else { fault.causes.join(": ") })?;
    let mut answer = Answer { abilities: Some(probe::abilities(disk, &device)), ..Answer::default() };
    let health = if disk.tran == Transport::Nvme {
        match health::namespaces(&device) {
            Ok(namespaces) => answer.namespaces = namespaces,
            Err(error) => answer.gaps.push(format!("the namespaces: {}", in_words(&error))),
        }
        health::nvme(&device).map(Some)
    } else {
        health::scsi_or_ata(&device)
    };
    if disk.tran == Transport::Sata {
        match health::sata_speeds(&device) {
            Ok(speeds) => answer.sata = Some(speeds),
            Err(error) => answer.gaps.push(format!("the speed of the link: {}", in_words(&error))),
        }
    }
    match health {
        Ok(health) => answer.health = health,
        // Nobody carries commands to it: then there is nothing to be asked, either.
        Err(CommandError::NoWay { .. }) => {}
        Err(error) => return Err(in_words(&error)),
    }
    Ok(answer)
}

/// One thread for each. Those that have not answered when the time is over stay where they are: a request that hangs in
/// the kernel cannot be taken back.
fn ask_all(
    disks: &mut [Disk],
    limit: Duration,
    unread: &mut Vec<String>,
    ask: impl Fn(&Disk) -> Result<Answer, String> + Send + Sync + 'static,
) {
    let end = Instant::now() + limit;
    let ask = Arc::new(ask);
    let (answers, answered) = mpsc::channel();
    // By the disk's place in the list, whoever answers first.
    let mut waiting = BTreeSet::new();
    let mut failed: BTreeMap<String, BTreeSet<usize>> = BTreeMap::new();
    let mut gaps: BTreeMap<usize, Vec<String>> = BTreeMap::new();
    for (n, disk) in disks.iter().enumerate().filter(|(_, d)| has_commands(d) && d.size.0 > 0) {
        let (ask, answers, disk) = (Arc::clone(&ask), answers.clone(), disk.clone());
        let work = move || {
            // Nobody listens any more when it was too late.
            let _ = answers.send((n, ask(&disk)));
        };
        match std::thread::Builder::new().stack_size(STACK).spawn(work) {
            Ok(_) => waiting.insert(n),
            Err(error) => failed.entry(format!("no thread could be made for it: {error}")).or_default().insert(n),
        };
    }
    drop(answers);
    while !waiting.is_empty() {
        match answered.recv_timeout(end.saturating_duration_since(Instant::now())) {
            Ok((n, answer)) => {
                waiting.remove(&n);
                match answer {
                    Ok(mut answer) => {
                        gaps.insert(n, std::mem::take(&mut answer.gaps));
                        take(&mut disks[n], answer);
                    }
                    Err(why) => {
                        disks[n].health = Some(DiskHealth::unread(&why));
                        failed.entry(why).or_default().insert(n);
                    }
                }
            }
            Err(gone) => {
                let why = match gone {
                    mpsc::RecvTimeoutError::Timeout => format!("no answer within {} s", limit.as_secs()),
                    mpsc::RecvTimeoutError::Disconnected => "asking it panicked".to_owned(),
                };
                for n in std::mem::take(&mut waiting) {
                    disks[n].health = Some(DiskHealth::unread(&why));
                    failed.entry(why.clone()).or_default().insert(n);
                }
            }
        }
    }
    for (n, gaps) in gaps {
        unread.extend(gaps.iter().map(|gap| format!("{} does not tell {gap}", disks[n].name)));
    }
    // Five hundred disks that may not be opened are one line.
    for (why, which) in failed {
        let more = which.len().saturating_sub(MOST_NAMES);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let some = which.iter().take(MOST_NAMES).map(|n| disks[*n].name.as_str()).collect::<Vec<_>>().join(", ");
        unread.push(format!("the health of {some}{more} could not be read: {why}"));
    }
}

fn take(disk: &mut Disk, answer: Answer) {
    disk.health = answer.health;
    disk.abilities = answer.abilities;
    disk.namespaces = answer.namespaces;
    if let Some((now, best)) = answer.sata {
        let link = disk.link.get_or_insert(Link { kind: LinkKind::Sata, ..Link::default() });
        link.speed_mtps = link.speed_mtps.or(now);
        link.max_speed_mtps = best;
    }
}

/// What drivers and neighbours tell of the network cards.
pub(crate) fn ask_interfaces(roots: &Roots, interfaces: &mut [Interface], unread: &mut Vec<String>) {
    if let Err(error) = nics::add_vlans(roots, interfaces) {
        unread.push(format!("VLANs could not be listed: {error}"));
    }
    if roots.is_live()
        && let Err(error) = ethtool::add_details(interfaces)
    {
        unread.push(format!("the drivers of network interfaces could not be asked: {error}"));
    }
    match Memory::read(roots) {
        Some(memory) => lldp::add_to(interfaces, &memory.heard),
        None => unread.push("neighbours (LLDP) are not known: no agent listens on this machine".to_owned()),
    }
}

/// Waits until every neighbour that speaks has been heard: half a minute after the listening began at most. Where nobody
/// listens there is nothing to wait for.
pub(crate) fn await_neighbours(roots: &Roots, cancel: &Cancel) {
    const POLL: Duration = Duration::from_millis(500);
    let end = Instant::now() + Duration::from_secs(lldp::INTERVAL_SECONDS + 1);
    while Instant::now() < end && !cancel.is_cancelled() {
        let Some(memory) = Memory::read(roots) else { return };
        let linked: Vec<Interface> =
            nics::read(roots).unwrap_or_default().into_iter().filter(|n| n.has_carrier).collect();
        let heard = |nic: &Interface| memory.heard.iter().any(|h| h.interface == nic.name);
        if memory.is_settled(roots) || linked.iter().all(heard) {
            return;
        }
        std::thread::sleep(POLL);
    }
}

/// A BMC that is being asked, while others are.
pub(crate) struct Asking(Option<mpsc::Receiver<(Option<Bmc>, Vec<String>)>>);

pub(crate) fn begin_bmc(roots: &Roots) -> Asking {
    if !roots.is_live() {
        return Asking(None);
    }
    let roots = roots.clone();
    let (answer, answered) = mpsc::channel();
    let work = move || {
        let mut unread = Vec::new();
        let found = match IpmiDevice::open(&roots) {
            Ok(None) => None,
            Ok(Some(device)) => ipmi::examine(&device, BMC, &mut unread)
                .map_err(|error| unread.push(format!("the BMC could not be asked: {error}")))
                .ok(),
            Err(error) => {
                let why = std::error::Error::source(&error).map(|s| format!(": {s}")).unwrap_or_default();
                unread.push(format!("the BMC could not be asked: {error}{why}"));
                None
            }
        };
        let _ = answer.send((found, unread));
    };
    // Without a thread there is no answer, which is said.
    let _ = std::thread::Builder::new().stack_size(STACK).spawn(work);
    Asking(Some(answered))
}

impl Asking {
    /// Puts what it said where Ironic looks for it, and the rest beside.
    pub(crate) fn end(self, inventory: &mut Inventory) {
        let Some(answered) = self.0 else { return };
        // The last question may have been put just before its time was over.
        match answered.recv_timeout(BMC * 3) {
            Ok((found, unread)) => {
                inventory.unread.extend(unread);
                let lan = found.as_ref().map(|b| b.lan.as_slice()).unwrap_or_default();
                // The port that has an address, of several.
                let lan = lan.iter().find(|l| l.address.is_some()).or(lan.first());
                inventory.bmc_address = lan.and_then(|l| l.address.clone());
                inventory.bmc_mac = lan.map(|l| l.mac.clone());
                let v6 = lan.and_then(|l| l.v6_addresses.first());
                inventory.bmc_v6address = v6.map(|a| a.split('/').next().unwrap_or(a).to_owned());
                inventory.bmc = found;
            }
            Err(_) => inventory.unread.push("the BMC does not answer".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use speediso_model::inventory::health::Verdict;
    use speediso_model::units::Bytes;

    fn disks(n: usize) -> Vec<Disk> {
        let one =
            |n| Disk { name: format!("/dev/sd{n}"), tran: Transport::Sas, size: Bytes::gib(1), ..Disk::default() };
        (0..n).map(one).collect()
    }

    fn good() -> Answer {
        let health = DiskHealth { passed: Some(true), ..DiskHealth::default() }.judged();
        Answer { health: Some(health), ..Answer::default() }
    }

    #[test]
    fn a_disk_that_hangs_costs_its_own_line_only() {
        let mut all = disks(500);
        all[7].tran = Transport::Virtio;
        let mut unread = Vec::new();
        // Until the test ends: as a request in the kernel would.
        let (hold, held) = mpsc::channel::<()>();
        let held = std::sync::Mutex::new(held);
        ask_all(&mut all, Duration::from_secs(3), &mut unread, move |disk| match disk.name.as_str() {
            "/dev/sd13" => {
                let _ = held.lock().map(|held| held.recv());
                Ok(good())
            }
            "/dev/sd99" => Err("permission denied".to_owned()),
            _ => Ok(good()),
        });
        let unknown: Vec<&str> = all
            .iter()
            .filter(|d| d.health.as_ref().is_some_and(|h| h.verdict == Verdict::Unknown))
            .map(|d| d.name.as_str())
            .collect();
        assert_eq!(unknown, ["/dev/sd13", "/dev/sd99"]);
        assert_eq!(all[7].health, None, "a virtual disk is not asked");
        assert_eq!(all.iter().filter(|d| d.health.as_ref().is_some_and(|h| h.verdict == Verdict::Good)).count(), 497);
        assert_eq!(
            unread,
            [
                "the health of /dev/sd13 could not be read: no answer within 3 s",
                "the health of /dev/sd99 could not be read: permission denied"
            ]
        );
        drop(hold);
    }

    #[test]
    fn many_of_one_reason_are_one_line_and_one_that_is_gone_is_said() {
        let mut unread = Vec::new();
        ask_all(&mut disks(500), Duration::from_secs(30), &mut unread, |_| Err("permission denied".to_owned()));
        assert_eq!(unread.len(), 1);
        assert!(unread[0].contains("/dev/sd0, ") && unread[0].contains(" and 492 more"), "{unread:?}");

        // Listed a moment ago, pulled since.
        let mut gone = vec![Disk { name: "/dev/speediso-no-such-disk".into(), ..disks(1).remove(0) }];
        let mut unread = Vec::new();
        ask_all(&mut gone, Duration::from_secs(30), &mut unread, |disk| ask(&Roots::live(), disk));
        assert_eq!(unread.len(), 1, "{unread:?}");
        assert!(unread[0].contains("speediso-no-such-disk") && unread[0].contains("No such file"), "{unread:?}");
        assert_eq!(gone[0].health.as_ref().map(|h| h.verdict), Some(Verdict::Unknown));
    }

    #[test]
    fn one_that_panics_is_said_too() {
        let mut all = disks(2);
        let mut unread = Vec::new();
        ask_all(&mut all, Duration::from_secs(30), &mut unread, |disk| {
            assert!(disk.name != "/dev/sd1", "on purpose");
            Ok(good())
        });
        assert_eq!(unread, ["the health of /dev/sd1 could not be read: asking it panicked"]);
        assert_eq!(all[0].health.as_ref().map(|h| h.verdict), Some(Verdict::Good));
    }
}

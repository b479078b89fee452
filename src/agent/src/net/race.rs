//! Asking on all interfaces at once, over IPv4 and IPv6, and choosing one.
//!
//! Each interface and protocol is asked by a task of its own, which tells how far it got. The first interface over
//! which the controller can be reached is taken; the one the machine booted from is given a short head start. What others
//! were granted is given back. Tasks of the interface that was chosen go on behind its back: a second protocol that
//! comes later is used too.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use speediso_model::fault::Fault;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use super::apply::{self, Settings};
use super::choice::{Held, Lane, Standing, decide};
use super::link::{self, Links, Nic};
use super::reach::{Goal, reaches};
use super::resolver::{Family, Resolver};
use super::term::Keeper;
use super::v6;
use super::{Configured, Ipv6, Method, NetConfig, Tried, dhcp, error, no_carrier, renew};

const TICK: Duration = Duration::from_millis(100);
/// Behind whatever else is there, until an interface is chosen.
const METRIC: u32 = 1024;

enum News {
    Said(String),
    /// An address is there. Told at once, so that it can be given back whatever comes.
    Granted(usize, Held),
    Reached(usize, Family, Result<(), String>),
    /// In vain.
    Ended(usize, Family, Tried),
}

/// What the tasks share.
struct Common {
    config: NetConfig,
    hostname: Option<String>,
    resolver: Resolver,
    /// Only then is it worth asking which one leads to the controller.
    are_several: bool,
}

/// Runs it. `preferred` is a place in `nics`.
pub(super) async fn run(
    links: &Links,
    nics: &[Nic],
    preferred: Option<usize>,
    hostname: Option<&str>,
    config: &NetConfig,
    report: &(impl Fn(&str) + Send + Sync),
) -> Result<Configured, Fault> {
    let common = Arc::new(Common {
        config: config.clone(),
        hostname: hostname.map(str::to_owned),
        resolver: Resolver::new(&config.resolv_conf),
        are_several: nics.len() > 1,
    });
    let (tell, mut news) = mpsc::channel(64);
    let mut tasks: Vec<(usize, Task)> = Vec::new();
    let mut lanes: Vec<Lane> = Vec::new();
    for (place, nic) in nics.iter().enumerate() {
        v6::permit(Path::new("/proc"), &nic.name, config.ipv6 != Ipv6::Off);
        let mut lane = Lane::default();
        lane.v4.is_over = config.ipv6 == Ipv6::Only;
        lane.v6.is_over = config.ipv6 == Ipv6::Off;
        if !lane.v4.is_over {
            tasks.push((place, Task(tokio::spawn(v4(place, nic.clone(), Arc::clone(&common), tell.clone())))));
        }
        if !lane.v6.is_over {
            tasks.push((place, Task(tokio::spawn(v6(place, nic.clone(), Arc::clone(&common), tell.clone())))));
        }
        lanes.push(lane);
    }
    drop(tell);
    let waits_for_v4 = !config.goal.as_ref().and_then(Goal::literal).is_some_and(|ip| ip.is_ipv6());
    let mut first_grant: Option<Instant> = None;
    let winner = loop {
        match timeout(TICK, news.recv()).await {
            Ok(Some(item)) => {
                take(item, nics, &mut lanes, report);
                if first_grant.is_none() && lanes.iter().any(Lane::is_granted) {
                    first_grant = Some(Instant::now());
                }
                continue;
            }
            // All tasks have ended.
            Ok(None) => tokio::time::sleep(TICK).await,
            Err(_) => {}
        }
        let standings: Vec<Standing> = lanes
            .iter()
            .map(|lane| Standing {
                is_granted: lane.is_granted(),
                reached_for: lane.reached(waits_for_v4).map(|at| at.elapsed()),
                is_over: lane.is_over(),
            })
            .collect();
        if let Some(winner) = decide(&standings, preferred, first_grant.map(|at| at.elapsed())) {
            break winner;
        }
        if lanes.iter().all(Lane::is_over) && !lanes.iter().any(Lane::is_granted) {
            return Err(error::nothing_worked(&in_vain(lanes)));
        }
    };
    let keeps_all = config.keep_all;
    if !keeps_all {
        tasks.retain(|(place, _)| *place == winner);
        // What was told and not yet heard.
        while let Ok(item) = news.try_recv() {
            take(item, nics, &mut lanes, report);
        }
    }
    let mut notes = Vec::new();
    if config.goal.is_some() && common.are_several && lanes[winner].reached(false).is_none() {
        let whys = lanes.iter().flat_map(|lane| [&lane.v4.why, &lane.v6.why]).flatten();
        let whys: Vec<String> = whys.map(|tried| format!("{}: {}", tried.nic, tried.what)).collect();
        notes.push(format!(
            "the controller is reached over no interface, going on with {}: {}",
            nics[winner],
            whys.join("; ")
        ));
    }
    let mut lost = Vec::new();
    let mut won = None;
    for (place, lane) in lanes.into_iter().enumerate() {
        if place == winner {
            won = Some(lane);
        } else if keeps_all {
            lost.push((place, lane));
        } else {
            give_back(links, &nics[place], lane, &common, report).await;
        }
    }
    let lane = won.unwrap_or_default();
    let mut keepers = Keepers::default();
    let mut configured = take_in(links, &nics[winner], lane, &common, &mut keepers).await?;
    notes.append(&mut configured.notes);
    for (place, lane) in lost {
        for held in [lane.v4.held, lane.v6.held].into_iter().flatten() {
            notes.extend(keepers.keep(links, &nics[place], held, &common, METRIC).await);
        }
    }
    configured.notes = notes;
    let rest = behind(news, tasks, nics.to_vec(), winner, common, keepers);
    configured.keep(Task(tokio::spawn(rest)));
    Ok(configured)
}

/// Enters what was told.
fn take(item: News, nics: &[Nic], lanes: &mut [Lane], report: &(impl Fn(&str) + Send + Sync)) {
    match item {
        News::Said(text) => report(&text),
        News::Granted(place, held) => {
            let family = if matches!(held, Held::V4(_)) { Family::V4 } else { Family::V6 };
            lanes[place].of(family).held = Some(held);
        }
        News::Reached(place, family, Ok(())) => {
            let progress = lanes[place].of(family);
            (progress.reached, progress.is_over) = (Some(Instant::now()), true);
        }
        News::Reached(place, family, Err(what)) => {
            let nic = nics[place].clone();
            report(&format!("{nic}: the controller is not reached: {what}"));
            let progress = lanes[place].of(family);
            (progress.is_over, progress.why) = (true, Some(Tried { nic, had_link: true, what }));
        }
        News::Ended(place, family, tried) => {
            if family == Family::V4 {
                report(&format!("{}: {}", tried.nic, tried.what));
            }
            let progress = lanes[place].of(family);
            (progress.is_over, progress.why) = (true, Some(tried));
        }
    }
}

/// One line for each interface, whatever was tried on it.
fn in_vain(lanes: Vec<Lane>) -> Vec<Tried> {
    lanes
        .into_iter()
        .filter_map(|lane| match (lane.v4.why, lane.v6.why) {
            (Some(four), Some(six)) if four.had_link || six.had_link => {
                Some(Tried { had_link: true, what: format!("{}; IPv6: {}", four.what, six.what), ..four })
            }
            (four, six) => four.or(six),
        })
        .collect()
}

/// A task that ends with whoever holds it.
#[derive(Debug)]
pub(super) struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[derive(Debug, Default)]
struct Keepers(Vec<Keeper>);

impl Keepers {
    /// Puts what was granted in force for good. Returns what should be known.
    async fn keep(&mut self, links: &Links, nic: &Nic, held: Held, common: &Common, metric: u32) -> Vec<String> {
        match held {
            Held::V4(obtained) => {
                let dhcp::Obtained { lease, mut notes } = *obtained;
                notes.extend(lease.notes.iter().cloned());
                let settings = Settings::from_lease(&lease);
                if let Err(fault) = apply::apply(links, nic, &settings, metric, &mut notes).await {
                    notes.push(fault.to_string());
                }
                apply::names(nic, &settings, &common.resolver, &mut notes);
                self.0.extend(renew::start(
                    nic.clone(),
                    lease,
                    common.hostname.as_deref(),
                    common.resolver.clone(),
                    metric,
                ));
                notes
            }
            Held::V6(gained) => {
                let mut notes = gained.notes.clone();
                notes.extend(common.resolver.set(Family::V6, nic.index, gained.names.clone()));
                self.0.extend(v6::start(nic, &gained, &common.resolver));
                notes
            }
        }
    }
}

/// The interface that was chosen: everything it has is put in force, IPv4 is what it is known by.
async fn take_in(
    links: &Links,
    nic: &Nic,
    lane: Lane,
    common: &Common,
    keepers: &mut Keepers,
) -> Result<Configured, Fault> {
    let mut configured = Configured::nothing(nic);
    if let Some(Held::V6(gained)) = &lane.v6.held {
        configured.also.push(IpAddr::V6(gained.address));
        (configured.address, configured.prefix) = (gained.address.into(), gained.prefix);
        configured.gateway = gained.router.map(IpAddr::V6);
        configured.dns.clone_from(&gained.names.servers);
        configured.method = Method::Advertised { by_dhcp: gained.lent.is_some() };
    }
    if let Some(Held::V4(obtained)) = &lane.v4.held {
        let settings = Settings::from_lease(&obtained.lease);
        // Must succeed: without address and route there is no network.
        apply::apply(links, nic, &settings, 0, &mut configured.notes).await?;
        (configured.address, configured.prefix) = (obtained.lease.address.into(), obtained.lease.prefix);
        configured.gateway = settings.gateway().map(IpAddr::V4);
        configured.dns.splice(0..0, settings.dns.iter().copied().map(IpAddr::V4));
        configured.hostname.clone_from(&settings.hostname);
        configured.method = Method::Dhcp(Box::new(obtained.lease.clone()));
    }
    configured.also.retain(|ip| *ip != configured.address);
    for held in [lane.v4.held, lane.v6.held].into_iter().flatten() {
        configured.notes.extend(keepers.keep(links, nic, held, common, 0).await);
    }
    Ok(configured)
}

/// What comes after the choice. Ends with the value that holds it, and with it all that it keeps.
async fn behind(
    mut news: mpsc::Receiver<News>,
    tasks: Vec<(usize, Task)>,
    nics: Vec<Nic>,
    winner: usize,
    common: Arc<Common>,
    mut keepers: Keepers,
) {
    while let Some(item) = news.recv().await {
        let News::Granted(place, held) = item else { continue };
        let nic = &nics[place];
        let Ok(links) = Links::connect() else { continue };
        let what = match &held {
            Held::V4(obtained) => format!("{}/{}", obtained.lease.address, obtained.lease.prefix),
            Held::V6(gained) => format!("{}/{}", gained.address, gained.prefix),
        };
        tracing::info!("network: {nic} has {what} too");
        let metric = if place == winner { 0 } else { METRIC };
        for note in keepers.keep(&links, nic, held, &common, metric).await {
            tracing::warn!("network: {note}");
        }
    }
    drop(tasks);
    // Keepers end with this task.
    std::future::pending::<()>().await;
}

/// An interface that was not chosen keeps nothing: what is granted twice is missed by somebody else.
async fn give_back(links: &Links, nic: &Nic, lane: Lane, common: &Common, report: &(impl Fn(&str) + Send + Sync)) {
    if let Some(Held::V4(obtained)) = &lane.v4.held {
        report(&format!("{nic}: giving {} back to {}", obtained.lease.address, obtained.lease.server));
        dhcp::Client::new(nic, common.hostname.as_deref()).release(&obtained.lease).await;
        if let Err(error) = links.remove_other_addresses(nic, None).await {
            tracing::warn!(nic = %nic, %error, "proceeding though an address could not be removed");
        }
    }
    if let Some(Held::V6(gained)) = &lane.v6.held
        && let Some((lent, server)) = &gained.lent
    {
        super::dhcp6::release(nic, lent.address, server).await;
    }
    if common.config.ipv6 != Ipv6::Off {
        v6::leave(Path::new("/proc"), &nic.name);
    }
}

async fn v4(place: usize, nic: Nic, common: Arc<Common>, tell: mpsc::Sender<News>) {
    let ended = |tried| News::Ended(place, Family::V4, tried);
    let outcome = async {
        let links = linked(&nic, &common.config).await?;
        let _ = tell.send(News::Said(format!("{nic} has link: asking for an address by DHCP"))).await;
        let client = dhcp::Client::new(&nic, common.hostname.as_deref());
        let obtained = client.obtain(common.config.dhcp_wait).await.map_err(|failure| Tried {
            nic: nic.clone(),
            had_link: true,
            what: failure.to_string(),
        })?;
        let settings = Settings::from_lease(&obtained.lease);
        let dns: Vec<IpAddr> = settings.dns.iter().copied().map(IpAddr::V4).collect();
        let _ = tell.send(News::Granted(place, Held::V4(Box::new(obtained)))).await;
        let Some(goal) = common.config.goal.as_ref().filter(|_| common.are_several) else { return Ok(Ok(())) };
        let mut notes = Vec::new();
        let metric = METRIC + nic.index;
        let applied = apply::apply(&links, &nic, &settings, metric, &mut notes).await;
        applied.map_err(|fault| Tried { nic: nic.clone(), had_link: true, what: fault.to_string() })?;
        Ok(reaches(goal, &nic, Family::V4, &dns).await)
    };
    let _ = match outcome.await {
        Ok(reached) => tell.send(News::Reached(place, Family::V4, reached)).await,
        Err(tried) => tell.send(ended(tried)).await,
    };
}

async fn v6(place: usize, nic: Nic, common: Arc<Common>, tell: mpsc::Sender<News>) {
    let outcome = async {
        linked(&nic, &common.config).await?;
        let gained = v6::obtain(&nic, common.config.dhcp_wait).await.map_err(|what| Tried {
            nic: nic.clone(),
            had_link: true,
            what,
        })?;
        let dns = gained.names.servers.clone();
        let _ = tell.send(News::Granted(place, Held::V6(Box::new(gained)))).await;
        let Some(goal) = common.config.goal.as_ref().filter(|_| common.are_several) else { return Ok(Ok(())) };
        Ok(reaches(goal, &nic, Family::V6, &dns).await)
    };
    let _ = match outcome.await {
        Ok(reached) => tell.send(News::Reached(place, Family::V6, reached)).await,
        Err(tried) => tell.send(News::Ended(place, Family::V6, tried)).await,
    };
}

/// Once there is a link.
async fn linked(nic: &Nic, config: &NetConfig) -> Result<Links, Tried> {
    let links = Links::connect().map_err(|e| Tried::kernel(nic, &e))?;
    if link::wait_for_carrier(&links, nic, config.carrier_wait).await? {
        Ok(links)
    } else {
        Err(Tried { nic: nic.clone(), had_link: false, what: no_carrier(config.carrier_wait) })
    }
}

//! The machine's own address: by DHCP or as the command line says, on the interface it booted from.
//!
//! Interfaces are chosen by BOOTIF, else by having a link; a kernel name alone decides only where a person wrote it.
//! Nothing learnt from the network names a controller or touches trust: a DHCP server gives an address, routes, name
//! servers, a host name and an MTU, and those are checked before use. Every other option is kept as raw bytes for
//! reading along and acted upon by nobody.

mod apply;
mod dhcp;
mod error;
mod lease;
mod link;
mod message;
mod param;
mod renew;
mod socket;

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use speediso_model::fault::{Fault, FaultCode};
use speediso_model::inventory::canonical_mac;

pub use lease::{Lease, LeaseError, Route};
pub use message::{Kind, MessageError, Options, Reply};
pub use param::{IpParam, ParamError, StaticIp};

use link::{Links, Nic};

/// What the command line and the flavour of live system say about the network.
#[derive(Clone, Debug)]
pub struct NetConfig {
    /// BOOTIF, in any of its spellings.
    pub boot_mac: Option<String>,
    /// `ip=`
    pub ip: IpParam,
    /// Told to the DHCP server; `ip=`'s own wins.
    pub hostname: Option<String>,
    /// Take an address that an interface already has instead of asking for another: for live systems whose network
    /// somebody else looks after.
    pub adopt: bool,
    /// How long an interface may take to find its link. Spanning tree and some optics take half a minute.
    pub carrier_wait: Duration,
    /// How long DHCP servers are asked, once there is a link.
    pub dhcp_wait: Duration,
    pub resolv_conf: PathBuf,
}

impl Default for NetConfig {
    fn default() -> Self {
        Self {
            boot_mac: None,
            ip: IpParam::default(),
            hostname: None,
            adopt: false,
            carrier_wait: Duration::from_secs(40),
            dhcp_wait: Duration::from_secs(60),
            resolv_conf: PathBuf::from("/etc/resolv.conf"),
        }
    }
}

/// How the address came about.
#[derive(Clone, Debug)]
pub enum Method {
    Dhcp(Box<Lease>),
    /// From `ip=`.
    Static,
    /// It was there.
    Adopted,
}

/// A network that works as far as can be seen from here. The lease is renewed while this value lives.
#[derive(Debug)]
pub struct Configured {
    pub nic: String,
    pub mac: String,
    pub address: Ipv4Addr,
    pub prefix: u8,
    pub gateway: Option<Ipv4Addr>,
    pub dns: Vec<Ipv4Addr>,
    /// From DHCP option 12 or `ip=`; a valid RFC 1123 name.
    pub hostname: Option<String>,
    pub method: Method,
    /// What an operator should know though it stopped nothing: a second DHCP server, a refused option.
    pub notes: Vec<String>,
    /// Ends with this value.
    _keeper: Option<renew::Keeper>,
}

impl Configured {
    /// One line for the console.
    #[must_use]
    pub fn summary(&self) -> String {
        let how = match &self.method {
            Method::Dhcp(lease) => format!("DHCP from {}, lease {}", lease.server, lease.duration_text()),
            Method::Static => "static, from ip=".to_owned(),
            Method::Adopted => "as the system had configured it".to_owned(),
        };
        let gateway = self.gateway.map_or_else(|| "no gateway".to_owned(), |g| format!("gateway {g}"));
        format!("{} ({}): {}/{}, {gateway} ({how})", self.nic, self.mac, self.address, self.prefix)
    }
}

/// Drivers may still be finding their devices when the agent starts.
const NIC_WAIT: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(200);

/// Gives the machine an address. `report` gets a line for the console whenever something begins or is found out.
///
/// # Errors
/// `no-link` when no interface that comes into question has a link, `no-dhcp` when none of those that have one got an
/// answer; both with what was tried on each. Nothing is retried beyond the limits of `config`: the caller does.
pub async fn bring_up(config: &NetConfig, report: impl Fn(&str) + Send + Sync) -> Result<Configured, Fault> {
    let links = Links::connect().map_err(|e| error::kernel(&e, "opening a netlink socket"))?;
    let boot_mac = config.boot_mac.as_deref().and_then(canonical_mac);
    let mut notes = Vec::new();
    let candidates = candidates(&links, config, boot_mac.as_deref(), &mut notes).await?;
    for note in &notes {
        report(note);
    }
    if config.adopt
        && let Some(found) = adopt(&links, &candidates, &notes).await?
    {
        report(&found.summary());
        return Ok(found);
    }
    let mut configured = match &config.ip {
        IpParam::Static(wanted) => set_statically(&links, &candidates, wanted, config, &report).await?,
        IpParam::Dhcp { hostname, .. } => {
            let hostname = hostname.as_deref().or(config.hostname.as_deref());
            ask_everywhere(&links, &candidates, hostname, config, &report).await?
        }
        IpParam::Off => {
            return Err(Fault::new(FaultCode::NoDhcp, "ip=off: the command line wants no address configured"));
        }
    };
    notes.append(&mut configured.notes);
    configured.notes = notes;
    report(&configured.summary());
    Ok(configured)
}

/// The interfaces that come into question: the one of BOOTIF if it is here, else the one that `ip=` names, else all.
async fn candidates(
    links: &Links,
    config: &NetConfig,
    boot_mac: Option<&str>,
    notes: &mut Vec<String>,
) -> Result<Vec<Nic>, Fault> {
    let named = config.ip.device();
    let is_named = |nic: &&Nic| named.is_some_and(|n| nic.name == n || canonical_mac(n).as_ref() == Some(&nic.mac));
    let begun = tokio::time::Instant::now();
    let (all, boot) = loop {
        let all = links.list().await.map_err(|e| error::kernel(&e, "listing network interfaces"))?;
        let boot = all.iter().find(|nic| Some(nic.mac.as_str()) == boot_mac).cloned();
        let is_complete = boot.is_some() || (boot_mac.is_none() && !all.is_empty());
        if is_complete || begun.elapsed() >= NIC_WAIT {
            break (all, boot);
        }
        tokio::time::sleep(POLL).await;
    };
    if all.is_empty() {
        return Err(error::no_nic());
    }
    if let Some(boot) = boot {
        if let Some(named) = named
            && !is_named(&&boot)
        {
            notes.push(format!("ip= names {named}, but the machine booted from {boot}: using that one"));
        }
        return Ok(vec![boot]);
    }
    if let Some(mac) = boot_mac {
        notes
            .push(format!("no interface has the address {mac} that BOOTIF names (is its driver missing?): trying all"));
    } else if let Some(mac) = &config.boot_mac {
        notes.push(format!("BOOTIF={mac} is no MAC address: ignored"));
    }
    if let Some(nic) = all.iter().find(is_named) {
        return Ok(vec![nic.clone()]);
    }
    if let Some(named) = named {
        notes.push(format!("there is no interface {named} as ip= names: trying all"));
    }
    Ok(all)
}

/// Asks on all candidates side by side; the first that gets a lease is taken.
async fn ask_everywhere(
    links: &Links,
    candidates: &[Nic],
    hostname: Option<&str>,
    config: &NetConfig,
    report: &(impl Fn(&str) + Send + Sync),
) -> Result<Configured, Fault> {
    let mut asking: FuturesUnordered<_> = candidates
        .iter()
        .map(|nic| async move {
            if !link::wait_for_carrier(links, nic, config.carrier_wait).await? {
                return Err(Tried { nic: nic.clone(), had_link: false, what: no_carrier(config.carrier_wait) });
            }
            report(&format!("{nic} has link: asking for an address by DHCP"));
            let client = dhcp::Client::new(nic, hostname);
            match client.obtain(config.dhcp_wait).await {
                Ok(obtained) => Ok((nic.clone(), obtained)),
                Err(failure) => Err(Tried { nic: nic.clone(), had_link: true, what: failure.to_string() }),
            }
        })
        .collect();
    let mut tried = Vec::new();
    while let Some(ended) = asking.next().await {
        match ended {
            Err(failure) => {
                report(&format!("{}: {}", failure.nic, failure.what));
                tried.push(failure);
            }
            Ok((nic, obtained)) => {
                // The others stop asking: one network is what is wanted, and this one answers.
                drop(asking);
                return take(links, nic, obtained, hostname, config).await;
            }
        }
    }
    Err(error::nothing_worked(&tried))
}

/// What was tried on an interface, in vain.
#[derive(Clone, Debug)]
struct Tried {
    nic: Nic,
    had_link: bool,
    what: String,
}

impl Tried {
    fn kernel(nic: &Nic, error: &link::LinkError) -> Self {
        Self { nic: nic.clone(), had_link: false, what: error.to_string() }
    }
}

fn no_carrier(waited: Duration) -> String {
    format!("no link after {} s", waited.as_secs())
}

async fn take(
    links: &Links,
    nic: Nic,
    obtained: dhcp::Obtained,
    hostname: Option<&str>,
    config: &NetConfig,
) -> Result<Configured, Fault> {
    let dhcp::Obtained { lease, mut notes } = obtained;
    notes.extend(lease.notes.iter().cloned());
    let settings = apply::Settings::from_lease(&lease);
    apply::apply(links, &nic, &settings, &config.resolv_conf, &mut notes).await?;
    let keeper = renew::Keeper::start(nic.clone(), lease.clone(), hostname, config.resolv_conf.clone());
    Ok(Configured {
        nic: nic.name,
        mac: nic.mac,
        address: lease.address,
        prefix: lease.prefix,
        gateway: settings.gateway(),
        dns: settings.dns,
        hostname: settings.hostname,
        method: Method::Dhcp(Box::new(lease)),
        notes,
        _keeper: keeper,
    })
}

async fn set_statically(
    links: &Links,
    candidates: &[Nic],
    wanted: &StaticIp,
    config: &NetConfig,
    report: &(impl Fn(&str) + Send + Sync),
) -> Result<Configured, Fault> {
    let mut waiting: FuturesUnordered<_> = candidates
        .iter()
        .map(|nic| async move { (nic, link::wait_for_carrier(links, nic, config.carrier_wait).await) })
        .collect();
    let mut with_link = Vec::new();
    let mut tried = Vec::new();
    while let Some((nic, carrier)) = waiting.next().await {
        match carrier {
            Ok(true) => with_link.push(nic.clone()),
            Ok(false) => {
                tried.push(Tried { nic: nic.clone(), had_link: false, what: no_carrier(config.carrier_wait) });
            }
            Err(failure) => tried.push(failure),
        }
    }
    let nic = match with_link.as_slice() {
        [] => return Err(error::nothing_worked(&tried)),
        [nic] => nic.clone(),
        // Nobody answers that could tell them apart.
        several => return Err(error::ambiguous(several)),
    };
    report(&format!("{nic} has link: setting {}/{} from ip=", wanted.address, wanted.prefix));
    let mut notes = Vec::new();
    let settings = apply::Settings::from_param(wanted);
    apply::apply(links, &nic, &settings, &config.resolv_conf, &mut notes).await?;
    Ok(Configured {
        nic: nic.name,
        mac: nic.mac,
        address: wanted.address,
        prefix: wanted.prefix,
        gateway: wanted.gateway,
        dns: settings.dns,
        hostname: settings.hostname,
        method: Method::Static,
        notes,
        _keeper: None,
    })
}

async fn adopt(links: &Links, candidates: &[Nic], notes: &[String]) -> Result<Option<Configured>, Fault> {
    for nic in candidates {
        let found = links.address_of(nic).await.map_err(|e| error::kernel(&e, "reading network addresses"))?;
        let Some((address, prefix)) = found else { continue };
        let gateway = links.gateway_of(nic).await.map_err(|e| error::kernel(&e, "reading routes"))?;
        return Ok(Some(Configured {
            nic: nic.name.clone(),
            mac: nic.mac.clone(),
            address,
            prefix,
            gateway,
            dns: Vec::new(),
            hostname: None,
            method: Method::Adopted,
            notes: notes.to_vec(),
            _keeper: None,
        }));
    }
    Ok(None)
}

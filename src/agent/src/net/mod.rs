//! The machine's own address: by DHCP or as the command line says, on the interface it booted from.
//!
//! Interfaces are chosen by reaching the controller, the one of BOOTIF before others; a kernel name alone decides only
//! where a person wrote it. Bonds and VLANs are made first, where the command line has them.
//! Nothing learnt from the network names a controller or touches trust: a DHCP server gives an address, routes, name
//! servers, a host name and an MTU, and those are checked before use. Every other option is kept as raw bytes for
//! reading along and acted upon by nobody.

mod apply;
mod choice;
mod dhcp;
mod dhcp6;
mod dhcp6_message;
pub(crate) mod dns;
pub(crate) mod ear;
mod error;
pub(crate) mod frame;
pub(crate) mod kept;
mod layer;
mod lease;
mod link;
mod message;
mod names;
mod param;
mod ra;
mod race;
mod reach;
mod renew;
mod resolver;
mod socket;
mod term;
mod upper;
mod v6;

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use speediso_model::fault::{Fault, FaultCode};
use speediso_model::inventory::canonical_mac;

pub use layer::{Bond, Ipv6, LayerError, Members, Vlan};
pub use lease::{Lease, LeaseError, Route};
pub use message::{Kind, MessageError, Options, Reply};
pub(crate) use message::{Request, request};
pub use param::{IpParam, ParamError, StaticIp};
pub use ra::Advertisement;
pub use reach::Goal;

use link::{Links, Nic};
use resolver::{Family, Names, Resolver};

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
    pub bond: Option<Bond>,
    pub vlan: Option<Vlan>,
    pub ipv6: Ipv6,
    /// The controller: of several interfaces the one is taken that leads there.
    pub goal: Option<Goal>,
    /// Every interface keeps the address that it was given.
    pub keep_all: bool,
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
            bond: None,
            vlan: None,
            ipv6: Ipv6::default(),
            goal: None,
            keep_all: false,
        }
    }
}

/// How the address came about.
#[derive(Clone, Debug)]
pub enum Method {
    Dhcp(Box<Lease>),
    /// IPv6: made from what a router advertises, or given by DHCPv6 because it says so.
    Advertised {
        by_dhcp: bool,
    },
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
    pub address: IpAddr,
    pub prefix: u8,
    pub gateway: Option<IpAddr>,
    pub dns: Vec<IpAddr>,
    /// Of the other protocol.
    pub also: Vec<IpAddr>,
    /// From DHCP option 12 or `ip=`; a valid RFC 1123 name.
    pub hostname: Option<String>,
    pub method: Method,
    /// What an operator should know though it stopped nothing: a second DHCP server, a refused option.
    pub notes: Vec<String>,
    /// Ends with this value.
    keeper: Option<race::Task>,
}

impl Configured {
    fn nothing(nic: &Nic) -> Self {
        Self {
            nic: nic.name.clone(),
            mac: nic.mac.clone(),
            address: Ipv4Addr::UNSPECIFIED.into(),
            prefix: 0,
            gateway: None,
            dns: Vec::new(),
            also: Vec::new(),
            hostname: None,
            method: Method::Adopted,
            notes: Vec::new(),
            keeper: None,
        }
    }

    fn keep(&mut self, task: race::Task) {
        self.keeper = Some(task);
    }

    /// One line for the console.
    #[must_use]
    pub fn summary(&self) -> String {
        let how = self.method_text();
        let gateway = self.gateway.map_or_else(|| "no gateway".to_owned(), |g| format!("gateway {g}"));
        let also = self.also.iter().map(|ip| format!(" and {ip}")).collect::<String>();
        format!("{} ({}): {}/{}{also}, {gateway} ({how})", self.nic, self.mac, self.address, self.prefix)
    }

    /// How the address came about, for the console.
    #[must_use]
    pub fn method_text(&self) -> String {
        match &self.method {
            Method::Dhcp(lease) => format!("DHCP from {}, lease {}", lease.server, lease.duration_text()),
            Method::Advertised { by_dhcp: true } => "DHCPv6".to_owned(),
            Method::Advertised { by_dhcp: false } => "from a router's advertisement".to_owned(),
            Method::Static => "static, from ip=".to_owned(),
            Method::Adopted => "as the system had configured it".to_owned(),
        }
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
    let mut notes = Vec::new();
    let found = Candidates::find(&links, config, &mut notes).await?;
    let found = found.layered(&links, config, &mut notes).await?;
    for note in &notes {
        report(note);
    }
    if config.adopt
        && let Some(adopted) = adopt(&links, &found.nics, &notes).await?
    {
        report(&adopted.summary());
        return Ok(adopted);
    }
    let mut configured = match &config.ip {
        IpParam::Static(wanted) => set_statically(&links, &found.for_one(), wanted, config, &report).await?,
        IpParam::Dhcp { hostname, .. } => {
            let hostname = hostname.as_deref().or(config.hostname.as_deref());
            race::run(&links, &found.nics, found.preferred, hostname, config, &report).await?
        }
        IpParam::Off => {
            return Err(Fault::new(FaultCode::NoDhcp, "ip=off: the command line wants no address configured"));
        }
    };
    notes.append(&mut configured.notes);
    let mut seen = std::collections::HashSet::new();
    notes.retain(|note| seen.insert(note.clone()));
    configured.notes = notes;
    report(&configured.summary());
    Ok(configured)
}

/// The interfaces that come into question.
#[derive(Debug)]
struct Candidates {
    nics: Vec<Nic>,
    /// The place of the one that the machine booted from.
    preferred: Option<usize>,
}

impl Candidates {
    /// All that are here, or the one that `ip=` names.
    async fn find(links: &Links, config: &NetConfig, notes: &mut Vec<String>) -> Result<Self, Fault> {
        let boot_mac = config.boot_mac.as_deref().and_then(canonical_mac);
        let begun = tokio::time::Instant::now();
        let (nics, preferred) = loop {
            let nics = links.list().await.map_err(|e| error::kernel(&e, "listing network interfaces"))?;
            let preferred = nics.iter().position(|nic| Some(&nic.mac) == boot_mac.as_ref());
            let is_complete = preferred.is_some() || (boot_mac.is_none() && !nics.is_empty());
            if is_complete || begun.elapsed() >= NIC_WAIT {
                break (nics, preferred);
            }
            tokio::time::sleep(POLL).await;
        };
        if nics.is_empty() {
            return Err(error::no_nic());
        }
        let named = config.ip.device();
        let place = named.and_then(|name| nics.iter().position(|nic| upper::is_named(nic, name)));
        match (preferred, named) {
            (Some(boot), Some(name)) if place != Some(boot) => {
                notes.push(format!("ip= names {name}, but the machine booted from {}: using that one", nics[boot]));
            }
            (None, Some(name)) if place.is_none() => {
                notes.push(format!("there is no interface {name} as ip= names: trying all"));
            }
            _ => {}
        }
        if let (Some(mac), None) = (&boot_mac, preferred) {
            notes.push(format!(
                "no interface has the address {mac} that the machine was started over (is its driver missing?): trying all"
            ));
        } else if let (Some(mac), None) = (&config.boot_mac, &boot_mac) {
            notes.push(format!("BOOTIF={mac} is no MAC address: ignored"));
        }
        // A person's word about one interface; who booted from another one meant that.
        if named.is_some()
            && let Some(only) = preferred.or(place)
        {
            return Ok(Self { nics: vec![nics[only].clone()], preferred: Some(0) });
        }
        Ok(Self { nics, preferred })
    }

    /// With the bond and the VLAN on top, where they are wanted.
    async fn layered(self, links: &Links, config: &NetConfig, notes: &mut Vec<String>) -> Result<Self, Fault> {
        let mut below = self;
        if let Some(bond) = &config.bond {
            // Members are cards, whatever was chosen among them.
            let all = upper::cards(links, bond).await?;
            let made = upper::bond(links, &all, bond, config.carrier_wait, notes).await?;
            below = Self { nics: vec![made], preferred: None };
        }
        let Some(vlan) = &config.vlan else { return Ok(below) };
        if let Some(parent) = &vlan.parent {
            let place = below.nics.iter().position(|nic| upper::is_named(nic, parent));
            let Some(place) = place else {
                let mut fault =
                    Fault::new(FaultCode::NoLink, format!("speediso.vlan= names {parent}, which is not here"));
                fault.causes = below.nics.iter().map(|nic| format!("there is {nic}")).collect();
                return Err(fault);
            };
            below = Self { nics: vec![below.nics[place].clone()], preferred: None };
        }
        let parents = below.for_one();
        let nics = upper::vlan(links, &parents, vlan).await?;
        Ok(Self { nics, preferred: None })
    }

    /// Where nobody answers that could tell them apart: the boot's own, or all.
    fn for_one(&self) -> Vec<Nic> {
        self.preferred.map_or_else(|| self.nics.clone(), |place| vec![self.nics[place].clone()])
    }
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
    let mut configured = Configured::nothing(&nic);
    // What a person wrote is all there is: routers have no say.
    v6::permit(Path::new("/proc"), &nic.name, false);
    let four = |ip: &IpAddr| if let IpAddr::V4(four) = ip { Some(*four) } else { None };
    match (wanted.address, wanted.gateway) {
        (IpAddr::V4(address), gateway) => {
            let gateway = gateway.as_ref().and_then(four);
            let settings = apply::Settings::by_hand(address, wanted.prefix, gateway);
            apply::apply(links, &nic, &settings, 0, &mut configured.notes).await?;
        }
        (address, gateway) => {
            let required = |e: link::LinkError| error::kernel(&e, &format!("configuring {nic}"));
            links.add_address(&nic, address, wanted.prefix).await.map_err(required)?;
            if let Some(IpAddr::V6(router)) = gateway {
                links.add_gateway6(&nic, router).await.map_err(required)?;
            }
        }
    }
    let family = if wanted.address.is_ipv4() { Family::V4 } else { Family::V6 };
    let names = Names { servers: wanted.dns.clone(), search: Vec::new() };
    configured.notes.extend(Resolver::new(&config.resolv_conf).set(family, nic.index, names));
    if let Some(name) = &wanted.hostname {
        apply::call(name, &mut configured.notes);
    }
    configured.address = wanted.address;
    configured.prefix = wanted.prefix;
    configured.gateway = wanted.gateway;
    configured.dns.clone_from(&wanted.dns);
    configured.hostname.clone_from(&wanted.hostname);
    configured.method = Method::Static;
    Ok(configured)
}

async fn adopt(links: &Links, candidates: &[Nic], notes: &[String]) -> Result<Option<Configured>, Fault> {
    for nic in candidates {
        let found = links.address_of(nic).await.map_err(|e| error::kernel(&e, "reading network addresses"))?;
        let Some((address, prefix)) = found else { continue };
        let gateway = links.gateway_of(nic).await.map_err(|e| error::kernel(&e, "reading routes"))?;
        let mut adopted = Configured::nothing(nic);
        (adopted.address, adopted.prefix) = (address.into(), prefix);
        adopted.gateway = gateway.map(IpAddr::V4);
        adopted.notes = notes.to_vec();
        return Ok(Some(adopted));
    }
    Ok(None)
}

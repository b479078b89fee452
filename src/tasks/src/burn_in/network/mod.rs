//! The network step: two machines, or a machine and its controller, try the link between them (`speediso-linktest`), and
//! this end looks at what its interface counted meanwhile.
//!
//! A port is open for this step only, on the address of the one interface; with the [`controller`] it is the controller's.
//! Who the partner is and which secret both hold comes from the scenario, or from the controller that [`pair`]s machines
//! which wait at the same time.

mod controller;
mod measure;
mod pair;

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use speediso_linktest::{Link, LinkReport, Listener, Secret, Stop, Terms, connect};
use speediso_model::burn_in::{DEFAULT_PORT, LinkWith, NetworkRole, NetworkStep};
use speediso_model::fault::{Fault, FaultCode};
use speediso_sys::link;

use super::live::Live;
use super::work::{Findings, Planned, Work};
use crate::ctx::TaskCtx;

const WAIT: Duration = Duration::from_mins(15);
const STREAMS: u8 = 4;
const DATAGRAMS_PER_SECOND: u32 = 1000;
/// With its headers it fills half of an Ethernet frame.
const DATAGRAM_BYTES: u16 = 700;

pub(super) struct Network {
    step: NetworkStep,
}

/// The interface that is tried, and the address at which the partner finds it.
#[derive(Clone, Debug)]
struct Port {
    interface: String,
    address: IpAddr,
}

/// Two ends that know one another, and what they are going to do.
struct Met {
    link: Link,
    terms: Terms,
    /// The other end in words, where it is more than an address.
    whom: Option<String>,
}

/// Why a link was not tried.
enum NotTried {
    /// Nobody may or can be the partner: that says nothing of this machine.
    Skipped(String),
    Failed(Fault),
}

impl From<Fault> for NotTried {
    fn from(fault: Fault) -> Self {
        Self::Failed(fault)
    }
}

impl Network {
    pub(super) fn new(step: NetworkStep) -> Self {
        Self { step }
    }

    fn wait(&self) -> Duration {
        self.step.wait.map_or(WAIT, speediso_model::burn_in::Seconds::duration)
    }

    /// Both ends come to the same from the same step.
    fn terms(&self, seconds: u32) -> Terms {
        let datagram_seconds = (seconds / 5).max(2);
        Terms {
            stream_seconds: seconds.saturating_sub(datagram_seconds).max(3),
            streams: self.step.streams.unwrap_or(STREAMS),
            datagram_seconds,
            datagrams_per_second: self.step.datagrams_per_second.unwrap_or(DATAGRAMS_PER_SECOND),
            datagram_bytes: DATAGRAM_BYTES,
            stream_bytes: None,
        }
    }

    fn partner(&self) -> Option<IpAddr> {
        self.step.partner.as_ref().and_then(|text| text.parse().ok())
    }

    /// By the hardware address that the scenario or the boot loader names; else the one from which the partner, or the
    /// controller, is reached.
    fn port(&self, ctx: &TaskCtx) -> Result<Port, String> {
        // Which way leads to the controller, the kernel knows better than the boot loader.
        let boot_mac = ctx.boot_mac.as_deref().filter(|_| self.step.with == LinkWith::Machine);
        let mac = self.step.interface.as_deref().or(boot_mac);
        let partner = self.partner();
        if let Some(mac) = mac
            && let Some(interface) = link::with_mac(&ctx.roots, mac)
        {
            let addresses = link::addresses_of(&interface).map_err(|e| format!("asking for addresses: {e}"))?;
            // Of several addresses the one that the controller is reached from; elsewhere any of the partner's kind.
            if let Some(to) = pair::controller(ctx).filter(|_| self.step.with == LinkWith::Controller) {
                return match source_towards(to).ok().filter(|source| addresses.contains(source)) {
                    Some(address) => Ok(Port { interface, address }),
                    None => Err(format!("the way to the controller does not lead over {interface}")),
                };
            }
            let fits = |address: &&IpAddr| partner.is_none_or(|partner| partner.is_ipv4() == address.is_ipv4());
            let address = addresses.iter().find(fits).ok_or(format!("{interface} has no address for this"))?;
            return Ok(Port { interface, address: *address });
        }
        if let Some(mac) = &self.step.interface {
            return Err(format!("no interface has the address {mac}"));
        }
        let towards = partner.map(|ip| SocketAddr::new(ip, DEFAULT_PORT)).or_else(|| pair::controller(ctx));
        let towards = towards.ok_or("neither the scenario nor the boot loader names an interface")?;
        let address = source_towards(towards).map_err(|e| format!("there is no way to {}: {e}", towards.ip()))?;
        let interface = link::with_address(address).map_err(|e| format!("asking for addresses: {e}"))?;
        Ok(Port { interface: interface.ok_or(format!("no interface has {address}"))?, address })
    }

    fn meet(&self, port: &Port, terms: &Terms, stop: &Stop, ctx: &TaskCtx) -> Result<Met, NotTried> {
        if self.step.with == LinkWith::Controller {
            return controller::meet(port.address, terms, self.wait(), stop, ctx);
        }
        let met = |link| Met { link, terms: *terms, whom: None };
        let (Some(partner), Some(role), Some(secret)) = (self.partner(), self.step.role, &self.step.secret) else {
            return Ok(met(pair::meet(port.address, terms, self.wait(), stop, ctx)?));
        };
        let secret: Secret = secret.parse().map_err(|what| Fault::new(FaultCode::TaskInvalid, what))?;
        let number = self.step.port.unwrap_or(DEFAULT_PORT);
        let link = match role {
            NetworkRole::Listen => Listener::open(SocketAddr::new(port.address, number), Some(partner))
                .and_then(|listener| listener.wait(&secret, self.wait(), stop)),
            NetworkRole::Connect => connect(port.address, SocketAddr::new(partner, number), &secret, self.wait(), stop),
        };
        Ok(met(link.map_err(|e| Fault::from_error(FaultCode::BurnInInconclusive, &e))?))
    }

    fn tried(&self, port: &Port, live: &Live<'_>, ctx: &TaskCtx) -> Result<(String, LinkReport), NotTried> {
        let cancel = ctx.cancel.clone();
        let stop = Stop::when(move || cancel.is_cancelled());
        let terms = self.terms(live.step.duration.0);
        let Met { link, terms, whom } = self.meet(port, &terms, &stop, ctx)?;
        let failed = |e| Fault::from_error(FaultCode::BurnInInconclusive, &e);
        let address = link.partner().map_err(failed)?.ip();
        let partner = whom.unwrap_or_else(|| address.to_string());
        let title = live.step.title();
        let told = |phase: &str| ctx.reporter.step_began(&format!("{title}: {phase} ({partner})"));
        let report = link.run(&terms, &stop, &told).map_err(failed)?;
        Ok((partner, report))
    }
}

/// The address from which the kernel would reach another one. Nothing is sent.
fn source_towards(to: SocketAddr) -> std::io::Result<IpAddr> {
    let any: IpAddr = if to.is_ipv4() { [0u8; 4].into() } else { [0u8; 16].into() };
    let socket = UdpSocket::bind(SocketAddr::new(any, 0))?;
    socket.connect(to)?;
    Ok(socket.local_addr()?.ip())
}

impl Work for Network {
    fn plan(&self, ctx: &TaskCtx) -> Result<Planned, Fault> {
        let whom = match (&self.step.partner, self.step.role) {
            _ if self.step.with == LinkWith::Controller && ctx.uploads.is_some() => {
                "tries its link with the controller, if that may be a partner".to_owned()
            }
            _ if self.step.with == LinkWith::Controller => {
                "would try its link with the controller: there is none, so the step is skipped".to_owned()
            }
            (Some(partner), Some(NetworkRole::Listen)) => format!("waits for {partner}"),
            (Some(partner), _) => format!("goes to {partner}"),
            _ if ctx.uploads.is_some() => "tries its link with whom the controller names".to_owned(),
            _ => {
                return Err(Fault::new(
                    FaultCode::TaskInvalid,
                    "a network step without a partner needs a controller that pairs machines",
                )
                .because("name partner, role and secret in the step"));
            }
        };
        Ok(Planned::effect(whom))
    }

    fn run(&self, live: &Live<'_>) -> Findings {
        if self.step.with == LinkWith::Controller && live.ctx.uploads.is_none() {
            return Findings::skipped("there is no controller here that could be the partner");
        }
        let port = match self.port(live.ctx) {
            Ok(port) => port,
            Err(why) => return Findings::inconclusive(why),
        };
        let mut found = Findings::default();
        let roots = &live.ctx.roots;
        let before = link::counts(roots, &port.interface);
        let tried = live.following(|ctx| self.tried(&port, live, ctx));
        match (before, link::counts(roots, &port.interface)) {
            (Ok(before), Ok(after)) => measure::counts(&port.interface, &after.since(&before), live, &mut found),
            (Err(e), _) | (_, Err(e)) => found.unread.push(format!("{}: what it counts: {e}", port.interface)),
        }
        match link::speed_mbps(roots, &port.interface) {
            Some(mbps) => measure::speed(&port.interface, mbps, &mut found),
            None => found.unread.push(format!("{}: its driver does not tell the speed of the link", port.interface)),
        }
        match tried {
            Ok((partner, report)) => {
                found.notices.push(format!("from {} on {} to {partner}", port.address, port.interface));
                measure::link(&port.interface, &partner, &report, live, &mut found);
            }
            Err(NotTried::Skipped(why)) => found.skipped = Some(why),
            Err(NotTried::Failed(fault)) => found.inconclusive.push(fault.to_string()),
        }
        found
    }
}

//! Being the other end for machines that try their link.
//!
//! Only where whoever started the controller gave ports for it: a machine that tries its link takes all of it, and images
//! go the same way. A port is open for one machine, from one address, to whoever proves the secret that this machine was
//! told over the API; it closes with the test, or after a minute in which nobody came. How many are open at a time, how
//! long, and how many bytes go through each, is bounded here and not by what a machine asks for.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::ifaddrs::getifaddrs;
use speediso_linktest::{LinkError, LinkReport, Listener, Secret, Stop, Terms, Way};
use speediso_model::burn_in::partner::{LinkAnswer, LinkRequest};
use speediso_model::id::RunId;
use speediso_model::units::Bytes;

/// More than this is given to nobody: ten minutes, and in each third of the streams 64 GiB each way.
pub const MOST: Terms = Terms {
    stream_seconds: 480,
    streams: 16,
    datagram_seconds: 120,
    datagrams_per_second: 10_000,
    datagram_bytes: 1400,
    stream_bytes: Some(Bytes::gib(64)),
};
/// How long a machine may take to come.
const COMES_WITHIN: Duration = Duration::from_secs(60);
/// Beyond what the terms say: for the words between the two, and for a slow machine.
const GRACE: Duration = Duration::from_secs(60);
const AGAIN_MS: u64 = 3000;

/// Ports that may be opened for machines, one for each: `7450-7453`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PortRange {
    first: u16,
    last: u16,
}

impl FromStr for PortRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const MOST_PORTS: u16 = 64;
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let port = |text: &str| text.parse::<u16>().ok().filter(|port| *port >= 1024);
        match (port(first), port(last)) {
            (Some(first), Some(last)) if first <= last && last - first < MOST_PORTS => Ok(Self { first, last }),
            _ => Err(format!("{text:?} is not FIRST-LAST: ports from 1024 on, at most {MOST_PORTS} of them")),
        }
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

/// How a port came to its end.
#[derive(Debug)]
pub struct Closed {
    pub address: SocketAddr,
    pub result: Result<LinkReport, LinkError>,
}

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { address, result } = self;
        match result {
            Ok(report) => {
                let sum = |way| Bytes(report.streams.iter().filter(|s| s.way == way).map(|s| s.bytes_received).sum());
                let (sent, received) = (sum(Way::Sent), sum(Way::Received));
                let corrupt: u64 = report.streams.iter().map(|s| s.corrupt_blocks).sum();
                write!(f, "the link was tried at {address}: {sent} to the machine, {received} from it")?;
                if corrupt > 0 {
                    write!(f, ", {corrupt} blocks were damaged")?;
                }
            }
            Err(error) => {
                write!(f, "the link was not tried to its end at {address}: {error}")?;
                let mut source = std::error::Error::source(error);
                while let Some(cause) = source {
                    write!(f, ": {cause}")?;
                    source = cause.source();
                }
            }
        }
        f.write_str("; the port is closed")
    }
}

/// What is open for a run.
#[derive(Debug)]
struct Open {
    asked: LinkRequest,
    answer: LinkAnswer,
    port: u16,
}

/// Of this process: another replica opens its own.
#[derive(Clone, Debug)]
pub struct LinkPartner(Option<Arc<Inner>>);

#[derive(Debug)]
struct Inner {
    ports: PortRange,
    open: Mutex<BTreeMap<RunId, Open>>,
}

impl Inner {
    fn open(&self) -> MutexGuard<'_, BTreeMap<RunId, Open>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LinkPartner {
    /// `None`: nobody's partner.
    #[must_use]
    pub fn with(ports: Option<PortRange>) -> Self {
        Self(ports.map(|ports| Arc::new(Inner { ports, open: Mutex::default() })))
    }

    /// Opens a port for this run, unless one is open. `closed` hears how it ended. Whether something was opened by this
    /// call is the other half of the answer.
    pub fn ask(
        &self,
        run: RunId,
        request: &LinkRequest,
        closed: impl FnOnce(&Closed) + Send + 'static,
    ) -> (LinkAnswer, bool) {
        let no = |because: String| (LinkAnswer::No { because }, false);
        let Some(inner) = &self.0 else {
            return no("the controller tries links with no machine (it was started without --link-test-ports)".into());
        };
        let local = match source_towards(request.address) {
            Ok(local) => local,
            Err(e) => return no(format!("the controller has no way to {}: {e}", request.address)),
        };
        let wait = || (LinkAnswer::Wait { again_ms: AGAIN_MS }, false);
        let mut open = inner.open();
        if let Some(before) = open.get(&run) {
            // Its answer was lost. With another wish it waits until the port is closed.
            return if before.asked == *request { (before.answer.clone(), false) } else { wait() };
        }
        let is_taken = |port: &u16| open.values().any(|open| open.port == *port);
        let mut listener = None;
        for port in (inner.ports.first..=inner.ports.last).filter(|port| !is_taken(port)) {
            match Listener::open(SocketAddr::new(local, port), Some(request.address)) {
                Ok(opened) => {
                    listener = Some(opened);
                    break;
                }
                // Somebody else on this host has it.
                Err(LinkError::Listen { source, .. }) if source.kind() == io::ErrorKind::AddrInUse => {}
                Err(e) => return no(format!("the controller cannot open a port: {e}")),
            }
        }
        let Some(listener) = listener else { return wait() };
        let (address, terms, secret) = (listener.address(), request.terms.at_most(&MOST), Secret::random());
        let answer = LinkAnswer::Open { address, interface: interface_of(local), secret: secret.to_hex(), terms };
        let opened = Open { asked: request.clone(), answer: answer.clone(), port: address.port() };
        let ours = Arc::clone(inner);
        let work = move || {
            let result = try_link(listener, &secret, &terms);
            ours.open().remove(&run);
            closed(&Closed { address, result });
        };
        if let Err(e) = std::thread::Builder::new().name("link-test".into()).spawn(work) {
            return no(format!("the controller has no thread for it: {e}"));
        }
        open.insert(run, opened);
        (answer, true)
    }
}

fn try_link(listener: Listener, secret: &Secret, terms: &Terms) -> Result<LinkReport, LinkError> {
    let end = Instant::now() + COMES_WITHIN + Duration::from_secs(terms.seconds()) + GRACE;
    let stop = Stop::when(move || Instant::now() > end);
    listener.wait(secret, COMES_WITHIN, &stop)?.run(terms, &stop, &|_| {})
}

/// The address at which a machine reaches this host. Nothing is sent.
fn source_towards(to: IpAddr) -> io::Result<IpAddr> {
    const DISCARD: u16 = 9;
    let any: IpAddr = if to.is_ipv4() { [0u8; 4].into() } else { [0u8; 16].into() };
    let socket = UdpSocket::bind(SocketAddr::new(any, 0))?;
    socket.connect(SocketAddr::new(to, DISCARD))?;
    Ok(socket.local_addr()?.ip())
}

fn interface_of(address: IpAddr) -> Option<String> {
    let ip = |entry: &nix::ifaddrs::InterfaceAddress| {
        let storage = entry.address.as_ref()?;
        let v4 = storage.as_sockaddr_in().map(|a| IpAddr::V4(a.ip()));
        v4.or_else(|| storage.as_sockaddr_in6().map(|a| IpAddr::V6(a.ip())))
    };
    getifaddrs().ok()?.find(|entry| ip(entry) == Some(address)).map(|entry| entry.interface_name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;
    use std::sync::mpsc;

    const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    #[test]
    fn ports_are_a_short_range() {
        for good in ["7450-7453", "7450", "65535-65535"] {
            good.parse::<PortRange>().expect(good);
        }
        for bad in ["", "80-90", "7450-7449", "1024-65535", "0-1", "7450-", "a-b", "7450-7451-7452"] {
            assert!(bad.parse::<PortRange>().is_err(), "{bad}");
        }
        assert_eq!("7450".parse::<PortRange>().expect("one").to_string(), "7450-7450");
    }

    #[test]
    fn one_port_is_for_one_machine_and_closes_behind_it() {
        // Two ports that are free now: taken by the system, and given back.
        let free = std::net::TcpListener::bind((HERE, 0)).expect("a port");
        let port = free.local_addr().expect("bound").port();
        drop(free);
        let partner = LinkPartner::with(Some(PortRange { first: port, last: port }));
        let (told, ended) = mpsc::channel();
        let tell = || {
            let told = told.clone();
            move |closed: &Closed| told.send(closed.to_string()).expect("the test listens")
        };
        let terms = Terms { stream_seconds: 100_000, streams: 2, stream_bytes: None, ..MOST };
        let request =
            LinkRequest { address: HERE, terms: Terms { datagram_seconds: 1, datagrams_per_second: 50, ..terms } };
        let run = RunId::random();
        let (answer, is_new) = partner.ask(run, &request, tell());
        let LinkAnswer::Open { address, interface, secret, terms } = &answer else { panic!("{answer:?}") };
        assert_eq!((address.ip(), address.port(), interface.as_deref()), (HERE, port, Some("lo")));
        assert_eq!((terms.stream_seconds, terms.streams, terms.stream_bytes), (480, 2, MOST.stream_bytes));
        assert!(is_new);
        assert_eq!(partner.ask(run, &request, tell()), (answer.clone(), false), "the answer was lost");
        let other = partner.ask(RunId::random(), &request, tell()).0;
        assert!(matches!(other, LinkAnswer::Wait { .. }), "the only port is taken: {other:?}");

        // It comes, and goes before its time.
        let secret: Secret = secret.parse().expect("64 digits");
        let link = speediso_linktest::connect(HERE, *address, &secret, GRACE, &Stop::never()).expect("it listens");
        drop(link);
        let said = ended.recv_timeout(COMES_WITHIN).expect("the port is closed");
        assert!(said.contains("not tried to its end") && said.ends_with("the port is closed"), "{said}");
        assert!(std::net::TcpStream::connect(address).is_err(), "nobody listens any more");
        assert!(matches!(partner.ask(RunId::random(), &request, tell()).0, LinkAnswer::Open { .. }), "and it is free");
    }

    #[test]
    fn without_ports_it_is_nobodys_partner() {
        let request = LinkRequest { address: HERE, terms: MOST };
        let (answer, _) = LinkPartner::with(None).ask(RunId::random(), &request, |_| {});
        assert!(matches!(answer, LinkAnswer::No { because } if because.contains("--link-test-ports")));
    }
}

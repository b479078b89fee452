//! Whether the controller can be reached over one certain interface.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::net::TcpSocket;
use tokio::time::{sleep, timeout};

use super::dns::{self, Answer, Kind};
use super::link::Nic;
use super::resolver::Family;

const TRIES: u32 = 3;
const CONNECT: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(500);
const ASK: Duration = Duration::from_secs(2);

/// What has to be reached: the controller.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Goal {
    pub host: String,
    pub port: u16,
}

impl Goal {
    /// `None` for what is no https URL.
    #[must_use]
    pub fn of_url(url: &str) -> Option<Self> {
        let parsed = reqwest::Url::parse(url).ok().filter(|u| u.scheme() == "https")?;
        let host = parsed.host_str()?.trim_matches(['[', ']']).to_owned();
        Some(Self { host, port: parsed.port_or_known_default()? })
    }

    pub(super) fn literal(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }
}

/// Tries a connection. Only that: who answers there is checked by whoever speaks to it.
pub(super) async fn reaches(goal: &Goal, nic: &Nic, family: Family, dns: &[IpAddr]) -> Result<(), String> {
    let mut why = String::new();
    for attempt in 0..TRIES {
        if attempt > 0 {
            sleep(PAUSE).await;
        }
        let addresses = match addresses(goal, nic, family, dns).await {
            Ok(found) => found,
            Err(error) => {
                why = error;
                continue;
            }
        };
        for address in addresses {
            match timeout(CONNECT, connect(nic, SocketAddr::new(address, goal.port))).await {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(error)) => why = format!("{address}: {error}"),
                Err(_) => why = format!("{address}: no answer in {} s", CONNECT.as_secs()),
            }
        }
    }
    Err(why)
}

async fn addresses(goal: &Goal, nic: &Nic, family: Family, dns: &[IpAddr]) -> Result<Vec<IpAddr>, String> {
    let is_ours = |ip: &IpAddr| ip.is_ipv4() == (family == Family::V4);
    if let Some(literal) = goal.literal() {
        return if is_ours(&literal) { Ok(vec![literal]) } else { Err(format!("{literal} is of the other protocol")) };
    }
    let kind = if family == Family::V4 { Kind::A } else { Kind::Aaaa };
    for server in dns {
        if let Ok(Answer::Addresses(found)) = dns::ask(*server, &goal.host, kind, Some(&nic.name), ASK).await
            && !found.is_empty()
        {
            return Ok(found);
        }
    }
    Err(format!("no name server here knows {}", goal.host))
}

async fn connect(nic: &Nic, to: SocketAddr) -> io::Result<()> {
    let socket = if to.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.bind_device(Some(nic.name.as_bytes()))?;
    match socket.connect(to).await {
        // The way is there, and somebody at its end; whether the controller runs is another question.
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        other => other.map(drop),
    }
}

//! The way to the controller, layer by layer: its name, a connection, packets of full size, who it is, what it says,
//! and the time.
//!
//! Nothing is said to a server that is not pinned: of such a one only the certificates are looked at.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use futures_util::future::join_all;
use speediso_model::fault::FaultCode;
use speediso_model::network::{Check, CheckKind, Verdict};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use super::echo::{self, PathMtu};
use super::nic::Nic;
use super::{names, span, trust};
use crate::client::Client;

const RESOLVE_LIMIT: Duration = Duration::from_secs(4);
const CONNECT_LIMIT: Duration = Duration::from_secs(3);
const HTTP_LIMIT: Duration = Duration::from_secs(4);
/// A clock that is further off than this disturbs logs and certificates sooner or later.
const SKEW: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(86_400);

/// Where the controller is said to be.
#[derive(Clone, Debug)]
pub(super) struct Target {
    url: String,
    host: String,
    port: u16,
}

impl Target {
    /// `None` for what is no https URL with a host.
    pub(super) fn parse(url: &str) -> Option<Self> {
        let parsed = reqwest::Url::parse(url).ok().filter(|u| u.scheme() == "https")?;
        let host = parsed.host_str()?.trim_matches(['[', ']']).to_owned();
        Some(Self { url: url.trim_end_matches('/').to_owned(), host, port: parsed.port_or_known_default()? })
    }

    pub(super) fn url(&self) -> &str {
        &self.url
    }

    fn literal(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }
}

/// Goes as far as it gets; what cannot be reached any more is skipped and says so.
pub(super) async fn examine(target: &Target, pins: &[[u8; 32]], nics: &[Nic], resolv_conf: &Path) -> Vec<Check> {
    let mut checks = if target.literal().is_some() {
        vec![Check::new(CheckKind::Dns, "", Verdict::Skipped, "the controller is given by address, not by name")]
    } else {
        names::ask(&target.host, resolv_conf).await
    };
    let addresses = resolve(target).await;
    let Some((peer, stream)) = connect(target, &addresses, &mut checks).await else {
        let why = "no connection to the controller";
        for check in [CheckKind::PathMtu, CheckKind::Tls, CheckKind::Http, CheckKind::Clock] {
            // A host that takes no connection may answer pings all the same.
            if check == CheckKind::PathMtu
                && let Some(address) = addresses.first()
            {
                checks.push(mtu(*address, nics).await);
            } else {
                checks.push(Check::new(check, "", Verdict::Skipped, why));
            }
        }
        return checks;
    };
    let (mtu, secured) = tokio::join!(mtu(peer, nics), secured(target, pins, stream));
    checks.push(mtu);
    checks.extend(secured);
    checks
}

/// As the agent itself does it.
async fn resolve(target: &Target) -> Vec<IpAddr> {
    if let Some(literal) = target.literal() {
        return vec![literal];
    }
    match timeout(RESOLVE_LIMIT, tokio::net::lookup_host((target.host.as_str(), target.port))).await {
        Ok(Ok(found)) => {
            let mut addresses: Vec<IpAddr> = found.map(|address| address.ip()).collect();
            addresses.dedup();
            addresses
        }
        Ok(Err(_)) | Err(_) => Vec::new(),
    }
}

/// To all addresses at once; the first that answers goes on.
async fn connect(target: &Target, addresses: &[IpAddr], checks: &mut Vec<Check>) -> Option<(IpAddr, TcpStream)> {
    if addresses.is_empty() {
        let text = format!("the name {} has no address here", target.host);
        checks.push(
            Check::new(CheckKind::Tcp, &*target.host, Verdict::Failed, text)
                .do_this("see the check dns; or give the controller by address"),
        );
        return None;
    }
    let tries = addresses.iter().map(|ip| async move {
        let address = SocketAddr::new(*ip, target.port);
        let begun = Instant::now();
        let result = match timeout(CONNECT_LIMIT, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(error)) => Err(connect_error(&error)),
            Err(_) => Err((
                format!("no answer in {} s", CONNECT_LIMIT.as_secs()),
                "something on the way drops the packets: check routes and firewalls between here and there",
            )),
        };
        (address, begun.elapsed(), result)
    });
    let results = join_all(tries).await;
    let any = results.iter().any(|(_, _, result)| result.is_ok());
    let mut first: Option<(Duration, IpAddr, TcpStream)> = None;
    for (address, took, result) in results {
        let check = Check::new(CheckKind::Tcp, address.to_string(), Verdict::Ok, "").fact("took_ms", span::ms(took));
        checks.push(match result {
            Ok(stream) => {
                if first.as_ref().is_none_or(|(fastest, ..)| took < *fastest) {
                    first = Some((took, address.ip(), stream));
                }
                Check { text: format!("connected in {} ms", span::ms(took)), ..check }
            }
            Err((why, advice)) => {
                let verdict = if any { Verdict::Warning } else { Verdict::Failed };
                Check { text: why, verdict, ..check }.do_this(advice)
            }
        });
    }
    first.map(|(_, ip, stream)| (ip, stream))
}

fn connect_error(error: &std::io::Error) -> (String, &'static str) {
    use std::io::ErrorKind;
    let advice = match error.kind() {
        ErrorKind::ConnectionRefused => {
            "the machine is there and nothing listens: is the controller running, and is the port right?"
        }
        ErrorKind::NetworkUnreachable => "there is no route to it: check gateway and routes",
        ErrorKind::HostUnreachable => {
            "nobody answers for that address on the way: check the address, the route and the far side"
        }
        _ => "check the controller and the way to it",
    };
    (error.to_string(), advice)
}

async fn mtu(to: IpAddr, nics: &[Nic]) -> Check {
    let source = echo::source(SocketAddr::new(to, 1)).await.ok();
    let over = nics.iter().find(|nic| source.is_some_and(|ip| nic.addresses.iter().any(|a| a.ip == ip)));
    let Some(nic) = over else {
        return Check::new(
            CheckKind::PathMtu,
            to.to_string(),
            Verdict::Skipped,
            "it is not reached over a network card",
        );
    };
    let check = |verdict, text: String| {
        Check::new(CheckKind::PathMtu, to.to_string(), verdict, text)
            .fact("nic", &nic.name)
            .fact("interface_mtu", nic.mtu)
    };
    match echo::path_mtu(to, nic.index, nic.mtu).await {
        Err(error) => check(Verdict::Skipped, format!("echo requests cannot be sent: {error}")),
        Ok(PathMtu::NoAnswer) => {
            check(Verdict::Skipped, "it does not answer echo requests, so nothing can be measured".into())
        }
        Ok(PathMtu::Whole(mtu)) => {
            check(Verdict::Ok, format!("packets of {mtu} bytes get through")).fact("path_mtu", mtu)
        }
        Ok(PathMtu::Told(mtu)) => {
            check(Verdict::Ok, format!("{mtu} bytes, fewer than the {} of {}; routers say so", nic.mtu, nic.name))
                .fact("path_mtu", mtu)
        }
        Ok(PathMtu::BlackHole(mtu)) => check(
            Verdict::Failed,
            format!("packets above {mtu} bytes vanish without a word, {} sends up to {}", nic.name, nic.mtu),
        )
        .fact("path_mtu", mtu)
        .do_this(format!(
            "set the MTU to {mtu} (DHCP option 26), or let the router on the way send \"too big\" (ICMP)"
        )),
    }
}

async fn secured(target: &Target, pins: &[[u8; 32]], stream: TcpStream) -> Vec<Check> {
    let skipped = |check, why: &str| Check::new(check, "", Verdict::Skipped, why);
    let (tls, may_speak) = trust::handshake(&target.host, pins, stream).await;
    if !may_speak {
        let why = "nothing is said to a server that is not known to be the controller";
        return vec![tls, skipped(CheckKind::Http, why), skipped(CheckKind::Clock, why)];
    }
    let begun = Instant::now();
    let answer = async { Client::new(&target.url, pins, None)?.signed_time().await };
    let path = format!("{}{}", target.url, speediso_model::api::path::TIME);
    let http = |verdict, text: String| {
        Check::new(CheckKind::Http, &*path, verdict, text).fact("took_ms", span::ms(begun.elapsed()))
    };
    match timeout(HTTP_LIMIT, answer).await {
        Ok(Ok(theirs)) => {
            let ok = http(Verdict::Ok, format!("answers in {} ms, and its time is signed", span::ms(begun.elapsed())));
            vec![tls, ok, clock(theirs, jiff::Timestamp::now().as_millisecond())]
        }
        Ok(Err(fault)) => {
            let failed = http(Verdict::Failed, fault.to_string()).do_this(fault.advice.clone());
            let clock = skipped(CheckKind::Clock, "the controller did not tell its time");
            // It answers, but what it says about the time is not to be trusted: that is the clock's matter.
            let clock =
                if fault.code == FaultCode::ClockWrong { Check { text: fault.message, ..clock } } else { clock };
            vec![tls, failed, clock]
        }
        Err(_) => {
            let text = format!("no answer in {} s, though the connection stands", HTTP_LIMIT.as_secs());
            let failed = http(Verdict::Failed, text).do_this("look at path-mtu, then at the controller's log");
            vec![tls, failed, skipped(CheckKind::Clock, "the controller did not tell its time")]
        }
    }
}

fn clock(theirs_ms: i64, ours_ms: i64) -> Check {
    let skew_ms = ours_ms.saturating_sub(theirs_ms);
    let skew = Duration::from_millis(skew_ms.unsigned_abs());
    let way = if skew_ms < 0 { "behind" } else { "ahead of" };
    let check = |verdict, text: String| Check::new(CheckKind::Clock, "", verdict, text).fact("skew_ms", skew_ms);
    let advice = "set the clock and look at the battery; the agent sets it by itself when it enrols";
    if skew <= SKEW {
        check(Verdict::Ok, format!("{} ms from the controller's signed time", skew.as_millis()))
    } else if skew <= DAY {
        check(Verdict::Warning, format!("{} {way} the controller's signed time", span::long(skew))).do_this(advice)
    } else {
        check(Verdict::Failed, format!("{} {way} the controller's signed time", span::long(skew))).do_this(advice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_controller_is_found_in_its_url() {
        let of = |url: &str| Target::parse(url).map(|t| (t.host, t.port));
        assert_eq!(of("https://boot.example/"), Some(("boot.example".into(), 443)));
        assert_eq!(of("https://[2001:db8::1]:8443"), Some(("2001:db8::1".into(), 8443)));
        assert_eq!(of("http://boot.example"), None);
        assert!(Target::parse("https://192.0.2.1").expect("good").literal().is_some());
    }

    #[test]
    fn a_clock_is_judged_by_how_far_it_is_off() {
        let year = 365 * 86_400_000;
        assert_eq!(clock(1_000_000, 1_000_400).verdict, Verdict::Ok);
        assert_eq!(clock(1_000_000, 1_000_000 + 120_000).verdict, Verdict::Warning);
        let old = clock(20 * year, 0);
        assert_eq!(
            (old.verdict, old.text.as_str()),
            (Verdict::Failed, "7300 days behind the controller's signed time")
        );
        assert_eq!(clock(i64::MAX, i64::MIN).verdict, Verdict::Failed, "whatever a server says");
    }
}

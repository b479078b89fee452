//! The network doctor: looks at everything between this machine and its controller, and says what is wrong and what to
//! do. `docs/network-doctor.md` explains each line.
//!
//! It changes nothing: it has sockets of its own, asks for DHCP offers without taking one, and is done within 20 s.
//! What it finds out is gathered first and judged by pure functions afterwards.

mod controller;
mod echo;
mod judge;
mod names;
mod nic;
mod screen;
mod span;
mod trust;
mod wire;

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use futures_util::future::join_all;
use speediso_model::event::EventKind;
use speediso_model::fault::{Fault, FaultCode};
use speediso_model::network::{Check, CheckKind, NetworkReport, Verdict};
use speediso_sys::roots::Roots;
use tokio::time::{Instant, timeout};

pub use screen::screen;

use controller::Target;
use judge::Context;
use nic::Nic;

use crate::cmdline::Config;
use crate::engine::Engine;
use crate::net::{IpParam, Ipv6};
use crate::state::StateDir;

/// Long enough for three questions and for what passes by every other second.
const LISTEN: Duration = Duration::from_millis(4500);
/// For the way to the controller, which has limits of its own at each step.
const WAY: Duration = Duration::from_secs(18);
const PING: Duration = Duration::from_secs(1);
const PROXIES: [&str; 4] = ["http_proxy", "https_proxy", "all_proxy", "ftp_proxy"];

/// What to look at.
#[derive(Clone, Debug)]
pub struct Examination {
    pub roots: Roots,
    pub resolv_conf: PathBuf,
    /// `https://...`
    pub controller: Option<String>,
    pub pins: Vec<[u8; 32]>,
    /// Only this interface, by name or MAC address.
    pub nic: Option<String>,
    /// Whether an address is wanted by DHCP.
    pub expects_dhcp: bool,
}

impl Examination {
    /// As the kernel command line configures the agent.
    #[must_use]
    pub fn of(config: &Config, roots: &Roots) -> Self {
        let by_hand = config.ip.as_deref().map(str::parse::<IpParam>);
        Self {
            roots: roots.clone(),
            resolv_conf: PathBuf::from("/etc/resolv.conf"),
            controller: config.controller.clone(),
            pins: config.ca_pins.clone(),
            nic: None,
            expects_dhcp: config.ipv6 != Ipv6::Only && !matches!(by_hand, Some(Ok(IpParam::Static(_) | IpParam::Off))),
        }
    }

    /// Looks, within 20 s.
    ///
    /// # Errors
    /// When not even the interfaces can be listed, or `nic` names none of them, or the controller's address is none.
    pub async fn run(&self) -> Result<NetworkReport, Fault> {
        let begun = Instant::now();
        let target =
            match &self.controller {
                Some(url) => Some(Target::parse(url).ok_or_else(|| {
                    Fault::new(FaultCode::CmdlineInvalid, format!("{url:?} is not https://HOST[:PORT]"))
                })?),
                None => None,
            };
        let unread =
            |e: &dyn std::error::Error| Fault::from_error(FaultCode::Internal, e).because("listing network interfaces");
        let (connection, handle, _) = rtnetlink::new_connection().map_err(|e| unread(&e))?;
        let _server = Ended(tokio::spawn(connection));
        let all = nic::read(&handle, &self.roots).await.map_err(|e| unread(&e))?;
        let chosen = self.choose(&all)?;

        let wires = join_all(chosen.iter().map(|nic| self.at(nic)));
        let way = async {
            match &target {
                Some(target) => way(target, &self.pins, &all, &self.resolv_conf).await,
                None => no_controller(),
            }
        };
        let (seen, mut checks) = tokio::join!(wires, way);
        // The counters once more, after all that was sent.
        let later = nic::read(&handle, &self.roots).await.unwrap_or_default();
        for (nic, seen) in chosen.iter().zip(seen) {
            let context = self.context(nic, &all);
            checks.extend(of_nic(nic, &later, seen, context));
        }
        if chosen.is_empty() {
            let none = Check::new(
                CheckKind::Link,
                "",
                Verdict::Failed,
                "this machine has no network card that the kernel knows",
            );
            checks.push(none.do_this("look for the card in the kernel log; its driver or firmware may be missing"));
        }
        checks.push(judge::proxy(&proxies(std::env::vars_os())));
        let host = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok()).unwrap_or_default();
        let took_ms = span::ms(begun.elapsed());
        Ok(NetworkReport::new(host, target.map(|t| t.url().to_owned()), took_ms, checks))
    }

    fn choose(&self, all: &[Nic]) -> Result<Vec<Nic>, Fault> {
        let Some(named) = &self.nic else { return Ok(all.to_vec()) };
        let mac = speediso_model::inventory::canonical_mac(named);
        let found: Vec<Nic> =
            all.iter().filter(|nic| nic.name == *named || Some(nic.mac_text()) == mac).cloned().collect();
        if found.is_empty() {
            let known = span::list(all.iter().map(|nic| &nic.name));
            return Err(bad_input(format!("there is no interface {named:?}; there are: {known}")));
        }
        Ok(found)
    }

    fn context(&self, nic: &Nic, all: &[Nic]) -> Context {
        let mut others = all.iter().filter(|other| other.index != nic.index && self.nic.is_none());
        Context {
            link_elsewhere: others.clone().any(|other| other.has_carrier),
            address_elsewhere: others.any(Nic::is_configured),
            expects_dhcp: self.expects_dhcp,
        }
    }

    /// What is heard on an interface, and whether its gateways answer.
    async fn at(&self, nic: &Nic) -> Seen {
        if !nic.has_carrier || !nic.is_up {
            return Seen { wire: None, gateways: Vec::new() };
        }
        let asks = self.expects_dhcp && !nic.is_member;
        let pings = join_all(
            nic.gateways
                .iter()
                .map(|to| async move { echo::echo(*to, nic.index, echo::smallest(*to), PING).await.ok() }),
        );
        let (wire, gateways) = tokio::join!(wire::listen(nic, asks, LISTEN), pings);
        Seen { wire: Some(wire.map_err(|e| e.to_string())), gateways }
    }
}

/// In the state directory.
const KEPT: &str = "network-doctor.json";

/// After the first failure to get a network or to enrol: looks once, says it on the console, keeps it, and tells the
/// controller when that is reached.
pub(crate) async fn after_failure(examination: Examination, engine: Engine, state: StateDir) {
    let report = match examination.run().await {
        Ok(report) => report,
        Err(fault) => return tracing::warn!("the network could not be looked at: {fault}"),
    };
    for line in screen(&report).lines() {
        tracing::warn!("{line}");
    }
    let kept = serde_json::to_vec_pretty(&report).map_err(std::io::Error::from).and_then(|json| state.put(KEPT, &json));
    if let Err(error) = kept {
        tracing::warn!("ignoring that the report could not be kept: {error}");
    }
    engine.tell(None, EventKind::NetworkExamined { report });
}

fn bad_input(what: String) -> Fault {
    let mut fault = Fault::new(FaultCode::CmdlineInvalid, what);
    fault.advice = "correct what was given; see speediso-agent network-doctor --help".to_owned();
    fault
}

/// What was found out on one interface.
struct Seen {
    /// `None`: there is no link to listen to.
    wire: Option<Result<wire::Wire, String>>,
    /// As the interface's gateways, in their order.
    gateways: Vec<Option<echo::Echo>>,
}

/// The netlink connection's task.
struct Ended(tokio::task::JoinHandle<()>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn of_nic(nic: &Nic, later: &[Nic], seen: Seen, context: Context) -> Vec<Check> {
    let mut checks = vec![judge::link(nic, context)];
    let Some(heard) = seen.wire else { return checks };
    let now = later.iter().find(|other| other.index == nic.index).map_or(nic.counters, |other| other.counters);
    checks.push(judge::errors(nic, nic.counters, now));
    let wire = match &heard {
        Ok(wire) => {
            checks.extend(judge::heard(nic, wire, context));
            Some(wire)
        }
        Err(error) => {
            for kind in [CheckKind::Lldp, CheckKind::Vlans, CheckKind::Dhcp] {
                let text = format!("cannot listen on the wire: {error}");
                checks.push(Check::new(kind, &*nic.name, Verdict::Skipped, text).do_this("run this as root"));
            }
            None
        }
    };
    if nic.is_member {
        return checks;
    }
    checks.push(judge::address(nic, wire, context));
    if nic.gateways.is_empty() && nic.is_configured() {
        checks.push(judge::no_gateway(nic));
    }
    checks.extend(
        nic.gateways.iter().zip(seen.gateways).map(|(gateway, echo)| judge::gateway_of(nic, *gateway, wire, echo)),
    );
    checks
}

async fn way(target: &Target, pins: &[[u8; 32]], nics: &[Nic], resolv_conf: &std::path::Path) -> Vec<Check> {
    match timeout(WAY, controller::examine(target, pins, nics, resolv_conf)).await {
        Ok(checks) => checks,
        Err(_) => vec![
            Check::new(
                CheckKind::Tcp,
                target.url(),
                Verdict::Failed,
                format!("not looked at to the end in {} s", WAY.as_secs()),
            )
            .do_this("everything on the way is slow: look at the checks above, then try again"),
        ],
    }
}

fn no_controller() -> Vec<Check> {
    let kinds = [CheckKind::Dns, CheckKind::Tcp, CheckKind::PathMtu, CheckKind::Tls, CheckKind::Http, CheckKind::Clock];
    let why = "no controller is known: give --controller, or speediso.controller= on the command line";
    kinds.into_iter().map(|kind| Check::new(kind, "", Verdict::Skipped, why)).collect()
}

/// The names of the variables only: a proxy's URL may hold a password.
fn proxies(variables: impl Iterator<Item = (std::ffi::OsString, std::ffi::OsString)>) -> Vec<String> {
    let is_proxy = |name: &str| PROXIES.contains(&name.to_ascii_lowercase().as_str());
    let mut names: Vec<String> = variables
        .filter(|(_, value)| !value.is_empty())
        .filter_map(|(name, _)| name.into_string().ok())
        .filter(|name| is_proxy(name))
        .collect();
    names.sort();
    names
}

/// Looks at the network between this machine and its controller: one line per finding, and what to do
///
/// Changes nothing. Exit status: 0 all well, 1 warnings, 2 something failed, 64 bad input.
#[derive(Args, Debug)]
pub struct DoctorArgs {
    /// As JSON (docs/network-doctor.md)
    #[arg(long)]
    json: bool,
    /// The controller; by default the one of the kernel command line
    #[arg(long, value_name = "URL")]
    controller: Option<String>,
    /// Fingerprint of its CA, sha256:<hex>, several by commas; by default those of the kernel command line
    #[arg(long, value_name = "PIN")]
    ca: Option<String>,
    /// Look at this interface only, by name or MAC address
    #[arg(long, value_name = "NAME")]
    nic: Option<String>,
}

/// Answers, and returns the exit status.
pub async fn run(args: DoctorArgs) -> u8 {
    let looked = match args.examination(&Roots::live()) {
        Ok(examination) => examination.run().await,
        Err(fault) => Err(fault),
    };
    match looked {
        Ok(report) if args.json => match serde_json::to_string_pretty(&report) {
            Ok(text) => {
                println!("{text}");
                report.exit_code()
            }
            Err(error) => {
                eprintln!("speediso-agent: {error}");
                2
            }
        },
        Ok(report) => {
            println!("{}", screen(&report));
            report.exit_code()
        }
        Err(fault) => {
            eprintln!("speediso-agent: {fault}\n  do: {}", fault.advice);
            if fault.code == FaultCode::CmdlineInvalid { 64 } else { 2 }
        }
    }
}

impl DoctorArgs {
    fn examination(&self, roots: &Roots) -> Result<Examination, Fault> {
        // A running system's command line has nothing of ours, and one of ours that is wrong is not this call's matter.
        let line = std::fs::read_to_string(roots.proc.join("cmdline")).unwrap_or_default();
        let mut examination = Examination::of(&Config::from_cmdline(&line).unwrap_or_default(), roots);
        if self.controller.is_some() {
            examination.controller.clone_from(&self.controller);
            // Pins belong to their controller.
            examination.pins.clear();
        }
        if let Some(list) = &self.ca {
            examination.pins = crate::cmdline::pins("ca", list)?;
        }
        examination.nic.clone_from(&self.nic);
        Ok(examination)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxies_are_named_and_never_shown() {
        let set = [("HTTPS_PROXY", "http://user:secret@p"), ("http_proxy", ""), ("PATH", "/bin"), ("all_proxy", "x")];
        let names = proxies(set.into_iter().map(|(name, value)| (name.into(), value.into())));
        assert_eq!(names, ["HTTPS_PROXY", "all_proxy"]);
    }
}

//! Being paired by the controller.
//!
//! A machine opens a port and says where. It is told, again and again, to wait, until another one waits too; then one is
//! told to stay where it is and the other to go there, and both are told the same secret.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};
use std::thread;
use std::time::{Duration, Instant};

use serde::Serialize;
use serde::de::DeserializeOwned;
use speediso_linktest::{Link, Listener, Secret, Stop, Terms, connect};
use speediso_model::api::{ErrorBody, path};
use speediso_model::burn_in::NetworkRole;
use speediso_model::burn_in::pairing::{PairAnswer, PairRequest};
use speediso_model::fault::{Fault, FaultCode};

use crate::ctx::{TaskCtx, Uploads};

/// How long the two may take to find one another once they are paired.
pub(super) const MEET: Duration = Duration::from_secs(60);
const ONE_REQUEST: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(100);

/// Where the controller is, as far as one can tell from its URL.
pub(super) fn controller(ctx: &TaskCtx) -> Option<SocketAddr> {
    let url = reqwest::Url::parse(&ctx.uploads.as_ref()?.controller).ok()?;
    let host = url.host_str()?.trim_matches(['[', ']']);
    (host, url.port_or_known_default()?).to_socket_addrs().ok()?.next()
}

pub(super) fn inconclusive(e: &speediso_linktest::LinkError) -> Fault {
    Fault::from_error(FaultCode::BurnInInconclusive, e)
}

pub(super) fn meet(address: IpAddr, terms: &Terms, wait: Duration, stop: &Stop, ctx: &TaskCtx) -> Result<Link, Fault> {
    let Some(uploads) = &ctx.uploads else {
        return Err(Fault::new(FaultCode::TaskInvalid, "there is no controller that could pair this machine"));
    };
    let listener = Listener::open(SocketAddr::new(address, 0), None).map_err(|e| inconclusive(&e))?;
    let request = PairRequest { address: listener.address(), terms: terms.to_string() };
    let begin = Instant::now();
    let mut waited_for: Option<Fault> = None;
    loop {
        ctx.cancel.check()?;
        match post(path::PAIR, uploads, &request, ctx) {
            Ok(PairAnswer::Paired { role, partner, name, secret }) => {
                let secret: Secret = secret.parse().map_err(|what| Fault::new(FaultCode::ProtocolError, what))?;
                ctx.reporter.notice(&format!("paired with {name} ({}) by the controller", partner.ip()));
                return match role {
                    NetworkRole::Listen => listener.only(partner.ip()).wait(&secret, MEET, stop),
                    NetworkRole::Connect => {
                        drop(listener);
                        connect(address, partner, &secret, MEET, stop)
                    }
                }
                .map_err(|e| inconclusive(&e));
            }
            Ok(PairAnswer::Wait { again_ms }) => pause(Duration::from_millis(again_ms.clamp(100, 30_000)), ctx)?,
            // It may be away for a moment; what it refuses, it will go on refusing.
            Err(fault) if fault.is_transient() => {
                waited_for = Some(fault);
                pause(Duration::from_secs(2), ctx)?;
            }
            Err(fault) => return Err(fault),
        }
        if begin.elapsed() > wait {
            let message = format!("no other machine came to be paired with within {} s", wait.as_secs());
            let mut fault = Fault::new(FaultCode::BurnInInconclusive, message);
            fault.causes.extend(waited_for.map(|f| f.to_string()));
            return Err(fault);
        }
    }
}

pub(super) fn pause(time: Duration, ctx: &TaskCtx) -> Result<(), Fault> {
    let end = Instant::now() + time;
    while Instant::now() < end {
        ctx.cancel.check()?;
        thread::sleep(LOOK);
    }
    Ok(())
}

/// A question about this run to the controller.
pub(super) fn post<T: DeserializeOwned>(
    path: &str,
    uploads: &Uploads,
    request: &impl Serialize,
    ctx: &TaskCtx,
) -> Result<T, Fault> {
    let url = format!("{}{}", uploads.controller, path.replace("{run}", &uploads.run.to_string()));
    let away = |e: &dyn std::error::Error| Fault::from_error(FaultCode::ControllerUnreachable, e);
    ctx.runtime.block_on(async {
        let answer = ctx.http.post(url).timeout(ONE_REQUEST).json(request).send().await.map_err(|e| away(&e))?;
        if !answer.status().is_success() {
            let status = answer.status();
            let refused = answer.json::<ErrorBody>().await.map(|body| body.error);
            return Err(refused.unwrap_or_else(|_| {
                Fault::new(
                    FaultCode::ProtocolError,
                    format!("the controller answered {status} to a wish for a partner"),
                )
            }));
        }
        answer.json().await.map_err(|e| away(&e))
    })
}

//! The controller as the partner: it opens a port for this machine alone, if its policy allows that.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use speediso_linktest::{Secret, Stop, Terms, connect};
use speediso_model::api::path;
use speediso_model::burn_in::partner::{LinkAnswer, LinkRequest};
use speediso_model::fault::{Fault, FaultCode};

use super::pair::{MEET, inconclusive, pause, post};
use super::{Met, NotTried};
use crate::ctx::TaskCtx;

pub(super) fn meet(
    address: IpAddr,
    terms: &Terms,
    wait: Duration,
    stop: &Stop,
    ctx: &TaskCtx,
) -> Result<Met, NotTried> {
    let Some(uploads) = &ctx.uploads else {
        return Err(NotTried::Skipped("there is no controller here that could be the partner".into()));
    };
    let request = LinkRequest { address, terms: *terms };
    let begin = Instant::now();
    let mut waited_for: Option<Fault> = None;
    loop {
        ctx.cancel.check()?;
        match post(path::LINK, uploads, &request, ctx) {
            Ok(LinkAnswer::Open { address: to, interface, secret, terms: given }) => {
                let secret: Secret = secret.parse().map_err(|what| Fault::new(FaultCode::ProtocolError, what))?;
                if given != *terms {
                    ctx.reporter.notice(&format!("the controller gives less than was asked for: {given}"));
                }
                let link = connect(address, to, &secret, MEET, stop).map_err(|e| inconclusive(&e))?;
                return Ok(Met { link, terms: given, whom: Some(in_words(to, interface.as_deref())) });
            }
            Ok(LinkAnswer::No { because }) => {
                return Err(NotTried::Skipped(because.chars().filter(|c| !c.is_control()).take(300).collect()));
            }
            Ok(LinkAnswer::Wait { again_ms }) => pause(Duration::from_millis(again_ms.clamp(100, 30_000)), ctx)?,
            // It may be away for a moment; what it refuses, it will go on refusing.
            Err(fault) if fault.is_transient() => {
                waited_for = Some(fault);
                pause(Duration::from_secs(2), ctx)?;
            }
            Err(fault) => return Err(fault.into()),
        }
        if begin.elapsed() > wait {
            let message = format!("the controller had no port free for this machine within {} s", wait.as_secs());
            let mut fault = Fault::new(FaultCode::BurnInInconclusive, message);
            fault.causes.extend(waited_for.map(|f| f.to_string()));
            return Err(fault.into());
        }
    }
}

fn in_words(address: SocketAddr, interface: Option<&str>) -> String {
    match interface {
        Some(interface) => format!("the controller, {} on its {interface}", address.ip()),
        None => format!("the controller, {}", address.ip()),
    }
}

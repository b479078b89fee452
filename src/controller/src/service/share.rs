//! Machines that write the same image: who is named to whom, and who may go to the image's server.
//!
//! What is decided is in `model::share::group`. It is decided in one transaction over rows that expire within seconds, so
//! that two replicas never give one segment to two machines, and a machine that vanished is soon forgotten.

use speediso_model::fault::{Fault, FaultCode};
use speediso_model::image::ImageFormat;
use speediso_model::order::TaskState;
use speediso_model::share::group;
use speediso_model::share::{Dice, SegmentMap, ShareAnswer, ShareRequest, is_manifest_name};
use speediso_model::task::Task;

use super::agent::{Agent, lease};
use super::{Failure, Result, Service, load};
use crate::machine::Machine;
use crate::store::{Millis, Transaction};

/// How long a machine may ask its peers on one permit. It gets a new one with every answer.
const PERMIT: Millis = 60_000;

const MOST_WRONG: usize = 16;

impl Service {
    /// # Errors
    /// When the session is not the newest, the request is malformed, or the machine writes no such image.
    pub async fn share(&self, agent: Agent, request: ShareRequest) -> Result<ShareAnswer> {
        check(&request)?;
        let mut tx = self.store.write().await?;
        let machine = load(&mut *tx, agent.node).await?.now;
        machine.check_epoch(agent.epoch)?;
        machine.check_epoch(request.epoch)?;
        let members = tx.sharing(&request.manifest, &request.origin).await?;
        let before = members.iter().find(|m| m.node == agent.node && m.manifest == request.manifest);
        let entitled = writes(&machine, &request.manifest);
        if !entitled && before.is_none() {
            return Err(Failure::Refused(Fault::new(
                FaultCode::OrderClosed,
                format!("no task of {} that is under way writes and shares this image", machine.node.name),
            )));
        }
        accuse(&mut *tx, &machine, &request).await?;
        let now = tx.now();
        let mut answer = ShareAnswer {
            lease: lease(&machine, agent.epoch, &[]),
            peers: Vec::new(),
            ticket: SegmentMap::none_of(request.have.len()),
            ticket_ms: u64::try_from(group::TICKET_MS).unwrap_or(0),
            permit: None,
            permit_key: self.ca.permit_key(),
            now_ms: now,
            again_ms: group::again_ms(members.len()),
        };
        if request.leaving {
            tx.drop_sharing(&request.manifest, agent.node).await?;
            self.commit(tx).await?;
            return Ok(answer);
        }
        let mut dice = Dice::new(rand::random());
        let heard = group::hear(&members, agent.node, &request, entitled, now, &mut dice);
        if entitled {
            answer.permit = Some(self.ca.permit(&request.manifest, agent.node, now + PERMIT)?);
        }
        answer.peers = heard.peers;
        answer.ticket = heard.member.ticket.clone();
        tx.put_sharing(&heard.member).await?;
        self.commit(tx).await?;
        Ok(answer)
    }
}

fn check(request: &ShareRequest) -> std::result::Result<(), Fault> {
    let wrong = |what: &str| Err(Fault::new(FaultCode::ProtocolError, what));
    if !is_manifest_name(&request.manifest) {
        return wrong("manifest is not 64 hex digits");
    }
    let long = |text: &str| text.len() > 255 || text.chars().any(char::is_control);
    if long(&request.origin) || request.switch.as_deref().is_some_and(long) {
        return wrong("origin or switch is too long");
    }
    // Nobody is sent to an address that is no machine's.
    if request.address.is_some_and(|a| a.ip().is_unspecified() || a.ip().is_multicast() || a.port() == 0) {
        return wrong("address is not one of a machine");
    }
    if request.wrong.len() > MOST_WRONG {
        return wrong("wrong names too many machines");
    }
    Ok(())
}

/// Whether a task that is under way entitles the machine to this image. A signed manifest is not named by its digest.
fn writes(machine: &Machine, manifest: &str) -> bool {
    let Some(record) = &machine.order else { return false };
    record.order.tasks.iter().any(|t| {
        let Task::WriteImage(task) = &t.task else { return false };
        let named = task.image.digest.as_ref().and_then(|d| d.as_sha256());
        let this = named.is_none_or(|d| speediso_model::plan::hex(&d) == manifest);
        matches!(t.state, TaskState::Running { .. }) && task.share && task.image.format == ImageFormat::Manifest && this
    })
}

/// Bytes that have not the image's hash come from bad memory, a bad card, or somebody's hand: a person should look.
async fn accuse(tx: &mut dyn Transaction, by: &Machine, request: &ShareRequest) -> Result<()> {
    for node in &request.wrong {
        let Some(accused) = tx.node(*node).await? else { continue };
        let fault = Fault::new(
            FaultCode::ShareWrong,
            format!(
                "{} says that {} gave it chunks that are not those of the image {}; none of them was written",
                by.node.name,
                accused.name,
                &request.manifest[..12]
            ),
        );
        tx.put_alert(&format!("share:{}:{node}:{}", request.manifest, by.node.id), Some(*node), &fault).await?;
    }
    Ok(())
}

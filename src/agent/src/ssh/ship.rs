//! Recordings on their way to the controller: in pieces, each known by where it begins, so that none is lost or doubled.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use speediso_model::api::path;
use speediso_model::fault::Fault;
use speediso_model::id::Epoch;
use speediso_model::ssh::{MAX_PIECE, Session, SessionAnswer, SessionId, SessionPiece, to_base64};
use speediso_sys::clock::uptime_ms;
use tokio::sync::watch;

use super::recordings::{self, Kept};
use crate::backoff::Backoff;
use crate::client::Client;
use crate::secrets;

/// What is shown is at the controller that much later.
const PAUSE: Duration = Duration::from_secs(1);

/// What the controller has of a session.
#[derive(Clone, PartialEq, Debug, Default)]
struct Sent {
    next: u64,
    facts: Option<Session>,
}

/// Sends for ever. Nothing waits for it, so it complains once and goes on.
pub(crate) async fn ship(client: watch::Receiver<Client>, epoch: Epoch) -> std::convert::Infallible {
    let dir = Path::new(recordings::DIR);
    let mut sent: HashMap<SessionId, Sent> = HashMap::new();
    let mut backoff = Backoff::default();
    loop {
        for kept in recordings::all(dir) {
            let client = client.borrow().clone();
            match bring(&client, epoch, dir, &kept, sent.entry(kept.session.id).or_default()).await {
                Ok(is_done) => {
                    backoff.reset();
                    if is_done {
                        recordings::forget(dir, kept.session.id);
                        sent.remove(&kept.session.id);
                    }
                }
                Err(fault) => {
                    if backoff.tries() == 0 {
                        tracing::warn!("ssh: a recording cannot be sent yet: {fault}; trying on");
                    }
                    tokio::time::sleep(backoff.next()).await;
                }
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Sends what is new of one session. Whether all of it is there and no more comes.
async fn bring(client: &Client, epoch: Epoch, dir: &Path, kept: &Kept, sent: &mut Sent) -> Result<bool, Fault> {
    let is_over = kept.is_over();
    let mut session = kept.session.clone();
    session.command = session.command.map(|command| secrets::hide(&command));
    if is_over && session.ended_ms.is_none() {
        // Whoever recorded it died without a word: when is not known better than this.
        session.ended_ms = Some(uptime_ms());
    }
    loop {
        // Gone to make room: what was sent is what there is.
        let data = recordings::read(dir, session.id, sent.next, MAX_PIECE).unwrap_or_default();
        let is_told = sent.facts.as_ref().is_some_and(|told| {
            // An end that we had to make up is told once.
            *told == session || (told.ended_ms.is_some() && kept.session.ended_ms.is_none())
        });
        if data.is_empty() && is_told {
            return Ok(is_over);
        }
        let more = data.len() == MAX_PIECE;
        let mut facts = session.clone();
        if more {
            facts.ended_ms = None;
        }
        let piece = SessionPiece { epoch, session: facts.clone(), offset: sent.next, data: to_base64(&data) };
        let answer: SessionAnswer = client.post(path::SSH_PIECE, &piece).await?;
        // The controller may know more than we do, of an agent before us.
        sent.next = answer.next;
        sent.facts = Some(facts);
    }
}

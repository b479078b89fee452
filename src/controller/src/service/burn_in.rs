//! Burn-ins: their reports, kept with the machine's model and told beside those of its kind; and who tries the link with
//! whom.

use speediso_model::burn_in::pairing::{PairAnswer, PairRequest, Waiting, hear};
use speediso_model::burn_in::site::{BurnInView, RebootRound, among_its_kind};
use speediso_model::burn_in::{BurnInReport, StepKind};
use speediso_model::fault::{Fault, FaultCode};
use speediso_model::id::{NodeId, RunId};
use speediso_model::order::TaskState;
use speediso_model::outcome::TaskResult;
use speediso_model::task::{PowerAction, Task};

use super::{Agent, Failure, Result, Service, load};
use crate::machine::Machine;
use crate::store::{Node, StoredBurnIn, Transaction};
use crate::token;

/// Machines of one model that a report is compared with: the newest say most.
const OTHERS: u32 = 200;
/// Reports of one machine that are listed.
const KEPT: u32 = 100;

/// Keeps the report of a burn-in, in the transaction that keeps the end of its run.
pub(super) async fn keep_report(
    tx: &mut dyn Transaction,
    node: &Node,
    run: RunId,
    task: &Task,
    result: &TaskResult,
) -> Result<()> {
    if !matches!(task, Task::BurnIn(_)) {
        return Ok(());
    }
    let report = result.output.clone().map(serde_json::from_value::<BurnInReport>);
    let report = match report {
        Some(Ok(report)) => report,
        // It was refused before it began. The run has its fault.
        None => return Ok(()),
        Some(Err(error)) => {
            tracing::warn!(%run, %error, "ignoring a burn-in report that cannot be read; the run keeps it as it came");
            return Ok(());
        }
    };
    let ended = tx.now();
    let stored = StoredBurnIn {
        run,
        node: node.id,
        maker: node.system.manufacturer.clone(),
        product: node.system.product_name.clone(),
        ended,
        report,
    };
    tx.put_burn_in(&stored).await?;
    Ok(())
}

impl Service {
    /// Newest first, each beside the newest reports of other machines of its model.
    ///
    /// # Errors
    /// When there is no such machine, or the store fails.
    pub async fn burn_ins(&self, node: NodeId, limit: u32) -> Result<Vec<BurnInView>> {
        let mut tx = self.store.read().await?;
        let known = tx.node(node).await?.ok_or_else(|| Failure::NotFound(format!("node {node}")))?;
        let mut views = Vec::new();
        for stored in tx.burn_ins(node, limit.min(KEPT)).await? {
            let others = tx.burn_ins_of_model(&stored.maker, &stored.product, node, OTHERS).await?;
            let others: Vec<&BurnInReport> = others.iter().map(|other| &other.report).collect();
            views.push(BurnInView {
                run: stored.run,
                node,
                name: known.name.clone(),
                serial_number: known.system.serial_number.clone(),
                maker: stored.maker,
                product: stored.product,
                stored: jiff::Timestamp::from_millisecond(stored.ended).unwrap_or(jiff::Timestamp::UNIX_EPOCH),
                reboots: reboots(&mut *tx, stored.run).await?,
                compared: among_its_kind(&stored.report, &others),
                report: stored.report,
            });
        }
        Ok(views)
    }

    /// # Errors
    /// When the run is no burn-in of this agent that goes on and has a network step without a partner of its own.
    pub async fn pair(&self, agent: Agent, run: RunId, request: PairRequest) -> Result<PairAnswer> {
        check(&request)?;
        let mut tx = self.store.write().await?;
        let machine = load(&mut *tx, agent.node).await?.now;
        machine.check_epoch(agent.epoch)?;
        if !waits(&machine, run) {
            let message = format!("the run {run} is no burn-in that goes on and is to be paired");
            return Err(Fault::new(FaultCode::NotArmed, message).into());
        }
        let now = tx.now();
        let rows = tx.pairing().await?;
        let asker = Waiting::new(run, agent.node, &machine.node.name, &request, now);
        let (answer, changed) = hear(&rows, asker, now, &token::new()?);
        for row in &changed {
            tx.put_pairing(row).await?;
        }
        self.commit(tx).await?;
        Ok(answer)
    }
}

/// The restarts of the burn-in's order: each a power task and the inventory after it.
async fn reboots(tx: &mut dyn Transaction, run: RunId) -> Result<Vec<RebootRound>> {
    let Some(record) = tx.run(run).await? else { return Ok(Vec::new()) };
    let Some(order) = tx.order(record.order).await? else { return Ok(Vec::new()) };
    let tasks = &order.order.tasks;
    let mut rounds = Vec::new();
    for pair in tasks.windows(2) {
        let is_round = matches!(&pair[0].task, Task::Power(power) if power.action == PowerAction::Reboot)
            && matches!(pair[1].task, Task::Inventory(_));
        if !is_round {
            continue;
        }
        let left = match pair[0].state.run() {
            Some(run) => tx.run(run).await?.and_then(|record| record.started).map(|start| start.at),
            None => None,
        };
        let (looked, outcome) = match &pair[1].state {
            TaskState::Ended { run, result } => (tx.run_ended(*run).await?, result.outcome.name()),
            other => (None, other.name()),
        };
        #[allow(clippy::cast_precision_loss, reason = "milliseconds of a restart")]
        let seconds = left.zip(looked).map(|(left, looked)| (looked - left) as f64 / 1000.0);
        rounds.push(RebootRound { number: rounds.len() + 1, seconds, outcome: outcome.to_owned() });
    }
    Ok(rounds)
}

fn check(request: &PairRequest) -> std::result::Result<(), Fault> {
    let wrong = |what: &str| Err(Fault::new(FaultCode::ProtocolError, what));
    let ip = request.address.ip();
    // Nobody is sent to an address that is no machine's.
    if ip.is_unspecified() || ip.is_multicast() || request.address.port() == 0 {
        return wrong("address is not one of a machine");
    }
    if request.terms.len() > 255 || request.terms.chars().any(char::is_control) {
        return wrong("terms are too long");
    }
    Ok(())
}

fn waits(machine: &Machine, run: RunId) -> bool {
    let Some(record) = &machine.order else { return false };
    record.order.tasks.iter().any(|task| {
        let running = matches!(task.state, TaskState::Running { run: of, .. } if of == run);
        let Task::BurnIn(burn_in) = &task.task else { return false };
        running
            && burn_in.scenario().is_ok_and(|scenario| {
                scenario.steps().any(|step| matches!(&step.kind, StepKind::Network(n) if n.partner.is_none()))
            })
    })
}

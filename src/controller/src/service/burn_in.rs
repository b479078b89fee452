//! Burn-ins: their reports, kept with the machine's model and told beside those of its kind; and who tries the link with
//! whom, the controller itself included.

use speediso_model::burn_in::pairing::{PairAnswer, PairRequest, Waiting, hear};
use speediso_model::burn_in::partner::{LinkAnswer, LinkRequest};
use speediso_model::burn_in::site::{BurnInView, RebootRound, among_its_kind};
use speediso_model::burn_in::{BurnInReport, LinkWith, NetworkStep, StepKind};
use speediso_model::fault::{Fault, FaultCode};
use speediso_model::id::{NodeId, OrderId, RunId};
use speediso_model::inventory::compare::Importance;
use speediso_model::inventory::is_real_identifier;
use speediso_model::order::TaskState;
use speediso_model::outcome::TaskResult;
use speediso_model::task::{PowerAction, Task};

use super::{Agent, Failure, Result, Service, load};
use crate::links::LinkPartner;
use crate::machine::{CONTROLLER, Machine};
use crate::store::{NewEvent, Node, StoredBurnIn, Transaction};
use crate::token;
use crate::wake;
use tokio::runtime::Handle;

/// Machines of one model that a report is compared with: the newest say most.
const OTHERS: u32 = 200;
/// Reports of one machine that are listed.
const KEPT: u32 = 100;
/// Boots whose changes of hardware are looked through: more than an order has restarts.
const BOOTS: u32 = 200;
/// Of one restart.
const CHANGES: usize = 8;

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
            // Machines whose maker left the fields as they were have only that in common.
            let is_model = is_real_identifier(&stored.product);
            let others = if is_model {
                tx.burn_ins_of_model(&stored.maker, &stored.product, node, OTHERS).await?
            } else {
                Vec::new()
            };
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

    /// A port of this controller for a machine that is to try its link with it.
    ///
    /// # Errors
    /// When the run is no burn-in of this agent that goes on and has a network step with the controller.
    pub async fn link(
        &self,
        agent: Agent,
        run: RunId,
        request: LinkRequest,
        partner: &LinkPartner,
    ) -> Result<LinkAnswer> {
        if request.address.is_unspecified() || request.address.is_multicast() || request.terms.streams == 0 {
            return Err(Fault::new(FaultCode::ProtocolError, "address or terms are none of a link").into());
        }
        let mut tx = self.store.read().await?;
        let machine = load(&mut *tx, agent.node).await?.now;
        drop(tx);
        machine.check_epoch(agent.epoch)?;
        if !waits(&machine, run, LinkWith::Controller) {
            let message =
                format!("the run {run} is no burn-in that goes on and is to try its link with the controller");
            return Err(Fault::new(FaultCode::NotArmed, message).into());
        }
        let order = machine.order.as_ref().map(|record| record.order.id);
        let (service, runtime) = (self.clone(), Handle::current());
        let (answer, is_new) = partner.ask(run, &request, move |closed| {
            let text = closed.to_string();
            // The last word about it may come after the server was told to end.
            drop(runtime.spawn(async move { service.note(agent.node, order, text).await }));
        });
        if let LinkAnswer::Open { address, interface, terms, .. } = &answer
            && is_new
        {
            let interface = interface.as_ref().map(|name| format!(" on {name}")).unwrap_or_default();
            let text =
                format!("a port of the controller is open for {}: {address}{interface}; {terms}", machine.node.name);
            self.note(agent.node, order, text).await;
        }
        Ok(answer)
    }

    /// Keeps what is worth knowing of a machine, and goes on if it cannot.
    async fn note(&self, node: NodeId, order: Option<OrderId>, text: String) {
        let put = async {
            let mut tx = self.store.write().await?;
            let detail = serde_json::Value::Null;
            let source = CONTROLLER.to_owned();
            tx.put_event(&NewEvent { node, order, source, late: false, text: text.clone(), detail }).await?;
            tx.touch(wake::EVENTS).await?;
            self.commit(tx).await
        };
        match put.await {
            Ok(()) => tracing::info!(%node, "{text}"),
            Err(error) => tracing::warn!(%node, "{text}; it could not be stored, proceeding: {error}"),
        }
    }

    /// # Errors
    /// When the run is no burn-in of this agent that goes on and has a network step without a partner of its own.
    pub async fn pair(&self, agent: Agent, run: RunId, request: PairRequest) -> Result<PairAnswer> {
        check(&request)?;
        let mut tx = self.store.write().await?;
        let machine = load(&mut *tx, agent.node).await?.now;
        machine.check_epoch(agent.epoch)?;
        if !waits(&machine, run, LinkWith::Machine) {
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

/// The restarts of the burn-in's order: each a power task and the inventory after it, with what the boot in between was
/// seen to have changed.
async fn reboots(tx: &mut dyn Transaction, run: RunId) -> Result<Vec<RebootRound>> {
    let Some(record) = tx.run(run).await? else { return Ok(Vec::new()) };
    let Some(order) = tx.order(record.order).await? else { return Ok(Vec::new()) };
    let tasks = &order.order.tasks;
    if !tasks.iter().any(|task| matches!(task.task, Task::Power(_))) {
        return Ok(Vec::new());
    }
    let seen = tx.hardware_changes(record.node, BOOTS).await?;
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
        let (looked, outcome, epoch) = match &pair[1].state {
            TaskState::Ended { run, result } => {
                let epoch = tx.run(*run).await?.map(|record| record.epoch);
                (tx.run_ended(*run).await?, result.outcome.name(), epoch)
            }
            other => (None, other.name(), None),
        };
        let of_boot = seen.iter().filter(|changes| Some(changes.epoch) == epoch).flat_map(|changes| &changes.changes);
        let grave = of_boot.filter(|change| change.importance != Importance::Minor);
        let changes: Vec<String> = grave.take(CHANGES).map(|change| change.text.clone()).collect();
        #[allow(clippy::cast_precision_loss, reason = "milliseconds of a restart")]
        let seconds = left.zip(looked).map(|(left, looked)| (looked - left) as f64 / 1000.0);
        rounds.push(RebootRound { number: rounds.len() + 1, seconds, outcome: outcome.to_owned(), changes });
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

fn waits(machine: &Machine, run: RunId, with: LinkWith) -> bool {
    let Some(record) = &machine.order else { return false };
    record.order.tasks.iter().any(|task| {
        let running = matches!(task.state, TaskState::Running { run: of, .. } if of == run);
        let Task::BurnIn(burn_in) = &task.task else { return false };
        running
            && burn_in.scenario().is_ok_and(|scenario| {
                let is_meant = |n: &NetworkStep| n.partner.is_none() && n.with == with;
                scenario.steps().any(|step| matches!(&step.kind, StepKind::Network(n) if is_meant(n)))
            })
    })
}

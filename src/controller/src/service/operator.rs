//! What operators want done.

use speediso_model::api::{ApproveRequest, CreateNodeRequest, NodeView, OrderRequest, OrderView, Rule, RuleRequest};
use speediso_model::fault::{Fault, FaultCode};
use speediso_model::id::{NodeId, OrderId};
use speediso_model::inventory::{SystemVendor, canonical_mac, is_real_identifier};
use speediso_model::node::NodeState;
use speediso_model::order::{Order, OrderState, OrderTask, TaskState};
use speediso_model::profile::Profile;
use speediso_model::task::{RecordedDisk, Task};

use super::{Failure, Result, Service, load, save};
use crate::machine::{Decision, Effects, Machine};
use crate::store::{NewEvent, Node, OrderRecord};
use crate::wake;

impl Service {
    /// Records a machine that was not seen yet. It is admitted, and its first boot leads into the ramdisk.
    ///
    /// # Errors
    /// When name or identifiers are malformed or taken.
    pub async fn create_node(&self, request: CreateNodeRequest, by: &str) -> Result<NodeView> {
        check_name(&request.name)?;
        let mut macs = Vec::new();
        for mac in &request.macs {
            macs.push(canonical_mac(mac).ok_or_else(|| invalid(format!("{mac:?} is not a MAC address")))?);
        }
        macs.sort();
        macs.dedup();
        if let Some(placeholder) =
            request.uuid.iter().chain(&request.serial_number).find(|text| !is_real_identifier(text))
        {
            return Err(invalid(format!("{placeholder:?} identifies no machine")).into());
        }
        let system = SystemVendor {
            uuid: request.uuid,
            serial_number: request.serial_number.unwrap_or_default(),
            ..SystemVendor::default()
        };
        let mut node = Node::new(request.name, NodeState::Enroll, system, macs);
        node.armed = true;
        if node.identity().is_empty() {
            return Err(invalid("a MAC address, UUID or serial number is needed".into()).into());
        }
        let mut tx = self.store.write().await?;
        if let Some(other) = tx.nodes_with(&node.identity()).await?.first() {
            return Err(invalid(format!("{} has one of these identifiers already", other.name)).into());
        }
        if tx.node_named(&node.name).await?.is_some() {
            return Err(invalid(format!("the name {} is taken", node.name)).into());
        }
        tx.put_node(&node).await?;
        let text = format!("{} was recorded; its first boot from the network leads into the ramdisk", node.name);
        let detail = serde_json::Value::Null;
        tx.put_event(&NewEvent { node: node.id, order: None, source: by.into(), late: false, text, detail }).await?;
        tx.touch(wake::EVENTS).await?;
        self.commit(tx).await?;
        self.node_view(node.id).await
    }

    /// # Errors
    /// When no agent waits with this code, or the new name is no good.
    pub async fn approve(&self, id: NodeId, request: ApproveRequest, by: &str) -> Result<NodeView> {
        let mut tx = self.store.write().await?;
        let mut machine = load(&mut *tx, id).await?;
        let mut fx = Effects::default();
        if let Some(name) = &request.name {
            check_name(name)?;
            if tx.node_named(name).await?.is_some_and(|other| other != id) {
                return Err(invalid(format!("the name {name} is taken")).into());
            }
        }
        machine.now.approve(&request.code, by, &mut fx)?;
        if let Some(name) = request.name {
            machine.now.node.name = name;
        }
        save(&mut *tx, &machine, &fx).await?;
        self.commit(tx).await?;
        self.node_view(id).await
    }

    async fn on_node(
        &self,
        id: NodeId,
        decision: impl FnOnce(&mut Machine, &mut Effects) -> Decision,
    ) -> Result<NodeView> {
        self.decide(id, decision).await?;
        self.node_view(id).await
    }

    /// # Errors
    /// When there is no such node.
    pub async fn protect(&self, id: NodeId, protected: bool, by: &str) -> Result<NodeView> {
        self.on_node(id, |m, fx| {
            m.protect(protected, by, fx);
            Ok(())
        })
        .await
    }

    /// # Errors
    /// When the node is neither quarantined nor in maintenance.
    pub async fn release(&self, id: NodeId, by: &str) -> Result<NodeView> {
        self.on_node(id, |m, fx| m.release(by, fx)).await
    }

    /// # Errors
    /// When the node is not admitted.
    pub async fn arm(&self, id: NodeId, by: &str) -> Result<NodeView> {
        self.on_node(id, |m, fx| m.arm(by, fx)).await
    }

    /// # Errors
    /// When the order is malformed or the machine takes none.
    pub async fn order(&self, id: NodeId, request: OrderRequest, by: &str) -> Result<OrderView> {
        let tasks = match (&request.profile, request.tasks) {
            (Some(name), tasks) if tasks.is_empty() => {
                let profile = Profile::named(name)
                    .ok_or_else(|| Fault::new(FaultCode::TaskUnknown, format!("there is no profile {name:?}")))?;
                let mut tasks = profile.expand(request.parameters)?;
                if profile == Profile::Decommission {
                    self.expect_recorded_disks(id, &mut tasks).await?;
                }
                tasks
            }
            (None, tasks) if !tasks.is_empty() && request.parameters.is_null() => tasks,
            _ => return Err(invalid("either a profile with its parameters or a list of tasks is needed".into()).into()),
        };
        request.skip_block_devices.check().map_err(invalid)?;
        if tasks.len() > 256 {
            return Err(invalid("more than 256 tasks in one order".into()).into());
        }
        request.notes.as_ref().map_or(Ok(()), |n| n.check()).map_err(|e| invalid(format!("notes: {e}")))?;
        let order_id = OrderId::random();
        let by = by.to_owned();
        self.decide(id, |m, fx| {
            let order = Order {
                id: order_id,
                node: id,
                profile: request.profile,
                state: OrderState::Open,
                tasks: tasks.into_iter().map(|task| OrderTask { task, state: TaskState::Queued }).collect(),
                dry_run: request.dry_run,
                skip_block_devices: request.skip_block_devices,
                by,
                created: jiff::Timestamp::from_millisecond(m.now).unwrap_or(jiff::Timestamp::UNIX_EPOCH),
                closed: None,
                notes: request.notes,
            };
            m.open(OrderRecord::new(order), fx)
        })
        .await?;
        self.order_view(order_id).await
    }

    /// Names in each wipe the disks that this machine had when it was looked at last, unless the order names some.
    async fn expect_recorded_disks(&self, id: NodeId, tasks: &mut [Task]) -> Result<()> {
        let inventory = self.node_inventory(id).await?;
        let recorded: Vec<RecordedDisk> =
            inventory.iter().flat_map(|i| &i.disks).filter_map(RecordedDisk::of).collect();
        if recorded.is_empty() {
            return Err(invalid(
                "the controller has no record of this machine's disks: order an inventory first".into(),
            )
            .into());
        }
        for task in tasks {
            if let Task::Wipe(wipe) = task
                && wipe.expect.is_empty()
            {
                wipe.expect.clone_from(&recorded);
            }
        }
        Ok(())
    }

    async fn on_order(
        &self,
        order: OrderId,
        decision: impl FnOnce(&mut Machine, &mut Effects) -> Decision,
    ) -> Result<OrderView> {
        let node = self.node_of(order).await?;
        self.decide(node, |m, fx| {
            if m.order.as_ref().is_none_or(|o| o.order.id != order) {
                return Err(Fault::new(FaultCode::OrderClosed, "the order is closed already"));
            }
            decision(m, fx)
        })
        .await?;
        self.order_view(order).await
    }

    /// # Errors
    /// When the order is closed already.
    pub async fn cancel(&self, order: OrderId, by: &str) -> Result<OrderView> {
        self.on_order(order, |m, fx| m.cancel(by, fx)).await
    }

    /// # Errors
    /// When nothing of the order is interrupted.
    pub async fn retry(&self, order: OrderId, by: &str) -> Result<OrderView> {
        self.on_order(order, |m, fx| m.retry(by, fx)).await
    }

    /// # Errors
    /// When the rule names nothing.
    pub async fn add_rule(&self, rule: RuleRequest) -> Result<Rule> {
        super::enrol::check_rule(&rule)?;
        let mut tx = self.store.write().await?;
        let rule = tx.put_rule(&rule).await?;
        self.commit(tx).await?;
        Ok(rule)
    }

    /// # Errors
    /// When there is none.
    pub async fn remove_rule(&self, id: i64) -> Result<()> {
        let mut tx = self.store.write().await?;
        if !tx.drop_rule(id).await? {
            return Err(Failure::NotFound(format!("rule {id}")));
        }
        self.commit(tx).await
    }
}

fn invalid(message: String) -> Fault {
    Fault::new(FaultCode::TaskInvalid, message)
}

/// Names are shown, typed and put into host names.
fn check_name(name: &str) -> Decision {
    let good = !name.is_empty()
        && name.len() <= 63
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'))
        && name.as_bytes()[0].is_ascii_alphanumeric();
    if good { Ok(()) } else { Err(invalid(format!("the name {name:?} is not 1 to 63 letters, digits, dots, dashes"))) }
}

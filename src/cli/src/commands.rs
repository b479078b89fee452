//! One function per command: ask the controller, print the answer.

use std::path::Path;

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};
use speediso_model::api::{
    Alert, ApproveRequest, CreateNodeRequest, EventsQuery, ImageView, List, NodeView, OrderRequest, OrderView,
    ProtectRequest, Rule, RuleRequest, StoredEvent, path,
};
use speediso_model::hints::SkipList;
use speediso_model::inventory::Inventory;
use speediso_model::inventory::compare::SeenChanges;
use speediso_model::order::Order;
use speediso_model::ssh::SshView;

use crate::args::{Args, Command, ImageCommand, OrderArgs, Place, RuleCommand};
use crate::client::Client;
use crate::{
    boot_files, boot_into, burn_in, capture, certificate, follow, image, logs, output, pack, pci_names, resolve, sign,
    ssh, verify,
};

/// The path of a constant with its `{placeholder}` filled in. Values are ids or checked names: nothing to escape.
pub(crate) fn at(pattern: &str, value: impl std::fmt::Display) -> String {
    match (pattern.find('{'), pattern.find('}')) {
        (Some(open), Some(close)) => format!("{}{value}{}", &pattern[..open], &pattern[close + 1..]),
        _ => pattern.to_owned(),
    }
}

pub(crate) async fn run(args: Args) -> Result<u8> {
    // What needs no controller comes first.
    match &args.command {
        Command::Keygen { key } => return sign::keygen(key, args.json).map(|()| 0),
        Command::SignTasks { file, key } => return sign::sign_tasks(file, key).map(|()| 0),
        Command::BootInto(boot) => return Box::pin(boot_into::run(boot, args.json)).await,
        Command::BootFiles(site) => {
            return boot_files::run(site, args.json, args.controller.as_deref(), args.ca_file.as_deref()).map(|()| 0);
        }
        Command::VerifyCertificate(verify) => return verify::verify(verify, args.json),
        Command::Image(ImageCommand::Pack(pack)) => return pack::pack(pack, args.json).map(|()| 0),
        Command::Image(ImageCommand::Verify { directory, key }) => {
            return pack::verify(directory, key.as_deref(), args.json).map(|()| 0);
        }
        Command::Image(ImageCommand::Info { path }) => return pack::info(path, args.json).map(|()| 0),
        Command::Image(ImageCommand::Unpack { directory, out, key }) => {
            return pack::unpack(directory, out, key.as_deref(), args.json).map(|()| 0);
        }
        _ => {}
    }
    let client = Client::from_args(&args)?;
    let json = args.json;
    let Args { controller, ca_file, token_file, .. } = &args;
    let place = Place { controller: controller.clone(), ca_file: ca_file.clone(), token_file: token_file.clone() };
    match args.command {
        Command::BootInto(_)
        | Command::BootFiles(_)
        | Command::Keygen { .. }
        | Command::SignTasks { .. }
        | Command::VerifyCertificate(_)
        | Command::Image(
            ImageCommand::Pack(_)
            | ImageCommand::Verify { .. }
            | ImageCommand::Info { .. }
            | ImageCommand::Unpack { .. },
        ) => {}
        Command::Machines => {
            let nodes: List<NodeView> = client.get(path::NODES).await?;
            output::print(json, &nodes, output::machines)?;
        }
        Command::Machine { node, pci_ids } => machine(&client, &node, pci_ids.as_deref(), json).await?,
        Command::Approve { node, code, name } => {
            let node = resolve::node(&client, &node).await?;
            let body = ApproveRequest { code, name };
            let node: NodeView = client.post(&at(path::NODE_APPROVE, node.id), &body).await?;
            output::print(json, &node, |n| format!("{} ({}) is approved: {}", n.name, n.id, n.state.name()))?;
        }
        Command::Create { name, macs, uuid, serial_number } => {
            let body = CreateNodeRequest { name, macs, uuid, serial_number };
            let node: NodeView = client.post(path::NODES, &body).await?;
            output::print(json, &node, |n| format!("{} is recorded as {}", n.name, n.id))?;
        }
        Command::Protect { node } => protect(&client, &node, true, json).await?,
        Command::Unprotect { node } => protect(&client, &node, false, json).await?,
        Command::Release { node } => {
            let node = resolve::node(&client, &node).await?;
            let node: NodeView = client.post(&at(path::NODE_RELEASE, node.id), &json!({})).await?;
            output::print(json, &node, |n| format!("{} is released: {}", n.name, n.state.name()))?;
        }
        Command::Arm { node } => {
            let node = resolve::node(&client, &node).await?;
            let node: NodeView = client.post(&at(path::NODE_ARM, node.id), &json!({})).await?;
            output::print(json, &node, |n| format!("{} will boot the live system from the network next time", n.name))?;
        }
        Command::Apply { profile, node, params, dry_run, follow, with, yes_destroy } => {
            let node = resolve::node(&client, &node).await?;
            let parameters = params.as_deref().map(read_json).transpose()?.unwrap_or(Value::Null);
            let all_disks = profile == "decommission" || (profile == "wipe" && parameters["devices"] == "all_disks");
            let everything = all_disks && !dry_run;
            if everything && yes_destroy.as_deref() != Some(node.name.as_str()) {
                bail!(
                    "this destroys all data on every disk of {0}; to go on, repeat the command with --yes-destroy {0}",
                    node.name
                );
            }
            let body = OrderRequest { profile: Some(profile), parameters, dry_run, ..request(with)? };
            return order(&client, &node, &body, follow, json).await;
        }
        Command::Run { node, tasks, dry_run, follow, with } => {
            let node = resolve::node(&client, &node).await?;
            let tasks = serde_json::from_value(read_json(&tasks)?)
                .with_context(|| format!("{} is not a list of tasks", tasks.display()))?;
            let body = OrderRequest { tasks, dry_run, ..request(with)? };
            return order(&client, &node, &body, follow, json).await;
        }
        Command::Capture(args) => {
            let task = capture::task(&args)?;
            let node = resolve::node(&client, &args.node).await?;
            let body = OrderRequest { tasks: vec![task], dry_run: args.dry_run, ..OrderRequest::default() };
            return order(&client, &node, &body, args.follow, json).await;
        }
        Command::Orders => {
            let orders: List<Order> = client.get(path::ORDERS).await?;
            output::print(json, &orders, output::orders)?;
        }
        Command::Order { order } => {
            let order: OrderView = client.get(&at(path::ORDER, order_id(&order)?)).await?;
            output::print(json, &order, output::order)?;
        }
        Command::Follow { what } => {
            let order = resolve::order(&client, &what).await?;
            return follow::order(&client, order, json).await;
        }
        Command::Cancel { order } => {
            let order: OrderView = client.post(&at(path::ORDER_CANCEL, order_id(&order)?), &json!({})).await?;
            output::print(json, &order, output::order)?;
        }
        Command::Retry { order } => {
            let order: OrderView = client.post(&at(path::ORDER_RETRY, order_id(&order)?), &json!({})).await?;
            output::print(json, &order, output::order)?;
        }
        Command::Events { node, order, follow } => {
            let node = match node {
                Some(text) => Some(resolve::node(&client, &text).await?.id),
                None => None,
            };
            let order = order.as_deref().map(order_id).transpose()?;
            events(&client, EventsQuery { node, order, ..EventsQuery::default() }, follow, json).await?;
        }
        Command::Logs(args) => logs::run(&client, &args, json).await?,
        Command::Ssh(args) => return ssh::run(&client, &args, &place).await,
        Command::SshConfig(args) => ssh::config(&client, &args, &place).await?,
        Command::SshProxy { node } => return ssh::proxy(&client, &node).await,
        Command::SshSessions(args) => ssh::sessions(&client, &args, json).await?,
        Command::Alerts => {
            let alerts: List<Alert> = client.get(path::ALERTS).await?;
            output::print(json, &alerts, output::alerts)?;
        }
        Command::Rules => {
            let rules: List<Rule> = client.get(path::RULES).await?;
            output::print(json, &rules, output::rules)?;
        }
        Command::Rule(RuleCommand::Add { manufacturer, product_name, serial_prefix, mac_prefix }) => {
            let body = RuleRequest { manufacturer, product_name, serial_prefix, mac_prefix };
            let rule: Rule = client.post(path::RULES, &body).await?;
            output::print(json, &rule, |r| format!("rule {} admits such machines from now on", r.id))?;
        }
        Command::Rule(RuleCommand::Remove { id }) => {
            client.delete(&at(path::RULE, id)).await?;
            output::print(json, &json!({"removed": id}), |_| format!("rule {id} is removed"))?;
        }
        Command::Images => {
            let images: List<ImageView> = client.get(path::IMAGES).await?;
            output::print(json, &images, output::images)?;
        }
        Command::Certificates(args) => certificate::list(&client, args, json).await?,
        Command::Certificate(command) => certificate::run(&client, command, json).await?,
        Command::BurnIn(command) => return burn_in::run(&client, command, json).await,
        Command::Image(ImageCommand::Add { file, name }) => image::add(&client, &file, name, json).await?,
    }
    Ok(0)
}

fn order_id(text: &str) -> Result<speediso_model::id::OrderId> {
    text.parse().with_context(|| format!("{text:?} is not an order's id"))
}

/// What an order may bring, without its tasks.
fn request(with: OrderArgs) -> Result<OrderRequest> {
    let notes = certificate::notes(with.notes.as_ref())?;
    Ok(OrderRequest { skip_block_devices: SkipList(with.skip), notes, ..OrderRequest::default() })
}

pub(crate) fn read_json(file: &Path) -> Result<Value> {
    let text = if file == Path::new("-") {
        std::io::read_to_string(std::io::stdin()).context("reading standard input")?
    } else {
        std::fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?
    };
    serde_json::from_str(&text).with_context(|| format!("{} is not JSON", file.display()))
}

async fn machine(client: &Client, text: &str, pci_ids: Option<&Path>, json: bool) -> Result<()> {
    let node = resolve::node(client, text).await?;
    let mut inventory: Option<Inventory> = client.get(&at(path::NODE_INVENTORY, node.id)).await?;
    if let Some(inventory) = &mut inventory {
        pci_names::add(inventory, pci_ids)?;
    }
    let changes: List<SeenChanges> = client.get(&at(path::NODE_CHANGES, node.id)).await?;
    let ssh: SshView = client.get(&at(path::NODE_SSH, node.id)).await?;
    let all = json!({"node": node, "inventory": inventory, "changes": changes.items, "ssh": ssh});
    output::print(json, &all, |_| {
        let key = ssh.fingerprint.as_ref().map(|key| format!("\n  ssh key   {key}")).unwrap_or_default();
        format!("{}{key}", output::machine(&node, inventory.as_ref(), &changes.items))
    })
}

async fn protect(client: &Client, text: &str, protected: bool, json: bool) -> Result<()> {
    let node = resolve::node(client, text).await?;
    let node: NodeView = client.post(&at(path::NODE_PROTECT, node.id), &ProtectRequest { protected }).await?;
    output::print(json, &node, |n| {
        if n.protected {
            format!("{} is protected: it takes no destructive order until `speediso unprotect {0}`", n.name)
        } else {
            format!("{} is not protected any more", n.name)
        }
    })
}

pub(crate) async fn order(client: &Client, node: &NodeView, body: &OrderRequest, stay: bool, json: bool) -> Result<u8> {
    let order: OrderView = client.post(&at(path::NODE_ORDERS, node.id), body).await?;
    // A dry run is asked for its plan, so it is always waited for.
    if stay || body.dry_run {
        if !json {
            println!("order {} for {}", order.order.id, node.name);
            if !node.online {
                println!("{} has no agent now; it begins when the machine boots from the network", node.name);
            }
        }
        return follow::order(client, order.order.id, json).await;
    }
    output::print(json, &order, |o| format!("{}\nfollow it with: speediso follow {}", output::order(o), o.order.id))?;
    Ok(0)
}

async fn events(client: &Client, mut query: EventsQuery, follow: bool, json: bool) -> Result<()> {
    loop {
        let events: List<StoredEvent> = client.get_query(path::STORED_EVENTS, &query).await?;
        for event in &events.items {
            if json {
                println!("{}", serde_json::to_string(event)?);
            } else {
                println!("{}", output::event(event));
            }
            query.after = query.after.max(event.cursor);
        }
        if !events.items.is_empty() {
            continue;
        }
        if !follow {
            return Ok(());
        }
        query.wait = 25;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_are_filled() {
        assert_eq!(at(path::NODE_APPROVE, "n1"), "/v1/nodes/n1/approve");
        assert_eq!(at(path::ORDER, 7), "/v1/orders/7");
        assert_eq!(at(path::NODES, 7), "/v1/nodes");
    }
}

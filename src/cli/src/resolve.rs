//! From what a person typed to the one node it means.

use anyhow::{Result, bail};
use speediso_model::api::{List, NodeView, path};
use speediso_model::id::OrderId;
use speediso_model::inventory::canonical_mac;

use crate::client::Client;

/// The one machine that `text` names.
pub(crate) async fn node(client: &Client, text: &str) -> Result<NodeView> {
    let nodes: List<NodeView> = client.get(path::NODES).await?;
    choose(&nodes.items, text)
}

fn choose(nodes: &[NodeView], text: &str) -> Result<NodeView> {
    // An exact id or name wins over the rest, so that a machine named like another's serial number stays reachable.
    if let Some(node) = nodes.iter().find(|n| n.id.to_string() == text || n.name == text) {
        return Ok(node.clone());
    }
    let mac = canonical_mac(text);
    let same = |value: &str| !value.is_empty() && value.eq_ignore_ascii_case(text.trim());
    let matches = |node: &NodeView| {
        same(&node.system.serial_number)
            || node.system.uuid.as_deref().is_some_and(same)
            || mac.as_ref().is_some_and(|m| node.macs.contains(m))
    };
    let mut found: Vec<NodeView> = nodes.iter().filter(|n| matches(n)).cloned().collect();
    match found.len() {
        1 => Ok(found.remove(0)),
        0 if nodes.is_empty() => bail!("no machine is known yet; {text:?} names none"),
        0 => bail!("no machine is named {text:?}; known are: {}", names(nodes)),
        _ => bail!("{text:?} names several machines: {}; use the id", names(&found)),
    }
}

fn names(nodes: &[NodeView]) -> String {
    const SHOWN: usize = 10;
    let mut list: Vec<String> = nodes.iter().take(SHOWN).map(|n| format!("{} ({})", n.name, n.id)).collect();
    if nodes.len() > SHOWN {
        list.push(format!("{} more", nodes.len() - SHOWN));
    }
    list.join(", ")
}

/// An order by its id, or the open one of a machine.
pub(crate) async fn order(client: &Client, text: &str) -> Result<OrderId> {
    if let Ok(id) = text.parse::<OrderId>() {
        let nodes: List<NodeView> = client.get(path::NODES).await?;
        let Some(node) = nodes.items.iter().find(|n| n.id.0 == id.0) else { return Ok(id) };
        return open_order(node);
    }
    open_order(&node(client, text).await?)
}

fn open_order(node: &NodeView) -> Result<OrderId> {
    match node.open_order {
        Some(order) => Ok(order),
        None => bail!("{} has no open order", node.name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use speediso_model::id::{Epoch, NodeId};
    use speediso_model::inventory::SystemVendor;
    use speediso_model::node::NodeState;

    fn view(n: u128, name: &str, serial: &str, mac: &str) -> NodeView {
        NodeView {
            id: NodeId(uuid::Uuid::from_u128(n)),
            name: name.into(),
            state: NodeState::Manageable,
            reason: None,
            protected: false,
            code: None,
            system: SystemVendor { serial_number: serial.into(), ..SystemVendor::default() },
            macs: vec![mac.into()],
            build: speediso_model::build::BuildInfo::default(),
            address: None,
            epoch: Epoch(1),
            online: true,
            last_seen: None,
            open_order: None,
            progress: Vec::new(),
        }
    }

    #[test]
    fn a_machine_is_found_by_any_of_its_names_or_not_at_all() {
        let nodes = || {
            vec![
                view(1, "web1", "S1", "52:54:00:00:00:01"),
                view(2, "web2", "S2", "52:54:00:00:00:02"),
                view(3, "S1", "S3", "52:54:00:00:00:03"),
                view(4, "a", "", "52:54:00:00:00:04"),
                view(5, "b", "dup", "52:54:00:00:00:05"),
                view(6, "c", "dup", "52:54:00:00:00:06"),
            ]
        };
        let found = |text: &str| choose(&nodes(), text).map(|n| n.name);
        assert_eq!(found("web1").expect("by name"), "web1");
        assert_eq!(found("s2").expect("by serial"), "web2");
        assert_eq!(found("52-54-00-00-00-02").expect("by MAC"), "web2");
        assert_eq!(found("S1").expect("a name wins"), "S1");
        assert_eq!(found("00000000-0000-0000-0000-000000000004").expect("by id"), "a");
        assert!(found("dup").expect_err("two").to_string().contains("several"));
        assert!(found("").is_err());
        assert!(found("nobody").expect_err("none").to_string().contains("web1"));
    }
}

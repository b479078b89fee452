//! The names under which Ironic's `parse_lldp` hook keeps the same facts.

use serde_json::{Map, Value, json};

use super::{Capability, Neighbour};

/// As in `plugin_data.parsed_lldp` of one interface.
#[must_use]
pub fn processed(neighbour: &Neighbour) -> Value {
    let mut map = Map::new();
    let mut put = |name: &str, value: Value| {
        map.insert(name.to_owned(), value);
    };
    put("switch_chassis_id", json!(neighbour.chassis.value));
    put("switch_port_id", json!(neighbour.port.value));
    let texts = [
        ("switch_port_description", &neighbour.port_description),
        ("switch_system_name", &neighbour.system_name),
        ("switch_system_description", &neighbour.system_description),
    ];
    for (name, text) in texts {
        if let Some(text) = text {
            put(name, json!(text));
        }
    }
    if let Some(capabilities) = &neighbour.capabilities {
        let names = |list: &[Capability]| list.iter().filter_map(|c| name(*c)).collect::<Vec<_>>();
        put("switch_capabilities_support", json!(names(&capabilities.supported)));
        put("switch_capabilities_enabled", json!(names(&capabilities.enabled)));
    }
    if !neighbour.management_addresses.is_empty() {
        put("switch_mgmt_addresses", json!(neighbour.management_addresses));
    }
    if let Some(vlan) = neighbour.port_vlan {
        put("switch_port_untagged_vlan_id", json!(vlan));
    }
    if !neighbour.vlans.is_empty() {
        put("switch_port_vlans", json!(neighbour.vlans));
    }
    if let Some(aggregation) = &neighbour.aggregation {
        put("switch_port_link_aggregation_support", json!(aggregation.capable));
        put("switch_port_link_aggregation_enabled", json!(aggregation.active));
        put("switch_port_link_aggregation_id", json!(aggregation.port));
    }
    if let Some(autonegotiation) = &neighbour.autonegotiation {
        put("switch_port_autonegotiation_support", json!(autonegotiation.supported));
        put("switch_port_autonegotiation_enabled", json!(autonegotiation.enabled));
    }
    if let Some(bytes) = neighbour.max_frame {
        put("switch_port_mtu", json!(bytes));
    }
    Value::Object(map)
}

fn name(capability: Capability) -> Option<&'static str> {
    Some(match capability {
        Capability::Other => "Other",
        Capability::Repeater => "Repeater",
        Capability::Bridge => "Bridge",
        Capability::WlanAccessPoint => "WLAN",
        Capability::Router => "Router",
        Capability::Telephone => "Telephone",
        Capability::DocsisCableDevice => "DOCSIS cable device",
        Capability::Station => "Station only",
        Capability::CustomerVlanComponent => "C-Vlan",
        Capability::ServiceVlanComponent => "S-Vlan",
        Capability::TwoPortMacRelay => "TPMR",
        Capability::Unknown => return None,
    })
}

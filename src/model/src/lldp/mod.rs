//! The link layer discovery protocol (IEEE 802.1AB-2016): what a switch says of itself to whoever is plugged into it,
//! and what we say.
//!
//! Frames come from anybody on the wire. The three TLVs that name a neighbour are read strictly: if one of them is wrong
//! the frame is nothing. An optional one that is wrong is left out and counted. A frame has at most 1500 bytes of them,
//! so nothing here grows beyond that.

mod frame;
mod ironic;
mod parse;

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::inventory::Interface;

pub use self::frame::{Announcement, MULTICAST};
pub use self::ironic::processed;
pub use self::parse::{BadFrame, parse};

/// The protocol's number on Ethernet.
pub const ETHERTYPE: u16 = 0x88cc;

/// Seconds between two announcements (`msgTxInterval`); who listens for one second longer has heard every neighbour.
pub const INTERVAL_SECONDS: u64 = 30;

/// Neighbours of one interface that are remembered: behind a switch that does not speak the protocol and floods its
/// frames there may be a whole rack.
pub const MOST_NEIGHBOURS: usize = 8;

/// Somebody at the other end of a cable.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Neighbour {
    pub chassis: Identifier,
    pub port: Identifier,
    /// Seconds for which this holds; 0 means that the neighbour takes it back.
    pub ttl_seconds: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port_description: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub system_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub system_description: Option<String>,
    /// What it is, and what of that is switched on; absent if it does not say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capabilities: Option<Capabilities>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub management_addresses: Vec<String>,
    /// The VLAN of frames without a tag; 0 if the port has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port_vlan: Option<u16>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub vlans: Vec<Vlan>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aggregation: Option<Aggregation>,
    /// Of a frame, in bytes, with its header and check sum (802.3).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_frame: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub autonegotiation: Option<Autonegotiation>,
    /// TLVs that were malformed, and left out.
    #[serde(skip_serializing_if = "is_zero")]
    pub discarded: u32,
}

fn is_zero(n: &u32) -> bool {
    *n == 0
}

/// A neighbour, and where it was heard.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Heard {
    pub interface: String,
    pub neighbour: Neighbour,
    /// Type and value in hex of each TLV, as they came.
    pub raw: Vec<(u8, String)>,
}

/// How a chassis or port is named, and its name. Which of them is unique is the neighbour's affair.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Identifier {
    pub kind: IdentifierKind,
    pub value: String,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum IdentifierKind {
    ChassisComponent,
    InterfaceAlias,
    PortComponent,
    Mac,
    /// An IP address, or in hex whatever else.
    NetworkAddress,
    InterfaceName,
    AgentCircuit,
    /// Of the maker's or operator's choice.
    #[default]
    #[serde(other)]
    Local,
}

impl fmt::Display for Identifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.value)
    }
}

#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Capabilities {
    pub supported: Vec<Capability>,
    pub enabled: Vec<Capability>,
}

/// Bits of the system capabilities (802.1AB-2016, table 8-4), in their order.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Capability {
    Other,
    Repeater,
    Bridge,
    WlanAccessPoint,
    Router,
    Telephone,
    DocsisCableDevice,
    Station,
    CustomerVlanComponent,
    ServiceVlanComponent,
    TwoPortMacRelay,
    #[serde(other)]
    Unknown,
}

impl Capability {
    const BITS: [Self; 11] = [
        Self::Other,
        Self::Repeater,
        Self::Bridge,
        Self::WlanAccessPoint,
        Self::Router,
        Self::Telephone,
        Self::DocsisCableDevice,
        Self::Station,
        Self::CustomerVlanComponent,
        Self::ServiceVlanComponent,
        Self::TwoPortMacRelay,
    ];

    fn of(bits: u16) -> Vec<Self> {
        Self::BITS.into_iter().enumerate().filter(|(bit, _)| bits >> bit & 1 != 0).map(|(_, c)| c).collect()
    }
}

#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Vlan {
    pub id: u16,
    pub name: String,
}

#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Aggregation {
    pub capable: bool,
    pub active: bool,
    /// Number of the aggregated port.
    pub port: u32,
}

#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Autonegotiation {
    pub supported: bool,
    pub enabled: bool,
    /// `ifMauType` of RFC 4836.
    pub mau_type: u16,
}

impl Neighbour {
    /// Whether it forwards what we send: a switch or router, and not another machine behind one that does not speak.
    /// Who says nothing about it is taken for a switch, as most that say nothing are.
    #[must_use]
    pub fn forwards(&self) -> bool {
        self.capabilities.as_ref().is_none_or(|c| {
            let forwarding = |c: &Capability| {
                !matches!(
                    c,
                    Capability::Station | Capability::Telephone | Capability::Other | Capability::DocsisCableDevice
                )
            };
            c.enabled.iter().any(forwarding)
        })
    }

    /// By what two machines know that they are plugged into the same switch: a line of at most 200 bytes.
    #[must_use]
    pub fn switch(&self) -> String {
        self.chassis.value.chars().take(50).collect()
    }

    /// For people: `leaf-12 port Ethernet7`.
    #[must_use]
    pub fn in_words(&self) -> String {
        let name = self.system_name.as_deref().filter(|n| !n.is_empty()).unwrap_or(&self.chassis.value);
        let mut words = format!("{name} port {}", self.port);
        if let Some(vlan) = self.port_vlan.filter(|v| *v != 0) {
            words.push_str(&format!(" vlan {vlan}"));
        }
        words
    }

    /// The same end of the same cable.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        self.chassis == other.chassis && self.port == other.port
    }
}

/// The one that the interface is plugged into, of all that were heard on it: the one that forwards, if there is just one
/// such.
#[must_use]
pub fn switch_of(neighbours: &[Neighbour]) -> Option<&Neighbour> {
    let mut forwarding = neighbours.iter().filter(|n| n.forwards());
    let first = forwarding.next()?;
    forwarding.next().is_none().then_some(first)
}

/// Puts what was heard to the interfaces it was heard on.
pub fn add_to(interfaces: &mut [Interface], heard: &[Heard]) {
    for interface in interfaces {
        let here: Vec<&Heard> = heard.iter().filter(|h| h.interface == interface.name).collect();
        interface.neighbours = here.iter().map(|h| h.neighbour.clone()).collect();
        let switch = switch_of(&interface.neighbours);
        // Ironic knows one neighbour only: the switch, or whoever is there.
        let told = here.iter().find(|h| Some(&h.neighbour) == switch).or(here.first());
        interface.lldp = told.map(|h| h.raw.clone());
    }
}

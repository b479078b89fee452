//! The states of a node and the only ways between them. Names are Ironic's where they mean the same.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::profile::Profile;

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum NodeState {
    /// Seen, waiting for a person or a rule to admit it.
    Pending,
    /// Admitted; its hardware is not known yet.
    Enroll,
    /// Admitted and inventoried.
    Manageable,
    /// Wiped and ready to be handed out.
    Available,
    /// An installing order is open.
    Deploying,
    /// Installed and handed over.
    Active,
    /// A wiping order is open.
    Cleaning,
    /// An order failed or was interrupted: a person looks at it.
    Maintenance,
    /// Two agents claimed it: nothing is handed out until a person releases it.
    Quarantined,
}

/// What moves a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NodeEvent {
    Approved,
    Inventoried,
    OrderOpened(Profile),
    OrderDone(Profile),
    OrderFailed,
    OrderCancelled,
    /// A second use of a token, or two agents with one identity.
    Clash,
    /// A person has looked and releases it.
    Released,
}

impl NodeState {
    pub const ALL: [Self; 9] = [
        Self::Pending,
        Self::Enroll,
        Self::Manageable,
        Self::Available,
        Self::Deploying,
        Self::Active,
        Self::Cleaning,
        Self::Maintenance,
        Self::Quarantined,
    ];

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Enroll => "enroll",
            Self::Manageable => "manageable",
            Self::Available => "available",
            Self::Deploying => "deploying",
            Self::Active => "active",
            Self::Cleaning => "cleaning",
            Self::Maintenance => "maintenance",
            Self::Quarantined => "quarantined",
        }
    }

    /// Whether an order may be given at all.
    #[must_use]
    pub fn takes_orders(self) -> bool {
        !matches!(self, Self::Pending | Self::Quarantined)
    }

    /// The state after `event`, or `None` where it has no place.
    #[must_use]
    pub fn after(self, event: NodeEvent) -> Option<Self> {
        use NodeEvent as E;
        use NodeState as S;
        match (self, event) {
            (_, E::Clash) => Some(S::Quarantined),
            (S::Quarantined | S::Maintenance, E::Released) => Some(S::Manageable),
            (S::Quarantined, _) => None,
            (S::Pending, E::Approved) => Some(S::Enroll),
            (S::Pending, _) | (_, E::Approved | E::Released) => None,
            (S::Enroll, E::Inventoried) => Some(S::Manageable),
            (state, E::Inventoried) => Some(state),
            (_, E::OrderOpened(Profile::Lininstall)) => Some(S::Deploying),
            (_, E::OrderOpened(Profile::Wipe | Profile::Decommission)) => Some(S::Cleaning),
            (state, E::OrderOpened(Profile::Inventory | Profile::BurnIn | Profile::Shell)) => Some(state),
            (S::Deploying, E::OrderDone(Profile::Lininstall)) => Some(S::Active),
            (S::Cleaning, E::OrderDone(Profile::Wipe)) => Some(S::Available),
            // Wiped for good, and not to be handed out to anybody.
            (S::Cleaning, E::OrderDone(Profile::Decommission)) => Some(S::Manageable),
            (state, E::OrderDone(_)) => Some(state),
            (_, E::OrderFailed) => Some(S::Maintenance),
            (S::Deploying | S::Cleaning, E::OrderCancelled) => Some(S::Manageable),
            (state, E::OrderCancelled) => Some(state),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transition_table() {
        use std::fmt::Write as _;
        let events = [
            ("approved", NodeEvent::Approved),
            ("inventoried", NodeEvent::Inventoried),
            ("lininstall opened", NodeEvent::OrderOpened(Profile::Lininstall)),
            ("wipe opened", NodeEvent::OrderOpened(Profile::Wipe)),
            ("inventory opened", NodeEvent::OrderOpened(Profile::Inventory)),
            ("lininstall done", NodeEvent::OrderDone(Profile::Lininstall)),
            ("wipe done", NodeEvent::OrderDone(Profile::Wipe)),
            ("decommission done", NodeEvent::OrderDone(Profile::Decommission)),
            ("inventory done", NodeEvent::OrderDone(Profile::Inventory)),
            ("order failed", NodeEvent::OrderFailed),
            ("order cancelled", NodeEvent::OrderCancelled),
            ("clash", NodeEvent::Clash),
            ("released", NodeEvent::Released),
        ];
        let mut table = String::new();
        for state in NodeState::ALL {
            for (name, event) in events {
                let to = state.after(event).map_or("-", NodeState::name);
                let _ = writeln!(table, "{:<12} {name:<18} {to}", state.name());
            }
        }
        insta::assert_snapshot!(table);
    }
}

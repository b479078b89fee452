//! What a disk says of itself as a self-encrypting one (TCG Storage).

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The answer to Level 0 Discovery.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Opal {
    /// It is no such disk.
    #[default]
    None,
    /// It may be one, and could not be asked; with the reason.
    Unread(String),
    Has(OpalAbilities),
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct OpalAbilities {
    pub class: SecurityClass,
    /// By what commands are addressed to it.
    pub com_id: u16,
    /// It encrypts everything at all times. Without that a revert destroys no key.
    pub encrypts: bool,
    /// Somebody has taken ownership and switched locking on.
    pub locking_enabled: bool,
    /// At least one range gives nobody its data now.
    pub locked: bool,
}

/// TCG's security subsystem classes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SecurityClass {
    Opal1,
    Opal2,
    Opalite,
    Ruby,
    /// Access control without encryption.
    Pyrite,
    Enterprise,
}

impl SecurityClass {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Opal1 => "TCG Opal 1",
            Self::Opal2 => "TCG Opal 2",
            Self::Opalite => "TCG Opalite",
            Self::Ruby => "TCG Ruby",
            Self::Pyrite => "TCG Pyrite",
            Self::Enterprise => "TCG Enterprise",
        }
    }
}

impl fmt::Display for OpalAbilities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let locking = match (self.locking_enabled, self.locked) {
            (_, true) => "locked",
            (true, false) => "somebody's password is set, open now",
            (false, false) => "nobody's",
        };
        let encryption = if self.encrypts { "" } else { ", without encryption" };
        write!(f, "{}{encryption}, {locking}", self.class.name())
    }
}

impl Opal {
    /// Whether nothing can be read or written before it is opened.
    #[must_use]
    pub fn is_locked(&self) -> bool {
        matches!(self, Self::Has(opal) if opal.locked)
    }

    /// Whether a revert by its PSID would make everything on it unreadable.
    pub(super) fn reverts(&self) -> Result<(), String> {
        match self {
            Self::None => Err("it is no self-encrypting disk (TCG Opal)".into()),
            Self::Unread(why) => Err(format!("whether it is a self-encrypting disk could not be asked: {why}")),
            Self::Has(opal) => match opal.class {
                SecurityClass::Enterprise => Err("this version does not speak with TCG Enterprise disks".into()),
                SecurityClass::Pyrite => Err("TCG Pyrite encrypts nothing: a revert would destroy no key".into()),
                _ if !opal.encrypts => Err("the disk says that it does not encrypt".into()),
                _ => Ok(()),
            },
        }
    }
}

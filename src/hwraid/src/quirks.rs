//! What is peculiar to models, drivers and versions, as data: `data/quirks.json`, each entry with its source.

use std::sync::LazyLock;

use serde::Deserialize;

use crate::tool::Adaptor;
use crate::{arcconf, mvcli, ssacli, storcli};

/// Raised whenever an entry changes, and reported with every result.
#[must_use]
pub fn version() -> u32 {
    DATA.version
}

static DATA: LazyLock<Quirks> = LazyLock::new(|| {
    serde_json::from_str(include_str!("../data/quirks.json")).expect("the file is part of the build and tested")
});

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Quirks {
    version: u32,
    tools: Vec<ToolFiles>,
    controllers: Vec<ControllerRule>,
    quirks: Vec<Quirk>,
}

/// A family of tools that speak alike.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    StorCli,
    SsaCli,
    ArcConf,
    MvCli,
}

impl Family {
    #[must_use]
    pub fn adaptor(self) -> &'static dyn Adaptor {
        match self {
            Self::StorCli => &storcli::StorCli,
            Self::SsaCli => &ssacli::SsaCli,
            Self::ArcConf => &arcconf::ArcConf,
            Self::MvCli => &mvcli::MvCli,
        }
    }

    /// Where the tool may be in the ramdisk.
    #[must_use]
    pub fn files(self) -> &'static ToolFiles {
        DATA.tools.iter().find(|t| t.family == self).expect("each family has its files, which is tested")
    }
}

#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ToolFiles {
    pub family: Family,
    /// Full paths, in the order in which they are looked for.
    pub paths: Vec<String>,
    /// What to add to the ramdisk, in words.
    pub comes_from: String,
    source: String,
}

/// A PCI function, as the kernel shows it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct PciFunction {
    /// `0000:3b:00.0`
    pub address: String,
    pub vendor: u16,
    pub device: u16,
    pub subsystem_vendor: u16,
    pub driver: Option<String>,
}

#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ControllerRule {
    /// None: it is a RAID controller, and this version has no adaptor for it.
    pub family: Option<Family>,
    pub name: String,
    driver: Option<String>,
    /// Four hexadecimal digits each.
    vendor: Option<String>,
    #[serde(default)]
    devices: Vec<String>,
    #[serde(default)]
    subsystem_vendors: Vec<String>,
    source: String,
}

impl ControllerRule {
    fn is_it(&self, function: &PciFunction) -> bool {
        let hex = |text: &String, value: u16| u16::from_str_radix(text, 16) == Ok(value);
        // The driver may be missing, or not loaded; then the ids tell.
        let driver = match (&self.driver, &function.driver) {
            (Some(wanted), Some(found)) => Some(wanted == found),
            _ => None,
        };
        let vendor = self.vendor.as_ref().is_none_or(|v| hex(v, function.vendor));
        let device = self.devices.is_empty() || self.devices.iter().any(|d| hex(d, function.device));
        let subsystem = self.subsystem_vendors.is_empty()
            || self.subsystem_vendors.iter().any(|v| hex(v, function.subsystem_vendor));
        match driver {
            Some(false) => false,
            // A driver of RAID controllers only is told by nothing else but who sells the card.
            Some(true) => vendor && subsystem && (self.devices.is_empty() || device),
            None => self.vendor.is_some() && !self.devices.is_empty() && vendor && device && subsystem,
        }
    }
}

/// What controller that is, if it is one.
#[must_use]
pub fn recognise(function: &PciFunction) -> Option<&'static ControllerRule> {
    DATA.controllers.iter().find(|rule| rule.is_it(function))
}

/// What an adaptor does because a tool is as it is; for the docs and for whoever changes the adaptor.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quirk {
    pub id: String,
    pub family: Family,
    /// Models or versions it was seen with, in words.
    pub applies_to: String,
    pub says: String,
    pub source: String,
}

#[must_use]
pub fn all() -> &'static [Quirk] {
    &DATA.quirks
}

#[cfg(test)]
mod tests;

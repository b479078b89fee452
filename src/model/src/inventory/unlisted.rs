//! Lists that could not be read at all. Whoever compares inventories must know that from "there is none".

use super::Inventory;

/// Begins a line of [`Inventory::unread`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Unlisted(&'static str);

pub const DISKS: Unlisted = Unlisted("disks could not be listed");
pub const INTERFACES: Unlisted = Unlisted("network interfaces could not be listed");

impl Unlisted {
    #[must_use]
    pub fn because(self, why: impl std::fmt::Display) -> String {
        format!("{}: {why}", self.0)
    }

    #[must_use]
    pub fn applies_to(self, inventory: &Inventory) -> bool {
        inventory.unread.iter().any(|line| line.starts_with(self.0))
    }
}

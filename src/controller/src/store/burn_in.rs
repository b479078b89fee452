//! What the store keeps of burn-ins.

use speediso_model::burn_in::BurnInReport;
use speediso_model::burn_in::pairing::Waiting;
use speediso_model::id::{NodeId, RunId};

use super::{Fut, Millis};

/// A report with what it is found by.
#[derive(Clone, PartialEq, Debug)]
pub struct StoredBurnIn {
    pub run: RunId,
    pub node: NodeId,
    /// Of the machine when it ended.
    pub maker: String,
    pub product: String,
    pub ended: Millis,
    pub report: BurnInReport,
}

/// The part of a transaction that is about burn-ins.
pub trait BurnInTransaction: Send {
    /// The same run again changes nothing.
    fn put_burn_in<'a>(&'a mut self, stored: &'a StoredBurnIn) -> Fut<'a, ()>;
    /// Newest first.
    fn burn_ins(&mut self, node: NodeId, limit: u32) -> Fut<'_, Vec<StoredBurnIn>>;
    /// The newest of every other machine of this model, newest first.
    fn burn_ins_of_model<'a>(
        &'a mut self,
        maker: &'a str,
        product: &'a str,
        but: NodeId,
        limit: u32,
    ) -> Fut<'a, Vec<StoredBurnIn>>;

    /// When a run ended.
    fn run_ended(&mut self, run: RunId) -> Fut<'_, Option<Millis>>;

    /// Machines that wait for a partner, or were given one a moment ago.
    fn pairing(&mut self) -> Fut<'_, Vec<Waiting>>;
    /// Also forgets those that have fallen silent.
    fn put_pairing<'a>(&'a mut self, waiting: &'a Waiting) -> Fut<'a, ()>;
}

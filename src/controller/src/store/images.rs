//! What the store keeps of images, and of who boots into what.

use speediso_model::api::{Rule, RuleRequest};
use speediso_model::id::NodeId;
use speediso_model::share::group::Member;

use super::{Fut, Image};

/// The part of a transaction that is about images, who shares them, and rules.
pub trait ImageTransaction: Send {
    fn image<'a>(&'a mut self, name: &'a str) -> Fut<'a, Option<Image>>;
    fn images(&mut self) -> Fut<'_, Vec<Image>>;
    fn put_image<'a>(&'a mut self, image: &'a Image) -> Fut<'a, ()>;
    fn rules(&mut self) -> Fut<'_, Vec<Rule>>;
    fn put_rule<'a>(&'a mut self, rule: &'a RuleRequest) -> Fut<'a, Rule>;
    fn drop_rule(&mut self, id: i64) -> Fut<'_, bool>;
    /// Who writes or gives this image, or takes anything else from this server, as far as it has spoken lately: those that
    /// spoke last, if they are many.
    fn sharing<'a>(&'a mut self, manifest: &'a str, origin: &'a str) -> Fut<'a, Vec<Member>>;
    /// Also forgets those that have fallen silent.
    fn put_sharing<'a>(&'a mut self, member: &'a Member) -> Fut<'a, ()>;
    fn drop_sharing<'a>(&'a mut self, manifest: &'a str, node: NodeId) -> Fut<'a, ()>;
}

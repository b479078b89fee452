//! What the store keeps of machines: who they are, their boots, and what lets them in.

use speediso_model::id::{Epoch, NodeId};
use speediso_model::inventory::Inventory;

use super::{Fut, Identity, Millis, Node, Session, Token};

/// The part of a transaction that is about machines.
pub trait NodeTransaction: Send {
    fn node(&mut self, id: NodeId) -> Fut<'_, Option<Node>>;
    fn node_named<'a>(&'a mut self, name: &'a str) -> Fut<'a, Option<NodeId>>;
    fn nodes(&mut self) -> Fut<'_, Vec<Node>>;
    /// Nodes that have any of these, each once.
    fn nodes_with<'a>(&'a mut self, identity: &'a [Identity]) -> Fut<'a, Vec<Node>>;
    fn put_node<'a>(&'a mut self, node: &'a Node) -> Fut<'a, ()>;
    fn inventory(&mut self, node: NodeId) -> Fut<'_, Option<Inventory>>;
    fn put_inventory<'a>(&'a mut self, node: NodeId, inventory: &'a Inventory) -> Fut<'a, ()>;
    fn session(&mut self, node: NodeId, epoch: Epoch) -> Fut<'_, Option<Session>>;
    fn put_session<'a>(&'a mut self, session: &'a Session) -> Fut<'a, ()>;
    fn certificate<'a>(&'a mut self, serial: &'a str) -> Fut<'a, Option<(NodeId, Epoch)>>;
    fn put_certificate<'a>(&'a mut self, serial: &'a str, node: NodeId, epoch: Epoch) -> Fut<'a, ()>;
    /// Nodes whose lease ended unnoticed, or whose silence lasts longer than `silence`.
    fn lapsed(&mut self, silence: Millis) -> Fut<'_, Vec<NodeId>>;
    fn token<'a>(&'a mut self, sha256: &'a str) -> Fut<'a, Option<Token>>;
    fn put_token<'a>(&'a mut self, token: &'a Token) -> Fut<'a, ()>;
    /// Forgets the node's tokens that nobody used. Used ones are kept, to recognise a second use.
    fn drop_unused_tokens(&mut self, node: NodeId) -> Fut<'_, ()>;
}

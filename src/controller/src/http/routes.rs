//! The one table of routes: the router, the guards and the OpenAPI document are made from it.

use std::time::Duration;

use axum::Json;
use axum::extract::{DefaultBodyLimit, Request};
use axum::http::{Method, StatusCode};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{MethodRouter, delete, get, post, put};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::Value;
use speediso_model::api::{
    Admission, Alert, ApproveRequest, CreateNodeRequest, EndAnswer, EndRequest, EnrolAnswer, EnrolRequest,
    EventsAnswer, EventsQuery, EventsRequest, HeartbeatRequest, ImageView, InventoryReport, Lease, List, NextAnswer,
    NextQuery, NodeView, OrderRequest, OrderView, ProtectRequest, RenewRequest, Rule, RuleRequest, StartRequest,
    StoredEvent, TimeAnswer, TimeQuery, path,
};
use speediso_model::burn_in::pairing::{PairAnswer, PairRequest};
use speediso_model::burn_in::partner::{LinkAnswer, LinkRequest};
use speediso_model::burn_in::site::{BurnInView, BurnInsQuery};
use speediso_model::certificate::machine::KnownDisk;
use speediso_model::certificate::site::{
    CertificatePolicy, CertificateView, CertificatesQuery, DiskGoneRequest, SiteKeyView,
};
use speediso_model::fault::FaultCode;
use speediso_model::inventory::Inventory;
use speediso_model::inventory::compare::SeenChanges;
use speediso_model::log::{LogBoot, LogsQuery, LogsRequest, StoredLine};
use speediso_model::order::Order;
use speediso_model::share::{ShareAnswer, ShareRequest};
use speediso_model::ssh::{SessionAnswer, SessionPiece, SessionView, SshAccessRequest, SshReport, SshView};

use super::auth::{Audience, gate};
use super::{ApiError, AppState, agent, captures, certificates, images, openapi, operator, ssh};

const KIB: usize = 1024;

/// Longer than the longest long poll.
const TIME_LIMIT: Duration = Duration::from_secs(60);

type SchemaOf = fn(&mut SchemaGenerator) -> Schema;

fn schema<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<T>()
}

pub(super) struct Route {
    pub(super) method: Method,
    pub(super) path: &'static str,
    pub(super) audience: Audience,
    pub(super) summary: &'static str,
    pub(super) query: Option<SchemaOf>,
    pub(super) body: Option<SchemaOf>,
    pub(super) answer: Option<SchemaOf>,
    /// Largest body; `None` for a stream that the handler bounds itself.
    max_body: Option<usize>,
    handler: MethodRouter<AppState>,
}

impl Route {
    fn new(
        method: Method,
        path: &'static str,
        audience: Audience,
        summary: &'static str,
        handler: MethodRouter<AppState>,
    ) -> Self {
        Self {
            method,
            path,
            audience,
            summary,
            query: None,
            body: None,
            answer: None,
            max_body: Some(256 * KIB),
            handler,
        }
    }

    fn query<T: JsonSchema>(mut self) -> Self {
        self.query = Some(schema::<T>);
        self
    }

    fn body<T: JsonSchema>(mut self) -> Self {
        self.body = Some(schema::<T>);
        self
    }

    fn answer<T: JsonSchema>(mut self) -> Self {
        self.answer = Some(schema::<T>);
        self
    }

    fn up_to(mut self, bytes: usize) -> Self {
        self.max_body = Some(bytes);
        self
    }

    fn streamed(mut self) -> Self {
        self.max_body = None;
        self
    }

    /// The handler behind its limits and its guard. The guard is outermost: who may not, costs nothing.
    pub(super) fn guarded(self, state: &AppState) -> MethodRouter<AppState> {
        let handler = match self.max_body {
            Some(bytes) => self.handler.layer(DefaultBodyLimit::max(bytes)).layer(from_fn(in_time)),
            None => self.handler.layer(DefaultBodyLimit::disable()),
        };
        handler.layer(from_fn_with_state((state.clone(), self.audience), gate))
    }
}

async fn in_time(request: Request, next: Next) -> Response {
    match tokio::time::timeout(TIME_LIMIT, next.run(request)).await {
        Ok(response) => response,
        Err(_) => ApiError::new(StatusCode::SERVICE_UNAVAILABLE, FaultCode::TimedOut, "the request took too long")
            .into_response(),
    }
}

async fn openapi_json() -> Json<Value> {
    Json(openapi::document())
}

/// Methods of one path follow one another.
#[rustfmt::skip]
pub(super) fn all() -> Vec<Route> {
    use Audience::{Agent, AgentOrOperator, AnyAgent, Anyone, Operator};
    let (g, p, u, d) = (Method::GET, Method::POST, Method::PUT, Method::DELETE);
    let (g, p, u, d) = (|| g.clone(), || p.clone(), || u.clone(), || d.clone());
    vec![
        Route::new(g(), path::TIME, Anyone, "the controller's time, signed", get(agent::time)).query::<TimeQuery>().answer::<TimeAnswer>(),
        Route::new(p(), path::ENROL, Anyone, "ask to be admitted, with a one-time token or to wait for approval", post(agent::enrol)).body::<EnrolRequest>().answer::<EnrolAnswer>(),
        Route::new(p(), path::RENEW, Agent, "a new certificate for the same boot and key", post(agent::renew)).body::<RenewRequest>().answer::<Admission>(),
        Route::new(u(), path::INVENTORY, Agent, "store what the machine has", put(agent::inventory)).body::<InventoryReport>().answer::<Lease>().up_to(4096 * KIB),
        Route::new(g(), path::NEXT, Agent, "wait for the next task", get(agent::next)).query::<NextQuery>().answer::<NextAnswer>(),
        Route::new(p(), path::HEARTBEAT, Agent, "a sign of life", post(agent::heartbeat)).body::<HeartbeatRequest>().answer::<Lease>(),
        Route::new(p(), path::EVENTS, AnyAgent, "deliver events and progress", post(agent::events)).body::<EventsRequest>().answer::<EventsAnswer>().up_to(4096 * KIB),
        Route::new(p(), path::LOGS, Agent, "lines of the agent's and the kernel's log", post(agent::logs)).body::<LogsRequest>().answer::<Lease>().up_to(2048 * KIB),
        Route::new(p(), path::SHARE, Agent, "what this machine holds of the image it writes; answered with peers and a ticket", post(agent::share)).body::<ShareRequest>().answer::<ShareAnswer>(),
        Route::new(p(), path::PAIR, Agent, "wait for another machine to try the link with", post(agent::pair)).body::<PairRequest>().answer::<PairAnswer>(),
        Route::new(p(), path::LINK, Agent, "try the link with the controller, where its policy allows that", post(agent::link)).body::<LinkRequest>().answer::<LinkAnswer>(),
        Route::new(p(), path::SSH_REPORT, Agent, "which wish about the machine's ssh is in force", post(ssh::report)).body::<SshReport>().answer::<Lease>(),
        Route::new(p(), path::SSH_PIECE, Agent, "part of the recording of an ssh session", post(ssh::piece)).body::<SessionPiece>().answer::<SessionAnswer>(),
        Route::new(g(), path::SSH_TUNNEL, Agent, "the agent's end of a tunnel; becomes a stream", get(ssh::bring)),
        Route::new(p(), path::START, Agent, "permission to begin, stored before it is answered", post(agent::start)).body::<StartRequest>().answer::<Lease>().up_to(1024 * KIB),
        Route::new(p(), path::END, AnyAgent, "the end of a run", post(agent::end)).body::<EndRequest>().answer::<EndAnswer>().up_to(4096 * KIB),
        Route::new(u(), path::CAPTURE_DATA, Agent, "the data of an image that a run was ordered to make", put(captures::data)).answer::<ImageView>().streamed(),
        Route::new(u(), path::CAPTURE_INDEX, Agent, "its index", put(captures::index)).answer::<ImageView>().streamed(),
        Route::new(u(), path::CAPTURE_MANIFEST, Agent, "its manifest, which puts it into the store", put(captures::manifest)).answer::<ImageView>().streamed(),

        Route::new(g(), path::NODES, Operator, "all machines", get(operator::nodes)).answer::<List<NodeView>>(),
        Route::new(p(), path::NODES, Operator, "record a machine that was not seen yet", post(operator::create_node)).body::<CreateNodeRequest>().answer::<NodeView>(),
        Route::new(g(), path::NODE, Operator, "one machine", get(operator::node)).answer::<NodeView>(),
        Route::new(g(), path::NODE_INVENTORY, Operator, "what the machine has, or null", get(operator::node_inventory)).answer::<Option<Inventory>>(),
        Route::new(g(), path::NODE_CHANGES, Operator, "what its inventories showed against those before them, newest first", get(operator::node_changes)).answer::<List<SeenChanges>>(),
        Route::new(g(), path::NODE_BURN_INS, Operator, "reports of the machine's burn-ins, newest first, beside others of its model", get(operator::node_burn_ins)).query::<BurnInsQuery>().answer::<List<BurnInView>>(),
        Route::new(p(), path::NODE_APPROVE, Operator, "admit the agent that shows this code", post(operator::approve)).body::<ApproveRequest>().answer::<NodeView>(),
        Route::new(p(), path::NODE_PROTECT, Operator, "refuse destructive orders, or no longer", post(operator::protect)).body::<ProtectRequest>().answer::<NodeView>(),
        Route::new(p(), path::NODE_RELEASE, Operator, "end a quarantine or maintenance", post(operator::release)).answer::<NodeView>(),
        Route::new(p(), path::NODE_ARM, Operator, "let the next network boot lead into the ramdisk", post(operator::arm)).answer::<NodeView>(),
        Route::new(p(), path::NODE_ORDERS, Operator, "give a one-time order", post(operator::node_order)).body::<OrderRequest>().answer::<OrderView>().up_to(2048 * KIB),
        Route::new(g(), path::NODE_LOGS, Operator, "lines of the machine's log after a cursor; waits for new ones", get(operator::node_log)).query::<LogsQuery>().answer::<List<StoredLine>>(),
        Route::new(g(), path::NODE_LOG_BOOTS, Operator, "boots of which lines are kept, newest first", get(operator::node_log_boots)).answer::<List<LogBoot>>(),
        Route::new(g(), path::NODE_SSH, Operator, "how the machine's live system is reached by ssh, and its host key", get(ssh::view)).answer::<SshView>(),
        Route::new(p(), path::NODE_SSH, Operator, "open its ssh for a while, with a key for that time if one is given", post(ssh::allow)).body::<SshAccessRequest>().answer::<SshView>(),
        Route::new(g(), path::NODE_SSH_SESSIONS, Operator, "who was in the machine's live systems, newest first", get(ssh::sessions)).answer::<List<SessionView>>(),
        Route::new(g(), path::NODE_SSH_TUNNEL, Operator, "a tunnel to its ssh that the agent opens; becomes a stream", get(ssh::ask)),
        Route::new(g(), path::SSH_CAST, Operator, "the recording of a session, for asciinema", get(ssh::cast)),
        Route::new(g(), path::ORDERS, Operator, "the newest orders", get(operator::orders)).answer::<List<Order>>(),
        Route::new(g(), path::ORDER, Operator, "one order with its progress", get(operator::order)).answer::<OrderView>(),
        Route::new(p(), path::ORDER_CANCEL, Operator, "cancel; what runs is asked to stop", post(operator::cancel)).answer::<OrderView>(),
        Route::new(p(), path::ORDER_RETRY, Operator, "try an interrupted task again", post(operator::retry)).answer::<OrderView>(),
        Route::new(g(), path::STORED_EVENTS, Operator, "events after a cursor; waits for new ones", get(operator::events)).query::<EventsQuery>().answer::<List<StoredEvent>>(),
        Route::new(g(), path::ALERTS, Operator, "what a person should look at, newest first", get(operator::alerts)).answer::<List<Alert>>(),
        Route::new(g(), path::RULES, Operator, "rules that admit machines", get(operator::rules)).answer::<List<Rule>>(),
        Route::new(p(), path::RULES, Operator, "add a rule", post(operator::add_rule)).body::<RuleRequest>().answer::<Rule>(),
        Route::new(d(), path::RULE, Operator, "remove a rule", delete(operator::remove_rule)),
        Route::new(g(), path::IMAGES, Operator, "images in the store", get(images::list)).answer::<List<ImageView>>(),
        Route::new(u(), path::IMAGE, Operator, "store an image; the body is its bytes", put(images::store)).answer::<ImageView>().streamed(),
        Route::new(g(), path::IMAGE, AgentOrOperator, "an image's bytes, whole or by range", get(images::fetch)),
        Route::new(g(), path::CERTIFICATES, Operator, "certificates of sanitization, newest first", get(certificates::list)).query::<CertificatesQuery>().answer::<List<CertificateView>>(),
        Route::new(g(), path::CERTIFICATE_CHAIN, Operator, "all certificates in order, one document a line", get(certificates::chain)).streamed(),
        Route::new(g(), path::CERTIFICATE_KEYS, Operator, "public keys that certificates are, or were, signed with", get(certificates::keys)).answer::<List<SiteKeyView>>(),
        Route::new(p(), path::CERTIFICATE_KEYS, Operator, "sign with a new key from now on", post(certificates::rotate)).answer::<SiteKeyView>(),
        Route::new(g(), path::CERTIFICATE_POLICY, Operator, "what the site decided about its certificates", get(certificates::policy)).answer::<CertificatePolicy>(),
        Route::new(u(), path::CERTIFICATE_POLICY, Operator, "decide it anew", put(certificates::set_policy)).body::<CertificatePolicy>().answer::<CertificatePolicy>(),
        Route::new(g(), path::CERTIFICATE, Operator, "one certificate: the document as it was signed, every byte", get(certificates::document)),
        Route::new(g(), path::CERTIFICATE_PAGE, Operator, "the same to be printed", get(certificates::page)),
        Route::new(p(), path::ORDER_CERTIFICATE, Operator, "certify the whole machine, or say which disk lacks a certificate", post(certificates::machine)).answer::<CertificateView>(),
        Route::new(g(), path::NODE_DISKS, Operator, "every disk that was ever seen in the machine", get(certificates::disks)).answer::<List<KnownDisk>>(),
        Route::new(p(), path::NODE_DISK_GONE, Operator, "say where a disk is that is not in the machine any more", post(certificates::disk_gone)).body::<DiskGoneRequest>().answer::<List<KnownDisk>>(),
        Route::new(g(), path::OPENAPI, Operator, "this document", get(openapi_json)),
    ]
}

//! Letting machines in.

use serde_json::Value;
use speediso_model::api::{Admission, EnrolAnswer, EnrolRequest, RuleRequest};
use speediso_model::fault::{Fault, FaultCode};
use speediso_model::id::Epoch;
use speediso_model::inventory::{SystemVendor, canonical_mac, is_real_identifier};
use speediso_model::node::NodeState;
use speediso_model::task::is_ssh_public_key;

use super::{Failure, Loaded, Result, Service, load, save};
use crate::ca::AgentKey;
use crate::machine::{CONTROLLER, Effects, LEASE, Machine, Said};
use crate::store::record::{WaitingKey, identity_of};
use crate::store::{Node, Transaction};

/// How soon a waiting agent asks again.
const RETRY_MS: u64 = 3_000;

/// Most MAC addresses of one machine that are taken.
const MAX_MACS: usize = 64;

impl Service {
    /// # Errors
    /// When the machine is not admitted and may not wait either.
    pub async fn enrol(&self, mut request: EnrolRequest) -> Result<EnrolAnswer> {
        let key = AgentKey::from_csr(&request.csr).map_err(|e| Fault::from_error(FaultCode::ProtocolError, &e))?;
        request.macs = request.macs.iter().filter_map(|m| canonical_mac(m)).take(MAX_MACS).collect();
        shorten(&mut request);
        match request.token.take() {
            Some(token) => self.enrol_by_token(&token, &request, &key).await,
            None => self.enrol_without_token(&request, &key).await,
        }
    }

    async fn enrol_by_token(&self, token: &str, request: &EnrolRequest, key: &AgentKey) -> Result<EnrolAnswer> {
        // The same words for every token that is no good: whoever guesses learns nothing.
        let refused = || {
            Failure::Refused(Fault::new(
                FaultCode::TokenRefused,
                "the enrolment token is unknown, expired, replaced by a newer boot script, or another machine's",
            ))
        };
        let mut tx = self.store.write().await?;
        let mut token = tx.token(&crate::token::hash(token)).await?.ok_or_else(refused)?;
        let mut machine = load(&mut *tx, token.node).await?;
        let mut fx = Effects::default();
        if let Some(used_by) = &token.used_by {
            let known = machine.now.session.as_ref().filter(|s| s.key == key.digest && !s.revoked);
            if *used_by == key.digest {
                // Its answer was lost.
                let Some(session) = known else { return Err(refused()) };
                let epoch = session.epoch;
                let certificate = session.certificate.clone();
                return Ok(EnrolAnswer::Admitted(self.admission(&machine.now, epoch, certificate)));
            }
            let fault = machine.now.clash("an enrolment token was presented again, with another key", &mut fx);
            save(&mut *tx, &machine, &fx).await?;
            self.commit(tx).await?;
            return Err(fault.into());
        }
        if token.expires <= tx.now() {
            return Err(refused());
        }
        if machine.now.node.state == NodeState::Quarantined {
            return Err(quarantined(&machine.now.node).into());
        }
        let claims = identity_of(&request.system, &request.macs);
        let known = machine.now.node.identity();
        if !known.is_empty() && !known.iter().any(|k| claims.contains(k)) {
            let fault = Fault::new(
                FaultCode::TokenRefused,
                format!(
                    "the token of {} was presented by a machine with none of its identifiers ({})",
                    machine.now.node.name,
                    request.macs.join(", ")
                ),
            );
            tx.put_alert(&format!("strange-token:{}", token.sha256), Some(token.node), &fault).await?;
            self.commit(tx).await?;
            return Err(refused());
        }
        token.used_by = Some(key.digest.clone());
        tx.put_token(&token).await?;
        let admission = self.admit(&mut *tx, &mut machine, request, key, fx).await?;
        self.commit(tx).await?;
        Ok(EnrolAnswer::Admitted(admission))
    }

    async fn enrol_without_token(&self, request: &EnrolRequest, key: &AgentKey) -> Result<EnrolAnswer> {
        let claims = identity_of(&request.system, &request.macs);
        if claims.is_empty() {
            return Err(Fault::new(
                FaultCode::ProtocolError,
                "the machine names nothing to know it by: no MAC address, UUID or serial number",
            )
            .into());
        }
        let mut tx = self.store.write().await?;
        let found = tx.nodes_with(&claims).await?;
        let mut fx = Effects::default();
        let mut machine = match found.as_slice() {
            [] => {
                let node = new_node(&mut *tx, request).await?;
                // Stored first: what follows refers to it.
                tx.put_node(&node).await?;
                load(&mut *tx, node.id).await?
            }
            [one] => load(&mut *tx, one.id).await?,
            several => {
                let names = several.iter().map(|n| n.name.as_str()).collect::<Vec<_>>().join(", ");
                let fault = Fault::new(
                    FaultCode::IdentityClash,
                    format!("one machine has identifiers of several nodes ({names}); none of them was changed"),
                );
                tx.put_alert(&format!("ambiguous:{names}"), None, &fault).await?;
                self.commit(tx).await?;
                return Err(fault.into());
            }
        };
        if machine.now.node.state == NodeState::Quarantined {
            return Err(quarantined(&machine.now.node).into());
        }
        if let Some(session) = machine.now.session.as_ref().filter(|s| !s.revoked) {
            if session.key == key.digest {
                let (epoch, certificate) = (session.epoch, session.certificate.clone());
                return Ok(EnrolAnswer::Admitted(self.admission(&machine.now, epoch, certificate)));
            }
            if machine.now.is_online() && session.boot_id != request.boot_id {
                let fault = machine.now.clash("a second agent claimed a machine whose own agent is at work", &mut fx);
                save(&mut *tx, &machine, &fx).await?;
                self.commit(tx).await?;
                return Err(fault.into());
            }
        }
        let approved = machine.now.node.approved.as_deref() == Some(key.digest.as_str());
        let ruled_in = !approved && !machine.now.has_open_order() && {
            let rules = tx.rules().await?;
            rules.iter().any(|r| rule_fits(&r.rule, request))
        };
        if approved || ruled_in {
            if ruled_in {
                let text = format!("{}: a rule admits it", machine.now.node.name);
                fx.events.push(Said { by: CONTROLLER.to_owned(), order: None, text, detail: Value::Null });
            }
            let admission = self.admit(&mut *tx, &mut machine, request, key, fx).await?;
            self.commit(tx).await?;
            return Ok(EnrolAnswer::Admitted(admission));
        }
        if machine.now.node.state == NodeState::Pending {
            describe(&mut *tx, &mut machine.now, request.system.clone(), request.macs.clone()).await?;
            machine.now.node.build = request.build.clone();
        }
        let waiting = WaitingKey {
            key: key.digest.clone(),
            code: key.code.clone(),
            seen: tx.now(),
            build: request.build.clone(),
        };
        machine.now.wait_for_approval(waiting, &mut fx);
        save(&mut *tx, &machine, &fx).await?;
        self.commit(tx).await?;
        Ok(EnrolAnswer::Pending { node: machine.now.node.id, code: key.code.clone(), retry_ms: RETRY_MS })
    }

    async fn admit(
        &self,
        tx: &mut dyn Transaction,
        machine: &mut Loaded,
        request: &EnrolRequest,
        key: &AgentKey,
        mut fx: Effects,
    ) -> Result<Admission> {
        describe(tx, &mut machine.now, request.system.clone(), request.macs.clone()).await?;
        machine.now.node.build = request.build.clone();
        let epoch = machine.now.admit(request.boot_id, key.digest.clone(), &mut fx);
        machine.now.ssh_of_new_boot(request.ssh_host_key.clone().filter(|key| is_ssh_public_key(key)));
        let issued = self.ca.client(key, machine.now.node.id, tx.now())?;
        if let Some(session) = &mut machine.now.session {
            session.certificate.clone_from(&issued.pem);
            session.address = request.address.clone().filter(|a| a.parse::<std::net::IpAddr>().is_ok());
        }
        save(tx, machine, &fx).await?;
        tx.put_certificate(&issued.serial, machine.now.node.id, epoch).await?;
        Ok(self.admission(&machine.now, epoch, issued.pem))
    }

    pub(super) fn admission(&self, machine: &Machine, epoch: Epoch, certificate: String) -> Admission {
        Admission {
            node: machine.node.id,
            name: machine.node.name.clone(),
            certificate,
            epoch,
            lease_ms: u64::try_from(LEASE).unwrap_or(0),
            ssh_keys: self.site.ssh_keys.clone(),
            ssh: self.site.ssh,
            idle_reboot_s: self.site.idle_reboot.map(|d| d.as_secs()),
        }
    }
}

/// Takes over what the machine says of itself now, unless it names what identifies another node: then what was known
/// stays, and a person is told.
pub(super) async fn describe(
    tx: &mut dyn Transaction,
    machine: &mut Machine,
    system: SystemVendor,
    macs: Vec<String>,
) -> Result<()> {
    let others = tx.nodes_with(&identity_of(&system, &macs)).await?;
    if let Some(other) = others.iter().find(|n| n.id != machine.node.id) {
        let fault = Fault::new(
            FaultCode::IdentityClash,
            format!("{} names an identifier of {}; what was known of both is kept", machine.node.name, other.name),
        );
        tx.put_alert(&format!("claims:{}:{}", machine.node.id, other.id), Some(machine.node.id), &fault).await?;
        return Ok(());
    }
    machine.describe(system, macs);
    Ok(())
}

fn quarantined(node: &Node) -> Fault {
    let why = node.reason.as_deref().unwrap_or("two agents claimed it");
    Fault::new(FaultCode::IdentityClash, format!("{} is quarantined: {why}", node.name))
}

/// What strangers send is kept short.
fn shorten(request: &mut EnrolRequest) {
    let system = &mut request.system;
    for text in [
        &mut system.manufacturer,
        &mut system.product_name,
        &mut system.serial_number,
        &mut system.board_serial,
        &mut system.chassis_serial,
        &mut system.asset_tag,
        &mut system.firmware.vendor,
        &mut system.firmware.version,
        &mut system.firmware.build_date,
        &mut request.build.version,
        &mut request.build.kernel,
    ] {
        clean(text);
    }
    if let Some(uuid) = &mut system.uuid {
        clean(uuid);
    }
}

fn clean(text: &mut String) {
    *text = text.chars().filter(|c| !c.is_control()).take(128).collect();
}

/// A node for a machine that was never seen, named by its serial number or MAC address.
async fn new_node(tx: &mut dyn Transaction, request: &EnrolRequest) -> Result<Node> {
    let serial = &request.system.serial_number;
    let from = if is_real_identifier(serial) { serial } else { request.macs.first().unwrap_or(serial) };
    let mut name: String =
        from.to_ascii_lowercase().chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).take(48).collect();
    name = name.trim_matches('-').to_owned();
    let mut macs = request.macs.clone();
    macs.sort();
    macs.dedup();
    let mut node = Node::new(name, NodeState::Pending, request.system.clone(), macs);
    if node.name.is_empty() || tx.node_named(&node.name).await?.is_some() {
        node.name = format!("{}-{}", node.name, &node.id.to_string()[..8]).trim_matches('-').to_owned();
    }
    Ok(node)
}

/// Every property the rule names must fit; one that names none fits nothing.
fn rule_fits(rule: &RuleRequest, request: &EnrolRequest) -> bool {
    let mut named = 0;
    let mut all = true;
    let mut check = |wanted: &Option<String>, fits: &dyn Fn(&str) -> bool| {
        if let Some(wanted) = wanted {
            named += 1;
            all &= fits(wanted);
        }
    };
    let system = &request.system;
    check(&rule.manufacturer, &|w| system.manufacturer.eq_ignore_ascii_case(w));
    check(&rule.product_name, &|w| system.product_name.eq_ignore_ascii_case(w));
    check(&rule.serial_prefix, &|w| !w.is_empty() && system.serial_number.starts_with(w));
    check(&rule.mac_prefix, &|w| {
        let w = w.to_ascii_lowercase().replace('-', ":");
        !w.is_empty() && request.macs.iter().any(|m| m.starts_with(&w))
    });
    named > 0 && all
}

/// What a rule must be to be taken.
pub(super) fn check_rule(rule: &RuleRequest) -> std::result::Result<(), Fault> {
    let given = [&rule.manufacturer, &rule.product_name, &rule.serial_prefix, &rule.mac_prefix];
    if given.iter().all(|g| g.as_deref().is_none_or(str::is_empty)) {
        return Err(Fault::new(FaultCode::TaskInvalid, "a rule must name at least one property"));
    }
    Ok(())
}

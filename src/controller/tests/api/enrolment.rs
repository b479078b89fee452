//! Who is let in.

use crate::support::{Agent, Site, declined, mac};
use serde_json::{Value, json};
use speediso_model::api::{Alert, EnrolAnswer, List, NodeView, path};
use speediso_model::fault::FaultCode;
use speediso_model::id::BootId;
use speediso_model::inventory::SystemVendor;
use speediso_model::node::NodeState;

fn code_of(answer: EnrolAnswer) -> (String, String) {
    match answer {
        EnrolAnswer::Pending { node, code, .. } => (node.to_string(), code),
        EnrolAnswer::Admitted(admission) => panic!("admitted: {admission:?}"),
    }
}

async fn alerts(site: &Site) -> Vec<FaultCode> {
    let list: List<Alert> = site.operator.get(path::ALERTS).await.unwrap();
    list.items.into_iter().map(|a| a.fault.code).collect()
}

#[tokio::test]
async fn a_token_admits_once_and_the_same_key_gets_the_same_answer() {
    let site = Site::start().await;
    site.operator.post::<NodeView>(path::NODES, &json!({"name": "m1", "macs": [mac(1)]})).await.unwrap();
    let token = site.token(1).await;
    let mut agent = site.agent(1);
    let first = agent.enrol(Some(token.clone())).await.unwrap();
    let again = agent.enrol(Some(token)).await.unwrap();
    assert_eq!(first, again);
    assert_eq!(agent.epoch().0, 1);
    assert!(agent.next().await.unwrap().idle);
    let node = site.node(&agent).await;
    assert!(node.online);
    assert_eq!(node.system.serial_number, "SN-0001");
    // Once it was in the ramdisk, it boots its own disk again.
    let script = site.boot_script(1).await;
    assert!(script.contains("exit 1") && !script.contains("token"), "{script}");
}

#[tokio::test]
async fn a_token_presented_again_with_another_key_quarantines_and_revokes_both() {
    let site = Site::start().await;
    site.operator.post::<NodeView>(path::NODES, &json!({"name": "m1", "macs": [mac(1)]})).await.unwrap();
    let token = site.token(1).await;
    let mut agent = site.agent(1);
    agent.enrol(Some(token.clone())).await.unwrap();
    let mut second = site.agent(1);
    declined(second.enrol(Some(token.clone())).await, 403, FaultCode::IdentityClash);
    let node = site.node(&agent).await;
    assert_eq!(node.state, NodeState::Quarantined);
    assert!(!node.online);
    declined(agent.next().await, 403, FaultCode::EpochStale);
    declined(agent.enrol(Some(token)).await, 403, FaultCode::TokenRefused);
    declined(site.agent(1).enrol(None).await, 403, FaultCode::IdentityClash);
    assert_eq!(alerts(&site).await, [FaultCode::IdentityClash]);
    declined(
        site.operator
            .post::<Value>(&path::NODE_ORDERS.replace("{node}", &agent.node()), &json!({"profile": "inventory"}))
            .await,
        403,
        FaultCode::IdentityClash,
    );
    let released: NodeView =
        site.operator.post(&path::NODE_RELEASE.replace("{node}", &agent.node()), &json!({})).await.unwrap();
    assert_eq!(released.state, NodeState::Manageable);
}

#[tokio::test]
async fn a_token_dies_with_the_next_script_and_is_for_its_machine_only() {
    let site = Site::start().await;
    for n in [1, 2] {
        let body = json!({"name": format!("m{n}"), "macs": [mac(n)]});
        site.operator.post::<NodeView>(path::NODES, &body).await.unwrap();
    }
    let old = site.token(1).await;
    let token = site.token(1).await;
    assert_ne!(old, token);
    declined(site.agent(1).enrol(Some(old)).await, 403, FaultCode::TokenRefused);
    declined(site.agent(1).enrol(Some("0".repeat(64))).await, 403, FaultCode::TokenRefused);
    // Machine 2 with machine 1's token: refused and told, but machine 1 is not locked out by that.
    declined(site.agent(2).enrol(Some(token.clone())).await, 403, FaultCode::TokenRefused);
    assert_eq!(alerts(&site).await, [FaultCode::TokenRefused]);
    site.agent(1).enrol(Some(token)).await.unwrap();
}

#[tokio::test]
async fn a_stranger_waits_until_the_code_is_given() {
    let site = Site::start().await;
    let script = site.boot_script(7).await;
    assert!(script.contains("speediso.ca=sha256:") && !script.contains("speediso.token"), "{script}");
    let mut agent = site.agent(7);
    let (node, code) = code_of(agent.enrol(None).await.unwrap());
    let nodes: List<NodeView> = site.operator.get(path::NODES).await.unwrap();
    assert_eq!((nodes.items[0].state, nodes.items[0].code.as_ref()), (NodeState::Pending, Some(&code)));
    assert_eq!(nodes.items[0].name, "sn-0007");

    let approve = path::NODE_APPROVE.replace("{node}", &node);
    let wrong = if code.starts_with('0') { "1111-1111" } else { "0000-0000" };
    declined(site.operator.post::<NodeView>(&approve, &json!({"code": wrong})).await, 403, FaultCode::NotApproved);
    code_of(agent.enrol(None).await.unwrap());
    let orders = path::NODE_ORDERS.replace("{node}", &node);
    declined(site.operator.post::<Value>(&orders, &json!({"profile": "inventory"})).await, 403, FaultCode::NotApproved);

    let approved: NodeView = site.operator.post(&approve, &json!({"code": code, "name": "web1"})).await.unwrap();
    assert_eq!((approved.state, approved.name.as_str()), (NodeState::Enroll, "web1"));
    // Another key does not profit from the approval.
    code_of(site.agent(7).enrol(None).await.unwrap());
    agent.enrol(None).await.unwrap();
    assert_eq!(agent.epoch().0, 1);
    assert!(agent.next().await.is_ok());
}

#[tokio::test]
async fn two_agents_with_one_identity_are_a_clash() {
    let site = Site::start().await;
    let agent = site.admitted(1).await;
    let mut clone = site.agent(1);
    declined(clone.enrol(None).await, 403, FaultCode::IdentityClash);
    assert_eq!(site.node(&agent).await.state, NodeState::Quarantined);
    declined(agent.next().await, 403, FaultCode::EpochStale);
}

#[tokio::test]
async fn a_machine_with_identifiers_of_two_nodes_changes_neither() {
    let site = Site::start().await;
    let (one, two) = (site.admitted(1).await, site.admitted(2).await);
    let mut both = site.agent(1);
    both.request.macs = vec![mac(1), mac(2)];
    declined(both.enrol(None).await, 403, FaultCode::IdentityClash);
    assert!(one.next().await.is_ok());
    assert!(two.next().await.is_ok());
    assert_eq!(alerts(&site).await, [FaultCode::IdentityClash]);
}

#[tokio::test]
async fn a_known_machine_without_a_token_inherits_nothing() {
    let site = Site::start().await;
    site.operator.post::<NodeView>(path::NODES, &json!({"name": "m1", "macs": [mac(1)]})).await.unwrap();
    let nodes: List<NodeView> = site.operator.get(path::NODES).await.unwrap();
    let orders = path::NODE_ORDERS.replace("{node}", &nodes.items[0].id.to_string());
    site.operator.post::<Value>(&orders, &json!({"tasks": [crate::support::write_image()]})).await.unwrap();
    let before: List<NodeView> = site.operator.get(path::NODES).await.unwrap();
    let mut agent = site.agent(1);
    let (_, code) = code_of(agent.enrol(None).await.unwrap());
    let after: List<NodeView> = site.operator.get(path::NODES).await.unwrap();
    assert_eq!(after.items[0].code.as_deref(), Some(code.as_str()), "the approver sees it");
    assert_eq!((after.items[0].state, after.items[0].epoch), (before.items[0].state, before.items[0].epoch));
    assert_eq!(after.items[0].system, before.items[0].system);
}

#[tokio::test]
async fn a_rule_admits_what_fits_it() {
    let site = Site::start().await;
    declined(site.operator.post::<Value>(path::RULES, &json!({})).await, 400, FaultCode::TaskInvalid);
    site.operator.post::<Value>(path::RULES, &json!({"serial_prefix": "SN-", "mac_prefix": "52-54-00"})).await.unwrap();
    let mut fits = site.agent(3);
    fits.enrol(None).await.unwrap();
    assert!(fits.admission.is_some());
    let mut other = site.agent(4);
    other.request.system.serial_number = "ZZ-1".into();
    code_of(other.enrol(None).await.unwrap());
}

#[tokio::test]
async fn the_same_boot_renews_for_its_own_key_only() {
    let site = Site::start().await;
    let agent = site.admitted(1).await;
    let body = |csr: &str| json!({"csr": csr, "epoch": agent.epoch()});
    let renewed: speediso_model::api::Admission =
        agent.client.post(path::RENEW, &body(&agent.request.csr)).await.unwrap();
    assert_ne!(renewed.certificate, agent.admission.as_ref().unwrap().certificate);
    assert_eq!(renewed.epoch, agent.epoch());
    let other = site.agent(1).request.csr;
    declined(agent.client.post::<Value>(path::RENEW, &body(&other)).await, 400, FaultCode::ProtocolError);
}

#[tokio::test]
async fn what_is_no_certificate_request_is_refused() {
    let site = Site::start().await;
    let mut agent = site.agent(1);
    let good = agent.request.csr.clone();
    // A request for somebody else's key: names and key of one (its first 144 bytes), signature of another.
    let lines: Vec<&str> = good.lines().collect();
    let other = site.agent(2).request.csr;
    let spliced = [lines[..4].join("\n"), other.lines().skip(4).collect::<Vec<_>>().join("\n")].join("\n");
    let certificate = site.ca();
    for bad in ["", "x", &good.replace("REQUEST", "CERTIFICATE"), &certificate, &spliced] {
        agent.request.csr = bad.to_owned();
        declined(agent.enrol(None).await, 400, FaultCode::ProtocolError);
    }
}

#[tokio::test]
async fn a_certificate_of_another_ca_is_no_certificate() {
    let (site, other) = (Site::start().await, Site::start().await);
    let agent = site.admitted(1).await;
    // The same client identity, shown to a controller with another CA, does not get through the handshake.
    let url = format!("{}{}?epoch=1&wait=0", other.url, path::NEXT);
    assert!(agent.client.http.get(url).send().await.is_err());
}

#[tokio::test]
async fn the_time_is_signed_over_the_nonce() {
    use base64::Engine as _;
    use x509_parser::prelude::FromDer as _;
    let site = Site::start().await;
    let nonce = "0123456789abcdef0123456789abcdef";
    let anonymous = Agent::new(&site.url, &site.ca(), 1).client;
    let answer: speediso_model::api::TimeAnswer =
        anonymous.get(&format!("{}?nonce={nonce}", path::TIME)).await.unwrap();
    assert_eq!(answer.nonce, nonce);
    assert!((answer.unix_ms - jiff::Timestamp::now().as_millisecond()).abs() < 60_000);
    let decode = |text: &str| base64::engine::general_purpose::STANDARD.decode(text).unwrap();
    let der = decode(&answer.certificate);
    let (_, certificate) = x509_parser::certificate::X509Certificate::from_der(&der).unwrap();
    let ca = site.server.state.service.ca.certificate().clone();
    let (_, ca) = x509_parser::certificate::X509Certificate::from_der(&ca).unwrap();
    certificate.verify_signature(Some(ca.public_key())).unwrap();
    assert_eq!(certificate.subject().iter_common_name().next().unwrap().as_str().unwrap(), "speediso time");
    let key = aws_lc_rs::signature::UnparsedPublicKey::new(
        &aws_lc_rs::signature::ECDSA_P256_SHA256_ASN1,
        certificate.public_key().subject_public_key.data.as_ref(),
    );
    let signed = speediso_model::api::TimeAnswer::signed_text(nonce, answer.unix_ms);
    key.verify(signed.as_bytes(), &decode(&answer.signature)).unwrap();
    assert!(key.verify(signed.replace("time v1", "time v2").as_bytes(), &decode(&answer.signature)).is_err());
    declined(anonymous.get::<Value>(&format!("{}?nonce=short", path::TIME)).await, 400, FaultCode::ProtocolError);
    // No agent can have itself certified as the clock.
    let agent = site.admitted(1).await;
    let pem = agent.admission.unwrap().certificate;
    let (_, pem) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).unwrap();
    let certificate = pem.parse_x509().unwrap();
    let name = certificate.subject().iter_common_name().next().unwrap().as_str().unwrap();
    assert!(name.parse::<uuid::Uuid>().is_ok(), "{name}");
    assert_ne!(agent.request.boot_id, BootId::random());
}

#[tokio::test]
async fn no_machine_can_take_over_what_identifies_another() {
    let site = Site::start().await;
    let (one, two) = (site.admitted(1).await, site.admitted(2).await);
    let nic = |n: u8| json!({"name": "eth0", "mac_address": mac(n)});
    let inventory = json!({"interfaces": [nic(1), nic(2)]});
    let report = json!({"epoch": one.epoch(), "inventory": inventory});
    let put = one.client.request(reqwest::Method::PUT, path::INVENTORY).json(&report);
    let _: Value = crate::support::answer(put).await.unwrap();
    assert_eq!(site.node(&one).await.macs, [mac(1)]);
    assert_eq!(alerts(&site).await, [FaultCode::IdentityClash]);
    // Machine 2 is known by its address as before.
    let order: Value = serde_json::to_value(site.order(&two, json!({"profile": "shell"})).await.unwrap()).unwrap();
    assert_eq!(order["state"], "done");
    assert!(site.boot_script(2).await.contains("speediso.token="));
}

/// Boards that left the factory with the same UUID and no serial number are two machines, and stay two.
#[tokio::test]
async fn machines_with_the_same_placeholders_are_told_apart() {
    let site = Site::start().await;
    let mut nodes = Vec::new();
    for n in [1, 2] {
        let mut agent = site.agent(n);
        agent.request.system = SystemVendor {
            serial_number: "To Be Filled By O.E.M.".into(),
            uuid: Some("03000200-0400-0500-0006-000700080009".into()),
            ..SystemVendor::default()
        };
        let (node, _) = code_of(agent.enrol(None).await.unwrap());
        nodes.push(node);
    }
    assert_ne!(nodes[0], nodes[1]);
    assert_eq!(alerts(&site).await, []);
    let known: List<NodeView> = site.operator.get(path::NODES).await.unwrap();
    // Named by what tells them apart.
    let mut names: Vec<String> = known.items.into_iter().map(|node| node.name).collect();
    names.sort();
    assert_eq!(names, [mac(1).replace(':', "-"), mac(2).replace(':', "-")]);
}

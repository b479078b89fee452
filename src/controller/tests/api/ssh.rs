//! The way into machines: who may come, what the agent hears of it, tunnels, recordings.

use reqwest::header::{CONNECTION, UPGRADE};
use serde_json::{Value, json};
use speediso_model::api::{EventsQuery, Lease, List, StoredEvent, path};
use speediso_model::fault::FaultCode;
use speediso_model::ssh::{
    Session, SessionAnswer, SessionId, SessionPiece, SessionView, SshReport, SshView, SshWish, TUNNEL_PROTOCOL,
    fingerprint, to_base64,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::support::{Agent, Answer, Client, Site, declined};

fn key(c: char) -> String {
    format!("ssh-ed25519 {}", c.to_string().repeat(68))
}

/// A machine that reported its host key and its address.
async fn reachable(site: &Site, n: u8) -> Agent {
    site.operator
        .post::<Value>(path::NODES, &json!({"name": format!("m{n}"), "macs": [crate::support::mac(n)]}))
        .await
        .unwrap();
    let mut agent = site.agent(n);
    agent.request.ssh_host_key = Some(key('H'));
    agent.request.address = Some("192.0.2.7".into());
    agent.enrol(Some(site.token(n).await)).await.unwrap();
    agent
}

fn at(pattern: &str, agent: &Agent) -> String {
    pattern.replace("{node}", &agent.node())
}

async fn view(site: &Site, agent: &Agent) -> SshView {
    site.operator.get(&at(path::NODE_SSH, agent)).await.unwrap()
}

/// An agent that asks for work once and does what it hears of its ssh.
async fn heeds(agent: &Agent) -> SshWish {
    let wish = agent.next_within(20).await.unwrap().lease.ssh.expect("a wish");
    let report = SshReport { epoch: agent.epoch(), number: wish.number, refused: None };
    agent.client.post::<Lease>(path::SSH_REPORT, &report).await.unwrap();
    wish
}

async fn said(site: &Site, agent: &Agent) -> Vec<String> {
    let query = EventsQuery { node: Some(agent.node().parse().unwrap()), ..EventsQuery::default() };
    let url = format!("{}{}", site.url, path::STORED_EVENTS);
    let request = site.operator.http.get(url).query(&query).bearer_auth(site.operator.token.as_deref().unwrap());
    let events: List<StoredEvent> = crate::support::answer(request).await.unwrap();
    events.items.into_iter().map(|event| event.text).collect()
}

#[tokio::test]
async fn the_host_key_is_known_from_enrolment_and_access_is_given_heard_and_recorded() {
    let site = Site::start().await;
    let agent = reachable(&site, 1).await;
    let before = view(&site, &agent).await;
    assert_eq!((before.host_key, before.fingerprint), (Some(key('H')), fingerprint(&key('H'))));
    assert_eq!(before.address, Some("192.0.2.7".parse().unwrap()));
    assert!(before.until.is_none() && agent.next().await.unwrap().lease.ssh.is_none());

    let asked = json!({"minutes": 5, "key": key('A')});
    let path = at(path::NODE_SSH, &agent);
    let (given, heard) = tokio::join!(site.operator.post::<SshView>(&path, &asked), heeds(&agent));
    let given = given.unwrap();
    assert!(given.in_force && given.until.is_some(), "{given:?}");
    assert_eq!((heard.keys.len(), &heard.keys[0].key), (1, &key('A')));
    assert!((1..=300_000).contains(&heard.left_ms));
    let events = said(&site, &agent).await;
    assert!(events.iter().any(|e| e.contains("open for 5 minutes") && e.contains("SHA256:")), "{events:?}");

    // The end is an act as well, and nothing of it reaches the next boot.
    let end = json!({"minutes": 0});
    let (ended, heard) = tokio::join!(site.operator.post::<SshView>(&path, &end), heeds(&agent));
    assert!(ended.unwrap().until.is_none() && heard.left_ms == 0 && heard.keys.is_empty());
    for (body, status) in [(json!({"minutes": 5000}), 409), (json!({"key": "command=\"x\" ssh-rsa AAAA"}), 409)] {
        declined(site.operator.post::<Value>(&path, &body).await, status, FaultCode::TaskInvalid);
    }
    let agent_asks = agent.client.clone();
    declined(agent_asks.post::<Value>(&path, &asked).await, 401, FaultCode::TokenRefused);
}

#[tokio::test]
async fn a_machine_without_an_agent_opens_to_nobody() {
    let site = Site::start().await;
    let node: Value =
        site.operator.post(path::NODES, &json!({"name": "m9", "macs": [crate::support::mac(9)]})).await.unwrap();
    let path = path::NODE_SSH.replace("{node}", node["id"].as_str().unwrap());
    let fault = declined(site.operator.post::<Value>(&path, &json!({})).await, 409, FaultCode::LeaseLost);
    assert!(fault.message.contains("m9") && fault.advice.contains("arm"), "{fault:?}");
}

async fn stream(client: &Client, path: &str) -> reqwest::Response {
    let request = client.request(reqwest::Method::GET, path);
    request
        .version(reqwest::Version::HTTP_11)
        .header(CONNECTION, "upgrade")
        .header(UPGRADE, TUNNEL_PROTOCOL)
        .send()
        .await
        .unwrap()
}

/// Both ends meet at the controller; what is said at one arrives at the other, and its end ends both.
#[tokio::test]
async fn a_tunnel_is_brought_by_the_agent_and_ends_with_the_access() {
    let site = Site::start().await;
    let agent = reachable(&site, 1).await;
    let operator = site.operator.http1();
    let machine = agent.http1();
    let path = at(path::NODE_SSH_TUNNEL, &agent);
    let brought = async {
        let wish = heeds(&agent).await;
        let [id] = wish.tunnels[..] else { panic!("one tunnel: {wish:?}") };
        stream(&machine, &path::SSH_TUNNEL.replace("{tunnel}", &id.to_string())).await
    };
    let (operator_end, machine_end) = tokio::join!(stream(&operator, &path), brought);
    assert_eq!((operator_end.status().as_u16(), machine_end.status().as_u16()), (101, 101));
    let (mut here, mut there) = (operator_end.upgrade().await.unwrap(), machine_end.upgrade().await.unwrap());
    there.write_all(b"SSH-2.0-x\r\n").await.unwrap();
    let mut heard = [0; 11];
    here.read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"SSH-2.0-x\r\n");
    let large = vec![7u8; 1 << 20];
    let (sent, got) = tokio::join!(
        async {
            here.write_all(&large).await.unwrap();
            here.flush().await.unwrap();
        },
        async {
            let mut got = vec![0; 1 << 20];
            there.read_exact(&mut got).await.unwrap();
            got
        }
    );
    assert_eq!((sent, got == large), ((), true));

    // The operator ends the access: the tunnel goes with it, and the events say how much went through.
    let node_ssh = at(path::NODE_SSH, &agent);
    let end = json!({"minutes": 0});
    let (ended, _) = tokio::join!(site.operator.post::<SshView>(&node_ssh, &end), heeds(&agent));
    ended.unwrap();
    assert_eq!(here.read(&mut heard).await.unwrap_or(0), 0);
    let ended = async {
        loop {
            let events = said(&site, &agent).await;
            if events.iter().any(|e| e.contains("the access is over") && e.contains("1048576 bytes there and 11 back"))
            {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(30), ended).await.expect("the end is recorded");
}

#[tokio::test]
async fn nobody_takes_anothers_tunnel_and_no_other_protocol_is_spoken() {
    let site = Site::start().await;
    let agent = reachable(&site, 1).await;
    let other = reachable(&site, 2).await;
    let id = uuid::Uuid::new_v4().to_string();
    let foreign = stream(&other.http1(), &path::SSH_TUNNEL.replace("{tunnel}", &id)).await;
    assert_eq!(foreign.status().as_u16(), 409);
    let plain: Answer<Value> = site.operator.get(&at(path::NODE_SSH_TUNNEL, &agent)).await;
    declined(plain, 426, FaultCode::ProtocolError);
}

fn session(command: Option<&str>) -> Session {
    Session {
        id: SessionId(uuid::Uuid::new_v4()),
        key: "SHA256:abc".into(),
        from: "192.0.2.1".into(),
        command: command.map(str::to_owned),
        began_ms: 1000,
        ended_ms: None,
        status: None,
        cut: false,
    }
}

async fn bring(agent: &Agent, session: &Session, offset: u64, data: &[u8]) -> Answer<SessionAnswer> {
    let piece = SessionPiece { epoch: agent.epoch(), session: session.clone(), offset, data: to_base64(data) };
    agent.client.post(path::SSH_PIECE, &piece).await
}

#[tokio::test]
async fn a_recording_arrives_once_and_in_order_whatever_is_lost() {
    let site = Site::start().await;
    let agent = reachable(&site, 1).await;
    let mut shell = session(None);
    assert_eq!(bring(&agent, &shell, 0, b"one ").await.unwrap().next, 4);
    // The answer was lost; a piece came too early; an agent was restarted and begins anew.
    assert_eq!(bring(&agent, &shell, 0, b"one ").await.unwrap().next, 4);
    assert_eq!(bring(&agent, &shell, 9, b"three").await.unwrap().next, 4);
    assert_eq!(bring(&agent, &shell, 4, b"two ").await.unwrap().next, 8);
    (shell.ended_ms, shell.status) = (Some(9000), Some(0));
    assert_eq!(bring(&agent, &shell, 8, b"three").await.unwrap().next, 13);
    let cast = path::SSH_CAST.replace("{session}", &shell.id.to_string());
    let got = site.operator.request(reqwest::Method::GET, &cast).send().await.unwrap();
    assert_eq!(got.headers()["content-type"], "application/x-asciicast");
    assert_eq!(got.bytes().await.unwrap(), "one two three");

    let command = session(Some("dd if=/dev/sda token=CANARY\u{1b}[2J"));
    bring(&agent, &command, 0, b"").await.unwrap();
    let listed: List<SessionView> = site.operator.get(&at(path::NODE_SSH_SESSIONS, &agent)).await.unwrap();
    assert_eq!(listed.items.len(), 2);
    let events = said(&site, &agent).await;
    let about = events.iter().filter(|e| e.starts_with("ssh:")).collect::<Vec<_>>();
    assert_eq!(about.len(), 3, "{about:?}");
    assert!(about[0].contains("SHA256:abc came in from 192.0.2.1") && about[1].contains("after 8 s"), "{about:?}");
    assert!(about[2].contains("dd if=/dev/sda") && !about[2].contains(['\u{1b}']), "{about:?}");
    assert!(!about[2].contains("CANARY"), "{about:?}");

    // Another machine's session stays its own.
    let other = reachable(&site, 2).await;
    declined(bring(&other, &shell, 13, b"more").await, 400, FaultCode::ProtocolError);
}

#[tokio::test]
async fn a_recording_has_an_end_and_says_so() {
    let site = Site::start().await;
    let agent = reachable(&site, 1).await;
    let shell = session(None);
    let piece = vec![b'x'; 64 << 10];
    let mut next = 0;
    while next < 9 << 20 {
        next = bring(&agent, &shell, next, &piece).await.unwrap().next;
        if next > 8 << 20 {
            break;
        }
    }
    let listed: List<SessionView> = site.operator.get(&at(path::NODE_SSH_SESSIONS, &agent)).await.unwrap();
    assert_eq!((listed.items[0].size, listed.items[0].session.cut), (8 << 20, true));
    let too_large = vec![b'x'; (64 << 10) + 1];
    declined(bring(&agent, &session(None), 0, &too_large).await, 400, FaultCode::ProtocolError);
}

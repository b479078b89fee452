//! A controller on loopback with real TLS, an operator, and a small agent that speaks the protocol and nothing else.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use reqwest::{Method, StatusCode};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use speediso_controller::server::{Server, Settings};
use speediso_model::api::{
    Admission, EndAnswer, EndRequest, EnrolAnswer, EnrolRequest, ErrorBody, EventsAnswer, EventsRequest, Grant,
    NextAnswer, NextQuery, NodeView, OrderView, StartRequest, path,
};
use speediso_model::build::BuildInfo;
use speediso_model::event::{Event, Progress};
use speediso_model::fault::{Fault, FaultCode};
use speediso_model::id::{BootId, Epoch, OrderId, RunId};
use speediso_model::inventory::SystemVendor;
use speediso_model::outcome::{Changed, TaskResult};
use speediso_model::plan::Plan;
use speediso_sys::disks::DiskScope;
use speediso_sys::roots::Roots;
use speediso_tasks::ctx::{Cancel, Patience, ProgressUpdate, Reporter, TaskCtx, Uploads};

pub(crate) type Answer<T> = Result<T, Declined>;

#[derive(Debug)]
pub(crate) struct Declined {
    pub(crate) status: StatusCode,
    pub(crate) fault: Fault,
}

pub(crate) fn loopback() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

/// A controller in this process, with its data in a directory that goes with it.
pub(crate) struct Site {
    pub(crate) server: Server,
    pub(crate) url: String,
    pub(crate) boot_url: String,
    pub(crate) operator: Client,
    pub(crate) dir: tempfile::TempDir,
}

impl Site {
    pub(crate) async fn start() -> Self {
        Self::start_with(|_, _| {}).await
    }

    /// With other settings; files of theirs may be put into the directory.
    pub(crate) async fn start_with(change: impl FnOnce(&Path, &mut Settings)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let boot_files = dir.path().join("builds");
        std::fs::create_dir(&boot_files).unwrap();
        std::fs::write(boot_files.join("vmlinuz"), b"kernel").unwrap();
        std::fs::write(boot_files.join("secret"), b"no").unwrap();
        let data = dir.path().join("data");
        let mut settings = Settings {
            data: data.clone(),
            listen: loopback(),
            boot_listen: loopback(),
            url: None,
            boot_url: None,
            boot_files,
            boot_addon: false,
            ssh_keys: Vec::new(),
            ssh: Default::default(),
            idle_reboot: None,
            link_test_ports: None,
            pci_ids: None,
        };
        change(dir.path(), &mut settings);
        let server = Server::start(settings).await.unwrap();
        let url = server.state.service.site.url.clone();
        let boot_url = server.state.service.site.boot_url.clone();
        let operator = Client::operator(&url, &data);
        Self { server, url, boot_url, operator, dir }
    }

    pub(crate) fn ca(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("data/ca.pem")).unwrap()
    }

    pub(crate) fn agent(&self, n: u8) -> Agent {
        Agent::new(&self.url, &self.ca(), n)
    }

    /// What iPXE gets for this machine.
    pub(crate) async fn boot_script(&self, n: u8) -> String {
        script(&format!("{}/boot/ipxe?mac={}&platform=efi", self.boot_url, mac(n).replace(':', "-"))).await
    }

    pub(crate) async fn token(&self, n: u8) -> String {
        let script = self.boot_script(n).await;
        let word = script.split_whitespace().find_map(|w| w.strip_prefix("speediso.token="));
        word.unwrap_or_else(|| panic!("no token in {script}")).to_owned()
    }

    /// A machine that was recorded, booted and admitted.
    pub(crate) async fn admitted(&self, n: u8) -> Agent {
        self.operator
            .post::<NodeView>(path::NODES, &json!({"name": format!("m{n}"), "macs": [mac(n)]}))
            .await
            .expect("recorded");
        let mut agent = self.agent(n);
        agent.enrol(Some(self.token(n).await)).await.expect("admitted");
        agent
    }

    /// The same machine, booted again.
    pub(crate) async fn booted_again(&self, n: u8) -> Agent {
        let mut agent = self.agent(n);
        agent.enrol(Some(self.token(n).await)).await.expect("admitted");
        agent
    }

    pub(crate) async fn order(&self, agent: &Agent, body: Value) -> Answer<OrderView> {
        self.operator.post(&path::NODE_ORDERS.replace("{node}", &agent.node()), &body).await
    }

    pub(crate) async fn order_now(&self, id: OrderId) -> OrderView {
        self.operator.get(&path::ORDER.replace("{order}", &id.to_string())).await.unwrap()
    }

    pub(crate) async fn node(&self, agent: &Agent) -> NodeView {
        self.operator.get(&path::NODE.replace("{node}", &agent.node())).await.unwrap()
    }
}

pub(crate) async fn script(url: &str) -> String {
    let response = plain().get(url).send().await.unwrap();
    assert!(response.status().is_success(), "{url}: {}", response.status());
    response.text().await.unwrap()
}

pub(crate) fn plain() -> reqwest::Client {
    tls_client(None, None)
}

pub(crate) fn mac(n: u8) -> String {
    format!("52:54:00:00:00:{n:02x}")
}

pub(crate) fn write_image() -> Value {
    json!({"task": "write_image", "device": {"serial": "S1"}, "read_back": "none",
        "image": {"url": "https://192.0.2.1/i", "digest": format!("sha256:{}", "0".repeat(64)), "compression": "none"}})
}

pub(crate) fn reboot() -> Value {
    json!({"task": "power", "action": "reboot"})
}

pub(crate) fn plan(kind: &str) -> Plan {
    let destructive = kind != "power";
    Plan { task: kind.into(), destructive, devices: vec![], effects: vec![kind.into()], untouched: vec![] }
}

pub(crate) fn done() -> TaskResult {
    TaskResult::verified("asked", "used", Changed::Changed)
}

struct Silent;

impl Reporter for Silent {
    fn step_began(&self, _: &str) {}
    fn step_ended(&self, _: &str, _: &str) {}
    fn notice(&self, _: &str) {}
    fn progress(&self, _: ProgressUpdate) {}
}

/// What the tasks that agents run are given, for a run of this one; loop devices count as disks.
pub(crate) fn task_ctx(agent: &Agent, run: RunId) -> TaskCtx {
    TaskCtx {
        roots: Roots::live(),
        scope: DiskScope { loops: true },
        skip: Default::default(),
        reporter: Arc::new(Silent),
        cancel: Cancel::default(),
        http: agent.client.http.clone(),
        runtime: tokio::runtime::Handle::current(),
        probe: None,
        boot_mac: None,
        build: <_>::default(),
        patience: Patience::default(),
        uploads: Some(Uploads { controller: agent.client.base.clone(), run }),
        resuming: false,
        sharing: None,
        tools: speediso_tasks::tools::Tools::of_system(None),
    }
}

fn tls_client(ca: Option<&str>, identity: Option<(&str, &PrivateKeyDer<'static>)>) -> reqwest::Client {
    speaking(&[b"h2", b"http/1.1"], ca, identity)
}

fn speaking(
    protocols: &[&[u8]],
    ca: Option<&str>,
    identity: Option<(&str, &PrivateKeyDer<'static>)>,
) -> reqwest::Client {
    let mut roots = rustls::RootCertStore::empty();
    if let Some(ca) = ca {
        roots.add(CertificateDer::from_pem_slice(ca.as_bytes()).unwrap()).unwrap();
    }
    let builder = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some((chain, key)) => {
            let chain = CertificateDer::pem_slice_iter(chain.as_bytes()).map(Result::unwrap).collect();
            builder.with_client_auth_cert(chain, key.clone_key()).unwrap()
        }
    };
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    reqwest::Client::builder()
        .tls_backend_preconfigured(config)
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .build()
        .unwrap()
}

/// Somebody with a URL and credentials.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    pub(crate) http: reqwest::Client,
    pub(crate) base: String,
    pub(crate) token: Option<String>,
    ca: Option<String>,
}

impl Client {
    pub(crate) fn operator(url: &str, data: &Path) -> Self {
        let ca = std::fs::read_to_string(data.join("ca.pem")).unwrap();
        let token = std::fs::read_to_string(data.join("operator.token")).unwrap();
        Self { http: tls_client(Some(&ca), None), base: url.into(), token: Some(token.trim().into()), ca: Some(ca) }
    }

    /// The same by HTTP/1.1, the one whose connections become streams.
    pub(crate) fn http1(&self) -> Self {
        Self { http: speaking(&[b"http/1.1"], self.ca.as_deref(), None), ..self.clone() }
    }

    pub(crate) fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.base));
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Answer<T> {
        answer(self.request(Method::GET, path)).await
    }

    pub(crate) async fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Answer<T> {
        answer(self.request(Method::POST, path).json(body)).await
    }
}

pub(crate) async fn answer<T: DeserializeOwned>(request: reqwest::RequestBuilder) -> Answer<T> {
    let response = request.send().await.expect("an answer");
    let status = response.status();
    let body = response.bytes().await.unwrap();
    if status.is_success() {
        return Ok(serde_json::from_slice(&body)
            .unwrap_or_else(|e| panic!("{status}, {e}: {}", String::from_utf8_lossy(&body))));
    }
    let error: ErrorBody =
        serde_json::from_slice(&body).unwrap_or_else(|e| panic!("{status}, {e}: {}", String::from_utf8_lossy(&body)));
    Err(Declined { status, fault: error.error })
}

/// One boot of one machine.
pub(crate) struct Agent {
    pub(crate) client: Client,
    ca: String,
    key: rcgen::KeyPair,
    pub(crate) request: EnrolRequest,
    pub(crate) admission: Option<Admission>,
}

impl Agent {
    pub(crate) fn new(url: &str, ca: &str, n: u8) -> Self {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::default();
        // Names in a request are ignored, whatever they claim.
        params.distinguished_name.push(rcgen::DnType::CommonName, "speediso time");
        let csr = params.serialize_request(&key).unwrap().pem().unwrap();
        Self {
            client: Client { http: tls_client(Some(ca), None), base: url.into(), token: None, ca: Some(ca.into()) },
            ca: ca.into(),
            key,
            request: EnrolRequest {
                token: None,
                csr,
                boot_id: BootId::random(),
                system: SystemVendor { serial_number: format!("SN-{n:04}"), ..SystemVendor::default() },
                macs: vec![mac(n)],
                agent_version: "0.1.0".into(),
                build: BuildInfo::default(),
                ssh_host_key: None,
                address: None,
            },
            admission: None,
        }
    }

    pub(crate) async fn enrol(&mut self, token: Option<String>) -> Answer<EnrolAnswer> {
        self.request.token = token;
        let anonymous = Client { http: tls_client(Some(&self.ca), None), ..self.client.clone() };
        let answer: EnrolAnswer = anonymous.post(path::ENROL, &self.request).await?;
        if let EnrolAnswer::Admitted(admission) = &answer {
            let key = PrivateKeyDer::try_from(self.key.serialize_der()).unwrap();
            self.client.http = tls_client(Some(&self.ca), Some((&admission.certificate, &key)));
            self.admission = Some(admission.clone());
        }
        Ok(answer)
    }

    /// With its certificate, by HTTP/1.1.
    pub(crate) fn http1(&self) -> Client {
        let key = PrivateKeyDer::try_from(self.key.serialize_der()).unwrap();
        let chain = &self.admission.as_ref().expect("admitted").certificate;
        Client { http: speaking(&[b"http/1.1"], Some(&self.ca), Some((chain, &key))), ..self.client.clone() }
    }

    pub(crate) fn node(&self) -> String {
        self.admission.as_ref().expect("admitted").node.to_string()
    }

    pub(crate) fn epoch(&self) -> Epoch {
        self.admission.as_ref().expect("admitted").epoch
    }

    pub(crate) async fn next(&self) -> Answer<NextAnswer> {
        self.next_within(0).await
    }

    pub(crate) async fn next_within(&self, wait: u64) -> Answer<NextAnswer> {
        let query = NextQuery { epoch: self.epoch(), wait };
        answer(self.client.request(Method::GET, path::NEXT).query(&query)).await
    }

    pub(crate) async fn grant(&self) -> Grant {
        self.next().await.unwrap().grant.expect("a grant")
    }

    pub(crate) async fn start(&self, run: RunId, plan: &Plan) -> Answer<Value> {
        let body = StartRequest { epoch: self.epoch(), plan: plan.clone(), digest: plan.digest() };
        self.client.post(&path::START.replace("{run}", &run.to_string()), &body).await
    }

    pub(crate) async fn end(&self, run: RunId, result: TaskResult) -> Answer<EndAnswer> {
        let body = EndRequest { epoch: self.epoch(), result };
        self.client.post(&path::END.replace("{run}", &run.to_string()), &body).await
    }

    pub(crate) async fn report(&self, events: Vec<Event>, progress: Vec<Progress>) -> Answer<EventsAnswer> {
        self.client.post(path::EVENTS, &EventsRequest { epoch: self.epoch(), events, progress }).await
    }
}

#[track_caller]
pub(crate) fn declined<T: std::fmt::Debug>(answer: Answer<T>, status: u16, code: FaultCode) -> Fault {
    let declined = answer.expect_err("this is to be declined");
    assert_eq!((declined.status.as_u16(), declined.fault.code), (status, code), "{:?}", declined.fault);
    declined.fault
}

//! Many machines and one image: real agents, a real controller, TLS between all of them, loop devices for disks.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use axum::extract::{Path as UrlPath, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use speediso_agent::doors::native::Native;
use speediso_agent::engine::{DISK_PATIENCE, Engine, Surroundings};
use speediso_agent::ssh::Ssh;
use speediso_agent::state::StateDir;
use speediso_agent::tls;
use speediso_controller::server::{Server, Settings};
use speediso_image::manifest::{PackOptions, pack};
use speediso_model::api::{Admission, EnrolAnswer, EnrolRequest, List, NodeView, OrderView, path};
use speediso_model::build::BuildInfo;
use speediso_model::id::{BootId, Epoch, NodeId, OrderId};
use speediso_model::inventory::SystemVendor;
use speediso_model::order::TaskState;
use speediso_model::outcome::Outcome;
use speediso_model::share::{PERMIT_HEADER, Permit, SegmentMap, ShareRequest};
use speediso_sys::disks::DiskScope;
use speediso_sys::roots::Roots;

const MIB: u64 = 1 << 20;
const MACHINES: u8 = 8;
const LIMIT: Duration = Duration::from_secs(120);

/// A file as a disk, detached on drop.
struct Disk {
    device: String,
    file: PathBuf,
}

impl Disk {
    fn new(file: PathBuf, size: u64) -> Self {
        std::fs::File::create(&file).unwrap().set_len(size).unwrap();
        let out = Command::new("losetup").args(["-f", "--show"]).arg(&file).output().expect("losetup is needed");
        assert!(out.status.success(), "the tests run as root: {}", String::from_utf8_lossy(&out.stderr));
        Self { device: String::from_utf8(out.stdout).unwrap().trim().to_owned(), file }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("losetup").args(["-d", &self.device]).status();
    }
}

/// A manifest image and its server, which counts what it gives of the data.
struct Image {
    bytes: Vec<u8>,
    sha256: String,
    stored: u64,
    origin: SocketAddr,
    given: Arc<AtomicU64>,
}

#[derive(Clone)]
struct Files {
    directory: PathBuf,
    given: Arc<AtomicU64>,
}

async fn file(State(files): State<Files>, UrlPath(name): UrlPath<String>, headers: HeaderMap) -> Response {
    let Ok(bytes) = std::fs::read(files.directory.join(&name)) else { return StatusCode::NOT_FOUND.into_response() };
    let range = headers.get(header::RANGE).and_then(|v| v.to_str().ok()?.strip_prefix("bytes=")?.split_once('-'));
    let Some((first, last)) = range.map(|(a, b)| (a.parse::<usize>().unwrap(), b.parse::<usize>().unwrap())) else {
        return bytes.into_response();
    };
    let part = bytes[first..=last].to_vec();
    files.given.fetch_add(part.len() as u64, Ordering::Relaxed);
    let of = format!("bytes {first}-{last}/{}", bytes.len());
    (StatusCode::PARTIAL_CONTENT, [(header::CONTENT_RANGE, of)], part).into_response()
}

async fn image(directory: &Path, size: u64) -> Image {
    let disk = Disk::new(directory.join("source"), size);
    let mut seed = 1u64;
    let mut bytes: Vec<u8> = std::iter::repeat_with(|| {
        // Does not compress, so that stored bytes are the disk's.
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        seed.to_be_bytes()
    })
    .take(usize::try_from(size / 8).unwrap())
    .flatten()
    .collect();
    bytes[5 << 20..9 << 20].fill(0);
    // Room for the table, and no trace of another.
    let end = bytes.len() - (64 << 10);
    bytes[..64 << 10].fill(0);
    bytes[end..].fill(0);
    std::fs::write(&disk.file, &bytes).unwrap();
    let made = Command::new("sgdisk").args(["-n", "1:0:0"]).arg(&disk.file).output().expect("sgdisk is needed");
    assert!(made.status.success(), "{made:?}");
    let bytes = std::fs::read(&disk.file).unwrap();
    let options = PackOptions { chunk_size: Some(256 << 10), level: None, key: None, name: None };
    let out = directory.join("image");
    let summary = pack(&mut &bytes[..], None, &options, &out, &mut |_| {}).unwrap();
    let given = Arc::new(AtomicU64::new(0));
    let files = Files { directory: out, given: Arc::clone(&given) };
    let router = axum::Router::new().route("/{name}", axum::routing::get(file)).with_state(files);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let origin = listener.local_addr().unwrap();
    tokio::spawn(async move { axum_server::from_tcp(listener).unwrap().serve(router.into_make_service()).await });
    let sha256 = summary.manifest_sha256.to_string().trim_start_matches("sha256:").to_owned();
    Image { bytes, sha256, stored: summary.data_size, origin, given }
}

struct Site {
    server: Server,
    url: String,
    ca: CertificateDer<'static>,
    operator: reqwest::Client,
    token: String,
}

impl Site {
    async fn start(directory: &Path) -> Self {
        let (data, boot_files) = (directory.join("controller"), directory.join("boot"));
        std::fs::create_dir(&boot_files).unwrap();
        let loopback: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let server = Server::start(Settings {
            data: data.clone(),
            listen: loopback,
            boot_listen: loopback,
            url: None,
            boot_url: None,
            boot_files,
            boot_addon: false,
            ssh_keys: Vec::new(),
            link_test_ports: None,
            pci_ids: None,
            ssh: Default::default(),
            idle_reboot: None,
        })
        .await
        .unwrap();
        let url = server.state.service.site.url.clone();
        let ca = server.state.service.ca.certificate().clone();
        let (operator, _) = tls::client(&[tls::sha256(&ca)], None, tls::Validity::Checked, tls::Purpose::Api).unwrap();
        let token = std::fs::read_to_string(data.join("operator.token")).unwrap().trim().to_owned();
        let site = Self { server, url, ca, operator, token };
        site.post::<Value>(path::RULES, &json!({"serial_prefix": "SN-"})).await;
        site
    }

    async fn post<T: serde::de::DeserializeOwned>(&self, path: &str, body: &Value) -> T {
        let request = self.operator.post(format!("{}{path}", self.url)).bearer_auth(&self.token).json(body);
        let response = request.send().await.unwrap();
        let (status, text) = (response.status(), response.text().await.unwrap());
        assert!(status.is_success(), "{path}: {status}: {text}");
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{path}: {e}: {text}"))
    }

    async fn get<T: serde::de::DeserializeOwned>(&self, path: &str) -> T {
        let request = self.operator.get(format!("{}{path}", self.url)).bearer_auth(&self.token);
        request.send().await.unwrap().json().await.unwrap()
    }

    fn pin(&self) -> [u8; 32] {
        tls::sha256(&self.ca)
    }

    /// Waits for all of them, by their names in the order of their numbers.
    async fn nodes(&self, n: usize) -> Vec<NodeView> {
        let end = Instant::now() + LIMIT;
        loop {
            let mut nodes: Vec<NodeView> = self.get::<List<NodeView>>(path::NODES).await.items;
            nodes.retain(|n| n.online);
            if nodes.len() == n {
                nodes.sort_by(|a, b| a.name.cmp(&b.name));
                return nodes;
            }
            assert!(Instant::now() < end, "{} of {n} machines came", nodes.len());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn order(&self, node: &NodeView, disk: &Disk, image: &Image, share: Value) -> OrderId {
        let mut task = json!({
            "task": "write_image",
            "share": true,
            "device": {"serial": disk.file.to_str().unwrap()},
            "image": {
                "url": format!("http://{}/manifest.json", image.origin),
                "digest": format!("sha256:{}", image.sha256),
                "format": "manifest",
                "compression": "none",
            },
        });
        task.as_object_mut().unwrap().extend(share.as_object().unwrap().clone());
        let path = path::NODE_ORDERS.replace("{node}", &node.id.to_string());
        self.post::<OrderView>(&path, &json!({"tasks": [task]})).await.order.id
    }

    /// The facts of the one disk, once the order's task has ended well.
    async fn facts(&self, order: OrderId) -> Value {
        let end = Instant::now() + LIMIT;
        loop {
            let view: OrderView = self.get(&path::ORDER.replace("{order}", &order.to_string())).await;
            if let TaskState::Ended { result, .. } = &view.order.tasks[0].state {
                assert_eq!(result.outcome, Outcome::Verified, "{:?}", result.fault);
                return result.devices[0].facts.clone();
            }
            assert!(Instant::now() < end, "{:?}", view.order.tasks[0].state);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// One machine: what the ramdisk runs once it has found the controller.
    fn machine(&self, directory: &Path, n: u8) -> (Engine, tokio::task::JoinHandle<()>) {
        let state = StateDir::open(&directory.join(format!("state{n}"))).unwrap();
        let (http, _) = tls::client(&[], None, tls::Validity::Checked, tls::Purpose::Images).unwrap();
        let surroundings = Surroundings {
            roots: Roots::live(),
            scope: DiskScope { loops: true },
            skip: Default::default(),
            http,
            probe: None,
            boot_mac: None,
            build: BuildInfo::default(),
            disk_patience: DISK_PATIENCE,
            tools: speediso_tasks::tools::Tools::of_system(None),
            sharing: None,
        };
        let engine = Engine::start(&state, surroundings).unwrap();
        let native = Native {
            controller: self.url.clone(),
            pins: vec![self.pin()],
            token: None,
            boot: BootId::random(),
            system: SystemVendor { serial_number: format!("SN-{n:04}"), ..SystemVendor::default() },
            macs: vec![format!("52:54:00:00:00:{n:02x}")],
            build: BuildInfo::default(),
            address: None,
            only_report: false,
            live: None,
            neighbours: None,
            disks: None,
            logs: None,
            examination: None,
            idle: None,
        };
        let served = engine.clone();
        let door = tokio::spawn(async move {
            let fault = native.serve(&state, &served, &Ssh::new(speediso_agent::ssh::Word::Off), || {}).await;
            panic!("machine {n} was turned away: {fault}");
        });
        (engine, door)
    }
}

fn fact(facts: &Value, name: &str) -> u64 {
    facts[name].as_u64().unwrap_or_else(|| panic!("{name}: {facts}"))
}

#[track_caller]
fn holds(disk: &Disk, image: &Image) {
    let _ = Command::new("blockdev").args(["--flushbufs", &disk.device]).status();
    assert!(std::fs::read(&disk.file).unwrap() == image.bytes, "{} holds something else", disk.device);
}

#[tokio::test(flavor = "multi_thread")]
async fn eight_machines_cost_the_server_about_as_much_as_one() {
    let dir = tempfile::tempdir().unwrap();
    let (site, image) = (Site::start(dir.path()).await, image(dir.path(), 96 * MIB).await);
    let machines: Vec<_> = (0..MACHINES).map(|n| site.machine(dir.path(), n)).collect();
    let disks: Vec<Disk> = (0..MACHINES).map(|n| Disk::new(dir.path().join(format!("disk{n}")), 96 * MIB)).collect();
    let nodes = site.nodes(machines.len()).await;
    let mut orders = Vec::new();
    for (node, disk) in nodes.iter().zip(&disks) {
        orders.push(site.order(node, disk, &image, json!({})).await);
    }
    let begun = Instant::now();
    let mut ports = std::collections::BTreeSet::new();
    while ports.len() < machines.len() {
        ports.extend(sharing(&site, &image).await.into_iter().map(|(_, address)| address));
        assert!(begun.elapsed() < LIMIT, "{ports:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let mut peers = 0;
    for order in &orders {
        let facts = site.facts(*order).await;
        println!(
            "{} from the server, {} from peers, {}",
            facts["source_bytes"], facts["peer_bytes"], facts["write_seconds"]
        );
        peers += fact(&facts, "peer_bytes");
    }
    for disk in &disks {
        holds(disk, &image);
    }
    let given = image.given.load(Ordering::Relaxed);
    println!(
        "{MACHINES} machines: {given} bytes from the server, {:.2} times the image's {}, {peers} from peers, {:.1} s",
        given as f64 / image.stored as f64,
        image.stored,
        begun.elapsed().as_secs_f64()
    );
    assert!(given * 10 < image.stored * 25, "{given} of {}", image.stored);
    assert!(peers > image.stored * 4, "{peers}");
    // The port goes with the task.
    let closed = Instant::now();
    while let Some(open) = ports.iter().find(|a| std::net::TcpStream::connect(a).is_ok()) {
        assert!(closed.elapsed() < Duration::from_secs(5), "{open} is still open");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    machines.iter().for_each(|(_, door)| door.abort());
}

/// Machines that the controller names for this image, and where.
async fn sharing(site: &Site, image: &Image) -> Vec<(NodeId, SocketAddr)> {
    let mut tx = site.server.state.service.store.read().await.unwrap();
    let members = tx.sharing(&image.sha256, &image.origin.to_string()).await.unwrap();
    members.into_iter().filter_map(|m| Some((m.node, m.address?))).collect()
}

/// A machine without a task, and whatever it likes to send.
struct Outsider {
    admission: Admission,
    key: PrivateKeyDer<'static>,
}

impl Outsider {
    async fn enrol(site: &Site) -> Self {
        let key = rcgen::KeyPair::generate().unwrap();
        let request = EnrolRequest {
            token: None,
            csr: rcgen::CertificateParams::default().serialize_request(&key).unwrap().pem().unwrap(),
            boot_id: BootId::random(),
            system: SystemVendor { serial_number: "SN-outsider".into(), ..SystemVendor::default() },
            macs: vec!["52:54:00:00:01:00".into()],
            agent_version: "0".into(),
            build: BuildInfo::default(),
            ssh_host_key: None,
            address: None,
        };
        let answer = site.operator.post(format!("{}{}", site.url, path::ENROL)).json(&request).send().await.unwrap();
        match answer.json().await.unwrap() {
            EnrolAnswer::Admitted(admission) => {
                Self { admission, key: PrivateKeyDer::try_from(key.serialize_der()).unwrap() }
            }
            EnrolAnswer::Pending { .. } => panic!("the rule admits it"),
        }
    }

    fn identity(&self) -> tls::Identity {
        let chain = CertificateDer::pem_slice_iter(self.admission.certificate.as_bytes()).map(Result::unwrap);
        tls::Identity { chain: chain.collect(), key: self.key.clone_key() }
    }
}

/// Trusts whoever answers: it is the server that is tried here.
#[derive(Debug)]
struct Anybody;

impl rustls::client::danger::ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &rustls::pki_types::ServerName<'_>,
        _: &[u8],
        _: rustls::pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }
    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        unreachable!("TLS 1.3 only")
    }
    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }
    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        vec![rustls::SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}

fn asker(identity: Option<&tls::Identity>) -> reqwest::Client {
    let config = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody));
    let config = match identity {
        Some(identity) => config.with_client_auth_cert(identity.chain.clone(), identity.key.clone_key()).unwrap(),
        None => config.with_no_client_auth(),
    };
    reqwest::Client::builder().tls_backend_preconfigured(config).no_proxy().build().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_given_anything_whom_the_controller_does_not_name() {
    let dir = tempfile::tempdir().unwrap();
    let (site, image) = (Site::start(dir.path()).await, image(dir.path(), 24 * MIB).await);
    let (_engine, door) = site.machine(dir.path(), 1);
    let disk = Disk::new(dir.path().join("disk"), 24 * MIB);
    let node = site.nodes(1).await.remove(0);
    let order = site.order(&node, &disk, &image, json!({"share_for": 600})).await;
    site.facts(order).await;
    holds(&disk, &image);
    let (giver, address) = sharing(&site, &image).await.remove(0);
    assert_eq!(giver, node.id);

    let outsider = Outsider::enrol(&site).await;
    let identity = outsider.identity();
    let request = ShareRequest {
        epoch: outsider.admission.epoch,
        manifest: image.sha256.clone(),
        origin: image.origin.to_string(),
        address: None,
        switch: None,
        have: SegmentMap::none_of(8),
        segment_bytes: 1,
        fetched_bytes: 0,
        fetched_ms: 0,
        wrong: Vec::new(),
        leaving: false,
    };
    let (known, _) = tls::client(&[site.pin()], Some(&identity), tls::Validity::Checked, tls::Purpose::Api).unwrap();
    let told = known.post(format!("{}{}", site.url, path::SHARE)).json(&request).send().await.unwrap();
    let refused: Value = told.json().await.unwrap();
    assert_eq!(refused["error"]["code"], "order-closed", "no task of its own names the image: {refused}");

    let chunks = format!("https://{address}/v1/chunks/{}/12-12", image.sha256);
    let ask = async |client: &reqwest::Client, permit: Option<Permit>| {
        let request = client.get(&chunks);
        let request = match permit {
            Some(permit) => request.header(PERMIT_HEADER, permit.header()),
            None => request,
        };
        request.send().await
    };
    assert!(ask(&asker(None), None).await.is_err(), "no certificate, no connection");
    let strange = {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name.push(rcgen::DnType::CommonName, outsider.admission.node.to_string());
        params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
        let own = params.self_signed(&key).unwrap();
        tls::Identity { chain: vec![own.der().clone()], key: PrivateKeyDer::try_from(key.serialize_der()).unwrap() }
    };
    assert!(ask(&asker(Some(&strange)), None).await.is_err(), "a certificate of nobody's");

    let client = asker(Some(&identity));
    let now = site.server.state.service.store.read().await.unwrap().now();
    let ca = &site.server.state.service.ca;
    let permit = |node, until| Some(ca.permit(&image.sha256, node, until).unwrap());
    for (who, permit) in [
        ("without a permit", None),
        ("with another's", permit(node.id, now + 60_000)),
        ("with one that has ended", permit(outsider.admission.node, now - 5_000)),
        ("with a forged one", Some(Permit { until_ms: now + 60_000, signature: "AAAA".into() })),
    ] {
        let answer = ask(&client, permit).await.unwrap();
        assert_eq!(answer.status(), StatusCode::FORBIDDEN, "{who}");
        assert!(answer.bytes().await.unwrap().is_empty(), "{who}");
    }
    // The same machine, once it is named.
    let answer = ask(&client, permit(outsider.admission.node, now + 60_000)).await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    let given = answer.bytes().await.unwrap();
    let at = 12 * (256 << 10);
    assert!(given[..] == image.bytes[at..at + (256 << 10)], "the chunk as it is on the disk");

    // Of what the disk holds beside the image's chunks nothing is given: neither what is held back until the end, nor
    // zeroes, nor what somebody writes there later.
    let get = async |what: &str| {
        let url = format!("https://{address}/v1/chunks/{}/{what}", image.sha256);
        let header = permit(outsider.admission.node, now + 60_000).unwrap().header();
        client.get(url).header(PERMIT_HEADER, header).send().await.unwrap().status()
    };
    for (what, status) in
        [("0", 404), ("24", 404), ("95", 404), ("99999", 404), ("12-90", 404), ("x", 400), ("3-2", 400)]
    {
        assert_eq!(get(what).await.as_u16(), status, "{what}");
    }
    let device = std::fs::OpenOptions::new().write(true).open(&disk.device).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&device, b"a customer's secret", at as u64).unwrap();
    device.sync_all().unwrap();
    assert_eq!(get("12").await.as_u16(), 404);
    let other = format!("https://{address}/v1/have/{}", "0".repeat(64));
    let header = ca.permit(&"0".repeat(64), outsider.admission.node, now + 60_000).unwrap().header();
    assert_eq!(client.get(other).header(PERMIT_HEADER, header).send().await.unwrap().status(), StatusCode::NOT_FOUND);

    // The next task closes the port.
    let path = path::NODE_ORDERS.replace("{node}", &node.id.to_string());
    let next: OrderView = site.post(&path, &json!({"tasks": [{"task": "inventory"}]})).await;
    let end = Instant::now() + LIMIT;
    while std::net::TcpStream::connect(address).is_ok() {
        assert!(Instant::now() < end, "order {} has begun", next.order.id);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(node.epoch, Epoch(1));
    door.abort();
}

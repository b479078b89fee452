//! The log arrives at a real syslog server, rsyslogd, by UDP, TCP and TLS, and is understood there.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::net::{TcpListener, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, IsCa, KeyPair};
use speediso_agent::console::board::Board;
use speediso_agent::logs::Logs;
use speediso_agent::syslog::{self, Origin, SyslogTarget};
use speediso_agent::tls;
use speediso_model::log::LogLevel;

/// Longer than any of these takes on a busy machine.
const SOON: Duration = Duration::from_secs(60);

/// As Debian has it.
const SERVER: &str = "/usr/sbin/rsyslogd";

struct Server {
    dir: tempfile::TempDir,
    process: Child,
    udp: u16,
    tcp: u16,
    tls: u16,
    ca: [u8; 32],
}

impl Server {
    fn start() -> Self {
        assert!(Path::new(SERVER).exists(), "{SERVER} is missing: run deps.sh");
        let dir = tempfile::tempdir().unwrap();
        let ca = certificates(dir.path());
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        // Held together, so that they differ.
        let held = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let [tcp, tls] = [&held[0], &held[1]].map(|l| l.local_addr().unwrap().port());
        drop(held);
        let at = |name: &str| dir.path().join(name).display().to_string();
        let config = format!(
            r#"global(workDirectory="{}" defaultNetstreamDriver="ossl" defaultNetstreamDriverCAFile="{}"
                   defaultNetstreamDriverCertFile="{}" defaultNetstreamDriverKeyFile="{}")
            module(load="imudp") module(load="imptcp")
            module(load="imtcp" StreamDriver.Name="ossl" StreamDriver.Mode="1" StreamDriver.AuthMode="anon")
            template(name="t" type="string"
                string="%inputname%|%syslogseverity-text%|%syslogfacility-text%|%hostname%|%app-name%|%structured-data%|%msg%\n")
            input(type="imudp" address="127.0.0.1" port="{udp}" ruleset="all")
            input(type="imptcp" address="127.0.0.1" port="{tcp}" ruleset="all")
            input(type="imtcp" address="127.0.0.1" port="{tls}" ruleset="all")
            ruleset(name="all") {{ action(type="omfile" file="{}" template="t") }}
            "#,
            dir.path().display(),
            at("ca.pem"),
            at("server.pem"),
            at("server.key"),
            at("received"),
        );
        fs::write(dir.path().join("rsyslog.conf"), config).unwrap();
        let process = spawn(dir.path());
        Self { dir, process, udp, tcp, tls, ca }
    }

    fn received(&self) -> Vec<String> {
        let text = fs::read(self.dir.path().join("received")).unwrap_or_default();
        String::from_utf8_lossy(&text).lines().map(str::to_owned).collect()
    }

    /// Waits until so many lines came by this way.
    async fn wait(&self, input: &str, n: usize) -> Vec<String> {
        let end = Instant::now() + SOON;
        loop {
            let lines: Vec<String> = self.received().into_iter().filter(|l| l.starts_with(input)).collect();
            if lines.len() >= n {
                return lines;
            }
            assert!(Instant::now() < end, "{n} lines by {input}; there are: {:#?}\n{}", self.received(), self.said());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    fn said(&self) -> String {
        fs::read_to_string(self.dir.path().join("said")).unwrap_or_default()
    }

    fn stop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = fs::remove_file(self.dir.path().join("pid"));
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

fn spawn(dir: &Path) -> Child {
    let said = fs::File::options().create(true).append(true).open(dir.join("said")).unwrap();
    Command::new(SERVER)
        .args(["-n", "-f"])
        .arg(dir.join("rsyslog.conf"))
        .arg("-i")
        .arg(dir.join("pid"))
        .stdin(Stdio::null())
        .stdout(said.try_clone().unwrap())
        .stderr(said)
        .spawn()
        .unwrap()
}

/// A CA, and a server's certificate for 127.0.0.1 with the CA behind it. Returns what is pinned.
fn certificates(dir: &Path) -> [u8; 32] {
    let named = |name: &str, names: &[String]| {
        let mut params = CertificateParams::new(names.to_vec()).unwrap();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params
    };
    let mut params = named("test CA", &[]);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let server = named("log", &["127.0.0.1".to_owned()]).signed_by(&key, &ca).unwrap();
    fs::write(dir.join("ca.pem"), ca.pem()).unwrap();
    fs::write(dir.join("server.pem"), format!("{}{}", server.pem(), ca.pem())).unwrap();
    fs::write(dir.join("server.key"), key.serialize_pem()).unwrap();
    tls::sha256(ca.der())
}

fn origin() -> Origin {
    Origin { serial: "S\"4711]".into(), boot: "b1".into(), build: 42, host: "web1".into() }
}

fn send(logs: &Logs, target: &str, pin: [u8; 32]) {
    let target: SyslogTarget = target.parse().unwrap();
    tokio::spawn(syslog::send(logs.clone(), target, vec![pin], origin(), Board::default()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_server_understands_it_by_udp_tcp_and_tls() {
    let server = Server::start();
    let logs = Logs::default();
    // Datagrams to a server that is not there yet are lost: first by TCP, which tries until it answers.
    send(&logs, &format!("tcp://127.0.0.1:{}", server.tcp), server.ca);
    logs.say(LogLevel::Info, "first");
    server.wait("imptcp", 1).await;

    // Somebody in between, with another CA: gets nothing.
    send(&logs, &format!("tls://127.0.0.1:{}", server.tls), [7; 32]);
    send(&logs, &format!("udp://127.0.0.1:{}", server.udp), server.ca);
    for n in 0..50 {
        logs.say(LogLevel::Warn, &format!("line {n} with speediso.token=CANARY, \u{e4}"));
    }
    let by_udp = server.wait("imudp", 51).await;
    let by_tcp = server.wait("imptcp", 51).await;
    assert!(server.received().iter().all(|l| !l.starts_with("imtcp")), "a wrong CA was trusted");
    send(&logs, &format!("tls://127.0.0.1:{}", server.tls), server.ca);
    let by_tls = server.wait("imtcp", 51).await;
    for lines in [&by_udp, &by_tcp, &by_tls] {
        let line = lines.iter().find(|l| l.contains("line 7 ")).unwrap();
        let fields: Vec<&str> = line.splitn(7, '|').collect();
        assert_eq!(&fields[1..5], ["warning", "daemon", "web1", "speediso-agent"], "{line}");
        assert!(fields[5].contains("[speediso@32473 serial=\"S\\\"4711\\]\" boot=\"b1\" build=\"42\""), "{line}");
        assert!(fields[6].contains("line 7 with speediso.token=(secret), \u{e4}"), "{line}");
    }
    let order = |lines: &[String]| -> Vec<String> {
        lines.iter().filter_map(|l| l.split("sequenceId=\"").nth(1)?.split('"').next().map(str::to_owned)).collect()
    };
    let counted: Vec<String> = (1..=51).map(|n: u32| n.to_string()).collect();
    assert_eq!((order(&by_tcp), order(&by_tls)), (counted.clone(), counted));
    assert!(!server.received().join("\n").contains("CANARY"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_was_away_gets_what_was_said_meanwhile() {
    let mut server = Server::start();
    let logs = Logs::default();
    send(&logs, &format!("tls://127.0.0.1:{}", server.tls), server.ca);
    logs.say(LogLevel::Info, "before");
    server.wait("imtcp", 1).await;
    server.stop();
    for n in 0..5 {
        logs.say(LogLevel::Error, &format!("away {n}"));
    }
    // More than is kept: what is lost is said, not passed over.
    for _ in 0..10_000 {
        logs.say(LogLevel::Debug, &"x".repeat(100));
    }
    logs.say(LogLevel::Info, "after");
    server.process = spawn(server.dir.path());
    let end = Instant::now() + SOON;
    while !server.received().iter().any(|l| l.ends_with("after")) {
        assert!(Instant::now() < end, "{:?}\n{}", server.received().len(), server.said());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let received = server.received();
    let lost = received.iter().find(|l| l.contains("lines of the log were lost")).unwrap();
    assert!(lost.contains("warning"), "{lost}");
}

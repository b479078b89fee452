//! A network to look at.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use speediso_agent::doctor::{Examination, screen};
use speediso_agent::tls::sha256;
use speediso_controller::server::{Server, Settings};
use speediso_model::network::{CheckKind, NetworkReport, Verdict};
use speediso_sys::roots::Roots;

use crate::netns::wire::{Trouble, Wire};
use crate::netns::{self, Far, MAC};

pub(crate) const URL: &str = "https://boot.example:8443";
pub(crate) const NAME: &str = "--address=/boot.example/192.0.2.1";

/// A network with a controller in it, as far as a test wants one.
pub(crate) struct Net {
    dir: tempfile::TempDir,
    pub(crate) far: Far,
}

impl Net {
    pub(crate) fn new() -> Self {
        Self::over(Far::joined("near0", MAC, "192.0.2.1/24"))
    }

    /// Over a wire that is worse than a cable.
    pub(crate) fn rough(trouble: Trouble) -> (Self, Wire) {
        let (far, wire) = Far::joined_by("near0", MAC, "192.0.2.1/24", trouble);
        (Self::over(far), wire)
    }

    fn over(far: Far) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        // The system's resolver reads one path only: this thread sees another file there.
        unshare(CloneFlags::CLONE_NEWNS).expect("root");
        let none = None::<&str>;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).expect("private mounts");
        fs::write(dir.path().join("resolv.conf"), "").expect("written");
        mount(Some(&dir.path().join("resolv.conf")), "/etc/resolv.conf", none, MsFlags::MS_BIND, none)
            .expect("mounted");
        Self { dir, far }
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The real one; returns its CA's fingerprint.
    pub(crate) fn controller(&self) -> [u8; 32] {
        self.controller_at(SocketAddr::from(([192, 0, 2, 1], 8443)), URL)
    }

    pub(crate) fn controller_at(&self, listen: SocketAddr, url: &'static str) -> [u8; 32] {
        let (tell, told) = mpsc::channel();
        let directory = self.path().to_owned();
        self.far.run(move || {
            // A thread made here is in the far namespace too, and ends with the test's process.
            thread::spawn(move || serve(&directory, listen, url, &tell));
        });
        told.recv_timeout(Duration::from_secs(20)).expect("the controller starts")
    }

    pub(crate) fn named_servers(&self, servers: &[&str]) {
        let text: String = servers.iter().map(|server| format!("nameserver {server}\n")).collect();
        fs::write(self.path().join("resolv.conf"), text).expect("written");
    }

    pub(crate) fn examine(&self, controller: &str, pins: Vec<[u8; 32]>) -> NetworkReport {
        self.with(controller, pins, |examination| examination)
    }

    pub(crate) fn with(
        &self,
        controller: &str,
        pins: Vec<[u8; 32]>,
        change: impl FnOnce(Examination) -> Examination,
    ) -> NetworkReport {
        let examination = change(Examination {
            roots: Roots::live(),
            resolv_conf: PathBuf::from("/etc/resolv.conf"),
            controller: Some(controller.to_owned()),
            pins,
            nic: None,
            expects_dhcp: true,
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let before = configuration();
        let report = runtime.block_on(examination.run()).expect("looked at");
        assert!(report.took_ms < 20_000, "{} ms", report.took_ms);
        assert_eq!(before, configuration(), "nothing may be changed by looking");
        println!("{}", screen(&report));
        report
    }
}

/// What a look must leave as it is: addresses, routes, MTUs. What the kernel does by itself as a link comes up, and
/// lifetimes that count down, are left out.
fn configuration() -> String {
    let mut text = String::new();
    for what in ["-o addr show", "route show", "-6 route show"] {
        let shown = netns::shown(what);
        for line in shown.lines().filter(|line| !line.contains("fe80::") && !line.contains("multicast")) {
            text.push_str(line.split("valid_lft").next().unwrap_or(line).split(" expires").next().unwrap_or(line));
            text.push('\n');
        }
    }
    for line in netns::shown("-o link show").lines() {
        text.push_str(line.split("> ").nth(1).and_then(|rest| rest.split(" qdisc").next()).unwrap_or(line));
        text.push('\n');
    }
    text
}

fn serve(directory: &Path, listen: SocketAddr, url: &str, tell: &mpsc::Sender<[u8; 32]>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let (data, boot_files) = (directory.join("controller"), directory.join("boot"));
    fs::create_dir(&boot_files).expect("made");
    runtime.block_on(async {
        let server = Server::start(Settings {
            data,
            listen,
            boot_listen: SocketAddr::new(listen.ip(), 8080),
            url: Some(url.to_owned()),
            boot_url: None,
            boot_files,
            boot_addon: false,
            ssh_keys: Vec::new(),
            ssh: Default::default(),
            idle_reboot: None,
            link_test_ports: None,
            pci_ids: None,
        });
        let server = server.await.expect("it starts");
        tell.send(sha256(server.state.service.ca.certificate())).expect("somebody waits");
        // It ends with the test's process.
        server.run(std::future::pending()).await.expect("it serves");
    });
}

#[track_caller]
pub(crate) fn expect(report: &NetworkReport, check: CheckKind, verdict: Verdict, text: &str) {
    let found: Vec<_> = report.checks.iter().filter(|c| c.check == check).collect();
    assert!(
        found.iter().any(|c| c.verdict == verdict && c.text.contains(text)),
        "no {} {} with {text:?} among {found:#?}",
        verdict.word(),
        check.name()
    );
    if verdict >= Verdict::Warning {
        assert!(
            found.iter().all(|c| c.verdict < Verdict::Warning || !c.advice.is_empty()),
            "without advice: {found:?}"
        );
    }
}

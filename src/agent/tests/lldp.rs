//! Neighbours for real: two ends of a veth pair in a network of their own, with lldpd, which is not ours, at the other.
//! Needs root and the Debian package lldpd, and fails without.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, unshare};
use speediso_agent::lldp::{Speaker, begin};
use speediso_model::lldp::{Heard, IdentifierKind, Neighbour, processed, switch_of};
use speediso_sys::lldp::Memory;
use speediso_sys::roots::Roots;

const SOON: Duration = Duration::from_secs(90);

/// Runs `ip` in this thread's network, which a child inherits.
fn ip(arguments: &str) {
    let output = Command::new("ip").args(arguments.split(' ')).output().expect("iproute2 is needed");
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

/// The other side, which says that it is a bridge.
struct Lldpd {
    child: Child,
    socket: PathBuf,
}

impl Lldpd {
    fn on(interface: &str, dir: &Path) -> Self {
        let socket = dir.join("lldpd.socket");
        let child = Command::new("/usr/sbin/lldpd")
            .args(["-d", "-I", interface, "-S", "A switch of the tests", "-P", "test"])
            .args(["-C", interface, "-m", "192.0.2.12", "-u"])
            .arg(&socket)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the Debian package lldpd is needed; ./deps.sh installs it");
        let this = Self { child, socket };
        this.until(|this| this.client(&["show", "configuration"]).is_some(), "lldpd does not start");
        this
    }

    /// `None` while it does not answer.
    fn client(&self, arguments: &[&str]) -> Option<String> {
        let output = Command::new("/usr/sbin/lldpcli").arg("-u").arg(&self.socket).args(arguments).output().unwrap();
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn until(&self, is_so: impl Fn(&Self) -> bool, otherwise: &str) {
        let begun = Instant::now();
        while !is_so(self) {
            assert!(begun.elapsed() < SOON, "{otherwise}");
            thread::sleep(Duration::from_millis(100));
        }
    }
}

impl Drop for Lldpd {
    fn drop(&mut self) {
        // Asked, so that its unprivileged half ends with it.
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.child.id()).unwrap_or(i32::MAX));
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        let _ = self.child.wait();
    }
}

fn in_a_network_of_our_own(test: impl FnOnce() + Send + 'static) {
    let run = move || {
        unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWUTS)
            .expect("this test makes namespaces: run it as root");
        nix::unistd::sethostname("machine-7").unwrap();
        test();
    };
    if let Err(panic) = thread::spawn(run).join() {
        std::panic::resume_unwind(panic);
    }
}

#[test]
fn lldpd_and_we_understand_each_other() {
    in_a_network_of_our_own(|| {
        let dir = tempfile::tempdir().unwrap();
        ip("link add near address 02:00:00:00:00:0a type veth peer name far address 02:00:00:00:00:0b");
        // Down, and left so.
        ip("link add asleep type veth peer name asleep-far");
        ip("link set near up");
        ip("link set far up");
        let roots = Roots { run: dir.path().join("run"), sys: dir.path().join("no-sysfs"), ..Roots::live() };
        let speaker = Speaker { serial: "CZ3029XKLM".into(), build: "Speediso build 7".into() };
        let mut heard = begin(roots.clone(), Some(speaker)).unwrap();
        let lldpd = Lldpd::on("far", dir.path());
        lldpd.client(&["configure", "system", "hostname", "leaf-12"]).unwrap();
        lldpd.client(&["configure", "ports", "far", "lldp", "portidsubtype", "local", "Ethernet7/1"]).unwrap();
        lldpd.client(&["configure", "system", "capabilities", "enabled", "bridge,router"]).unwrap();
        lldpd.client(&["update"]).unwrap();

        // What it says of itself, by its own account, is what we heard.
        let mut last = Vec::<Heard>::new();
        let begun = Instant::now();
        let found = loop {
            assert!(begun.elapsed() < SOON, "we heard {last:#?}");
            last = heard.borrow_and_update().clone();
            let ready = |h: &&Heard| {
                let n = &h.neighbour;
                h.interface == "near"
                    && n.system_name.as_deref() == Some("leaf-12")
                    && n.port.value == "Ethernet7/1"
                    && n.forwards()
            };
            if let Some(found) = last.iter().find(ready) {
                break found.clone();
            }
            thread::sleep(Duration::from_millis(100));
        };
        let said = lldpd.client(&["-f", "keyvalue", "show", "chassis", "details"]).unwrap();
        let value = |key: &str| {
            let key = format!("local-chassis.chassis.{key}=");
            said.lines().find_map(|l| l.strip_prefix(&key)).map(str::to_owned)
        };
        println!("{said}\n{:#?}", found.neighbour);
        assert_eq!(Some(found.neighbour.chassis.value.clone()), value("mac"));
        assert_eq!(found.neighbour.chassis.kind, IdentifierKind::Mac);
        assert_eq!(found.neighbour.system_description, value("descr"));
        assert_eq!(found.neighbour.management_addresses.first().cloned(), value("mgmt-ip"));
        assert_eq!(found.neighbour.ttl_seconds, 120);
        assert_eq!(found.neighbour.discarded, 0);
        assert_eq!(processed(&found.neighbour)["switch_system_name"], "leaf-12");
        assert_eq!(Memory::read(&roots).unwrap().heard, last, "what others read is what was heard");
        // We speak on the far end too: that is another machine there, and not what we are plugged into.
        let near: Vec<Neighbour> = last.iter().filter(|h| h.interface == "near").map(|h| h.neighbour.clone()).collect();
        assert_eq!(switch_of(&near), Some(&found.neighbour));
        assert_eq!(found.neighbour.in_words(), "leaf-12 port Ethernet7/1");

        // And the other way round.
        lldpd.until(
            |lldpd| {
                lldpd
                    .client(&["-f", "keyvalue", "show", "neighbors", "details"])
                    .is_some_and(|t| t.contains("CZ3029XKLM"))
            },
            "lldpd does not hear us",
        );
        let told = lldpd.client(&["-f", "keyvalue", "show", "neighbors", "details"]).unwrap();
        println!("{told}");
        for line in [
            "lldp.far.chassis.local=CZ3029XKLM",
            "lldp.far.chassis.name=machine-7",
            "lldp.far.chassis.descr=Speediso build 7",
            "lldp.far.port.mac=02:00:00:00:00:0a",
            "lldp.far.port.descr=near",
            "lldp.far.chassis.Station.enabled=on",
        ] {
            assert!(told.lines().any(|l| l == line), "{line} is not in\n{told}");
        }
        assert!(!told.contains("asleep"));
        let link = Command::new("ip").args(["-o", "link", "show", "asleep"]).output().unwrap();
        assert!(!String::from_utf8_lossy(&link.stdout).contains(",UP"), "nobody brought it up");

        // A cable that is pulled takes its neighbour along.
        ip("link set near down");
        let begun = Instant::now();
        while heard.borrow_and_update().iter().any(|h| h.interface == "near") {
            assert!(begun.elapsed() < SOON, "it stays");
            thread::sleep(Duration::from_millis(100));
        }
    });
}

#[test]
fn without_a_voice_nothing_is_said() {
    in_a_network_of_our_own(|| {
        let dir = tempfile::tempdir().unwrap();
        ip("link add near type veth peer name far");
        ip("link set near up");
        ip("link set far up");
        let mute = Roots { run: dir.path().join("mute"), ..Roots::live() };
        let other = Roots { run: dir.path().join("other"), ..Roots::live() };
        // Both hear on both ends, one of them speaks: whatever is heard is its word.
        let mut heard = begin(mute, None).unwrap();
        let speaker = Speaker { serial: "SPEAKS-1".into(), build: String::new() };
        let _speaks = begin(other, Some(speaker)).unwrap();
        let begun = Instant::now();
        while heard.borrow_and_update().len() < 2 {
            assert!(begun.elapsed() < SOON, "{:?}", heard.borrow());
            thread::sleep(Duration::from_millis(100));
        }
        assert!(heard.borrow().iter().all(|h| h.neighbour.chassis.value == "SPEAKS-1" && !h.neighbour.forwards()));
    });
}

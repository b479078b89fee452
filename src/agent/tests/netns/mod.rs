//! Network namespaces joined by veth pairs, and dnsmasq in the far one. Needs root and dnsmasq.
//!
//! A namespace belongs to a thread, so each test runs its side in a thread of its own with a runtime on it, and nothing
//! outside is touched.

#![allow(dead_code, reason = "each test uses its part")]

pub(crate) mod wire;

use std::fs;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::socket::{setsockopt, sockopt};
use nix::unistd::Pid;
use wire::{Trouble, Wire};

pub(crate) const MAC: &str = "02:00:00:00:00:0a";

/// Runs `test` in a thread with its own network and host name, bounded in time.
pub(crate) fn isolated(test: impl FnOnce() + Send + 'static) {
    let running = thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWUTS)
            .expect("this test makes network namespaces: run it as root");
        ip("link set lo up");
        test();
    });
    let begun = Instant::now();
    while !running.is_finished() {
        assert!(begun.elapsed() < Duration::from_secs(60), "the test hangs");
        thread::sleep(Duration::from_millis(20));
    }
    if let Err(panic) = running.join() {
        std::panic::resume_unwind(panic);
    }
}

/// Runs `ip` in this thread's namespace, which a child inherits.
pub(crate) fn ip(arguments: &str) {
    let output = Command::new("ip").args(arguments.split(' ')).output().expect("iproute2 is needed");
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Checksums made and segments cut before a frame leaves the interface.
fn whole_frames(interface: &str) {
    let output = Command::new("ethtool").args(["-K", interface, "tx", "off"]).output().expect("ethtool is needed");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// A second network at the other end of a veth pair: a thread that lives in it and runs what it is given.
pub(crate) struct Far {
    namespace: fs::File,
    _holder: JoinHandle<()>,
    done: Arc<AtomicBool>,
}

impl Far {
    /// `near` appears here with `mac`, its peer `far0` there with `address`.
    pub(crate) fn joined(near: &str, mac: &str, address: &str) -> Self {
        let (far, tid) = Self::apart();
        ip(&format!("link add {near} address {mac} type veth peer name far0 netns {tid}"));
        far.addressed(address);
        far
    }

    /// The same, but every frame goes through a program that troubles it.
    pub(crate) fn joined_by(near: &str, mac: &str, address: &str, trouble: Trouble) -> (Self, Wire) {
        let (far, tid) = Self::apart();
        ip(&format!("link add {near} address {mac} type veth peer name port0 netns {tid}"));
        // Within one kernel checksums are left to a card that never comes; what is read as bytes needs them.
        whole_frames(near);
        let done = Arc::clone(&far.done);
        let wire = far.run(move || {
            ip("link add far0 type veth peer name port1");
            whole_frames("far0");
            for port in ["port0", "port1"] {
                // They are wire, and have nothing to say of their own.
                ip(&format!("link set {port} arp off addrgenmode none up"));
            }
            Wire::lay("port0", "port1", trouble, &done)
        });
        far.addressed(address);
        (far, wire)
    }

    /// Joined to nothing; with the thread that lives there, to which interfaces can be given.
    pub(crate) fn apart() -> (Self, Pid) {
        let done = Arc::new(AtomicBool::new(false));
        let (sender, receiver) = std::sync::mpsc::channel();
        let ends = Arc::clone(&done);
        let holder = thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).expect("root");
            sender
                .send((nix::unistd::gettid(), fs::File::open("/proc/thread-self/ns/net").expect("procfs")))
                .expect("sent");
            while !ends.load(Ordering::Relaxed) {
                thread::sleep(Duration::from_millis(20));
            }
        });
        let (tid, namespace) = receiver.recv().expect("the far side lives");
        let far = Self { namespace, _holder: holder, done };
        far.run(|| ip("link set lo up"));
        (far, tid)
    }

    fn addressed(&self, address: &str) {
        let address = address.to_owned();
        self.run(move || {
            ip(&format!("addr add {address} dev far0"));
            ip("link set far0 up");
        });
    }

    /// Runs something there and waits for it.
    pub(crate) fn run<T: Send + 'static>(&self, what: impl FnOnce() -> T + Send + 'static) -> T {
        let namespace = self.namespace.try_clone().expect("cloned");
        thread::spawn(move || {
            setns(namespace.as_fd(), CloneFlags::CLONE_NEWNET).expect("root");
            what()
        })
        .join()
        .expect("the far side does its part")
    }

    /// Serves IPv4 addresses, and what `more` says.
    pub(crate) fn dnsmasq(&self, dir: &Path, more: &[&str]) -> Server {
        self.dnsmasq_with(dir, &[&["--dhcp-range=192.0.2.100,192.0.2.110,255.255.255.0,1h"], more].concat())
    }

    pub(crate) fn dnsmasq_with(&self, dir: &Path, more: &[&str]) -> Server {
        self.dnsmasq_plain(dir, &[&["--interface=far0"], more].concat())
    }

    /// Only what `more` says.
    pub(crate) fn dnsmasq_plain(&self, dir: &Path, more: &[&str]) -> Server {
        let mut arguments: Vec<String> = [
            "--keep-in-foreground",
            "--conf-file=/dev/null",
            "--no-ping",
            "--log-dhcp",
            "--log-facility=-",
            "--user=root",
            "--no-resolv",
            "--no-hosts",
            "--bind-dynamic",
            "--dhcp-authoritative",
        ]
        .map(str::to_owned)
        .to_vec();
        if !more.iter().any(|argument| argument.starts_with("--port=")) {
            arguments.push("--port=0".to_owned());
        }
        arguments.push(format!("--dhcp-leasefile={}", dir.join("leases").display()));
        arguments.push("--pid-file=".to_owned());
        arguments.extend(more.iter().map(|a| (*a).to_owned()));
        let log = dir.join("dnsmasq.log");
        let file = fs::File::create(&log).expect("a log");
        let child = self.run(move || {
            Command::new("dnsmasq")
                .args(arguments)
                .stdout(Stdio::null())
                .stderr(file)
                .spawn()
                .expect("dnsmasq is needed for this test: install dnsmasq-base")
        });
        Server { child, log }
    }

    /// A server of our own: answers every packet with what `answer` makes of it, until the test ends.
    pub(crate) fn responder(&self, mut answer: impl FnMut(&[u8]) -> Vec<Vec<u8>> + Send + 'static) {
        let done = Arc::clone(&self.done);
        let socket = self.run(|| {
            let socket = UdpSocket::bind("0.0.0.0:67").expect("the server's port");
            setsockopt(&socket, sockopt::BindToDevice, &"far0".into()).expect("bound to the interface");
            socket.set_broadcast(true).expect("may broadcast");
            socket.set_read_timeout(Some(Duration::from_millis(50))).expect("bounded");
            socket
        });
        // Without waiting for it: it ends with the far side, within its read timeout.
        thread::spawn(move || {
            let mut packet = [0; 2048];
            while !done.load(Ordering::Relaxed) {
                let Ok((length, _)) = socket.recv_from(&mut packet) else { continue };
                for reply in answer(&packet[..length]) {
                    let _ = socket.send_to(&reply, SocketAddrV4::new(Ipv4Addr::BROADCAST, 68));
                }
            }
        });
    }
}

impl Drop for Far {
    fn drop(&mut self) {
        self.done.store(true, Ordering::Relaxed);
    }
}

pub(crate) struct Server {
    child: Child,
    log: PathBuf,
}

impl Server {
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn shown(arguments: &str) -> String {
    let output = Command::new("ip").args(arguments.split(' ')).output().expect("iproute2 is needed");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A reply to `request` with these options after type and server.
pub(crate) fn reply(request: &[u8], kind: u8, server: [u8; 4], address: [u8; 4], options: &[&[u8]]) -> Vec<u8> {
    let mut packet = request[..240].to_vec();
    packet[0] = 2;
    packet[16..20].copy_from_slice(&address);
    packet.extend([53, 1, kind, 54, 4]);
    packet.extend(server);
    packet.extend([1, 4, 255, 255, 255, 0]);
    options.iter().for_each(|option| packet.extend(*option));
    packet.push(255);
    packet
}

//! The agent's network, for real: network namespaces joined by a veth pair, dnsmasq as the server on the far side, and
//! hostile servers of our own. Needs root and dnsmasq, and fails without: a network that was not tried is not green.
//!
//! A namespace belongs to a thread, so each test runs its side in a thread of its own with a runtime on it, and nothing
//! outside is touched.

use std::fs;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::socket::{setsockopt, sockopt};
use speediso_agent::net::{Configured, Method, NetConfig, bring_up};
use speediso_model::fault::{Fault, FaultCode};

const MAC: &str = "02:00:00:00:00:0a";

/// Runs `test` in a thread with its own network and host name, bounded in time.
fn isolated(test: impl FnOnce() + Send + 'static) {
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
fn ip(arguments: &str) {
    let output = Command::new("ip").args(arguments.split(' ')).output().expect("iproute2 is needed");
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A second network at the other end of a veth pair: a thread that lives in it and runs what it is given.
struct Far {
    namespace: fs::File,
    _holder: JoinHandle<()>,
    done: Arc<AtomicBool>,
}

impl Far {
    /// `near` appears here with `mac`, its peer `far0` there with `address`.
    fn joined(near: &str, mac: &str, address: &str) -> Self {
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
        ip(&format!("link add {near} address {mac} type veth peer name far0 netns {tid}"));
        let far = Self { namespace, _holder: holder, done };
        let address = address.to_owned();
        far.run(move || {
            ip("link set lo up");
            ip(&format!("addr add {address} dev far0"));
            ip("link set far0 up");
        });
        far
    }

    /// Runs something there and waits for it.
    fn run<T: Send + 'static>(&self, what: impl FnOnce() -> T + Send + 'static) -> T {
        let namespace = self.namespace.try_clone().expect("cloned");
        thread::spawn(move || {
            setns(namespace.as_fd(), CloneFlags::CLONE_NEWNET).expect("root");
            what()
        })
        .join()
        .expect("the far side does its part")
    }

    fn dnsmasq(&self, dir: &Path, more: &[&str]) -> Server {
        let mut arguments: Vec<String> = [
            "--keep-in-foreground",
            "--conf-file=/dev/null",
            "--port=0",
            "--no-ping",
            "--log-dhcp",
            "--log-facility=-",
            "--user=root",
            "--interface=far0",
            "--bind-dynamic",
            "--dhcp-authoritative",
            "--dhcp-range=192.0.2.100,192.0.2.110,255.255.255.0,1h",
        ]
        .map(str::to_owned)
        .to_vec();
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
    fn responder(&self, mut answer: impl FnMut(&[u8]) -> Vec<Vec<u8>> + Send + 'static) {
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

struct Server {
    child: Child,
    log: PathBuf,
}

impl Server {
    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn config(dir: &Path) -> NetConfig {
    NetConfig {
        carrier_wait: Duration::from_secs(3),
        dhcp_wait: Duration::from_secs(8),
        resolv_conf: dir.join("resolv.conf"),
        ..NetConfig::default()
    }
}

/// Brings the network up on this thread and looks at it while the lease is kept.
fn with_network<T>(config: &NetConfig, look: impl AsyncFnOnce(Result<Configured, Fault>) -> T) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async { look(bring_up(config, |line| println!("console: {line}")).await).await })
}

fn shown(arguments: &str) -> String {
    let output = Command::new("ip").args(arguments.split(' ')).output().expect("iproute2 is needed");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn dnsmasq_gives_an_address_and_all_that_belongs_to_it() {
    isolated(|| {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let far = Far::joined("near0", MAC, "192.0.2.1/24");
        let server = far.dnsmasq(
            dir.path(),
            &[
                &format!("--dhcp-host={MAC},192.0.2.77,node7"),
                "--domain=example.org",
                "--dhcp-option=option:mtu,1400",
                "--dhcp-option=option:dns-server,192.0.2.53",
                "--dhcp-option=121,198.51.100.0/24,192.0.2.9,0.0.0.0/0,192.0.2.1",
            ],
        );
        let config = NetConfig {
            boot_mac: Some("01-02-00-00-00-00-0A".into()),
            hostname: Some("wish".into()),
            ..config(dir.path())
        };
        with_network(&config, async |network| {
            let network = network.unwrap_or_else(|fault| panic!("{fault}\n{}", server.log()));
            assert_eq!((network.nic.as_str(), network.mac.as_str()), ("near0", MAC));
            assert_eq!((network.address, network.prefix), (Ipv4Addr::new(192, 0, 2, 77), 24));
            assert_eq!(network.gateway, Some(Ipv4Addr::new(192, 0, 2, 1)));
            assert_eq!(network.hostname.as_deref(), Some("node7"));
            assert_eq!(nix::unistd::gethostname().expect("a name"), "node7");
            let Method::Dhcp(lease) = &network.method else { panic!("{:?}", network.method) };
            assert_eq!(lease.duration, Some(Duration::from_secs(3600)));
            assert_eq!(lease.options[&26], 1400u16.to_be_bytes(), "raw options are kept");
            // Seen in the kernel, not only in our own words.
            assert!(shown("-o addr show dev near0").contains("inet 192.0.2.77/24"));
            assert!(shown("link show dev near0").contains("mtu 1400"));
            let routes = shown("route show");
            assert!(routes.contains("default via 192.0.2.1 dev near0"), "{routes}");
            assert!(routes.contains("198.51.100.0/24 via 192.0.2.9 dev near0"), "{routes}");
            assert_eq!(
                fs::read_to_string(&config.resolv_conf).expect("written"),
                "search example.org\nnameserver 192.0.2.53\n"
            );
            assert!(server.log().contains("client provides name: wish"), "{}", server.log());
            let ping = Command::new("bash").args(["-c", "exec 3<>/dev/udp/192.0.2.1/67"]).status().expect("bash");
            assert!(ping.success(), "the server is reachable by the route");
        });
    });
}

#[test]
fn the_interface_is_the_one_of_bootif_or_the_one_that_answers() {
    isolated(|| {
        let dir = tempfile::tempdir().expect("a temporary directory");
        // Created first and so listed first; nobody answers there.
        let _silent = Far::joined("near0", "02:00:00:00:00:0b", "203.0.113.1/24");
        let far = Far::joined("near1", MAC, "192.0.2.1/24");
        let server = far.dnsmasq(dir.path(), &[]);
        with_network(&config(dir.path()), async |network| {
            let network = network.unwrap_or_else(|fault| panic!("{fault}\n{}", server.log()));
            assert_eq!(network.nic, "near1");
            assert_eq!(network.notes, Vec::<String>::new());
        });
        // BOOTIF decides, even for the worse: another network is not taken in its place.
        let boot = NetConfig {
            boot_mac: Some("02:00:00:00:00:0b".into()),
            dhcp_wait: Duration::from_secs(2),
            ..config(dir.path())
        };
        with_network(&boot, async |network| {
            let fault = network.expect_err("nobody answers there");
            assert_eq!(fault.code, FaultCode::NoDhcp);
            assert!(fault.causes.len() == 1 && fault.causes[0].contains("near0"), "{fault}");
            assert!(fault.causes[0].contains("nothing was heard"), "{fault}");
        });
        // One that is not here leaves the others, with a word.
        let gone = NetConfig { boot_mac: Some("02:00:00:00:00:ff".into()), ..config(dir.path()) };
        with_network(&gone, async |network| {
            let network = network.expect("the other answers");
            assert_eq!(network.nic, "near1");
            assert!(network.notes[0].contains("02:00:00:00:00:ff"), "{:?}", network.notes);
        });
    });
}

#[test]
fn no_link_and_no_interface_are_told_apart() {
    isolated(|| {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let short = NetConfig { carrier_wait: Duration::from_millis(600), ..config(dir.path()) };
        with_network(&short, async |network| {
            let fault = network.expect_err("no interface");
            assert_eq!(fault.code, FaultCode::NoLink);
            assert!(fault.message.contains("no network interface"), "{fault}");
        });
        let far = Far::joined("near0", MAC, "192.0.2.1/24");
        far.run(|| ip("link set far0 down"));
        with_network(&short, async |network| {
            let fault = network.expect_err("no link");
            assert_eq!(fault.code, FaultCode::NoLink);
            assert!(fault.message.contains("near0 (02:00:00:00:00:0a) has no link"), "{fault}");
        });
        // The cable is plugged in late.
        let server = far.dnsmasq(dir.path(), &[]);
        let late = thread::spawn(move || {
            thread::sleep(Duration::from_secs(1));
            far.run(|| ip("link set far0 up"));
            far
        });
        with_network(&config(dir.path()), async |network| {
            network.unwrap_or_else(|fault| panic!("{fault}\n{}", server.log()));
        });
        drop(late.join());
    });
}

#[test]
fn a_static_address_is_set_as_the_command_line_says() {
    isolated(|| {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let _far = Far::joined("near0", MAC, "192.0.2.1/24");
        let ip = "192.0.2.20::192.0.2.1:255.255.255.0:node9::none:192.0.2.53".parse().expect("good");
        let config = NetConfig { ip, ..config(dir.path()) };
        with_network(&config, async |network| {
            let network = network.expect("set");
            assert!(matches!(network.method, Method::Static));
            assert!(shown("-o addr show dev near0").contains("inet 192.0.2.20/24"));
            assert!(shown("route show").contains("default via 192.0.2.1 dev near0"));
            assert_eq!(fs::read_to_string(&config.resolv_conf).expect("written"), "nameserver 192.0.2.53\n");
            assert_eq!(nix::unistd::gethostname().expect("a name"), "node9");
        });
        // With a second link nobody could say which is meant.
        let _second = Far::joined("near1", "02:00:00:00:00:0b", "203.0.113.1/24");
        with_network(&config, async |network| {
            let fault = network.expect_err("ambiguous");
            assert!(fault.advice.contains("BOOTIF"), "{fault}");
        });
        // A live system's own configuration is taken as it is, where that is wanted.
        let adopt = NetConfig { adopt: true, ..config.clone() };
        with_network(&adopt, async |network| {
            let network = network.expect("adopted");
            assert!(matches!(network.method, Method::Adopted));
            assert_eq!(
                (network.address, network.gateway),
                (Ipv4Addr::new(192, 0, 2, 20), Some(Ipv4Addr::new(192, 0, 2, 1)))
            );
        });
    });
}

/// A reply to `request` with these options after type and server.
fn reply(request: &[u8], kind: u8, server: [u8; 4], address: [u8; 4], options: &[&[u8]]) -> Vec<u8> {
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

fn kind_of(request: &[u8]) -> u8 {
    // Our own requests: the message type is found by walking the options.
    let mut area = &request[240..];
    while let [code, length, rest @ ..] = area {
        if *code == 53 {
            return rest[0];
        }
        area = &rest[usize::from(*length)..];
    }
    0
}

#[test]
fn garbage_on_the_wire_neither_stops_nor_fools_us() {
    isolated(|| {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let far = Far::joined("near0", MAC, "192.0.2.1/24");
        let (server, address) = ([192, 0, 2, 1], [192, 0, 2, 66]);
        far.responder(move |request| {
            let foreign = {
                let mut packet = reply(request, 5, server, [192, 0, 2, 99], &[]);
                packet[4] ^= 0xff;
                packet
            };
            let mut noise: Vec<Vec<u8>> = vec![
                vec![0xff; 600],
                b"x".to_vec(),
                request[..200].to_vec(),
                request.to_vec(),
                foreign,
                // An option that reaches past the end, an address nobody can have, a mask that is none.
                [&reply(request, 2, server, address, &[])[..254], &[12, 200, 1]].concat(),
                reply(request, 2, [192, 0, 2, 3], [255, 255, 255, 255], &[]),
                reply(request, 2, [192, 0, 2, 3], [127, 0, 0, 1], &[]),
                // An answer to nothing that was asked.
                reply(request, 6, [192, 0, 2, 4], address, &[]),
            ];
            let kind = if kind_of(request) == 1 { 2 } else { 5 };
            noise.push(reply(
                request,
                kind,
                server,
                address,
                &[&[12, 9], b"$(reboot)", &[15, 3], b"a\nb", &[26, 2, 0, 1]],
            ));
            noise
        });
        with_network(&config(dir.path()), async |network| {
            let network = network.expect("the good answer is among them");
            assert_eq!(network.address, Ipv4Addr::from(address));
            assert_eq!(network.hostname, None);
            assert!(network.notes.iter().any(|n| n.contains("host name")), "{:?}", network.notes);
            assert!(network.notes.iter().any(|n| n.contains("an offer that cannot be used")), "{:?}", network.notes);
            assert!(network.notes.len() < 20);
        });
    });
}

#[test]
fn two_servers_are_noted_and_a_refusal_starts_over() {
    isolated(|| {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let far = Far::joined("near0", MAC, "192.0.2.1/24");
        let requests = Arc::new(AtomicU32::new(0));
        let seen = Arc::clone(&requests);
        far.responder(move |request| match kind_of(request) {
            1 => vec![
                reply(request, 2, [192, 0, 2, 1], [192, 0, 2, 66], &[]),
                reply(request, 2, [192, 0, 2, 2], [192, 0, 2, 67], &[]),
            ],
            // The first wish is refused, the second granted.
            _ if seen.fetch_add(1, Ordering::Relaxed) == 0 => vec![reply(request, 6, [192, 0, 2, 1], [0; 4], &[])],
            _ => vec![reply(request, 5, [192, 0, 2, 1], [192, 0, 2, 66], &[])],
        });
        with_network(&config(dir.path()), async |network| {
            let network = network.expect("granted in the end");
            assert_eq!(network.address, Ipv4Addr::new(192, 0, 2, 66));
            assert!(network.notes.iter().any(|n| n.contains("two DHCP servers")), "{:?}", network.notes);
            assert!(network.notes.iter().any(|n| n.contains("then refused")), "{:?}", network.notes);
        });
        assert!(requests.load(Ordering::Relaxed) >= 2);
    });
}

#[test]
fn a_lease_is_renewed_rebound_and_given_up() {
    isolated(|| {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let far = Far::joined("near0", MAC, "192.0.2.1/24");
        // 0: grant; 1: silence; 2: refuse what it gave and offer another address.
        let mood = Arc::new(AtomicU32::new(0));
        let renewals = Arc::new(AtomicU32::new(0));
        let (mood_there, renewals_there) = (Arc::clone(&mood), Arc::clone(&renewals));
        far.responder(move |request| {
            let times: &[&[u8]] = &[&[51, 4, 0, 0, 0, 4, 58, 4, 0, 0, 0, 1, 59, 4, 0, 0, 0, 2]];
            let is_renewal = request[12..16] != [0; 4];
            let mood = mood_there.load(Ordering::Relaxed);
            let address = if mood == 2 { [192, 0, 2, 67] } else { [192, 0, 2, 66] };
            match kind_of(request) {
                _ if mood == 1 => vec![],
                1 => vec![reply(request, 2, [192, 0, 2, 1], address, times)],
                3 if is_renewal => {
                    renewals_there.fetch_add(1, Ordering::Relaxed);
                    vec![reply(request, if mood == 2 { 6 } else { 5 }, [192, 0, 2, 1], address, times)]
                }
                _ => vec![reply(request, 5, [192, 0, 2, 1], address, times)],
            }
        });
        let has = |address: &str| shown("-o addr show dev near0").contains(&format!("inet {address}/24"));
        with_network(&config(dir.path()), async |network| {
            let _kept = network.expect("granted");
            let eventually = async |what: &str, is_so: &dyn Fn() -> bool| {
                let begun = Instant::now();
                while !is_so() {
                    assert!(begun.elapsed() < Duration::from_secs(12), "not within 12 s: {what}");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            };
            eventually("two renewals", &|| renewals.load(Ordering::Relaxed) >= 2).await;
            assert!(has("192.0.2.66"));
            mood.store(1, Ordering::Relaxed);
            eventually("the address is given up when the lease has run out", &|| !has("192.0.2.66")).await;
            mood.store(0, Ordering::Relaxed);
            eventually("asked anew", &|| has("192.0.2.66")).await;
            mood.store(2, Ordering::Relaxed);
            eventually("refused, and another address taken", &|| has("192.0.2.67") && !has("192.0.2.66")).await;
        });
    });
}

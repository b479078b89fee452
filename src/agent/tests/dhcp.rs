//! The agent's network, for real: network namespaces joined by a veth pair, dnsmasq as the server on the far side, and
//! hostile servers of our own. Needs root and dnsmasq, and fails without: a network that was not tried is not green.
//!
//! A namespace belongs to a thread, so each test runs its side in a thread of its own with a runtime on it, and nothing
//! outside is touched.

mod netns;

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use netns::{Far, MAC, ip, isolated, reply, shown};
use speediso_agent::net::{Configured, Goal, Ipv6, Method, NetConfig, bring_up};
use speediso_model::fault::{Fault, FaultCode};

fn four(a: u8, b: u8, c: u8, d: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(a, b, c, d))
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
                // One of the site's own, which nobody asks for.
                "--dhcp-option-force=224,rack 7",
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
            assert_eq!((network.address, network.prefix), (four(192, 0, 2, 77), 24));
            assert_eq!(network.gateway, Some(four(192, 0, 2, 1)));
            assert_eq!(network.hostname.as_deref(), Some("node7"));
            assert_eq!(nix::unistd::gethostname().expect("a name"), "node7");
            let Method::Dhcp(lease) = &network.method else { panic!("{:?}", network.method) };
            assert_eq!(lease.duration, Some(Duration::from_secs(3600)));
            assert_eq!(lease.options[&26], 1400u16.to_be_bytes(), "raw options are kept");
            assert_eq!(lease.options[&224], b"rack 7", "those that mean nothing to us too");
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
        // The interface of the boot is preferred, not insisted upon.
        let boot = NetConfig {
            boot_mac: Some("02:00:00:00:00:0b".into()),
            dhcp_wait: Duration::from_secs(2),
            ..config(dir.path())
        };
        with_network(&boot, async |network| {
            assert_eq!(network.expect("the other answers").nic, "near1");
        });
        // Asked for by name, it is the only one that is asked, and what was tried is said.
        let named = NetConfig { ip: "near0:dhcp".parse().expect("good"), ..boot };
        with_network(&named, async |network| {
            let fault = network.expect_err("nobody answers there");
            assert_eq!(fault.code, FaultCode::NoDhcp);
            assert!(fault.causes.len() == 1 && fault.causes[0].contains("near0"), "{fault}");
            assert!(fault.causes[0].contains("nothing was heard"), "{fault}");
            assert!(fault.causes[0].contains("no router advertised IPv6"), "{fault}");
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
            assert_eq!((network.address, network.gateway), (four(192, 0, 2, 20), Some(four(192, 0, 2, 1))));
        });
    });
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

/// A rogue server is the first to answer, and says everything that some client somewhere acts upon. It gives an address; nobody
/// learns a controller, a time, a proxy, a command or a file from it, and nothing of it is written anywhere.
#[test]
fn a_rogue_server_gives_an_address_and_nothing_else() {
    isolated(|| {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let far = Far::joined("near0", MAC, "192.0.2.1/24");
        let text = |code: u8, text: &str| [&[code, u8::try_from(text.len()).expect("short")], text.as_bytes()].concat();
        let evil = [
            text(12, "a;reboot"),
            text(15, "x$(id).example"),
            text(17, "192.0.2.66:/root"),
            text(43, "speediso.controller=https://192.0.2.66 speediso.ca=sha256:00"),
            text(60, "HTTPClient"),
            text(66, "192.0.2.66"),
            text(67, "../../sbin/init"),
            text(100, "EVIL0"),
            text(114, "https://192.0.2.66/portal"),
            text(160, "https://192.0.2.66/portal"),
            text(209, "pxelinux.cfg/evil"),
            text(210, "tftp://192.0.2.66/"),
            text(252, "http://192.0.2.66/wpad.dat"),
            vec![42, 4, 192, 0, 2, 66],
            vec![4, 4, 192, 0, 2, 66],
            vec![7, 4, 192, 0, 2, 66],
            vec![6, 8, 127, 0, 0, 1, 224, 0, 0, 1],
            vec![2, 4, 0x7f, 0xff, 0xff, 0xff],
        ]
        .concat();
        far.responder(move |request| {
            let kind = if kind_of(request) == 1 { 2 } else { 5 };
            vec![reply(request, kind, [192, 0, 2, 66], [192, 0, 2, 77], &[&evil[..]])]
        });
        let variables = || std::env::vars_os().filter(|(k, _)| k.to_string_lossy().to_lowercase().contains("proxy"));
        let before = (variables().count(), speediso_sys::clock::uptime_ms(), std::time::SystemTime::now());
        with_network(&config(dir.path()), async |network| {
            let network = network.expect("an address is an address");
            assert_eq!(network.address, four(192, 0, 2, 77));
            assert_eq!(network.hostname, None);
            assert!(network.dns.iter().all(|dns| !dns.is_loopback() && !dns.is_multicast()), "{:?}", network.dns);
            assert!(network.notes.iter().any(|note| note.contains("host name")), "{:?}", network.notes);
        });
        let since = Duration::from_millis(speediso_sys::clock::uptime_ms() - before.1);
        let clock = before.2.elapsed().expect("the clock was not set back");
        assert!(clock < since + Duration::from_secs(60), "the clock was set: {clock:?} in {since:?}");
        assert_eq!(variables().count(), before.0);
        let written: Vec<String> = fs::read_dir(dir.path())
            .expect("there")
            .flatten()
            .map(|entry| fs::read_to_string(entry.path()).unwrap_or_default())
            .collect();
        assert!(
            written.iter().all(|text| !text.contains(['$', ';', '|', '`']) && !text.contains("evil")),
            "{written:?}"
        );
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

/// The controller's host is behind the second of two networks that both have a DHCP server.
#[test]
fn the_interface_that_leads_to_the_controller_wins_and_the_other_lease_is_given_back() {
    isolated(|| {
        let dirs = [tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory")];
        let wrong = Far::joined("near0", "02:00:00:00:00:0b", "203.0.113.1/24");
        let wrong_server =
            wrong.dnsmasq(dirs[0].path(), &["--dhcp-range=203.0.113.100,203.0.113.110,255.255.255.0,1h"]);
        let right = Far::joined("near1", MAC, "192.0.2.1/24");
        let right_server = right.dnsmasq(dirs[1].path(), &[]);
        right.run(|| ip("addr add 198.51.100.7/32 dev far0"));
        let config = NetConfig {
            // Booted from the wrong one, which has its head start and does not get there.
            boot_mac: Some("02:00:00:00:00:0b".into()),
            goal: Goal::of_url("https://198.51.100.7:8443"),
            ipv6: Ipv6::Off,
            ..config(dirs[0].path())
        };
        with_network(&config, async |network| {
            let network = network.unwrap_or_else(|f| panic!("{f}\n{}\n{}", wrong_server.log(), right_server.log()));
            assert_eq!((network.nic.as_str(), network.gateway), ("near1", Some(four(192, 0, 2, 1))));
            assert!(!shown("-o addr show dev near0").contains("inet "), "{}", shown("addr"));
            assert!(shown("route get 198.51.100.7").contains("via 192.0.2.1 dev near1"), "{}", shown("route"));
        });
        assert!(wrong_server.log().contains("DHCPRELEASE"), "{}", wrong_server.log());
        assert!(!right_server.log().contains("DHCPRELEASE"), "{}", right_server.log());
        // With net=all both keep what they have.
        with_network(&NetConfig { keep_all: true, ..config }, async |network| {
            assert_eq!(network.expect("both answer").nic, "near1");
            let addresses = shown("-o addr show");
            assert!(addresses.contains("203.0.113.10") && addresses.contains("192.0.2.10"), "{addresses}");
            assert!(shown("route get 198.51.100.7").contains("dev near1"), "{}", shown("route"));
        });
    });
}

#[test]
fn an_address_over_ipv6_comes_from_the_router_or_from_dhcpv6() {
    isolated(|| {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let far = Far::joined("near0", MAC, "2001:db8::1/64");
        let only = NetConfig { ipv6: Ipv6::Only, ..config(dir.path()) };
        // Made from the prefix; the name server is in the advertisement.
        let ra =
            ["--enable-ra", "--dhcp-range=2001:db8::,ra-only,64,1h", "--dhcp-option=option6:dns-server,[2001:db8::53]"];
        let server = far.dnsmasq_with(dir.path(), &ra);
        with_network(&only, async |network| {
            let network = network.unwrap_or_else(|f| panic!("{f}\n{}", server.log()));
            assert_eq!(
                network.address,
                "2001:db8::ff:fe00:a".parse::<IpAddr>().expect("good"),
                "from the card's address"
            );
            assert_eq!(network.method_text(), "from a router's advertisement");
            assert!(shown("-6 route show default").contains("via fe80"), "{}", shown("-6 route"));
            assert_eq!(fs::read_to_string(&only.resolv_conf).expect("written"), "nameserver 2001:db8::53\n");
        });
        drop(server);
        ip("-6 addr flush dev near0 scope global");
        // Lent by the server, as the advertisement says, for as long as it says.
        let managed = [
            "--enable-ra",
            "--dhcp-range=2001:db8::100,2001:db8::1ff,64,1h",
            "--dhcp-option=option6:domain-search,lab.example",
            "--dhcp-option=option6:dns-server,[2001:db8::54]",
        ];
        let server = far.dnsmasq_with(dir.path(), &managed);
        with_network(&only, async |network| {
            let network = network.unwrap_or_else(|f| panic!("{f}\n{}", server.log()));
            assert!(network.address.to_string().starts_with("2001:db8::1"), "{}", network.address);
            assert_eq!((network.prefix, network.method_text().as_str()), (128, "DHCPv6"));
            let names = fs::read_to_string(&only.resolv_conf).expect("written");
            assert!(names.contains("search lab.example") && names.contains("nameserver 2001:db8::54"), "{names}");
        });
    });
}

#[test]
fn both_protocols_are_used_where_both_are() {
    isolated(|| {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let far = Far::joined("near0", MAC, "192.0.2.1/24");
        far.run(|| ip("addr add 2001:db8::1/64 dev far0"));
        let server = far.dnsmasq(
            dir.path(),
            &[
                "--enable-ra",
                "--dhcp-range=2001:db8::,ra-only,64,1h",
                "--dhcp-option=option:dns-server,192.0.2.53",
                "--dhcp-option=119,lab.example",
                "--dhcp-option=42,192.0.2.9",
                "--dhcp-option=option6:dns-server,[2001:db8::53]",
            ],
        );
        let config = config(dir.path());
        with_network(&config, async |network| {
            let network = network.unwrap_or_else(|f| panic!("{f}\n{}", server.log()));
            let Method::Dhcp(lease) = &network.method else { panic!("{:?}", network.method) };
            assert_eq!(lease.ntp, [Ipv4Addr::new(192, 0, 2, 9)]);
            assert!(network.address.is_ipv4(), "known by its IPv4 address");
            let begun = Instant::now();
            let both = || {
                fs::read_to_string(&config.resolv_conf).unwrap_or_default()
                    == "search lab.example\nnameserver 192.0.2.53\nnameserver 2001:db8::53\n"
            };
            while !both() || !shown("-6 -o addr show dev near0 scope global").contains("2001:db8::ff:fe00:a") {
                assert!(
                    begun.elapsed() < Duration::from_secs(12),
                    "{:?}\n{}",
                    fs::read_to_string(&config.resolv_conf),
                    shown("addr")
                );
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        });
        // Switched off, it stays off.
        ip("-6 addr flush dev near0 scope global");
        with_network(&NetConfig { ipv6: Ipv6::Off, ..config.clone() }, async |network| {
            network.expect("granted");
            tokio::time::sleep(Duration::from_millis(1500)).await;
            assert_eq!(shown("-6 -o addr show dev near0 scope global"), "");
        });
    });
}

#[test]
fn a_static_ipv6_address_is_set_as_the_command_line_says() {
    isolated(|| {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let _far = Far::joined("near0", MAC, "2001:db8::1/64");
        let ip = "[2001:db8::20]::[2001:db8::1]:64:node9::none:[2001:db8::53]".parse().expect("good");
        let config = NetConfig { ip, ..config(dir.path()) };
        with_network(&config, async |network| {
            assert_eq!(network.expect("set").address, "2001:db8::20".parse::<IpAddr>().expect("good"));
            assert!(shown("-6 -o addr show dev near0").contains("inet6 2001:db8::20/64"));
            assert!(shown("-6 route show default").contains("via 2001:db8::1 dev near0"), "{}", shown("-6 route"));
            assert_eq!(fs::read_to_string(&config.resolv_conf).expect("written"), "nameserver 2001:db8::53\n");
        });
    });
}

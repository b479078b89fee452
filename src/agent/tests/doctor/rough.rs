//! Wires that lose, delay, repeat and swallow. None of it may be taken for something else.

use std::time::Duration;

use speediso_agent::doctor::Examination;
use speediso_agent::net::{Ipv6, NetConfig, bring_up};
use speediso_model::network::{Check, CheckKind, NetworkReport, Verdict};

use crate::net::{NAME, Net, URL, expect};
use crate::netns::wire::Trouble;
use crate::netns::{Far, ip, isolated};

/// EtherType IPv4, and in its header TCP.
fn is_tcp(frame: &[u8]) -> bool {
    frame.get(12..14) == Some(&[8, 0]) && frame.get(23) == Some(&6)
}

fn only(report: &NetworkReport, check: CheckKind) -> &Check {
    report.checks.iter().find(|c| c.check == check).expect("looked at")
}

fn near(address: &str) {
    ip(&format!("addr add {address} dev near0"));
    ip("link set near0 up");
}

#[test]
fn an_address_is_got_where_every_fifth_frame_is_lost() {
    isolated(|| {
        let trouble = Trouble {
            lost: 200,
            repeated: 100,
            delay: Duration::from_millis(80),
            jitter: Duration::from_millis(80),
            ..Trouble::default()
        };
        let (net, wire) = Net::rough(trouble);
        let server = net.far.dnsmasq(net.path(), &[]);
        let config = NetConfig { resolv_conf: net.path().join("own"), ipv6: Ipv6::Off, ..NetConfig::default() };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        // A handful of frames each: until it was tried in earnest.
        for _ in 0..20 {
            let network = runtime
                .block_on(bring_up(&config, |line| println!("{line}")))
                .unwrap_or_else(|fault| panic!("{fault}\n{}", server.log()));
            assert!(network.address.to_string().starts_with("192.0.2.1"), "{}", network.address);
            // A repeated offer is not a second server.
            assert!(!network.notes.iter().any(|note| note.contains("two DHCP servers")), "{:?}", network.notes);
            if wire.lost() >= 4 && wire.repeated() >= 1 {
                return;
            }
        }
        panic!("only {} frames were lost and {} repeated", wire.lost(), wire.repeated());
    });
}

#[test]
fn a_slow_wire_is_slow_and_nothing_else() {
    isolated(|| {
        let trouble = Trouble {
            repeated: 100,
            delay: Duration::from_millis(100),
            jitter: Duration::from_millis(30),
            ..Trouble::default()
        };
        let (net, wire) = Net::rough(trouble);
        let option = ["--port=53", NAME, "--local=/boot.example/", "--dhcp-option=option:dns-server,192.0.2.1"];
        let _server = net.far.dnsmasq(net.path(), &option);
        let pin = net.controller();
        near("192.0.2.20/24");
        ip("route add default via 192.0.2.1");
        net.named_servers(&["192.0.2.1"]);
        let report = net.examine(URL, vec![pin]);
        for check in [
            CheckKind::Dhcp,
            CheckKind::Address,
            CheckKind::Gateway,
            CheckKind::Dns,
            CheckKind::Tcp,
            CheckKind::PathMtu,
            CheckKind::Tls,
            CheckKind::Http,
            CheckKind::Clock,
        ] {
            expect(&report, check, Verdict::Ok, "");
        }
        for (check, fact) in [(CheckKind::Gateway, "ping_ms"), (CheckKind::Tcp, "took_ms")] {
            let took = only(&report, check).facts[fact].as_u64().expect("measured");
            assert!((200..2000).contains(&took), "{fact}: {took}");
        }
        assert!(wire.repeated() > 0);
    });
}

#[test]
fn large_packets_that_vanish_are_measured_on_a_slow_wire_too() {
    isolated(|| {
        // 1404 bytes of IP, and the Ethernet header.
        let trouble = Trouble {
            delay: Duration::from_millis(150),
            refuses: |frame| frame.len() > 1404 + 14,
            ..Trouble::default()
        };
        let (net, wire) = Net::rough(trouble);
        near("192.0.2.20/24");
        let report = net.with("https://192.0.2.1:9", vec![], |e| Examination { expects_dhcp: false, ..e });
        expect(&report, CheckKind::PathMtu, Verdict::Failed, "packets above 1404 bytes vanish without a word");
        expect(&report, CheckKind::Tcp, Verdict::Failed, "refused");
        assert!(wire.lost() > 0);
    });
}

#[test]
fn a_firewall_on_the_way_is_told_from_a_host_that_is_not_there() {
    isolated(|| {
        let (net, wire) = Net::rough(Trouble { refuses: is_tcp, ..Trouble::default() });
        let pin = net.controller();
        near("192.0.2.20/24");
        ip("route add default via 192.0.2.1");
        let report = net.with("https://192.0.2.1:8443", vec![pin], |e| Examination { expects_dhcp: false, ..e });
        expect(&report, CheckKind::Gateway, Verdict::Ok, "");
        expect(&report, CheckKind::Tcp, Verdict::Failed, "no answer in 3 s");
        assert!(only(&report, CheckKind::Tcp).advice.contains("firewalls"), "{report:#?}");
        expect(&report, CheckKind::PathMtu, Verdict::Ok, "packets of 1500 bytes get through");
        expect(&report, CheckKind::Tls, Verdict::Skipped, "no connection");
        assert!(wire.lost() > 0);
    });
}

/// A router leads to a network of smaller packets, and says so as it should.
#[test]
fn a_path_that_carries_less_and_says_so_is_no_fault() {
    isolated(|| {
        let net = Net::new();
        let (beyond, tid) = Far::apart();
        net.far.run(move || {
            ip(&format!("link add out0 mtu 1400 type veth peer name in0 mtu 1400 netns {tid}"));
            ip("addr add 198.51.100.1/24 dev out0");
            ip("link set out0 up");
            std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").expect("a router");
        });
        beyond.run(|| {
            ip("addr add 198.51.100.7/24 dev in0");
            ip("link set in0 up");
            ip("route add default via 198.51.100.1");
        });
        near("192.0.2.20/24");
        ip("route add default via 192.0.2.1");
        let report = net.with("https://198.51.100.7:9", vec![], |e| Examination { expects_dhcp: false, ..e });
        expect(&report, CheckKind::PathMtu, Verdict::Ok, "1400 bytes, fewer than the 1500 of near0; routers say so");
        expect(&report, CheckKind::Gateway, Verdict::Ok, "");
        expect(&report, CheckKind::Tcp, Verdict::Failed, "refused");
    });
}

//! The network doctor on real networks with one thing wrong in each: namespaces joined by veth pairs, dnsmasq for DHCP
//! and DNS, the real controller. Needs root and dnsmasq, and fails without.

mod net;
#[path = "../netns/mod.rs"]
mod netns;
mod rough;

use std::fs;
use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use net::{NAME, Net, URL, expect};
use netns::{ip, isolated};
use speediso_agent::doctor::{Examination, screen};
use speediso_agent::net::{Ipv6, NetConfig, bring_up};
use speediso_model::network::{CheckKind, NetworkReport, Verdict};
use speediso_sys::ether::Ether;

#[test]
fn a_sound_network_is_all_well() {
    isolated(|| {
        let net = Net::new();
        // Local: a question for IPv6 is answered with "no such address" rather than with a refusal.
        let option = [
            "--port=53",
            NAME,
            "--local=/boot.example/",
            "--dhcp-option=option:dns-server,192.0.2.1",
            "--dhcp-option=42,192.0.2.9",
        ];
        let _server = net.far.dnsmasq(net.path(), &option);
        let pin = net.controller();
        let config = NetConfig { resolv_conf: "/etc/resolv.conf".into(), ipv6: Ipv6::Off, ..NetConfig::default() };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let _kept = runtime.block_on(bring_up(&config, |line| println!("{line}"))).expect("an address");
        let report = net.examine(URL, vec![pin]);
        let told: Vec<String> =
            report.checks.iter().map(|c| format!("{} {}", c.verdict.word(), c.check.name())).collect();
        let well = "ok link, ok errors, skip lldp, ok vlans, ok dhcp, skip ipv6, ok address, ok gateway, ok dns, ok tcp, \
                    ok path-mtu, ok tls, ok http, ok clock, ok proxy";
        assert_eq!(told.join(", "), well, "{report:#?}");
        assert_eq!(report.exit_code(), 0);
        let text = serde_json::to_string(&report).expect("JSON");
        assert_eq!(serde_json::from_str::<NetworkReport>(&text).expect("its own text"), report);
        let offer = &report.checks.iter().find(|c| c.check == CheckKind::Dhcp).expect("looked at").facts["offers"][0];
        assert_eq!((offer["server"].as_str(), offer["ntp"][0].as_str()), (Some("192.0.2.1"), Some("192.0.2.9")));
        assert_eq!(
            fs::read_to_string(net.path().join("leases")).expect("kept").lines().count(),
            1,
            "no second lease is taken"
        );
    });
}

#[test]
fn a_wrong_pin_is_shown_with_what_was_shown() {
    isolated(|| {
        let net = Net::new();
        let pin = net.controller();
        ip("addr add 192.0.2.20/24 dev near0");
        ip("link set near0 up");
        let report = net.with("https://192.0.2.1:8443", vec![[0x5a; 32]], |e| Examination { expects_dhcp: false, ..e });
        expect(&report, CheckKind::Dhcp, Verdict::Skipped, "set by hand");
        expect(&report, CheckKind::Tcp, Verdict::Ok, "connected");
        expect(&report, CheckKind::Tls, Verdict::Failed, &speediso_model::plan::hex(&pin));
        expect(&report, CheckKind::Http, Verdict::Skipped, "nothing is said");
        expect(&report, CheckKind::Clock, Verdict::Skipped, "nothing is said");
        assert_eq!(report.exit_code(), 2);
        assert!(screen(&report).contains("Begin with: tls"), "{}", screen(&report));
        // Without a pin nothing is refused and nothing is trusted.
        let report = net.with("https://192.0.2.1:8443", vec![], |e| Examination { expects_dhcp: false, ..e });
        expect(&report, CheckKind::Tls, Verdict::Warning, &speediso_model::plan::hex(&pin));
        expect(&report, CheckKind::Http, Verdict::Skipped, "nothing is said");
    });
}

#[test]
fn no_dhcp_on_a_trunk_says_which_vlans_there_are() {
    isolated(|| {
        let net = Net::new();
        ip("link set near0 up");
        net.far.run(|| {
            thread::spawn(|| {
                let index = nix::net::if_::if_nametoindex("far0").expect("there");
                let ether = Ether::open(index).expect("root");
                // From a neighbour in VLAN 100, priority 3, and one in 200.
                for id in [0x6064u16, 0x00c8].iter().cycle().take(60) {
                    let mut frame = [0xff_u8; 6].to_vec();
                    frame.extend([2, 0, 0, 0, 0, 0x77, 0x81, 0x00]);
                    frame.extend(id.to_be_bytes());
                    frame.extend([0x08, 0x06]);
                    frame.extend([0; 46]);
                    ether.send(&frame).expect("sent");
                    thread::sleep(Duration::from_millis(100));
                }
            });
        });
        let report = net.examine(URL, vec![]);
        expect(&report, CheckKind::Vlans, Verdict::Warning, "tagged for 100, 200");
        expect(&report, CheckKind::Dhcp, Verdict::Failed, "no server answers");
        expect(&report, CheckKind::Address, Verdict::Failed, "no address");
        expect(&report, CheckKind::Dns, Verdict::Failed, "no name server is known");
        expect(&report, CheckKind::Tcp, Verdict::Failed, "has no address");
        expect(&report, CheckKind::Tls, Verdict::Skipped, "no connection");
        assert!(screen(&report).contains("speediso.vlan="), "{}", screen(&report));
    });
}

#[test]
fn a_second_dhcp_server_is_named() {
    isolated(|| {
        let net = Net::new();
        ip("addr add 192.0.2.20/24 dev near0");
        ip("link set near0 up");
        net.far.responder(|request| {
            vec![
                netns::reply(request, 2, [192, 0, 2, 1], [192, 0, 2, 66], &[&[3, 4, 192, 0, 2, 1]]),
                netns::reply(request, 2, [192, 0, 2, 9], [10, 0, 0, 7], &[&[3, 4, 10, 0, 0, 1]]),
                // No address for a machine: said, not offered.
                netns::reply(request, 2, [192, 0, 2, 8], [127, 0, 0, 1], &[]),
            ]
        });
        let report = net.examine("https://192.0.2.1:1", vec![]);
        expect(&report, CheckKind::Dhcp, Verdict::Warning, "2 servers answer: 192.0.2.1 (");
        expect(&report, CheckKind::Dhcp, Verdict::Warning, "of different networks, 192.0.2.66 and 10.0.0.7");
        expect(&report, CheckKind::Tcp, Verdict::Failed, "refused");
        expect(&report, CheckKind::Dns, Verdict::Skipped, "by address");
    });
}

#[test]
fn a_gateway_that_is_not_there_and_an_address_that_is_twice() {
    isolated(|| {
        let net = Net::new();
        net.far.run(|| ip("addr add 192.0.2.20/32 dev far0"));
        ip("addr add 192.0.2.20/24 dev near0");
        ip("link set near0 up");
        ip("route add default via 192.0.2.254");
        let report = net.examine("https://198.51.100.7:8443", vec![]);
        expect(&report, CheckKind::Address, Verdict::Failed, "192.0.2.20 is also at ");
        expect(&report, CheckKind::Gateway, Verdict::Failed, "nobody answers for this address");
        expect(&report, CheckKind::Tcp, Verdict::Failed, "");
        assert!(screen(&report).contains("Begin with: address near0"), "{}", screen(&report));
    });
}

#[test]
fn a_dead_name_server_and_one_that_says_otherwise() {
    isolated(|| {
        let net = Net::new();
        let server = net.far.dnsmasq(net.path(), &["--port=53", NAME]);
        net.far.run(|| ip("addr add 192.0.2.2/24 dev far0"));
        let other = tempfile::tempdir().expect("a directory");
        let lies = ["--port=53", "--listen-address=192.0.2.2", "--address=/boot.example/192.0.2.66"];
        ip("addr add 192.0.2.20/24 dev near0");
        ip("link set near0 up");
        // Nobody is there.
        net.named_servers(&["192.0.2.99"]);
        let report = net.examine(URL, vec![]);
        expect(&report, CheckKind::Dns, Verdict::Failed, "does not answer");
        expect(&report, CheckKind::Tcp, Verdict::Failed, "has no address");
        // It knows the name, and refuses to say that there is no IPv6 address.
        net.named_servers(&["192.0.2.1"]);
        let report = net.examine(URL, vec![]);
        expect(&report, CheckKind::Dns, Verdict::Warning, "boot.example is 192.0.2.1");
        expect(&report, CheckKind::Dns, Verdict::Warning, "refused for IPv6");
        drop(server);
        let _first = net.far.dnsmasq_plain(net.path(), &["--port=53", "--listen-address=192.0.2.1", NAME]);
        let _second = net.far.dnsmasq_plain(other.path(), &lies);
        net.named_servers(&["192.0.2.1", "192.0.2.2", "192.0.2.99"]);
        let report = net.examine(URL, vec![]);
        expect(&report, CheckKind::Dns, Verdict::Warning, "boot.example is 192.0.2.66");
        expect(&report, CheckKind::Dns, Verdict::Warning, "another server says otherwise");
        expect(&report, CheckKind::Dns, Verdict::Warning, "does not answer");
    });
}

#[test]
fn packets_that_vanish_are_measured() {
    isolated(|| {
        let net = Net::new();
        let pin = net.controller();
        ip("addr add 192.0.2.20/24 dev near0");
        ip("link set near0 up");
        // The far end takes less than we send, and drops the rest without a word, as a switch does. The kernel leaves
        // room for a VLAN tag on top.
        net.far.run(|| ip("link set far0 mtu 1400"));
        let report = net.examine("https://192.0.2.1:8443", vec![pin]);
        expect(&report, CheckKind::PathMtu, Verdict::Failed, "packets above 1404 bytes vanish without a word");
        expect(&report, CheckKind::Gateway, Verdict::Skipped, "none is set");
    });
}

#[test]
fn no_link_is_the_first_thing_that_is_wrong() {
    isolated(|| {
        let net = Net::new();
        ip("link set near0 up");
        net.far.run(|| ip("link set far0 down"));
        let report = net.examine("https://192.0.2.1:8443", vec![]);
        expect(&report, CheckKind::Link, Verdict::Failed, "no link");
        expect(&report, CheckKind::Tcp, Verdict::Failed, "");
        assert!(screen(&report).contains("Begin with: link near0"), "{}", screen(&report));
    });
}

/// The controller has an IPv6 address only, and the machine too.
#[test]
fn a_network_without_ipv4_leads_to_the_controller() {
    isolated(|| {
        let net = Net::new();
        net.far.run(|| ip("addr add 2001:db8::1/64 dev far0 nodad"));
        let ra = ["--enable-ra", "--dhcp-range=2001:db8::,ra-only,64,1h"];
        let _server = net.far.dnsmasq_with(net.path(), &ra);
        let url = "https://[2001:db8::1]:8443";
        let pin = net.controller_at(SocketAddr::from(([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1], 8443)), url);
        let config = NetConfig { resolv_conf: "/etc/resolv.conf".into(), ipv6: Ipv6::Only, ..NetConfig::default() };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let _kept = runtime.block_on(bring_up(&config, |line| println!("{line}"))).expect("an address");
        let report = net.with(url, vec![pin], |e| Examination { expects_dhcp: false, ..e });
        expect(&report, CheckKind::Ipv6, Verdict::Ok, "advertises 2001:db8::/64");
        expect(&report, CheckKind::Gateway, Verdict::Ok, "");
        expect(&report, CheckKind::PathMtu, Verdict::Ok, "packets of 1500 bytes get through");
        expect(&report, CheckKind::Http, Verdict::Ok, "its time is signed");
        assert_eq!(report.exit_code(), 0, "{report:#?}");
    });
}

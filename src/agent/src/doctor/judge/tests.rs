use std::collections::BTreeMap;

use super::*;
use crate::net::{Kind, Lease, Reply};

const ALONE: Context = Context { link_elsewhere: false, address_elsewhere: false, expects_dhcp: true };
const SPARE: Context = Context { link_elsewhere: true, address_elsewhere: true, ..ALONE };

fn nic() -> Nic {
    Nic {
        index: 2,
        name: "eth0".into(),
        mac: [2, 0, 0, 0, 0, 10],
        kind: None,
        is_member: false,
        below: None,
        is_up: true,
        has_carrier: true,
        mtu: 1500,
        counters: Counters::default(),
        addresses: Vec::new(),
        gateways: Vec::new(),
        speed_mbps: Some(10_000),
        duplex: Some("full".into()),
        driver: Some("ixgbe".into()),
    }
}

fn with_address(ip: &str, prefix: u8) -> Nic {
    let address = Address { ip: ip.parse().expect("good"), prefix, is_duplicate: false, is_tentative: false };
    Nic { addresses: vec![address], ..nic() }
}

fn offer(server: [u8; 4], address: [u8; 4], options: &[(u8, &[u8])]) -> Offer {
    let reply = Reply {
        xid: 1,
        mac: [0; 6],
        kind: Kind::Offer,
        address: address.into(),
        server: server.into(),
        options: options
            .iter()
            .map(|(code, value)| (*code, value.to_vec()))
            .chain([(1, vec![255, 255, 255, 0])])
            .collect(),
    };
    Offer { lease: Lease::from_reply(&reply).expect("usable"), from: [2, 0, 0, 0, 0, server[3]] }
}

fn offered(offers: Vec<Offer>) -> Wire {
    Wire { untagged: 5, offers: offers.into_iter().map(|o| (o.lease.server, o)).collect(), ..Wire::default() }
}

#[test]
fn links_are_judged_by_what_a_server_should_have() {
    let judged = |nic: Nic, context| link(&nic, context).verdict;
    assert_eq!(judged(nic(), ALONE), Verdict::Ok);
    assert_eq!(judged(Nic { duplex: Some("half".into()), ..nic() }, ALONE), Verdict::Warning);
    assert_eq!(judged(Nic { speed_mbps: Some(100), ..nic() }, ALONE), Verdict::Warning);
    // Virtual cards do not know their speed; that is no fault, and no guess.
    let unread = link(&Nic { speed_mbps: None, duplex: None, ..nic() }, ALONE);
    assert_eq!((unread.verdict, unread.text.as_str()), (Verdict::Ok, "link, speed unread, ixgbe, MTU 1500"));
    let dark = Nic { has_carrier: false, ..nic() };
    assert_eq!(judged(dark.clone(), ALONE), Verdict::Failed);
    assert_eq!(judged(dark, SPARE), Verdict::Skipped, "a spare port is no failure");
}

#[test]
fn errors_count_when_they_grow_or_are_many() {
    let of = |before: u64, now: u64, received: u64| {
        let counters = |errors| Counters { receive_errors: errors, received, ..Counters::default() };
        errors(&nic(), counters(before), counters(now)).verdict
    };
    assert_eq!(of(3, 3, 1_000_000), Verdict::Ok, "old ones, and few");
    assert_eq!(of(3, 4, 1_000_000), Verdict::Warning, "one just now");
    assert_eq!(of(300, 300, 1_000_000), Verdict::Warning, "many");
    let flapping = Counters { carrier_changes: 40, ..Counters::default() };
    assert!(errors(&nic(), flapping, flapping).advice.contains("comes and goes"));
}

#[test]
fn offers_are_compared_with_each_other_and_with_what_is_there() {
    let router: (u8, &[u8]) = (3, &[192, 0, 2, 1]);
    let usual = offer([192, 0, 2, 1], [192, 0, 2, 50], &[router]);
    let check = |nic: &Nic, offers: Vec<Offer>, context| dhcp(nic, &offered(offers), context);
    assert_eq!(check(&nic(), vec![usual.clone()], ALONE).verdict, Verdict::Ok);
    let far = offer([192, 0, 2, 1], [192, 0, 2, 50], &[(3, &[10, 9, 9, 9])]);
    assert!(check(&nic(), vec![far], ALONE).text.contains("the gateway 10.9.9.9 is outside of the network"));
    let other = check(&with_address("198.51.100.5", 24), vec![usual.clone()], ALONE);
    assert!(other.verdict == Verdict::Warning && other.text.contains("198.51.100.5, of another network"), "{other:?}");
    let agreeing = offer([192, 0, 2, 2], [192, 0, 2, 60], &[router]);
    let two = check(&nic(), vec![usual, agreeing], ALONE);
    assert!(two.verdict == Verdict::Warning && two.text.contains("02:00:00:00:00:02"), "{two:?}");
    assert!(two.text.ends_with("they agree on network and gateway"), "{two:?}");
    assert_eq!(check(&nic(), vec![], ALONE).verdict, Verdict::Failed);
    assert_eq!(check(&nic(), vec![], SPARE).verdict, Verdict::Warning, "the machine has an address elsewhere");
    assert_eq!(check(&with_address("192.0.2.9", 24), vec![], ALONE).verdict, Verdict::Warning);
    assert_eq!(check(&nic(), vec![], Context { expects_dhcp: false, ..ALONE }).verdict, Verdict::Skipped);
}

#[test]
fn a_gateway_is_there_if_it_answers_in_any_way() {
    let (own, gateway) = (with_address("192.0.2.9", 24), "192.0.2.1".parse().expect("good"));
    let claimed = |macs: &[u8]| {
        let claims = macs.iter().map(|last| ([2, 0, 0, 0, 0, *last], Duration::from_millis(1))).collect();
        Wire { claims: BTreeMap::from([("192.0.2.1".parse().expect("good"), claims)]), ..Wire::default() }
    };
    let judged = |wire: Option<&Wire>, echo| gateway_of(&own, gateway, wire, echo).verdict;
    let answered = Some(Echo::Answered(Duration::from_millis(2)));
    assert_eq!(judged(Some(&claimed(&[1])), Some(Echo::Silence)), Verdict::Ok, "routers need not answer pings");
    assert_eq!(judged(Some(&claimed(&[1, 2])), answered), Verdict::Warning);
    assert_eq!(judged(Some(&Wire::default()), Some(Echo::Silence)), Verdict::Failed);
    assert_eq!(judged(None, answered), Verdict::Ok, "without the right to listen, a ping is enough");
    assert_eq!(judged(None, Some(Echo::Silence)), Verdict::Warning, "unknown is not failed");
    assert_eq!(judged(None, None), Verdict::Skipped, "not asked is not unknown");
}

#[test]
fn an_address_that_somebody_else_has_is_the_worst() {
    let own = with_address("192.0.2.9", 24);
    let mut wire = Wire::default();
    assert_eq!(address(&own, Some(&wire), ALONE).verdict, Verdict::Ok);
    wire.claims.insert("192.0.2.9".parse().expect("good"), BTreeMap::from([([2, 0, 0, 0, 0, 7], Duration::ZERO)]));
    let twice = address(&own, Some(&wire), ALONE);
    assert!(twice.verdict == Verdict::Failed && twice.text.contains("02:00:00:00:00:07"), "{twice:?}");
    let mut six = with_address("2001:db8::9", 64);
    six.addresses[0].is_duplicate = true;
    assert_eq!(address(&six, None, ALONE).verdict, Verdict::Failed, "the kernel saw it");
    assert_eq!(address(&with_address("169.254.7.7", 16), None, ALONE).verdict, Verdict::Failed, "that is no address");
    assert_eq!(address(&nic(), None, SPARE).verdict, Verdict::Skipped);
}

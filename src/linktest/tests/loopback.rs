//! Two ends on one machine, and what stands between them.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use speediso_linktest::{LinkError, LinkReport, Listener, Secret, Stop, Terms, Way, connect};
use speediso_model::units::Bytes;

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const SOON: Duration = Duration::from_secs(20);
const TERMS: Terms = Terms {
    stream_seconds: 1,
    streams: 3,
    datagram_seconds: 1,
    datagrams_per_second: 400,
    datagram_bytes: 512,
    stream_bytes: None,
};

fn listener() -> Listener {
    Listener::open(SocketAddr::new(HERE, 0), Some(HERE)).unwrap()
}

/// Both ends to their end; what connects goes to `through`.
fn both(
    listener: Listener,
    through: SocketAddr,
    secrets: [&Secret; 2],
    terms: [Terms; 2],
    wait: Duration,
) -> [Result<LinkReport, LinkError>; 2] {
    let [ours, theirs] = secrets.map(Clone::clone);
    let there =
        thread::spawn(move || listener.wait(&theirs, wait, &Stop::never())?.run(&terms[1], &Stop::never(), &|_| {}));
    let here = connect(HERE, through, &ours, wait, &Stop::never())
        .and_then(|link| link.run(&terms[0], &Stop::never(), &|_| {}));
    [here, there.join().unwrap()]
}

#[test]
fn both_ends_agree_about_a_good_link() {
    let (listener, secret) = (listener(), Secret::random());
    let to = listener.address();
    let [here, there] = both(listener, to, [&secret, &secret], [TERMS; 2], SOON).map(Result::unwrap);
    for report in [&here, &there] {
        assert_eq!(report.streams.len(), 4, "each way alone, and both at once");
        for streams in &report.streams {
            assert_eq!((streams.bytes_sent, streams.corrupt_blocks), (streams.bytes_received, 0));
            assert!(streams.bytes_received > 0 && streams.bits_per_second() > 0.0);
        }
        assert_eq!(report.streams.iter().filter(|s| s.both_at_once).count(), 2);
        assert_eq!(report.datagrams.len(), 2);
        for datagrams in &report.datagrams {
            assert_eq!(datagrams.sent, 200);
            assert_eq!((datagrams.received, datagrams.corrupt, datagrams.duplicated), (200, 0, 0));
            assert_eq!(datagrams.round_trip.is_some(), datagrams.way == Way::Sent);
        }
        assert_eq!(report.turned_away, 0);
    }
    for (mine, yours) in [(Way::Sent, Way::Received), (Way::Received, Way::Sent)] {
        let bytes = |report: &LinkReport, way| -> Vec<u64> {
            report.streams.iter().filter(|s| s.way == way).map(|s| s.bytes_received).collect()
        };
        assert_eq!(bytes(&here, mine), bytes(&there, yours));
    }
    let echoes = here.datagrams.iter().find_map(|d| d.round_trip.as_ref()).unwrap();
    assert_eq!(echoes.count(), 200);
    assert!(TcpStream::connect(to).is_err(), "the port closes with the link");
}

#[test]
fn who_does_not_know_the_secret_stays_outside() {
    let listener = listener();
    let to = listener.address();
    let wait = Duration::from_secs(2);
    let [here, there] = both(listener, to, [&Secret::random(), &Secret::random()], [TERMS; 2], wait);
    assert!(matches!(here, Err(LinkError::WrongSecret)), "{here:?}");
    assert!(matches!(there, Err(LinkError::NobodyCame { turned_away: 1, .. })), "{there:?}");

    // Somebody who says nothing, somebody who says nonsense, and then the right one.
    let (listener, secret) = (self::listener(), Secret::random());
    let to = listener.address();
    let mut babbler = TcpStream::connect(to).unwrap();
    babbler.write_all(&[0x47; 42]).unwrap();
    let [here, there] = both(listener, to, [&secret, &secret], [TERMS; 2], SOON).map(Result::unwrap);
    assert_eq!((here.turned_away, there.turned_away), (0, 1));

    let elsewhere: IpAddr = "192.0.2.7".parse().unwrap();
    let listener = Listener::open(SocketAddr::new(HERE, 0), Some(elsewhere)).unwrap();
    let to = listener.address();
    let [_, there] = both(listener, to, [&secret, &secret], [TERMS; 2], Duration::from_millis(500));
    assert!(matches!(there, Err(LinkError::NobodyCame { turned_away, .. }) if turned_away > 0), "{there:?}");
}

#[test]
fn other_terms_are_told_and_nothing_is_sent() {
    let (listener, secret) = (listener(), Secret::random());
    let to = listener.address();
    let other = Terms { streams: 4, ..TERMS };
    for result in both(listener, to, [&secret, &secret], [TERMS, other], SOON) {
        let Err(error) = result else { panic!("{result:?}") };
        let text = error.to_string();
        assert!(text.contains("3 streams") && text.contains("4 streams"), "{text}");
    }
}

/// Nobody waits an hour for what is done in a moment, and nobody sends more than was agreed on.
#[test]
fn so_many_bytes_are_enough() {
    let (listener, secret) = (listener(), Secret::random());
    let to = listener.address();
    let terms = Terms { stream_seconds: 3600, stream_bytes: Some(Bytes::mib(6)), ..TERMS };
    let [here, there] = both(listener, to, [&secret, &secret], [terms; 2], SOON).map(Result::unwrap);
    for streams in here.streams.iter().chain(&there.streams) {
        assert_eq!((streams.bytes_sent, streams.corrupt_blocks), (streams.bytes_received, 0));
        // Each of the three streams ends with the block that reaches its third.
        assert!((Bytes::mib(6).0..Bytes::mib(7).0).contains(&streams.bytes_sent), "{streams:?}");
        assert!(streams.seconds < 600.0 && streams.bits_per_second() > 0.0);
    }
}

#[test]
fn being_told_to_stop_ends_it() {
    let (listener, secret) = (listener(), Secret::random());
    let to = listener.address();
    let long = Terms { stream_seconds: 600, ..TERMS };
    let asked = Arc::new(AtomicBool::new(false));
    let stop = Stop::when({
        let asked = Arc::clone(&asked);
        move || asked.load(Ordering::Relaxed)
    });
    let theirs = secret.clone();
    let there =
        thread::spawn(move || listener.wait(&theirs, SOON, &Stop::never())?.run(&long, &Stop::never(), &|_| {}));
    let link = connect(HERE, to, &secret, SOON, &stop).unwrap();
    let begun = |_: &str| asked.store(true, Ordering::Relaxed);
    assert!(matches!(link.run(&long, &stop, &begun), Err(LinkError::Cancelled)));
    assert!(there.join().unwrap().is_err(), "the other end does not take it for a success");
}

/// Passes everything on, but changes one bit of the `n`th byte that goes from the listener to whoever connects, of every
/// connection.
struct Damaging {
    address: SocketAddr,
    damaged: Arc<AtomicU64>,
}

impl Damaging {
    fn before(to: SocketAddr, n: usize) -> Self {
        let listener = TcpListener::bind((HERE, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let damaged = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&damaged);
        thread::spawn(move || {
            for client in listener.incoming() {
                let (Ok(client), Ok(server)) = (client, TcpStream::connect(to)) else { return };
                let (c, s) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                thread::spawn(move || pass(c, s, None, &AtomicU64::new(0)));
                let count = Arc::clone(&count);
                thread::spawn(move || pass(server, client, Some(n), &count));
            }
        });
        Self { address, damaged }
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream, mut damage: Option<usize>, damaged: &AtomicU64) {
    let mut buffer = vec![0; 32 << 10];
    while let Ok(n @ 1..) = from.read(&mut buffer) {
        match damage {
            Some(at) if at < n => {
                buffer[at] ^= 0x10;
                damaged.fetch_add(1, Ordering::Relaxed);
                damage = None;
            }
            Some(at) => damage = Some(at - n),
            None => {}
        }
        if to.write_all(&buffer[..n]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}

#[test]
fn bytes_that_change_on_the_way_are_counted() {
    let (listener, secret) = (listener(), Secret::random());
    // Beyond the handshake, within what the words never reach.
    let between = Damaging::before(listener.address(), 1_000_000);
    let [here, there] = both(listener, between.address, [&secret, &secret], [TERMS; 2], SOON).map(Result::unwrap);
    let damaged = between.damaged.load(Ordering::Relaxed);
    assert_eq!(damaged, 3, "one in every stream");
    let corrupt = |report: &LinkReport, way| -> u64 {
        report.streams.iter().filter(|s| s.way == way).map(|s| s.corrupt_blocks).sum()
    };
    assert_eq!((corrupt(&here, Way::Received), corrupt(&there, Way::Sent)), (damaged, damaged), "both ends know");
    assert_eq!((corrupt(&here, Way::Sent), corrupt(&there, Way::Received)), (0, 0));
}

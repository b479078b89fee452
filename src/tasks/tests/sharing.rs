//! A manifest image among peers that give, lie, and are gone: what a write makes of them. The way to real machines, with
//! TLS and a controller, is in the agent's tests.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod support;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use speediso_image::manifest::{PackOptions, PackSummary, pack};
use speediso_model::api::Lease;
use speediso_model::fault::{Fault, FaultCode};
use speediso_model::id::{Epoch, NodeId};
use speediso_model::image::{Compression, ImageFormat};
use speediso_model::outcome::{Outcome, TaskResult};
use speediso_model::share::{Peer, SegmentMap, ShareAnswer};
use speediso_model::task::{ReadBack, Task, WriteImageTask, WriteMode};
use speediso_tasks::share::{PeerError, Sharing, Swarm, Wanted};
use support::*;

const CHUNK: u32 = 256 << 10;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Good,
    /// One bit of each chunk is another.
    Liar,
    Gone,
    Busy,
}

/// Peers as the controller would name them.
struct Others {
    image: Vec<u8>,
    peers: Vec<(NodeId, Kind, AtomicUsize)>,
    /// What the controller says when a swarm joins: nothing, or that it does not know sharing.
    never: bool,
    ticket: bool,
    joined: Mutex<Option<Arc<Swarm>>>,
    left: AtomicUsize,
}

impl Others {
    fn of(image: &[u8], kinds: &[Kind]) -> Arc<Self> {
        Self::with(image, kinds, false, false)
    }

    fn with(image: &[u8], kinds: &[Kind], never: bool, ticket: bool) -> Arc<Self> {
        let peers = kinds.iter().map(|k| (NodeId::random(), *k, AtomicUsize::new(0))).collect();
        Arc::new(Self {
            image: image.to_vec(),
            peers,
            never,
            ticket,
            joined: Mutex::default(),
            left: AtomicUsize::new(0),
        })
    }

    fn asked(&self, kind: Kind) -> usize {
        self.peers.iter().filter(|p| p.1 == kind).map(|p| p.2.load(Ordering::Relaxed)).sum()
    }
}

impl Sharing for Others {
    fn join(&self, swarm: Arc<Swarm>) -> Result<String, Fault> {
        let segments = swarm.announcement(Epoch(1), None, None).have.len();
        let address = "192.0.2.1:1".parse().unwrap();
        let have = SegmentMap::all_of(segments);
        let peers = self.peers.iter().map(|(node, ..)| Peer { node: *node, address, near: true, have: have.clone() });
        if self.never {
            swarm.unheard(true);
        } else {
            let answer = ShareAnswer {
                lease: Lease { epoch: Epoch(1), lease_ms: 1000, cancel: Vec::new(), ssh: None },
                peers: peers.collect(),
                ticket: if self.ticket { have } else { SegmentMap::none_of(segments) },
                ticket_ms: 60_000,
                permit: None,
                permit_key: String::new(),
                now_ms: 0,
                again_ms: 1000,
            };
            swarm.heed(&answer, Instant::now());
        }
        *self.joined.lock().unwrap() = Some(swarm);
        Ok("nothing".into())
    }

    fn get(&self, _: &Swarm, wanted: &Wanted, into: &mut Vec<u8>) -> Result<(), PeerError> {
        let (_, kind, asked) = self.peers.iter().find(|p| p.0 == wanted.node).expect("only those that were named");
        asked.fetch_add(1, Ordering::Relaxed);
        let start = usize::try_from(wanted.first * u64::from(CHUNK)).unwrap();
        into.clear();
        into.extend_from_slice(&self.image[start..start + wanted.length]);
        match kind {
            Kind::Good => Ok(()),
            Kind::Liar => {
                into[wanted.length - 1] ^= 1;
                Ok(())
            }
            Kind::Gone => Err(PeerError::Silent("it is gone".into())),
            Kind::Busy => Err(PeerError::Busy),
        }
    }

    fn leave(&self, _: Duration) {
        self.left.fetch_add(1, Ordering::Relaxed);
    }
}

struct Setting {
    bench: Bench,
    told: Arc<Told>,
    image: Vec<u8>,
    summary: PackSummary,
    server: Server,
    disk: LoopDisk,
    _dir: tempfile::TempDir,
}

fn setting() -> Setting {
    let (mut bench, dir) = (Bench::new(), tempfile::tempdir().unwrap());
    let mut image = image(32 * MIB, 512);
    image[9 << 20..12 << 20].fill(0);
    let options = PackOptions { chunk_size: Some(CHUNK), level: Some(1), key: None, name: None };
    let summary = pack(&mut &image[..], None, &options, &dir.path().join("image"), &mut |_| {}).unwrap();
    let server = Server::files(&dir.path().join("image"), |_, _, _| {});
    let disk = LoopDisk::new(32 * MIB, 512);
    disk.fill(3);
    let told = Arc::new(Told::default());
    bench.ctx.reporter = Arc::clone(&told) as _;
    Setting { bench, told, image, summary, server, disk, _dir: dir }
}

impl Setting {
    fn write(&mut self, others: &Arc<Others>, mode: WriteMode, share: bool) -> TaskResult {
        self.bench.ctx.sharing = Some(Arc::clone(others) as _);
        let mut image = source(&self.server.url.replace("/image", "/manifest.json"), b"", Compression::None);
        image.format = ImageFormat::Manifest;
        image.digest = Some(self.summary.manifest_sha256.clone());
        let (device, read_back) = (self.disk.hints(), ReadBack::Full);
        self.bench.run(&Task::WriteImage(WriteImageTask {
            read_back,
            mode,
            share,
            ..WriteImageTask::new(device, image)
        }))
    }

    #[track_caller]
    fn good(&self, result: &TaskResult) {
        assert_eq!(result.outcome, Outcome::Verified, "{:?}", result.fault);
        assert!(self.disk.bytes(0, self.image.len()) == self.image, "the disk holds something else");
    }
}

fn fact(result: &TaskResult, name: &str) -> u64 {
    result.devices[0].facts[name].as_u64().unwrap_or_else(|| panic!("{name}: {}", result.devices[0].facts))
}

#[test]
fn peers_that_lie_or_are_gone_cost_a_request_and_the_rest_give_everything() {
    let mut setting = setting();
    let others = Others::of(&setting.image, &[Kind::Liar, Kind::Gone, Kind::Busy, Kind::Good]);
    let result = setting.write(&others, WriteMode::Full, true);
    setting.good(&result);
    // The start and the end only: one chunk of each is not the other machines'.
    assert!(fact(&result, "source_bytes") < 3 * MIB, "{}", fact(&result, "source_bytes"));
    assert!(fact(&result, "peer_bytes") > 26 * MIB, "{}", fact(&result, "peer_bytes"));
    // Two requests are under way at once before the first answer is there.
    assert!((1..=2).contains(&others.asked(Kind::Liar)), "{}", others.asked(Kind::Liar));
    assert!((1..=2).contains(&others.asked(Kind::Gone)), "{}", others.asked(Kind::Gone));
    let told = setting.told.0.lock().unwrap().join("\n");
    assert!(told.contains(&others.peers[0].0.to_string()) && told.contains("not asking it again"), "{told}");
    // What it will tell the controller, and what it gives now: no less than the image, and nothing else.
    let swarm = others.joined.lock().unwrap().clone().expect("joined");
    let said = swarm.announcement(Epoch(1), None, None);
    assert!(said.wrong.iter().all(|n| *n == others.peers[0].0) && !said.wrong.is_empty());
    assert_eq!(said.have, SegmentMap::all_of(said.have.len()));
    let chunk = usize::try_from(CHUNK).unwrap();
    let given = swarm.offer().read(64, 65).expect("held");
    assert!(given.iter().flat_map(|b| b.iter()).eq(&setting.image[64 * chunk..66 * chunk]));
    setting.disk.write(65 * u64::from(CHUNK), b"another's");
    swarm.offer().read(64, 65).expect_err("what was changed is not given");
    assert_eq!(swarm.offer().have().count(), said.have.len() - 1, "nor offered any more");
    swarm.offer().close();
    swarm.offer().read(100, 100).expect_err("closed");
}

#[test]
fn a_ticket_is_fetched_from_the_server_and_counted() {
    let mut setting = setting();
    let others = Others::with(&setting.image, &[], false, true);
    let result = setting.write(&others, WriteMode::Full, true);
    setting.good(&result);
    assert_eq!(fact(&result, "peer_bytes"), 0);
    let swarm = others.joined.lock().unwrap().clone().expect("joined");
    assert_eq!(swarm.announcement(Epoch(1), None, None).fetched_bytes, fact(&result, "source_bytes"));
}

#[test]
fn without_a_controller_that_knows_sharing_the_server_gives_everything_at_once() {
    let mut setting = setting();
    let others = Others::with(&setting.image, &[], true, false);
    let begun = Instant::now();
    let result = setting.write(&others, WriteMode::Full, true);
    setting.good(&result);
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
}

#[test]
fn what_the_disk_holds_already_is_given_without_being_fetched() {
    let mut setting = setting();
    let others = Others::with(&setting.image, &[], false, true);
    let first = setting.write(&others, WriteMode::Full, true);
    setting.good(&first);
    let others = Others::of(&setting.image, &[Kind::Good]);
    let again = setting.write(&others, WriteMode::Delta, true);
    setting.good(&again);
    assert_eq!(fact(&again, "peer_bytes"), 0);
    let swarm = others.joined.lock().unwrap().clone().expect("joined");
    assert_eq!(swarm.offer().have(), SegmentMap::all_of(swarm.offer().have().len()));
}

#[test]
fn a_task_that_does_not_share_joins_nobody() {
    let mut setting = setting();
    let others = Others::of(&setting.image, &[Kind::Good]);
    let result = setting.write(&others, WriteMode::Full, false);
    setting.good(&result);
    assert!(others.joined.lock().unwrap().is_none());
    assert_eq!(others.asked(Kind::Good), 0);
}

#[test]
fn waiting_for_others_ends_when_the_task_is_cancelled() {
    let mut setting = setting();
    let others = Others::of(&setting.image, &[Kind::Busy]);
    let cancel = setting.bench.ctx.cancel.clone();
    let asked = Arc::clone(&others);
    let canceller = std::thread::spawn(move || {
        while asked.asked(Kind::Busy) == 0 {
            std::thread::sleep(Duration::from_millis(5));
        }
        cancel.cancel();
        Instant::now()
    });
    let result = setting.write(&others, WriteMode::Full, true);
    let waited = canceller.join().unwrap().elapsed();
    failed(&result, Outcome::FailedChanged, FaultCode::Cancelled);
    has_no_table(&setting.disk);
    assert!(waited < Duration::from_secs(2), "{waited:?}");
}

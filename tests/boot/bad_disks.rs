//! Disks that fail, lie, hang or go away while an image is written to them: one machine, the kernel's own drivers, and
//! media that we can look at afterwards.
//!
//! Whatever the disk does, the outcome is `failed_changed` or `unknown`, the fault names the place, nothing on the medium
//! boots, the agent lives, and the other disks are not concerned.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use speediso_lab::nbd::{Errno, On, Rule, Then};
use speediso_lab::{Bus, Lab, Machine};
use speediso_model::outcome::{Outcome, TaskResult};
use speediso_tests::bad::{ALL, Case, DISK_SIZE, Images, Kind, MIB};
use speediso_tests::{BOOT, LiveSsh, Ramdisk, SOON, TestDisk, programs};

const PORT: u16 = 8081;
const MACHINE: &str = "BADDISKS";
/// In seconds, for a disk to answer: the emulated ones take milliseconds.
const PATIENCE: u64 = 12;
/// A sector in the middle of the image.
const SECTOR: std::ops::Range<u64> = 9 * MIB..9 * MIB + 512;

/// How each disk is bad and how that must end. Those that make everybody wait come first and run beside the others.
fn cases(lab: &Lab) -> Vec<Case> {
    use Outcome::{FailedChanged, Unknown};
    let case = |name, kind, rules| Case::new(lab, name, kind, rules).unwrap();
    let bad = |on, then| Rule::new(on, then).touching(SECTOR);
    let io = Then::Fail(Errno::Io);
    let full = Then::Fail(Errno::NoSpace);
    let slow = || vec![Rule::new(On::Change, Then::Delay(Duration::from_millis(250))).touching(4 * MIB..30 * MIB)];
    let tail = DISK_SIZE - 512..DISK_SIZE;
    vec![
        // AHCI has six ports, and these come first.
        case("AHCI-WRITE", Kind::Raw, vec![bad(On::Change, io)]).bus(Bus::Ahci).in_background().ends(
            FailedChanged,
            "disk-io",
            SECTOR,
        ),
        case("HANG-WRITE", Kind::Raw, vec![bad(On::Change, Then::Hang)]).in_background().ends(
            Unknown,
            "disk-hung",
            SECTOR,
        ),
        case("HANG-FLUSH", Kind::Manifest, vec![Rule::new(On::Flush, Then::Hang).once_written(SECTOR.start)])
            .in_background()
            .ends(Unknown, "disk-hung", 0..DISK_SIZE),
        case("HANG-READ", Kind::Qcow2, vec![bad(On::Read, Then::Hang).once_written(SECTOR.start)])
            .in_background()
            .ends(Unknown, "disk-hung", SECTOR),
        case("PULLED-VIRTIO", Kind::Raw, slow()).pulled().ends(Unknown, "disk-vanished", 0..DISK_SIZE),
        case("PULLED-NVME", Kind::Manifest, slow()).bus(Bus::Nvme).pulled().ends(
            Unknown,
            "disk-vanished",
            0..DISK_SIZE,
        ),
        case("PULLED-SCSI", Kind::Qcow2, slow()).bus(Bus::Scsi).pulled().ends(Unknown, "disk-vanished", 0..DISK_SIZE),
        case("WRITE-RAW", Kind::Raw, vec![bad(On::Change, io)]).ends(FailedChanged, "disk-io", SECTOR),
        case("WRITE-QCOW2", Kind::Qcow2, vec![bad(On::Change, io)]).bus(Bus::Nvme).ends(
            FailedChanged,
            "disk-io",
            SECTOR,
        ),
        case("WRITE-MANIFEST", Kind::Manifest, vec![bad(On::Change, io)]).bus(Bus::Scsi).ends(
            FailedChanged,
            "disk-io",
            SECTOR,
        ),
        case("FULL", Kind::Raw, vec![bad(On::Change, full)]).ends(FailedChanged, "disk-io", SECTOR),
        // The hole of the image is zeroed by a command.
        case("ZEROING", Kind::Qcow2, vec![Rule::new(On::Change, io).touching(15 * MIB..15 * MIB + 512)]).ends(
            FailedChanged,
            "disk-io",
            15 * MIB..15 * MIB + 512,
        ),
        case("FLUSH-ONCE", Kind::Raw, vec![Rule::new(On::Flush, io).once_written(SECTOR.start).times(1)]).ends(
            FailedChanged,
            "disk-io",
            0..DISK_SIZE,
        ),
        case("FLUSH-ALWAYS", Kind::Manifest, vec![Rule::new(On::Flush, io).once_written(SECTOR.start)]).ends(
            Unknown,
            "disk-io",
            0..DISK_SIZE,
        ),
        case("READ", Kind::Raw, vec![bad(On::Read, io).once_written(SECTOR.start)]).ends(
            FailedChanged,
            "disk-io",
            SECTOR,
        ),
        case("FLIP-RAW", Kind::Raw, vec![bad(On::Read, Then::FlipBit).once_written(SECTOR.start)]).ends(
            FailedChanged,
            "read-back-mismatch",
            SECTOR,
        ),
        case("FLIP-QCOW2", Kind::Qcow2, vec![bad(On::Read, Then::FlipBit).once_written(SECTOR.start)])
            .bus(Bus::Scsi)
            .ends(FailedChanged, "read-back-mismatch", SECTOR),
        case("FLIP-MANIFEST", Kind::Manifest, vec![bad(On::Read, Then::FlipBit).once_written(SECTOR.start)])
            .bus(Bus::Nvme)
            .ends(FailedChanged, "read-back-mismatch", SECTOR),
        case("LOST-WRITE", Kind::Raw, vec![bad(On::Change, Then::Lie)]).ends(
            FailedChanged,
            "read-back-mismatch",
            SECTOR,
        ),
        case("VANISHED", Kind::Raw, vec![bad(On::Change, Then::Vanish)]).ends(Unknown, "disk-io", SECTOR),
        // All of the image is right, and its table cannot be put in place.
        case("END", Kind::Raw, vec![Rule::new(On::Change, io).touching(tail.clone()).once_written(SECTOR.start)]).ends(
            Unknown,
            "disk-io",
            DISK_SIZE - MIB..DISK_SIZE,
        ),
        case("START", Kind::Raw, vec![Rule::new(On::Change, io).touching(0..512).once_written(SECTOR.start).times(1)])
            .ends(FailedChanged, "disk-io", 0..MIB),
        case(
            "START-FLIPS",
            Kind::Raw,
            vec![Rule::new(On::Read, Then::FlipBit).touching(512..513).once_written(SECTOR.start).times(1)],
        )
        .ends(FailedChanged, "read-back-mismatch", 512..513),
        case("GOOD", Kind::Raw, Vec::new()),
    ]
}

/// What the machine does: everything that makes others wait at once, the rest in turn, beside them.
fn script(cases: &[Case], base: &str) -> String {
    let mut script = format!(
        "mkdir -p /tmp/cases; cd /tmp/cases\n\
         one() {{ wget -q -O $1.json {base}/$1.json; \
         speediso-agent run --json --arm {MACHINE} --disk-patience {PATIENCE} --state-dir /tmp/cases/$1.state \
         --tasks $1.json >$1.out 2>$1.err </dev/null; echo $? >$1.rc; }}\n"
    );
    for case in cases.iter().filter(|case| case.in_background) {
        let _ = writeln!(script, "one {} &", case.name);
    }
    for case in cases.iter().filter(|case| !case.in_background) {
        let _ = writeln!(script, "one {}", case.name);
    }
    script
}

/// What every case said, once it has said it.
fn collect(ssh: &LiveSsh, cases: &[Case]) -> BTreeMap<String, String> {
    let end = Instant::now() + ALL;
    loop {
        // A process whose disk hangs cannot end, but has said its result.
        let said = ssh.run("cd /tmp/cases; for f in *.out; do echo \"== $f\"; cat $f; done", SOON).unwrap();
        let parts: BTreeMap<String, String> = said
            .split("== ")
            .filter_map(|part| part.split_once(".out\n").map(|(name, said)| (name.to_owned(), said.to_owned())))
            .collect();
        if cases.iter().all(|case| parts.get(case.name).is_some_and(|said| said.contains("\"outcome\""))) {
            return parts;
        }
        if Instant::now() > end {
            let missing: Vec<_> = cases
                .iter()
                .map(|case| case.name)
                .filter(|name| !parts.get(*name).is_some_and(|said| said.contains("\"outcome\"")))
                .collect();
            let why = ssh.run("cd /tmp/cases; tail -n 5 *.err; ps; dmesg | tail -n 40", SOON);
            panic!("no result of {missing:?}\n{}", why.unwrap_or_default());
        }
        std::thread::sleep(Duration::from_secs(1));
    }
}

fn pull(machine: &Machine<'_>, cases: &[Case]) {
    for (n, case) in cases.iter().enumerate().filter(|(_, case)| case.pulled) {
        case.disk.wait_met(ALL).unwrap();
        machine.unplug_disk(n).unwrap();
    }
}

#[test]
fn a_bad_disk_is_never_a_success_and_never_boots() {
    let lab = Lab::builder().build().unwrap();
    let files = lab.dir().join("files");
    std::fs::create_dir(&files).unwrap();
    let images = Images::make(&files, &programs().unwrap()).unwrap();
    let _server = lab.serve_files(PORT, &files).unwrap();
    let base = format!("http://192.0.2.1:{PORT}");
    let cases = cases(&lab);
    for case in &cases {
        let file = images.task_file(case.kind, &base, MACHINE, case.name);
        std::fs::write(files.join(format!("{}.json", case.name)), file.to_string()).unwrap();
    }
    std::fs::write(files.join("script"), script(&cases, &base)).unwrap();
    let neighbour = TestDisk::with_data(&lab, "NEIGHBOUR", 32).unwrap();
    let good = cases.iter().find(|case| case.name == "GOOD").unwrap();
    let before = good.bytes().unwrap();
    good.disk.record();

    let mut ssh = LiveSsh::with_fresh_key(&lab, "bad").unwrap();
    let mut spec = Ramdisk::of(&programs().unwrap())
        .machine("bad", &format!("speediso.sshkey=\"{}\"", ssh.public))
        .memory_mib(768)
        .serial(MACHINE);
    for case in &cases {
        spec = spec.disk(case.plugged());
    }
    let machine = spec.disk(neighbour.plugged()).power_on(&lab).unwrap();
    ssh.to(&lab, &machine).unwrap();
    let begin = format!("wget -q -O /tmp/script {base}/script && (setsid sh /tmp/script >/tmp/log 2>&1 </dev/null &)");
    ssh.run(&begin, BOOT).unwrap();
    pull(&machine, &cases);
    let said = collect(&ssh, &cases);
    for case in &cases {
        let line = said[case.name].lines().find(|line| line.starts_with('{')).unwrap_or_default();
        let fault = serde_json::from_str::<TaskResult>(line).ok().and_then(|result| result.fault);
        println!("{:14} {:?} {}", case.name, case.outcome, fault.map(|fault| fault.to_string()).unwrap_or_default());
    }
    let wrong: Vec<String> = cases
        .iter()
        .filter_map(|case| case.check(&said[case.name]).err().map(|e| format!("{}: {e:#}", case.name)))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));

    // The disks answer again: the processes that could not end do, and what they had been at does not go on.
    cases.iter().for_each(|case| case.disk.release());
    let all_ended = format!("cd /tmp/cases; while [ $(ls *.rc | wc -l) -lt {} ]; do sleep 1; done", cases.len());
    ssh.run(&all_ended, SOON).unwrap();
    let codes = ssh.run("cd /tmp/cases; for f in *.rc; do echo $f $(cat $f); done", SOON).unwrap();
    for case in &cases {
        let line = format!("{}.rc {}", case.name, case.exit_code());
        assert!(codes.lines().any(|l| l == line), "{line} is not in\n{codes}");
        case.check(&said[case.name]).unwrap_or_else(|e| panic!("{} after its release: {e:#}", case.name));
    }
    let state = ssh.run("ps; speediso-agent inventory", SOON).unwrap();
    assert!(state.contains("speediso-agent boot") && state.contains("NEIGHBOUR"), "{state}");
    assert!(!state.contains("PULLED"), "{state}");
    drop(machine);
    neighbour.assert_untouched().unwrap();
    power_cuts(good, &before);
}

/// The good disk's life, cut off at every moment: what has a table is whole. Of a drive that only says that it has
/// flushed nobody can promise that, and nobody could find out.
fn power_cuts(good: &Case, before: &[u8]) {
    const SEEDS: u64 = 8;
    let history = good.disk.history();
    let after = good.bytes().unwrap();
    // The kernel makes large requests of an image: at least one for each 2 MiB.
    assert!(history.len() > 20 && history.flushes() > 4, "{} requests", history.len());
    let edge = usize::try_from(MIB).unwrap();
    let (middle, tail) = (edge..before.len() - edge, before.len() - edge..before.len());
    let is_safe = |disk: &[u8]| {
        disk[..edge].iter().all(|byte| *byte == 0)
            || disk[middle.clone()] == before[middle.clone()]
            || (disk[middle.clone()] == after[middle.clone()] && disk[tail.clone()] == after[tail.clone()])
    };
    for n in 0..=history.len() {
        for seed in 0..SEEDS {
            let disk = history.cut(before, n, seed);
            assert!(is_safe(&disk), "after a power cut before request {n} (seed {seed}) something unverified boots");
        }
    }
    assert!(history.cut(before, history.len(), 0) == after, "the last flush covers everything");
    println!("{} power cuts", (history.len() as u64 + 1) * SEEDS);

    let liar = history.of_a_liar();
    assert!((0..SEEDS).any(|seed| !is_safe(&liar.cut(before, liar.len(), seed))), "the judge sees no difference");
}

//! Against QEMU's own client.
#![allow(clippy::unwrap_used)]

use std::process::Command;

use super::*;

const MIB: u64 = 1 << 20;

struct Bench {
    file: PathBuf,
    disk: BadDisk,
    _dir: tempfile::TempDir,
}

impl Bench {
    fn new(rules: Vec<Rule>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("disk.raw");
        File::create(&file).unwrap().set_len(8 * MIB).unwrap();
        Self { disk: BadDisk::start(&file, rules).unwrap(), file, _dir: dir }
    }

    /// What `qemu-io` says to these commands, in one connection.
    fn io(&self, commands: &[&str]) -> String {
        let mut io = Command::new("qemu-io");
        io.args(["-f", "raw", "-t", "none"]);
        for command in commands {
            io.args(["-c", command]);
        }
        let out = io.arg(format!("nbd+unix:///?socket={}", self.disk.socket().display())).output().unwrap();
        String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr)
    }

    fn byte(&self, offset: u64) -> u8 {
        let mut byte = [0];
        File::open(&self.file).unwrap().read_exact_at(&mut byte, offset).unwrap();
        byte[0]
    }
}

#[test]
fn a_disk_without_rules_is_a_good_disk() {
    let bench = Bench::new(Vec::new());
    bench.disk.record();
    let said = bench.io(&[
        "write -P 7 1M 2M",
        "write -z 2M 64k",
        "flush",
        "read -P 7 1M 1M",
        "read -P 0 2M 64k",
        "read -P 0 7M 1M",
    ]);
    assert!(!said.contains("failed") && !said.contains("rror"), "{said}");
    assert_eq!([bench.byte(MIB), bench.byte(2 * MIB), bench.byte(3 * MIB - 1)], [7, 0, 7]);
    let history = bench.disk.history();
    assert!(history.len() >= 3 && history.flushes() >= 1, "{history:?}");
    assert!(bench.disk.met().is_empty());
}

#[test]
fn every_fault_is_where_its_rule_says() {
    let rules = vec![
        Rule::new(On::Change, Then::Fail(Errno::NoSpace)).touching(2 * MIB..2 * MIB + 512),
        Rule::new(On::Change, Then::Lie).touching(3 * MIB..4 * MIB),
        Rule::new(On::Read, Then::FlipBit).touching(5 * MIB + 100..5 * MIB + 101),
        Rule::new(On::Read, Then::Fail(Errno::Io)).touching(6 * MIB..7 * MIB).times(1),
        Rule::new(On::Flush, Then::Fail(Errno::Io)).once_written(7 * MIB).times(1),
    ];
    let bench = Bench::new(rules);
    let said = bench.io(&["write -P 1 1M 2M"]);
    assert!(said.contains("No space left on device"), "{said}");
    assert_eq!([bench.byte(2 * MIB - 1), bench.byte(2 * MIB)], [1, 0], "what lies before the bad place is written");

    let said = bench.io(&["write -P 2 3M 1M", "write -P 3 5M 1M", "read -P 3 5M 64k"]);
    assert!(said.contains("wrote 1048576/1048576 bytes at offset 3145728"), "{said}");
    assert_eq!([bench.byte(3 * MIB), bench.byte(5 * MIB + 100)], [0, 3], "the medium is right, the answer is not");
    assert!(said.contains("Pattern verification failed"), "{said}");

    let said = bench.io(&["read 6M 512", "read 6M 512", "flush", "write -P 4 7M 512", "flush", "flush"]);
    assert_eq!(said.matches("Input/output error").count(), 1, "of reading once; of flushing it says nothing: {said}");
    let met: Vec<_> = bench.disk.met().iter().map(|met| (met.operation, met.then)).collect();
    let expected = [
        (Operation::Write, Then::Fail(Errno::NoSpace)),
        (Operation::Write, Then::Lie),
        (Operation::Read, Then::FlipBit),
        (Operation::Read, Then::Fail(Errno::Io)),
        (Operation::Flush, Then::Fail(Errno::Io)),
    ];
    assert_eq!(met, expected);
}

#[test]
fn what_hangs_is_answered_when_the_disk_is_released_and_what_vanished_never() {
    let bench = Bench::new(vec![Rule::new(On::Change, Then::Hang).touching(0..512)]);
    std::thread::scope(|scope| {
        let asking = scope.spawn(|| bench.io(&["write -P 1 0 512"]));
        let met = bench.disk.wait_met(Duration::from_secs(20)).unwrap();
        assert_eq!((met.operation, met.offset, met.then), (Operation::Write, 0, Then::Hang));
        std::thread::sleep(Duration::from_millis(200));
        assert!(!asking.is_finished(), "it has no answer yet");
        bench.disk.release();
        let said = asking.join().unwrap();
        assert!(said.contains("Input/output error"), "{said}");
    });
    assert_eq!(bench.byte(0), 0);
    assert!(!bench.io(&["write -P 1 0 512"]).contains("rror"), "it is well again");

    let gone = Bench::new(vec![Rule::new(On::Change, Then::Vanish).touching(MIB..MIB + 512)]);
    let said = gone.io(&["write -P 1 0 512", "write -P 1 1M 512", "write -P 1 2M 512"]);
    assert_eq!([gone.byte(0), gone.byte(MIB), gone.byte(2 * MIB)], [1, 0, 0], "{said}");
    assert!(gone.io(&["read 0 512"]).contains("can't open"), "nobody gets in any more");
}

//! Captured machines whose files wait, fail and lie.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::captured::{self, MACHINES};
use super::{numa, pci};
use crate::cpu;
use crate::roots::Roots;

fn files(dir: &Path, all: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).expect("listed").flatten() {
        let kind = entry.file_type().expect("a kind");
        if kind.is_dir() {
            files(&entry.path(), all);
        } else if kind.is_file() {
            all.push(entry.path());
        }
    }
}

#[derive(Clone, Debug)]
enum Harm {
    /// Nobody writes, so reading ends at once.
    Fifo,
    /// Somebody could write and never does: an attribute that never answers.
    Silent,
    /// As a device that fails: the kernel answers EIO at the start of a process's memory.
    Fails,
    /// It is there, and reading it is another error.
    Directory,
    Gone,
    Bytes(Vec<u8>),
}

impl Harm {
    fn any() -> impl Strategy<Value = Self> {
        prop_oneof![
            Just(Self::Fifo),
            Just(Self::Silent),
            Just(Self::Fails),
            Just(Self::Directory),
            Just(Self::Gone),
            prop::collection::vec(any::<u8>(), 0..300).prop_map(Self::Bytes),
        ]
    }

    /// What it gives back keeps it up.
    fn befall(&self, path: &Path) -> Option<File> {
        let fifo = || nix::unistd::mkfifo(path, nix::sys::stat::Mode::S_IRWXU).expect("made");
        fs::remove_file(path).expect("removed");
        match self {
            Self::Fifo => fifo(),
            Self::Silent => {
                fifo();
                return Some(OpenOptions::new().read(true).write(true).open(path).expect("opened"));
            }
            Self::Fails => symlink("/proc/self/mem", path).expect("linked"),
            Self::Directory => fs::create_dir(path).expect("made"),
            Self::Gone => {}
            Self::Bytes(bytes) => fs::write(path, bytes).expect("written"),
        }
        None
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 6, max_shrink_iters: 20, ..ProptestConfig::default() })]

    /// A third of all files harmed: an answer, and no control character in it.
    #[test]
    fn any_machine_is_survived(which in 0..MACHINES.len(), harms in prop::collection::vec(Harm::any(), 32), offset in 0usize..32) {
        let dir = captured::unpack(MACHINES[which].0);
        let mut all = Vec::new();
        files(dir.path(), &mut all);
        all.sort();
        let third = all.iter().enumerate().filter(|(n, _)| n % 3 == offset % 3);
        let _kept: Vec<File> = third.filter_map(|(n, path)| harms[(n + offset) % harms.len()].befall(path)).collect();
        let inventory = captured::read(dir.path());
        let text = serde_json::to_string(&inventory).expect("JSON");
        prop_assert!(!text.contains("\\u00"), "{}", text);
        prop_assert!(inventory.unread.len() < 200);
    }
}

/// Reads by this thread so far; none where the kernel does not count them.
fn reads() -> Option<u64> {
    let text = fs::read_to_string("/proc/thread-self/io").ok()?;
    text.lines().find_map(|line| line.strip_prefix("syscr: "))?.trim().parse().ok()
}

/// `n` processors in pairs, and as many PCI functions.
fn large(n: u32) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a directory");
    let write = |path: String, content: String| {
        let path = dir.path().join(path);
        fs::create_dir_all(path.parent().expect("a parent")).expect("made");
        fs::write(path, content).expect("written");
    };
    let mut cpuinfo = String::new();
    for cpu in 0..n {
        cpuinfo.push_str(&format!("processor\t: {cpu}\nphysical id\t: 0\ncore id\t: {}\n\n", cpu / 2));
        let own = format!("sys/devices/system/cpu/cpu{cpu}");
        write(format!("{own}/topology/core_id"), (cpu / 2).to_string());
        for (index, level, shared) in
            [(0, 1, format!("{}-{}", cpu / 2 * 2, cpu / 2 * 2 + 1)), (3, 3, format!("0-{}", n - 1))]
        {
            write(format!("{own}/cache/index{index}/level"), level.to_string());
            write(format!("{own}/cache/index{index}/size"), "32K".into());
            write(format!("{own}/cache/index{index}/shared_cpu_list"), shared);
        }
        let function = format!("sys/bus/pci/devices/0000:{:02x}:{:02x}.{}", cpu >> 8, cpu >> 3 & 31, cpu & 7);
        for (file, content) in [("vendor", "0x8086"), ("device", "0x1572"), ("class", "0x020000")] {
            write(format!("{function}/{file}"), content.into());
        }
    }
    write("proc/cpuinfo".into(), cpuinfo);
    write("sys/devices/system/node/node0/cpulist".into(), format!("0-{}", n - 1));
    dir
}

#[test]
fn twice_the_machine_takes_twice_the_reads() {
    let count = |n: u32| {
        let dir = large(n);
        let roots = Roots::under(dir.path());
        let before = reads().expect("the kernel counts reads (CONFIG_TASK_IO_ACCOUNTING)");
        let cpu = cpu::read(&roots).expect("read");
        let nodes = numa::read(&roots, &mut Vec::new());
        let functions = pci::read(&roots, &mut Vec::new());
        let took = reads().expect("as before") - before;
        assert_eq!((cpu.count, cpu.core_count, cpu.caches[0].count, cpu.caches[1].count), (n, n / 2, n / 2, 1));
        assert_eq!((nodes.cpus.len(), functions.len()), (n as usize / 2, n as usize));
        took
    };
    let (small, double) = (count(128), count(256));
    println!("{small} reads for 128 processors and functions, {double} for 256");
    assert!(double <= small * 2 + 50, "{small} reads, then {double}");
}

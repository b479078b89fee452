//! `speediso-agent run` as a person types it, on real loop devices: exit codes, words, and what is left on the disk.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

struct Disk {
    device: String,
    file: PathBuf,
}

impl Disk {
    fn new(dir: &Path, name: &str) -> Self {
        let file = dir.join(name);
        let content: Vec<u8> = (0..8u32 << 20).map(|i| i.wrapping_mul(31).to_le_bytes()[1]).collect();
        std::fs::write(&file, content).unwrap();
        let out = Command::new("losetup").args(["-f", "--show"]).arg(&file).output().unwrap();
        assert!(out.status.success(), "loop devices need root: run the tests as root");
        Self { device: String::from_utf8(out.stdout).unwrap().trim().into(), file }
    }

    fn bytes(&self) -> Vec<u8> {
        std::fs::read(&self.file).unwrap()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("losetup").args(["-d", &self.device]).status();
    }
}

/// A MAC address of this very machine: what the task file may name it by.
fn this_machine() -> String {
    let roots = speediso_sys::roots::Roots::live();
    let machine = speediso_agent::run::this_machine(&roots);
    machine.macs.first().expect("this machine has a network interface").clone()
}

fn task_file(dir: &Path, machine: &str, tasks: &str) -> PathBuf {
    let file = dir.join("tasks.json");
    let order = uuid::Uuid::new_v4();
    let text = format!(
        r#"{{"version":1,"machine":"{machine}","expires":"2100-01-01T00:00:00Z","order":"{order}","tasks":{tasks}}}"#
    );
    std::fs::write(&file, text).unwrap();
    file
}

fn run(dir: &Path, file: &Path, more: &[&str]) -> (i32, String) {
    let Output { status, stdout, stderr } = Command::new(env!("CARGO_BIN_EXE_speediso-agent"))
        .args(["run", "--allow-loop", "--tasks"])
        .arg(file)
        .arg("--state-dir")
        .arg(dir.join("state"))
        .args(more)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&stdout).into_owned() + &String::from_utf8_lossy(&stderr);
    (status.code().unwrap_or(-1), text)
}

#[test]
fn what_is_not_permitted_is_not_done() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Disk::new(dir.path(), "disk");
    let before = disk.bytes();
    let machine = this_machine();
    let wipe = format!(
        r#"[{{"task":"wipe","devices":{{"hints":[{{"serial":"{}"}}]}},"level":"clear"}}]"#,
        disk.file.display()
    );

    let file = task_file(dir.path(), &machine, &wipe);
    let (code, text) = run(dir.path(), &file, &[]);
    assert!(code == 77 && text.contains("not-armed") && text.contains("--arm"), "{code} {text}");

    let (code, text) = run(dir.path(), &file, &["--arm", "52:54:00:ff:ff:ff"]);
    assert!(code == 77 && text.contains("machine-mismatch"), "{code} {text}");

    let (code, text) = run(dir.path(), &file, &["--arm", &machine, "--expect-plan", "0000"]);
    assert!(code == 77 && text.contains("plan-mismatch"), "{code} {text}");

    let (code, text) = run(dir.path(), &file, &["--dry-run"]);
    assert!(code == 0 && text.contains("DESTROYS DATA") && text.contains(&disk.device), "{code} {text}");

    let other = task_file(dir.path(), "Default string", &wipe);
    let (code, text) = run(dir.path(), &other, &["--arm", &machine]);
    assert!(code == 77 && text.contains("machine-mismatch"), "{code} {text}");

    for (name, tasks) in [
        ("unknown task", r#"[{"task":"format"}]"#),
        ("unknown field", r#"[{"task":"wipe","devices":"all_disks","level":"clear","fast":true}]"#),
        ("cut short", r#"[{"task":"wipe""#),
        ("nothing", "[]"),
    ] {
        let bad = task_file(dir.path(), &machine, tasks);
        let (code, text) = run(dir.path(), &bad, &["--arm", &machine]);
        assert!(code == 64 && text.contains("task-invalid"), "{name}: {code} {text}");
    }
    assert!(disk.bytes() == before, "something was written");
}

#[test]
fn the_plan_of_the_dry_run_is_the_plan_of_the_run() {
    let dir = tempfile::tempdir().unwrap();
    let (disk, neighbour) = (Disk::new(dir.path(), "disk"), Disk::new(dir.path(), "neighbour"));
    let before = neighbour.bytes();
    let machine = this_machine();
    let tasks = format!(
        r#"[{{"task":"wipe","devices":{{"hints":[{{"serial":"{}"}}]}},"level":"clear"}}]"#,
        disk.file.display()
    );
    let file = task_file(dir.path(), &machine, &tasks);
    let (_, text) = run(dir.path(), &file, &["--dry-run"]);
    let digest = text.lines().find_map(|l| l.split("digest ").nth(1)).expect("the plan shows its digest").trim();
    let (code, text) = run(dir.path(), &file, &["--arm", &machine, "--expect-plan", digest]);
    assert!(code == 0 && text.contains("verified: clear"), "{code} {text}");
    assert_eq!(&disk.bytes()[..8], b"SPDWIPE1");
    assert!(neighbour.bytes() == before);
}

/// What had begun and was not seen to end is `unknown`.
#[test]
fn an_agent_killed_in_the_middle_tells_the_truth() {
    let dir = tempfile::tempdir().unwrap();
    // Sparse and large: the wipe takes long enough to be killed in it, and stops before the file system is full.
    let file = dir.path().join("large");
    std::fs::File::create(&file).unwrap().set_len(64 << 30).unwrap();
    let out = Command::new("losetup").args(["-f", "--show"]).arg(&file).output().unwrap();
    let disk = Disk { device: String::from_utf8(out.stdout).unwrap().trim().into(), file: file.clone() };
    let machine = this_machine();
    let tasks =
        format!(r#"[{{"task":"wipe","devices":{{"hints":[{{"serial":"{}"}}]}},"level":"clear"}}]"#, file.display());
    let task_file = task_file(dir.path(), &machine, &tasks);
    let state = dir.path().join("state");
    let mut child = Command::new(env!("CARGO_BIN_EXE_speediso-agent"))
        .args(["run", "--allow-loop", "--tasks"])
        .arg(&task_file)
        .args(["--arm", &machine, "--state-dir"])
        .arg(&state)
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let begun = std::time::Instant::now();
    let written = |at: u64| {
        let mut start = [0; 8];
        std::fs::File::open(&disk.file).unwrap().read_exact_at(&mut start, at).unwrap();
        &start == b"SPDWIPE1"
    };
    while !written(8 << 20) {
        assert!(begun.elapsed().as_secs() < 60, "the wipe does not begin");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    child.kill().unwrap();
    child.wait().unwrap();

    // The next agent of the same boot reads the journal: looking only, it must not begin the wipe again.
    let inventory = dir.path().join("look.json");
    let order = uuid::Uuid::new_v4();
    std::fs::write(
        &inventory,
        format!(r#"{{"version":1,"machine":"{machine}","expires":"2100-01-01T00:00:00Z","order":"{order}","tasks":[{{"task":"inventory"}}]}}"#),
    )
    .unwrap();
    let (_, text) = run(dir.path(), &inventory, &[]);
    assert!(text.contains("is up again, after it died 1 times"), "{text}");
    let journal = std::fs::read_to_string(state.join("journal.jsonl")).unwrap();
    let ended = journal.lines().find(|l| l.contains("agent-died")).expect("the dead run is ended");
    assert!(ended.contains("\"unknown\""), "{ended}");
}

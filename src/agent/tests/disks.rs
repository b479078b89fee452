//! Asking the real agent which disk is meant, and what it says when none is, or two are: words and exit codes.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::path::{Path, PathBuf};
use std::process::Command;

struct Disk {
    device: String,
    file: PathBuf,
}

impl Disk {
    fn attach(file: &Path) -> Self {
        let out = Command::new("losetup").args(["-f", "--show"]).arg(file).output().unwrap();
        assert!(out.status.success(), "loop devices need root: run the tests as root");
        Self { device: String::from_utf8(out.stdout).unwrap().trim().into(), file: file.to_owned() }
    }

    fn new(dir: &Path, name: &str, size: u64) -> Self {
        let file = dir.join(name);
        std::fs::File::create(&file).unwrap().set_len(size).unwrap();
        Self::attach(&file)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("losetup").args(["-d", &self.device]).status();
    }
}

/// Exit status and everything said.
fn agent(args: &[&str]) -> (i32, String) {
    let out = Command::new(env!("CARGO_BIN_EXE_speediso-agent")).args(args).output().unwrap();
    let text = String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr);
    (out.status.code().unwrap_or(-1), text)
}

fn ask(hints: &str) -> (i32, String) {
    agent(&["disks", "--allow-loop", "--hints", hints])
}

/// The first line, with how many disks this host has left out.
fn first_line(text: &str, dir: &Path) -> String {
    let line = text.lines().next().unwrap_or_default().replace(dir.to_str().unwrap(), "DIR");
    let at = line.find(" disk").map_or(0, |at| line[..at].rfind(|c: char| !c.is_ascii_digit()).map_or(0, |at| at + 1));
    let digits = line[at..].find(|c: char| !c.is_ascii_digit()).unwrap_or(0);
    format!("{}N{}", &line[..at], &line[at + digits..])
}

#[test]
fn one_none_two_and_nonsense() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| format!("{}/{name}", dir.path().display());
    let (one, _other) = (Disk::new(dir.path(), "one", 1 << 20), Disk::new(dir.path(), "other", 2 << 20));

    let (code, text) = ask(&format!("serial={}", at("one")));
    assert_eq!((code, first_line(&text, dir.path()).as_str()), (0, "N disks here, 1 matches serial=\"DIR/one\""));
    let taken = text.lines().find(|line| line.contains("taken")).expect("it says which");
    assert!(taken.contains(&one.device) && taken.ends_with(&format!("serial is {:?}", one.file)), "{taken}");
    let other = text.lines().find(|line| line.contains("/other")).expect("and why not the other");
    assert!(other.contains("differs") && other.contains(", not "), "{other}");

    let (code, text) = ask(&format!("serial={}", at("third")));
    assert_eq!((code, first_line(&text, dir.path()).as_str()), (1, "N disks here, none matches serial=\"DIR/third\""));

    let ours = format!("serial=<in> {}/", dir.path().display());
    let (code, text) = ask(&ours);
    assert_eq!((code, first_line(&text, dir.path()).as_str()), (2, "2 of N disks match serial=\"<in> DIR/\""));
    let (code, text) = ask(&format!("{ours},pick=largest"));
    assert!(
        code == 0 && text.contains("2 to pick from with serial=") && text.contains("the largest is taken"),
        "{text}"
    );
    assert!(text.lines().any(|line| line.contains("taken  ") && line.contains("/other")), "{text}");

    let (code, text) =
        agent(&["disks", "--allow-loop", "--skip", &format!("serial={}", at("other")), "--hints", &ours]);
    assert!(code == 0 && text.contains("it is to be skipped (serial="), "{code} {text}");

    for (hints, words) in [
        ("serial=>= 5", "root device hint serial: >= compares numbers"),
        ("name=/dev/sda", "is what a kernel called some disk in one boot"),
        ("size=960GB", "\"960GB\" is not a size"),
        ("{\"serial\":\"a <or> b\"}", "<or> stands inside of \"a <or> b\""),
        ("pick=smallest", "the root device hints are empty"),
    ] {
        let (code, text) = ask(hints);
        assert!(code == 64 && text.contains(words), "{hints}: {code} {text}");
    }
    let (code, text) = agent(&["disks", "--ironic", "--hints", "{\"name\": \"/dev/sda\"}"]);
    assert!(code == 64 && text.contains("name it by serial, wwn or by_path"), "{code} {text}");
}

/// Two devices over one file have one serial number: nobody can say which is meant, and nothing is written.
#[test]
fn a_run_whose_hints_match_two_or_none_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let one = Disk::new(dir.path(), "one", 1 << 20);
    let double = Disk::attach(&one.file);
    let machine = speediso_agent::run::this_machine(&speediso_sys::roots::Roots::live());
    let machine = machine.macs.first().expect("this machine has a network interface").clone();
    let run = |hints: &str, more: &str, args: &[&str]| {
        let file = dir.path().join("tasks.json");
        let text = format!(
            r#"{{"version":1,"machine":"{machine}","expires":"2100-01-01T00:00:00Z","order":"{}"{more},
                "tasks":[{{"task":"wipe","devices":{{"hints":[{hints}]}},"level":"clear"}}]}}"#,
            uuid::Uuid::new_v4()
        );
        std::fs::write(&file, text).unwrap();
        let state = dir.path().join("state");
        let all =
            [&["run", "--allow-loop", "--tasks", file.to_str().unwrap(), "--state-dir", state.to_str().unwrap()], args];
        agent(&all.concat())
    };
    let arm = ["--arm", machine.as_str()];
    let serial = format!("{{\"serial\":{:?}}}", one.file);

    let (code, text) = run(&serial, "", &arm);
    assert!(code == 1 && text.contains("failed_unchanged") && text.contains("[ambiguous-disk]"), "{code} {text}");
    let said = text.lines().find(|line| line.contains("ambiguous-disk")).unwrap();
    assert!(said.contains("2 of ") && said.contains(" disks match serial="), "{said}");

    let (code, text) = run("{\"serial\":\"nobody\"}", "", &arm);
    assert!(code == 1 && text.contains("none matches serial=\"nobody\" [no-matching-disk]"), "{code} {text}");

    let (code, text) = run("{\"serial\":\"<near> x\"}", "", &arm);
    assert!(code == 64 && text.contains("<near> is not an operator here"), "{code} {text}");

    // Of disks to skip none is ambiguous, and none is taken.
    let skip = format!(",\"skip_block_devices\":[{serial}]");
    let (code, text) = run(&serial, &skip, &arm);
    assert!(code == 1 && text.contains("no-matching-disk") && text.contains("it is to be skipped"), "{code} {text}");
    assert!(std::fs::read(&one.file).unwrap().iter().all(|byte| *byte == 0), "something was written");

    drop(double);
    let (code, text) = run(&serial, "", &["--dry-run"]);
    assert!(code == 0 && text.contains(&one.device) && text.contains("not touched: "), "{code} {text}");
}

//! Programs from a tools archive: fetched, checked, unpacked, and run by the archive's own loader.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod support;

use std::path::Path;

use serde_json::json;
use sha2::{Digest as _, Sha256};
use speediso_model::fault::FaultCode;
use speediso_model::outcome::{Outcome, TaskResult};
use speediso_model::task::Task;
use speediso_tasks::tools::{ArchiveFacts, Tools};
use support::{Answer, Bench, LoopDisk, MIB, Server, failed, tool};

/// This system's own mkswap, with what it needs, in the places where the archive has them.
fn files() -> Vec<(String, Vec<u8>)> {
    let program = "/usr/sbin/mkswap";
    let program = if Path::new(program).exists() { program } else { "/sbin/mkswap" };
    let mut files = vec![("sbin/mkswap".to_owned(), std::fs::read(program).unwrap())];
    for line in tool("ldd", &[program]).lines() {
        let Some(path) = line.split_whitespace().find(|word| word.starts_with('/')) else { continue };
        let name = Path::new(path).file_name().unwrap().to_str().unwrap();
        let to = if name.starts_with("ld-linux") { "lib64" } else { "lib/x86_64-linux-gnu" };
        files.push((format!("{to}/{name}"), std::fs::read(path).unwrap()));
    }
    files
}

fn pack(files: &[(String, Vec<u8>)], link: Option<(&str, &str)>) -> (Vec<u8>, ArchiveFacts) {
    let mut archive = tar::Builder::new(Vec::new());
    for (name, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o755);
        header.set_size(bytes.len() as u64);
        archive.append_data(&mut header, name, bytes.as_slice()).unwrap();
    }
    if let Some((name, target)) = link {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        archive.append_link(&mut header, name, target).unwrap();
    }
    let packed = zstd::encode_all(archive.into_inner().unwrap().as_slice(), 1).unwrap();
    let facts = ArchiveFacts {
        sha256: Sha256::digest(&packed).iter().map(|b| format!("{b:02x}")).collect(),
        size: packed.len() as u64,
        unpacked: files.iter().map(|(_, bytes)| bytes.len() as u64).sum(),
        programs: vec!["/sbin/mkswap".into()],
    };
    (packed, facts)
}

/// Makes swap on a fresh disk with only these tools.
fn make(tools: Tools) -> (TaskResult, LoopDisk) {
    let mut bench = Bench::new();
    bench.ctx.tools = tools;
    let disk = LoopDisk::new(16 * MIB, 512);
    let task: Task = serde_json::from_value(json!({"task": "partition", "device": disk.hints(), "partitions": [
        {"name": "swap", "kind": "swap", "size": "rest", "content": {"file_system": {"kind": "swap", "label": "s"}}},
    ]}))
    .unwrap();
    (bench.run(&task), disk)
}

#[test]
fn an_archive_is_fetched_once_and_its_programs_run() {
    let (packed, facts) = pack(&files(), None);
    let dir = tempfile::tempdir().unwrap();
    let server = Server::serve(packed.clone(), Answer::Whole);
    let place = dir.path().join("run/tools");
    let tools = |from: &str| Tools::new(Vec::new(), Some(facts.clone()), Some(from.to_owned()), place.clone());
    let (result, disk) = make(tools(&server.url));
    assert_eq!(result.outcome, Outcome::Verified, "{result:#?}");
    let seen = tool("blkid", &["-p", "-O", "1048576", "-o", "value", "-s", "TYPE", &disk.device]);
    assert_eq!(seen.trim(), "swap");
    drop(server);
    // An agent that was started again finds it where it was.
    assert_eq!(make(tools("http://127.0.0.1:1/nobody")).0.outcome, Outcome::Verified);
    // From a file, too.
    let file = dir.path().join("tools.tar.zst");
    std::fs::write(&file, packed).unwrap();
    std::fs::remove_dir_all(&place).unwrap();
    assert_eq!(make(tools(file.to_str().unwrap())).0.outcome, Outcome::Verified);
}

#[test]
fn what_is_not_the_archive_is_not_unpacked() {
    let (packed, facts) = pack(&files(), None);
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join("tools");
    let missing = |answer: Answer, body: &[u8], facts: &ArchiveFacts| {
        let server = Server::serve(body.to_vec(), answer);
        let (result, disk) = make(Tools::new(Vec::new(), Some(facts.clone()), Some(server.url.clone()), place.clone()));
        failed(&result, Outcome::FailedUnchanged, FaultCode::ToolMissing);
        assert!(disk.bytes(0, 16 << 20).iter().all(|b| *b == 0) && !place.exists());
        result.fault.unwrap().to_string()
    };
    let mut changed = packed.clone();
    let middle = changed.len() / 2;
    changed[middle] ^= 1;
    assert!(missing(Answer::Whole, &changed, &facts).contains("two builds"));
    changed.push(0);
    assert!(missing(Answer::Whole, &changed, &facts).contains("larger than"));
    assert!(missing(Answer::Status(404), &packed, &facts).contains("404"));
    missing(Answer::CutAfter(middle), &packed, &facts);
    // The right digest of something that should not be: what it says of itself binds it all the same.
    let small = ArchiveFacts { unpacked: facts.unpacked - 1, ..facts.clone() };
    assert!(missing(Answer::Whole, &packed, &small).contains("larger than it should be"));
    for (name, target) in [("lib/a", "../../etc/passwd"), ("lib/a", "/etc/passwd")] {
        let (packed, facts) = pack(&files(), Some((name, target)));
        assert!(missing(Answer::Whole, &packed, &facts).contains("leads out"));
    }
}

#[test]
fn an_applet_of_busybox_is_not_the_program() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::copy("/bin/true", dir.path().join("busybox")).unwrap();
    std::os::unix::fs::symlink("busybox", dir.path().join("mkswap")).unwrap();
    let (result, _disk) = make(Tools::new(vec![dir.path().into()], None, None, dir.path().join("tools")));
    failed(&result, Outcome::FailedUnchanged, FaultCode::ToolMissing);
}

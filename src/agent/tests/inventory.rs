//! `speediso-agent inventory` on the machine that runs this test, by root and by nobody.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Command;

use speediso_model::inventory::Inventory;

const NOBODY: u32 = 65_534;

/// Where everybody may run it.
fn program(dir: &tempfile::TempDir) -> PathBuf {
    let program = dir.path().join("speediso-agent");
    fs::copy(env!("CARGO_BIN_EXE_speediso-agent"), &program).expect("copied");
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("open to all");
    program
}

#[test]
fn anybody_may_look_and_is_told_what_is_closed_to_him() {
    let dir = tempfile::tempdir().expect("a directory");
    let program = program(&dir);
    let run = |uid: Option<u32>, args: &[&str]| {
        let mut command = Command::new(&program);
        command.arg("inventory").args(args).current_dir("/");
        if let Some(uid) = uid {
            command.uid(uid).gid(uid);
        }
        let output = command.output().expect("started");
        let said = String::from_utf8(output.stdout).expect("text");
        assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
        said
    };
    let read = |text: &str| serde_json::from_str::<Inventory>(text).expect("an inventory");
    let (root, nobody) = (read(&run(None, &["--json"])), read(&run(Some(NOBODY), &["--json"])));
    for machine in [&root, &nobody] {
        assert!(machine.cpu.count > 0 && machine.memory.total.0 > 0 && !machine.kernel.release.is_empty());
    }
    assert_eq!((root.cpu.count, root.interfaces.len()), (nobody.cpu.count, nobody.interfaces.len()));
    // What only root may read is said to be missing, where there is any.
    let tables = fs::metadata("/sys/firmware/dmi/tables/DMI").is_ok();
    assert_eq!(nobody.unread.iter().any(|line| line.contains("SMBIOS") && line.contains("ermission denied")), tables);

    for uid in [None, Some(NOBODY)] {
        let page = run(uid, &[]);
        assert!(page.contains("SYSTEM") && page.lines().all(|line| line.chars().count() <= 80), "{page}");
        assert!(!page.chars().any(|c| c.is_control() && c != '\n'), "{page:?}");
        let says_so = page.contains("closed to this user");
        assert!(if uid.is_none() { !says_so } else { says_so || !tables }, "{page}");
    }
}

//! The live root built by root and by a user without rights or set-up: the same bytes, nothing in them that lets anybody in.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

const BUILDER: &str = env!("CARGO_BIN_EXE_speediso-initramfs");
const NOBODY: u32 = 65534;
const SEED: &str = "0101010101010101010101010101010101010101010101010101010101010101";

#[track_caller]
fn succeed(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}:\n{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn cache() -> PathBuf {
    let set = |name: &str| std::env::var_os(name).map(PathBuf::from);
    let base = set("XDG_CACHE_HOME").or_else(|| set("HOME").map(|home| home.join(".cache"))).unwrap();
    set("SPEEDISO_CACHE").unwrap_or_else(|| base.join("speediso"))
}

/// Every file of the directory.
fn content(directory: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap()))
        .collect();
    files.sort();
    files
}

fn live(builder: &Path, builds: &Path, to: &Path, key: &Path) -> Vec<String> {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/boot/live/live.json");
    let path = |path: &Path| path.to_str().unwrap().to_owned();
    let words = ["live", "--agent", &path(builder), "--out", &path(builds), "--to", &path(to), "--key", &path(key)];
    let mut words: Vec<String> = words.map(str::to_owned).into();
    words.extend(["--manifest".to_owned(), path(&manifest)]);
    words
}

/// Two roots made one after the other by different users, from packages alone: nothing of the first reaches the second.
#[test]
#[ignore = "installs a system twice, which takes minutes; make test-all runs it"]
fn root_and_a_user_without_rights_make_the_same_bytes() {
    assert!(fs::metadata("/proc/self").is_ok_and(|m| std::os::unix::fs::MetadataExt::uid(&m) == 0), "run as root");
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::copy(BUILDER, at("builder")).unwrap();
    fs::write(at("key"), SEED).unwrap();
    let (builder, builds) = (at("builder"), at("builds"));
    succeed(Command::new(BUILDER).args(["build", "--number", "7", "--agent", BUILDER, "--out"]).arg(&builds));

    // Each begins with the packages and nothing else.
    let mut made = Vec::new();
    for (name, user) in [("first", None), ("second", Some(NOBODY))] {
        let (home, own, to) = (at(name), at(name).join("cache"), at(name).join("live"));
        fs::create_dir_all(&own).unwrap();
        for kind in ["debs", "kernels", "unpacked"] {
            succeed(Command::new("cp").arg("-r").arg(cache().join(kind)).arg(&own));
        }
        let mut command = match user {
            Some(user) => {
                succeed(Command::new("chown").arg("-R").arg(format!("{user}:{user}")).arg(&home));
                let mut command = Command::new("setpriv");
                command
                    .args([format!("--reuid={user}"), format!("--regid={user}"), "--clear-groups".into()])
                    .arg(&builder);
                chown(at("key"), Some(user), None).unwrap();
                command
            }
            None => Command::new(&builder),
        };
        command.env("HOME", &home).env("SPEEDISO_CACHE", &own).env("TMPDIR", &home).current_dir("/");
        let said = succeed(command.args(live(&builder, &builds, &to, &at("key"))));
        assert!(said.contains("speediso.live_key="), "{said}");
        made.push(content(&to));
    }
    let names: Vec<_> = made[0].iter().map(|(name, _)| name.clone()).collect();
    assert!(names.contains(&"manifest.json.sig".to_owned()), "{names:?}");
    assert!(made[0] == made[1], "the two differ");

    // And once more, with nothing new: seconds, and not a byte is written.
    let before = fs::metadata(at("first").join("live/manifest.json")).unwrap().modified().unwrap();
    let mut again = Command::new(&builder);
    again.env("HOME", at("first")).env("SPEEDISO_CACHE", at("first").join("cache")).env("TMPDIR", at("first"));
    let said = succeed(again.args(live(&builder, &builds, &at("first").join("live"), &at("key"))));
    assert!(said.contains("is up to date"), "{said}");
    assert_eq!(fs::metadata(at("first").join("live/manifest.json")).unwrap().modified().unwrap(), before);
}

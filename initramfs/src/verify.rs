//! Whether a build is what was published: every file by its checksum, and the checksums by a signature.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use speediso_image::manifest::{PublicKey, SIGNATURE_SUFFIX, SigningKey};

use crate::live;
use crate::packages::sha256_of;

pub const SUMS: &str = "SHA256SUMS";

/// Of the signature's file: `SHA256SUMS.sig`, 128 hex digits, ed25519 over the bytes of `SHA256SUMS`.
#[must_use]
pub fn signature_name() -> String {
    format!("{SUMS}{SIGNATURE_SUFFIX}")
}

/// The key in `file`: PKCS #8 (`openssl genpkey -algorithm ed25519`) or a seed of 64 hex digits.
pub fn signing_key(file: &Path) -> Result<SigningKey> {
    let content = fs::read(file).with_context(|| format!("reading the key {}", file.display()))?;
    SigningKey::from_file(&content).with_context(|| format!("the key in {}", file.display()))
}

/// Puts the signature beside the checksums, whole or not at all.
pub fn sign(build: &Path, key: &SigningKey) -> Result<()> {
    let sums = fs::read(build.join(SUMS)).with_context(|| format!("reading {SUMS} of {}", build.display()))?;
    let to = build.join(signature_name());
    let mut file = tempfile::NamedTempFile::new_in(build).with_context(|| format!("writing to {}", build.display()))?;
    file.write_all(key.sign(&sums).as_bytes())?;
    file.as_file().sync_all()?;
    // Temporary files are for their owner only; what is published is for everybody.
    file.as_file().set_permissions(fs::Permissions::from_mode(0o644))?;
    file.persist(&to).with_context(|| format!("writing {}", to.display()))?;
    Ok(())
}

/// How many files were compared. With `key` the signature counts too; without, nothing says who made the build.
pub fn check(build: &Path, key: Option<&PublicKey>) -> Result<usize> {
    let path = build.join(SUMS);
    let sums = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
    // Before a line of it is believed.
    if let Some(key) = key {
        let beside = build.join(signature_name());
        let signature =
            fs::read(&beside).with_context(|| format!("the build is not signed: reading {}", beside.display()))?;
        key.verify(&sums, &signature).with_context(|| format!("the signature {}", beside.display()))?;
    }
    let sums = String::from_utf8(sums).with_context(|| format!("{} is not text", path.display()))?;
    let mut named = BTreeSet::from([SUMS.to_owned(), signature_name()]);
    let mut wrong = Vec::new();
    let mut count = 0;
    for line in sums.lines() {
        let (sum, name) =
            line.split_once("  ").with_context(|| format!("{} has the odd line {line:?}", path.display()))?;
        ensure!(!name.contains('/') && !name.is_empty(), "{} names {name:?}, which is not beside it", path.display());
        match sha256_of(&build.join(name)) {
            Ok(got) if got == sum => count += 1,
            Ok(got) => wrong.push(format!("{name} has the SHA-256 {got} instead of {sum}")),
            Err(error) => wrong.push(format!("{name}: {error:#}")),
        }
        named.insert(name.to_owned());
    }
    for entry in fs::read_dir(build)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        // The live flavour comes later, and is signed for itself.
        if !named.contains(&name) && name != live::DIRECTORY {
            wrong.push(format!("{name} is not in {SUMS}"));
        }
    }
    if !wrong.is_empty() {
        bail!("{} is not the build that was published: {}", build.display(), wrong.join("; "));
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeMap;

    use super::*;
    use crate::builds::Builds;

    #[test]
    fn whatever_is_changed_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let builds = Builds::in_directory(dir.path());
        let files = BTreeMap::from([("vmlinuz", b"kernel".to_vec()), ("initramfs.img", b"ramdisk".to_vec())]);
        let build = builds.publish(1, &files).unwrap();
        let (key, stranger) = (SigningKey::generate().unwrap(), SigningKey::generate().unwrap());
        assert_eq!(check(&build, None).unwrap(), 2);
        let unsigned = check(&build, Some(&key.public())).unwrap_err().to_string();
        assert!(unsigned.starts_with("the build is not signed"), "{unsigned}");
        sign(&build, &key).unwrap();
        assert_eq!(check(&build, Some(&key.public())).unwrap(), 2);
        assert!(check(&build, Some(&stranger.public())).is_err());

        fs::write(build.join("vmlinuz"), "kermel").unwrap();
        let error = check(&build, Some(&key.public())).unwrap_err().to_string();
        assert!(error.contains("vmlinuz has the SHA-256"), "{error}");
        fs::remove_file(build.join("vmlinuz")).unwrap();
        fs::write(build.join("more"), "x").unwrap();
        let error = check(&build, None).unwrap_err().to_string();
        assert!(error.contains("vmlinuz: opening") && error.contains("more is not in SHA256SUMS"), "{error}");
        // Sums that fit a changed file do not fit the signature.
        fs::remove_file(build.join("more")).unwrap();
        let sums = fs::read_to_string(build.join(SUMS)).unwrap();
        fs::write(build.join(SUMS), sums.lines().next().unwrap().to_owned() + "\n").unwrap();
        assert!(check(&build, None).is_ok());
        assert!(check(&build, Some(&key.public())).is_err());
    }
}

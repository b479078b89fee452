//! Signing task files for the local front door. Works without a controller.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use anyhow::{Context as _, Result, anyhow};
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use serde_json::json;
use speediso_model::plan::hex;
use speediso_model::taskfile::TaskFile;

use crate::output;

/// PKCS #8 in DER, as other tools read it (`openssl pkey -inform DER`).
pub(crate) fn keygen(file: &Path, json: bool) -> Result<()> {
    let key = Ed25519KeyPair::generate().map_err(|_| anyhow!("making an ed25519 key"))?;
    let pkcs8 = key.to_pkcs8v1().map_err(|_| anyhow!("encoding the key"))?;
    // Never over a key that is there: what it signed could not be signed again.
    std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(file)
        .and_then(|mut f| f.write_all(pkcs8.as_ref()).and_then(|()| f.sync_all()))
        .with_context(|| format!("writing {}", file.display()))?;
    let public = hex(key.public_key().as_ref());
    output::print(json, &json!({"public_key": public}), |_| {
        format!("the private key is in {}; boot machines with\nspeediso.tasks_key={public}", file.display())
    })
}

pub(crate) fn sign_tasks(file: &Path, key: &Path) -> Result<()> {
    let tasks = std::fs::read(file).with_context(|| format!("reading {}", file.display()))?;
    // A file that an agent would refuse is not worth a signature.
    let parsed = TaskFile::parse(&tasks)?;
    let pkcs8 = std::fs::read(key).with_context(|| format!("reading {}", key.display()))?;
    let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(&pkcs8)
        .map_err(|e| anyhow!("{} is not an ed25519 key in PKCS #8: {e}", key.display()))?;
    let mut name = file.as_os_str().to_owned();
    name.push(".sig");
    let target = Path::new(&name);
    std::fs::write(target, hex(pair.sign(&tasks).as_ref()) + "\n")
        .with_context(|| format!("writing {}", target.display()))?;
    println!(
        "{} is signed: {} tasks for machine {}, until {}; signature in {}",
        file.display(),
        parsed.tasks.len(),
        parsed.machine,
        parsed.expires,
        target.display()
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};

    #[test]
    fn a_signature_verifies_and_a_key_is_never_overwritten() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (key, file) = (dir.path().join("key"), dir.path().join("tasks.json"));
        keygen(&key, true).expect("a key");
        assert!(keygen(&key, true).is_err(), "an existing key must stay");

        std::fs::write(&file, "{}").expect("written");
        assert!(sign_tasks(&file, &key).is_err(), "an invalid file is not signed");
        let text = r#"{"version":1,"machine":"S1","expires":"2030-01-01T00:00:00Z",
            "order":"6f1f6e0e-54a9-4bd5-a7c0-8f2b2a3c1d11","tasks":[{"task":"inventory"}]}"#;
        std::fs::write(&file, text).expect("written");
        sign_tasks(&file, &key).expect("signed");

        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(&std::fs::read(&key).expect("key")).expect("a key");
        let signature = std::fs::read_to_string(dir.path().join("tasks.json.sig")).expect("signature");
        let bytes: Vec<u8> =
            (0..64).map(|i| u8::from_str_radix(&signature[2 * i..2 * i + 2], 16).expect("hexadecimal")).collect();
        UnparsedPublicKey::new(&ED25519, pair.public_key().as_ref()).verify(text.as_bytes(), &bytes).expect("verifies");
    }
}

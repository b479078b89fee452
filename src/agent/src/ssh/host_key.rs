//! The key that the ssh server shows: made in this boot, in memory, and told to the controller before anybody comes.
//!
//! It lies in the state directory in the two forms in which servers read it: so a restarted agent, and the live system
//! that the ramdisk goes on in, show what was told.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use aws_lc_rs::rand::{SecureRandom as _, SystemRandom};
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use speediso_model::ssh::to_base64;
use speediso_model::task::is_ssh_public_key;

/// As OpenSSH has it; `systemd/sshd.conf` names it.
const OPENSSH: &str = "ssh_host_ed25519_key";
const PUBLIC: &str = "ssh_host_ed25519_key.pub";
pub(super) const DROPBEAR: &str = "dropbear_ed25519_host_key";
/// One kind only: what a client is shown is what was reported.
const KIND: &str = "ssh-ed25519";
const COMMENT: &str = "speediso";
/// To which OpenSSH pads a key that is not encrypted.
const BLOCK: usize = 8;

/// The public half, `ssh-ed25519 AAAA...`, of the one that is there or of a new one.
///
/// # Errors
/// When there are no random numbers, or the directory cannot be written.
pub(super) fn load_or_make(state: &Path) -> io::Result<String> {
    let (openssh, public) = (state.join(OPENSSH), state.join(PUBLIC));
    if !(openssh.exists() && public.exists()) {
        let key = Key::make()?;
        put(&state.join(DROPBEAR), &key.dropbear())?;
        put(&openssh, key.openssh().as_bytes())?;
        // Last: that it is there says that all are.
        put(&public, format!("{KIND} {} {COMMENT}\n", to_base64(&key.blob())).as_bytes())?;
    }
    let text = fs::read_to_string(&public)?;
    // Without the comment.
    let key = text.split_whitespace().take(2).collect::<Vec<_>>().join(" ");
    if !is_ssh_public_key(&key) {
        return Err(io::Error::other(format!("{} is no public key", public.display())));
    }
    Ok(key)
}

/// Whole or not at all, and for its owner only.
fn put(path: &Path, content: &[u8]) -> io::Result<()> {
    let part = path.with_extension("part");
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&part)?;
    file.write_all(content)?;
    fs::rename(part, path)
}

struct Key {
    seed: [u8; 32],
    public: Vec<u8>,
}

impl Key {
    fn make() -> io::Result<Self> {
        let mut seed = [0; 32];
        SystemRandom::new().fill(&mut seed).map_err(|_| io::Error::other("there are no random numbers"))?;
        Self::of(seed)
    }

    fn of(seed: [u8; 32]) -> io::Result<Self> {
        let pair = Ed25519KeyPair::from_seed_unchecked(&seed).map_err(|_| io::Error::other("making a host key"))?;
        Ok(Self { seed, public: pair.public_key().as_ref().to_vec() })
    }

    /// RFC 8709: the kind and the public key.
    fn blob(&self) -> Vec<u8> {
        let mut blob = string(KIND.as_bytes());
        blob.extend(string(&self.public));
        blob
    }

    fn secret(&self) -> Vec<u8> {
        [self.seed.as_slice(), &self.public].concat()
    }

    /// The kind, then secret and public key as one string.
    fn dropbear(&self) -> Vec<u8> {
        let mut key = string(KIND.as_bytes());
        key.extend(string(&self.secret()));
        key
    }

    /// PROTOCOL.key of OpenSSH, without encryption: two check numbers that must agree, the key, the comment, padding.
    fn openssh(&self) -> String {
        let mut inner = vec![0; 8];
        inner.extend(self.blob());
        inner.extend(string(&self.secret()));
        inner.extend(string(COMMENT.as_bytes()));
        inner.extend((1..=u8::MAX).take(inner.len().next_multiple_of(BLOCK) - inner.len()));
        let mut whole = b"openssh-key-v1\0".to_vec();
        for word in [b"none".as_slice(), b"none", b""] {
            whole.extend(string(word));
        }
        whole.extend(1u32.to_be_bytes());
        whole.extend(string(&self.blob()));
        whole.extend(string(&inner));
        let mut text = "-----BEGIN OPENSSH PRIVATE KEY-----\n".to_owned();
        let encoded = to_base64(&whole);
        let mut rest = encoded.as_str();
        while !rest.is_empty() {
            let (line, more) = rest.split_at(rest.len().min(70));
            text.extend([line, "\n"]);
            rest = more;
        }
        text + "-----END OPENSSH PRIVATE KEY-----\n"
    }
}

/// RFC 4251: the length in four bytes, then the bytes.
fn string(bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    [length.to_be_bytes().as_slice(), bytes].concat()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::process::Command;

    use speediso_model::ssh::fingerprint;

    use super::*;

    #[test]
    fn openssh_reads_the_key_and_shows_this_fingerprint() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let made = load_or_make(dir.path()).expect("made");
        let openssh = dir.path().join(OPENSSH);
        let run = |args: &[&str]| {
            let mut command = Command::new("ssh-keygen");
            let output = command.args(args).arg("-f").arg(&openssh).output().expect("ssh-keygen is there");
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            String::from_utf8_lossy(&output.stdout).into_owned()
        };
        // From the private key itself, not from the file beside it.
        assert_eq!(run(&["-y"]), format!("{made} speediso\n"));
        assert!(run(&["-l"]).contains(&fingerprint(&made).expect("a fingerprint")));
        assert_eq!(load_or_make(dir.path()).expect("again"), made, "one key for the whole boot");
        assert_eq!(fs::metadata(&openssh).expect("there").permissions().mode() & 0o777, 0o600);
    }

    /// A live image that no ramdisk came before has one made by `systemd/speediso-hostkey.service`.
    #[test]
    fn a_key_that_openssh_made_is_kept() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mut maker = Command::new("ssh-keygen");
        maker.args(["-q", "-t", "ed25519", "-N", "", "-C", "x y", "-f"]);
        assert!(maker.arg(dir.path().join(OPENSSH)).status().expect("ssh-keygen is there").success());
        let public = fs::read_to_string(dir.path().join(PUBLIC)).expect("read");
        assert_eq!(format!("{} x y\n", load_or_make(dir.path()).expect("loaded")), public);
    }

    #[test]
    fn dropbear_gets_kind_secret_and_public_key() {
        let key = Key::of([7; 32]).expect("a key");
        let bytes = key.dropbear();
        assert_eq!(bytes.len(), 4 + 11 + 4 + 64);
        assert_eq!(bytes[..19], *b"\0\0\0\x0bssh-ed25519\0\0\0\x40");
        assert_eq!((&bytes[19..51], &bytes[51..]), ([7; 32].as_slice(), key.public.as_slice()));
    }
}

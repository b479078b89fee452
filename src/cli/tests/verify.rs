//! `speediso verify-certificate` as a program, with keys that sign for real.
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "tests")]

use std::path::{Path, PathBuf};
use std::process::Command;

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use serde_json::{Value, json};
use speediso_model::certificate::{Chain, Document, SiteKey, Statement};

struct Key(Ed25519KeyPair);

impl Key {
    fn new() -> Self {
        Self(Ed25519KeyPair::generate().unwrap())
    }

    fn public(&self) -> SiteKey {
        SiteKey(self.0.public_key().as_ref().try_into().unwrap())
    }

    fn seal(&self, statement: Value) -> Document {
        let statement: Statement = serde_json::from_value(statement).expect("a statement");
        Document::seal(statement, self.public(), |bytes| self.0.sign(bytes).as_ref().try_into().unwrap()).unwrap()
    }
}

fn is_signed(key: &SiteKey, bytes: &[u8], signature: &[u8; 64]) -> bool {
    UnparsedPublicKey::new(&ED25519, key.0).verify(bytes, signature).is_ok()
}

fn statement(chain: &Chain) -> Value {
    let id = "6f1f6e0e-54a9-4bd5-a7c0-8f2b2a3c1d11";
    let at = "2026-11-21T12:00:00Z";
    json!({
        "format": "speediso certificate of sanitization, version 1",
        "number": chain.next_number(), "previous": chain.head(), "issued": at,
        "issuer": {"organization": "Example", "location": "Hall 3", "responsible": "A. Person", "program": "test"},
        "subject": {"device": {
            "device": {"model": "M\u{1b}[2J", "serial": "S1", "firmware": "F", "size": 4096, "sector_size": 512,
                "media_type": "volume", "medium": {"volume": {"of": "a loop device: a file"}}, "seen_as": "/dev/loop0"},
            "machine": {"node": id, "name": "web1", "manufacturer": "", "product": "", "serial": "", "chassis_serial": "",
                "asset_tag": ""},
            "sanitization": {"asked": "clear", "reached": "clear", "method": "overwrite", "steps": [], "not_covered": [],
                "areas": [{"kind": "user", "name": "all", "size": 4096, "covered": true, "how": "overwritten"}]},
            "verification": {"kind": "full", "bytes": 4096, "in_words": "all of it"},
            "device_log": [],
            "work": {"order": id, "ordered_by": "me", "ordered": at, "task": 0, "run": id, "epoch": 1, "plan": "00",
                "permitted": at, "begun": at, "ended": at, "duration_ms": 1,
                "tool": {"number": 1, "version": "0.1.0", "kernel": "6.1", "built": 1}},
            "notes": {}, "remarks": []}}
    })
}

/// So many certificates of one site, and where they lie.
struct Site {
    dir: tempfile::TempDir,
    key: Key,
    documents: Vec<Document>,
}

impl Site {
    fn with(n: usize) -> Self {
        let (dir, key) = (tempfile::tempdir().unwrap(), Key::new());
        let mut chain = Chain::default();
        let mut next = || {
            let document = key.seal(statement(&chain));
            chain.push(&document).unwrap();
            document
        };
        let documents = (0..n).map(|_| next()).collect();
        Self { dir, key, documents }
    }

    fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.dir.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    }

    fn chain(&self, documents: &[Document]) -> PathBuf {
        self.file("chain", documents.iter().map(Document::text).collect::<String>())
    }

    /// Exit code and what was said.
    fn verify(&self, file: &Path, more: &[&str]) -> (i32, String) {
        verify(file, &self.key.public().to_string(), more)
    }

    fn in_chain(&self, document: &Document, chain: &Path) -> (i32, String) {
        let file = self.file("document", document.text());
        self.verify(&file, &["--chain", chain.to_str().unwrap()])
    }
}

fn verify(file: &Path, key: &str, more: &[&str]) -> (i32, String) {
    let done = Command::new(env!("CARGO_BIN_EXE_speediso"))
        .args(["verify-certificate", file.to_str().unwrap(), "--key", key])
        .args(more)
        // Off-line and without any set-up.
        .env_clear()
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr);
    (done.status.code().unwrap(), text)
}

#[test]
fn a_certificate_is_valid_with_the_public_key_alone() {
    let site = Site::with(1);
    let file = site.file("document", site.documents[0].text());
    let (code, text) = site.verify(&file, &[]);
    assert_eq!(code, 0, "{text}");
    for words in
        ["VALID", "certificate 1 of Example", "serial S1", "clear reached by overwriting", "no statement about"]
    {
        assert!(text.contains(words), "{words}: {text}");
    }
    assert!(!text.contains('\u{1b}'), "a device's name does not drive the terminal");
    let (code, text) = site.verify(&file, &["--json"]);
    let report: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((code, &report["valid"], &report["number"]), (0, &json!(true), &json!(1)));
    // The key as openssl writes it.
    use base64::Engine as _;
    let pem = base64::engine::general_purpose::STANDARD.encode(site.key.public().spki());
    let pem = site.file("site.pem", format!("-----BEGIN PUBLIC KEY-----\n{pem}\n-----END PUBLIC KEY-----\n"));
    assert_eq!(verify(&file, pem.to_str().unwrap(), &[]).0, 0);
}

#[test]
fn no_byte_can_be_another() {
    let site = Site::with(1);
    let good = site.documents[0].text().as_bytes();
    let open = |bytes: &[u8]| Document::open(bytes, |k| *k == site.key.public(), is_signed);
    open(good).expect("as signed");
    for i in 0..good.len() * 8 {
        let mut bytes = good.to_vec();
        bytes[i / 8] ^= 1 << (i % 8);
        assert!(open(&bytes).is_err(), "bit {} of byte {}", i % 8, i / 8);
    }
    // The program too, at some of them.
    for i in (0..good.len()).step_by(37).chain([good.len() - 1]) {
        let mut bytes = good.to_vec();
        bytes[i] ^= 1;
        let (code, text) = site.verify(&site.file("bad", &bytes), &[]);
        assert!((code == 1 || code == 66) && !text.contains(": VALID"), "byte {i}: {code} {text}");
    }
}

#[test]
fn invalid_and_unreadable_are_told_apart() {
    let site = Site::with(1);
    let good = site.documents[0].text();
    let changed = site.file("changed", good.replace("\"S1\"", "\"S2\""));
    let (code, text) = site.verify(&changed, &[]);
    assert!(code == 1 && text.contains("NOT VALID") && text.contains("something was changed"), "{code} {text}");
    let file = site.file("document", good);
    let (code, text) = verify(&file, &Key::new().public().to_string(), &[]);
    assert!(code == 1 && text.contains("none of those trusted"), "{code} {text}");
    for (name, content) in [("empty", ""), ("text", "hello\n"), ("json", "{}\n"), ("cut", &good[..good.len() - 1])] {
        let (code, text) = site.verify(&site.file(name, content), &[]);
        assert!(code == 66 && text.contains("UNREADABLE"), "{name}: {code} {text}");
    }
    assert_eq!(site.verify(Path::new("/nonexistent"), &[]).0, 66);
    assert_eq!(verify(&file, "/nonexistent", &[]).0, 66);
    assert_eq!(site.verify(&file, &["--chain", "/nonexistent"]).0, 66);
}

#[test]
fn a_chain_is_verified_whole() {
    let site = Site::with(5);
    let all = &site.documents;
    let (code, text) = site.in_chain(&all[2], &site.chain(all));
    assert!(code == 0 && text.contains("5 certificates") && text.contains("this is number 3"), "{text}");
    for i in 0..4 {
        let mut removed = all.clone();
        removed.remove(i);
        let mut moved = all.clone();
        moved.swap(i, i + 1);
        let mut inserted = all.clone();
        inserted.insert(i, all[4].clone());
        for broken in [removed, moved, inserted] {
            let (code, text) = site.in_chain(&all[4], &site.chain(&broken));
            assert!(code == 1 && text.contains("of the chain"), "{i}: {code} {text}");
        }
    }
    // Cut at its end, it is a chain; only who has a newer certificate can tell.
    let (code, text) = site.in_chain(&all[4], &site.chain(&all[..3]));
    assert!(code == 1 && text.contains("the chain ends at 3"), "{text}");
    assert_eq!(site.in_chain(&all[0], &site.chain(&all[..3])).0, 0);
    // Signed by the site, but in another history.
    let other = site.key.seal({
        let mut other = statement(&Chain::after(2, all[1].digest().clone()));
        other["issuer"]["location"] = json!("elsewhere");
        other
    });
    let (code, text) = site.in_chain(&other, &site.chain(all));
    assert!(code == 1 && text.contains("another stands in its place"), "{text}");
    let torn = site.documents.iter().map(Document::text).collect::<String>().replacen("Hall 3", "Hall 4", 1);
    let torn = site.file("torn", torn);
    let (code, text) = site.in_chain(&all[4], &torn);
    assert!(code == 1 && text.contains("line 1 of the chain"), "{text}");
}

#[test]
fn after_a_rotation_both_keys_are_needed() {
    let site = Site::with(2);
    let second = Key::new();
    let chain = Chain::after(2, site.documents[1].digest().clone());
    let third = second.seal(statement(&chain));
    let all = [&site.documents[..], std::slice::from_ref(&third)].concat();
    let (file, chain) = (site.file("document", third.text()), site.chain(&all));
    let keys = [site.key.public().to_string(), second.public().to_string()];
    let with = |more: &[&str]| verify(&file, &keys[1], &[&["--chain", chain.to_str().unwrap()], more].concat());
    assert_eq!(with(&["--key", &keys[0]]).0, 0);
    let (code, text) = with(&[]);
    assert!(code == 1 && text.contains("line 1 of the chain") && text.contains("none of those trusted"), "{text}");
}

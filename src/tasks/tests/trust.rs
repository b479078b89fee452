//! Images that are trusted by something else than a digest in the order.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod support;

use std::path::Path;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use speediso_image::manifest::{PackOptions, SigningKey, pack};
use speediso_model::fault::FaultCode;
use speediso_model::image::{Compression, ImageFormat, ImageSource};
use speediso_model::outcome::{Outcome, TaskResult};
use speediso_model::plan::hex;
use speediso_model::task::{Task, WriteImageTask};
use speediso_model::trust::{Checksums, Signature};
use support::*;

/// What a server has.
struct Folder {
    dir: tempfile::TempDir,
    image: Vec<u8>,
}

impl Folder {
    fn new() -> Self {
        let (dir, image) = (tempfile::tempdir().unwrap(), image(16 * MIB, 512));
        std::fs::write(dir.path().join("disk.img"), &image).unwrap();
        Self { dir, image }
    }

    fn put(&self, name: &str, content: impl AsRef<[u8]>) {
        std::fs::write(self.dir.path().join(name), content).unwrap();
    }

    fn sha256sum(&self) -> String {
        tool("sha256sum", &[self.dir.path().join("disk.img").to_str().unwrap()]).split(' ').next().unwrap().to_owned()
    }

    fn serve(&self) -> Server {
        Server::files(self.dir.path(), |_, _, _| {})
    }
}

fn unverified(server: &Server, name: &str) -> ImageSource {
    let mut image = source(&at(server, name), b"", Compression::None);
    image.digest = None;
    image
}

fn at(server: &Server, name: &str) -> String {
    server.url.replace("/image", &format!("/{name}"))
}

/// On a disk that tells whether it was written.
fn write(image: ImageSource) -> (TaskResult, LoopDisk, bool) {
    let (bench, disk) = (Bench::new(), LoopDisk::new(16 * MIB, 512));
    let before = disk.fill(3);
    let task = WriteImageTask::new(disk.hints(), image);
    let result = bench.run(&Task::WriteImage(task));
    let changed = disk.digest() != before;
    (result, disk, changed)
}

#[track_caller]
fn good(image: ImageSource, folder: &Folder, used: &str) {
    let (result, disk, _) = write(image);
    assert_eq!(result.outcome, Outcome::Verified, "{:?}", result.fault);
    assert!(disk.bytes(0, 16 << 20) == folder.image, "the disk holds something else");
    assert!(result.used.contains(used), "{}", result.used);
}

#[track_caller]
fn refused(image: ImageSource, code: FaultCode) {
    let (result, _, changed) = write(image);
    failed(&result, Outcome::FailedUnchanged, code);
    assert!(!changed, "the disk was changed");
}

/// What minisign writes, with its prehashed signature: `untrusted comment`, base64 of algorithm, key and signature, and
/// a trusted comment with a signature of its own.
fn minisign(key: &Ed25519KeyPair, message: &[u8]) -> String {
    const ID: [u8; 8] = *b"speediso";
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), message).unwrap();
    let hash = tool("openssl", &["dgst", "-blake2b512", "-r", file.path().to_str().unwrap()]);
    let hash: Vec<u8> = (0..64).map(|i| u8::from_str_radix(&hash[2 * i..2 * i + 2], 16).unwrap()).collect();
    let signature = key.sign(&hash);
    let comment = "timestamp:1";
    let global = key.sign(&[signature.as_ref(), comment.as_bytes()].concat());
    let line = base64(&[b"ED", &ID[..], signature.as_ref()].concat());
    format!("untrusted comment: x\n{line}\ntrusted comment: {comment}\n{}\n", base64(global.as_ref()))
}

fn minisign_public(key: &Ed25519KeyPair) -> String {
    base64(&[b"Ed", &b"speediso"[..], key.public_key().as_ref()].concat())
}

fn base64(bytes: &[u8]) -> String {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    tool("base64", &["-w0", file.path().to_str().unwrap()])
}

fn key() -> Ed25519KeyPair {
    Ed25519KeyPair::generate().unwrap()
}

fn signature(key: String) -> Option<Signature> {
    Some(Signature { key, url: None })
}

#[test]
fn a_signed_list_of_digests_tells_what_the_image_must_be() {
    let (folder, key) = (Folder::new(), key());
    let list = format!("{}  other.img\n{} *disk.img\n", "00".repeat(32), folder.sha256sum());
    folder.put("sha256sums", &list);
    folder.put("sha256sums.sig", hex(key.sign(list.as_bytes()).as_ref()));
    folder.put("sha256sums.minisig", minisign(&key, list.as_bytes()));
    folder.put("forged", list.replace("0 *disk", "1 *disk").replace("other", "OTHER"));
    folder.put("forged.sig", hex(key.sign(list.as_bytes()).as_ref()));
    let server = folder.serve();
    let by = |list: &str, key: String, file: Option<&str>| {
        let mut image = unverified(&server, "disk.img");
        let url = at(&server, list);
        image.checksums = Some(Checksums { url, file: file.map(Into::into), signature: signature(key) });
        image
    };
    let public = hex(key.public_key().as_ref());
    good(by("sha256sums", public.clone(), None), &folder, "digest of the whole source checked");
    good(by("sha256sums", minisign_public(&key), None), &folder, "digest of the whole source checked");

    refused(by("forged", public.clone(), None), FaultCode::SignatureInvalid);
    refused(by("sha256sums", "00".repeat(32), None), FaultCode::SignatureInvalid);
    refused(by("sha256sums", public.clone(), Some("no.img")), FaultCode::TaskInvalid);
    refused(by("nowhere", public.clone(), None), FaultCode::ImageRefused);
    // The list is right, and the image is another.
    let (result, disk, _) = write(by("sha256sums", public, Some("other.img")));
    failed(&result, Outcome::FailedChanged, FaultCode::ImageDigestMismatch);
    has_no_table(&disk);
}

#[test]
fn an_image_signed_by_minisign_needs_no_digest() {
    let (folder, key) = (Folder::new(), key());
    folder.put("disk.img.minisig", minisign(&key, &folder.image));
    let server = folder.serve();
    let by = |key: String| {
        let mut image = unverified(&server, "disk.img");
        image.signature = signature(key);
        image
    };
    good(by(minisign_public(&key)), &folder, "signature of the whole source checked");
    // Another key of the same id: known only once the last byte has gone by.
    let stranger = Ed25519KeyPair::generate().unwrap();
    let (result, disk, _) = write(by(minisign_public(&stranger)));
    failed(&result, Outcome::FailedChanged, FaultCode::SignatureInvalid);
    has_no_table(&disk);
}

#[test]
fn a_signed_manifest_needs_no_digest() {
    let folder = Folder::new();
    let signing = SigningKey::generate().unwrap();
    let options = PackOptions { chunk_size: Some(1 << 20), level: Some(1), key: Some(&signing), name: None };
    let out = folder.dir.path().join("packed");
    pack(&mut &folder.image[..], None, &options, &out, &mut |_| {}).unwrap();
    let server = Server::files(Path::new(&out), |_, _, _| {});
    let by = |key: String| {
        let mut image = unverified(&server, "manifest.json");
        image.format = ImageFormat::Manifest;
        image.signature = signature(key);
        image
    };
    good(by(signing.public().to_string()), &folder, "each chunk verified");
    refused(by("00".repeat(32)), FaultCode::SignatureInvalid);
    std::fs::remove_file(out.join("manifest.json.sig")).unwrap();
    refused(by(signing.public().to_string()), FaultCode::ImageRefused);
}

#[test]
fn what_is_unverified_is_called_so() {
    let folder = Folder::new();
    let server = folder.serve();
    let mut image = unverified(&server, "disk.img");
    refused(image.clone(), FaultCode::TaskInvalid);
    image.accept_unverified = true;
    good(image, &folder, "NOT verified");
}

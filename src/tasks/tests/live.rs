//! The image of a live system into memory, from servers that are not always right.

mod support;

use std::fs::File;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use speediso_image::manifest::{PackOptions, SigningKey, pack};
use speediso_model::fault::{Fault, FaultCode};
use speediso_model::image::{Compression, ImageDigest, ImageFormat, ImageSource};
use speediso_model::trust::Signature;
use speediso_tasks::live::{Form, LiveImage};
use support::{Bench, MIB, Server, source};

const CHUNK: u32 = 64 << 10;

struct Packed {
    directory: tempfile::TempDir,
    key: SigningKey,
}

impl Packed {
    fn of(bytes: &[u8]) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let key = SigningKey::generate().expect("a key");
        let options =
            PackOptions { chunk_size: Some(CHUNK), level: Some(1), key: Some(&key), ..PackOptions::default() };
        let out = directory.path().join("live");
        pack(&mut &bytes[..], Some(bytes.len() as u64), &options, &out, &mut |_| {}).expect("packed");
        Self { directory, key }
    }

    fn served(&self, change: impl Fn(usize, &str, &mut Vec<u8>) + Send + Sync + 'static) -> Server {
        Server::files(&self.directory.path().join("live"), change)
    }

    fn source(&self, servers: &[&Server]) -> ImageSource {
        let mut urls = servers.iter().map(|server| format!("{}manifest.json", server.url.trim_end_matches("image")));
        ImageSource {
            url: urls.next().expect("a server"),
            mirrors: urls.collect(),
            digest: None::<ImageDigest>,
            signature: Some(Signature { key: self.key.public().to_string(), url: None }),
            format: ImageFormat::Manifest,
            ..source("http://unused", &[], Compression::None)
        }
    }
}

/// As a squashfs begins, then chunks of their own, and zeroes.
fn squashfs(size: u64) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..size).map(|n| (n / u64::from(CHUNK) * 7 + n % 251).to_le_bytes()[0]).collect();
    bytes[..4].copy_from_slice(b"hsqs");
    let zeroes = bytes.len() / 2;
    bytes[zeroes..zeroes + 3 * CHUNK as usize].fill(0);
    bytes
}

fn code<T>(result: Result<T, Fault>) -> FaultCode {
    result.err().map(|fault| fault.code).expect("it must fail")
}

#[test]
fn what_is_in_memory_already_is_not_fetched_again() {
    let bench = Bench::new();
    let bytes = squashfs(2 * MIB);
    let packed = Packed::of(&bytes);
    let server = packed.served(|_, _, _| {});
    let image = LiveImage::open(&packed.source(&[&server]), &bench.ctx).expect("open");
    assert_eq!((image.form().expect("a form"), image.size()), (Form::Squashfs, 2 * MIB));

    let path = packed.directory.path().join("held");
    let file = File::options().read(true).write(true).create(true).truncate(true).open(&path).expect("a file");
    assert!(image.hold(&file, &bench.ctx).expect("held") > 0);
    assert!(std::fs::read(&path).expect("read") == bytes, "other bytes than were packed");
    image.check(&file).expect("as it was packed");
    assert_eq!(image.hold(&file, &bench.ctx).expect("held"), 0, "all of it was there");

    // A chunk of data and a byte where zeroes are declared: noticed, and only they are brought again.
    let zero = bytes.len() as u64 / 2 + u64::from(CHUNK);
    for at in [u64::from(CHUNK) + 5, zero] {
        file.write_all_at(&[0xff], at).expect("written");
        let fault = image.check(&file).expect_err("a byte is wrong");
        assert_eq!(fault.code, FaultCode::ImageDigestMismatch);
        assert!(image.hold(&file, &bench.ctx).expect("held") <= u64::from(CHUNK));
        image.check(&file).expect("mended");
    }
}

#[test]
fn a_server_with_wrong_bytes_is_passed_over_for_the_next() {
    let bench = Bench::new();
    let bytes = squashfs(MIB);
    let packed = Packed::of(&bytes);
    let wrong = packed.served(|_, name, body| {
        if name.ends_with(".bin") {
            let middle = body.len() / 2;
            body[middle] ^= 1;
        }
    });
    let right = packed.served(|_, _, _| {});
    let hold = |servers: &[&Server]| {
        let image = LiveImage::open(&packed.source(servers), &bench.ctx)?;
        let path = packed.directory.path().join("held");
        let file = File::options().read(true).write(true).create(true).truncate(true).open(&path).expect("a file");
        image.hold(&file, &bench.ctx)?;
        image.check(&file).map(|()| std::fs::read(path).expect("read"))
    };
    assert!(hold(&[&wrong, &right]).expect("the second is right") == bytes);
    assert_eq!(code(hold(&[&wrong])), FaultCode::ImageDigestMismatch);
}

#[test]
fn nothing_is_taken_from_another_hand() {
    let bench = Bench::new();
    let packed = Packed::of(&squashfs(MIB));
    let open = |change: fn(usize, &str, &mut Vec<u8>)| {
        let server = packed.served(change);
        code(LiveImage::open(&packed.source(&[&server]), &bench.ctx))
    };
    let changed = open(|_, name, body| {
        if name == "manifest.json" {
            body.push(b'\n');
        }
    });
    assert_eq!(changed, FaultCode::SignatureInvalid);
    let index = open(|_, name, body| {
        if name.ends_with(".idx") {
            body[70] ^= 1;
        }
    });
    assert_eq!(index, FaultCode::ImageFormat);

    let server = packed.served(|_, _, _| {});
    let other = ImageSource {
        signature: Some(Signature { key: SigningKey::generate().expect("a key").public().to_string(), url: None }),
        ..packed.source(&[&server])
    };
    assert_eq!(code(LiveImage::open(&other, &bench.ctx)), FaultCode::SignatureInvalid);
    let absent = ImageSource { url: format!("{}x", packed.source(&[&server]).url), ..packed.source(&[&server]) };
    assert_eq!(code(LiveImage::open(&absent, &bench.ctx)), FaultCode::ImageRefused);
}

fn archive() -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    let mut add = |path: &str, kind: tar::EntryType, mode: u32, uid: u64, data: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(uid);
        header.set_gid(uid);
        header.set_mtime(1_700_000_000);
        header.set_size(data.len() as u64);
        archive.append_data(&mut header, path, data).expect("added");
    };
    add("etc", tar::EntryType::Directory, 0o755, 0, &[]);
    add("etc/shadow", tar::EntryType::Regular, 0o640, 42, b"root:*:");
    add("usr/bin/su", tar::EntryType::Regular, 0o4755, 0, &[7; 200_000]);
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Symlink);
    header.set_mode(0o777);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(1_700_000_000);
    header.set_size(0);
    archive.append_link(&mut header, "sbin", "usr/bin").expect("added");
    archive.into_inner().expect("an archive")
}

fn unpack(bytes: &[u8], change: fn(usize, &str, &mut Vec<u8>), into: &Path) -> Result<u64, Fault> {
    let bench = Bench::new();
    let packed = Packed::of(bytes);
    let server = packed.served(change);
    let image = LiveImage::open(&packed.source(&[&server]), &bench.ctx)?;
    assert_eq!(image.form()?, Form::Tar);
    image.unpack(into, &bench.ctx)
}

#[test]
fn an_archive_is_unpacked_with_owners_and_modes() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    unpack(&archive(), |_, _, _| {}, dir.path()).expect("unpacked");
    let of = |path: &str| dir.path().join(path).metadata().expect("there");
    assert_eq!((of("etc/shadow").uid(), of("etc/shadow").permissions().mode() & 0o7777), (42, 0o640));
    assert_eq!(of("usr/bin/su").permissions().mode() & 0o7777, 0o4755);
    assert_eq!(std::fs::read_link(dir.path().join("sbin")).expect("a link"), Path::new("usr/bin"));
    assert_eq!(of("sbin/su").len(), 200_000);
}

#[test]
fn what_is_no_whole_archive_is_said_to_be_none() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut broken = archive();
    // The header of the second entry: its checksum is wrong, though every chunk is as it was packed.
    broken[512 + 3] ^= 1;
    assert_eq!(code(unpack(&broken, |_, _, _| {}, dir.path())), FaultCode::LiveUnusable);
    // What did not come whole is the network's fault, not the archive's.
    let cut = |_: usize, name: &str, body: &mut Vec<u8>| {
        if name.ends_with(".bin") {
            let length = body.len();
            body[length - 20] ^= 1;
        }
    };
    assert_eq!(code(unpack(&archive(), cut, dir.path())), FaultCode::ImageDigestMismatch);
}

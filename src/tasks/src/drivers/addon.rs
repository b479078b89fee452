//! Fetches the add-on, looks whether it is the one, and gives the kernel what it needs of it.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Read, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, symlink};
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use speediso_image::decode;
use speediso_model::image::{Compression, shown_url};
use speediso_model::plan::hex;
use speediso_model::units::Bytes;
use speediso_sys::module;
use speediso_sys::roots::Roots;

use super::{AddonFacts, Lacking, Why, available_memory, modules_of};
use crate::tools::in_order;

/// In memory, for root only, gone with the boot.
const DIRECTORY: &str = "/run/speediso/addon";
/// Where the kernel looks for firmware first (Documentation/driver-api/firmware/fw_search_path.rst).
const FIRMWARE_PATH: &str = "/sys/module/firmware_class/parameters/path";
/// More than any add-on has.
const LARGEST: u64 = 96 << 20;
const LARGEST_UNPACKED: u64 = 384 << 20;
/// What the rest of the system is left.
const SPARE: u64 = 48 << 20;
const CONNECT: Duration = Duration::from_secs(30);
const STALL: Duration = Duration::from_secs(60);
const TRIES: u32 = 3;

/// Why devices stay without a driver. Nothing is changed then but files in memory.
#[derive(Debug, thiserror::Error)]
pub enum AddonError {
    #[error("the boot entry does not say where the boot files are (speediso.tools=)")]
    NoPlace,
    #[error("fetching {url}: {why}")]
    Fetch { url: String, why: String },
    #[error("the add-on at {url} is not the one that was made with this ramdisk: its SHA-256 is {got}, not {wanted}")]
    Other { url: String, got: String, wanted: String },
    #[error("it is for the kernel {addon}, and {running} runs")]
    Kernel { addon: String, running: String },
    #[error("it takes {needed} of memory, and {available} are free")]
    Memory { needed: Bytes, available: Bytes },
    #[error("unpacking it")]
    Unpack(#[source] io::Error),
    #[error("telling the kernel where firmware is")]
    FirmwarePath(#[source] io::Error),
    #[error("loading {}", file.display())]
    Load {
        file: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// Fetches the add-on that lies beside `tools` and loads the modules of it that these devices want; gives their names.
/// What is asked for by no device is not loaded.
///
/// # Errors
/// The first thing that went wrong; modules that were loaded by then stay.
pub async fn bring(
    lacking: &[Lacking],
    facts: &AddonFacts,
    tools: Option<&str>,
    http: &reqwest::Client,
    roots: &Roots,
) -> Result<Vec<String>, AddonError> {
    let wanted: BTreeSet<&str> = lacking
        .iter()
        .filter_map(|device| match &device.why {
            Why::InAddon(module) => Some(module.as_str()),
            _ => None,
        })
        .collect();
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let running = module::kernel_release().unwrap_or_default();
    if running != facts.kernel {
        return Err(AddonError::Kernel { addon: facts.kernel.clone(), running });
    }
    let needed = facts.size + facts.unpacked + SPARE;
    if let Some(available) = available_memory(roots).filter(|available| *available < needed) {
        return Err(AddonError::Memory { needed: Bytes(needed), available: Bytes(available) });
    }
    let url = beside(tools.ok_or(AddonError::NoPlace)?, &facts.file);
    let bytes = fetch(&url, facts, http).await?;
    // Before a byte of it is looked at.
    let got = hex(&Sha256::digest(&bytes));
    if got != facts.sha256 {
        return Err(AddonError::Other { url: shown_url(&url), got, wanted: facts.sha256.clone() });
    }
    let directory = Path::new(DIRECTORY);
    unpack(&bytes, facts.unpacked, directory).map_err(AddonError::Unpack)?;
    drop(bytes);
    point_firmware_to(&directory.join("lib/firmware"))?;
    for name in &wanted {
        load(name, directory, &running)?;
    }
    Ok(wanted.into_iter().map(str::to_owned).collect())
}

/// `http://host/boot/tools.tar.zst` -> `http://host/boot/addon.img`
fn beside(tools: &str, file: &str) -> String {
    let path = &tools[..tools.find(['?', '#']).unwrap_or(tools.len())];
    let directory = path.rfind('/').map_or("", |at| &path[..=at]);
    format!("{directory}{file}")
}

async fn fetch(url: &str, facts: &AddonFacts, http: &reqwest::Client) -> Result<Vec<u8>, AddonError> {
    let failed = |why: String| AddonError::Fetch { url: shown_url(url), why };
    if facts.size > LARGEST || facts.unpacked > LARGEST_UNPACKED {
        return Err(failed(format!("it has {}, {} unpacked", Bytes(facts.size), Bytes(facts.unpacked))));
    }
    if !url.starts_with("http://") && !url.starts_with("https://") {
        return fs::read(url).map_err(|e| failed(e.to_string()));
    }
    let mut tries = 0;
    loop {
        match download(url, facts.size, http).await {
            Ok(bytes) => return Ok(bytes),
            Err(why) => {
                tries += 1;
                if tries >= TRIES {
                    return Err(failed(why));
                }
                tokio::time::sleep(Duration::from_secs(u64::from(tries))).await;
            }
        }
    }
}

async fn download(url: &str, size: u64, http: &reqwest::Client) -> Result<Vec<u8>, String> {
    let late = |_| "the server says nothing".to_owned();
    let said = |e: reqwest::Error| e.without_url().to_string();
    let mut response = tokio::time::timeout(CONNECT, http.get(url).send()).await.map_err(late)?.map_err(said)?;
    if !response.status().is_success() {
        return Err(format!("the server says {}", response.status()));
    }
    let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or_default());
    while let Some(chunk) = tokio::time::timeout(STALL, response.chunk()).await.map_err(late)?.map_err(said)? {
        if (bytes.len() + chunk.len()) as u64 > size {
            return Err(format!("it is larger than {}", Bytes(size)));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

/// The archive is one that the kernel could unpack itself: "newc" cpio under zstd.
fn unpack(bytes: &[u8], limit: u64, to: &Path) -> io::Result<()> {
    if to.exists() {
        fs::remove_dir_all(to)?;
    }
    let odd = |what: &str| io::Error::other(format!("the archive is no cpio archive of the kernel's kind: {what}"));
    let mut archive = decode::decoder(Compression::Zstd, None, bytes)?;
    let mut left = limit;
    loop {
        let mut header = [0; 110];
        archive.read_exact(&mut header)?;
        let field = |n: usize| -> io::Result<u32> {
            let digits = str::from_utf8(&header[6 + 8 * n..14 + 8 * n]).map_err(|_| odd("a header"))?;
            u32::from_str_radix(digits, 16).map_err(|_| odd("a header"))
        };
        if !header.starts_with(b"070701") {
            return Err(odd("a magic number"));
        }
        let (mode, size, name_size) = (field(1)?, field(6)?, field(11)?);
        if name_size > 4096 {
            return Err(odd("a long name"));
        }
        let mut name = vec![0; (110 + name_size as usize).next_multiple_of(4) - 110];
        archive.read_exact(&mut name)?;
        let name = str::from_utf8(&name[..(name_size as usize).saturating_sub(1)]).map_err(|_| odd("a name"))?;
        if name == "TRAILER!!!" {
            // To the end of the source, so that what follows the frame is noticed.
            return io::copy(&mut archive, &mut io::sink()).map(drop);
        }
        let plain = Path::new(name).components().all(|part| matches!(part, Component::Normal(_)));
        if !plain || !(name == "lib" || name.starts_with("lib/")) {
            return Err(odd(name));
        }
        let path = to.join(name);
        let mut content = archive.by_ref().take(size.into());
        match mode & 0o170_000 {
            0o040_000 => fs::DirBuilder::new().recursive(true).mode(0o700).create(&path)?,
            0o100_000 => {
                left = left.checked_sub(size.into()).ok_or_else(|| odd("more than was said"))?;
                let mut file = fs::File::create_new(&path)?;
                if io::copy(&mut content, &mut file)? != u64::from(size) {
                    return Err(odd("an early end"));
                }
                file.flush()?;
            }
            0o120_000 if size <= 4096 => {
                let mut target = String::new();
                content.read_to_string(&mut target)?;
                // The archive is trusted by its digest; this only keeps mistakes inside.
                if target.starts_with('/') || target.contains("../../") {
                    return Err(odd(&target));
                }
                symlink(target, &path)?;
            }
            _ => return Err(odd(name)),
        }
        let padding = u64::from(size.next_multiple_of(4) - size);
        io::copy(&mut archive.by_ref().take(padding), &mut io::sink())?;
    }
}

fn point_firmware_to(directory: &Path) -> Result<(), AddonError> {
    // Without a newline: it would become part of the path.
    let text = directory.as_os_str().as_encoded_bytes();
    fs::write(FIRMWARE_PATH, text).map_err(AddonError::FirmwarePath)
}

/// A module of the add-on after those that it needs, which may be in the ramdisk.
fn load(name: &str, directory: &Path, running: &str) -> Result<(), AddonError> {
    let ours = directory.join("lib/modules").join(running);
    let table = fs::read_to_string(ours.join("addon/modules.dep")).map_err(AddonError::Unpack)?;
    for path in in_order(&table, name) {
        let file = [ours.join(path), modules_of(running).join(path)].into_iter().find(|file| file.is_file());
        let file = file.unwrap_or_else(|| ours.join(path));
        module::load(&file).map_err(|source| AddonError::Load { file, source })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str, mode: u32, data: &[u8]) -> Vec<u8> {
        let mut bytes = format!("070701{:08x}{mode:08x}", 1).into_bytes();
        for field in [0, 0, 1, 0, data.len(), 0, 0, 0, 0, name.len() + 1, 0] {
            bytes.extend(format!("{field:08x}").bytes());
        }
        bytes.extend(name.bytes().chain([0]));
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes.extend(data);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn packed(entries: &[(&str, u32, &[u8])]) -> Vec<u8> {
        let mut cpio: Vec<u8> = entries.iter().flat_map(|(name, mode, data)| entry(name, *mode, data)).collect();
        cpio.extend(entry("TRAILER!!!", 0, b""));
        zstd::encode_all(cpio.as_slice(), 3).expect("compressed")
    }

    #[test]
    fn what_the_builder_packs_is_unpacked() {
        let dir = tempfile::tempdir().expect("a directory");
        let to = dir.path().join("addon");
        let good = packed(&[
            ("lib", 0o040_755, b""),
            ("lib/firmware", 0o040_755, b""),
            ("lib/firmware/a.bin", 0o100_644, b"firmware"),
            ("lib/firmware/b.bin", 0o120_777, b"a.bin"),
        ]);
        // Twice: a restarted agent does it again.
        for _ in 0..2 {
            unpack(&good, 8, &to).expect("unpacked");
            assert_eq!(fs::read(to.join("lib/firmware/b.bin")).expect("read"), b"firmware");
        }
        assert!(unpack(&good, 7, &to).is_err(), "more than was said");
        for bad in [
            packed(&[("etc/passwd", 0o100_644, b"x")]),
            packed(&[("lib", 0o040_755, b""), ("lib/../x", 0o100_644, b"x")]),
            packed(&[("lib", 0o040_755, b""), ("lib/x", 0o020_644, b"")]),
            packed(&[("lib", 0o040_755, b""), ("lib/x", 0o120_777, b"/etc/shadow")]),
            good[..good.len() / 2].to_vec(),
            b"no archive".to_vec(),
        ] {
            assert!(unpack(&bad, 100, &to).is_err());
        }
    }

    #[test]
    fn it_lies_beside_the_tools() {
        for (tools, place) in [
            ("http://192.0.2.1:8080/boot/tools.tar.zst", "http://192.0.2.1:8080/boot/addon.img"),
            ("https://h/a/b.zst?x=/y", "https://h/a/addon.img"),
            ("/media/tools.tar.zst", "/media/addon.img"),
        ] {
            assert_eq!(beside(tools, "addon.img"), place);
        }
    }
}

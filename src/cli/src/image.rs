//! Putting images into the controller's store.

use std::io::{Read as _, Seek as _};
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use futures_util::StreamExt as _;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use speediso_image::container::{self, Looks, PROBE_LENGTH};
use speediso_image::manifest::{ImageDirectory, MANIFEST_NAME, SIGNATURE_SUFFIX};
use speediso_model::api::{ImageView, List, path};
use speediso_model::image::{Compression, ImageDigest, ImageFormat};
use tokio_util::io::ReaderStream;

use crate::client::Client;
use crate::commands::at;
use crate::output;

pub(crate) async fn add(client: &Client, file: &Path, name: Option<String>, json: bool) -> Result<()> {
    if file.is_dir() {
        return add_directory(client, file, name, json).await;
    }
    let name = match name {
        Some(name) => name,
        None => own_name(file)?,
    };
    let Uploaded { stored, length, looks } = upload(client, file, &name, json).await?;
    let compression = if let Looks::Compressed(compression) = looks { compression } else { Compression::None };
    let mut part = json!({"url": stored.url, "digest": stored.digest, "compression": compression});
    match looks {
        Looks::Qcow2 => part["format"] = json!(ImageFormat::Qcow2),
        Looks::Tar => part["format"] = json!(ImageFormat::Tar),
        // What is inside of it only its name says here.
        Looks::Compressed(_) if ImageFormat::by_name(&name) == ImageFormat::Tar => {
            part["format"] = json!(ImageFormat::Tar);
        }
        Looks::Other(what) => eprintln!("speediso: {} is {what}: no agent writes that to a disk", file.display()),
        Looks::Compressed(_) | Looks::Plain => {}
    }
    print_part(json, &name, length, &part)
}

/// A manifest image. Its data and index keep their names, which the manifest says; the manifest comes last, so that an
/// image that is listed is whole.
async fn add_directory(client: &Client, directory: &Path, name: Option<String>, json: bool) -> Result<()> {
    let image = ImageDirectory::open(directory, None)
        .with_context(|| format!("{} is not a manifest image", directory.display()))?;
    let name = match name {
        Some(name) => name,
        None => format!("{}.json", own_name(directory)?),
    };
    let (data, index) = (image.manifest.data_name(), image.manifest.index_name());
    if [data, index].contains(&name.as_str()) {
        bail!("{name} is the name of the image's data; give another with --name");
    }
    let present: List<ImageView> = client.get(path::IMAGES).await?;
    let mut length = 0;
    for name in [data, index] {
        let file = directory.join(name);
        // Another image of this name would lose its data, and only the machine that it is written to would notice.
        if let Some(other) = present.items.iter().find(|image| image.name == name)
            && other.digest != examine(&file).with_context(|| format!("reading {}", file.display()))?.1.to_string()
        {
            bail!("the store has the {name} of another image; pack this one with another --name");
        }
        length += upload(client, &file, name, json).await?.length;
    }
    let signature = directory.join(format!("{MANIFEST_NAME}{SIGNATURE_SUFFIX}"));
    if signature.exists() {
        length += upload(client, &signature, &format!("{name}{SIGNATURE_SUFFIX}"), json).await?.length;
    }
    let manifest = upload(client, &directory.join(MANIFEST_NAME), &name, json).await?;
    let ImageView { url, digest, .. } = manifest.stored;
    let part = json!({
        "url": url,
        "digest": digest,
        "format": ImageFormat::Manifest,
        "compression": Compression::None,
    });
    print_part(json, &name, length + manifest.length, &part)
}

fn own_name(path: &Path) -> Result<String> {
    let name = path.canonicalize().ok().and_then(|p| Some(p.file_name()?.to_str()?.to_owned()));
    name.with_context(|| format!("{} has no usable name; give --name", path.display()))
}

fn print_part(json: bool, name: &str, length: u64, part: &Value) -> Result<()> {
    output::print(json, part, |part| {
        let text = serde_json::to_string_pretty(part).unwrap_or_default();
        format!("{name} is stored ({length} bytes); name it in an order as\n\"image\": {text}")
    })
}

struct Uploaded {
    stored: ImageView,
    length: u64,
    looks: Looks,
}

async fn upload(client: &Client, file: &Path, name: &str, json: bool) -> Result<Uploaded> {
    let shown = file.display();
    if !name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_')) || name.starts_with('.') {
        bail!("{name:?} cannot be an image's name: letters, digits, '.', '-' and '_' only");
    }
    // Hashed here too, so that what the store has is known to be what this machine has.
    let (length, digest, looks) = examine(file).with_context(|| format!("reading {shown}"))?;

    let bar = if json { ProgressBar::hidden() } else { ProgressBar::new(length) };
    if let Ok(style) = ProgressStyle::with_template("  [{bar:30}] {bytes} of {total_bytes}, {bytes_per_sec}") {
        bar.set_style(style.progress_chars("=> "));
    }
    let source = tokio::fs::File::open(file).await.with_context(|| format!("opening {shown}"))?;
    let counted = bar.clone();
    let stream = ReaderStream::with_capacity(source, 256 * 1024).inspect(move |chunk| {
        counted.inc(chunk.as_ref().map_or(0, |c| c.len() as u64));
    });
    let stored: ImageView = client.put(&at(path::IMAGE, name), reqwest::Body::wrap_stream(stream), length).await?;
    bar.finish_and_clear();
    if stored.digest != digest.to_string() {
        bail!("the store holds {} under {name}, but {shown} is {digest}; upload it again", stored.digest);
    }
    Ok(Uploaded { stored, length, looks })
}

/// Length, digest, and what the file looks like.
fn examine(file: &Path) -> Result<(u64, ImageDigest, Looks)> {
    let mut source = std::fs::File::open(file)?;
    let mut start = Vec::new();
    (&mut source).take(PROBE_LENGTH as u64).read_to_end(&mut start)?;
    source.rewind()?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    let mut length = 0;
    loop {
        let n = source.read(&mut buffer)?;
        if n == 0 {
            break;
        }
        hash.update(&buffer[..n]);
        length += n as u64;
    }
    Ok((length, ImageDigest::sha256(hash.finalize().into()), container::looks(&start)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compression_is_recognised_by_content() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let file = dir.path().join("x.raw");
        std::fs::write(&file, [0x28, 0xb5, 0x2f, 0xfd, 0]).expect("written");
        let (length, digest, looks) = examine(&file).expect("readable");
        assert_eq!((length, looks), (5, Looks::Compressed(Compression::Zstd)));
        let expected: [u8; 32] = Sha256::digest([0x28, 0xb5, 0x2f, 0xfd, 0]).into();
        assert_eq!(digest, ImageDigest::sha256(expected));
        std::fs::write(&file, b"").expect("written");
        assert_eq!(examine(&file).expect("readable").2, Looks::Plain);
    }
}

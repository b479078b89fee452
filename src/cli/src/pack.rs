//! Manifest images in directories of this machine: made, checked, shown, unpacked. Works without a controller.

use std::fs::File;
use std::io::{Cursor, Read, Seek as _, SeekFrom};
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use speediso_image::container::{Looks, PROBE_LENGTH, looks};
use speediso_image::decode::decoder;
use speediso_image::gptgeometry;
use speediso_image::manifest::{
    ImageDirectory, MANIFEST_NAME, PackOptions, PublicKey, SignedBy, SigningKey, pack as pack_image, verify as check,
};
use speediso_image::qcow2::{GuestReader, HEADER_PROBE, Header};
use speediso_model::units::Bytes;

use crate::args::PackArgs;
use crate::output;
use crate::shrink::shrink;

/// Of what is packed here there is memory enough: as large as zstd makes them.
const MAX_WINDOW: Bytes = Bytes(2 << 30);

pub(crate) fn pack(args: &PackArgs, json: bool) -> Result<()> {
    let key = args
        .key
        .as_ref()
        .map(|file| {
            let content = std::fs::read(file).with_context(|| format!("reading {}", file.display()))?;
            SigningKey::from_file(&content).with_context(|| format!("the key in {}", file.display()))
        })
        .transpose()?;
    let chunk_size = args.chunk_size.map(|kib| kib.saturating_mul(1024));
    let level = (args.level > 0).then_some(args.level);
    let options = PackOptions { chunk_size, level, key: key.as_ref(), name: args.name.as_deref() };
    let mut source = Source::open(&args.source).with_context(|| format!("opening {}", args.source.display()))?;
    let shrunk = args.shrink.then(|| shrink(&mut source.disk, &args.out)).transpose();
    let shrunk = shrunk.with_context(|| format!("shrinking {}", args.source.display()))?;
    let before = shrunk.as_ref().map(|shrunk| shrunk.from);
    if let Some(shrunk) = &shrunk {
        source = Source { disk: Box::new(shrunk.disk.try_clone()?), size: Some(shrunk.size) };
    }
    let bar = progress(source.size, json);
    let made = pack_image(&mut source.disk, source.size, &options, &args.out, &mut |at| bar.set_position(at));
    bar.finish_and_clear();
    let made = made.with_context(|| format!("packing {} into {}", args.source.display(), args.out.display()))?;
    let view = json!({
        "directory": args.out,
        "digest": made.manifest_sha256,
        "disk_size": made.disk_size,
        "shrunk_from": before,
        "chunk_size": made.chunk_size,
        "chunks": made.chunks,
        "data_size": made.data_size,
        "signed_by": key.as_ref().map(SigningKey::public),
    });
    output::print(json, &view, |_| {
        format!(
            "{}: a disk of {} in {} chunks of {}, {} stored\n\
             Serve the directory by any web server that sends ranges; name it in an order as\n\
             \"image\": {{\"url\": \"https://.../{MANIFEST_NAME}\", \"digest\": \"{}\", \"format\": \"manifest\", \
             \"compression\": \"none\"}}",
            args.out.display(),
            Bytes(made.disk_size),
            made.chunks,
            Bytes(made.chunk_size.into()),
            Bytes(made.data_size),
            made.manifest_sha256
        )
    })
}

pub(crate) fn verify(directory: &Path, key: Option<&str>, json: bool) -> Result<()> {
    let key = key.map(str::parse::<PublicKey>).transpose()?;
    let bar = progress(None, json);
    let found = check(directory, key.as_ref(), &mut |at| bar.set_position(at));
    bar.finish_and_clear();
    let found = found.with_context(|| format!("{} is not as it must be", directory.display()))?;
    let view = json!({
        "disk_size": found.disk_size,
        "chunks": found.totals.chunks,
        "zero_chunks": found.totals.zero_chunks,
        "shared_chunks": found.totals.shared_chunks,
        "data_size": found.data_size,
        "signed_by": signer(&found.signed_by),
        "trusted": matches!(found.signed_by, SignedBy::Trusted(_)),
        "blake3": found.blake3,
        "sha256": found.sha256,
    });
    output::print(json, &view, |_| {
        format!(
            "every chunk is right: a disk of {}, of which {} declared zero; {} stored; {}\nof the disk: {}, {}",
            Bytes(found.disk_size),
            Bytes(found.totals.zero_bytes),
            Bytes(found.data_size),
            signed(&found.signed_by),
            found.sha256,
            found.blake3
        )
    })
}

pub(crate) fn unpack(directory: &Path, out: &Path, key: Option<&str>, json: bool) -> Result<()> {
    let key = key.map(str::parse::<PublicKey>).transpose()?;
    let image = ImageDirectory::open(directory, key.as_ref())
        .with_context(|| format!("{} is not as it must be", directory.display()))?;
    let bar = progress(Some(image.manifest.disk_size()), json);
    let done = image.unpack(out, &mut |at| bar.set_position(at));
    bar.finish_and_clear();
    done.with_context(|| format!("unpacking {}", directory.display()))?;
    let view = json!({"file": out, "size": image.manifest.disk_size()});
    output::print(json, &view, |_| format!("{}: {}", out.display(), Bytes(image.manifest.disk_size())))
}

/// Of a manifest image's directory, or of any file.
pub(crate) fn info(path: &Path, json: bool) -> Result<()> {
    let shown = path.display();
    let view = if path.is_dir() || path.file_name().is_some_and(|name| name == MANIFEST_NAME) {
        let directory = if path.is_dir() { path } else { path.parent().unwrap_or(path) };
        let image = ImageDirectory::open(directory, None).with_context(|| format!("{shown} is not as it must be"))?;
        let (manifest, totals) = (&image.manifest, image.index.totals());
        json!({
            "format": "manifest",
            "disk_size": manifest.disk_size(),
            "sector_size": manifest.sector_size(),
            "chunk_size": manifest.chunk_size(),
            "compression": manifest.compression().name(),
            "chunks": totals.chunks,
            "zero_chunks": totals.zero_chunks,
            "shared_chunks": totals.shared_chunks,
            "data_size": manifest.data_size(),
            "signed_by": signer(&image.signed_by),
        })
    } else {
        file_info(path).with_context(|| format!("reading {shown}"))?
    };
    output::print(json, &view, |view| {
        let lines = view.as_object().into_iter().flatten().map(|(key, value)| match value {
            Value::String(text) => format!("{key:<14} {text}"),
            Value::Number(n) if key.ends_with("size") => {
                format!("{key:<14} {n} ({})", Bytes(n.as_u64().unwrap_or_default()))
            }
            Value::Null => format!("{key:<14} -"),
            other => format!("{key:<14} {other}"),
        });
        lines.collect::<Vec<_>>().join("\n")
    })
}

fn file_info(path: &Path) -> Result<Value> {
    let mut file = File::open(path)?;
    let mut start = Vec::new();
    (&mut file).take(8192).read_to_end(&mut start)?;
    let size = file.metadata()?.len();
    Ok(match looks(&start[..start.len().min(PROBE_LENGTH)]) {
        Looks::Plain => json!({"format": "raw", "disk_size": size, "sector_size": gptgeometry::sector_size(&start)}),
        Looks::Compressed(compression) => {
            json!({"format": "raw", "compression": compression.name(), "file_size": size})
        }
        Looks::Tar => json!({"format": "tar", "file_size": size}),
        Looks::Other(name) => json!({"format": name, "file_size": size, "writable": "no agent writes this to a disk"}),
        Looks::Qcow2 => {
            let header = Header::parse(&start[..start.len().min(HEADER_PROBE)])?;
            json!({
                "format": "qcow2",
                "version": header.version,
                "disk_size": header.virtual_size,
                "cluster_size": header.cluster_size,
                "snapshots": header.snapshots,
                "file_size": size,
            })
        }
    })
}

fn signer(signed_by: &SignedBy) -> Option<&PublicKey> {
    match signed_by {
        SignedBy::Nobody => None,
        SignedBy::Named(key) | SignedBy::Trusted(key) => Some(key),
    }
}

fn signed(signed_by: &SignedBy) -> String {
    match signed_by {
        SignedBy::Nobody => "not signed".into(),
        SignedBy::Named(key) => format!("signed by {key}, whose that is was not checked (--key does)"),
        SignedBy::Trusted(key) => format!("signed by {key}"),
    }
}

/// A disk's bytes in their order, whatever they are packed in.
struct Source {
    disk: Box<dyn Read>,
    size: Option<u64>,
}

impl Source {
    fn open(path: &Path) -> Result<Self> {
        let mut file = File::open(path)?;
        let mut start = Vec::new();
        (&mut file).take(HEADER_PROBE as u64).read_to_end(&mut start)?;
        // Of a block device too, which has no length among its metadata.
        let length = file.seek(SeekFrom::End(0))?;
        file.rewind()?;
        match looks(&start[..start.len().min(PROBE_LENGTH)]) {
            Looks::Plain => Ok(Self { disk: Box::new(file), size: Some(length) }),
            Looks::Compressed(compression) => {
                let mut decoded = decoder(compression, Some(MAX_WINDOW), file)?;
                let mut start = Vec::new();
                (&mut decoded).take(PROBE_LENGTH as u64).read_to_end(&mut start)?;
                if looks(&start) != Looks::Plain {
                    bail!("what is compressed in it is no raw disk image: unpack it first");
                }
                Ok(Self { disk: Box::new(Cursor::new(start).chain(decoded)), size: None })
            }
            Looks::Qcow2 => {
                let header = Header::parse(&start)?;
                let size = header.virtual_size;
                Ok(Self { disk: Box::new(GuestReader::new(header, file, length)?), size: Some(size) })
            }
            Looks::Tar => bail!("it is an archive of files: no disk to be packed"),
            Looks::Other(name) => bail!("it is {name}: convert it with qemu-img convert -O raw"),
        }
    }
}

fn progress(total: Option<u64>, json: bool) -> ProgressBar {
    let (bar, style) = match total {
        _ if json => return ProgressBar::hidden(),
        Some(total) => (ProgressBar::new(total), "  [{bar:30}] {bytes} of {total_bytes}, {bytes_per_sec}"),
        None => (ProgressBar::no_length(), "  {bytes}, {bytes_per_sec}"),
    };
    if let Ok(style) = ProgressStyle::with_template(style) {
        bar.set_style(style.progress_chars("=> "));
    }
    bar
}

#[cfg(test)]
mod tests {
    use speediso_image::shrink::last_partition;

    use super::*;

    fn args(source: &Path, out: &Path) -> PackArgs {
        PackArgs {
            source: source.into(),
            out: out.into(),
            name: Some("web.v3".into()),
            chunk_size: Some(64),
            level: 3,
            key: None,
            shrink: false,
        }
    }

    fn run(program: &str, args: &[&str]) {
        let out = std::process::Command::new(program).args(args).output().expect(program);
        assert!(out.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&out.stderr));
    }

    /// A disk with an ESP and, at `mib` MiB, what `mkfs` makes; with a file in it if it is ext4.
    fn disk(dir: &Path, mkfs: &[&str]) -> std::path::PathBuf {
        let (disk, part) = (dir.join("disk"), dir.join("part"));
        let text = |path: &Path| path.to_str().expect("plain").to_owned();
        File::create(&disk).and_then(|file| file.set_len(300 << 20)).expect("sparse");
        run("sgdisk", &["-n", "1:0:+8M", "-n", "2:0:0", "-c", "2:root", &text(&disk)]);
        File::create(&part).and_then(|file| file.set_len(290 << 20)).expect("sparse");
        run(mkfs[0], &[&mkfs[1..], &[&text(&part)]].concat());
        if mkfs[0] == "mkfs.ext4" {
            std::fs::write(dir.join("file"), vec![0x5a; 3_000_000]).expect("written");
            run("debugfs", &["-w", "-R", &format!("write {} file", dir.join("file").display()), &text(&part)]);
        }
        let of = format!("of={}", disk.display());
        run("dd", &[&format!("if={}", part.display()), &of, "bs=1M", "seek=9", "conv=notrunc,sparse", "status=none"]);
        disk
    }

    #[test]
    fn a_disk_is_packed_smaller_and_its_table_and_filesystem_are_good() {
        for (mkfs, check) in [
            (&["mkfs.ext4", "-q", "-F"][..], &["e2fsck", "-f", "-n"][..]),
            (&["mkntfs", "-q", "-F", "-Q"], &["ntfsfix", "-n"]),
        ] {
            let dir = tempfile::tempdir().expect("a directory");
            let source = disk(dir.path(), mkfs);
            let before = std::fs::read(&source).expect("it is there");
            let out = dir.path().join("image");
            pack(&PackArgs { shrink: true, ..args(&source, &out) }, true).expect("packed");
            assert!(std::fs::read(&source).expect("it is there") == before, "only a copy is shrunk");
            let raw = dir.path().join("raw");
            unpack(&out, &raw, None, true).expect("unpacked");
            let size = std::fs::metadata(&raw).expect("it is there").len();
            assert!((10 << 20..80 << 20).contains(&size), "{size}");
            let checked = std::process::Command::new("sgdisk").arg("-v").arg(&raw).output().expect("sgdisk");
            assert!(String::from_utf8_lossy(&checked.stdout).contains("No problems found"), "{checked:?}");
            let part = dir.path().join("smaller");
            let last = last_partition(&File::open(&raw).expect("it is there"), 512).expect("a table").range;
            let bytes = std::fs::read(&raw).expect("it is there");
            let place = |at: u64| usize::try_from(at).expect("small");
            std::fs::write(&part, &bytes[place(last.start)..place(last.end)]).expect("written");
            run(check[0], &[&check[1..], &[part.to_str().expect("plain")]].concat());
            if mkfs[0] == "mkfs.ext4" {
                let copy = dir.path().join("copy");
                run("debugfs", &["-R", &format!("dump file {}", copy.display()), part.to_str().expect("plain")]);
                assert!(std::fs::read(copy).expect("it is there") == vec![0x5a; 3_000_000]);
            }
            // Nothing of the copy is left.
            let left = std::fs::read_dir(dir.path()).expect("readable").flatten();
            assert!(left.into_iter().all(|entry| !entry.file_name().to_string_lossy().starts_with(".shrink")));
        }
    }

    #[test]
    fn what_cannot_be_shrunk_is_said_and_leaves_nothing() {
        let dir = tempfile::tempdir().expect("a directory");
        let out = dir.path().join("image");
        let tried = |source: &Path| {
            let error = pack(&PackArgs { shrink: true, ..args(source, &out) }, true).expect_err("refused");
            assert!(!out.exists());
            format!("{error:#}")
        };
        let raw = dir.path().join("raw");
        std::fs::write(&raw, vec![7; 3 << 20]).expect("written");
        assert!(tried(&raw).contains("GPT"));
        let fat = disk(dir.path(), &["mkfs.vfat", "-F", "32"]);
        assert!(tried(&fat).contains("only ext2/3/4 and NTFS"));
    }

    #[test]
    fn what_is_packed_is_unpacked_whatever_it_was_packed_in() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = |name: &str| dir.path().join(name);
        let mut disk: Vec<u8> =
            (0..3u32 << 18).flat_map(|n| (n / 7).wrapping_mul(2_654_435_761).to_le_bytes()).collect();
        disk[1 << 20..2 << 20].fill(0);
        std::fs::write(path("raw"), &disk).expect("written");
        let convert = ["convert", "-f", "raw", "-O", "qcow2", "-c"];
        let run = std::process::Command::new("qemu-img").args(convert).arg(path("raw")).arg(path("qcow2")).status();
        assert!(run.expect("qemu-img is needed").success());
        let zstd = std::process::Command::new("zstd").arg("-q").arg(path("raw")).arg("-o").arg(path("zst")).status();
        assert!(zstd.expect("zstd is needed").success());
        for name in ["raw", "qcow2", "zst"] {
            let out = path(&format!("{name}.image"));
            pack(&args(&path(name), &out), true).expect(name);
            verify(&out, None, true).expect(name);
            info(&out, false).expect(name);
            info(&path(name), false).expect(name);
            assert!(out.join("web.v3.bin").exists());
            unpack(&out, &path(&format!("{name}.raw")), None, true).expect(name);
            assert!(std::fs::read(path(&format!("{name}.raw"))).expect("it is there") == disk, "{name}");
        }
        let again = pack(&args(&path("raw"), &path("raw.image")), true).expect_err("it is there already");
        assert!(format!("{again:#}").contains("not an empty directory"), "{again:#}");
        std::fs::write(path("raw.image/web.v3.bin"), b"x").expect("written");
        assert!(verify(&path("raw.image"), None, true).is_err());
        let stranger = "00".repeat(32);
        assert!(
            format!("{:#}", verify(&path("zst.image"), Some(&stranger), true).expect_err("unsigned"))
                .contains("not signed")
        );
        let run = std::process::Command::new("zstd").arg("-q").arg(path("qcow2")).arg("-o").arg(path("q.zst")).status();
        assert!(run.expect("zstd is needed").success());
        assert!(pack(&args(&path("q.zst"), &path("q")), true).is_err(), "a qcow2 image's bytes are no disk");
        std::fs::write(path("vmdk"), b"KDMV").expect("written");
        assert!(format!("{:#}", pack(&args(&path("vmdk"), &path("v")), true).expect_err("no image")).contains("VMDK"));
    }
}

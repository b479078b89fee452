//! Reads an `initramfs.img` back, as the kernel does: archive after archive, each by itself compressed.

use std::io::Read as _;

use anyhow::{Context, Result, bail, ensure};

const HEADER: usize = 110;
const TRAILER: &str = "TRAILER!!!";
/// Of a zstd frame (RFC 8878, 3.1.1).
const ZSTD: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Unpacked {
    /// Without a leading `/`.
    pub path: String,
    pub mode: u32,
    pub data: Vec<u8>,
}

/// The archives in `image` with the bytes each takes there.
pub fn archives(mut image: &[u8]) -> Result<Vec<(usize, Vec<Unpacked>)>> {
    let mut archives = Vec::new();
    loop {
        let padding = image.iter().position(|byte| *byte != 0).unwrap_or(image.len());
        image = &image[padding..];
        if image.is_empty() {
            return Ok(archives);
        }
        ensure!(image.starts_with(ZSTD), "the ramdisk has something else than zstd after {} archives", archives.len());
        let before = image.len();
        let mut bytes = Vec::new();
        zstd::Decoder::with_buffer(&mut image)?
            .single_frame()
            .read_to_end(&mut bytes)
            .context("decompressing the ramdisk")?;
        archives.push((before - image.len(), entries(&bytes)?));
    }
}

/// What one archive has, in its order.
pub fn entries(archive: &[u8]) -> Result<Vec<Unpacked>> {
    let mut entries = Vec::new();
    let mut at = 0;
    loop {
        let header = archive.get(at..at + HEADER).context("the archive ends in a header")?;
        ensure!(header.starts_with(b"070701"), "the archive has no header at byte {at}");
        let field = |n: usize| -> Result<usize> {
            let digits = str::from_utf8(&header[6 + 8 * n..14 + 8 * n]).context("a header that is not text")?;
            usize::from_str_radix(digits, 16).context("a header that is no number")
        };
        let (mode, size, name_size) = (field(1)?, field(6)?, field(11)?);
        let name_at = at + HEADER;
        let name = archive.get(name_at..name_at + name_size).context("the archive ends in a name")?;
        let path = str::from_utf8(name).context("a name that is not text")?.trim_end_matches('\0').to_owned();
        let data_at = (name_at + name_size).next_multiple_of(4);
        let data = archive.get(data_at..data_at + size).with_context(|| format!("the archive ends in {path}"))?;
        if path == TRAILER {
            return Ok(entries);
        }
        if path.is_empty() {
            bail!("the archive has a file without a name at byte {at}");
        }
        entries.push(Unpacked { path, mode: u32::try_from(mode)?, data: data.to_vec() });
        at = (data_at + size).next_multiple_of(4);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::ramdisk::compress;
    use crate::tree::Tree;

    #[test]
    fn what_was_written_is_read() {
        let mut image = Vec::new();
        for name in ["one", "other"] {
            let mut tree = Tree::default();
            tree.add_file(&format!("/dir/{name}"), 0o755, name.as_bytes().to_vec()).unwrap();
            let mut bytes = Vec::new();
            crate::cpio::write(&tree, 1, &mut bytes).unwrap();
            image.resize(image.len().next_multiple_of(4), 0);
            image.extend(compress(&bytes, 3).unwrap());
        }
        let archives = archives(&image).unwrap();
        assert_eq!(archives.len(), 2);
        let files: Vec<_> = archives.iter().flat_map(|(_, e)| e).filter(|e| !e.data.is_empty()).collect();
        assert_eq!(files[0], &Unpacked { path: "dir/one".into(), mode: 0o100_755, data: b"one".to_vec() });
        assert_eq!(files[1].path, "dir/other");
        for cut in 1..40 {
            assert!(super::archives(&image[..image.len() - cut]).is_err(), "cut by {cut}");
        }
    }
}

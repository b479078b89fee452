//! What a program needs to run: its loader and shared libraries, read from the ELF file itself.
//!
//! The files come from signed packages, yet every offset is checked: a cut download must end in an error, not a panic.

const PT_LOAD: u32 = 1;
const PT_DYNAMIC: u32 = 2;
const PT_INTERP: u32 = 3;
const SHT_NULL: u32 = 0;
const SHT_NOBITS: u32 = 8;
const DT_NULL: u64 = 0;
const DT_NEEDED: u64 = 1;
const DT_STRTAB: u64 = 5;

/// The dynamic side of a program or library; both parts empty for a static program.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Linkage {
    pub interpreter: Option<String>,
    pub needed: Vec<String>,
}

#[derive(PartialEq, Eq, Debug, thiserror::Error)]
pub enum ElfError {
    #[error("not an ELF file for 64-bit little-endian machines")]
    NotElf,
    #[error("the ELF file is cut short or damaged")]
    Damaged,
}

struct Segment {
    kind: u32,
    offset: u64,
    address: u64,
    size: u64,
}

/// Reads the loader and the DT_NEEDED names of `file`.
pub fn linkage(file: &[u8]) -> Result<Linkage, ElfError> {
    // Magic, then class 2 (64 bit) and data 1 (little endian).
    if !file.starts_with(b"\x7fELF\x02\x01") {
        return Err(ElfError::NotElf);
    }
    let segments = segments(file)?;
    let mut linkage = Linkage::default();
    if let Some(interp) = segments.iter().find(|s| s.kind == PT_INTERP) {
        linkage.interpreter = Some(text(file, interp.offset)?);
    }
    if let Some(dynamic) = segments.iter().find(|s| s.kind == PT_DYNAMIC) {
        linkage.needed = needed(file, dynamic, &segments)?;
    }
    Ok(linkage)
}

/// The content of the section `name`, if the file has one: that is where kernel modules tell of themselves.
pub fn section<'a>(file: &'a [u8], name: &str) -> Result<Option<&'a [u8]>, ElfError> {
    Ok(sections(file)?.into_iter().find(|(known, _)| known == name).map(|(_, content)| content))
}

/// Names and contents of all sections that have any in the file.
pub fn sections(file: &[u8]) -> Result<Vec<(String, &[u8])>, ElfError> {
    if !file.starts_with(b"\x7fELF\x02\x01") {
        return Err(ElfError::NotElf);
    }
    let table = u64_at(file, 0x28)?;
    let (entry_size, count) = (u64::from(u16_at(file, 0x3a)?), u64::from(u16_at(file, 0x3c)?));
    let header = |n: u64| entry_size.checked_mul(n).and_then(|o| o.checked_add(table)).ok_or(ElfError::Damaged);
    if count == 0 {
        return Ok(Vec::new());
    }
    let names = u64_at(file, header(u64::from(u16_at(file, 0x3e)?))?.saturating_add(0x18))?;
    let mut sections = Vec::new();
    for n in 0..count {
        let at = header(n)?;
        let kind = u32_at(file, at.saturating_add(4))?;
        if matches!(kind, SHT_NULL | SHT_NOBITS) {
            continue;
        }
        let name = text(file, names.saturating_add(u64::from(u32_at(file, at)?)))?;
        let (offset, size) = (u64_at(file, at.saturating_add(0x18))?, u64_at(file, at.saturating_add(0x20))?);
        let range = usize::try_from(offset).ok().zip(usize::try_from(size).ok());
        let content = range.and_then(|(offset, size)| file.get(offset..offset.checked_add(size)?));
        sections.push((name, content.ok_or(ElfError::Damaged)?));
    }
    Ok(sections)
}

fn segments(file: &[u8]) -> Result<Vec<Segment>, ElfError> {
    let table = u64_at(file, 0x20)?;
    let entry_size = u64::from(u16_at(file, 0x36)?);
    let count = u64::from(u16_at(file, 0x38)?);
    (0..count)
        .map(|n| {
            let at = entry_size.checked_mul(n).and_then(|o| o.checked_add(table)).ok_or(ElfError::Damaged)?;
            Ok(Segment {
                kind: u32_at(file, at)?,
                offset: u64_at(file, at.saturating_add(0x08))?,
                address: u64_at(file, at.saturating_add(0x10))?,
                size: u64_at(file, at.saturating_add(0x20))?,
            })
        })
        .collect()
}

fn needed(file: &[u8], dynamic: &Segment, segments: &[Segment]) -> Result<Vec<String>, ElfError> {
    let mut names = Vec::new();
    let mut strings = None;
    for n in 0..dynamic.size / 16 {
        let at = dynamic.offset.checked_add(16 * n).ok_or(ElfError::Damaged)?;
        let value = u64_at(file, at.saturating_add(8))?;
        match u64_at(file, at)? {
            DT_NULL => break,
            DT_NEEDED => names.push(value),
            DT_STRTAB => strings = Some(value),
            _ => {}
        }
    }
    if names.is_empty() {
        return Ok(Vec::new());
    }
    // The table is named by its address in memory; the segment that holds it says where that is in the file.
    let address = strings.ok_or(ElfError::Damaged)?;
    let offset = segments
        .iter()
        .filter(|s| s.kind == PT_LOAD)
        .find_map(|s| {
            let inside = address.checked_sub(s.address)?;
            if inside < s.size { inside.checked_add(s.offset) } else { None }
        })
        .ok_or(ElfError::Damaged)?;
    names.into_iter().map(|name| text(file, offset.saturating_add(name))).collect()
}

fn text(file: &[u8], at: u64) -> Result<String, ElfError> {
    let rest = usize::try_from(at).ok().and_then(|at| file.get(at..)).ok_or(ElfError::Damaged)?;
    let end = rest.iter().position(|&byte| byte == 0).ok_or(ElfError::Damaged)?;
    String::from_utf8(rest[..end].to_vec()).map_err(|_| ElfError::Damaged)
}

fn bytes_at<const N: usize>(file: &[u8], at: u64) -> Result<[u8; N], ElfError> {
    let at = usize::try_from(at).map_err(|_| ElfError::Damaged)?;
    file.get(at..).and_then(|rest| rest.first_chunk::<N>()).copied().ok_or(ElfError::Damaged)
}

fn u16_at(file: &[u8], at: u64) -> Result<u16, ElfError> {
    bytes_at(file, at).map(u16::from_le_bytes)
}

fn u32_at(file: &[u8], at: u64) -> Result<u32, ElfError> {
    bytes_at(file, at).map(u32::from_le_bytes)
}

fn u64_at(file: &[u8], at: u64) -> Result<u64, ElfError> {
    bytes_at(file, at).map(u64::from_le_bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    /// A dynamic program: header, four segments, then loader name, string table and dynamic section.
    fn program() -> Vec<u8> {
        let base = 0x40_0000u64;
        let (interp, strings, dynamic) = (0x200u64, 0x300u64, 0x400u64);
        let mut file = vec![0u8; 0x500];
        file[..6].copy_from_slice(b"\x7fELF\x02\x01");
        let put = |file: &mut Vec<u8>, at: u64, bytes: &[u8]| {
            let at = usize::try_from(at).unwrap();
            file[at..at + bytes.len()].copy_from_slice(bytes);
        };
        put(&mut file, 0x20, &0x40u64.to_le_bytes());
        put(&mut file, 0x36, &56u16.to_le_bytes());
        put(&mut file, 0x38, &3u16.to_le_bytes());
        let segments = [(PT_LOAD, 0, 0x500u64), (PT_INTERP, interp, 0x20), (PT_DYNAMIC, dynamic, 0x40)];
        for (n, (kind, offset, size)) in (0u64..).zip(segments) {
            let at = 0x40 + 56 * n;
            put(&mut file, at, &kind.to_le_bytes());
            put(&mut file, at + 0x08, &offset.to_le_bytes());
            put(&mut file, at + 0x10, &(base + offset).to_le_bytes());
            put(&mut file, at + 0x20, &size.to_le_bytes());
        }
        put(&mut file, interp, b"/lib64/ld.so\0");
        put(&mut file, strings, b"\0libc.so.6\0libz.so.1\0");
        let entries = [(DT_NEEDED, 1), (DT_NEEDED, 11), (DT_STRTAB, base + strings), (DT_NULL, 0)];
        for (n, (tag, value)) in (0u64..).zip(entries) {
            put(&mut file, dynamic + 16 * n, &tag.to_le_bytes());
            put(&mut file, dynamic + 16 * n + 8, &value.to_le_bytes());
        }
        file
    }

    #[test]
    fn reads_loader_and_libraries() {
        let linkage = linkage(&program()).unwrap();
        assert_eq!(linkage.interpreter.as_deref(), Some("/lib64/ld.so"));
        assert_eq!(linkage.needed, ["libc.so.6", "libz.so.1"]);
    }

    /// The test binary itself is static (musl) and real: it must be read as needing nothing.
    #[test]
    fn a_static_program_needs_nothing() {
        let file = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let linkage = linkage(&file).unwrap();
        assert_eq!(linkage, Linkage::default());
    }

    #[test]
    fn a_real_dynamic_program_is_read() {
        let file = std::fs::read("/bin/sh").unwrap();
        let linkage = linkage(&file).unwrap();
        assert_eq!(linkage.interpreter.as_deref(), Some("/lib64/ld-linux-x86-64.so.2"));
        assert_eq!(linkage.needed, ["libc.so.6"]);
    }

    #[test]
    fn a_script_is_no_program() {
        assert_eq!(linkage(b"#!/bin/sh\n"), Err(ElfError::NotElf));
    }

    proptest! {
        #[test]
        fn a_cut_or_damaged_file_never_panics(
            cut in 0usize..0x500, at in 6usize..0x500, byte in any::<u8>()
        ) {
            let mut file = program();
            file[at] = byte;
            let _ = linkage(&file);
            file.truncate(cut);
            let _ = linkage(&file);
        }
    }
}

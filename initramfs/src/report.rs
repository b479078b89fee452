//! What costs size: a build taken apart, each part compressed by itself.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::contents::{Contents, Kind};
use crate::elf;
use crate::pack;
use crate::ramdisk::compress;
use crate::tool;
use crate::unpack::{self, Unpacked};

/// Quick, and within a few per cent of what the part takes among the others.
const ESTIMATE_LEVEL: i32 = 9;
const AGENT: &str = "sbin/speediso-agent";
/// Smaller ones are told together.
const SMALL: usize = 4 << 10;

#[derive(Deserialize)]
struct Record {
    #[serde(default)]
    contents: Contents,
}

struct Row {
    name: String,
    what: String,
    files: usize,
    bytes: usize,
    compressed: usize,
}

impl Row {
    fn of(name: impl Into<String>, what: impl Into<String>, data: &[&[u8]]) -> Result<Self> {
        Ok(Self {
            name: name.into(),
            what: what.into(),
            files: data.len(),
            bytes: data.iter().map(|part| part.len()).sum(),
            compressed: compress(&data.concat(), ESTIMATE_LEVEL)?.len(),
        })
    }
}

/// Tables of the build in `dir`: the whole, groups of modules, programs and libraries, the largest modules, the agent.
/// With `symbols`, a program of the same sources that still has its symbol table, the agent by crate too.
pub fn of_build(dir: &Path, symbols: Option<&Path>) -> Result<String> {
    let read = |name: &str| fs::read(dir.join(name)).with_context(|| format!("reading {}", dir.join(name).display()));
    let record: Record = serde_json::from_slice(&read("build.json")?).context("reading build.json")?;
    let image = read("initramfs.img")?;
    let archives = unpack::archives(&image)?;
    let mut files: Vec<Unpacked> = archives.into_iter().flat_map(|(_, entries)| entries).collect();
    with_packed_modules(&mut files)?;
    let vmlinuz = fs::metadata(dir.join("vmlinuz")).context("looking at vmlinuz")?.len();

    let mut text = format!(
        "{}: vmlinuz {} KiB + initramfs.img {} KiB = {} KiB of {} KiB (24 MiB)\n",
        dir.display(),
        vmlinuz >> 10,
        image.len() >> 10,
        (usize::try_from(vmlinuz)? + image.len()) >> 10,
        24 << 10
    );
    for (kind, title) in [
        (Kind::Modules, "kernel modules, by group"),
        (Kind::Firmware, "firmware"),
        (Kind::Program, "programs"),
        (Kind::Library, "libraries"),
        (Kind::Own, "scripts and tables"),
        (Kind::Site, "files of the site"),
    ] {
        let mut rows = Vec::new();
        for part in record.contents.0.iter().filter(|part| part.kind == kind) {
            let of_part: Vec<&[u8]> =
                files.iter().filter(|f| part.files.contains(&f.path)).map(|f| f.data.as_slice()).collect();
            rows.push(Row::of(&part.name, &part.reason, &of_part)?);
        }
        text.push_str(&table(title, rows, image.len()));
    }
    let modules = files.iter().filter(|file| file.path.ends_with(".ko"));
    let mut rows = modules
        .map(|file| {
            let group = record.contents.part_of(&file.path).map_or("", |part| part.name.as_str());
            Row::of(file.path.rsplit('/').next().unwrap_or_default(), group, &[&file.data])
        })
        .collect::<Result<Vec<_>>>()?;
    rows.sort_by_key(|row| std::cmp::Reverse(row.compressed));
    rows.truncate(20);
    text.push_str(&table("the twenty largest modules", rows, image.len()));
    if let Some(agent) = files.iter().find(|file| file.path == AGENT) {
        text.push_str(&table("agent, by section of its file", by_section(&agent.data)?, image.len()));
    }
    if let Some(path) = symbols {
        text.push_str(&table("agent, code by crate (before it is linked for size)", by_crate(path)?, 0));
    }
    Ok(text)
}

/// The ramdisk has a link where a packed module belongs: here it counts with what it is.
fn with_packed_modules(files: &mut [Unpacked]) -> Result<()> {
    let packs = files.iter().filter(|file| file.path.ends_with(&format!("/{}", pack::FILE)));
    let mut modules = BTreeMap::new();
    for file in packs {
        let below = file.path.trim_end_matches(pack::FILE);
        modules.extend(pack::files(&file.data)?.into_iter().map(|(path, data)| (format!("{below}{path}"), data)));
    }
    for file in files {
        if let Some(data) = modules.remove(&file.path) {
            file.data = data;
        }
    }
    Ok(())
}

/// Largest first; what is small is told in one line. A share is of the whole ramdisk; none if that is 0.
fn table(title: &str, mut rows: Vec<Row>, whole: usize) -> String {
    if rows.is_empty() {
        return String::new();
    }
    rows.sort_by_key(|row| std::cmp::Reverse((row.compressed, row.bytes)));
    let (large, small): (Vec<Row>, Vec<Row>) = rows.into_iter().partition(|row| row.bytes >= SMALL);
    let mut rows = large;
    let sum = |name: &str, rows: &[Row]| Row {
        name: name.to_owned(),
        what: String::new(),
        files: rows.iter().map(|row| row.files).sum(),
        bytes: rows.iter().map(|row| row.bytes).sum(),
        compressed: rows.iter().map(|row| row.compressed).sum(),
    };
    if !small.is_empty() {
        rows.push(sum("smaller ones", &small));
    }
    rows.push(sum("together", &rows));
    let mut text = format!("\n{title:<28} {:>5} {:>9} {:>9} {:>6}\n", "files", "KiB", "KiB zstd", "share");
    for Row { name, what, files, bytes, compressed } in rows {
        let share = match (compressed * 1000).checked_div(whole) {
            Some(thousandths) => format!("{}.{} %", thousandths / 10, thousandths % 10),
            None => String::new(),
        };
        let line = format!("{name:<28} {files:>5} {:>9} {:>9} {share:>6}  {what}", bytes >> 10, compressed >> 10);
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

fn by_section(agent: &[u8]) -> Result<Vec<Row>> {
    let what = |name: &str| match name {
        ".text" => "code",
        ".rodata" => "constants, texts",
        ".data.rel.ro" => "tables of addresses",
        ".eh_frame" | ".eh_frame_hdr" | ".gcc_except_table" => "how a panic unwinds",
        ".rela.dyn" | ".relr.dyn" => "addresses to be corrected at start",
        _ => "",
    };
    let sections = elf::sections(agent)?;
    sections.into_iter().map(|(name, data)| Row::of(&name, what(&name), &[data])).collect()
}

/// By the first name in each symbol's path; what has none is C's.
fn by_crate(path: &Path) -> Result<Vec<Row>> {
    let listed =
        tool::run(Command::new("nm").args(["--print-size", "--demangle", "--defined-only"]).arg(path), "binutils")
            .with_context(|| format!("listing the symbols of {}", path.display()))?;
    let mut crates: BTreeMap<String, (usize, usize)> = BTreeMap::new();
    for line in listed.lines() {
        // Address, size, kind, name.
        let mut words = line.splitn(4, ' ');
        let (_, size, kind, name) = (words.next(), words.next(), words.next(), words.next());
        let (Some(size), Some(kind), Some(name)) = (size.and_then(|s| usize::from_str_radix(s, 16).ok()), kind, name)
        else {
            continue;
        };
        if kind.eq_ignore_ascii_case("t") || kind == "W" {
            let (count, bytes) = crates.entry(crate_of(name).to_owned()).or_default();
            *count += 1;
            *bytes += size;
        }
    }
    let row = |(name, (files, bytes)): (String, (usize, usize))| Row {
        name,
        what: String::new(),
        files,
        bytes,
        compressed: 0,
    };
    let mut rows: Vec<Row> = crates.into_iter().map(row).collect();
    rows.sort_by_key(|row| std::cmp::Reverse(row.bytes));
    rows.truncate(40);
    Ok(rows)
}

/// `<alloc::vec::Vec<T> as core::fmt::Debug>::fmt` is alloc's.
fn crate_of(symbol: &str) -> &str {
    let name =
        symbol.trim_start_matches(['<', '&', '*', '(', '[']).trim_start_matches("dyn ").trim_start_matches("mut ");
    match name.find("::") {
        Some(end) if name[..end].chars().all(|c| c.is_ascii_alphanumeric() || c == '_') => &name[..end],
        _ => "(C)",
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_symbol_is_of_the_crate_it_begins_with() {
        for (symbol, name) in [
            ("<alloc::vec::Vec<T> as core::fmt::Debug>::fmt", "alloc"),
            ("speediso_agent::boot::run::{{closure}}", "speediso_agent"),
            ("<&mut serde_json::de::Deserializer<R> as serde::Deserializer>::x", "serde_json"),
            ("<dyn core::any::Any>::is", "core"),
            ("ZSTD_decompressStream", "(C)"),
        ] {
            assert_eq!(crate_of(symbol), name, "{symbol}");
        }
    }

    #[test]
    fn the_largest_comes_first_and_the_sum_last() {
        let data = vec![7; 100_000];
        let noise: Vec<u8> = (0..9000u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()).collect();
        let rows = vec![
            Row::of("even", "a reason", &[&data]).unwrap(),
            Row::of("noise", "another", &[&noise, &noise[..1000]]).unwrap(),
            Row::of("tiny", "", &[b"x"]).unwrap(),
        ];
        let text = table("groups", rows, 1 << 20);
        let names: Vec<&str> = text.lines().skip(2).filter_map(|line| line.split_whitespace().next()).collect();
        assert_eq!(names, ["noise", "even", "smaller", "together"], "{text}");
        assert!(text.contains("another") && text.lines().last().unwrap().contains("    4 "), "{text}");
    }
}

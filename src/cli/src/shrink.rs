//! Makes the last filesystem of a disk image as small as it can be, on a copy of the image.
//!
//! The kernel can grow filesystems but not shrink them, so this is done where the image is packed, by the tools that
//! can: resize2fs and ntfsresize. The agent grows the filesystem again where the image is deployed, if it is asked to.

use std::fs::File;
use std::io::{Read, Seek as _};
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use speediso_image::gptgeometry;
use speediso_image::shrink::{Kind, cut_behind, ext_size, last_partition};
use speediso_image::used::survey_partition;
use tempfile::TempDir;

/// Smaller holes than this are not kept in copies.
const BLOCK: usize = 64 << 10;

/// A copy that goes with this.
pub(crate) struct Shrunk {
    pub(crate) disk: File,
    pub(crate) size: u64,
    /// Of the disk before.
    pub(crate) from: u64,
    _copy: TempDir,
}

/// The copy, sparse, is made beside `out`: there is room for the image.
pub(crate) fn shrink(source: &mut dyn Read, out: &Path) -> Result<Shrunk> {
    let parent = out.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let copy = tempfile::Builder::new().prefix(".shrink-").tempdir_in(parent).context("making room for a copy")?;
    let open = |name: &str| -> Result<(PathBuf, File)> {
        let path = copy.path().join(name);
        let file = File::options().read(true).write(true).create_new(true).open(&path);
        file.map(|file| (path, file)).context("making a copy")
    };
    let (_, mut disk) = open("disk")?;
    let from = copy_sparse(source, &disk, 0).context("copying the disk")?;
    let mut head = vec![0; 8192];
    disk.read_exact_at(&mut head, 0).context("reading the copy")?;
    let Some(sector) = gptgeometry::sector_size(&head) else {
        bail!("only a disk with a GPT can be shrunk");
    };
    let last = last_partition(&disk, sector)?;
    let shown = format!("partition {} {:?}", last.number, last.name);
    let survey = survey_partition(&disk, &last);
    let found = survey.found.first().with_context(|| format!("{shown} is not understood"))?;
    if let Some(why) = &found.kept_whole {
        bail!("{shown} holds {}, which cannot be shrunk: {why}", found.holds);
    }
    let Some(kind) = Kind::named(&found.holds) else {
        bail!("{shown} holds {}; only ext2/3/4 and NTFS can be shrunk", found.holds);
    };
    let (path, part) = open("partition")?;
    copy_range(&disk, &last.range, &part).with_context(|| format!("copying {shown}"))?;
    let content = match kind {
        Kind::Ext => shrink_ext(&path, &part),
        Kind::Ntfs => shrink_ntfs(&path, &part),
    }
    .with_context(|| format!("shrinking the filesystem of {shown}"))?;
    // What was there is forgotten first: nothing lies behind the last partition but the end of the table.
    disk.set_len(last.range.start)?;
    disk.set_len(from)?;
    (&part).rewind()?;
    let mut smaller = (&part).take(content);
    copy_sparse(&mut smaller, &disk, last.range.start).with_context(|| format!("copying {shown} back"))?;
    let size = cut_behind(&disk, sector, content)?;
    disk.rewind()?;
    Ok(Shrunk { disk, size, from, _copy: copy })
}

fn copy_range(disk: &File, range: &Range<u64>, to: &File) -> Result<()> {
    let mut disk = disk;
    disk.seek(std::io::SeekFrom::Start(range.start))?;
    copy_sparse(&mut disk.take(range.end - range.start), to, 0)?;
    Ok(())
}

/// To a file that has nothing from `at` on. How much was copied.
fn copy_sparse(from: &mut dyn Read, to: &File, at: u64) -> Result<u64> {
    let mut block = vec![0; BLOCK];
    let mut done = 0;
    loop {
        let mut filled = 0;
        while filled < BLOCK {
            match from.read(&mut block[filled..])? {
                0 => break,
                n => filled += n,
            }
        }
        if block[..filled].iter().any(|byte| *byte != 0) {
            to.write_all_at(&block[..filled], at + done)?;
        }
        done += filled as u64;
        if filled < BLOCK {
            break;
        }
    }
    if to.metadata()?.len() < at + done {
        to.set_len(at + done)?;
    }
    Ok(done)
}

/// How much of the partition counts then.
fn shrink_ext(file: &Path, part: &File) -> Result<u64> {
    // 1: what was wrong is right now.
    run("e2fsck", &["-f", "-p"], file, 1)?;
    run("resize2fs", &["-M"], file, 0)?;
    run("e2fsck", &["-f", "-n"], file, 0)?;
    ext_size(part).context("reading the smaller superblock")
}

fn shrink_ntfs(file: &Path, part: &File) -> Result<u64> {
    let told = run("ntfsresize", &["--force", "--info", "--no-progress-bar"], file, 0)?;
    let least = told.lines().find_map(|line| line.split_once("resize at ")?.1.split(' ').next()?.parse::<u64>().ok());
    let least = least.with_context(|| format!("ntfsresize names no size:\n{told}"))?;
    // It counts in whole clusters and moves what is in the way, for which it needs a little.
    let size = (least + (2 << 20)).next_multiple_of(1 << 20);
    // The backup of its boot sector is the last one of the size that was asked for, behind the last whole cluster.
    let before = part.metadata()?.len();
    if size < before {
        run("ntfsresize", &["--force", "--force", "--no-progress-bar", "--size", &size.to_string()], file, 0)?;
    }
    Ok(size.min(before))
}

/// What it wrote, if it ended with no more than `most`.
fn run(program: &str, args: &[&str], file: &Path, most: i32) -> Result<String> {
    let mut command = Command::new(program);
    // A copy of ours, so there is nobody to ask.
    command.args(args).arg(file).env("LC_ALL", "C").stdin(std::process::Stdio::null());
    let out = command.output().with_context(|| format!("running {program}; is it installed?"))?;
    let told = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    if out.status.code().is_none_or(|code| code > most) {
        bail!("{program} {} ended with {}:\n{told}", args.join(" "), out.status);
    }
    Ok(told)
}

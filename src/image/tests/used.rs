//! Free space as it is found here, against the filesystems' own makers and checkers.
//!
//! Each image is filled with a pattern before the filesystem is made, so that "free" is never zero by luck. Then what is
//! found to be free is zeroed: the checker must find nothing wrong, every file must be what it was, and the number of
//! free bytes must be what the filesystem's own tools say.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::cast_possible_truncation, reason = "tests")]

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use proptest::prelude::*;
use speediso_image::used::{Found, ReadAt, Survey, survey};

const MIB: u64 = 1 << 20;

#[track_caller]
fn run(program: &str, args: &[&str]) -> Output {
    Command::new(program).args(args).output().unwrap_or_else(|e| panic!("{program} is needed: {e}"))
}

#[track_caller]
fn tool(program: &str, args: &[&str]) -> String {
    let out = run(program, args);
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(out.status.success(), "{program} {args:?}: {}\n{text}{}", out.status, String::from_utf8_lossy(&out.stderr));
    text
}

fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// A file with a filesystem in it.
struct Image {
    dir: tempfile::TempDir,
    file: PathBuf,
}

impl Image {
    #[track_caller]
    fn made(mib: u64, mkfs: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("fs");
        let medium = File::create(&file).unwrap();
        let poison = vec![0xa5; MIB as usize];
        for at in 0..mib {
            medium.write_all_at(&poison, at * MIB).unwrap();
        }
        let path = file.to_str().unwrap();
        let args: Vec<&str> = mkfs[1..].iter().copied().chain([path]).collect();
        tool(mkfs[0], &args);
        Self { dir, file }
    }

    fn path(&self) -> &str {
        self.file.to_str().unwrap()
    }

    /// Mounted while `work` runs.
    fn mounted<T>(&self, file: &Path, options: &str, work: impl FnOnce(&Path) -> T) -> T {
        let at = self.dir.path().join("mnt");
        std::fs::create_dir_all(&at).unwrap();
        tool("mount", &["-o", options, file.to_str().unwrap(), at.to_str().unwrap()]);
        let done = work(&at);
        tool("umount", &[at.to_str().unwrap()]);
        done
    }

    /// Files of many sizes, some of them deleted again.
    fn fill(&self) {
        self.mounted(&self.file, "loop", |at| {
            for n in 0..120u64 {
                let folder = at.join(format!("d{}", n % 7));
                std::fs::create_dir_all(&folder).unwrap();
                std::fs::write(folder.join(format!("f{n}")), noise(n, (n * n * 31) as usize)).unwrap();
            }
            std::fs::write(at.join("large"), noise(1000, 9_000_000)).unwrap();
            File::create(at.join("holes")).unwrap().write_all_at(b"end", 5_000_000).unwrap();
            std::os::unix::fs::symlink("large", at.join("link")).unwrap();
            for n in (0..120u64).step_by(3) {
                std::fs::remove_file(at.join(format!("d{}/f{n}", n % 7))).unwrap();
            }
        });
    }

    fn files(&self, file: &Path, options: &str) -> BTreeMap<PathBuf, blake3::Hash> {
        fn walk(at: &Path, found: &mut BTreeMap<PathBuf, blake3::Hash>) {
            for entry in std::fs::read_dir(at).unwrap().map(Result::unwrap) {
                let path = entry.path();
                if entry.file_type().unwrap().is_dir() {
                    walk(&path, found);
                } else if entry.file_type().unwrap().is_file() {
                    found.insert(path.clone(), blake3::hash(&std::fs::read(path).unwrap()));
                }
            }
        }
        self.mounted(file, options, |at| {
            let mut found = BTreeMap::new();
            walk(at, &mut found);
            found
        })
    }

    fn survey(&self) -> Survey {
        survey(&File::open(&self.file).unwrap(), 512).unwrap()
    }

    /// The one filesystem on it, whose free space must have been understood.
    #[track_caller]
    fn understood(&self) -> (Survey, PathBuf) {
        let survey = self.survey();
        let [found] = &survey.found[..] else { panic!("{:?}", survey.found) };
        assert_eq!(found.kept_whole, None, "{found}");
        let copy = self.dir.path().join("zeroed");
        std::fs::copy(&self.file, &copy).unwrap();
        let file = File::options().write(true).open(&copy).unwrap();
        for run in survey.free.runs() {
            file.write_all_at(&vec![0; (run.end - run.start) as usize], run.start).unwrap();
        }
        println!("{found}; {} runs", survey.free.runs().len());
        (survey, copy)
    }

    #[track_caller]
    fn kept(&self, why: &str) {
        kept(&self.survey(), why);
    }

    fn poke(&self, at: u64, change: impl FnOnce(u8) -> u8) {
        let file = File::options().read(true).write(true).open(&self.file).unwrap();
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[change(byte[0])], at).unwrap();
    }
}

#[track_caller]
fn kept(survey: &Survey, why: &str) {
    let [Found { kept_whole: Some(reason), .. }] = &survey.found[..] else { panic!("{:?}", survey.found) };
    assert!(reason.contains(why), "{reason}");
    assert_eq!(survey.free.total(), 0);
}

/// The number behind a name in the output of a tool.
#[track_caller]
fn number(text: &str, name: &str) -> u64 {
    let line =
        text.lines().find(|line| line.trim_start().starts_with(name)).unwrap_or_else(|| panic!("{name}: {text}"));
    let digits: String = line.trim_start()[name.len()..]
        .chars()
        .skip_while(|c| !c.is_ascii_digit())
        .take_while(char::is_ascii_digit)
        .collect();
    digits.parse().unwrap_or_else(|_| panic!("{line}"))
}

#[test]
fn ext_of_every_kind() {
    let ext4 = ["mkfs.ext4", "-q", "-F", "-E", "nodiscard"];
    let cases: &[(u64, &[&str])] = &[
        (300, &[]),
        (72, &["-b", "1024"]),
        (150, &["-b", "2048", "-O", "^64bit"]),
        (72, &["-b", "1024", "-O", "^flex_bg"]),
        (72, &["-b", "1024", "-O", "meta_bg,^resize_inode"]),
        (300, &["-O", "meta_bg,^resize_inode,^flex_bg"]),
        (72, &["-b", "1024", "-O", "^metadata_csum,uninit_bg"]),
        (72, &["-b", "1024", "-O", "^metadata_csum,^uninit_bg"]),
        (72, &["-b", "1024", "-O", "sparse_super2"]),
        (72, &["-b", "1024", "-O", "^sparse_super,^resize_inode"]),
        (72, &["-b", "1024", "-g", "2048", "-G", "4"]),
        (72, &["-O", "metadata_csum_seed,inline_data", "-I", "512"]),
        (72, &["-t", "ext2", "-I", "128"]),
        (72, &["-t", "ext3", "-b", "1024"]),
    ];
    for (mib, options) in cases {
        println!("{options:?}");
        let image = Image::made(*mib, &[&ext4[..], options].concat());
        image.understood();
        image.fill();
        let (survey, zeroed) = image.understood();
        tool("e2fsck", &["-fn", zeroed.to_str().unwrap()]);
        assert_eq!(image.files(&zeroed, "loop,ro"), image.files(&image.file, "loop,ro"));
        let header = tool("dumpe2fs", &["-h", image.path()]);
        assert_eq!(survey.free.total(), number(&header, "Free blocks:") * number(&header, "Block size:"));
    }
}

#[test]
fn ext_that_is_not_at_rest_is_kept() {
    let image = Image::made(72, &["mkfs.ext4", "-q", "-F"]);
    let copy = image.dir.path().join("copy");
    image.mounted(&image.file, "loop", |at| {
        std::fs::write(at.join("new"), noise(1, 100_000)).unwrap();
        tool("sync", &["-f", at.to_str().unwrap()]);
        std::fs::copy(&image.file, &copy).unwrap();
    });
    kept(&survey(&File::open(&copy).unwrap(), 512).unwrap(), "not unmounted cleanly");

    let superblock = |at: u64| 1024 + at;
    for (at, bit, why) in [
        (0x3a, 2, "has errors"),
        (0x61, 0x80, "checksum of the superblock"),
        (0x4, 1, "checksum of the superblock"),
        (0x65, 2, "ro_compat"),
    ] {
        image.poke(superblock(at), |byte| byte ^ bit);
        let survey = image.survey();
        let reason = survey.found[0].kept_whole.clone().unwrap();
        assert!(reason.contains(why) || reason.contains("feature"), "{reason}");
        image.poke(superblock(at), |byte| byte ^ bit);
    }
    image.understood();
    let bigalloc = Image::made(72, &["mkfs.ext4", "-q", "-F", "-O", "bigalloc"]);
    bigalloc.kept("feature");

    // Any bit of a bitmap.
    let dump = tool("dumpe2fs", &[image.path()]);
    let block = dump.lines().find(|line| line.contains("Block bitmap at")).unwrap();
    let bitmap = number(block.trim(), "Block bitmap at") * number(&dump, "Block size:");
    image.poke(bitmap + 100, |byte| byte ^ 0x10);
    image.kept("contradicts itself");
}

#[test]
fn fat_of_every_width() {
    for (mib, width, options) in [
        (3, 12, &["-s", "2"][..]),
        (24, 16, &["-s", "2"]),
        (72, 32, &["-s", "1"]),
        (40, 32, &["-s", "1", "-S", "512", "-f", "1"]),
    ] {
        let image = Image::made(mib, &[&["mkfs.vfat", "-F", &width.to_string()][..], options].concat());
        let source = image.dir.path().join("source");
        for n in 0..30u64 {
            std::fs::write(&source, noise(n, (n * n * 97) as usize)).unwrap();
            tool("mcopy", &["-i", image.path(), source.to_str().unwrap(), &format!("::f{n}")]);
        }
        for n in (0..30).step_by(4) {
            tool("mdel", &["-i", image.path(), &format!("::f{n}")]);
        }
        let (survey, zeroed) = image.understood();
        let zeroed = zeroed.to_str().unwrap();
        // "files, used/all clusters".
        let report = tool("fsck.vfat", &["-n", "-v", zeroed]);
        let (used, all) = report.lines().last().unwrap().split(", ").nth(1).unwrap().split_once('/').unwrap();
        let (used, all): (u64, u64) = (used.parse().unwrap(), all.split(' ').next().unwrap().parse().unwrap());
        assert_eq!(survey.free.total(), (all - used) * cluster(&report), "{report}");
        for n in (0..30u64).filter(|n| n % 4 != 0) {
            let out = image.dir.path().join("out");
            tool("mcopy", &["-n", "-i", zeroed, &format!("::f{n}"), out.to_str().unwrap()]);
            assert!(std::fs::read(&out).unwrap() == noise(n, (n * n * 97) as usize), "f{n}");
            std::fs::remove_file(&out).unwrap();
        }
        let mounted = if width == 32 { 65 } else { 37 };
        image.poke(mounted, |byte| byte | 1);
        image.kept("mounted");
    }
}

/// "     2048 bytes per cluster"
fn cluster(report: &str) -> u64 {
    let line = report.lines().find(|line| line.contains("bytes per cluster")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

#[test]
fn fat_whose_tables_differ_is_kept() {
    let image = Image::made(24, &["mkfs.vfat", "-F", "16", "-a", "-R", "1"]);
    image.understood();
    image.poke(512 + 40, |byte| byte ^ 1);
    image.kept("differ");
    image.poke(512 + 40, |byte| byte ^ 1);
    // The bit that a clean unmount sets.
    image.poke(512 + 3, |byte| byte & 0x7f);
    let report = image.survey().found[0].kept_whole.clone().unwrap();
    assert!(report.contains("differ") || report.contains("cleanly"), "{report}");
}

/// Leaves holes of one block each, until the trees of free space have several levels.
fn crumble(image: &Image) {
    image.mounted(&image.file, "loop", |at| {
        for n in 0..6000 {
            std::fs::write(at.join(format!("s{n}")), noise(n, 600)).unwrap();
        }
        tool("sync", &["-f", at.to_str().unwrap()]);
        for n in (0..6000).step_by(2) {
            std::fs::remove_file(at.join(format!("s{n}"))).unwrap();
        }
    });
}

#[test]
fn xfs_old_and_new() {
    for options in [
        &[][..],
        &["-m", "crc=0", "-b", "size=1024"],
        &["-m", "reflink=0,rmapbt=0", "-d", "agcount=3"],
        &["-b", "size=512", "-m", "crc=0", "-d", "agcount=2"],
        &["-m", "bigtime=1,rmapbt=1", "-s", "size=4096"],
    ] {
        println!("{options:?}");
        let image = Image::made(320, &[&["mkfs.xfs", "-q", "-f", "-K"][..], options].concat());
        image.understood();
        // Kernels no longer mount version 4; its trees are the same but for their headers.
        if !options.contains(&"crc=0") {
            image.fill();
            crumble(&image);
        }
        let (survey, zeroed) = image.understood();
        tool("xfs_repair", &["-n", "-f", zeroed.to_str().unwrap()]);
        if !options.contains(&"crc=0") {
            assert_eq!(image.files(&zeroed, "loop,ro,norecovery"), image.files(&image.file, "loop,ro,norecovery"));
        }
        let header = tool("xfs_db", &["-r", "-f", "-c", "sb 0", "-c", "p agcount blocksize", image.path()]);
        let free: u64 = (0..number(&header, "agcount"))
            .map(|n| tool("xfs_db", &["-r", "-f", "-c", &format!("agf {n}"), "-c", "p freeblks", image.path()]))
            .map(|text| number(&text, "freeblks"))
            .sum();
        assert_eq!(survey.free.total(), free * number(&header, "blocksize"));
    }
}

#[test]
fn xfs_with_something_in_its_log_is_kept() {
    let image = Image::made(320, &["mkfs.xfs", "-q", "-f"]);
    let copy = image.dir.path().join("copy");
    image.mounted(&image.file, "loop", |at| {
        std::fs::write(at.join("new"), noise(1, 100_000)).unwrap();
        tool("sync", &["-f", at.to_str().unwrap()]);
        std::fs::copy(&image.file, &copy).unwrap();
    });
    kept(&survey(&File::open(&copy).unwrap(), 512).unwrap(), "not unmounted cleanly");
    image.understood();
    // The second group's header: the checksum covers it.
    let header = tool("xfs_db", &["-r", "-f", "-c", "sb 0", "-c", "p agblocks blocksize sectsize", image.path()]);
    let group = number(&header, "agblocks") * number(&header, "blocksize") + number(&header, "sectsize");
    image.poke(group + 55, |byte| byte ^ 1);
    image.kept("checksum");
}

#[test]
fn ntfs_as_mkntfs_and_the_driver_leave_it() {
    for options in [&[][..], &["-c", "512"], &["-c", "65536"], &["-s", "4096"]] {
        println!("{options:?}");
        let image = Image::made(64, &[&["mkntfs", "-q", "-F", "-Q"][..], options].concat());
        image.understood();
        image.mounted(&image.file, "loop", |at| {
            for n in 0..120u64 {
                std::fs::write(at.join(format!("f{n}")), noise(n, (n * n * 31) as usize)).unwrap();
            }
            for n in (0..120u64).step_by(3) {
                std::fs::remove_file(at.join(format!("f{n}"))).unwrap();
            }
        });
        let (survey, zeroed) = image.understood();
        tool("ntfsfix", &["-n", zeroed.to_str().unwrap()]);
        assert_eq!(image.files(&zeroed, "loop,ro"), image.files(&image.file, "loop,ro"));
        let info = tool("ntfsinfo", &["-m", image.path()]);
        let (free, cluster) = (number(&info, "Free Clusters:"), number(&info, "Cluster Size:"));
        assert_eq!(survey.free.total(), free * cluster, "{info}");
        // Marks the volume to be checked at Windows' next start.
        tool("ntfsfix", &[image.path()]);
        image.kept("dirty");
        tool("ntfsfix", &["-d", image.path()]);
        image.understood();
    }
}

#[test]
fn leftovers_make_everything_count_as_used() {
    // ZFS leaves the first 8 KiB of its partition alone, and with them an old superblock.
    let image = Image::made(72, &["mkfs.ext4", "-q", "-F"]);
    image.understood();
    let file = File::options().write(true).open(&image.file).unwrap();
    file.write_all_at(&0x00ba_b10cu64.to_le_bytes(), (128 << 10) + 4096).unwrap();
    image.kept("leftover");
    // A table in front of a filesystem that began at the start of the disk.
    let image = Image::made(72, &["mkfs.ext4", "-q", "-F"]);
    let file = File::options().write(true).open(&image.file).unwrap();
    let entry = [0, 0, 0, 0, 0x83, 0, 0, 0, 0, 8, 0, 0, 0, 0x40, 0, 0];
    file.write_all_at(&entry, 446).unwrap();
    file.write_all_at(&[0x55, 0xaa], 510).unwrap();
    let survey = image.survey();
    assert_eq!((survey.found[0].partition, survey.free.total()), (Some(1), 0));
}

/// An image with some bytes changed.
struct Changed<'a> {
    image: &'a [u8],
    changes: Vec<(u64, u8)>,
}

impl ReadAt for Changed<'_> {
    fn size(&self) -> u64 {
        self.image.len() as u64
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let start = usize::try_from(offset).unwrap();
        let bytes = start.checked_add(buffer.len()).and_then(|end| self.image.get(start..end));
        buffer.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        for (at, xor) in &self.changes {
            if let Some(byte) = at.checked_sub(offset).and_then(|n| buffer.get_mut(usize::try_from(n).ok()?)) {
                *byte ^= xor;
            }
        }
        Ok(())
    }
}

#[test]
fn no_damage_makes_it_panic_or_leave_the_disk() {
    let kinds: [(u64, &[&str]); 6] = [
        (16, &["mkfs.ext4", "-q", "-F", "-b", "1024", "-O", "^metadata_csum,uninit_bg"]),
        (16, &["mkfs.ext4", "-q", "-F", "-b", "1024", "-O", "^metadata_csum,^uninit_bg,meta_bg,^resize_inode"]),
        (3, &["mkfs.vfat", "-F", "12", "-s", "2"]),
        (40, &["mkfs.vfat", "-F", "32", "-s", "1"]),
        (8, &["mkntfs", "-q", "-F", "-Q"]),
        (320, &["mkfs.xfs", "-q", "-f", "-m", "crc=0"]),
    ];
    for (mib, mkfs) in kinds {
        let image = Image::made(mib, mkfs);
        let bytes = std::fs::read(&image.file).unwrap();
        // Where the numbers are that decide where one looks next.
        let hot: Vec<u64> = match mkfs[0] {
            "mkfs.ext4" => (1024..2048).chain(2048..2560).collect(),
            "mkfs.vfat" => (0..96).chain(16384..16400).collect(),
            "mkntfs" => (0..84).chain((0..8192).map(|n| u64::from(bytes[48]) * 4096 + n)).collect(),
            _ => (0..272).chain(512..1024).chain((1..40).flat_map(|b| b * 4096..b * 4096 + 64)).collect(),
        };
        let cases = if mib > 100 { 60 } else { 400 };
        let one = (prop::sample::select(hot), prop_oneof![Just(0x80), Just(0xff), Just(1), 1u8..]);
        let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(cases));
        let outcome = runner.run(&prop::collection::vec(one, 1..5), |changes| {
            let survey = survey(&Changed { image: &bytes, changes }, 512).unwrap();
            prop_assert!(survey.free.runs().last().is_none_or(|run| run.end <= bytes.len() as u64));
            prop_assert!(survey.free.total() < bytes.len() as u64);
            Ok(())
        });
        outcome.unwrap();
        // Undamaged it is understood: the damage was looked at.
        image.understood();
    }
}

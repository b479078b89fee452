//! The numbered builds of a directory: the last three are kept, `latest` is switched in one step.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use sha2::{Digest, Sha256};
use speediso_image::manifest::SigningKey;

use crate::packages::hex;
use crate::ramdisk::BuildFacts;
use crate::verify;

const KEPT: usize = 3;
const LATEST: &str = "latest";

/// A directory of builds.
#[derive(Debug)]
pub struct Builds {
    dir: PathBuf,
}

impl Builds {
    pub fn in_directory(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }

    /// Numbers of the builds that are there, ascending.
    pub fn numbers(&self) -> Result<Vec<u64>> {
        let entries = match fs::read_dir(&self.dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error).with_context(|| format!("reading {}", self.dir.display())),
        };
        let mut numbers = Vec::new();
        for entry in entries {
            let name = entry?.file_name();
            // Only what this program would write itself: `07` or `7.old` are someone else's.
            numbers.extend(name.to_str().and_then(|n| n.parse::<u64>().ok().filter(|number| number.to_string() == n)));
        }
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// The number that `latest` leads to.
    pub fn latest(&self) -> Option<u64> {
        fs::read_link(self.dir.join(LATEST)).ok()?.to_str()?.parse().ok()
    }

    pub fn path(&self, number: u64) -> PathBuf {
        self.dir.join(number.to_string())
    }

    pub fn facts(&self, number: u64) -> Result<BuildFacts> {
        let path = self.path(number).join("build.json");
        let text = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
        serde_json::from_slice(&text).with_context(|| format!("reading {}", path.display()))
    }

    /// Puts a build there whole, with `SHA256SUMS`, points `latest` to it and removes what is too old.
    pub fn publish(&self, number: u64, files: &BTreeMap<&str, Vec<u8>>) -> Result<PathBuf> {
        self.publish_signed(number, files, None)
    }

    /// The same with a signature over `SHA256SUMS`, which is there as soon as the build is.
    pub fn publish_signed(
        &self,
        number: u64,
        files: &BTreeMap<&str, Vec<u8>>,
        key: Option<&SigningKey>,
    ) -> Result<PathBuf> {
        let path = self.path(number);
        ensure!(
            !path.exists(),
            "{} exists already: a build is never changed; remove it or use another number",
            path.display()
        );
        fs::create_dir_all(&self.dir).with_context(|| format!("making {}", self.dir.display()))?;
        let work = tempfile::Builder::new().prefix(".new-").tempdir_in(&self.dir)?;
        let made = work.path().join("build");
        fs::create_dir(&made)?;
        let mut sums = String::new();
        for (name, data) in files {
            write_synced(&made.join(name), data)?;
            sums.push_str(&format!("{}  {name}\n", hex(&Sha256::digest(data))));
        }
        write_synced(&made.join(verify::SUMS), sums.as_bytes())?;
        if let Some(key) = key {
            verify::sign(&made, key)?;
        }
        fs::rename(&made, &path).with_context(|| format!("making {}", path.display()))?;
        self.point_latest_to(number)?;
        self.prune()?;
        Ok(path)
    }

    /// Switches `latest` by a rename, so that a reader finds the old or the new build, never none.
    pub fn point_latest_to(&self, number: u64) -> Result<()> {
        let work = tempfile::Builder::new().prefix(".link-").tempdir_in(&self.dir)?;
        let link = work.path().join(LATEST);
        std::os::unix::fs::symlink(number.to_string(), &link)?;
        fs::rename(&link, self.dir.join(LATEST)).with_context(|| format!("pointing {LATEST} to build {number}"))
    }

    /// Moves `latest` to the build before the one it leads to; gives both numbers.
    pub fn roll_back(&self) -> Result<(u64, u64)> {
        let Some(now) = self.latest() else { bail!("{} has no build to roll back from", self.dir.display()) };
        let before = self.numbers()?.into_iter().rev().find(|&number| number < now);
        let Some(before) = before else {
            bail!("build {now} is the oldest of {}: there is none before it", self.dir.display())
        };
        self.point_latest_to(before)?;
        Ok((now, before))
    }

    /// What `latest` leads to stays, however old: someone rolled back to it.
    fn prune(&self) -> Result<()> {
        let numbers = self.numbers()?;
        let latest = self.latest();
        for &number in numbers.iter().rev().skip(KEPT).filter(|&&number| Some(number) != latest) {
            let path = self.path(number);
            fs::remove_dir_all(&path).with_context(|| format!("removing the old build {}", path.display()))?;
        }
        Ok(())
    }
}

fn write_synced(path: &Path, data: &[u8]) -> Result<()> {
    let write = || -> io::Result<()> {
        let mut file = fs::File::create_new(path)?;
        file.write_all(data)?;
        file.sync_all()
    };
    write().with_context(|| format!("writing {}", path.display()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn publish(builds: &Builds, number: u64) {
        let files = BTreeMap::from([("vmlinuz", format!("kernel {number}").into_bytes())]);
        builds.publish(number, &files).unwrap();
    }

    #[test]
    fn three_are_kept_and_latest_is_the_newest() {
        let dir = tempfile::tempdir().unwrap();
        let builds = Builds::in_directory(&dir.path().join("builds"));
        assert_eq!(builds.numbers().unwrap(), Vec::<u64>::new());
        for number in 8..=12 {
            publish(&builds, number);
        }
        assert_eq!(builds.numbers().unwrap(), [10, 11, 12]);
        assert_eq!(fs::read(dir.path().join("builds/latest/vmlinuz")).unwrap(), b"kernel 12");
        let sums = fs::read_to_string(dir.path().join("builds/latest/SHA256SUMS")).unwrap();
        assert_eq!(sums, format!("{}  vmlinuz\n", hex(&Sha256::digest(b"kernel 12"))));
        let mut names: Vec<_> =
            fs::read_dir(dir.path().join("builds")).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["10", "11", "12", "latest"], "nothing temporary stays");
    }

    #[test]
    fn rollback_goes_back_until_the_oldest() {
        let dir = tempfile::tempdir().unwrap();
        let builds = Builds::in_directory(dir.path());
        assert!(builds.roll_back().is_err());
        for number in 1..=3 {
            publish(&builds, number);
        }
        assert_eq!(builds.roll_back().unwrap(), (3, 2));
        assert_eq!(builds.roll_back().unwrap(), (2, 1));
        let error = builds.roll_back().unwrap_err().to_string();
        assert!(error.starts_with("build 1 is the oldest of "), "{error}");
        assert_eq!(builds.latest(), Some(1), "a refused rollback changes nothing");
        publish(&builds, 4);
        assert_eq!(builds.latest(), Some(4));
    }

    #[test]
    fn a_build_is_never_changed() {
        let dir = tempfile::tempdir().unwrap();
        let builds = Builds::in_directory(dir.path());
        publish(&builds, 1);
        let error = builds.publish(1, &BTreeMap::from([("vmlinuz", vec![0])])).unwrap_err().to_string();
        assert!(error.contains("exists already"), "{error}");
        assert_eq!(fs::read(dir.path().join("1/vmlinuz")).unwrap(), b"kernel 1");
    }

    #[test]
    fn foreign_names_are_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["007", "1.old", "notes"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        let builds = Builds::in_directory(dir.path());
        for number in 1..=5 {
            publish(&builds, number);
        }
        assert_eq!(builds.numbers().unwrap(), [3, 4, 5]);
        assert!(["007", "1.old", "notes"].iter().all(|name| dir.path().join(name).exists()));
    }
}

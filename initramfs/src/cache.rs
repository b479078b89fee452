//! What is dear to fetch or make, kept by the digest of what it was made from.
//!
//! An entry is a directory that appears whole or not at all, and never changes. So a builder that may only read the
//! cache works as long as everything is in it, and two builders at once disturb nobody.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

#[derive(Clone, Debug)]
pub struct Cache {
    root: PathBuf,
}

impl Cache {
    pub fn at(root: PathBuf) -> Self {
        Self { root }
    }

    /// `SPEEDISO_CACHE`, else `speediso` in the user's cache directory.
    pub fn of_user() -> Result<Self> {
        let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let root = set("SPEEDISO_CACHE")
            .or_else(|| set("XDG_CACHE_HOME").map(|dir| dir.join("speediso")))
            .or_else(|| set("HOME").map(|dir| dir.join(".cache/speediso")))
            .context("no place for the cache: set SPEEDISO_CACHE, XDG_CACHE_HOME or HOME")?;
        Ok(Self { root })
    }

    /// The entry `kind/key`, made by `fill` in an empty directory if it is not there yet.
    pub fn entry(&self, kind: &str, key: &str, fill: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
        let entry = self.root.join(kind).join(key);
        if entry.is_dir() {
            return Ok(entry);
        }
        let work = self.work_dir()?;
        let made = work.path().join("made");
        fs::create_dir(&made)?;
        fill(&made)?;
        let parent = self.root.join(kind);
        fs::create_dir_all(&parent).with_context(|| format!("making {}", parent.display()))?;
        match fs::rename(&made, &entry) {
            Ok(()) => Ok(entry),
            // Another builder was quicker; the key says that its content is the same.
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(entry),
            Err(error) => Err(error).with_context(|| format!("keeping {}", entry.display())),
        }
    }

    /// Where the entry `kind/key` is, or would be.
    #[must_use]
    pub fn path(&self, kind: &str, key: &str) -> PathBuf {
        self.root.join(kind).join(key)
    }

    /// The keys of a kind.
    #[must_use]
    pub fn entries(&self, kind: &str) -> Vec<String> {
        let entries = fs::read_dir(self.root.join(kind)).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
    }

    /// Removes what is out of date; what cannot be removed takes room and nothing else.
    pub fn forget(&self, kind: &str, old: impl Fn(&str) -> bool) {
        for key in self.entries(kind).into_iter().filter(|key| old(key)) {
            let _ = fs::remove_dir_all(self.path(kind, &key));
        }
    }

    /// A directory for large intermediate things, on the same file system as the cache; removed when dropped.
    pub fn work_dir(&self) -> Result<tempfile::TempDir> {
        fs::create_dir_all(&self.root)
            .and_then(|()| tempfile::Builder::new().prefix("work-").tempdir_in(&self.root))
            .with_context(|| {
                format!(
                    "writing to the cache {}: this build needs something that is not in it yet; \
                     set SPEEDISO_CACHE to a directory you may write to",
                    self.root.display()
                )
            })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_entry_is_made_once_and_only_whole() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::at(dir.path().join("cache"));
        let failed = cache.entry("kind", "key", |made| {
            fs::write(made.join("half"), "x")?;
            anyhow::bail!("the network went away")
        });
        assert_eq!(failed.unwrap_err().to_string(), "the network went away");
        let entry = cache.entry("kind", "key", |made| Ok(fs::write(made.join("whole"), "y")?)).unwrap();
        assert!(!entry.join("half").exists());
        let again = cache.entry("kind", "key", |_| panic!("made twice")).unwrap();
        assert_eq!(fs::read(again.join("whole")).unwrap(), b"y");
        let left: Vec<_> = fs::read_dir(dir.path().join("cache")).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(left, ["kind"], "work directories must be gone");
    }
}

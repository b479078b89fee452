//! The files of the ramdisk before they become an archive: held in memory, so that owners and devices need no root.

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};

/// One name in the ramdisk.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Entry {
    Directory { mode: u32 },
    File { mode: u32, data: Vec<u8> },
    Link { target: String },
    CharDevice { mode: u32, major: u32, minor: u32 },
}

#[derive(PartialEq, Eq, Debug, thiserror::Error)]
pub enum TreeError {
    #[error("{0} is not an absolute path without `.`, `..` or empty parts")]
    BadPath(String),
    #[error("{0} is put into the ramdisk twice with different content")]
    Conflict(String),
    #[error("{path} would lie below {parent}, which is not a directory")]
    NotADirectory { path: String, parent: String },
}

/// Sorted by path, a directory before what it holds. Paths are kept without the leading `/`, as cpio has them.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Tree {
    entries: BTreeMap<String, Entry>,
}

impl Tree {
    pub fn add_file(&mut self, path: &str, mode: u32, data: Vec<u8>) -> Result<(), TreeError> {
        self.add(path, Entry::File { mode, data })
    }

    pub fn add_link(&mut self, path: &str, target: &str) -> Result<(), TreeError> {
        self.add(path, Entry::Link { target: target.to_owned() })
    }

    pub fn add_directory(&mut self, path: &str, mode: u32) -> Result<(), TreeError> {
        self.add(path, Entry::Directory { mode })
    }

    pub fn add_char_device(&mut self, path: &str, mode: u32, major: u32, minor: u32) -> Result<(), TreeError> {
        self.add(path, Entry::CharDevice { mode, major, minor })
    }

    /// A name as another tree has it, without the leading `/`.
    pub fn add_entry(&mut self, path: &str, entry: Entry) -> Result<(), TreeError> {
        self.add(&format!("/{path}"), entry)
    }

    /// Parents that do not exist yet are made as directories of mode 0755.
    fn add(&mut self, path: &str, entry: Entry) -> Result<(), TreeError> {
        let bad = || TreeError::BadPath(path.to_owned());
        let relative = path.strip_prefix('/').ok_or_else(bad)?;
        if relative.split('/').any(|part| matches!(part, "" | "." | "..")) || relative.contains('\0') {
            return Err(bad());
        }
        for (at, _) in relative.match_indices('/') {
            let parent = &relative[..at];
            match self.entries.get(parent) {
                Some(Entry::Directory { .. }) => {}
                Some(_) => {
                    return Err(TreeError::NotADirectory { path: path.to_owned(), parent: format!("/{parent}") });
                }
                None => {
                    self.entries.insert(parent.to_owned(), Entry::Directory { mode: 0o755 });
                }
            }
        }
        match self.entries.get(relative) {
            Some(present) if *present == entry => Ok(()),
            // The mode of a directory made on the way may be set afterwards.
            Some(Entry::Directory { mode: 0o755 }) if matches!(entry, Entry::Directory { .. }) => {
                self.entries.insert(relative.to_owned(), entry);
                Ok(())
            }
            Some(_) => Err(TreeError::Conflict(path.to_owned())),
            None => {
                self.entries.insert(relative.to_owned(), entry);
                Ok(())
            }
        }
    }

    pub fn contains(&self, path: &str) -> bool {
        self.entries.contains_key(path.trim_start_matches('/'))
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &Entry)> {
        self.entries.iter().map(|(path, entry)| (path.as_str(), entry))
    }

    /// Bytes of file data.
    pub fn size(&self) -> usize {
        self.entries.values().map(Entry::size).sum()
    }

    /// Covers names, kinds, modes and content.
    pub fn digest(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        for (path, entry) in &self.entries {
            let (kind, data): (String, &[u8]) = match entry {
                Entry::Directory { mode } => (format!("d {mode:o}"), &[]),
                Entry::File { mode, data } => (format!("f {mode:o}"), data),
                Entry::Link { target } => ("l".to_owned(), target.as_bytes()),
                Entry::CharDevice { mode, major, minor } => (format!("c {mode:o} {major} {minor}"), &[]),
            };
            // Lengths first: no two trees share a byte stream.
            hash.update(format!("{} {path} {kind} {} ", path.len(), data.len()));
            hash.update(data);
        }
        hash.finalize().into()
    }

    /// The list that goes beside the archive: mode, size, name; sorted.
    pub fn listing(&self) -> String {
        let mut text = String::new();
        for (path, entry) in &self.entries {
            let line = match entry {
                Entry::Directory { mode } => format!("d {mode:04o} {:>9} /{path}/\n", "-"),
                Entry::File { mode, data } => format!("f {mode:04o} {:>9} /{path}\n", data.len()),
                Entry::Link { target } => format!("l 0777 {:>9} /{path} -> {target}\n", "-"),
                Entry::CharDevice { mode, major, minor } => {
                    format!("c {mode:04o} {:>9} /{path}\n", format!("{major},{minor}"))
                }
            };
            text.push_str(&line);
        }
        text
    }
}

impl Entry {
    fn size(&self) -> usize {
        match self {
            Self::File { data, .. } => data.len(),
            _ => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn refuses_what_would_escape_or_clash() {
        let mut tree = Tree::default();
        for path in ["etc/motd", "/", "/etc/../motd", "/etc//motd", "/etc/./motd", "/etc/"] {
            assert_eq!(tree.add_file(path, 0o644, vec![]), Err(TreeError::BadPath(path.to_owned())));
        }
        tree.add_file("/etc/motd", 0o644, b"one".to_vec()).unwrap();
        tree.add_file("/etc/motd", 0o644, b"one".to_vec()).unwrap();
        let twice = tree.add_file("/etc/motd", 0o644, b"two".to_vec());
        assert_eq!(twice, Err(TreeError::Conflict("/etc/motd".to_owned())));
        let below = tree.add_file("/etc/motd/x", 0o644, vec![]);
        assert!(matches!(below, Err(TreeError::NotADirectory { .. })), "{below:?}");
    }

    #[test]
    fn the_digest_sees_mode_name_kind_and_content() {
        let digest = |path: &str, mode, data: &[u8]| {
            let mut tree = Tree::default();
            tree.add_file(path, mode, data.to_vec()).unwrap();
            tree.digest()
        };
        let first = digest("/a", 0o644, b"x");
        assert_eq!(first, digest("/a", 0o644, b"x"));
        assert_ne!(first, digest("/b", 0o644, b"x"));
        assert_ne!(first, digest("/a", 0o755, b"x"));
        assert_ne!(first, digest("/a", 0o644, b"y"));
        let mut link = Tree::default();
        link.add_link("/a", "x").unwrap();
        assert_ne!(first, link.digest());
    }
}

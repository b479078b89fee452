//! The directory in memory that makes a restarted agent the same agent: key, certificate, session and journal.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::fcntl::{Flock, FlockArg};
use speediso_model::fault::{Fault, FaultCode};

pub const DEFAULT: &str = "/run/speediso";
/// That it is there says that init ended an agent on purpose, to go on in another root: that one did not die.
pub(crate) const MOVED: &str = "moved";

/// Held by one agent at a time.
#[derive(Clone, Debug)]
pub struct StateDir {
    path: PathBuf,
    _lock: Arc<Flock<File>>,
}

impl StateDir {
    /// Makes the directory if need be and locks it.
    ///
    /// # Errors
    /// When another agent holds it, or when others could write to it.
    pub fn open(path: &Path) -> Result<Self, Fault> {
        let failed = |e: io::Error| {
            Fault::new(FaultCode::Io, format!("opening the state directory {}", path.display())).because(e.to_string())
        };
        match DirBuilder::new().recursive(true).mode(0o700).create(path) {
            Ok(()) => {}
            Err(e) => return Err(failed(e)),
        }
        let meta = std::fs::metadata(path).map_err(failed)?;
        if meta.uid() != nix::unistd::geteuid().as_raw() {
            return Err(Fault::new(FaultCode::Io, format!("{} belongs to somebody else", path.display())));
        }
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700)).map_err(failed)?;
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path.join("lock"))
            .map_err(failed)?;
        let lock = Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| {
            Fault::new(FaultCode::Io, format!("another agent holds {}", path.display())).because(errno.to_string())
        })?;
        Ok(Self { path: path.to_owned(), _lock: Arc::new(lock) })
    }

    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Replaces a file as a whole: a crash leaves the old or the new one.
    ///
    /// # Errors
    /// When the directory cannot be written.
    pub fn put(&self, name: &str, content: &[u8]) -> io::Result<()> {
        let part = self.path.join(format!(".{name}.part"));
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&part)?;
        file.write_all(content)?;
        file.sync_all()?;
        std::fs::rename(part, self.file(name))
    }

    /// `None` if there is none.
    ///
    /// # Errors
    /// When it is there and cannot be read.
    pub fn get(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        match std::fs::read(self.file(name)) {
            Ok(content) => Ok(Some(content)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_agent_at_a_time() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("state");
        let first = StateDir::open(&path).expect("the first");
        assert!(StateDir::open(&path).is_err(), "the second must not");
        assert_eq!(std::fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o700);
        first.put("key", b"1").expect("written");
        assert_eq!(first.get("key").expect("read").as_deref(), Some(&b"1"[..]));
        assert_eq!(first.get("none").expect("read"), None);
        drop(first);
        StateDir::open(&path).expect("after the first has gone");
    }
}

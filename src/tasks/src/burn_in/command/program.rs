//! Finding a program, making sure of it, running it.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};

use sha2::{Digest as _, Sha256};
use speediso_model::image::ImageDigest;
use speediso_model::plan::hex;
use speediso_sys::process_group::{self, Ended};

use super::super::live::Live;
use crate::ctx::TaskCtx;

const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const LARGEST: u64 = 256 << 20;

/// A program that is there. A copy of ours is removed with it.
pub(in super::super) struct Program {
    path: PathBuf,
    is_copy: bool,
}

impl Program {
    /// By its name, where the live system or the tools archive has programs.
    pub(in super::super) fn named(name: &str, ctx: &TaskCtx) -> Result<Self, String> {
        match ctx.tools.path_of(name) {
            Some(path) => Ok(Self { path, is_copy: false }),
            None => Err(format!("{name} is not in this live system")),
        }
    }

    /// A file that is there by itself.
    pub(in super::super) fn at(path: PathBuf) -> Self {
        Self { path, is_copy: false }
    }

    /// As a step names it: with a digest, what runs is a copy that nobody else can write, and which was hashed.
    pub(super) fn of_step(name: &str, digest: Option<&ImageDigest>, ctx: &TaskCtx) -> Result<Self, String> {
        let path = if name.starts_with('/') { PathBuf::from(name) } else { Self::named(name, ctx)?.path.clone() };
        let Some(digest) = digest else { return Ok(Self { path, is_copy: false }) };
        let failed = |e: io::Error| format!("{}: {e}", path.display());
        let copy = copy(&path, &ctx.roots.run).map_err(failed)?;
        let program = Self { path: copy.0, is_copy: true };
        if Some(copy.1) == digest.as_sha256() {
            Ok(program)
        } else {
            Err(format!("{} has sha256:{}, which is not {digest}: it was not run", path.display(), hex(&copy.1)))
        }
    }

    /// In an environment of its own, in a directory that is writable and in memory.
    pub(in super::super) fn command(&self) -> process::Command {
        let mut command = process::Command::new(&self.path);
        command.env_clear().env("PATH", PATH).env("LC_ALL", "C").current_dir("/tmp");
        command
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if self.is_copy {
            // It is in memory, for root only: left behind, it harms nobody.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn copy(from: &Path, directory: &Path) -> io::Result<(PathBuf, [u8; 32])> {
    static COPIES: AtomicU32 = AtomicU32::new(0);
    let mut bytes = Vec::new();
    File::open(from)?.take(LARGEST + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LARGEST {
        return Err(io::Error::other("larger than 256 MiB"));
    }
    DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    let name = format!("burn-in-{}-{}", process::id(), COPIES.fetch_add(1, Ordering::Relaxed));
    let path = directory.join(name);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o700).open(&path)?;
    file.write_all(&bytes)?;
    Ok((path, Sha256::digest(&bytes).into()))
}

/// Until it ends, or the step is over.
pub(in super::super) fn run(command: process::Command, output: u64, live: &Live<'_>) -> io::Result<Ended> {
    process_group::run(command, output, || live.is_over())
}

//! External programs: where they are, and how they are run.
//!
//! A distribution's live system has them in its path. The ramdisk has no room for them; there they come in one archive,
//! whose digest the ramdisk carries, so that the trust in the ramdisk is trust in them (docs/partitioning.md). Whether a
//! program can be had is known when a plan is made; it is fetched when the work begins, before anything is written.

mod archive;
mod run;

use std::fmt;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use speediso_model::fault::{Fault, FaultCode};
use speediso_sys::module;

use self::archive::Archive;
pub use self::archive::ArchiveFacts;
pub(crate) use self::archive::in_order;
use crate::ctx::TaskCtx;

/// What the ramdisk says about the archive that was made with it.
const FACTS: &str = "/etc/speediso-tools";
/// In memory, for root only, gone with the boot.
const DIRECTORY: &str = "/run/speediso/tools";
const PATH: [&str; 6] = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// Where programs are looked for.
#[derive(Clone)]
pub struct Tools(Arc<Inner>);

struct Inner {
    path: Vec<PathBuf>,
    archive: Option<ArchiveFacts>,
    /// URL or file of the archive.
    from: Option<String>,
    directory: PathBuf,
    unpacked: Mutex<Option<Archive>>,
}

impl fmt::Debug for Tools {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tools").field("path", &self.0.path).field("from", &self.0.from).finish_non_exhaustive()
    }
}

impl Tools {
    /// Those of the running system, and of the archive at `from`, a URL or a file, if the ramdisk knows its digest.
    #[must_use]
    pub fn of_system(from: Option<String>) -> Self {
        let facts = std::fs::read(FACTS).ok().and_then(|text| serde_json::from_slice(&text).ok());
        Self::new(PATH.map(PathBuf::from).into(), facts, from, DIRECTORY.into())
    }

    #[must_use]
    pub fn new(path: Vec<PathBuf>, archive: Option<ArchiveFacts>, from: Option<String>, directory: PathBuf) -> Self {
        Self(Arc::new(Inner { path, archive, from, directory, unpacked: Mutex::new(None) }))
    }

    /// Whether these programs can be had; nothing is fetched.
    ///
    /// # Errors
    /// `tool-missing`, with both ways to have it.
    pub(crate) fn check(&self, programs: &[&'static str]) -> Result<(), Fault> {
        let missing = |program: &&&str| self.in_path(program).is_none() && !self.in_archive(program);
        match programs.iter().find(missing) {
            Some(program) => Err(self.missing(program)),
            None => Ok(()),
        }
    }

    /// Gets these programs ready to run, and these modules into the kernel where the archive brings them.
    ///
    /// # Errors
    /// `tool-missing` when the archive cannot be had, is not the one whose digest the ramdisk carries, or is for
    /// another kernel.
    pub(crate) fn ready<'a>(
        &'a self,
        programs: &[&'static str],
        modules: &[&str],
        ctx: &'a TaskCtx,
    ) -> Result<Toolbox<'a>, Fault> {
        self.check(programs)?;
        let mut toolbox = Toolbox { tools: self, archive: None, ctx };
        let Some(absent) = programs.iter().find(|program| self.in_path(program).is_none()) else { return Ok(toolbox) };
        let mut unpacked = self.0.unpacked.lock().unwrap_or_else(PoisonError::into_inner);
        let archive = match &*unpacked {
            Some(archive) => archive.clone(),
            None => {
                let (Some(facts), Some(from)) = (&self.0.archive, &self.0.from) else {
                    return Err(self.missing(absent));
                };
                let archive = Archive::get(facts, from, &self.0.directory, ctx)?;
                *unpacked = Some(archive.clone());
                archive
            }
        };
        drop(unpacked);
        load(&archive, modules)?;
        toolbox.archive = Some(archive);
        Ok(toolbox)
    }

    /// The same without fetching anything: none, where it would take that.
    pub(crate) fn at_hand<'a>(&'a self, programs: &[&'static str], ctx: &'a TaskCtx) -> Option<Toolbox<'a>> {
        let unpacked = self.0.unpacked.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let here = || self.0.archive.as_ref().and_then(|facts| Archive::here(facts, &self.0.directory));
        let archive = unpacked.or_else(here);
        let is_here = |program: &&'static str| {
            self.in_path(program).is_some()
                || archive.as_ref().is_some_and(|archive| archive.command(program).is_some())
        };
        programs.iter().all(is_here).then_some(Toolbox { tools: self, archive, ctx })
    }

    /// Where a program of the running system is, if it has it.
    pub(crate) fn path_of(&self, program: &str) -> Option<PathBuf> {
        self.in_path(program)
    }

    /// busybox has applets of the same names that know a part of the options: not the same program.
    fn in_path(&self, program: &str) -> Option<PathBuf> {
        let is_program = |path: &PathBuf| {
            let real = path.canonicalize().ok();
            let is_applet = real.as_deref().and_then(Path::file_name).is_some_and(|name| name == "busybox");
            !is_applet && path.metadata().is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
        };
        self.0.path.iter().map(|dir| dir.join(program)).find(is_program)
    }

    fn in_archive(&self, program: &str) -> bool {
        self.0.from.is_some() && self.0.archive.as_ref().is_some_and(|facts| facts.program(program).is_some())
    }

    fn missing(&self, program: &str) -> Fault {
        let archive = match (&self.0.archive, &self.0.from) {
            (None, _) => "this system carries no digest of a tools archive, so none is trusted",
            (Some(facts), _) if facts.program(program).is_none() => {
                "nor is it in the tools archive that was made with this ramdisk"
            }
            (Some(_), None) => "and nobody said where the tools archive is (speediso.tools=URL, or --tools)",
            (Some(_), Some(_)) => "and the tools archive cannot be used",
        };
        Fault::new(FaultCode::ToolMissing, format!("{program} is not in this live system")).because(archive).because(
            "nothing was changed; boot a live system that has it, or add it to initramfs/tools.json and build again",
        )
    }
}

/// Programs that are there and can be run.
pub(crate) struct Toolbox<'a> {
    tools: &'a Tools,
    archive: Option<Archive>,
    ctx: &'a TaskCtx,
}

impl Toolbox<'_> {
    /// Runs a program to its end and gives what it wrote; no shell is in between.
    ///
    /// # Errors
    /// `tool-failed` with its whole output, `timed-out`, or `cancelled`.
    pub(crate) fn run<S: AsRef<str>>(&self, program: &'static str, arguments: &[S]) -> Result<String, Fault> {
        self.feed(program, arguments, &[])
    }

    /// The same, with something to read on its standard input: for what must be on no command line.
    pub(crate) fn feed<S: AsRef<str>>(
        &self,
        program: &'static str,
        arguments: &[S],
        input: &[u8],
    ) -> Result<String, Fault> {
        let arguments: Vec<&str> = arguments.iter().map(AsRef::as_ref).collect();
        let mut command = match (self.tools.in_path(program), &self.archive) {
            (Some(path), _) => run::bare(path),
            (None, Some(archive)) => archive.command(program).ok_or_else(|| self.tools.missing(program))?,
            (None, None) => return Err(self.tools.missing(program)),
        };
        command.args(&arguments);
        if let Some(archive) = &self.archive {
            command.env("MKE2FS_CONFIG", archive.file("/etc/mke2fs.conf"));
        }
        run::to_its_end(program, command, input, &self.ctx.cancel)
    }
}

/// In the order in which they need one another.
fn load(archive: &Archive, modules: &[&str]) -> Result<(), Fault> {
    let failed = |what: String, e: std::io::Error| Fault::new(FaultCode::ToolMissing, what).because(e.to_string());
    if modules.is_empty() {
        return Ok(());
    }
    let running = module::kernel_release().map_err(|e| failed("asking for the kernel's release".into(), e))?;
    for name in modules {
        for file in archive.modules(name, &running)? {
            module::load(&file).map_err(|e| failed(format!("loading the kernel module {}", file.display()), e))?;
        }
    }
    Ok(())
}

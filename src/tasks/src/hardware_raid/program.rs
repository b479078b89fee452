//! A vendor's tool as a program of the live system.

use std::io::{self, Read, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use speediso_hwraid::quirks::ToolFiles;
use speediso_hwraid::{Printed, Tool, ToolError};

/// Nothing that is known prints more than some hundred kilobytes.
const MOST_OUTPUT: u64 = 16 << 20;
/// A controller with many drives takes half a minute to list them; making or deleting a volume, no longer.
const LIMIT: Duration = Duration::from_secs(300);

pub(super) struct Program {
    path: PathBuf,
    name: String,
}

impl Program {
    /// The first of the family's programs that is in the tree below `root`.
    pub(super) fn find(files: &ToolFiles, root: &Path) -> Option<Self> {
        files.paths.iter().find_map(|known| {
            let path = root.join(known.trim_start_matches('/'));
            let name = path.file_name()?.to_str()?.to_owned();
            path.is_file().then_some(Self { path, name })
        })
    }

    fn start(&self, args: &[String], dir: &Path) -> io::Result<Child> {
        let mut command = Command::new(&self.path);
        // Its libraries come with it; its words are to be those that were recorded.
        command.args(args).current_dir(dir).env_clear().env("LC_ALL", "C").env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        if let Some(own) = self.path.parent() {
            command.env("LD_LIBRARY_PATH", own);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()
    }
}

impl Tool for Program {
    fn name(&self) -> &str {
        &self.name
    }

    fn run(&self, command: &speediso_hwraid::Command) -> Result<Printed, ToolError> {
        let start = |source| ToolError::Start { program: self.name.clone(), source };
        let dir = WorkingDir::new().map_err(start)?;
        let mut child = self.start(&command.args, &dir.0).map_err(start)?;
        let lost = |source| ToolError::Lost { program: self.name.clone(), command: command.to_string(), source };
        let (stdout, stderr) = (collect(child.stdout.take()), collect(child.stderr.take()));
        if let Some(mut stdin) = child.stdin.take() {
            // One that does not ask may have ended before it is answered.
            let _ = stdin.write_all(command.stdin.unwrap_or_default().as_bytes());
        }
        let deadline = Instant::now() + LIMIT;
        let status = loop {
            match child.try_wait().map_err(lost)? {
                Some(status) => break status,
                None if Instant::now() >= deadline => {
                    let _ = child.kill();
                    // Not waited for without an end: one that hangs in the kernel does not die.
                    return Err(ToolError::TimedOut {
                        program: self.name.clone(),
                        command: command.to_string(),
                        seconds: LIMIT.as_secs(),
                    });
                }
                None => thread::sleep(Duration::from_millis(20)),
            }
        };
        let text = |reader: thread::JoinHandle<io::Result<Vec<u8>>>| {
            // A child of its own may have kept the pipe.
            while !reader.is_finished() {
                if Instant::now() >= deadline {
                    return Err(lost(io::Error::other("the output has no end")));
                }
                thread::sleep(Duration::from_millis(5));
            }
            let bytes = reader.join().map_err(|_| lost(io::Error::other("reading panicked")))?.map_err(lost)?;
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        };
        Ok(Printed { status: status.code(), stdout: text(stdout)?, stderr: text(stderr)? })
    }
}

fn collect(from: Option<impl Read + Send + 'static>) -> thread::JoinHandle<io::Result<Vec<u8>>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(from) = from {
            from.take(MOST_OUTPUT).read_to_end(&mut bytes)?;
        }
        Ok(bytes)
    })
}

/// Where the tool may leave its logs; gone afterwards.
struct WorkingDir(PathBuf);

impl WorkingDir {
    fn new() -> io::Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let n = COUNT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("speediso-tool-{}-{n}", std::process::id()));
        std::fs::create_dir(&dir)?;
        Ok(Self(dir))
    }
}

impl Drop for WorkingDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

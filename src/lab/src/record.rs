//! What a run of the laboratory has made, written down as it is made, so that a run that was killed can be cleaned up
//! by the next one: a directory per run with the owner, its processes and (by its name) its namespace.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, SystemTime};

use crate::error::{Doing, Result};
use crate::log::Log;
use crate::process::{Identity, Process};
use crate::{signals, tool};

const OWNER: &str = "owner";
const PROCESSES: &str = "processes";
/// Present in a run that is to outlive its owner.
const KEPT: &str = "kept";
const PREFIX: &str = "speediso-";
/// Logs of failed runs are for reading soon.
const LOGS_LAST: Duration = Duration::from_secs(3 * 24 * 3600);

/// Where all runs have their directories. Disks of several GiB lie here, so it is not `/tmp`, which may be memory.
pub(crate) fn base() -> PathBuf {
    std::env::var_os("SPEEDISO_LAB_DIR").map_or_else(|| PathBuf::from("/var/tmp/speediso-lab"), PathBuf::from)
}

#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) name: String,
    pub(crate) dir: PathBuf,
    pub(crate) logs: PathBuf,
    /// Set once an error has pointed a person at a log: then the logs stay.
    pub(crate) logs_wanted: Arc<AtomicBool>,
}

impl Record {
    /// Begins a run of this process. `nth` tells the laboratories of one process apart.
    pub(crate) fn begin(base: &Path, nth: usize) -> Result<Self> {
        let pid = i32::try_from(std::process::id()).expect("process ids of Linux fit an i32");
        let name = format!("{PREFIX}{pid}-{nth}");
        let dir = base.join(&name);
        // Logs outlive the directory when something went wrong, hence beside it and not in it.
        let logs = base.join("logs").join(&name);
        for dir in [&dir, &logs] {
            // The directory of an earlier process with our number, already cleaned or never ours.
            let _ = fs::remove_dir_all(dir);
            fs::create_dir_all(dir).doing(|| format!("making {}", dir.display()))?;
        }
        let record = Self { name, dir, logs, logs_wanted: Arc::default() };
        record.write(OWNER, Identity::of(pid), "")?;
        Ok(record)
    }

    /// Starts a process with its output in `<name>.log`, and writes it down.
    pub(crate) fn spawn(&self, name: &str, command: Command) -> Result<Process> {
        let _making = signals::making();
        let process = Process::start(name, command, self.log(name))?;
        self.write(PROCESSES, Identity::of(process.pid()), name)?;
        Ok(process)
    }

    /// The log of a process of this name.
    pub(crate) fn log(&self, name: &str) -> Log {
        Log::watched(&self.logs.join(format!("{name}.log")), &self.logs_wanted)
    }

    /// Lets everything outlive this process; `sweep` passes it by and `end` ends it.
    pub(crate) fn keep(&self) -> Result<()> {
        let path = self.dir.join(KEPT);
        fs::write(&path, "").doing(|| format!("writing {}", path.display()))
    }

    fn write(&self, file: &str, identity: Option<Identity>, name: &str) -> Result<()> {
        // A process that has ended before we looked needs no record.
        let Some(Identity { pid, started }) = identity else { return Ok(()) };
        let path = self.dir.join(file);
        File::options()
            .create(true)
            .append(true)
            .open(&path)
            .and_then(|mut file| writeln!(file, "{pid} {started} {name}"))
            .doing(|| format!("writing {}", path.display()))
    }
}

/// One run found on disk.
#[derive(Debug)]
pub struct Run {
    pub name: String,
    dir: PathBuf,
    pub kept: bool,
    /// Its owner still lives.
    pub owned: bool,
}

/// All runs whose directories exist, living or not.
pub fn runs() -> Vec<Run> {
    runs_in(&base())
}

fn runs_in(base: &Path) -> Vec<Run> {
    let Ok(entries) = fs::read_dir(base) else { return Vec::new() };
    let mut runs: Vec<Run> = entries
        .filter_map(|entry| {
            let dir = entry.ok()?.path();
            let name = dir.file_name()?.to_str()?.to_owned();
            let owned = identities(&dir.join(OWNER)).first()?.alive();
            (name.starts_with(PREFIX)).then(|| Run { name, kept: dir.join(KEPT).exists(), owned, dir })
        })
        .collect();
    runs.sort_by(|a, b| a.name.cmp(&b.name));
    runs
}

impl Run {
    /// Whether the process with this id began it.
    pub(crate) fn is_of(&self, pid: u32) -> bool {
        self.name
            .strip_prefix(PREFIX)
            .and_then(|rest| rest.split_once('-'))
            .is_some_and(|(owner, _)| owner == pid.to_string())
    }

    /// Ends what the run left behind, by the ids it wrote down, and removes its namespace and directory.
    pub fn end(&self) {
        for process in identities(&self.dir.join(PROCESSES)).iter().rev() {
            process.end(Duration::from_secs(3));
        }
        remove_namespace(&self.name);
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// Ends every run whose owner is gone and that was not meant to stay; gives their names.
pub fn sweep() -> Vec<String> {
    let base = base();
    remove_old_logs(&base.join("logs"));
    let dead: Vec<Run> = runs_in(&base).into_iter().filter(|run| !run.owned && !run.kept).collect();
    for run in &dead {
        run.end();
    }
    dead.into_iter().map(|run| run.name).collect()
}

pub(crate) fn remove_namespace(name: &str) {
    if Path::new("/run/netns").join(name).exists() {
        // Taps and bridge go with it. If it cannot be removed now the next sweep tries again.
        let _ = tool::run(Command::new("ip").args(["netns", "delete", name]));
    }
}

fn identities(path: &Path) -> Vec<Identity> {
    fs::read_to_string(path)
        .unwrap_or_default()
        .lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            Some(Identity { pid: words.next()?.parse().ok()?, started: words.next()?.parse().ok()? })
        })
        .collect()
}

fn remove_old_logs(logs: &Path) {
    let Ok(entries) = fs::read_dir(logs) else { return };
    for entry in entries.flatten() {
        let age =
            entry.metadata().and_then(|m| m.modified()).ok().and_then(|m| SystemTime::now().duration_since(m).ok());
        if age.is_some_and(|age| age > LOGS_LAST) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::process::Stdio;

    #[test]
    fn a_dead_run_is_ended_by_its_record_and_nothing_else_is() {
        let base = tempfile::tempdir().unwrap();
        let mut left = Command::new("sleep").arg("600").stdin(Stdio::null()).spawn().unwrap();
        let mut other = Command::new("sleep").arg("600").stdin(Stdio::null()).spawn().unwrap();
        let record = Record::begin(base.path(), 7).unwrap();
        record.write(PROCESSES, Identity::of(i32::try_from(left.id()).unwrap()), "left").unwrap();
        // The same number with another start time is another process.
        let other_id = Identity::of(i32::try_from(other.id()).unwrap()).unwrap();
        record.write(PROCESSES, Some(Identity { started: other_id.started + 1, ..other_id }), "other").unwrap();

        let runs = runs_in(base.path());
        assert_eq!(runs.len(), 1);
        assert!(runs[0].owned, "this process lives");
        let reaper = std::thread::spawn(move || left.wait().unwrap());
        runs[0].end();
        assert!(!reaper.join().unwrap().success(), "the recorded process was ended");
        assert!(other_id.alive(), "a process that merely shares the number was left alone");
        assert!(!record.dir.exists());
        other.kill().unwrap();
        other.wait().unwrap();
    }
}

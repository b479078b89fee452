//! The server of the live flavour, OpenSSH: a unit of systemd, opened and closed by a mark that the unit heeds. It is up
//! before the agent, and the mark comes along from the ramdisk, so that nobody gets in on the way who would not before.

use std::fs;
use std::io;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::state;

const UNIT: &str = "ssh.service";
/// While it exists the unit does not start: `systemd/ssh-service.conf` names it.
const CLOSED: &str = "ssh.closed";

pub(super) fn start() -> io::Result<()> {
    mark(true)?;
    systemctl("start")
}

/// Sessions that are there go on: the unit ends its main process only.
pub(super) fn stop() -> io::Result<()> {
    mark(false)?;
    systemctl("stop")
}

/// Notes for the unit whether it may start.
pub(super) fn mark(open: bool) -> io::Result<()> {
    mark_in(Path::new(state::DEFAULT), open)
}

fn mark_in(state: &Path, open: bool) -> io::Result<()> {
    let file = state.join(CLOSED);
    if !open {
        return fs::write(file, "");
    }
    match fs::remove_file(file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn systemctl(verb: &str) -> io::Result<()> {
    let output = Command::new("systemctl").args([verb, UNIT]).stdin(Stdio::null()).output()?;
    if output.status.success() {
        return Ok(());
    }
    let complaint = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(io::Error::other(format!("systemctl {verb} {UNIT}: {}: {complaint}", output.status)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unit_heeds_the_mark() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        mark_in(dir.path(), true).expect("nothing to remove is no failure");
        mark_in(dir.path(), false).expect("marked");
        assert!(dir.path().join(CLOSED).exists());
        mark_in(dir.path(), true).expect("removed");
        assert!(!dir.path().join(CLOSED).exists());
        let unit = include_str!("../../../../systemd/ssh-service.conf");
        let condition = format!("ConditionPathExists=!{}/{CLOSED}", state::DEFAULT);
        assert!(unit.lines().any(|line| line == condition), "{unit}");
    }
}

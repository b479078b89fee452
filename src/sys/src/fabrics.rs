//! NVMe over fabrics: through which controllers a disk comes, and letting go of them.

use std::fmt;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::roots::{Roots, read_line};

/// The end here of a connection to a subsystem.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Controller {
    pub name: String,
    /// `tcp`, `rdma`, `fc`, `loop`.
    pub transport: String,
    /// Of the subsystem.
    pub nqn: String,
}

impl fmt::Display for Controller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NVMe controller {} ({}, {})", self.name, self.transport, self.nqn)
    }
}

#[derive(Debug, thiserror::Error)]
pub enum DisconnectError {
    #[error("{0} is not what it was when the plan was made")]
    Changed(String),
    #[error("disconnecting {0}")]
    Declined(String, #[source] io::Error),
    #[error("the kernel took the order, but {0} is still there")]
    StillThere(String),
}

/// Those of a disk, as sysfs calls it, that are not in the machine itself.
#[must_use]
pub fn controllers(roots: &Roots, disk: &str) -> Vec<Controller> {
    if !disk.starts_with("nvme") {
        return Vec::new();
    }
    // A controller, or with several paths the subsystem, in which they are.
    let device = roots.sys.join("block").join(disk).join("device");
    let Ok(device) = std::fs::canonicalize(device) else { return Vec::new() };
    let own = device.file_name().and_then(|name| name.to_str()).map(str::to_owned);
    let inside = std::fs::read_dir(&device).into_iter().flatten().flatten();
    let mut found: Vec<Controller> = own
        .into_iter()
        .chain(inside.filter_map(|entry| entry.file_name().into_string().ok()))
        .filter_map(|name| read(roots, &name))
        .collect();
    found.sort_by(|one, other| one.name.cmp(&other.name));
    found
}

fn read(roots: &Roots, name: &str) -> Option<Controller> {
    let dir = roots.sys.join("class/nvme").join(name);
    let transport = read_line(&dir.join("transport")).filter(|transport| transport != "pcie")?;
    Some(Controller { name: name.to_owned(), transport, nqn: read_line(&dir.join("subsysnqn")).unwrap_or_default() })
}

/// Lets go of it, and waits until it has gone. One that has gone already is no error.
///
/// # Errors
/// When another has its name by now, the kernel declines, or it stays.
pub fn disconnect(roots: &Roots, controller: &Controller) -> Result<(), DisconnectError> {
    const PATIENCE: Duration = Duration::from_secs(20);
    const POLL: Duration = Duration::from_millis(50);
    let dir = roots.sys.join("class/nvme").join(&controller.name);
    if !dir.exists() {
        return Ok(());
    }
    if read(roots, &controller.name).as_ref() != Some(controller) {
        return Err(DisconnectError::Changed(controller.to_string()));
    }
    write(&dir.join("delete_controller")).map_err(|e| DisconnectError::Declined(controller.to_string(), e))?;
    let begun = Instant::now();
    while dir.exists() {
        if begun.elapsed() > PATIENCE {
            return Err(DisconnectError::StillThere(controller.to_string()));
        }
        std::thread::sleep(POLL);
    }
    Ok(())
}

/// Without making it: what is not there is no controller of a fabric.
fn write(path: &Path) -> io::Result<()> {
    use std::io::Write as _;
    std::fs::OpenOptions::new().write(true).open(path)?.write_all(b"1")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::expect_used, reason = "tests")]
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn only_what_came_over_a_network_is_let_go_of() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let roots = Roots::under(dir.path());
        let write = |path: &str, text: &str| {
            let path = dir.path().join("sys").join(path);
            fs::create_dir_all(path.parent().expect("inside")).expect("made");
            fs::write(path, text).expect("written");
        };
        for (name, transport) in [("nvme0", "pcie"), ("nvme1", "tcp"), ("nvme2", "tcp")] {
            write(&format!("class/nvme/{name}/transport"), transport);
            write(&format!("class/nvme/{name}/subsysnqn"), "nqn.2026-01.example:disks");
        }
        write("devices/nvme-subsys1/nvme1/x", "");
        write("devices/nvme-subsys1/nvme2/x", "");
        write("devices/nvme0/x", "");
        for (disk, device) in [("nvme0n1", "nvme0"), ("nvme1n1", "nvme-subsys1")] {
            fs::create_dir_all(dir.path().join("sys/block").join(disk)).expect("made");
            let target = dir.path().join("sys/devices").join(device);
            symlink(target, dir.path().join("sys/block").join(disk).join("device")).expect("linked");
        }
        assert!(controllers(&roots, "nvme0n1").is_empty());
        assert!(controllers(&roots, "sda").is_empty());
        let found = controllers(&roots, "nvme1n1");
        assert_eq!(found.iter().map(|c| c.name.as_str()).collect::<Vec<_>>(), ["nvme1", "nvme2"]);
        assert_eq!(found[0].to_string(), "NVMe controller nvme1 (tcp, nqn.2026-01.example:disks)");
        // Another one has come under the name.
        write("class/nvme/nvme1/subsysnqn", "nqn.2026-01.example:others");
        assert!(matches!(disconnect(&roots, &found[0]), Err(DisconnectError::Changed(_))));
        fs::remove_dir_all(dir.path().join("sys/class/nvme/nvme2")).expect("removed");
        disconnect(&roots, &found[1]).expect("it has gone");
    }
}

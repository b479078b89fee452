//! What a process makes the machine keep in memory: a memory control group counts it (cgroups(7)).
//!
//! The pages of a program's own file are not in it when they were in memory before. In a ramdisk they always are, and with
//! them in the count the one with the larger file would seem to need more.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

pub(super) struct MemoryGroup {
    dir: PathBuf,
    peak: &'static str,
}

impl MemoryGroup {
    /// `None` where this user cannot make one.
    pub(super) fn make() -> Option<Self> {
        let name = format!("speediso-bench-{}", std::process::id());
        [("/sys/fs/cgroup/memory", "memory.max_usage_in_bytes"), ("/sys/fs/cgroup", "memory.peak")]
            .into_iter()
            .map(|(root, peak)| Self { dir: Path::new(root).join(&name), peak })
            .find(|group| fs::create_dir(&group.dir).is_ok() && group.dir.join(group.peak).exists())
    }

    /// In front of a shell's `exec`: what the shell had before is not counted.
    pub(super) fn enter(&self) -> String {
        format!("echo $$ >{}; ", self.dir.join("cgroup.procs").display())
    }

    /// MiB at most since it was made.
    pub(super) fn peak_mib(&self) -> Result<f64> {
        let path = self.dir.join(self.peak);
        let bytes = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        Ok(bytes.trim().parse::<f64>()? / f64::from(1 << 20))
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        // Its processes were waited for; the kernel may still be counting them out.
        for _ in 0..50 {
            if fs::remove_dir(&self.dir).is_ok() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }
}

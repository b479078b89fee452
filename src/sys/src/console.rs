//! The consoles the kernel writes to.

use std::path::PathBuf;

use crate::roots::{Roots, read_line};

/// Every console the kernel has (`console=` may be given several times), as device paths.
///
/// `/dev/console` is only the last of them, so a machine with `console=tty0 console=ttyS0` would show nothing on its
/// screen; it is the fall-back where sysfs does not say.
#[must_use]
pub fn active(roots: &Roots) -> Vec<PathBuf> {
    let names = read_line(&roots.sys.join("class/tty/console/active")).unwrap_or_default();
    let mut consoles: Vec<PathBuf> = names
        .split_ascii_whitespace()
        // The list is the kernel's, but the path must stay below /dev whatever it says.
        .filter(|name| name.bytes().all(|b| b.is_ascii_alphanumeric()))
        .map(|name| roots.dev.join(name))
        .collect();
    consoles.dedup();
    if consoles.is_empty() {
        consoles.push(roots.dev.join("console"));
    }
    consoles
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_consoles_are_named_and_none_lies_elsewhere() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let roots = Roots::under(dir.path());
        assert_eq!(active(&roots), [dir.path().join("dev/console")]);
        let sys = dir.path().join("sys/class/tty/console");
        std::fs::create_dir_all(&sys).expect("made");
        std::fs::write(sys.join("active"), "tty0 ttyS0 ../sda\n").expect("written");
        assert_eq!(active(&roots), [dir.path().join("dev/tty0"), dir.path().join("dev/ttyS0")]);
    }
}

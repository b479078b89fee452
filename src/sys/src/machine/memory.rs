//! How much memory the kernel has.

use speediso_model::units::{Bytes, KIB};

use crate::roots::Roots;
use crate::sysfs;

/// `MemTotal` of `/proc/meminfo`.
#[must_use]
pub fn total(roots: &Roots, unread: &mut Vec<String>) -> Bytes {
    match sysfs::lines(&roots.proc.join("meminfo")).map(|text| kib_after(&text, "MemTotal:")) {
        Ok(Some(kib)) => Bytes(kib.saturating_mul(KIB)),
        Ok(None) => {
            unread.push("memory could not be read: /proc/meminfo has no MemTotal".into());
            Bytes(0)
        }
        Err(error) => {
            sysfs::gap(unread, "memory", &error);
            Bytes(0)
        }
    }
}

/// The figure behind a name, in a file of the form of `/proc/meminfo`.
pub(super) fn kib_after(text: &str, name: &str) -> Option<u64> {
    let (_, after) = text.split_once(name)?;
    after.split_whitespace().next()?.parse().ok()
}

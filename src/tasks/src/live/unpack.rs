//! From an archive to the files of a root in memory.

use std::io::Read;
use std::path::Path;

use speediso_model::fault::{Fault, FaultCode};

/// Every chunk of the archive was verified; what is wrong with it now, whoever packed it made so.
pub(super) fn unpack(mut archive: impl Read, into: &Path) -> Result<(), Fault> {
    let mut files = tar::Archive::new(&mut archive);
    files.set_preserve_permissions(true);
    files.set_preserve_ownerships(true);
    files.set_preserve_mtime(true);
    files.unpack(into).map_err(|error| {
        let mut fault = Fault::new(FaultCode::LiveUnusable, format!("unpacking the live system to {}", into.display()));
        fault.causes.push(error.to_string());
        fault.causes.extend(std::error::Error::source(&error).map(ToString::to_string));
        fault
    })?;
    // The padding behind the end: without a reader for it the other side would fail.
    std::io::copy(&mut archive, &mut std::io::sink())
        .map(drop)
        .map_err(|error| Fault::from_error(FaultCode::LiveUnusable, &error))
}

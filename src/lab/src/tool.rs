//! Programs of the host that the laboratory needs: where they are, which Debian package has them, and running them so
//! that a failure tells the whole story.

use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use crate::error::{Doing, LabError, Result};

/// Programs and files with the Debian package each comes from.
const PACKAGES: &[(&str, &str)] = &[
    ("ip", "iproute2"),
    ("dnsmasq", "dnsmasq-base"),
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("qemu-system-aarch64", "qemu-system-arm"),
    ("/usr/share/AAVMF/AAVMF_CODE.fd", "qemu-efi-aarch64"),
    ("/usr/share/AAVMF/AAVMF_VARS.fd", "qemu-efi-aarch64"),
    ("ssh", "openssh-client"),
    ("ssh-keygen", "openssh-client"),
    ("mkfs.ext4", "e2fsprogs"),
    ("losetup", "mount"),
    ("nginx", "nginx-light"),
    ("/usr/lib/ipxe/undionly.kpxe", "ipxe"),
    ("/usr/lib/ipxe/snponly.efi", "ipxe"),
    ("/usr/lib/PXELINUX/lpxelinux.0", "pxelinux"),
    ("/usr/lib/PXELINUX/pxelinux.0", "pxelinux"),
    ("/usr/lib/syslinux/modules/bios/ldlinux.c32", "syslinux-common"),
    ("grub-mkimage", "grub-common"),
    ("/usr/share/OVMF/OVMF_CODE_4M.fd", "ovmf"),
    ("/usr/share/OVMF/OVMF_VARS_4M.fd", "ovmf"),
    ("/usr/share/OVMF/OVMF_CODE_4M.secboot.fd", "ovmf"),
    ("/usr/share/OVMF/OVMF_VARS_4M.snakeoil.fd", "ovmf"),
    ("/usr/share/ovmf/PkKek-1-snakeoil.key", "ovmf"),
    ("/usr/share/ovmf/PkKek-1-snakeoil.pem", "ovmf"),
    ("mformat", "mtools"),
    ("openssl", "openssl"),
];

fn package_of(what: &str) -> &'static str {
    PACKAGES.iter().find(|(name, _)| *name == what).map_or("(unknown package)", |(_, package)| package)
}

/// Looks for a program the way a shell does, and in the sbin directories that a plain user's PATH lacks.
pub fn find(program: &str) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|dir| dir.join(program))
        .find(|candidate| candidate.is_file())
        .ok_or_else(|| LabError::Missing { what: format!("program `{program}`"), package: package_of(program) })
}

/// A file that a package ships.
pub fn file(path: &'static str) -> Result<&'static Path> {
    let found = Path::new(path);
    if found.is_file() {
        Ok(found)
    } else {
        Err(LabError::Missing { what: format!("file {path}"), package: package_of(path) })
    }
}

/// Runs to the end and gives what was printed on standard output; an error carries both outputs whole.
pub fn run(command: &mut Command) -> Result<String> {
    let line = line_of(command);
    let output = command.output().doing(|| format!("starting `{line}`"))?;
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(stdout);
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    Err(LabError::Tool { command: line, status: output.status, output: format!("{stdout}{stderr}") })
}

/// The command as one would type it, for messages.
pub(crate) fn line_of(command: &Command) -> String {
    let mut line = command.get_program().to_string_lossy().into_owned();
    for arg in command.get_args() {
        line.push(' ');
        line.push_str(&arg.to_string_lossy());
    }
    line
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_failure_carries_both_outputs_and_the_status() {
        let error = run(Command::new("sh").args(["-c", "echo out; echo err >&2; exit 3"])).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("out\n") && text.contains("err\n") && text.contains("exit status: 3"), "{text}");
    }

    #[test]
    fn a_missing_program_names_its_package() {
        let error = LabError::Missing { what: "x".into(), package: package_of("dnsmasq") };
        assert!(error.to_string().contains("apt-get install dnsmasq-base"));
        assert!(find("no-such-program-speediso").is_err());
    }
}

//! The machines a ramdisk can be built for, and what they are called by whom.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub enum Arch {
    #[default]
    X86_64,
    Aarch64,
}

#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0:?} is no machine that ramdisks are built for: x86_64 or aarch64")]
pub struct UnknownArch(String);

impl Arch {
    /// Of the programs that run here, and so of what apt fetches without being told.
    pub const HOST: Self = if cfg!(target_arch = "aarch64") { Self::Aarch64 } else { Self::X86_64 };

    /// As Debian calls it.
    #[must_use]
    pub fn debian(self) -> &'static str {
        match self {
            Self::X86_64 => "amd64",
            Self::Aarch64 => "arm64",
        }
    }

    /// Where Debian keeps its shared libraries; the loader looks there without being told.
    #[must_use]
    pub fn libraries(self) -> &'static str {
        match self {
            Self::X86_64 => "lib/x86_64-linux-gnu",
            Self::Aarch64 => "lib/aarch64-linux-gnu",
        }
    }

    /// systemd's EFI stub in its package.
    #[must_use]
    pub fn efi_stub(self) -> &'static str {
        match self {
            Self::X86_64 => "/usr/lib/systemd/boot/efi/linuxx64.efi.stub",
            Self::Aarch64 => "/usr/lib/systemd/boot/efi/linuxaa64.efi.stub",
        }
    }

    #[must_use]
    pub fn rust_target(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64-unknown-linux-musl",
            Self::Aarch64 => "aarch64-unknown-linux-musl",
        }
    }

    /// The `strip` that knows this machine's programs, and its Debian package.
    #[must_use]
    pub fn strip(self) -> (&'static str, &'static str) {
        match self {
            _ if self == Self::HOST => ("strip", "binutils"),
            Self::X86_64 => ("x86_64-linux-gnu-strip", "binutils-x86-64-linux-gnu"),
            Self::Aarch64 => ("aarch64-linux-gnu-strip", "binutils-aarch64-linux-gnu"),
        }
    }

    /// `e_machine` in an ELF file (elf.h).
    #[must_use]
    pub fn of_elf(file: &[u8]) -> Option<Self> {
        match file.get(18..20) {
            Some([0x3e, 0]) => Some(Self::X86_64),
            Some([0xb7, 0]) => Some(Self::Aarch64),
            _ => None,
        }
    }

    /// `linux-image-amd64` and the like: the name of the package for this machine.
    #[must_use]
    pub fn package(self, name: &str) -> String {
        match self {
            Self::X86_64 => name.to_owned(),
            Self::Aarch64 => name.replace("amd64", "arm64"),
        }
    }

    /// A path in the ramdisk that has the machine's name in it.
    #[must_use]
    pub fn path(self, path: &str) -> String {
        match self {
            Self::X86_64 => path.to_owned(),
            Self::Aarch64 => path.replace("x86_64-linux-gnu", "aarch64-linux-gnu"),
        }
    }
}

impl fmt::Display for Arch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::X86_64 => "x86_64",
            Self::Aarch64 => "aarch64",
        })
    }
}

impl FromStr for Arch {
    type Err = UnknownArch;

    fn from_str(name: &str) -> Result<Self, UnknownArch> {
        match name {
            "x86_64" | "amd64" => Ok(Self::X86_64),
            "aarch64" | "arm64" => Ok(Self::Aarch64),
            other => Err(UnknownArch(other.to_owned())),
        }
    }
}

/// The machine that the program in `file` is for.
pub fn of_program(file: &Path) -> std::io::Result<Option<Arch>> {
    use std::io::Read as _;
    let mut head = [0; 20];
    std::fs::File::open(file)?.read_exact(&mut head)?;
    Ok(Arch::of_elf(&head))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn names_go_both_ways() {
        for arch in [Arch::X86_64, Arch::Aarch64] {
            assert_eq!(arch.to_string().parse(), Ok(arch));
            assert_eq!(arch.debian().parse(), Ok(arch));
        }
        let error = "mips".parse::<Arch>().unwrap_err().to_string();
        assert_eq!(error, "\"mips\" is no machine that ramdisks are built for: x86_64 or aarch64");
        assert_eq!(Arch::Aarch64.package("linux-image-cloud-amd64"), "linux-image-cloud-arm64");
    }

    #[test]
    fn a_program_says_what_it_is_for() {
        assert_eq!(of_program(&std::env::current_exe().unwrap()).unwrap(), Some(Arch::HOST));
    }
}

//! One EFI program that is boot loader, kernel, ramdisk and command line at once: systemd's stub with sections added
//! (<https://uapi-group.org/specifications/specs/unified_kernel_image/>; the layout of the file: PE Format, Microsoft).

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::packages::{self, Package};
use crate::supply::Supply;
use crate::tool;

pub const FILE_NAME: &str = "speediso.efi";
const STUB_PACKAGE: &str = "systemd-boot-efi";

/// Offsets in a PE32+ file.
mod pe {
    pub(super) const HEADER_AT: usize = 0x3c;
    pub(super) const COFF: usize = 4;
    pub(super) const OPTIONAL: usize = COFF + 20;
    pub(super) const SECTION_HEADER: usize = 40;
    pub(super) const MAGIC_64: u16 = 0x20b;
    /// `IMAGE_SCN_CNT_INITIALIZED_DATA | IMAGE_SCN_MEM_READ`
    pub(super) const DATA: u32 = 0x4000_0040;
}

/// What the stub finds in itself.
#[derive(Clone, Copy, Debug)]
pub struct Parts<'a> {
    /// In the form of os-release(5); the firmware's and boot loaders' menus show its name.
    pub os_release: &'a str,
    /// Given to the kernel; with Secure Boot nobody can put another in its place. Without one, whoever starts the program says.
    pub cmdline: Option<&'a str>,
    pub kernel_release: &'a str,
    pub kernel: &'a [u8],
    pub ramdisk: &'a [u8],
}

/// The stub as the distribution built it, and the package it came from.
pub fn stub(supply: &Supply) -> Result<(Vec<u8>, Package)> {
    let package = supply.resolve(&[STUB_PACKAGE])?.pop().context("apt gave no package of the EFI stub")?;
    let file = packages::find_in(&package.unpacked(supply.cache())?, supply.arch().efi_stub())?;
    let bytes = fs::read(&file).with_context(|| format!("reading {}", file.display()))?;
    Ok((bytes, package))
}

/// The same inputs give the same bytes.
pub fn compose(stub: &[u8], parts: &Parts<'_>) -> Result<Vec<u8>> {
    let mut sections = vec![(".osrel", parts.os_release.as_bytes()), (".uname", parts.kernel_release.as_bytes())];
    // The kernel gets it as text that ends with the section.
    sections.extend(parts.cmdline.map(|line| (".cmdline", line.as_bytes())));
    sections.push((".linux", parts.kernel));
    sections.push((".initrd", parts.ramdisk));
    append(stub, &sections).context("putting the EFI program together")
}

/// Signs for Secure Boot, in place. The time of signing is in the signature: these bytes are not the same twice.
pub fn sign(file: &Path, key: &Path, certificate: &Path) -> Result<()> {
    let signed = file.with_extension("signed");
    let mut sbsign = Command::new("sbsign");
    sbsign.arg("--key").arg(key).arg("--cert").arg(certificate).arg("--output").arg(&signed).arg(file);
    tool::run(&mut sbsign, "sbsigntool")?;
    let mut verify = Command::new("sbverify");
    tool::run(verify.arg("--cert").arg(certificate).arg(&signed), "sbsigntool")
        .context("looking at the signature again")?;
    fs::rename(&signed, file).with_context(|| format!("putting the signed program at {}", file.display()))
}

/// Appends sections behind the last one, in the file and in memory.
fn append(image: &[u8], sections: &[(&str, &[u8])]) -> Result<Vec<u8>> {
    let header = usize::try_from(u32_at(image, pe::HEADER_AT)?)?;
    ensure!(image.get(header..header + 4) == Some(b"PE\0\0"), "the stub is no PE file");
    let coff = header + pe::COFF;
    let optional = header + pe::OPTIONAL;
    ensure!(u16_at(image, optional)? == pe::MAGIC_64, "the stub is no 64-bit PE file");
    let count = usize::from(u16_at(image, coff + 2)?);
    let table = optional + usize::from(u16_at(image, coff + 16)?);
    let (in_memory, in_file) = (u32_at(image, optional + 32)?, u32_at(image, optional + 36)?);
    ensure!(in_memory.is_power_of_two() && in_file.is_power_of_two(), "the stub's alignments are no powers of two");

    let mut address = 0;
    let mut first_byte = usize::try_from(u32_at(image, optional + 60)?)?;
    for n in 0..count {
        let at = table + n * pe::SECTION_HEADER;
        let name = image.get(at..at + 8).context("the stub ends within its section table")?;
        if sections.iter().any(|(new, _)| padded(new) == name) {
            bail!("the stub has a section {} already", String::from_utf8_lossy(name));
        }
        address = address.max(end(u32_at(image, at + 12)?, u32_at(image, at + 8)?)?);
        let bytes_at = usize::try_from(u32_at(image, at + 20)?)?;
        if bytes_at > 0 {
            let bytes_end = end(u32_at(image, at + 20)?, u32_at(image, at + 16)?)?;
            ensure!(bytes_end as usize <= image.len(), "the stub is cut off");
            first_byte = first_byte.min(bytes_at);
        }
    }
    let free = table + count * pe::SECTION_HEADER;
    let needed = sections.len() * pe::SECTION_HEADER;
    ensure!(free + needed <= first_byte, "the stub has no room for {} more section headers", sections.len());

    let mut made = image.to_vec();
    for (n, (name, data)) in sections.iter().enumerate() {
        let size = u32::try_from(data.len()).context("a section of 4 GiB")?;
        made.resize(made.len().next_multiple_of(in_file as usize), 0);
        address = aligned(address, in_memory)?;
        let at = free + n * pe::SECTION_HEADER;
        let raw_size = aligned(size, in_file)?;
        let raw_at = u32::try_from(made.len()).context("an EFI program of 4 GiB")?;
        made[at..at + pe::SECTION_HEADER].fill(0);
        made[at..at + 8].copy_from_slice(&padded(name));
        for (field, value) in [(8, size), (12, address), (16, raw_size), (20, raw_at), (36, pe::DATA)] {
            put_u32(&mut made, at + field, value);
        }
        made.extend_from_slice(data);
        address = end(address, size)?;
    }
    made.resize(made.len().next_multiple_of(in_file as usize), 0);
    let count = u16::try_from(count + sections.len()).context("too many sections")?;
    made[coff + 2..coff + 4].copy_from_slice(&count.to_le_bytes());
    put_u32(&mut made, optional + 56, aligned(address, in_memory)?);
    // No firmware looks at the checksum of an application; zero says that there is none.
    put_u32(&mut made, optional + 64, 0);
    Ok(made)
}

fn padded(name: &str) -> [u8; 8] {
    let mut field = [0; 8];
    for (to, from) in field.iter_mut().zip(name.bytes()) {
        *to = from;
    }
    field
}

fn end(at: u32, size: u32) -> Result<u32> {
    at.checked_add(size).context("an EFI program of 4 GiB")
}

fn aligned(value: u32, to: u32) -> Result<u32> {
    value.checked_next_multiple_of(to).context("an EFI program of 4 GiB")
}

fn u16_at(bytes: &[u8], at: usize) -> Result<u16> {
    let field = bytes.get(at..at + 2).and_then(|b| b.try_into().ok()).context("the stub is cut off")?;
    Ok(u16::from_le_bytes(field))
}

fn u32_at(bytes: &[u8], at: usize) -> Result<u32> {
    let field = bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).context("the stub is cut off")?;
    Ok(u32::from_le_bytes(field))
}

fn put_u32(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn parts(kernel: &[u8]) -> Parts<'_> {
        Parts {
            os_release: "ID=speediso\nNAME=Speediso\n",
            cmdline: Some("console=ttyS0"),
            kernel_release: "6.1.0",
            kernel,
            ramdisk: b"070701",
        }
    }

    /// binutils reads what was put in, section by section, and the stub's own sections are as they were.
    #[test]
    fn others_find_every_section() {
        let (stub, _) = stub(&Supply::of_user().unwrap()).unwrap();
        let kernel = vec![0x5a; 70_000];
        let image = compose(&stub, &parts(&kernel)).unwrap();
        assert_eq!(image, compose(&stub, &parts(&kernel)).unwrap(), "the same inputs give the same bytes");

        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("made.efi");
        fs::write(&file, &image).unwrap();
        let section = |file: &Path, name: &str| {
            let to = dir.path().join("section");
            let dump = format!("{name}={}", to.display());
            tool::run(
                Command::new("objcopy").args(["-O", "binary", "--dump-section", &dump]).arg(file).arg("/dev/null"),
                "binutils",
            )
            .unwrap();
            fs::read(to).unwrap()
        };
        for (name, wanted) in [
            (".osrel", parts(&kernel).os_release.as_bytes()),
            (".cmdline", b"console=ttyS0"),
            (".uname", b"6.1.0"),
            (".linux", &kernel[..]),
            (".initrd", b"070701"),
        ] {
            // In the file a section fills whole blocks.
            let got = section(&file, name);
            assert_eq!(&got[..wanted.len()], wanted, "{name}");
            assert!(got[wanted.len()..].iter().all(|b| *b == 0), "{name}");
        }
        let before = dir.path().join("stub.efi");
        fs::write(&before, &stub).unwrap();
        assert_eq!(section(&file, ".text"), section(&before, ".text"));
    }

    #[test]
    fn what_is_no_stub_is_refused() {
        let (stub, _) = stub(&Supply::of_user().unwrap()).unwrap();
        for cut in (0..0x400).step_by(7).chain([0x400, stub.len() / 2]) {
            assert!(append(&stub[..cut], &[(".linux", b"k")]).is_err(), "cut after {cut} bytes");
        }
        assert!(append(b"MZ", &[]).is_err());
        let twice = append(&stub, &[(".linux", b"k")]).unwrap();
        let error = append(&twice, &[(".linux", b"k")]).unwrap_err();
        assert!(error.to_string().contains("already"), "{error}");
        let many: Vec<(String, &[u8])> = (0..40).map(|n| (format!(".s{n}"), &b"x"[..])).collect();
        let many: Vec<(&str, &[u8])> = many.iter().map(|(name, data)| (name.as_str(), *data)).collect();
        let error = append(&stub, &many).unwrap_err();
        assert!(error.to_string().contains("no room"), "{error}");
    }
}

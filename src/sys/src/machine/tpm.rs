//! The TPM: what sysfs says of it, and what it says of itself.
//!
//! One question is put to a TPM 2.0, for its fixed properties (`TPM2_GetCapability`, TPM 2.0 part 3, 30.2). It changes
//! nothing. A TPM that does not answer soon is said to be silent; the thread that asked it waits in the kernel and ends
//! with it.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use speediso_model::inventory::Tpm;

use crate::roots::Roots;
use crate::sysfs;

/// Firmware TPMs answer in milliseconds, slow chips within a second.
const PATIENCE: Duration = Duration::from_secs(3);

/// Tag without sessions, length, command, capability (properties), first property, how many.
const GET_PROPERTIES: [u8; 22] =
    [0x80, 0x01, 0, 0, 0, 22, 0, 0, 0x01, 0x7a, 0, 0, 0, 6, 0, 0, 0x01, 0x00, 0, 0, 0, 0x20];

/// Properties of part 2, 6.13.
const REVISION: u32 = 0x102;
const MANUFACTURER: u32 = 0x105;
const VENDOR_STRING: [u32; 4] = [0x106, 0x107, 0x108, 0x109];
const FIRMWARE: [u32; 2] = [0x10b, 0x10c];

/// The first TPM, if there is one.
#[must_use]
pub fn read(roots: &Roots, unread: &mut Vec<String>) -> Option<Tpm> {
    let listed = sysfs::entries(&roots.sys.join("class/tpm")).unwrap_or_else(|error| {
        sysfs::gap(unread, "TPMs", &error);
        Vec::new()
    });
    let (name, dir) = listed.into_iter().find(|(name, _)| name.starts_with("tpm"))?;
    let mut tpm = Tpm {
        driver: sysfs::link_name(&dir.join("device/driver")),
        description: sysfs::read(&dir.join("device/description")),
        device_nodes: nodes(roots, &name),
        pcr_banks: pcr_banks(&dir),
        ..Tpm::default()
    };
    match sysfs::number::<u32>(&dir.join("tpm_version_major")) {
        Some(2) => {
            tpm.version = Some("2.0".into());
            // The node with a resource manager may be asked while others use the TPM.
            match ask(&roots.dev.join(name.replace("tpm", "tpmrm"))) {
                Ok(answer) => describe(&mut tpm, &answer),
                Err(error) => sysfs::gap(unread, "the TPM's manufacturer and firmware version", &error),
            }
        }
        Some(1) => {
            tpm.version = Some("1.2".into());
            describe_old(&mut tpm, &sysfs::lines(&dir.join("caps")).unwrap_or_default());
        }
        _ => unread.push(format!("the version of the TPM {name} could not be read")),
    }
    Some(tpm)
}

fn nodes(roots: &Roots, name: &str) -> Vec<String> {
    [name.to_owned(), name.replace("tpm", "tpmrm")]
        .into_iter()
        .filter(|node| roots.dev.join(node).exists())
        .map(|node| format!("/dev/{node}"))
        .collect()
}

/// `pcr-sha256` is the directory of a bank.
fn pcr_banks(dir: &Path) -> Vec<String> {
    let listed = sysfs::entries(dir).unwrap_or_default();
    listed.iter().filter_map(|(name, _)| name.strip_prefix("pcr-").map(str::to_owned)).collect()
}

fn ask(node: &Path) -> io::Result<Vec<u8>> {
    // Never a file that only has the name: a captured machine's may be anything.
    if !node.metadata()?.file_type().is_char_device() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a device node"));
    }
    let mut device = OpenOptions::new().read(true).write(true).open(node)?;
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        // Nobody listens any more after the patience has ended.
        let _ = tell.send(exchange(&mut device));
    });
    told.recv_timeout(PATIENCE)
        .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "it did not answer within 3 seconds"))?
}

fn exchange(device: &mut File) -> io::Result<Vec<u8>> {
    device.write_all(&GET_PROPERTIES)?;
    let mut answer = vec![0; 4096];
    let length = device.read(&mut answer)?;
    answer.truncate(length);
    Ok(answer)
}

/// Fills in what a response tells; one that is an error or no response tells nothing.
fn describe(tpm: &mut Tpm, answer: &[u8]) {
    let properties = properties(answer);
    let find = |wanted: u32| properties.iter().find(|(property, _)| *property == wanted).map(|(_, value)| *value);
    let letters = |value: u32| -> String {
        value.to_be_bytes().iter().filter(|b| b.is_ascii_graphic() || **b == b' ').map(|b| char::from(*b)).collect()
    };
    let some = |text: String| Some(text.trim().to_owned()).filter(|text| !text.is_empty());
    tpm.manufacturer = find(MANUFACTURER).and_then(|value| some(letters(value)));
    tpm.vendor_string = some(VENDOR_STRING.iter().filter_map(|part| find(*part)).map(letters).collect());
    tpm.specification = find(REVISION).map(|revision| format!("{}.{:02}", revision / 100, revision % 100));
    if let (Some(high), Some(low)) = (find(FIRMWARE[0]), find(FIRMWARE[1])) {
        tpm.firmware_version = Some(format!("{}.{}.{}.{}", high >> 16, high & 0xffff, low >> 16, low & 0xffff));
    }
}

/// Pairs of property and value behind tag, length, code, "more" and the capability's number and count.
fn properties(answer: &[u8]) -> Vec<(u32, u32)> {
    let word = |at: usize| answer.get(at..at + 4)?.try_into().ok().map(u32::from_be_bytes);
    let (Some(0), Some(6), Some(count)) = (word(6), word(11), word(15)) else { return Vec::new() };
    let count = usize::try_from(count).unwrap_or(usize::MAX).min(answer.len() / 8);
    (0..count).map_while(|n| Some((word(19 + 8 * n)?, word(23 + 8 * n)?))).collect()
}

/// The driver of a TPM 1.2 has asked already: `Manufacturer: 0x49465800`, `Firmware version: 3.19`.
fn describe_old(tpm: &mut Tpm, caps: &str) {
    for line in caps.lines() {
        match line.split_once(':').map(|(key, value)| (key, value.trim())) {
            Some(("Manufacturer", value)) => {
                let number = u32::from_str_radix(value.trim_start_matches("0x"), 16).unwrap_or(0);
                let letters: String =
                    number.to_be_bytes().iter().filter(|b| b.is_ascii_graphic()).map(|b| char::from(*b)).collect();
                tpm.manufacturer = (!letters.is_empty()).then_some(letters);
            }
            Some(("Firmware version", value)) => tpm.firmware_version = Some(value.to_owned()),
            Some(("TCG version", value)) => tpm.specification = Some(value.to_owned()),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As part 3 lays it out.
    fn answer(properties: &[(u32, u32)]) -> Vec<u8> {
        let mut body = vec![0x80, 0x01, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 6];
        body.extend(u32::try_from(properties.len()).expect("few").to_be_bytes());
        for (property, value) in properties {
            body.extend(property.to_be_bytes());
            body.extend(value.to_be_bytes());
        }
        body
    }

    #[test]
    fn a_tpm_describes_itself() {
        let ascii = |text: &[u8; 4]| u32::from_be_bytes(*text);
        let mut tpm = Tpm::default();
        let known = [
            (0x102, 138),
            (0x105, ascii(b"IFX\0")),
            (0x106, ascii(b"SLB9")),
            (0x107, ascii(b"670\0")),
            (0x10b, 0x0007_0055),
            (0x10c, 0x0011_cb00),
        ];
        describe(&mut tpm, &answer(&known));
        assert_eq!(tpm.manufacturer.as_deref(), Some("IFX"));
        assert_eq!(tpm.vendor_string.as_deref(), Some("SLB9670"));
        assert_eq!(tpm.specification.as_deref(), Some("1.38"));
        assert_eq!(tpm.firmware_version.as_deref(), Some("7.85.17.51968"));
        // An error instead of an answer, one that was cut, and one that claims more than it has.
        let mut silent = Tpm::default();
        describe(&mut silent, &[0x80, 0x01, 0, 0, 0, 10, 0, 0, 1, 0x43]);
        assert_eq!(silent, Tpm::default());
        let mut whole = answer(&known);
        whole[15..19].copy_from_slice(&u32::MAX.to_be_bytes());
        assert_eq!(properties(&whole).len(), known.len());
        assert_eq!(properties(&whole[..30]).len(), 1);
    }

    #[test]
    fn an_old_tpms_driver_knows_its_maker() {
        let mut tpm = Tpm::default();
        describe_old(&mut tpm, "Manufacturer: 0x53544d20\nTCG version: 1.2\nFirmware version: 13.12\n");
        assert_eq!(tpm.manufacturer.as_deref(), Some("STM"));
        assert_eq!(tpm.firmware_version.as_deref(), Some("13.12"));
    }

    #[test]
    fn a_file_that_is_no_device_is_not_written_to() {
        let dir = tempfile::tempdir().expect("a directory");
        let roots = Roots::under(dir.path());
        let class = dir.path().join("sys/class/tpm/tpm0/pcr-sha256");
        std::fs::create_dir_all(&class).expect("made");
        std::fs::write(class.with_file_name("tpm_version_major"), "2\n").expect("written");
        std::fs::create_dir_all(&roots.dev).expect("made");
        std::fs::write(roots.dev.join("tpmrm0"), "precious").expect("written");
        let mut unread = Vec::new();
        let tpm = read(&roots, &mut unread).expect("there is one");
        assert_eq!((tpm.version.as_deref(), tpm.pcr_banks), (Some("2.0"), vec!["sha256".to_owned()]));
        assert!(unread.len() == 1 && unread[0].contains("manufacturer"), "{unread:?}");
        assert_eq!(std::fs::read_to_string(roots.dev.join("tpmrm0")).expect("read"), "precious");
    }
}

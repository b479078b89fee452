//! Entries of a UEFI firmware that boot from a partition, made byte by byte (UEFI 2.10, 3.1.3 and 10.3.5.1).

use std::fmt::Write as _;

const VARIABLES: &str = "/sys/firmware/efi/efivars";
const GLOBAL: &str = "8be4df61-93ca-11d2-aa0d-00e098032b8c";

/// The partition of the case EFI, as a GUID lies in memory: the first three fields with their bytes turned.
const HERE: [u8; 16] = [0x11, 0x10, 0x0f, 0x0e, 0x13, 0x12, 0x15, 0x44, 0x96, 0x17, 0x18, 0x19, 0x1a, 0x1b, 0x1c, 0x1d];
const ELSEWHERE: [u8; 16] = [0xee; 16];

fn load_option(label: &str, partition: [u8; 16]) -> Vec<u8> {
    let mut path = vec![0x04, 0x01, 42, 0];
    path.extend(1u32.to_le_bytes());
    path.extend(2048u64.to_le_bytes());
    path.extend(4096u64.to_le_bytes());
    path.extend(partition);
    // GPT, signed by a GUID; then the end of the path.
    path.extend([2, 2, 0x7f, 0xff, 4, 0]);
    let mut option = 1u32.to_le_bytes().to_vec();
    option.extend(u16::try_from(path.len()).unwrap().to_le_bytes());
    option.extend(label.encode_utf16().chain([0]).flat_map(u16::to_le_bytes));
    option.extend(path);
    option
}

fn printf(bytes: &[u8]) -> String {
    // Kept by the firmware, seen by it at boot and by the system afterwards.
    let attributes = 7u32.to_le_bytes();
    attributes.iter().chain(bytes).fold(String::new(), |mut text, byte| {
        let _ = write!(text, "\\x{byte:02x}");
        text
    })
}

/// Two entries, first in the order: 0042 boots from the case EFI, 0043 from a disk that is not here.
pub(crate) fn add() -> String {
    let mut script = String::new();
    for (number, label, partition) in [("0042", "torn down", HERE), ("0043", "elsewhere", ELSEWHERE)] {
        let bytes = printf(&load_option(label, partition));
        let _ =
            writeln!(script, "printf '{bytes}' >/tmp/variable; cat /tmp/variable >{VARIABLES}/Boot{number}-{GLOBAL}");
    }
    let order = format!("{VARIABLES}/BootOrder-{GLOBAL}");
    let first = printf(&[0x42, 0, 0x43, 0]);
    let _ = writeln!(script, "{{ printf '{first}'; tail -c +5 {order}; }} >/tmp/variable; cat /tmp/variable >{order}");
    script
}

/// Says the entries that are there of the two, and those of the order.
pub(crate) fn show() -> String {
    format!(
        "cd {VARIABLES}; ls | sed -n 's/^\\(Boot004[23]\\)-.*/\\1/p'; \
         od -An -v -tx1 -j4 BootOrder-{GLOBAL} | tr -s ' ' '\\n' | paste -s -d ' ' | grep -o '4[23] 00'; true"
    )
}

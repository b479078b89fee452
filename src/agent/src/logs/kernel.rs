//! The kernel's own messages, from `/dev/kmsg` (Documentation/ABI/testing/dev-kmsg): the whole ring first, then what comes.
//!
//! They are for the controller, syslog and the support bundle. The kernel puts them on the consoles itself.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::Duration;

use speediso_model::log::LogLevel;

use super::Logs;
use crate::ready::watched;

/// A record is at most 8 KiB with its dictionary.
const RECORD: usize = 8192;
/// A device that fails over and over says it thousands of times a second: that must not push out everything else.
const BURST: u32 = 2000;
const PER_SECOND: u32 = 50;

/// Reads for ever; without the device, or the right to read it, ends at once.
pub async fn follow(logs: Logs, device: &Path) {
    if let Err(error) = read(&logs, device).await {
        tracing::warn!("the kernel's messages cannot be read any more: {error}, proceeding");
    }
}

async fn read(logs: &Logs, device: &Path) -> io::Result<()> {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(device)?;
    let file = watched(file)?;
    let mut record = vec![0; RECORD];
    let (mut allowance, mut dropped) = (BURST, 0u64);
    let mut refill = tokio::time::interval(Duration::from_secs(1));
    loop {
        tokio::select! {
            ready = file.readable() => {
                let mut ready = ready?;
                match ready.try_io(|f| read_once(f.get_ref(), &mut record)) {
                    Ok(Ok(0)) => return Ok(()),
                    Ok(Ok(n)) => {
                        if let Some(said) = parse(&String::from_utf8_lossy(&record[..n])) {
                            if allowance > 0 {
                                allowance -= 1;
                                logs.say_of_kernel(said.seq, said.uptime_ms, said.level, said.text);
                            } else {
                                dropped += 1;
                            }
                        }
                    }
                    // Overwritten before it was read: the next read goes on behind the gap.
                    Ok(Err(error)) if error.raw_os_error() == Some(libc::EPIPE) => dropped += 1,
                    Ok(Err(error)) => return Err(error),
                    Err(_not_yet) => {}
                }
            }
            _ = refill.tick() => {
                allowance = (allowance + PER_SECOND).min(BURST);
                if dropped > 0 {
                    tracing::warn!("{} messages of the kernel were too many to be kept; see dmesg", std::mem::take(&mut dropped));
                }
            }
        }
    }
}

fn read_once(mut file: &File, record: &mut [u8]) -> io::Result<usize> {
    file.read(record)
}

#[derive(Debug, PartialEq)]
struct Said<'a> {
    seq: u64,
    uptime_ms: u64,
    level: LogLevel,
    text: &'a str,
}

/// `6,339,5140900,-;text`, then lines with a dictionary, which begin with a blank.
fn parse(record: &str) -> Option<Said<'_>> {
    let (prefix, rest) = record.split_once(';')?;
    let mut fields = prefix.split(',');
    let priority: u32 = fields.next()?.parse().ok()?;
    let seq = fields.next()?.parse().ok()?;
    let microseconds: u64 = fields.next()?.parse().ok()?;
    let level = match priority & 7 {
        0..=3 => LogLevel::Error,
        4 => LogLevel::Warn,
        5 | 6 => LogLevel::Info,
        _ => LogLevel::Debug,
    };
    Some(Said { seq, uptime_ms: microseconds / 1000, level, text: rest.split('\n').next()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_read_without_their_dictionary() {
        let record = "4,160,424069,-;pci_root PNP0A03:00: host bridge\n SUBSYSTEM=acpi\n DEVICE=+acpi:PNP0A03:00\n";
        let said = parse(record).expect("a record");
        assert_eq!(
            said,
            Said { seq: 160, uptime_ms: 424, level: LogLevel::Warn, text: "pci_root PNP0A03:00: host bridge" }
        );
        assert_eq!(parse("30,2,1,c;systemd").map(|s| s.level), Some(LogLevel::Info));
        for bad in ["", ";", "a,b,c;d", "1,2;x"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}

//! Boot partitions (NVMe base specification 2.0, 8.2): two areas of a controller that belong to no namespace, that no erasure
//! reaches, and that are written as firmware is.

use speediso_model::units::Bytes;

use super::super::{CommandError, Data, NvmeCommand, Passthrough, le32};
use super::{ALL_NAMESPACES, GET_LOG_PAGE, SOON};

const FIRMWARE_COMMIT: u8 = 0x10;
const FIRMWARE_DOWNLOAD: u8 = 0x11;
const LOG: u8 = 0x15;
/// In front of the partition's bytes in its log.
const HEADER: usize = 16;
/// Of a download, where the controller names nothing larger: what every one takes.
const PIECE: usize = 4096;
/// Storing it may take as long as storing firmware.
const COMMIT: std::time::Duration = std::time::Duration::from_mins(2);

/// Each of the two; none is the usual case.
pub(super) fn size(device: &dyn Passthrough) -> Option<Bytes> {
    let mut page = [0; HEADER];
    log(device, 0, 0, &mut page).ok()?;
    // BPINFO, in units of 128 KiB.
    let units = u64::from(le32(&page, 4) & 0x7fff);
    (page[0] == LOG && units > 0).then_some(Bytes(units << 17))
}

fn log(device: &dyn Passthrough, which: u8, offset: u64, bytes: &mut [u8]) -> Result<(), CommandError> {
    const NAME: &str = "NVMe boot partition log";
    let dwords = u32::try_from(bytes.len() / 4).unwrap_or(1) - 1;
    let (low, high) = (offset & 0xffff_ffff, offset >> 32);
    let half = |part: u64| u32::try_from(part).unwrap_or(0);
    let command = NvmeCommand {
        opcode: GET_LOG_PAGE,
        namespace: ALL_NAMESPACES,
        cdw10: u32::from(LOG) | u32::from(which) << 8 | (dwords & 0xffff) << 16,
        cdw11: dwords >> 16,
        cdw12: half(low),
        cdw13: half(high),
        ..NvmeCommand::default()
    };
    device.nvme(NAME, &command, Data::In(bytes), SOON).map(drop)
}

/// Fills `bytes`, a multiple of four of them, from a partition.
///
/// # Errors
/// When the controller declines: it may know no offsets in its logs.
pub fn read(device: &dyn Passthrough, which: u8, offset: u64, bytes: &mut [u8]) -> Result<(), CommandError> {
    log(device, which, offset + HEADER as u64, bytes)
}

/// Gives the controller all of a partition piece by piece, as `fill` makes it, and has it stored. Until then nothing is changed.
///
/// # Errors
/// When the controller declines: the partition may be protected, by a feature or for good.
pub fn write(
    device: &dyn Passthrough,
    which: u8,
    size: Bytes,
    granularity: usize,
    mut fill: impl FnMut(u64, &mut [u8]),
) -> Result<(), CommandError> {
    const REPLACE: u32 = 0b110 << 3;
    let mut piece = vec![0; granularity.max(PIECE)];
    let mut at = 0;
    while at < size.0 {
        let length = piece.len().min(usize::try_from(size.0 - at).unwrap_or(usize::MAX));
        fill(at, &mut piece[..length]);
        let command = NvmeCommand {
            opcode: FIRMWARE_DOWNLOAD,
            cdw10: u32::try_from(length / 4).unwrap_or(1) - 1,
            cdw11: u32::try_from(at / 4).unwrap_or(u32::MAX),
            ..NvmeCommand::default()
        };
        device.nvme("NVMe Firmware Image Download", &command, Data::Out(&piece[..length]), SOON)?;
        at += length as u64;
    }
    let command =
        NvmeCommand { opcode: FIRMWARE_COMMIT, cdw10: REPLACE | u32::from(which) << 31, ..NvmeCommand::default() };
    device.nvme("NVMe Firmware Commit, boot partition", &command, Data::None, COMMIT).map(drop)
}

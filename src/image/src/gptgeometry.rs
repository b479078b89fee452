//! For which sector size an image was made: from where its GPT header stands.

/// Sector size in bytes that the partition table in `head` is made for; `None` without a GPT. `head` is the start of
/// the image, at least 8 KiB of it.
///
/// An image made for 512-byte sectors on a disk with 4096 (or the reverse) would be written without an error and never
/// boot: the header stands in the second sector, whatever its size.
#[must_use]
pub fn sector_size(head: &[u8]) -> Option<u32> {
    const SIGNATURE: &[u8] = b"EFI PART";
    [512u32, 4096].into_iter().find(|size| {
        usize::try_from(*size).is_ok_and(|at| head.get(at..).is_some_and(|rest| rest.starts_with(SIGNATURE)))
    })
}

/// Size in bytes of the disk that the partition table in `head` was made for: where its backup ends.
#[must_use]
pub fn disk_size(head: &[u8]) -> Option<u64> {
    let sector = sector_size(head)?;
    // UEFI 2.10, table 5-5: AlternateLBA at 32.
    let at = usize::try_from(sector).ok()? + 32;
    let backup = u64::from_le_bytes(head.get(at..at + 8)?.try_into().ok()?);
    backup.checked_add(1)?.checked_mul(u64::from(sector))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_tells() {
        let mut head = vec![0; 8192];
        assert_eq!(sector_size(&head), None);
        head[4096..4104].copy_from_slice(b"EFI PART");
        assert_eq!(sector_size(&head), Some(4096));
        head[512..520].copy_from_slice(b"EFI PART");
        assert_eq!(sector_size(&head), Some(512));
        head[512 + 32..512 + 40].copy_from_slice(&9u64.to_le_bytes());
        assert_eq!(disk_size(&head), Some(5120));
        head[512 + 32..512 + 40].fill(0xff);
        assert_eq!(disk_size(&head), None);
        assert_eq!(sector_size(b"short"), None);
    }
}

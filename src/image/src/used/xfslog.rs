//! Whether the log of an XFS has anything in it that was not done yet.
//!
//! Each block of 512 bytes of the log begins with the number of its cycle, or with a record's magic and then the
//! cycle. The log ends where the number changes. After a clean unmount the last record before that place is a lone
//! *unmount* operation; see `xlog_find_tail` in fs/xfs/xfs_log_recover.c, which also takes up logs whose last record
//! goes round the end. Here that counts as unclean.

use super::bytes::{be32, byte};
use super::{Doubt, Window};

const BLOCK: u64 = 512;
const MAGIC: u32 = 0xfeed_babe;
const UNMOUNT: u8 = 0x20;
/// A log is 2 GiB at most.
const MOST: u64 = 2 << 30;
const PIECE: u64 = 1 << 20;

/// # Errors
/// [`Doubt::Unclean`] unless the log is seen to be clean.
pub(super) fn check(window: &Window<'_>, start: u64, length: u64) -> Result<(), Doubt> {
    if length == 0 || length > MOST || !length.is_multiple_of(BLOCK) {
        return Err(Doubt::Inconsistent("its log has an impossible length"));
    }
    let mut walk = Walk::default();
    let mut at = 0;
    while at < length {
        let piece = window.read(start + at, usize::try_from(PIECE.min(length - at)).unwrap_or_default())?;
        for (block, number) in piece.chunks_exact(512).zip(at / BLOCK..) {
            walk.step(number, block)?;
        }
        at += piece.len() as u64;
    }
    let head = walk.head.unwrap_or(length / BLOCK);
    let Some((record, header)) = walk.last_record else {
        return Err(Doubt::Unclean("its log has no record that ends it"));
    };
    // h_version and h_size: a record with more than 32 KiB of cycle numbers to keep has more blocks of header.
    let more = be32(&header, 8) & 2 != 0 && be32(&header, 320) > 32768;
    let headers = if more { u64::from(be32(&header, 320).div_ceil(32768)) } else { 1 };
    let body = record + headers;
    let ends = body + u64::from(be32(&header, 12)).div_ceil(BLOCK);
    if ends != head || be32(&header, 40) != 1 || body >= length / BLOCK {
        return Err(Doubt::Unclean("its log has changes that may not have been made yet"));
    }
    // The operation's header: oh_tid, oh_len, oh_clientid, oh_flags.
    let operation = window.read(start + body * BLOCK, 512)?;
    if byte(&operation, 9) & UNMOUNT == 0 {
        return Err(Doubt::Unclean("its log does not end in an unmount"));
    }
    Ok(())
}

#[derive(Default)]
struct Walk {
    cycle: Option<u32>,
    /// The first block of an older cycle.
    head: Option<u64>,
    /// The last one before the head, with its header.
    last_record: Option<(u64, Vec<u8>)>,
    older: u32,
}

impl Walk {
    fn step(&mut self, number: u64, block: &[u8]) -> Result<(), Doubt> {
        let is_record = be32(block, 0) == MAGIC;
        let cycle = be32(block, if is_record { 4 } else { 0 });
        let torn = Err(Doubt::Unclean("the cycles of its log do not follow one another"));
        match (self.cycle, self.head) {
            (None, _) if cycle == 0 => return torn,
            (None, _) => self.cycle = Some(cycle),
            (Some(_), None) if self.cycle == Some(cycle) => {}
            (Some(first), None) if cycle < first => (self.head, self.older) = (Some(number), cycle),
            (Some(_), Some(_)) if cycle == self.older => {}
            _ => return torn,
        }
        if is_record && self.head.is_none() {
            self.last_record = Some((number, block.to_vec()));
        }
        Ok(())
    }
}

//! Compressed streams: bombs, cuts, damage, and headers that ask for the machine's memory.

use speediso_model::fault::FaultCode;
use speediso_model::image::{Compression, ImageFormat};

use crate::encoded::{ALL, bomb, crc32, encode, flipped, patched};
use crate::support::{MIB, image};
use crate::trial::{Left, Trials};

const RAW: ImageFormat = ImageFormat::Raw;

/// The disk's end ends each of them: nobody waits for the other GiB, nobody keeps them in memory.
#[test]
fn bombs_end_at_the_end_of_the_disk() {
    let mut trials = Trials::new();
    for compression in ALL {
        let what = format!("a bomb of {}", compression.name());
        trials.bytes(&what, (compression, RAW), &bomb(compression), FaultCode::ImageTooLarge, Left::NoTable);
    }
    // An image that fits to the byte, and the bomb behind it.
    let whole = image(20 * MIB, 512);
    let behind = [encode(Compression::Gzip, &whole), bomb(Compression::Gzip)].concat();
    trials.bytes("a bomb behind", (Compression::Gzip, RAW), &behind, FaultCode::ImageTooLarge, Left::NoTable);
    // RFC 8878, 3.1.1.2: blocks of 4 bytes that stand for 128 KiB each, in a frame that does not say its size.
    let mut runs = vec![0x28, 0xb5, 0x2f, 0xfd, 0, 7 << 3];
    runs.extend([2, 0, 0x10, 0].repeat(100_000));
    trials.bytes("12 GiB in runs", (Compression::Zstd, RAW), &runs, FaultCode::ImageTooLarge, Left::NoTable);
}

/// Members without content cost time and bring nothing.
#[test]
fn empty_members_are_no_image_however_many() {
    let mut trials = Trials::new();
    for compression in ALL {
        let one = encode(compression, b"");
        let many = one.repeat((1 << 20) / one.len());
        let what = format!("{} empty members of {}", many.len() / one.len(), compression.name());
        trials.bytes(&what, (compression, RAW), &many, FaultCode::ImageFormat, Left::Unchanged);
    }
    let skippable = [&0x184d_2a50u32.to_le_bytes()[..], &0u32.to_le_bytes()].concat().repeat(130_000);
    let what = "nothing but skippable frames";
    trials.bytes(what, (Compression::Zstd, RAW), &skippable, FaultCode::ImageFormat, Left::Unchanged);
}

#[test]
fn what_is_cut_damaged_or_followed_by_something_is_named() {
    let mut trials = Trials::new();
    let bytes = image(16 * MIB, 512);
    let (first, second) = bytes.split_at(bytes.len() / 2);
    for compression in ALL {
        let name = compression.name();
        let as_raw = (compression, RAW);
        let whole = encode(compression, &bytes);
        let cut = &whole[..whole.len() - whole.len() / 4];
        trials.bytes(&format!("{name} cut"), as_raw, cut, FaultCode::ImageTruncated, Left::NoTable);
        let almost = &whole[..whole.len() - 1];
        trials.bytes(
            &format!("{name} without its last byte"),
            as_raw,
            almost,
            FaultCode::ImageTruncated,
            Left::NoTable,
        );
        let trailing = [&whole[..], b"and something more"].concat();
        trials.bytes(&format!("{name} and more"), as_raw, &trailing, FaultCode::ImageTrailingData, Left::NoTable);
        let bad = encode(compression, second);
        let bad = [encode(compression, first), flipped(&bad, bad.len() / 2)].concat();
        trials.bytes(&format!("{name}, the second member bad"), as_raw, &bad, FaultCode::ImageFormat, Left::NoTable);
    }
}

#[test]
fn wrong_checksums_and_indexes_are_damage() {
    type Place = fn(&[u8]) -> usize;
    let mut trials = Trials::new();
    let bytes = image(16 * MIB, 512);
    let cases: [(&str, Compression, Place, Left); 10] = [
        ("gzip: CRC-32", Compression::Gzip, |whole| whole.len() - 8, Left::NoTable),
        ("gzip: ISIZE", Compression::Gzip, |whole| whole.len() - 4, Left::NoTable),
        ("zstd: checksum", Compression::Zstd, |whole| whole.len() - 4, Left::NoTable),
        // The first block is shorter than what is looked at before the first write.
        ("bzip2: CRC of a block", Compression::Bzip2, |_| 10, Left::Unchanged),
        ("bzip2: CRC of the stream", Compression::Bzip2, |whole| whole.len() - 3, Left::NoTable),
        ("lz4: content checksum", Compression::Lz4, |whole| whole.len() - 4, Left::NoTable),
        // "The .xz file format", 2: the index has at least 8 bytes, the footer 12.
        ("xz: footer", Compression::Xz, |whole| whole.len() - 10, Left::NoTable),
        ("xz: size of the index", Compression::Xz, |whole| whole.len() - 8, Left::NoTable),
        ("xz: CRC of the index", Compression::Xz, |whole| whole.len() - 14, Left::NoTable),
        ("xz: check of the block", Compression::Xz, |whole| whole.len() - 12 - index_length(whole) - 3, Left::NoTable),
    ];
    for (what, compression, place, left) in cases {
        let whole = encode(compression, &bytes);
        let bad = flipped(&whole, place(&whole));
        trials.bytes(what, (compression, RAW), &bad, FaultCode::ImageFormat, left);
    }
}

/// "The .xz file format", 2.1.2.2: in the footer, in units of 4 bytes, less one.
fn index_length(xz: &[u8]) -> usize {
    let stored = xz.len() - 8;
    4 * (u32::from_le_bytes(xz[stored..stored + 4].try_into().unwrap()) as usize + 1)
}

#[test]
fn headers_that_ask_for_the_machines_memory_are_refused() {
    use FaultCode::{ImageFormat as Format, ImageTooLarge, ImageWindow};
    let mut trials = Trials::new();
    let text = b"all work and no play makes an agent a dull program".repeat(60_000);
    let zstd = |frame: &[u8]| [&[0x28, 0xb5, 0x2f, 0xfd], frame].concat();
    let xz = encode(Compression::Xz, &text);
    let lz4 = encode(Compression::Lz4, &text);
    // Flags of a gzip header (RFC 1952, 2.3.1): FEXTRA 4, FNAME 8, FCOMMENT 16.
    let gzip = |flags: u8, field: &[u8]| [&[0x1f, 0x8b, 8, flags, 0, 0, 0, 0, 0, 255], field].concat();
    let endless = vec![b'x'; 8 << 20];
    let cases: Vec<(&str, Compression, Vec<u8>, FaultCode)> = vec![
        ("zstd: a window of 3.75 TiB", Compression::Zstd, zstd(&[&[0, 0xff][..], &[1; 600]].concat()), ImageWindow),
        ("zstd: a window of 2 GiB", Compression::Zstd, zstd(&[&[0, 21 << 3][..], &[1; 600]].concat()), ImageWindow),
        ("zstd: a window of 64 MiB", Compression::Zstd, zstd(&[&[0, 16 << 3][..], &[1; 600]].concat()), ImageWindow),
        (
            "zstd: 16 EiB announced, all of it the window",
            Compression::Zstd,
            zstd(&[&[0xe0][..], &(u64::MAX - 2).to_le_bytes(), &[1; 600]].concat()),
            ImageTooLarge,
        ),
        ("zstd: a dictionary", Compression::Zstd, zstd(&[&[0x23, 42, 0, 0, 1, 200][..], &[1; 600]].concat()), Format),
        ("zstd: a reserved bit", Compression::Zstd, zstd(&[&[0x08, 7 << 3][..], &[1; 600]].concat()), Format),
        ("zstd: a reserved block", Compression::Zstd, zstd(&[&[0, 7 << 3][..], &[6; 600]].concat()), Format),
        ("xz: a dictionary of 4 GiB", Compression::Xz, with_dictionary(&xz, 40), ImageWindow),
        ("xz: a dictionary of 64 MiB", Compression::Xz, with_dictionary(&xz, 28), ImageWindow),
        ("xz: a dictionary that cannot be", Compression::Xz, with_dictionary(&xz, 41), Format),
        ("xz: a filter that is not known", Compression::Xz, with_filter(&xz, 0x7e), Format),
        ("xz: reserved stream flags", Compression::Xz, patched(&xz, 6, &[1]), Format),
        ("bzip2: a block size that cannot be", Compression::Bzip2, b"BZh\xff1AY&SY".repeat(100), Format),
        ("lz4: blocks of a size that cannot be", Compression::Lz4, patched(&lz4, 5, &[0x10]), Format),
        ("lz4: another version", Compression::Lz4, patched(&lz4, 4, &[0xa4]), Format),
        ("lz4: the header's checksum", Compression::Lz4, flipped(&lz4, 6), Format),
        ("lz4: a block of 2 GiB", Compression::Lz4, patched(&lz4, 7, &0x7fff_ffffu32.to_le_bytes()), Format),
        ("gzip: a name without end", Compression::Gzip, gzip(8, &endless), Format),
        ("gzip: a comment without end", Compression::Gzip, gzip(16, &endless), Format),
        ("gzip: a method that is not known", Compression::Gzip, patched(&gzip(0, &[0; 600]), 2, &[7]), Format),
    ];
    for (what, compression, body, code) in cases {
        trials.bytes(what, (compression, RAW), &body, code, Left::Unchanged);
    }
    // What is not there cannot be skipped.
    let skipped = [&0x184d_2a50u32.to_le_bytes()[..], &u32::MAX.to_le_bytes(), &[0; 600]].concat();
    let what = "zstd: 4 GiB to be skipped that are not there";
    trials.bytes(what, (Compression::Zstd, RAW), &skipped, FaultCode::ImageTruncated, Left::Unchanged);
}

/// Another dictionary size in the header of the first block, its CRC right ("The .xz file format", 3.1 and 5.3.1).
fn with_dictionary(xz: &[u8], size: u8) -> Vec<u8> {
    with_block_header(xz, |header| {
        let filter = header.windows(2).position(|pair| pair == [0x21, 1]).expect("LZMA2 with one byte of properties");
        header[filter + 2] = size;
    })
}

fn with_filter(xz: &[u8], id: u8) -> Vec<u8> {
    with_block_header(xz, |header| {
        let filter = header.windows(2).position(|pair| pair == [0x21, 1]).expect("LZMA2");
        header[filter] = id;
    })
}

fn with_block_header(xz: &[u8], change: impl FnOnce(&mut [u8])) -> Vec<u8> {
    let mut xz = xz.to_vec();
    let length = (usize::from(xz[12]) + 1) * 4;
    let (header, rest) = xz[12..].split_at_mut(length - 4);
    change(header);
    rest[..4].copy_from_slice(&crc32(header).to_le_bytes());
    xz
}

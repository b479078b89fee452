#![allow(clippy::expect_used, reason = "tests")]
use std::io::Write as _;

use proptest::prelude::*;

use super::*;

const ALL: [Compression; 5] =
    [Compression::Gzip, Compression::Zstd, Compression::Xz, Compression::Bzip2, Compression::Lz4];

fn decode_as(compression: Compression, bytes: &[u8], window: Option<Bytes>) -> io::Result<Vec<u8>> {
    let mut out = Vec::new();
    decoder(compression, window, bytes)?.read_to_end(&mut out)?;
    Ok(out)
}

fn decode(bytes: &[u8], window: Option<Bytes>) -> io::Result<Vec<u8>> {
    decode_as(Compression::Zstd, bytes, window)
}

/// With the checksum that the format has.
fn compress(compression: Compression, data: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    match compression {
        Compression::None => out.extend_from_slice(data),
        Compression::Gzip => {
            let mut encoder = flate2::write::GzEncoder::new(&mut out, flate2::Compression::default());
            encoder.write_all(data).and_then(|()| encoder.finish().map(drop)).expect("memory");
        }
        Compression::Bzip2 => {
            let mut encoder = bzip2::write::BzEncoder::new(&mut out, bzip2::Compression::default());
            encoder.write_all(data).and_then(|()| encoder.finish().map(drop)).expect("memory");
        }
        Compression::Lz4 => {
            let info = lz4_flex::frame::FrameInfo::new().content_checksum(true);
            let mut encoder = lz4_flex::frame::FrameEncoder::with_frame_info(info, &mut out);
            encoder.write_all(data).expect("memory");
            encoder.finish().expect("memory");
        }
        Compression::Xz => {
            let mut encoder = liblzma::write::XzEncoder::new(&mut out, 1);
            encoder.write_all(data).and_then(|()| encoder.finish().map(drop)).expect("memory");
        }
        Compression::Zstd => {
            let mut encoder = ::zstd::Encoder::new(&mut out, 3).expect("encoder");
            encoder.include_checksum(true).expect("set");
            encoder.write_all(data).and_then(|()| encoder.finish().map(drop)).expect("memory");
        }
    }
    out
}

fn kind(result: io::Result<Vec<u8>>) -> String {
    format!("{:?}", DecodeError::of(&result.expect_err("must fail")).expect("a decoding error"))
}

#[test]
fn members_follow_one_another_and_nothing_else_does() {
    for compression in ALL {
        let mut two = compress(compression, b"hello ");
        two.extend(compress(compression, b"world"));
        assert_eq!(decode_as(compression, &two, None).expect("two members"), b"hello world", "{compression:?}");

        let mut trailing = compress(compression, b"hello");
        trailing.extend_from_slice(b"garbage after the end");
        assert_eq!(kind(decode_as(compression, &trailing, None)), "TrailingData", "{compression:?}");
        // Zeros after the end are data too, unless padding is part of the format.
        let mut padded = compress(compression, b"hello");
        padded.extend_from_slice(&[0; 64]);
        let padded = decode_as(compression, &padded, None);
        if compression == Compression::Xz {
            assert_eq!(padded.expect("padding"), b"hello");
        } else {
            assert_eq!(kind(padded), "TrailingData", "{compression:?}");
        }
    }
    let mut odd = compress(Compression::Xz, b"hello");
    odd.extend_from_slice(&[0; 63]);
    assert_eq!(kind(decode_as(Compression::Xz, &odd, None)), "TrailingData");
}

/// The bytes come in pieces of any size: no decoder may take the end of a piece for the end.
#[test]
fn small_pieces_are_no_ends() {
    struct Drip<'a>(&'a [u8]);
    impl Read for Drip<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let n = self.0.len().min(1).min(buffer.len());
            buffer[..n].copy_from_slice(&self.0[..n]);
            self.0 = &self.0[n..];
            Ok(n)
        }
    }
    let data: Vec<u8> = (0..3000u32).flat_map(|i| i.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    for compression in ALL {
        let mut two = compress(compression, &data);
        two.extend(compress(compression, &data));
        let mut out = Vec::new();
        decoder(compression, None, Drip(&two)).expect("set up").read_to_end(&mut out).expect("decoded");
        assert!(out == [data.as_slice(), data.as_slice()].concat(), "{compression:?}");
    }
}

#[test]
fn every_truncation_is_noticed() {
    let data: Vec<u8> = (0..20_000u32).flat_map(|i| i.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    for compression in ALL {
        let whole = compress(compression, &data);
        let len = whole.len();
        let cuts = (0..40).chain((40..len).step_by(997)).chain(len - 40..len);
        for cut in cuts {
            assert!(decode_as(compression, &whole[..cut], None).is_err(), "{compression:?} cut at {cut} of {len}");
        }
    }
}

#[test]
fn the_sources_own_error_stays_itself() {
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the network"))
        }
    }
    let data: Vec<u8> = (0..20_000u32).flat_map(|i| i.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    for compression in ALL {
        let whole = compress(compression, &data);
        let source = whole[..whole.len() / 2].chain(Broken);
        let mut out = Vec::new();
        let error = decoder(compression, None, source).expect("set up").read_to_end(&mut out).expect_err("broken");
        assert_eq!(DecodeError::source_of(&error).to_string(), "the network", "{compression:?}");
    }
}

#[test]
fn a_window_beyond_the_limit_needs_permission() {
    let data = vec![7u8; 3 << 20];
    let mut encoder = ::zstd::Encoder::new(Vec::new(), 1).expect("encoder");
    encoder.window_log(27).expect("128 MiB");
    // Without a content size the frame header must name the window itself.
    encoder.include_contentsize(false).expect("set");
    encoder.write_all(&data).expect("memory");
    let wide = encoder.finish().expect("finished");
    assert!(kind(decode(&wide, None)).starts_with("WindowTooLarge"));
    assert_eq!(decode(&wide, Some(Bytes(128 * MIB))).expect("permitted").len(), data.len());

    // `xz -9` has a dictionary of 64 MiB.
    let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 9);
    encoder.write_all(&data).expect("memory");
    let wide = encoder.finish().expect("finished");
    assert!(kind(decode_as(Compression::Xz, &wide, None)).starts_with("WindowTooLarge"));
    assert_eq!(decode_as(Compression::Xz, &wide, Some(Bytes(64 * MIB))).expect("permitted").len(), data.len());
}

#[test]
fn several_blocks_are_decoded_in_order() {
    let data: Vec<u8> = (0..3_000_000u32).flat_map(|i| (i / 7).to_le_bytes()).collect();
    let stream = liblzma::stream::MtStreamBuilder::new()
        .preset(0)
        .threads(2)
        .block_size(1 << 20)
        .check(liblzma::stream::Check::Crc64)
        .encoder()
        .expect("encoder");
    let mut encoder = liblzma::write::XzEncoder::new_stream(Vec::new(), stream);
    encoder.write_all(&data).expect("memory");
    let bytes = encoder.finish().expect("finished");
    assert!(decode_as(Compression::Xz, &bytes, None).expect("decoded") == data);
}

#[test]
fn the_size_is_known_beforehand_where_it_is_said() {
    let frame = ::zstd::bulk::compress(&[1; 5000], 3).expect("memory");
    assert_eq!(announced_size(Compression::Zstd, &frame), Some(5000));
    assert_eq!(announced_size(Compression::None, &frame), None);
    assert_eq!(announced_size(Compression::Zstd, b""), None);
}

proptest! {
    #[test]
    fn a_flipped_byte_never_passes_with_its_checksum(data in prop::collection::vec(any::<u8>(), 1..2000), which in 0..ALL.len(), at in any::<prop::sample::Index>(), bit in 0u8..8) {
        let mut bytes = compress(ALL[which], &data);
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        // Reserved bits of a header may change nothing; the content may not differ unnoticed.
        if let Ok(decoded) = decode_as(ALL[which], &bytes, None) {
            prop_assert_eq!(decoded, data);
        }
    }

    #[test]
    fn garbage_ends_in_an_error_not_in_a_panic(data in prop::collection::vec(any::<u8>(), 0..500), which in 0..ALL.len()) {
        let _ = decode_as(ALL[which], &data, None);
        let start = compress(ALL[which], b"something that starts well");
        let mut spoilt = start[..start.len() / 2].to_vec();
        spoilt.extend_from_slice(&data);
        let _ = decode_as(ALL[which], &spoilt, None);
    }
}

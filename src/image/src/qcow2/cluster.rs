//! Compressed clusters.

use flate2::{Decompress, FlushDecompress, Status};
use zstd::zstd_safe::{DCtx, find_frame_compressed_size, get_error_name};

use super::error::ClusterFault;
use super::header::ClusterCompression;

/// Decodes one cluster after the other. Neither kind needs a window of its own: the output is there as a whole.
pub(super) enum ClusterDecoder {
    Zlib(Decompress),
    Zstd(DCtx<'static>),
}

impl ClusterDecoder {
    pub(super) fn new(compression: ClusterCompression) -> Self {
        match compression {
            ClusterCompression::Zlib => Self::Zlib(Decompress::new(false)),
            ClusterCompression::Zstd => Self::Zstd(DCtx::create()),
        }
    }

    /// Fills `cluster` from the start of `input`, which may go on with something else (the next cluster's data).
    pub(super) fn decode(&mut self, input: &[u8], cluster: &mut [u8]) -> Result<(), ClusterFault> {
        match self {
            Self::Zlib(decoder) => inflate(decoder, input, cluster),
            Self::Zstd(context) => zstd_frames(context, input, cluster),
        }
    }
}

fn inflate(decoder: &mut Decompress, input: &[u8], cluster: &mut [u8]) -> Result<(), ClusterFault> {
    let size = cluster.len() as u64;
    decoder.reset(false);
    // The end of the data may be behind the last byte of the cluster; a byte to spare shows whether it is.
    let mut spare = [0];
    for output in [cluster, &mut spare] {
        let mut before = None;
        let start = decoder.total_out();
        while before != Some((decoder.total_in(), decoder.total_out())) {
            before = Some((decoder.total_in(), decoder.total_out()));
            let rest = usize::try_from(decoder.total_in()).ok().and_then(|at| input.get(at..)).unwrap_or_default();
            let filled = usize::try_from(decoder.total_out() - start).unwrap_or(output.len());
            let status = decoder
                .decompress(rest, &mut output[filled..], FlushDecompress::Finish)
                .map_err(|e| ClusterFault::Damaged(e.to_string()))?;
            if status == Status::StreamEnd {
                return match decoder.total_out() {
                    out if out < size => Err(ClusterFault::Short),
                    out if out > size => Err(ClusterFault::Long),
                    _ => Ok(()),
                };
            }
        }
        if decoder.total_out() < size {
            return Err(ClusterFault::Short);
        }
    }
    Err(if decoder.total_out() > size {
        ClusterFault::Long
    } else {
        ClusterFault::Damaged("the compressed data has no end".into())
    })
}

/// qemu reads frames until the cluster is full, though it writes one.
fn zstd_frames(context: &mut DCtx<'static>, input: &[u8], cluster: &mut [u8]) -> Result<(), ClusterFault> {
    let damaged = |code| ClusterFault::Damaged(get_error_name(code).into());
    let (mut input, mut filled) = (input, 0);
    while filled < cluster.len() {
        if input.is_empty() {
            return Err(ClusterFault::Short);
        }
        let length = find_frame_compressed_size(input).map_err(damaged)?;
        let (frame, rest) = input.split_at_checked(length).ok_or(ClusterFault::Short)?;
        filled += context.decompress(&mut cluster[filled..], frame).map_err(|code| {
            let name = get_error_name(code);
            // There is no constant for it in the bindings.
            if name == "Destination buffer is too small" { ClusterFault::Long } else { damaged(code) }
        })?;
        input = rest;
    }
    Ok(())
}

impl std::fmt::Debug for ClusterDecoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Zlib(_) => "Zlib",
            Self::Zstd(_) => "Zstd",
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::expect_used, reason = "tests")]
    use std::io::Write as _;

    use super::*;

    const SIZE: usize = 4096;

    fn compress(compression: ClusterCompression, data: &[u8]) -> Vec<u8> {
        match compression {
            ClusterCompression::Zlib => {
                let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::default());
                encoder.write_all(data).and_then(|()| encoder.finish()).expect("memory")
            }
            ClusterCompression::Zstd => zstd::bulk::compress(data, 3).expect("memory"),
        }
    }

    fn decode(compression: ClusterCompression, input: &[u8]) -> Result<Vec<u8>, ClusterFault> {
        let mut cluster = vec![0xee; SIZE];
        ClusterDecoder::new(compression).decode(input, &mut cluster).map(|()| cluster)
    }

    fn text(length: usize) -> Vec<u8> {
        (0u32..).flat_map(|n| (n * n % 65521).to_string().into_bytes()).take(length).collect()
    }

    #[test]
    fn one_cluster_exactly() {
        for compression in [ClusterCompression::Zlib, ClusterCompression::Zstd] {
            let data = text(SIZE);
            let mut input = compress(compression, &data);
            assert_eq!(decode(compression, &input).as_ref(), Ok(&data));
            for cut in 0..input.len() {
                assert!(decode(compression, &input[..cut]).is_err(), "{compression:?} cut at {cut}");
            }
            input.extend_from_slice(b"the next cluster");
            assert_eq!(decode(compression, &input), Ok(data), "what follows is of no concern");
            // A frame that is missing looks like one that is damaged if other data follow, and like nothing if not.
            let short = compress(compression, &text(SIZE - 1));
            assert_eq!(decode(compression, &short), Err(ClusterFault::Short));
            for length in [SIZE + 1, SIZE * 1000] {
                let long = compress(compression, &vec![b'a'; length]);
                assert_eq!(decode(compression, &long), Err(ClusterFault::Long), "{compression:?} {length}");
            }
            assert!(matches!(decode(compression, &[0xff; 64]), Err(ClusterFault::Damaged(_))));
        }
    }

    #[test]
    fn a_decoder_is_as_new_after_an_error() {
        for compression in [ClusterCompression::Zlib, ClusterCompression::Zstd] {
            let data = text(SIZE);
            let input = compress(compression, &data);
            let mut decoder = ClusterDecoder::new(compression);
            let mut cluster = vec![0; SIZE];
            for _ in 0..3 {
                assert!(decoder.decode(&input[..input.len() / 2], &mut cluster).is_err());
                assert_eq!(decoder.decode(&input, &mut cluster), Ok(()));
                assert_eq!(cluster, data);
            }
        }
    }

    #[test]
    fn several_frames_make_a_cluster() {
        let data = text(SIZE);
        let input: Vec<u8> = data.chunks(1000).flat_map(|part| compress(ClusterCompression::Zstd, part)).collect();
        assert_eq!(decode(ClusterCompression::Zstd, &input), Ok(data));
    }
}

//! Any bytes as a qcow2 image: an error or a disk, and the same disk whether the map is read ahead or learnt.
#![no_main]

use std::io::{self, Read};

use libfuzzer_sys::fuzz_target;
use speediso_image::qcow2::{Extents, GuestReader, HEADER_PROBE, Header, Layout, ReadAt};

/// Larger disks are refused here, so that one can be kept in memory.
const LARGEST: u64 = 8 << 20;

struct Bytes<'a>(&'a [u8]);

impl ReadAt for Bytes<'_> {
    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        let end = start.checked_add(buffer.len()).ok_or(io::ErrorKind::InvalidInput)?;
        buffer.copy_from_slice(self.0.get(start..end).ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

fn disk(mut extents: Extents<&[u8]>, size: u64) -> Option<Vec<u8>> {
    let mut disk = vec![0; size as usize];
    let mut buffer = vec![0; 2 << 20];
    while let Some(extent) = extents.next(&mut buffer).ok()? {
        let at = extent.guest as usize;
        disk[at..at + extent.length].copy_from_slice(&buffer[..extent.length]);
    }
    let holes: u64 = extents.into_holes().expect("it has ended").map(|hole| hole.end - hole.start).sum();
    assert!(holes <= size);
    Some(disk)
}

fuzz_target!(|image: &[u8]| {
    let start = &image[..image.len().min(HEADER_PROBE)];
    let Ok(header) = Header::parse(start).and_then(|header| header.within(LARGEST)) else { return };
    let size = header.virtual_size;
    let streamed = disk(Extents::in_stream_order(image, header.clone()), size);
    let length = image.len() as u64;
    let Ok(layout) = Layout::read(&header, &mut Bytes(image), length) else { return };
    let ahead = disk(Extents::with_layout(image, header.clone(), layout, Some(length)), size);
    if let (Some(streamed), Some(ahead)) = (&streamed, &ahead) {
        assert!(streamed == ahead, "two disks from one image");
    }
    let mut in_order = Vec::new();
    let read = GuestReader::new(header, Bytes(image), length)
        .ok()
        .and_then(|mut reader| reader.read_to_end(&mut in_order).ok());
    if let (Some(_), Some(ahead)) = (read, &ahead) {
        assert!(in_order == *ahead, "two disks from one image");
    }
});

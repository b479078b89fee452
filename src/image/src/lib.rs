//! Disk images as untrusted input: recognised by content, decoded as a stream, hashed byte by byte.

#![forbid(unsafe_code)]

pub mod checksums;
pub mod container;
pub mod decode;
pub mod digest;
pub mod gptgeometry;
pub mod manifest;
pub mod qcow2;
pub mod shrink;
pub mod trust;
pub mod used;

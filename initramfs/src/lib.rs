//! Builds the ramdisk: Debian's own kernel, the modules servers need, busybox, dropbear, mdadm and the agent.
//!
//! Needs neither root nor the kernel it packs: packages are fetched and unpacked as plain files, and the archive is
//! written by [`cpio`], which can hold what the builder could not create on disk (`/dev/console`, files owned by root).
//!
//! The same inputs give the same bytes. An *input* is a package (by its digest), the manifest, the files under
//! `root/`, or the agent; the builder's own user, clock, paths and umask are not.
//!
//! The archive is two, one after the other, as the kernel allows: a *base* (everything that changes with packages,
//! tens of megabytes) and a *top* (the agent and the build number). So a new agent costs seconds.
//!
//! Beside it lie the tools archive ([`tools`]) and the add-on of rare drivers and firmware ([`addon`]), whose digests the
//! top carries; kernel and ramdisk as one EFI program ([`uki`]); what the build is made of ([`lock`], [`sbom`]).
//!
//! The live flavour's larger root is built for a build that is there ([`live`]).
//!
//! What is deliberately absent: udev, LVM, any assembly of arrays, any mount of a disk.
#![forbid(unsafe_code)]

pub mod about;
pub mod addon;
pub mod apt;
pub mod arch;
pub mod assemble;
pub mod builds;
pub mod cache;
pub mod contents;
pub mod cpio;
pub mod crates;
pub mod elf;
pub mod extra;
pub mod firmware;
pub mod hardware;
pub mod iso;
pub mod live;
pub mod lock;
pub mod manifest;
pub mod modules;
pub mod pack;
pub mod packages;
pub mod ramdisk;
pub mod report;
pub mod sbom;
pub mod supply;
pub mod tool;
pub mod tools;
pub mod tree;
pub mod uki;
pub mod unpack;
pub mod verify;

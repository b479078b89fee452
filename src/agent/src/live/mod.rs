//! The live flavour, from both sides: how the agent of the ramdisk gets into it, and what the agent inside of it knows.
//!
//! The ramdisk fetches a signed image, holds it in memory, mounts it, tries whether its init can run, and tells its own
//! init to go on there. The state directory goes along, so that the agent inside is the same agent of the same boot.
//! Whatever goes wrong before that leaves the ramdisk as it is, with the reason told; after it there is nothing of ours
//! left that could go wrong but a file system that is in memory.

mod entry;
mod inside;
mod mounts;
mod root;
mod watch;

pub use entry::Entry;
pub use inside::{follow_tasks, is_inside, own_tasks};
pub use watch::TaskWatch;

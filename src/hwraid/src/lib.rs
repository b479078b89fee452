//! Hardware RAID by intent.
//!
//! A *view* is what a controller's own tool shows: drives, volumes, left-overs of other controllers. [`resolve`] makes a
//! *goal* out of a wish and a view, or says why not; an [`Adaptor`] turns a goal into calls of its tool, one per effect,
//! and [`judge`] compares a new view with the goal. Nothing here believes an exit code or the word "Success": what
//! counts is what the controller shows afterwards.
//!
//! Pure but for [`Tool`], through which the caller runs the program. What is peculiar to a model or to a version is
//! data ([`quirks`]), with its source beside it. Everything was made from published outputs of the tools
//! (`fixtures/INDEX.md`); nothing was tried on a real controller.

#![forbid(unsafe_code)]

mod arcconf;
#[cfg(test)]
mod fixture;
mod goal;
mod judge;
mod mvcli;
mod printed;
pub mod quirks;
mod resolve;
mod ssacli;
mod storcli;
mod tool;
mod view;

pub use crate::goal::{Goal, NewVolume, Step};
pub use crate::judge::{Missing, judge, torn_down};
pub use crate::quirks::{Family, PciFunction, recognise};
pub use crate::resolve::{Refusal, resolve};
pub use crate::tool::{Adaptor, Command, Printed, Tool, ToolError, Waits};
pub use crate::view::{Controller, Drive, DriveState, Foreign, Level, Size, View, Volume, VolumeState, bare_wwn};

//! The whole controller over real TLS on loopback: one program, so that it is linked once.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "tests")]

mod burn_in_page;
mod burn_ins;
mod captures;
mod certificates;
mod enrolment;
mod hardware;
mod images;
mod links;
mod logs;
mod orders;
mod restart;
mod sharing;
mod ssh;
mod support;

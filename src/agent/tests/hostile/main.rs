//! Images made to do harm, given to the real agent: each is refused with a fault that names what it is, in good time,
//! within the memory that any image may take, and with nothing left that boots.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::cast_possible_truncation, reason = "tests")]

#[path = "../../../tasks/tests/support/mod.rs"]
mod support;

mod containers;
mod encoded;
mod maps;
mod streams;
mod tables;
mod trial;

//! The reference controller, as a library for its tests; `main.rs` only reads the command line.
//!
//! `http` decodes and encodes, `service` loads and stores in one transaction, `machine` decides and knows neither of
//! them. The controller never speaks to a disk of a machine, and nothing that matters lives in its memory.

#![forbid(unsafe_code)]

pub mod boot_script;
pub mod ca;
pub mod captures;
mod dashboard;
pub mod http;
pub mod images;
pub mod links;
pub mod machine;
pub mod server;
pub mod service;
pub mod site_key;
pub mod store;
pub mod token;
pub mod tunnel;
pub mod wake;

//! `speediso-agent inventory`: what this machine has, for people and as JSON, on any Linux machine.
//!
//! Needs no state directory, no network and no root; what root alone may read is said to be missing.

mod page;
mod sheet;

use std::io::{self, Write as _};

use clap::Args;
use speediso_model::inventory::Inventory;
use speediso_sys::disks::DiskScope;
use speediso_sys::machine::boot;
use speediso_sys::roots::Roots;
use speediso_tasks::Look;

use crate::build;

pub use page::page;

/// As published, which a test of `model` holds to the code: what would make it anew is larger than what is made.
const SCHEMA: &str = include_str!("../../../docs/inventory.schema.json");

#[derive(Args, Debug)]
pub struct InventoryArgs {
    /// As JSON
    #[arg(long)]
    json: bool,
    /// The JSON Schema of that, and nothing of this machine
    #[arg(long, conflicts_with = "json")]
    schema: bool,
    /// Loop devices count as disks
    #[arg(long)]
    allow_loop: bool,
}

/// Shows it, and returns the exit status.
#[must_use]
pub fn run(args: &InventoryArgs) -> u8 {
    let shown = if args.schema {
        Ok(SCHEMA.to_owned())
    } else {
        let inventory = look(DiskScope { loops: args.allow_loop });
        if args.json { serde_json::to_string_pretty(&inventory) } else { Ok(page(&inventory)) }
    };
    let written = shown.map_err(io::Error::from).and_then(|text| {
        let mut out = io::stdout().lock();
        writeln!(out, "{}", text.trim_end())
    });
    match written {
        Ok(()) => 0,
        // `inventory | head` has what it wanted.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => 0,
        Err(error) => {
            eprintln!("speediso-agent: {error}");
            1
        }
    }
}

/// This machine.
#[must_use]
pub fn look(scope: DiskScope) -> Inventory {
    let roots = Roots::live();
    let boot_mac = boot::interface(&roots);
    speediso_tasks::look(&Look { roots, scope, probe: std::env::current_exe().ok(), boot_mac, build: build::read() })
}

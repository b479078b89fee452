//! `speediso`, the operator's command line. It talks to the controller's API; `boot-into` alone acts on the machine it
//! runs on. What it prints for people is a view of what `--json` prints for scripts.

#![forbid(unsafe_code)]

mod args;
mod boot_files;
mod boot_into;
mod bundle;
mod burn_in;
mod capture;
mod certificate;
mod client;
mod commands;
mod follow;
mod image;
mod logs;
mod output;
mod pack;
mod pci_names;
mod resolve;
mod shrink;
mod sign;
mod ssh;
mod verify;

use std::process::ExitCode;

use clap::Parser as _;

use crate::args::Args;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let args = Args::parse();
    match commands::run(args).await {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            output::print_error(&error);
            ExitCode::from(output::exit_code_of(&error))
        }
    }
}

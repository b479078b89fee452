//! The figures that an operator waits for, or pays for: sizes, memory, time to enrol, and the speed of a write against
//! the usual pipes, taken in turn on the same machine. Ratios mean something; absolute times are this machine's.

mod boot;
mod fields;
mod first_request;
mod inventory;
mod memory;
mod memory_group;
mod sharing;
mod wipe;
mod write;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use speediso_lab::{Lab, Programs, repository};

pub(crate) use self::sharing::sharing;
use crate::demo::debian_image;
use crate::show::{Show, fact, mib};

pub(crate) struct Options {
    pub(crate) agent: PathBuf,
    pub(crate) builds: PathBuf,
    pub(crate) rounds: u32,
    /// Only the writing, and only cases with this in their name; `wipe`, `memory`, `inventory`, `boot`: only that.
    pub(crate) only: Option<String>,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    ensure!(
        nix::unistd::geteuid().is_root(),
        "the benchmarks use loop devices and a network namespace: run them as root"
    );
    let root = repository(&std::env::current_dir()?).context("run the benchmarks inside the repository")?;
    let mut show = Show::default();
    show.phase("Sizes", "1 s", || sizes(options))?;
    if options.only.as_deref() == Some("wipe") {
        return show.phase("Wiping loop devices", "2 minutes", || wipe(&root, options));
    }
    if options.only.as_deref() == Some("memory") {
        return show.phase("Testing memory", "3 minutes", || memory(&root, options));
    }
    let inventory = || inventory::run(&options.agent, options.rounds, &root.join("target/bench/inventory.json"));
    if options.only.as_deref() == Some("inventory") {
        return show.phase("Taking the inventory", "1 minute", inventory);
    }
    if options.only.as_deref() == Some("boot") {
        return first_requests(&mut show, options, &root);
    }
    let image = debian_image(&root, &mut show)?;
    show.phase("Writing an image to a loop device", "5 minutes, and 5 more the first time", || {
        write::run(&write::Setup {
            agent: &options.agent,
            packed: &image,
            rounds: options.rounds,
            only: options.only.as_deref(),
            // A part must not take the place of the last whole.
            out: &root.join(if options.only.is_some() {
                "target/bench/write-part.json"
            } else {
                "target/bench/write.json"
            }),
        })
    })?;
    if options.only.is_some() {
        return Ok(());
    }
    show.phase("Wiping loop devices", "2 minutes", || wipe(&root, options))?;
    show.phase("Testing memory", "3 minutes", || memory(&root, options))?;
    show.phase("Taking the inventory", "1 minute", inventory)?;
    let mut programs = Programs::beside_this(&root)?;
    programs.boot_files = options.builds.join("latest");
    let lab = Lab::builder().build()?;
    show.phase("From the kernel's start to the controller's list", "1 to 2 minutes", || {
        boot::until_enrolled(&lab, &programs, options.rounds)
    })?;
    show.phase("The first request against an empty ramdisk", "2 minutes", || {
        first_request::against_empty(&lab, &programs, options.rounds)
    })?;
    show.phase("Smallest memory that installs", "2 to 4 minutes", || boot::smallest_memory(&lab, &programs, &root))?;
    show.summary();
    Ok(())
}

fn first_requests(show: &mut Show, options: &Options, root: &Path) -> Result<()> {
    let mut programs = Programs::beside_this(root)?;
    programs.boot_files = options.builds.join("latest");
    let lab = Lab::builder().build()?;
    show.phase("The first request against an empty ramdisk", "2 minutes", || {
        first_request::against_empty(&lab, &programs, options.rounds)
    })
}

fn wipe(root: &Path, options: &Options) -> Result<()> {
    wipe::run(&options.agent, options.rounds, &root.join("target/bench/wipe.json"))
}

fn memory(root: &Path, options: &Options) -> Result<()> {
    memory::run(&options.agent, options.rounds, &root.join("target/bench/memory.json"))
}

fn sizes(options: &Options) -> Result<()> {
    let latest = options.builds.join("latest");
    let (kernel, ramdisk) = (size(&latest.join("vmlinuz"))?, size(&latest.join("initramfs.img"))?);
    fact(format!(
        "kernel {}, ramdisk {}, together {} (aim: at most 24 MiB)",
        mib(kernel),
        mib(ramdisk),
        mib(kernel + ramdisk)
    ));
    fact(format!("agent {}", mib(size(&options.agent)?)));
    Ok(())
}

fn size(path: &Path) -> Result<u64> {
    Ok(std::fs::metadata(path).with_context(|| format!("looking at {}", path.display()))?.len())
}

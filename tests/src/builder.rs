//! The ramdisk's builder, as people call it.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use speediso_lab::{Programs, tool};

/// Runs `speediso-initramfs` with these words.
pub fn initramfs(programs: &Programs, words: &[&str]) -> Result<String> {
    Ok(tool::run(Command::new(programs.controller.with_file_name("speediso-initramfs")).args(words))?)
}

/// An image for sticks and CDs of the latest build, with these parameters on it.
pub fn iso(programs: &Programs, parameters: &str, to: &Path) -> Result<()> {
    let text = to.with_extension("conf");
    std::fs::write(&text, parameters)?;
    let builds = programs.boot_files.parent().context("builds/latest lies in a directory")?;
    let words = ["iso", "--out", path(builds)?, "--parameters", path(&text)?, "--to", path(to)?];
    initramfs(programs, &words).map(drop)
}

pub fn path(path: &Path) -> Result<&str> {
    path.to_str().context("a path that is text")
}

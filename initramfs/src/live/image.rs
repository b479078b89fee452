//! The root as one file, in the form in which a machine holds it in memory.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use tar::{Builder, Header};

use super::archive::{self, Modules};
use super::root;
use crate::modules;
use crate::tree::Tree;

/// Good for the processor that reads it again and again, small enough for the network.
const SQUASHFS_LEVEL: &str = "15";
const BLOCK: &str = "256K";
/// Where the squashfs ends and its modules begin (mksquashfs pads to this).
const PAGE: u64 = 4096;
/// What a kernel needs to have such a root; a ramdisk need not have them.
pub(super) const OWN_MODULES: [&str; 2] = ["kernel/fs/squashfs/squashfs.ko", "kernel/fs/overlayfs/overlay.ko"];

/// How the machine holds the root.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum Form {
    /// Compressed, with what changes beside it: half the memory.
    Squashfs,
    /// Unpacked into memory: needs no module of the kernel.
    Tar,
}

impl Form {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Squashfs => "squashfs",
            Self::Tar => "tar",
        }
    }
}

/// Where everything comes from.
#[derive(Debug)]
pub(super) struct Parts<'a> {
    pub base: &'a Path,
    pub ours: &'a Tree,
    pub modules: Modules<'a>,
    pub date: u64,
}

/// They are loaded before there is anybody who could decompress them.
pub(super) fn prepare_own_modules(directory: &Path) -> Result<()> {
    for path in OWN_MODULES {
        let plain = directory.join(path);
        let packed = ["xz", "zst", "gz"].map(|ending| plain.with_extension(format!("ko.{ending}")));
        if let Some(packed) = packed.iter().find(|packed| packed.exists()) {
            modules::decompress(packed)?;
        }
    }
    Ok(())
}

/// Makes the file `out`.
pub(super) fn make(form: Form, parts: &Parts<'_>, out: &Path) -> Result<()> {
    match form {
        Form::Tar => {
            let file = File::create_new(out).with_context(|| format!("creating {}", out.display()))?;
            let mut file = BufWriter::with_capacity(1 << 20, file);
            parts.write(&mut file)?;
            file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all().context("writing the root")
        }
        Form::Squashfs => {
            squashfs(parts, out)?;
            add_modules(&parts.modules, parts.date, out)
        }
    }
}

impl Parts<'_> {
    fn write(&self, out: &mut dyn Write) -> Result<()> {
        archive::write(self.base, self.ours, &self.modules, self.date, out)
    }
}

/// Reading an archive it passes over -root-uid, and the root directory would belong to whoever builds.
fn maker() -> Command {
    if root::is_root() {
        return Command::new("mksquashfs");
    }
    let mut command = Command::new("fakeroot");
    command.arg("mksquashfs");
    command
}

fn squashfs(parts: &Parts<'_>, out: &Path) -> Result<()> {
    let date = parts.date.to_string();
    let mut command = maker();
    command.arg("-").arg(out).args(["-tar", "-comp", "zstd", "-Xcompression-level", SQUASHFS_LEVEL, "-b", BLOCK]);
    command.args(["-no-xattrs", "-exit-on-error", "-root-mode", "0755", "-quiet", "-no-progress"]);
    // Reading an archive it passes over -root-time: the root directory would be of today.
    command.env("SOURCE_DATE_EPOCH", &date).env("LC_ALL", "C.UTF-8");
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child =
        command.spawn().context("starting mksquashfs, of the Debian packages squashfs-tools and fakeroot")?;
    let stdin = child.stdin.take().context("mksquashfs takes no input")?;
    let mut pipe = BufWriter::with_capacity(1 << 20, stdin);
    let written = parts.write(&mut pipe).and_then(|()| pipe.flush().context("handing the root to mksquashfs"));
    // Its end of the pipe: without this it waits for more.
    drop(pipe);
    let output = child.wait_with_output().context("waiting for mksquashfs")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "mksquashfs ended with {}: {}", output.status, said.trim());
    written
}

/// Behind the squashfs, where its kernel module does not look: an archive of the modules that are needed to mount it.
fn add_modules(modules: &Modules<'_>, date: u64, out: &Path) -> Result<()> {
    let mut file = fs::OpenOptions::new().append(true).open(out).context("opening the root again")?;
    let length = file.metadata()?.len();
    ensure!(length.is_multiple_of(PAGE), "the squashfs has {length} bytes, which are no whole pages");
    let mut archive = Builder::new(&mut file);
    for path in OWN_MODULES {
        let data = fs::read(modules.directory.join(path)).with_context(|| {
            format!("reading {path} of the kernel {}: the root could not be mounted", modules.release)
        })?;
        let mut header = Header::new_gnu();
        header.set_mode(0o644);
        header.set_mtime(date);
        header.set_size(u64::try_from(data.len())?);
        archive.append_data(&mut header, path.rsplit('/').next().unwrap_or(path), data.as_slice())?;
    }
    archive.finish()?;
    drop(archive);
    file.sync_all().context("writing the root")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_same_root_is_the_same_image_at_another_time() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let mut base = Builder::new(zstd::Encoder::new(File::create(at("base")).unwrap(), 1).unwrap());
        for (path, text) in [("etc/passwd", "root:x:0:0:root:/root:/bin/bash\n"), ("etc/shadow", "root:*:1:0:::::\n")] {
            let mut header = Header::new_gnu();
            header.set_mode(0o644);
            header.set_uid(0);
            header.set_gid(0);
            header.set_mtime(900);
            header.set_size(text.len() as u64);
            base.append_data(&mut header, path, text.as_bytes()).unwrap();
        }
        base.into_inner().unwrap().finish().unwrap();
        for module in OWN_MODULES {
            let module = at("modules").join(module);
            fs::create_dir_all(module.parent().unwrap()).unwrap();
            fs::write(module, "module").unwrap();
        }
        let mut ours = Tree::default();
        ours.add_file("/etc/motd", 0o644, b"ours".to_vec()).unwrap();
        let made = |name: &str| {
            let modules = Modules { directory: &at("modules"), release: "6.1" };
            let parts = Parts { base: &at("base"), ours: &ours, modules, date: 1000 };
            make(Form::Squashfs, &parts, &at(name)).unwrap();
            fs::read(at(name)).unwrap()
        };
        let first = made("first");
        assert!(first.starts_with(b"hsqs"));
        // The finest time that a squashfs knows.
        std::thread::sleep(std::time::Duration::from_millis(1100));
        assert!(made("second") == first);
    }
}

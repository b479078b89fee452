//! From an image to a root that can be gone on in. Every step is looked at before the next one; until the very end
//! nothing of the running system is changed but memory.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use speediso_model::fault::{Fault, FaultCode};
use speediso_model::image::ImageSource;
use speediso_model::units::Bytes;
use speediso_sys::{module, numa};
use speediso_tasks::ctx::TaskCtx;
use speediso_tasks::live::{Form, LiveImage, Squashfs, modules_behind};

use super::mounts::Mounts;
use crate::ssh;

/// For the system that comes up then: systemd, its services and the agent take some 120 MiB.
const HEADROOM: u64 = 192 << 20;
/// An emulated processor loads the libraries of an init in about a second.
const TRIAL: Duration = Duration::from_secs(60);
const BUSYBOX: &str = "/bin/busybox";

/// A root that is ready.
#[derive(Debug)]
pub(super) struct Ready {
    pub(super) form: Form,
    pub(super) size: u64,
    /// What came over the network now.
    pub(super) fetched: u64,
}

fn unusable(what: impl Into<String>) -> Fault {
    Fault::new(FaultCode::LiveUnusable, what)
}

/// Blocks. What fails leaves what was fetched where it is, for the next attempt.
pub(super) fn prepare(source: &ImageSource, mounts: &Mounts, ctx: &TaskCtx) -> Result<Ready, Fault> {
    let image = LiveImage::open(source, ctx)?;
    let form = image.form()?;
    check_memory(image.size(), mounts.held(), ctx)?;
    let failed = |what: &str, error: &io::Error| unusable(what).because(error.to_string());
    let fetched = match form {
        Form::Squashfs => {
            let file = mounts.hold(image.size()).map_err(|e| failed("making room in memory", &e))?;
            let fetched = image.hold(&file, ctx)?;
            // What is mounted is what lies in memory, not what came over the network.
            image.check(&file)?;
            let squashfs = Squashfs::of(&file).map_err(|e| failed("reading the squashfs", &e))?;
            load_modules(&file, squashfs, mounts)?;
            mounts.overlay(squashfs.length).map_err(|e| failed("mounting the live root", &e))?;
            fetched
        }
        Form::Tar => {
            mounts.plain().map_err(|e| failed("making room in memory", &e))?;
            image.unpack(&mounts.new_root, ctx)?
        }
    };
    check_root(&mounts.new_root)?;
    Ok(Ready { form, size: image.size(), fetched })
}

/// `held` of the image is in memory already.
fn check_memory(size: u64, held: u64, ctx: &TaskCtx) -> Result<(), Fault> {
    let Some(memory) = numa::available(&ctx.roots) else {
        return Err(unusable("the kernel does not say how much memory is free"));
    };
    if memory.available >= size.saturating_sub(held) + HEADROOM {
        return Ok(());
    }
    Err(unusable(format!(
        "the live system needs {} of memory, {} of it for its image, and {} of {} are free",
        Bytes(size + HEADROOM),
        Bytes(size),
        Bytes(memory.available),
        Bytes(memory.total)
    )))
}

/// They came with the image, whose every byte was verified.
fn load_modules(file: &fs::File, squashfs: Squashfs, mounts: &Mounts) -> Result<(), Fault> {
    let failed = |what: String, error: &io::Error| unusable(what).because(error.to_string());
    let modules =
        modules_behind(file, squashfs).map_err(|e| failed("reading the modules of the live image".into(), &e))?;
    for (name, bytes) in modules {
        mounts.with_file(&name, &bytes, module::load).map_err(|e| {
            failed(format!("loading the kernel module {name} that the live image brings"), &e)
                .because("boot the ramdisk and the live image of one build")
        })?;
    }
    Ok(())
}

/// Whether somebody can go on in there: an init that runs, an agent, and modules for the kernel that runs.
fn check_root(root: &Path) -> Result<(), Fault> {
    let release = module::kernel_release().map_err(|e| Fault::from_error(FaultCode::Io, &e))?;
    let inside = |path: &str| root.join(path);
    if !["usr/lib/modules", "lib/modules"].iter().any(|modules| inside(modules).join(&release).is_dir()) {
        return Err(unusable(format!("the live image has no modules for the running kernel {release}"))
            .because("boot the ramdisk and the live image of one build"));
    }
    let agent = "usr/sbin/speediso-agent";
    if !inside(agent).is_file() {
        return Err(unusable(format!("the live image has no /{agent}: nobody would hear of this machine any more")));
    }
    let said = try_init(root).map_err(|why| unusable("the init of the live image does not run").because(why))?;
    tracing::info!("live system: its init is {said}");
    Ok(())
}

/// systemd under the name of init says nothing about itself unless it is the first process; it is the same program.
const TRY: &str =
    "[ -x /sbin/init ] || { echo 'there is no /sbin/init' >&2; exit 1; }; exec /lib/systemd/systemd --version";

/// Gives the first line that it prints about itself.
fn try_init(root: &Path) -> Result<String, String> {
    let mut command = Command::new(BUSYBOX);
    command.arg("chroot").arg(root).args(["/bin/sh", "-c", TRY]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| error.to_string())?;
    let begun = Instant::now();
    while child.try_wait().map_err(|error| error.to_string())?.is_none() {
        if begun.elapsed() > TRIAL {
            let _ = child.kill();
            let _ = child.wait();
            return Err(format!("it did not say its version within {} s", TRIAL.as_secs()));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let output = child.wait_with_output().map_err(|error| error.to_string())?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).lines().next().unwrap_or_default().trim().to_owned();
    if output.status.success() {
        return Ok(text(&output.stdout));
    }
    Err(format!("{}: {}", output.status, text(&output.stderr)))
}

/// What the ramdisk knows and the live system must not ask for again: who may log in, now and by the ramdisk itself.
pub(super) fn take_keys(root: &Path) -> io::Result<()> {
    for (from, mode) in [("root/.ssh/authorized_keys", 0o700), (ssh::IMAGE_KEYS, 0o755)] {
        copy_key_file(from.trim_start_matches('/'), mode, root)?;
    }
    Ok(())
}

fn copy_key_file(path: &str, directory_mode: u32, root: &Path) -> io::Result<()> {
    let keys = match fs::read(Path::new("/").join(path)) {
        Ok(keys) => keys,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let to = root.join(path);
    if let Some(directory) = to.parent() {
        fs::DirBuilder::new().recursive(true).mode(directory_mode).create(directory)?;
    }
    let mut options = fs::OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(to)?;
    io::Write::write_all(&mut file, &keys)
}

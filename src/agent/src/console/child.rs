//! Programs that get a console for themselves for a while: a shell, the network doctor.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::process::Stdio;

use speediso_sys::terminal;
use tokio::process::{Child, Command};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Program {
    Shell,
    NetworkDoctor,
}

const SHELL_HINT: &[u8] =
    b"This is a shell; `exit` leads back to the status screen. The log goes on in /run/speediso/agent.log.\r\n";

/// Starts it as the leader of a session whose controlling terminal is the console, so that its keys work as anywhere. When
/// it ends, the kernel hangs the terminal up: everybody else who has it open must open it again.
pub(super) fn start(program: Program, console: &Path, vt: bool) -> io::Result<Child> {
    // O_NONBLOCK belongs to the open file: a shell must not get ours.
    let tty = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NOCTTY).open(console)?;
    terminal::set_sane(&tty)?;
    // util-linux's in the live flavour, busybox's in the ramdisk: both know `-c`.
    let mut command = Command::new("/usr/bin/setsid");
    command.arg("-c");
    match program {
        Program::Shell => {
            use std::io::Write as _;
            (&tty).write_all(SHELL_HINT)?;
            command.args(["/bin/sh", "-l"]);
        }
        Program::NetworkDoctor => {
            // What it found stays until a person has read it.
            let script = "\"$0\" network-doctor; echo; printf 'Enter: back '; read -r _";
            command.args(["/bin/sh", "-c", script]).arg(std::env::current_exe()?);
        }
    }
    command
        .env("TERM", if vt { "linux" } else { "vt100" })
        .env("HOME", "/root")
        .env("PATH", "/sbin:/usr/sbin:/bin:/usr/bin")
        .current_dir("/")
        .stdin(Stdio::from(tty.try_clone()?))
        .stdout(Stdio::from(tty.try_clone()?))
        .stderr(Stdio::from(tty))
        .spawn()
}

//! A pseudo terminal, and a program that has it as its own.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::pty::openpty;
use nix::sys::termios::{SetArg, Termios, tcgetattr, tcsetattr};

use crate::terminal::{self, Size};

mod raw {
    // asm-generic/ioctls.h: TIOCSCTTY, TIOCSWINSZ.
    nix::ioctl_write_int_bad!(tiocsctty, 0x540e);
    nix::ioctl_write_ptr_bad!(tiocswinsz, 0x5414, libc::winsize);
}

const _: () = assert!(size_of::<libc::winsize>() == 8, "struct winsize, asm-generic/termios.h");

/// How a terminal treats what is typed and written, to be given back to it.
#[derive(Clone, Debug)]
pub struct Settings(Termios);

impl Settings {
    /// # Errors
    /// When it is no terminal.
    pub fn of(terminal: &File) -> io::Result<Self> {
        Ok(Self(tcgetattr(terminal)?))
    }

    /// # Errors
    /// When it is no terminal.
    pub fn give_back(&self, terminal: &File) -> io::Result<()> {
        Ok(tcsetattr(terminal, SetArg::TCSADRAIN, &self.0)?)
    }
}

/// Both ends of a new pseudo terminal.
#[derive(Debug)]
pub struct Pty {
    ours: File,
    theirs: OwnedFd,
}

impl Pty {
    /// One with the settings and the size of another terminal.
    ///
    /// # Errors
    /// When there are no pseudo terminals, or the other one is none.
    pub fn like(terminal: &File) -> io::Result<Self> {
        let settings = Settings::of(terminal)?;
        let pair = openpty(None, &settings.0)?;
        // A program that had our end too would never be hung up.
        for end in [&pair.master, &pair.slave] {
            fcntl(end, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
        }
        let ours = File::from(pair.master);
        if let Some(size) = terminal::size(terminal) {
            set_size(&ours, size)?;
        }
        Ok(Self { ours, theirs: pair.slave })
    }

    /// Starts a program as the leader of a session of its own, with this as its controlling terminal and as its three
    /// standard files. Our end reads what it writes, and writes what it reads; once that is closed, the kernel hangs the
    /// program up.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn spawn(self, command: &mut Command) -> io::Result<(File, Child)> {
        command.stdin(Stdio::from(self.theirs.try_clone()?));
        command.stdout(Stdio::from(self.theirs.try_clone()?)).stderr(Stdio::from(self.theirs));
        // SAFETY: the closure runs in the child between fork and exec, where only async-signal-safe calls are allowed: it
        // makes two system calls and allocates nothing.
        unsafe { command.pre_exec(lead_a_session) };
        let child = command.spawn()?;
        // The command keeps what it was given; as long as anybody has their end, ours does not learn of its end.
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Ok((self.ours, child))
    }
}

fn lead_a_session() -> io::Result<()> {
    nix::unistd::setsid()?;
    // SAFETY: TIOCSCTTY takes an integer, no pointer; descriptor 0 is the terminal that was just put there.
    unsafe { raw::tiocsctty(0, 0) }?;
    Ok(())
}

/// Tells the program at the other end, by a signal too.
///
/// # Errors
/// When it is no terminal.
pub fn set_size(terminal: &File, size: Size) -> io::Result<()> {
    let size = libc::winsize { ws_row: size.rows, ws_col: size.cols, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCSWINSZ reads one struct winsize, which `size` is for as long as the call lasts.
    unsafe { raw::tiocswinsz(terminal.as_raw_fd(), &raw const size) }?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};

    use super::*;

    /// What the program says up to its end, which the kernel tells as EIO.
    fn all(mut ours: &File) -> String {
        let (mut text, mut piece) = (Vec::new(), [0; 256]);
        while let Ok(n @ 1..) = ours.read(&mut piece) {
            text.extend_from_slice(&piece[..n]);
        }
        String::from_utf8_lossy(&text).into_owned()
    }

    #[test]
    fn a_program_has_the_terminal_to_itself_and_learns_its_size() {
        let outer = openpty(None, None).expect("a pseudo terminal");
        let outer = File::from(outer.slave);
        set_size(&outer, Size { rows: 33, cols: 101 }).expect("set");
        let pty = Pty::like(&outer).expect("another");
        let mut command = Command::new("sh");
        command.args(["-c", "stty size; read line; echo got:$line; tty"]);
        let (mut ours, mut child) = pty.spawn(&mut command).expect("started");
        ours.write_all(b"hello\r").expect("typed");
        let said = all(&ours);
        assert!(child.wait().expect("ended").success(), "{said}");
        assert!(said.contains("33 101") && said.contains("got:hello") && said.contains("/dev/pts/"), "{said}");
    }

    #[test]
    fn closing_our_end_hangs_the_program_up() {
        let outer = openpty(None, None).expect("a pseudo terminal");
        let pty = Pty::like(&File::from(outer.slave)).expect("another");
        let (ours, mut child) = pty.spawn(Command::new("sleep").arg("1000")).expect("started");
        drop(ours);
        assert!(!child.wait().expect("ended").success());
    }
}

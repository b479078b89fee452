//! Terminals that a person may sit at: their size and speed, how they treat what is typed, and who has one.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::MetadataExt as _;

use nix::sys::stat::{major, minor};
use nix::sys::termios::{
    BaudRate, ControlFlags, InputFlags, LocalFlags, OutputFlags, SetArg, SpecialCharacterIndices, cfgetospeed,
    tcgetattr, tcsetattr,
};

use crate::roots::Roots;

mod raw {
    // asm-generic/ioctls.h: TIOCGWINSZ.
    nix::ioctl_read_bad!(tiocgwinsz, 0x5413, libc::winsize);
}

const _: () = assert!(size_of::<libc::winsize>() == 8, "struct winsize, asm-generic/termios.h");

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Size {
    pub rows: u16,
    pub cols: u16,
}

/// As far as the kernel knows it: a virtual terminal's is always known, a serial line's hardly ever.
#[must_use]
pub fn size(terminal: &File) -> Option<Size> {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCGWINSZ writes one struct winsize, for which `size` has room.
    unsafe { raw::tiocgwinsz(terminal.as_raw_fd(), &raw mut size) }.ok()?;
    (size.ws_row > 0 && size.ws_col > 0).then_some(Size { rows: size.ws_row, cols: size.ws_col })
}

/// What is typed arrives at once, unchanged and without an echo; what is written goes out as it is.
///
/// # Errors
/// When it is no terminal.
pub fn set_raw(terminal: &File) -> io::Result<()> {
    let mut settings = tcgetattr(terminal)?;
    settings
        .local_flags
        .remove(LocalFlags::ICANON | LocalFlags::ECHO | LocalFlags::ECHONL | LocalFlags::ISIG | LocalFlags::IEXTEN);
    settings.input_flags.remove(
        InputFlags::ICRNL
            | InputFlags::INLCR
            | InputFlags::IGNCR
            | InputFlags::IXON
            | InputFlags::IXOFF
            | InputFlags::BRKINT,
    );
    settings.output_flags.remove(OutputFlags::OPOST);
    settings.control_flags.insert(ControlFlags::CREAD | ControlFlags::CLOCAL);
    settings.control_chars[SpecialCharacterIndices::VMIN as usize] = 1;
    settings.control_chars[SpecialCharacterIndices::VTIME as usize] = 0;
    Ok(tcsetattr(terminal, SetArg::TCSANOW, &settings)?)
}

/// As a shell expects it, whatever was there before.
///
/// # Errors
/// When it is no terminal.
pub fn set_sane(terminal: &File) -> io::Result<()> {
    let mut settings = tcgetattr(terminal)?;
    settings.local_flags.insert(
        LocalFlags::ICANON
            | LocalFlags::ECHO
            | LocalFlags::ECHOE
            | LocalFlags::ECHOK
            | LocalFlags::ISIG
            | LocalFlags::IEXTEN,
    );
    settings.input_flags.insert(InputFlags::ICRNL | InputFlags::IXON);
    settings.output_flags.insert(OutputFlags::OPOST | OutputFlags::ONLCR);
    settings.control_flags.insert(ControlFlags::CREAD | ControlFlags::CLOCAL);
    Ok(tcsetattr(terminal, SetArg::TCSANOW, &settings)?)
}

/// Of a serial line with eight data bits; `None` where it is not told.
#[must_use]
pub fn bytes_per_second(terminal: &File) -> Option<u32> {
    let settings = tcgetattr(terminal).ok()?;
    let baud = match cfgetospeed(&settings) {
        BaudRate::B1200 => 1200,
        BaudRate::B2400 => 2400,
        BaudRate::B4800 => 4800,
        BaudRate::B9600 => 9600,
        BaudRate::B19200 => 19_200,
        BaudRate::B38400 => 38_400,
        BaudRate::B57600 => 57_600,
        BaudRate::B115200 => 115_200,
        BaudRate::B230400 => 230_400,
        BaudRate::B460800 => 460_800,
        BaudRate::B921600 => 921_600,
        _ => return None,
    };
    // A start and a stop bit beside the eight.
    Some(baud / 10)
}

/// Whether some process has it as its controlling terminal: a shell that was left there, say.
///
/// # Errors
/// When it is no device, or procfs is not there.
pub fn has_session(roots: &Roots, terminal: &File) -> io::Result<bool> {
    let device = terminal.metadata()?.rdev();
    let (major, minor) = (major(device), minor(device));
    // As proc_pid_stat(5) gives tty_nr: the kernel's new_encode_dev.
    let number = (minor & 0xff) | (major << 8) | ((minor & !0xff) << 12);
    for entry in fs::read_dir(&roots.proc)? {
        let entry = entry?;
        if !entry.file_name().to_string_lossy().bytes().all(|b| b.is_ascii_digit()) {
            continue;
        }
        // Gone meanwhile is gone.
        let Ok(stat) = fs::read(entry.path().join("stat")) else { continue };
        if tty_of(&String::from_utf8_lossy(&stat)) == Some(number) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether a shell is open anywhere on this machine: some process has a terminal and is not init, whose children have one
/// while they ask whether somebody is there.
///
/// # Errors
/// When procfs is not there.
pub fn somebody_is_there(roots: &Roots) -> io::Result<bool> {
    for entry in fs::read_dir(&roots.proc)? {
        // Gone meanwhile is gone.
        let Ok(stat) = fs::read(entry?.path().join("stat")) else { continue };
        let stat = String::from_utf8_lossy(&stat);
        let name = stat.split_once('(').and_then(|(_, rest)| rest.rsplit_once(") ")).map(|(name, _)| name);
        if tty_of(&stat).is_some_and(|tty| tty != 0) && name != Some("init") {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The seventh field. The second, in parentheses, may hold anything.
fn tty_of(stat: &str) -> Option<u64> {
    let tty: i64 = stat.rsplit_once(") ")?.1.split(' ').nth(4)?.parse().ok()?;
    u64::try_from(tty).ok()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn the_controlling_terminal_is_found_behind_any_name() {
        assert_eq!(tty_of("7 (a ) b) S 1 7 7 1088 7 4194560 0"), Some(1088));
        assert_eq!(tty_of("7 (kthreadd) S 0 0 0 0 -1"), Some(0));
        assert_eq!(tty_of("7 (cut"), None);
    }

    #[test]
    fn a_shell_is_somebody_and_init_is_nobody() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let roots = Roots::under(dir.path());
        let add = |pid: &str, stat: &str| {
            fs::create_dir_all(roots.proc.join(pid)).expect("made");
            fs::write(roots.proc.join(pid).join("stat"), stat).expect("written");
        };
        add("1", "1 (init) S 0 1 1 0 -1");
        add("7", "7 (init) S 1 7 7 1026 -1");
        add("9", "9 (speediso-agent) S 1 9 9 0 -1");
        assert!(!somebody_is_there(&roots).expect("read"));
        add("11", "11 (sh) S 9 11 11 34816 11");
        assert!(somebody_is_there(&roots).expect("read"));
    }

    #[test]
    fn what_is_no_terminal_says_so() {
        let null = File::open(Path::new("/dev/null")).expect("a device");
        assert_eq!(size(&null), None);
        assert!(set_raw(&null).is_err() && set_sane(&null).is_err());
        assert_eq!(bytes_per_second(&null), None);
        assert!(!has_session(&Roots::live(), &null).expect("procfs"));
    }

    /// A pseudo terminal, as the kernel gives it.
    #[test]
    fn a_terminal_is_made_raw_and_sane_again() {
        let master = File::options().read(true).write(true).open("/dev/ptmx").expect("a pseudo terminal");
        set_raw(&master).expect("raw");
        let raw = tcgetattr(&master).expect("settings");
        assert!(!raw.local_flags.intersects(LocalFlags::ICANON | LocalFlags::ECHO | LocalFlags::ISIG));
        assert!(!raw.output_flags.contains(OutputFlags::OPOST));
        set_sane(&master).expect("sane");
        let sane = tcgetattr(&master).expect("settings");
        assert!(sane.local_flags.contains(LocalFlags::ICANON | LocalFlags::ECHO | LocalFlags::ISIG));
        assert!(sane.output_flags.contains(OutputFlags::OPOST | OutputFlags::ONLCR));
    }
}

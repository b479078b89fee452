//! `speediso-shell`: root's login shell in the live system, which records what is to be seen.
//!
//! Whatever comes by ssh comes through here, a shell, a command or a subsystem: the ssh server starts nothing but the
//! login shell. Only what is *shown* is recorded, never what is typed, so a password that is not echoed is in no
//! recording. It needs no agent and no controller: recordings are files in memory, and the agent sends them on.
//!
//! Who is root on the machine can end the recording from then on; what was sent before stays where it is.

mod clock;
mod relay;

use std::ffi::OsString;
use std::fs::File;
use std::io::{IsTerminal as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Duration;

use speediso_model::ssh::{Session, SessionId};
use speediso_sys::clock::uptime_ms;
use speediso_sys::terminal;

use crate::ssh::recordings::{self, Recording};
use clock::Limit;
use relay::Ended;

/// By this name it is a shell.
pub const NAME: &str = "speediso-shell";
/// The forced command of every key: no command at all, but who came.
pub(crate) const KEY: &str = "speediso-key";
/// The longest that anybody stays, whatever the key.
const LONGEST: Duration = Duration::from_secs(12 * 3600);
/// Of a command's output. A shell's recording has more room, [`speediso_model::ssh::MAX_RECORDING`].
const COMMAND_OUTPUT: u64 = 64 << 10;
const SHELL: &str = "/bin/sh";

/// Whether the program was called as a login shell, by its name.
#[must_use]
pub fn is_called(program: Option<&OsString>) -> bool {
    let name = program.and_then(|p| Path::new(p).file_name()).map(|n| n.to_string_lossy().into_owned());
    name.is_some_and(|name| name.trim_start_matches('-') == NAME)
}

/// What is wanted, and by whom.
#[derive(Debug, PartialEq, Eq)]
struct Wanted {
    /// `SHA256:...`
    key: String,
    command: Option<String>,
    limit: Option<u64>,
}

impl Wanted {
    /// `arguments` are those of a login shell: none, or `-c` and a command.
    fn of(arguments: &[String], original: Option<String>) -> Self {
        let command = match arguments {
            [flag, command, ..] if flag == "-c" => Some(command.as_str()),
            _ => None,
        };
        match command.and_then(|c| c.strip_prefix(KEY)).map(str::split_whitespace) {
            Some(mut words) => Self {
                key: words.next().unwrap_or("unknown").to_owned(),
                limit: words.next().and_then(|w| w.strip_prefix("until=")?.parse().ok()),
                command: original.filter(|o| !o.is_empty()),
            },
            None => Self { key: "unknown".into(), command: command.map(str::to_owned), limit: None },
        }
    }
}

/// Runs to the end of the session; the status is the shell's or the command's.
pub fn run(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let arguments: Vec<String> = arguments.map(|a| a.to_string_lossy().into_owned()).collect();
    let variable = |name: &str| std::env::var_os(name).map(|v| v.to_string_lossy().into_owned());
    let wanted = Wanted::of(&arguments, variable("SSH_ORIGINAL_COMMAND"));
    let connection = variable("SSH_CONNECTION").unwrap_or_default();
    let session = Session {
        id: SessionId(uuid::Uuid::new_v4()),
        key: wanted.key.clone(),
        from: connection.split(' ').next().filter(|from| !from.is_empty()).unwrap_or("this machine").to_owned(),
        command: wanted.command.clone(),
        began_ms: uptime_ms(),
        ended_ms: None,
        status: None,
        cut: false,
    };
    // What a person starts is ended before the agent when memory runs out.
    let _ = std::fs::write("/proc/self/oom_score_adj", "0");
    let terminal = File::from(match std::io::stdin().as_fd().try_clone_to_owned() {
        Ok(file) => file,
        Err(error) => return failed(&format!("standard input: {error}")),
    });
    let interactive = terminal.is_terminal();
    let room = if interactive { speediso_model::ssh::MAX_RECORDING } else { COMMAND_OUTPUT };
    let size = interactive.then(|| terminal::size(&terminal)).flatten();
    let recording = match Recording::begin(Path::new(recordings::DIR), session, size, room) {
        Ok(recording) => Some(recording),
        // A machine in trouble stays reachable; that nothing is kept is said here, and in the kernel's log, which is sent.
        Err(error) => {
            let what = format!("speediso-shell: a session of {} is NOT recorded: {error}\n", wanted.key);
            eprint!("{what}");
            let _ = File::options().write(true).open("/dev/kmsg").and_then(|mut log| log.write_all(what.as_bytes()));
            None
        }
    };
    let limit = Limit::new(LONGEST, wanted.limit);
    let mut command = shell(wanted.command.as_deref());
    let ended = if interactive {
        if wanted.command.is_none() {
            greet(recording.is_some());
        }
        relay::terminal(&terminal, &mut command, recording.as_ref(), &limit)
    } else {
        relay::pipes(&mut command, recording.as_ref(), &limit)
    };
    let (status, why) = match ended {
        Ok(Ended::Status(status)) => (status, None),
        Ok(Ended::TimeIsOver) => (255, Some("the time of this session is over; ask for access again")),
        Ok(Ended::Told) => (255, Some("the access of this session was ended")),
        Ok(Ended::Left) => (255, None),
        Err(error) => return failed(&format!("{SHELL}: {error}")),
    };
    if let Some(recording) = recording {
        recording.end(status);
    }
    if let Some(why) = why {
        eprint!("\r\nspeediso: {why}\r\n");
    }
    ExitCode::from(u8::try_from(status).unwrap_or(255))
}

fn shell(command: Option<&str>) -> Command {
    let mut shell = Command::new(SHELL);
    match command {
        Some(command) => shell.args(["-c", command]),
        None => shell.arg0("-sh"),
    };
    shell.env("SHELL", SHELL).env_remove("SSH_ORIGINAL_COMMAND");
    shell
}

/// The ssh server leaves this to us: to it everything is a command.
fn greet(recorded: bool) {
    let motd = std::fs::read_to_string("/etc/motd").unwrap_or_default();
    print!("{motd}{}", if recorded { "What this session shows is recorded.\n" } else { "" });
    let _ = std::io::stdout().flush();
}

fn failed(what: &str) -> ExitCode {
    eprintln!("speediso-shell: {what}");
    ExitCode::FAILURE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_a_shell_by_its_name_only() {
        let called = |name: &str| is_called(Some(&OsString::from(name)));
        assert!(called("-speediso-shell") && called("/sbin/speediso-shell"));
        assert!(!called("speediso-agent") && !is_called(None));
    }

    #[test]
    fn who_came_for_what() {
        let of = |arguments: &[&str], original: Option<&str>| {
            let arguments: Vec<String> = arguments.iter().map(|a| (*a).to_owned()).collect();
            Wanted::of(&arguments, original.map(str::to_owned))
        };
        let keyed = of(&["-c", "speediso-key SHA256:abc until=5000"], Some("ls; id"));
        assert_eq!(
            (keyed.key.as_str(), keyed.command.as_deref(), keyed.limit),
            ("SHA256:abc", Some("ls; id"), Some(5000))
        );
        assert_eq!(of(&["-c", "speediso-key SHA256:abc"], Some("")).command, None);
        // Nobody who comes by another way passes for a key, nor around the recording.
        assert_eq!(
            of(&["-c", "reboot"], None),
            Wanted { key: "unknown".into(), command: Some("reboot".into()), limit: None }
        );
        assert_eq!(of(&[], None).command, None);
    }
}

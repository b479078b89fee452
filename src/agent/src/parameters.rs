//! Parameters from the medium that was booted from, beside those of the kernel command line.
//!
//! The same words mean the same. Where both have a key, the command line's counts, and all of it: two names of SSH keys on
//! the line are not joined by a third from the medium. Only disks to skip add up, since leaving one out is never the safe
//! reading. What is wrong here is an error like any other of the command line.

use speediso_model::fault::{Fault, FaultCode};
use speediso_sys::medium::FILE;
use speediso_sys::roots::Roots;

use crate::cmdline::{Config, OwnTasks, words};

/// Where the text is kept for an agent that is restarted, and for commands typed by hand.
pub(crate) const KEPT: &str = "parameters";

/// They count before the medium is read.
const TOO_LATE: [&str; 4] = ["speediso.medium", "speediso.console", "speediso.console_shell", "speediso.debug"];

/// The command line that the two make together.
///
/// # Errors
/// `cmdline-invalid`, with the line of the file.
pub(crate) fn together(line: &str, text: &str) -> Result<String, Fault> {
    let ours: Vec<String> = words(line).iter().map(|(key, value)| name(key, value.as_deref())).collect();
    let mut effective = String::new();
    for (number, row) in text.trim_start_matches('\u{feff}').lines().enumerate() {
        let row = row.trim();
        if row.is_empty() || row.starts_with('#') {
            continue;
        }
        let wrong = |what: String| {
            Fault::new(FaultCode::CmdlineInvalid, format!("line {} of {FILE} on the boot medium: {what}", number + 1))
        };
        if !row.matches('"').count().is_multiple_of(2) {
            return Err(wrong("a quote is not closed".to_owned()));
        }
        for (key, value) in words(row) {
            let name = name(&key, value.as_deref());
            if TOO_LATE.contains(&key.as_str()) {
                return Err(wrong(format!("{key} must stand on the command line: it counts before this file is read")));
            }
            // A blank in a key would make two of it below.
            let known = name.starts_with("speediso.") && !name.contains(char::is_whitespace)
                || ["SPEEDISO", "ip", "BOOTIF"].contains(&name.as_str());
            let (true, Some(value)) = (known, &value) else {
                return Err(wrong(format!("{key} is no key for this file")));
            };
            if name == "speediso.skip" || !ours.contains(&name) {
                effective.push_str(&format!("{key}=\"{value}\" "));
            }
        }
    }
    Ok(effective + line)
}

/// Both spellings of `SPEEDISO=` are one key.
fn name(key: &str, value: Option<&str>) -> String {
    let is_profiles = key == "systemd.setenv" && value.is_some_and(|value| value.starts_with("SPEEDISO="));
    if is_profiles { "SPEEDISO".to_owned() } else { key.to_owned() }
}

/// The command line of this boot, with what the agent found on the medium.
///
/// # Errors
/// When there should be such parameters and they have not been read: they may hold a skip list.
pub(crate) fn of_boot(roots: &Roots) -> Result<String, Fault> {
    let line = std::fs::read_to_string(roots.proc.join("cmdline")).unwrap_or_default();
    let named = words(&line).into_iter().rev().find(|(key, _)| key == "speediso.medium").and_then(|(_, value)| value);
    if named.is_none_or(|value| value == "off") {
        return Ok(line);
    }
    let kept = roots.run.join(KEPT);
    match std::fs::read_to_string(&kept) {
        Ok(text) => together(line.trim_end(), &text),
        Err(e) => Err(Fault::new(
            FaultCode::CmdlineInvalid,
            "the parameters of the boot medium were not read, and they may name disks to leave alone; \
             boot with the medium in place, or with speediso.medium=off",
        )
        .because(format!("reading {}: {e}", kept.display()))),
    }
}

/// Of a line that is longer than the kernel's ever is.
///
/// # Errors
/// As [`Config::from_cmdline`].
pub(crate) fn config(effective: &str) -> Result<Config, Fault> {
    Config::from_words(words(effective), &OwnTasks::of(effective))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ssh;
    use proptest::prelude::*;

    fn of(line: &str, text: &str) -> Config {
        config(&together(line, text).expect("good")).expect("good")
    }

    #[test]
    fn the_command_line_counts_first() {
        let text = "\u{feff}# my site\r\nip=192.0.2.5::192.0.2.1:255.255.255.0\r\nSPEEDISO=burnin speediso.ssh=off\r\n\
                    speediso.sshkey=\"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA me\"\r\n";
        let alone = of("quiet", text);
        assert_eq!(alone.ip.as_deref(), Some("192.0.2.5::192.0.2.1:255.255.255.0"));
        assert_eq!((alone.profiles.len(), alone.ssh, alone.ssh_keys.len()), (1, ssh::Word::Off, 1));
        let both = of("ip=dhcp systemd.setenv=SPEEDISO=inventory speediso.ssh=on", text);
        assert_eq!(both.ip.as_deref(), Some("dhcp"));
        assert_eq!(both.profiles, [speediso_model::profile::Profile::Inventory]);
        assert!(both.ssh == ssh::Word::On && both.ssh_keys.len() == 1);
        assert!(of("speediso.skip=serial=A", "speediso.skip=serial=B").skip.0.len() == 2, "skips add up");
    }

    #[test]
    fn a_long_file_is_no_long_line() {
        let text = format!("{}\nspeediso.skip=serial=S1\n", "# a comment\n".repeat(1000));
        assert_eq!(of("quiet", &text).skip.0.len(), 1);
        let keys = "speediso.skip=model=\"A B\"\n".repeat(20);
        assert_eq!(of(&"x".repeat(1900), &keys).skip.0.len(), 20);
    }

    #[test]
    fn mistakes_are_told_with_their_line() {
        for bad in [
            "init=/bin/sh",
            "\"speediso.ssh init=off\"",
            "speediso.medium=x",
            "speediso.debug=1",
            "ip",
            "speediso.arm=\"x",
            "console=tty0",
        ] {
            let fault = together("quiet", &format!("# one\n{bad}\n")).expect_err(bad);
            assert!(fault.code == FaultCode::CmdlineInvalid && fault.to_string().contains("line 2"), "{fault}");
        }
        assert!(config(&together("", "speediso.contoller=https://x\n").expect("a word")).is_err());
        // Orders come from one side, wherever they stand.
        let pin = format!("speediso.controller=https://x speediso.ca=sha256:{}", "ab".repeat(32));
        assert!(config(&together(&pin, "speediso.arm=S1\n").expect("a word")).is_err());
    }

    #[test]
    fn commands_by_hand_obey_the_medium_too() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let roots = Roots::under(dir.path());
        std::fs::create_dir_all(&roots.proc).expect("made");
        std::fs::create_dir_all(&roots.run).expect("made");
        let line = |text: &str| std::fs::write(roots.proc.join("cmdline"), text).expect("written");
        line("quiet\n");
        assert_eq!(of_boot(&roots).expect("no medium"), "quiet\n");
        line("speediso.medium=0 speediso.medium=off\n");
        assert!(of_boot(&roots).is_ok());
        line("speediso.medium=0\n");
        assert!(of_boot(&roots).is_err(), "not read yet");
        std::fs::write(roots.run.join(KEPT), "speediso.skip=serial=S1\n").expect("written");
        assert_eq!(of_boot(&roots).expect("read"), "speediso.skip=\"serial=S1\" speediso.medium=0");
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(line in "[ -~]{0,80}", text in "\\PC{0,200}|([ -~]{0,20}\n){0,10}") {
            if let Ok(effective) = together(&line, &text) {
                prop_assert!(effective.ends_with(&line));
                let _ = config(&effective);
            }
        }
    }
}

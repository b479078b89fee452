//! One line of the log as RFC 5424 has it. Pure.

use std::fmt::Write as _;

use speediso_model::log::{LogLine, LogSource};

/// Facilities of RFC 5424, section 6.2.1.
const KERNEL: u8 = 0;
const DAEMON: u8 = 3;

/// The number that IANA set aside for examples (RFC 5612): the project has none of its own.
const ENTERPRISE: &str = "speediso@32473";

/// Whose log it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// Of the machine, from SMBIOS.
    pub serial: String,
    /// The kernel's name for this boot.
    pub boot: String,
    /// Number of the ramdisk's build.
    pub build: u64,
    /// Before there is a name: the machine's address.
    pub host: String,
}

/// `<PRI>1 TIME HOST APP PROC MSGID [...] TEXT`.
#[must_use]
pub fn message(line: &LogLine, at: jiff::Timestamp, origin: &Origin, run: Option<&str>, sequence: u32) -> String {
    let (facility, app) = match line.source {
        LogSource::Kernel => (KERNEL, "kernel"),
        LogSource::Agent | LogSource::Unknown => (DAEMON, "speediso-agent"),
    };
    let priority = facility * 8 + line.level.syslog_severity();
    let host = header(&origin.host, 255);
    // Nobody has compared this machine's clock with a server of time, whatever it shows.
    let mut text = format!(
        "<{priority}>1 {at:.3} {host} {app} - - [timeQuality tzKnown=\"1\" isSynced=\"0\"][meta sequenceId=\"{sequence}\"][{ENTERPRISE}"
    );
    let mut parameter = |name: &str, value: &str| {
        if !value.is_empty() {
            let _ = write!(text, " {name}=\"{}\"", escaped(value));
        }
    };
    parameter("serial", &origin.serial);
    parameter("boot", &origin.boot);
    parameter("build", &origin.build.to_string());
    parameter("run", run.unwrap_or_default());
    parameter("uptime", &format!("{}.{:03}", line.uptime_ms / 1000, line.uptime_ms % 1000));
    text.push_str("] ");
    if !line.text.is_ascii() {
        // Section 6.4: this is how a receiver knows that it is UTF-8.
        text.push('\u{feff}');
    }
    text.push_str(&line.text);
    text
}

/// Of the header only printable ASCII without blanks; `-` where there is nothing.
fn header(text: &str, most: usize) -> String {
    let word: String = text.chars().filter(char::is_ascii_graphic).take(most).collect();
    if word.is_empty() { "-".to_owned() } else { word }
}

fn escaped(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    for c in value.chars().filter(|c| !c.is_control()) {
        if matches!(c, '"' | '\\' | ']') {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use speediso_model::log::LogLevel;

    use super::*;

    fn line(text: &str) -> LogLine {
        LogLine { seq: 1, uptime_ms: 4123, level: LogLevel::Warn, source: LogSource::Agent, text: text.into() }
    }

    fn at() -> jiff::Timestamp {
        jiff::Timestamp::from_millisecond(1_700_000_000_005).expect("a time")
    }

    #[test]
    fn a_line_is_as_the_rfc_says() {
        let origin = Origin { serial: "S\"1]".into(), boot: "b".into(), build: 42, host: "web 1".into() };
        assert_eq!(
            message(&line("no disk"), at(), &origin, Some("r"), 7),
            "<28>1 2023-11-14T22:13:20.005Z web1 speediso-agent - - [timeQuality tzKnown=\"1\" isSynced=\"0\"]\
             [meta sequenceId=\"7\"][speediso@32473 serial=\"S\\\"1\\]\" boot=\"b\" build=\"42\" run=\"r\" uptime=\"4.123\"] no disk"
        );
        let kernel = LogLine { source: LogSource::Kernel, level: LogLevel::Error, ..line("\u{e4}") };
        let said = message(&kernel, at(), &Origin::default(), None, 1);
        assert!(said.starts_with("<3>1 2023-11-14T22:13:20.005Z - kernel - - ["), "{said}");
        assert!(said.ends_with("] \u{feff}\u{e4}"), "{said}");
    }

    /// Priority, header words, parameters of the structured data, text.
    type Parsed<'a> = (u8, Vec<&'a str>, Vec<(String, String)>, &'a str);

    /// As a strict receiver takes it apart.
    fn parsed(message: &str) -> Option<Parsed<'_>> {
        let (priority, rest) = message.strip_prefix('<')?.split_once(">1 ")?;
        let mut words = rest.splitn(6, ' ');
        let header: Vec<&str> = words.by_ref().take(5).collect();
        let data = words.next()?;
        let (mut parameters, mut at) = (Vec::new(), 0);
        let bytes = data.as_bytes();
        while bytes.get(at) == Some(&b'[') {
            at += data[at..].find([' ', ']'])?;
            while bytes[at] == b' ' {
                let equals = at + data[at..].find("=\"")?;
                let name = data[at + 1..equals].to_owned();
                at = equals + 2;
                let mut value = String::new();
                let mut chars = data[at..].char_indices();
                loop {
                    let (i, c) = chars.next()?;
                    match c {
                        '"' => {
                            at += i + 1;
                            break;
                        }
                        '\\' => value.push(chars.next()?.1),
                        ']' => return None,
                        c => value.push(c),
                    }
                }
                parameters.push((name, value));
            }
            at += (bytes[at] == b']').then_some(1)?;
        }
        Some((priority.parse().ok()?, header, parameters, data[at..].strip_prefix(' ')?))
    }

    proptest! {
        #[test]
        fn whatever_the_machine_is_called_the_message_is_parsed(
            serial in "[ -~\\u{80}-\\u{ff}]{0,30}", host in "\\PC{0,20}", text in "\\PC{0,60}", sequence in 1u32..0x7fff_ffff,
        ) {
            let origin = Origin { serial: serial.clone(), host, ..Origin::default() };
            let said = message(&line(&text), at(), &origin, None, sequence);
            let (priority, header, parameters, told) = parsed(&said).expect("well formed");
            prop_assert_eq!(priority, 28);
            prop_assert!(header.iter().all(|w| !w.is_empty() && w.bytes().all(|b| b.is_ascii_graphic())));
            let visible: String = serial.chars().filter(|c| !c.is_control()).collect();
            let of = |name: &str| parameters.iter().find(|(n, _)| n == name).map(|(_, v)| v.clone()).unwrap_or_default();
            prop_assert_eq!(of("serial"), visible);
            prop_assert_eq!(of("sequenceId"), sequence.to_string());
            prop_assert_eq!(told.trim_start_matches('\u{feff}'), text.trim_start_matches('\u{feff}'));
        }
    }
}

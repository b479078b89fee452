//! What an agent writes to its log, as it travels to the controller and to whoever asks for it.
//!
//! Lines may be lost, which is said; they never hold up anything. They are redacted where they are made.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::id::{BootId, Epoch};

/// Longer lines are cut, visibly.
pub const MAX_TEXT: usize = 1024;
/// Most lines of one delivery.
pub const MAX_LINES: usize = 500;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    /// From a newer writer.
    #[serde(other)]
    Unknown,
}

impl LogLevel {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Error => "ERROR",
            Self::Warn => "WARN",
            Self::Info => "INFO",
            Self::Debug => "DEBUG",
            Self::Unknown => "?",
        }
    }

    /// As in RFC 5424, section 6.2.1.
    #[must_use]
    pub fn syslog_severity(self) -> u8 {
        match self {
            Self::Error => 3,
            Self::Warn => 4,
            Self::Info | Self::Unknown => 6,
            Self::Debug => 7,
        }
    }
}

/// Who says it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogSource {
    Agent,
    Kernel,
    #[serde(other)]
    Unknown,
}

impl LogSource {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Kernel => "kernel",
            Self::Unknown => "unknown",
        }
    }
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct LogLine {
    /// Grows within a boot and source. The same number again is the same line again.
    pub seq: u64,
    /// Milliseconds since the kernel started.
    pub uptime_ms: u64,
    pub level: LogLevel,
    pub source: LogSource,
    /// One line, without control characters and without secrets.
    pub text: String,
}

/// As on the console: `[    4.123]  WARN text`.
impl fmt::Display for LogLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, ms) = (self.uptime_ms / 1000, self.uptime_ms % 1000);
        write!(f, "[{seconds:5}.{ms:03}] {:>5} ", self.level.name())?;
        if self.source == LogSource::Kernel {
            f.write_str("kernel: ")?;
        }
        f.write_str(&self.text)
    }
}

/// Makes one line of what may be anything: no control character leaves the machine, and none reaches a terminal.
#[must_use]
pub fn one_line(text: &str) -> String {
    let mut line: String = text.trim_end().chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if line.len() > MAX_TEXT {
        const CUT: &str = " ...";
        let end = (0..=MAX_TEXT - CUT.len()).rev().find(|i| line.is_char_boundary(*i)).unwrap_or(0);
        line.truncate(end);
        line.push_str(CUT);
    }
    line
}

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct LogsRequest {
    pub epoch: Epoch,
    #[serde(default)]
    pub lines: Vec<LogLine>,
    /// Lines that were pushed out before they could be sent, since the last delivery that was answered.
    #[serde(default)]
    pub lost: u64,
    /// The latest findings of the network doctor, if it ran.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network_doctor: Option<Value>,
}

#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LogsQuery {
    /// Lines after this cursor.
    pub after: i64,
    /// Of this boot only.
    pub boot: Option<BootId>,
    pub limit: Option<u32>,
    /// Seconds to wait when there is none.
    pub wait: u64,
}

/// A line as stored.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct StoredLine {
    /// Counts up over all machines.
    pub cursor: i64,
    pub boot: BootId,
    pub received: jiff::Timestamp,
    #[serde(flatten)]
    pub line: LogLine,
}

/// A boot of which lines are kept.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct LogBoot {
    pub boot: BootId,
    pub epoch: Epoch,
    pub first: jiff::Timestamp,
    pub last: jiff::Timestamp,
    /// Lines kept now.
    pub lines: u64,
    /// Lines that the agent could not send in time, or that were removed to make room.
    pub lost: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network_doctor: Option<Value>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_line_is_one_line_and_bounded(text in "\\PC{0,20}[\\x00-\\x1f\\x7f-\\u{9f}]{0,5}\\PC{0,1500}") {
            let line = one_line(&text);
            prop_assert!(line.len() <= MAX_TEXT);
            prop_assert!(!line.chars().any(char::is_control));
        }
    }

    #[test]
    fn lines_look_as_on_the_console() {
        let line =
            LogLine { seq: 1, uptime_ms: 4123, level: LogLevel::Warn, source: LogSource::Agent, text: "a".into() };
        assert_eq!(line.to_string(), "[    4.123]  WARN a");
        let line = LogLine { source: LogSource::Kernel, ..line };
        assert_eq!(line.to_string(), "[    4.123]  WARN kernel: a");
    }
}

//! From `tracing` to the log.

use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::sync::Mutex;

use speediso_model::log::LogLevel;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::Context;

use super::Logs;
use crate::state;

/// Everything that was said in this boot, for whoever comes by ssh; the motd names it.
pub(crate) const FILE: &str = "/run/speediso/agent.log";

/// The target of lines that systemd's journal has already.
pub(crate) const FROM_JOURNAL: &str = "journal";

#[must_use]
pub fn filter(debug: bool) -> Targets {
    let chatter = ["h2", "hyper", "rustls"].map(|name| (name, LevelFilter::INFO));
    if debug {
        Targets::new().with_default(LevelFilter::DEBUG).with_targets(chatter)
    } else {
        Targets::new().with_default(LevelFilter::INFO)
    }
}

#[derive(Debug)]
pub struct LogLayer {
    logs: Logs,
    file: Option<Mutex<File>>,
    /// Standard error goes to systemd's journal.
    journal: bool,
}

impl LogLayer {
    /// Keeps plain lines in a file too, in memory and for root only.
    #[must_use]
    pub fn with_file(logs: Logs) -> Self {
        let file = std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(state::DEFAULT)
            .and_then(|()| OpenOptions::new().append(true).create(true).mode(0o600).open(FILE));
        Self { logs, file: file.ok().map(Mutex::new), journal: std::env::var_os("JOURNAL_STREAM").is_some() }
    }
}

impl<S: Subscriber> Layer<S> for LogLayer {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut text = Text::default();
        event.record(&mut text);
        let level = match *event.metadata().level() {
            Level::ERROR => LogLevel::Error,
            Level::WARN => LogLevel::Warn,
            Level::INFO => LogLevel::Info,
            _ => LogLevel::Debug,
        };
        let line = self.logs.say(level, &text.whole());
        if let Some(file) = &self.file
            && let Ok(mut file) = file.lock()
        {
            // The ring has it in any case.
            let _ = writeln!(file, "{line}");
        }
        // What came from the journal is in it.
        if self.journal && event.metadata().target() != FROM_JOURNAL {
            // sd-daemon(3): the level in front. The journal has times of its own.
            let priority = match level {
                LogLevel::Error => 3,
                LogLevel::Warn => 4,
                LogLevel::Info => 6,
                _ => 7,
            };
            let _ = writeln!(std::io::stderr(), "<{priority}>{}", line.text);
        }
    }
}

/// The message, then the other fields as `name=value`.
#[derive(Default)]
struct Text {
    message: String,
    fields: String,
}

impl Text {
    fn whole(mut self) -> String {
        if !self.message.is_empty() && !self.fields.is_empty() {
            self.message.push(' ');
        }
        self.message + self.fields.trim_end()
    }
}

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        // Writing to a String cannot fail.
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, "{name}={value:?} "),
        };
    }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    #[test]
    fn what_is_said_is_kept_as_one_line_without_secrets() {
        let logs = Logs::default();
        let layer = LogLayer { logs: logs.clone(), file: None, journal: false };
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            tracing::warn!(disk = "sda", n = 3, "two\nlines\x1b[2J speediso.token=CANARY");
        });
        let kept = logs.kept();
        assert_eq!(kept.len(), 1);
        assert_eq!(kept[0].level, LogLevel::Warn);
        assert_eq!(kept[0].text, "two lines [2J speediso.token=(secret) disk=\"sda\" n=3");
    }
}

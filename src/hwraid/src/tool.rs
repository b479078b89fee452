//! Calling a vendor's tool, and what every adaptor can do with its own.

use std::fmt;
use std::io;

use crate::goal::NewVolume;
use crate::view::{Drive, View, Volume};

/// One call: arguments, never a shell line, and what to answer if the tool asks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Command {
    pub args: Vec<String>,
    pub stdin: Option<&'static str>,
}

impl Command {
    pub(crate) fn new<const N: usize>(args: [&str; N]) -> Self {
        Self { args: args.map(str::to_owned).to_vec(), stdin: None }
    }

    #[must_use]
    pub(crate) fn arg(mut self, arg: impl Into<String>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// Says yes to a question that the tool has no option against.
    #[must_use]
    pub(crate) fn answering_yes(mut self) -> Self {
        self.stdin = Some("y\n");
        self
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.args.join(" "))
    }
}

/// What a call left behind.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Printed {
    /// The exit code; none if a signal ended it.
    pub status: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// A program of one of the families, ready to be called.
pub trait Tool {
    /// Its file name, for people.
    fn name(&self) -> &str;

    /// # Errors
    /// When the program cannot be started, or does not end in time. That it ended badly is no error here.
    fn run(&self, command: &Command) -> Result<Printed, ToolError>;
}

#[derive(Debug, thiserror::Error)]
pub enum ToolError {
    #[error("starting {program}")]
    Start {
        program: String,
        #[source]
        source: io::Error,
    },
    #[error("{program} {command} did not end within {seconds} s and was killed")]
    TimedOut { program: String, command: String, seconds: u64 },
    #[error("{program} {command}: its output could not be taken")]
    Lost {
        program: String,
        command: String,
        #[source]
        source: io::Error,
    },
    #[error("{command} printed something else than this version knows: {what}")]
    NotUnderstood { command: String, what: String, printed: String },
    #[error("{command} was declined: {said}")]
    Declined { command: String, said: String, printed: String },
}

impl ToolError {
    pub(crate) fn not_understood(command: &Command, what: impl Into<String>, printed: &Printed) -> Self {
        Self::NotUnderstood { command: command.to_string(), what: what.into(), printed: whole(printed) }
    }
}

/// Everything a call printed, for a fault.
pub(crate) fn whole(printed: &Printed) -> String {
    let status = printed.status.map_or("ended by a signal".to_owned(), |code| format!("exit code {code}"));
    format!("{status}\n{}\n{}", printed.stdout.trim(), printed.stderr.trim()).trim().to_owned()
}

/// Something that this version does not ask of a tool, and why.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{tool}: {verb} is not done by this version: {why}")]
pub struct Waits {
    pub tool: &'static str,
    pub verb: &'static str,
    pub why: &'static str,
}

/// How one family of tools is asked. Every method that returns a [`Command`] only renders it.
pub trait Adaptor: Sync {
    /// All controllers of this family, with everything on them.
    ///
    /// # Errors
    /// When the tool cannot be run, or prints what is not understood: nothing is guessed.
    fn look(&self, tool: &dyn Tool) -> Result<Vec<View>, ToolError>;

    /// Whether a volume can be given a name at its creation and shows it afterwards.
    fn keeps_names(&self) -> bool;

    /// # Errors
    /// When this is not asked of the tool by this version.
    fn delete(&self, view: &View, volume: &Volume) -> Result<Command, Waits>;

    /// # Errors
    /// As above.
    fn clear_foreign(&self, view: &View) -> Result<Command, Waits>;

    /// # Errors
    /// As above.
    fn discard_cache(&self, view: &View) -> Result<Command, Waits>;

    /// Makes a drive that is handed through to the system one that volumes can be made of.
    ///
    /// # Errors
    /// As above.
    fn make_good(&self, view: &View, drive: &Drive) -> Result<Command, Waits>;

    /// # Errors
    /// As above, also when it cannot give the volume a property that is wished for.
    fn create(&self, view: &View, volume: &NewVolume) -> Result<Command, Waits>;

    /// By the volume's number.
    ///
    /// # Errors
    /// As above.
    fn make_boot(&self, view: &View, id: &str) -> Result<Command, Waits>;
}

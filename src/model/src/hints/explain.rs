//! Why a disk was chosen, and every other one was not.

use std::fmt;

use serde::Serialize;

/// One property that was asked for, on one disk.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Property {
    pub name: &'static str,
    pub agrees: bool,
    pub wanted: String,
    pub found: String,
}

impl fmt::Display for Property {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is {}", self.name, self.found)?;
        if self.agrees { Ok(()) } else { write!(f, ", not {}", self.wanted) }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The one.
    Taken,
    /// It has all that was asked for, but another one was taken, or none, since several have.
    Matches,
    /// It has all that was asked for and must not be written; the reason says why.
    Excluded,
    Differs,
}

impl Verdict {
    fn name(self) -> &'static str {
        match self {
            Self::Taken => "taken",
            Self::Matches => "matches",
            Self::Excluded => "excluded",
            Self::Differs => "differs",
        }
    }
}

/// One disk of the machine, held against the hints.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Considered {
    /// The kernel's name this time.
    pub name: String,
    /// By which a person recognises it.
    pub disk: String,
    pub verdict: Verdict,
    /// All that was asked for, agreeing or not.
    pub properties: Vec<Property>,
    /// Why it must not be written, if it must not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl Considered {
    /// Why it is not the one, or why it is, in one line.
    #[must_use]
    pub fn why(&self) -> String {
        match self.verdict {
            Verdict::Differs => {
                let agreeing: Vec<&str> = self.properties.iter().filter(|p| p.agrees).map(|p| p.name).collect();
                match agreeing.as_slice() {
                    [] => self.list(false),
                    names => format!("{}; the same in {}", self.list(false), names.join(", ")),
                }
            }
            Verdict::Excluded => self.reason.clone().unwrap_or_default(),
            Verdict::Taken => self.list(true),
            Verdict::Matches => "matches".to_owned(),
        }
    }

    fn list(&self, agreeing: bool) -> String {
        let properties = self.properties.iter().filter(|property| property.agrees == agreeing);
        properties.map(ToString::to_string).collect::<Vec<_>>().join("; ")
    }

    /// The same where several are asked for, and one that is taken is not the only one.
    #[must_use]
    pub(crate) fn why_member(&self) -> String {
        if self.verdict == Verdict::Taken { "matches".to_owned() } else { self.why() }
    }
}

/// What hints mean on a machine.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Explanation {
    /// `3 disks here, 1 matches serial="S1"`
    pub summary: String,
    pub disks: Vec<Considered>,
}

impl Explanation {
    /// The line of a disk, by the kernel's name.
    #[must_use]
    pub fn of(&self, name: &str) -> Option<&Considered> {
        self.disks.iter().find(|considered| considered.name == name)
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.summary)?;
        for considered in &self.disks {
            let why = match considered.verdict {
                Verdict::Matches => considered.list(true),
                _ => considered.why(),
            };
            write!(f, "\n  {:<8} {}: {why}", considered.verdict.name(), considered.disk)?;
        }
        Ok(())
    }
}

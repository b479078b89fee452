//! The recorded outputs (`fixtures/INDEX.md`), and a tool that gives them.

use std::cell::RefCell;

use crate::tool::{Command, Printed, Tool, ToolError};

macro_rules! fixture {
    ($path:literal) => {
        include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/", $path))
    };
}
pub(crate) use fixture;

/// Answers the calls it knows; any other is a mistake of the test.
pub(crate) struct Recorded {
    name: &'static str,
    answers: Vec<(&'static str, &'static str)>,
    asked: RefCell<Vec<String>>,
}

impl Recorded {
    pub(crate) fn new(name: &'static str, answers: &[(&'static str, &'static str)]) -> Self {
        Self { name, answers: answers.to_vec(), asked: RefCell::default() }
    }

    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.borrow().clone()
    }
}

impl Tool for Recorded {
    fn name(&self) -> &str {
        self.name
    }

    fn run(&self, command: &Command) -> Result<Printed, ToolError> {
        let line = command.to_string();
        self.asked.borrow_mut().push(line.clone());
        let (_, stdout) = self
            .answers
            .iter()
            .find(|(asked, _)| *asked == line)
            .unwrap_or_else(|| panic!("{} was asked {line:?}, which is not recorded", self.name));
        Ok(Printed { status: Some(0), stdout: (*stdout).to_owned(), stderr: String::new() })
    }
}

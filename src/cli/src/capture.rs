//! From what a person typed to the order for a capture.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, Result, anyhow, bail};
use speediso_model::capture::{CaptureTarget, CaptureTask};
use speediso_model::partition::PartitionName;
use speediso_model::task::Task;

use crate::args::CaptureArgs;

pub(crate) fn task(args: &CaptureArgs) -> Result<Task> {
    if args.headers.is_some() && args.url.is_none() {
        bail!("--headers are for a --url");
    }
    let headers = args.headers.as_deref().map(headers).transpose()?.unwrap_or_default();
    let task = Task::Capture(CaptureTask {
        device: args.device.clone(),
        partition: args.partition.as_deref().map(partition),
        to: CaptureTarget { store: args.name.clone(), url: args.url.clone(), headers },
        level: args.level,
    });
    task.validate().map_err(|fault| anyhow!(fault.message))?;
    Ok(task)
}

/// A partition that is called like a number or a UUID is named by the other two.
fn partition(text: &str) -> PartitionName {
    if let Ok(number) = text.parse() {
        return PartitionName::Number(number);
    }
    text.parse().map_or_else(|_| PartitionName::Label(text.to_owned()), PartitionName::Uuid)
}

/// From a file, since what is on a command line is seen by everybody.
fn headers(file: &Path) -> Result<BTreeMap<String, String>> {
    let text = std::fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
    let mut headers = BTreeMap::new();
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        // Not the line itself: it may hold a secret.
        let (name, value) =
            line.split_once(':').with_context(|| format!("{} has a line without a colon", file.display()))?;
        if headers.insert(name.trim().to_owned(), value.trim().to_owned()).is_some() {
            bail!("{} has {} twice", file.display(), name.trim());
        }
    }
    Ok(headers)
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::args::{Args, Command};

    fn typed(words: &str) -> Result<Task> {
        let words =
            ["speediso", "capture", "web1", "--device", "serial=S1"].into_iter().chain(words.split_whitespace());
        match Args::try_parse_from(words)?.command {
            Command::Capture(args) => task(&args),
            other => bail!("{other:?}"),
        }
    }

    fn capture(words: &str) -> CaptureTask {
        match typed(words).expect(words) {
            Task::Capture(task) => task,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_is_typed_is_what_is_ordered() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("headers");
        std::fs::write(&file, "Authorization: Bearer x:y\n\nX-Site: 3\n").expect("written");
        let task = capture("--name golden --partition 2");
        assert_eq!((task.to.store.as_deref(), task.partition), (Some("golden"), Some(PartitionName::Number(2))));
        let task = capture(&format!("--url https://h/i --headers {} --level 9 --partition root", file.display()));
        assert_eq!((task.to.headers["Authorization"].as_str(), task.level), ("Bearer x:y", 9));
        assert_eq!(task.partition, Some(PartitionName::Label("root".into())));
        let task = capture("--name a --partition 6f3c0f32-14c1-4ee6-8a3c-6d0c4bb2a111");
        assert!(matches!(task.partition, Some(PartitionName::Uuid(_))));
        for bad in ["", "--name a --url https://h/", "--name ../a", "--url ftp://h/", "--name a --headers /dev/null"] {
            assert!(typed(bad).is_err(), "{bad}");
        }
    }
}

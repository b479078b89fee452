//! The distribution's own apt: asked for versions and digests, told to fetch; nothing is ever installed.
//!
//! What the system's lists leave out (firmware that is not free, backports, another machine's packages) is asked of an
//! apt state of our own, made from the system's own sources and keys. The system's configuration is read, never changed.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::str::FromStr;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::arch::Arch;
use crate::cache::Cache;
use crate::packages::hex;
use crate::tool;

const DAY: u64 = 24 * 3600;

/// Which lists a package is in.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Origin {
    /// The system's.
    #[default]
    System,
    /// A component beside `main`, of the same suites: `non-free-firmware`.
    Component(String),
    /// Another suite of the same mirror: `bookworm-backports`.
    Suite(String),
    /// No list: a file of the site.
    File(PathBuf),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::System => f.write_str("system"),
            Self::Component(name) => write!(f, "component:{name}"),
            Self::Suite(name) => write!(f, "suite:{name}"),
            Self::File(path) => write!(f, "file:{}", path.display()),
        }
    }
}

impl FromStr for Origin {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None if text == "system" => Ok(Self::System),
            Some(("component", name)) if plain(name) => Ok(Self::Component(name.to_owned())),
            Some(("suite", name)) if plain(name) => Ok(Self::Suite(name.to_owned())),
            Some(("file", path)) => Ok(Self::File(path.into())),
            _ => Err(format!("{text:?} is not system, component:NAME, suite:NAME or file:PATH")),
        }
    }
}

impl TryFrom<String> for Origin {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Origin> for String {
    fn from(origin: Origin) -> Self {
        origin.to_string()
    }
}

/// Becomes a line of a configuration file.
fn plain(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_'))
}

/// apt with the lists of one origin for one machine.
#[derive(Clone, Debug, Default)]
pub struct Apt {
    options: Vec<String>,
}

impl Apt {
    /// # Errors
    /// When there are no lists and none can be fetched.
    pub fn of(origin: &Origin, arch: Arch, cache: &Cache) -> Result<Self> {
        match origin {
            Origin::System if arch == Arch::HOST => Ok(Self::default()),
            Origin::File(path) => bail!("{} is a file, which no apt has", path.display()),
            _ => Self::own(origin, arch, cache),
        }
    }

    fn own(origin: &Origin, arch: Arch, cache: &Cache) -> Result<Self> {
        let sources = sources(origin)?;
        ensure!(
            !sources.is_empty(),
            "none of the system's apt sources is of this distribution; see /etc/apt/sources.list.d"
        );
        let key = hex(&Sha256::digest(format!("{arch} {sources}")))[..24].to_owned();
        let today = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs() / DAY);
        let made = cache.entry("apt", &format!("{key}-{today}"), |dir| {
            eprintln!("ramdisk: fetching the package lists of {origin} for {arch}");
            fs::create_dir(dir.join("sources"))?;
            fs::create_dir_all(dir.join("lists/partial"))?;
            fs::write(dir.join("status"), "")?;
            fs::write(dir.join("sources/speediso.sources"), &sources)?;
            let apt = Self::in_directory(dir, arch);
            tool::run(apt.command("apt-get").args(["-qq", "update"]), "apt")
                .with_context(|| format!("fetching the package lists of {origin} for {arch}"))?;
            Ok(())
        });
        let older = || cache.entries("apt").into_iter().filter(|name| name.starts_with(&key)).max();
        let dir = match (made, older()) {
            (Ok(dir), _) => {
                cache.forget("apt", |name| name.starts_with(&key) && *name != *format!("{key}-{today}"));
                dir
            }
            (Err(error), Some(name)) => {
                eprintln!("ramdisk: {error:#}; proceeding with the lists of an earlier day");
                cache.path("apt", &name)
            }
            (Err(error), None) => return Err(error),
        };
        Ok(Self::in_directory(&dir, arch))
    }

    fn in_directory(dir: &Path, arch: Arch) -> Self {
        let at = |name: &str| dir.join(name).display().to_string();
        let settings = [
            "Dir::Etc::SourceList=/dev/null".to_owned(),
            format!("Dir::Etc::SourceParts={}", at("sources")),
            format!("Dir::State::Lists={}", at("lists")),
            format!("Dir::State::status={}", at("status")),
            // An entry of the cache never changes, so apt's own caches stay in memory.
            "Dir::Cache::pkgcache=".to_owned(),
            "Dir::Cache::srcpkgcache=".to_owned(),
            "Acquire::Languages=none".to_owned(),
            format!("APT::Architecture={}", arch.debian()),
            format!("APT::Architectures={}", arch.debian()),
        ];
        Self { options: settings.into_iter().flat_map(|setting| ["-o".to_owned(), setting]).collect() }
    }

    /// As the present user; apt's own sandbox user could not write to our directories.
    #[must_use]
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.args(["-o", "APT::Sandbox::User=root", "-o", "Acquire::Retries=3"]).args(&self.options);
        command
    }
}

/// The system's sources of this distribution with another component or suite, in the form of sources.list(5), deb822.
fn sources(origin: &Origin) -> Result<String> {
    let codename = codename(&fs::read_to_string("/etc/os-release").context("reading /etc/os-release")?)?;
    let mut texts = Vec::new();
    for (path, one_line) in list_files(Path::new("/etc/apt")) {
        let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        texts.push((text, one_line));
    }
    Ok(texts.iter().map(|(text, one_line)| transformed(text, *one_line, &codename, origin)).collect())
}

fn codename(os_release: &str) -> Result<String> {
    let name = os_release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    Ok(name.context("/etc/os-release has no VERSION_CODENAME")?.trim_matches('"').to_owned())
}

/// In the order of their names; the flag says that it has one source a line.
fn list_files(etc: &Path) -> Vec<(PathBuf, bool)> {
    let mut files = vec![(etc.join("sources.list"), true)];
    let parts = fs::read_dir(etc.join("sources.list.d")).into_iter().flatten().flatten().map(|entry| entry.path());
    files.extend(parts.filter_map(|path| match path.extension()?.to_str()? {
        "list" => Some((path, true)),
        "sources" => Some((path, false)),
        _ => None,
    }));
    files.retain(|(path, _)| path.is_file());
    files.sort();
    files
}

#[derive(Default)]
struct Source {
    uris: String,
    suites: String,
    signed_by: String,
}

fn transformed(text: &str, one_line: bool, codename: &str, origin: &Origin) -> String {
    let sources: Vec<Source> = if one_line {
        text.lines().filter_map(of_line).collect()
    } else {
        text.split("\n\n").filter_map(of_paragraph).collect()
    };
    let mut made = String::new();
    for source in sources {
        let ours =
            |suite: &str| suite == codename || suite.strip_prefix(codename).is_some_and(|rest| rest.starts_with('-'));
        if !source.suites.split_whitespace().all(ours) || source.suites.is_empty() {
            continue;
        }
        let (suites, component) = match origin {
            Origin::Suite(suite) if source.suites.split_whitespace().any(|s| s == codename) => (suite.as_str(), "main"),
            Origin::Suite(_) => continue,
            Origin::Component(component) => (source.suites.as_str(), component.as_str()),
            Origin::System | Origin::File(_) => (source.suites.as_str(), "main"),
        };
        made.push_str(&format!("Types: deb\nURIs: {}\nSuites: {suites}\nComponents: {component}\n", source.uris));
        if !source.signed_by.is_empty() {
            made.push_str(&format!("Signed-By: {}\n", source.signed_by));
        }
        made.push('\n');
    }
    made
}

/// `deb [signed-by=/key] http://mirror/debian bookworm main`
fn of_line(line: &str) -> Option<Source> {
    let rest = line.trim().strip_prefix("deb ")?.trim_start();
    let (options, rest) = match rest.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?,
        None => ("", rest),
    };
    let mut words = rest.split_whitespace();
    let (uris, suites) = (words.next()?.to_owned(), words.next()?.to_owned());
    words.find(|component| *component == "main")?;
    let signed_by = options.split_whitespace().find_map(|option| option.strip_prefix("signed-by="));
    Some(Source { uris, suites, signed_by: signed_by.unwrap_or_default().to_owned() })
}

fn of_paragraph(paragraph: &str) -> Option<Source> {
    let mut fields: Vec<(String, String)> = Vec::new();
    for line in paragraph.lines().filter(|line| !line.starts_with('#')) {
        if line.starts_with([' ', '\t']) {
            // A key may stand in the file itself, over many lines.
            let (_, value) = fields.last_mut()?;
            value.push('\n');
            value.push_str(line);
        } else if let Some((name, value)) = line.split_once(':') {
            fields.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
    }
    let field = |name: &str| fields.iter().find(|(n, _)| n == name).map(|(_, value)| value.clone());
    let has = |name: &str, word: &str| field(name).is_some_and(|v| v.split_whitespace().any(|w| w == word));
    if !has("types", "deb") || !has("components", "main") || has("enabled", "no") {
        return None;
    }
    Some(Source { uris: field("uris")?, suites: field("suites")?, signed_by: field("signed-by").unwrap_or_default() })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const PARAGRAPHS: &str = "Types: deb\n# a remark\nURIs: http://m/debian\nSuites: bookworm bookworm-updates\n\
        Components: main\nSigned-By: /k.gpg\n\nTypes: deb\nURIs: https://n/node\nSuites: nodistro\nComponents: main\n";

    #[test]
    fn only_this_distributions_sources_are_taken() {
        let firmware = Origin::Component("non-free-firmware".into());
        assert_eq!(
            transformed(PARAGRAPHS, false, "bookworm", &firmware),
            "Types: deb\nURIs: http://m/debian\nSuites: bookworm bookworm-updates\nComponents: non-free-firmware\nSigned-By: /k.gpg\n\n"
        );
        let lines = "deb [signed-by=/k.gpg arch=amd64] http://m/debian bookworm main contrib\n\
                     deb-src http://m/debian bookworm main\n\
                     deb http://m/security bookworm-security main\n\
                     deb https://packages.example/apt tools-bookworm main\n";
        assert_eq!(
            transformed(lines, true, "bookworm", &Origin::Suite("bookworm-backports".into())),
            "Types: deb\nURIs: http://m/debian\nSuites: bookworm-backports\nComponents: main\nSigned-By: /k.gpg\n\n"
        );
        assert_eq!(transformed(lines, true, "bookworm", &Origin::System).matches("Types: deb\n").count(), 2);
    }

    #[test]
    fn an_origin_is_read_as_it_is_written() {
        for text in ["system", "component:non-free-firmware", "suite:bookworm-backports", "file:/a/b.deb"] {
            assert_eq!(text.parse::<Origin>().unwrap().to_string(), text);
        }
        for bad in ["", "main", "suite:", "suite:a b", "component:x\nTypes: deb"] {
            assert!(bad.parse::<Origin>().is_err(), "{bad:?}");
        }
    }
}

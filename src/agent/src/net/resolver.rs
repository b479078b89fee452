//! `resolv.conf`, to which each interface and protocol contributes and from which each takes back only its own.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// glibc and musl read no more than three name servers.
const NAME_SERVERS: usize = 3;
const SEARCH: usize = 6;

/// IPv4's comes first: its servers were there before IPv6's at most sites.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Family {
    V4,
    V6,
}

#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Names {
    pub(super) servers: Vec<IpAddr>,
    pub(super) search: Vec<String>,
}

#[derive(Clone, Debug)]
pub(super) struct Resolver {
    path: PathBuf,
    said: Arc<Mutex<BTreeMap<(Family, u32), Names>>>,
}

impl Resolver {
    pub(super) fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), said: Arc::default() }
    }

    /// What one interface says from now on; nothing takes back what it said. The note is for when that failed.
    pub(super) fn set(&self, family: Family, index: u32, names: Names) -> Option<String> {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if names == Names::default() {
            // A file of somebody else's stays as it is while we have nothing to say.
            said.remove(&(family, index))?;
        } else {
            said.insert((family, index), names);
        }
        fs::write(&self.path, text(&said))
            .err()
            .map(|error| format!("name servers could not be written to {}: {error}", self.path.display()))
    }
}

fn text(said: &BTreeMap<(Family, u32), Names>) -> String {
    let (mut servers, mut search) = (Vec::new(), Vec::new());
    // The first of each before the second of any, so that both protocols have one.
    for rank in 0..NAME_SERVERS {
        servers.extend(said.values().filter_map(|names| names.servers.get(rank)));
    }
    for name in said.values().flat_map(|names| &names.search) {
        if !search.contains(&name.as_str()) && search.len() < SEARCH {
            search.push(name);
        }
    }
    let mut text = String::new();
    if !search.is_empty() {
        let _ = writeln!(text, "search {}", search.join(" "));
    }
    let mut written: Vec<&IpAddr> = Vec::new();
    for server in servers {
        if !written.contains(&server) && written.len() < NAME_SERVERS {
            let _ = writeln!(text, "nameserver {server}");
            written.push(server);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(servers: &[&str], search: &[&str]) -> Names {
        Names {
            servers: servers.iter().map(|s| s.parse().expect("good")).collect(),
            search: search.iter().map(|s| (*s).to_owned()).collect(),
        }
    }

    #[test]
    fn both_protocols_are_heard_and_each_takes_back_its_own() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("resolv.conf");
        let resolver = Resolver::new(&path);
        let read = || fs::read_to_string(&path).expect("written");
        assert_eq!(resolver.set(Family::V6, 2, Names::default()), None);
        assert!(!path.exists(), "nothing said, nothing written");
        resolver.set(Family::V6, 2, names(&["2001:db8::53"], &["example.org"]));
        resolver.set(Family::V4, 2, names(&["192.0.2.1", "192.0.2.2", "192.0.2.3"], &["lab.example", "example.org"]));
        assert_eq!(
            read(),
            "search lab.example example.org\nnameserver 192.0.2.1\nnameserver 2001:db8::53\nnameserver 192.0.2.2\n"
        );
        resolver.set(Family::V4, 2, Names::default());
        assert_eq!(read(), "search example.org\nnameserver 2001:db8::53\n");
    }
}

//! The crates that are linked into the agent, as cargo's own metadata and the lock file have them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::arch::Arch;
use crate::tool;

const AGENT: &str = "speediso-agent";

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Crate {
    pub name: String,
    pub version: String,
    /// An SPDX expression.
    pub licence: Option<String>,
    /// SHA-256 of the published archive; the workspace's own crates have none.
    pub checksum: Option<String>,
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Known>,
    resolve: Resolve,
}

#[derive(Deserialize)]
struct Known {
    id: String,
    name: String,
    version: String,
    license: Option<String>,
    targets: Vec<Target>,
}

#[derive(Deserialize)]
struct Target {
    kind: Vec<String>,
}

#[derive(Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Deserialize)]
struct Node {
    id: String,
    deps: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    pkg: String,
    dep_kinds: Vec<DependencyKind>,
}

#[derive(Deserialize)]
struct DependencyKind {
    kind: Option<String>,
}

/// Of the agent of the workspace in `dir`, built for `arch`. What only a test or a build script uses is not in it.
pub fn of_agent(dir: &Path, arch: Arch) -> Result<Vec<Crate>> {
    let mut cargo = Command::new("cargo");
    cargo.args(["metadata", "--locked", "--offline", "--format-version", "1", "--filter-platform", arch.rust_target()]);
    let text = tool::run(cargo.current_dir(dir), "cargo")
        .with_context(|| format!("asking cargo for the agent's crates in {}", dir.display()))?;
    let lock = dir.join("Cargo.lock");
    let lock = std::fs::read_to_string(&lock).with_context(|| format!("reading {}", lock.display()))?;
    linked(&text, &lock)
}

fn linked(metadata: &str, lock: &str) -> Result<Vec<Crate>> {
    let metadata: Metadata = serde_json::from_str(metadata).context("reading what cargo says of the workspace")?;
    let checksums = checksums(lock);
    let known: BTreeMap<&str, &Known> = metadata.packages.iter().map(|p| (p.id.as_str(), p)).collect();
    let nodes: BTreeMap<&str, &Node> = metadata.resolve.nodes.iter().map(|n| (n.id.as_str(), n)).collect();
    let agent = metadata.packages.iter().find(|p| p.name == AGENT);
    let mut queue = vec![agent.with_context(|| format!("the workspace has no crate {AGENT}"))?.id.as_str()];
    let mut seen = BTreeSet::new();
    let mut crates = BTreeSet::new();
    while let Some(id) = queue.pop() {
        if !seen.insert(id) {
            continue;
        }
        let Some(package) = known.get(id) else { continue };
        // A macro runs in the compiler, and what it needs with it.
        if package.targets.iter().any(|target| target.kind.iter().any(|kind| kind == "proc-macro")) {
            continue;
        }
        crates.insert(Crate {
            name: package.name.clone(),
            version: package.version.clone(),
            // Older crates write `MIT/Apache-2.0`.
            licence: package.license.as_ref().map(|licence| licence.replace('/', " OR ")),
            checksum: checksums.get(&(package.name.as_str(), package.version.as_str())).map(|sum| (*sum).to_owned()),
        });
        let normal = |dependency: &&Dependency| dependency.dep_kinds.iter().any(|kind| kind.kind.is_none());
        queue.extend(nodes.get(id).into_iter().flat_map(|n| n.deps.iter().filter(normal)).map(|d| d.pkg.as_str()));
    }
    Ok(crates.into_iter().collect())
}

/// `name = "x"`, `version = "1"`, `checksum = "…"` of each `[[package]]`.
fn checksums(lock: &str) -> BTreeMap<(&str, &str), &str> {
    let of_package = |text| -> Option<((&str, &str), &str)> {
        let field = |key: &str| -> Option<&str> {
            let lines = str::lines(text);
            lines.into_iter().find_map(|line| line.strip_prefix(key)?.strip_prefix(" = \"")?.strip_suffix('"'))
        };
        Some(((field("name")?, field("version")?), field("checksum")?))
    };
    lock.split("[[package]]").filter_map(of_package).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn only_what_is_linked_counts() {
        let known = |name: &str, kind: &str| {
            format!(
                r#"{{"id":"{name}","name":"{name}","version":"1.0.0","license":"MIT/Apache-2.0","targets":[{{"kind":["{kind}"]}}]}}"#
            )
        };
        let node = |id: &str, deps: &[(&str, &str)]| {
            let deps: Vec<String> = deps
                .iter()
                .map(|(id, kind)| format!(r#"{{"pkg":"{id}","dep_kinds":[{{"kind":{kind},"target":null}}]}}"#))
                .collect();
            format!(r#"{{"id":"{id}","deps":[{}]}}"#, deps.join(","))
        };
        let metadata = format!(
            r#"{{"packages":[{}],"resolve":{{"nodes":[{}]}}}}"#,
            [known(AGENT, "lib"), known("a", "lib"), known("b", "lib"), known("m", "proc-macro"), known("t", "lib")]
                .join(","),
            [
                node(AGENT, &[("a", "null"), ("t", "\"dev\""), ("m", "null")]),
                node("a", &[("b", "null"), (AGENT, "null")]),
                node("b", &[("t", "\"build\"")]),
                node("m", &[("t", "null")]),
                node("t", &[]),
            ]
            .join(",")
        );
        let lock = "version = 4\n\n[[package]]\nname = \"a\"\nversion = \"1.0.0\"\nchecksum = \"00ff\"\n\n[[package]]\nname = \"b\"\nversion = \"2.0.0\"\nchecksum = \"11\"\n";
        let crates = linked(&metadata, lock).unwrap();
        let names: Vec<&str> = crates.iter().map(|c| c.name.as_str()).collect();
        assert_eq!(names, ["a", "b", AGENT]);
        assert_eq!(
            (crates[0].checksum.as_deref(), crates[0].licence.as_deref()),
            (Some("00ff"), Some("MIT OR Apache-2.0"))
        );
        assert_eq!(crates[1].checksum, None, "that is another version's");
    }
}

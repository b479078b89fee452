//! The bill of materials of a build, as CycloneDX 1.5 JSON, and the list of sources that the licences ask for.
//!
//! <https://cyclonedx.org/docs/1.5/json/>. What is not known (a package that states its licences for people only) is left
//! out rather than guessed, and the component says so.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::about::About;
use crate::apt::Origin;
use crate::cache::Cache;
use crate::crates::Crate;
use crate::packages::{Package, hex};
use crate::ramdisk::BuildFacts;

pub const FILE_NAME: &str = "sbom.cdx.json";
pub const SOURCES: &str = "sources.txt";

/// What a build is made of.
#[derive(Clone, Copy, Debug)]
pub struct Materials<'a> {
    pub facts: &'a BuildFacts,
    /// With the archive each is in: `ramdisk`, `tools`, `addon`, `boot`.
    pub packages: &'a [(&'a str, &'a Package)],
    pub agent: &'a [u8],
    /// None if the build was not told where the agent's workspace is.
    pub crates: Option<&'a [Crate]>,
    /// Sources of the C library that is linked into the agent: package and version.
    pub linked: &'a [(String, String)],
}

impl Materials<'_> {
    /// Each package once, with all the archives it is in.
    fn distinct(&self) -> BTreeMap<&Package, BTreeSet<&str>> {
        let mut distinct: BTreeMap<&Package, BTreeSet<&str>> = BTreeMap::new();
        for (archive, package) in self.packages {
            distinct.entry(package).or_default().insert(archive);
        }
        distinct
    }

    pub fn bill(&self, cache: &Cache) -> Result<String> {
        let facts = self.facts;
        let mut components = vec![self.agent_component()];
        for (package, archives) in self.distinct() {
            components.push(package_component(package, &archives, &About::of(package, cache)?));
        }
        components.extend(self.crates.unwrap_or_default().iter().map(crate_component));
        let linked: Vec<String> = self.crates.unwrap_or_default().iter().map(crate_reference).collect();
        let all: Vec<&Value> = components.iter().filter_map(|component| component.get("bom-ref")).collect();
        let bill = json!({
            "bomFormat": "CycloneDX",
            "specVersion": "1.5",
            "serialNumber": format!("urn:uuid:{}", uuid_of(&facts.inputs)),
            "version": 1,
            "metadata": {
                "timestamp": timestamp(facts.built),
                "tools": { "components": [ { "type": "application", "name": "speediso-initramfs", "version": env!("CARGO_PKG_VERSION") } ] },
                "component": {
                    "type": "operating-system",
                    "bom-ref": "speediso",
                    "name": "speediso",
                    "version": format!("{} build {}", facts.version, facts.number),
                },
            },
            "components": components,
            "dependencies": [
                { "ref": "speediso", "dependsOn": all },
                { "ref": "speediso-agent", "dependsOn": linked },
            ],
        });
        Ok(serde_json::to_string_pretty(&bill)? + "\n")
    }

    fn agent_component(&self) -> Value {
        let mut component = json!({
            "type": "application",
            "bom-ref": "speediso-agent",
            "name": "speediso-agent",
            "version": self.facts.version,
            "hashes": [ { "alg": "SHA-256", "content": hex(&Sha256::digest(self.agent)) } ],
            "licenses": [ { "expression": "Apache-2.0 OR MIT" } ],
        });
        if self.crates.is_none() {
            component["properties"] = json!([ { "name": "speediso:crates", "value": "unread" } ]);
        }
        component
    }

    /// One source package in one version a line, with what was built from it.
    pub fn sources(&self, cache: &Cache) -> Result<String> {
        let mut sources: BTreeMap<(String, String), BTreeSet<String>> = BTreeMap::new();
        for package in self.distinct().into_keys() {
            for source in About::of(package, cache)?.sources {
                sources.entry(source).or_default().insert(package.name.clone());
            }
        }
        for source in self.linked {
            sources.entry(source.clone()).or_default().insert("libblkid in speediso-agent".to_owned());
        }
        let mut text = format!(
            "# Source packages of all that is in build {}, each in the version that was packed. With deb-src lines in apt's\n\
             # sources a line fetches one; versions that the mirror no longer has are kept by snapshot.debian.org.\n",
            self.facts.number
        );
        for ((name, version), binaries) in sources {
            let binaries: Vec<String> = binaries.into_iter().collect();
            text.push_str(&format!("apt-get source {name}={version}  # {}\n", binaries.join(", ")));
        }
        if self.linked.is_empty() {
            text.push_str(
                "# unread: the source of the libblkid that is linked into the agent; build with --workspace\n",
            );
        }
        Ok(text)
    }
}

fn package_component(package: &Package, archives: &BTreeSet<&str>, about: &About) -> Value {
    let Package { name, version, architecture, sha256, origin } = package;
    let purl = format!("pkg:deb/debian/{}@{}?arch={architecture}", escaped(name), escaped(version));
    let mut properties: Vec<Value> =
        archives.iter().map(|archive| json!({ "name": "speediso:archive", "value": archive })).collect();
    for (name, version) in &about.sources {
        properties.push(json!({ "name": "speediso:source", "value": format!("{name}={version}") }));
    }
    if *origin != Origin::System {
        properties.push(json!({ "name": "speediso:origin", "value": said(origin) }));
    }
    let mut component = json!({
        "type": if name.starts_with("linux-image-") { "operating-system" } else if name.starts_with("firmware-") { "firmware" } else { "library" },
        "bom-ref": purl,
        "name": name,
        "version": version,
        "purl": purl,
        "hashes": [ { "alg": "SHA-256", "content": sha256 } ],
    });
    if about.licences.is_empty() {
        properties.push(json!({ "name": "speediso:licences", "value": "unread" }));
    } else {
        // Debian's short names are no SPDX identifiers, so they are names here.
        component["licenses"] = about.licences.iter().map(|name| json!({ "license": { "name": name } })).collect();
    }
    component["properties"] = properties.into();
    component
}

/// A path is the builder's own affair.
fn said(origin: &Origin) -> String {
    match origin {
        Origin::File(path) => format!("file:{}", path.file_name().unwrap_or_default().to_string_lossy()),
        other => other.to_string(),
    }
}

fn crate_reference(one: &Crate) -> String {
    format!("pkg:cargo/{}@{}", one.name, escaped(&one.version))
}

fn crate_component(one: &Crate) -> Value {
    let reference = crate_reference(one);
    let mut component = json!({ "type": "library", "bom-ref": reference, "name": one.name, "version": one.version });
    if let Some(checksum) = &one.checksum {
        component["purl"] = reference.into();
        component["hashes"] = json!([ { "alg": "SHA-256", "content": checksum } ]);
    }
    match &one.licence {
        Some(licence) => component["licenses"] = json!([ { "expression": licence } ]),
        None => component["properties"] = json!([ { "name": "speediso:licences", "value": "unread" } ]),
    }
    component
}

/// RFC 3986's unreserved characters stay (package URLs, section on encoding).
fn escaped(text: &str) -> String {
    let one = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'-' | b'_' | b'~' => char::from(byte).to_string(),
        other => format!("%{other:02X}"),
    };
    text.bytes().map(one).collect()
}

/// RFC 9562, version 8: of one's own making. The same inputs have the same number.
fn uuid_of(inputs: &str) -> String {
    let mut bytes: [u8; 32] = Sha256::digest(inputs).into();
    bytes[6] = bytes[6] & 0x0f | 0x80;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex = hex(&bytes[..16]);
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

/// Seconds since 1970 as RFC 3339 has it. The calendar is Howard Hinnant's `civil_from_days`, for dates after 1970.
fn timestamp(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400 + 719_468, seconds % 86_400);
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day_of_year = day - (365 * year + year / 4 - year / 100);
    let march = (5 * day_of_year + 2) / 153;
    let day_of_month = day_of_year - (153 * march + 2) / 5 + 1;
    let month = if march < 10 { march + 3 } else { march - 9 };
    let year = year + era * 400 + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day_of_month:02}T{:02}:{:02}:{:02}Z", rest / 3600, rest / 60 % 60, rest % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_written_as_others_do() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_700_000_000, "2023-11-14T22:13:20Z"),
            (4_102_444_799, "2099-12-31T23:59:59Z"),
        ] {
            assert_eq!(timestamp(seconds), text);
        }
    }

    #[test]
    fn names_and_numbers_have_one_form() {
        assert_eq!(escaped("1:2.3+deb12u1~x"), "1%3A2.3%2Bdeb12u1~x");
        let uuid = uuid_of("sha256:ab");
        assert_eq!((uuid.len(), &uuid[14..15]), (36, "8"));
        assert_eq!(uuid, uuid_of("sha256:ab"));
        assert!(matches!(&uuid[19..20], "8" | "9" | "a" | "b"), "{uuid}");
    }
}

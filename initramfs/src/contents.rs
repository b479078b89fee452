//! What brought each file into an archive: a group of modules, a program, a library, firmware. The size report and the
//! bill of materials are made from it.

use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    Modules,
    Program,
    Library,
    Firmware,
    /// The project's own scripts and tables.
    Own,
    /// Files that the site's manifest names.
    Site,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Part {
    pub kind: Kind,
    pub name: String,
    pub reason: String,
    /// Debian package that the files are of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub package: Option<String>,
    /// Paths without the leading `/`, sorted.
    pub files: Vec<String>,
}

/// Each file is in one part, the first that brought it.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Contents(pub Vec<Part>);

impl Contents {
    pub(crate) fn add(&mut self, kind: Kind, name: &str, reason: &str, package: Option<&str>, file: &str) {
        let file = file.trim_start_matches('/').to_owned();
        if self.0.iter().any(|part| part.files.contains(&file)) {
            return;
        }
        let known = self.0.iter_mut().find(|part| part.kind == kind && part.name == name);
        match known {
            Some(part) => {
                let at = part.files.partition_point(|present| *present < file);
                part.files.insert(at, file);
            }
            None => self.0.push(Part {
                kind,
                name: name.to_owned(),
                reason: reason.to_owned(),
                package: package.map(str::to_owned),
                files: vec![file],
            }),
        }
    }

    /// The part that a file is of.
    #[must_use]
    pub fn part_of(&self, file: &str) -> Option<&Part> {
        self.0.iter().find(|part| part.files.iter().any(|known| known == file))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_in_one_part() {
        let mut contents = Contents::default();
        contents.add(Kind::Modules, "nvme", "disks", Some("linux-image-6.1"), "/lib/b.ko");
        contents.add(Kind::Modules, "nvme", "disks", Some("linux-image-6.1"), "/lib/a.ko");
        contents.add(Kind::Modules, "sata", "disks too", Some("linux-image-6.1"), "/lib/a.ko");
        assert_eq!(contents.0.len(), 1);
        assert_eq!(contents.0[0].files, ["lib/a.ko", "lib/b.ko"]);
        assert_eq!(contents.part_of("lib/a.ko").map(|part| part.name.as_str()), Some("nvme"));
        assert_eq!(contents.part_of("init"), None);
    }
}

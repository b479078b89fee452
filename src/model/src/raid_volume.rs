//! Which disks are volumes of a hardware RAID controller. Such a volume certifies nothing about the drives below it: no
//! sanitize command reaches them, and overwriting it leaves spares, reserved parts and whatever it does not cover.
//!
//! The rules are data, `raid_volumes.json`, each with its source. Whoever lists disks asks once and notes the answer in
//! [`Disk::raid_volume`]; everybody else reads it by [`of`].

use std::sync::LazyLock;

use serde::Deserialize;

use crate::inventory::Disk;

static DATA: LazyLock<Data> = LazyLock::new(|| {
    serde_json::from_str(include_str!("raid_volumes.json")).expect("the file is part of the build and tested")
});

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Data {
    version: u32,
    volumes: Vec<Rule>,
}

/// By what a disk is recognised; whatever is given has to hold.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    /// In the words of a refusal: `a volume of a MegaRAID or PERC`.
    says: String,
    driver: Option<String>,
    /// SCSI channels from this on hold volumes only.
    channel_from: Option<u32>,
    vendor: Option<String>,
    /// The model, or its beginning if a `*` ends it.
    model: Option<String>,
    /// Any of them in vendor and model together.
    #[serde(default)]
    words: Vec<String>,
    source: String,
}

impl Rule {
    fn is_it(&self, disk: &Disk, driver: Option<&str>) -> bool {
        let text = |pattern: &Option<String>, found: &str| {
            pattern.as_ref().is_none_or(|pattern| match pattern.strip_suffix('*') {
                Some(start) => found.trim().get(..start.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(start)),
                None => found.trim().eq_ignore_ascii_case(pattern),
            })
        };
        let channel = || disk.hctl.as_ref()?.split(':').nth(1)?.parse::<u32>().ok();
        let named = || {
            let name = format!("{} {}", disk.vendor, disk.model).to_ascii_lowercase();
            self.words.iter().any(|word| name.contains(word.as_str()))
        };
        self.driver.as_ref().is_none_or(|wanted| driver == Some(wanted))
            && self.channel_from.is_none_or(|from| channel().is_some_and(|c| c >= from))
            && text(&self.vendor, &disk.vendor)
            && text(&self.model, &disk.model)
            && (self.words.is_empty() || named())
    }
}

/// Of the rules; raised whenever one changes.
#[must_use]
pub fn version() -> u32 {
    DATA.version
}

/// By what a disk calls itself, and by the driver of its controller where that is known.
#[must_use]
pub fn recognise(disk: &Disk, driver: Option<&str>) -> Option<&'static str> {
    DATA.volumes.iter().find(|rule| rule.is_it(disk, driver)).map(|rule| rule.says.as_str())
}

/// What the disk is a volume of, as it was noted when it was listed. An inventory of an older agent has no such note: then
/// by its names alone.
#[must_use]
pub fn of(disk: &Disk) -> Option<&str> {
    disk.raid_volume.as_deref().or_else(|| recognise(disk, None))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_says_what_and_whence_and_asks_for_something() {
        assert!(version() > 0);
        for rule in &DATA.volumes {
            assert!(rule.says.starts_with("a ") && rule.source.len() > 10, "{rule:?}");
            let asks = rule.driver.is_some() || rule.vendor.is_some() || rule.model.is_some() || !rule.words.is_empty();
            assert!(asks, "it would take every disk: {rule:?}");
            assert!(rule.words.iter().all(|word| word.len() > 3 && *word == word.to_lowercase()), "{rule:?}");
        }
    }

    #[test]
    fn what_was_noted_counts_before_the_name() {
        let plain = Disk { model: "ST4000NM0025".into(), ..Disk::default() };
        assert_eq!(of(&plain), None);
        let noted = Disk { raid_volume: Some("a volume of a MegaRAID or PERC".into()), ..plain.clone() };
        assert_eq!(of(&noted), Some("a volume of a MegaRAID or PERC"));
        let by_name = Disk { vendor: "DELL".into(), model: "PERC H730P Mini".into(), ..plain };
        assert_eq!(of(&by_name), Some("a volume of a PERC"));
    }
}

//! What was found when a machine's network was looked at: a list of checks, each with a verdict, one sentence, and what
//! to do. `docs/network-doctor.md` explains them one by one.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Counts up when a field changes its meaning; new fields and checks do not count.
pub const VERSION: u32 = 1;

/// Worse is greater.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Not looked at; the text says why. Says nothing about the network.
    Skipped,
    Ok,
    Warning,
    Failed,
    /// From a newer writer.
    #[serde(other)]
    Unknown,
}

impl Verdict {
    /// Four letters, for a narrow column.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Skipped => "skip",
            Self::Ok => "ok",
            Self::Warning => "warn",
            Self::Failed => "FAIL",
            Self::Unknown => "?",
        }
    }
}

/// What is looked at, in the order in which one thing needs the one before.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CheckKind {
    Link,
    Errors,
    Lldp,
    Vlans,
    Dhcp,
    Ipv6,
    Address,
    Gateway,
    Dns,
    Tcp,
    PathMtu,
    Tls,
    Http,
    Clock,
    Proxy,
    #[serde(other)]
    Unknown,
}

impl CheckKind {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Link => "link",
            Self::Errors => "errors",
            Self::Lldp => "lldp",
            Self::Vlans => "vlans",
            Self::Dhcp => "dhcp",
            Self::Ipv6 => "ipv6",
            Self::Address => "address",
            Self::Gateway => "gateway",
            Self::Dns => "dns",
            Self::Tcp => "tcp",
            Self::PathMtu => "path-mtu",
            Self::Tls => "tls",
            Self::Http => "http",
            Self::Clock => "clock",
            Self::Proxy => "proxy",
            Self::Unknown => "?",
        }
    }
}

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Check {
    pub check: CheckKind,
    /// The interface, server or address that was looked at; empty where there is but one.
    #[serde(default)]
    pub subject: String,
    pub verdict: Verdict,
    /// What was found, in one sentence.
    pub text: String,
    /// What to do; empty where nothing is to be done.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub advice: String,
    /// The same as data, by names that `docs/network-doctor.md` lists.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub facts: BTreeMap<String, Value>,
}

impl Check {
    #[must_use]
    pub fn new(check: CheckKind, subject: impl Into<String>, verdict: Verdict, text: impl Into<String>) -> Self {
        Self {
            check,
            subject: subject.into(),
            verdict,
            text: text.into(),
            advice: String::new(),
            facts: BTreeMap::new(),
        }
    }

    #[must_use]
    pub fn do_this(mut self, advice: impl Into<String>) -> Self {
        self.advice = advice.into();
        self
    }

    /// What cannot be written as JSON is left out; nothing that is put here cannot.
    #[must_use]
    pub fn fact(mut self, name: &str, value: impl Serialize) -> Self {
        if let Ok(value) = serde_json::to_value(value)
            && !value.is_null()
        {
            self.facts.insert(name.to_owned(), value);
        }
        self
    }
}

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct NetworkReport {
    pub version: u32,
    pub host: String,
    /// `https://...`, if one is known.
    #[serde(default)]
    pub controller: Option<String>,
    pub took_ms: u64,
    /// The worst of all checks.
    pub verdict: Verdict,
    pub checks: Vec<Check>,
}

impl NetworkReport {
    #[must_use]
    pub fn new(host: String, controller: Option<String>, took_ms: u64, mut checks: Vec<Check>) -> Self {
        checks.sort_by_key(|check| check.check);
        let verdict = checks.iter().map(|check| check.verdict).max().unwrap_or(Verdict::Skipped);
        Self { version: VERSION, host, controller, took_ms, verdict, checks }
    }

    /// 0 all well, 1 warnings, 2 something failed. A report of nothing but skipped checks shows no health: 2.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self.verdict {
            Verdict::Ok => 0,
            Verdict::Warning => 1,
            Verdict::Skipped | Verdict::Failed | Verdict::Unknown => 2,
        }
    }

    /// The first thing that failed: what comes after it may be its consequence.
    #[must_use]
    pub fn first_failure(&self) -> Option<&Check> {
        self.checks.iter().find(|check| check.verdict == Verdict::Failed)
    }

    /// One line.
    #[must_use]
    pub fn summary(&self) -> String {
        let count = |verdict| self.checks.iter().filter(|check| check.verdict == verdict).count();
        let (failed, warnings) = (count(Verdict::Failed), count(Verdict::Warning));
        match self.first_failure() {
            Some(first) => format!(
                "network looked at: {failed} failed, {warnings} warnings; first {} {}: {}",
                first.check.name(),
                first.subject,
                first.text
            ),
            None => format!("network looked at: nothing failed, {warnings} warnings"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(kind: CheckKind, verdict: Verdict) -> Check {
        Check::new(kind, "eth0", verdict, "as found")
    }

    #[test]
    fn the_worst_counts_and_the_first_failure_is_the_one_that_the_others_need() {
        let report = |checks| NetworkReport::new("node7".into(), None, 1, checks);
        assert_eq!(report(vec![]).exit_code(), 2, "nothing looked at is not health");
        assert_eq!(
            report(vec![check(CheckKind::Link, Verdict::Ok), check(CheckKind::Lldp, Verdict::Skipped)]).exit_code(),
            0
        );
        assert_eq!(report(vec![check(CheckKind::Link, Verdict::Warning)]).exit_code(), 1);
        let failed = report(vec![
            check(CheckKind::Tcp, Verdict::Failed),
            check(CheckKind::Gateway, Verdict::Failed),
            check(CheckKind::Link, Verdict::Ok),
        ]);
        assert_eq!((failed.exit_code(), failed.verdict), (2, Verdict::Failed));
        assert_eq!(failed.first_failure().map(|c| c.check), Some(CheckKind::Gateway));
        assert!(
            failed.summary().contains("2 failed, 0 warnings; first gateway eth0: as found"),
            "{}",
            failed.summary()
        );
    }

    #[test]
    fn a_newer_report_is_still_read() {
        let text = r#"{"version":2,"host":"h","took_ms":3,"verdict":"dubious","colour":"red",
            "checks":[{"check":"smell","verdict":"awful","text":"t","facts":{"a":1}}]}"#;
        let report: NetworkReport = serde_json::from_str(text).expect("lenient");
        assert_eq!((report.verdict, report.checks[0].check), (Verdict::Unknown, CheckKind::Unknown));
        assert_eq!(report.exit_code(), 2);
    }
}

//! The running system, and what of its command line may be shown.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Kernel {
    /// `6.1.0-56-amd64`
    pub release: String,
    /// Who built it, and when.
    pub version: String,
    /// Without secrets: see [`without_secrets`].
    pub command_line: String,
    /// Since the kernel's start.
    pub uptime_s: u64,
    /// The kernel's own bits for what makes it untrusted: unsigned modules, machine checks, warnings.
    pub tainted: Option<u64>,
}

/// Stands where a secret stood.
const HIDDEN: &str = "(hidden)";

/// Parts of a key that say that its value is not for everybody.
const SECRET: [&str; 9] = ["pass", "secret", "token", "key", "cred", "auth", "signature", "cookie", "luks"];

/// The command line as it may leave the machine: values of keys that sound secret are hidden, so are users, passwords and
/// queries in URLs, and whatever is handed on as a systemd credential. Rather too much than too little.
#[must_use]
pub fn without_secrets(line: &str) -> String {
    let mut shown = String::with_capacity(line.len());
    for word in Words(line) {
        if !shown.is_empty() {
            shown.push(' ');
        }
        shown.push_str(&without_values(&without_urls(word)));
    }
    shown
}

/// `key=value` -> `key=(hidden)` where the key sounds secret, at whatever depth: `systemd.setenv=TOKEN=x` has two.
fn without_values(word: &str) -> String {
    let mut key = 0;
    for (at, _) in word.match_indices('=') {
        if sounds_secret(&word[key..at]) {
            return format!("{}{HIDDEN}", &word[..=at]);
        }
        key = at + 1;
    }
    word.to_owned()
}

fn sounds_secret(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    SECRET.iter().any(|part| key.contains(part))
}

/// `https://user:pw@host/x?sig=1` -> `https://(hidden)@host/x?(hidden)`, as often as one stands in the text.
fn without_urls(text: &str) -> String {
    let mut shown = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        shown.push_str(before);
        let end = after.find([',', ' ', '"']).unwrap_or(after.len());
        let (url, next) = after.split_at(end);
        let authority = url.find(['/', '?', '#']).unwrap_or(url.len());
        let url = match url[..authority].rfind('@') {
            Some(at) => {
                shown.push_str(HIDDEN);
                &url[at..]
            }
            None => url,
        };
        match url.find(['?', '#']) {
            Some(at) => {
                shown.push_str(&url[..=at]);
                shown.push_str(HIDDEN);
            }
            None => shown.push_str(url),
        }
        rest = next;
    }
    shown.push_str(rest);
    shown
}

/// Words of the line as the kernel splits it: blanks within double quotes do not end one.
struct Words<'a>(&'a str);

impl<'a> Iterator for Words<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        let text = self.0.trim_start_matches(|c: char| c.is_whitespace() || c == '\0');
        let mut quoted = false;
        let end = text.find(|c: char| {
            quoted ^= c == '"';
            (c.is_whitespace() || c == '\0') && !quoted
        });
        let (word, rest) = text.split_at(end.unwrap_or(text.len()));
        self.0 = rest;
        (!word.is_empty()).then_some(word)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_do_not_leave_the_machine() {
        for (line, shown) in [
            ("ro console=ttyS0,115200 \n", "ro console=ttyS0,115200"),
            ("ipa-agent-token=abc ro", "ipa-agent-token=(hidden) ro"),
            ("speediso.password=\"a b c\" quiet", "speediso.password=(hidden) quiet"),
            ("\"rd.luks.key=/x y\"", "\"rd.luks.key=(hidden)"),
            ("root=http://u:p@10.0.0.1/r.img", "root=http://(hidden)@10.0.0.1/r.img"),
            ("a=https://s3/x?X-Amz-Signature=1&b=2 z", "a=https://s3/x?(hidden) z"),
            ("x=http://a@b/,http://c:d@e?f", "x=http://(hidden)@b/,http://(hidden)@e?(hidden)"),
            ("http://u:p@h/ks.cfg", "http://(hidden)@h/ks.cfg"),
            ("systemd.setenv=API_TOKEN=1", "systemd.setenv=API_TOKEN=(hidden)"),
            ("systemd.set_credential=name:value", "systemd.set_credential=(hidden)"),
            ("speediso.controller=https://c.example:8443", "speediso.controller=https://c.example:8443"),
            ("BOOTIF=01-52-54-00-00-00-01", "BOOTIF=01-52-54-00-00-00-01"),
        ] {
            assert_eq!(without_secrets(line), shown, "{line}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_secret_survives(before in "[a-z =\"]{0,20}", key in "(password|token|x_key|AUTH)", secret in "[A-Z]{12}", after in "( [a-z=]{0,9})?") {
            let shown = without_secrets(&format!("{before} {key}={secret}{after}"));
            proptest::prop_assert!(!shown.contains(&secret), "{}", shown);
        }
    }
}

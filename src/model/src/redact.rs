//! Keeps secrets out of what is kept or shown: logs, events, faults, support bundles.
//!
//! Two nets. *Learnt* secrets are removed wherever they stand: the agent learns its token and whatever a task says with
//! secrets and does not say without them, so a task with a new secret field is covered once its `redacted()` is. *Shapes*
//! are removed because of what stands around them: `password=...`, `Bearer ...`, user and password in a URL, a private
//! key in PEM. Where a shape is in doubt the text is hidden: a log that says too little can be asked for again.

use std::borrow::Cow;

use serde_json::Value;

use crate::task::Task;

/// What stands where a secret was.
pub const HIDDEN: &str = "(secret)";

/// Shorter ones would blank half of any text, and are guessed faster than found.
const SHORTEST: usize = 4;
/// A line of a longer text (user data) counts only if it is long enough to be nobody else's.
const SHORTEST_LINE: usize = 12;
/// Bounds what a hostile order can make us keep and look for.
const MOST: usize = 4096;

/// After these words, and `=` or `:`, stands a secret.
const NAMES: &[&str] = &[
    "token",
    "password",
    "passwd",
    "passphrase",
    "secret",
    "private_key",
    "privatekey",
    "api_key",
    "apikey",
    "signature",
    "x-amz-credential",
];
/// What follows these, to the end of the line, is a secret.
const HEADERS: &[&str] = &["authorization", "cookie", "x-auth-token"];

/// Knows secrets, and removes them.
#[derive(Clone, Default)]
pub struct Redactor {
    /// Longest first, so that one inside another leaves nothing over.
    known: Vec<String>,
}

impl std::fmt::Debug for Redactor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Redactor({} secrets)", self.known.len())
    }
}

impl Redactor {
    /// From now on this is hidden. A URL is hidden in what is secret of it, a longer text line by line.
    pub fn learn(&mut self, secret: &str) {
        if let Some((_, rest)) = secret.split_once("://").filter(|_| !secret.contains(char::is_whitespace)) {
            let (authority, tail) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
            if let Some((user, _)) = authority.rsplit_once('@') {
                self.keep(user.split_once(':').map_or(user, |(_, password)| password));
            }
            for pair in tail.split_once('?').map_or("", |(_, query)| query).split('&') {
                self.keep(pair.split_once('=').map_or(pair, |(_, value)| value));
            }
            return;
        }
        if !secret.contains('\n') {
            return self.keep(secret);
        }
        for line in secret.lines().map(str::trim) {
            if line.len() >= SHORTEST_LINE {
                self.keep(line);
            }
            // `password: hunter22` is as secret without its key.
            if let Some((_, value)) = line.split_once([':', '=']).filter(|(_, v)| v.trim().len() >= SHORTEST_LINE / 2) {
                self.keep(value.trim().trim_matches(['"', '\'']));
            }
        }
    }

    fn keep(&mut self, secret: &str) {
        if secret.len() < SHORTEST || self.known.len() >= MOST {
            return;
        }
        // As it stands in JSON, too.
        let quoted = Value::from(secret).to_string();
        for form in [secret, quoted.trim_matches('"')] {
            if !self.known.iter().any(|k| k == form) {
                self.known.push(form.to_owned());
            }
        }
        self.known.sort_by_key(|k| std::cmp::Reverse(k.len()));
    }

    /// Whatever the task says and its redacted form does not.
    pub fn learn_task(&mut self, task: &Task) {
        if let (Ok(whole), Ok(shown)) = (serde_json::to_value(task), serde_json::to_value(task.redacted())) {
            self.learn_difference(&whole, Some(&shown));
        }
    }

    fn learn_difference(&mut self, whole: &Value, shown: Option<&Value>) {
        match whole {
            Value::String(text) if shown.and_then(Value::as_str) != Some(text) => self.learn(text),
            Value::Array(items) => {
                for (i, item) in items.iter().enumerate() {
                    self.learn_difference(item, shown.and_then(|s| s.get(i)));
                }
            }
            Value::Object(fields) => {
                for (name, field) in fields {
                    self.learn_difference(field, shown.and_then(|s| s.get(name)));
                }
            }
            _ => {}
        }
    }

    /// The text without secrets.
    #[must_use]
    pub fn text<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let mut text = Cow::Borrowed(text);
        for secret in &self.known {
            if text.contains(secret.as_str()) {
                text = Cow::Owned(text.replace(secret.as_str(), HIDDEN));
            }
        }
        let ranges = shapes(&text);
        if ranges.is_empty() {
            return text;
        }
        let mut out = String::with_capacity(text.len());
        let mut at = 0;
        for (start, end) in ranges {
            if start < at {
                continue;
            }
            out.push_str(&text[at..start]);
            out.push_str(HIDDEN);
            at = end;
        }
        out.push_str(&text[at..]);
        Cow::Owned(out)
    }

    /// The same for every string of a document; a field whose name promises a secret loses its whole value.
    pub fn value(&self, value: &mut Value) {
        match value {
            Value::String(text) => {
                if let Cow::Owned(hidden) = self.text(text) {
                    *text = hidden;
                }
            }
            Value::Array(items) => items.iter_mut().for_each(|item| self.value(item)),
            Value::Object(fields) => {
                for (name, field) in fields.iter_mut() {
                    if field.is_string() && promises(name) {
                        *field = HIDDEN.into();
                    } else {
                        self.value(field);
                    }
                }
            }
            _ => {}
        }
    }
}

/// Whether a field of this name holds a secret. A signature is none: it is made to be shown.
fn promises(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    name != "signature"
        && (NAMES.iter().any(|n| name == *n || name.ends_with(&format!("_{n}"))) || HEADERS.contains(&name.as_str()))
}

/// Where secrets stand by their surroundings, in order.
fn shapes(text: &str) -> Vec<(usize, usize)> {
    // Same length, so that offsets are those of the text.
    let lower = text.to_ascii_lowercase();
    let mut found = Vec::new();
    for name in NAMES {
        let only_assigned = *name == "signature";
        for (at, _) in lower.match_indices(name) {
            found.extend(assigned(&lower, at + name.len(), only_assigned));
        }
    }
    for name in HEADERS {
        for (at, _) in lower.match_indices(name) {
            let rest = at + name.len();
            let after = lower[rest..].trim_start_matches(['"', '\'', ' ']);
            if after.starts_with([':', '=']) {
                let start = lower.len() - after.len() + 1;
                found.push(until(&lower, start, &['\n', '"']));
            }
        }
    }
    for (at, word) in lower.match_indices("bearer ") {
        found.push(until(&lower, at + word.len(), &[' ', '\n', '"', '\'', ',']));
    }
    for (at, mark) in lower.match_indices("://") {
        let start = at + mark.len();
        let (_, end) = until(&lower, start, &['/', '?', '#', ' ', '\n', '"', '\'', '<', '>', ')']);
        if let Some(sign) = lower[start..end].rfind('@') {
            found.push((start, start + sign));
        }
    }
    for (at, _) in lower.match_indices("-----begin ") {
        if lower[at..].lines().next().is_some_and(|line| line.contains("private key")) {
            let end = lower[at..].find("-----end").map_or(lower.len(), |end| at + end);
            found.push((at, end));
        }
    }
    found.retain(|(start, end)| start < end && &text[*start..*end] != HIDDEN);
    found.sort_unstable();
    found
}

/// The value behind `name=`, `name: ` or `"name": "`, if there is one.
fn assigned(text: &str, at: usize, only_equals: bool) -> Option<(usize, usize)> {
    let rest = text[at..].strip_prefix(['"', '\'']).unwrap_or(&text[at..]);
    let rest = rest.trim_start_matches(' ');
    let rest = rest.strip_prefix('=').or_else(|| rest.strip_prefix(':').filter(|_| !only_equals))?;
    let rest = rest.trim_start_matches(' ');
    if rest.trim_start_matches(['"', '\'']).starts_with(HIDDEN) {
        return None;
    }
    let start = text.len() - rest.len();
    Some(match rest.chars().next()? {
        quote @ ('"' | '\'') => until(text, start + 1, &[quote, '\n']),
        _ => until(text, start, &[' ', '\n', '\t', '&', ',', ';', '"', '\'', '}', ')']),
    })
}

fn until(text: &str, start: usize, ends: &[char]) -> (usize, usize) {
    (start, text[start..].find(ends).map_or(text.len(), |n| start + n))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn secrets_go_by_what_stands_around_them() {
        let plain = Redactor::default();
        for (said, told) in [
            ("quiet speediso.token=CANARY ip=dhcp", "quiet speediso.token=(secret) ip=dhcp"),
            ("GET https://me:CANARY@h/x", "GET https://(secret)@h/x"),
            ("https://h/x?X-Amz-Signature=CANARY&a=b", "https://h/x?X-Amz-Signature=(secret)&a=b"),
            ("{\"password\": \"CAN ARY\", \"a\": 1}", "{\"password\": \"(secret)\", \"a\": 1}"),
            ("Authorization: Basic CANARY", "Authorization:(secret)"),
            ("said Bearer CANARY, then", "said Bearer (secret), then"),
            (
                "-----BEGIN EC PRIVATE KEY-----\nCANARY\n-----END EC PRIVATE KEY-----",
                "(secret)-----END EC PRIVATE KEY-----",
            ),
            ("PASSPHRASE: CANARY", "PASSPHRASE: (secret)"),
        ] {
            assert_eq!(plain.text(said), told, "{said}");
            assert_eq!(plain.text(told), told, "said again");
        }
    }

    #[test]
    fn what_is_no_secret_stays() {
        let plain = Redactor::default();
        for said in [
            "a token works once, for ten minutes",
            "ssh: up on port 22, 1 key(s), no passwords",
            "speediso.sshkey=\"ssh-ed25519 AAAA me@host\"",
            "the signature: of somebody else",
            "mail me@host about https://h/x?y=z",
            "-----BEGIN CERTIFICATE-----",
        ] {
            assert!(matches!(plain.text(said), Cow::Borrowed(_)), "{}", plain.text(said));
        }
    }

    #[test]
    fn whatever_a_task_hides_is_learnt() {
        let task: Task = serde_json::from_value(serde_json::json!({
            "task": "capture",
            "device": { "serial": "S1" },
            "to": { "url": "https://me:CANARY-1@h/i?sig=CANARY-2", "headers": { "X-Own": "CANARY-3" } }
        }))
        .expect("a task");
        let mut redactor = Redactor::default();
        redactor.learn_task(&task);
        let told = redactor.text("a CANARY-1, CANARY-2 and CANARY-3 of S1 at h/i").into_owned();
        assert_eq!(told, "a (secret), (secret) and (secret) of S1 at h/i");
    }

    #[test]
    fn long_texts_are_learnt_by_line_and_in_json() {
        let mut redactor = Redactor::default();
        redactor.learn("#cloud-config\npackages:\n  - a\npassword: hunter22\n");
        assert_eq!(redactor.text("packages: hunter22"), "packages: (secret)");
        redactor.learn("quo\"ted");
        assert_eq!(redactor.text(r#"{"x":"quo\"ted"}"#), r#"{"x":"(secret)"}"#);
    }

    #[test]
    fn documents_lose_the_values_of_telling_fields() {
        let mut value = serde_json::json!({ "luks_passphrase": "a", "Authorization": "b", "signature": "c", "n": [{"token": "d"}] });
        Redactor::default().value(&mut value);
        assert_eq!(
            value,
            serde_json::json!({ "luks_passphrase": HIDDEN, "Authorization": HIDDEN, "signature": "c", "n": [{"token": HIDDEN}] })
        );
    }

    proptest! {
        #[test]
        fn a_known_secret_never_gets_through(before in "\\PC{0,30}", secret in "[!-~]{4,20}", after in "\\PC{0,30}") {
            let mut redactor = Redactor::default();
            redactor.keep(&secret);
            prop_assume!(!HIDDEN.contains(&secret));
            // What is left and right of it may make it up again together with the mark; only then it may be seen.
            let told = redactor.text(&format!("{before} {secret} {after}")).into_owned();
            prop_assert!(!told.replace(HIDDEN, "\n").contains(&secret));
        }

        #[test]
        fn any_text_is_taken(text in "(token|password|https://|@|=|:| |\u{e4}|\"|'|bearer |cookie|-----BEGIN PRIVATE KEY-----){0,14}") {
            let told = Redactor::default().text(&text).into_owned();
            prop_assert_eq!(told.is_empty(), text.is_empty());
        }
    }
}

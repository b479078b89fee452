//! From a disk to an image.

use std::collections::BTreeMap;
use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::hints::RootDeviceHints;
use crate::image::shown_url;
use crate::partition::PartitionName;

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CaptureTask {
    pub device: RootDeviceHints,
    /// Only this partition of it; the image is then one of a partition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partition: Option<PartitionName>,
    pub to: CaptureTarget,
    /// Of zstd, 1 to 19; 0 compresses nothing.
    #[serde(default = "default_level", skip_serializing_if = "is_default_level")]
    pub level: u8,
}

const DEFAULT_LEVEL: u8 = 3;

fn default_level() -> u8 {
    DEFAULT_LEVEL
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's way")]
fn is_default_level(level: &u8) -> bool {
    *level == DEFAULT_LEVEL
}

/// Where the image goes: exactly one of `store` and `url`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CaptureTarget {
    /// The controller's image store, under this name: NAME.json, NAME.idx and NAME.bin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store: Option<String>,
    /// A folder of a server that takes PUT and gives back what it took: `manifest.json`, `chunks.idx` and `chunks.bin`
    /// in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// For that server, such as `Authorization`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
}

impl CaptureTarget {
    /// Takes away what may be secret in it.
    pub fn redact(&mut self) {
        if let Some(url) = &mut self.url {
            *url = shown_url(url);
        }
        self.headers.values_mut().for_each(|value| "(not shown)".clone_into(value));
    }
}

impl fmt::Display for CaptureTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.store, &self.url) {
            (Some(name), _) => write!(f, "the controller's image store as {name}"),
            (None, Some(url)) => f.write_str(&shown_url(url)),
            (None, None) => f.write_str("nowhere"),
        }
    }
}

impl CaptureTask {
    /// # Errors
    /// With the field that is not right.
    pub fn check(&self) -> Result<(), String> {
        match &self.partition {
            Some(PartitionName::Number(0)) => return Err("partition: they are counted from 1".into()),
            Some(PartitionName::Label(label)) if label.is_empty() => {
                return Err("partition: an empty label names none".into());
            }
            _ => {}
        }
        if self.level > 19 {
            return Err(format!("level: {} is not one of 0 to 19", self.level));
        }
        match (&self.to.store, &self.to.url) {
            (Some(name), None) if !self.to.headers.is_empty() => {
                Err(format!("to.headers: the store takes none for {name}"))
            }
            (Some(name), None) => check_name(name),
            (None, Some(url)) => check_url(url).and_then(|()| check_headers(&self.to.headers)),
            _ => Err("to: exactly one of store and url is needed".into()),
        }
    }
}

/// Names of files in the store and in the manifest are made of it.
fn check_name(name: &str) -> Result<(), String> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
    if (1..=100).contains(&name.len()) && name.bytes().all(plain) && !name.starts_with('.') && name != "manifest" {
        return Ok(());
    }
    Err(format!(
        "to.store: {name:?} is not 1 to 100 letters, digits, dots, dashes, underscores, beginning without a dot"
    ))
}

fn check_url(url: &str) -> Result<(), String> {
    let web = ["https://", "http://"].iter().find_map(|scheme| url.strip_prefix(scheme));
    let plain = |c: char| !c.is_control() && !c.is_whitespace() && c != '#';
    if web.is_some_and(|rest| !rest.is_empty() && !rest.starts_with(['/', '?']))
        && url.len() <= 2048
        && url.chars().all(plain)
    {
        return Ok(());
    }
    Err(format!("to.url: {:?} is not an http or https URL", shown_url(url)))
}

fn check_headers(headers: &BTreeMap<String, String>) -> Result<(), String> {
    const OURS: [&str; 9] = [
        "accept-encoding",
        "connection",
        "content-encoding",
        "content-length",
        "host",
        "if-none-match",
        "range",
        "transfer-encoding",
        "expect",
    ];
    for (name, value) in headers {
        let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
        if name.is_empty() || name.len() > 128 || !name.bytes().all(token) {
            return Err(format!("to.headers: {name:?} is no name of a header"));
        }
        if OURS.contains(&name.to_ascii_lowercase().as_str()) {
            return Err(format!("to.headers: {name} is not for an order to say"));
        }
        if value.len() > 8192 || !value.bytes().all(|b| b == b' ' || b.is_ascii_graphic()) {
            return Err(format!("to.headers: the value of {name} is not printable ASCII"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::task::Task;

    fn checked(fields: &str) -> Result<Task, String> {
        let text = format!(r#"{{"task":"capture","device":{{"serial":"S"}},{fields}}}"#);
        let task: Task = serde_json::from_str(&text).map_err(|e| e.to_string())?;
        task.validate().map_err(|fault| fault.message)?;
        Ok(task)
    }

    #[test]
    fn what_can_be_ordered() {
        for good in [
            r#""to":{"store":"web1"}"#,
            r#""partition":{"number":2},"to":{"store":"a.b-c_1"},"level":0"#,
            r#""partition":{"label":"root"},"to":{"url":"https://h/i","headers":{"Authorization":"Bearer x"}}"#,
            r#""partition":{"uuid":"6f3c0f32-14c1-4ee6-8a3c-6d0c4bb2a111"},"to":{"url":"http://h:8080/a/?sig=x"}"#,
        ] {
            checked(good).expect(good);
        }
        for (bad, word) in [
            (r#""to":{}"#, "exactly one"),
            (r#""to":{"store":"a","url":"https://h/"}"#, "exactly one"),
            (r#""to":{"store":"a","headers":{"X":"y"}}"#, "headers"),
            (r#""to":{"store":"../a"}"#, "to.store"),
            (r#""to":{"store":"manifest"}"#, "to.store"),
            (r#""to":{"url":"ftp://h/"}"#, "to.url"),
            (r#""to":{"url":"https:///x"}"#, "to.url"),
            (r#""to":{"url":"https://h/#x"}"#, "to.url"),
            (r#""to":{"url":"https://h/","headers":{"Host":"x"}}"#, "Host"),
            (r#""to":{"url":"https://h/","headers":{"X":"a\r\nY: b"}}"#, "X"),
            (r#""to":{"store":"a"},"partition":{"number":0}"#, "partition"),
            (r#""to":{"store":"a"},"partition":{"name":"x"}"#, "variant"),
            (r#""to":{"store":"a"},"level":20"#, "level"),
            (r#""to":{"store":"a"},"compress":true"#, "compress"),
        ] {
            let error = checked(bad).expect_err(bad);
            assert!(error.contains(word), "{error}");
        }
    }

    #[test]
    fn secrets_are_not_told() {
        let task = checked(r#""to":{"url":"https://me:pw@h/i?sig=abc","headers":{"Authorization":"Bearer xyz"}}"#)
            .expect("good");
        let told = serde_json::to_string(&task.redacted()).expect("JSON");
        assert!(!told.contains("xyz") && !told.contains("abc") && !told.contains("pw"), "{told}");
        assert!(told.contains("https://h/i") && told.contains("Authorization"), "{told}");
    }
}

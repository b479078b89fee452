//! What pages to be printed have in common: each is whole in itself, runs no script, and needs nothing from elsewhere, not
//! even from us.

use axum::http::{HeaderValue, header};
use axum::response::{Html, IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use jiff::Timestamp;
use maud::{DOCTYPE, Markup, PreEscaped, html};
use sha2::{Digest as _, Sha256};

/// The page, with its style in it.
pub(super) fn page(title: &str, style: &str, body: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (title) }
                style { (PreEscaped(style)) }
            }
            body { (body) }
        }
    }
}

/// With the policy that lets a browser take this style and nothing else.
pub(super) fn response(page: Markup, style: &str) -> Response {
    let digest = BASE64.encode(Sha256::digest(style));
    let policy = format!(
        "default-src 'none'; style-src 'sha256-{digest}'; form-action 'none'; frame-ancestors 'none'; base-uri 'none'"
    );
    let mut response = Html(page.into_string()).into_response();
    // Base64 is printable ASCII.
    if let Ok(policy) = HeaderValue::from_str(&policy) {
        response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, policy);
    }
    response
}

/// To the second: what is smaller is in the document.
pub(super) fn time(at: Timestamp) -> String {
    let second = Timestamp::from_second(at.as_second()).unwrap_or(at);
    second.to_string().replacen('T', " ", 1).replace('Z', " UTC")
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use serde_json::{Value, json};

    const EVIL: &str = "<script>alert(1)</script>\"'&";

    /// The paths of all texts in a document.
    fn texts(value: &Value, at: &str, found: &mut Vec<String>) {
        match value {
            Value::String(_) => found.push(at.to_owned()),
            Value::Array(items) => items.iter().enumerate().for_each(|(i, v)| texts(v, &format!("{at}/{i}"), found)),
            Value::Object(fields) => fields.iter().for_each(|(k, v)| texts(v, &format!("{at}/{k}"), found)),
            _ => {}
        }
    }

    /// Puts markup into each text of a document in turn. How many of them are shown, as the text they are; `rendered` gives
    /// nothing for what takes no such text at all: ids, times, words of a closed list.
    pub(in crate::dashboard) fn shown_as_text(good: &Value, rendered: impl Fn(Value) -> Option<String>) -> usize {
        let mut paths = Vec::new();
        texts(good, "", &mut paths);
        let mut shown = 0;
        for path in paths {
            let mut bad = good.clone();
            if let Some(place) = bad.pointer_mut(&path) {
                *place = json!(EVIL);
            }
            let Some(page) = rendered(bad) else { continue };
            assert!(!page.contains("<script"), "{path}");
            shown += usize::from(page.contains("&lt;script&gt;"));
        }
        shown
    }

    #[track_caller]
    pub(in crate::dashboard) fn needs_nothing(page: &str) {
        assert!(!page.contains("http") && !page.contains("src=") && !page.contains("url("), "{page}");
    }

    #[test]
    fn times_are_to_the_second() {
        assert_eq!(time("2026-11-21T12:00:00.5Z".parse().expect("a time")), "2026-11-21 12:00:00 UTC");
    }
}

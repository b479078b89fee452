//! The cookie of a logged-in browser: `expiry.hmac`, nothing to be stored.

use aws_lc_rs::hmac;
use axum::http::{HeaderMap, header};
use speediso_model::plan::hex;

use crate::http::OperatorToken;

const NAME: &str = "__Host-speediso";
const LIFETIME: i64 = 12 * 3600;

fn key(operator: &OperatorToken) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, operator.session_key().as_bytes())
}

fn text(expiry: i64) -> String {
    format!("speediso dashboard session v1\n{expiry}\n")
}

pub(super) fn cookie(operator: &OperatorToken, now: i64) -> String {
    let expiry = now + LIFETIME;
    let tag = hmac::sign(&key(operator), text(expiry).as_bytes());
    let value = format!("{expiry}.{}", hex(tag.as_ref()));
    format!("{NAME}={value}; Path=/; Max-Age={LIFETIME}; Secure; HttpOnly; SameSite=Strict")
}

pub(super) fn is_valid(operator: &OperatorToken, headers: &HeaderMap, now: i64) -> bool {
    headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(';'))
        .filter_map(|pair| pair.trim().strip_prefix(NAME)?.strip_prefix('='))
        .any(|value| holds(operator, value, now))
}

fn holds(operator: &OperatorToken, value: &str, now: i64) -> bool {
    let Some((expiry, tag)) = value.split_once('.') else { return false };
    let Ok(expiry) = expiry.parse::<i64>() else { return false };
    let expected = hmac::sign(&key(operator), text(expiry).as_bytes());
    let same = aws_lc_rs::constant_time::verify_slices_are_equal(hex(expected.as_ref()).as_bytes(), tag.as_bytes());
    same.is_ok() && expiry > now
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_cookie_is_good_for_its_time_and_its_token() {
        let operator = OperatorToken::from_secret("a");
        let cookie = cookie(&operator, 1000);
        let value = cookie.split(';').next().unwrap();
        let headers = |v: &str| HeaderMap::from_iter([(header::COOKIE, v.parse().unwrap())]);
        assert!(is_valid(&operator, &headers(value), 1001));
        assert!(is_valid(&operator, &headers(&format!("x=y; {value}")), 1001));
        assert!(!is_valid(&operator, &headers(value), 1000 + LIFETIME));
        assert!(!is_valid(&OperatorToken::from_secret("b"), &headers(value), 1001));
        assert!(!is_valid(&operator, &headers(&value.replace("=4", "=9")), 1001));
        assert!(!is_valid(&operator, &HeaderMap::new(), 1001));
    }
}

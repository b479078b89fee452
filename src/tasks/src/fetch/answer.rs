//! One request for a file from some byte on, and what the server made of it.

use std::time::Duration;

use reqwest::header::{
    ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_RANGE, ETAG, HeaderMap, IF_RANGE, LAST_MODIFIED, RANGE,
};
use reqwest::{Response, StatusCode};
use speediso_model::fault::{Fault, FaultCode};

use super::FetchError;

/// What is wanted, and what is known of the file from earlier answers.
#[derive(Clone, Debug, Default)]
pub(super) struct Wanted<'a> {
    pub(super) offset: u64,
    /// To the end without it.
    pub(super) length: Option<u64>,
    /// The same server's, of the same file: a part of another file is no use.
    pub(super) validator: Option<&'a str>,
    pub(super) total: Option<u64>,
}

/// A body that has begun.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) response: Response,
    /// Where in the file its first byte is: where it was wanted, or 0 from a server that ignores ranges.
    pub(super) begins: u64,
    /// Of the whole file.
    pub(super) total: Option<u64>,
    pub(super) validator: Option<String>,
    /// Whether it is the part that was asked for, and no more.
    pub(super) partial: bool,
}

impl Wanted<'_> {
    /// # Errors
    /// [`FetchError::Unreachable`] if it may be otherwise later, anything else if not.
    pub(super) async fn ask(
        &self,
        http: &reqwest::Client,
        url: &str,
        patience: Duration,
    ) -> Result<Answer, FetchError> {
        // What is hashed is what the server stores, not what a helpful server makes of it.
        let mut request = http.get(url).header(ACCEPT_ENCODING, "identity");
        let partial = self.offset > 0 || self.length.is_some();
        if partial {
            let last = self.length.map_or_else(String::new, |n| (self.offset + n - 1).to_string());
            request = request.header(RANGE, format!("bytes={}-{last}", self.offset));
            if let Some(validator) = self.validator {
                request = request.header(IF_RANGE, validator);
            }
        }
        let response = tokio::time::timeout(patience, request.send())
            .await
            .map_err(|_| FetchError::Unreachable(format!("no answer for {} s", patience.as_secs())))?
            .map_err(|e| no_answer(&e.without_url()))?;
        self.read(response, partial)
    }

    fn read(&self, response: Response, partial: bool) -> Result<Answer, FetchError> {
        let (status, headers) = (response.status(), response.headers());
        if headers.get(CONTENT_ENCODING).is_some_and(|e| e != "identity") {
            return Err(FetchError::Refused("the server encoded the content".into()));
        }
        let validator = validator(headers);
        let changed = |what: &str| Err(FetchError::Changed(what.into()));
        match status {
            StatusCode::OK => {
                let total = response.content_length();
                if self.validator.is_some() && validator.as_deref() != self.validator {
                    return changed("it has another ETag or date now");
                }
                if let (Some(before), Some(now)) = (self.total, total)
                    && before != now
                {
                    return changed(&format!("it had {before} bytes, now {now}"));
                }
                Ok(Answer { response, begins: 0, total, validator, partial: false })
            }
            StatusCode::PARTIAL_CONTENT if partial => {
                let range = headers.get(CONTENT_RANGE).and_then(|v| v.to_str().ok()).and_then(parse_range);
                let Some((first, last, total)) = range else {
                    return Err(FetchError::Refused("the server sent a part without saying which".into()));
                };
                let wanted_last = self.length.map(|n| self.offset + n - 1);
                if first != self.offset || last < first || wanted_last.is_some_and(|l| last > l) {
                    return Err(FetchError::Refused(format!(
                        "asked for bytes from {}, the server sent {first} to {last}",
                        self.offset
                    )));
                }
                if let (Some(before), Some(now)) = (self.total, total)
                    && before != now
                {
                    return changed(&format!("it had {before} bytes, now {now}"));
                }
                Ok(Answer { response, begins: first, total: total.or(self.total), validator, partial: true })
            }
            StatusCode::RANGE_NOT_SATISFIABLE if partial => changed("it ends earlier now"),
            StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => {
                Err(FetchError::Unreachable(format!("the server answered {status}")))
            }
            _ if status.is_server_error() => Err(FetchError::Unreachable(format!("the server answered {status}"))),
            _ => Err(FetchError::Refused(format!("the server answered {status}"))),
        }
    }
}

fn no_answer(error: &reqwest::Error) -> FetchError {
    let fault = Fault::from_error(FaultCode::ImageUnreachable, error);
    let text = std::iter::once(fault.message).chain(fault.causes).collect::<Vec<_>>().join(": ");
    if error.is_redirect() || error.is_builder() { FetchError::Refused(text) } else { FetchError::Unreachable(text) }
}

/// RFC 9110, 13.1.5: only a strong one goes into If-Range. A date is the next best thing.
fn validator(headers: &HeaderMap) -> Option<String> {
    let text = |name| headers.get(name).and_then(|v| v.to_str().ok()).map(str::to_owned);
    text(ETAG).filter(|tag| !tag.starts_with("W/")).or_else(|| text(LAST_MODIFIED))
}

/// RFC 9110, 14.4: `bytes 0-9/100` or `bytes 0-9/*`.
fn parse_range(text: &str) -> Option<(u64, u64, Option<u64>)> {
    let (range, total) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let total = if total == "*" { None } else { Some(total.parse().ok()?) };
    Some((first.parse().ok()?, last.parse().ok()?, total))
}

#[cfg(test)]
mod tests {
    use super::parse_range;

    #[test]
    fn a_range_is_read_as_the_standard_says() {
        assert_eq!(parse_range("bytes 5-9/100"), Some((5, 9, Some(100))));
        assert_eq!(parse_range("bytes 5-9/*"), Some((5, 9, None)));
        for bad in ["", "bytes */100", "bytes 5-9", "lines 5-9/100", "bytes a-9/100", "bytes -5-9/100"] {
            assert_eq!(parse_range(bad), None, "{bad}");
        }
    }
}

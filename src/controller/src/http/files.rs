//! Bytes of a file, whole or by range.
//!
//! One range at a time: boot loaders and agents ask for no more, and a request for several gets the whole. The file
//! is opened before anything is answered, so what is promised in the headers is what the open file has.

use std::io::SeekFrom;
use std::path::Path;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use speediso_model::fault::{Fault, FaultCode};
use tokio::fs::File;
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};
use tokio_util::io::ReaderStream;

use super::ApiError;

/// Large reads: each is one trip to a blocking thread.
const CHUNK: usize = 256 * 1024;

/// `etag` with its quotes.
///
/// # Errors
/// When the file cannot be read, or the range is outside of it.
pub async fn serve(path: &Path, etag: Option<&str>, headers: &HeaderMap) -> Result<Response, ApiError> {
    let failed = |error: std::io::Error| {
        tracing::error!(error = &error as &dyn std::error::Error, path = %path.display(), "opening a file to serve");
        ApiError::not_found("such file")
    };
    let mut file = File::open(path).await.map_err(failed)?;
    let metadata = file.metadata().await.map_err(failed)?;
    if !metadata.is_file() {
        return Err(ApiError::not_found("such file"));
    }
    let size = metadata.len();
    let text = |name| headers.get(name).and_then(|v: &HeaderValue| v.to_str().ok());

    let mut answer = HeaderMap::new();
    answer.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    answer.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    if let Some(etag) = etag.and_then(|e| HeaderValue::from_str(e).ok()) {
        answer.insert(header::ETAG, etag);
    }
    if let (Some(etag), Some(known)) = (etag, text(header::IF_NONE_MATCH))
        && known.split(',').any(|k| k.trim() == etag)
    {
        return Ok((StatusCode::NOT_MODIFIED, answer).into_response());
    }
    // A resumed fetch must not be joined to another file's beginning.
    let same = text(header::IF_RANGE).is_none_or(|wanted| Some(wanted) == etag);
    let range = text(header::RANGE).filter(|_| same).map_or(Wanted::Whole, |r| wanted(r, size));
    let (status, start, length) = match range {
        Wanted::Whole => (StatusCode::OK, 0, size),
        Wanted::Part { start, end } => {
            let value = format!("bytes {start}-{}/{size}", end - 1);
            answer.insert(header::CONTENT_RANGE, HeaderValue::from_str(&value).unwrap_or(HeaderValue::from_static("")));
            (StatusCode::PARTIAL_CONTENT, start, end - start)
        }
        Wanted::Outside => {
            let mut error: ApiError =
                Fault::new(FaultCode::ImageRefused, format!("the range is outside of the file's {size} bytes")).into();
            error.status = StatusCode::RANGE_NOT_SATISFIABLE;
            let mut response = error.into_response();
            let value = HeaderValue::from_str(&format!("bytes */{size}")).unwrap_or(HeaderValue::from_static(""));
            response.headers_mut().insert(header::CONTENT_RANGE, value);
            return Ok(response);
        }
    };
    answer.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    if start > 0 {
        file.seek(SeekFrom::Start(start)).await.map_err(failed)?;
    }
    let body = Body::from_stream(ReaderStream::with_capacity(file.take(length), CHUNK));
    Ok((status, answer, body).into_response())
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Wanted {
    Whole,
    /// `end` is exclusive.
    Part {
        start: u64,
        end: u64,
    },
    Outside,
}

/// RFC 9110, section 14.1.2; what is malformed is ignored, as it says.
fn wanted(range: &str, size: u64) -> Wanted {
    let Some((first, last)) = range.trim().strip_prefix("bytes=").and_then(|r| r.split_once('-')) else {
        return Wanted::Whole;
    };
    let number = |text: &str| text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse::<u64>().ok()).flatten();
    match (first, last) {
        ("", last) => match number(last) {
            Some(0) => Wanted::Outside,
            Some(_) if size == 0 => Wanted::Outside,
            Some(n) => Wanted::Part { start: size.saturating_sub(n), end: size },
            None => Wanted::Whole,
        },
        (first, "") => match number(first) {
            Some(start) if start < size => Wanted::Part { start, end: size },
            Some(_) => Wanted::Outside,
            None => Wanted::Whole,
        },
        (first, last) => match (number(first), number(last)) {
            (Some(start), Some(end)) if start > end => Wanted::Whole,
            (Some(start), Some(_)) if start >= size => Wanted::Outside,
            (Some(start), Some(end)) => Wanted::Part { start, end: end.saturating_add(1).min(size) },
            _ => Wanted::Whole,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        let part = |start, end| Wanted::Part { start, end };
        for (range, expected) in [
            ("bytes=0-0", part(0, 1)),
            ("bytes=0-99", part(0, 100)),
            ("bytes=0-1000", part(0, 100)),
            ("bytes=99-", part(99, 100)),
            ("bytes=-1", part(99, 100)),
            ("bytes=-1000", part(0, 100)),
            ("bytes=100-", Wanted::Outside),
            ("bytes=100-200", Wanted::Outside),
            ("bytes=-0", Wanted::Outside),
            ("bytes=5-4", Wanted::Whole),
            ("bytes=0-1,3-4", Wanted::Whole),
            ("bytes=+1-2", Wanted::Whole),
            ("bytes=-", Wanted::Whole),
            ("lines=1-2", Wanted::Whole),
            ("bytes=0-18446744073709551615", part(0, 100)),
        ] {
            assert_eq!(wanted(range, 100), expected, "{range}");
        }
        assert_eq!(wanted("bytes=0-", 0), Wanted::Outside);
    }
}

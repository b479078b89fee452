//! Files of digests, as `sha256sum`, `sha512sum` and their BSD cousins write them.

use speediso_model::image::ImageDigest;

/// Larger than any release's.
pub const MAX_CHECKSUMS: usize = 1 << 20;

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChecksumsError {
    #[error("it is not text")]
    NotText,
    #[error("it does not name {0:?}")]
    NotNamed(String),
    #[error("it names {0:?} with different digests")]
    Ambiguous(String),
}

/// The digest of the file of this name: SHA-256 or SHA-512, by its length. A file with nothing but one digest is of
/// whatever it lies beside.
///
/// # Errors
/// When there is none, or more than one.
pub fn find(text: &[u8], name: &str) -> Result<ImageDigest, ChecksumsError> {
    let text = str::from_utf8(text).map_err(|_| ChecksumsError::NotText)?;
    if let Some(digest) = digest(text.trim()) {
        return Ok(digest);
    }
    let mut found = None;
    for digest in text.lines().filter_map(|line| of_line(line.trim(), name)) {
        match found.replace(digest.clone()) {
            Some(before) if before != digest => return Err(ChecksumsError::Ambiguous(name.to_owned())),
            _ => {}
        }
    }
    found.ok_or_else(|| ChecksumsError::NotNamed(name.to_owned()))
}

/// `<digits>  <name>`, `<digits> *<name>`, or `SHA256 (<name>) = <digits>`.
fn of_line(line: &str, name: &str) -> Option<ImageDigest> {
    let same = |found: &str| found.strip_prefix("./").unwrap_or(found) == name;
    if let Some((front, digits)) = line.split_once(") = ") {
        let (_, found) = front.split_once(" (")?;
        return same(found).then(|| digest(digits.trim())).flatten();
    }
    let (digits, found) = line.split_once(' ')?;
    same(found.trim_start_matches([' ', '*'])).then(|| digest(digits)).flatten()
}

fn digest(digits: &str) -> Option<ImageDigest> {
    let algorithm = match digits.len() {
        64 => "sha256",
        128 => "sha512",
        _ => return None,
    };
    format!("{algorithm}:{digits}").parse().ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::expect_used, reason = "tests")]
    use super::*;

    #[test]
    fn every_common_form_is_read() {
        let (a, b) = ("0a".repeat(32), "0b".repeat(64));
        let of = |text: &str| find(text.as_bytes(), "disk.img").map(|d| d.to_string());
        for text in [
            format!("{a}  disk.img\n"),
            format!("# comment\n{}  other.img\r\n{a} *disk.img\r\n", "0c".repeat(32)),
            format!("{a}  ./disk.img\n{a}  disk.img\n"),
            format!("SHA256 (disk.img) = {a}\n"),
            format!("{a}\n"),
        ] {
            assert_eq!(of(&text), Ok(format!("sha256:{a}")), "{text}");
        }
        assert_eq!(of(&format!("{b}  disk.img")), Ok(format!("sha512:{b}")));
        let not_named = Err(ChecksumsError::NotNamed("disk.img".into()));
        for text in [
            "",
            "disk.img",
            &format!("{a}  disk.img.zst"),
            &format!("{a} x disk.img"),
            &format!("{}  disk.img", &a[2..]),
        ] {
            assert_eq!(of(text), not_named, "{text}");
        }
        let two = format!("{a}  disk.img\n{}  disk.img\n", "0c".repeat(32));
        assert_eq!(of(&two), Err(ChecksumsError::Ambiguous("disk.img".into())));
        assert_eq!(find(b"\xff\xfe", "x"), Err(ChecksumsError::NotText));
    }
}

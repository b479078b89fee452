//! Names with `*` in them, as limits name measurements and sensors.

/// Whether `name` is what `pattern` says; `*` stands for any characters, also none.
#[must_use]
pub fn matches(pattern: &str, name: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else { return pattern == name };
    let Some(mut left) = name.strip_prefix(first) else { return false };
    let mut parts: Vec<&str> = rest.split('*').collect();
    // The last part must be the end; those between may be taken where they first occur.
    let last = parts.pop().unwrap_or_default();
    for part in parts {
        match left.find(part) {
            Some(at) => left = &left[at + part.len()..],
            None => return false,
        }
    }
    left.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_is_anything() {
        for (pattern, name) in [("a", "a"), ("a*", "a"), ("*", ""), ("a*c", "abc"), ("*b*", "abc"), ("a*b*c", "axbybc")]
        {
            assert!(matches(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [("a", "ab"), ("a*", "ba"), ("ab*ba", "aba"), ("a*b*c", "acb"), ("", "a")] {
            assert!(!matches(pattern, name), "{pattern} {name}");
        }
    }
}

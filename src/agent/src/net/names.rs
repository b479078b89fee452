//! Domain names in the form of DNS messages (RFC 1035 section 3.1), which DHCP and router advertisements use too.

use super::param::is_hostname;

/// The longest name, its lengths counted.
const LONGEST: usize = 255;
const LIST_LIMIT: usize = 16;

/// The name at `at` in `message`, and where the next thing begins. Pointers lead only backwards, so that none leads in
/// a circle. `None` for what breaks off or is no name.
pub(super) fn read(message: &[u8], at: usize) -> Option<(String, usize)> {
    let (mut name, mut at, mut end, mut floor) = (String::new(), at, None, at);
    loop {
        match *message.get(at)? {
            0 => return Some((name, end.unwrap_or(at + 1))),
            length @ 1..=63 => {
                let label = message.get(at + 1..at + 1 + usize::from(length))?;
                if name.len() + label.len() + 1 > LONGEST {
                    return None;
                }
                if !name.is_empty() {
                    name.push('.');
                }
                name.extend(label.iter().map(|b| if b.is_ascii_graphic() { char::from(*b) } else { '?' }));
                at += 1 + usize::from(length);
            }
            high @ 0xc0.. => {
                let target = usize::from(u16::from_be_bytes([high & 0x3f, *message.get(at + 1)?]));
                if target >= floor {
                    return None;
                }
                end.get_or_insert(at + 2);
                (at, floor) = (target, target);
            }
            _ => return None,
        }
    }
}

/// The names of a search list that can be used, in lower case. A pointer counts from the list's own start (RFC 3397).
pub(super) fn list(bytes: &[u8]) -> Option<Vec<String>> {
    let (mut names, mut at) = (Vec::new(), 0);
    while at < bytes.len() {
        let (name, next) = read(bytes, at)?;
        // Filled up with zeros at the end.
        if is_hostname(&name) && names.len() < LIST_LIMIT {
            names.push(name.to_ascii_lowercase());
        }
        at = next;
    }
    Some(names)
}

/// `None` for a name that cannot be asked for.
pub(super) fn write(name: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(name.len() + 2);
    for label in name.trim_end_matches('.').split('.') {
        let length = u8::try_from(label.len()).ok().filter(|l| (1..=63).contains(l))?;
        bytes.push(length);
        bytes.extend(label.as_bytes());
    }
    bytes.push(0);
    (bytes.len() <= LONGEST).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_are_compressed_backwards_only() {
        let message = b"\x07example\x03org\0\x03www\xc0\x00";
        assert_eq!(read(message, 0), Some(("example.org".into(), 13)));
        assert_eq!(read(message, 13), Some(("www.example.org".into(), 19)));
        assert_eq!(read(b"\xc0\x00", 0), None, "itself");
        assert_eq!(read(b"\x01a\xc0\x04\xc0\x00", 0), None, "forwards");
        assert_eq!(
            list(b"\x03Lab\x07example\0\x02dc\xc0\x04\0\0"),
            Some(vec!["lab.example".into(), "dc.example".into()])
        );
        assert_eq!(list(b"\x03a\nb\0"), Some(vec![]));
        assert_eq!(write("a.example").as_deref(), Some(&b"\x01a\x07example\0"[..]));
        assert_eq!(write("a..b"), None);
        assert_eq!(write(&"x".repeat(64)), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..300), at in 0usize..300) {
            if let Some((name, next)) = read(&bytes, at) {
                prop_assert!(name.len() <= LONGEST && next > at);
            }
            if let Some(names) = list(&bytes) {
                prop_assert!(names.iter().all(|name| is_hostname(name)));
            }
        }

        #[test]
        fn what_is_written_is_read(name in "[a-z]{1,20}(\\.[a-z0-9]{1,20}){0,4}") {
            let bytes = write(&name).expect("good");
            prop_assert_eq!(read(&bytes, 0), Some((name, bytes.len())));
        }
    }
}

//! The header of a LUKS2 device (LUKS2 On-Disk Format Specification 1.1): whether it is one that was made for the order.
//! It needs no key and no program. Whatever a header may say that ours never say is a difference: another's key slot, an
//! encryption that is none, a part of the device left out.

use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};
use speediso_model::task::Luks;

use super::format::LUKS_HEADER;

/// Told to cryptsetup, and looked for: the strongest that all kernels have.
pub(super) const CIPHER: &str = "aes-xts-plain64";
pub(super) const KEY_BITS: u64 = 512;
/// Of either copy, with its JSON; what cryptsetup makes.
const LENGTH: usize = 16 << 10;
const JSON: usize = 4096;
const CHECKSUM: std::ops::Range<usize> = 448..512;

/// In what the header that begins here is not as ordered.
pub(super) fn differences(wanted: &Luks, start: &[u8]) -> Vec<String> {
    match parse(start) {
        Ok((label, uuid, json)) => {
            let mut differs = Vec::new();
            let wanted_label = wanted.label.as_deref().unwrap_or_default();
            if label != wanted_label {
                differs.push(format!("its label is {label:?} instead of {wanted_label:?}"));
            }
            if let Some(wanted) = wanted.uuid.filter(|wanted| !wanted.to_string().eq_ignore_ascii_case(&uuid)) {
                differs.push(format!("its UUID is {uuid} instead of {wanted}"));
            }
            differs.extend(metadata(&json));
            differs
        }
        Err(why) => vec![why],
    }
}

/// Label, UUID and metadata of a header that is whole.
fn parse(start: &[u8]) -> Result<(String, String, Value), String> {
    let Some(header) = start.get(..LENGTH).filter(|header| header.starts_with(b"LUKS\xba\xbe")) else {
        return Err("there is no LUKS header".into());
    };
    let version = u16::from_be_bytes([header[6], header[7]]);
    if version != 2 {
        return Err(format!("it is LUKS{version} instead of LUKS2"));
    }
    let length = header[8..16].iter().fold(0u64, |n, b| n << 8 | u64::from(*b));
    if length != LENGTH as u64 {
        return Err(format!("its header has {length} bytes instead of {LENGTH}"));
    }
    if text(&header[72..104]) != "sha256" {
        return Err(format!("its header has a checksum by {:?} instead of sha256", text(&header[72..104])));
    }
    let mut hash = Sha256::new();
    hash.update(&header[..CHECKSUM.start]);
    hash.update([0; 64]);
    hash.update(&header[CHECKSUM.end..]);
    if hash.finalize()[..] != header[CHECKSUM.start..CHECKSUM.start + 32] {
        return Err("its header is damaged: the checksum is wrong".into());
    }
    let json = header[JSON..].split(|b| *b == 0).next().unwrap_or_default();
    let json = serde_json::from_slice(json).map_err(|e| format!("its metadata make no sense: {e}"))?;
    Ok((text(&header[24..72]), text(&header[168..208]), json))
}

fn metadata(json: &Value) -> Vec<String> {
    let empty = Map::new();
    let all = |name: &str| json.get(name).and_then(Value::as_object).unwrap_or(&empty);
    let word = |object: &Value, name: &str| match object.get(name) {
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
        None => "nothing".into(),
    };
    let mut differs = Vec::new();
    let mut compare = |what: &str, found: String, wanted: &str| {
        if found != wanted {
            differs.push(format!("its {what} is {found} instead of {wanted}"));
        }
    };
    let (slots, segments) = (all("keyslots"), all("segments"));
    compare("number of keys", slots.len().to_string(), "1");
    compare("number of encrypted parts", segments.len().to_string(), "1");
    compare("number of tokens", all("tokens").len().to_string(), "0");
    for segment in segments.values() {
        compare("kind of part", word(segment, "type"), "crypt");
        compare("cipher", word(segment, "encryption"), CIPHER);
        compare("size", word(segment, "size"), "dynamic");
        compare("start", word(segment, "offset"), &LUKS_HEADER.to_string());
        compare("integrity", word(segment, "integrity"), "nothing");
    }
    for slot in slots.values() {
        compare("kind of key", word(slot, "type"), "luks2");
        compare("key size in bytes", word(slot, "key_size"), &(KEY_BITS / 8).to_string());
    }
    // Half re-encrypted, for instance.
    let requirements = json.pointer("/config/requirements").map_or_else(|| "nothing".into(), Value::to_string);
    compare("list of requirements", requirements, "nothing");
    differs
}

fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

#[cfg(test)]
pub(super) mod tests {
    #![allow(clippy::expect_used, reason = "tests")]
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;
    use speediso_model::layout::LuksKey;

    fn wanted() -> Luks {
        let uuid = Some("5eed0000-0000-4000-8000-000000000001".parse().expect("a UUID"));
        Luks { key: LuksKey("a long secret".into()), label: Some("root".into()), uuid, unlock_ms: None, content: None }
    }

    fn good() -> Value {
        json!({
            "keyslots": {"0": {"type": "luks2", "key_size": 64}},
            "tokens": {},
            "segments": {"0": {"type": "crypt", "offset": "16777216", "size": "dynamic", "iv_tweak": "0",
                               "encryption": "aes-xts-plain64", "sector_size": 512}},
            "digests": {},
            "config": {"json_size": "12288", "keyslots_size": "16744448"},
        })
    }

    fn header(label: &str, uuid: &str, json: &Value) -> Vec<u8> {
        let mut header = vec![0; LENGTH];
        let mut put = |at: usize, bytes: &[u8]| header[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, b"LUKS\xba\xbe\x00\x02");
        put(8, &(LENGTH as u64).to_be_bytes());
        put(24, label.as_bytes());
        put(72, b"sha256");
        put(168, uuid.as_bytes());
        put(JSON, json.to_string().as_bytes());
        let checksum = Sha256::digest(&header);
        header[CHECKSUM.start..CHECKSUM.start + 32].copy_from_slice(&checksum);
        header
    }

    #[test]
    fn whatever_is_not_as_ordered_is_named() {
        const UUID: &str = "5eed0000-0000-4000-8000-000000000001";
        assert_eq!(differences(&wanted(), &header("root", UUID, &good())), Vec::<String>::new());
        type Spoil = fn(&mut Value);
        let spoil: [(Spoil, &str); 7] = [
            (|j| j["segments"]["0"]["encryption"] = json!("cipher_null-ecb"), "cipher is cipher_null-ecb"),
            (|j| j["keyslots"]["0"]["key_size"] = json!(32), "key size in bytes is 32 instead of 64"),
            (|j| j["keyslots"]["1"] = j["keyslots"]["0"].clone(), "number of keys is 2 instead of 1"),
            (|j| j["tokens"]["0"] = json!({}), "number of tokens is 1"),
            (|j| j["segments"]["0"]["size"] = json!("1048576"), "size is 1048576 instead of dynamic"),
            (|j| j["segments"]["0"]["integrity"] = json!({"type": "hmac"}), "integrity is"),
            (|j| j["config"]["requirements"] = json!({"mandatory": ["online-reencrypt"]}), "online-reencrypt"),
        ];
        for (spoil, said) in spoil {
            let mut json = good();
            spoil(&mut json);
            let found = differences(&wanted(), &header("root", UUID, &json));
            assert!(found.len() == 1 && found[0].contains(said), "{said}: {found:?}");
        }
        let found = differences(&wanted(), &header("", "5eed0000-0000-4000-8000-000000000002", &good()));
        assert!(
            found.len() == 2 && found[0].contains("label is \"\" instead of \"root\"") && found[1].contains("UUID")
        );
        let mut damaged = header("root", UUID, &good());
        damaged[JSON + 3] ^= 1;
        assert!(differences(&wanted(), &damaged)[0].contains("checksum"));
        damaged[7] = 1;
        assert_eq!(differences(&wanted(), &damaged), ["it is LUKS1 instead of LUKS2"]);
        assert_eq!(differences(&wanted(), &[0; LENGTH]), ["there is no LUKS header"]);
    }

    proptest! {
        #[test]
        fn no_header_does_harm(noise in prop::collection::vec(any::<u8>(), 0..512), at in 0usize..LENGTH, cut in 0usize..=LENGTH, checked: bool) {
            let mut bytes = header("root", "", &good());
            let n = noise.len().min(LENGTH - at);
            bytes[at..at + n].copy_from_slice(&noise[..n]);
            if checked {
                bytes[CHECKSUM].fill(0);
                let checksum = Sha256::digest(&bytes);
                bytes[CHECKSUM.start..CHECKSUM.start + 32].copy_from_slice(&checksum);
            }
            let _ = differences(&wanted(), &bytes[..cut]);
        }
    }
}

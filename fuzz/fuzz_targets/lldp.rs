//! Any bytes as a frame of a neighbour.
#![no_main]

use libfuzzer_sys::fuzz_target;
use speediso_model::lldp::{Neighbour, parse, processed};

fuzz_target!(|bytes: &[u8]| {
    if let Ok((neighbour, raw)) = parse(bytes) {
        assert!(raw.len() < 256 && neighbour.switch().len() <= 200);
        assert!(!neighbour.in_words().chars().any(char::is_control));
        assert!(processed(&neighbour).is_object());
        let text = serde_json::to_string(&neighbour).expect("written");
        assert_eq!(serde_json::from_str::<Neighbour>(&text).expect("read back"), neighbour);
    }
});

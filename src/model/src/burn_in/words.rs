//! Values as people read them.

use super::measurement::unit;

/// `187.4 MB/s` for 187400000 bytes/s. What has no larger unit stays as it is.
#[must_use]
pub fn shown(value: f64, unit: &str) -> String {
    if !value.is_finite() {
        return "–".into();
    }
    match unit {
        unit::BYTES_PER_SECOND => scaled(value, &["B/s", "kB/s", "MB/s", "GB/s", "TB/s"]),
        unit::BITS_PER_SECOND => scaled(value, &["bit/s", "kbit/s", "Mbit/s", "Gbit/s", "Tbit/s"]),
        unit::BYTES => scaled(value, &["B", "kB", "MB", "GB", "TB", "PB"]),
        unit::MICROSECONDS => scaled(value, &["µs", "ms", "s"]),
        unit::PER_SECOND => scaled(value, &["/s", "k/s", "M/s", "G/s"]),
        unit::COUNT => number(value),
        unit::PERCENT => format!("{} %", number(value)),
        other => format!("{} {other}", number(value)),
    }
}

/// Steps of a thousand.
fn scaled(value: f64, units: &[&str]) -> String {
    let (mut value, mut n) = (value, 0);
    while value.abs() >= 1000.0 && n + 1 < units.len() {
        value /= 1000.0;
        n += 1;
    }
    format!("{} {}", number(value), units[n])
}

/// Three digits that say something.
fn number(value: f64) -> String {
    let magnitude = value.abs();
    let text = if magnitude >= 100.0 || value.fract() == 0.0 {
        format!("{value:.0}")
    } else if magnitude >= 10.0 {
        format!("{value:.1}")
    } else {
        format!("{value:.2}")
    };
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_grow_with_values() {
        for (value, unit, text) in [
            (187_430_000.0, "bytes/s", "187 MB/s"),
            (9.41e9, "bit/s", "9.41 Gbit/s"),
            (12.5, "us", "12.5 µs"),
            (8_400.0, "us", "8.4 ms"),
            (0.0, "count", "0"),
            (3.0, "count", "3"),
            (42.25, "°C", "42.2 °C"),
            (0.01, "percent", "0.01 %"),
            (512.0, "bytes", "512 B"),
            (f64::NAN, "V", "–"),
        ] {
            assert_eq!(shown(value, unit), text);
        }
    }
}

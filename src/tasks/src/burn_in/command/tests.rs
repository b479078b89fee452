use proptest::prelude::*;
use speediso_model::burn_in::external::{MetricRule, Take};

use super::metrics::find;

fn line(pattern: &str) -> MetricRule {
    MetricRule { line: Some(pattern.into()), name: Some("m".into()), unit: Some("u".into()), ..MetricRule::default() }
}

#[test]
fn lines_are_read_by_their_pattern() {
    let cases = [
        ("signal {value} dBm", "signal   -61.5 dBm", None, -61.5),
        ("{where}: signal {value} dBm*", "noise\nwlan0: signal -61 dBm (good)\n", Some("wlan0"), -61.0),
        ("*rate={value}MB/s*", "x rate=12.5MB/s, rate", None, 12.5),
        ("{value}", "1e3", None, 1000.0),
        ("{value} eggs", "12 eggs", None, 12.0),
        ("{value}eggs", "12eggs", None, 12.0),
    ];
    for (pattern, text, place, value) in cases {
        let found = find(&line(pattern), text).unwrap_or_else(|e| panic!("{pattern}: {e}"));
        assert_eq!((found[0].place.as_deref(), found[0].value), (place, value), "{pattern}");
        assert_eq!((found[0].name.as_str(), found[0].unit.as_str()), ("m", "u"));
    }
    for (pattern, text) in
        [("signal {value}", "signal strong"), ("a {value}", "b 1"), ("{value}", "inf"), ("{value}", "1 2")]
    {
        assert!(find(&line(pattern), text).expect_err(pattern).contains("no line reads"));
    }
}

#[test]
fn of_several_lines_one_is_taken_by_place() {
    let text = "a 3\nb 1\na 5\na 4\n";
    for (take, a) in [(Take::First, 3.0), (Take::Last, 4.0), (Take::Min, 3.0), (Take::Max, 5.0), (Take::Sum, 12.0)] {
        let found = find(&MetricRule { take, ..line("{where} {value}") }, text).expect("found");
        assert_eq!(found.iter().map(|m| m.value).collect::<Vec<_>>(), [a, 1.0], "{take:?}");
    }
}

#[test]
fn json_and_named_lines() {
    let rule = |path: &str| MetricRule { json: Some(path.into()), ..MetricRule { line: None, ..line("") } };
    let text = "hello [world]\n{\"jobs\":[{\"bw\":1.5,\"name\":\"x\"}]}\nbye";
    assert_eq!(find(&rule("/jobs/0/bw"), text).expect("found")[0].value, 1.5);
    assert!(find(&rule("/jobs/0/name"), text).expect_err("a word").contains("no number"));
    assert!(find(&rule("/jobs"), "nothing").expect_err("no JSON").contains("no JSON"));
    let lines = MetricRule { lines: true, ..MetricRule::default() };
    let found = find(&lines, "wifi.rssi -61 dBm\nfree text here\nbt.rate nan x\nbuttons 4 count\n").expect("found");
    let found: Vec<_> = found.iter().map(|m| (m.name.as_str(), m.value)).collect();
    assert_eq!(found, [("wifi.rssi", -61.0), ("buttons", 4.0)]);
}

proptest! {
    #[test]
    fn any_output_and_any_pattern_come_to_an_end(pattern in "[a* {}valuewhere]{0,40}", text in "\\PC{0,200}") {
        let _ = find(&line(&pattern), &text);
    }

    #[test]
    fn stars_do_not_explode(n in 1_usize..200) {
        let _ = find(&line(&format!("{}{{value}}", "*a".repeat(20))), &"a".repeat(n));
    }
}

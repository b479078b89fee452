//! A report on one screen of 80 by 25.

use speediso_model::network::{Check, NetworkReport, Verdict};

const WIDTH: usize = 80;
/// One line is left for the prompt.
const HEIGHT: usize = 24;
/// Of verdict and check.
const MARGIN: usize = 14;

/// What matters most is kept: where all does not fit, what was skipped and what is well goes first, and how much of it
/// is said.
#[must_use]
pub fn screen(report: &NetworkReport) -> String {
    let room = HEIGHT - 2;
    let mut shown: Vec<&Check> = report.checks.iter().collect();
    let mut left_out = 0;
    for verdict in [Verdict::Skipped, Verdict::Ok] {
        while shown.iter().map(|check| lines(check).len()).sum::<usize>() + usize::from(left_out > 0) > room {
            let Some(at) = shown.iter().rposition(|check| check.verdict == verdict) else { break };
            shown.remove(at);
            left_out += 1;
        }
    }
    let mut text = vec![cut(&head(report), WIDTH)];
    text.extend(shown.iter().flat_map(|check| lines(check)));
    if left_out > 0 {
        text.push(format!("{left_out} more that are well or were skipped; all with --json"));
    }
    // Nothing but failures, and too many of them: the first ones are the causes.
    text.truncate(HEIGHT - 1);
    text.push(cut(&verdict(report), WIDTH));
    text.join("\n")
}

fn head(report: &NetworkReport) -> String {
    let controller = report.controller.as_deref().unwrap_or("no controller");
    format!(
        "network doctor on {}: {controller}, looked {}.{} s",
        report.host,
        report.took_ms / 1000,
        report.took_ms % 1000 / 100
    )
}

fn verdict(report: &NetworkReport) -> String {
    match (report.verdict, report.first_failure()) {
        (_, Some(first)) => format!("FAILED. Begin with: {} {}", first.check.name(), first.subject),
        (Verdict::Warning, None) => "Nothing failed; look at the warnings.".to_owned(),
        (Verdict::Ok, None) => "All well.".to_owned(),
        (Verdict::Skipped | Verdict::Failed | Verdict::Unknown, None) => "Nothing could be looked at.".to_owned(),
    }
}

fn lines(check: &Check) -> Vec<String> {
    let mut text = check.text.clone();
    if !check.subject.is_empty() {
        text = format!("{}: {text}", check.subject);
    }
    let front = format!("{:<4} {:<8} ", check.verdict.word(), check.check.name());
    if !matches!(check.verdict, Verdict::Warning | Verdict::Failed) {
        return vec![cut(&format!("{front}{text}"), WIDTH)];
    }
    let mut lines = wrap(&text, WIDTH - MARGIN, 4);
    if !check.advice.is_empty() {
        lines.extend(wrap(&format!("-> {}", check.advice), WIDTH - MARGIN, 2));
    }
    let blank = " ".repeat(MARGIN);
    lines.iter().enumerate().map(|(i, line)| format!("{}{line}", if i == 0 { &front } else { &blank })).collect()
}

fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    text.chars().take(width - 3).chain("...".chars()).collect()
}

/// At blanks, into at most `most` lines; the rest is cut.
fn wrap(text: &str, width: usize, most: usize) -> Vec<String> {
    let mut lines: Vec<String> = vec![String::new()];
    for word in text.split(' ').flat_map(|word| pieces(word, width)) {
        let is_last = lines.len() == most;
        let line = lines.last_mut().expect("never empty");
        let length = line.chars().count();
        if length == 0 {
            line.push_str(&word);
        } else if length + 1 + word.chars().count() <= width || is_last {
            line.push(' ');
            line.push_str(&word);
        } else {
            lines.push(word);
        }
    }
    lines.iter().map(|line| cut(line, width)).collect()
}

/// A fingerprint is longer than a line, and must be there to the last digit.
fn pieces(word: &str, width: usize) -> Vec<String> {
    let characters: Vec<char> = word.chars().collect();
    if characters.is_empty() {
        return vec![String::new()];
    }
    characters.chunks(width).map(|piece| piece.iter().collect()).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use speediso_model::network::CheckKind;

    use super::*;

    fn report(checks: Vec<Check>) -> NetworkReport {
        NetworkReport::new("node7".into(), Some("https://boot.example:8443".into()), 4650, checks)
    }

    #[test]
    fn a_failure_is_shown_with_its_remedy() {
        let link = Check::new(CheckKind::Link, "eth0", Verdict::Ok, "10000 Mbit/s full duplex, ixgbe, MTU 1500");
        let gateway = Check::new(
            CheckKind::Gateway,
            "eth0 192.0.2.254",
            Verdict::Failed,
            "nobody answers for this address (ARP), so nothing leaves this network",
        )
        .do_this("correct the gateway (DHCP option 3, ip=), or look why the router is not in this VLAN");
        insta::assert_snapshot!(screen(&report(vec![gateway, link])), @r"
        network doctor on node7: https://boot.example:8443, looked 4.6 s
        ok   link     eth0: 10000 Mbit/s full duplex, ixgbe, MTU 1500
        FAIL gateway  eth0 192.0.2.254: nobody answers for this address (ARP), so
                      nothing leaves this network
                      -> correct the gateway (DHCP option 3, ip=), or look why the
                      router is not in this VLAN
        FAILED. Begin with: gateway eth0 192.0.2.254
        ");
    }

    #[test]
    fn a_fingerprint_is_shown_whole() {
        let digest = format!("sha256:{}", "5a".repeat(32));
        let tls = Check::new(CheckKind::Tls, "boot.example", Verdict::Failed, format!("it shows CN=CA {digest}"));
        let shown: String = lines(&tls).iter().flat_map(|line| line.chars().skip(MARGIN)).collect();
        assert!(shown.contains(&digest), "{shown}");
    }

    proptest! {
        /// Whatever is found: it fits, and the first failure is on it.
        #[test]
        fn it_always_fits(parts in prop::collection::vec((0usize..4, "[ -~]{0,150}", "[ -~]{0,150}"), 0..60)) {
            let verdicts = [Verdict::Skipped, Verdict::Ok, Verdict::Warning, Verdict::Failed];
            let checks: Vec<Check> = parts.into_iter()
                .map(|(v, text, advice)| Check::new(CheckKind::Link, "eth0", verdicts[v], text).do_this(advice)).collect();
            let report = report(checks);
            let text = screen(&report);
            prop_assert!(text.lines().count() <= HEIGHT, "{}", text);
            prop_assert!(text.lines().all(|line| line.chars().count() <= WIDTH), "{}", text);
            prop_assert_eq!(report.first_failure().is_some(), text.contains("FAILED. Begin with"));
        }
    }
}

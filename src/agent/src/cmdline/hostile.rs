//! Nonsense for every key: read into something harmless, or refused with the key's name.

use proptest::prelude::*;

use super::*;

/// Every key of ours, with a value that is good.
const GOOD: &[(&str, &str)] = &[
    ("controller", "https://192.0.2.1:8443"),
    ("ca", "sha256:5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a"),
    ("token", "abc"),
    ("tasks", "https://192.0.2.1/t"),
    ("tasks_key", "5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a"),
    ("arm", "SN1"),
    ("tools", "http://192.0.2.1/t"),
    ("live", "https://192.0.2.1/l"),
    ("live_key", "5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a"),
    ("image", "https://192.0.2.1/i"),
    ("digest", "sha256:5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a"),
    ("root_device", "serial=S1"),
    ("skip", "serial=S1"),
    ("medium", "5a5a5a5a-5a5a-4a5a-8a5a-5a5a5a5a5a5a"),
    ("config_drive", "https://192.0.2.1/c"),
    ("config_drive_digest", "sha256:5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a"),
    ("wipe", "clear"),
    ("scenario", "quick"),
    ("sshkey", "\"ssh-ed25519 AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA me\""),
    ("ssh", "on"),
    ("on_failure", "reboot:60"),
    ("idle_reboot", "30m"),
    ("watchdog", "off"),
    ("bmc_log", "off"),
    ("debug", "on"),
    ("lldp", "off"),
    ("console", "plain"),
    ("console_shell", "off"),
    ("syslog", "udp://192.0.2.1"),
    ("syslog_ca", "sha256:5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a"),
    ("docs", "https://docs.example/"),
    ("vlan", "100"),
    ("bond", "active-backup"),
    ("ipv6", "off"),
    ("net", "all"),
];

/// Their companions, so that each good value can stand on a line.
const WITH: &[(&str, &[&str])] = &[
    ("controller", &["ca"]),
    ("tasks", &["tasks_key"]),
    ("tasks_key", &["tasks"]),
    ("image", &["digest"]),
    ("digest", &["image"]),
    ("config_drive", &["config_drive_digest"]),
    ("config_drive_digest", &["config_drive"]),
];

fn good(key: &str) -> String {
    let value = GOOD.iter().find(|(k, _)| *k == key).map(|(_, v)| *v).expect("a key of the list");
    format!("speediso.{key}={value}")
}

fn line_with(key: &str) -> String {
    let with = WITH.iter().find(|(k, _)| *k == key).map_or(&[][..], |(_, with)| with);
    [good(key)].into_iter().chain(with.iter().map(|k| good(k))).collect::<Vec<_>>().join(" ")
}

/// Everything that a line put into the settings, as far as it is text that others get to read or to act on.
fn texts(config: &Config) -> Vec<String> {
    let some =
        [&config.controller, &config.tasks, &config.arm, &config.image, &config.scenario, &config.tools, &config.docs];
    let mut texts: Vec<String> = some.into_iter().flatten().cloned().collect();
    texts.extend(config.live.iter().cloned());
    texts.extend(config.token.iter().map(|t| t.0.clone()));
    texts.extend(config.config_drive.iter().map(|(url, _)| url.clone()));
    texts
}

#[test]
fn every_key_is_documented_and_every_documented_key_is_known() {
    let docs = include_str!("../../../../docs/cmdline.md");
    for (key, _) in GOOD {
        assert!(docs.contains(&format!("`speediso.{key}")), "docs/cmdline.md does not name speediso.{key}");
        let line = line_with(key);
        Config::from_cmdline(&line).unwrap_or_else(|fault| panic!("{line}: {fault}"));
    }
    let names =
        docs.split("`speediso.").skip(1).map(|rest| rest.split(['=', '`', '[', '*']).next().unwrap_or_default());
    for name in names.filter(|name| !name.is_empty()) {
        assert!(
            GOOD.iter().any(|(key, _)| *key == name),
            "docs/cmdline.md names speediso.{name}, which is not tried here"
        );
    }
}

#[test]
fn a_key_that_says_two_things_is_refused_and_one_that_repeats_itself_is_not() {
    for (key, _) in GOOD.iter().filter(|(key, _)| !MANY.contains(key)) {
        let line = line_with(key);
        Config::from_cmdline(&format!("{line} {}", good(key))).unwrap_or_else(|fault| panic!("{line} twice: {fault}"));
        let fault = Config::from_cmdline(&format!("{line} speediso.{key}=other")).expect_err(key);
        assert!(fault.code == FaultCode::CmdlineInvalid && fault.to_string().contains(key), "{fault}");
    }
}

#[test]
fn an_empty_value_is_never_taken_for_one() {
    for (key, _) in GOOD.iter().filter(|(key, _)| *key != "debug") {
        for line in [format!("speediso.{key}="), format!("speediso.{key}")] {
            let fault = Config::from_cmdline(&line).expect_err(&line);
            assert_eq!(fault.code, FaultCode::CmdlineInvalid, "{line}: {fault}");
        }
    }
}

#[test]
fn what_is_no_text_is_no_empty_line() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let roots = Roots::under(dir.path());
    std::fs::create_dir_all(&roots.proc).expect("made");
    std::fs::write(roots.proc.join("cmdline"), b"speediso.controller=https://x speediso.ca=\xff\xfe\n")
        .expect("written");
    let fault = Config::from_cmdline(&of(&roots)).expect_err("no text");
    assert_eq!(fault.code, FaultCode::CmdlineInvalid);
    let long = format!("{}\n", "x".repeat(2047));
    assert_eq!(Config::from_cmdline(&long).expect_err("cut").code, FaultCode::CmdlineTruncated);
}

fn value() -> impl Strategy<Value = String> {
    let nasty = prop::sample::select(vec![
        "$(reboot)",
        "`id`",
        ";reboot",
        "|sh",
        "&&",
        "../../etc/passwd",
        "%s%n",
        "\u{1b}[2J",
        "\u{0}",
        "\u{202e}",
        "-o",
        "{}",
        "\\",
        "'",
        "*",
        "~root",
        "https://",
        "https://a@b",
        "http://[::1",
        "sha256:",
        "sha256:zz",
        "=",
        ",",
        ",,",
        "2147483648",
        "-1",
    ]);
    prop_oneof![nasty.prop_map(str::to_owned), "\\PC{0,40}", "[ -~]{0,40}", "[0-9a-f]{64}", "[a-z]{1,10}"]
}

proptest! {
    /// Alone, after a good one, quoted or not: no panic, and nothing gets into the settings that could be more than a
    /// word where it is used.
    #[test]
    fn nonsense_is_refused_or_harmless(which in 0..GOOD.len(), value in value(), quoted: bool, after_good: bool) {
        let key = GOOD[which].0;
        let word = if quoted { format!("\"speediso.{key}={value}\"") } else { format!("speediso.{key}={value}") };
        let line = if after_good { format!("{} {word}", line_with(key)) } else { word };
        if let Ok(config) = Config::from_cmdline(&line) {
            for text in texts(&config) {
                prop_assert!(text.bytes().all(|b| b.is_ascii_graphic()), "{line}: {text:?}");
            }
            prop_assert!(config.controller.is_none() || !config.ca_pins.is_empty());
            prop_assert!(config.controller.as_deref().is_none_or(|c| c.starts_with("https://")));
            prop_assert!(config.ssh_keys.iter().all(|key| is_ssh_public_key(key)));
        }
        // Where the line is wrong, too.
        let _ = (console_style(&line), on_failure(&line), skip_list(&line));
    }
}

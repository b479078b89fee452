//! The kernel command line, read once into a [`Config`] before anything starts.
//!
//! Keys of ours that are unknown or malformed are errors, and an error means the live system: half a configuration is
//! not what was asked for. Everything that is not ours is somebody else's and ignored.

#[cfg(test)]
mod hostile;
mod on_failure;

use std::collections::BTreeMap;

use speediso_model::fault::{Fault, FaultCode};
use speediso_model::hints::{RootDeviceHints, SkipList};
use speediso_model::image::ImageDigest;
use speediso_model::inventory::canonical_mac;
use speediso_model::profile::{InstallWipe, Profile};
use speediso_model::task::is_ssh_public_key;
use speediso_sys::roots::Roots;
use uuid::Uuid;

use crate::console::Style;
use crate::live;
use crate::net::{Bond, Ipv6, LayerError, Vlan};
use crate::syslog::{SyslogTarget, Transport};
use crate::{idle, ssh};

pub use on_failure::{OnFailure, of_line as on_failure};

/// x86 keeps 2048 bytes with the terminating NUL (COMMAND_LINE_SIZE); a line that fills them may have lost its end.
const MAX_LINE: usize = 2046;

/// Keys that may be repeated; each adds something.
const MANY: &[&str] = &["ca", "skip", "sshkey", "syslog_ca"];

/// The line as the kernel has it. What is no text in it becomes U+FFFD, for which the line is refused later: a line that
/// cannot be read is not an empty one.
#[must_use]
pub fn of(roots: &Roots) -> String {
    match std::fs::read(roots.proc.join("cmdline")) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(_) => String::new(),
    }
}

/// What the boot entry asks for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Config {
    /// The names in `SPEEDISO=`, all of them known.
    pub profiles: Vec<Profile>,
    /// Id of the parameter partition on the medium that was booted from.
    pub medium: Option<Uuid>,
    pub controller: Option<String>,
    /// SHA-256 of the certificates of CAs that are trusted.
    pub ca_pins: Vec<[u8; 32]>,
    pub token: Option<Secret>,
    pub tasks: Option<String>,
    /// Ed25519 public key.
    pub tasks_key: Option<[u8; 32]>,
    pub arm: Option<String>,
    pub image: Option<String>,
    pub digest: Option<ImageDigest>,
    pub root_device: Option<RootDeviceHints>,
    /// Disks that no task may touch.
    pub skip: SkipList,
    pub config_drive: Option<(String, ImageDigest)>,
    pub wipe: Option<InstallWipe>,
    /// Name of the scenario for `SPEEDISO=burnin`.
    pub scenario: Option<String>,
    /// URL or file of the tools archive. Of no weight by itself: the ramdisk carries the digest.
    pub tools: Option<String>,
    /// The live system to go on in: URLs of its image's manifest, any of which will do.
    pub live: Vec<String>,
    /// Ed25519 public key that it is signed with.
    pub live_key: Option<[u8; 32]>,
    /// The names in `SPEEDISO=`, if they are tasks that this system brings.
    pub own_tasks: Vec<String>,
    pub ssh_keys: Vec<String>,
    pub ssh: ssh::Word,
    pub on_failure: OnFailure,
    /// When a machine without work may leave.
    pub idle: Option<idle::Word>,
    /// The hardware's watchdog is left alone.
    pub watchdog_off: bool,
    /// The BMC's event log is left alone.
    pub bmc_log_off: bool,
    pub console: Style,
    /// No shell for whoever sits at the console.
    pub console_shell_off: bool,
    pub syslog: Option<SyslogTarget>,
    /// SHA-256 of the certificates of CAs that the syslog server may show; the controller's, if none is given.
    pub syslog_ca: Vec<[u8; 32]>,
    /// Page on which faults are explained, for the QR code.
    pub docs: Option<String>,
    pub debug: bool,
    /// Neighbours are listened to, and told nothing.
    pub lldp_off: bool,
    /// The kernel's `ip=`, as given.
    pub ip: Option<String>,
    /// MAC address of the interface that the boot loader used.
    pub bootif: Option<String>,
    pub bond: Option<Bond>,
    pub vlan: Option<Vlan>,
    pub ipv6: Ipv6,
    /// Every interface keeps its address, not only the one that leads to the controller.
    pub net_all: bool,
}

/// Never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("(secret)")
    }
}

/// What the names in `SPEEDISO=` may be besides profiles.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OwnTasks {
    /// Programs that this system brings, by their names. Such a one goes before a profile of the same name.
    Here(Vec<String>),
    /// Those of the live system that is to come, which are not known yet.
    Later,
}

impl OwnTasks {
    /// Where there are none but profiles.
    pub(crate) const NONE: Self = Self::Here(Vec::new());

    /// Of the running system, and of this line.
    #[must_use]
    pub fn of(line: &str) -> Self {
        let asks = words(line).into_iter().any(|(key, _)| key == "speediso.live");
        if asks && !live::is_inside() { Self::Later } else { Self::Here(live::own_tasks()) }
    }
}

fn invalid(what: impl Into<String>) -> Fault {
    Fault::new(FaultCode::CmdlineInvalid, what)
}

impl Config {
    /// # Errors
    /// `cmdline-truncated`, `cmdline-invalid` with the key, or `task-unknown` with the name.
    pub fn from_cmdline(line: &str) -> Result<Self, Fault> {
        Self::from_cmdline_with(line, &OwnTasks::NONE)
    }

    /// # Errors
    /// The same, but that names of `own` are known too.
    pub fn from_cmdline_with(line: &str, own: &OwnTasks) -> Result<Self, Fault> {
        let line = line.trim_end_matches(['\n', '\0']);
        if line.contains(char::REPLACEMENT_CHARACTER) {
            return Err(invalid("the kernel command line has bytes that are no text (UTF-8)"));
        }
        if line.len() >= MAX_LINE {
            return Err(Fault::new(
                FaultCode::CmdlineTruncated,
                format!("the kernel command line has {} bytes and may have lost its end", line.len()),
            ));
        }
        Self::from_words(words(line), own)
    }

    /// # Errors
    /// `cmdline-invalid` with the key, or `task-unknown` with the name.
    pub(crate) fn from_words(words: Vec<(String, Option<String>)>, own: &OwnTasks) -> Result<Self, Fault> {
        let mut config = Self::default();
        let mut names = None;
        let mut config_drive = None;
        let mut config_drive_digest = None;
        let mut seen: BTreeMap<String, String> = BTreeMap::new();
        for (key, value) in words {
            match (key.as_str(), value) {
                ("SPEEDISO", value) => names = Some(value.unwrap_or_default()),
                ("systemd.setenv", Some(value)) => {
                    if let Some(list) = value.strip_prefix("SPEEDISO=") {
                        names = Some(list.to_owned());
                    }
                }
                ("ip", Some(value)) => config.ip = Some(value),
                ("BOOTIF", Some(value)) => {
                    let mac =
                        canonical_mac(&value).ok_or_else(|| invalid(format!("BOOTIF={value} is not a MAC address")))?;
                    config.bootif = Some(mac);
                }
                (key, value) => {
                    if let Some(name) = key.strip_prefix("speediso.") {
                        let value = value.unwrap_or_default();
                        // Which of two is meant, nobody can say: a boot loader adds at the end, a person at the start.
                        if !MANY.contains(&name)
                            && seen.insert(name.to_owned(), value.clone()).is_some_and(|before| before != value)
                        {
                            return Err(invalid(format!("speediso.{name} stands there twice, and says two things")));
                        }
                        match name {
                            "config_drive" => config_drive = Some(url(name, &value)?),
                            "config_drive_digest" => config_drive_digest = Some(digest(name, &value)?),
                            _ => config.take(name, value)?,
                        }
                    }
                }
            }
        }
        config.config_drive = match (config_drive, config_drive_digest) {
            (Some(url), Some(digest)) => Some((url, digest)),
            (None, None) => None,
            _ => return Err(invalid("speediso.config_drive and speediso.config_drive_digest need each other")),
        };
        config.check_together()?;
        // Last, so that an unknown name is not hidden by another mistake, nor hides one.
        let names = names.as_deref().unwrap_or_default();
        match own {
            OwnTasks::Here(tasks) if is_own(names, tasks)? => {
                config.own_tasks = names.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect();
            }
            OwnTasks::Here(_) => config.profiles = profiles(names)?,
            OwnTasks::Later => config.profiles = profiles(names).unwrap_or_default(),
        }
        Ok(config)
    }

    fn take(&mut self, name: &str, value: String) -> Result<(), Fault> {
        match name {
            "medium" if value == "off" => self.medium = None,
            "medium" => {
                let id =
                    value.parse().map_err(|_| invalid(format!("speediso.medium={value} is neither an id nor off")))?;
                self.medium = Some(id);
            }
            "controller" => {
                let value = printable(name, value)?;
                let address = value.trim_end_matches('/');
                if !address.starts_with("https://") || address.len() == "https://".len() {
                    return Err(invalid(format!("speediso.controller={value} does not begin with https://")));
                }
                self.controller = Some(address.to_owned());
            }
            "ca" => self.ca_pins.extend(pins(name, &value)?),
            "token" => self.token = Some(Secret(printable(name, value)?)),
            "tasks" => self.tasks = Some(printable(name, value)?),
            "tasks_key" => {
                let key = public_key(&value);
                self.tasks_key =
                    Some(key.ok_or_else(|| invalid("speediso.tasks_key is a public key of 64 hex digits"))?);
            }
            "live" => {
                for address in printable(name, value)?.split(',') {
                    self.live.push(url(name, address)?);
                }
            }
            "live_key" => {
                let key = public_key(&value);
                self.live_key = Some(key.ok_or_else(|| invalid("speediso.live_key is a public key of 64 hex digits"))?);
            }
            "arm" => self.arm = Some(printable(name, value)?),
            "image" => self.image = Some(url(name, &value)?),
            "tools" if value.starts_with('/') => self.tools = Some(printable(name, value)?),
            "tools" => self.tools = Some(url(name, &printable(name, value)?)?),
            "digest" => self.digest = Some(digest(name, &value)?),
            // Without a hint it would be any disk.
            "root_device" if value.trim().is_empty() => return Err(invalid("speediso.root_device= names no disk")),
            "root_device" => self.root_device = Some(value.parse()?),
            "skip" => {
                self.skip.0.push(value.parse()?);
                self.skip.check().map_err(|what| invalid(format!("speediso.skip={value}: {what}")))?;
            }
            "wipe" => {
                self.wipe = Some(match value.as_str() {
                    "clear" => InstallWipe::Clear,
                    "purge" => InstallWipe::Purge,
                    "none" => InstallWipe::None,
                    _ => return Err(invalid(format!("speediso.wipe={value}: clear, purge or none"))),
                });
            }
            "scenario" => {
                if speediso_model::burn_in::shipped(&value).is_none() {
                    return Err(invalid(format!("speediso.scenario={value}: no scenario of this build has that name")));
                }
                self.scenario = Some(value);
            }
            "sshkey" => {
                if !is_ssh_public_key(&value) {
                    return Err(invalid(
                        "speediso.sshkey is not an OpenSSH public key; quote it: speediso.sshkey=\"ssh-ed25519 ...\"",
                    ));
                }
                self.ssh_keys.push(value);
            }
            "ssh" => {
                self.ssh = match value.as_str() {
                    "on" => ssh::Word::On,
                    "off" => ssh::Word::Off,
                    _ => return Err(invalid(format!("speediso.ssh={value}: on or off"))),
                }
            }
            "on_failure" => {
                self.on_failure = OnFailure::of(&value).ok_or_else(|| {
                    invalid(format!(
                        "speediso.on_failure={value}: shell, retry, wait, reboot[:SECONDS] or poweroff[:SECONDS]"
                    ))
                })?;
            }
            "idle_reboot" => {
                let word = value.parse().map_err(|form| invalid(format!("speediso.idle_reboot={value}: {form}")))?;
                self.idle = Some(word);
            }
            "watchdog" => self.watchdog_off = !on(name, &value)?,
            "bmc_log" => self.bmc_log_off = !on(name, &value)?,
            "debug" if value.is_empty() => self.debug = true,
            "debug" => self.debug = on(name, &value)?,
            "lldp" => self.lldp_off = !on(name, &value)?,
            "console" => {
                self.console = match value.as_str() {
                    "screen" => Style::Screen,
                    "plain" => Style::Plain,
                    _ => return Err(invalid(format!("speediso.console={value}: screen or plain"))),
                }
            }
            "console_shell" => self.console_shell_off = !on(name, &value)?,
            "syslog" => {
                let target = value.parse().map_err(|e| {
                    invalid(format!("speediso.syslog is not of the form [udp|tcp|tls]://HOST[:PORT]: {e}"))
                })?;
                self.syslog = Some(target);
            }
            "syslog_ca" => {
                for pin in value.split(',') {
                    self.syslog_ca.push(sha256(name, pin)?);
                }
            }
            "docs" => self.docs = Some(url(name, &printable(name, value)?)?),
            "vlan" => self.vlan = Some(layer(name, &value)?),
            "bond" => self.bond = Some(layer(name, &value)?),
            "ipv6" => self.ipv6 = layer(name, &value)?,
            "net" => {
                self.net_all = match value.as_str() {
                    "first" => false,
                    "all" => true,
                    _ => return Err(invalid(format!("speediso.net={value}: first or all"))),
                }
            }
            "foreman" => {
                return Err(invalid(format!("speediso.{name} is not in this version")));
            }
            _ => return Err(invalid(format!("speediso.{name} is unknown"))),
        }
        Ok(())
    }

    fn check_together(&self) -> Result<(), Fault> {
        if self.controller.is_some() && self.ca_pins.is_empty() {
            return Err(invalid("speediso.controller needs speediso.ca: a controller is never trusted unseen"));
        }
        if self.tasks.is_some() != self.tasks_key.is_some() {
            return Err(invalid("speediso.tasks and speediso.tasks_key need each other"));
        }
        if self.controller.is_some() && (self.tasks.is_some() || self.arm.is_some()) {
            return Err(invalid(
                "speediso.controller excludes speediso.tasks and speediso.arm: orders come from one side",
            ));
        }
        let encrypted = self.syslog.as_ref().is_some_and(|s| s.transport == Transport::Tls);
        if encrypted && self.syslog_ca.is_empty() && self.ca_pins.is_empty() {
            return Err(invalid("speediso.syslog=tls:// needs speediso.syslog_ca: a server is never trusted unseen"));
        }
        if self.image.is_some() != self.digest.is_some() {
            return Err(invalid("speediso.image and speediso.digest need each other"));
        }
        Ok(())
    }
}

/// Of a line that may not be ours, or may be wrong elsewhere: only what is to be skipped.
///
/// # Errors
/// `cmdline-invalid`: what is not understood is not taken for "nothing".
pub fn skip_list(line: &str) -> Result<SkipList, Fault> {
    let mut config = Config::default();
    for (key, value) in words(line) {
        if key == "speediso.skip" {
            config.take("skip", value.unwrap_or_default())?;
        }
    }
    Ok(config.skip)
}

/// How the consoles are used, of a line that may be wrong elsewhere.
#[must_use]
pub fn console_style(line: &str) -> Style {
    let plain =
        words(line).into_iter().any(|(key, value)| key == "speediso.console" && value.as_deref() == Some("plain"));
    if plain { Style::Plain } else { Style::Screen }
}

/// Whether the list is of tasks that this system brings. One of these and one of the agent's own in a list would be done by
/// two that do not know of each other.
fn is_own(list: &str, tasks: &[String]) -> Result<bool, Fault> {
    let names: Vec<&str> = list.split(',').filter(|name| !name.is_empty()).collect();
    let own = names.iter().filter(|name| tasks.iter().any(|task| task == *name)).count();
    if own == 0 || own == names.len() {
        return Ok(own > 0);
    }
    let message = format!("SPEEDISO={list} names some tasks of this live image ({}) and some others", tasks.join(", "));
    Err(Fault::new(FaultCode::TaskUnknown, message).because("a list is either of this image's tasks or of the agent's"))
}

/// Of ed25519.
pub(crate) fn public_key(digits: &str) -> Option<[u8; 32]> {
    format!("sha256:{digits}").parse::<ImageDigest>().ok()?.as_sha256()
}

fn profiles(list: &str) -> Result<Vec<Profile>, Fault> {
    list.split(',')
        .filter(|name| !name.is_empty())
        .map(|name| {
            Profile::named(name).ok_or_else(|| {
                let known: Vec<_> = Profile::ALL.into_iter().map(Profile::name).collect();
                Fault::new(
                    FaultCode::TaskUnknown,
                    format!("SPEEDISO={list} names {name:?}, which is not known here; known are: {}", known.join(", ")),
                )
            })
        })
        .collect()
}

/// Fingerprints, in the form of an image's digest: sha256: and 64 hex digits.
pub(crate) fn pins(name: &str, list: &str) -> Result<Vec<[u8; 32]>, Fault> {
    list.split(',').map(|pin| sha256(name, pin)).collect()
}

fn sha256(name: &str, text: &str) -> Result<[u8; 32], Fault> {
    digest(name, text)?.as_sha256().ok_or_else(|| invalid(format!("speediso.{name}={text}: only sha256 here")))
}

fn layer<T: std::str::FromStr<Err = LayerError>>(name: &str, value: &str) -> Result<T, Fault> {
    value.parse().map_err(|e| invalid(format!("speediso.{name}={value}")).because(LayerError::to_string(&e)))
}

fn on(name: &str, value: &str) -> Result<bool, Fault> {
    match value {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err(invalid(format!("speediso.{name}={value}: on or off"))),
    }
}

fn digest(name: &str, value: &str) -> Result<ImageDigest, Fault> {
    value.parse().map_err(|_| invalid(format!("speediso.{name}={value} is not sha256: and 64 hex digits")))
}

fn url(name: &str, value: &str) -> Result<String, Fault> {
    let is_url = value.starts_with("https://") || value.starts_with("http://");
    if is_url && value.bytes().all(|b| b.is_ascii_graphic()) {
        Ok(value.to_owned())
    } else {
        Err(invalid(format!("speediso.{name}={value} is not an http or https URL")))
    }
}

fn printable(name: &str, value: String) -> Result<String, Fault> {
    if value.is_empty() || !value.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(invalid(format!("speediso.{name} is empty or has blanks")));
    }
    Ok(value)
}

/// Keys and values as the kernel splits them (`next_arg` in lib/cmdline.c): at blanks outside of double quotes, which
/// may stand around the value or around the whole word.
pub(crate) fn words(line: &str) -> Vec<(String, Option<String>)> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quoted = false;
    for c in line.chars().chain([' ']) {
        match c {
            '"' => quoted = !quoted,
            c if c.is_whitespace() && !quoted => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
            }
            c => word.push(c),
        }
    }
    if !word.is_empty() {
        words.push(word.trim_end().to_owned());
    }
    words
        .into_iter()
        .map(|word| match word.split_once('=') {
            Some((key, value)) => (key.to_owned(), Some(value.to_owned())),
            None => (word, None),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pin() -> String {
        format!("sha256:{}", "ab".repeat(32))
    }

    #[test]
    fn what_the_controller_renders_is_read() {
        let line = format!(
            "BOOT_IMAGE=vmlinuz SPEEDISO=lininstall speediso.controller=https://192.0.2.1:8443/ speediso.ca={} \
             speediso.token=abc speediso.tools=http://192.0.2.1:8080/boot/tools.tar.zst BOOTIF=01-52-54-00-ab-cd-ef ip=dhcp console=ttyS0,115200 quiet",
            pin()
        );
        let config = Config::from_cmdline(&line).expect("good");
        assert_eq!(config.profiles, [Profile::Lininstall]);
        assert_eq!(config.controller.as_deref(), Some("https://192.0.2.1:8443"));
        assert_eq!(config.bootif.as_deref(), Some("52:54:00:ab:cd:ef"));
        assert_eq!(config.ca_pins, [[0xab; 32]]);
        assert_eq!(config.tools.as_deref(), Some("http://192.0.2.1:8080/boot/tools.tar.zst"));
        assert!(!format!("{config:?}").contains("abc"), "the token is not printed");
    }

    #[test]
    fn both_spellings_and_lists() {
        for line in [
            "SPEEDISO=inventory,wipe",
            "systemd.setenv=SPEEDISO=inventory,wipe",
            "SPEEDISO=shell SPEEDISO=inventory,wipe",
        ] {
            let config = Config::from_cmdline(line).expect("good");
            assert_eq!(config.profiles, [Profile::Inventory, Profile::Wipe], "{line}");
        }
        assert!(Config::from_cmdline("quiet").expect("good").profiles.is_empty());
        assert!(Config::from_cmdline("SPEEDISO=").expect("good").profiles.is_empty());
    }

    #[test]
    fn a_live_system_and_its_key() {
        let key = "0c".repeat(32);
        let line = format!("speediso.live=https://a/live/manifest.json,http://b/m.json speediso.live_key={key}");
        let config = Config::from_cmdline(&line).expect("good");
        assert_eq!(config.live, ["https://a/live/manifest.json", "http://b/m.json"]);
        assert_eq!(config.live_key, Some([12; 32]));
        for bad in ["speediso.live=/root.img", "speediso.live=", "speediso.live=https://a,", "speediso.live_key=0c"] {
            assert_eq!(Config::from_cmdline(bad).expect_err(bad).code, FaultCode::CmdlineInvalid);
        }
    }

    #[test]
    fn names_of_a_live_systems_own_tasks() {
        let here = OwnTasks::Here(vec!["check".into(), "wipe".into()]);
        let config = Config::from_cmdline_with("SPEEDISO=check,wipe", &here).expect("its own");
        assert!(config.own_tasks == ["check", "wipe"] && config.profiles.is_empty());
        let config = Config::from_cmdline_with("SPEEDISO=burnin", &here).expect("a profile");
        assert!(config.own_tasks.is_empty() && config.profiles == [Profile::BurnIn]);
        for bad in ["SPEEDISO=check,burnin", "SPEEDISO=chekc"] {
            assert_eq!(Config::from_cmdline_with(bad, &here).expect_err(bad).code, FaultCode::TaskUnknown);
        }
        // Whoever comes then knows; until then nothing of it is run.
        let config = Config::from_cmdline_with("SPEEDISO=check", &OwnTasks::Later).expect("later");
        assert!(config.own_tasks.is_empty() && config.profiles.is_empty());
    }

    #[test]
    fn the_generator_knows_the_same_profiles() {
        let script = include_str!("../../../systemd/speediso-generator");
        let line = script.lines().find_map(|line| line.strip_prefix("profiles='")).expect("its list");
        let known: Vec<_> = Profile::ALL.into_iter().map(Profile::name).collect();
        assert_eq!(line.trim_end_matches('\''), known.join(" "));
    }

    #[test]
    fn quotes_are_the_kernels() {
        let key = format!("ssh-ed25519 {} me@host", "A".repeat(68));
        for line in [format!("a speediso.sshkey=\"{key}\" b"), format!("a \"speediso.sshkey={key}\" b")] {
            assert_eq!(Config::from_cmdline(&line).expect("good").ssh_keys, [key.as_str()]);
        }
    }

    #[test]
    fn where_the_log_goes() {
        let config = Config::from_cmdline("speediso.syslog=tcp://h speediso.console=plain speediso.console_shell=off")
            .expect("good");
        assert_eq!(config.syslog.expect("a target").to_string(), "tcp://h:601");
        assert!(config.console_shell_off && config.console == Style::Plain);
        let line = format!("speediso.syslog=tls://h speediso.syslog_ca={} speediso.docs=https://d/e", pin());
        let config = Config::from_cmdline(&line).expect("good");
        assert_eq!((config.syslog_ca.len(), config.docs.as_deref()), (1, Some("https://d/e")));
        assert_eq!(console_style("speediso.contoller=x speediso.console=plain"), Style::Plain);
        for bad in ["speediso.syslog=tls://h", "speediso.syslog=tcp://a:CANARY@h", "speediso.console=tv"] {
            let fault = Config::from_cmdline(bad).expect_err(bad);
            assert!(fault.code == FaultCode::CmdlineInvalid && !fault.to_string().contains("CANARY"), "{fault}");
        }
    }

    #[test]
    fn the_networks_layers_are_read() {
        let line = "speediso.vlan=uplink.100 speediso.bond=active-backup:eno1,eno2 speediso.ipv6=only speediso.net=all";
        let config = Config::from_cmdline(line).expect("good");
        assert_eq!(config.vlan.map(|vlan| vlan.id), Some(100));
        assert!(config.bond.is_some() && config.net_all);
        assert_eq!(config.ipv6, Ipv6::Only);
        assert_eq!(Config::from_cmdline("quiet").expect("good").ipv6, Ipv6::Auto);
    }

    #[test]
    fn disks_to_skip_add_up() {
        let line = "quiet speediso.skip=serial=S1 \"speediso.skip=model=<in> JBOD,size>=1TiB\" speediso.contoller=x";
        let skip = skip_list(line).expect("only these words count");
        assert_eq!(skip.0.len(), 2);
        assert_eq!(skip.to_string(), "serial=\"S1\" and model=\"<in> JBOD\", size>=1099511627776");
        assert!(skip_list("speediso.skip=serail=S1").is_err());
    }

    #[test]
    fn mistakes_are_named() {
        let long = format!("SPEEDISO=inventory {}", "x".repeat(2100));
        let cases: Vec<(String, FaultCode)> = [
            ("SPEEDISO=inventory,format-everything", FaultCode::TaskUnknown),
            ("SPEEDISO=WIPE", FaultCode::TaskUnknown),
            ("speediso.contoller=https://x", FaultCode::CmdlineInvalid),
            ("speediso.controller=http://x", FaultCode::CmdlineInvalid),
            ("speediso.controller=https://x", FaultCode::CmdlineInvalid),
            ("speediso.ca=sha1:00", FaultCode::CmdlineInvalid),
            ("speediso.wipe=maybe", FaultCode::CmdlineInvalid),
            ("SPEEDISO=burnin speediso.scenario=gentle", FaultCode::CmdlineInvalid),
            ("speediso.medium=/dev/sda", FaultCode::CmdlineInvalid),
            ("speediso.image=https://x/y", FaultCode::CmdlineInvalid),
            ("speediso.tools=tools.tar.zst", FaultCode::CmdlineInvalid),
            ("speediso.tasks=https://x/y", FaultCode::CmdlineInvalid),
            ("speediso.root_device=name=sda", FaultCode::CmdlineInvalid),
            ("speediso.skip=", FaultCode::CmdlineInvalid),
            ("speediso.skip=serial=A,pick=smallest", FaultCode::CmdlineInvalid),
            ("speediso.sshkey=ssh-ed25519 AAAA", FaultCode::CmdlineInvalid),
            ("BOOTIF=eth0", FaultCode::CmdlineInvalid),
            ("speediso.vlan=4095", FaultCode::CmdlineInvalid),
            ("speediso.bond=lacp", FaultCode::CmdlineInvalid),
            ("speediso.ipv6=yes", FaultCode::CmdlineInvalid),
            ("speediso.net=", FaultCode::CmdlineInvalid),
            (long.as_str(), FaultCode::CmdlineTruncated),
        ]
        .map(|(line, code)| (line.to_owned(), code))
        .into();
        for (line, code) in cases {
            let fault = Config::from_cmdline(&line).expect_err(&line);
            assert_eq!(fault.code, code, "{line}: {fault}");
        }
    }

    #[test]
    fn other_peoples_keys_are_theirs() {
        Config::from_cmdline("root=/dev/sda1 ro foo.bar=1 ipa-api-url=http://x speedisox=1 =\"").expect("ignored");
    }

    proptest! {
        #[test]
        fn any_line_is_read_or_refused(line in "\\PC{0,300}") {
            let _ = Config::from_cmdline(&line);
        }

        #[test]
        fn any_line_with_our_keys(parts in prop::collection::vec("(SPEEDISO|speediso\\.[a-z_]{1,12}|BOOTIF|ip)=?[ -~]{0,30}", 0..8)) {
            let _ = Config::from_cmdline(&parts.join(" "));
        }
    }

    #[test]
    fn neighbours_are_told_who_we_are_unless_that_is_off() {
        let lldp_off = |line: &str| Config::from_cmdline(line).map(|c| c.lldp_off).map_err(|f| f.code);
        assert_eq!(lldp_off(""), Ok(false));
        assert_eq!(lldp_off("speediso.lldp=on"), Ok(false));
        assert_eq!(lldp_off("speediso.lldp=off"), Ok(true));
        assert_eq!(lldp_off("speediso.lldp=maybe"), Err(FaultCode::CmdlineInvalid));
    }
}

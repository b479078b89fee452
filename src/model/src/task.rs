//! The tasks: a closed list of atomic orders. Each is validated whole before anything runs, and unknown fields are
//! errors: an order that is half understood is not carried out.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use crate::burn_in::BurnInTask;
use crate::capture::CaptureTask;
use crate::expect::Expectation;
use crate::fault::{Fault, FaultCode};
use crate::hardware_raid::HardwareRaidTask;
use crate::hints::RootDeviceHints;
use crate::image::{Compression, ImageFormat, ImageSource};
pub use crate::layout::{
    Content, Format, FormatKind, LogicalVolume, Luks, PartitionKind, PartitionSize, PartitionSpec, PartitionTask,
    TableKind, VolumeGroup, VolumeKind,
};
pub use crate::nvme_format::NvmeFormatTask;
pub use crate::nvme_namespaces::NvmeNamespacesTask;
pub use crate::partition::PartitionName;
pub use crate::raid::RaidTask;
pub use crate::teardown::TeardownTask;
use crate::units::MIB;
pub use crate::wipe::{
    DiskKey, DiskSecret, RecordedDisk, Unfreeze, WipeLevel, WipeMethod, WipePass, WipeTargets, WipeTask, WipeVerify,
};
pub use crate::write_image::{FileSystemKind, Grow, NewFileSystem, ReadBack, WriteImageTask, WriteMode};

/// One atomic order. On the wire: `{"task": "wipe", ...}`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "task", rename_all = "snake_case")]
pub enum Task {
    /// Discover the hardware and store the result.
    Inventory(InventoryTask),
    /// Make what the disks hold unreadable, and see that it is.
    Wipe(WipeTask),
    /// Take down whatever stands on disks, and clear what would stand up again.
    Teardown(TeardownTask),
    /// Give an NVMe disk another sector size; everything on it is lost.
    NvmeFormat(NvmeFormatTask),
    /// Make one namespace of all that an NVMe controller has; everything on its disks is lost.
    NvmeNamespaces(NvmeNamespacesTask),
    /// Make the volumes of a hardware RAID controller.
    HardwareRaid(HardwareRaidTask),
    /// Partition disks, with file systems, LVM and encryption.
    Partition(PartitionTask),
    /// Make arrays of disks.
    Raid(RaidTask),
    /// Stream a disk image onto a disk.
    WriteImage(WriteImageTask),
    /// Make an image of a disk, or of one of its partitions, and store it.
    Capture(CaptureTask),
    /// Add the partition from which cloud-init learns who the machine is.
    ConfigDrive(ConfigDriveTask),
    /// Make the firmware boot the disk.
    BootEntry(BootEntryTask),
    /// Stress the machine, and judge what is measured.
    BurnIn(BurnInTask),
    /// Reboot or power off.
    Power(PowerTask),
}

/// What happens to a run whose agent vanished.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnInterrupt {
    /// Doing it again from the start ends in the same state.
    Safe,
    /// Look at the device first.
    Reconcile,
    /// A person decides.
    Never,
}

#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct InventoryTask {
    /// What the machine must have, or the task fails.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expect: Option<Box<Expectation>>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub enum ConfigDriveFormat {
    /// cloud-init's NoCloud: volume label CIDATA, `meta-data`, `user-data`, `network-config`.
    #[default]
    #[serde(rename = "nocloud")]
    NoCloud,
    /// OpenStack's: volume label config-2, `openstack/latest/*.json`; cloudbase-init reads it too.
    #[serde(rename = "config-2")]
    Config2,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ConfigDriveContent {
    #[serde(default)]
    pub format: ConfigDriveFormat,
    /// cloud-init acts anew when this changes.
    pub instance_id: String,
    pub hostname: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ssh_keys: Vec<String>,
    /// As cloud-init takes it (`#cloud-config`, `#!/bin/sh`, ...).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_data: Option<String>,
    /// `network-config` (NoCloud, YAML) or `network_data.json` (config-2).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
}

/// Either the content itself, or a ready NoCloud or config-2 file system to be copied.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ConfigDriveTask {
    pub device: RootDeviceHints,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<ConfigDriveContent>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<ImageSource>,
}

/// Where a new entry stands in the firmware's boot order.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BootPosition {
    /// Right after the entry this boot came from: a machine that boots from the network first goes on doing so, and
    /// falls through to its disk.
    #[default]
    AfterCurrent,
    First,
    Last,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BootEntryTask {
    pub device: RootDeviceHints,
    /// Shown in the firmware's menu. Older entries of this label are removed.
    pub label: String,
    /// Path in the EFI system partition; found by itself when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loader: Option<String>,
    #[serde(default)]
    pub position: BootPosition,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PowerAction {
    Reboot,
    PowerOff,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PowerTask {
    pub action: PowerAction,
}

impl Task {
    /// The name on the wire.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Inventory(_) => "inventory",
            Self::Wipe(_) => "wipe",
            Self::Teardown(_) => "teardown",
            Self::NvmeFormat(_) => "nvme_format",
            Self::NvmeNamespaces(_) => "nvme_namespaces",
            Self::HardwareRaid(_) => "hardware_raid",
            Self::Partition(_) => "partition",
            Self::Raid(_) => "raid",
            Self::WriteImage(_) => "write_image",
            Self::Capture(_) => "capture",
            Self::ConfigDrive(_) => "config_drive",
            Self::BootEntry(_) => "boot_entry",
            Self::BurnIn(_) => "burn_in",
            Self::Power(_) => "power",
        }
    }

    /// As it may be told to others: what may be secret in it is gone.
    #[must_use]
    pub fn redacted(&self) -> Self {
        let mut task = self.clone();
        match &mut task {
            Self::WriteImage(task) => task.image.redact(),
            Self::Capture(task) => task.to.redact(),
            Self::ConfigDrive(task) => {
                task.image.as_mut().map(ImageSource::redact);
                for text in task.content.iter_mut().flat_map(|c| [&mut c.user_data, &mut c.network]).flatten() {
                    *text = format!("({} bytes, not shown)", text.len());
                }
            }
            Self::Partition(task) => task.redact(),
            Self::BurnIn(task) => task.redact(),
            Self::Wipe(task) => task.redact(),
            Self::Inventory(_)
            | Self::NvmeFormat(_)
            | Self::NvmeNamespaces(_)
            | Self::Teardown(_)
            | Self::HardwareRaid(_)
            | Self::Raid(_)
            | Self::BootEntry(_)
            | Self::Power(_) => {}
        }
        task
    }

    /// Whether it can lose somebody's data.
    #[must_use]
    pub fn is_destructive(&self) -> bool {
        match self {
            Self::Wipe(_)
            | Self::NvmeFormat(_)
            | Self::NvmeNamespaces(_)
            | Self::Teardown(_)
            | Self::Partition(_)
            | Self::HardwareRaid(_)
            | Self::Raid(_)
            | Self::WriteImage(_)
            | Self::ConfigDrive(_) => true,
            Self::BurnIn(task) => task.is_destructive(),
            Self::Inventory(_) | Self::Capture(_) | Self::BootEntry(_) | Self::Power(_) => false,
        }
    }

    /// Whether its start must be recorded by whoever gave the order before it acts: all but looking.
    #[must_use]
    pub fn needs_permission(&self) -> bool {
        !matches!(self, Self::Inventory(_))
    }

    #[must_use]
    pub fn on_interrupt(&self) -> OnInterrupt {
        match self {
            // What a program did until then, and what it would do a second time, nobody here knows.
            Self::BurnIn(task) if task.runs_programs() => OnInterrupt::Never,
            Self::Inventory(_)
            | Self::Wipe(_)
            | Self::NvmeFormat(_)
            | Self::WriteImage(_)
            | Self::Capture(_)
            | Self::BurnIn(_) => OnInterrupt::Safe,
            // Their plan is made anew from what is there then.
            Self::NvmeNamespaces(_)
            | Self::Teardown(_)
            | Self::HardwareRaid(_)
            | Self::Partition(_)
            | Self::Raid(_)
            | Self::ConfigDrive(_)
            | Self::BootEntry(_) => OnInterrupt::Reconcile,
            Self::Power(_) => OnInterrupt::Never,
        }
    }

    /// Whatever can be said to be wrong without looking at a machine.
    ///
    /// # Errors
    /// `task-invalid` with the field, or `unsupported` for what this version cannot do and will not replace.
    pub fn validate(&self) -> Result<(), Fault> {
        let invalid = |what: String| Err(Fault::new(FaultCode::TaskInvalid, format!("{}: {what}", self.kind())));
        let hinted = |hints: &RootDeviceHints| {
            if hints.is_empty() { invalid("device: the root device hints are empty".into()) } else { Ok(()) }
        };
        match self {
            Self::Inventory(task) => task.expect.as_ref().map_or(Ok(()), |e| e.check().or_else(invalid)),
            Self::Power(_) => Ok(()),
            Self::Wipe(wipe) => {
                wipe.devices.hints().try_for_each(hinted)?;
                wipe.check().or_else(invalid)
            }
            Self::NvmeFormat(task) => {
                hinted(&task.device)?;
                task.check().or_else(invalid)
            }
            Self::NvmeNamespaces(task) => {
                task.devices.iter().try_for_each(hinted)?;
                task.check().or_else(invalid)
            }
            Self::Teardown(task) => {
                task.devices.hints().try_for_each(hinted)?;
                task.check().or_else(invalid)
            }
            Self::HardwareRaid(task) => task.check().or_else(invalid),
            Self::Partition(task) => {
                task.devices().try_for_each(hinted)?;
                task.check().or_else(invalid)
            }
            Self::Raid(task) => {
                task.arrays.iter().flat_map(|array| array.members.hints()).try_for_each(hinted)?;
                task.check().or_else(invalid)
            }
            Self::WriteImage(task) => {
                task.devices().try_for_each(hinted)?;
                task.check().and_then(|()| validate_image(&task.image)).or_else(invalid)
            }
            Self::Capture(task) => {
                hinted(&task.device)?;
                task.check().or_else(invalid)
            }
            Self::BurnIn(task) => task.check().or_else(invalid),
            Self::ConfigDrive(task) => {
                hinted(&task.device)?;
                match (&task.content, &task.image) {
                    (Some(content), None) => validate_content(content).or_else(invalid),
                    (None, Some(image)) => validate_image(image).or_else(invalid),
                    _ => invalid("exactly one of content and image is needed".into()),
                }
            }
            Self::BootEntry(task) => {
                hinted(&task.device)?;
                if task.label.is_empty() || task.label.len() > 64 || task.label.chars().any(char::is_control) {
                    return invalid("label: 1 to 64 printable characters".into());
                }
                if let Some(loader) = &task.loader
                    && (!loader.starts_with('\\') || loader.contains("..") || loader.len() > 255)
                {
                    return invalid(format!("loader: {loader:?} is not a path like \\EFI\\BOOT\\BOOTX64.EFI"));
                }
                Ok(())
            }
        }
    }
}

fn validate_image(image: &ImageSource) -> Result<(), String> {
    const MOST_MIRRORS: usize = 16;
    let bad = |url: &&String| {
        !(url.starts_with("https://") || url.starts_with("http://"))
            || url.len() > 2048
            || url.chars().any(|c| c.is_control() || c.is_whitespace())
    };
    if let Some(url) = std::iter::once(&image.url).chain(&image.mirrors).find(bad) {
        return Err(format!("image.url: {url:?} is not an http or https URL"));
    }
    if image.mirrors.len() > MOST_MIRRORS {
        return Err(format!("image.mirrors: more than {MOST_MIRRORS}"));
    }
    if image.format == ImageFormat::Manifest && image.compression != Compression::None {
        return Err("image.compression: a manifest says itself how its chunks are compressed; none here".into());
    }
    if image.size.is_some_and(|s| s.0 < 2 * MIB) {
        return Err("image.size: a disk image has at least 2 MiB".into());
    }
    image.check_trust()
}

fn validate_content(content: &ConfigDriveContent) -> Result<(), String> {
    // The name lands in files that other programs read line by line, so it is what RFC 1123 allows and no more.
    let label = |l: &str| {
        !l.is_empty()
            && l.len() <= 63
            && !l.starts_with('-')
            && !l.ends_with('-')
            && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    if content.hostname.len() > 253 || !content.hostname.split('.').all(label) {
        return Err(format!("hostname: {:?} is not a host name (RFC 1123)", content.hostname));
    }
    if content.instance_id.is_empty()
        || content.instance_id.len() > 128
        || !content.instance_id.bytes().all(|b| b.is_ascii_graphic())
    {
        return Err("instance_id: 1 to 128 printable characters without blanks".into());
    }
    for (i, key) in content.ssh_keys.iter().enumerate() {
        if !is_ssh_public_key(key) {
            return Err(format!("ssh_keys[{i}]: not an OpenSSH public key on one line"));
        }
    }
    let size = content.user_data.as_ref().map_or(0, String::len) + content.network.as_ref().map_or(0, String::len);
    if size > 1024 * 1024 {
        return Err("user_data and network: more than 1 MiB together".into());
    }
    Ok(())
}

/// `type base64 [comment]`, one line. Options in front (`command="..."`) are not taken: they would be read by the
/// live system's ssh server.
#[must_use]
pub fn is_ssh_public_key(line: &str) -> bool {
    let mut words = line.split(' ');
    let (Some(kind), Some(blob)) = (words.next(), words.next()) else { return false };
    (kind.starts_with("ssh-") || kind.starts_with("ecdsa-sha2-") || kind.starts_with("sk-"))
        && blob.len() >= 32
        && blob.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/' | b'='))
        && line.len() < 16 * 1024
        && !line.chars().any(char::is_control)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Task, serde_json::Error> {
        serde_json::from_str(text)
    }

    #[test]
    fn orders_are_read_strictly() {
        parse(r#"{"task":"inventory"}"#).expect("good");
        parse(r#"{"task":"wipe","devices":"all_disks","level":"clear"}"#).expect("good");
        parse(r#"{"task":"teardown","devices":"all_disks"}"#).expect("good");
        parse(r#"{"task":"burn_in","scenario":"quick"}"#).expect("good");
        parse(r#"{"task":"teardown","devices":{"hints":[{"serial":"x"}]},"unmount":true}"#).expect("good");
        for bad in [
            r#"{"task":"format_everything"}"#,
            r#"{"task":"inventory","fast":true}"#,
            r#"{"task":"wipe","devices":"all_disks","level":"clear","dry_run":true}"#,
            r#"{"task":"wipe","devices":{"hints":[{"name":"/dev/sda"}]},"level":"clear"}"#,
            r#"{"task":"wipe","devices":"all_disks","level":"sparkling"}"#,
            r#"{"task":"nvme_format","device":{"serial":"x"},"sector_size":4096,"lba_format":1}"#,
            r#"{"task":"nvme_namespaces","devices":[{"serial":"x"}],"sector_size":4096,"count":2}"#,
            r#"{"task":"power","action":"explode"}"#,
            r#"{"task":"teardown","devices":"all_disks","force":true}"#,
            r#"{"task":"config_drive","device":{"serial":"x"},"content":{"instance_id":"i","hostname":"h"},"extra":1}"#,
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn validation_says_which_field() {
        let cases = [
            (r#"{"task":"wipe","devices":{"hints":[]},"level":"clear"}"#, FaultCode::TaskInvalid, "devices"),
            (r#"{"task":"wipe","devices":{"hints":[{}]},"level":"clear"}"#, FaultCode::TaskInvalid, "hints are empty"),
            (r#"{"task":"teardown","devices":{"hints":[]}}"#, FaultCode::TaskInvalid, "devices"),
            (r#"{"task":"teardown","devices":{"hints":[{}]}}"#, FaultCode::TaskInvalid, "hints are empty"),
            (
                r#"{"task":"wipe","devices":"all_disks","level":"purge","methods":["overwrite"]}"#,
                FaultCode::TaskInvalid,
                "allow: [\"clear\"]",
            ),
            (
                r#"{"task":"wipe","devices":"all_disks","level":"clear","methods":["nvme_sanitize_block"],"passes_before":["zeroes"]}"#,
                FaultCode::TaskInvalid,
                "passes_before",
            ),
            (
                r#"{"task":"nvme_format","device":{"serial":"x"},"sector_size":520}"#,
                FaultCode::TaskInvalid,
                "sector_size",
            ),
            (r#"{"task":"nvme_namespaces","sector_size":4096}"#, FaultCode::TaskInvalid, "no disk is named"),
            (
                r#"{"task":"nvme_namespaces","devices":[{"serial":"x"},{}],"sector_size":512}"#,
                FaultCode::TaskInvalid,
                "hints are empty",
            ),
            (r#"{"task":"partition","device":{"serial":"x"},"partitions":[]}"#, FaultCode::TaskInvalid, "partitions"),
            (
                r#"{"task":"write_image","device":{"serial":"x"},"image":{"url":"file:///etc/shadow","compression":"none",
                    "digest":"sha256:0000000000000000000000000000000000000000000000000000000000000000"}}"#,
                FaultCode::TaskInvalid,
                "image.url",
            ),
            (
                r#"{"task":"config_drive","device":{"serial":"x"},"content":{"instance_id":"i","hostname":"a\nb"}}"#,
                FaultCode::TaskInvalid,
                "hostname",
            ),
            (r#"{"task":"config_drive","device":{"serial":"x"}}"#, FaultCode::TaskInvalid, "exactly one"),
            (
                r#"{"task":"boot_entry","device":{"serial":"x"},"label":"x","loader":"\\..\\evil.efi"}"#,
                FaultCode::TaskInvalid,
                "loader",
            ),
        ];
        for (text, code, word) in cases {
            let fault = parse(text).expect("well-formed").validate().expect_err(text);
            assert_eq!(fault.code, code, "{text}");
            assert!(fault.message.contains(word), "{}", fault.message);
        }
    }

    #[test]
    fn ssh_keys_are_one_plain_line() {
        let key = format!("ssh-ed25519 {} me@host", "A".repeat(68));
        assert!(is_ssh_public_key(&key));
        assert!(!is_ssh_public_key(&format!("command=\"reboot\" {key}")));
        assert!(!is_ssh_public_key(&format!("{key}\nssh-rsa AAAA")));
        assert!(!is_ssh_public_key("ssh-ed25519"));
    }
}

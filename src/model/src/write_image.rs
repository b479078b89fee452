//! Writing an image: onto whole disks, or into one partition.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::hints::RootDeviceHints;
use crate::image::{ImageFormat, ImageSource};
use crate::partition::PartitionName;
use crate::units::Bytes;

/// More than any machine has bays, and few enough to keep a chunk for each in flight.
const MOST_COPIES: usize = 63;
/// What a GPT holds by default.
const MOST_PARTITIONS: usize = 128;

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WriteImageTask {
    pub device: RootDeviceHints,
    /// Further disks that get the same image, from the same stream. One that fails reports its own outcome while the
    /// others finish.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub copies: Vec<RootDeviceHints>,
    pub image: ImageSource,
    /// Write into this partition instead of over the whole disk: the image is one of a file system then, not of a disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partition: Option<PartitionName>,
    /// Labels of partitions of the disk that stay as they are, to the byte. The image may have a partition of the same
    /// label in the same place, whose content is left out, or nothing there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keep_partitions: Vec<String>,
    /// What is made in the partition first, for images of format `tar`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file_system: Option<NewFileSystem>,
    #[serde(default, skip_serializing_if = "Grow::is_no")]
    pub grow: Grow,
    /// Of the end of the disk, what a grown partition leaves to what comes later (a config drive).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leave_free: Option<Bytes>,
    #[serde(default)]
    pub read_back: ReadBack,
    #[serde(default, skip_serializing_if = "WriteMode::is_full")]
    pub mode: WriteMode,
    /// Whether the chunks of a manifest image come from, and go to, other machines that write it (docs/sharing.md).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub share: bool,
    /// How long a machine that is done goes on giving, in seconds, unless its next task begins before.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub share_for: u32,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's form")]
fn is_zero(seconds: &u32) -> bool {
    *seconds == 0
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewFileSystem {
    pub kind: FileSystemKind,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// By which the installed system finds it; a random one when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uuid: Option<uuid::Uuid>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum FileSystemKind {
    Ext4,
    Xfs,
    Btrfs,
}

impl FileSystemKind {
    /// As the kernel and the tools call it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
            Self::Btrfs => "btrfs",
        }
    }

    /// Bytes of a label.
    fn longest_label(self) -> usize {
        match self {
            Self::Ext4 => 16,
            Self::Xfs => 12,
            Self::Btrfs => 255,
        }
    }
}

/// What becomes as large as its place, after the image has been written and read back.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Grow {
    /// Nothing; the system does it at its first start, or nobody.
    #[default]
    No,
    /// The last partition of the table, up to the end of the disk.
    Partition,
    /// And its file system (ext2/3/4, XFS, btrfs, NTFS); with `partition`, that partition's file system.
    FileSystem,
}

impl Grow {
    pub(crate) fn is_no(&self) -> bool {
        *self == Self::No
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ReadBack {
    /// Every byte is read from the medium again and compared.
    #[default]
    Full,
    /// One part in sixteen, at random, with start and end.
    Sample,
    None,
}

/// How much of the disk is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum WriteMode {
    /// All of it.
    #[default]
    Full,
    /// Only chunks that differ from what the disk holds; needs a manifest. What is read from the disk counts only if
    /// its BLAKE3 is the chunk's.
    Delta,
}

impl WriteMode {
    fn is_full(&self) -> bool {
        *self == Self::Full
    }
}

impl WriteImageTask {
    /// The whole image over one whole disk, read back in full.
    #[must_use]
    pub fn new(device: RootDeviceHints, image: ImageSource) -> Self {
        Self {
            device,
            copies: Vec::new(),
            image,
            partition: None,
            file_system: None,
            keep_partitions: Vec::new(),
            grow: Grow::No,
            leave_free: None,
            read_back: ReadBack::Full,
            mode: WriteMode::Full,
            share: false,
            share_for: 0,
        }
    }

    /// Every disk's hints, in order.
    pub fn devices(&self) -> impl Iterator<Item = &RootDeviceHints> {
        std::iter::once(&self.device).chain(&self.copies)
    }

    /// What the fields say against one another; the image is looked at elsewhere.
    pub(crate) fn check(&self) -> Result<(), String> {
        if self.copies.len() > MOST_COPIES {
            return Err(format!("copies: more than {MOST_COPIES}"));
        }
        if self.mode == WriteMode::Delta && self.image.format != ImageFormat::Manifest {
            return Err("mode: delta needs an image of format manifest".into());
        }
        if self.mode == WriteMode::Delta && !self.copies.is_empty() {
            return Err("mode: delta compares with one disk; copies needs mode full".into());
        }
        if self.share && self.image.format != ImageFormat::Manifest {
            return Err("share: chunks are what is shared; needs an image of format manifest".into());
        }
        if self.share && (self.partition.is_some() || !self.keep_partitions.is_empty() || !self.copies.is_empty()) {
            return Err(
                "share: what is given is read from the disk, which must be one, and all of it the image's".into()
            );
        }
        if self.share_for > 0 && !self.share {
            return Err("share_for: nothing is shared".into());
        }
        match &self.partition {
            Some(_) if !self.keep_partitions.is_empty() => {
                return Err("keep_partitions: a write into one partition keeps all others anyway".into());
            }
            Some(_) if self.grow == Grow::Partition => {
                return Err("grow: partition is for whole-disk images; file_system grows what is in this one".into());
            }
            Some(PartitionName::Number(n)) if *n == 0 => return Err("partition.number: counted from 1".into()),
            Some(PartitionName::Label(label)) => check_label(label).map_err(|e| format!("partition.label: {e}"))?,
            Some(PartitionName::Number(_) | PartitionName::Uuid(_)) | None => {}
        }
        self.check_tar()?;
        if self.leave_free.is_some() && (self.grow == Grow::No || self.partition.is_some()) {
            return Err("leave_free: only says how far the last partition of a disk grows".into());
        }
        if self.keep_partitions.len() > MOST_PARTITIONS {
            return Err(format!("keep_partitions: more than {MOST_PARTITIONS}"));
        }
        for (i, label) in self.keep_partitions.iter().enumerate() {
            check_label(label).map_err(|e| format!("keep_partitions[{i}]: {e}"))?;
            if self.keep_partitions[..i].contains(label) {
                return Err(format!("keep_partitions[{i}]: {label:?} is named twice"));
            }
        }
        Ok(())
    }
}

impl WriteImageTask {
    fn check_tar(&self) -> Result<(), String> {
        let Some(new) = &self.file_system else {
            return if self.image.format == ImageFormat::Tar {
                Err("file_system: files need one to be unpacked into".into())
            } else {
                Ok(())
            };
        };
        if self.image.format != ImageFormat::Tar {
            return Err("file_system: an image of this format brings its own".into());
        }
        if self.partition.is_none() || !self.copies.is_empty() || self.grow != Grow::No {
            return Err("file_system: goes into one partition of one disk, and fills it".into());
        }
        if let Some(label) = &new.label
            && (label.is_empty()
                || label.len() > new.kind.longest_label()
                || label.starts_with('-')
                || label.chars().any(|c| c.is_control() || c == '/'))
        {
            return Err(format!(
                "file_system.label: {label:?} is no label for {} (1 to {} bytes)",
                new.kind.name(),
                new.kind.longest_label()
            ));
        }
        Ok(())
    }
}

fn check_label(label: &str) -> Result<(), &'static str> {
    if label.is_empty() || label.encode_utf16().count() > 36 || label.chars().any(char::is_control) {
        return Err("a partition's name has 1 to 36 characters and no control characters");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn fields_that_contradict_one_another_are_named() {
        let digest = format!("sha256:{}", "0".repeat(64));
        let good =
            json!({"device": {"serial": "x"}, "image": {"url": "http://i/x", "digest": digest, "compression": "none"}});
        let mut tar = good["image"].clone();
        tar["format"] = json!("tar");
        let task = |more: serde_json::Value| -> WriteImageTask {
            let mut task = good.clone();
            task.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
            serde_json::from_value(task).expect("well-formed")
        };
        for more in [
            json!({}),
            json!({"partition": {"label": "root"}, "grow": "file_system"}),
            json!({"keep_partitions": ["data", "home"], "grow": "partition", "leave_free": 1 << 26}),
            json!({"copies": [{"serial": "y"}]}),
            json!({"partition": {"number": 2}, "file_system": {"kind": "ext4", "label": "root"}, "image": tar}),
        ] {
            task(more.clone()).check().unwrap_or_else(|e| panic!("{more}: {e}"));
        }
        for (more, word) in [
            (json!({"mode": "delta"}), "mode"),
            (json!({"partition": {"label": "root"}, "keep_partitions": ["data"]}), "keep_partitions"),
            (json!({"partition": {"number": 0}}), "partition.number"),
            (json!({"partition": {"label": ""}}), "partition.label"),
            (json!({"partition": {"number": 1}, "grow": "partition"}), "grow"),
            (json!({"keep_partitions": ["a", "b", "a"]}), "keep_partitions[2]"),
            (json!({"keep_partitions": ["a\nb"]}), "keep_partitions[0]"),
            (json!({"leave_free": 1 << 30}), "leave_free"),
            (json!({"partition": {"number": 2}, "image": tar}), "file_system"),
            (json!({"partition": {"number": 2}, "file_system": {"kind": "xfs"}}), "file_system"),
            (json!({"file_system": {"kind": "xfs"}, "image": tar}), "file_system"),
            (
                json!({"partition": {"number": 2}, "file_system": {"kind": "xfs", "label": "far too long for it"}, "image": tar}),
                "file_system.label",
            ),
        ] {
            let error = task(more.clone()).check().expect_err("refused");
            assert!(error.starts_with(word), "{more}: {error}");
        }
    }
}

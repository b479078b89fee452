//! What a partition is for.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::{Uuid, uuid};

/// What a partition is for; decides its type in the table. The names are those of the discoverable partitions
/// specification where it has one (x86-64), and of Windows.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PartitionKind {
    /// Data of Linux, of no purpose that is known by itself.
    Linux,
    Root,
    Usr,
    Home,
    Srv,
    Var,
    Tmp,
    /// `/boot`, read by boot loaders (XBOOTLDR).
    Boot,
    Esp,
    /// Where GRUB keeps itself on a GPT disk of a BIOS machine.
    BiosBoot,
    Swap,
    Raid,
    Lvm,
    Luks,
    /// Windows wants one on a GPT disk.
    Msr,
    WindowsData,
    WindowsRecovery,
    /// Any other type of a GPT.
    Guid(Uuid),
    /// Any other type of an MBR.
    Mbr(u8),
}

impl PartitionKind {
    /// Its type in a GPT; `None` for a type that only an MBR has.
    #[must_use]
    pub fn guid(&self) -> Option<Uuid> {
        Some(match self {
            Self::Linux => uuid!("0fc63daf-8483-4772-8e79-3d69d8477de4"),
            Self::Root => uuid!("4f68bce3-e8cd-4db1-96e7-fbcaf984b709"),
            Self::Usr => uuid!("8484680c-9521-48c6-9c11-b0720656f69e"),
            Self::Home => uuid!("933ac7e1-2eb4-4f13-b844-0e14e2aef915"),
            Self::Srv => uuid!("3b8f8425-20e0-4f3b-907f-1a25a76f98e8"),
            Self::Var => uuid!("4d21b016-b534-45c2-a9fb-5c16e091fd2d"),
            Self::Tmp => uuid!("7ec6f557-3bc5-4aca-b293-16ef5df639d1"),
            Self::Boot => uuid!("bc13c2ff-59e6-4262-a352-b275fd6f7172"),
            Self::Esp => uuid!("c12a7328-f81f-11d2-ba4b-00a0c93ec93b"),
            Self::BiosBoot => uuid!("21686148-6449-6e6f-744e-656564454649"),
            Self::Swap => uuid!("0657fd6d-a4ab-43c4-84e5-0933c84b4f4f"),
            Self::Raid => uuid!("a19d880f-05fc-4d3b-a006-743f0f84911e"),
            Self::Lvm => uuid!("e6d6d379-f507-44c2-a23c-238f2a3df928"),
            Self::Luks => uuid!("ca7d7ccb-63ed-4c53-861c-1742536059cc"),
            Self::Msr => uuid!("e3c9e316-0b5c-4db8-817d-f92df00215ae"),
            Self::WindowsData => uuid!("ebd0a0a2-b9e5-4433-87c0-68b6b72699c7"),
            Self::WindowsRecovery => uuid!("de94bba4-06d1-4d40-a16a-bfd50179d6ac"),
            Self::Guid(guid) => *guid,
            Self::Mbr(_) => return None,
        })
    }

    /// Its type in an MBR; `None` for what that has no type for.
    #[must_use]
    pub fn mbr(&self) -> Option<u8> {
        Some(match self {
            Self::Linux
            | Self::Root
            | Self::Usr
            | Self::Home
            | Self::Srv
            | Self::Var
            | Self::Tmp
            | Self::Boot
            | Self::Luks => 0x83,
            Self::Esp => 0xef,
            Self::Swap => 0x82,
            Self::Raid => 0xfd,
            Self::Lvm => 0x8e,
            Self::WindowsData => 0x07,
            Self::WindowsRecovery => 0x27,
            Self::Mbr(byte) => *byte,
            Self::BiosBoot | Self::Msr | Self::Guid(_) => return None,
        })
    }
}

/// Attributes of a partition in the table.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PartitionFlag {
    /// The machine does not work without it: others shall leave it alone.
    Required,
    /// A BIOS boots from it; in an MBR the active one.
    LegacyBoot,
    /// Its file system is grown to its size when it is mounted.
    GrowFileSystem,
    ReadOnly,
    Hidden,
    /// Nothing mounts it by itself; no drive letter.
    NoAuto,
}

impl PartitionFlag {
    /// Its bit of a GPT entry's attributes: UEFI 2.10, table 5-8, the discoverable partitions specification, and for the
    /// upper ones Windows, with whom that agrees.
    #[must_use]
    pub fn bit(self) -> u64 {
        1 << match self {
            Self::Required => 0,
            Self::LegacyBoot => 2,
            Self::GrowFileSystem => 59,
            Self::ReadOnly => 60,
            Self::Hidden => 62,
            Self::NoAuto => 63,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_kinds_are_one_type() {
        use PartitionKind as K;
        let all = [
            K::Linux,
            K::Root,
            K::Usr,
            K::Home,
            K::Srv,
            K::Var,
            K::Tmp,
            K::Boot,
            K::Esp,
            K::BiosBoot,
            K::Swap,
            K::Raid,
            K::Lvm,
            K::Luks,
            K::Msr,
            K::WindowsData,
            K::WindowsRecovery,
        ];
        let guids: std::collections::BTreeSet<_> = all.iter().map(|kind| kind.guid().expect("a GPT has it")).collect();
        assert_eq!(guids.len(), all.len());
    }
}

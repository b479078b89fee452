//! What lies over the packages: the agent, the units of `systemd/`, and what keeps a live system from doing anything by
//! itself.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::json;

use super::manifest::LiveManifest;
use crate::ramdisk::BuildFacts;
use crate::tree::Tree;

const UNITS: &str = "/usr/lib/systemd/system";
const WANTS: &str = "/etc/systemd/system/multi-user.target.wants";

/// Files of `systemd/` that every live image takes: where they go, their mode, what is in them.
const SYSTEMD: &[(&str, u32, &str)] = &[
    ("/usr/lib/systemd/system/speediso-agent.service", 0o644, include_str!("../../../systemd/speediso-agent.service")),
    ("/usr/lib/systemd/system/speediso@.service", 0o644, include_str!("../../../systemd/speediso@.service")),
    (
        "/usr/lib/systemd/system/speediso-hostkey.service",
        0o644,
        include_str!("../../../systemd/speediso-hostkey.service"),
    ),
    (
        "/usr/lib/systemd/system/speediso-shell@.service",
        0o644,
        include_str!("../../../systemd/speediso-shell@.service"),
    ),
    (
        "/usr/lib/systemd/system/speediso-shells.service",
        0o644,
        include_str!("../../../systemd/speediso-shells.service"),
    ),
    ("/usr/lib/speediso/shells", 0o755, include_str!("../../../systemd/shells")),
    (
        "/usr/lib/systemd/system-generators/speediso-generator",
        0o755,
        include_str!("../../../systemd/speediso-generator"),
    ),
    (
        "/usr/lib/systemd/system/speediso@.service.d/10-agent.conf",
        0o644,
        include_str!("../../../systemd/task-output.conf"),
    ),
    (
        "/usr/lib/systemd/system/ssh.service.d/10-speediso.conf",
        0o644,
        include_str!("../../../systemd/ssh-service.conf"),
    ),
    ("/etc/ssh/sshd_config.d/speediso.conf", 0o600, include_str!("../../../systemd/sshd.conf")),
];

/// Of the live image alone.
const OWN_FILES: &[(&str, u32, &str)] = &[
    // Empty, not absent: a machine's first boot is none of a live system's.
    ("/etc/machine-id", 0o444, ""),
    ("/etc/fstab", 0o644, "# Nothing of a disk is mounted by itself.\n"),
    ("/etc/mdadm/mdadm.conf", 0o644, "# Foreign disks are data, not instructions: nothing is assembled.\nAUTO -all\n"),
    (
        "/etc/modprobe.d/speediso.conf",
        0o644,
        "# An array that a person assembles starts read-only until something writes.\noptions md_mod start_ro=1\n",
    ),
    (
        "/etc/systemd/journald.conf.d/speediso.conf",
        0o644,
        "# Memory is all there is.\n[Journal]\nStorage=volatile\nRuntimeMaxUse=32M\n",
    ),
    (
        "/etc/systemd/system.conf.d/speediso.conf",
        0o644,
        "# The consoles are the agent's: only what fails is said beside it.\n[Manager]\nShowStatus=error\n",
    ),
    ("/etc/default/locale", 0o644, "LANG=C.UTF-8\n"),
    ("/etc/profile.d/speediso.sh", 0o644, "PS1='speediso:\\w# '\n"),
];

/// The files of the build, over those of the packages.
pub(super) fn tree(
    manifest: &LiveManifest,
    beside: &Path,
    facts: &BuildFacts,
    agent: Vec<u8>,
    packages: usize,
) -> Result<Tree> {
    let mut tree = Tree::default();
    for (path, mode, text) in SYSTEMD.iter().chain(OWN_FILES) {
        tree.add_file(path, *mode, text.as_bytes().to_vec())?;
    }
    tree.add_file("/usr/sbin/speediso-agent", 0o755, agent)?;
    for unit in ["speediso-agent.service", "speediso-hostkey.service", "ssh.service"] {
        tree.add_link(&format!("{WANTS}/{unit}"), &format!("{UNITS}/{unit}"))?;
    }
    // By this name it is root's shell, which records what is shown.
    tree.add_link("/usr/sbin/speediso-shell", "speediso-agent")?;
    tree.add_link(&format!("{WANTS}/speediso-shell@tty2.service"), &format!("{UNITS}/speediso-shell@.service"))?;
    tree.add_directory("/usr/lib/speediso/tasks", 0o755)?;
    for unit in manifest.masked.iter().flat_map(|named| &named.names) {
        tree.add_link(&format!("/etc/systemd/system/{unit}"), "/dev/null")?;
    }
    for generator in manifest.generators_off.iter().flat_map(|named| &named.names) {
        tree.add_link(&format!("/etc/systemd/system-generators/{generator}"), "/dev/null")?;
    }
    for rule in manifest.udev_rules_off.iter().flat_map(|named| &named.names) {
        tree.add_link(&format!("/etc/udev/rules.d/{rule}"), "/dev/null")?;
    }
    add_names(&mut tree, facts, packages)?;
    for file in &manifest.files {
        let from = beside.join(&file.from);
        let data = fs::read(&from).with_context(|| format!("reading {}, which the manifest names", from.display()))?;
        tree.add_file(&file.to, if file.executable { 0o755 } else { 0o644 }, data)?;
    }
    Ok(tree)
}

/// Which build this is, for people and for the agent.
fn add_names(tree: &mut Tree, facts: &BuildFacts, packages: usize) -> Result<()> {
    let line =
        |value: &serde_json::Value| -> Result<Vec<u8>> { Ok((serde_json::to_string(value)? + "\n").into_bytes()) };
    tree.add_file("/etc/speediso-build", 0o644, line(&serde_json::to_value(facts)?)?)?;
    // That it is there tells the agent where it is.
    let own = json!({ "flavour": "live", "packages": packages, "kernel": facts.kernel });
    tree.add_file("/usr/lib/speediso/live.json", 0o644, line(&own)?)?;
    let name = format!("Speediso {} build {}, kernel {}, live", facts.version, facts.number, facts.kernel);
    tree.add_file("/etc/issue", 0o644, format!("{name}\n").into_bytes())?;
    let motd = format!(
        "{name}\n\
         This system runs from memory. Nothing on the disks is mounted, assembled or started.\n\
         What the agent does: journalctl -f -u speediso-agent; what this machine is: speediso-agent inventory\n"
    );
    tree.add_file("/etc/motd", 0o644, motd.into_bytes())?;
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_must_not_run_is_masked_and_what_must_is_wanted() {
        let manifest = LiveManifest::parse(super::super::manifest::BUILT_IN).unwrap();
        let facts =
            BuildFacts { number: 7, version: "1".into(), kernel: "6.1".into(), built: 1, inputs: String::new() };
        let tree = tree(&manifest, Path::new("."), &facts, vec![1], 150).unwrap();
        for path in [
            "/etc/systemd/system/mdmonitor.service",
            "/etc/udev/rules.d/69-lvm.rules",
            "/etc/systemd/system-generators/systemd-gpt-auto-generator",
            "/etc/systemd/system/multi-user.target.wants/speediso-agent.service",
            "/usr/sbin/speediso-agent",
        ] {
            assert!(tree.contains(path), "{path}");
        }
    }
}

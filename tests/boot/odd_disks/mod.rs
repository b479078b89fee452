//! Disks of the kernel's own making, which have sectors of another size, or fail or lie as they are told to: `scsi_debug` and
//! `null_blk`, made in the live system one after the other.

use serde_json::{Value, json};
use speediso_model::outcome::Outcome;
use speediso_model::wipe::WipeLevel;
use speediso_tests::{BOOT, SOON};

use super::{Door, report};

pub(crate) const PORT: u16 = 8084;
const MIB: u64 = 1 << 20;

/// The modules that the ramdisk does not have; the tools beside them stay behind.
pub(crate) fn fetch_modules(door: &Door) {
    let fetch = format!(
        "mkdir -p /opt && cd /opt && {{ [ -d odd ] || wget -q -O - http://192.0.2.1:{PORT}/stack.tar | tar x ./odd; }} && \
         for m in odd/*; do case $m in *scsi_debug*|*null_blk*) ;; *) insmod $m 2>/dev/null;; esac; done; true"
    );
    door.ssh.run(&fetch, BOOT).unwrap();
}

fn load(door: &Door, module: &str, words: &str) {
    let command = format!("insmod /opt/odd/*-{module}.ko {words}");
    door.ssh.run(&command, SOON).unwrap();
}

fn wipe(hints: &Value, level: &str) -> Value {
    json!({"task": "wipe", "devices": {"hints": [hints]}, "level": level})
}

/// scsi_debug with these parameters while `act` runs.
fn scsi_debug(door: &Door, words: &str, act: impl FnOnce(&Value)) {
    load(door, "scsi_debug", &format!("dev_size_mb=16 {words}"));
    door.ssh.run("until cat /sys/block/sd*/device/model | grep -q scsi_debug; do sleep 0.2; done", SOON).unwrap();
    act(&json!({"model": "scsi_debug"}));
    door.ssh.run("rmmod scsi_debug", SOON).unwrap();
}

#[track_caller]
fn failed(door: &Door, case: &str, hints: &Value, code: &str) -> String {
    let result = door.run(case, &wipe(hints, "clear"));
    let fault = result.fault.expect("it fails");
    assert_eq!((result.outcome, fault.code.name()), (Outcome::FailedChanged, code), "{case}: {fault}");
    fault.to_string()
}

/// Whatever a disk does, the outcome and the region are told truly.
pub(crate) fn are_told_truly(door: &Door) {
    fetch_modules(door);
    // Thinly provisioned, with sectors of 4096 bytes: what was never written is written too.
    scsi_debug(door, "sector_size=4096 lbpu=1 lbprz=0", |hints| {
        let wiped = report(&door.run("four-k-native", &wipe(hints, "clear")));
        assert_eq!((wiped.reached, wiped.verification.bytes.0), (Some(WipeLevel::Clear), 16 * MIB));
        let purge = door.run("no-sanitize", &wipe(hints, "purge"));
        let fault = purge.fault.expect("it has none");
        assert_eq!(purge.outcome, Outcome::FailedUnchanged, "{fault}");
        assert!(fault.to_string().contains("scsi_sanitize_block: the device does not offer"), "{fault}");
    });
    // Sectors that cannot be read back.
    scsi_debug(door, "opts=2 medium_error_start=20480 medium_error_count=8", |hints| {
        let text = failed(door, "medium-error", hints, "disk-io");
        assert!(text.contains("reading") && text.contains(&format!("at byte {}", 20480 * 512)), "{text}");
        assert!(text.contains("16.0 MiB had been overwritten in pass 1 of 1"), "{text}");
    });
    // Takes every write, keeps none.
    scsi_debug(door, "fake_rw=1", |hints| {
        let text = failed(door, "keeps-nothing", hints, "read-back-mismatch");
        assert!(text.contains("does not return at byte"), "{text}");
    });
    // Blocks that cannot be written.
    load(door, "null_blk", "nr_devices=0");
    door.ssh
        .run(
            "mount -t configfs none /sys/kernel/config 2>/dev/null; mkdir /sys/kernel/config/nullb/nullb0 && \
             cd /sys/kernel/config/nullb/nullb0 && echo 24 >size && echo 1 >memory_backed && echo '+32768-32775' >badblocks && \
             echo 1 >power",
            SOON,
        )
        .unwrap();
    let text = failed(door, "bad-blocks", &json!({"size": "24MiB"}), "disk-io");
    assert!(text.contains("writing") && text.contains(&format!("at byte {}", 32768 * 512)), "{text}");
    assert!(text.contains("had been overwritten in pass 1 of 1"), "{text}");
    door.ssh.run("echo 0 >/sys/kernel/config/nullb/nullb0/power; rmdir /sys/kernel/config/nullb/nullb0", SOON).unwrap();
}

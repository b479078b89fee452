//! Members that lose what is written to them, or cannot take a part of it: device mapper (`error`, `flakey`) below a disk
//! that the machine serves to itself by NVMe over TCP, since mapped devices are no disks for a task.

use serde_json::{Value, json};
use speediso_model::outcome::{Changed, Outcome};
use speediso_tests::BOOT;

use super::{Bench, MIB, STOP_ALL, each, raid};

pub(crate) const PORT: u16 = 8085;

/// Of the disk, in MiB: its size, and where the bad part begins.
const SIZE: u64 = 64;
const BAD: u64 = 20;

const TOOLS: &str = r#"export DM_DISABLE_UDEV=1
dm() { /opt/stack/lib/ld-linux-x86-64.so.2 --library-path /opt/stack/lib /opt/stack/bin/dmsetup "$@"; }"#;

/// A disk with something on it, through device mapper and the network.
fn serve(bench: &Bench<'_>) {
    let script = format!(
        r#"set -e
mkdir -p /opt/stack && cd /opt/stack && wget -q -O - http://192.0.2.1:{PORT}/stack.tar | tar x ./bin/dmsetup ./lib ./modules
for m in modules/*; do case $m in *raid*|*xor*|*btrfs*|*bcache*|*crypt*|*thin*|*alg*|*aes*) ;; *) insmod $m 2>/dev/null || true;; esac; done
{TOOLS}
ip link set lo up 2>/dev/null || ifconfig lo up
mount -t configfs none /sys/kernel/config 2>/dev/null || true
tr '\0' x </dev/zero | head -c {bytes} >/tmp/under && losetup /dev/loop7 /tmp/under
dm create under --table "0 {sectors} linear /dev/loop7 0"
cd /sys/kernel/config/nvmet && s=subsystems/nqn.2026-01.example:under
mkdir $s && echo 1 >$s/attr_allow_any_host && echo UNDER >$s/attr_serial && echo Served >$s/attr_model
mkdir $s/namespaces/1 && echo -n /dev/mapper/under >$s/namespaces/1/device_path && echo 1 >$s/namespaces/1/enable
mkdir ports/1 && cd ports/1 && echo tcp >addr_trtype && echo ipv4 >addr_adrfam && echo 127.0.0.1 >addr_traddr && echo 4420 >addr_trsvcid
ln -s ../../$s subsystems/
uuid=00000000-0000-4000-8000-00000000fab2
echo -n "transport=tcp,traddr=127.0.0.1,trsvcid=4420,nqn=nqn.2026-01.example:under,hostnqn=nqn.2014-08.org.nvmexpress:uuid:$uuid,hostid=$uuid" >/dev/nvme-fabrics
n=0; until cat /sys/class/nvme/*/serial | grep -q UNDER && grep -q . /sys/class/nvme/*/nvme*n1/size 2>/dev/null || [ $n -gt 50 ]; do n=$((n + 1)); sleep 0.2; done
echo served"#,
        bytes = SIZE * MIB,
        sectors = SIZE * MIB / 512,
    );
    let said = bench.ssh.run(&script, BOOT).unwrap();
    assert!(said.ends_with("served"), "{said}");
}

/// From now on the bad part is of this kind; `linear` is good.
fn becomes(bench: &Bench<'_>, target: &str) {
    let sectors = |mib: u64| mib * MIB / 512;
    // Of what cannot be written md tries every sector by itself.
    let (start, end) = (sectors(BAD), sectors(BAD + if target == "error" { 1 } else { 20 }));
    let part = match target {
        "error" => "error".to_owned(),
        "flakey" => format!("flakey /dev/loop7 {start} 0 1 1 drop_writes"),
        _ => format!("linear /dev/loop7 {start}"),
    };
    let table = format!(
        "0 {start} linear /dev/loop7 0\n{start} {} {part}\n{end} {} linear /dev/loop7 {end}",
        end - start,
        sectors(SIZE) - end
    );
    bench.shell(&format!("{TOOLS}\ndm suspend under && printf '{table}\\n' | dm load under && dm resume under"));
}

#[track_caller]
fn fails(bench: &Bench<'_>, task: &Value, codes: &[&str]) -> String {
    let result = bench.run(task);
    let fault = result.fault.unwrap_or_else(|| panic!("it passes for {:?}: {:?}", result.outcome, result.devices));
    assert!(
        result.outcome == Outcome::FailedChanged && codes.contains(&fault.code.name()),
        "{:?}: {fault}",
        result.outcome
    );
    println!("{fault}");
    fault.to_string()
}

/// Neither an array, nor an image or a wipe on it, is verified while a member does not hold what was written.
pub(crate) fn are_found_out(bench: &Bench<'_>, image: &Value) {
    serve(bench);
    let array = json!({"name": "pair", "level": "1", "members": each(&["AHCI-2", "UNDER"]), "metadata": "1.0",
        "initial_sync": "watch"});
    let task = raid(&[array], json!({"whole_disks": true, "replace": true}));
    let write = json!({"task": "write_image", "device": {"array": "pair"}, "image": image});
    let wipe = json!({"task": "wipe", "devices": {"hints": [{"array": "pair"}]}, "level": "clear"});

    becomes(bench, "error");
    let text = fails(bench, &task, &["array-degraded"]);
    assert!(text.contains("/dev/nvme") && text.contains("byte "), "{text}");
    bench.shell(STOP_ALL);
    becomes(bench, "flakey");
    let text = fails(bench, &task, &["read-back-mismatch"]);
    assert!(text.contains("do not agree"), "{text}");
    bench.shell(STOP_ALL);

    becomes(bench, "linear");
    bench.verified(&task, Changed::Changed);
    // By the disk's own sectors or, where the good member answered, by comparing the two.
    becomes(bench, "flakey");
    for task in [&write, &wipe] {
        let text = fails(bench, task, &["read-back-mismatch"]);
        assert!(text.contains(" byte"), "{text}");
    }
    becomes(bench, "error");
    for task in [&write, &wipe] {
        let text = fails(bench, task, &["array-degraded"]);
        assert!(text.contains("/dev/nvme"), "{text}");
    }
    bench.shell(&format!(
        "{STOP_ALL}; for c in /sys/class/nvme/*; do grep -q UNDER $c/serial && echo 1 >$c/delete_controller; done; true"
    ));
}

//! Stacks of every kind on real drivers, taken down in one boot, and judged on the host by tools that are not ours.
//!
//! The live system has no tool to build most of these: they are brought along (tests/images/stack.sh).

#![allow(clippy::unwrap_used)]

mod left_overs;

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use speediso_lab::{Firmware, Lab, tool};
use speediso_model::fault::FaultCode;
use speediso_model::outcome::{Changed, Outcome, TaskResult};
use speediso_tests::{BOOT, LiveSsh, Ramdisk, SOON, TestDisk, programs, stack_archive};

use left_overs::{Case, cases, fabric, firmware};

const PORT: u16 = 8083;
const MACHINE: &str = "TEARDOWN";
/// For building or for taking down one of them.
const ONE: Duration = Duration::from_secs(120);

/// What every script begins with: the tools, and the disks by their serial numbers. All of fifty disks are looked at once, and
/// not for each name again.
const PRELUDE: &str = r#"set -e
export DM_DISABLE_UDEV=1 IMSM_NO_PLATFORM=1 PATH=/sbin:/usr/sbin:/bin:/usr/bin
t() { program=$1; shift; /opt/stack/lib/ld-linux-x86-64.so.2 --library-path /opt/stack/lib "/opt/stack/bin/$program" "$@"; }
lvm() { t lvm "$@" --config 'global{thin_check_executable="" use_lvmpolld=0} activation{udev_sync=0 udev_rules=0 monitoring=0} backup{backup=0 archive=0} devices{use_devicesfile=0 obtain_device_list_from_udev=0}'; }
scan() { for b in /sys/block/*; do
    [ -e /dev/${b##*/} ] || continue # one path of several to an NVMe disk
    s=$(cat $b/serial $b/device/serial 2>/dev/null || true; tr -cd '[:alnum:]-' <$b/device/vpd_pg80 2>/dev/null || true)
    echo $s /dev/${b##*/}
done >/run/serials; }
d() { [ -e /run/serials ] || scan
    disk=$(grep -m 1 "$1 /dev/" /run/serials) || { scan; disk=$(grep -m 1 "$1 /dev/" /run/serials); } || { echo "no disk $1" >&2; return 1; }
    echo ${disk##* }; }
w() { n=0; until [ -e $1 ] || [ $n -ge 200 ]; do n=$((n + 1)); sleep 0.05; done; }
md() { mdadm --create --run --quiet "$@"; }
size() { echo $(($(blockdev --getsize64 $1) / 512)); }
number() { cat /sys/class/block/${1#/dev/}/dev; }
"#;

fn task_file(serials: &[String], unmount: bool) -> Value {
    let hints: Vec<Value> = serials.iter().map(|serial| json!({"serial": serial})).collect();
    tasks(&json!({"task": "teardown", "devices": {"hints": hints}, "unmount": unmount}))
}

fn tasks(task: &Value) -> Value {
    json!({
        "version": 1,
        "machine": MACHINE,
        "expires": "2100-01-01T00:00:00Z",
        "order": "77777777-7777-4777-8777-777777777777",
        "tasks": [task],
    })
}

struct Live {
    ssh: LiveSsh,
}

impl Live {
    fn sh(&self, script: &str) -> String {
        self.ssh.run(script, SOON).unwrap()
    }

    /// A script made of a case's lines; what it said if it failed.
    fn script(&self, name: &str, lines: &str) {
        let text = format!(
            "cat >/tmp/{name}.sh <<'END'\n{PRELUDE}{lines}\nEND\nsh -x /tmp/{name}.sh >/tmp/{name}.log 2>&1 </dev/null || {{ tail -n 40 /tmp/{name}.log; dmesg | tail -n 5; echo FAILED; }}"
        );
        let said = self.ssh.run(&text, ONE).unwrap();
        assert!(!said.ends_with("FAILED"), "{name}:\n{said}");
    }

    fn run(&self, name: &str, file: &Value) -> TaskResult {
        let command = format!(
            "cat >/tmp/{name}.json <<'END'\n{file}\nEND\n\
             speediso-agent run --json --arm {MACHINE} --state-dir /tmp/{name}.state --tasks /tmp/{name}.json 2>/tmp/{name}.err </dev/null \
             || true; [ -s /tmp/{name}.err ] && tail -n 3 /tmp/{name}.err >&2; true"
        );
        let said = self.ssh.run(&command, ONE).unwrap();
        let line = said.lines().rev().find(|line| line.starts_with('{'));
        line.and_then(|line| serde_json::from_str(line).ok()).unwrap_or_else(|| panic!("{name} said no result: {said}"))
    }

    fn refused(&self, name: &str, file: &Value, code: FaultCode, words: &[&str]) {
        let result = self.run(name, file);
        let fault = result.fault.unwrap_or_else(|| panic!("{name} was not refused"));
        println!("refused, {name}: {fault}");
        assert_eq!((result.outcome, fault.code), (Outcome::FailedUnchanged, code), "{name}: {fault}");
        for word in words {
            assert!(fault.to_string().contains(word), "{name}: {word} is not in {fault}");
        }
    }
}

/// Empty if none of the judges knows anything of the disk.
fn judged(file: &Path, sector: u32) -> String {
    let attached = tool::run(Command::new("losetup").args(["--show", "-r", "-f", "-b", &sector.to_string()]).arg(file));
    let device = attached.unwrap().trim().to_owned();
    let mut said = String::new();
    for (program, args) in
        [("wipefs", &["-n"][..]), ("blkid", &["-p"]), ("mdadm", &["--examine"]), ("sfdisk", &["--dump"])]
    {
        let output = Command::new(program).args(args).arg(&device).output().unwrap();
        let _ = write!(said, "{}", String::from_utf8_lossy(&output.stdout));
    }
    tool::run(Command::new("losetup").args(["-d", &device])).unwrap();
    said
}

#[test]
fn every_stack_is_taken_down_and_nothing_else() {
    let lab = Lab::builder().build().unwrap();
    let files = lab.dir().join("files");
    std::fs::create_dir(&files).unwrap();
    stack_archive(&files.join("stack.tar")).unwrap();
    let _server = lab.serve_files(PORT, &files).unwrap();
    let cases = cases();
    let neighbour = TestDisk::with_data(&lab, "NEIGHBOUR", 32).unwrap();

    let mut ssh = LiveSsh::with_fresh_key(&lab, "teardown").unwrap();
    let mut spec = Ramdisk::of(&programs().unwrap())
        .machine("teardown", &format!("speediso.sshkey=\"{}\"", ssh.public))
        .firmware(Firmware::Uefi)
        .memory_mib(1024)
        .serial(MACHINE);
    let mut disks = Vec::new();
    for case in &cases {
        for (serial, kind) in case.serials().iter().zip(case.disks) {
            let disk = TestDisk::blank(&lab, serial, kind.mib).unwrap();
            spec = spec.disk(disk.plugged().bus(kind.bus).sector_size(kind.sector));
            disks.push((disk, kind.sector));
        }
    }
    let machine = spec.disk(neighbour.plugged()).power_on(&lab).unwrap();
    ssh.to(&lab, &machine).unwrap();
    let live = Live { ssh };
    live.ssh
        .run(
            &format!(
                "mkdir -p /opt/stack /run/lock/lvm /run/cryptsetup && cd /opt/stack && \
                 {{ [ -d bin ] || wget -q -O - http://192.0.2.1:{PORT}/stack.tar | tar x; }} && \
                 for m in modules/*; do insmod $m 2>/dev/null; done; true"
            ),
            BOOT,
        )
        .unwrap();

    for case in &cases {
        live.script(case.name, &case.script());
    }
    live.script("firmware", &firmware::add());
    assert_eq!(live.sh(&firmware::show()), "Boot0042\nBoot0043\n42 00\n43 00");
    refusals(&live, &cases);

    // Several stacks in each task: they come down beside one another, and the test takes half as long.
    let results: Vec<(&[Case], TaskResult)> = cases
        .chunks(6)
        .map(|cases| {
            let serials: Vec<String> = cases.iter().flat_map(Case::serials).collect();
            let unmount = cases.iter().any(|case| case.unmount);
            (cases, live.run(cases[0].name, &task_file(&serials, unmount)))
        })
        .collect();
    for (cases, result) in &results {
        let names: Vec<&str> = cases.iter().map(|case| case.name).collect();
        let fault = result.fault.as_ref().map(ToString::to_string).unwrap_or_default();
        println!("{names:?} {:?} {:?} {fault}", result.outcome, result.changed);
        for device in &result.devices {
            let facts = &device.facts;
            println!(
                "    {} {:?} {} {}",
                device.identity.serial, device.changed, facts["taken_down"], facts["signatures"]
            );
        }
    }
    for device in results.iter().flat_map(|(_, result)| &result.devices) {
        let done = (device.outcome, device.changed) == (Outcome::Verified, Some(Changed::Changed));
        assert!(done, "{}: {:?} {:?}", device.identity.serial, device.outcome, device.fault);
    }
    let ended: usize = results.iter().map(|(_, result)| result.devices.len()).sum();
    assert_eq!(ended, disks.len(), "{:?}", results.iter().find_map(|(_, result)| result.fault.as_ref()));
    let again = live
        .run("again", &tasks(&json!({"task": "teardown", "devices": {"hints": [{"serial": cases[0].serials()[0]}]}})));
    assert_eq!((again.outcome, again.changed), (Outcome::Verified, Some(Changed::AlreadySo)), "{:?}", again.fault);
    assert_eq!(live.sh(&firmware::show()), "Boot0043\n43 00", "the entry of another disk stays, and no other");
    disconnected(&live);
    let left = live.sh("ls -d /sys/block/md* /sys/block/dm-* /sys/block/bcache* /sys/fs/bcache/*-* 2>/dev/null; \
         grep -v Filename /proc/swaps; grep -E '/dev/(vd|sd|nvme|md|dm)' /proc/mounts; \
         for h in /sys/class/block/*/holders/*; do [ -e $h ] && echo $h; done; \
         ls /sys/class/block | grep -E '^(vd|sd)[a-z]+[0-9]|^nvme.*p[0-9]'; true");
    assert_eq!(left, "", "something still stands");
    drop(machine);

    neighbour.assert_untouched().unwrap();
    let found: Vec<String> = disks
        .iter()
        .map(|(disk, sector)| (disk, judged(&disk.path, *sector)))
        .filter(|(_, said)| !said.is_empty())
        .map(|(disk, said)| format!("{}:\n{said}", disk.serial))
        .collect();
    assert!(found.is_empty(), "left on the disks:\n{}", found.join("\n"));
}

/// A disk over a network is cleared, and its connection let go of when that is asked for.
fn disconnected(live: &Live) {
    live.script("fabric", fabric::CONNECT);
    let task = |disconnect| {
        tasks(&json!({"task": "teardown", "devices": {"hints": [{"serial": "FABRIC"}]}, "disconnect": disconnect}))
    };
    let cleared = live.run("fabric-cleared", &task(false));
    assert_eq!((cleared.outcome, cleared.changed), (Outcome::Verified, Some(Changed::Changed)), "{:?}", cleared.fault);
    assert_ne!(live.sh(fabric::CONNECTED), "", "nobody asked to let go of it");
    let gone = live.run("fabric-gone", &task(true));
    assert_eq!(gone.outcome, Outcome::Verified, "{:?}", gone.fault);
    assert!(gone.devices[0].facts["taken_down"].to_string().contains("disconnect"), "{:?}", gone.devices);
    assert_eq!(live.sh(fabric::CONNECTED), "");
}

/// Bad orders, while everything stands: each says what is in the way, and nothing changes.
fn refusals(live: &Live, cases: &[Case]) {
    let serial = |name: &str, n: usize| cases.iter().find(|case| case.name == name).unwrap().serials()[n].clone();
    let one = |name: &str, n: usize, unmount| task_file(&[serial(name, n)], unmount);
    live.refused("half", &one("LINEAR", 0, false), FaultCode::DiskInUse, &["not named in the task", "LVM"]);
    live.refused("half-vg", &one("INACTIVE", 1, false), FaultCode::DiskInUse, &["lvm ", "INACTIVEA", "not named"]);
    live.refused("half-md", &one("STOPPED", 0, false), FaultCode::DiskInUse, &["md ", "STOPPEDB", "not named"]);
    live.refused("half-btrfs", &one("BTRFS", 1, true), FaultCode::DiskInUse, &["not named in the task"]);
    live.refused("mounted", &one("LUKS", 0, false), FaultCode::DiskInUse, &["is mounted at /mnt/luks", "`unmount`"]);

    // Somebody works in the file system, somebody reads the mapped device.
    live.script("users", "cd /mnt/luks && setsid sleep 1000 & echo $! >/tmp/cwd.pid\ncd /\nsetsid sh -c 'echo $$ >/tmp/dm.pid; exec sleep 1000' </dev/disk-by-dm &\nsleep 1");
    live.refused("busy-mount", &one("LUKS", 0, true), FaultCode::DiskInUse, &["/mnt/luks is busy", "held by process "]);
    live.refused(
        "busy-dm",
        &one("MAPPED", 0, false),
        FaultCode::DiskInUse,
        &["is busy", "held by process ", "still stands: "],
    );
    live.sh("kill $(cat /tmp/dm.pid); for p in /proc/[0-9]*; do [ \"$(readlink $p/cwd)\" = /mnt/luks ] && kill ${p#/proc/}; done; sleep 1");

    live.script("protect", "blockdev --setro $(d SWAPA)");
    live.refused("read-only", &one("SWAP", 0, false), FaultCode::DiskReadOnly, &["read-only"]);
    live.script("unprotect", "blockdev --setrw $(d SWAPA)");

    let wipe = json!({"task": "wipe", "devices": {"hints": [{"serial": serial("RAID1", 0)}]}, "level": "clear"});
    let refused = live.run("wipe", &tasks(&wipe));
    let fault = refused.fault.unwrap();
    assert_eq!((refused.outcome, fault.code), (Outcome::FailedUnchanged, FaultCode::DiskInUse));
    assert!(fault.advice.contains("`teardown`"), "{}", fault.advice);

    let plan = live
        .sh("speediso-agent run --dry-run --arm TEARDOWN --state-dir /tmp/dry.state --tasks /tmp/busy-mount.json 2>&1");
    println!("{plan}");
    assert!(plan.contains("unmount /mnt/luks") && plan.contains("take down mapped device"), "{plan}");
    // What was refused stands as it stood.
    let stands: String = cases.iter().map(|case| format!("echo {}\n({})\n", case.name, case.stands)).collect();
    live.script("stands", &stands);
}

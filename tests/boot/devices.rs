//! What devices tell of themselves, in one boot, against the programs that others wrote to ask them: lsblk, nvme,
//! smartctl, ethtool, ipmitool. Each figure of ours equals theirs, but for those in [`DIFFERENT`], with the reason.

#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use speediso_lab::{Bus, Lab, tool};
use speediso_model::fault::FaultCode;
use speediso_model::inventory::health::Verdict;
use speediso_model::inventory::{Disk, Interface, Inventory, Transport};
use speediso_model::outcome::{Outcome, TaskResult};
use speediso_tests::{BOOT, LiveSsh, Ramdisk, SOON, TestDisk, programs};

const PORT: u16 = 8083;
const MACHINE: &str = "DEVICES";

/// Fields that differ, and why.
const DIFFERENT: &[(&str, &str)] = &[
    ("lsblk vendor of SATA and virtio disks", "\"ATA\" and a PCI number are no vendors; ours is empty"),
    ("lsblk serial, wwn and tran", "lsblk takes them from udev, which the live system has not"),
    ("smartctl percentage_used of QEMU's ATA disk", "it has neither device statistics nor an attribute for it"),
];

struct Live {
    ssh: LiveSsh,
}

impl Live {
    fn sh(&self, script: &str) -> String {
        self.ssh.run(script, SOON).unwrap()
    }

    /// What one of the programs says.
    fn asked(&self, arguments: &str) -> String {
        let (program, rest) = arguments.split_once(' ').unwrap();
        let dir = "/opt/askers";
        // smartctl's status is a set of bits about the disk.
        self.sh(&format!(
            "{dir}/lib/ld-linux-x86-64.so.2 --library-path {dir}/lib {dir}/bin/{program} {rest} 2>/tmp/asked.err || true"
        ))
    }

    fn json(&self, arguments: &str) -> Value {
        let said = self.asked(arguments);
        serde_json::from_str(&said).unwrap_or_else(|e| panic!("{arguments}: {e}: {said}"))
    }
}

/// Numbers come as numbers and as texts.
fn number(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| value.as_str()?.parse().ok()).or_else(|| {
        let float = value.as_f64().filter(|f| *f >= 0.0)?;
        format!("{float:.0}").parse().ok()
    })
}

/// Collects what is not the same, so that one run shows all of it.
#[derive(Default)]
struct Judge(Vec<String>);

impl Judge {
    #[allow(clippy::needless_pass_by_value, reason = "two readings side by side are easier to read without borrows")]
    fn same<T: PartialEq + std::fmt::Debug>(&mut self, what: &str, ours: T, theirs: T) {
        println!("{what}: {ours:?}");
        if ours != theirs {
            self.0.push(format!("{what}: {ours:?} is ours, {theirs:?} theirs"));
        }
    }
}

fn bare(disk: &Disk) -> &str {
    disk.name.strip_prefix("/dev/").unwrap()
}

#[test]
fn devices_tell_us_what_they_tell_others() {
    let lab = Lab::builder().build().unwrap();
    let files = lab.dir().join("files");
    std::fs::create_dir(&files).unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("images/askers.sh");
    tool::run(Command::new(script).arg(files.join("askers.tar"))).unwrap();
    let _server = lab.serve_files(PORT, &files).unwrap();

    let blank = |serial: &str| TestDisk::blank(&lab, serial, 32).unwrap();
    let disks = [blank("NVME-A"), blank("SATA-B"), blank("SCSI-C"), blank("VIRT-D"), blank("SECOND")];
    let second = format!("if=none,id=second,format=raw,file={}", disks[4].path.display());
    let first = format!("if=none,id=first,format=raw,file={}", disks[0].path.display());
    let mut ssh = LiveSsh::with_fresh_key(&lab, "devices").unwrap();
    let machine = Ramdisk::of(&programs().unwrap())
        .machine("devices", &format!("speediso.sshkey=\"{}\"", ssh.public))
        .memory_mib(1024)
        .serial(MACHINE)
        .disk(disks[1].plugged().bus(Bus::Ahci).wwn(0x5000_c500_1234_5678))
        .disk(disks[2].plugged().bus(Bus::Scsi).wwn(0x5000_c500_8765_4321).sector_size(4096))
        .disk(disks[3].plugged())
        .with(&["-drive", &first, "-drive", &second])
        .with(&["-device", "nvme,id=pair,serial=NVME-A"])
        .with(&["-device", "nvme-ns,bus=pair,drive=first,nsid=1"])
        .with(&["-device", "nvme-ns,bus=pair,drive=second,nsid=2,logical_block_size=4096,physical_block_size=4096"])
        .with(&["-netdev", "hubport,id=hub1,hubid=1", "-device", "e1000e,netdev=hub1,mac=52:54:00:0d:00:01"])
        .with(&["-netdev", "hubport,id=hub2,hubid=1", "-device", "e1000,netdev=hub2,mac=52:54:00:0d:00:02"])
        .with(&["-netdev", "hubport,id=hub3,hubid=1", "-device", "vmxnet3,netdev=hub3,mac=52:54:00:0d:00:03"])
        .with(&["-device", "ipmi-bmc-sim,id=bmc", "-device", "isa-ipmi-kcs,bmc=bmc"])
        .power_on(&lab)
        .unwrap();
    ssh.to(&lab, &machine).unwrap();
    let live = Live { ssh };
    live.ssh
        .run(
            &format!(
                "mkdir -p /opt/askers && cd /opt/askers && \
                 {{ [ -d bin ] || wget -q -O - http://192.0.2.1:{PORT}/askers.tar | tar x; }} && \
                 for n in /sys/class/net/*; do ip link set ${{n##*/}} up; done"
            ),
            BOOT,
        )
        .unwrap();
    for (what, why) in DIFFERENT {
        println!("not compared: {what}: {why}");
    }

    let text = live.sh(
        "time -f 'inventory: %e s, %U s user, %M KiB' -o /tmp/time speediso-agent inventory --json; cat /tmp/time >&2",
    );
    println!("{}", live.sh("cat /tmp/time 2>/dev/null; true"));
    let inventory: Inventory = serde_json::from_str(&text).unwrap();
    println!("{:#?}", inventory.unread);
    let mut judge = Judge::default();
    disks_of(&live, &inventory, &mut judge);
    for nic in &inventory.interfaces {
        nic_of(&live, nic, &mut judge);
    }
    bmc_of(&live, &inventory, &mut judge);
    // Three cards on one hub: each hears what the agent says through the others.
    let neighbours: Value = serde_json::from_str(&live.sh("speediso-agent lldp --json")).unwrap();
    println!("{neighbours:#}");
    for heard in neighbours.as_array().unwrap() {
        judge.same("chassis", heard["lldp_processed"]["switch_chassis_id"].as_str(), Some(MACHINE));
    }
    assert_eq!(judge.0, Vec::<String>::new(), "{}", judge.0.join("\n"));
    gate(&live);
    drop(machine);
    for disk in &disks {
        disk.assert_untouched().unwrap();
    }
}

fn disks_of(live: &Live, inventory: &Inventory, judge: &mut Judge) {
    let listed = live.json("lsblk -J -b -d -o NAME,SIZE,MODEL,REV,ROTA,RM,RO,LOG-SEC,PHY-SEC,HCTL");
    let listed = listed["blockdevices"].as_array().unwrap();
    for disk in &inventory.disks {
        let theirs =
            listed.iter().find(|d| d["name"] == bare(disk)).unwrap_or_else(|| panic!("lsblk has no {}", disk.name));
        let name = |field: &str| format!("{} {field}", disk.name);
        judge.same(&name("size"), Some(disk.size.0), number(&theirs["size"]));
        judge.same(&name("rotational"), Some(disk.rotational), theirs["rota"].as_bool());
        judge.same(&name("removable"), Some(disk.removable), theirs["rm"].as_bool());
        judge.same(&name("read_only"), Some(disk.read_only), theirs["ro"].as_bool());
        judge.same(&name("logical_sectors"), Some(disk.logical_sectors.into()), number(&theirs["log-sec"]));
        judge.same(&name("physical_sectors"), Some(disk.physical_sectors.into()), number(&theirs["phy-sec"]));
        if disk.tran != Transport::Virtio {
            judge.same(&name("model"), Some(disk.model.as_str()), theirs["model"].as_str().map(str::trim));
        }
        if let Some(hctl) = &disk.hctl {
            judge.same(&name("hctl"), Some(hctl.as_str()), theirs["hctl"].as_str());
        }
        match disk.tran {
            Transport::Nvme => nvme_of(live, disk, judge),
            Transport::Sata | Transport::Scsi => smart_of(live, disk, judge),
            _ => judge.same(&name("health"), disk.health.is_none(), true),
        }
    }
    let count = |tran| inventory.disks.iter().filter(|d| d.tran == tran).count();
    let counts = [Transport::Nvme, Transport::Sata, Transport::Scsi, Transport::Virtio].map(count);
    assert_eq!(counts, [2, 1, 1, 1], "{:#?}", inventory.disks);
}

fn nvme_of(live: &Live, disk: &Disk, judge: &mut Judge) {
    let name = |field: &str| format!("{} {field}", disk.name);
    let log = live.json(&format!("nvme smart-log {} -o json", disk.name));
    let health = disk.health.as_ref().unwrap();
    judge.same(&name("verdict"), health.verdict, Verdict::Good);
    judge.same(&name("passed"), health.passed, number(&log["critical_warning"]).map(|w| w == 0));
    let celsius = number(&log["temperature"]).and_then(|k| i32::try_from(k).ok()).map(|k| k - 273);
    judge.same(&name("temperature"), health.temperature_c, celsius);
    for (field, ours, theirs) in [
        ("power_on_hours", health.power_on_hours, "power_on_hours"),
        ("power_cycles", health.power_cycles, "power_cycles"),
        ("unsafe_shutdowns", health.unsafe_shutdowns, "unsafe_shutdowns"),
        ("media_errors", health.media_errors, "media_errors"),
        ("percentage_used", health.percentage_used.map(u64::from), "percent_used"),
        ("available_spare", health.available_spare.map(u64::from), "avail_spare"),
        ("threshold", health.available_spare_threshold.map(u64::from), "spare_thresh"),
        ("bytes_written", health.bytes_written.map(|n| n / 512_000), "data_units_written"),
    ] {
        judge.same(&name(field), ours, number(&log[theirs]));
    }
    // Asking reads, and theirs comes after ours.
    let units = health.bytes_read.map(|n| n / 512_000);
    judge.same(&name("bytes_read"), units.is_some() && units <= number(&log["data_units_read"]), true);
    let controller = live.json(&format!("nvme id-ctrl {} -o json", disk.name));
    judge.same(&name("firmware"), Some(disk.firmware.as_str()), controller["fr"].as_str().map(str::trim));
    judge.same(&name("serial"), Some(disk.serial.as_str()), controller["sn"].as_str().map(str::trim));
    judge.same(&name("namespaces"), disk.namespaces.iter().map(|n| n.id).collect::<Vec<_>>(), vec![1, 2]);
    for namespace in &disk.namespaces {
        let theirs = live.json(&format!("nvme id-ns {} -n {} -o json", disk.name, namespace.id));
        let formats = theirs["lbafs"].as_array().unwrap();
        let name = |field: &str| format!("{} namespace {} {field}", disk.name, namespace.id);
        judge.same(&name("formats"), namespace.formats.len(), formats.len());
        for (ours, theirs) in namespace.formats.iter().zip(formats) {
            let bytes = number(&theirs["ds"]).map(|shift| 1u64 << shift);
            judge.same(&name("sector"), Some(u64::from(ours.bytes)), bytes);
            judge.same(&name("metadata"), Some(u64::from(ours.metadata)), number(&theirs["ms"]));
        }
        let used = namespace.formats.iter().find(|f| f.in_use).unwrap();
        let blocks = number(&theirs["nsze"]).unwrap();
        judge.same(&name("size"), namespace.size.0, blocks * u64::from(used.bytes));
    }
    assert_eq!(disk.namespaces.iter().filter(|n| n.this).count(), 1);
}

fn smart_of(live: &Live, disk: &Disk, judge: &mut Judge) {
    let name = |field: &str| format!("{} {field}", disk.name);
    let theirs = live.json(&format!("smartctl -j -x {}", disk.name));
    judge.same(&name("serial"), Some(disk.serial.as_str()), theirs["serial_number"].as_str());
    if disk.tran == Transport::Scsi {
        // QEMU's SCSI disks keep no log pages, and so they have no health; smartctl calls that 0 degrees.
        judge.same(&name("health"), disk.health.is_none(), number(&theirs["temperature"]["current"]).unwrap_or(0) == 0);
        return;
    }
    judge.same(&name("firmware"), Some(disk.firmware.as_str()), theirs["firmware_version"].as_str());
    let health = disk.health.as_ref().unwrap();
    judge.same(&name("passed"), health.passed, theirs["smart_status"]["passed"].as_bool());
    judge.same(&name("power_on_hours"), health.power_on_hours, number(&theirs["power_on_time"]["hours"]));
    judge.same(&name("power_cycles"), health.power_cycles, number(&theirs["power_cycle_count"]));
    let celsius = number(&theirs["temperature"]["current"]).and_then(|t| i32::try_from(t).ok());
    judge.same(&name("temperature"), health.temperature_c, celsius);
    let table = theirs["ata_smart_attributes"]["table"].as_array().cloned().unwrap_or_default();
    let raw = |id: u64| table.iter().find(|a| a["id"] == id).and_then(|a| number(&a["raw"]["value"]));
    judge.same(&name("reallocated_sectors"), health.reallocated_sectors, raw(5));
    judge.same(&name("pending_sectors"), health.pending_sectors, raw(197));
    let wwn = format!(
        "naa.{:x}{:06x}{:09x}",
        number(&theirs["wwn"]["naa"]).unwrap(),
        number(&theirs["wwn"]["oui"]).unwrap(),
        number(&theirs["wwn"]["id"]).unwrap()
    );
    judge.same(&name("wwn"), disk.wwn.as_deref(), Some(wwn.as_str()));
    judge.same(&name("wwn_with_extension"), disk.wwn_with_extension.as_deref(), Some("0x5000c50012345678"));
}

fn nic_of(live: &Live, nic: &Interface, judge: &mut Judge) {
    let field = |text: &str, key: &str| {
        let line =
            text.lines().find_map(|l| l.trim().strip_prefix(key)?.strip_prefix(':').map(str::trim).map(str::to_owned));
        line.filter(|value| !value.is_empty() && value != "N/A")
    };
    let name = |field: &str| format!("{} {field}", nic.name);
    let driver = live.asked(&format!("ethtool -i {}", nic.name));
    judge.same(&name("driver"), nic.driver.clone(), field(&driver, "driver"));
    judge.same(&name("driver_version"), nic.driver_version.clone(), field(&driver, "version"));
    judge.same(&name("firmware_version"), nic.firmware_version.clone(), field(&driver, "firmware-version"));
    let bus = field(&driver, "bus-info");
    judge.same(&name("pci_address"), nic.pci_address.clone(), bus);
    let permanent = live.asked(&format!("ethtool -P {}", nic.name));
    let permanent = field(&permanent, "Permanent address").filter(|a| a.contains(':') && a != "00:00:00:00:00:00");
    judge.same(&name("permanent_mac"), nic.permanent_mac.clone(), permanent);
    let link = live.asked(&format!("ethtool {}", nic.name));
    let speed = field(&link, "Speed").and_then(|s| s.strip_suffix("Mb/s")?.parse().ok());
    judge.same(&name("speed_mbps"), nic.speed_mbps, speed);
    let duplex = field(&link, "Duplex").map(|d| d.to_lowercase()).filter(|d| d == "full" || d == "half");
    judge.same(&name("duplex"), nic.duplex.clone(), duplex);
    let autonegotiation = field(&link, "Auto-negotiation").map(|a| a == "on");
    judge.same(&name("autonegotiation"), nic.autonegotiation, autonegotiation);
    judge.same(&name("has_carrier"), Some(nic.has_carrier), field(&link, "Link detected").map(|l| l == "yes"));
    judge.same(&name("wake_on_lan_supported"), nic.wake_on_lan_supported.clone(), field(&link, "Supports Wake-on"));
    judge.same(&name("wake_on_lan"), nic.wake_on_lan.clone(), field(&link, "Wake-on"));
    // A list over several lines, up to the next key.
    let supported: Vec<String> = link
        .split("Supported link modes:")
        .nth(1)
        .and_then(|rest| rest.split(':').next())
        .map(|list| list.split_whitespace().filter(|word| word.contains("base")).map(str::to_owned).collect())
        .unwrap_or_default();
    judge.same(&name("supported_modes"), nic.supported_modes.clone(), supported);
}

fn bmc_of(live: &Live, inventory: &Inventory, judge: &mut Judge) {
    let field = |text: &str, key: &str| {
        text.lines().find_map(|l| {
            let (name, value) = l.split_once(':')?;
            (name.trim() == key).then(|| value.trim().to_owned())
        })
    };
    let bmc = inventory.bmc.as_ref().expect("the machine has one");
    let info = live.asked("ipmitool mc info");
    judge.same("bmc firmware", Some(bmc.firmware.clone()), field(&info, "Firmware Revision"));
    judge.same("bmc ipmi_version", Some(bmc.ipmi_version.clone()), field(&info, "IPMI Version"));
    judge.same("bmc device_id", Some(bmc.device_id.to_string()), field(&info, "Device ID"));
    judge.same("bmc device_revision", Some(bmc.device_revision.to_string()), field(&info, "Device Revision"));
    judge.same("bmc manufacturer_id", Some(bmc.manufacturer_id.to_string()), field(&info, "Manufacturer ID"));
    let sensors = live.asked("ipmitool -c sdr elist all");
    // Name, reading, state, ...: what is a device and no sensor has none.
    let theirs: Vec<&str> = sensors.lines().filter_map(|l| l.split(',').next()).collect();
    for sensor in &bmc.sensors {
        assert!(theirs.contains(&sensor.name.as_str()), "{} is not in {sensors}", sensor.name);
    }
    let log = bmc.event_log.as_ref().unwrap();
    let info = live.asked("ipmitool sel info");
    judge.same("sel entries", Some(log.entries.to_string()), field(&info, "Entries"));
    // A line of theirs is read by us.
    live.sh("echo '0x04 0x01 0x30 0x01 0x59 0x57 0x01' >/tmp/event");
    live.asked("ipmitool sel add /tmp/event");
    let again: Inventory = serde_json::from_str(&live.sh("speediso-agent inventory --json")).unwrap();
    let newest = again.bmc.unwrap().event_log.unwrap();
    println!("{:#?}", newest.newest);
    judge.same("sel entries after one more", newest.entries, log.entries + 1);
    let line = newest.newest.last().unwrap();
    // A temperature, upper critical, going high.
    judge.same("its text", line.text.contains("above the upper critical threshold, rising"), true);
}

/// A bill of materials, kept and not kept.
fn gate(live: &Live) {
    let run = |name: &str, expect: &Value| -> TaskResult {
        let file = json!({
            "version": 1,
            "machine": MACHINE,
            "expires": "2100-01-01T00:00:00Z",
            "order": "88888888-8888-4888-8888-888888888888",
            "tasks": [{"task": "inventory", "expect": expect}],
        });
        let said = live
            .ssh
            .run(
                &format!(
                    "cat >/tmp/{name}.json <<'END'\n{file}\nEND\n\
                     speediso-agent run --json --arm {MACHINE} --state-dir /tmp/{name}.state --tasks /tmp/{name}.json 2>/tmp/{name}.err </dev/null || true"
                ),
                Duration::from_secs(120),
            )
            .unwrap();
        let line = said.lines().rev().find(|line| line.starts_with('{'));
        line.and_then(|line| serde_json::from_str(line).ok()).unwrap_or_else(|| panic!("{name} said no result: {said}"))
    };
    let disks = json!([{"count": 2, "match": {"transport": "nvme", "serial": "NVME-A"}}, {"count": 1, "match": {"transport": "sata"}}]);
    let met = run(
        "met",
        &json!({"disks": disks, "disk_health": "none_failing", "interfaces": [{"count": 1, "match": {"driver": "e1000e"}}]}),
    );
    assert_eq!(met.outcome, Outcome::Verified, "{:?}", met.fault);
    let unmet = run(
        "unmet",
        &json!({"disks": disks, "no_other_disks": true, "cpus": {"count": 64}, "interfaces": [{"count": 0, "match": {"driver": "vmxnet3"}}]}),
    );
    let fault = unmet.fault.unwrap();
    assert_eq!((unmet.outcome, fault.code), (Outcome::FailedUnchanged, FaultCode::HardwareUnexpected));
    println!("{:#?}", fault.causes);
    for word in
        ["the number of processors is", "there are 1 network interfaces with driver vmxnet3", "VIRT-D", "SCSI-C"]
    {
        assert!(fault.causes.iter().any(|line| line.contains(word)), "{word} is in none of {:#?}", fault.causes);
    }
    assert!(unmet.output.is_some(), "the inventory is told all the same");
}

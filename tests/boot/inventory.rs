//! The inventory of a machine with a little of everything, in one boot, against the programs that others wrote to tell
//! the same: dmidecode, lspci, lscpu, lsusb, lshw. Where ours says otherwise, the difference has a reason here.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use speediso_lab::{Bus, Lab, tool};
use speediso_tests::{BOOT, LiveSsh, Ramdisk, SOON, TestDisk, programs};

const PORT: u16 = 8083;

/// Beside what every machine of these tests has.
const MORE: &[&str] = &[
    // A vendor with threads: QEMU's own processor has none for the kernel to see.
    "-cpu",
    "max,vendor=GenuineIntel,family=6,model=85,stepping=7",
    "-smp",
    "8,sockets=2,cores=2,threads=2",
    "-object",
    "memory-backend-ram,id=m0,size=512M",
    "-object",
    "memory-backend-ram,id=m1,size=512M",
    "-numa",
    "node,nodeid=0,cpus=0-3,memdev=m0",
    "-numa",
    "node,nodeid=1,cpus=4-7,memdev=m1",
    "-smbios",
    "type=0,vendor=Firmwright,version=2.4.1,date=02/29/2024,release=2.17",
    "-smbios",
    "type=2,manufacturer=Quirk,product=Board 9,version=1.0,serial=BRD-1,asset=BA-1,location=Left",
    "-smbios",
    "type=3,manufacturer=Quirk,version=C,serial=CH-1,asset=Rack 7,sku=CSKU",
    "-smbios",
    "type=4,sock_pfx=Socket,manufacturer=Quirk,version=Q Core,serial=CPU-1,asset=CA-1,part=QC9,max-speed=3500,current-speed=2400",
    "-smbios",
    "type=17,loc_pfx=DIMM_A,bank=Bank0,manufacturer=Chipmaker,serial=0BADCAFE,asset=M-1,part=M393A8G40,speed=3200",
    "-device",
    "e1000e,mac=52:54:00:a1:00:02",
    "-device",
    "rtl8139,mac=52:54:00:a1:00:03",
    "-device",
    "qemu-xhci,id=usb",
    "-device",
    "usb-kbd,bus=usb.0",
    "-device",
    "usb-tablet,bus=usb.0",
    "-device",
    "ipmi-bmc-sim,id=bmc0",
    "-device",
    "isa-ipmi-kcs,bmc=bmc0",
    "-device",
    "i6300esb",
    "-smbios",
    "type=41,designation=LOM 1,kind=ethernet,instance=1,pcidev=nic0",
];

/// A TPM 2.0 outside of QEMU, for as long as it is kept.
struct SoftTpm {
    process: Child,
    socket: PathBuf,
}

impl SoftTpm {
    fn start(dir: &Path) -> Self {
        let state = dir.join("tpm");
        std::fs::create_dir(&state).unwrap();
        let socket = dir.join("tpm.socket");
        let mut command = Command::new(tool::find("swtpm").unwrap());
        command.args(["socket", "--tpm2", "--tpmstate"]).arg(format!("dir={}", state.display()));
        command.arg("--ctrl").arg(format!("type=unixio,path={}", socket.display()));
        let process = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let end = Instant::now() + SOON;
        while !socket.exists() {
            assert!(Instant::now() < end, "swtpm opens no socket");
            std::thread::sleep(Duration::from_millis(50));
        }
        Self { process, socket }
    }

    fn words(&self) -> Vec<String> {
        let chardev = format!("socket,id=tpm,path={}", self.socket.display());
        ["-chardev", &chardev, "-tpmdev", "emulator,id=tpm0,chardev=tpm", "-device", "tpm-crb,tpmdev=tpm0"]
            .map(str::to_owned)
            .to_vec()
    }
}

impl Drop for SoftTpm {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// One of theirs, on whose fields ours is judged; every difference is kept, and shown together.
#[derive(Default)]
struct Judge {
    compared: usize,
    differences: Vec<String>,
}

impl Judge {
    fn same(&mut self, what: &str, ours: &str, theirs: &str) {
        self.compared += 1;
        if ours != theirs {
            self.differences.push(format!("{what}: ours {ours:?}, theirs {theirs:?}"));
        }
    }
}

/// A structure of dmidecode's output: its type, and its fields of one line.
struct Block {
    kind: u32,
    fields: BTreeMap<String, String>,
}

impl Block {
    fn all(text: &str) -> Vec<Self> {
        let blocks = text.split("\n\n").filter(|block| block.trim_start().starts_with("Handle 0x"));
        blocks
            .map(|block| {
                let (_, kind) = block.split_once("DMI type ").unwrap();
                let fields = block.lines().filter_map(|line| {
                    let (name, value) = line.strip_prefix('\t')?.split_once(": ")?;
                    Some((name.trim().to_owned(), value.trim().to_owned()))
                });
                Self { kind: kind.split(',').next().unwrap().parse().unwrap(), fields: fields.collect() }
            })
            .collect()
    }

    fn get(&self, name: &str) -> String {
        // "Not Specified" and "Unknown" are its words for nothing.
        self.fields
            .get(name)
            .filter(|v| !matches!(v.as_str(), "Not Specified" | "Unknown"))
            .cloned()
            .unwrap_or_default()
    }
}

/// A field of ours as text; nothing for null.
fn at(value: &Value, path: &str) -> String {
    match path.split('/').fold(value, |value, name| match name.parse::<usize>() {
        Ok(index) => &value[index],
        Err(_) => &value[name],
    }) {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn with_unit(text: &str, unit: &str) -> String {
    if text.is_empty() { String::new() } else { format!("{text} {unit}") }
}

fn dmidecode(ours: &Value, text: &str) -> Judge {
    let mut judge = Judge::default();
    let blocks = Block::all(text);
    let of = |kind: u32| blocks.iter().filter(move |block| block.kind == kind);
    let mut texts = |kind: u32, at_path: &str, pairs: &[(&str, &str)]| {
        for (n, block) in of(kind).enumerate() {
            for (path, name) in pairs {
                let path = at_path.replace("{n}", &n.to_string()) + "/" + path;
                judge.same(&path, &at(ours, &path), &block.get(name));
            }
        }
        assert!(of(kind).count() > 0, "no structure of type {kind}");
    };
    texts(
        0,
        "system_vendor/firmware",
        &[("vendor", "Vendor"), ("version", "Version"), ("build_date", "Release Date"), ("release", "BIOS Revision")],
    );
    texts(
        1,
        "system_vendor",
        &[
            ("manufacturer", "Manufacturer"),
            ("product_name", "Product Name"),
            ("version", "Version"),
            ("serial_number", "Serial Number"),
            ("sku_number", "SKU Number"),
            ("family", "Family"),
            ("uuid", "UUID"),
        ],
    );
    texts(
        2,
        "boards/{n}",
        &[
            ("manufacturer", "Manufacturer"),
            ("product_name", "Product Name"),
            ("version", "Version"),
            ("serial_number", "Serial Number"),
            ("asset_tag", "Asset Tag"),
            ("location", "Location In Chassis"),
            ("kind", "Type"),
        ],
    );
    texts(
        3,
        "chassis/{n}",
        &[
            ("manufacturer", "Manufacturer"),
            ("kind", "Type"),
            ("version", "Version"),
            ("serial_number", "Serial Number"),
            ("asset_tag", "Asset Tag"),
            ("sku_number", "SKU Number"),
            ("power_state", "Power Supply State"),
            ("thermal_state", "Thermal State"),
        ],
    );
    texts(
        4,
        "cpu/sockets/{n}",
        &[
            ("designation", "Socket Designation"),
            ("manufacturer", "Manufacturer"),
            ("version", "Version"),
            ("id", "ID"),
            ("serial_number", "Serial Number"),
            ("asset_tag", "Asset Tag"),
            ("part_number", "Part Number"),
            ("core_count", "Core Count"),
            ("cores_enabled", "Core Enabled"),
            ("thread_count", "Thread Count"),
        ],
    );
    texts(
        17,
        "memory/modules/{n}",
        &[
            ("slot", "Locator"),
            ("bank", "Bank Locator"),
            ("manufacturer", "Manufacturer"),
            ("part_number", "Part Number"),
            ("serial_number", "Serial Number"),
            ("asset_tag", "Asset Tag"),
            ("kind", "Type"),
            ("form_factor", "Form Factor"),
            ("ranks", "Rank"),
        ],
    );
    texts(16, "memory/arrays/{n}", &[("error_correction", "Error Correction Type"), ("slots", "Number Of Devices")]);
    texts(
        41,
        "onboard_devices/{n}",
        &[("designation", "Reference Designation"), ("kind", "Type"), ("pci_address", "Bus Address")],
    );
    for (n, block) in of(4).enumerate() {
        for (path, name) in [("max_mhz", "Max Speed"), ("current_mhz", "Current Speed")] {
            let path = format!("cpu/sockets/{n}/{path}");
            judge.same(&path, &with_unit(&at(ours, &path), "MHz"), &block.get(name));
        }
        let status = with_unit("Populated,", &at(ours, &format!("cpu/sockets/{n}/status")));
        judge.same("status", &status, &block.get("Status"));
    }
    for (n, block) in of(17).enumerate() {
        let path = |name: &str| format!("memory/modules/{n}/{name}");
        judge.same("speed", &with_unit(&at(ours, &path("speed_mts")), "MT/s"), &block.get("Speed"));
        let configured = with_unit(&at(ours, &path("configured_speed_mts")), "MT/s");
        judge.same("configured speed", &configured, &block.get("Configured Memory Speed"));
        // It counts in the largest unit that leaves no rest.
        let mib: u64 = at(ours, &path("size_mb")).parse().unwrap();
        let size = if mib.is_multiple_of(1024) { format!("{} GB", mib / 1024) } else { format!("{mib} MB") };
        judge.same("size", &size, &block.get("Size"));
    }
    judge.same("DIMMs", &ours["memory"]["modules"].as_array().unwrap().len().to_string(), &of(17).count().to_string());
    judge
}

/// Records of `lspci -vmm`: a name and a value in each line.
fn records(text: &str) -> Vec<BTreeMap<String, String>> {
    let record = |block: &str| -> BTreeMap<String, String> {
        let pairs = block.lines().filter_map(|line| line.split_once(':'));
        pairs.map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect()
    };
    text.split("\n\n").map(record).filter(|record| record.contains_key("Slot")).collect()
}

/// `Intel Corporation [8086]` -> `8086`
fn number_in(text: &str) -> String {
    text.rsplit_once('[').map_or("", |(_, number)| number.trim_end_matches(']')).to_owned()
}

fn lspci(ours: &Value, text: &str) -> Judge {
    let mut judge = Judge::default();
    let theirs = records(text);
    let devices = ours["pci_devices"].as_array().unwrap();
    judge.same("functions", &devices.len().to_string(), &theirs.len().to_string());
    for (device, record) in devices.iter().zip(&theirs) {
        let get = |name: &str| record.get(name).cloned().unwrap_or_default();
        let bus = at(device, "bus");
        let mut same = |what: &str, ours: &str, theirs: &str| judge.same(&format!("{bus} {what}"), ours, theirs);
        same("address", &bus, &get("Slot"));
        same("class", &at(device, "class")[..4], &number_in(&get("Class")));
        same("class in words", &at(device, "kind"), get("Class").rsplit_once(" [").unwrap().0);
        same("vendor", &at(device, "vendor_id"), &number_in(&get("Vendor")));
        same("device", &at(device, "product_id"), &number_in(&get("Device")));
        same("subsystem vendor", &at(device, "subsystem_vendor_id"), &number_in(&get("SVendor")));
        same("subsystem", &at(device, "subsystem_id"), &number_in(&get("SDevice")));
        same("driver", &at(device, "driver"), &get("Driver"));
        same("revision", at(device, "revision").trim_start_matches("00"), &get("Rev"));
        same("NUMA node", &at(device, "numa_node_id"), &get("NUMANode"));
    }
    judge
}

fn lscpu(ours: &Value, text: &str) -> Judge {
    let mut judge = Judge::default();
    let theirs: Value = serde_json::from_str(text).unwrap();
    let mut fields = BTreeMap::new();
    let mut lists = vec![&theirs["lscpu"]];
    // Newer ones nest their fields.
    while let Some(list) = lists.pop() {
        for one in list.as_array().into_iter().flatten() {
            fields.insert(at(one, "field"), at(one, "data"));
            lists.push(&one["children"]);
        }
    }
    for (path, name) in [
        ("cpu/architecture", "Architecture:"),
        ("cpu/count", "CPU(s):"),
        ("cpu/socket_count", "Socket(s):"),
        ("cpu/threads_per_core", "Thread(s) per core:"),
        ("cpu/vendor", "Vendor ID:"),
        ("cpu/model_name", "Model name:"),
        ("cpu/family", "CPU family:"),
        ("cpu/model", "Model:"),
        ("cpu/stepping", "Stepping:"),
        ("cpu/online", "On-line CPU(s) list:"),
        ("numa_topology/nodes/0/cpus", "NUMA node0 CPU(s):"),
        ("numa_topology/nodes/1/cpus", "NUMA node1 CPU(s):"),
    ] {
        judge.same(path, &at(ours, path), fields.get(name).map_or("", String::as_str));
    }
    let flags: Vec<&str> = ours["cpu"]["flags"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    judge.same("flags", &flags.join(" "), fields.get("Flags:").map_or("", String::as_str));
    let nodes = ours["numa_topology"]["nodes"].as_array().unwrap().len();
    judge.same("nodes", &nodes.to_string(), fields.get("NUMA node(s):").map_or("", String::as_str));
    for (name, level, kind) in
        [("L1d", 1, "Data"), ("L1i", 1, "Instruction"), ("L2", 2, "Unified"), ("L3", 3, "Unified")]
    {
        let of = ours["cpu"]["caches"].as_array().unwrap().iter().filter(|c| c["level"] == level && c["kind"] == kind);
        let total: u64 = of.map(|c| c["size"].as_u64().unwrap() * c["count"].as_u64().unwrap()).sum();
        judge.same(
            name,
            &total.to_string(),
            fields
                .get(&format!("{name} cache:"))
                .or(fields.get(&format!("{name}:")))
                .map_or("", |s| s.split(' ').next().unwrap()),
        );
    }
    judge
}

fn lsusb(ours: &Value, text: &str) -> Judge {
    let mut judge = Judge::default();
    let mut theirs: Vec<String> =
        text.lines().map(|line| line.split_whitespace().take(6).collect::<Vec<_>>().join(" ")).collect();
    theirs.sort();
    let devices = ours["usb_devices"].as_array().unwrap();
    let mut mine: Vec<String> = devices
        .iter()
        .map(|d| {
            let number = |name: &str| d[name].as_u64().unwrap();
            format!(
                "Bus {:03} Device {:03}: ID {}:{}",
                number("bus"),
                number("device"),
                at(d, "vendor_id"),
                at(d, "product_id")
            )
        })
        .collect();
    mine.sort();
    judge.same("devices", &mine.join("\n"), &theirs.join("\n"));
    judge
}

/// Every node of lshw's tree.
fn nodes<'a>(node: &'a Value, all: &mut Vec<&'a Value>) {
    all.push(node);
    for child in node["children"].as_array().into_iter().flatten() {
        nodes(child, all);
    }
}

fn lshw(ours: &Value, text: &str) -> Judge {
    let mut judge = Judge::default();
    let tree: Value = serde_json::from_str(text).unwrap();
    // Older ones give the machine, newer ones a list of it.
    let tree = if tree.is_array() { &tree[0] } else { &tree };
    let mut all = Vec::new();
    nodes(tree, &mut all);
    judge.same("product", &at(ours, "system_vendor/product_name"), at(tree, "product").split(" (").next().unwrap());
    judge.same("vendor", &at(ours, "system_vendor/manufacturer"), &at(tree, "vendor"));
    judge.same("serial", &at(ours, "system_vendor/serial_number"), &at(tree, "serial"));
    let find = |id: &str| all.iter().find(|node| at(node, "id") == id).copied().unwrap_or(&Value::Null);
    let firmware = find("firmware");
    for (mine, theirs) in [("vendor", "vendor"), ("version", "version"), ("build_date", "date")] {
        judge.same(mine, &at(ours, &format!("system_vendor/firmware/{mine}")), &at(firmware, theirs));
    }
    judge.same("board", &at(ours, "boards/0/serial_number"), &at(find("core"), "serial"));
    let physical: u64 = at(ours, "memory/physical_mb").parse().unwrap();
    let sizes =
        all.iter().filter(|node| at(node, "id").starts_with("memory") && at(node, "description") == "System Memory");
    let theirs: u64 = sizes.filter_map(|node| node["size"].as_u64()).sum();
    judge.same("memory", &(physical << 20).to_string(), &theirs.to_string());
    let mut addresses: Vec<String> =
        all.iter().filter_map(|node| at(node, "businfo").strip_prefix("pci@").map(str::to_owned)).collect();
    addresses.sort();
    addresses.dedup();
    let mine: Vec<String> = ours["pci_devices"].as_array().unwrap().iter().map(|d| at(d, "bus")).collect();
    judge.same("PCI", &mine.join(" "), &addresses.join(" "));
    judge
}

/// What may differ, and why. A line of a difference that contains one of these is expected.
const EXPECTED: &[(&str, &str)] = &[];

#[test]
fn what_others_tell_of_the_machine_is_what_the_inventory_tells() {
    let lab = Lab::builder().build().unwrap();
    let files = lab.dir().join("files");
    std::fs::create_dir(&files).unwrap();
    let judges = Path::new(env!("CARGO_MANIFEST_DIR")).join("images/judges.sh");
    tool::run(Command::new(judges).arg(files.join("judges.tar"))).unwrap();
    let _server = lab.serve_files(PORT, &files).unwrap();
    let mut ssh = LiveSsh::with_fresh_key(&lab, "inventory").unwrap();
    let disk = TestDisk::blank(&lab, "NVME0", 64).unwrap();
    let tpm = SoftTpm::start(lab.dir());
    let machine = Ramdisk::of(&programs().unwrap())
        .machine(
            "inventory",
            &format!("BOOTIF=01-52-54-00-a1-00-01 secret_token=CANARY speediso.sshkey=\"{}\"", ssh.public),
        )
        .memory_mib(1024)
        .serial("SN-9000")
        // Named by BOOTIF, so that nobody asks the two cards that lead nowhere for a network.
        .mac("52:54:00:a1:00:01")
        .disk(disk.plugged().bus(Bus::Nvme))
        .with(MORE)
        .with(&tpm.words().iter().map(String::as_str).collect::<Vec<_>>())
        .power_on(&lab)
        .unwrap();
    ssh.to(&lab, &machine).unwrap();
    ssh.run(&format!("mkdir -p /opt/j && cd /opt/j && wget -q -O - http://192.0.2.1:{PORT}/judges.tar | tar x"), BOOT)
        .unwrap();
    let sh = |command: &str| ssh.run(command, SOON).unwrap();
    let judge = |words: &str| {
        let (tool, args) = words.split_once(' ').unwrap_or((words, ""));
        sh(&format!("cd /opt/j; l=lib/ld-linux-x86-64.so.2; $l --library-path lib bin/{tool} {args} 2>/dev/null"))
    };

    let took = sh("cat /proc/uptime; speediso-agent inventory --json >/tmp/inventory.json; cat /proc/uptime");
    let seconds: Vec<f64> = took.lines().map(|line| line.split(' ').next().unwrap().parse().unwrap()).collect();
    println!("an inventory takes {:.2} s here", seconds[1] - seconds[0]);
    let text = sh("cat /tmp/inventory.json");
    assert!(!text.contains("CANARY"), "a secret of the command line is in the inventory");
    let ours: Value = serde_json::from_str(&text).unwrap();
    println!("{}", sh("speediso-agent inventory"));

    assert_eq!((at(&ours, "tpm/version"), at(&ours, "tpm/manufacturer")), ("2.0".to_owned(), "IBM".to_owned()));
    let verdicts = [
        ("dmidecode", dmidecode(&ours, &judge("dmidecode"))),
        ("lspci", lspci(&ours, &judge("lspci -i pci.ids -vmmDnnk"))),
        ("lscpu", lscpu(&ours, &judge("lscpu -J -B"))),
        ("lsusb", lsusb(&ours, &judge("lsusb"))),
        ("lshw", lshw(&ours, &judge("lshw -quiet -json"))),
    ];
    let mut unexpected = Vec::new();
    for (name, judge) in verdicts {
        println!("{name}: {} fields compared, {} differ", judge.compared, judge.differences.len());
        for difference in judge.differences {
            match EXPECTED.iter().find(|(part, _)| format!("{name} {difference}").contains(part)) {
                Some((_, reason)) => println!("  {difference}\n    because {reason}"),
                None => unexpected.push(format!("{name}: {difference}")),
            }
        }
    }
    assert!(unexpected.is_empty(), "differences without a reason:\n{}", unexpected.join("\n"));
    // QEMU's BMC has a place for its inventory record, and nothing in it.
    let unread = ours["unread"].as_array().unwrap().iter().filter_map(Value::as_str);
    let unread: Vec<&str> = unread.filter(|line| !line.starts_with("inventory record of the BMC")).collect();
    assert!(unread.is_empty(), "root reads everything: {unread:?}");
}

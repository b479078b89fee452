//! The log of a machine at the controller, at a syslog server and in a support bundle: there, and without a secret in it.

#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use serde_json::{Value, json};
use speediso_lab::{Lab, Site, tool};
use speediso_model::api::OrderView;
use speediso_model::node::NodeState;
use speediso_tests::{BOOT, LiveSsh, Ramdisk, SOON, TestDisk, WORK, boot_words, programs};

const MAC: &str = "52:54:00:12:0c:01";
const UUID: &str = "44444444-4444-4444-8444-444444444444";

/// One for each place in which a secret may stand.
const CANARIES: [&str; 6] = [
    "CANARY-luks-key-1",
    "CANARY-user-data-2",
    "CANARY-url-password-3",
    "CANARY-url-query-4",
    "CANARY-header-5",
    "CANARY-kernel-6",
];

fn orders() -> [Value; 4] {
    let [luks, user_data, password, query, header, ..] = CANARIES;
    let url = format!("http://me:{password}@192.0.2.1:9/image?sig={query}");
    let encrypted = json!({"luks": {"key": luks, "content": {"file_system": {"kind": "ext4", "label": "root"}}}});
    [
        json!({"task": "partition", "device": {"serial": "LOGSDISK"},
               "partitions": [{"name": "a", "kind": "linux", "size": "rest", "content": encrypted}]}),
        json!({"task": "config_drive", "device": {"serial": "LOGSDISK"}, "content": {
               "instance_id": "i", "hostname": "h", "user_data": format!("#cloud-config\npassword: {user_data}\n")}}),
        json!({"task": "write_image", "device": {"serial": "LOGSDISK"}, "image": {
               "url": url, "digest": format!("sha256:{}", "0".repeat(64)), "compression": "none"}}),
        json!({"task": "capture", "device": {"serial": "LOGSDISK"}, "to": {
               "url": format!("http://me:{password}@192.0.2.1:9/i"), "headers": {"X-Own": header}}}),
    ]
}

/// Every file below a directory that is a log, or is in what was unpacked, without its secrets.
fn is_clean(dir: &Path, secrets: &[String]) -> usize {
    let mut files = 0;
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files += is_clean(&path, secrets);
        } else if path.is_file() {
            let text = String::from_utf8_lossy(&std::fs::read(&path).unwrap()).into_owned();
            // What the kernel prints on a console by itself, its command line above all, passes nobody who could hide it.
            let by_kernel = |line: &&str| line.contains("ommand line: ") || line.contains("speediso-test: ");
            let text: String = match path.to_string_lossy().ends_with(".serial.log") {
                true => text.lines().filter(|line| !by_kernel(line)).collect(),
                false => text,
            };
            for secret in secrets {
                assert!(!text.contains(secret.as_str()), "{secret} is in {}", path.display());
            }
            files += 1;
        }
    }
    files
}

/// What a browser shows: the machine's page after a login, and the page on which errors are explained without one.
fn pages(site: &Site<'_>, dir: &Path, to: &Path) {
    let token = std::fs::read_to_string(dir.join("controller/operator.token")).unwrap();
    let jar = dir.join("cookies");
    let curl = |args: &[&str]| {
        let mut command = Command::new(tool::find("curl").unwrap());
        command.args(["-sSf", "-k", "-b"]).arg(&jar).arg("-c").arg(&jar);
        tool::run(command.args(args)).unwrap()
    };
    let url = |path: &str| format!("{}{path}", site.url());
    assert!(curl(&[&url("/docs/errors")]).contains("<tr id=\"tls-pin-mismatch\">"));
    curl(&["--data-urlencode", &format!("token={}", token.trim()), &url("/login")]);
    let machine = site.machines().unwrap().remove(0);
    let page = curl(&[&url(&format!("/machines/{}", machine.id))]);
    assert!(page.contains("LOGSDISK") && page.contains("capture"), "{page}");
    std::fs::write(to.join("machine.html"), page).unwrap();
}

/// A machine enrols with a token, gets orders that are full of secrets, fails at most of them, and its kernel says one too:
/// none of them is on its console, at the syslog server, in the controller's log, in what the controller shows, on its
/// pages or in the bundle; but all of the log is.
#[test]
fn logs_arrive_everywhere_and_secrets_nowhere() {
    let programs = programs().unwrap();
    let lab = Lab::builder().build().unwrap();
    let site = Site::start(&lab, &programs, 0).unwrap();
    let received = lab.dir().join("syslog.received");
    let mut server = lab.command(tool::find("socat").unwrap());
    server.arg("-u").arg("UDP-RECV:5514,bind=192.0.2.1").arg(format!("CREATE:{}", received.display()));
    let _server = lab.spawn("syslog", server).unwrap();

    site.json::<Value>(&["create", "logs", "--mac", MAC]).unwrap();
    site.json::<Value>(&["arm", "logs"]).unwrap();
    let words = boot_words(&lab, MAC, UUID, "LOGS").unwrap();
    let token = words.iter().find_map(|w| w.strip_prefix("speediso.token=")).expect("an armed machine has a token");
    let mut secrets: Vec<String> = CANARIES.iter().map(|c| (*c).to_owned()).collect();
    secrets.push(token.to_owned());

    let disk = TestDisk::with_data(&lab, "LOGSDISK", 64).unwrap();
    let mut ssh = LiveSsh::with_fresh_key(&lab, "logs").unwrap();
    let words = format!(
        "{} speediso.syslog=udp://192.0.2.1:5514 speediso.ssh=on speediso.sshkey=\"{}\"",
        words.join(" "),
        ssh.public
    );
    let spec = Ramdisk::of(&programs).machine("logs", &words).memory_mib(512).mac(MAC).uuid(UUID).serial("LOGS");
    let mut machine = spec.disk(disk.plugged()).power_on(&lab).unwrap();
    ssh.to(&lab, &machine).unwrap();
    site.wait_machine("LOGS", "manageable", BOOT, |node| node.state == NodeState::Manageable).unwrap();

    for (n, task) in orders().into_iter().enumerate() {
        let file = site.params(&json!([task])).unwrap();
        let mut args = vec!["run", "logs", "--tasks", file.to_str().unwrap()];
        // Planned only: making it is another test's.
        if n < 2 {
            args.push("--dry-run");
        }
        let said = site.ask(args.iter().copied().chain(["--json"])).unwrap();
        if n >= 2 {
            let order: OrderView = serde_json::from_str(&said.stdout).unwrap();
            let id = order.order.id.to_string();
            // Nobody listens there. A capture ends by that; an image is tried for for minutes, unless that is cancelled.
            if n == 2 {
                machine.wait_for("trying on", SOON).unwrap();
                site.ask(["cancel", id.as_str()]).unwrap();
            }
            site.wait_order(&id, "its end", WORK, |view| !view.order.state.is_open()).unwrap();
        }
    }
    ssh.run(&format!("echo '<3>speediso-test: password={} and more' >/dev/kmsg", CANARIES[5]), SOON).unwrap();
    ssh.run("echo '<3>speediso-test: the last line' >/dev/kmsg", SOON).unwrap();

    let end = Instant::now() + SOON;
    let whole = |args: &[&str]| site.ask(args.iter().copied()).unwrap().stdout;
    while !whole(&["logs", "logs", "--kernel"]).contains("the last line") {
        assert!(Instant::now() < end, "{}", whole(&["logs", "logs", "--kernel"]));
        std::thread::sleep(std::time::Duration::from_millis(500));
    }
    let log = whole(&["logs", "logs", "--kernel"]);
    for part in
        ["Speediso build", "enrolled as logs", "kernel: Linux version", "speediso.token=(secret)", "password=(secret)"]
    {
        assert!(log.contains(part), "{part} is not in the log:\n{log}");
    }
    while !std::fs::read_to_string(&received).unwrap_or_default().contains("the last line") {
        assert!(Instant::now() < end, "syslog does not end");
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
    let text = std::fs::read_to_string(&received).unwrap();
    assert!(text.contains("[speediso@32473 serial=\"LOGS\"") && text.contains("<3>1 "), "{text}");

    let bundle = lab.dir().join("bundle.tar.zst");
    let made = site.ask(["logs", "logs", "--bundle", bundle.to_str().unwrap()]).unwrap();
    assert!(made.status.success(), "{}", made.stderr);
    let unpacked = lab.logs().join("bundle");
    std::fs::create_dir_all(&unpacked).unwrap();
    tool::run(Command::new("tar").arg("--zstd").arg("-xf").arg(&bundle).arg("-C").arg(&unpacked)).unwrap();
    std::fs::copy(&received, lab.logs().join("syslog.received")).unwrap();
    for (name, command) in [
        ("events", vec!["--json", "events"]),
        ("orders", vec!["--json", "orders"]),
        ("alerts", vec!["--json", "alerts"]),
    ] {
        std::fs::write(lab.logs().join(name), whole(&command)).unwrap();
    }
    ssh.run("cat /run/speediso/agent.log", SOON)
        .map(|log| std::fs::write(lab.logs().join("agent.log"), log))
        .unwrap()
        .unwrap();
    pages(&site, lab.dir(), lab.logs());
    for name in ["network-doctor.json", "lldp.json", "dhcp.json"] {
        let text = ssh.run(&format!("cat /run/speediso/{name} 2>/dev/null || true"), SOON).unwrap();
        std::fs::write(lab.logs().join(name), text).unwrap();
    }
    let files = is_clean(lab.logs(), &secrets);
    assert!(files > 12, "{files} files were looked at");
    let orders = std::fs::read_to_string(lab.logs().join("bundle/speediso-logs/orders.json")).unwrap();
    assert!(orders.contains("capture") && orders.contains("luks"), "{orders}");
    drop(machine);
}

//! Into a machine by ssh as an operator does it: without a question, recorded, through a tunnel, and not while it works.

#![allow(clippy::unwrap_used)]

use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use speediso_lab::{Lab, Site, tool};
use speediso_model::api::List;
use speediso_model::node::NodeState;
use speediso_model::order::TaskState;
use speediso_model::ssh::SessionView;
use speediso_tests::{BOOT, LiveSsh, Ramdisk, SOON, TestDisk, boot_words, programs};

const MAC: &str = "52:54:00:12:06:01";
const UUID: &str = "66666666-6666-4666-8666-666666666666";

#[track_caller]
fn until<T>(what: &str, look: impl Fn() -> Result<T, String>) -> T {
    let end = Instant::now() + SOON;
    loop {
        match look() {
            Ok(found) => return found,
            Err(last) => assert!(Instant::now() < end, "{what}: {last}"),
        }
        std::thread::sleep(Duration::from_millis(500));
    }
}

/// The operator's command inside the laboratory's network, where the machine can be reached.
fn inside(lab: &Lab, site: &Site<'_>, args: &[&str]) -> Command {
    let mut command = lab.command(programs().unwrap().cli);
    command
        .env("SPEEDISO_CONTROLLER", format!("https://{}", Site::api()))
        .env("SPEEDISO_CA_FILE", site.ca_file())
        .env("SPEEDISO_TOKEN_FILE", site.token_file())
        // No agent, no configuration and no known hosts of whoever runs this may help.
        .env_remove("SSH_AUTH_SOCK")
        .args(args)
        .stdin(Stdio::null());
    command
}

fn said(mut command: Command) -> (i32, String, String) {
    let output = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr))
}

fn sessions(site: &Site<'_>) -> Vec<SessionView> {
    site.json::<List<SessionView>>(&["ssh-sessions", "reached"]).unwrap().items
}

/// One boot: a command and its status, a shell with a terminal and its recording, the same through a tunnel from where
/// the machine cannot be reached; then a wipe, during which the port is closed until an operator asks.
#[test]
fn operators_come_in_without_a_question_and_leave_a_recording() {
    let programs = programs().unwrap();
    let lab = Lab::builder().build().unwrap();
    let site = Site::start(&lab, &programs, 0).unwrap();
    let disk = TestDisk::with_data(&lab, "REACHDISK", 2048).unwrap();
    let _: Value = site.json(&["create", "reached", "--mac", MAC, "--serial-number", "REACHED"]).unwrap();
    let _: Value = site.json(&["arm", "reached"]).unwrap();
    // A key of the boot entry's, so that there is somebody who could come in at any time.
    let standing = LiveSsh::with_fresh_key(&lab, "standing").unwrap().public.clone();
    let words = boot_words(&lab, MAC, UUID, "REACHED").unwrap().join(" ");
    let words = format!("{words} speediso.sshkey=\"{standing}\"");
    let spec = Ramdisk::of(&programs).machine("reached", &words).memory_mib(512).mac(MAC).uuid(UUID).serial("REACHED");
    let machine = spec.disk(disk.plugged()).power_on(&lab).unwrap();
    site.wait_machine("REACHED", "manageable", BOOT, |node| node.state == NodeState::Manageable).unwrap();
    assert!(site.ask(["machine", "reached"]).unwrap().stdout.contains("ssh key   SHA256:"));

    // A command: its output, its errors and its status are those of ssh.
    let (status, out, err) = said(inside(&lab, &site, &["ssh", "reached", "--", "echo out; echo err >&2; exit 3"]));
    assert_eq!((status, out.as_str()), (3, "out\n"), "{err}");
    assert!(err.contains("err\n") && !err.contains("authenticity"), "{err}");

    // What a command shows arrives whole, however large.
    let (status, out, err) =
        said(inside(&lab, &site, &["ssh", "reached", "--", "head -c 3000000 /dev/zero | tr '\\0' x"]));
    assert_eq!((status, out.len()), (0, 3_000_000), "{err}");

    // From the host nobody reaches it: through a tunnel, with a terminal, which `script` lends.
    let mut typed = Command::new(tool::find("script").unwrap());
    let line = format!("{} ssh --tunnel reached", programs.cli.display());
    typed.args(["-qec", &line, "/dev/null"]).env_remove("SSH_AUTH_SOCK");
    for (key, value) in [
        ("SPEEDISO_CONTROLLER", site.url().into()),
        ("SPEEDISO_CA_FILE", site.ca_file().into_os_string()),
        ("SPEEDISO_TOKEN_FILE", site.token_file().into_os_string()),
    ] {
        typed.env(key, value);
    }
    let mut typed = typed.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut keys = typed.stdin.take().unwrap();
    // Programs of the session are ended by signals like anywhere; a moment later, since a shell at a terminal ignores SIGTERM and
    // what it has just forked still does.
    keys.write_all(
        b"stty -echo; tty; sleep 60 & sleep 2; kill $!; wait $!; echo ENDED-$?; echo READY-$((40 + 2)); read secret; exit 5\n",
    )
    .unwrap();
    let mut screen = typed.stdout.take().unwrap();
    let (mut shown, mut piece) = (String::new(), [0; 4096]);
    let mut is_typed = false;
    while let Ok(n @ 1..) = screen.read(&mut piece) {
        shown.push_str(&String::from_utf8_lossy(&piece[..n]));
        if !is_typed && shown.contains("READY-42") {
            keys.write_all(b"CANARY-TYPED\n").unwrap();
            is_typed = true;
        }
    }
    assert!(shown.contains("READY-42") && shown.contains("/dev/pts/") && shown.contains("is recorded"), "{shown}");
    assert!(shown.contains("ENDED-143"), "{shown}");
    assert_eq!(typed.wait().unwrap().code(), Some(5), "{shown}");

    let kept = until("three sessions with their ends", || {
        let kept = sessions(&site);
        let ended = kept.iter().filter(|s| s.session.ended_ms.is_some()).count();
        if kept.len() == 3 && ended == 3 { Ok(kept) } else { Err(format!("{kept:?}")) }
    });
    let shell = kept.iter().find(|s| s.session.command.is_none()).expect("a shell");
    assert_eq!(shell.session.status, Some(5));
    assert!(kept.iter().all(|s| s.session.key.starts_with("SHA256:")), "{kept:?}");
    assert!(kept.iter().any(|s| s.session.status == Some(3) && s.session.from == "192.0.2.1"), "{kept:?}");
    let cast = site.ask(["ssh-sessions", "reached", "--get", &shell.session.id.to_string()]).unwrap().stdout;
    let lines: Vec<Value> = cast.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines[0]["version"], 2);
    let recorded: String = lines[1..].iter().filter(|l| l[1] == "o").filter_map(|l| l[2].as_str()).collect();
    assert!(recorded.contains("READY-42") && !recorded.contains("CANARY-TYPED"), "{recorded}");
    let events = site.ask(["events", "--node", "reached"]).unwrap().stdout;
    for part in [
        "ssh to reached is open for 60 minutes, with the key SHA256:",
        "came in from",
        "a tunnel to the ssh of reached was asked for",
        "bytes there and",
    ] {
        assert!(events.contains(part), "{part}: {events}");
    }

    // At work it lets nobody in who was not asked for.
    allow(&lab, &site, 0);
    let is_open = || {
        let mut connect = lab.command("bash");
        connect.args(["-c", &format!("exec 3<>/dev/tcp/{}/22", machine.address())]).stderr(Stdio::null());
        if connect.status().unwrap().success() { Ok(()) } else { Err("nobody listens".to_owned()) }
    };
    until("the port is open while there is nothing to do", is_open);
    let parameters = json!({ "devices": { "hints": [{ "serial": "REACHDISK" }] }, "level": "clear" });
    let order = site.apply("wipe", "reached", &parameters).unwrap().order.id.to_string();
    site.wait_order(&order, "running", SOON, |view| {
        view.order.tasks.iter().any(|task| matches!(task.state, TaskState::Running { .. }))
    })
    .unwrap();
    until("the port is closed during a task", || is_open().map_or(Ok(()), |()| Err("it is open".to_owned())));
    let (status, out, err) = said(inside(&lab, &site, &["ssh", "reached", "--", "echo at work"]));
    assert_eq!((status, out.as_str()), (0, "at work\n"), "{err}");
    let _: Value = site.json(&["cancel", &order]).unwrap();
}

/// Ends or gives access by the API itself, as a script does.
fn allow(lab: &Lab, site: &Site<'_>, minutes: u32) -> String {
    let node = site.machines().unwrap().remove(0).id;
    let api: SocketAddr = Site::api();
    let token = std::fs::read_to_string(site.token_file()).unwrap();
    let url = format!("https://{api}/v1/nodes/{node}/ssh");
    let mut curl = lab.command("curl");
    curl.args(["-sSf", "--max-time", "40", "--cacert"]).arg(site.ca_file());
    curl.args(["-H", &format!("Authorization: Bearer {}", token.trim()), "-H", "Content-Type: application/json"]);
    tool::run(curl.args(["-d", &json!({ "minutes": minutes }).to_string(), &url])).unwrap()
}

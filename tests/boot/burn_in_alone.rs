//! Burn-in from the kernel command line: no controller, no permission, no disk touched; and an agent that dies in it.

#![allow(clippy::unwrap_used)]

use speediso_lab::Lab;
use speediso_tests::{BOOT, LiveSsh, Ramdisk, TestDisk, WORK, programs};

/// One boot with two processors and two nodes' worth of little memory: the quick scenario begins by itself; its agent is
/// killed in the middle, is restarted, goes on, and comes to a verdict. The reserve is kept, the disk is as it was.
#[test]
fn a_machine_burns_in_by_its_command_line_and_survives_its_agent() {
    let lab = Lab::builder().build().unwrap();
    let disk = TestDisk::with_data(&lab, "BURN", 64).unwrap();
    let mut ssh = LiveSsh::with_fresh_key(&lab, "burn").unwrap();
    let words = format!("SPEEDISO=burnin speediso.ssh=on speediso.sshkey=\"{}\"", ssh.public);
    let ramdisk = Ramdisk::of(&programs().unwrap());
    let mut machine =
        ramdisk.machine("burn", &words).memory_mib(512).cpus(2).disk(disk.plugged()).power_on(&lab).unwrap();
    ssh.to(&lab, &machine).unwrap();

    // The processors are done and memory is under test: what dies now is begun again, what is done is not.
    machine.wait_for("memory ...", BOOT + WORK).unwrap();
    let mark = machine.serial().mark();
    let kill = "for p in $(pidof speediso-agent); do grep -q boot /proc/$p/cmdline && kill -9 $p; done; true";
    ssh.run(kill, BOOT).unwrap();
    machine.wait_for_after(mark, "1 of 3 groups of steps are done", BOOT).unwrap();
    machine.wait_for_after(mark, "memory ...", BOOT).unwrap();
    let status = ssh.run("grep MemAvailable /proc/meminfo", BOOT).unwrap();
    let available: u64 = status.split_whitespace().nth(1).unwrap().parse().unwrap();
    machine.wait_for_after(mark, "verified: cpu for ", WORK).unwrap();
    assert!(available > 40 * 1024, "the reserve is gone: {status}");

    let report = ssh.run("tail -1 /run/speediso/journal.jsonl", BOOT).unwrap();
    let ended: serde_json::Value = serde_json::from_str(report.trim()).unwrap();
    let report = &ended["result"]["output"];
    assert_eq!((&report["verdict"], &report["restarts"]), (&"passed".into(), &1.into()), "{report}");
    let measured = |step: usize, name: &str| -> f64 {
        let all = report["steps"][step]["measurements"].as_array().unwrap();
        all.iter().filter(|m| m["name"] == name).map(|m| m["value"].as_f64().unwrap()).sum()
    };
    assert!(measured(0, "cpu.rate") > 0.0);
    assert!(measured(1, "memory.tested") > 100.0 * 1024.0 * 1024.0, "{report}");
    assert!(measured(1, "memory.sweeps") >= 1.0, "{report}");
    let console = machine.serial().text();
    assert!(!console.contains("Out of memory") && !console.contains("oom-kill"), "{console}");
    drop(machine);
    disk.assert_untouched().unwrap();
}

//! A DHCP server that belongs to somebody else: on the same network, at another address, knowing nothing of booting.

use std::process::Command;
use std::time::Duration;

use crate::error::Result;
use crate::lab::Lab;
use crate::namespace::BRIDGE;
use crate::process::Process;
use crate::tool;

/// Its end of the cable.
const INSIDE: &str = "neighbour1";

impl Lab {
    /// Starts one that gives out 192.0.2.50 to 192.0.2.60. Its network namespace is its process's own and ends with it.
    pub fn other_dhcp_server(&self) -> Result<Process> {
        let script = format!(
            "until ip link show {INSIDE} >/dev/null 2>&1; do sleep 0.1; done\n\
             ip addr add 192.0.2.2/24 dev {INSIDE} && ip link set {INSIDE} up && exec \"$0\" --keep-in-foreground \
             --log-facility=- --user=root --pid-file= --conf-file=/dev/null --port=0 --interface={INSIDE} --bind-interfaces \
             --leasefile-ro --log-dhcp --dhcp-range=192.0.2.50,192.0.2.60,255.255.255.0,1h"
        );
        let mut command = self.command("unshare");
        command.args(["-n", "sh", "-c", &script]).arg(tool::find("dnsmasq")?);
        let mut process = self.spawn("other-dhcp", command)?;
        let pid = process.pid().to_string();
        let ip = |args: &[&str]| tool::run(Command::new("ip").args(["-n", self.name()]).args(args)).map(drop);
        // `ip netns exec` and `unshare` become the shell under the same number; until then it is in our own namespace.
        let mine = format!("/proc/{pid}/ns/net");
        let ours = std::fs::read_link("/proc/self/ns/net").ok();
        let lab = tool::run(self.command("readlink").arg("/proc/self/ns/net"))?;
        for _ in 0..200 {
            let now = std::fs::read_link(&mine).ok();
            if now.is_some() && now != ours && now.as_ref().is_some_and(|now| now.to_string_lossy() != lab.trim()) {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        ip(&["link", "add", "neighbour0", "type", "veth", "peer", "name", INSIDE, "netns", &pid])?;
        ip(&["link", "set", "neighbour0", "master", BRIDGE, "up"])?;
        process.wait_for("started", Duration::from_secs(20))?;
        Ok(process)
    }
}

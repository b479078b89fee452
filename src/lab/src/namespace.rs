//! A network namespace with one bridge: the only network that the laboratory's machines can see. Nothing routes out.

use std::fs::File;
use std::net::Ipv4Addr;
use std::process::Command;
use std::thread::JoinHandle;

use nix::sched::{CloneFlags, setns};

use crate::error::{Doing, LabError, Result};
use crate::{record, signals, tool};

/// The bridge's address; DHCP, TFTP and the controller are here. 192.0.2.0/24 is set aside for documentation.
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
pub(crate) const BRIDGE: &str = "br0";

#[derive(Clone, Debug)]
pub struct Namespace {
    name: String,
}

impl Namespace {
    pub(crate) fn create(name: &str) -> Result<Self> {
        tool::find("ip")?;
        let _making = signals::making();
        let namespace = Self { name: name.to_owned() };
        tool::run(Command::new("ip").args(["netns", "add", name]))?;
        namespace.ip(&["link", "set", "lo", "up"])?;
        // No spanning tree and no forward delay: a fresh port would swallow the first half minute of DHCP.
        namespace.ip(&["link", "add", BRIDGE, "type", "bridge", "stp_state", "0", "forward_delay", "0"])?;
        namespace.ip(&["addr", "add", &format!("{GATEWAY}/24"), "dev", BRIDGE])?;
        namespace.ip(&["link", "set", BRIDGE, "up"])?;
        Ok(namespace)
    }

    /// The namespace of a laboratory that runs already.
    pub fn existing(name: &str) -> Self {
        Self { name: name.to_owned() }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// A command that will run inside.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]).arg(program);
        command
    }

    /// Adds a tap device on the bridge, for one machine's NIC.
    pub(crate) fn add_tap(&self, tap: &str) -> Result<()> {
        self.ip(&["tuntap", "add", tap, "mode", "tap"])?;
        self.ip(&["link", "set", tap, "master", BRIDGE, "up"])
    }

    /// Pulls or plugs the cable at the switch's end.
    pub(crate) fn set_link(&self, tap: &str, up: bool) -> Result<()> {
        self.ip(&["link", "set", tap, if up { "up" } else { "down" }])
    }

    fn ip(&self, args: &[&str]) -> Result<()> {
        tool::run(Command::new("ip").args(["-n", &self.name]).args(args)).map(drop)
    }

    /// Runs `work` on a thread of its own that has entered the namespace; sockets made there belong to it for good.
    pub fn spawn<T: Send + 'static>(&self, work: impl FnOnce() -> Result<T> + Send + 'static) -> JoinHandle<Result<T>> {
        let namespace = self.clone();
        std::thread::spawn(move || {
            namespace.enter()?;
            work()
        })
    }

    /// Moves the calling thread, and it alone, into the namespace.
    fn enter(&self) -> Result<()> {
        let path = format!("/run/netns/{}", self.name);
        let file = File::open(&path).doing(|| format!("opening {path}"))?;
        setns(file, CloneFlags::CLONE_NEWNET).map_err(|source| LabError::Enter { namespace: self.name.clone(), source })
    }

    pub(crate) fn remove(&self) {
        record::remove_namespace(&self.name);
    }
}

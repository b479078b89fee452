//! A site in the laboratory: the controller inside the namespace, and the command line on the host as an operator has
//! it. Everything an operator does here goes through `speediso`, so that what is shown and tested is what people use.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;
use serde_json::Value;
use speediso_model::api::{List, NodeView, OrderView};
use speediso_model::order::Order;

use crate::error::{Doing, LabError, Result};
use crate::forward::Forward;
use crate::lab::Lab;
use crate::namespace::GATEWAY;
use crate::process::Process;
use crate::programs::Programs;
use crate::tool::line_of;

const API_PORT: u16 = 8443;
const BOOT_PORT: u16 = 8080;
/// Making keys and a database takes a second or two on a busy machine.
const READY_LIMIT: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(300);

#[derive(Debug)]
pub struct Site<'lab> {
    lab: &'lab Lab,
    programs: Programs,
    name: String,
    data: PathBuf,
    controller: Option<Process>,
    forward: Forward,
    boot_url: Option<String>,
    ssh: Option<&'static str>,
    starts: u32,
}

/// What a command of `speediso` ended with.
#[derive(Clone, Debug)]
pub struct Answered {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

impl<'lab> Site<'lab> {
    /// Starts a controller with an empty store and waits until it says that it is ready. `port` is that of 127.0.0.1
    /// on the host under which API and dashboard can be reached; 0 lets the kernel choose.
    pub fn start(lab: &'lab Lab, programs: &Programs, port: u16) -> Result<Self> {
        let mut site = Self::prepare(lab, programs, port)?;
        site.start_controller()?;
        Ok(site)
    }

    /// Everything but the controller itself, which `start_controller` starts later.
    pub fn prepare(lab: &'lab Lab, programs: &Programs, port: u16) -> Result<Self> {
        Ok(Self {
            lab,
            programs: programs.clone(),
            name: "controller".to_owned(),
            data: lab.dir().join("controller"),
            controller: None,
            forward: lab.forward(port, Self::api())?,
            boot_url: None,
            ssh: None,
            starts: 0,
        })
    }

    /// The controller's boot scripts name this address instead of its own: that of a web server in front of it.
    pub fn behind(&mut self, boot_url: &str) {
        self.boot_url = Some(boot_url.to_owned());
    }

    /// Who gets in by ssh, and when: the controller's `--ssh`.
    pub fn let_in(&mut self, policy: &'static str) {
        self.ssh = Some(policy);
    }

    /// The controller's plain listener.
    pub fn boot_listener() -> String {
        format!("http://{GATEWAY}:{BOOT_PORT}")
    }

    /// Another site with a CA of its own, whose controller takes the same address: one at a time can be started.
    pub fn prepare_elsewhere(lab: &'lab Lab, programs: &Programs, name: &str) -> Result<Self> {
        let site = Self::prepare(lab, programs, 0)?;
        Ok(Self { name: name.to_owned(), data: lab.dir().join(name), ..site })
    }

    /// The API's address inside the namespace.
    pub fn api() -> SocketAddr {
        SocketAddr::from((GATEWAY, API_PORT))
    }

    /// The API's and dashboard's URL on the host.
    pub fn url(&self) -> String {
        format!("https://{}", self.forward.local())
    }

    /// The port of 127.0.0.1 that leads to the API.
    pub fn port(&self) -> u16 {
        self.forward.local().port()
    }

    pub fn ca_file(&self) -> PathBuf {
        self.data.join("ca.pem")
    }

    pub fn token_file(&self) -> PathBuf {
        self.data.join("operator.token")
    }

    /// Starts the controller, the first time or again on the same data.
    pub fn start_controller(&mut self) -> Result<()> {
        let mut command = self.lab.command(&self.programs.controller);
        command
            .arg("serve")
            .arg("--data")
            .arg(&self.data)
            .args(["--listen", &Self::api().to_string()])
            .args(["--boot-listen", &format!("{GATEWAY}:{BOOT_PORT}")])
            .args(["--url", &format!("https://{}", Self::api())])
            .arg("--boot-files")
            .arg(&self.programs.boot_files);
        if let Some(url) = &self.boot_url {
            command.args(["--boot-url", url]);
        }
        if let Some(policy) = self.ssh {
            command.args(["--ssh", policy]);
        }
        self.starts += 1;
        // A log for each start, so that waiting for "ready" never sees an earlier one.
        let mut process = self.lab.spawn(&format!("{}-{}", self.name, self.starts), command)?;
        process.wait_for("speediso-controller ready", READY_LIMIT)?;
        self.controller = Some(process);
        Ok(())
    }

    /// Ends the controller as a crash would.
    pub fn kill_controller(&mut self) {
        if let Some(mut process) = self.controller.take() {
            process.kill();
        }
    }

    pub fn controller(&mut self) -> Option<&mut Process> {
        self.controller.as_mut()
    }

    /// A command of `speediso`, told by its environment where the controller is and whom to trust.
    pub fn cli<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> Command {
        let mut command = Command::new(&self.programs.cli);
        command
            .env("SPEEDISO_CONTROLLER", self.url())
            .env("SPEEDISO_CA_FILE", self.ca_file())
            .env("SPEEDISO_TOKEN_FILE", self.token_file())
            .args(args);
        command
    }

    /// Runs a command to its end, whatever that is.
    pub fn ask<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> Result<Answered> {
        let mut command = self.cli(args);
        let output = command.output().doing(|| format!("starting `{}`", line_of(&command)))?;
        Ok(Answered {
            status: output.status,
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    /// Runs a command that is to succeed, and reads what it prints under `--json`.
    pub fn json<T: DeserializeOwned>(&self, args: &[&str]) -> Result<T> {
        let args: Vec<&str> = std::iter::once("--json").chain(args.iter().copied()).collect();
        let command = format!("speediso {}", args.join(" "));
        let answered = self.ask(args)?;
        if !answered.status.success() {
            let output = format!("{}{}", answered.stdout, answered.stderr);
            return Err(LabError::Tool { command, status: answered.status, output });
        }
        serde_json::from_str(&answered.stdout).map_err(|error| LabError::Answer {
            command,
            why: error.to_string(),
            answer: answered.stdout,
        })
    }

    pub fn machines(&self) -> Result<Vec<NodeView>> {
        self.json::<List<NodeView>>(&["machines"]).map(|list| list.items)
    }

    pub fn orders(&self) -> Result<Vec<Order>> {
        self.json::<List<Order>>(&["orders"]).map(|list| list.items)
    }

    /// Puts an image into the store; gives the part of an order that names it.
    pub fn add_image(&self, file: &Path) -> Result<Value> {
        self.json(&["image", "add", &file.to_string_lossy()])
    }

    /// Gives an order for a profile with these parameters and does not wait for it.
    pub fn apply(&self, profile: &str, machine: &str, parameters: &Value) -> Result<OrderView> {
        let file = self.params(parameters)?;
        self.json(&["apply", profile, machine, "--params", &file.to_string_lossy()])
    }

    /// Writes an order's parameters where `--params` can read them.
    pub fn params(&self, parameters: &Value) -> Result<PathBuf> {
        let file = self.lab.dir().join("parameters.json");
        std::fs::write(&file, parameters.to_string()).doing(|| format!("writing {}", file.display()))?;
        Ok(file)
    }

    /// Waits until the machine with this serial number is as it should be.
    pub fn wait_machine(
        &self,
        serial: &str,
        what: &str,
        limit: Duration,
        is: impl Fn(&NodeView) -> bool,
    ) -> Result<NodeView> {
        self.wait(&format!("machine {serial}: {what}"), limit, || {
            let found = self.machines()?.into_iter().find(|node| node.system.serial_number == serial);
            Ok(match found {
                Some(node) if is(&node) => Ok(node),
                Some(node) => Err(format!(
                    "state {}, {}, reason {}",
                    node.state.name(),
                    if node.online { "online" } else { "offline" },
                    node.reason.as_deref().unwrap_or("none given")
                )),
                None => Err("the controller does not know such a machine".to_owned()),
            })
        })
    }

    /// Waits until the order is as it should be.
    pub fn wait_order(
        &self,
        order: &str,
        what: &str,
        limit: Duration,
        is: impl Fn(&OrderView) -> bool,
    ) -> Result<OrderView> {
        self.wait(&format!("order {order}: {what}"), limit, || {
            let view: OrderView = self.json(&["order", order])?;
            Ok(if is(&view) { Ok(view) } else { Err(format!("{:#?}", view.order.tasks)) })
        })
    }

    /// Asks again until the answer is there. The outer error ends the waiting, the inner one says how things stand.
    fn wait<T>(
        &self,
        what: &str,
        limit: Duration,
        mut look: impl FnMut() -> Result<std::result::Result<T, String>>,
    ) -> Result<T> {
        let end = Instant::now() + limit;
        loop {
            match look()? {
                Ok(found) => return Ok(found),
                Err(last) if Instant::now() >= end => {
                    self.lab.keep_logs();
                    return Err(LabError::NotReached { what: what.to_owned(), limit, last });
                }
                Err(_) => std::thread::sleep(POLL),
            }
        }
    }
}

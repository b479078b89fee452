//! A machine with its power on.

use std::fs;
use std::io::{Read, Write};
use std::net::Ipv4Addr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::args::{self, Places};
use super::qmp;
use super::spec::{Firmware, MachineSpec, Processor};
use crate::error::{Doing, Result};
use crate::lab::{Lab, Plug};
use crate::log::{Found, Log};
use crate::process::Process;
use crate::tool;

/// A running QEMU machine. Dropping it pulls the plug.
#[derive(Debug)]
pub struct Machine<'lab> {
    lab: &'lab Lab,
    name: String,
    plug: Plug,
    process: Process,
    serial: Log,
    serial_socket: PathBuf,
    qmp_socket: PathBuf,
}

impl<'lab> Machine<'lab> {
    pub(super) fn power_on(lab: &'lab Lab, spec: &MachineSpec) -> Result<Self> {
        let plug = lab.plug(spec.mac.as_deref())?;
        Self::power_on_plugged(lab, spec, plug)
    }

    fn power_on_plugged(lab: &'lab Lab, spec: &MachineSpec, plug: Plug) -> Result<Self> {
        let dir = lab.dir().join(&spec.name);
        fs::create_dir_all(&dir).doing(|| format!("making {}", dir.display()))?;
        let serial = lab.log(&format!("{}.serial", spec.name));
        let firmware = firmware(spec, &dir)?;
        let (serial_socket, qmp_socket) = (dir.join("serial.sock"), dir.join("qmp.sock"));
        let places = Places {
            serial_log: serial.path(),
            serial_socket: &serial_socket,
            qmp_socket: &qmp_socket,
            firmware_code: firmware.as_ref().map(|(code, _)| code.as_path()),
            firmware_vars: firmware.as_ref().map(|(_, vars)| vars.as_path()),
        };
        let mut command = lab.command(tool::find(spec.processor.qemu())?);
        command.args(args::build(spec, &plug, &places)?);
        let process = lab.spawn(&format!("{}.qemu", spec.name), command)?;
        Ok(Self { lab, name: spec.name.clone(), plug, process, serial, serial_socket, qmp_socket })
    }

    /// Powers a machine on again after it has ended: same name, cable, disks, firmware variables and console log.
    pub fn power_on_again(self, spec: &MachineSpec) -> Result<Self> {
        let Self { lab, plug, mut process, .. } = self;
        process.stop();
        Self::power_on_plugged(lab, spec, plug)
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn mac(&self) -> &str {
        &self.plug.mac
    }

    /// The address that the laboratory's DHCP server has for this machine.
    pub fn address(&self) -> Ipv4Addr {
        self.plug.address
    }

    /// The serial console since power on, over all reboots.
    pub fn serial(&self) -> &Log {
        &self.serial
    }

    /// A Unix socket that is the serial console.
    pub fn console(&self) -> &Path {
        &self.serial_socket
    }

    /// Waits for a line on the serial console, from power on.
    pub fn wait_for(&mut self, what: &str, limit: Duration) -> Result<Found> {
        self.wait_for_after(0, what, limit)
    }

    /// Waits for a line behind a mark: `serial().mark()`, or where an earlier line ended.
    pub fn wait_for_after(&mut self, mark: usize, what: &str, limit: Duration) -> Result<Found> {
        let Self { serial, process, name, .. } = self;
        serial.wait_for(&format!("machine {name}"), mark, what, limit, || process.ended())
    }

    /// Waits until QEMU ends by itself: the machine powered off, or rebooted where that ends it.
    pub fn wait_exit(&mut self, limit: Duration) -> Result<ExitStatus> {
        self.process.wait_exit(limit)
    }

    pub fn is_on(&mut self) -> bool {
        self.process.ended().is_none()
    }

    /// Types a line on the serial console.
    pub fn type_line(&self, line: &str) -> Result<()> {
        self.type_bytes(format!("{line}\r").as_bytes())
    }

    fn type_bytes(&self, bytes: &[u8]) -> Result<()> {
        let doing = || format!("typing at the console of machine {}", self.name);
        let mut console = UnixStream::connect(&self.serial_socket).doing(doing)?;
        console.write_all(bytes).doing(doing)?;
        // QEMU drops what the guest has not taken when the peer leaves, and holds the guest up when the peer stays and
        // does not read: so read the echo until it is quiet. The log has it all anyway.
        console.set_read_timeout(Some(Duration::from_millis(500))).doing(doing)?;
        let end = Instant::now() + Duration::from_secs(3);
        let mut echo = [0; 4096];
        while Instant::now() < end && console.read(&mut echo).is_ok_and(|n| n > 0) {}
        Ok(())
    }

    /// Types on the serial console without ending the line; what comes back is in the log.
    pub fn type_keys(&self, keys: &[u8]) -> Result<()> {
        self.type_bytes(keys)
    }

    /// Presses keys of the machine's own keyboard, by QEMU's names for them, one after the other.
    pub fn press_keys(&self, names: &[&str]) -> Result<()> {
        for name in names {
            self.qmp("send-key", &json!({ "keys": [{ "type": "qcode", "data": name }] }))?;
        }
        Ok(())
    }

    /// What the screen shows, as a picture: PPM, or PNG if the file is called so.
    pub fn screenshot(&self, file: &Path) -> Result<()> {
        let format = if file.extension().is_some_and(|e| e == "png") { "png" } else { "ppm" };
        self.qmp("screendump", &json!({ "filename": file, "format": format })).map(drop)
    }

    /// The reset button.
    pub fn reset(&self) -> Result<()> {
        self.qmp("system_reset", &json!({})).map(drop)
    }

    /// The power button: the operating system is asked.
    pub fn press_power(&self) -> Result<()> {
        self.qmp("system_powerdown", &json!({})).map(drop)
    }

    /// Freezes the processors, or lets them go on.
    pub fn pause(&self, paused: bool) -> Result<()> {
        self.qmp(if paused { "stop" } else { "cont" }, &json!({})).map(drop)
    }

    /// Asks for the `n`th disk to be pulled out.
    pub fn unplug_disk(&self, n: usize) -> Result<()> {
        self.qmp("device_del", &json!({ "id": format!("disk{n}") })).map(drop)
    }

    /// Pulls or plugs the network cable at the switch's end.
    pub fn set_link(&self, up: bool) -> Result<()> {
        self.lab.namespace().set_link(&self.plug.tap, up)
    }

    /// Any other command of QEMU's monitor.
    pub fn qmp(&self, command: &str, arguments: &Value) -> Result<Value> {
        qmp::execute(&self.qmp_socket, &self.name, command, arguments)
    }

    /// Pulls the plug.
    pub fn pull_plug(&mut self) {
        self.process.kill();
    }

    pub fn pid(&self) -> i32 {
        self.process.pid()
    }
}

/// Firmware code and the machine's own copy of its variables. SeaBIOS needs none: QEMU brings it.
fn firmware(spec: &MachineSpec, dir: &Path) -> Result<Option<(PathBuf, PathBuf)>> {
    let (code, fresh) = match spec.firmware {
        _ if spec.processor == Processor::Aarch64 => {
            ("/usr/share/AAVMF/AAVMF_CODE.fd", "/usr/share/AAVMF/AAVMF_VARS.fd")
        }
        Firmware::Bios => return Ok(None),
        Firmware::Uefi => ("/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"),
        Firmware::SecureBoot => ("/usr/share/OVMF/OVMF_CODE_4M.secboot.fd", "/usr/share/OVMF/OVMF_VARS_4M.snakeoil.fd"),
    };
    let code = tool::file(code)?.to_owned();
    let vars = dir.join("efi-vars.fd");
    if !vars.exists() {
        let fresh = tool::file(fresh)?;
        fs::copy(fresh, &vars).doing(|| format!("copying {} to {}", fresh.display(), vars.display()))?;
    }
    Ok(Some((code, vars)))
}

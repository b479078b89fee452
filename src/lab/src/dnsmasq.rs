//! DHCP and TFTP for the laboratory: the shipped `dnsmasq.conf.in`, rendered and run inside the namespace.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::error::{Doing, Result};
use crate::namespace::{BRIDGE, GATEWAY, Namespace};
use crate::process::Process;
use crate::record::Record;
use crate::tool;

const TEMPLATE: &str = include_str!("../dnsmasq.conf.in");
/// The script's name on the TFTP server, when the laboratory serves it itself.
const SCRIPT: &str = "boot.ipxe";

/// What iPXE is sent to once it runs.
#[derive(Clone, Debug)]
pub enum Chain {
    /// A boot script somewhere on HTTP: the controller's.
    Url(String),
    /// A script that the laboratory serves over TFTP, for machines without a controller.
    Script(String),
}

impl Default for Chain {
    fn default() -> Self {
        Self::Url(format!("http://{GATEWAY}:8080/boot/ipxe"))
    }
}

/// Whether the DHCP server answers, and what it says beside the truth.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Dhcp {
    /// Nobody answers. TFTP goes on.
    Silent,
    /// Answers; further lines of dnsmasq configuration may hand out what a rogue server would.
    Answers { extra: Vec<String> },
}

impl Default for Dhcp {
    fn default() -> Self {
        Self::Answers { extra: Vec::new() }
    }
}

#[derive(Debug)]
pub(crate) struct Dnsmasq {
    dir: PathBuf,
    process: Option<Process>,
    chain: Chain,
    hosts: String,
}

impl Dnsmasq {
    pub(crate) fn start(namespace: &Namespace, record: &Record, chain: Chain, dhcp: &Dhcp) -> Result<Self> {
        tool::find("dnsmasq")?;
        let dir = record.dir.join("dnsmasq");
        let tftp = dir.join("tftp");
        fs::create_dir_all(&tftp).doing(|| format!("making {}", tftp.display()))?;
        for loader in ["/usr/lib/ipxe/undionly.kpxe", "/usr/lib/ipxe/snponly.efi"] {
            let from = tool::file(loader)?;
            let to = tftp.join(from.file_name().expect("both paths above end in a file name"));
            fs::copy(from, &to).doing(|| format!("copying {loader} to {}", to.display()))?;
        }
        let mut server = Self { dir, process: None, chain, hosts: String::new() };
        server.restart(namespace, record, dhcp)?;
        Ok(server)
    }

    /// Runs with other answers from now on.
    pub(crate) fn restart(&mut self, namespace: &Namespace, record: &Record, dhcp: &Dhcp) -> Result<()> {
        if let Some(mut process) = self.process.take() {
            process.stop();
        }
        let chain = match &self.chain {
            Chain::Url(url) => url.clone(),
            Chain::Script(text) => {
                write(&self.dir.join("tftp").join(SCRIPT), text)?;
                SCRIPT.to_owned()
            }
        };
        let config = self.dir.join("dnsmasq.conf");
        write(&config, &render(&self.dir, &chain, dhcp))?;
        self.write_hosts()?;
        let mut command = namespace.command(tool::find("dnsmasq")?);
        // In the foreground, as root (it cannot change users in every container), with its log on standard error.
        command.args(["--keep-in-foreground", "--log-facility=-", "--user=root", "--pid-file="]);
        command.arg(format!("--conf-file={}", config.display()));
        let mut process = record.spawn("dnsmasq", command)?;
        process.wait_for("started", Duration::from_secs(20))?;
        self.process = Some(process);
        Ok(())
    }

    /// Gives the machine with this MAC the same address at every boot.
    pub(crate) fn add_host(&mut self, mac: &str, address: Ipv4Addr) -> Result<()> {
        self.hosts.push_str(&format!("{mac},id:*,{address}\n"));
        self.write_hosts()?;
        if let Some(process) = &mut self.process {
            process.signal(Signal::SIGHUP);
        }
        Ok(())
    }

    pub(crate) fn leave_running(&mut self) {
        if let Some(process) = &mut self.process {
            process.leave_running();
        }
    }

    fn write_hosts(&self) -> Result<()> {
        write(&self.dir.join("hosts"), &self.hosts)
    }
}

fn render(dir: &Path, chain: &str, dhcp: &Dhcp) -> String {
    let (range, extra) = match dhcp {
        // Without a range dnsmasq does not open the DHCP port at all.
        Dhcp::Silent => ("# no dhcp-range: DHCP stays silent".to_owned(), String::new()),
        Dhcp::Answers { extra } => ("dhcp-range=192.0.2.100,192.0.2.199,255.255.255.0,1h".to_owned(), extra.join("\n")),
    };
    TEMPLATE
        .replace("@INTERFACE@", BRIDGE)
        .replace("@NETWORK@", "192.0.2.0")
        .replace("@DHCP_RANGE@", &range)
        .replace("@HOSTS_FILE@", &dir.join("hosts").display().to_string())
        .replace("@TFTP_ROOT@", &dir.join("tftp").display().to_string())
        .replace("@CHAIN@", chain)
        // The discard port: nothing listens.
        .replace("@HTTP_LOADER@", &format!("http://{GATEWAY}:9/"))
        .replace("@EXTRA@", &extra)
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).doing(|| format!("writing {}", path.display()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::process::Command;

    #[test]
    fn every_placeholder_is_filled_and_dnsmasq_accepts_the_result() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("tftp")).unwrap();
        for dhcp in [Dhcp::Silent, Dhcp::default(), Dhcp::Answers { extra: vec!["dhcp-option=42,192.0.2.9".into()] }] {
            let text = render(dir.path(), "http://192.0.2.1:8080/boot/ipxe", &dhcp);
            assert!(!text.lines().filter(|line| !line.starts_with('#')).any(|line| line.contains('@')), "{text}");
            let config = dir.path().join("dnsmasq.conf");
            write(&config, &text).unwrap();
            tool::run(
                Command::new(tool::find("dnsmasq").unwrap())
                    .arg("--test")
                    .arg(format!("--conf-file={}", config.display())),
            )
            .unwrap();
        }
    }
}

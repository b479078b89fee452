//! DHCP and TFTP for the laboratory: the configurations that small sites get, rendered and run inside the namespace.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;
use speediso_model::small_site::{self, Addresses};

use crate::error::{Doing, Result};
use crate::namespace::{BRIDGE, GATEWAY, Namespace};
use crate::process::Process;
use crate::record::Record;
use crate::tool;

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
    /// Gives no addresses, since another server does ([`crate::Lab::other_dhcp_server`]), and says what to boot.
    Proxy,
}

/// What firmware is handed first, where that is not iPXE.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Loader {
    /// PXELINUX for BIOS machines: with a prefix (a URL) from there, without over TFTP.
    Pxelinux { prefix: Option<String> },
    /// GRUB for UEFI machines, which asks the controller at this URL.
    Grub { boot_url: String },
    /// UEFI machines fetch this over HTTP themselves.
    Http { url: String },
}

impl Loader {
    /// Files for the TFTP root: where the distribution has them, and what firmware calls them.
    fn files(&self) -> Vec<(&'static str, &'static str)> {
        match self {
            Self::Pxelinux { .. } => vec![
                ("/usr/lib/PXELINUX/lpxelinux.0", "lpxelinux.0"),
                ("/usr/lib/PXELINUX/pxelinux.0", "pxelinux.0"),
                ("/usr/lib/syslinux/modules/bios/ldlinux.c32", "ldlinux.c32"),
            ],
            Self::Grub { .. } | Self::Http { .. } => Vec::new(),
        }
    }
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
    loaders: Vec<Loader>,
    hosts: String,
}

impl Dnsmasq {
    pub(crate) fn start(
        namespace: &Namespace,
        record: &Record,
        chain: Chain,
        loaders: Vec<Loader>,
        dhcp: &Dhcp,
    ) -> Result<Self> {
        tool::find("dnsmasq")?;
        let dir = record.dir.join("dnsmasq");
        let tftp = tftp_root(record);
        fs::create_dir_all(tftp.join("grub")).doing(|| format!("making {}", tftp.display()))?;
        let ipxe = [("/usr/lib/ipxe/undionly.kpxe", "undionly.kpxe"), ("/usr/lib/ipxe/snponly.efi", "snponly.efi")];
        for (file, name) in ipxe.into_iter().chain(loaders.iter().flat_map(Loader::files)) {
            let to = tftp.join(name);
            fs::copy(tool::file(file)?, &to).doing(|| format!("copying {file} to {}", to.display()))?;
        }
        for loader in &loaders {
            if let Loader::Grub { boot_url } = loader {
                write(&tftp.join("grub/grub.cfg"), &small_site::grub(boot_url)?)?;
                let mut image = Command::new(tool::find("grub-mkimage")?);
                image.args(small_site::GRUB_IMAGE.split(' ')).arg("-o").arg(tftp.join("grubnetx64.efi"));
                tool::run(&mut image)?;
            }
        }
        let mut server = Self { dir, process: None, chain, loaders, hosts: String::new() };
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
        write(&config, &render(&self.dir, &chain, &self.loaders, dhcp)?)?;
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

/// What the TFTP server hands out.
pub(crate) fn tftp_root(record: &Record) -> PathBuf {
    record.dir.join("dnsmasq/tftp")
}

fn render(dir: &Path, chain: &str, loaders: &[Loader], dhcp: &Dhcp) -> Result<String> {
    let (addresses, mut extra) = match dhcp {
        Dhcp::Silent => (Addresses::Silent, Vec::new()),
        Dhcp::Proxy => (Addresses::Proxy, Vec::new()),
        Dhcp::Answers { extra } => {
            let (first, last) = (Ipv4Addr::new(192, 0, 2, 100), Ipv4Addr::new(192, 0, 2, 199));
            (Addresses::Range { first, last, router: None }, extra.clone())
        }
    };
    // A name that TFTP does not have is refused at once, which sends firmware on to its next boot entry.
    let (mut bios_loader, mut uefi_loader) = ("undionly.kpxe", "snponly.efi");
    // The discard port: nothing listens.
    let mut http_loader = format!("http://{GATEWAY}:9/");
    for loader in loaders {
        match loader {
            Loader::Pxelinux { prefix } => {
                bios_loader = if prefix.is_some() { "lpxelinux.0" } else { "pxelinux.0" };
                extra.extend(small_site::pxelinux_lines(bios_loader, prefix.as_deref()));
            }
            Loader::Grub { .. } => uefi_loader = "grubnetx64.efi",
            Loader::Http { url } => {
                uefi_loader = "none";
                http_loader.clone_from(url);
            }
        }
    }
    Ok(small_site::Dnsmasq {
        interface: BRIDGE.to_owned(),
        address: GATEWAY,
        network: Ipv4Addr::new(192, 0, 2, 0),
        mask: Ipv4Addr::new(255, 255, 255, 0),
        addresses,
        hosts_file: dir.join("hosts").display().to_string(),
        tftp_root: dir.join("tftp").display().to_string(),
        bios_loader: bios_loader.to_owned(),
        uefi_loader: uefi_loader.to_owned(),
        http_loader,
        chain: chain.to_owned(),
        extra,
    }
    .render()?)
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).doing(|| format!("writing {}", path.display()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn every_placeholder_is_filled_and_dnsmasq_accepts_the_result() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("tftp")).unwrap();
        let answers = Dhcp::Answers { extra: vec!["dhcp-option=42,192.0.2.9".into()] };
        let pxelinux = Loader::Pxelinux { prefix: Some("http://192.0.2.1/boot/".into()) };
        let http = Loader::Http { url: "http://192.0.2.1/boot/speediso.efi".into() };
        let grub = Loader::Grub { boot_url: "http://192.0.2.1".into() };
        for (dhcp, loaders) in [
            (Dhcp::Silent, vec![]),
            (Dhcp::Proxy, vec![]),
            (Dhcp::default(), vec![pxelinux, grub]),
            (answers, vec![http]),
        ] {
            let text = render(dir.path(), "http://192.0.2.1:8080/boot/ipxe", &loaders, &dhcp).unwrap();
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

//! `boot-files`: what a small site puts on its boot server, from the templates that the laboratory runs on.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context as _, Result, bail, ensure};
use clap::{Args as ClapArgs, ValueEnum};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use speediso_model::small_site::{self, Addresses, Dnsmasq, Mirror, Web};

use crate::output;

#[derive(ClapArgs, Debug)]
pub(crate) struct BootFilesArgs {
    /// The boot server's interface towards the machines
    #[arg(long)]
    interface: String,
    /// Its address there, with the network's length: 192.0.2.1/24
    #[arg(long, value_name = "ADDRESS/LENGTH")]
    address: Network,
    /// Addresses to give to machines: FIRST-LAST
    #[arg(long, value_name = "FIRST-LAST", required_unless_present = "proxy", conflicts_with = "proxy")]
    range: Option<Range>,
    /// The machines' router
    #[arg(long, conflicts_with = "proxy")]
    router: Option<Ipv4Addr>,
    /// Another DHCP server gives addresses: only say what to boot
    #[arg(long)]
    proxy: bool,
    /// Boot loader for BIOS machines
    #[arg(long, value_enum, default_value = "ipxe")]
    bios: Bios,
    /// Boot loader for UEFI machines
    #[arg(long, value_enum, default_value = "ipxe")]
    uefi: Uefi,
    /// The controller's listener for boot loaders, as nginx on the boot server reaches it
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8080")]
    boot_listener: String,
    /// Boot BIOS machines over TFTP alone, into one and the same entry (needs --controller and --ca-file)
    #[arg(long)]
    tftp_only: bool,
    /// Write the configuration of a mirror of this site too: http://HOST[:PORT]
    #[arg(long, value_name = "URL")]
    mirror_of: Option<String>,
    /// Below it: tftp, builds, images
    #[arg(long, value_name = "DIR", default_value = "/srv/speediso")]
    root: String,
    /// Where to write
    #[arg(long, value_name = "DIR")]
    to: PathBuf,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Bios {
    Ipxe,
    /// Over HTTP, from the controller
    Pxelinux,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Uefi {
    Ipxe,
    Grub,
}

/// A host's address and the network it is in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Network {
    host: Ipv4Addr,
    length: u8,
}

impl Network {
    fn mask(self) -> Ipv4Addr {
        Ipv4Addr::from(u32::MAX.checked_shl(32 - u32::from(self.length)).unwrap_or(0))
    }

    fn base(self) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.host) & u32::from(self.mask()))
    }

    fn contains(self, address: Ipv4Addr) -> bool {
        u32::from(address) & u32::from(self.mask()) == u32::from(self.base())
    }
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = text.split_once('/').and_then(|(host, length)| {
            Some(Self { host: host.parse().ok()?, length: length.parse().ok().filter(|n| (8..=30).contains(n))? })
        });
        parsed.ok_or_else(|| "an address and a length from 8 to 30, like 192.0.2.1/24".to_owned())
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Range {
    first: Ipv4Addr,
    last: Ipv4Addr,
}

impl FromStr for Range {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = text
            .split_once('-')
            .and_then(|(first, last)| Some(Self { first: first.parse().ok()?, last: last.parse().ok()? }));
        parsed.filter(|r| r.first <= r.last).ok_or_else(|| "two addresses, like 192.0.2.100-192.0.2.199".to_owned())
    }
}

pub(crate) fn run(args: &BootFilesArgs, json: bool, controller: Option<&str>, ca: Option<&Path>) -> Result<()> {
    let files = files(args, controller, ca)?;
    for (name, text) in &files {
        let path = args.to.join(name);
        if let Some(dir) = path.parent() {
            std::fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
        }
        std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
    }
    let names: Vec<&str> = files.iter().map(|(name, _)| name.as_str()).collect();
    let loaders = loaders(args);
    output::print(json, &json!({ "written": names, "loaders": loaders }), |_| {
        let mut text =
            format!("written to {}: {}\nwhat they need below {}/tftp:", args.to.display(), names.join(", "), args.root);
        for loader in &loaders {
            text.push_str(&format!("\n  {loader}"));
        }
        text
    })
}

fn files(args: &BootFilesArgs, controller: Option<&str>, ca: Option<&Path>) -> Result<Vec<(String, String)>> {
    let root = args.root.trim_end_matches('/');
    let tftp = format!("{root}/tftp");
    let network = args.address;
    let web = format!("http://{}", network.host);
    for address in args.range.iter().flat_map(|range| [range.first, range.last]).chain(args.router) {
        ensure!(network.contains(address), "{address} is not in {}/{}", network.base(), network.length);
    }
    if let Some(range) = args.range {
        let own = range.first <= network.host && network.host <= range.last;
        ensure!(!own, "{} is in the range that is given to machines", network.host);
    }
    // It has to be told where its configuration is, and a proxy's answer has no room for that.
    ensure!(!(args.proxy && args.bios == Bios::Pxelinux), "PXELINUX needs a DHCP server of one's own: --range");
    let bios_loader = match args.bios {
        Bios::Ipxe => "undionly.kpxe",
        Bios::Pxelinux if args.tftp_only => "pxelinux.0",
        Bios::Pxelinux => "lpxelinux.0",
    };
    let prefix = (!args.tftp_only).then(|| format!("{web}/boot/"));
    let extra = match args.bios {
        Bios::Ipxe => Vec::new(),
        Bios::Pxelinux => small_site::pxelinux_lines(bios_loader, prefix.as_deref()),
    };
    let dnsmasq = Dnsmasq {
        interface: args.interface.clone(),
        address: network.host,
        network: network.base(),
        mask: network.mask(),
        addresses: match args.range {
            Some(Range { first, last }) => Addresses::Range { first, last, router: args.router },
            None => Addresses::Proxy,
        },
        hosts_file: format!("{root}/hosts"),
        tftp_root: tftp.clone(),
        bios_loader: bios_loader.to_owned(),
        uefi_loader: match args.uefi {
            Uefi::Ipxe => "snponly.efi",
            Uefi::Grub => "grubnetx64.efi",
        }
        .to_owned(),
        http_loader: format!("{web}/boot/snponly.efi"),
        chain: format!("{web}/boot/ipxe"),
        extra,
    };
    let nginx = Web {
        listen: format!("{}:80", network.host),
        log: "/var/log/nginx/speediso.log".to_owned(),
        controller: args.boot_listener.trim_end_matches('/').to_owned(),
        tftp_root: tftp,
        builds: format!("{root}/builds"),
        images: format!("{root}/images"),
    };
    let mut files = vec![("dnsmasq.conf".to_owned(), dnsmasq.render()?), ("nginx.conf".to_owned(), nginx.render()?)];
    if args.uefi == Uefi::Grub {
        files.push(("tftp/grub/grub.cfg".to_owned(), small_site::grub(&web)?));
    }
    if args.tftp_only {
        let controller = controller.context("which controller? give --controller or SPEEDISO_CONTROLLER")?;
        let ca = ca.context("give the controller's CA with --ca-file or SPEEDISO_CA_FILE")?;
        let text = small_site::pxelinux(controller.trim_end_matches('/'), &fingerprint(ca)?)?;
        files.push(("tftp/pxelinux.cfg/default".to_owned(), text));
    }
    if let Some(upstream) = &args.mirror_of {
        if !upstream.starts_with("http://") {
            bail!("--mirror-of names a site's plain HTTP, not {upstream:?}");
        }
        let mirror = Mirror {
            listen: "80".to_owned(),
            log: "/var/log/nginx/speediso-mirror.log".to_owned(),
            upstream: upstream.trim_end_matches('/').to_owned(),
            cache: "/var/cache/nginx/speediso".to_owned(),
            cache_size: "50g".to_owned(),
        };
        files.push(("mirror.conf".to_owned(), mirror.render()?));
    }
    Ok(files)
}

/// What nobody renders: programs, by the Debian package that has them.
fn loaders(args: &BootFilesArgs) -> Vec<String> {
    let mut loaders = match (args.bios, args.tftp_only) {
        (Bios::Ipxe, _) => vec!["undionly.kpxe: /usr/lib/ipxe/undionly.kpxe (package ipxe)".to_owned()],
        (Bios::Pxelinux, true) => vec!["pxelinux.0: /usr/lib/PXELINUX/pxelinux.0 (package pxelinux)".to_owned()],
        (Bios::Pxelinux, false) => vec!["lpxelinux.0: /usr/lib/PXELINUX/lpxelinux.0 (package pxelinux)".to_owned()],
    };
    if args.bios == Bios::Pxelinux {
        loaders.push("ldlinux.c32: /usr/lib/syslinux/modules/bios/ldlinux.c32 (package syslinux-common)".to_owned());
    }
    loaders.push(match args.uefi {
        Uefi::Ipxe => "snponly.efi: /usr/lib/ipxe/snponly.efi (package ipxe)".to_owned(),
        Uefi::Grub => format!(
            "grubnetx64.efi: made by `grub-mkimage {} -o grubnetx64.efi` (packages grub-common, grub-efi-amd64-bin)",
            small_site::GRUB_IMAGE
        ),
    });
    if args.tftp_only {
        loaders.push("vmlinuz, initramfs.img: of a build (make image)".to_owned());
    }
    loaders
}

/// Hex of the SHA-256 of the first certificate in the file, as `speediso.ca=` wants it.
fn fingerprint(file: &Path) -> Result<String> {
    use rustls_pki_types::pem::PemObject as _;
    let certificate = rustls_pki_types::CertificateDer::from_pem_file(file)
        .with_context(|| format!("reading the certificate in {}", file.display()))?;
    Ok(Sha256::digest(&certificate).iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Args, Command};
    use clap::Parser as _;

    fn rendered(line: &str) -> Result<Vec<(String, String)>> {
        let base = "speediso boot-files --interface eth0 --address 192.0.2.1/24 --to /x";
        let args = Args::try_parse_from(base.split(' ').chain(line.split_whitespace()))?;
        match args.command {
            Command::BootFiles(args) => files(&args, None, None),
            other => bail!("{other:?}"),
        }
    }

    fn text<'a>(files: &'a [(String, String)], name: &str) -> &'a str {
        &files.iter().find(|(file, _)| file == name).expect("written").1
    }

    #[test]
    fn a_site_with_addresses_of_its_own() {
        let files =
            rendered("--range 192.0.2.100-192.0.2.199 --router 192.0.2.254 --bios pxelinux --uefi grub").expect("good");
        let dnsmasq = text(&files, "dnsmasq.conf");
        for line in [
            "dhcp-range=192.0.2.100,192.0.2.199,255.255.255.0,1h",
            "dhcp-option=option:router,192.0.2.254",
            "dhcp-boot=tag:!ipxe,tag:!http,tag:!efi64,lpxelinux.0",
            "dhcp-boot=tag:!ipxe,tag:!http,tag:efi64,grubnetx64.efi",
            "dhcp-boot=tag:!efi64,tag:!http,lpxelinux.0",
            "dhcp-option-force=tag:!efi64,tag:!http,210,http://192.0.2.1/boot/",
        ] {
            assert!(dnsmasq.lines().any(|l| l == line), "{line}\n{dnsmasq}");
        }
        assert!(text(&files, "tftp/grub/grub.cfg").contains("(http,192.0.2.1)/boot/grub/"));
        assert!(text(&files, "nginx.conf").contains("proxy_pass http://127.0.0.1:8080;"));
    }

    #[test]
    fn beside_another_server() {
        let files = rendered("--proxy --mirror-of http://origin.example/").expect("good");
        let dnsmasq = text(&files, "dnsmasq.conf");
        assert!(dnsmasq.contains("dhcp-range=192.0.2.0,proxy") && !dnsmasq.contains("1h"), "{dnsmasq}");
        assert!(text(&files, "mirror.conf").contains("proxy_pass http://origin.example;"));
    }

    #[test]
    fn what_cannot_work_is_refused() {
        for bad in [
            "",
            "--proxy --range 192.0.2.2-192.0.2.3",
            "--range 192.0.2.9-192.0.2.3",
            "--range 198.51.100.2-198.51.100.3",
            "--range 192.0.2.1-192.0.2.9",
            "--range 192.0.2.2-192.0.2.9 --router 198.51.100.1",
            "--proxy --mirror-of https://x",
            "--proxy --bios pxelinux",
            "--range 192.0.2.2-192.0.2.9 --bios pxelinux --tftp-only",
            "--proxy --root /srv/a;b",
        ] {
            assert!(rendered(bad).is_err(), "{bad}");
        }
    }
}

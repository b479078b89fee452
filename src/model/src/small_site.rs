//! The configurations of dnsmasq, nginx, PXELINUX and GRUB for a small site, from the templates in `deploy/`. The laboratory
//! runs on the same texts.

use std::net::Ipv4Addr;

/// Who gives out addresses.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Addresses {
    /// This host does, from the first to the last.
    Range { first: Ipv4Addr, last: Ipv4Addr, router: Option<Ipv4Addr> },
    /// Another DHCP server does; this one only says what to boot.
    Proxy,
    /// Nobody is answered: TFTP alone.
    Silent,
}

/// What is put into `dnsmasq.conf.in` or `dnsmasq-proxy.conf.in`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Dnsmasq {
    pub interface: String,
    /// This host's on that interface.
    pub address: Ipv4Addr,
    pub network: Ipv4Addr,
    pub mask: Ipv4Addr,
    pub addresses: Addresses,
    pub hosts_file: String,
    pub tftp_root: String,
    /// Names below the TFTP root.
    pub bios_loader: String,
    pub uefi_loader: String,
    /// What UEFI's own HTTP boot is to fetch.
    pub http_loader: String,
    /// Where iPXE goes on.
    pub chain: String,
    /// Further lines.
    pub extra: Vec<String>,
}

/// What is put into `nginx.conf.in`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Web {
    /// `ADDRESS:PORT`, for boot loaders.
    pub listen: String,
    pub log: String,
    /// The controller's plain listener, `http://HOST:PORT`.
    pub controller: String,
    pub tftp_root: String,
    pub builds: String,
    pub images: String,
}

/// What is put into `mirror.conf.in`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mirror {
    pub listen: String,
    pub log: String,
    /// `http://HOST[:PORT]` of the site that is mirrored.
    pub upstream: String,
    pub cache: String,
    /// As nginx writes it: `20g`.
    pub cache_size: String,
}

/// A value that would be more than itself in a configuration.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{what} is {value:?}: only letters, digits and . - _ : / % ~ may stand there")]
pub struct NotPlain {
    what: &'static str,
    value: String,
}

impl Dnsmasq {
    /// # Errors
    /// For a value with blanks, commas, quotes or the like.
    pub fn render(&self) -> Result<String, NotPlain> {
        let range = match &self.addresses {
            Addresses::Range { first, last, router } => {
                let mut lines = format!("dhcp-range={first},{last},{},1h", self.mask);
                if let Some(router) = router {
                    lines.push_str(&format!("\ndhcp-option=option:router,{router}"));
                }
                lines
            }
            // Without a range dnsmasq does not open the DHCP port at all.
            Addresses::Silent | Addresses::Proxy => "# no dhcp-range: DHCP stays silent".to_owned(),
        };
        let template = match self.addresses {
            Addresses::Proxy => include_str!("../../../deploy/dnsmasq-proxy.conf.in"),
            _ => include_str!("../../../deploy/dnsmasq.conf.in"),
        };
        fill(
            template,
            &[
                ("INTERFACE", &self.interface),
                ("ADDRESS", &self.address.to_string()),
                ("NETWORK", &self.network.to_string()),
                ("HOSTS_FILE", &self.hosts_file),
                ("TFTP_ROOT", &self.tftp_root),
                ("BIOS_LOADER", &self.bios_loader),
                ("UEFI_LOADER", &self.uefi_loader),
                ("HTTP_LOADER", &self.http_loader),
                ("CHAIN", &self.chain),
            ],
        )
        .map(|text| text.replace("@DHCP_RANGE@", &range).replace("@EXTRA@", &self.extra.join("\n")))
    }
}

impl Web {
    /// # Errors
    /// As [`Dnsmasq::render`].
    pub fn render(&self) -> Result<String, NotPlain> {
        fill(
            include_str!("../../../deploy/nginx.conf.in"),
            &[
                ("LISTEN", &self.listen),
                ("LOG", &self.log),
                ("CONTROLLER", &self.controller),
                ("TFTP_ROOT", &self.tftp_root),
                ("BUILDS", &self.builds),
                ("IMAGES", &self.images),
            ],
        )
    }
}

impl Mirror {
    /// # Errors
    /// As [`Dnsmasq::render`].
    pub fn render(&self) -> Result<String, NotPlain> {
        let host = self.upstream.split("://").last().unwrap_or_default();
        fill(
            include_str!("../../../deploy/mirror.conf.in"),
            &[
                ("LISTEN", &self.listen),
                ("LOG", &self.log),
                ("UPSTREAM_HOST", host),
                ("UPSTREAM", &self.upstream),
                ("CACHE_SIZE", &self.cache_size),
                ("CACHE", &self.cache),
            ],
        )
    }
}

/// Further lines for `dnsmasq.conf.in` that give BIOS machines PXELINUX, those whose network card has iPXE too: of two lines
/// that fit, dnsmasq takes the later one. `prefix` is where PXELINUX finds its configuration and its library (RFC 5071); without
/// one it is the TFTP root.
#[must_use]
pub fn pxelinux_lines(loader: &str, prefix: Option<&str>) -> Vec<String> {
    let mut lines = vec![format!("dhcp-boot=tag:!efi64,tag:!http,{loader}")];
    lines.extend(prefix.map(|prefix| format!("dhcp-option-force=tag:!efi64,tag:!http,210,{prefix}")));
    lines
}

/// `pxelinux.cfg/default` for a site with TFTP alone. `ca` is the hex of the CA's SHA-256.
///
/// # Errors
/// As [`Dnsmasq::render`].
pub fn pxelinux(controller: &str, ca: &str) -> Result<String, NotPlain> {
    fill(include_str!("../../../deploy/pxelinux.cfg.in"), &[("CONTROLLER_URL", controller), ("CA", ca)])
}

/// What `grub-mkimage` is told for a GRUB that finds its configuration over TFTP and goes on over HTTP. The image that Debian
/// signed has no HTTP.
pub const GRUB_IMAGE: &str = "-O x86_64-efi -p /grub efinet http tftp normal configfile linux echo sleep test minicmd";

/// `grub/grub.cfg`, for the address that boot loaders use.
///
/// # Errors
/// As [`Dnsmasq::render`].
pub fn grub(boot_url: &str) -> Result<String, NotPlain> {
    let host = boot_url.trim_start_matches("http://").trim_end_matches('/');
    fill(include_str!("../../../deploy/grub.cfg.in"), &[("CONTROLLER_HOST", host)])
}

fn fill(template: &str, values: &[(&'static str, &str)]) -> Result<String, NotPlain> {
    let mut text = template.to_owned();
    for (what, value) in values {
        let plain = |c: char| c.is_ascii_alphanumeric() || "._-:/%~".contains(c);
        if value.is_empty() || !value.chars().all(plain) {
            return Err(NotPlain { what, value: (*value).to_owned() });
        }
        text = text.replace(&format!("@{what}@"), value);
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn dnsmasq(addresses: Addresses) -> Dnsmasq {
        Dnsmasq {
            interface: "eth0".into(),
            address: Ipv4Addr::new(192, 0, 2, 1),
            network: Ipv4Addr::new(192, 0, 2, 0),
            mask: Ipv4Addr::new(255, 255, 255, 0),
            addresses,
            hosts_file: "/etc/speediso/hosts".into(),
            tftp_root: "/srv/speediso/tftp".into(),
            bios_loader: "undionly.kpxe".into(),
            uefi_loader: "snponly.efi".into(),
            http_loader: "http://192.0.2.1/boot/snponly.efi".into(),
            chain: "http://192.0.2.1/boot/ipxe".into(),
            extra: Vec::new(),
        }
    }

    fn is_filled(text: &str) {
        let left = text.lines().find(|line| !line.starts_with('#') && line.contains('@'));
        assert_eq!(left, None, "{text}");
    }

    #[test]
    fn every_word_is_filled() {
        let (first, last) = (Ipv4Addr::new(192, 0, 2, 100), Ipv4Addr::new(192, 0, 2, 199));
        for addresses in [Addresses::Range { first, last, router: Some(first) }, Addresses::Proxy, Addresses::Silent] {
            is_filled(&dnsmasq(addresses).render().unwrap());
        }
        let web = Web {
            listen: "192.0.2.1:80".into(),
            log: "/var/log/nginx/speediso.log".into(),
            controller: "http://127.0.0.1:8080".into(),
            tftp_root: "/srv/tftp".into(),
            builds: "/srv/builds".into(),
            images: "/srv/images".into(),
        };
        is_filled(&web.render().unwrap());
        let mirror = Mirror {
            listen: "192.0.2.2:80".into(),
            log: "off".into(),
            upstream: "http://origin.example:8080".into(),
            cache: "/var/cache/speediso".into(),
            cache_size: "20g".into(),
        };
        let text = mirror.render().unwrap();
        is_filled(&text);
        assert!(text.contains("Host origin.example:8080;") && text.contains("proxy_pass http://origin.example:8080;"));
        is_filled(&pxelinux("https://192.0.2.1:8443", &"ab".repeat(32)).unwrap());
        let grub = grub("http://192.0.2.1:8080/").unwrap();
        is_filled(&grub);
        assert!(grub.contains("(http,192.0.2.1:8080)/boot/grub/grub.cfg-01-$net_default_mac"), "{grub}");
    }

    #[test]
    fn nothing_gets_into_a_configuration() {
        for bad in ["", "a b", "a\nport=53", "x;", "a,b", "\"", "{", "$uri", "#"] {
            let mut site = dnsmasq(Addresses::Silent);
            site.chain = bad.to_owned();
            assert!(site.render().is_err(), "{bad:?}");
        }
    }
}

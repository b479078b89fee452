//! `ip=` as the kernel writes it (Documentation/admin-guide/nfs/nfsroot.rst):
//! `ip=<client>:<server>:<gateway>:<netmask>:<hostname>:<device>:<autoconf>:<dns0>:<dns1>`, or one word. IPv6 addresses
//! stand in brackets, as dracut has it, with a length in place of the mask.

use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;

use super::ra;

/// What `ip=` asks for. Absent, it asks for DHCP.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum IpParam {
    Dhcp {
        hostname: Option<String>,
        device: Option<String>,
    },
    Static(StaticIp),
    /// `ip=off` or `ip=none` alone: the live system stays without an address.
    Off,
}

impl Default for IpParam {
    fn default() -> Self {
        Self::Dhcp { hostname: None, device: None }
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StaticIp {
    pub address: IpAddr,
    pub prefix: u8,
    pub gateway: Option<IpAddr>,
    pub hostname: Option<String>,
    /// Kernel name or MAC address.
    pub device: Option<String>,
    pub dns: Vec<IpAddr>,
}

#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ParamError {
    #[error("ip=: {field} is {value:?}, which is neither an IPv4 address nor an IPv6 address in brackets")]
    Address { field: &'static str, value: String },
    #[error("ip=: {0} cannot be a machine's own address")]
    NotAHost(IpAddr),
    #[error("ip=: the netmask {0:?} is neither a mask like 255.255.255.0 nor a length like 24")]
    Mask(String),
    #[error("ip=: the netmask is missing (fourth field)")]
    NoMask,
    #[error("ip=: the length {0:?} of an IPv6 prefix is not a number from 1 to 128")]
    Length(String),
    #[error("ip=: {0} and {1} are of different protocols")]
    Mixed(IpAddr, IpAddr),
    #[error("ip=: {0:?} is not a host name (RFC 1123)")]
    Hostname(String),
    #[error("ip=: {0:?} is not an interface name or MAC address")]
    Device(String),
    #[error("ip=: autoconfiguration {0:?} is not supported: none, off, dhcp, on or any")]
    Autoconf(String),
    #[error("ip=: more fields than the kernel's syntax has")]
    TooManyFields,
    #[error("ip=: an address is set and DHCP asked for at once")]
    Both,
}

impl IpParam {
    /// The interface it names, if it does.
    #[must_use]
    pub fn device(&self) -> Option<&str> {
        match self {
            Self::Dhcp { device, .. } => device.as_deref(),
            Self::Static(wanted) => wanted.device.as_deref(),
            Self::Off => None,
        }
    }
}

impl FromStr for IpParam {
    type Err = ParamError;

    fn from_str(text: &str) -> Result<Self, ParamError> {
        match text {
            "" | "dhcp" | "on" | "any" => return Ok(Self::default()),
            "off" | "none" => return Ok(Self::Off),
            _ => {}
        }
        let fields = fields(text);
        // dracut's short form: `ip=eth0:dhcp`.
        if let [name, "dhcp" | "on" | "any"] = fields.as_slice() {
            return Ok(Self::Dhcp { hostname: None, device: device(name)? });
        }
        // The tenth is an NTP server, which is not used: time comes from the controller.
        if fields.len() > 10 {
            return Err(ParamError::TooManyFields);
        }
        let field = |index: usize| fields.get(index).copied().unwrap_or_default();
        let hostname = match field(4) {
            "" => None,
            name if is_hostname(name) => Some(name.to_owned()),
            name => return Err(ParamError::Hostname(name.to_owned())),
        };
        let device = device(field(5))?;
        let is_static = !field(0).is_empty();
        match (field(6), is_static) {
            ("dhcp" | "on" | "any" | "both", false) | ("", false) => return Ok(Self::Dhcp { hostname, device }),
            ("off" | "none", false) => return Ok(Self::Off),
            ("dhcp" | "on" | "any" | "both", true) => return Err(ParamError::Both),
            ("" | "off" | "none", true) => {}
            (other, _) => return Err(ParamError::Autoconf(other.to_owned())),
        }
        let client = address("client address", field(0))?;
        if !is_own(client) {
            return Err(ParamError::NotAHost(client));
        }
        let optional = |name, value: &str| if value.is_empty() { Ok(None) } else { address(name, value).map(Some) };
        // The server (second field) is an NFS server's; it has no meaning here, but must be readable.
        optional("server", field(1))?;
        let mut dns = Vec::new();
        for index in [7, 8] {
            dns.extend(optional("name server", field(index))?.filter(|a| !a.is_unspecified()));
        }
        let gateway = optional("gateway", field(2))?.filter(|a| !a.is_unspecified());
        if let Some(gateway) = gateway.filter(|gateway| gateway.is_ipv4() != client.is_ipv4()) {
            return Err(ParamError::Mixed(client, gateway));
        }
        Ok(Self::Static(StaticIp {
            address: client,
            prefix: if client.is_ipv4() { prefix(field(3))? } else { length(field(3))? },
            gateway,
            hostname,
            device,
            dns,
        }))
    }
}

/// At colons, but not at those within brackets.
fn fields(text: &str) -> Vec<&str> {
    let (mut fields, mut begin, mut inside) = (Vec::new(), 0, false);
    for (at, c) in text.char_indices() {
        match c {
            '[' => inside = true,
            ']' => inside = false,
            ':' if !inside => {
                fields.push(&text[begin..at]);
                begin = at + 1;
            }
            _ => {}
        }
    }
    fields.push(&text[begin..]);
    fields
}

fn address(field: &'static str, value: &str) -> Result<IpAddr, ParamError> {
    let bad = || ParamError::Address { field, value: value.to_owned() };
    match value.strip_prefix('[').map(|rest| rest.strip_suffix(']')) {
        Some(inner) => inner.and_then(|six| six.parse().ok()).map(IpAddr::V6).ok_or_else(bad),
        None => value.parse().map(IpAddr::V4).map_err(|_| bad()),
    }
}

fn is_own(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(four) => is_host(four),
        IpAddr::V6(six) => ra::is_host(&six) && !six.is_unicast_link_local(),
    }
}

fn length(text: &str) -> Result<u8, ParamError> {
    text.parse().ok().filter(|l| (1..=128).contains(l)).ok_or_else(|| ParamError::Length(text.to_owned()))
}

fn prefix(text: &str) -> Result<u8, ParamError> {
    if text.is_empty() {
        return Err(ParamError::NoMask);
    }
    let length = match text.parse::<Ipv4Addr>() {
        Ok(mask) => prefix_of(mask),
        Err(_) => text.parse::<u8>().ok(),
    };
    length.filter(|l| (1..=32).contains(l)).ok_or_else(|| ParamError::Mask(text.to_owned()))
}

/// Kernel names have at most fifteen bytes. A MAC address is written with dashes here, colons being taken.
fn device(name: &str) -> Result<Option<String>, ParamError> {
    if name.is_empty() {
        return Ok(None);
    }
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if name.len() <= 20 && name.bytes().all(is_plain) {
        Ok(Some(name.to_owned()))
    } else {
        Err(ParamError::Device(name.to_owned()))
    }
}

/// The length of a mask whose ones are all in front.
pub(super) fn prefix_of(mask: Ipv4Addr) -> Option<u8> {
    let bits = u32::from(mask);
    let ones = bits.leading_ones();
    (ones + bits.trailing_zeros() >= 32).then(|| u8::try_from(ones).ok()).flatten()
}

/// Whether a machine can have this address.
pub(super) fn is_host(address: Ipv4Addr) -> bool {
    // 240.0.0.0/4 is reserved, with the broadcast address at its end.
    !(address.octets()[0] == 0 || address.is_loopback() || address.is_multicast() || address.octets()[0] >= 240)
}

/// RFC 1123. Whatever passes here is set as the kernel's host name and shown on consoles.
pub(super) fn is_hostname(name: &str) -> bool {
    let is_label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    // The kernel's limit is 64, below that of DNS.
    name.len() <= 64 && name.split('.').all(is_label)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_kernels_forms_are_read() {
        for text in ["", "dhcp", "on", "any", "::::::dhcp", ":::::"] {
            assert_eq!(text.parse(), Ok(IpParam::default()), "{text}");
        }
        for text in ["off", "none", "::::::none"] {
            assert_eq!(text.parse(), Ok(IpParam::Off), "{text}");
        }
        let named = IpParam::Dhcp { hostname: None, device: Some("eno1".into()) };
        assert_eq!("eno1:dhcp".parse(), Ok(named.clone()));
        assert_eq!(":::::eno1:dhcp".parse(), Ok(named));
        let full = StaticIp {
            address: Ipv4Addr::new(192, 0, 2, 10).into(),
            prefix: 24,
            gateway: Some(Ipv4Addr::new(192, 0, 2, 1).into()),
            hostname: Some("node7".into()),
            device: Some("52-54-00-ab-cd-ef".into()),
            dns: vec![Ipv4Addr::new(192, 0, 2, 53).into()],
        };
        let text = "192.0.2.10::192.0.2.1:255.255.255.0:node7:52-54-00-ab-cd-ef:none:192.0.2.53";
        assert_eq!(text.parse(), Ok(IpParam::Static(full)));
        let IpParam::Static(short) = "192.0.2.10:::25".parse().expect("good") else { panic!("static") };
        assert_eq!((short.prefix, short.gateway), (25, None));
        let six = "[2001:db8::10]::[fe80::1]:64:node7::none:[2001:db8::53]".parse().expect("good");
        let IpParam::Static(six) = six else { panic!("static") };
        assert_eq!((six.address, six.prefix), ("2001:db8::10".parse().expect("good"), 64));
        assert_eq!((six.gateway, six.dns.len()), (Some("fe80::1".parse().expect("good")), 1));
        assert_eq!(six.hostname.as_deref(), Some("node7"));
    }

    #[test]
    fn mistakes_are_named() {
        for (text, error) in [
            ("192.0.2.10", ParamError::NoMask),
            ("192.0.2.10:::255.0.255.0", ParamError::Mask("255.0.255.0".into())),
            ("192.0.2.10:::33", ParamError::Mask("33".into())),
            ("127.0.0.1:::8", ParamError::NotAHost(Ipv4Addr::LOCALHOST.into())),
            ("[fe80::5]:::64", ParamError::NotAHost("fe80::5".parse().expect("good"))),
            ("[2001:db8::5]:::255.255.0.0", ParamError::Length("255.255.0.0".into())),
            ("[2001:db8::5:::64", ParamError::Address { field: "client address", value: "[2001:db8::5:::64".into() }),
            (
                "[2001:db8::5]::192.0.2.1:64",
                ParamError::Mixed("2001:db8::5".parse().expect("good"), Ipv4Addr::new(192, 0, 2, 1).into()),
            ),
            ("192.0.2.300:::24", ParamError::Address { field: "client address", value: "192.0.2.300".into() }),
            ("192.0.2.10:::24:a_b", ParamError::Hostname("a_b".into())),
            ("192.0.2.10:::24:a:../x", ParamError::Device("../x".into())),
            ("192.0.2.10:::24::eth0:bootp", ParamError::Autoconf("bootp".into())),
            ("192.0.2.10:::24::eth0:dhcp", ParamError::Both),
            ("a:b:c:d:e:f:g:h:i:j:k", ParamError::TooManyFields),
        ] {
            assert_eq!(text.parse::<IpParam>(), Err(error), "{text}");
        }
    }

    #[test]
    fn masks_have_their_ones_in_front() {
        assert_eq!(prefix_of(Ipv4Addr::new(255, 255, 255, 255)), Some(32));
        assert_eq!(prefix_of(Ipv4Addr::new(255, 255, 254, 0)), Some(23));
        assert_eq!(prefix_of(Ipv4Addr::new(0, 0, 0, 0)), Some(0));
        assert_eq!(prefix_of(Ipv4Addr::new(255, 0, 255, 0)), None);
        assert_eq!(prefix_of(Ipv4Addr::new(0, 0, 0, 255)), None);
    }

    proptest! {
        #[test]
        fn any_text_is_survived(text in "[\\[\\]0-9a-f.:-]{0,60}|.{0,40}") {
            if let Ok(IpParam::Static(wanted)) = text.parse() {
                let longest = if wanted.address.is_ipv4() { 32 } else { 128 };
                prop_assert!(is_own(wanted.address) && (1..=longest).contains(&wanted.prefix));
                prop_assert!(wanted.hostname.as_deref().is_none_or(is_hostname));
            }
        }
    }
}

//! `speediso.vlan=` and `speediso.bond=`: what stands between the cards and the addresses.

use std::str::FromStr;

use rtnetlink::packet_route::link::{BondLacpRate, BondMode, BondXmitHashPolicy};

/// `ID`, or `INTERFACE.ID` with a kernel name or a MAC address written with dashes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Vlan {
    pub parent: Option<String>,
    pub id: u16,
}

/// `MODE[:MEMBER,MEMBER...][:OPTION=VALUE,...]`
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Bond {
    pub mode: BondMode,
    pub members: Members,
    /// Milliseconds between looks at the members' links.
    pub miimon: u32,
    pub lacp_rate: Option<BondLacpRate>,
    pub hash: Option<BondXmitHashPolicy>,
    pub min_links: Option<u32>,
    /// Kernel name or MAC address.
    pub primary: Option<String>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Members {
    /// Every card that has a link when the bond is made.
    AllWithLink,
    /// Kernel names or MAC addresses.
    Named(Vec<String>),
}

/// What may be had over IPv6.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Ipv6 {
    Off,
    /// Beside IPv4.
    #[default]
    Auto,
    /// Instead of IPv4.
    Only,
}

#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum LayerError {
    #[error("{0:?} is no VLAN number: 1 to 4094")]
    VlanId(String),
    #[error("{0:?} is no interface: a kernel name, or a MAC address written with dashes")]
    Device(String),
    #[error("{0:?} is no bonding mode: active-backup, 802.3ad, balance-xor, -rr, -tlb, -alb or broadcast")]
    Mode(String),
    #[error("{0:?} is named twice")]
    Twice(String),
    #[error("{0:?} is no option of a bond: miimon, lacp_rate, xmit_hash_policy, min_links or primary")]
    Option(String),
    #[error("{option}={value:?}: {expected}")]
    Value { option: &'static str, value: String, expected: &'static str },
    #[error("lacp_rate is for 802.3ad only")]
    NotLacp,
    #[error("more than mode, members and options")]
    TooMuch,
    #[error("{0:?}: off, auto or only")]
    Ipv6(String),
}

/// The kernel looks at links this often where nothing else is said; 0, its own default, would never.
const MIIMON: u32 = 100;

impl FromStr for Vlan {
    type Err = LayerError;

    fn from_str(text: &str) -> Result<Self, LayerError> {
        let (parent, id) = match text.rsplit_once('.') {
            Some((parent, id)) => (Some(device(parent)?), id),
            None => (None, text),
        };
        // 0 carries only a priority and 4095 is reserved (IEEE 802.1Q).
        let is_plain = !id.is_empty() && id.bytes().all(|b| b.is_ascii_digit());
        let number = id.parse().ok().filter(|id| is_plain && (1..=4094).contains(id));
        Ok(Self { parent, id: number.ok_or_else(|| LayerError::VlanId(id.to_owned()))? })
    }
}

impl FromStr for Bond {
    type Err = LayerError;

    fn from_str(text: &str) -> Result<Self, LayerError> {
        let mut parts = text.split(':').peekable();
        let mode = mode(parts.next().unwrap_or_default())?;
        let members = match parts.next_if(|part| !part.contains('=')) {
            None | Some("all-with-link") => Members::AllWithLink,
            Some(list) => Members::Named(members(list)?),
        };
        let options = parts.next().unwrap_or_default();
        if parts.next().is_some() {
            return Err(LayerError::TooMuch);
        }
        let mut bond =
            Self { mode, members, miimon: MIIMON, lacp_rate: None, hash: None, min_links: None, primary: None };
        for option in options.split(',').filter(|o| !o.is_empty()) {
            bond.take(option)?;
        }
        if bond.lacp_rate.is_some() && mode != BondMode::Ieee8023Ad {
            return Err(LayerError::NotLacp);
        }
        Ok(bond)
    }
}

impl Bond {
    fn take(&mut self, option: &str) -> Result<(), LayerError> {
        let (name, value) = option.split_once('=').ok_or_else(|| LayerError::Option(option.to_owned()))?;
        let wrong = |option, expected| LayerError::Value { option, value: value.to_owned(), expected };
        let number = |option, range: std::ops::RangeInclusive<u32>, expected| {
            value.parse().ok().filter(|n| range.contains(n)).ok_or_else(|| wrong(option, expected))
        };
        match name {
            // Without looking, a dead link would go unnoticed.
            "miimon" => self.miimon = number("miimon", 1..=60_000, "milliseconds, 1 to 60000")?,
            "min_links" => self.min_links = Some(number("min_links", 1..=16, "1 to 16")?),
            "lacp_rate" => {
                self.lacp_rate = Some(match value {
                    "slow" => BondLacpRate::Slow,
                    "fast" => BondLacpRate::Fast,
                    _ => return Err(wrong("lacp_rate", "slow or fast")),
                });
            }
            "xmit_hash_policy" => {
                self.hash = Some(match value {
                    "layer2" => BondXmitHashPolicy::Layer2,
                    "layer2+3" => BondXmitHashPolicy::Layer23,
                    "layer3+4" => BondXmitHashPolicy::Layer34,
                    _ => return Err(wrong("xmit_hash_policy", "layer2, layer2+3 or layer3+4")),
                });
            }
            "primary" => self.primary = Some(device(value)?),
            _ => return Err(LayerError::Option(name.to_owned())),
        }
        Ok(())
    }
}

impl FromStr for Ipv6 {
    type Err = LayerError;

    fn from_str(text: &str) -> Result<Self, LayerError> {
        match text {
            "off" => Ok(Self::Off),
            "auto" => Ok(Self::Auto),
            "only" => Ok(Self::Only),
            _ => Err(LayerError::Ipv6(text.to_owned())),
        }
    }
}

fn mode(text: &str) -> Result<BondMode, LayerError> {
    Ok(match text {
        "active-backup" => BondMode::ActiveBackup,
        "802.3ad" => BondMode::Ieee8023Ad,
        "balance-xor" => BondMode::BalanceXor,
        "balance-rr" => BondMode::BalanceRr,
        "balance-tlb" => BondMode::BalanceTlb,
        "balance-alb" => BondMode::BalanceAlb,
        "broadcast" => BondMode::Broadcast,
        _ => return Err(LayerError::Mode(text.to_owned())),
    })
}

fn members(list: &str) -> Result<Vec<String>, LayerError> {
    let mut members = Vec::new();
    for name in list.split(',') {
        let name = device(name)?;
        if members.contains(&name) {
            return Err(LayerError::Twice(name));
        }
        members.push(name);
    }
    Ok(members)
}

/// Kernel names have at most fifteen bytes, a MAC address with dashes seventeen.
fn device(name: &str) -> Result<String, LayerError> {
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if (1..=17).contains(&name.len()) && name.bytes().all(is_plain) {
        Ok(name.to_owned())
    } else {
        Err(LayerError::Device(name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn vlans_are_read_and_their_mistakes_named() {
        assert_eq!("100".parse(), Ok(Vlan { parent: None, id: 100 }));
        assert_eq!("eno1.7".parse(), Ok(Vlan { parent: Some("eno1".into()), id: 7 }));
        let mac = "52-54-00-ab-cd-ef.4094";
        assert_eq!(mac.parse(), Ok(Vlan { parent: Some("52-54-00-ab-cd-ef".into()), id: 4094 }));
        for text in ["", "0", "4095", "+5", "eno1.", "eno1.x"] {
            assert!(matches!(text.parse::<Vlan>(), Err(LayerError::VlanId(_))), "{text}");
        }
        assert!(matches!("../x.5".parse::<Vlan>(), Err(LayerError::Device(_))));
    }

    #[test]
    fn bonds_are_read_and_their_mistakes_named() {
        let bond: Bond =
            "802.3ad:52-54-00-00-00-01,52-54-00-00-00-02:lacp_rate=fast,xmit_hash_policy=layer3+4,miimon=50"
                .parse()
                .expect("good");
        assert_eq!(bond.mode, BondMode::Ieee8023Ad);
        assert_eq!(bond.members, Members::Named(vec!["52-54-00-00-00-01".into(), "52-54-00-00-00-02".into()]));
        assert_eq!((bond.lacp_rate, bond.miimon), (Some(BondLacpRate::Fast), 50));
        let short: Bond = "active-backup".parse().expect("good");
        assert_eq!((short.members, short.miimon), (Members::AllWithLink, 100));
        let named: Bond = "balance-xor:all-with-link:min_links=2".parse().expect("good");
        assert_eq!((named.members, named.min_links), (Members::AllWithLink, Some(2)));
        let options: Bond = "active-backup:primary=eno2".parse().expect("members may be left out");
        assert_eq!((options.members, options.primary.as_deref()), (Members::AllWithLink, Some("eno2")));
        let error = |text: &str| text.parse::<Bond>().expect_err(text);
        assert!(matches!(error("lacp"), LayerError::Mode(_)));
        assert!(matches!(error("active-backup:eno1,eno1"), LayerError::Twice(_)));
        assert!(matches!(error("active-backup:eno1,"), LayerError::Device(_)));
        assert!(matches!(error("active-backup:eno1:lacp_rate=fast"), LayerError::NotLacp));
        assert!(matches!(error("802.3ad::lacp_rate=fast"), LayerError::Device(_)));
        assert!(matches!(error("802.3ad:eno1:speed=1"), LayerError::Option(_)));
        assert!(matches!(error("802.3ad:eno1:miimon=0"), LayerError::Value { option: "miimon", .. }));
        assert!(matches!(error("802.3ad:eno1:miimon=1:x"), LayerError::TooMuch));
    }

    proptest! {
        #[test]
        fn any_text_is_survived(text in "[a-z0-9.:,=+-]{0,60}|.{0,40}") {
            let _ = text.parse::<Bond>();
            if let Ok(vlan) = text.parse::<Vlan>() {
                prop_assert!((1..=4094).contains(&vlan.id));
            }
        }
    }
}

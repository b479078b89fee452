//! The BMC's network ports (section 23).

use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Instant;

use speediso_model::inventory::bmc::BmcLan;

use super::{Ipmi, IpmiError, Request, ask, le16};

/// Medium type of an Ethernet port (table 6-3).
const ETHERNET: u8 = 4;
/// Channels 0 and 12 to 15 are never ports (table 6-1).
const CHANNELS: std::ops::RangeInclusive<u8> = 1..=11;
const MOST_V6: u8 = 16;

pub(super) fn read(bmc: &dyn Ipmi, end: Instant) -> Result<Vec<BmcLan>, IpmiError> {
    let mut all = Vec::new();
    for channel in CHANNELS.take_while(|_| Instant::now() < end) {
        match ask(bmc, Request::ChannelInfo { channel }, 2) {
            Ok(info) if info[1] & 0x7f == ETHERNET => all.extend(one(bmc, channel)?),
            Ok(_) | Err(IpmiError::Declined { .. }) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(all)
}

fn one(bmc: &dyn Ipmi, channel: u8) -> Result<Option<BmcLan>, IpmiError> {
    // The first byte of an answer is the parameter's revision.
    let parameter = |parameter: u8, set: u8, least: usize| match ask(
        bmc,
        Request::LanParameter { channel, parameter, set },
        least + 1,
    ) {
        Ok(answer) => Ok(Some(answer[1..].to_vec())),
        Err(IpmiError::Declined { .. } | IpmiError::Short(_)) => Ok(None),
        Err(e) => Err(e),
    };
    let v4 = |bytes: Option<Vec<u8>>| {
        let bytes = <[u8; 4]>::try_from(bytes?.get(..4)?).ok()?;
        Some(Ipv4Addr::from(bytes)).filter(|ip| !ip.is_unspecified()).map(|ip| ip.to_string())
    };
    let Some(mac) = parameter(5, 0, 6)? else { return Ok(None) };
    let source = parameter(4, 0, 1)?.map_or(0, |bytes| bytes[0] & 0xf);
    let vlan = parameter(20, 0, 2)?.map(|bytes| le16(&bytes, 0)).filter(|vlan| vlan & 0x8000 != 0);
    let mut port = BmcLan {
        channel,
        mac: mac[..6].iter().map(|b| format!("{b:02x}")).collect::<Vec<_>>().join(":"),
        source: match source {
            1 => "static",
            2 => "dhcp",
            3 => "firmware",
            _ => "other",
        }
        .to_owned(),
        address: v4(parameter(3, 0, 4)?),
        netmask: v4(parameter(6, 0, 4)?),
        gateway: v4(parameter(12, 0, 4)?),
        vlan: vlan.map(|vlan| vlan & 0xfff),
        v6_addresses: Vec::new(),
    };
    // Addresses by hand, whose byte 1 says with its highest bit whether they are in use; and those that came by
    // themselves. Byte 19 says whether one is active (0).
    for (number, by_hand) in [(56, true), (59, false)] {
        for set in 0..MOST_V6 {
            let Some(bytes) = parameter(number, set, 20)? else { break };
            let used = (!by_hand || bytes[1] & 0x80 != 0) && bytes[19] == 0;
            let address = <[u8; 16]>::try_from(&bytes[2..18]).map(Ipv6Addr::from).unwrap_or(Ipv6Addr::UNSPECIFIED);
            if used && !address.is_unspecified() {
                port.v6_addresses.push(format!("{address}/{}", bytes[18]));
            }
        }
    }
    Ok(Some(port))
}

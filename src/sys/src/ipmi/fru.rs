//! The record that the maker left in the machine (Platform Management FRU Information Storage Definition 1.0).

use std::time::Instant;

use speediso_model::inventory::bmc::Fru;

use super::convert::text;
use super::{Ipmi, IpmiError, Request, ask, le16};

const BUILT_IN: u8 = 0;
const PIECE: u8 = 16;
/// Beyond this lie makers' own records.
const LONGEST: u16 = 4096;

/// `None` for a BMC that keeps none.
pub(super) fn read(bmc: &dyn Ipmi, end: Instant) -> Result<Option<Fru>, IpmiError> {
    let info = match ask(bmc, Request::FruInfo { id: BUILT_IN }, 3) {
        Ok(info) => info,
        Err(IpmiError::Declined { .. }) => return Ok(None),
        Err(e) => return Err(e),
    };
    // By words on some, so that each offset counts two bytes.
    let unit = if info[2] & 1 == 0 { 1 } else { 2 };
    let size = usize::from(le16(&info, 0).min(LONGEST));
    let mut bytes = Vec::new();
    while bytes.len() < size && Instant::now() < end {
        let left = u8::try_from(size - bytes.len()).unwrap_or(PIECE).min(PIECE);
        let offset = u16::try_from(bytes.len() / unit).unwrap_or(u16::MAX);
        let count = left / u8::try_from(unit).unwrap_or(1);
        let answer = match ask(bmc, Request::FruRead { id: BUILT_IN, offset, count: count.max(1) }, 2) {
            Ok(answer) => answer,
            // A store that is shorter than it says.
            Err(IpmiError::Declined { .. }) if bytes.len() >= 8 => break,
            Err(e) => return Err(e),
        };
        bytes.extend(&answer[1..]);
    }
    bytes.truncate(size);
    parse(&bytes).map(Some)
}

/// The areas are found by the header; each has a check sum, and one whose sum is wrong says nothing.
pub(super) fn parse(bytes: &[u8]) -> Result<Fru, IpmiError> {
    let nonsense = |why: &str| IpmiError::Nonsense { what: "inventory record", why: why.to_owned() };
    let sums_up = |area: &[u8]| area.iter().fold(0u8, |sum, b| sum.wrapping_add(*b)) == 0;
    let header = bytes.get(..8).filter(|h| h[0] & 0xf == 1).ok_or_else(|| nonsense("its header is none"))?;
    if !sums_up(header) {
        return Err(nonsense("the check sum of its header is wrong"));
    }
    // In units of eight bytes; 0 is an area that is not there. The second byte of an area is its length.
    let area = |at: u8| {
        let start = usize::from(at) * 8;
        let length = usize::from(*bytes.get(start + 1).filter(|_| at > 0)?) * 8;
        bytes.get(start..start + length).filter(|area| length > 0 && sums_up(area))
    };
    let fields = |area: Option<&[u8]>, from: usize| {
        let mut rest = area.and_then(|area| area.get(from..)).unwrap_or_default();
        let mut fields = Vec::new();
        while let Some((field, taken)) = text(rest) {
            fields.push(field);
            rest = &rest[taken..];
        }
        fields.into_iter()
    };
    let mut chassis = fields(area(header[2]), 3);
    // Language, and three bytes of date.
    let mut board = fields(area(header[3]), 6);
    let mut product = fields(area(header[4]), 3);
    let next = |list: &mut std::vec::IntoIter<String>| list.next().unwrap_or_default();
    Ok(Fru {
        chassis_part: next(&mut chassis),
        chassis_serial: next(&mut chassis),
        board_manufacturer: next(&mut board),
        board_product: next(&mut board),
        board_serial: next(&mut board),
        board_part: next(&mut board),
        product_manufacturer: next(&mut product),
        product_name: next(&mut product),
        product_part: next(&mut product),
        product_version: next(&mut product),
        product_serial: next(&mut product),
        asset_tag: next(&mut product),
    })
}

//! From a sensor's raw byte to its value (section 36.3), and the texts of records (section 43.15).

/// `y = (M x + B 10^K1) 10^K2`
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Conversion {
    pub(super) format: Format,
    pub(super) m: i16,
    pub(super) b: i16,
    pub(super) b_exponent: i8,
    pub(super) result_exponent: i8,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Format {
    Unsigned,
    OnesComplement,
    TwosComplement,
}

impl Conversion {
    /// From bytes 20 to 29 of a full record; why not, for one that is not linear.
    pub(super) fn of_record(record: &[u8]) -> Result<Self, String> {
        let at = |i: usize| record.get(i).copied().unwrap_or(0);
        let format = match at(20) >> 6 {
            0 => Format::Unsigned,
            1 => Format::OnesComplement,
            2 => Format::TwosComplement,
            _ => return Err("it gives no analogue reading".to_owned()),
        };
        match at(23) & 0x7f {
            0 => {}
            other => return Err(format!("its conversion (linearization {other:#x}) is not linear")),
        }
        // Ten bits with their sign: eight, and two more in the upper bits of the next byte.
        let ten = |low: u8, high: u8| {
            let value = i16::from(low) | i16::from(high >> 6) << 8;
            if value & 0x200 != 0 { value - 0x400 } else { value }
        };
        let four = |bits: u8| {
            let value = i8::try_from(bits & 0xf).unwrap_or(0);
            if value & 8 != 0 { value - 16 } else { value }
        };
        Ok(Self {
            format,
            m: ten(at(24), at(25)),
            b: ten(at(26), at(27)),
            b_exponent: four(at(29)),
            result_exponent: four(at(29) >> 4),
        })
    }

    pub(super) fn value(self, raw: u8) -> f64 {
        let x = match self.format {
            Format::Unsigned => i16::from(raw),
            Format::TwosComplement => i16::from(i8::from_le_bytes([raw])),
            // Minus zero is zero.
            Format::OnesComplement if raw & 0x80 != 0 => -i16::from(!raw),
            Format::OnesComplement => i16::from(raw),
        };
        let ten = |n: i8| 10f64.powi(n.into());
        let value =
            (f64::from(self.m) * f64::from(x) + f64::from(self.b) * ten(self.b_exponent)) * ten(self.result_exponent);
        // Six places are more than eight bits can mean; the rest is the binary form of decimal fractions.
        (value * 1e6).round() / 1e6
    }
}

/// A text behind its type and length byte, and how many bytes both take. `None` at the mark that ends a list.
pub(super) fn text(bytes: &[u8]) -> Option<(String, usize)> {
    let (head, rest) = bytes.split_first()?;
    if *head == 0xc1 {
        return None;
    }
    let length = usize::from(head & 0x3f);
    let body = rest.get(..length)?;
    let text = match head >> 6 {
        // BCD with three more signs.
        1 => body
            .iter()
            .flat_map(|b| [b >> 4, b & 0xf])
            .map(|n| char::from(*b"0123456789 -.?????".get(usize::from(n)).unwrap_or(&b'?')))
            .collect(),
        2 => six_bit(body),
        3 => body.iter().map(|b| char::from(*b)).filter(|c| !c.is_control()).collect(),
        _ if body.is_empty() => String::new(),
        _ => speediso_model::plan::hex(body),
    };
    Some((text.trim().to_owned(), length + 1))
}

/// Four characters in three bytes, the first in the lowest bits, counted from the blank.
fn six_bit(body: &[u8]) -> String {
    let mut text = String::new();
    for three in body.chunks(3) {
        let bits = three.iter().rev().fold(0u32, |bits, b| bits << 8 | u32::from(*b));
        for n in 0..three.len() * 8 / 6 {
            let code = u8::try_from(bits >> (6 * n) & 0x3f).unwrap_or(0);
            text.push(char::from(0x20 + code));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_follow_the_formula() {
        // 12 V with M 63, B 0, K2 -3, as many boards have it.
        let twelve = Conversion { format: Format::Unsigned, m: 63, b: 0, b_exponent: 0, result_exponent: -3 };
        assert_eq!(twelve.value(0xbf), 12.033);
        let mut record = [0u8; 48];
        (record[20], record[24], record[25]) = (2 << 6, 1, 0);
        let signed = Conversion::of_record(&record).expect("linear");
        assert_eq!((signed.value(0xec), signed.value(25)), (-20.0, 25.0));
        record[20] = 1 << 6;
        let ones = Conversion::of_record(&record).expect("linear");
        assert_eq!((ones.value(0xff), ones.value(0xfe), ones.value(5)), (0.0, -1.0, 5.0));
        // B -200 in ten bits, K1 1, K2 -1.
        (record[20], record[26], record[27], record[29]) = (0, 0x38, 0xc0, 0xf1);
        let offset = Conversion::of_record(&record).expect("linear");
        assert_eq!((offset.b, offset.b_exponent, offset.result_exponent), (-200, 1, -1));
        assert_eq!(offset.value(100), -190.0);
        record[23] = 1;
        assert!(Conversion::of_record(&record).expect_err("a logarithm").contains("not linear"));
        (record[23], record[20]) = (0, 0xc0);
        assert!(Conversion::of_record(&record).expect_err("states only").contains("no analogue"));
    }

    #[test]
    fn texts_come_in_four_spellings() {
        assert_eq!(text(b"\xc8CPU Temp"), Some(("CPU Temp".into(), 9)));
        assert_eq!(text(&[0x83, 0x29, 0xdc, 0xa6]), Some(("IPMI".into(), 4)), "the specification's own example");
        assert_eq!(text(&[0x42, 0x12, 0xb4]), Some(("12-4".into(), 3)));
        assert_eq!(text(&[0x02, 0xab, 0xcd]), Some(("abcd".into(), 3)));
        assert_eq!(text(&[0x00, 1]), Some((String::new(), 1)));
        assert_eq!((text(&[0xc1]), text(&[0xc5, b'x']), text(&[])), (None, None, None));
    }
}

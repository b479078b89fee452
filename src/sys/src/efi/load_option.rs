//! `EFI_LOAD_OPTION` (UEFI 2.10 section 3.1.3) and the device paths in it (section 10.3).

/// A boot entry's value.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LoadOption {
    pub attributes: u32,
    pub description: String,
    pub path: Vec<DeviceNode>,
    /// Handed to the loader as it is.
    pub optional_data: Vec<u8>,
}

/// How a device path knows a partition again.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PartitionSignature {
    None,
    /// The MBR's four bytes.
    Mbr([u8; 4]),
    /// The partition's GUID, in the byte order of the GPT.
    Gpt([u8; 16]),
    /// A kind we do not know.
    Other {
        format: u8,
        kind: u8,
        raw: [u8; 16],
    },
}

/// One node of a device path. The end node is implied.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum DeviceNode {
    /// A partition. Start and size in logical sectors.
    HardDrive {
        number: u32,
        start: u64,
        size: u64,
        signature: PartitionSignature,
    },
    /// A path below it, with backslashes.
    File(String),
    Other {
        kind: u8,
        subtype: u8,
        data: Vec<u8>,
    },
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum DecodeError {
    #[error("the load option is cut short")]
    CutShort,
    #[error("the load option's description has no end")]
    Description,
    #[error("a node of the device path claims {0} bytes")]
    NodeLength(usize),
    #[error("the device path has no end node")]
    NoEnd,
}

/// `LOAD_OPTION_ACTIVE`
pub(super) const ACTIVE: u32 = 1;

const MEDIA: u8 = 0x04;
const HARD_DRIVE: u8 = 0x01;
const FILE_PATH: u8 = 0x04;
const END: u8 = 0x7f;
const END_ENTIRE: u8 = 0xff;
const FORMAT_MBR: u8 = 1;
const FORMAT_GPT: u8 = 2;
const SIGNATURE_NONE: u8 = 0;
const SIGNATURE_MBR: u8 = 1;
const SIGNATURE_GUID: u8 = 2;

impl LoadOption {
    /// An active entry for a file on a GPT partition, in the short form (from the partition downwards) that firmware
    /// resolves by looking for the partition: it keeps working when the disk moves to another slot.
    #[must_use]
    pub fn for_file(label: &str, number: u32, start: u64, size: u64, partition: [u8; 16], file: &str) -> Self {
        Self {
            attributes: ACTIVE,
            description: label.to_owned(),
            path: vec![
                DeviceNode::HardDrive { number, start, size, signature: PartitionSignature::Gpt(partition) },
                DeviceNode::File(file.to_owned()),
            ],
            optional_data: Vec::new(),
        }
    }

    /// The GPT partition and the file it points to, if it is of that form, whatever stands before (a full path from
    /// the PCI root names the same file).
    #[must_use]
    pub fn target(&self) -> Option<([u8; 16], &str)> {
        match self.path.as_slice() {
            [.., DeviceNode::HardDrive { signature: PartitionSignature::Gpt(guid), .. }, DeviceNode::File(file)] => {
                Some((*guid, file))
            }
            _ => None,
        }
    }

    /// # Panics
    /// Never for an option that [`decode`](Self::decode) or [`for_file`](Self::for_file) with a path of less than
    /// 32 KiB gave: a device path's length has sixteen bits.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut path = Vec::new();
        for node in &self.path {
            let (kind, subtype, body) = node.encode();
            push_node(&mut path, kind, subtype, &body);
        }
        push_node(&mut path, END, END_ENTIRE, &[]);
        let mut out = self.attributes.to_le_bytes().to_vec();
        out.extend(length(path.len()));
        out.extend(utf16(&self.description));
        out.extend(path);
        out.extend(&self.optional_data);
        out
    }

    /// # Errors
    /// When the bytes are not a load option. Nothing is read beyond them.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let (attributes, rest) = bytes.split_first_chunk::<4>().ok_or(DecodeError::CutShort)?;
        let (path_len, rest) = rest.split_first_chunk::<2>().ok_or(DecodeError::CutShort)?;
        let end = rest.chunks_exact(2).position(|unit| unit == [0, 0]).ok_or(DecodeError::Description)?;
        let (description, rest) = (&rest[..2 * end], &rest[2 * end + 2..]);
        let (mut path, optional) =
            rest.split_at_checked(usize::from(u16::from_le_bytes(*path_len))).ok_or(DecodeError::CutShort)?;
        let mut nodes = Vec::new();
        loop {
            let [kind, subtype, low, high, ..] = path else { return Err(DecodeError::NoEnd) };
            let (kind, subtype) = (*kind, *subtype);
            let len = usize::from(u16::from_le_bytes([*low, *high]));
            if len < 4 || len > path.len() {
                return Err(DecodeError::NodeLength(len));
            }
            let body = &path[4..len];
            path = &path[len..];
            if kind == END && subtype == END_ENTIRE {
                break;
            }
            nodes.push(DeviceNode::decode(kind, subtype, body));
        }
        // Several paths may follow each other; what comes after the first is for the loader's own use and we have no
        // entry of our own that has it. It would be lost in writing, so such an option is not ours to decode.
        if !path.is_empty() {
            return Err(DecodeError::NodeLength(path.len()));
        }
        Ok(Self {
            attributes: u32::from_le_bytes(*attributes),
            description: from_utf16(description),
            path: nodes,
            optional_data: optional.to_vec(),
        })
    }
}

impl DeviceNode {
    fn encode(&self) -> (u8, u8, Vec<u8>) {
        match self {
            Self::HardDrive { number, start, size, signature } => {
                let (raw, format, kind) = match signature {
                    PartitionSignature::None => ([0; 16], FORMAT_MBR, SIGNATURE_NONE),
                    PartitionSignature::Mbr(disk) => {
                        let mut raw = [0; 16];
                        raw[..4].copy_from_slice(disk);
                        (raw, FORMAT_MBR, SIGNATURE_MBR)
                    }
                    PartitionSignature::Gpt(guid) => (*guid, FORMAT_GPT, SIGNATURE_GUID),
                    PartitionSignature::Other { format, kind, raw } => (*raw, *format, *kind),
                };
                let mut body = number.to_le_bytes().to_vec();
                body.extend(start.to_le_bytes());
                body.extend(size.to_le_bytes());
                body.extend(raw);
                body.extend([format, kind]);
                (MEDIA, HARD_DRIVE, body)
            }
            Self::File(path) => (MEDIA, FILE_PATH, utf16(path)),
            Self::Other { kind, subtype, data } => (*kind, *subtype, data.clone()),
        }
    }

    /// What is not exactly of a known form stays as it is, so that writing it back changes nothing.
    fn decode(kind: u8, subtype: u8, body: &[u8]) -> Self {
        let node = match (kind, subtype) {
            (MEDIA, HARD_DRIVE) => Self::decode_hard_drive(body),
            (MEDIA, FILE_PATH) => Some(Self::File(from_utf16(body.strip_suffix(&[0, 0]).unwrap_or(body)))),
            _ => None,
        };
        node.filter(|node| node.encode() == (kind, subtype, body.to_vec())).unwrap_or_else(|| Self::Other {
            kind,
            subtype,
            data: body.to_vec(),
        })
    }

    fn decode_hard_drive(body: &[u8]) -> Option<Self> {
        let (number, body) = body.split_first_chunk()?;
        let (start, body) = body.split_first_chunk()?;
        let (size, body) = body.split_first_chunk()?;
        let (raw, body) = body.split_first_chunk::<16>()?;
        let [format, kind] = body else { return None };
        let signature = match (*format, *kind) {
            (FORMAT_GPT, SIGNATURE_GUID) => PartitionSignature::Gpt(*raw),
            (FORMAT_MBR, SIGNATURE_MBR) => PartitionSignature::Mbr([raw[0], raw[1], raw[2], raw[3]]),
            (FORMAT_MBR, SIGNATURE_NONE) => PartitionSignature::None,
            (format, kind) => PartitionSignature::Other { format, kind, raw: *raw },
        };
        Some(Self::HardDrive {
            number: u32::from_le_bytes(*number),
            start: u64::from_le_bytes(*start),
            size: u64::from_le_bytes(*size),
            signature,
        })
    }
}

fn push_node(path: &mut Vec<u8>, kind: u8, subtype: u8, body: &[u8]) {
    path.extend([kind, subtype]);
    path.extend(length(4 + body.len()));
    path.extend(body);
}

fn length(len: usize) -> [u8; 2] {
    u16::try_from(len).expect("labels and loader paths are validated to a few hundred characters").to_le_bytes()
}

/// With the terminating zero that the format wants.
fn utf16(text: &str) -> Vec<u8> {
    text.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect()
}

fn from_utf16(bytes: &[u8]) -> String {
    let units: Vec<u16> = bytes.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect();
    String::from_utf16_lossy(&units)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Laid out by hand after the specification; OVMF shows this entry as
    /// `HD(1,GPT,00112233-4455-6677-8899-AABBCCDDEEFF,0x800,0x100000)/\EFI\A.EFI`.
    #[test]
    fn the_bytes_are_those_of_the_specification() {
        let guid = [0x33, 0x22, 0x11, 0x00, 0x55, 0x44, 0x77, 0x66, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff];
        let option = LoadOption::for_file("A", 1, 0x800, 0x10_0000, guid, "\\E");
        let mut expected = vec![1, 0, 0, 0, 56, 0, b'A', 0, 0, 0];
        expected.extend([4, 1, 42, 0, 1, 0, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0x10, 0, 0, 0, 0, 0]);
        expected.extend(guid);
        expected.extend([2, 2]);
        expected.extend([4, 4, 10, 0, b'\\', 0, b'E', 0, 0, 0]);
        expected.extend([0x7f, 0xff, 4, 0]);
        assert_eq!(option.encode(), expected);
        assert_eq!(LoadOption::decode(&expected).expect("good"), option);
        assert_eq!(option.target(), Some((guid, "\\E")));
    }

    #[test]
    fn damage_is_named() {
        let good = LoadOption::for_file("A", 1, 0, 0, [1; 16], "\\E").encode();
        assert_eq!(LoadOption::decode(&good[..3]), Err(DecodeError::CutShort));
        assert_eq!(LoadOption::decode(&good[..9]), Err(DecodeError::Description));
        assert_eq!(LoadOption::decode(&good[..20]), Err(DecodeError::CutShort));
        let mut zero_node = good.clone();
        zero_node[12] = 0;
        assert_eq!(LoadOption::decode(&zero_node), Err(DecodeError::NodeLength(0)));
        let mut endless = good;
        let last = endless.len() - 3;
        endless[last] = 0x01;
        assert_eq!(LoadOption::decode(&endless), Err(DecodeError::NoEnd));
    }

    fn node() -> impl Strategy<Value = DeviceNode> {
        let signature = prop_oneof![
            Just(PartitionSignature::None),
            any::<[u8; 4]>().prop_map(PartitionSignature::Mbr),
            any::<[u8; 16]>().prop_map(PartitionSignature::Gpt),
        ];
        prop_oneof![
            (any::<u32>(), any::<u64>(), any::<u64>(), signature)
                .prop_map(|(number, start, size, signature)| DeviceNode::HardDrive { number, start, size, signature }),
            "[A-Za-z\\\\.ü😀]{0,40}".prop_map(DeviceNode::File),
            (0u8..4, any::<u8>(), prop::collection::vec(any::<u8>(), 0..40))
                .prop_map(|(kind, subtype, data)| DeviceNode::Other { kind, subtype, data }),
        ]
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            attributes in any::<u32>(),
            description in "[^\0]{0,40}",
            path in prop::collection::vec(node(), 0..5),
            optional_data in prop::collection::vec(any::<u8>(), 0..40),
        ) {
            let option = LoadOption { attributes, description, path, optional_data };
            prop_assert_eq!(LoadOption::decode(&option.encode()), Ok(option));
        }

        #[test]
        fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            if let Ok(option) = LoadOption::decode(&bytes) {
                prop_assert!(option.encode().len() <= bytes.len());
            }
        }

        /// Whatever firmware stored: an entry that we decode and write back unchanged is the same bytes.
        #[test]
        fn decoding_loses_nothing(
            description in "[a-zA-Z ]{0,20}",
            body in prop::collection::vec(any::<u8>(), 0..60),
            subtype in 0u8..6,
        ) {
            let mut bytes = vec![1, 0, 0, 0];
            bytes.extend(length(4 + body.len() + 4));
            bytes.extend(utf16(&description));
            push_node(&mut bytes, MEDIA, subtype, &body);
            push_node(&mut bytes, END, END_ENTIRE, &[]);
            prop_assert_eq!(LoadOption::decode(&bytes).expect("well-formed").encode(), bytes);
        }
    }
}

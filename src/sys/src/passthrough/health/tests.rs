//! Pages as the specifications lay them out.

use std::time::Duration;

use proptest::prelude::*;
use speediso_model::inventory::health::Verdict;

use super::*;
use crate::passthrough::questions::{is_nvme_question, is_scsi_question};
use crate::passthrough::{Data, NvmeCommand, ScsiAnswer, Sense};

/// Gives pages by number, and takes nothing but questions.
#[derive(Default)]
struct Recorded {
    /// Log pages of NVMe, SCSI log pages, and of ATA: 0xec identity, 0xd0 attributes, 0xd5 self-tests, 0x100 and up statistics.
    pages: Vec<(u16, Vec<u8>)>,
    ata: bool,
    fails: bool,
}

impl Recorded {
    fn with(mut self, number: u16, page: &[u8]) -> Self {
        self.pages.push((number, page.to_vec()));
        self
    }

    fn page(&self, number: u16) -> Option<&[u8]> {
        self.pages.iter().find(|(n, _)| *n == number).map(|(_, page)| page.as_slice())
    }
}

fn fill(data: &mut Data<'_>, page: &[u8]) {
    if let Data::In(bytes) = data {
        let n = bytes.len().min(page.len());
        bytes[..n].copy_from_slice(&page[..n]);
    }
}

impl Passthrough for Recorded {
    fn nvme(
        &self,
        name: &'static str,
        command: &NvmeCommand,
        mut data: Data<'_>,
        _: Duration,
    ) -> Result<u32, CommandError> {
        assert!(is_nvme_question(command, &data), "{name}");
        let number = if command.opcode == 0x02 { command.cdw10 & 0xff } else { 0x600 | command.cdw10 & 0xff };
        let page = self.page(u16::try_from(number).expect("small")).ok_or_else(|| nvme::declined(name, 0x109))?;
        fill(&mut data, page);
        Ok(0)
    }

    fn nvme_namespace(&self) -> Result<u32, CommandError> {
        Ok(1)
    }

    fn scsi(
        &self,
        name: &'static str,
        cdb: &[u8],
        mut data: Data<'_>,
        _: Duration,
    ) -> Result<ScsiAnswer, CommandError> {
        assert!(is_scsi_question(cdb, &data), "{name}: {cdb:x?}");
        let good = Ok(ScsiAnswer { status: 0, sense: None });
        let number = match cdb {
            [0x12, ..] => {
                let mut inquiry = [b' '; 36];
                inquiry[..8].fill(0);
                inquiry[8..16].copy_from_slice(if self.ata { b"ATA     " } else { b"SEAGATE " });
                fill(&mut data, &inquiry);
                return good;
            }
            [0x4d, _, page, ..] => u16::from(page & 0x3f),
            [0x37, ..] => 0x37,
            // SMART RETURN STATUS tells by its registers (SAT-4, 12.2.2.7).
            [0x85, _, _, _, 0xda, ..] => {
                let (mid, high) = if self.fails { (0xf4, 0x2c) } else { (0x4f, 0xc2) };
                let raw = [0x72, 1, 0, 0x1d, 0, 0, 0, 14, 9, 12, 0, 0, 0, 0, 0, 0, 0, mid, 0, high, 0, 0x50];
                return Ok(ScsiAnswer { status: 2, sense: Sense::parse(&raw) });
            }
            [0x85, _, _, _, feature, rest @ ..] => match rest[9] {
                0xec => 0xec,
                // The page's number is in the next byte of the LBA.
                0x2f => 0x100 | u16::from(rest[5]),
                _ => u16::from(*feature),
            },
            _ => panic!("{cdb:x?}"),
        };
        match self.page(number) {
            Some(page) => {
                fill(&mut data, page);
                good
            }
            // ILLEGAL REQUEST, invalid field.
            None => Ok(ScsiAnswer { status: 2, sense: Sense::parse(&[0x72, 5, 0x24, 0, 0, 0, 0, 0]) }),
        }
    }
}

/// NVMe base specification 2.0, figure 207.
fn smart_log() -> [u8; 512] {
    let mut page = [0; 512];
    page[1..3].copy_from_slice(&308u16.to_le_bytes());
    (page[3], page[4], page[5]) = (100, 10, 3);
    for (at, value) in [(32, 2000u64), (48, 1000), (112, 41), (128, 9001), (144, 7), (160, 0)] {
        page[at..at + 8].copy_from_slice(&value.to_le_bytes());
    }
    page
}

fn drive(log: &[u8]) -> Recorded {
    let mut identity = [0; 4096];
    // OACS with self-tests; a warning at 70 degrees.
    identity[256] = 1 << 4;
    identity[266..268].copy_from_slice(&343u16.to_le_bytes());
    let mut tests = [0; 564];
    tests[4] = 0x20;
    tests[8..16].copy_from_slice(&8000u64.to_le_bytes());
    Recorded::default().with(0x02, log).with(0x601, &identity).with(0x06, &tests)
}

#[test]
fn an_nvme_drive_tells_its_log() {
    let health = nvme(&drive(&smart_log())).expect("answered");
    assert_eq!((health.verdict, health.passed, health.temperature_c), (Verdict::Good, Some(true), Some(35)));
    assert_eq!(
        (health.temperature_limit_c, health.power_on_hours, health.power_cycles),
        (Some(70), Some(9001), Some(41))
    );
    assert_eq!(
        (health.available_spare, health.percentage_used, health.unsafe_shutdowns),
        (Some(100), Some(3), Some(7))
    );
    assert_eq!((health.bytes_read, health.bytes_written), (Some(1_024_000_000), Some(512_000_000)));
    let test = health.self_test.expect("one");
    assert_eq!((test.kind.as_str(), test.outcome, test.at_hours), ("extended", TestOutcome::Passed, Some(8000)));

    let mut log = smart_log();
    (log[0], log[3]) = (0b1001, 4);
    let health = nvme(&drive(&log)).expect("answered");
    assert_eq!(health.verdict, Verdict::Failing);
    let reasons = health.reasons.join("; ");
    assert!(reasons.contains("read-only") && reasons.contains("available_spare is 4 %"), "{reasons}");
    // Heat alone is no failure.
    log = smart_log();
    log[0] = 0b10;
    assert_eq!(nvme(&drive(&log)).expect("answered").verdict, Verdict::Suspect);
}

/// ACS-4: words 82 and 85 say SMART, 84 self-tests and logging, 76 and 77 the speeds.
fn ata_disk() -> Recorded {
    let mut identity = [0u8; 512];
    let mut word = |n: usize, value: u16| identity[2 * n..2 * n + 2].copy_from_slice(&value.to_le_bytes());
    word(82, 1);
    word(85, 1);
    word(84, 1 << 5 | 1 << 1);
    word(76, 0b1110);
    word(77, 2 << 1);
    let mut attributes = [0u8; 512];
    let list: [(u8, u64); 9] = [
        (5, 8),
        (9, 0x5a_0000_1234),
        (12, 90),
        (187, 0),
        (192, 11),
        (194, 0x002d_0014_0023),
        (197, 0),
        (198, 0),
        (199, 2),
    ];
    for (place, (id, raw)) in attributes[2..].chunks_exact_mut(12).zip(list) {
        place[0] = id;
        place[5..11].copy_from_slice(&raw.to_le_bytes()[..6]);
    }
    let mut tests = [0u8; 512];
    tests[508] = 2;
    tests[26..35].copy_from_slice(&[1, 0x70, 0x34, 0x12, 0, 0x78, 0x56, 0x34, 0x12]);
    Recorded { ata: true, ..Recorded::default() }.with(0xec, &identity).with(0xd0, &attributes).with(0xd5, &tests)
}

#[test]
fn an_ata_disk_tells_its_attributes() {
    let disk = ata_disk();
    let health = scsi_or_ata(&disk).expect("answered").expect("it has SMART");
    assert_eq!((health.passed, health.reallocated_sectors, health.pending_sectors), (Some(true), Some(8), Some(0)));
    assert_eq!((health.power_on_hours, health.power_cycles, health.temperature_c), (Some(0x1234), Some(90), Some(35)));
    assert_eq!((health.unsafe_shutdowns, health.interface_errors, health.media_errors), (Some(11), Some(2), Some(0)));
    let test = health.self_test.expect("one");
    assert_eq!(
        (test.outcome, test.at_hours, test.first_bad_lba),
        (TestOutcome::Failed, Some(0x1234), Some(0x1234_5678))
    );
    assert_eq!(health.verdict, Verdict::Failing, "its own test failed, whatever its status");
    assert_eq!(sata_speeds(&disk).expect("answered"), (Some(3000), Some(6000)));
    let failing = Recorded { fails: true, ..ata_disk() };
    assert_eq!(scsi_or_ata(&failing).expect("answered").map(|h| h.passed), Some(Some(false)));
}

#[test]
fn statistics_count_before_attributes() {
    // ACS-4, 9.5: which pages there are; supported and valid are the upper two bits.
    let valid = 3u64 << 62;
    let page = |number: u8, values: &[(usize, u64)]| {
        let mut page = [0u8; 512];
        page[2] = number;
        for (at, value) in values {
            page[*at..at + 8].copy_from_slice(&value.to_le_bytes());
        }
        page
    };
    let mut list = page(0, &[]);
    (list[8], list[9], list[10], list[11], list[12]) = (4, 0, 1, 5, 7);
    let disk = ata_disk()
        .with(0x100, &list)
        .with(0x101, &page(1, &[(8, valid | 91), (16, valid | 5000), (24, valid | 10), (40, 1 << 63 | 20)]))
        .with(0x105, &page(5, &[(8, valid | 0xfb), (88, valid | 60)]))
        .with(0x107, &page(7, &[(8, valid | 12)]));
    let health = scsi_or_ata(&disk).expect("answered").expect("it has SMART");
    assert_eq!((health.power_on_hours, health.power_cycles, health.percentage_used), (Some(5000), Some(91), Some(12)));
    assert_eq!((health.bytes_written, health.bytes_read), (Some(5120), None), "the second is not valid");
    assert_eq!((health.temperature_c, health.temperature_limit_c), (Some(-5), Some(60)));
}

#[test]
fn a_scsi_disk_tells_its_log_pages() {
    // SPC-5, 7.3.2: page, subpage, length; parameters of code, control, length.
    let page = |number: u8, parameters: &[(u16, &[u8])]| {
        let mut body = Vec::new();
        for (code, value) in parameters {
            body.extend(code.to_be_bytes());
            body.extend([3, u8::try_from(value.len()).expect("short")]);
            body.extend(*value);
        }
        [&[number, 0][..], &u16::try_from(body.len()).expect("short").to_be_bytes(), &body].concat()
    };
    let list = [0, 0, 0, 9, 0, 2, 3, 0x0d, 0x0e, 0x10, 0x11, 0x15, 0x2f];
    let disk = |asc: u8| {
        let test = [0x20, 1, 0x12, 0x34, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0];
        Recorded::default()
            .with(0x00, &list)
            .with(0x02, &page(2, &[(5, &[0, 0, 0, 1, 0, 0]), (6, &[0, 1])]))
            .with(0x03, &page(3, &[(5, &[2, 0]), (6, &[0, 0, 0, 2])]))
            .with(0x0d, &page(0x0d, &[(0, &[0, 31]), (1, &[0, 65])]))
            .with(0x0e, &page(0x0e, &[(3, &[0, 0, 0, 9]), (4, &[0, 0, 0, 17])]))
            .with(0x10, &page(0x10, &[(1, &test)]))
            .with(0x11, &page(0x11, &[(1, &[0, 0, 0, 4])]))
            .with(0x15, &page(0x15, &[(0, &[0, 0, 2, 88, 0, 0, 0, 0, 0, 0, 0, 0])]))
            .with(0x2f, &page(0x2f, &[(0, &[asc, 0x10, 30, 0])]))
            .with(0x37, &[0, 0b1101, 0, 24])
    };
    let health = scsi_or_ata(&disk(0)).expect("answered").expect("it keeps pages");
    assert_eq!((health.passed, health.temperature_c, health.temperature_limit_c), (Some(true), Some(31), Some(65)));
    assert_eq!((health.media_errors, health.power_on_hours, health.power_cycles), (Some(3), Some(10), Some(17)));
    assert_eq!((health.bytes_read, health.bytes_written), (Some(512), Some(65536)));
    assert_eq!((health.percentage_used, health.reallocated_sectors), (Some(4), Some(3)));
    assert_eq!(health.self_test.as_ref().map(|t| (t.outcome, t.at_hours)), Some((TestOutcome::Passed, Some(0x1234))));
    assert_eq!(health.verdict, Verdict::Suspect, "three errors were not corrected");
    let failing = scsi_or_ata(&disk(0x5d)).expect("answered").expect("it keeps pages");
    assert_eq!((failing.verdict, failing.passed), (Verdict::Failing, Some(false)));
    assert!(failing.reasons[0].contains("expects to fail (5d/10)"), "{:?}", failing.reasons);
    // A volume keeps none.
    assert_eq!(scsi_or_ata(&Recorded::default()).expect("answered"), None);
}

proptest! {
    #[test]
    fn any_page_is_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        let mut identity = bytes.clone();
        identity.resize(512, 0x5a);
        identity[510] = 0;
        let disk = Recorded { ata: true, ..Recorded::default() }.with(0xec, &identity).with(0xd0, &bytes).with(0xd5, &bytes);
        let disk = (0..8).fold(disk, |disk, n| disk.with(0x100 | n, &bytes));
        let _ = scsi_or_ata(&disk);
        let pages: Vec<u8> = (0..0x3f).collect();
        let list = [&[0, 0, 0, 0x3f][..], &pages].concat();
        let disk = Recorded::default().with(0, &list).with(0x37, &bytes);
        let disk = (1..0x40).fold(disk, |disk, n| {
            let mut page = bytes.clone();
            page.resize(page.len().max(4), 0);
            page[0] = u8::try_from(n).expect("small");
            disk.with(n, &page)
        });
        let _ = scsi_or_ata(&disk);
        let _ = nvme(&Recorded::default().with(0x02, &bytes).with(0x06, &bytes).with(0x601, &bytes));
    }
}

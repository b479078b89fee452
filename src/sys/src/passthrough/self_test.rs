//! Drives that test themselves: NVMe Device Self-test (NVMe base specification 2.0, 5.9), SMART self-tests of ATA (ACS-3,
//! 7.53), background self-tests of SCSI (SPC-5, SEND DIAGNOSTIC).
//!
//! Beginning one is a command that only a claimed disk carries; how it stands is read from the drive's own log.

use std::time::Duration;

use super::{CommandError, Data, NvmeCommand, Passthrough, SOON, ata, le16, le64, nvme, scsi};

/// How thorough.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SelfTest {
    /// Minutes: electronics, and a sample of the medium.
    Short,
    /// Hours: the whole medium.
    Extended,
}

/// What a drive speaks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Language {
    Nvme,
    Ata,
    Scsi,
}

/// How the last self-test stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SelfTestState {
    /// None was ever made.
    Never,
    Running {
        percent_done: Option<u8>,
    },
    Passed,
    /// Somebody, or a reset, ended it.
    Aborted(String),
    Failed {
        what: String,
        first_bad: Option<u64>,
    },
}

impl Language {
    /// What a disk that is reached as SCSI really speaks.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn of_scsi(device: &dyn Passthrough) -> Result<Self, CommandError> {
        Ok(if scsi::inquiry(device)?.is_ata() { Self::Ata } else { Self::Scsi })
    }
}

/// Begins; [`state`] tells how it goes.
///
/// # Errors
/// When the drive declines, has no self-test for instance.
pub fn begin(device: &dyn Passthrough, language: Language, test: SelfTest) -> Result<(), CommandError> {
    match language {
        Language::Nvme => {
            let code = match test {
                SelfTest::Short => 1,
                SelfTest::Extended => 2,
            };
            let namespace = device.nvme_namespace()?;
            let command =
                NvmeCommand { opcode: nvme::DEVICE_SELF_TEST, namespace, cdw10: code, ..NvmeCommand::default() };
            device.nvme("NVMe Device Self-test", &command, Data::None, SOON).map(drop)
        }
        // The off-line modes, in which the drive goes on to take other commands.
        Language::Ata => ata::begin_self_test(device, if test == SelfTest::Short { 1 } else { 2 }),
        Language::Scsi => {
            const NAME: &str = "SCSI SEND DIAGNOSTIC";
            const SEND_DIAGNOSTIC: u8 = 0x1d;
            // SELF-TEST CODE: background short 001b, background extended 010b.
            let code = if test == SelfTest::Short { 0b001 } else { 0b010 };
            let cdb = [SEND_DIAGNOSTIC, code << 5, 0, 0, 0, 0];
            scsi::good(NAME, device.scsi(NAME, &cdb, Data::None, Duration::from_mins(2))?)
        }
    }
}

/// # Errors
/// When the drive has no such log, or does not answer.
pub fn state(device: &dyn Passthrough, language: Language) -> Result<SelfTestState, CommandError> {
    match language {
        Language::Nvme => {
            let mut page = [0; 564];
            nvme::log(device, "NVMe Device Self-test log", 0x06, &mut page)?;
            Ok(of_nvme(&page))
        }
        Language::Ata => Ok(of_ata(&ata::smart_data(device)?)),
        Language::Scsi => {
            const NAME: &str = "SCSI self-test results log";
            const LOG_SENSE: u8 = 0x4d;
            const RESULTS: u8 = 0x10;
            let mut page = [0; 404];
            // PC 01b: cumulative values.
            let cdb = [LOG_SENSE, 0, 0x40 | RESULTS, 0, 0, 0, 0, 0x01, 0x94, 0];
            scsi::good(NAME, device.scsi(NAME, &cdb, Data::In(&mut page), SOON)?)?;
            Ok(of_scsi(&page))
        }
    }
}

fn of_nvme(page: &[u8; 564]) -> SelfTestState {
    if page[0] & 0x0f != 0 {
        return SelfTestState::Running { percent_done: Some(page[1] & 0x7f) };
    }
    // The newest result comes first. Its failing address is valid if bit 1 of the third byte says so.
    let newest = &page[4..32];
    let first_bad = (newest[2] & 2 != 0).then(|| le64(newest, 16));
    let aborted = |why: &str| SelfTestState::Aborted(why.to_owned());
    match newest[0] & 0x0f {
        0x0 => SelfTestState::Passed,
        0x1 => aborted("by a command"),
        0x2 => aborted("by a reset of the controller"),
        0x3 => aborted("its namespace was taken away"),
        0x4 => aborted("by a format"),
        0x8 => aborted("for a reason the drive does not know"),
        0x9 => aborted("by a sanitize"),
        0xf => SelfTestState::Never,
        0x7 => SelfTestState::Failed { what: format!("segment {} failed", newest[1]), first_bad },
        code => {
            SelfTestState::Failed { what: format!("a fatal error or a failed segment (result {code:#x})"), first_bad }
        }
    }
}

fn of_ata(page: &[u8]) -> SelfTestState {
    let status = page.get(363).copied().unwrap_or(0);
    let failed = |what: &str| SelfTestState::Failed { what: what.to_owned(), first_bad: None };
    match status >> 4 {
        0x0 => SelfTestState::Passed,
        0x1 => SelfTestState::Aborted("by the host".into()),
        0x2 => SelfTestState::Aborted("by a reset".into()),
        0x5 => failed("the electrical element failed"),
        0x6 => failed("the servo element failed"),
        0x7 => failed("the read element failed"),
        0x8 => failed("it failed, and the drive suspects damage from handling"),
        0xf => SelfTestState::Running { percent_done: Some(100u8.saturating_sub((status & 0x0f) * 10)) },
        _ => failed("a fatal or unknown error"),
    }
}

fn of_scsi(page: &[u8]) -> SelfTestState {
    let length = usize::from(le16(page, 2).swap_bytes());
    // Header of four bytes, then parameters of twenty, the newest first.
    let Some(newest) = page.get(4..24).filter(|_| length >= 20) else { return SelfTestState::Never };
    let (code, result) = (newest[4] >> 5, newest[4] & 0x0f);
    let hours = le16(newest, 6).swap_bytes();
    let address = u64::from_be_bytes(newest[8..16].try_into().unwrap_or_default());
    match result {
        0x0 if code == 0 && hours == 0 => SelfTestState::Never,
        0x0 => SelfTestState::Passed,
        0x1 | 0x2 => SelfTestState::Aborted("by the host, or by a reset".into()),
        0xf => SelfTestState::Running { percent_done: None },
        code => SelfTestState::Failed {
            what: format!("result {code:#x} in segment {}", newest[5]),
            first_bad: (address != u64::MAX).then_some(address),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nvme_logs_are_read_as_the_specification_has_them() {
        let mut page = [0; 564];
        (page[0], page[1]) = (2, 37);
        assert_eq!(of_nvme(&page), SelfTestState::Running { percent_done: Some(37) });
        (page[0], page[4]) = (0, 0x1f);
        assert_eq!(of_nvme(&page), SelfTestState::Never);
        page[4] = 0x10;
        assert_eq!(of_nvme(&page), SelfTestState::Passed);
        (page[4], page[5], page[6], page[20]) = (0x27, 3, 2, 99);
        assert_eq!(of_nvme(&page), SelfTestState::Failed { what: "segment 3 failed".into(), first_bad: Some(99) });
        page[4] = 0x22;
        assert!(matches!(of_nvme(&page), SelfTestState::Aborted(_)));
    }

    #[test]
    fn ata_tells_it_in_a_byte() {
        let mut page = vec![0; 512];
        for (byte, state) in [
            (0x00, SelfTestState::Passed),
            (0xf3, SelfTestState::Running { percent_done: Some(70) }),
            (0x70, SelfTestState::Failed { what: "the read element failed".into(), first_bad: None }),
            (0x10, SelfTestState::Aborted("by the host".into())),
        ] {
            page[363] = byte;
            assert_eq!(of_ata(&page), state);
        }
        assert_eq!(of_ata(&[]), SelfTestState::Passed, "what is cut off was never read: smart_data gives 512 bytes");
    }

    #[test]
    fn scsi_results_have_the_newest_first() {
        let mut page = [0; 404];
        page[0] = 0x10;
        assert_eq!(of_scsi(&page), SelfTestState::Never);
        (page[2], page[3]) = (0x01, 0x90);
        assert_eq!(of_scsi(&page), SelfTestState::Never, "an unused parameter");
        (page[8], page[11]) = (1 << 5, 7);
        assert_eq!(of_scsi(&page), SelfTestState::Passed);
        page[8] = 1 << 5 | 0xf;
        assert_eq!(of_scsi(&page), SelfTestState::Running { percent_done: None });
        (page[8], page[9], page[19]) = (2 << 5 | 7, 4, 12);
        let SelfTestState::Failed { what, first_bad } = of_scsi(&page) else { panic!("{:?}", of_scsi(&page)) };
        assert!(what.contains("segment 4") && first_bad == Some(12), "{what}");
    }
}

//! Commands that change nothing: what a disk may be asked that nobody has claimed.

use super::{Data, NvmeCommand, ata, nvme, opal, scsi, smart};

/// Whether the command only asks. Everything that is not known to is not.
#[must_use]
pub fn is_nvme_question(command: &NvmeCommand, data: &Data<'_>) -> bool {
    // Get Log Page may clear a pending event unless it is told to retain it; none of the pages read here has events.
    let asks = match command.opcode {
        nvme::IDENTIFY | nvme::GET_LOG_PAGE => true,
        // Of TCG's protocol the discovery; what else is received there answers what was sent.
        nvme::SECURITY_RECEIVE => command.cdw10 == u32::from(opal::PROTOCOL) << 24 | u32::from(opal::DISCOVERY) << 8,
        _ => false,
    };
    asks && !matches!(data, Data::Out(_))
}

#[must_use]
pub fn is_scsi_question(cdb: &[u8], data: &Data<'_>) -> bool {
    if matches!(data, Data::Out(_)) {
        return false;
    }
    match cdb {
        [scsi::INQUIRY | scsi::REQUEST_SENSE | scsi::READ_DEFECT_DATA, ..] => true,
        // Bit 0 would save the parameters.
        [scsi::LOG_SENSE, flags, ..] => flags & 1 == 0,
        [scsi::SERVICE_ACTION_IN_16, action, ..] => action & 0x1f == scsi::READ_CAPACITY_16,
        [scsi::SECURITY_PROTOCOL_IN, protocol, high, low, ..] => {
            *protocol == opal::PROTOCOL && u16::from_be_bytes([*high, *low]) == opal::DISCOVERY
        }
        [scsi::MAINTENANCE_IN, action, ..] => action & 0x1f == scsi::REPORT_SUPPORTED_OPCODES,
        // The address of the discovery is in bits 8 to 23 of the LBA, of which these are the second and the third byte.
        [scsi::ATA_PASS_THROUGH_16, _, _, _, feature, _, _, _, _, _, low, _, high, _, ata::TRUSTED_RECEIVE, _] => {
            *feature == opal::PROTOCOL && u16::from_be_bytes([*high, *low]) == opal::DISCOVERY
        }
        [scsi::ATA_PASS_THROUGH_16, _, _, f1, f0, c1, c0, _, l0, .., command, _] if cdb.len() == 16 => {
            let (feature, count) = (u16::from_be_bytes([*f1, *f0]), u16::from_be_bytes([*c1, *c0]));
            match *command {
                ata::IDENTIFY_DEVICE | ata::READ_NATIVE_MAX_ADDRESS_EXT => true,
                ata::DEVICE_CONFIGURATION => feature == ata::DCO_IDENTIFY,
                ata::ACCESSIBLE_MAX_ADDRESS => feature == ata::GET_NATIVE_MAX,
                // With the bit in its count it would forget that the last one failed.
                ata::SANITIZE_DEVICE => feature == ata::SANITIZE_STATUS && count == 0,
                ata::SMART => match feature {
                    ata::SMART_READ_DATA | ata::SMART_RETURN_STATUS => true,
                    ata::SMART_READ_LOG => *l0 == smart::SELF_TEST_LOG,
                    _ => false,
                },
                // Reading the log of NCQ errors would clear it.
                ata::READ_LOG_EXT => *l0 == smart::STATISTICS_LOG,
                _ => false,
            }
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changes_a_disk_is_no_question() {
        for opcode in
            [nvme::SANITIZE, nvme::FORMAT_NVM, nvme::NAMESPACE_ATTACHMENT, nvme::NAMESPACE_MANAGEMENT, 0x09, 0x10]
        {
            assert!(!is_nvme_question(&NvmeCommand { opcode, ..NvmeCommand::default() }, &Data::None), "{opcode:#x}");
        }
        let mut ata = [0; 16];
        ata[0] = scsi::ATA_PASS_THROUGH_16;
        for command in 0..=u8::MAX {
            for feature in [0, 0x11, 0x12, 0x14, 0x20, 0x40, 0xc0, 0xc1, 0xc3, 0xd8, 0xd9] {
                (ata[4], ata[14]) = (feature, command);
                let question = is_scsi_question(&ata, &Data::None);
                let known = match command {
                    0xec | 0x27 => true,
                    0x78 | 0xb4 => feature == 0,
                    _ => false,
                };
                assert_eq!(question, known, "command {command:#x} with feature {feature:#x}");
                assert!(!is_scsi_question(&ata, &Data::Out(&[0; 512])));
            }
        }
        for (command, feature) in [(ata::READ_LOG_EXT, 0), (ata::SMART, 0xd5)] {
            (ata[4], ata[14]) = (feature, command);
            for log in 0..=u8::MAX {
                ata[8] = log;
                let read = matches!((command, log), (ata::READ_LOG_EXT, 0x04) | (ata::SMART, 0x06));
                assert_eq!(is_scsi_question(&ata, &Data::None), read, "log {log:#x}");
            }
        }
        ata[8] = 0;
        (ata[6], ata[4], ata[14]) = (1, 0, ata::SANITIZE_DEVICE);
        assert!(!is_scsi_question(&ata, &Data::None), "it clears the memory of a failure");
        let receive = |cdw10| NvmeCommand { opcode: nvme::SECURITY_RECEIVE, cdw10, ..NvmeCommand::default() };
        assert!(is_nvme_question(&receive(0x0100_0100), &Data::None), "the discovery");
        for cdw10 in [0x0110_0400, 0x0200_0100, 0x0100_0000] {
            assert!(!is_nvme_question(&receive(cdw10), &Data::None), "{cdw10:#x}");
        }
        let send = NvmeCommand { opcode: nvme::SECURITY_SEND, ..receive(0x0100_0100) };
        assert!(!is_nvme_question(&send, &Data::None));
        for (cdb, asks) in [
            ([scsi::SECURITY_PROTOCOL_IN, 1, 0, 1], true),
            ([scsi::SECURITY_PROTOCOL_IN, 1, 0x10, 4], false),
            ([scsi::SECURITY_PROTOCOL_IN, 2, 0, 1], false),
            ([scsi::SECURITY_PROTOCOL_OUT, 1, 0, 1], false),
        ] {
            assert_eq!(is_scsi_question(&cdb, &Data::None), asks, "{cdb:x?}");
        }
        assert!(is_scsi_question(&[scsi::LOG_SENSE, 0, 0x40, 0, 0, 0, 0, 0, 4, 0], &Data::None));
        for cdb in [
            &[scsi::SANITIZE, 0x82][..],
            &[scsi::LOG_SENSE, 1],
            &[0x4c, 2],
            &[0x04],
            &[0x2a],
            &[0x9e, 0x12],
            &[0xa3, 0x0a],
            &[],
        ] {
            assert!(!is_scsi_question(cdb, &Data::None), "{cdb:x?}");
        }
    }
}

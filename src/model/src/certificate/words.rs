//! What the standards' terms are called on a certificate.

use crate::wipe::{AreaKind, VerificationKind, WipeLevel, WipeMethod};

/// Purge includes clear.
#[must_use]
pub fn is_at_least(level: WipeLevel, wanted: WipeLevel) -> bool {
    level == wanted || level == WipeLevel::Purge
}

#[must_use]
pub fn method_name(method: WipeMethod) -> &'static str {
    match method {
        WipeMethod::NvmeSanitizeCrypto => "NVMe Sanitize, crypto erase",
        WipeMethod::NvmeSanitizeBlock => "NVMe Sanitize, block erase",
        WipeMethod::NvmeSanitizeOverwrite => "NVMe Sanitize, overwrite",
        WipeMethod::NvmeFormatCrypto => "NVMe Format with cryptographic erase",
        WipeMethod::NvmeFormatUserData => "NVMe Format with user data erase",
        WipeMethod::AtaSanitizeCrypto => "ATA Sanitize, crypto scramble",
        WipeMethod::AtaSanitizeBlock => "ATA Sanitize, block erase",
        WipeMethod::AtaSanitizeOverwrite => "ATA Sanitize, overwrite",
        WipeMethod::AtaSecurityEraseEnhanced => "ATA Security Erase, enhanced",
        WipeMethod::AtaSecurityErase => "ATA Security Erase",
        WipeMethod::ScsiSanitizeCrypto => "SCSI Sanitize, cryptographic erase",
        WipeMethod::ScsiSanitizeBlock => "SCSI Sanitize, block erase",
        WipeMethod::ScsiSanitizeOverwrite => "SCSI Sanitize, overwrite",
        WipeMethod::OpalRevert => "TCG Opal revert by PSID",
        WipeMethod::Overwrite => "overwriting every addressable sector",
    }
}

#[must_use]
pub fn verification_name(kind: VerificationKind) -> &'static str {
    match kind {
        VerificationKind::Full => "full: everything was read back and compared",
        VerificationKind::Sample => "sample: pieces at random places, and the ends, were read back and compared",
        VerificationKind::DeviceStatus => "the device's status, and a search for marks planted before",
        VerificationKind::None => "none",
    }
}

#[must_use]
pub fn area_name(kind: AreaKind) -> &'static str {
    match kind {
        AreaKind::User => "user data",
        AreaKind::Hpa => "host protected area",
        AreaKind::Dco => "device configuration overlay",
        AreaKind::Namespace => "NVMe namespace",
        AreaKind::BootPartition => "boot partition",
        AreaKind::Reserved => "reserved",
    }
}

//! The security feature set: passwords, and the erase that needs one (ACS-4, 4.19).

use std::fmt;
use std::time::Duration;

use super::{Fields, send};
use crate::passthrough::{CommandError, Data, Passthrough, SOON};

const SECURITY_SET_PASSWORD: u8 = 0xf1;
const SECURITY_UNLOCK: u8 = 0xf2;
const SECURITY_ERASE_PREPARE: u8 = 0xf3;
const SECURITY_ERASE_UNIT: u8 = 0xf4;
const SECURITY_DISABLE_PASSWORD: u8 = 0xf6;

/// Of every password that is set here: known to everybody, so that a disk whose power fails in the middle of an erase can
/// be opened by whoever reads this.
pub const ERASE_PASSWORD: &str = "speediso";

/// Which kind of SECURITY ERASE UNIT.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SecurityErase {
    Normal,
    Enhanced,
}

/// Whose password goes along with a command.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Password<'a> {
    pub text: &'a str,
    pub master: bool,
}

impl fmt::Debug for Password<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.master { "(master password)" } else { "(user password)" })
    }
}

const OURS: Password<'static> = Password { text: ERASE_PASSWORD, master: false };

fn security(
    device: &dyn Passthrough,
    name: &'static str,
    command: u8,
    control: u16,
    password: Password<'_>,
    limit: Duration,
) -> Result<(), CommandError> {
    let mut block = [0; 512];
    block[..2].copy_from_slice(&(control | u16::from(password.master)).to_le_bytes());
    let text = password.text.as_bytes();
    let text = &text[..text.len().min(32)];
    block[2..2 + text.len()].copy_from_slice(text);
    let fields = Fields { count: 1, ..Fields::default() };
    send(device, name, command, fields, Data::Out(&block), limit).map(drop)
}

/// Opens a locked disk until its power is gone. A disk takes five wrong passwords, then none before a power cycle.
///
/// # Errors
/// When the device declines: the password is another one.
pub fn security_unlock(device: &dyn Passthrough, password: Password<'_>) -> Result<(), CommandError> {
    security(device, "ATA SECURITY UNLOCK", SECURITY_UNLOCK, 0, password, SOON)
}

/// Sets [`ERASE_PASSWORD`] as user password, security level high. [`security_disable`] takes it away; a successful erase
/// does so too.
///
/// # Errors
/// When the device declines.
pub fn security_set_password(device: &dyn Passthrough) -> Result<(), CommandError> {
    security(device, "ATA SECURITY SET PASSWORD", SECURITY_SET_PASSWORD, 0, OURS, SOON)
}

/// Comes back when the disk has erased itself, which takes hours on a disk that turns.
///
/// # Errors
/// When the device declines or fails; then the password is still set.
pub fn security_erase(device: &dyn Passthrough, kind: SecurityErase, minutes: Option<u32>) -> Result<(), CommandError> {
    let prepare = "ATA SECURITY ERASE PREPARE";
    send(device, prepare, SECURITY_ERASE_PREPARE, Fields::default(), Data::None, SOON)?;
    // What the disk announces is a guess, and 508 minutes mean "at least"; half as much again and an hour.
    let announced = minutes.map_or(24 * 60, |m| if m >= 508 { 24 * 60 } else { m + m / 2 + 60 });
    let limit = Duration::from_mins(u64::from(announced));
    let control = if kind == SecurityErase::Enhanced { 1 << 1 } else { 0 };
    security(device, "ATA SECURITY ERASE UNIT", SECURITY_ERASE_UNIT, control, OURS, limit)
}

/// Takes the password away for good.
///
/// # Errors
/// When the device declines: it then keeps it.
pub fn security_disable(device: &dyn Passthrough, password: Password<'_>) -> Result<(), CommandError> {
    security(device, "ATA SECURITY DISABLE PASSWORD", SECURITY_DISABLE_PASSWORD, 0, password, SOON)
}

/// The same for [`ERASE_PASSWORD`].
///
/// # Errors
/// When the device declines: it then keeps it.
pub fn security_disable_ours(device: &dyn Passthrough) -> Result<(), CommandError> {
    security_disable(device, OURS)
}

//! What numbers mean (tables 42-3 and 43-15).

pub(super) fn sensor_kind(code: u8) -> String {
    let known = match code {
        0x01 => "temperature",
        0x02 => "voltage",
        0x03 => "current",
        0x04 => "fan",
        0x05 => "physical_security",
        0x06 => "platform_security",
        0x07 => "processor",
        0x08 => "power_supply",
        0x09 => "power_unit",
        0x0a => "cooling_device",
        0x0b => "other_units",
        0x0c => "memory",
        0x0d => "drive_slot",
        0x0e => "memory_resize",
        0x0f => "firmware_progress",
        0x10 => "event_logging",
        0x11 | 0x23 => "watchdog",
        0x12 => "system_event",
        0x13 => "critical_interrupt",
        0x14 => "button",
        0x15 => "module",
        0x16 => "microcontroller",
        0x17 => "add_in_card",
        0x18 => "chassis",
        0x19 => "chip_set",
        0x1a => "other_fru",
        0x1b => "cable",
        0x1c => "terminator",
        0x1d => "system_boot",
        0x1e => "boot_error",
        0x1f => "os_boot",
        0x20 => "os_stop",
        0x21 => "slot",
        0x22 => "acpi_power_state",
        0x24 => "platform_alert",
        0x25 => "entity_presence",
        0x26 => "monitor",
        0x27 => "lan",
        0x28 => "management_health",
        0x29 => "battery",
        0x2a => "session_audit",
        0x2b => "version_change",
        0x2c => "fru_state",
        other => return format!("{other:#04x}"),
    };
    known.to_owned()
}

/// Of the record's three bytes about units.
pub(super) fn unit(flags: u8, base: u8, modifier: u8) -> String {
    const NAMES: [&str; 21] = [
        "",
        "degrees C",
        "degrees F",
        "degrees K",
        "Volts",
        "Amps",
        "Watts",
        "Joules",
        "Coulombs",
        "VA",
        "Nits",
        "lumen",
        "lux",
        "Candela",
        "kPa",
        "PSI",
        "Newton",
        "CFM",
        "RPM",
        "Hz",
        "microseconds",
    ];
    let name = |code: u8| NAMES.get(usize::from(code)).map_or_else(|| format!("unit {code}"), |n| (*n).to_owned());
    let text = match (flags >> 1 & 3, modifier) {
        (1, m) if m != 0 => format!("{}/{}", name(base), name(m)),
        (2, m) if m != 0 => format!("{} * {}", name(base), name(m)),
        _ => name(base),
    };
    match (flags & 1 != 0, text.is_empty()) {
        (true, true) => "percent".to_owned(),
        (true, false) => format!("% {text}"),
        (false, _) => text,
    }
}

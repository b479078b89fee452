//! The kernel's monitoring drivers: temperatures, fans, voltages, power.

use std::io;
use std::path::Path;

use speediso_model::inventory::{Sensor, SensorKind};

use crate::roots::Roots;
use crate::sysfs;

/// All channels of all chips. A channel without a sensor at it is left out; one that fails is told.
#[must_use]
pub fn read(roots: &Roots, unread: &mut Vec<String>) -> Vec<Sensor> {
    let listed = sysfs::entries(&roots.sys.join("class/hwmon")).unwrap_or_else(|error| {
        sysfs::gap(unread, "sensors", &error);
        Vec::new()
    });
    let mut sensors = Vec::new();
    for (hwmon, dir) in listed {
        let chip = sysfs::read(&dir.join("name")).unwrap_or(hwmon);
        let device = sysfs::link_name(&dir.join("device"));
        let files = sysfs::entries(&dir).unwrap_or_default();
        for (file, path) in &files {
            let Some((channel, kind)) = measured(file) else { continue };
            // Where a chip gives both, the average says more.
            if kind == SensorKind::Power
                && file.ends_with("_input")
                && files.iter().any(|(other, _)| *other == format!("{channel}_average"))
            {
                continue;
            }
            match value(path, kind) {
                Ok(Some(value)) => sensors.push(sensor(&dir, &chip, device.as_deref(), channel, kind, value)),
                Ok(None) => {}
                Err(error) => sysfs::gap(unread, &format!("sensor {channel} of {chip}"), &error),
            }
        }
    }
    sensors
}

/// `temp1_input` -> `temp1`, a temperature.
fn measured(file: &str) -> Option<(&str, SensorKind)> {
    let channel = file.strip_suffix("_input").or_else(|| file.strip_suffix("_average"))?;
    let kind = match channel.trim_end_matches(|c: char| c.is_ascii_digit()) {
        "temp" => SensorKind::Temperature,
        "fan" => SensorKind::Fan,
        "in" => SensorKind::Voltage,
        "curr" => SensorKind::Current,
        "power" => SensorKind::Power,
        "energy" => SensorKind::Energy,
        "humidity" => SensorKind::Humidity,
        _ => return None,
    };
    Some((channel, kind))
}

fn value(path: &Path, kind: SensorKind) -> io::Result<Option<f64>> {
    // Thousandths, but for power and energy, which are millionths, and fans.
    let unit = match kind {
        SensorKind::Power | SensorKind::Energy => 1e6,
        SensorKind::Fan | SensorKind::Unknown => 1.0,
        SensorKind::Temperature | SensorKind::Voltage | SensorKind::Current | SensorKind::Humidity => 1e3,
    };
    let raw: Option<f64> = sysfs::text(path)?.and_then(|text| text.parse().ok());
    Ok(raw.filter(|raw| raw.is_finite()).map(|raw| raw / unit))
}

fn sensor(dir: &Path, chip: &str, device: Option<&str>, channel: &str, kind: SensorKind, now: f64) -> Sensor {
    let limit = |name: &str| value(&dir.join(format!("{channel}_{name}")), kind).ok().flatten();
    Sensor {
        chip: chip.to_owned(),
        device: device.map(str::to_owned),
        channel: channel.to_owned(),
        label: sysfs::read(&dir.join(format!("{channel}_label"))),
        kind,
        value: now,
        unit: kind.unit().to_owned(),
        min: limit("min"),
        max: limit("max"),
        critical: limit("crit"),
        alarm: sysfs::number::<u8>(&dir.join(format!("{channel}_alarm"))).map(|alarm| alarm != 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_have_units_and_limits() {
        let dir = tempfile::tempdir().expect("a directory");
        let hwmon = dir.path().join("sys/class/hwmon/hwmon3");
        std::fs::create_dir_all(&hwmon).expect("made");
        for (file, content) in [
            ("name", "board\n"),
            ("temp1_input", "41500\n"),
            ("temp1_label", "CPU\n"),
            ("temp1_max", "90000\n"),
            ("temp1_crit", "100000\n"),
            ("temp1_alarm", "0\n"),
            ("fan2_input", "5400\n"),
            ("in0_input", "12048\n"),
            ("power1_input", "99000000\n"),
            ("power1_average", "123500000\n"),
            ("temp9_input", "noise\n"),
            ("update_interval", "1000\n"),
        ] {
            std::fs::write(hwmon.join(file), content).expect("written");
        }
        // Cannot be read, and is there.
        std::fs::create_dir(hwmon.join("temp2_input")).expect("made");
        let mut unread = Vec::new();
        let sensors = read(&Roots::under(dir.path()), &mut unread);
        let seen: Vec<_> = sensors.iter().map(|s| (s.channel.as_str(), s.value, s.unit.as_str())).collect();
        assert_eq!(
            seen,
            [("fan2", 5400.0, "rpm"), ("in0", 12.048, "V"), ("power1", 123.5, "W"), ("temp1", 41.5, "°C")]
        );
        let cpu = &sensors[3];
        assert_eq!(
            (cpu.label.as_deref(), cpu.max, cpu.critical, cpu.alarm),
            (Some("CPU"), Some(90.0), Some(100.0), Some(false))
        );
        assert!(unread.len() == 1 && unread[0].starts_with("sensor temp2 of board could not be read"), "{unread:?}");
    }
}

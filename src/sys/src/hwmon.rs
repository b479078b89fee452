//! Sensors that the kernel's hwmon drivers show: temperatures, fans, voltages, currents, power.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::roots::{Roots, read_line};
use crate::sysfs;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum SensorKind {
    /// °C
    Temperature,
    /// Turns per minute.
    Fan,
    /// V
    Voltage,
    /// A
    Current,
    /// W
    Power,
}

/// A sensor at one moment.
#[derive(Clone, PartialEq, Debug)]
pub struct Reading {
    /// `coretemp/Package id 0`; a second chip of one name is `coretemp#2`.
    pub sensor: String,
    pub kind: SensorKind,
    /// Why not, if it cannot be read.
    pub value: Result<f64, String>,
}

/// In the order of the kernel's numbers.
#[must_use]
pub fn read(roots: &Roots) -> Vec<Reading> {
    let mut chips: Vec<(u32, std::path::PathBuf)> = fs::read_dir(roots.sys.join("class/hwmon"))
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|e| Some((e.file_name().to_str()?.strip_prefix("hwmon")?.parse().ok()?, e.path())))
        .collect();
    chips.sort();
    let mut same_name: BTreeMap<String, u32> = BTreeMap::new();
    let mut readings = Vec::new();
    for (number, path) in chips {
        let name = read_line(&path.join("name")).unwrap_or_else(|| format!("hwmon{number}"));
        let nth = same_name.entry(name.clone()).or_default();
        *nth += 1;
        let chip = if *nth == 1 { name } else { format!("{name}#{nth}") };
        readings.extend(of_chip(&chip, &path));
    }
    readings
}

fn of_chip(chip: &str, path: &Path) -> Vec<Reading> {
    let mut found: Vec<(SensorKind, u32, String, f64)> = fs::read_dir(path)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|e| {
            let file = e.file_name().into_string().ok()?;
            let (stem, what) = file.split_once('_')?;
            let digits = stem.trim_start_matches(|c: char| c.is_ascii_lowercase());
            let (kind, unit) = match (&stem[..stem.len() - digits.len()], what) {
                ("temp", "input") => (SensorKind::Temperature, 1e-3),
                ("fan", "input") => (SensorKind::Fan, 1.0),
                ("in", "input") => (SensorKind::Voltage, 1e-3),
                ("curr", "input") => (SensorKind::Current, 1e-3),
                // Chips have one or the other.
                ("power", "input" | "average") => (SensorKind::Power, 1e-6),
                _ => return None,
            };
            Some((kind, digits.parse().ok()?, file, unit))
        })
        .collect();
    found.sort_by(|a, b| (a.0, a.1, &a.2).cmp(&(b.0, b.1, &b.2)));
    found.dedup_by_key(|f| (f.0, f.1));
    found
        .into_iter()
        .map(|(kind, _, file, unit)| {
            let stem = file.split('_').next().unwrap_or(&file);
            let label = read_line(&path.join(format!("{stem}_label"))).filter(|l| !l.is_empty());
            let label: String =
                label.unwrap_or_else(|| stem.to_owned()).chars().filter(|c| !c.is_control()).take(64).collect();
            // Drivers answer EIO or ENODATA for a sensor that is not connected.
            let value = match sysfs::text(&path.join(&file)) {
                Ok(Some(text)) => text.parse::<i64>().map_err(|_| format!("{text:?} is not a number")),
                Ok(None) => Err("it says nothing".to_owned()),
                Err(e) => Err(e.to_string()),
            };
            #[allow(clippy::cast_precision_loss, reason = "sensors have six digits")]
            let value = value.map(|n| n as f64 * unit);
            Reading { sensor: format!("{chip}/{label}"), kind, value }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sensors_have_names_and_units() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let roots = Roots::under(dir.path());
        assert!(read(&roots).is_empty());
        for (n, files) in [
            (
                0,
                vec![
                    ("name", "coretemp"),
                    ("temp1_input", "45000"),
                    ("temp1_label", "Package id 0"),
                    ("temp1_max", "90000"),
                ],
            ),
            (1, vec![("name", "coretemp"), ("temp2_input", "-5500")]),
            (
                10,
                vec![
                    ("name", "acpi"),
                    ("power1_average", "95000000"),
                    ("power1_input", "90000000"),
                    ("power1_cap", "1"),
                ],
            ),
            (2, vec![("name", "nct6775"), ("fan1_input", "1200"), ("in0_input", "1040"), ("curr1_input", "n/a")]),
        ] {
            let chip = dir.path().join(format!("sys/class/hwmon/hwmon{n}"));
            fs::create_dir_all(&chip).expect("made");
            files.iter().for_each(|(file, text)| fs::write(chip.join(file), format!("{text}\n")).expect("written"));
        }
        let readings = read(&roots);
        let seen: Vec<_> = readings.iter().map(|r| (r.sensor.as_str(), r.kind, r.value.clone().ok())).collect();
        assert_eq!(
            seen,
            [
                ("coretemp/Package id 0", SensorKind::Temperature, Some(45.0)),
                ("coretemp#2/temp2", SensorKind::Temperature, Some(-5.5)),
                ("nct6775/fan1", SensorKind::Fan, Some(1200.0)),
                ("nct6775/in0", SensorKind::Voltage, Some(1.04)),
                ("nct6775/curr1", SensorKind::Current, None),
                ("acpi/power1", SensorKind::Power, Some(95.0)),
            ]
        );
    }
}

//! `write_image` against what people use instead, one after the other in turns: from the same nginx over TLS to the same
//! loop device over memory that is allocated already. Every result is compared with the image.

mod cases;
mod coreos;
mod images;
mod ipa;
mod limit;
pub(super) mod measure;
mod plot;
mod report;
mod server;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use speediso_lab::tool;

use self::cases::{Case, Way};
use self::coreos::Coreos;
use self::images::Images;
pub(super) use self::ipa::Ipa;
use self::limit::Limit;
use self::measure::Measured;
use self::server::Server;
use crate::show::fact;

/// Before each run: what the one before it has left to the kernel is done by then.
const REST: Duration = Duration::from_secs(1);

/// Those that have to be installed first.
struct Peers {
    ipa: Ipa,
    coreos: Option<Coreos>,
}

/// What a run of all cases has found.
struct Row {
    case: Case,
    runs: Vec<Measured>,
}

pub(super) struct Setup<'a> {
    pub(super) agent: &'a Path,
    /// The zstd image of the demo; its disk lies beside it.
    pub(super) packed: &'a Path,
    pub(super) rounds: u32,
    /// Only cases whose name has this in it.
    pub(super) only: Option<&'a str>,
    /// Where the figures go.
    pub(super) out: &'a Path,
}

pub(super) fn run(setup: &Setup<'_>) -> Result<()> {
    let raw = setup.packed.with_extension("");
    let size = fs::metadata(&raw)?.len();
    let images = Images::make(&raw, setup.packed)?;
    let dir = tempfile::Builder::new().prefix("speediso-bench-").tempdir_in(roomy(size))?;
    let server = Server::start(dir.path(), images.folder())?;
    // Exactly as large as the image, so that the table stays where it is and every byte can be compared.
    let disk = LoopDisk::make(&dir.path().join("disk.raw"), size)?;
    let wanted = |case: &Case| setup.only.is_none_or(|only| only.split(',').any(|part| case.name.contains(part)));
    let peers = Peers { ipa: Ipa::install()?, coreos: Coreos::install()? };
    let mut rows: Vec<Row> = cases::all(&images, &server, &peers, &disk.device, dir.path())?
        .into_iter()
        .filter(wanted)
        .map(|case| Row { case, runs: Vec::new() })
        .collect();
    ensure!(!rows.is_empty(), "no case has {:?} in its name", setup.only.unwrap_or_default());
    for round in 0..=setup.rounds {
        for at in order(rows.len(), round as usize) {
            let row = &mut rows[at];
            disk.allocate(size)?;
            std::thread::sleep(REST);
            let measured = match &row.case.way {
                Way::Pipe(line) => measure::pipe(line, dir.path()),
                Way::Ipa(line) => measure::ipa(line, dir.path(), server.ca()),
                Way::Agent(task) => measure::agent(setup.agent, dir.path(), server.pin(), &task(&disk.serial())),
            };
            let measured = measured.with_context(|| row.case.name.clone())?;
            if row.case.writes {
                compare(&raw, &disk.device).with_context(|| format!("after {}", row.case.name))?;
            }
            // The first round warms the page cache and is not counted.
            if round > 0 {
                row.runs.push(measured);
            }
        }
        if round > 0 {
            println!("   round {round} of {}", setup.rounds);
        }
    }
    disk.allocate(size)?;
    let limits = Limit::measure(&images, &server, &disk.device)?;
    report::show(&mut rows, size, &limits);
    report::save(&rows, size, &limits, setup.out)?;
    fact(format!("figures: {}, and beside it as .md and .svg", setup.out.display()));
    Ok(())
}

/// Another order in every round, so that no case always follows the same one: a processor that was hot, or a host that has
/// just lent more than its share, is met by each of them.
fn order(cases: usize, round: usize) -> impl Iterator<Item = usize> {
    let divide = |d: usize, stride: usize| cases.is_multiple_of(d) && stride.is_multiple_of(d);
    let coprime = |stride: &usize| !(2..=*stride).any(|d| divide(d, *stride));
    let strides: Vec<usize> = (1..=cases).filter(coprime).collect();
    let stride = strides[round % strides.len()];
    (0..cases).map(move |n| (n * stride + round) % cases)
}

/// Byte for byte, past the page cache; then spoils the disk's start, so that the next one has to write it.
fn compare(image: &Path, device: &Path) -> Result<()> {
    tool::run(Command::new("blockdev").arg("--flushbufs").arg(device))?;
    tool::run(Command::new("cmp").arg(image).arg(device))?;
    let of = format!("of={}", device.display());
    tool::run(Command::new("dd").args(["if=/dev/zero", &of, "bs=1M", "count=16", "oflag=direct", "status=none"]))?;
    Ok(())
}

/// Memory if there is plenty, so that the disk below is not what is measured; a disk otherwise.
pub(super) fn roomy(size: u64) -> PathBuf {
    let available = fs::read_to_string("/proc/meminfo").ok().and_then(|text| {
        text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?.split_whitespace().next()?.parse::<u64>().ok()
    });
    let shm = Path::new("/dev/shm");
    if shm.is_dir() && available.is_some_and(|kib| kib * 1024 > 4 * size) { shm.into() } else { "/var/tmp".into() }
}

/// Every page is there, so that none is made while the clock runs.
fn allocate(file: &Path, size: u64) -> Result<()> {
    tool::run(Command::new("fallocate").arg("-l").arg(size.to_string()).arg(file))?;
    Ok(())
}

pub(super) struct LoopDisk {
    pub(super) device: PathBuf,
    file: PathBuf,
}

impl LoopDisk {
    pub(super) fn make(file: &Path, size: u64) -> Result<Self> {
        allocate(file, size)?;
        let losetup = tool::find("losetup")?;
        let device =
            tool::run(Command::new(losetup).args(["--find", "--show", "--direct-io=on", "--partscan"]).arg(file))?;
        Ok(Self { device: device.trim().into(), file: file.to_owned() })
    }

    /// Again after whatever may have punched holes.
    pub(super) fn allocate(&self, size: u64) -> Result<()> {
        allocate(&self.file, size)
    }

    /// A loop device's serial number is its file, as the agent sees it.
    pub(super) fn serial(&self) -> String {
        self.file.display().to_string()
    }
}

impl Drop for LoopDisk {
    fn drop(&mut self) {
        let _ = tool::run(Command::new("losetup").arg("--detach").arg(&self.device));
    }
}

#[cfg(test)]
mod tests {
    use super::order;

    #[test]
    fn every_round_has_every_case_once_after_another_one() {
        for cases in [1, 2, 5, 24, 25, 26] {
            let rounds: Vec<Vec<usize>> = (0..3).map(|round| order(cases, round).collect()).collect();
            for round in &rounds {
                let mut sorted = round.clone();
                sorted.sort_unstable();
                assert_eq!(sorted, (0..cases).collect::<Vec<_>>());
            }
            if cases > 4 {
                assert_ne!(rounds[0], rounds[1]);
            }
        }
    }
}

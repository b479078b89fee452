//! `write_image` against the pipes that people use instead: `curl | dd` and `curl | zstd -d | dd`, with and without a
//! digest, one after the other in turns, from the same server to the same loop device.

use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::json;
use speediso_lab::tool;

use crate::show::fact;

/// One way to write, as a shell line or as our agent.
enum Way {
    Agent { image: &'static str, read_back: &'static str },
    Pipe(String),
}

struct Row {
    name: &'static str,
    way: Way,
    times: Vec<Duration>,
    peak_kib: u64,
}

pub(super) fn run(agent: &Path, packed: &Path, rounds: u32) -> Result<()> {
    let raw = packed.with_extension("");
    let size = fs::metadata(&raw)?.len();
    let dir = tempfile::Builder::new().prefix("speediso-bench-").tempdir_in(roomy(size))?;
    let server = Server::start(dir.path(), raw.parent().context("the image lies in a directory")?)?;
    let disk = LoopDisk::make(&dir.path().join("disk.raw"), size + (64 << 20))?;
    let names = (raw.file_name().context("a name")?, packed.file_name().context("a name")?);
    let (raw_url, zst_url) = (server.url(&names.0.to_string_lossy()), server.url(&names.1.to_string_lossy()));
    let (raw_digest, zst_digest) = (digest(&raw)?, digest(packed)?);
    let device = disk.device.display();
    let dd = format!("dd of={device} bs=4M iflag=fullblock oflag=direct conv=fsync status=none");
    let mut rows = [
        row("raw: speediso", Way::Agent { image: "raw", read_back: "none" }),
        row("raw: curl | dd", Way::Pipe(format!("curl -sSf {raw_url} | {dd}"))),
        row(
            "raw: curl | tee openssl | dd",
            Way::Pipe(format!("curl -sSf {raw_url} | tee >(openssl dgst -sha256 >/dev/null) | {dd}")),
        ),
        row("raw: speediso, read back", Way::Agent { image: "raw", read_back: "full" }),
        row("zstd: speediso", Way::Agent { image: "zst", read_back: "none" }),
        row("zstd: curl | zstd -d | dd", Way::Pipe(format!("curl -sSf {zst_url} | zstd -dcq | {dd}"))),
        row(
            "zstd: curl | tee openssl | zstd -d | dd",
            Way::Pipe(format!("curl -sSf {zst_url} | tee >(openssl dgst -sha256 >/dev/null) | zstd -dcq | {dd}")),
        ),
        row("zstd: speediso, read back", Way::Agent { image: "zst", read_back: "full" }),
    ];
    for round in 0..=rounds {
        for row in &mut rows {
            let (took, peak) = match &row.way {
                Way::Pipe(line) => pipe(line)?,
                Way::Agent { image, read_back } => {
                    let (url, digest, compression) = match *image {
                        "raw" => (&raw_url, &raw_digest, "none"),
                        _ => (&zst_url, &zst_digest, "zstd"),
                    };
                    let task = json!({
                        "task": "write_image",
                        "device": { "serial": disk.serial() },
                        "image": { "url": url, "digest": format!("sha256:{digest}"), "compression": compression },
                        "read_back": read_back,
                    });
                    write(agent, dir.path(), &task)?
                }
            };
            // The first round warms the page cache and is not counted.
            if round > 0 {
                row.times.push(took);
                row.peak_kib = row.peak_kib.max(peak);
            }
        }
    }
    show(&mut rows, size);
    Ok(())
}

fn row(name: &'static str, way: Way) -> Row {
    Row { name, way, times: Vec::new(), peak_kib: 0 }
}

fn show(rows: &mut [Row], size: u64) {
    let mut medians = Vec::new();
    for row in rows.iter_mut() {
        row.times.sort();
        medians.push(row.times[row.times.len() / 2].as_secs_f64());
    }
    #[allow(clippy::cast_precision_loss, reason = "sizes of images fit the 52 bits many times over")]
    let mib = size as f64 / 1_048_576.0;
    fact(format!("image of {mib:.0} MiB, median (least to most) of {} rounds", rows[0].times.len()));
    for (row, median) in rows.iter().zip(&medians) {
        let (least, most) = (row.times[0].as_secs_f64(), row.times[row.times.len() - 1].as_secs_f64());
        let peak = if row.peak_kib > 0 { format!(", peak memory {} MiB", row.peak_kib / 1024) } else { String::new() };
        fact(format!("{:<42} {median:6.2} s ({least:.2} to {most:.2}) {:6.0} MiB/s{peak}", row.name, mib / median));
    }
    for (of, than) in [(0, 1), (0, 2), (4, 5), (4, 6)] {
        fact(format!("{} / {}: time ratio {:.2}", rows[of].name, rows[than].name, medians[of] / medians[than]));
    }
}

fn pipe(line: &str) -> Result<(Duration, u64)> {
    let began = Instant::now();
    tool::run(Command::new("bash").args(["-euo", "pipefail", "-c", line]))?;
    Ok((began.elapsed(), 0))
}

/// Runs the agent's local door with one task; gives the time and the highest resident size the kernel saw.
fn write(agent: &Path, dir: &Path, task: &serde_json::Value) -> Result<(Duration, u64)> {
    let file = dir.join("task.json");
    let machine = this_machine()?;
    let text = json!({
        "version": 1,
        "machine": machine,
        "expires": "2100-01-01T00:00:00Z",
        "order": uuid::Uuid::new_v4().to_string(),
        "tasks": [task],
    });
    fs::write(&file, text.to_string())?;
    let log = File::create(dir.join("agent.log"))?;
    let began = Instant::now();
    let mut child = Command::new(agent)
        .args(["run", "--allow-loop", "--arm", &machine, "--json", "--tasks"])
        .arg(&file)
        .arg("--state-dir")
        .arg(dir.join("state"))
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .with_context(|| format!("starting {}", agent.display()))?;
    let status_file = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    let status = loop {
        // The high-water mark only grows: the last look before the end is all that counts.
        peak = peak_of(&status_file).unwrap_or(peak);
        if let Some(status) = child.try_wait()? {
            break status;
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let took = began.elapsed();
    ensure!(status.success(), "the agent ended with {status}:\n{}", fs::read_to_string(dir.join("agent.log"))?);
    Ok((took, peak))
}

/// The task file must name the machine it is for: here by a MAC address.
fn this_machine() -> Result<String> {
    let macs = fs::read_dir("/sys/class/net")?.flatten().filter(|nic| nic.path().join("device").exists());
    let mac = macs.filter_map(|nic| fs::read_to_string(nic.path().join("address")).ok()).next();
    Ok(mac.context("no network interface of this machine has a device behind it")?.trim().to_owned())
}

fn peak_of(status_file: &str) -> Option<u64> {
    let text = fs::read_to_string(status_file).ok()?;
    text.lines().find_map(|line| line.strip_prefix("VmHWM:"))?.split_whitespace().next()?.parse().ok()
}

/// Memory if there is plenty, so that the disk below is not what is measured; a disk otherwise.
fn roomy(size: u64) -> PathBuf {
    let available = fs::read_to_string("/proc/meminfo").ok().and_then(|text| {
        text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?.split_whitespace().next()?.parse::<u64>().ok()
    });
    let shm = Path::new("/dev/shm");
    if shm.is_dir() && available.is_some_and(|kib| kib * 1024 > 4 * size) { shm.into() } else { "/var/tmp".into() }
}

fn digest(path: &Path) -> Result<String> {
    let line = tool::run(Command::new("openssl").args(["dgst", "-sha256", "-r"]).arg(path))?;
    Ok(line.split_whitespace().next().context("openssl prints the digest first")?.to_owned())
}

/// nginx in the foreground on a port of the loopback.
struct Server {
    child: std::process::Child,
    port: u16,
}

impl Server {
    fn start(dir: &Path, root: &Path) -> Result<Self> {
        // Asked for and given back: nobody else on this machine takes loopback ports by the dozen in between.
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let config = dir.join("nginx.conf");
        let (here, root) = (dir.display(), root.display());
        fs::write(
            &config,
            format!(
                "daemon off; user root; pid {here}/nginx.pid; error_log {here}/nginx.log;\nevents {{}}\nhttp {{ access_log off; \
                 sendfile on; client_body_temp_path {here}; proxy_temp_path {here}; fastcgi_temp_path {here}; \
                 uwsgi_temp_path {here}; scgi_temp_path {here};\n server {{ listen 127.0.0.1:{port}; root {root}; }} }}\n"
            ),
        )?;
        let child = Command::new(tool::find("nginx")?).arg("-c").arg(&config).stdin(Stdio::null()).spawn()?;
        let server = Self { child, port };
        let end = Instant::now() + Duration::from_secs(10);
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            ensure!(Instant::now() < end, "nginx did not listen within 10 s: see {here}/nginx.log");
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(server)
    }

    fn url(&self, file: &str) -> String {
        format!("http://127.0.0.1:{}/{file}", self.port)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // SIGTERM would do for nginx, but its master ends its workers only then: ask, and do not wait for long.
        if let Ok(pid) = i32::try_from(self.child.id()) {
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGTERM);
        }
        let _ = self.child.wait();
    }
}

struct LoopDisk {
    device: PathBuf,
    file: PathBuf,
}

impl LoopDisk {
    fn make(file: &Path, size: u64) -> Result<Self> {
        // Written once, so that no page is allocated while the clock runs.
        tool::run(Command::new("fallocate").arg("-l").arg(size.to_string()).arg(file))?;
        let device = tool::run(Command::new(tool::find("losetup")?).args(["--find", "--show"]).arg(file))?;
        Ok(Self { device: device.trim().into(), file: file.to_owned() })
    }

    /// A loop device's serial number is its file, as the agent sees it.
    fn serial(&self) -> String {
        self.file.display().to_string()
    }
}

impl Drop for LoopDisk {
    fn drop(&mut self) {
        let _ = tool::run(Command::new("losetup").arg("--detach").arg(&self.device));
    }
}

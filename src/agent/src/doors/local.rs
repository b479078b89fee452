//! The local front door: orders without a controller.
//!
//! Three ways, and each needs somebody's explicit word for this very machine before anything is destroyed: a task file
//! signed with the key on the command line; `speediso.arm=` with the machine's own name and the parameters beside it;
//! or, on a running system, a person who types `--arm`.

use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use serde_json::json;
use speediso_model::event::EventKind;
use speediso_model::fault::{Fault, FaultCode};
use speediso_model::hints::SkipList;
use speediso_model::id::{OrderId, RunId};
use speediso_model::image::{Compression, ImageFormat, shown_url};
use speediso_model::inventory::{SystemVendor, names_machine};
use speediso_model::outcome::{Outcome, TaskResult};
use speediso_model::plan::{Plan, PlanDigest, hex};
use speediso_model::profile::{InstallWipe, Profile};
use speediso_model::task::{PowerAction, PowerTask, Task};
use speediso_model::taskfile::TaskFile;
use speediso_sys::efi;
use speediso_sys::roots::Roots;

use super::reboots;
use crate::cmdline::Config;
use crate::engine::{Engine, StartGate, Submission};
use crate::state::StateDir;

const MAX_TASK_FILE: usize = 4 << 20;
const FETCH: Duration = Duration::from_secs(30);
/// Our vendor GUID, for what must outlast a boot.
pub(super) const VENDOR: efi::Guid = efi::Guid("6f0f9b1c-2c1f-4f0e-9a53-5d1f6a0b7c44");
const BEGUN: &str = "SpeedisoBegun";

/// This machine, as far as orders name it.
#[derive(Clone, Debug)]
pub struct Machine {
    pub system: SystemVendor,
    pub macs: Vec<String>,
}

impl Machine {
    /// # Errors
    /// `machine-mismatch`, saying what this machine answers to.
    pub fn must_be(&self, name: &str) -> Result<(), Fault> {
        if names_machine(name, &self.system, &self.macs) {
            return Ok(());
        }
        let uuid = self.system.uuid.as_deref().unwrap_or("none");
        Err(Fault::new(
            FaultCode::MachineMismatch,
            format!(
                "the order names machine {name:?}; this one has serial number {:?}, UUID {uuid}, MAC addresses {}",
                self.system.serial_number,
                self.macs.join(", ")
            ),
        ))
    }
}

/// Tasks that somebody permitted for this machine.
#[derive(Debug, Default)]
pub struct Permitted {
    tasks: Vec<Task>,
    /// Restarts after the tasks.
    reboots: u16,
    /// Nothing is started after this.
    expires: Option<Timestamp>,
    /// Recorded before the first change, refused when recorded.
    order: Option<OrderId>,
    /// The only plans that may be carried out, if any are given.
    expect_plans: Vec<String>,
    skip: SkipList,
}

impl Permitted {
    /// From a signed task file.
    ///
    /// # Errors
    /// When signature, machine or time is not right, or it was done before.
    pub fn by_signature(
        bytes: &[u8],
        signature: &str,
        key: &[u8; 32],
        machine: &Machine,
        state: &StateDir,
        roots: &Roots,
    ) -> Result<Self, Fault> {
        let bad =
            || Fault::new(FaultCode::SignatureInvalid, "the task file is not signed by the key on the command line");
        let signature = unhex(signature.trim()).ok_or_else(bad)?;
        // Before a byte of it is parsed.
        aws_lc_rs::signature::UnparsedPublicKey::new(&aws_lc_rs::signature::ED25519, key)
            .verify(bytes, &signature)
            .map_err(|_| bad())?;
        let file = TaskFile::parse(bytes)?;
        machine.must_be(&file.machine)?;
        reboots::possible(file.reboots, roots)?;
        // Its restarts lead here again; its tasks are done.
        let restarted = file.reboots > 0 && reboots::under_way(file.order, roots)?;
        if !restarted {
            refuse_if_begun(file.order, state, roots)?;
        }
        let permitted = Self {
            tasks: if restarted { Vec::new() } else { file.tasks },
            reboots: file.reboots,
            expires: Some(file.expires),
            order: Some(file.order),
            skip: file.skip_block_devices,
            ..Self::default()
        };
        permitted.refuse_if_expired()?;
        Ok(permitted)
    }

    /// From the kernel command line: `speediso.arm=` and what stands beside it.
    ///
    /// # Errors
    /// When it names another machine, or what it asks for is not whole.
    pub fn by_arm(config: &Config, machine: &Machine) -> Result<Self, Fault> {
        let arm = config.arm.as_deref().unwrap_or_default();
        machine.must_be(arm)?;
        let mut tasks = Vec::new();
        for profile in &config.profiles {
            tasks.extend(from_cmdline(*profile, config)?);
        }
        if tasks.iter().any(Task::is_destructive) {
            // The boot entry stays where it is: a reboot would come back here, armed as before.
            tasks.retain(|t| !matches!(t, Task::Power(_)));
            tasks.push(Task::Power(PowerTask { action: PowerAction::PowerOff }));
        }
        Ok(Self { tasks, ..Self::default() })
    }

    /// From a person at the machine.
    ///
    /// # Errors
    /// When `arm` is given and names another machine, or the file does, or it has expired.
    pub fn by_hand(file: TaskFile, arm: Option<&str>, machine: &Machine) -> Result<Self, Fault> {
        machine.must_be(&file.machine)?;
        match arm {
            Some(arm) => machine.must_be(arm)?,
            None if file.tasks.iter().any(Task::is_destructive) => {
                return Err(Fault::new(
                    FaultCode::NotArmed,
                    "the task file has destructive tasks and is not signed; look at them with --dry-run, then name \
                     this machine with --arm",
                ));
            }
            None => {}
        }
        // Whoever sits there may do the same twice.
        let permitted = Self {
            tasks: file.tasks,
            reboots: file.reboots,
            expires: Some(file.expires),
            skip: file.skip_block_devices,
            ..Self::default()
        };
        permitted.refuse_if_expired()?;
        Ok(permitted)
    }

    /// What changes nothing needs nobody's word.
    ///
    /// # Errors
    /// `not-armed` if a task of it is destructive after all.
    pub fn harmless(tasks: Vec<Task>) -> Result<Self, Fault> {
        if let Some(task) = tasks.iter().find(|task| task.is_destructive()) {
            return Err(Fault::new(FaultCode::NotArmed, format!("{} destroys data", task.kind())));
        }
        Ok(Self { tasks, ..Self::default() })
    }

    /// Only to look: nothing of it can be started.
    #[must_use]
    pub fn to_look_at(tasks: Vec<Task>) -> Self {
        Self { tasks, expires: Some(Timestamp::UNIX_EPOCH), ..Self::default() }
    }

    /// Where nothing would go on with it after a restart.
    ///
    /// # Errors
    /// When it asks for restarts.
    pub fn in_one_boot(self) -> Result<Self, Fault> {
        if self.reboots == 0 {
            return Ok(self);
        }
        let message = "the task file asks for restarts, after which nothing would go on with it: nothing was done";
        let how =
            "restarts are for a signed file that every boot presents (speediso.tasks=), or for a controller's order";
        Err(Fault::new(FaultCode::Unsupported, message).because(how))
    }

    /// Only destructive plans with one of these digests, if there are any.
    #[must_use]
    pub fn expecting(self, plans: Vec<String>) -> Self {
        Self { expect_plans: plans, ..self }
    }

    /// Leaving these disks alone, beside those that are left alone anyway.
    #[must_use]
    pub fn skipping(self, skip: SkipList) -> Self {
        Self { skip, ..self }
    }

    fn refuse_if_expired(&self) -> Result<(), Fault> {
        match self.expires {
            Some(expires) if Timestamp::now() > expires => {
                Err(Fault::new(FaultCode::OrderExpired, format!("the order expired at {expires}")))
            }
            _ => Ok(()),
        }
    }

    /// Runs the tasks in turn. The first that fails ends it; a recorded order never runs again.
    pub async fn run(mut self, engine: &Engine, state: &StateDir, roots: &Roots, dry_run: bool) -> Vec<TaskResult> {
        // What must not come back after a reboot needs a record that outlasts it, and BIOS has none.
        let durable = self.order.is_none() || efi::is_uefi(roots);
        if !durable && !dry_run {
            tracing::warn!(
                "this machine boots by BIOS, which cannot remember that the task file was carried out: until it \
                 expires, take the boot entry away before the machine is started again"
            );
        }
        let mut results = Vec::new();
        for mut task in std::mem::take(&mut self.tasks) {
            if let Task::Power(power) = &mut task
                && !durable
                && power.action == PowerAction::Reboot
            {
                tracing::warn!("what was done here cannot be recorded beyond a reboot: powering off instead");
                power.action = PowerAction::PowerOff;
            }
            let result = self.one(task, engine, state, roots, dry_run).await;
            let good = result.outcome.is_success();
            results.push(result);
            if !good {
                return results;
            }
        }
        if let Some(order) = self.order.filter(|_| self.reboots > 0 && !dry_run) {
            let run = async |task: Task| self.one(task, engine, state, roots, false).await;
            let tell = |text| engine.tell(None, EventKind::Notice { text });
            results.push(reboots::go_on(self.reboots, order, roots, run, tell).await);
        }
        results
    }

    async fn one(&self, task: Task, engine: &Engine, state: &StateDir, roots: &Roots, dry_run: bool) -> TaskResult {
        let gate = std::sync::Arc::new(Gate {
            expires: self.expires,
            expect_plans: self.expect_plans.clone(),
            order: self.order,
            state: state.clone(),
            roots: roots.clone(),
        });
        let (run, kind) = (RunId::random(), task.kind());
        let result = match engine.submit(Submission { run, task, dry_run, skip: self.skip.clone(), gate }) {
            Ok(()) => engine.ended(run).await,
            Err(fault) => Err(fault),
        };
        result.unwrap_or_else(|fault| TaskResult::failed(kind, Outcome::FailedUnchanged, fault))
    }
}

struct Gate {
    expires: Option<Timestamp>,
    expect_plans: Vec<String>,
    order: Option<OrderId>,
    state: StateDir,
    roots: Roots,
}

#[async_trait]
impl StartGate for Gate {
    async fn permit(&self, _run: RunId, plan: &Plan, digest: &PlanDigest) -> Result<(), Fault> {
        if let Some(expires) = self.expires.filter(|e| Timestamp::now() > *e) {
            return Err(Fault::new(FaultCode::OrderExpired, format!("the order expired at {expires}")));
        }
        if plan.destructive && !self.expect_plans.is_empty() && !self.expect_plans.contains(&digest.0) {
            return Err(Fault::new(
                FaultCode::PlanMismatch,
                format!("the plan is {digest}, not the {} of --expect-plan", self.expect_plans.join(" or ")),
            ));
        }
        // Before the first change, not after the last: should the power fail in between, the next boot must not begin
        // anew. Tasks that change no disk are permitted too, and are recorded as well: the order is one.
        self.order.map_or(Ok(()), |order| record_begun(order, &self.state, &self.roots))
    }

    fn listens(&self) -> bool {
        false
    }
}

/// The tasks of a profile with the parameters of the command line.
///
/// # Errors
/// When a parameter is missing or wrong.
pub fn from_cmdline(profile: Profile, config: &Config) -> Result<Vec<Task>, Fault> {
    let missing = |what: &str| {
        Fault::new(FaultCode::CmdlineInvalid, format!("SPEEDISO={} needs {what} on the command line", profile.name()))
    };
    let parameters = match profile {
        Profile::Inventory | Profile::Shell => json!({}),
        Profile::BurnIn => config.scenario.as_ref().map_or_else(|| json!({}), |name| json!({"scenario": name})),
        // Which disks the machine had is what a controller knows; without that it says less than its name.
        Profile::Decommission => return Err(missing("a controller's record of this machine's disks, which is not")),
        Profile::Wipe => {
            if config.wipe == Some(InstallWipe::None) {
                return Err(missing("speediso.wipe=clear or purge"));
            }
            let level = if config.wipe == Some(InstallWipe::Purge) { "purge" } else { "clear" };
            match &config.root_device {
                Some(hints) => json!({"devices": {"hints": [hints]}, "level": level}),
                None => json!({"devices": "all_disks", "level": level}),
            }
        }
        Profile::Lininstall => {
            let url = config.image.as_deref().ok_or_else(|| missing("speediso.image="))?;
            let digest = config.digest.as_ref().ok_or_else(|| missing("speediso.digest="))?;
            let device = config.root_device.as_ref().ok_or_else(|| missing("speediso.root_device="))?;
            let wipe = config.wipe.unwrap_or_default();
            json!({
                "device": device,
                "image": {"url": url, "digest": digest, "compression": compression(url), "format": format(url)},
                "config_drive_image": config.config_drive.as_ref()
                    .map(|(url, digest)| json!({"url": url, "digest": digest, "compression": compression(url)})),
                "wipe": wipe,
            })
        }
    };
    profile.expand(parameters)
}

/// By the name's ending, as the format too; the content must agree.
fn compression(url: &str) -> &'static str {
    Compression::by_name(file_of(url)).name()
}

fn format(url: &str) -> &'static str {
    ImageFormat::by_name(file_of(url)).name()
}

fn file_of(url: &str) -> &str {
    url.split(['?', '#']).next().unwrap_or(url)
}

/// Fetches a task file and its signature.
///
/// # Errors
/// When either cannot be had.
pub async fn fetch(http: &reqwest::Client, location: &str) -> Result<(Vec<u8>, String), Fault> {
    let signature = read(http, &format!("{location}.sig")).await?;
    let file = read(http, location).await?;
    let signature = String::from_utf8(signature)
        .map_err(|_| Fault::new(FaultCode::SignatureInvalid, format!("{location}.sig is not text")))?;
    Ok((file, signature))
}

async fn read(http: &reqwest::Client, location: &str) -> Result<Vec<u8>, Fault> {
    if !location.starts_with("https://") && !location.starts_with("http://") {
        return std::fs::read(location)
            .map_err(|e| Fault::new(FaultCode::Io, format!("reading {location}")).because(e.to_string()));
    }
    let unreachable = |e: reqwest::Error| {
        let mut fault = Fault::from_error(FaultCode::ControllerUnreachable, &e.without_url());
        fault.message = format!("fetching {}", shown_url(location));
        fault
    };
    let mut response = http.get(location).timeout(FETCH).send().await.map_err(unreachable)?;
    if !response.status().is_success() {
        return Err(Fault::new(
            FaultCode::ControllerUnreachable,
            format!("fetching {}: {}", shown_url(location), response.status()),
        ));
    }
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(unreachable)? {
        bytes.extend_from_slice(&chunk);
        if bytes.len() > MAX_TASK_FILE {
            return Err(Fault::new(FaultCode::TaskInvalid, format!("{location} is larger than 4 MiB")));
        }
    }
    Ok(bytes)
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    (text.len() == 128 && text.is_ascii())
        .then(|| (0..64).map(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).ok()).collect())
        .flatten()
}

fn begun_file(order: OrderId) -> String {
    format!("begun-{order}")
}

fn refuse_if_begun(order: OrderId, state: &StateDir, roots: &Roots) -> Result<(), Fault> {
    let here = state.file(&begun_file(order)).exists();
    if here || begun_in_firmware(roots)?.chunks_exact(16).any(|id| id == order.0.as_bytes()) {
        return Err(Fault::new(FaultCode::AlreadyDone, format!("order {order} was begun on this machine before")));
    }
    Ok(())
}

/// The orders that firmware remembers, 16 bytes each. What cannot be read is not taken for "none".
fn begun_in_firmware(roots: &Roots) -> Result<Vec<u8>, Fault> {
    if !efi::is_uefi(roots) {
        return Ok(Vec::new());
    }
    let read = efi::read(roots, BEGUN, VENDOR).map_err(|e| {
        Fault::new(FaultCode::FirmwareVariable, "reading which orders were begun here").because(e.to_string())
    })?;
    Ok(read.map(|v| v.data).unwrap_or_default())
}

/// In the state directory for this boot, and in the firmware for the next ones.
fn record_begun(order: OrderId, state: &StateDir, roots: &Roots) -> Result<(), Fault> {
    let failed = |e: &dyn std::fmt::Display| {
        Fault::new(FaultCode::FirmwareVariable, format!("order {order} could not be recorded as begun"))
            .because(e.to_string())
    };
    state.put(&begun_file(order), hex(order.0.as_bytes()).as_bytes()).map_err(|e| failed(&e))?;
    if efi::is_uefi(roots) {
        let mut ids = begun_in_firmware(roots)?;
        if !ids.chunks_exact(16).any(|id| id == order.0.as_bytes()) {
            ids.extend_from_slice(order.0.as_bytes());
            // Firmware has little room; the oldest have expired long ago.
            let keep = ids.len().saturating_sub(16 * 16);
            efi::write(roots, BEGUN, VENDOR, efi::DURABLE, &ids[keep..]).map_err(|e| failed(&e))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::expect_used, reason = "tests")]
    use super::*;
    use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};

    fn machine() -> Machine {
        Machine {
            system: SystemVendor { serial_number: "S1".into(), ..SystemVendor::default() },
            macs: vec!["52:54:00:00:00:01".into()],
        }
    }

    fn file(machine: &str, expires: &str) -> String {
        format!(
            r#"{{"version":1,"machine":"{machine}","expires":"{expires}","order":"6f1f6e0e-54a9-4bd5-a7c0-8f2b2a3c1d11",
                "tasks":[{{"task":"wipe","devices":"all_disks","level":"clear"}}]}}"#
        )
    }

    #[test]
    fn a_signed_file_is_for_one_machine_once_and_for_a_while() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let state = StateDir::open(&dir.path().join("state")).expect("a state directory");
        let roots = Roots::under(dir.path());
        let pair = Ed25519KeyPair::generate().expect("a key");
        let key: [u8; 32] = pair.public_key().as_ref().try_into().expect("32 bytes");
        let check = |text: &str, signature: &[u8]| {
            Permitted::by_signature(text.as_bytes(), &hex(signature), &key, &machine(), &state, &roots)
                .map(|_| ())
                .map_err(|f| f.code)
        };
        let signed = |text: &str| check(text, pair.sign(text.as_bytes()).as_ref());
        let good = file("S1", "2100-01-01T00:00:00Z");
        assert_eq!(signed(&good), Ok(()));
        assert_eq!(check(&good, &[0; 64]), Err(FaultCode::SignatureInvalid));
        assert_eq!(
            check(&good.replace("clear", "clear "), pair.sign(good.as_bytes()).as_ref()),
            Err(FaultCode::SignatureInvalid)
        );
        assert_eq!(signed(&file("S2", "2100-01-01T00:00:00Z")), Err(FaultCode::MachineMismatch));
        assert_eq!(signed(&file("S1", "2001-01-01T00:00:00Z")), Err(FaultCode::OrderExpired));
        record_begun("6f1f6e0e-54a9-4bd5-a7c0-8f2b2a3c1d11".parse().expect("an id"), &state, &roots).expect("recorded");
        assert_eq!(signed(&good), Err(FaultCode::AlreadyDone));
    }

    #[test]
    fn restarts_need_somewhere_to_be_counted_and_lead_back_to_their_file() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let state = StateDir::open(&dir.path().join("state")).expect("a state directory");
        let roots = Roots::under(dir.path());
        let pair = Ed25519KeyPair::generate().expect("a key");
        let key: [u8; 32] = pair.public_key().as_ref().try_into().expect("32 bytes");
        let text = file("S1", "2100-01-01T00:00:00Z").replace("\"tasks\"", "\"reboots\":2,\"tasks\"");
        let signature = hex(pair.sign(text.as_bytes()).as_ref());
        let permitted = || Permitted::by_signature(text.as_bytes(), &signature, &key, &machine(), &state, &roots);
        let fault = permitted().expect_err("BIOS");
        assert!(fault.code == FaultCode::Unsupported && fault.message.contains("nothing was done"), "{fault}");

        std::fs::create_dir_all(&roots.efivars).expect("made");
        let first = permitted().expect("UEFI");
        assert_eq!((first.tasks.len(), first.reboots), (1, 2));
        assert_eq!(first.in_one_boot().expect_err("nobody goes on").code, FaultCode::Unsupported);
        let order = "6f1f6e0e-54a9-4bd5-a7c0-8f2b2a3c1d11".parse().expect("an id");
        record_begun(order, &state, &roots).expect("recorded");
        assert_eq!(permitted().expect_err("begun, and its restarts are not").code, FaultCode::AlreadyDone);
        reboots::tests::under_way_for(order, &roots);
        let again = permitted().expect("its restarts are under way");
        assert_eq!((again.tasks.len(), again.reboots), (0, 2), "what is done is not done again");
    }

    #[test]
    fn an_armed_line_powers_off_and_names_its_machine() {
        let line = "SPEEDISO=wipe speediso.arm=S1 speediso.root_device=serial=D1";
        let config = Config::from_cmdline(line).expect("good");
        let permitted = Permitted::by_arm(&config, &machine()).expect("armed");
        assert!(matches!(permitted.tasks.last(), Some(Task::Power(p)) if p.action == PowerAction::PowerOff));
        let other = Config::from_cmdline(&line.replace("arm=S1", "arm=52:54:00:00:00:02")).expect("good");
        assert_eq!(Permitted::by_arm(&other, &machine()).expect_err("another").code, FaultCode::MachineMismatch);
        let install = Config::from_cmdline("SPEEDISO=lininstall speediso.arm=S1").expect("good");
        assert_eq!(Permitted::by_arm(&install, &machine()).expect_err("no image").code, FaultCode::CmdlineInvalid);
    }

    #[test]
    fn what_changes_nothing_needs_no_name() {
        let config = Config::from_cmdline("SPEEDISO=burnin speediso.scenario=standard").expect("good");
        let tasks = from_cmdline(Profile::BurnIn, &config).expect("a shipped one");
        assert!(matches!(tasks.as_slice(), [Task::BurnIn(task)] if task.scenario.to_string() == "standard"));
        Permitted::harmless(tasks).expect("it only looks");
        let wipe = from_cmdline(Profile::Wipe, &config).expect("all disks");
        assert_eq!(Permitted::harmless(wipe).expect_err("it destroys").code, FaultCode::NotArmed);
    }

    #[test]
    fn a_program_of_a_scenario_needs_the_name_too() {
        let step = r#"{"step":"command","duration":"1m","argv":["sh","-c","true"]}"#;
        let task = format!(r#"{{"task":"burn_in","scenario":{{"version":1,"name":"x","steps":[{step}]}}}}"#);
        let wipe = r#"{"task":"wipe","devices":"all_disks","level":"clear"}"#;
        let text = file("S1", "2100-01-01T00:00:00Z").replace(wipe, &task);
        let parsed = || TaskFile::parse(text.as_bytes()).expect("good");
        assert_eq!(Permitted::by_hand(parsed(), None, &machine()).expect_err("unarmed").code, FaultCode::NotArmed);
        assert!(Permitted::by_hand(parsed(), Some("S1"), &machine()).is_ok());
        assert_eq!(Permitted::harmless(parsed().tasks).expect_err("it may destroy").code, FaultCode::NotArmed);
    }

    #[test]
    fn by_hand_destruction_needs_the_name() {
        let parsed = || TaskFile::parse(file("S1", "2100-01-01T00:00:00Z").as_bytes()).expect("good");
        assert_eq!(Permitted::by_hand(parsed(), None, &machine()).expect_err("unarmed").code, FaultCode::NotArmed);
        assert!(Permitted::by_hand(parsed(), Some("S1"), &machine()).is_ok());
        assert!(Permitted::by_hand(parsed(), Some("S2"), &machine()).is_err());
    }
}

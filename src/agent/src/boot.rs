//! The ramdisk's program from start to end: command line, network, ssh, front door.
//!
//! Whatever goes wrong ends in the live system: a shell on the console, ssh if there is a key, and a plain statement of
//! what failed and what to do. What may pass by itself is tried again in the background.

use std::path::Path;
use std::time::Duration;

use speediso_model::build::BuildInfo;
use speediso_model::fault::{Fault, FaultCode};
use speediso_model::hints::describe;
use speediso_model::lldp::Heard;
use speediso_model::profile::Profile;
use speediso_model::task::{PowerAction, Task, WipeLevel, WipeTargets, WipeTask};
use speediso_sys::disks::{self, DiskScope};
use speediso_sys::roots::Roots;
use speediso_sys::{clock, dmi, machine, nics};
use speediso_tasks::drivers::{self, AddonFacts, Lacking, Why};
use speediso_tasks::tools::Tools;
use tokio::sync::watch;

use crate::backoff::Backoff;
use crate::cmdline::{self, Config, OnFailure, OwnTasks};
use crate::doctor::{self, Examination};
use crate::doors::local::{self, Machine, Permitted};
use crate::doors::native::{Native, trouble};
use crate::drivers::{Loading, settle_disks};
use crate::engine::{self, DISK_PATIENCE, Engine, Surroundings};
use crate::logs::{self, Logs};
use crate::net::{self, Configured, Goal, IpParam, NetConfig, kept};
use crate::ssh::{self, Ssh};
use crate::state::{self, StateDir};
use crate::syslog::{self, Origin};
use crate::tls::{self, Purpose, Validity};
use crate::{bmc_log, build, console, idle, live, lldp, medium, patience, secrets};

/// Runs until the machine goes down, or there is nothing left to do; then waits, since the live system stays.
///
/// # Errors
/// Only what makes any further step impossible: no state directory, no journal.
pub async fn run() -> Result<std::convert::Infallible, Fault> {
    let roots = Roots::live();
    let cmdline = cmdline::of(&roots);
    let parsed = Config::from_cmdline_with(&cmdline, &OwnTasks::of(&cmdline));
    let logs = console::start_log(parsed.as_ref().is_ok_and(|c| c.debug));
    let build = build::read();
    tracing::info!("Speediso {build}");

    let state = StateDir::open(Path::new(state::DEFAULT))?;
    let (parsed, line) = medium::add_parameters(parsed, &cmdline, &state, &roots).await;
    // A line that is wrong gives no orders and no controller; how to reach the machine is still taken from it.
    let (config, wrong) = match parsed {
        Ok(config) => (config, None),
        Err(fault) => (how_to_reach(&line), Some(fault)),
    };
    if let Some(token) = &config.token {
        secrets::learn(&token.0);
    }
    let (http, _) = tls::client(&config.ca_pins, None, Validity::Checked, Purpose::Images)?;
    let surroundings = Surroundings {
        roots: roots.clone(),
        scope: DiskScope::default(),
        skip: config.skip.clone(),
        http: http.clone(),
        probe: std::env::current_exe().ok(),
        boot_mac: config.bootif.clone().or_else(|| machine::boot::from_firmware(&roots)),
        build: build.clone(),
        disk_patience: DISK_PATIENCE,
        sharing: None,
        tools: Tools::of_system(config.tools.clone()),
    };
    let engine = Engine::start(&state, surroundings)?;
    let (system, _) = dmi::read(&roots);
    engine.board().set(|status| {
        status.product = format!("{} {}", system.manufacturer, system.product_name).trim().to_owned();
        status.serial.clone_from(&system.serial_number);
        status.build = format!("build {}", build.number);
        status.docs = console::page_of_errors(config.docs.as_deref(), config.controller.as_deref());
    });
    // A line that is wrong does not say whether a shell is permitted: the safe reading is its own word, if it is there.
    let shell = !config.console_shell_off
        && config.on_failure != OnFailure::Wait
        && !line.split_whitespace().any(|w| w == "speediso.console_shell=off");
    console::show(&logs, engine.board(), &roots, cmdline::console_style(&line), shell);
    // Before the network, which may never come.
    if let Some(fault) = &wrong {
        refuse(&engine, fault.clone());
    }
    let kernel = logs.clone();
    tokio::spawn(async move { logs::follow_kernel(kernel, Path::new("/dev/kmsg")).await });

    let neighbours = listen(&config, &roots, &build);
    tokio::spawn(patience::watch(config.on_failure, engine.clone()));
    if !config.bmc_log_off {
        tokio::spawn(bmc_log::write(engine.board().clone(), roots.clone()));
    }
    let ssh = Ssh::new(config.ssh);
    // Whoever gives work says soon whether there is any; until then, and only until something fails, nobody comes in.
    ssh.unattended(config.controller.is_some() && wrong.is_none());
    // Beside the network, which takes longer.
    let key = ssh.clone();
    tokio::spawn(async move { key.host_key().await });
    let built_in = ssh::keys_of_image();
    let add_keys = || {
        ssh.add_keys(&config.ssh_keys);
        ssh.add_keys(&built_in);
    };
    // There the server is up already, and stays up; in the ramdisk its start would hold up the network.
    if live::is_inside() {
        add_keys();
    }
    // systemd began them before us, and goes on with them while we are restarted: the door is not kept before that is known.
    if !config.own_tasks.is_empty() {
        tracing::info!("SPEEDISO: systemd runs the tasks {} of this live image", config.own_tasks.join(", "));
        let mut watch = live::TaskWatch::new(config.own_tasks.clone(), engine.board().clone(), ssh.clone());
        watch.look().await;
        tokio::spawn(watch.to_the_end());
        tokio::spawn(live::follow_tasks(config.own_tasks.clone(), state.clone()));
    }
    tokio::spawn(ssh.clone().keep());
    let addon = AddonFacts::of_system();
    let lacking = lacking(&roots, addon.as_ref());
    let mut settled = settling(&roots);
    Loading::Network.ended().await;
    let network = network(&config, &engine, &state, &roots).await;
    if let Some(addon) = &addon
        && bring_drivers(&lacking, addon, &config, &http, &roots).await
    {
        settled = settling(&roots);
    }
    add_keys();
    if config.ssh_keys.is_empty() && built_in.is_empty() && config.controller.is_none() {
        tracing::info!("ssh: no key was given (speediso.sshkey=), so nobody can log in over the network");
    }

    engine.board().addressed(
        network.hostname.as_deref(),
        format!("{}/{} on {} {}", network.address, network.prefix, network.nic, network.mac),
    );
    if let Some(target) = config.syslog.clone() {
        let pins = if config.syslog_ca.is_empty() { config.ca_pins.clone() } else { config.syslog_ca.clone() };
        let origin = Origin {
            serial: system.serial_number.clone(),
            boot: clock::boot_id(&roots).map(|boot| boot.to_string()).unwrap_or_default(),
            build: build.number,
            host: network.hostname.clone().unwrap_or_else(|| network.address.to_string()),
        };
        tracing::info!("syslog: the log goes to {target}");
        tokio::spawn(syslog::send(logs.clone(), target, pins, origin, engine.board().clone()));
    }

    let address = network.address.to_string();
    let live = wrong.is_none().then(|| live::Entry::of(&config, &line)).flatten();
    let boot = Boot { live, logs, config, roots, state, build, engine, ssh, http, address, neighbours, settled };
    let mut fault = match wrong {
        Some(fault) => {
            // What the network had to say stood in its place meanwhile.
            boot.engine.board().troubled(&fault);
            let after = boot.only_report().await;
            if after.is_none() {
                boot.on_failure().await;
            }
            after
        }
        None => boot.door().await,
    };
    let mut backoff = Backoff::default();
    while let Some(failed) = fault.take() {
        let again = boot.config.on_failure == OnFailure::Retry && failed.is_transient();
        trouble(&boot.engine, failed);
        if again && boot.nothing_begun() {
            tokio::time::sleep(backoff.next()).await;
            tracing::warn!("speediso.on_failure=retry: trying again");
            fault = boot.door().await;
        } else {
            boot.on_failure().await;
        }
    }
    tracing::info!("the live system stays up: shell on the console, ssh {}@{}", "root", boot.address);
    // Who was permitted something by this boot entry would be permitted it again by the next boot.
    if let Some(word) = boot.config.idle
        && boot.config.arm.is_none()
        && boot.config.tasks.is_none()
    {
        tokio::spawn(idle::leave(idle::after(Some(word), None), boot.engine.clone(), boot.ssh.clone()));
    }
    // The lease of the address is renewed while this value lives.
    let _network = network;
    loop {
        tokio::time::sleep(Duration::from_secs(3600)).await;
    }
}

/// Says what is wrong with the line, and what that means.
fn refuse(engine: &Engine, fault: Fault) {
    trouble(engine, fault);
    tracing::warn!("no task was run, no disk was touched");
}

/// Of a line that is refused: the keys and the interface, nothing that gives orders.
fn how_to_reach(line: &str) -> Config {
    const WAYS: [&str; 6] = ["ip=", "BOOTIF=", "speediso.vlan=", "speediso.bond=", "speediso.ipv6=", "speediso.net="];
    // What closes doors counts, and what a failure is to lead to: this is one.
    let mut config = Config { on_failure: cmdline::on_failure(line), ..Config::default() };
    if line.split_whitespace().any(|word| word == "speediso.ssh=off") {
        config.ssh = ssh::Word::Off;
    }
    config.bmc_log_off = line.split_whitespace().any(|word| word == "speediso.bmc_log=off");
    // One by one: the one that is wrong must not take the others with it.
    for word in line.split_whitespace().filter(|word| WAYS.iter().any(|key| word.starts_with(key))) {
        if let Ok(one) = Config::from_cmdline(word) {
            config.ip = one.ip.or(config.ip);
            config.bootif = one.bootif.or(config.bootif);
            config.vlan = one.vlan.or(config.vlan);
            config.bond = one.bond.or(config.bond);
            config.net_all |= one.net_all;
            if word.starts_with("speediso.ipv6=") {
                config.ipv6 = one.ipv6;
            }
        }
    }
    // Keys have blanks in them, so each is tried with the rest of the line behind it, up to its closing quote.
    for (at, _) in line.match_indices("speediso.sshkey=\"") {
        let rest = &line[at..];
        if let Some(end) = rest.match_indices('"').nth(1)
            && let Ok(one) = Config::from_cmdline(&rest[..=end.0])
        {
            config.ssh_keys.extend(one.ssh_keys);
        }
    }
    // Who the controller is may be told of the mistake, if that much of the line is right.
    let trust: Vec<&str> = line
        .split_whitespace()
        .filter(|w| ["speediso.controller=", "speediso.ca=", "speediso.token="].iter().any(|k| w.starts_with(k)))
        .collect();
    if let Ok(trust) = Config::from_cmdline(&trust.join(" ")) {
        config.controller = trust.controller;
        config.ca_pins = trust.ca_pins;
        config.token = trust.token;
    }
    config
}

/// Before anything else needs the network: switches speak every half a minute only.
fn listen(config: &Config, roots: &Roots, build: &BuildInfo) -> Option<watch::Receiver<Vec<Heard>>> {
    let (system, _) = dmi::read(roots);
    let speaker = lldp::Speaker { serial: system.serial_number, build: format!("Speediso {build}") };
    match lldp::begin(roots.clone(), (!config.lldp_off).then_some(speaker)) {
        Ok(heard) => Some(heard),
        Err(error) => {
            tracing::warn!("neighbours (LLDP) cannot be listened to: {error}; proceeding without");
            None
        }
    }
}

/// Tries until there is an address.
async fn network(config: &Config, engine: &Engine, state: &StateDir, roots: &Roots) -> Configured {
    let ip = match config.ip.as_deref().map(str::parse::<IpParam>) {
        None => IpParam::default(),
        Some(Ok(ip)) => ip,
        Some(Err(error)) => {
            let fault =
                Fault::new(FaultCode::CmdlineInvalid, "ip= on the command line; using DHCP").because(error.to_string());
            trouble(engine, fault);
            IpParam::default()
        }
    };
    // A person's word about a card counts for more than the firmware's.
    let by_firmware = || ip.device().is_none().then(|| machine::boot::from_firmware(roots)).flatten();
    let wanted = NetConfig {
        boot_mac: config.bootif.clone().or_else(by_firmware),
        ip,
        bond: config.bond.clone(),
        vlan: config.vlan.clone(),
        ipv6: config.ipv6,
        goal: config.controller.as_deref().and_then(Goal::of_url),
        keep_all: config.net_all,
        ..NetConfig::default()
    };
    let mut backoff = Backoff::default();
    loop {
        match net::bring_up(&wanted, |text| tracing::info!("network: {text}")).await {
            Ok(configured) => {
                for note in &configured.notes {
                    tracing::warn!("network: {note}");
                }
                if let Some(name) = &configured.hostname
                    && let Err(error) = nix::unistd::sethostname(name)
                {
                    tracing::warn!("network: the host name {name} could not be set: {error}");
                }
                if let Some(document) = kept::document(&configured)
                    && let Err(error) = state.put(kept::FILE, document.to_string().as_bytes())
                {
                    tracing::warn!("network: what the DHCP server said could not be kept: {error}");
                }
                return configured;
            }
            Err(fault) => {
                if backoff.tries() == 0 {
                    trouble(engine, fault);
                    doctor::after_failure(Examination::of(config, roots), engine.clone(), state.clone()).await;
                    list_disks(roots);
                    tracing::warn!("the shell on this console is usable; trying on in the background");
                } else {
                    tracing::error!("{fault}");
                }
                tokio::time::sleep(backoff.next()).await;
            }
        }
    }
}

/// Says which devices have no driver. Those for which there is none here are known at once; whether the others get theirs
/// shows only when all are loaded.
fn lacking(roots: &Roots, addon: Option<&AddonFacts>) -> Vec<Lacking> {
    let (waiting, lacking): (Vec<Lacking>, Vec<Lacking>) =
        drivers::look(roots, addon).into_iter().partition(|device| matches!(device.why, Why::NotTaken(_)));
    for device in &lacking {
        tracing::warn!("{device}");
    }
    if !waiting.is_empty() {
        let (roots, addon) = (roots.clone(), addon.cloned());
        tokio::spawn(async move {
            Loading::Drivers.ended().await;
            for device in drivers::look(&roots, addon.as_ref()).iter().filter(|d| matches!(d.why, Why::NotTaken(_))) {
                tracing::warn!("{device}");
            }
        });
    }
    lacking
}

/// Gets drivers for what has none from the add-on; whether any came.
async fn bring_drivers(
    lacking: &[Lacking],
    addon: &AddonFacts,
    config: &Config,
    http: &reqwest::Client,
    roots: &Roots,
) -> bool {
    match drivers::bring(lacking, addon, config.tools.as_deref(), http, roots).await {
        Ok(modules) if modules.is_empty() => false,
        Ok(modules) => {
            tracing::info!("drivers: {} loaded from the add-on", modules.join(", "));
            true
        }
        Err(error) => {
            let causes = std::iter::successors(std::error::Error::source(&error), |cause| cause.source());
            let causes: String = causes.map(|cause| format!(": {cause}")).collect();
            tracing::error!("drivers: the add-on was not used: {error}{causes}; those devices stay without a driver");
            true
        }
    }
}

/// Becomes true once no further disk shows up.
fn settling(roots: &Roots) -> watch::Receiver<bool> {
    let (done, settled) = watch::channel(false);
    let roots = roots.clone();
    tokio::spawn(async move {
        // Who loads the drivers has waited for it then.
        if !Loading::Disks.ended().await {
            let looked = tokio::task::spawn_blocking(move || settle_disks(&roots)).await;
            if let Err(error) = looked {
                tracing::error!("disks: {error}");
            }
        }
        done.send_replace(true);
    });
    settled
}

fn list_disks(roots: &Roots) {
    for disk in disks::read(roots, DiskScope::default()).unwrap_or_default() {
        tracing::info!("disk: {}", describe(&disk));
    }
}

/// Whether a burn-in is asked for, and nothing that could destroy.
fn burns_in_only(profiles: &[Profile]) -> bool {
    profiles.contains(&Profile::BurnIn)
        && profiles.iter().all(|p| matches!(p, Profile::BurnIn | Profile::Inventory | Profile::Shell))
}

struct Boot {
    /// Where to go on before any work is taken.
    live: Option<live::Entry>,
    logs: Logs,
    config: Config,
    roots: Roots,
    state: StateDir,
    build: BuildInfo,
    engine: Engine,
    ssh: Ssh,
    http: reqwest::Client,
    address: String,
    /// Who is at the other end of the cables.
    neighbours: Option<watch::Receiver<Vec<Heard>>>,
    /// Whether all disks are there.
    settled: watch::Receiver<bool>,
}

impl Boot {
    /// Goes through the door that the command line opens. Returns why it ended, if that is worth a reaction.
    async fn door(&self) -> Option<Fault> {
        let config = &self.config;
        if config.controller.is_some() {
            return Box::pin(self.native(false)).await;
        }
        if let Some(live) = &self.live
            && let Some(unknown_names) = Box::pin(live.enter(&self.engine, &self.ssh)).await
        {
            refuse(&self.engine, unknown_names);
            return self.only_report().await;
        }
        self.disks_settled().await;
        if let (Some(location), Some(key)) = (&config.tasks, &config.tasks_key) {
            return self.signed(location, key).await.err();
        }
        if config.arm.is_some() {
            return match Permitted::by_arm(config, &self.machine()) {
                Ok(permitted) => self.permitted(permitted).await.err(),
                Err(fault) => {
                    self.show_plans().await;
                    Some(fault)
                }
            };
        }
        if burns_in_only(&config.profiles) {
            return self.harmless().await.err();
        }
        if config.profiles.iter().any(|p| *p != Profile::Shell) {
            self.show_plans().await;
            if config.profiles.iter().any(|p| matches!(p, Profile::Wipe | Profile::Decommission | Profile::Lininstall))
            {
                return Some(Fault::new(
                    FaultCode::NotArmed,
                    "SPEEDISO asks for destructive work, but nobody permitted it for this machine",
                ));
            }
        } else if config.own_tasks.is_empty() {
            tracing::info!("no task was asked for: this is the live system, no disk was touched");
        }
        None
    }

    /// The command line is wrong: the controller hears of it too, if it can be found.
    async fn only_report(&self) -> Option<Fault> {
        self.disks_settled().await;
        list_disks(&self.roots);
        if self.config.controller.is_some() {
            return Box::pin(self.native(true)).await;
        }
        None
    }

    async fn disks_settled(&self) {
        // A sender that is gone will not say more.
        let _ = self.settled.clone().wait_for(|settled| *settled).await;
    }

    fn machine(&self) -> Machine {
        let (system, _) = dmi::read(&self.roots);
        Machine { system, macs: self.macs() }
    }

    fn macs(&self) -> Vec<String> {
        let nics = nics::read(&self.roots).unwrap_or_default();
        let inventory = speediso_model::inventory::Inventory { interfaces: nics, ..Default::default() };
        inventory.macs()
    }

    async fn native(&self, only_report: bool) -> Option<Fault> {
        let boot = match clock::boot_id(&self.roots) {
            Ok(boot) => boot,
            Err(e) => return Some(Fault::new(FaultCode::Io, "reading the boot id").because(e.to_string())),
        };
        let Machine { system, macs } = self.machine();
        let native = Native {
            controller: self.config.controller.clone().unwrap_or_default(),
            pins: self.config.ca_pins.clone(),
            token: self.config.token.as_ref().map(|t| t.0.clone()),
            boot,
            system,
            macs,
            build: self.build.clone(),
            address: Some(self.address.clone()),
            only_report,
            live: self.live.clone(),
            neighbours: self.neighbours.clone(),
            disks: Some(self.settled.clone()),
            logs: Some(self.logs.clone()),
            examination: Some(Examination::of(&self.config, &self.roots)),
            idle: self.config.idle,
        };
        self.engine.board().seeking(&native.controller);
        tracing::info!("controller: {}", native.controller);
        let idle = || {
            tracing::info!("no order is open; waiting for one");
            if self
                .config
                .profiles
                .iter()
                .any(|p| matches!(p, Profile::Wipe | Profile::Decommission | Profile::Lininstall))
            {
                tracing::warn!("SPEEDISO asks for destructive work, but no order is open: nothing is done");
            }
        };
        Some(Box::pin(native.serve(&self.state, &self.engine, &self.ssh, idle)).await)
    }

    async fn signed(&self, location: &str, key: &[u8; 32]) -> Result<(), Fault> {
        let mut backoff = Backoff::default();
        let (bytes, signature) = loop {
            match local::fetch(&self.http, location).await {
                Ok(fetched) => break fetched,
                Err(fault) if fault.is_transient() => {
                    tracing::error!("{fault}; trying on");
                    tokio::time::sleep(backoff.next()).await;
                }
                Err(fault) => return Err(fault),
            }
        };
        let permitted = Permitted::by_signature(&bytes, &signature, key, &self.machine(), &self.state, &self.roots)?;
        self.permitted(permitted).await
    }

    /// Burn-in and what goes with it, without anybody's permission: it changes nothing. A restarted agent does again what
    /// had not come to its end.
    async fn harmless(&self) -> Result<(), Fault> {
        let mut tasks = Vec::new();
        for profile in &self.config.profiles {
            tasks.extend(local::from_cmdline(*profile, &self.config)?);
        }
        let runs = self.engine.runs();
        let has_ended = |task: &Task| {
            let ended = |r: &engine::Run| {
                r.result
                    .as_ref()
                    .is_some_and(|result| result.fault.as_ref().is_none_or(|fault| fault.code != FaultCode::AgentDied))
            };
            runs.iter().any(|r| r.task == task.redacted() && ended(r))
        };
        tasks.retain(|task| !has_ended(task));
        self.ssh.unattended(true);
        let results = Permitted::harmless(tasks)?.run(&self.engine, &self.state, &self.roots, false).await;
        self.ssh.unattended(false);
        results.into_iter().find_map(|result| result.fault).map_or(Ok(()), Err)
    }

    async fn permitted(&self, permitted: Permitted) -> Result<(), Fault> {
        // What a restarted agent finds half done is not begun again by itself.
        if !self.nothing_begun() {
            return Err(Fault::new(
                FaultCode::AgentDied,
                "the agent ended in the middle of the work and does not begin it again by itself",
            ));
        }
        self.ssh.unattended(true);
        let results = permitted.run(&self.engine, &self.state, &self.roots, false).await;
        self.ssh.unattended(false);
        match results.into_iter().find(|r| !r.outcome.is_success()) {
            Some(failed) => {
                Err(failed.fault.unwrap_or_else(|| Fault::new(FaultCode::Internal, "a task failed without a fault")))
            }
            None => Ok(()),
        }
    }

    /// Makes and prints the plans of what `SPEEDISO` names, and stops there.
    async fn show_plans(&self) {
        let mut tasks = Vec::new();
        for profile in &self.config.profiles {
            match local::from_cmdline(*profile, &self.config) {
                Ok(expanded) => tasks.extend(expanded),
                Err(fault) => tracing::warn!("{fault}"),
            }
        }
        if self.config.profiles.contains(&Profile::Wipe) && tasks.is_empty() {
            tasks.push(Task::Wipe(WipeTask::new(WipeTargets::AllDisks, WipeLevel::Clear)));
        }
        tasks.retain(|t| !matches!(t, Task::Power(_)));
        tracing::info!("only the plans are made; nothing is changed");
        Permitted::to_look_at(tasks).run(&self.engine, &self.state, &self.roots, true).await;
    }

    /// Whether no task of this boot has passed its last check.
    fn nothing_begun(&self) -> bool {
        self.engine.runs().iter().all(|r| !r.started)
    }

    async fn on_failure(&self) {
        let Some((action, _)) = self.config.on_failure.power() else { return };
        // Armed as before, the next boot would do the same again.
        let again = self.config.arm.is_some() || self.config.tasks.is_some();
        let action = if again { PowerAction::PowerOff } else { action };
        patience::go_down(&self.engine, action).await;
    }
}

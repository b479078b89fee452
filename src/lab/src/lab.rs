//! One laboratory: a private network with DHCP and TFTP, in which machines boot. Everything ends when it is dropped.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::dnsmasq::{self, Chain, Dhcp, Dnsmasq, Loader};
use crate::error::{LabError, Result};
use crate::files::FileServer;
use crate::forward::Forward;
use crate::log::Log;
use crate::namespace::Namespace;
use crate::process::Process;
use crate::record::{self, Record};

static MADE: AtomicUsize = AtomicUsize::new(0);

/// What the laboratory's network is like.
#[derive(Clone, Debug, Default)]
pub struct LabBuilder {
    chain: Chain,
    loaders: Vec<Loader>,
    dhcp: Dhcp,
}

impl LabBuilder {
    /// In place of iPXE, for the machines that it is for.
    #[must_use]
    pub fn loader(mut self, loader: Loader) -> Self {
        self.loaders.push(loader);
        self
    }

    #[must_use]
    pub fn chain(mut self, chain: Chain) -> Self {
        self.chain = chain;
        self
    }

    #[must_use]
    pub fn dhcp(mut self, dhcp: Dhcp) -> Self {
        self.dhcp = dhcp;
        self
    }

    /// Cleans up after killed runs, then makes the namespace, the bridge and the servers.
    pub fn build(self) -> Result<Lab> {
        if !nix::unistd::geteuid().is_root() {
            return Err(LabError::NotRoot);
        }
        for name in record::sweep() {
            tracing::info!(name, "cleaned up after a run that was killed");
        }
        let record = Record::begin(&record::base(), MADE.fetch_add(1, Ordering::Relaxed))?;
        let namespace = Namespace::create(&record.name)?;
        // From here on dropping `lab` takes the namespace away again, whatever fails.
        let lab = Lab {
            record,
            namespace,
            inner: Mutex::default(),
            keep: std::env::var_os("KEEP").is_some_and(|value| !value.is_empty() && value != "0"),
        };
        lab.inner().dnsmasq = Some(Dnsmasq::start(&lab.namespace, &lab.record, self.chain, self.loaders, &self.dhcp)?);
        Ok(lab)
    }
}

#[derive(Debug, Default)]
struct Inner {
    dnsmasq: Option<Dnsmasq>,
    taps: u8,
}

#[derive(Debug)]
pub struct Lab {
    record: Record,
    namespace: Namespace,
    inner: Mutex<Inner>,
    keep: bool,
}

impl Lab {
    pub fn builder() -> LabBuilder {
        LabBuilder::default()
    }

    pub fn name(&self) -> &str {
        &self.record.name
    }

    /// Scratch space that goes with the laboratory: disks, sockets, configuration.
    pub fn dir(&self) -> &Path {
        &self.record.dir
    }

    /// What machines can fetch over TFTP.
    pub fn tftp_root(&self) -> PathBuf {
        dnsmasq::tftp_root(&self.record)
    }

    /// Logs, which stay when something went wrong.
    pub fn logs(&self) -> &Path {
        &self.record.logs
    }

    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// `KEEP=1` was given: what runs stays when its value is dropped, for a look at it.
    pub fn is_kept(&self) -> bool {
        self.keep
    }

    /// Lets namespace, servers and directory stay; gives the command that ends them.
    fn leave_running(&self) -> Result<String> {
        self.record.keep()?;
        if let Some(server) = &mut self.inner().dnsmasq {
            server.leave_running();
        }
        Ok(format!("speediso-lab end {}", self.record.name))
    }

    /// A command that runs inside the namespace.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        self.namespace.command(program)
    }

    /// Starts a command with its output in `<name>.log`, ended when dropped and recorded for the next run's sweep.
    pub fn spawn(&self, name: &str, command: Command) -> Result<Process> {
        let mut process = self.record.spawn(name, command)?;
        if self.keep {
            process.leave_running();
        }
        Ok(process)
    }

    /// Leads 127.0.0.1:`port` of the host to an address inside; port 0 lets the kernel choose.
    pub fn forward(&self, port: u16, target: SocketAddr) -> Result<Forward> {
        Forward::start(&self.namespace, port, target)
    }

    /// Serves the files below `root` over HTTP inside the namespace, until the server is dropped.
    pub fn serve_files(&self, port: u16, root: &Path) -> Result<FileServer> {
        FileServer::start(&self.namespace, port, root)
    }

    /// Changes what the DHCP server answers from now on.
    pub fn set_dhcp(&self, dhcp: &Dhcp) -> Result<()> {
        match &mut self.inner().dnsmasq {
            Some(server) => server.restart(&self.namespace, &self.record, dhcp),
            None => Ok(()),
        }
    }

    /// A new tap on the bridge and the address that a machine with this MAC will have.
    pub(crate) fn plug(&self, mac: Option<&str>) -> Result<Plug> {
        let mut inner = self.inner();
        inner.taps += 1;
        let n = inner.taps;
        let tap = format!("tap{n}");
        self.namespace.add_tap(&tap)?;
        // 52:54:00 is QEMU's own range.
        let mac = mac.map_or_else(|| format!("52:54:00:12:00:{n:02x}"), str::to_owned);
        let address = Ipv4Addr::new(192, 0, 2, 9 + n);
        if let Some(server) = &mut inner.dnsmasq {
            server.add_host(&mac, address)?;
        }
        Ok(Plug { tap, mac, address })
    }

    /// The log of a process of this name.
    pub(crate) fn log(&self, name: &str) -> Log {
        self.record.log(name)
    }

    /// Keeps the logs when the laboratory ends, and says where they are.
    pub fn keep_logs(&self) -> &Path {
        self.record.logs_wanted.store(true, Ordering::Relaxed);
        &self.record.logs
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // A panic elsewhere must not keep the laboratory from being taken down.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where a machine's NIC is plugged in.
#[derive(Clone, Debug)]
pub struct Plug {
    pub tap: String,
    pub mac: String,
    pub address: Ipv4Addr,
}

impl Drop for Lab {
    fn drop(&mut self) {
        if self.keep {
            match self.leave_running() {
                Ok(end) => eprintln!("kept, with its logs in {}; end it with `{end}`", self.record.logs.display()),
                Err(error) => eprintln!("could not be kept as KEEP asks: {error}"),
            }
            return;
        }
        let namespace = self.namespace.clone();
        let inner = self.inner.get_mut().unwrap_or_else(PoisonError::into_inner);
        inner.dnsmasq = None;
        namespace.remove();
        let _ = fs::remove_dir_all(&self.record.dir);
        if !self.record.logs_wanted.load(Ordering::Relaxed) && !std::thread::panicking() {
            let _ = fs::remove_dir_all(&self.record.logs);
        }
    }
}

//! What a task is given besides its order.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use speediso_model::build::BuildInfo;
use speediso_model::fault::{Fault, FaultCode};
use speediso_model::hints::SkipList;
use speediso_model::id::RunId;
use speediso_sys::disks::DiskScope;
use speediso_sys::roots::Roots;
use tokio::sync::watch;

pub use crate::fetch::Patience;
use crate::share::Sharing;
use crate::tools::Tools;

/// How far a step is. The run and the time are added by whoever reports it on.
#[derive(Clone, Debug)]
pub struct ProgressUpdate {
    pub stage: &'static str,
    pub device: Option<String>,
    pub current: u64,
    pub total: Option<u64>,
    pub unit: &'static str,
    /// Units per second since the last update.
    pub rate: f64,
}

/// Takes what a task tells while it works.
pub trait Reporter: Send + Sync {
    fn step_began(&self, step: &str);
    fn step_ended(&self, step: &str, detail: &str);
    /// Something worth knowing that ends nothing.
    fn notice(&self, text: &str);
    fn progress(&self, update: ProgressUpdate);
}

/// Asks a task to stop at the next safe point.
#[derive(Clone, Debug)]
pub struct Cancel(Arc<watch::Sender<bool>>);

impl Default for Cancel {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(false)))
    }
}

impl Cancel {
    pub fn cancel(&self) {
        self.0.send_replace(true);
    }

    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits until somebody asks.
    pub async fn cancelled(&self) {
        // The sender lives as long as this.
        let _ = self.0.subscribe().wait_for(|cancelled| *cancelled).await;
    }

    /// # Errors
    /// `cancelled`, once somebody asked.
    pub fn check(&self) -> Result<(), Fault> {
        if self.is_cancelled() { Err(Fault::new(FaultCode::Cancelled, "the task was cancelled")) } else { Ok(()) }
    }
}

/// A controller, and the run for which it takes something.
#[derive(Clone, Debug)]
pub struct Uploads {
    /// `https://host:port`
    pub controller: String,
    pub run: RunId,
}

/// Everything a task may use.
#[derive(Clone)]
pub struct TaskCtx {
    pub roots: Roots,
    pub scope: DiskScope,
    /// Disks that are not here, whatever the task says.
    pub skip: SkipList,
    pub reporter: Arc<dyn Reporter>,
    pub cancel: Cancel,
    /// Trusts the pinned CA only.
    pub http: reqwest::Client,
    /// For fetching; everything else here blocks.
    pub runtime: tokio::runtime::Handle,
    /// Our own program, which probes superblocks as a child; without it disks are not probed.
    pub probe: Option<PathBuf>,
    /// The interface that the boot loader used.
    pub boot_mac: Option<String>,
    pub build: BuildInfo,
    pub patience: Patience,
    /// Who takes what this run sends to the image store; none without a controller.
    pub uploads: Option<Uploads>,
    /// The same task was begun before in this boot and did not come to its end.
    pub resuming: bool,
    /// The way to other machines that write the same image, where the front door knows one.
    pub sharing: Option<Arc<dyn Sharing>>,
    /// External programs.
    pub tools: Tools,
}

impl TaskCtx {
    /// For making a plan a second time: what stands on the disks was shown with the first, and is no part of the digest.
    pub(crate) fn unprobed(&self) -> Self {
        Self { probe: None, ..self.clone() }
    }
}

impl std::fmt::Debug for TaskCtx {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TaskCtx").field("roots", &self.roots).field("scope", &self.scope).finish_non_exhaustive()
    }
}

/// Reports progress at most a few times a second, with the rate since the last report.
pub(crate) struct Meter<'a> {
    ctx: &'a TaskCtx,
    stage: &'static str,
    device: &'a str,
    total: Option<u64>,
    last: Instant,
    last_current: u64,
}

impl<'a> Meter<'a> {
    const EVERY: Duration = Duration::from_millis(300);

    pub(crate) fn new(ctx: &'a TaskCtx, stage: &'static str, device: &'a str, total: Option<u64>) -> Self {
        let meter = Self { ctx, stage, device, total, last: Instant::now(), last_current: 0 };
        meter.report(0, 0.0);
        meter
    }

    pub(crate) fn at(&mut self, current: u64) {
        let elapsed = self.last.elapsed();
        if elapsed < Self::EVERY && Some(current) != self.total {
            return;
        }
        #[allow(clippy::cast_precision_loss, reason = "a rate for people")]
        let rate = current.saturating_sub(self.last_current) as f64 / elapsed.as_secs_f64().max(0.001);
        self.report(current, rate);
        self.last = Instant::now();
        self.last_current = current;
    }

    fn report(&self, current: u64, rate: f64) {
        self.ctx.reporter.progress(ProgressUpdate {
            stage: self.stage,
            device: Some(self.device.to_owned()),
            current,
            total: self.total,
            unit: "bytes",
            rate,
        });
    }
}

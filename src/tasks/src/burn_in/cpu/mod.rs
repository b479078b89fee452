//! Verified arithmetic on every core: each bound to its processor, all at once, every result compared with a known one.
//!
//! The known results are constants of this program, found once in plain code. A core that computes wrongly cannot agree
//! with them by being wrong twice, as it could when results were only compared with its own.

mod kernels;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread;

use speediso_model::burn_in::{CpuStep, Measurement, unit};
use speediso_model::fault::Fault;
use speediso_sys::cores;

use self::kernels::{Kernel, SEEDS, Scratch};
use super::live::Live;
use super::meddle::Meddler;
use super::thermal::Thermal;
use super::work::{Findings, Planned, Work};
use crate::ctx::TaskCtx;

/// Wrong results that a report keeps, per core.
const KEPT: usize = 4;

pub(super) struct Cpu {
    step: CpuStep,
    meddler: Arc<dyn Meddler>,
}

impl Cpu {
    pub(super) fn new(step: CpuStep, meddler: Arc<dyn Meddler>) -> Self {
        Self { step, meddler }
    }
}

/// What became of one core.
#[derive(Default)]
struct OfCore {
    verified: u64,
    wrong: u64,
    by_kernel: BTreeMap<&'static str, u64>,
    notices: Vec<String>,
    seconds: f64,
    could_not: Option<String>,
}

impl Work for Cpu {
    fn plan(&self, _: &TaskCtx) -> Result<Planned, Fault> {
        let cores = match self.step.cores.as_slice() {
            [] => "every core".to_owned(),
            some => format!("the cores {some:?}"),
        };
        Ok(Planned::effect(format!("verified arithmetic on {cores}")))
    }

    fn run(&self, live: &Live<'_>) -> Findings {
        let online = cores::online(&live.ctx.roots);
        let wanted = if self.step.cores.is_empty() { &online } else { &self.step.cores };
        if wanted.is_empty() {
            return Findings::inconclusive("the kernel does not say which processors are online");
        }
        let kernels: Vec<Kernel> = Kernel::ALL.into_iter().filter(|kernel| kernel.is_here()).collect();
        let thermal = Thermal::begin(&live.ctx.roots);
        let (of_cores, mut found) = thread::scope(|scope| {
            let watching = scope.spawn(|| thermal.watch(live));
            let working: Vec<_> =
                wanted.iter().map(|core| scope.spawn(|| work_on(*core, &kernels, live, &*self.meddler))).collect();
            let of_cores: Vec<OfCore> = working
                .into_iter()
                .map(|thread| {
                    thread.join().unwrap_or_else(|_| OfCore {
                        could_not: Some("its thread panicked".into()),
                        ..OfCore::default()
                    })
                })
                .collect();
            let watched = watching.join();
            (
                of_cores,
                watched.unwrap_or_else(|_| Findings::inconclusive("watching temperatures panicked: a bug of ours")),
            )
        });
        for (core, of_core) in wanted.iter().zip(of_cores) {
            let place = format!("core {core}");
            if let Some(why) = of_core.could_not {
                found.inconclusive.push(format!("{place}: {why}"));
                continue;
            }
            #[allow(clippy::cast_precision_loss, reason = "a rate")]
            let rate = of_core.verified as f64 / of_core.seconds.max(1e-3);
            found.measurements.push(Measurement::count("cpu.errors", of_core.wrong).at(&place));
            found.measurements.push(Measurement::new("cpu.rate", unit::PER_SECOND, rate).at(&place));
            found.notices.extend(of_core.notices);
            for (kernel, n) in of_core.by_kernel {
                found.notices.push(format!("{place}: {n} wrong results of {kernel}"));
            }
        }
        let used: Vec<&str> = kernels.iter().map(|kernel| kernel.name()).collect();
        found.notices.insert(0, format!("kernels: {}", used.join(", ")));
        found
    }
}

fn work_on(core: u32, kernels: &[Kernel], live: &Live<'_>, meddler: &dyn Meddler) -> OfCore {
    let mut of_core = OfCore::default();
    if let Err(error) = cores::pin_to(core) {
        of_core.could_not = Some(format!("no thread can be bound to it: {error}"));
        return of_core;
    }
    let mut scratch = Scratch::default();
    let began = live.seconds();
    // Every kernel at least once, however little time there is; then until the time is over.
    'work: for turn in 0_usize.. {
        for kernel in kernels {
            if turn > 0 && live.is_over() {
                break 'work;
            }
            let seed = turn % SEEDS;
            let result = meddler.result(core, kernel.name(), kernel.run(seed, &mut scratch));
            let expected = kernel.expected(seed);
            if result == expected {
                of_core.verified += 1;
                continue;
            }
            of_core.wrong += 1;
            *of_core.by_kernel.entry(kernel.name()).or_default() += 1;
            let what = format!(
                "core {core} computed {} wrongly: {result:016x} instead of {expected:016x}, after {:.0} s",
                kernel.name(),
                live.seconds()
            );
            live.fault(&what);
            if of_core.notices.len() < KEPT {
                of_core.notices.push(what);
            }
        }
    }
    of_core.seconds = live.seconds() - began;
    of_core
}

#[cfg(test)]
mod tests;

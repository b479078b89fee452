//! Patterns in nearly all free memory: locked, on every node by threads of its own processors, written and read back.
//!
//! The memory of the kernel, of the agent and of what else runs is not reached. What is taken leaves a reserve, is taken
//! in pieces, and is given back when the machine runs short, so that the kernel never has to end a program for it.

mod fault;
mod pieces;
mod share;
mod sweep;

use std::sync::Arc;
use std::thread;

use speediso_model::burn_in::{Measurement, MemoryPattern, MemoryStep, unit};
use speediso_model::fault::Fault;
use speediso_model::units::Bytes;
use speediso_sys::{cores, numa};

use self::fault::Faults;
use self::pieces::{Ledger, Pieces};
use self::share::Portion;
use self::sweep::Sweeper;
use super::live::Live;
use super::meddle::Meddler;
use super::work::{Findings, Planned, Work};
use crate::ctx::TaskCtx;

pub(super) struct Memory {
    step: MemoryStep,
    meddler: Arc<dyn Meddler>,
}

impl Memory {
    pub(super) fn new(step: MemoryStep, meddler: Arc<dyn Meddler>) -> Self {
        Self { step, meddler }
    }

    fn patterns(&self) -> &[MemoryPattern] {
        if self.step.patterns.is_empty() { &MemoryPattern::ALL } else { &self.step.patterns }
    }
}

/// What became of one thread's part.
#[derive(Default)]
struct OfPart {
    node: u32,
    bytes: u64,
    sweeps: u64,
    passes: u64,
    write_rate: f64,
    read_rate: f64,
    faults: Faults,
    notices: Vec<String>,
}

impl Work for Memory {
    fn plan(&self, _: &TaskCtx) -> Result<Planned, Fault> {
        let how_much = self.step.size.map_or_else(|| "nearly all free memory".to_owned(), |size| size.to_string());
        let patterns: Vec<&str> = self.patterns().iter().map(|pattern| pattern.name()).collect();
        Ok(Planned::effect(format!("patterns ({}) in {how_much}, locked", patterns.join(", "))))
    }

    fn run(&self, live: &Live<'_>) -> Findings {
        let roots = &live.ctx.roots;
        let Some(available) = numa::available(roots) else {
            return Findings::inconclusive("the kernel does not say how much memory is available (/proc/meminfo)");
        };
        let nodes = numa::nodes(roots);
        let reserve = share::reserve(&self.step, available);
        let portions = share::portions(&self.step, available, reserve, &nodes);
        if portions.is_empty() {
            return Findings::inconclusive(format!(
                "{} are available, of which {} stay with the system: nothing is left to test",
                Bytes(available.available),
                Bytes(reserve)
            ));
        }
        let ledger = Ledger::new(roots, reserve);
        let parts: Vec<OfPart> = thread::scope(|scope| {
            let working: Vec<_> =
                portions.iter().map(|portion| scope.spawn(|| self.work_on(portion, &ledger, live))).collect();
            working.into_iter().filter_map(|thread| thread.join().ok()).collect()
        });
        let mut found = sum_up(&parts, available.total);
        if parts.len() < portions.len() {
            found.inconclusive.push("a thread panicked: a bug of ours".into());
        }
        let tested: u64 = parts.iter().map(|part| part.bytes).sum();
        if let Some(size) = self.step.size.filter(|size| tested < share::floor_to_page(size.0)) {
            found.inconclusive.push(format!("{size} were asked for and {} could be had", Bytes(tested)));
        }
        found
    }
}

impl Memory {
    fn work_on(&self, portion: &Portion, ledger: &Ledger<'_>, live: &Live<'_>) -> OfPart {
        let mut part = OfPart { node: portion.node, ..OfPart::default() };
        if let Some(core) = portion.core
            && let Err(error) = cores::pin_to(core)
        {
            part.notices.push(format!("no thread can be bound to core {core}, proceeding unbound: {error}"));
        }
        let mut pieces = Pieces::take(portion, ledger, live, &mut part.notices);
        part.bytes = pieces.bytes();
        let mut sweeper = Sweeper::new(live, &*self.meddler, portion.node);
        while !pieces.is_empty() {
            for pattern in self.patterns() {
                sweeper.sweep(*pattern, &mut pieces, part.passes);
                pieces.give_back_if_short(ledger, &mut part.notices);
            }
            if sweeper.is_cut_off() {
                break;
            }
            part.passes += 1;
            if self.step.passes.is_some_and(|most| part.passes >= most.into()) {
                break;
            }
        }
        part.sweeps = sweeper.sweeps();
        (part.write_rate, part.read_rate) = sweeper.rates();
        part.faults = sweeper.into_faults();
        part
    }
}

fn sum_up(parts: &[OfPart], total: u64) -> Findings {
    let mut found = Findings::default();
    let mut nodes: Vec<u32> = parts.iter().map(|part| part.node).collect();
    nodes.sort_unstable();
    nodes.dedup();
    #[allow(clippy::cast_precision_loss, reason = "figures for people")]
    for node in nodes {
        let of_node = || parts.iter().filter(|part| part.node == node);
        let place = format!("node {node}");
        let bytes: u64 = of_node().map(|part| part.bytes).sum();
        let rate = |of: fn(&OfPart) -> f64| of_node().map(of).sum::<f64>();
        found
            .measurements
            .push(Measurement::count("memory.errors", of_node().map(|p| p.faults.count()).sum()).at(&place));
        found.measurements.push(Measurement::new("memory.tested", unit::BYTES, bytes as f64).at(&place));
        for (name, rate) in [
            ("memory.bandwidth.write", rate(|part| part.write_rate)),
            ("memory.bandwidth.read", rate(|part| part.read_rate)),
        ] {
            if rate > 0.0 {
                found.measurements.push(Measurement::new(name, unit::BYTES_PER_SECOND, rate).at(&place));
            }
        }
    }
    // A part that had no memory has compared nothing, and says so itself.
    let with_memory = || parts.iter().filter(|part| part.bytes > 0);
    let sweeps = with_memory().map(|part| part.sweeps).min().unwrap_or(0);
    let passes = with_memory().map(|part| part.passes).min().unwrap_or(0);
    let tested: u64 = parts.iter().map(|part| part.bytes).sum();
    #[allow(clippy::cast_precision_loss, reason = "a share in percent")]
    let share = tested as f64 * 100.0 / (total as f64).max(1.0);
    found.measurements.push(Measurement::new("memory.share", unit::PERCENT, (share * 10.0).round() / 10.0));
    found.measurements.push(Measurement::count("memory.sweeps", sweeps));
    found.measurements.push(Measurement::count("memory.passes", passes));
    if sweeps == 0 {
        found.inconclusive.push("not every word could be read back once in the time: give it longer".into());
    } else if passes == 0 {
        found.notices.push(format!("the time was not enough for all patterns: {sweeps} sweeps were done"));
    }
    let mut faults = Faults::default();
    for part in parts {
        found.notices.extend(part.notices.iter().cloned());
        faults.add(&part.faults);
    }
    found.notices.extend(faults.describe());
    found
}

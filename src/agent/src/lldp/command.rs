//! `speediso-agent lldp`: what is plugged in where.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use clap::Args;
use speediso_model::fault::{Fault, FaultCode};
use speediso_model::lldp::{Aggregation, Heard, INTERVAL_SECONDS, processed};
use speediso_sys::lldp::{LldpSocket, Memory};
use speediso_sys::roots::Roots;

use super::Listener;

/// Exit status: 0 a neighbour was heard, 1 none was, 77 not permitted.
#[derive(Args, Debug)]
pub struct LldpArgs {
    /// Listen here, though an agent listens in the background
    #[arg(long)]
    listen: bool,
    /// How long to listen at most; switches speak every 30 seconds
    #[arg(long, value_name = "SECONDS", default_value_t = INTERVAL_SECONDS + 1, value_parser = clap::value_parser!(u64).range(1..=300))]
    wait: u64,
    /// As JSON, with Ironic's names too
    #[arg(long)]
    json: bool,
}

/// Answers, and returns the exit status.
#[must_use]
pub fn run(args: &LldpArgs) -> u8 {
    let roots = Roots::live();
    let heard = match Memory::read(&roots).filter(|_| !args.listen) {
        Some(memory) => Ok(remembered(&roots, memory, Duration::from_secs(args.wait))),
        None => listen(&roots, Duration::from_secs(args.wait)),
    };
    match heard {
        Ok(heard) => {
            println!("{}", if args.json { json(&heard) } else { list(&heard) });
            u8::from(heard.is_empty())
        }
        Err(fault) => {
            eprintln!("speediso-agent: {fault}\n  do: {}", fault.advice);
            77
        }
    }
}

/// From the agent in the background, which may not have listened for long.
fn remembered(roots: &Roots, mut memory: Memory, wait: Duration) -> Vec<Heard> {
    let end = Instant::now() + wait;
    while memory.heard.is_empty() && !memory.is_settled(roots) && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(500));
        memory = Memory::read(roots).unwrap_or(memory);
    }
    memory.heard
}

/// By ourselves, without a word of our own: until something was heard on every interface that is up.
fn listen(roots: &Roots, wait: Duration) -> Result<Vec<Heard>, Fault> {
    let failed = |e: std::io::Error| Fault {
        advice: "run it as root".into(),
        ..Fault::new(FaultCode::Io, "listening to neighbours (LLDP)").because(e.to_string())
    };
    // Said before half a minute of silence.
    drop(LldpSocket::open().map_err(failed)?);
    let mut listener = Listener::open(roots.clone(), None).map_err(failed)?;
    let end = Instant::now() + wait;
    loop {
        listener.look().map_err(failed)?;
        let heard = listener.table.heard();
        let all = listener.ports.iter().all(|p| heard.iter().any(|h| h.interface == p.name));
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() || (all && !listener.ports.is_empty()) {
            return Ok(heard);
        }
        listener.hear(left.min(Duration::from_secs(1))).map_err(failed)?;
    }
}

fn json(heard: &[Heard]) -> String {
    let one = |h: &Heard| {
        serde_json::json!({
            "interface": h.interface,
            "neighbour": h.neighbour,
            "lldp_processed": processed(&h.neighbour),
            "lldp": h.raw,
        })
    };
    format!("{:#}", heard.iter().map(one).collect::<serde_json::Value>())
}

fn list(heard: &[Heard]) -> String {
    if heard.is_empty() {
        return "no neighbour was heard: the switch may not speak LLDP, or no interface is up".to_owned();
    }
    let mut text = String::new();
    for Heard { interface, neighbour, .. } in heard {
        let _ = writeln!(text, "{interface}: {}", neighbour.in_words());
        let vlans: Vec<String> = neighbour.vlans.iter().map(|v| format!("{} {}", v.id, v.name)).collect();
        let bundle =
            |a: &Aggregation| if a.active { format!("active, port {}", a.port) } else { "not active".to_owned() };
        let lines = [
            ("chassis", Some(neighbour.chassis.to_string())),
            ("port", neighbour.port_description.clone()),
            ("system", neighbour.system_description.clone()),
            ("managed", Some(neighbour.management_addresses.join(", "))),
            ("vlans", Some(vlans.join(", "))),
            ("bundle", neighbour.aggregation.as_ref().map(bundle)),
            ("frames", neighbour.max_frame.map(|bytes| format!("up to {bytes} bytes"))),
        ];
        for (name, value) in lines {
            if let Some(value) = value.filter(|v| !v.is_empty()) {
                let _ = writeln!(text, "  {name:<8} {value}");
            }
        }
    }
    text.trim_end().to_owned()
}

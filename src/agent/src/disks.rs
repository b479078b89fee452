//! `speediso-agent disks`: what this machine has, in the words of root device hints, and what given hints mean here.

use clap::Args;
use speediso_model::fault::{Fault, FaultClass, FaultCode};
use speediso_model::hints::{RootDeviceHints, SkipList, TextHint, describe, unusable};
use speediso_model::inventory::Disk;
use speediso_sys::disks::{self, DiskScope};
use speediso_sys::roots::Roots;

use crate::run;

/// Exit status with --hints: 0 one disk would be taken, 1 none matches, 2 several do, 64 the hints are not understood,
/// 77 the one that matches must not be written.
#[derive(Args, Debug)]
pub struct DisksArgs {
    /// Root device hints, as in an order (JSON) or in one line: serial=S1, or size>=100GiB,pick=smallest
    #[arg(long, value_name = "HINTS")]
    hints: Option<String>,
    /// The hints are Ironic's: an object with sizes in GiB
    #[arg(long, requires = "hints")]
    ironic: bool,
    /// Leave the disks alone that these hints match; may be repeated
    #[arg(long, value_name = "HINTS")]
    skip: Vec<String>,
    /// Loop devices count as disks
    #[arg(long)]
    allow_loop: bool,
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// Answers, and returns the exit status.
#[must_use]
pub fn run(args: &DisksArgs) -> u8 {
    match answer(args, &Roots::live()) {
        Ok((text, status)) => {
            println!("{text}");
            status
        }
        Err(fault) => {
            eprintln!("speediso-agent: {fault}\n  do: {}", fault.advice);
            status(&fault)
        }
    }
}

fn status(fault: &Fault) -> u8 {
    match (fault.code, fault.class) {
        (FaultCode::AmbiguousDisk, _) => 2,
        (FaultCode::TaskInvalid | FaultCode::CmdlineInvalid, _) => 64,
        (FaultCode::DiskReadOnly, _) | (_, FaultClass::Refused) => 77,
        _ => 1,
    }
}

fn answer(args: &DisksArgs, roots: &Roots) -> Result<(String, u8), Fault> {
    // Before the machine is looked at: what is not understood is not half of an answer.
    let hints = args.hints.as_deref().map(|text| read_hints(text, args.ironic)).transpose()?;
    let mut skip = run::skip_of_boot(roots)?;
    for text in &args.skip {
        skip = skip.and(&SkipList(vec![read_hints(text, false)?]));
    }
    skip.check().map_err(|what| Fault::new(FaultCode::CmdlineInvalid, what))?;
    let mut disks = disks::read(roots, DiskScope { loops: args.allow_loop })
        .map_err(|e| Fault::from_error(FaultCode::Io, &e).because("listing the disks in /sys/block"))?;
    skip.mark(&mut disks);
    let Some(hints) = hints else {
        let text = if args.json { json(&disks)? } else { list(&disks) };
        return Ok((text, 0));
    };
    let (explanation, chosen) = hints.explain(&disks);
    let text = if args.json { json(&explanation)? } else { explanation.to_string() };
    Ok((text, chosen.map_or_else(|fault| status(&fault), |_| 0)))
}

fn json(value: &impl serde::Serialize) -> Result<String, Fault> {
    serde_json::to_string_pretty(value).map_err(|e| Fault::from_error(FaultCode::Internal, &e))
}

fn read_hints(text: &str, ironic: bool) -> Result<RootDeviceHints, Fault> {
    let invalid = |e: serde_json::Error| Fault::new(FaultCode::TaskInvalid, format!("root device hints: {e}"));
    let hints = if ironic {
        RootDeviceHints::from_ironic(&serde_json::from_str(text).map_err(invalid)?)?
    } else if text.trim_start().starts_with('{') {
        serde_json::from_str(text).map_err(invalid)?
    } else {
        text.parse()?
    };
    if hints.is_empty() {
        return Err(Fault::new(FaultCode::TaskInvalid, "the root device hints are empty"));
    }
    Ok(hints)
}

/// Every property that a hint can name, as it would be written in one.
fn list(disks: &[Disk]) -> String {
    let mut lines = Vec::new();
    for disk in disks {
        lines.push(describe(disk));
        let transport = TextHint::from(disk.tran).to_string();
        let known = [
            ("serial", disk.serial.as_str()),
            ("wwn", disk.wwn.as_deref().unwrap_or_default()),
            ("model", &disk.model),
            ("vendor", &disk.vendor),
            ("firmware", &disk.firmware),
            ("by_path", disk.by_path.as_deref().unwrap_or_default()),
            ("hctl", disk.hctl.as_deref().unwrap_or_default()),
            ("transport", &transport),
        ];
        lines.extend(
            known.iter().filter(|(_, value)| !value.is_empty()).map(|(name, value)| format!("  {name:<10} {value}")),
        );
        lines.push(format!("  rotational {}", disk.rotational));
        lines.push(format!("  size       {}", disk.size.0));
        if let Some(reason) = unusable(disk, false) {
            lines.push(format!("  never taken: {reason}"));
        }
    }
    if lines.is_empty() { "no disks here".to_owned() } else { lines.join("\n") }
}

//! Finding the medium that this system was started from, for the parameters on it.
//!
//! Only a boot entry that names an id (`speediso.medium=`) makes the agent look, and only at sticks and CDs. Two media with
//! one id are a copy too many: whichever of them a former user left behind, none is believed.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use speediso_model::fault::{Fault, FaultCode};
use speediso_sys::medium::{self, Found};
use speediso_sys::roots::Roots;
use uuid::Uuid;

use crate::cmdline::Config;
use crate::drivers::Loading;
use crate::parameters::{self, KEPT};
use crate::state::StateDir;

/// Sticks take seconds to show up, virtual CDs across a slow line half a minute.
const PATIENCE: Duration = Duration::from_secs(90);
const POLL: Duration = Duration::from_millis(500);
/// So long no further medium shows up before one is believed to be the only one.
const QUIET: u32 = 6;
/// A drive that had no medium is asked again after so many looks.
const ASK_AGAIN: u32 = 4;

/// What the command line says, and the medium beside it; with the line that both make together. A mistake of the line itself
/// comes back as it is.
pub(crate) async fn add_parameters(
    parsed: Result<Config, Fault>,
    line: &str,
    state: &StateDir,
    roots: &Roots,
) -> (Result<Config, Fault>, String) {
    let id = match &parsed {
        Ok(Config { medium: Some(id), .. }) => *id,
        _ => return (parsed, line.to_owned()),
    };
    let text = match state.get(KEPT) {
        // A restarted agent does not ask for a stick that is in the next machine by now.
        Ok(Some(kept)) => String::from_utf8_lossy(&kept).into_owned(),
        _ => match read(id, state, roots).await {
            Ok(text) => text,
            Err(fault) => return (Err(fault), line.to_owned()),
        },
    };
    match parameters::together(line.trim_end(), &text) {
        Ok(effective) => (parameters::config(&effective), effective),
        Err(fault) => (Err(fault), line.to_owned()),
    }
}

async fn read(id: Uuid, state: &StateDir, roots: &Roots) -> Result<String, Fault> {
    tracing::info!("looking for the medium this system was started from (speediso.medium={id})");
    // Only then do drives show up one after another, and a pause means that there are no more.
    Loading::Drivers.ended().await;
    let (name, text) = find(id, roots).await?;
    let keeping =
        |e: std::io::Error| Fault::new(FaultCode::Io, "keeping what stands on the medium").because(e.to_string());
    medium::note(roots, &name).map_err(keeping)?;
    let text = match text {
        Some(text) => {
            tracing::info!("parameters: from {} on {name}", medium::FILE);
            text
        }
        None => {
            tracing::warn!("parameters: {name} has no {}: there are none but the command line's", medium::FILE);
            String::new()
        }
    };
    state.put(KEPT, text.as_bytes()).map_err(keeping)?;
    Ok(text)
}

/// What is known of one candidate.
enum Look {
    Own(Option<String>),
    Other,
    /// Why it could not be read, and after how many further rounds it is asked again.
    Not(String, u32),
}

/// Its name, and the text on it.
async fn find(id: Uuid, roots: &Roots) -> Result<(String, Option<String>), Fault> {
    let exe = std::env::current_exe()
        .map_err(|e| Fault::new(FaultCode::Internal, "finding this program").because(e.to_string()))?;
    let begun = Instant::now();
    let mut seen: BTreeMap<String, Look> = BTreeMap::new();
    let mut quiet = 0;
    loop {
        let names = medium::candidates(roots).unwrap_or_default();
        // Pulled out: what it was no longer counts.
        seen.retain(|name, _| names.contains(name));
        quiet += 1;
        for name in names {
            match seen.get_mut(&name) {
                Some(Look::Not(_, rounds)) if *rounds > 0 => *rounds -= 1,
                Some(Look::Own(_) | Look::Other) => {}
                known => {
                    quiet = if known.is_none() { 0 } else { quiet };
                    let look = look(exe.clone(), roots.clone(), name.clone(), id).await;
                    if matches!(look, Look::Own(_)) {
                        quiet = 0;
                    }
                    seen.insert(name, look);
                }
            }
        }
        let own: Vec<&String> =
            seen.iter().filter(|(_, look)| matches!(look, Look::Own(_))).map(|(name, _)| name).collect();
        if let [first, _, ..] = own.as_slice() {
            return Err(Fault::new(
                FaultCode::CmdlineInvalid,
                format!(
                    "{} media carry the parameter partition {id} ({}): one is a copy, and none of them is believed; \
                     no parameter counts, no disk was touched; take all but one out and start again",
                    own.len(),
                    own.iter().map(|name| name.as_str()).collect::<Vec<_>>().join(", ")
                ),
            )
            .because(format!("the first is {first}")));
        }
        if own.len() == 1 && quiet >= QUIET {
            break;
        }
        if begun.elapsed() >= PATIENCE {
            break;
        }
        tokio::time::sleep(POLL).await;
    }
    let mut others = Vec::new();
    for (name, look) in seen {
        match look {
            Look::Own(text) => return Ok((name, text)),
            Look::Other => others.push(format!("{name} is another medium")),
            Look::Not(why, _) => others.push(format!("{name}: {why}")),
        }
    }
    let mut fault = Fault::new(
        FaultCode::CmdlineInvalid,
        format!(
            "no stick and no CD carries the parameter partition {id} that the boot entry names; no parameter counts, no \
             disk was touched; put the medium back and start again, or start with speediso.medium=off"
        ),
    );
    if others.is_empty() {
        others.push("the machine shows no stick and no CD at all".to_owned());
    }
    fault.causes = others;
    Err(fault)
}

async fn look(exe: PathBuf, roots: Roots, name: String, id: Uuid) -> Look {
    let looked = tokio::task::spawn_blocking(move || medium::look(&exe, &roots, &name, id)).await;
    match looked {
        Ok(Ok(Found::Own { parameters })) => Look::Own(parameters),
        Ok(Ok(Found::Other)) => Look::Other,
        Ok(Err(error)) => Look::Not(error.to_string(), ASK_AGAIN),
        Err(error) => Look::Not(error.to_string(), ASK_AGAIN),
    }
}

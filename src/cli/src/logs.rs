//! A machine's log as the controller keeps it.

use anyhow::{Context as _, Result, bail};
use speediso_model::api::{List, NodeView, path};
use speediso_model::id::BootId;
use speediso_model::log::{LogBoot, LogSource, LogsQuery, StoredLine};

use crate::args::LogsArgs;
use crate::client::Client;
use crate::commands::at;
use crate::{bundle, resolve};

/// Of a long poll.
const WAIT: u64 = 25;

pub(crate) async fn run(client: &Client, args: &LogsArgs, json: bool) -> Result<()> {
    let node = resolve::node(client, &args.node).await?;
    if let Some(file) = &args.bundle {
        return bundle::write(client, &node, file, json).await;
    }
    let boots: List<LogBoot> = client.get(&at(path::NODE_LOG_BOOTS, node.id)).await?;
    let boot = chosen(&boots.items, args.boot.as_deref())?;
    if boot.is_none() && !args.follow {
        bail!("{} has sent no log yet; it does once its agent is enrolled", node.name);
    }
    if let Some(boot) = boot.and_then(|id| boots.items.iter().find(|b| b.boot == id))
        && boot.lost > 0
        && !json
    {
        println!("({} lines of this boot are not here any more)", boot.lost);
    }
    let mut query = LogsQuery { boot, ..LogsQuery::default() };
    loop {
        let lines = page(client, &node, &query).await?;
        for line in &lines {
            if json {
                println!("{}", serde_json::to_string(line)?);
            } else if args.kernel || line.line.source != LogSource::Kernel {
                println!("{}", line.line);
            }
            query.after = query.after.max(line.cursor);
        }
        if !lines.is_empty() {
            continue;
        }
        if !args.follow {
            return Ok(());
        }
        // What comes next may be of the next boot.
        query.boot = query.boot.filter(|_| args.boot.is_some());
        query.wait = WAIT;
    }
}

async fn page(client: &Client, node: &NodeView, query: &LogsQuery) -> Result<Vec<StoredLine>> {
    let lines: List<StoredLine> = client.get_query(&at(path::NODE_LOGS, node.id), query).await?;
    Ok(lines.items)
}

/// Every line of one boot.
pub(crate) async fn whole(client: &Client, node: &NodeView, boot: BootId) -> Result<Vec<StoredLine>> {
    let mut query = LogsQuery { boot: Some(boot), ..LogsQuery::default() };
    let mut all = Vec::new();
    loop {
        let lines = page(client, node, &query).await?;
        let Some(last) = lines.last() else { return Ok(all) };
        query.after = last.cursor;
        all.extend(lines);
    }
}

/// The boot that was asked for by the beginning of its id, or the newest.
fn chosen(boots: &[LogBoot], asked: Option<&str>) -> Result<Option<BootId>> {
    let Some(asked) = asked else { return Ok(boots.first().map(|b| b.boot)) };
    let known = || boots.iter().map(|b| b.boot.to_string()).collect::<Vec<_>>().join(", ");
    let mut found = boots.iter().filter(|b| b.boot.to_string().starts_with(asked));
    let boot = found.next().with_context(|| format!("no boot begins with {asked:?}; kept are: {}", known()))?;
    if found.next().is_some() {
        bail!("several boots begin with {asked:?}: {}", known());
    }
    Ok(Some(boot.boot))
}

#[cfg(test)]
mod tests {
    use speediso_model::id::Epoch;

    use super::*;

    #[test]
    fn a_boot_is_found_by_the_beginning_of_its_id() {
        let boot = |n: u128| LogBoot {
            boot: BootId(uuid::Uuid::from_u128(n << 120)),
            epoch: Epoch(1),
            first: jiff::Timestamp::UNIX_EPOCH,
            last: jiff::Timestamp::UNIX_EPOCH,
            lines: 1,
            lost: 0,
            network_doctor: None,
        };
        let boots = [boot(0xab), boot(0xac)];
        assert_eq!(chosen(&boots, None).expect("the newest"), Some(boots[0].boot));
        assert_eq!(chosen(&boots, Some("ac")).expect("one"), Some(boots[1].boot));
        assert!(chosen(&boots, Some("a")).is_err() && chosen(&boots, Some("ff")).is_err());
        assert_eq!(chosen(&[], None).expect("none"), None);
    }
}

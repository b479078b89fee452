//! Staying with an order until it ends: events as lines, progress as bars.
//!
//! The event store is read by cursor and the order by its id, so a controller that restarts in between costs nothing
//! but a pause, which is said.

use std::collections::HashMap;
use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use anyhow::Result;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use speediso_model::api::{EventsQuery, List, OrderView, StoredEvent, exit_code, path};
use speediso_model::event::{Event, EventKind, Progress};
use speediso_model::id::OrderId;
use speediso_model::units::Bytes;

use crate::client::{Client, Unreachable};
use crate::commands::at;
use crate::output;

const POLL: Duration = Duration::from_millis(700);
/// Without a terminal a line of progress is for a log file: seldom enough to read.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// Follows an order to its end; the exit code says how it ended.
pub(crate) async fn order(client: &Client, id: OrderId, json: bool) -> Result<u8> {
    let mut view = View::new(json);
    let mut query = EventsQuery { order: Some(id), ..EventsQuery::default() };
    let mut away = Away::default();
    loop {
        let (order, events) = match read(client, id, &query).await {
            Ok(read) => {
                if let Some(seconds) = away.back() {
                    view.line(&format!("the controller answers again after {seconds} s"));
                }
                read
            }
            Err(error) if error.downcast_ref::<Unreachable>().is_some() => {
                if away.gone() {
                    view.line(
                        "the controller cannot be reached; trying on (the machine goes on with what it has begun)",
                    );
                }
                tokio::time::sleep(away.pause()).await;
                continue;
            }
            Err(error) => return Err(error),
        };
        for event in &events {
            view.event(event);
            query.after = query.after.max(event.cursor);
        }
        // Only once nothing is left to be told, so that the last event is never cut off.
        let state = order.order.state;
        if events.is_empty() && !state.is_open() {
            view.end(&order);
            return Ok(exit_code(state));
        }
        if events.is_empty() && state == speediso_model::order::OrderState::Interrupted {
            view.end(&order);
            return Ok(exit_code(state));
        }
        view.progress(&order.progress);
        tokio::time::sleep(POLL).await;
    }
}

async fn read(client: &Client, id: OrderId, query: &EventsQuery) -> Result<(OrderView, Vec<StoredEvent>)> {
    // The order first: events that came with its end are then in the answer that follows.
    let order: OrderView = client.get(&at(path::ORDER, id)).await?;
    let events: List<StoredEvent> = client.get_query(path::STORED_EVENTS, query).await?;
    Ok((order, events.items))
}

/// How long the controller has been away.
#[derive(Default)]
struct Away {
    since: Option<Instant>,
    tries: u32,
}

impl Away {
    /// True the first time.
    fn gone(&mut self) -> bool {
        self.tries += 1;
        self.since.replace(self.since.unwrap_or_else(Instant::now)).is_none()
    }

    fn back(&mut self) -> Option<u64> {
        self.tries = 0;
        self.since.take().map(|since| since.elapsed().as_secs())
    }

    fn pause(&self) -> Duration {
        Duration::from_millis(500 * u64::from(self.tries.min(10)))
    }
}

struct View {
    json: bool,
    bars: Option<MultiProgress>,
    shown: HashMap<String, Shown>,
}

struct Shown {
    bar: Option<ProgressBar>,
    line_at: Option<Instant>,
    current: u64,
}

impl View {
    fn new(json: bool) -> Self {
        let bars = (!json && std::io::stdout().is_terminal()).then(MultiProgress::new);
        Self { json, bars, shown: HashMap::new() }
    }

    fn line(&self, text: &str) {
        match &self.bars {
            // Printing above bars can only fail with the terminal itself.
            Some(bars) => bars.println(text).unwrap_or_default(),
            None if self.json => eprintln!("{text}"),
            None => println!("{text}"),
        }
    }

    fn event(&self, event: &StoredEvent) {
        if self.json {
            if let Ok(text) = serde_json::to_string(event) {
                println!("{text}");
            }
            return;
        }
        self.line(&output::event(event));
        if let Ok(Event { kind: EventKind::Planned { plan, .. }, .. }) = serde_json::from_value(event.detail.clone()) {
            self.line(&plan.to_string());
        }
    }

    fn progress(&mut self, progress: &[Progress]) {
        let keys: Vec<String> = progress.iter().map(key).collect();
        self.shown.retain(|key, shown| {
            let going = keys.contains(key);
            if let (false, Some(bar)) = (going, &shown.bar) {
                bar.finish_and_clear();
            }
            going
        });
        if self.json {
            return;
        }
        for (progress, key) in progress.iter().zip(keys) {
            let bars = self.bars.as_ref();
            let shown = self.shown.entry(key).or_insert_with(|| Shown {
                bar: bars.map(|bars| bars.add(new_bar(progress))),
                line_at: None,
                current: 0,
            });
            if let Some(bar) = &shown.bar {
                bar.set_length(progress.total.unwrap_or(0));
                bar.set_position(progress.current);
                bar.set_message(words(progress));
            } else if shown.current != progress.current && shown.line_at.is_none_or(|at| at.elapsed() >= LINE_EVERY) {
                shown.line_at = Some(Instant::now());
                println!("  {}", words(progress));
            }
            shown.current = progress.current;
        }
    }

    fn end(&mut self, order: &OrderView) {
        self.progress(&[]);
        if self.json {
            if let Ok(text) = serde_json::to_string(order) {
                println!("{text}");
            }
        } else {
            self.line(&output::order(order));
        }
    }
}

fn key(progress: &Progress) -> String {
    format!("{} {} {}", progress.run, progress.device.as_deref().unwrap_or_default(), progress.stage)
}

fn new_bar(progress: &Progress) -> ProgressBar {
    let template = if progress.total.is_some() { "  [{bar:30}] {percent:>3}% {msg}" } else { "  {spinner} {msg}" };
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(progress.total.unwrap_or(0)).with_style(style.progress_chars("=> "))
}

/// `writing /dev/vda: 512.0 MiB of 4.0 GiB, 120.5 MiB/s, 0:30 left`
fn words(progress: &Progress) -> String {
    let amount =
        |n: u64| if progress.unit == "bytes" { Bytes(n).to_string() } else { format!("{n} {}", progress.unit) };
    let mut text = progress.stage.clone();
    if let Some(device) = &progress.device {
        text.push(' ');
        text.push_str(device);
    }
    text.push_str(": ");
    text.push_str(&amount(progress.current));
    if let Some(total) = progress.total {
        text.push_str(" of ");
        text.push_str(&amount(total));
    }
    if progress.rate.is_finite() && progress.rate >= 1.0 {
        let rate = Duration::from_secs_f64(progress.rate.min(1e15)).as_secs();
        text.push_str(&format!(", {}/s", amount(rate)));
        if let (Some(total), true) = (progress.total, rate > 0) {
            let left = total.saturating_sub(progress.current) / rate;
            text.push_str(&format!(", {}:{:02} left", left / 60, left % 60));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use speediso_model::id::RunId;

    #[test]
    fn progress_in_words() {
        let mut progress = Progress {
            run: RunId(uuid::Uuid::nil()),
            stage: "writing".into(),
            current: 512 << 20,
            total: Some(4 << 30),
            unit: "bytes".into(),
            rate: 128.0 * 1024.0 * 1024.0,
            device: Some("/dev/vda".into()),
            uptime_ms: 0,
        };
        assert_eq!(words(&progress), "writing /dev/vda: 512.0 MiB of 4.0 GiB, 128.0 MiB/s, 0:28 left");
        progress.total = None;
        progress.rate = f64::NAN;
        assert_eq!(words(&progress), "writing /dev/vda: 512.0 MiB");
    }
}

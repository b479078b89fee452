//! The head of the status screen: what a person wants to know who walks up to the machine. Pure.

use speediso_model::event::Progress;
use speediso_model::units::Bytes;

use super::board::{Standing, Status};
use super::grid::{Grid, Look, wrapped};

/// Column at which values begin.
const VALUES: usize = 11;
const BAR: usize = 14;
const DEVICES: usize = 3;

/// How many rows of a screen the head takes; none, if it would leave too little for the log.
#[must_use]
pub(super) fn head_rows(rows: usize, cols: usize) -> usize {
    match (rows, cols) {
        (_, ..40) | (..12, _) => 0,
        (..20, _) => 6,
        _ => 11,
    }
}

/// The head for a screen of this size.
#[must_use]
pub(super) fn head(status: &Status, rows: usize, cols: usize, keys: &str) -> Grid {
    let height = head_rows(rows, cols);
    let mut grid = Grid::new(height, cols);
    if height == 0 {
        return grid;
    }
    title(&mut grid, status);
    field(&mut grid, 1, "Address", &address(status), Look::Plain);
    let (controller, look) = controller(status);
    field(&mut grid, 2, "Controller", &controller, look);
    // What is under way and what went wrong share the rows between work and keys.
    let free = if height < 11 {
        let bar = status.progress.first().map_or_else(|| work(status), |p| bar(p, cols));
        field(&mut grid, 3, "Work", &bar, Look::Plain);
        4
    } else {
        field(&mut grid, 3, "Work", &work(status), Look::Plain);
        bars(&mut grid, 4, &status.progress)
    };
    fault(&mut grid, free..height - 1, status);
    let last = height - 1;
    grid.put(last, 1, keys, Look::Plain);
    grid.paint(last, Look::Reverse);
    grid
}

fn title(grid: &mut Grid, status: &Status) {
    let right = format!("serial {} ", or(&status.serial, "not known"));
    let name = match (&status.standing, &status.host) {
        (Standing::Enrolled { name }, _) => name,
        (_, Some(host)) => host,
        _ => "",
    };
    let left = [name, &format!("Speediso {}", status.build), &status.product];
    let left: Vec<&str> = left.into_iter().filter(|part| !part.is_empty()).collect();
    grid.put(0, 1, &left.join(" | "), Look::Plain);
    // The serial number is what one compares with the label on the machine: it is never covered.
    let start = grid.cols().saturating_sub(right.chars().count() + 1);
    grid.put(0, start, " ", Look::Plain);
    grid.put(0, start + 1, &right, Look::Plain);
    grid.paint(0, Look::Reverse);
}

fn or<'a>(text: &'a str, otherwise: &'a str) -> &'a str {
    if text.trim().is_empty() { otherwise } else { text }
}

fn field(grid: &mut Grid, row: usize, name: &str, value: &str, look: Look) {
    grid.put(row, 1, name, Look::Plain);
    grid.put(row, VALUES + 1, value, look);
}

fn address(status: &Status) -> String {
    let address = status.address.as_deref().unwrap_or("none yet");
    match &status.switch_port {
        Some(port) => format!("{address}, switch {port}"),
        None => address.to_owned(),
    }
}

fn controller(status: &Status) -> (String, Look) {
    let url = status.controller.as_deref().unwrap_or_default();
    match &status.standing {
        Standing::Alone => ("none: this boot takes no orders".to_owned(), Look::Plain),
        Standing::Seeking => (format!("{url}, not enrolled yet"), Look::Plain),
        Standing::Pending { code } => (format!("waits for approval, CODE {code}   ({url})"), Look::Bold),
        Standing::Enrolled { name } => (format!("{url}, enrolled as {name}"), Look::Plain),
    }
}

fn work(status: &Status) -> String {
    let task = status.run.as_ref().map(|(_, kind)| match &status.step {
        Some(step) => format!("{kind}, {step}"),
        None => kind.clone(),
    });
    let last = status.last.as_ref().map(|last| format!("last {last}"));
    let parts = [status.order.as_ref().map(|o| format!("order {o}")), task.or(last)];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    if parts.is_empty() { "nothing was ordered".to_owned() } else { parts.join(": ") }
}

/// Returns the row behind them.
fn bars(grid: &mut Grid, row: usize, progress: &[Progress]) -> usize {
    let cols = grid.cols();
    let shown = if progress.len() > DEVICES { DEVICES - 1 } else { progress.len() };
    for (i, progress) in progress.iter().take(shown).enumerate() {
        grid.put(row + i, VALUES + 1, &bar(progress, cols), Look::Plain);
    }
    if shown < progress.len() {
        grid.put(row + shown, VALUES + 1, &format!("and {} more", progress.len() - shown), Look::Plain);
    }
    row + progress.len().min(DEVICES)
}

/// `vda writing [#####.....] 42 %  1.2 GiB  120 MiB/s  0:15 left`.
fn bar(progress: &Progress, cols: usize) -> String {
    let device = progress.device.as_deref().unwrap_or_default();
    let amount = |n: u64| match progress.unit.as_str() {
        "bytes" => Bytes(n).to_string(),
        unit => format!("{n} {unit}"),
    };
    let mut text = format!("{:<18} ", format!("{device} {}", progress.stage).trim());
    let total = progress.total.filter(|t| *t > 0);
    if let Some(total) = total {
        let of = |scale: u128| u128::from(progress.current.min(total)) * scale / u128::from(total);
        if cols >= 78 {
            let filled = usize::try_from(of(BAR as u128)).unwrap_or(BAR);
            text.push_str(&format!("[{}{}] ", "#".repeat(filled), ".".repeat(BAR - filled)));
        }
        text.push_str(&format!("{:>3} %", of(100)));
    } else {
        text.push_str(&amount(progress.current));
    }
    if progress.rate.is_finite() && progress.rate >= 1.0 {
        // A figure for people: what is cut off is below one unit.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "finite and positive")]
        let rate = progress.rate as u64;
        text.push_str(&format!("  {}/s", amount(rate)));
        if let Some(total) = total {
            let seconds = total.saturating_sub(progress.current) / rate.max(1);
            text.push_str(&format!("  {} left", duration(seconds)));
        }
    }
    text
}

fn duration(seconds: u64) -> String {
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    if hours > 0 { format!("{hours}:{minutes:02}:{seconds:02}") } else { format!("{minutes}:{seconds:02}") }
}

fn fault(grid: &mut Grid, rows: std::ops::Range<usize>, status: &Status) {
    let Some(fault) = &status.fault else { return };
    let width = grid.cols().saturating_sub(VALUES + 2);
    let mut advice = wrapped(&fault.advice, width);
    advice.truncate(rows.len() / 2);
    let room = rows.len() - advice.len();
    let outcome = fault.outcome.map(|outcome| format!("{outcome}: ")).unwrap_or_default();
    let mut lines = wrapped(&format!("{outcome}{}", fault.text), width);
    if lines.len() > room {
        // The code is what one looks up: it stands first where the text is too long to show it.
        if !lines[..room].iter().any(|l| l.contains(&fault.code)) {
            lines = wrapped(&format!("[{}] {outcome}{}", fault.code, fault.text), width);
        }
        lines.truncate(room);
        grid.put(rows.start + room - 1, grid.cols().saturating_sub(5), " ...", Look::Bold);
        if let Some(last) = lines.last_mut() {
            last.truncate(width.saturating_sub(4));
        }
    }
    grid.put(rows.start, 1, "Error", Look::Bold);
    for (row, line) in rows.clone().zip(&lines) {
        grid.put(row, VALUES + 1, line, Look::Bold);
    }
    let below = rows.start + lines.len();
    for (i, line) in advice.iter().enumerate() {
        field(grid, below + i, if i == 0 { "To do" } else { "" }, line, Look::Plain);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use speediso_model::fault::{Fault, FaultCode};
    use speediso_model::id::RunId;

    use super::*;
    use crate::console::board::Board;

    const KEYS: &str = "s shell  d details  n network  l log  q QR code";

    fn writing(device: &str, current: u64) -> Progress {
        Progress {
            run: RunId(uuid::Uuid::nil()),
            stage: "writing".into(),
            current,
            total: Some(3 << 30),
            unit: "bytes".into(),
            rate: 125_829_120.0,
            device: Some(device.into()),
            uptime_ms: 0,
        }
    }

    fn busy() -> Status {
        Status {
            product: "Standard PC (Q35)".into(),
            serial: "SN-4711".into(),
            build: "build 42".into(),
            address: Some("192.0.2.17/24 on ens3 52:54:00:12:34:56".into()),
            switch_port: Some("sw-12 Ethernet3".into()),
            controller: Some("https://192.0.2.1:8443".into()),
            standing: Standing::Enrolled { name: "web1".into() },
            order: Some("9f8e7d6c, task 2 of 5".into()),
            run: Some((RunId(uuid::Uuid::nil()), "write_image".into())),
            step: Some("write".into()),
            progress: (0..5).map(|n| writing(&format!("nvme{n}n1"), (n + 1) << 29)).collect(),
            ..Status::default()
        }
    }

    fn failed() -> Status {
        let board = Board::default();
        board.seeking("https://192.0.2.1:8443");
        let fault = Fault::new(FaultCode::TlsPinMismatch, "https://192.0.2.1:8443 does not show the CA that speediso.ca= names")
            .because("a cause that is so long that three rows would not hold it, which is why the code must not be its last word");
        board.troubled(&fault);
        let status = board.subscribe().borrow().clone();
        Status { serial: "SN-4711".into(), build: "build 42".into(), ..status }
    }

    #[test]
    fn heads() {
        let pending = Status { standing: Standing::Pending { code: "7K3M-Q9XA".into() }, ..failed() };
        let cases = [("busy", busy()), ("failed", failed()), ("pending", pending), ("nothing", Status::default())];
        let shown: Vec<String> = cases
            .into_iter()
            .flat_map(|(name, status)| [(24, 80), (16, 60)].map(|size| (name, status.clone(), size)))
            .map(|(name, status, (rows, cols))| {
                format!("--- {name} {cols}x{rows}\n{}", head(&status, rows, cols, KEYS).text())
            })
            .collect();
        insta::assert_snapshot!(shown.join("\n"));
    }

    proptest! {
        /// Whatever machines call themselves, the head has its size, is harmless, and shows the serial number.
        #[test]
        fn hostile_names_do_no_harm(text in "\\PC{0,60}|[\\x00-\\x20\\x1b\\[0-9;HJKm]{0,80}", rows in 1usize..60, cols in 1usize..200) {
            let mut status = busy();
            (status.product, status.host, status.address) = (text.clone(), Some(text.clone()), Some(text.clone()));
            status.progress.push(Progress { device: Some(text.clone()), total: None, rate: f64::NAN, ..writing("", 0) });
            let grid = head(&status, rows, cols, KEYS);
            prop_assert_eq!(grid.rows(), head_rows(rows, cols));
            for row in 0..grid.rows() {
                prop_assert!(grid.row(row).iter().all(|c| (' '..='~').contains(&c.glyph)));
            }
            prop_assert!(grid.rows() == 0 || grid.text().contains("SN-4711"));
        }
    }
}

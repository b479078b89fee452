//! Pages over the whole screen: longer text, page by page. Pure.

use super::grid::{Grid, Look, harmless};
use super::keys::Key;
use super::painter::Area;

const KEYS: &str = "space, b: page down, up   q: back";

#[derive(Clone, Debug)]
pub(super) struct Pager {
    title: String,
    lines: Vec<String>,
    top: usize,
}

impl Pager {
    #[must_use]
    pub(super) fn from_start(title: &str, text: &str) -> Self {
        Self { title: title.to_owned(), lines: text.lines().map(str::to_owned).collect(), top: 0 }
    }

    /// For a log, of which one wants to see the end.
    #[must_use]
    pub(super) fn from_end(title: &str, lines: Vec<String>) -> Self {
        Self { title: title.to_owned(), lines, top: usize::MAX }
    }

    #[must_use]
    pub(super) fn grid(&self, area: Area) -> Grid {
        let mut grid = Grid::new(area.rows, area.cols);
        let rows = cut(&self.lines, area.cols);
        let room = room(area);
        let top = self.top.min(rows.len().saturating_sub(room));
        let last = rows.len().min(top + room);
        grid.put(0, 1, &format!("{}   {} to {last} of {}", self.title, (top + 1).min(last), rows.len()), Look::Plain);
        grid.paint(0, Look::Reverse);
        for (at, row) in rows[top..last].iter().enumerate() {
            grid.put(at + 1, 0, row, Look::Plain);
        }
        foot(&mut grid, KEYS);
        grid
    }

    /// Moves; false when this is the key to leave.
    pub(super) fn press(&mut self, key: Key, area: Area) -> bool {
        let room = room(area);
        let end = cut(&self.lines, area.cols).len().saturating_sub(room);
        let top = self.top.min(end);
        self.top = match key {
            Key::Char(' ' | 'n') | Key::PageDown => top + room,
            Key::Char('b' | 'p') | Key::PageUp => top.saturating_sub(room),
            Key::Down | Key::Char('j') => top + 1,
            Key::Up | Key::Char('k') => top.saturating_sub(1),
            Key::Char('q') | Key::Escape | Key::Enter => return false,
            Key::Char(_) | Key::Position { .. } => top,
        }
        .min(end);
        true
    }
}

fn room(area: Area) -> usize {
    area.rows.saturating_sub(2).max(1)
}

fn cut(lines: &[String], cols: usize) -> Vec<String> {
    let cut_one = |line: &String| -> Vec<String> {
        let chars: Vec<char> = line.chars().map(harmless).collect();
        if chars.is_empty() {
            vec![String::new()]
        } else {
            chars.chunks(cols.max(1)).map(|c| c.iter().collect()).collect()
        }
    };
    lines.iter().flat_map(cut_one).collect()
}

/// The last row, but for its last cell: some terminals scroll when that is written.
pub(super) fn foot(grid: &mut Grid, text: &str) {
    let (Some(row), Some(width)) = (grid.rows().checked_sub(1), grid.cols().checked_sub(1)) else { return };
    let text: String = text.chars().take(width.saturating_sub(1)).collect();
    grid.put(row, 0, &format!(" {text:<width$}", width = width.saturating_sub(1)), Look::Reverse);
}

#[cfg(test)]
mod tests {
    use super::*;

    const AREA: Area = Area { rows: 6, cols: 20 };

    #[test]
    fn a_text_is_paged_through_and_left() {
        let text: Vec<String> = (1..=10).map(|n| format!("line {n}")).collect();
        let mut pager = Pager::from_start("Machine", &text.join("\n"));
        let first = |pager: &Pager| pager.grid(AREA).text().lines().nth(1).unwrap_or_default().to_owned();
        assert_eq!(first(&pager), "line 1");
        assert!(pager.press(Key::Char(' '), AREA));
        assert_eq!(first(&pager), "line 5");
        assert!(pager.press(Key::PageDown, AREA) && pager.press(Key::PageDown, AREA));
        assert_eq!(first(&pager), "line 7", "the last page is full");
        assert!(pager.press(Key::Up, AREA));
        assert_eq!(first(&pager), "line 6");
        assert!(!pager.press(Key::Char('q'), AREA));
        let end = Pager::from_end("Log", text);
        assert_eq!(first(&end), "line 7");
        assert!(end.grid(AREA).text().contains("7 to 10 of 10"), "{}", end.grid(AREA).text());
    }

    #[test]
    fn long_and_hostile_lines_are_cut_into_harmless_rows() {
        let pager = Pager::from_start("x", &format!("{}\x1b[2J\u{9b}", "y".repeat(30)));
        assert_eq!(pager.grid(AREA).text().lines().nth(2), Some("yyyyyyyyyy?[2J?"));
        assert_eq!(Pager::from_start("x", "").grid(Area { rows: 1, cols: 1 }).rows(), 1);
    }
}

//! What one terminal shows, and the bytes that change it. Pure: knows neither files nor time.
//!
//! With the status screen the head stands in the upper rows and the log scrolls in a region of its own below it
//! (DECSTBM). The cursor rests in that region, at the beginning of a line, so that what the kernel itself prints goes
//! there too. A page takes the whole screen.

use super::board::Status;
use super::diff::diff;
use super::grid::{Grid, harmless_text};
use super::screen::{head, head_rows};

/// Saves the cursor (DECSC), and takes it back (DECRC).
const SAVE: &[u8] = b"\x1b7";
const BACK: &[u8] = b"\x1b8";
/// No region, plain look, an empty screen, the cursor in its corner.
const CLEAR: &[u8] = b"\x1b[0m\x1b[r\x1b[2J\x1b[H";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Area {
    pub(super) rows: usize,
    pub(super) cols: usize,
}

#[derive(Debug)]
enum Shown {
    /// Anything.
    Unknown,
    /// Head and log; `None` when the head may have been written over.
    Status(Option<Grid>),
    Page(Grid),
}

#[derive(Debug)]
pub(super) struct Painter {
    area: Area,
    shown: Shown,
}

impl Painter {
    #[must_use]
    pub(super) fn new(area: Area) -> Self {
        Self { area, shown: Shown::Unknown }
    }

    #[must_use]
    pub(super) fn area(&self) -> Area {
        self.area
    }

    /// Another size: everything is painted anew.
    pub(super) fn resize(&mut self, area: Area) {
        if area != self.area {
            *self = Self::new(area);
        }
    }

    /// Somebody else wrote to the terminal.
    pub(super) fn disturbed(&mut self) {
        if let Shown::Status(head) = &mut self.shown {
            *head = None;
        }
    }

    /// Whether log lines can be written now.
    #[must_use]
    pub(super) fn shows_status(&self) -> bool {
        matches!(self.shown, Shown::Status(_))
    }

    /// The rows that the log has; the last of them stays empty, for the cursor.
    #[must_use]
    pub(super) fn log_rows(&self) -> usize {
        self.area.rows - head_rows(self.area.rows, self.area.cols)
    }

    /// Brings the head up to date. If something else was shown, `tail` is what the log shows below it.
    pub(super) fn status(&mut self, status: &Status, keys: &str, tail: &[String]) -> Vec<u8> {
        let Area { rows, cols } = self.area;
        let new = head(status, rows, cols, keys);
        let mut out = Vec::new();
        match &self.shown {
            Shown::Status(old) => {
                let change = diff(old.as_ref(), &new);
                if !change.is_empty() {
                    out.extend_from_slice(SAVE);
                    out.extend_from_slice(&change);
                    out.extend_from_slice(BACK);
                }
            }
            Shown::Unknown | Shown::Page(_) => {
                out.extend_from_slice(CLEAR);
                out.extend_from_slice(&diff(None, &new));
                if new.rows() > 0 {
                    let top = new.rows() + 1;
                    out.extend_from_slice(format!("\x1b[{top};{rows}r\x1b[{top};1H").as_bytes());
                }
            }
        }
        let was_status = self.shows_status();
        self.shown = Shown::Status(Some(new));
        if !was_status {
            out.extend(self.lines(tail));
        }
        out
    }

    /// Log lines below the head. A long one goes on in the next row by the terminal's own wrapping, so that what is
    /// copied from there, or logged elsewhere, is the line.
    pub(super) fn lines(&self, lines: &[String]) -> Vec<u8> {
        let mut out = Vec::new();
        for line in lines {
            out.extend_from_slice(harmless_text(line).as_bytes());
            out.extend_from_slice(b"\r\n");
        }
        out
    }

    /// A page over the whole screen.
    pub(super) fn page(&mut self, new: Grid) -> Vec<u8> {
        let mut out = Vec::new();
        let old = match &self.shown {
            Shown::Page(old) => Some(old),
            Shown::Unknown | Shown::Status(_) => {
                out.extend_from_slice(CLEAR);
                None
            }
        };
        out.extend(diff(old, &new));
        self.shown = Shown::Page(new);
        out
    }

    /// Leaves the terminal to somebody else.
    pub(super) fn leave(&mut self) -> Vec<u8> {
        self.shown = Shown::Unknown;
        CLEAR.to_vec()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::console::board::Standing;
    use crate::console::grid::{Look, wrapped};

    #[derive(Clone, Debug)]
    enum Step {
        Address(String),
        Name(String),
        Lines(Vec<String>),
        Page(String),
        Disturbed,
        Left,
    }

    fn hostile() -> impl Strategy<Value = String> {
        prop_oneof![
            "[ -~]{0,100}",
            "\\PC{0,40}",
            Just("\x1b[2J\x1b[H owned".to_owned()),
            Just("\x1b]0;title\x07\x1b[?1049h\x1bc".to_owned()),
            Just("a\rb\nc\x08\x0b\u{9b}31m".to_owned()),
        ]
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            2 => hostile().prop_map(Step::Address),
            2 => hostile().prop_map(Step::Name),
            4 => prop::collection::vec(hostile(), 0..8).prop_map(Step::Lines),
            1 => hostile().prop_map(Step::Page),
            1 => Just(Step::Disturbed),
            1 => Just(Step::Left),
        ]
    }

    /// Rows of a terminal that wraps by itself.
    fn rows_of(line: &str, cols: usize) -> Vec<String> {
        let line = harmless_text(line);
        let chars: Vec<char> = line.chars().collect();
        let rows: Vec<String> = chars.chunks(cols).map(|c| c.iter().collect::<String>()).collect();
        let rows = if rows.is_empty() { vec![String::new()] } else { rows };
        rows.iter().map(|r| r.trim_end().to_owned()).collect()
    }

    fn screen(terminal: &vt100::Parser) -> Vec<String> {
        let cols = terminal.screen().size().1;
        terminal.screen().rows(0, cols).map(|r| r.trim_end().to_owned()).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]
        /// After any sequence of changes the terminal shows the head as it was drawn, and below it the last lines of the
        /// log, whatever stands in either.
        #[test]
        fn the_log_never_gets_into_the_head(
            steps in prop::collection::vec(step(), 1..25), rows in 12usize..40, cols in 40usize..100,
        ) {
            let small = |n: usize| u16::try_from(n).expect("small");
            let mut terminal = vt100::Parser::new(small(rows), small(cols), 0);
            terminal.process("junk \x1b[7mfrom before\r\n".repeat(50).as_bytes());
            let mut painter = Painter::new(Area { rows, cols });
            let (mut status, mut log, mut page) = (Status::default(), Vec::<String>::new(), None::<Grid>);
            for step in steps {
                match step {
                    Step::Address(text) => status.address = Some(text),
                    Step::Name(name) => status.standing = Standing::Enrolled { name },
                    Step::Lines(lines) => {
                        if painter.shows_status() {
                            terminal.process(&painter.lines(&lines));
                        }
                        log.extend(lines);
                    }
                    Step::Page(text) => {
                        let mut grid = Grid::new(rows, cols);
                        for (row, line) in wrapped(&text, cols).iter().enumerate() {
                            grid.put(row, 0, line, Look::Reverse);
                        }
                        terminal.process(&painter.page(grid.clone()));
                        page = Some(grid);
                    }
                    Step::Disturbed => {
                        if painter.shows_status() {
                            terminal.process(b"\x1b7\x1b[1;1Hgarbled\x1b8");
                            painter.disturbed();
                        }
                    }
                    Step::Left => terminal.process(&painter.leave()),
                }
                if page.take().is_some_and(|grid| screen(&terminal) != grid.text().split('\n').collect::<Vec<_>>()) {
                    return Err(TestCaseError::fail("the page is not shown as drawn"));
                }
                terminal.process(&painter.status(&status, "keys", &log));
                let shown = screen(&terminal);
                let head = head(&status, rows, cols, "keys");
                let height = head.rows();
                let drawn: Vec<String> = head.text().split('\n').map(str::to_owned).collect();
                prop_assert_eq!(&shown[..height], drawn.as_slice());
                let log_rows: Vec<String> = log.iter().flat_map(|l| rows_of(l, cols)).collect();
                let room = rows - height - 1;
                let expected = &log_rows[log_rows.len().saturating_sub(room)..];
                prop_assert_eq!(&shown[height..height + expected.len()], expected);
                prop_assert!(shown[height + expected.len()..].iter().all(String::is_empty));
            }
        }
    }

    #[test]
    fn nothing_new_costs_nothing() {
        let mut painter = Painter::new(Area { rows: 24, cols: 80 });
        let status = Status::default();
        assert!(painter.status(&status, "", &[]).len() < 400);
        assert!(painter.status(&status, "", &[]).is_empty());
        painter.disturbed();
        assert!(!painter.status(&status, "", &[]).is_empty());
    }
}

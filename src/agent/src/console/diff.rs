//! From what a terminal shows to what it should show, in as few bytes as is easily had, and with the sequences that every
//! terminal since the VT100 knows: cursor position, erase in line, three looks.

use super::grid::{Cell, Grid, Look};

/// Skipping fewer cells than this costs more than writing them again.
const GAP: usize = 6;

/// Bytes that turn `old` into `new`, the upper left corner of both in the terminal's. `None`: nothing is known of what it
/// shows in these rows. Leaves the cursor anywhere and the look plain.
#[must_use]
pub(super) fn diff(old: Option<&Grid>, new: &Grid) -> Vec<u8> {
    let old = old.filter(|old| old.rows() == new.rows() && old.cols() == new.cols());
    let mut pen = Pen { out: Vec::new(), look: None };
    for row in 0..new.rows() {
        match old {
            Some(old) => changed(&mut pen, row, old.row(row), new.row(row)),
            None => whole(&mut pen, row, new.row(row)),
        }
    }
    if !pen.out.is_empty() {
        pen.look(Look::Plain);
    }
    pen.out
}

struct Pen {
    out: Vec<u8>,
    /// `None` until it is set for the first time.
    look: Option<Look>,
}

impl Pen {
    fn go(&mut self, row: usize, col: usize) {
        self.out.extend_from_slice(format!("\x1b[{};{}H", row + 1, col + 1).as_bytes());
    }

    fn look(&mut self, look: Look) {
        if self.look != Some(look) {
            self.look = Some(look);
            self.out.extend_from_slice(match look {
                Look::Plain => b"\x1b[0m",
                Look::Bold => b"\x1b[0;1m",
                Look::Reverse => b"\x1b[0;7m",
            });
        }
    }

    fn write(&mut self, cells: &[Cell]) {
        let mut bytes = [0; 4];
        for cell in cells {
            self.look(cell.look);
            self.out.extend_from_slice(cell.glyph.encode_utf8(&mut bytes).as_bytes());
        }
    }

    /// To the end of the line, in the plain look: terminals differ in what they fill with otherwise.
    fn erase(&mut self) {
        self.look(Look::Plain);
        self.out.extend_from_slice(b"\x1b[K");
    }
}

/// Where only blanks follow.
fn end(cells: &[Cell]) -> usize {
    cells.iter().rposition(|c| *c != Cell::BLANK).map_or(0, |last| last + 1)
}

fn whole(pen: &mut Pen, row: usize, new: &[Cell]) {
    pen.go(row, 0);
    let end = end(new);
    pen.write(&new[..end]);
    if end < new.len() {
        pen.erase();
    }
}

fn changed(pen: &mut Pen, row: usize, old: &[Cell], new: &[Cell]) {
    let blank_from = end(new);
    let erases = end(old) > blank_from;
    let mut at = 0;
    while let Some(start) = (at..blank_from).find(|i| old[*i] != new[*i]) {
        // As long as no gap is wide enough to be worth a jump.
        let mut stop = start + 1;
        for i in start + 1..blank_from {
            if old[i] != new[i] {
                stop = i + 1;
            } else if i >= stop + GAP {
                break;
            }
        }
        pen.go(row, start);
        pen.write(&new[start..stop]);
        at = stop;
    }
    if erases {
        pen.go(row, blank_from);
        pen.erase();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn grid() -> impl Strategy<Value = Grid> {
        prop::collection::vec((0usize..6, 0usize..30, "[ -~]{0,30}", 0u8..3), 0..8).prop_map(|puts| {
            let mut grid = Grid::new(6, 30);
            for (row, col, text, look) in puts {
                let look = [Look::Plain, Look::Bold, Look::Reverse][usize::from(look)];
                grid.put(row, col, &text, look);
            }
            grid
        })
    }

    fn shows(screen: &vt100::Screen, grid: &Grid) {
        for row in 0..grid.rows() {
            for (col, cell) in grid.row(row).iter().enumerate() {
                let (r, c) = (u16::try_from(row).expect("small"), u16::try_from(col).expect("small"));
                let shown = screen.cell(r, c).expect("on the screen");
                let glyph = shown.contents().chars().next().unwrap_or(' ');
                assert_eq!(glyph, cell.glyph, "row {row}, column {col}");
                assert_eq!((shown.bold(), shown.inverse()), (cell.look == Look::Bold, cell.look == Look::Reverse));
            }
        }
    }

    proptest! {
        #[test]
        fn the_terminal_shows_the_grid_whatever_came_before(grids in prop::collection::vec(grid(), 1..8)) {
            let mut terminal = vt100::Parser::new(8, 30, 0);
            terminal.process(b"noise that was here before\x1b[7m");
            let mut old: Option<Grid> = None;
            for new in grids {
                terminal.process(&diff(old.as_ref(), &new));
                shows(terminal.screen(), &new);
                prop_assert!(diff(Some(&new), &new).is_empty());
                old = Some(new);
            }
        }
    }

    #[test]
    fn a_small_change_is_few_bytes() {
        let mut old = Grid::new(3, 80);
        old.put(1, 0, "writing vda  41 %", Look::Plain);
        let mut new = old.clone();
        new.put(1, 13, "42", Look::Plain);
        assert_eq!(diff(Some(&old), &new), b"\x1b[2;15H\x1b[0m2");
    }
}

//! A part of a screen as rows of cells. Whatever is put into it is one column wide and harmless.

/// How a cell looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Look {
    #[default]
    Plain,
    Bold,
    Reverse,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cell {
    pub(super) glyph: char,
    pub(super) look: Look,
}

impl Cell {
    pub(super) const BLANK: Self = Self { glyph: ' ', look: Look::Plain };
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Grid {
    cols: usize,
    cells: Vec<Cell>,
}

impl Grid {
    #[must_use]
    pub(super) fn new(rows: usize, cols: usize) -> Self {
        Self { cols: cols.max(1), cells: vec![Cell::BLANK; rows * cols.max(1)] }
    }

    #[must_use]
    pub(super) fn rows(&self) -> usize {
        self.cells.len() / self.cols
    }

    #[must_use]
    pub(super) fn cols(&self) -> usize {
        self.cols
    }

    #[must_use]
    pub(super) fn row(&self, row: usize) -> &[Cell] {
        &self.cells[row * self.cols..(row + 1) * self.cols]
    }

    /// Writes text at a place; what does not fit is cut. Returns the column behind it.
    pub(super) fn put(&mut self, row: usize, col: usize, text: &str, look: Look) -> usize {
        let mut col = col;
        for glyph in text.chars().map(harmless) {
            if row >= self.rows() || col >= self.cols {
                break;
            }
            self.cells[row * self.cols + col] = Cell { glyph, look };
            col += 1;
        }
        col
    }

    /// A block that no text holds: for pictures only.
    pub(super) fn draw(&mut self, row: usize, col: usize, cell: Cell) {
        if row < self.rows() && col < self.cols {
            self.cells[row * self.cols + col] = cell;
        }
    }

    /// The look of a whole row.
    pub(super) fn paint(&mut self, row: usize, look: Look) {
        let cols = self.cols;
        if row < self.rows() {
            self.cells[row * cols..(row + 1) * cols].iter_mut().for_each(|cell| cell.look = look);
        }
    }

    /// Rows without blanks at their ends.
    #[cfg(test)]
    pub(super) fn text(&self) -> String {
        let row = |row| self.row(row).iter().map(|c| c.glyph).collect::<String>().trim_end().to_owned();
        (0..self.rows()).map(row).collect::<Vec<_>>().join("\n")
    }
}

/// Terminals differ in the width and the meaning of everything but printable ASCII.
#[must_use]
pub(super) fn harmless(c: char) -> char {
    match c {
        ' '..='~' => c,
        '\t' => ' ',
        _ => '?',
    }
}

/// The text of a log line as it may go to any terminal.
#[must_use]
pub(super) fn harmless_text(text: &str) -> String {
    text.chars().map(harmless).collect()
}

/// Cuts text into rows of a width, at blanks where there are some.
#[must_use]
pub(super) fn wrapped(text: &str, width: usize) -> Vec<String> {
    let width = width.max(8);
    let mut rows = Vec::new();
    let mut row = String::new();
    for word in text.split_whitespace() {
        let mut word: Vec<char> = word.chars().map(harmless).collect();
        if !row.is_empty() && row.len() + 1 + word.len() > width {
            rows.push(std::mem::take(&mut row));
        }
        while word.len() > width {
            let rest = word.split_off(width);
            rows.push(word.into_iter().collect());
            word = rest;
        }
        if !row.is_empty() {
            row.push(' ');
        }
        row.extend(word);
    }
    if !row.is_empty() {
        rows.push(row);
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn rows_fit_and_nothing_is_left_out(text in "([a-z\\x1b\\u{e4}]{0,30} ?){0,12}", width in 8usize..40) {
            let rows = wrapped(&text, width);
            prop_assert!(rows.iter().all(|r| r.len() <= width && !r.is_empty() && r.is_ascii()));
            let count = |t: &str| t.chars().filter(|c| !c.is_whitespace()).count();
            prop_assert_eq!(rows.iter().map(|r| count(r)).sum::<usize>(), count(&text));
        }
    }

    #[test]
    fn what_does_not_fit_is_cut() {
        let mut grid = Grid::new(2, 5);
        assert_eq!(grid.put(0, 3, "abc", Look::Plain), 5);
        assert_eq!(grid.put(1, 0, "\x1b[2J", Look::Bold), 4);
        grid.put(7, 0, "x", Look::Plain);
        assert_eq!(grid.text(), "   ab\n?[2J");
    }
}

//! Text in 80 columns: headings, names with values, tables.

use std::fmt::Write as _;

/// What every console has.
const COLUMNS: usize = 80;
/// Where values begin.
const VALUE: usize = 16;

#[derive(Debug, Default)]
pub(super) struct Sheet {
    text: String,
    /// Written before the next line, if there is one.
    heading: Option<&'static str>,
}

impl Sheet {
    /// A section; one without lines is not shown.
    pub(super) fn section(&mut self, heading: &'static str) {
        self.heading = Some(heading);
    }

    fn line(&mut self, line: &str) {
        if let Some(heading) = self.heading.take() {
            let gap = if self.text.is_empty() { "" } else { "\n" };
            let _ = writeln!(self.text, "{gap}{heading}");
        }
        let _ = writeln!(self.text, "{}", line.trim_end());
    }

    /// A name and its value, on as many lines as it takes. Without a value nothing.
    pub(super) fn row(&mut self, name: &str, value: &str) {
        for (n, part) in wrapped(value, COLUMNS - VALUE).iter().enumerate() {
            let name = if n == 0 { name } else { "" };
            self.line(&format!("  {name:<width$}{part}", width = VALUE - 2));
        }
    }

    /// Rows whose columns stand below one another. The last one takes what is left, on several lines if need be; others
    /// are cut when the table would not fit otherwise.
    pub(super) fn table(&mut self, rows: &[Vec<String>]) {
        const LAST: usize = 16;
        let n_columns = rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        // A column in which nothing stands is not there.
        let columns: Vec<usize> = (0..n_columns).filter(|column| width(*column) > 0).collect();
        let Some((last, others)) = columns.split_last() else { return };
        let mut widths: Vec<usize> = others.iter().map(|column| width(*column)).collect();
        while 2 + widths.iter().map(|width| width + 2).sum::<usize>() + LAST.min(width(*last)) > COLUMNS {
            let Some(widest) = widths.iter_mut().max() else { break };
            if *widest <= 4 {
                break;
            }
            *widest -= 1;
        }
        let before = 2 + widths.iter().map(|width| width + 2).sum::<usize>();
        for row in rows {
            let cell = |column: usize| row.get(column).map(String::as_str).unwrap_or_default();
            let mut line = "  ".to_owned();
            for (column, width) in others.iter().zip(&widths) {
                let _ = write!(line, "{:<width$}  ", cut(cell(*column), *width));
            }
            let parts = wrapped(cell(*last), COLUMNS.saturating_sub(before).max(LAST));
            line.push_str(parts.first().map(String::as_str).unwrap_or_default());
            self.line(&line);
            for part in parts.iter().skip(1) {
                self.line(&format!("{:before$}{part}", ""));
            }
        }
    }

    pub(super) fn finish(self) -> String {
        self.text
    }
}

fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    text.chars().take(width.saturating_sub(1)).chain(['~']).collect()
}

/// Lines of at most `width` characters, broken at blanks where there are any.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        let mut rest: Vec<char> = word.chars().collect();
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + rest.len() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => {
                while rest.len() > width {
                    let tail = rest.split_off(width);
                    lines.push(rest.into_iter().collect());
                    rest = tail;
                }
                lines.push(rest.into_iter().collect());
            }
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn columns_stand_below_one_another() {
        let mut sheet = Sheet::default();
        sheet.section("EMPTY");
        sheet.section("DISKS");
        sheet.row("none", "");
        sheet.table(&[
            vec!["sda".into(), String::new(), "1.0 TiB".into(), "free".into()],
            vec!["nvme10n1".into(), String::new(), "3 GiB".into(), "mounted at /".into()],
        ]);
        assert_eq!(sheet.finish(), "DISKS\n  sda       1.0 TiB  free\n  nvme10n1  3 GiB    mounted at /\n");
    }

    proptest! {
        #[test]
        fn no_line_is_wider_than_a_console(name in "[a-z]{0,12}", rows in prop::collection::vec(prop::collection::vec("[a-zé ]{0,120}", 0..5), 0..5)) {
            let mut sheet = Sheet::default();
            sheet.section("X");
            sheet.table(&rows);
            for row in &rows {
                sheet.row(&name, &row.concat());
            }
            for line in sheet.finish().lines() {
                prop_assert!(line.chars().count() <= COLUMNS, "{line}");
            }
        }
    }
}

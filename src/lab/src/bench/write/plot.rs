//! The figures as a picture: one bar for each case, those of one kind of image together.

use super::Row;
use super::report::wall;

const LEFT: f64 = 430.0;
const WIDE: f64 = 420.0;
const BAR: f64 = 16.0;
const STEP: f64 = 21.0;

pub(super) fn svg(rows: &[Row], title: &str) -> String {
    let longest = rows.iter().map(wall).fold(0.0, f64::max);
    let kind = |row: &Row| row.case.name.split(':').next().unwrap_or_default().to_owned();
    let mut bars = String::new();
    let (mut y, mut before) = (40.0, None);
    for row in rows {
        let this = Some(kind(row));
        if before.is_some() && before != this {
            y += STEP / 2.0;
        }
        before = this;
        let (seconds, ours) = (wall(row), row.case.name.ends_with("speediso"));
        let colour = if ours { "#1b7f5c" } else { "#9aa5b1" };
        let wide = WIDE * seconds / longest;
        bars.push_str(&format!(
            "<text x=\"{:.0}\" y=\"{:.0}\" text-anchor=\"end\">{}</text>\
             <rect x=\"{LEFT}\" y=\"{y:.0}\" width=\"{wide:.1}\" height=\"{BAR}\" fill=\"{colour}\"/>\
             <text x=\"{:.1}\" y=\"{:.0}\">{seconds:.2} s</text>\n",
            LEFT - 8.0,
            y + 12.0,
            escape(&row.case.name),
            LEFT + wide + 6.0,
            y + 12.0,
        ));
        y += STEP;
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{:.0}\" height=\"{:.0}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"12\" y=\"22\" font-size=\"14\">{}</text>\n{bars}</svg>\n",
        LEFT + WIDE + 80.0,
        y + 12.0,
        escape(title)
    )
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::write::cases::{Case, Way};
    use crate::bench::write::measure::Measured;

    #[test]
    fn every_case_has_its_bar() {
        let row = |name: &str, wall: f64| Row {
            case: Case { name: name.into(), way: Way::Pipe(String::new()), writes: true, against: Vec::new() },
            runs: vec![Measured { wall, cpu: 1.0, peak_mib: 1.0, machine: 1.0, stolen: 0.0 }],
        };
        let picture = svg(&[row("raw: speediso", 1.0), row("raw: a & b", 4.0)], "t < u");
        assert_eq!(picture.matches("fill=\"#").count(), 2);
        assert!(picture.contains("width=\"105.0\"") && picture.contains("width=\"420.0\""), "{picture}");
        assert!(picture.contains("a &amp; b") && picture.contains("t &lt; u"));
    }
}

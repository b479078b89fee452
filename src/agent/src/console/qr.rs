//! A failure as a picture for the telephone in one's hand: where its code is explained, of which machine and build. Pure.

use qrcodegen::{QrCode, QrCodeEcc};

use super::board::Status;
use super::grid::{Cell, Grid, Look, wrapped};
use super::pages::foot;
use super::painter::Area;

/// Light modules around it. A scanner wants four, manages with two, and with one if need be: a serial line has 24 rows.
const QUIET: [usize; 2] = [2, 1];

/// With what modules are drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Glyphs {
    /// Two modules in one character, one above the other.
    HalfBlocks,
    /// One module in two blanks in reverse: a serial terminal knows no blocks, and `##` has gaps that no scanner reads.
    Ascii,
}

/// Where faults are explained: what the command line names, or the build, or else the controller, which serves the page too.
/// Nowhere without any of them.
#[must_use]
pub(crate) fn page_of_errors(named: Option<&str>, controller: Option<&str>) -> String {
    let at_controller = || controller.map(|url| format!("{}/docs/errors", url.trim_end_matches('/')));
    named.or(option_env!("SPEEDISO_DOCS")).map(str::to_owned).or_else(at_controller).unwrap_or_default()
}

/// What the pictures may say, best first. `None` when nothing failed.
fn texts(status: &Status) -> Option<Vec<String>> {
    let fault = status.fault.as_ref()?;
    let code = &fault.code;
    let serial: String =
        status.serial.chars().filter(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.')).collect();
    let build: String =
        status.build.chars().skip_while(|c| !c.is_ascii_digit()).take_while(char::is_ascii_digit).collect();
    let mut texts = Vec::new();
    if !status.docs.is_empty() {
        texts.push(format!("{}?machine={serial}&build={build}#{code}", status.docs));
        texts.push(format!("{}#{code}", status.docs));
    }
    // In capitals it takes fewer modules.
    texts.push(format!("SPEEDISO {code} {serial} B{build}").to_ascii_uppercase());
    texts.push(format!("{code} {serial}").to_ascii_uppercase());
    Some(texts)
}

/// The page with the picture, and beside or below it what it says.
#[must_use]
pub(super) fn grid(status: &Status, area: Area, glyphs: Glyphs) -> Grid {
    let mut grid = Grid::new(area.rows, area.cols);
    foot(&mut grid, "any key: back");
    let Some(texts) = texts(status) else {
        grid.put(1, 1, "Nothing has failed in this boot.", Look::Plain);
        return grid;
    };
    let drawn = |text: &String| QUIET.iter().find_map(|quiet| picture(text, area, glyphs, *quiet));
    let picture = texts.iter().find_map(|text| drawn(text).map(|p| (text, p)));
    let (text, beside) = match &picture {
        Some((text, picture)) => {
            for row in 0..picture.rows() {
                for (col, cell) in picture.row(row).iter().enumerate() {
                    grid.draw(row, col, *cell);
                }
            }
            ((*text).clone(), picture.cols() + 2)
        }
        None => (texts[0].clone(), 1),
    };
    let width = area.cols.saturating_sub(beside + 1);
    if width < 12 {
        return grid;
    }
    let mut said = Vec::new();
    if picture.is_none() {
        said.extend(wrapped("This screen is too small for a picture that a telephone can read.", width));
        said.push(String::new());
    }
    if let Some(fault) = &status.fault {
        for part in [&fault.text, &fault.advice, &text] {
            said.extend(wrapped(part, width));
            said.push(String::new());
        }
    }
    for (row, line) in said.iter().take(area.rows.saturating_sub(2)).enumerate() {
        grid.put(row + 1, beside, line, Look::Plain);
    }
    grid
}

/// `None` if it does not fit above the last row.
fn picture(text: &str, area: Area, glyphs: Glyphs, quiet: usize) -> Option<Grid> {
    let code = QrCode::encode_text(text, QrCodeEcc::Low).ok()?;
    let modules = usize::try_from(code.size()).ok()? + 2 * quiet;
    let (rows, cols) = match glyphs {
        Glyphs::HalfBlocks => (modules.div_ceil(2), modules),
        Glyphs::Ascii => (modules, 2 * modules),
    };
    if rows >= area.rows || cols >= area.cols {
        return None;
    }
    // Consoles are dark: what shines are the light modules.
    let light = |x: usize, y: usize| {
        // Outside of the code everything is light.
        let at = |n: usize| n.checked_sub(quiet).and_then(|n| i32::try_from(n).ok()).unwrap_or(-1);
        !code.get_module(at(x), at(y))
    };
    let mut grid = Grid::new(rows, cols);
    for row in 0..rows {
        for col in 0..cols {
            let cell = match glyphs {
                Glyphs::HalfBlocks => {
                    let below = 2 * row + 1 < modules && light(col, 2 * row + 1);
                    let glyph = match (light(col, 2 * row), below) {
                        (true, true) => '\u{2588}',
                        (true, false) => '\u{2580}',
                        (false, true) => '\u{2584}',
                        (false, false) => ' ',
                    };
                    Cell { glyph, look: Look::Plain }
                }
                Glyphs::Ascii => {
                    Cell { glyph: ' ', look: if light(col / 2, row) { Look::Reverse } else { Look::Plain } }
                }
            };
            grid.draw(row, col, cell);
        }
    }
    Some(grid)
}

#[cfg(test)]
mod tests {
    use speediso_model::fault::{Fault, FaultCode};

    use super::*;
    use crate::console::board::Board;
    use crate::console::diff::diff;

    fn failed(code: FaultCode, docs: &str) -> Status {
        let board = Board::default();
        board
            .set(|s| (s.serial, s.build, s.docs) = ("CZ22100ABC".into(), "build 42 (agent 0.1.0)".into(), docs.into()));
        board.troubled(&Fault::new(code, "no server answered"));
        board.subscribe().borrow().clone()
    }

    /// What a camera sees of a terminal's screen, read by another program than the one that drew it.
    fn scanned(grid: &Grid, area: Area) -> String {
        let small = |n: usize| u16::try_from(n).expect("small");
        let mut terminal = vt100::Parser::new(small(area.rows), small(area.cols), 0);
        terminal.process(&diff(None, grid));
        // A character is twice as high as it is wide.
        let (wide, high) = (4, 8);
        let mut image = rqrr::PreparedImage::prepare_from_greyscale(area.cols * wide, area.rows * high, |x, y| {
            let cell = terminal.screen().cell(small(y / high), small(x / wide)).expect("on the screen");
            let upper = y % high < high / 2;
            let bright = match cell.contents().chars().next() {
                Some('\u{2588}') => true,
                Some('\u{2580}') => upper,
                Some('\u{2584}') => !upper,
                _ => cell.inverse(),
            };
            if bright { 255 } else { 0 }
        });
        let found = image.detect_grids();
        assert_eq!(found.len(), 1, "one picture on the screen");
        found[0].decode().expect("it can be read").1
    }

    #[test]
    fn the_picture_says_where_the_code_is_explained() {
        let vga = Area { rows: 25, cols: 80 };
        let status = failed(FaultCode::NoDhcp, "https://docs.example/errors.html");
        let said = scanned(&grid(&status, vga, Glyphs::HalfBlocks), vga);
        assert_eq!(said, "https://docs.example/errors.html?machine=CZ22100ABC&build=42#no-dhcp");
    }

    #[test]
    fn without_a_page_of_its_own_it_leads_to_the_controllers() {
        let vga = Area { rows: 25, cols: 80 };
        let page = |named, controller| page_of_errors(named, controller);
        let status = failed(FaultCode::TlsPinMismatch, &page(None, Some("https://192.0.2.1:8443/")));
        let said = scanned(&grid(&status, vga, Glyphs::HalfBlocks), vga);
        assert_eq!(said, "https://192.0.2.1:8443/docs/errors?machine=CZ22100ABC&build=42#tls-pin-mismatch");
        assert_eq!(page(Some("https://docs.example/e"), Some("https://192.0.2.1:8443")), "https://docs.example/e");
        // Nobody explains it: it says what it is.
        let status = failed(FaultCode::NoDhcp, &page(None, None));
        assert_eq!(scanned(&grid(&status, vga, Glyphs::HalfBlocks), vga), "SPEEDISO NO-DHCP CZ22100ABC B42");
    }

    #[test]
    fn a_small_serial_terminal_gets_what_fits() {
        let status = failed(FaultCode::NoDhcp, "https://docs.example/errors.html");
        let serial = Area { rows: 24, cols: 80 };
        assert_eq!(scanned(&grid(&status, serial, Glyphs::Ascii), serial), "NO-DHCP CZ22100ABC");
        let large = Area { rows: 50, cols: 132 };
        let said = scanned(&grid(&status, large, Glyphs::Ascii), large);
        assert!(said.starts_with("https://docs.example/errors.html?machine=CZ22100ABC"), "{said}");
        let tiny = Area { rows: 12, cols: 60 };
        let text = grid(&status, tiny, Glyphs::Ascii).text();
        assert!(text.contains("too small") && text.contains("no-dhcp"), "{text}");
    }

    #[test]
    fn every_code_has_a_picture_on_a_vga_screen() {
        let vga = Area { rows: 25, cols: 80 };
        for code in FaultCode::ALL {
            let status = failed(*code, "https://docs.provisioning.example/speediso/errors.html");
            let said = scanned(&grid(&status, vga, Glyphs::HalfBlocks), vga);
            assert!(said.ends_with(&format!("#{code}")), "{said}");
        }
    }

    #[test]
    fn without_a_failure_it_says_so() {
        assert!(
            grid(&Status::default(), Area { rows: 24, cols: 80 }, Glyphs::Ascii).text().contains("Nothing has failed")
        );
    }
}

//! What a person sees: the text on a serial terminal, and what a telephone reads from a picture of the screen.

use std::path::Path;

use anyhow::{Context, Result};
use speediso_lab::{Log, Machine};

/// The serial console as a terminal of 80x24 shows it now, row by row.
pub fn serial(console: &Log) -> Vec<String> {
    let mut terminal = vt100::Parser::new(24, 80, 0);
    terminal.process(&std::fs::read(console.path()).unwrap_or_default());
    terminal.screen().rows(0, 80).map(|row| row.trim_end().to_owned()).collect()
}

/// The texts of all QR codes on the machine's screen.
pub fn scan(machine: &Machine<'_>, picture: &Path) -> Result<Vec<String>> {
    machine.screenshot(picture)?;
    let bytes = std::fs::read(picture).with_context(|| format!("reading {}", picture.display()))?;
    let (width, height, pixels) = ppm(&bytes).context("the screenshot is no PPM")?;
    let mut image = rqrr::PreparedImage::prepare_from_greyscale(width, height, |x, y| {
        let at = 3 * (y * width + x);
        pixels.get(at..at + 3).and_then(|rgb| rgb.iter().max().copied()).unwrap_or(0)
    });
    Ok(image.detect_grids().iter().filter_map(|grid| grid.decode().ok()).map(|(_, text)| text).collect())
}

/// `P6 WIDTH HEIGHT 255` and three bytes for each pixel.
fn ppm(bytes: &[u8]) -> Option<(usize, usize, &[u8])> {
    let mut words = bytes.splitn(5, u8::is_ascii_whitespace);
    let mut word = || std::str::from_utf8(words.next()?).ok();
    if word()? != "P6" {
        return None;
    }
    let (width, height) = (word()?.parse().ok()?, word()?.parse().ok()?);
    let _depth = word()?;
    Some((width, height, words.next()?))
}

//! Plots as inline SVG: drawn here, so that a page needs no script and nothing from elsewhere.

use maud::{Markup, html};
use speediso_model::burn_in::words::shown;
use speediso_model::burn_in::{DeviceMap, Distribution, Series};
use speediso_model::units::Bytes;

const WIDTH: f64 = 460.0;
const HEIGHT: f64 = 96.0;
/// For the labels on the left and below.
const LEFT: f64 = 84.0;
const BELOW: f64 = 18.0;

/// Where values lie in a plot. A flat line lies in the middle.
struct Scale {
    low: f64,
    high: f64,
}

impl Scale {
    /// Of what is to be seen; `None` if nothing is.
    fn over(values: impl Iterator<Item = f64>, from_zero: bool) -> Option<Self> {
        let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
        for value in values.filter(|v| v.is_finite()) {
            (low, high) = (low.min(value), high.max(value));
        }
        if from_zero {
            low = low.min(0.0);
        }
        if low == high {
            (low, high) = (low - 1.0, high + 1.0);
        }
        (low < high).then_some(Self { low, high })
    }

    fn share(&self, value: f64) -> f64 {
        ((value - self.low) / (self.high - self.low)).clamp(0.0, 1.0)
    }

    fn y(&self, value: f64) -> f64 {
        (1.0 - self.share(value)) * HEIGHT
    }

    fn x(&self, value: f64) -> f64 {
        LEFT + self.share(value) * (WIDTH - LEFT)
    }
}

fn frame(title: &str, top: &str, bottom: &str, from: &str, to: &str, inner: &Markup) -> Markup {
    html! {
        figure {
            figcaption { (title) }
            svg viewBox=(format!("0 0 {WIDTH} {}", HEIGHT + BELOW)) role="img" aria-label=(title) {
                rect.ground x=(LEFT) y="0" width=(WIDTH - LEFT) height=(HEIGHT) {}
                (inner)
                text x=(LEFT - 5.0) y="11" text-anchor="end" { (top) }
                text x=(LEFT - 5.0) y=(HEIGHT) text-anchor="end" { (bottom) }
                text x=(LEFT) y=(HEIGHT + 14.0) { (from) }
                text x=(WIDTH) y=(HEIGHT + 14.0) text-anchor="end" { (to) }
            }
        }
    }
}

/// One decimal is finer than anybody sees.
fn point(x: f64, y: f64) -> String {
    format!("{x:.1},{y:.1}")
}

/// A value over time; where a point stands for several samples, their range is shaded.
pub(super) fn series(title: &str, series: &Series, unit: &str) -> Markup {
    let values = series.points.iter().flat_map(|p| [p.1, p.2]);
    let (Some(y), Some(x)) = (Scale::over(values, true), Scale::over(series.points.iter().map(|p| p.0), true)) else {
        return html! {};
    };
    let high = series.points.iter().map(|p| point(x.x(p.0), y.y(p.2)));
    let low = series.points.iter().rev().map(|p| point(x.x(p.0), y.y(p.1)));
    let range: Vec<String> = high.chain(low).collect();
    let line: Vec<String> = series.points.iter().map(|p| point(x.x(p.0), y.y(f64::midpoint(p.1, p.2)))).collect();
    let inner = html! {
        polygon.range points=(range.join(" ")) {}
        polyline.line points=(line.join(" ")) {}
    };
    frame(title, &shown(y.high, unit), &shown(y.low, unit), "0 s", &seconds(x.high), &inner)
}

/// Seconds by number.
pub(super) fn rounds(title: &str, series: &Series) -> Markup {
    let Some(y) = Scale::over(series.points.iter().map(|p| p.2), true) else { return html! {} };
    let heights: Vec<f64> = series.points.iter().map(|p| p.2).collect();
    let last = series.points.last().map_or(0.0, |p| p.0);
    frame(title, &seconds(y.high), "0 s", "1", &format!("{last:.0}"), &bars(&heights, &y))
}

fn seconds(value: f64) -> String {
    match value {
        v if v >= 7200.0 => format!("{:.1} h", v / 3600.0),
        v if v >= 120.0 => format!("{:.1} min", v / 60.0),
        v => format!("{v:.0} s"),
    }
}

/// Values along a device: a bar for the median of each region, a mark for its slowest part.
pub(super) fn device_map(title: &str, map: &DeviceMap, unit: &str) -> Markup {
    let Some(y) = Scale::over(map.regions.iter().flat_map(|r| [r.1, r.2]), true) else { return html! {} };
    #[allow(clippy::cast_precision_loss, reason = "places in a picture")]
    let place = |offset: Bytes| LEFT + offset.0 as f64 / map.length.0.max(1) as f64 * (WIDTH - LEFT);
    let ends = map.regions.iter().skip(1).map(|r| r.0).chain([map.length]);
    let inner = html! {
        @for ((offset, slowest, median), end) in map.regions.iter().zip(ends) {
            @let (x, top) = (place(*offset), y.y(*median));
            @let width = (place(end) - x).max(0.2);
            rect.bar x=(format!("{x:.2}")) y=(format!("{top:.1}")) width=(format!("{width:.2}")) height=(format!("{:.1}", HEIGHT - top)) {}
            rect.mark x=(format!("{x:.2}")) y=(format!("{:.1}", y.y(*slowest))) width=(format!("{width:.2}")) height="1.2" {}
        }
    };
    frame(title, &shown(y.high, unit), &shown(y.low, unit), "start of the device", &map.length.to_string(), &inner)
}

/// How values are spread; classes follow one another at equal distances.
pub(super) fn distribution(title: &str, distribution: &Distribution, unit: &str) -> Markup {
    let buckets = &distribution.buckets;
    #[allow(clippy::cast_precision_loss, reason = "heights in a picture")]
    let counts: Vec<f64> = buckets.iter().map(|(_, n)| *n as f64).collect();
    let Some(y) = Scale::over(counts.iter().copied(), true) else { return html! {} };
    let inner = bars(&counts, &y);
    let to = buckets.last().map_or(String::new(), |(upper, _)| shown(*upper, unit));
    frame(title, &shown(y.high, "count"), "0", &shown(distribution.min, unit), &to, &inner)
}

fn bars(counts: &[f64], y: &Scale) -> Markup {
    #[allow(clippy::cast_precision_loss, reason = "a few dozen")]
    let step = (WIDTH - LEFT) / counts.len().max(1) as f64;
    let mut x = LEFT - step;
    let places: Vec<(f64, f64)> = counts
        .iter()
        .map(|count| {
            x += step;
            (x, y.y(*count))
        })
        .collect();
    html! {
        @for (x, top) in places {
            rect.bar x=(format!("{x:.2}")) y=(format!("{top:.1}")) width=(format!("{:.2}", step * 0.92)) height=(format!("{:.1}", HEIGHT - top)) {}
        }
    }
}

/// One value among those of others.
pub(super) fn among(title: &str, value: f64, others: &[f64], unit: &str) -> Markup {
    const CLASSES: usize = 24;
    let Some(x) = Scale::over(others.iter().copied().chain([value]), false) else { return html! {} };
    let mut counts = vec![0.0; CLASSES];
    for other in others {
        #[allow(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a class of two dozen: the share lies between 0 and 1"
        )]
        let class = (x.share(*other) * CLASSES as f64) as usize;
        counts[class.min(CLASSES - 1)] += 1.0;
    }
    let Some(y) = Scale::over(counts.iter().copied(), true) else { return html! {} };
    let own = x.x(value);
    let inner = html! {
        (bars(&counts, &y))
        line.own x1=(format!("{own:.1}")) y1="0" x2=(format!("{own:.1}")) y2=(HEIGHT) {}
    };
    frame(title, &format!("{} machines", y.high), "0", &shown(x.low, unit), &shown(x.high, unit), &inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(svg: &str) -> Vec<f64> {
        let is_text = |c: char| !c.is_ascii_digit() && c != '.' && c != '-';
        svg.split('"').flat_map(|part| part.split(is_text)).filter_map(|n| n.parse().ok()).collect()
    }

    #[test]
    fn whatever_the_values_a_plot_stays_in_its_frame() {
        let mut flat = Series::default();
        let mut wild = Series::default();
        for n in 0..1000 {
            flat.push(f64::from(n), 5.0);
            wild.push(f64::from(n), if n % 7 == 0 { 1e12 } else { -3.0 });
        }
        let map = DeviceMap { length: Bytes(1 << 40), regions: (0..256).map(|n| (Bytes(n << 32), 1e8, 2e8)).collect() };
        let spread = Distribution { count: 3, buckets: vec![(1.0, 1), (2.0, 2)], ..Distribution::default() };
        for plot in [
            series("a", &flat, "bytes/s"),
            series("a", &wild, "°C"),
            device_map("b", &map, "bytes/s"),
            distribution("c", &spread, "us"),
            among("d", 7.0, &[7.0; 9], "1/s"),
            among("d", 1e9, &[1.0, 2.0, 3.0], "1/s"),
        ] {
            let svg = plot.into_string();
            assert!(svg.contains("<svg") && !svg.contains("NaN") && !svg.contains("inf"), "{svg}");
            let drawn: String = svg.split("<text").next().unwrap_or_default().into();
            assert!(numbers(&drawn).iter().all(|n| (-1.0..=WIDTH + 1.0).contains(n)), "{drawn}");
        }
    }

    #[test]
    fn nothing_is_drawn_of_nothing() {
        assert!(series("a", &Series::default(), "s").into_string().is_empty());
        assert!(device_map("a", &DeviceMap::default(), "s").into_string().is_empty());
        assert!(distribution("a", &Distribution::default(), "s").into_string().is_empty());
    }
}

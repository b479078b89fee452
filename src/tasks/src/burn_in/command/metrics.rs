//! Measurements in what a program printed, by the rules of the scenario.

use serde_json::Value;
use speediso_model::burn_in::Measurement;
use speediso_model::burn_in::external::{MetricRule, Take};

/// What a single program may say.
const MOST: usize = 1000;
const LONGEST: usize = 128;

/// # Errors
/// Why there is no measurement, in words: what a rule asks for and does not find was not measured.
pub(in super::super) fn find(rule: &MetricRule, text: &str) -> Result<Vec<Measurement>, String> {
    if rule.lines {
        return Ok(text.lines().filter_map(name_value_unit).take(MOST).collect());
    }
    let (name, unit) = (rule.name.as_deref().unwrap_or_default(), rule.unit.as_deref().unwrap_or_default());
    let measurement = |value| Measurement::new(name, unit, value);
    if let Some(path) = &rule.json {
        let value = json(text).ok_or_else(|| format!("{name}: the output has no JSON"))?;
        let number = value.pointer(path).and_then(Value::as_f64);
        return number
            .filter(|n| n.is_finite())
            .map(|n| vec![measurement(n)])
            .ok_or_else(|| format!("{name}: there is no number at {path}"));
    }
    let pattern = rule.line.as_deref().unwrap_or_default();
    // By place, in the order in which they come.
    let mut found: Vec<(Option<String>, Vec<f64>)> = Vec::new();
    for captured in text.lines().filter_map(|line| capture(pattern, line.trim())).take(MOST) {
        match found.iter_mut().find(|(place, _)| *place == captured.place) {
            Some((_, values)) => values.push(captured.value),
            None => found.push((captured.place, vec![captured.value])),
        }
    }
    if found.is_empty() {
        return Err(format!("{name}: no line reads {pattern:?}"));
    }
    let measured = found.into_iter().filter_map(|(place, values)| {
        let taken = measurement(take(rule.take, &values)?);
        Some(match place {
            Some(place) => taken.at(place),
            None => taken,
        })
    });
    Ok(measured.collect())
}

fn take(how: Take, values: &[f64]) -> Option<f64> {
    match how {
        Take::First => values.first().copied(),
        Take::Last => values.last().copied(),
        Take::Min => values.iter().copied().min_by(f64::total_cmp),
        Take::Max => values.iter().copied().max_by(f64::total_cmp),
        Take::Sum => Some(values.iter().sum()),
    }
    .filter(|value| value.is_finite())
}

/// Programs like to greet before they speak JSON.
pub(in super::super) fn json(text: &str) -> Option<Value> {
    let whole = serde_json::from_str(text).ok();
    whole.or_else(|| {
        text.match_indices(['{', '[']).take(100).find_map(|(at, _)| {
            let mut values = serde_json::Deserializer::from_str(&text[at..]).into_iter::<Value>();
            values.next()?.ok().filter(|value| value.is_object() || value.is_array())
        })
    })
}

/// `name value unit`, and nothing else in the line.
fn name_value_unit(line: &str) -> Option<Measurement> {
    let mut words = line.split_whitespace();
    let (name, value, unit) = (words.next()?, words.next()?, words.next()?);
    let printable = |word: &str| word.len() <= LONGEST && !word.chars().any(char::is_control);
    let value: f64 = value.parse().ok().filter(|v: &f64| v.is_finite())?;
    (words.next().is_none() && printable(name) && printable(unit)).then(|| Measurement::new(name, unit, value))
}

#[derive(PartialEq, Debug)]
struct Captured {
    place: Option<String>,
    value: f64,
}

#[derive(Clone, Copy)]
enum Part<'a> {
    Text(&'a str),
    Blank,
    Any,
    Value,
    Place,
}

/// The whole line must be as the pattern says.
fn capture(pattern: &str, line: &str) -> Option<Captured> {
    let parts = parts(pattern);
    let mut captured = (None, None);
    // Each `*` may try every place of the line once: bounded, whatever the pattern.
    let mut budget = 10_000_u32;
    fit(&parts, line, &mut captured, &mut budget).then_some(())?;
    Some(Captured { place: captured.0, value: captured.1? })
}

fn parts(pattern: &str) -> Vec<Part<'_>> {
    let mut parts = Vec::new();
    let mut left = pattern.trim();
    while !left.is_empty() {
        let (part, length) = if left.starts_with("{value}") {
            (Part::Value, "{value}".len())
        } else if left.starts_with("{where}") {
            (Part::Place, "{where}".len())
        } else if left.starts_with('*') {
            (Part::Any, 1)
        } else if left.starts_with(char::is_whitespace) {
            (Part::Blank, left.len() - left.trim_start().len())
        } else {
            let special = |(at, c): (usize, char)| {
                let rest = &left[at..];
                (c.is_whitespace() || c == '*' || rest.starts_with("{value}") || rest.starts_with("{where}"))
                    .then_some(at)
            };
            let end = left.char_indices().find_map(special).unwrap_or(left.len());
            (Part::Text(&left[..end]), end)
        };
        parts.push(part);
        left = &left[length..];
    }
    parts
}

fn fit(parts: &[Part<'_>], line: &str, captured: &mut (Option<String>, Option<f64>), budget: &mut u32) -> bool {
    let Some((part, rest)) = parts.split_first() else { return line.is_empty() };
    let Some(left) = budget.checked_sub(1) else { return false };
    *budget = left;
    match part {
        Part::Text(text) => line.strip_prefix(text).is_some_and(|line| fit(rest, line, captured, budget)),
        Part::Blank => {
            let trimmed = line.trim_start();
            trimmed.len() < line.len() && fit(rest, trimmed, captured, budget)
        }
        Part::Any => {
            let ends = line.char_indices().map(|(at, _)| at).chain([line.len()]);
            ends.into_iter().any(|at| fit(rest, &line[at..], captured, budget))
        }
        Part::Value => {
            let is_of_number = |c: char| c.is_ascii_digit() || matches!(c, '.' | '-' | '+' | 'e' | 'E');
            let most = line.find(|c| !is_of_number(c)).unwrap_or(line.len());
            // `12e` of `12 eggs` is no number, but `12` is.
            (1..=most).rev().any(|end| {
                let value = line[..end].parse::<f64>().ok().filter(|value| value.is_finite());
                value.is_some_and(|value| {
                    captured.1 = Some(value);
                    fit(rest, &line[end..], captured, budget)
                })
            })
        }
        Part::Place => {
            let ends = line.char_indices().map(|(at, c)| (at + c.len_utf8(), c));
            let ends = ends.take_while(|(end, c)| !c.is_whitespace() && *end <= LONGEST).map(|(end, _)| end);
            ends.collect::<Vec<_>>().into_iter().rev().any(|end| {
                captured.0 = Some(line[..end].to_owned());
                fit(rest, &line[end..], captured, budget)
            })
        }
    }
}

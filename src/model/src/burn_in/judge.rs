//! From measurements and limits to a verdict. Pure, so that a report can be judged again.

use super::limit::{Limit, LimitFrom};
use super::measurement::Measurement;
use super::verdict::{Breach, Verdict};

/// A broken limit decides whatever else could not be found out. A limit that the scenario gives and for which there is
/// no value leaves the step inconclusive: unread is not kept.
#[must_use]
pub fn judge(measurements: &[Measurement], limits: &[Limit], inconclusive: &[String]) -> Verdict {
    let breaches: Vec<Breach> = measurements
        .iter()
        .flat_map(|m| applicable(m, limits).filter(|l| !l.allows(m.value)).map(|l| Breach::of(l, m)))
        .collect();
    if !breaches.is_empty() {
        return Verdict::Failed { by: breaches };
    }
    let unread = limits.iter().filter(|l| l.from != LimitFrom::Default && !measurements.iter().any(|m| l.covers(m)));
    let because: Vec<String> = inconclusive
        .iter()
        .cloned()
        .chain(unread.map(|l| {
            let place = l.place.as_ref().map(|p| format!(" of {p}")).unwrap_or_default();
            format!("{}{place} has a limit and was not measured", l.measurement)
        }))
        .collect();
    if because.is_empty() { Verdict::Passed } else { Verdict::Inconclusive { because } }
}

/// A given limit stands instead of a default one for the same measurement, not beside it.
fn applicable<'a>(measurement: &'a Measurement, limits: &'a [Limit]) -> impl Iterator<Item = &'a Limit> {
    let covering = move || limits.iter().filter(|l| l.covers(measurement));
    let given = covering().any(|l| l.from == LimitFrom::Given);
    covering().filter(move |l| !given || l.from != LimitFrom::Default)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(name: &str, min: Option<f64>, max: Option<f64>, from: LimitFrom) -> Limit {
        Limit { measurement: name.into(), place: None, min, max, from }
    }

    #[test]
    fn the_limit_that_decided_is_named() {
        let measured =
            [Measurement::count("cpu.errors", 0).at("core 0"), Measurement::count("cpu.errors", 2).at("core 1")];
        let verdict = judge(&measured, &[Limit::default_max("cpu.errors", 0.0)], &["a sensor vanished".into()]);
        assert_eq!(verdict.reasons(), ["cpu.errors of core 1 is 2 count (at most 0 allowed, by default)"]);
    }

    #[test]
    fn a_given_limit_replaces_the_default() {
        let measured = [Measurement::count("edac.corrected", 3)];
        let limits = [Limit::default_max("edac.corrected", 0.0), limit("edac.*", None, Some(5.0), LimitFrom::Given)];
        assert_eq!(judge(&measured, &limits, &[]), Verdict::Passed);
        let fleet = [Limit::default_max("edac.corrected", 0.0), limit("edac.*", None, Some(5.0), LimitFrom::Fleet)];
        assert!(matches!(judge(&measured, &fleet, &[]), Verdict::Failed { .. }), "the fleet excuses nothing");
    }

    #[test]
    fn what_was_not_measured_has_not_passed() {
        let given = [limit("cpu.temperature", None, Some(90.0), LimitFrom::Given)];
        let verdict = judge(&[], &given, &[]);
        assert_eq!(verdict.reasons(), ["cpu.temperature has a limit and was not measured"]);
        assert_eq!(judge(&[], &[Limit::default_max("cpu.errors", 0.0)], &[]), Verdict::Passed);
        let nothing = Measurement { value: f64::NAN, ..Measurement::count("cpu.temperature", 0) };
        assert!(matches!(judge(&[nothing], &given, &[]), Verdict::Failed { .. }));
    }
}

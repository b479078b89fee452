//! The scenarios that every build has, as the files they are.

use super::scenario::Scenario;

pub const SHIPPED: &[(&str, &str)] = &[
    ("quick", include_str!("scenarios/quick.json")),
    ("standard", include_str!("scenarios/standard.json")),
    ("soak", include_str!("scenarios/soak.json")),
];

/// `None` when there is none of that name.
///
/// # Panics
/// Never: a test reads every file.
#[must_use]
pub fn shipped(name: &str) -> Option<Scenario> {
    let (_, text) = SHIPPED.iter().find(|(n, _)| *n == name)?;
    Some(Scenario::parse(text).expect("the shipped scenarios are read by a test"))
}

//! What this process must not say. A process has one log, and so one memory of what is secret.

use std::sync::{PoisonError, RwLock};

use serde::Serialize;
use serde::de::DeserializeOwned;
use speediso_model::redact::Redactor;
use speediso_model::task::Task;

static KNOWN: RwLock<Option<Redactor>> = RwLock::new(None);

fn with(learn: impl FnOnce(&mut Redactor)) {
    learn(KNOWN.write().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(Redactor::default));
}

pub fn learn(secret: &str) {
    with(|known| known.learn(secret));
}

/// Whatever the task says and does not say when it is shown.
pub fn learn_task(task: &Task) {
    with(|known| known.learn_task(task));
}

#[must_use]
pub fn hide(text: &str) -> String {
    match &*KNOWN.read().unwrap_or_else(PoisonError::into_inner) {
        Some(known) => known.text(text).into_owned(),
        None => Redactor::default().text(text).into_owned(),
    }
}

/// The same for every string of a value. One that is no longer of its type without its secrets is left to the caller,
/// who must not show it then.
pub(crate) fn hide_in<T: Serialize + DeserializeOwned>(value: &T) -> Option<T> {
    let mut document = serde_json::to_value(value).ok()?;
    let known = KNOWN.read().unwrap_or_else(PoisonError::into_inner).clone().unwrap_or_default();
    known.value(&mut document);
    serde_json::from_value(document).ok()
}

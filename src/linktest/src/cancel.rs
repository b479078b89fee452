//! Being told to stop.

use std::sync::Arc;
use std::time::Duration;

use crate::error::LinkError;

/// How often a wait looks whether it is still wanted.
pub(crate) const LOOK: Duration = Duration::from_millis(200);

/// Says whether somebody wants it to end.
#[derive(Clone)]
pub struct Stop(Arc<dyn Fn() -> bool + Send + Sync>);

impl std::fmt::Debug for Stop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Stop")
    }
}

impl Stop {
    pub fn when(asked: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        Self(Arc::new(asked))
    }

    #[must_use]
    pub fn never() -> Self {
        Self::when(|| false)
    }

    pub(crate) fn check(&self) -> Result<(), LinkError> {
        if (self.0)() { Err(LinkError::Cancelled) } else { Ok(()) }
    }
}

//! The one clock of telemetry. It times what is reported to people and decides nothing, so no test needs to own it.

use std::time::{Duration, Instant};

/// Times an RPC.
#[derive(Debug)]
pub(super) struct Stopwatch(Instant);

// === impl Stopwatch ===

impl Stopwatch {
    /// Starts at a moment.
    pub(super) fn since(moment: Instant) -> Self {
        Self(moment)
    }

    /// Returns the time since then.
    pub(super) fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}

/// Reads the clock: when what is being read arrived, for a transport that does not know better.
#[expect(clippy::disallowed_methods, reason = "it is only reported: no decision, no test depends on it")]
pub(super) fn now() -> Instant {
    Instant::now()
}

//! What the hot path counts, for telemetry to observe. It knows nothing of telemetry.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::domain::verification::Outcome;

/// Counts since the process started.
#[derive(Debug, Default)]
pub struct Counters {
    /// Answers from a cached token on record.
    pub hits: AtomicU64,
    /// Answers of UNKNOWN from a remembered absence.
    pub negative_hits: AtomicU64,
    /// Verifications that memory could not answer.
    pub misses: AtomicU64,
    /// Cached tokens or absences that a fence refused.
    pub fence_refusals: AtomicU64,
    /// Misses that joined a query under way.
    pub joined_flights: AtomicU64,
    /// Verifications that could not be answered because the database did not.
    pub unavailable: AtomicU64,
    /// Answers that left after the lease had lapsed, marked as stale.
    pub stale: AtomicU64,
    /// Verifications turned away because too many misses were in flight.
    pub overloaded: AtomicU64,
    /// Answers by outcome, in the order of [`Outcome::ALL`].
    pub outcomes: [AtomicU64; Outcome::ALL.len()],
    /// Marks of use dropped because too many waited (K9); a later use marks again.
    pub usage_drops: AtomicU64,
    /// Presentations of ended tokens dropped because too many waited (K8).
    pub late_drops: AtomicU64,
}

impl Counters {
    pub(super) fn bump(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn outcome(&self, outcome: Outcome) {
        Self::bump(&self.outcomes[outcome as usize]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_are_counted_in_their_declared_order() {
        let counters = Counters::default();
        for outcome in Outcome::ALL {
            counters.outcome(outcome);
        }
        assert!(counters.outcomes.iter().all(|count| count.load(Ordering::Relaxed) == 1));
    }
}

//! What the hot path counts, for telemetry to observe. It knows nothing of telemetry.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crate::domain::verification::Outcome;

const OUTCOMES: usize = Outcome::ALL.len();
/// Up to this many threads count separately: cores that write to one cache line wait for each other.
const STRIPES: usize = 16;

/// Answers by outcome, in the order of [`Outcome::ALL`].
pub(super) type ByOutcome = [u64; OUTCOMES];

/// Counts since the process started.
#[derive(Debug, Default)]
pub struct Counters {
    stripes: [Stripe; STRIPES],
    /// Answers that the database gave, by outcome.
    from_database: [AtomicU64; OUTCOMES],
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
    /// Marks of use dropped because too many waited (K9); the next use after those are written is marked again.
    pub usage_drops: AtomicU64,
    /// Presentations of ended tokens dropped because too many waited (K8).
    pub late_drops: AtomicU64,
    /// Presentations of ended tokens that are not recorded because the hour's events are used up (K8).
    pub late_folded: AtomicU64,
    /// Loads that found a token that had ended and was not known as a good one.
    pub ended_loads: AtomicU64,
}

/// Answers from memory, by outcome: counting a hit costs one addition.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Stripe([AtomicU64; OUTCOMES]);

impl Counters {
    pub(super) fn bump(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts an answer for which the database was not asked.
    #[inline]
    pub(super) fn answered_from_memory(&self, outcome: Outcome) {
        Self::bump(&self.stripe().0[outcome as usize]);
    }

    /// Counts many such answers.
    pub(super) fn many_from_memory(&self, answers: &ByOutcome) {
        for (counter, count) in self.stripe().0.iter().zip(answers).filter(|(_, count)| **count > 0) {
            counter.fetch_add(*count, Ordering::Relaxed);
        }
    }

    pub(super) fn answered_by_database(&self, outcome: Outcome) {
        Self::bump(&self.from_database[outcome as usize]);
    }

    #[inline]
    fn stripe(&self) -> &Stripe {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        thread_local! {
            static STRIPE: usize = NEXT.fetch_add(1, Ordering::Relaxed) % STRIPES;
        }
        &self.stripes[STRIPE.with(|stripe| *stripe)]
    }

    fn total_from_memory(&self, outcome: Outcome) -> u64 {
        self.stripes.iter().map(|stripe| stripe.0[outcome as usize].load(Ordering::Relaxed)).sum()
    }

    /// Answers with an outcome.
    #[must_use]
    pub fn answers(&self, outcome: Outcome) -> u64 {
        self.total_from_memory(outcome) + self.from_database[outcome as usize].load(Ordering::Relaxed)
    }

    /// Answers from a cached token on record.
    #[must_use]
    pub fn hits(&self) -> u64 {
        let on_record = |outcome: &Outcome| !matches!(outcome, Outcome::Malformed | Outcome::Unknown);
        Outcome::ALL.into_iter().filter(on_record).map(|outcome| self.total_from_memory(outcome)).sum()
    }

    /// Answers of UNKNOWN from a remembered absence.
    #[must_use]
    pub fn negative_hits(&self) -> u64 {
        self.total_from_memory(Outcome::Unknown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_counted_by_their_outcome_whatever_the_thread_and_the_source() {
        let counters = Counters::default();
        std::thread::scope(|scope| {
            for _ in 0..20 {
                scope.spawn(|| Outcome::ALL.into_iter().for_each(|outcome| counters.answered_from_memory(outcome)));
            }
        });
        counters.many_from_memory(&[1; OUTCOMES]);
        Outcome::ALL.into_iter().for_each(|outcome| counters.answered_by_database(outcome));
        assert!(Outcome::ALL.into_iter().all(|outcome| counters.answers(outcome) == 22));
        assert_eq!((counters.hits(), counters.negative_hits()), (21 * 7, 21));
    }
}

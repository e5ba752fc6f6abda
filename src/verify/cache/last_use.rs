//! Packs when a token was last used into one word, and decides which uses and late presentations are recorded (K8, K9).

use std::sync::atomic::{AtomicI64, Ordering};

use crate::domain::time::{Span, Timestamp};

/// A presentation of an ended token is recorded at most this often (K8).
pub(crate) const LATE_INTERVAL: Span = Span::from_secs(60 * 60);
/// A token's use is noted again only after this long. A small part of the minute that K9 allows.
const USE_RESOLUTION_MILLIS: i64 = 250;
pub(crate) const NEVER: i64 = i64::MIN;
/// A token's last use in one word: database time in milliseconds above the lowest bits of the round that it was queued
/// in, so that uses are recorded once a round ([`crate::verify::usage`]). Ordered by time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct LastUse(pub(super) i64);

// === impl LastUse ===

impl LastUse {
    pub const NEVER: Self = Self(0);
    const ROUND_BITS: u32 = 16;

    /// Creates the word of a token that was never used.
    pub fn word() -> AtomicI64 {
        AtomicI64::new(Self::NEVER.0)
    }

    fn new(now: Timestamp, round: i64) -> Self {
        Self((now.as_micros() / 1_000) << Self::ROUND_BITS | Self::round_bits(round))
    }

    /// Returns a use at `now` that was queued in the round before this one, so that the next use is queued.
    pub fn before(now: Timestamp, round: i64) -> Self {
        Self::new(now, round - 1)
    }

    /// Returns a round's bits: never zero, which belongs to no round.
    fn round_bits(round: i64) -> i64 {
        1 + round.rem_euclid((1 << Self::ROUND_BITS) - 1)
    }

    fn bits_of_round(self) -> i64 {
        self.0 & ((1 << Self::ROUND_BITS) - 1)
    }

    /// Returns the time, to the millisecond.
    pub fn time(self) -> Timestamp {
        Timestamp::from_micros((self.0 >> Self::ROUND_BITS) * 1_000)
    }

    /// Notes a use; true if it is the first of a round.
    #[inline]
    pub fn claim(word: &AtomicI64, now: Timestamp, round: i64) -> bool {
        let (last, next) = (Self(word.load(Ordering::Relaxed)), Self::new(now, round));
        if last.bits_of_round() != next.bits_of_round() {
            // Of several threads at once, one is the first.
            return Self(word.swap(next.0, Ordering::Relaxed)).bits_of_round() != next.bits_of_round();
        }
        // Not each time: a hot token's line is not to be written to by every core on every request.
        if next.0 - last.0 >= USE_RESOLUTION_MILLIS << Self::ROUND_BITS {
            word.store(next.0, Ordering::Relaxed);
        }
        false
    }
}

pub(crate) fn claim_late_report(reported: &AtomicI64, now: Timestamp) -> bool {
    let last = reported.load(Ordering::Relaxed);
    now.as_micros().saturating_sub(last) >= LATE_INTERVAL.as_micros()
        && reported.compare_exchange(last, now.as_micros(), Ordering::Relaxed, Ordering::Relaxed).is_ok()
}

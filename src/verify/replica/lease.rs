//! The lease: until when this process may answer from what it remembers (V1).
//!
//! Its end is a moment of the boot clock, counted from *before* the renewal was sent, less a margin for
//! clocks that do not run alike. Without it the database decides on every request. A replica with a
//! `stale_max` answers from what it remembers for that much longer, and marks those answers as stale; it
//! published that time when it registered, and revocations wait for it too. When to renew is the
//! follower's business; this file only holds the moment.

use std::time::Duration;

use crate::verify::{
    fence::ordered::PublishedStamp,
    planted::{Bug, planted},
};

/// Clock rates agree to one part in this many.
const DRIFT_PARTS: u32 = 100;
/// The margin for drift is never less, however short the lease.
const DRIFT_MARGIN_MIN: Duration = Duration::from_millis(10);
const LAPSED: i64 = i64::MIN;
/// So that sums of moments and spans cannot overflow.
const SPAN_MICROS_MAX: i64 = i64::MAX / 4;

/// The local lease. Written by the follower alone.
pub struct Lease {
    end_boot_micros: PublishedStamp,
    span_micros: i64,
    stale_micros: i64,
}

/// The end of the lease as it was at one moment. Load it *before* the clock: a renewal in between may
/// then only cost a cached answer.
#[derive(Clone, Copy, Debug)]
pub struct LeaseEnd {
    end_boot_micros: i64,
    stale_micros: i64,
}

/// What the lease allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseState {
    /// To answer from memory.
    Leased,
    /// To answer from memory, saying that the answer may be stale.
    Stale,
    /// Nothing: the database decides.
    Lapsed,
}

/// Returns what clocks may differ by over a span: the holder of a lease subtracts it, and whatever waits for the lease
/// to end adds it.
#[must_use]
pub fn drift_margin(span: Duration) -> Duration {
    (span / DRIFT_PARTS).max(DRIFT_MARGIN_MIN)
}

fn micros(span: Duration) -> i64 {
    i64::try_from(span.as_micros()).unwrap_or(SPAN_MICROS_MAX).min(SPAN_MICROS_MAX)
}

impl Lease {
    /// Creates a lease that does not count yet.
    #[must_use]
    pub fn new(lease: Duration, stale_max: Duration) -> Self {
        let (lease, margin, stale) = (micros(lease), micros(drift_margin(lease)), micros(stale_max));
        Self {
            end_boot_micros: PublishedStamp::new(LAPSED),
            span_micros: (lease - margin).max(0),
            // The whole of it runs on one clock, so each part leaves its own margin.
            stale_micros: stale - stale / i64::from(DRIFT_PARTS),
        }
    }

    /// Renews it by a renewal that was sent at this moment of the boot clock.
    pub fn renew(&self, sent_boot_micros: i64) {
        // A reader that sees the new end sees every fence that was raised before.
        self.end_boot_micros.advance(sent_boot_micros + self.span_micros);
    }

    /// Ends it now, and the span of stale answers that would follow it.
    pub fn clear(&self) {
        self.end_boot_micros.advance(LAPSED);
    }

    /// Returns its end, to compare with a clock that is read afterwards.
    #[must_use]
    pub fn end(&self) -> LeaseEnd {
        LeaseEnd { end_boot_micros: self.end_boot_micros.load(), stale_micros: self.stale_micros }
    }

    /// Reports whether it is valid at this moment of the boot clock.
    #[must_use]
    pub fn valid(&self, boot_micros: i64) -> bool {
        self.end().valid(boot_micros)
    }
}

impl LeaseEnd {
    /// Returns what it allows at this moment of the boot clock.
    #[must_use]
    pub fn state_at(self, boot_micros: i64) -> LeaseState {
        let trusted = planted(Bug::TrustExpiredLease) && self.end_boot_micros != LAPSED;
        if trusted || boot_micros < self.end_boot_micros {
            LeaseState::Leased
        } else if boot_micros < self.end_boot_micros + self.stale_micros {
            LeaseState::Stale
        } else {
            LeaseState::Lapsed
        }
    }

    /// Reports whether the lease is valid at this moment of the boot clock.
    #[must_use]
    pub fn valid(self, boot_micros: i64) -> bool {
        boot_micros < self.end_boot_micros
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strict(lease: Duration) -> Lease {
        Lease::new(lease, Duration::ZERO)
    }

    #[test]
    fn v1_a_lease_counts_from_before_its_renewal_less_the_drift_margin() {
        let lease = strict(Duration::from_secs(10));
        assert_eq!(lease.end().state_at(0), LeaseState::Lapsed);
        lease.renew(1_000);
        assert_eq!(lease.end().state_at(1_000 + 9_900_000 - 1), LeaseState::Leased);
        assert_eq!(lease.end().state_at(1_000 + 9_900_000), LeaseState::Lapsed);
    }

    #[test]
    fn v1_after_the_lease_a_replica_answers_so_much_longer_less_the_drift_margin_and_no_more() {
        let lease = Lease::new(Duration::from_secs(10), Duration::from_secs(5));
        lease.renew(0);
        assert_eq!(lease.end().state_at(9_899_999), LeaseState::Leased);
        assert_eq!(lease.end().state_at(9_900_000), LeaseState::Stale);
        assert!(!lease.valid(9_900_000));
        assert_eq!(lease.end().state_at(9_900_000 + 4_950_000 - 1), LeaseState::Stale);
        assert_eq!(lease.end().state_at(9_900_000 + 4_950_000), LeaseState::Lapsed);
    }

    #[test]
    fn the_drift_margin_of_a_short_lease_is_ten_milliseconds() {
        let lease = strict(Duration::from_millis(100));
        lease.renew(0);
        assert!(lease.valid(89_999));
        assert!(!lease.valid(90_000));
    }

    #[test]
    fn a_lease_shorter_than_its_margin_is_never_valid() {
        let lease = strict(Duration::from_millis(5));
        lease.renew(0);
        assert!(!lease.valid(0));
    }

    #[test]
    fn v1_a_cleared_lease_is_over_and_so_is_what_would_follow_it() {
        let lease = Lease::new(Duration::from_secs(10), Duration::MAX);
        assert_eq!(lease.end().state_at(i64::MAX), LeaseState::Lapsed);
        lease.renew(0);
        assert_eq!(lease.end().state_at(i64::MAX / 8), LeaseState::Stale);
        lease.clear();
        assert_eq!(lease.end().state_at(0), LeaseState::Lapsed);
    }
}

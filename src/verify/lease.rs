//! The lease: until when this process may answer from what it remembers (V1).
//!
//! Its end is a moment of the boot clock, counted from *before* the round that renewed it was sent, less
//! a margin for clocks that do not run alike. Without it the database decides on every request. When to
//! renew is the follower's business; this file only holds the moment.

use std::{
    sync::atomic::{AtomicI64, Ordering},
    time::Duration,
};

/// The margin for drift, as a part of the lease: clock rates agree to one in a hundred.
const DRIFT_PARTS: i64 = 100;
/// The margin for drift is never less, however short the lease.
const DRIFT_MARGIN_MICROS_MIN: i64 = 10_000;
const LAPSED: i64 = i64::MIN;

/// The local lease. Written by the follower alone.
pub struct Lease {
    end_boot_micros: AtomicI64,
    span_micros: i64,
}

/// The end of the lease as it was at one moment. Load it *before* the clock: a renewal in between may
/// then only cost a cached answer.
#[derive(Clone, Copy, Debug)]
pub struct LeaseEnd(i64);

impl Lease {
    /// A lease that does not count yet.
    #[must_use]
    pub fn new(lease: Duration) -> Self {
        let lease = i64::try_from(lease.as_micros()).unwrap_or(i64::MAX / 4).min(i64::MAX / 4);
        let margin = (lease / DRIFT_PARTS).max(DRIFT_MARGIN_MICROS_MIN);
        Self { end_boot_micros: AtomicI64::new(LAPSED), span_micros: (lease - margin).max(0) }
    }

    /// Renews it by a round that was sent at this moment of the boot clock, as its last step.
    pub fn renew(&self, sent_boot_micros: i64) {
        // Release: who sees the new end sees every fence that the round raised.
        self.end_boot_micros.store(sent_boot_micros + self.span_micros, Ordering::Release);
    }

    /// Ends it now.
    pub fn clear(&self) {
        self.end_boot_micros.store(LAPSED, Ordering::Release);
    }

    /// Its end, to compare with a clock that is read afterwards.
    #[must_use]
    pub fn end(&self) -> LeaseEnd {
        LeaseEnd(self.end_boot_micros.load(Ordering::Acquire))
    }

    /// True if it is valid at this moment of the boot clock.
    #[must_use]
    pub fn valid(&self, boot_micros: i64) -> bool {
        self.end().valid(boot_micros)
    }
}

impl LeaseEnd {
    /// True if the lease is valid at this moment of the boot clock.
    #[must_use]
    pub fn valid(self, boot_micros: i64) -> bool {
        boot_micros < self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_counts_from_before_its_round_less_the_drift_margin() {
        let lease = Lease::new(Duration::from_secs(10));
        assert!(!lease.valid(0));
        lease.renew(1_000);
        assert!(lease.valid(1_000 + 9_900_000 - 1));
        assert!(!lease.valid(1_000 + 9_900_000));
    }

    #[test]
    fn the_drift_margin_of_a_short_lease_is_ten_milliseconds() {
        let lease = Lease::new(Duration::from_millis(100));
        lease.renew(0);
        assert!(lease.valid(89_999));
        assert!(!lease.valid(90_000));
    }

    #[test]
    fn a_lease_shorter_than_its_margin_is_never_valid() {
        let lease = Lease::new(Duration::from_millis(5));
        lease.renew(0);
        assert!(!lease.valid(0));
    }

    #[test]
    fn a_cleared_lease_is_over() {
        let lease = Lease::new(Duration::from_secs(10));
        lease.renew(0);
        lease.clear();
        assert!(!lease.valid(0));
    }
}

//! Admission: so that a flood of well-formed tokens that nobody minted costs the database little.
//!
//! A load of a token that memory does not know pays from a bucket that fills at a steady rate, and is given that back
//! unless it finds that there is no such token. So tokens on record cost nothing, however many are asked for after a
//! restart; and of those that are not, no more are asked for than the rate and the bucket allow. The rest is turned
//! away before it reaches the database: nobody knows then, so it is never UNKNOWN (V2).

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

use super::{clock::Clock, limits::Limits};

const NANOS_A_SECOND: i64 = 1_000_000_000;
const NANOS_A_MICRO: i64 = 1_000;

/// The bucket, kept as one number: when it is full again if nobody pays.
pub(super) struct Admission {
    full_at_nanos: AtomicI64,
    /// What a load pays: the time in which that much flows in.
    price_nanos: i64,
    /// The time in which an empty bucket fills.
    capacity_nanos: i64,
}

/// What a load paid. Dropping it gives it back.
pub(super) struct Fare {
    admission: Arc<Admission>,
    paid_nanos: i64,
}

// === impl Admission ===

impl Admission {
    pub fn new(limits: &Limits) -> Arc<Self> {
        let price_nanos = NANOS_A_SECOND / i64::from(limits.absences_per_second_max.max(1));
        // All loads that may be under way at once pay before the first is given anything back.
        let loads = limits.absences_burst_max.max(limits.misses_in_flight_max);
        let capacity_nanos = price_nanos.saturating_mul(i64::try_from(loads).unwrap_or(i64::MAX));
        Arc::new(Self { full_at_nanos: AtomicI64::new(0), price_nanos, capacity_nanos })
    }

    /// Pays for a load; `None` if there is too little in the bucket.
    pub fn enter(self: &Arc<Self>, clock: &dyn Clock) -> Option<Fare> {
        let now = clock.boot_micros().saturating_mul(NANOS_A_MICRO);
        let empty = now.saturating_add(self.capacity_nanos);
        let pay = |full_at: i64| Some(full_at.max(now).saturating_add(self.price_nanos)).filter(|paid| *paid <= empty);
        self.full_at_nanos.fetch_update(Ordering::Relaxed, Ordering::Relaxed, pay).ok()?;
        Some(Fare { admission: self.clone(), paid_nanos: self.price_nanos })
    }
}

// === impl Fare ===

impl Fare {
    /// There is no such token: nothing is given back.
    pub fn keep(mut self) {
        self.paid_nanos = 0;
    }
}

impl Drop for Fare {
    fn drop(&mut self) {
        self.admission.full_at_nanos.fetch_sub(self.paid_nanos, Ordering::Relaxed);
    }
}

#[cfg(test)]
#[path = "admission_tests.rs"]
mod tests;

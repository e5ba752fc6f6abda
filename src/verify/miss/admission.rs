//! Admission of loads: a flood of well-formed tokens that are good for nothing costs the database little.
//!
//! A load of a token that memory does not know as a good one pays from a bucket that fills at a steady rate, and is
//! given that back if it finds a good token. So good tokens cost nothing, however many are asked for after a restart;
//! and of those that are not on record, or have ended, no more are asked for than the rate and the bucket allow. The
//! rest is turned away before it reaches the database: its state is not known then, so the answer is never UNKNOWN
//! (V2).
//!
//! A few ended tokens cost nothing either, by a small bucket of their own: a client that a rotation left behind is no
//! flood.

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

use crate::verify::{clock::Clock, limits::VerifyLimits};

const NANOS_A_SECOND: i64 = 1_000_000_000;
const NANOS_A_MICRO: i64 = 1_000;
/// A burst may have as many free loads of ended tokens as flow in within this time.
const ENDED_BURST_SECONDS: usize = 4;

/// Admits loads, by two buckets.
pub(crate) struct LoadAdmission {
    /// Loads pay from this, unless they find a good token.
    loads: LoadBucket,
    /// Loads that find an ended token pay from this instead, while it lasts.
    ended: LoadBucket,
}

/// A bucket, kept as one number: when it is full again if no load pays.
struct LoadBucket {
    full_at_nanos: AtomicI64,
    /// What a load pays: the time in which that much flows in.
    price_nanos: i64,
    /// The time in which an empty bucket fills.
    capacity_nanos: i64,
}

/// What a load paid. Dropping it gives it back.
pub(crate) struct Permit {
    admission: Arc<LoadAdmission>,
    paid_nanos: i64,
}

// === impl LoadAdmission ===

impl LoadAdmission {
    pub fn new(limits: &VerifyLimits) -> Arc<Self> {
        // All loads that may be under way at once pay before the first is given anything back.
        let at_once = limits.unknown_loads_burst_max.max(limits.misses_in_flight_max);
        let loads = LoadBucket::new(limits.unknown_loads_per_second_max, at_once);
        let free = limits.ended_loads_per_second_max;
        let ended = LoadBucket::new(free, (free as usize).saturating_mul(ENDED_BURST_SECONDS));
        Arc::new(Self { loads, ended })
    }

    /// Pays for a load; `None` if there is too little in the bucket.
    pub fn enter(self: &Arc<Self>, clock: &dyn Clock) -> Option<Permit> {
        let paid = self.loads.pay(clock);
        paid.then(|| Permit { admission: self.clone(), paid_nanos: self.loads.price_nanos })
    }
}

// === impl LoadBucket ===

impl LoadBucket {
    fn new(per_second: u32, at_once: usize) -> Self {
        let price_nanos = NANOS_A_SECOND / i64::from(per_second.max(1));
        let capacity_nanos = price_nanos.saturating_mul(i64::try_from(at_once).unwrap_or(i64::MAX));
        Self { full_at_nanos: AtomicI64::new(0), price_nanos, capacity_nanos }
    }

    /// Takes the price of one load; reports whether there was enough in the bucket.
    fn pay(&self, clock: &dyn Clock) -> bool {
        let now = clock.boot_micros().saturating_mul(NANOS_A_MICRO);
        let empty = now.saturating_add(self.capacity_nanos);
        let pay = |full_at: i64| Some(full_at.max(now).saturating_add(self.price_nanos)).filter(|paid| *paid <= empty);
        self.full_at_nanos.fetch_update(Ordering::Relaxed, Ordering::Relaxed, pay).is_ok()
    }
}

// === impl Permit ===

impl Permit {
    /// Keeps the payment: there is no such token.
    pub fn keep(mut self) {
        self.paid_nanos = 0;
    }

    /// Keeps the payment for a token that has ended, unless few such loads came lately.
    pub fn keep_for_ended(self, clock: &dyn Clock) {
        if !self.admission.ended.pay(clock) {
            self.keep();
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.admission.loads.full_at_nanos.fetch_sub(self.paid_nanos, Ordering::Relaxed);
    }
}

#[cfg(test)]
#[path = "tests/admission.rs"]
mod tests;

//! Logs an outage of the store once, however many calls fail because of it.

use std::sync::atomic::{AtomicI64, Ordering};

use crate::verify::clock::{BootClock, Clock as _};

/// An outage is over when no call has failed because of it for this long.
const OUTAGE_GAP_MICROS: i64 = 10_000_000;

/// Logs that calls fail because the store is unavailable: once when that begins, and again only after it was over for a
/// while. How often calls fail, and when that ends, is in the metrics and in what the follower logs.
pub(super) fn note_outage(error_chain: &str) {
    static OUTAGE: Outage = Outage::new();
    if OUTAGE.begins(BootClock.boot_micros()) {
        tracing::warn!(error = error_chain, "the store is unavailable: calls that need it fail until it is back");
    }
}

/// When a call last failed because the store was unavailable.
struct Outage(AtomicI64);

impl Outage {
    const fn new() -> Self {
        Self(AtomicI64::new(i64::MIN))
    }

    /// Notes a failed call; returns true for the first of an outage.
    fn begins(&self, now_micros: i64) -> bool {
        let last = self.0.fetch_max(now_micros, Ordering::Relaxed);
        now_micros.saturating_sub(last) > OUTAGE_GAP_MICROS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_is_logged_once_and_not_for_each_call() {
        let outage = Outage::new();
        assert!(outage.begins(1_000_000));
        assert!((0..30).all(|second| !outage.begins(1_000_000 + second * 1_000_000)));
        assert!(outage.begins(1_000_000 + 29 * 1_000_000 + OUTAGE_GAP_MICROS + 1), "it was over meanwhile");
    }
}

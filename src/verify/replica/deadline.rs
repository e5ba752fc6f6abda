//! What time it is in the database, without asking it: grace periods and expiries are judged on this (V3).
//!
//! Each reading of the database's clock is anchored at the moment its statement was *sent*. The
//! database read its clock after that, so the estimate is never behind it, hence no deadline is ever
//! late; and it is ahead by at most the round trip, hence none is earlier than that.
//!
//! It knows nothing of tokens and leases, and never reads the machine's wall clock.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicI64, Ordering},
};

use crate::{domain::time::Timestamp, verify::clock::Clock};

const NEVER: i64 = i64::MIN;

/// An estimate of the database's clock that never goes back.
///
/// A new anchor replaces the old one rather than only raising it, lest one slow round trip, or a boot
/// clock that runs fast, make every later deadline early for good. Where the new one would turn time
/// back, the estimate stands still until it has caught up: a deadline that has passed stays passed, even
/// if the database's clock is set back.
pub struct DatabaseClock {
    clock: Arc<dyn Clock>,
    /// Database time less boot time, in microseconds; [`NEVER`] before the first anchor.
    offset: AtomicI64,
    /// What the estimate had reached when an anchor last lowered it.
    floor: AtomicI64,
    /// Rounds and misses without a lease may anchor at once; readers never wait for this.
    anchoring: Mutex<()>,
}

impl DatabaseClock {
    /// Creates a clock that was never anchored.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        let never = || AtomicI64::new(NEVER);
        Self { clock, offset: never(), floor: never(), anchoring: Mutex::new(()) }
    }

    /// Returns the database's time at a moment of the boot clock; `None` before the first anchor.
    #[must_use]
    pub fn at(&self, boot_micros: i64) -> Option<Timestamp> {
        // Acquire: a reader that sees a lowered offset also sees the floor that was stored before it.
        let offset = self.offset.load(Ordering::Acquire);
        if offset == NEVER {
            return None;
        }
        Some(Timestamp::from_micros((boot_micros + offset).max(self.floor.load(Ordering::Relaxed))))
    }

    /// Takes a reading of the database's clock by a statement sent at `sent_boot_micros`.
    pub fn anchor(&self, sent_boot_micros: i64, database_time: Timestamp) {
        let _one_at_a_time = self.anchoring.lock().unwrap_or_else(PoisonError::into_inner);
        let next = database_time.as_micros() - sent_boot_micros;
        let last = self.offset.load(Ordering::Relaxed);
        if last == NEVER || next >= last {
            self.offset.store(next, Ordering::Release);
            return;
        }
        // The floor goes up before the offset goes down, and once more after, for readers that came between.
        self.floor.fetch_max(self.clock.boot_micros() + last, Ordering::Relaxed);
        self.offset.store(next, Ordering::Release);
        self.floor.fetch_max(self.clock.boot_micros() + last, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verify::clock::ManualClock;

    /// The database's clock is `SKEW` ahead of the boot clock.
    const SKEW: i64 = 1_000_000;

    fn clocks() -> (Arc<ManualClock>, DatabaseClock) {
        let boot = Arc::new(ManualClock::at(100));
        (boot.clone(), DatabaseClock::new(boot))
    }

    fn estimate(boot: &ManualClock, clock: &DatabaseClock) -> i64 {
        clock.at(boot.boot_micros()).expect("anchored").as_micros()
    }

    /// Anchors by a statement that takes `there` to be answered and `back` for its reply.
    fn anchor(boot: &ManualClock, clock: &DatabaseClock, there: i64, back: i64) {
        let sent = boot.boot_micros();
        boot.advance(there);
        let read = Timestamp::from_micros(boot.boot_micros() + SKEW);
        boot.advance(back);
        clock.anchor(sent, read);
    }

    #[test]
    fn before_the_first_anchor_there_is_no_time() {
        assert_eq!(clocks().1.at(100), None);
    }

    #[test]
    fn v3_deadlines_are_never_late() {
        let (boot, clock) = clocks();
        for (there, back) in [(0, 0), (10, 0), (0, 500), (700, 3), (1, 1), (0, 90)] {
            anchor(&boot, &clock, there, back);
            for _ in 0..5 {
                assert!(estimate(&boot, &clock) >= boot.boot_micros() + SKEW);
                boot.advance(40);
            }
        }
    }

    #[test]
    fn v3_a_deadline_is_early_by_at_most_the_last_round_trip() {
        let (boot, clock) = clocks();
        anchor(&boot, &clock, 5_000, 0);
        assert_eq!(estimate(&boot, &clock), boot.boot_micros() + SKEW + 5_000);
        boot.advance(1);
        anchor(&boot, &clock, 3, 2);
        // It stands still until the better anchor has caught up, and is exact to that round trip then.
        boot.advance(5_000);
        assert_eq!(estimate(&boot, &clock), boot.boot_micros() + SKEW + 3);
    }

    #[test]
    fn v3_time_never_goes_back_even_if_the_databases_clock_does() {
        let (boot, clock) = clocks();
        anchor(&boot, &clock, 0, 0);
        let before = estimate(&boot, &clock);
        clock.anchor(boot.boot_micros(), Timestamp::from_micros(before - 3_600));
        assert_eq!(estimate(&boot, &clock), before);
        boot.advance(3_600);
        assert_eq!(estimate(&boot, &clock), before);
        boot.advance(1);
        assert_eq!(estimate(&boot, &clock), before + 1);
    }
}

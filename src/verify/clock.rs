//! The process's own clock, behind a trait so that tests and the simulation own time.
//!
//! It measures spans, never dates: it knows nothing of the database's time, which
//! [`super::replica::deadline`] estimates from it.

#[cfg(test)]
use std::sync::atomic::{AtomicI64, Ordering};

/// A clock that never goes back and counts while the machine sleeps.
pub trait Clock: Send + Sync {
    /// Microseconds since some moment before the process started.
    fn boot_micros(&self) -> i64;
}

/// The operating system's: `CLOCK_BOOTTIME` on Linux, because a lease must also lapse while the machine
/// is suspended; `CLOCK_MONOTONIC` elsewhere.
#[derive(Clone, Copy, Debug, Default)]
pub struct BootClock;

/// A clock that moves only by [`Self::advance`]: for tests.
#[cfg(test)]
#[derive(Debug, Default)]
pub struct ManualClock(AtomicI64);

impl Clock for BootClock {
    fn boot_micros(&self) -> i64 {
        #[cfg(target_os = "linux")]
        let id = rustix::time::ClockId::Boottime;
        #[cfg(not(target_os = "linux"))]
        let id = rustix::time::ClockId::Monotonic;
        let now = rustix::time::clock_gettime(id);
        now.tv_sec * 1_000_000 + now.tv_nsec / 1_000
    }
}

#[cfg(test)]
impl ManualClock {
    /// Creates a clock that stands at `boot_micros`.
    #[must_use]
    pub const fn at(boot_micros: i64) -> Self {
        Self(AtomicI64::new(boot_micros))
    }

    /// Moves it on.
    pub fn advance(&self, micros: i64) {
        debug_assert!(micros >= 0, "a boot clock never goes back");
        self.0.fetch_add(micros, Ordering::SeqCst);
    }
}

#[cfg(test)]
impl Clock for ManualClock {
    fn boot_micros(&self) -> i64 {
        self.0.load(Ordering::SeqCst)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_boot_clock_never_goes_back() {
        let first = BootClock.boot_micros();
        assert!(first > 0 && BootClock.boot_micros() >= first);
    }

    #[test]
    fn a_manual_clock_moves_only_when_advanced() {
        let clock = ManualClock::at(5);
        assert_eq!(clock.boot_micros(), 5);
        clock.advance(7);
        assert_eq!(clock.boot_micros(), 12);
    }
}

//! Every memory ordering that V1 rests on, in one place: `tests/interleavings` runs this very file through
//! all interleavings, so it must know nothing but [`super::atomic`].
//!
//! Follower: [`Mark::raise`] each fence, [`Stamp::advance`], [`before_telling`], the acknowledgement; the
//! lease by [`Stamp::advance`] after all of these. Verification: the lease by [`Stamp::load`], the clock,
//! the applied revision by [`Stamp::load`], the entry, the fences by [`Mark::load_after_stamps`].

use super::atomic::{AtomicI64, Ordering, fence};

/// A value that only goes up: a fence.
#[derive(Debug)]
pub struct Mark(AtomicI64);

/// A value by which others are published: the applied revision, the lease's end.
#[derive(Debug)]
pub struct Stamp(AtomicI64);

impl Mark {
    /// At this value.
    pub fn new(value: i64) -> Self {
        Self(AtomicI64::new(value))
    }

    /// Raises it to a value, if it is below.
    pub fn raise(&self, to: i64) {
        self.0.fetch_max(to, Ordering::Release);
    }

    /// Relaxed: the caller has loaded the stamps before, and sees whatever was raised before those.
    pub fn load_after_stamps(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Stamp {
    /// At this value.
    pub fn new(value: i64) -> Self {
        Self(AtomicI64::new(value))
    }

    /// Release: who sees the new value sees what was raised before. Returns the value before.
    pub fn advance(&self, to: i64) -> i64 {
        self.0.swap(to, Ordering::Release)
    }

    /// Acquire: nothing that is loaded afterwards is older than what this saw.
    pub fn load(&self) -> i64 {
        self.0.load(Ordering::Acquire)
    }
}

/// Before the database is told what was applied: whoever hears of it may rely on the fences.
pub fn before_telling() {
    fence(Ordering::SeqCst);
}

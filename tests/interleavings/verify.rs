//! The product's own orderings over loom's atomics.

#[path = "../../src/verify/fence/ordered.rs"]
pub mod ordered;

/// In place of the product's `verify::fence::atomic`: loom's, any ordering of which can be taken away.
pub mod atomic {
    use std::cell::Cell;

    pub use loom::sync::atomic::Ordering;

    thread_local! {
        static RELAXED: Cell<Option<Ordering>> = const { Cell::new(None) };
    }

    /// From now on, in this test, Relaxed takes the place of this ordering.
    pub fn relax(ordering: Option<Ordering>) {
        RELAXED.set(ordering);
    }

    fn effective(ordering: Ordering) -> Ordering {
        if RELAXED.get() == Some(ordering) { Ordering::Relaxed } else { ordering }
    }

    #[derive(Debug)]
    pub struct AtomicI64(loom::sync::atomic::AtomicI64);

    impl AtomicI64 {
        pub fn new(value: i64) -> Self {
            Self(loom::sync::atomic::AtomicI64::new(value))
        }
        pub fn load(&self, ordering: Ordering) -> i64 {
            self.0.load(effective(ordering))
        }
        pub fn store(&self, value: i64, ordering: Ordering) {
            self.0.store(value, effective(ordering));
        }
        pub fn swap(&self, value: i64, ordering: Ordering) -> i64 {
            self.0.swap(value, effective(ordering))
        }
        pub fn fetch_max(&self, value: i64, ordering: Ordering) -> i64 {
            self.0.fetch_max(value, effective(ordering))
        }
    }

    /// Loom has no relaxed fence: without it there is none.
    pub fn fence(ordering: Ordering) {
        if effective(ordering) != Ordering::Relaxed {
            loom::sync::atomic::fence(ordering);
        }
    }
}

/// The product's single flight, over the types of [`sync`].
#[path = "../../src/verify/miss/flight.rs"]
#[allow(dead_code, reason = "the models need a part of it")]
pub mod flight;
#[path = "sync.rs"]
pub mod sync;

/// In place of the product's `verify::planted`: each mistake that is made on demand, chosen by a test.
pub mod planted {
    use std::cell::Cell;

    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum Bug {
        HearBeforeGone,
        TrustEveryFlight,
    }

    thread_local! {
        static CHOSEN: Cell<Option<Bug>> = const { Cell::new(None) };
    }

    /// From now on, in this test, this mistake is made.
    pub fn plant(bug: Option<Bug>) {
        CHOSEN.set(bug);
    }

    pub fn planted(bug: Bug) -> bool {
        CHOSEN.get() == Some(bug)
    }
}

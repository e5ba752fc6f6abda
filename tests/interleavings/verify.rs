//! The product's own orderings over loom's atomics.

#[path = "../../src/verify/fence/ordered.rs"]
pub mod ordered;

/// In place of the product's `verify::atomic`: loom's, any ordering of which can be taken away.
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

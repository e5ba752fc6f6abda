//! The primitives that [`super::ordered`] is built on. The interleaving models replace this module by another.

pub use std::sync::atomic::{AtomicI64, Ordering, fence};

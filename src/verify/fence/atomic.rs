//! What [`super::ordered`] is made of. The interleaving models put others in this module's place.

pub use std::sync::atomic::{AtomicI64, Ordering, fence};

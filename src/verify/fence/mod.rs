//! Decides which revisions may be served: an entry is served only at or above every fence that covers it.

pub(super) mod atomic;
pub mod buckets;
pub mod covers;
pub mod fences;
pub(super) mod ordered;

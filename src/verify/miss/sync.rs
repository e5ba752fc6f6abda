//! The primitives that [`super::flight`] is built on. The interleaving models replace this module by another.

pub use std::sync::{Mutex, MutexGuard};

pub use tokio::sync::watch;

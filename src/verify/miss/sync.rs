//! What [`super::flight`] is made of. The interleaving models put others in this module's place.

pub use std::sync::{Mutex, MutexGuard};

pub use tokio::sync::watch;

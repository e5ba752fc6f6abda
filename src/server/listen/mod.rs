//! The socket: which connections are taken, and who serves them.

pub(super) mod admission;
pub(super) mod descriptors;
pub(super) mod listener;

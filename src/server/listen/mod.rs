//! Accepts connections: the socket, the caps, the file descriptors.

pub(super) mod admission;
pub(super) mod descriptors;
pub(super) mod listener;

//! Streams: bounded, and ended when their caller's authority ends or the server stops.

pub(super) mod bidirectional;
pub(super) mod drain;
pub(super) mod watch;

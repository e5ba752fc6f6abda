//! Waiting until a change is on every replica (V1).

pub(super) mod barrier;
pub(super) mod replica_poller;
pub(super) mod wait;

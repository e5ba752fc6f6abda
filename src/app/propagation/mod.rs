//! Waiting until a change is on every replica (V1).

pub(super) mod barrier;
pub(super) mod looks;
pub(super) mod wait;

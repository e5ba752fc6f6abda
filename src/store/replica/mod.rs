//! Implements `verify`'s port: misses, usage, the replicas' rows, peppers.

pub mod fill;
pub mod peppers;
pub mod replicas;
pub(super) mod usage;

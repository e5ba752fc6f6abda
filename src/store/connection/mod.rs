//! Connects to the database: pools, whether it is there, whether it is the one, and what its errors mean.

pub(super) mod availability;
pub(super) mod connect;
pub(super) mod identity;
pub(super) mod listen;
pub(super) mod pool;
pub(super) mod pooled;
pub(super) mod sqlstate;

//! Runs reads and mutations: snapshots, transactions, locks in their one order.

pub(super) mod ahead;
pub(super) mod snapshot;
pub(super) mod transaction;

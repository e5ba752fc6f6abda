//! Runs reads and mutations: snapshots, transactions, locks in their one order.

mod prefetch;
mod snapshot;
mod transaction;

pub use self::snapshot::BEGIN_SQL as SNAPSHOT_BEGIN_SQL;
pub(super) use self::{
    snapshot::DatabaseSession,
    transaction::{BEGIN_USAGE_SQL, begin_sql},
};

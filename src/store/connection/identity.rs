//! Recognises the database: a restore, a copy or a fail-over is noticed, even if no replica ran meanwhile.
//!
//! The identity that stands with the head of the log is compared with the database's own: whenever a connection is made
//! on which callers' work runs, and by each of the follower's reads of the head. While they differ, no statement that
//! answers a caller is sent. `latchkey accept-history` records the new one in a new epoch.
//!
//! A copy of the files that is started again in place of its original has the same identity: this is not detected.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use diesel::{QueryResult, prelude::*, sql_types::Text};
use diesel_async::AsyncPgConnection;

use crate::{
    app::{error::StoreError, ports::StoreResult},
    store::sql::statement::statement,
};

/// Fails if another database is on record. A statement without a result, so that it can
/// be sent with the other settings of a new connection, in one round trip.
pub const CHECK_SQL: &str = "DO $$ BEGIN \
     IF (SELECT database_identity <> latchkey_database_identity() FROM log_head) THEN \
     RAISE EXCEPTION 'the database is another one than its log was written in: accept it with `latchkey accept-history`'; \
     END IF; END $$";

const RECORD_SQL: &str = "UPDATE log_head SET database_identity = latchkey_database_identity() \
     WHERE database_identity IS NULL RETURNING database_identity AS identity";

/// Calls fail at once while the database is known to be another one.
#[derive(Debug, thiserror::Error)]
#[error("the database is another one than its log was written in: accept it with `latchkey accept-history`")]
struct KnownOther;

#[derive(QueryableByName)]
struct IdentityRow {
    #[diesel(sql_type = Text)]
    identity: String,
}

/// Remembers what the follower last saw: connections that were made earlier may lead to another database by now.
/// Cheap to clone.
#[derive(Clone, Default)]
pub struct KnownIdentity(Arc<AtomicBool>);

// === impl KnownIdentity ===

impl KnownIdentity {
    /// Records what a read of the head found.
    pub fn note(&self, other: bool) {
        self.0.store(other, Ordering::Release);
    }

    /// Fails if the database is another one than its log was written in.
    pub fn check(&self) -> StoreResult<()> {
        if self.0.load(Ordering::Acquire) { Err(StoreError::Unavailable(KnownOther.into())) } else { Ok(()) }
    }
}

/// Records the identity unless one is on record; returns it if it was recorded now.
pub async fn record(conn: &mut AsyncPgConnection) -> QueryResult<Option<String>> {
    let row: Option<IdentityRow> =
        diesel_async::RunQueryDsl::get_result(statement(RECORD_SQL), conn).await.optional()?;
    Ok(row.map(|row| row.identity))
}

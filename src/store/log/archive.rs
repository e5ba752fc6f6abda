//! Archives the beginning of the log: for the owner of the tables, never for a server, whose role can neither delete
//! events nor move the anchor.
//!
//! What is removed is what no replica will ask for: each has applied an event beyond it. A replica that registers
//! meanwhile reads a head that was written later.

use std::time::Duration;

use diesel::{
    prelude::*,
    sql_types::{BigInt, Bool, Bytea, Double, Nullable, SmallInt, Text},
};
use diesel_async::{AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection};

use super::{
    anchor::{self, AnchorRow},
    events,
};
use crate::{
    domain::log::archive::{Anchor, ArchivedEvent},
    store::{
        connection::connect::{establish, primary_only},
        migrate,
        sql::{rows::YesRow, statement::statement, values::Link},
    },
    verify::primary::OtherDatabase,
};

/// Rows that one transaction removes, and that are read at once.
pub const BATCH_ROWS_MAX: u32 = 500;
/// Connecting only: a batch may take as long as it needs.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

const POWERS_SQL: &str = "SELECT current_user::text AS role, has_table_privilege('events', 'DELETE') \
     AND has_table_privilege('event_details', 'DELETE') AND has_table_privilege('event_affected_keys', 'DELETE') \
     AND has_table_privilege('log_anchor', 'UPDATE') AS may";
const LEAST_APPLIED_SQL: &str = "SELECT min(applied_number) AS number FROM replicas";
const READ_SQL: &str = "SELECT number, epoch, format_version, payload, hash FROM events \
     WHERE number > $1 AND number <= $2 ORDER BY number LIMIT $3";
const AT_SQL: &str = "SELECT epoch, number, hash FROM events WHERE number = $1";
const IS_OLDER_SQL: &str =
    "SELECT time < clock_timestamp() - make_interval(secs => $2) AS yes FROM events WHERE number = $1";
/// Only from where it was: two archives at once do not both go on.
const MOVE_SQL: &str = "UPDATE log_anchor SET epoch = $1, number = $2, hash = $3 WHERE number = $4 AND hash = $5";
/// The keys that they affected go by a trigger.
const DELETE_SQL: &str = "WITH d AS (DELETE FROM event_details WHERE number > $1 AND number <= $2) \
     DELETE FROM events WHERE number > $1 AND number <= $2";

/// Why nothing can be archived. These texts are for the operator at the terminal.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// It cannot be reached.
    #[error("cannot connect to the database")]
    Connect(#[source] diesel::ConnectionError),
    /// The schema is not this build's.
    #[error("the database's schema is not this build's: run `latchkey migrate` of the same release first")]
    Schema,
    /// The log was written in another database, and that was not accepted.
    #[error(transparent)]
    OtherDatabase(#[from] OtherDatabase),
    /// The role may append to the log only.
    #[error(
        "role `{0}` may not delete events, as no server's role may: set database_url to the owner of the tables, the \
         role that runs `latchkey migrate`"
    )]
    NotOwner(String),
    /// Another run archives at the same time.
    #[error("the anchor was moved by another `latchkey events archive`: run this one again when that has ended")]
    Moved,
    /// A statement failed.
    #[error("a statement of the archive failed")]
    Statement(#[from] diesel::result::Error),
}

/// Says what may be removed by now.
#[derive(Clone, Copy, Debug)]
pub struct Extent {
    /// What was archived before.
    pub anchor: Anchor,
    /// The number of the last event.
    pub head: i64,
    /// The least number that a replica has applied; `None` if there is no replica.
    pub least_applied: Option<i64>,
}

/// Gives the owner of the tables access to the log.
pub struct Archiver(AsyncPgConnection);

#[derive(QueryableByName)]
struct MayArchiveRow {
    #[diesel(sql_type = Text)]
    role: String,
    #[diesel(sql_type = Bool)]
    may: bool,
}

#[derive(QueryableByName)]
struct LeastRow {
    #[diesel(sql_type = Nullable<BigInt>)]
    number: Option<i64>,
}

#[derive(QueryableByName)]
struct ArchivedRow {
    #[diesel(sql_type = BigInt)]
    number: i64,
    #[diesel(sql_type = BigInt)]
    epoch: i64,
    #[diesel(sql_type = SmallInt)]
    format_version: i16,
    #[diesel(sql_type = Bytea)]
    payload: Vec<u8>,
    #[diesel(sql_type = Bytea)]
    hash: Link,
}

/// Reads what the log of a database was archived up to; needs the right to read it only.
///
/// # Errors
/// [`ArchiveError`].
pub async fn anchor_of(url: &str) -> Result<Anchor, ArchiveError> {
    Ok(anchor::read(&mut connect(url).await?).await?)
}

async fn connect(url: &str) -> Result<AsyncPgConnection, ArchiveError> {
    let url = primary_only(url);
    let mut conn = establish(url, CONNECT_TIMEOUT, None).await.map_err(ArchiveError::Connect)?;
    if migrate::schema_status(&mut conn).await? != migrate::SchemaStatus::Current {
        return Err(ArchiveError::Schema);
    }
    Ok(conn)
}

// === impl Archiver ===

impl Archiver {
    /// Opens a connection, and checks that the role may archive.
    ///
    /// # Errors
    /// [`ArchiveError`].
    pub async fn open(url: &str) -> Result<Self, ArchiveError> {
        let mut conn = connect(url).await?;
        let powers: MayArchiveRow = statement(POWERS_SQL).get_result(&mut conn).await?;
        if !powers.may {
            return Err(ArchiveError::NotOwner(powers.role));
        }
        Ok(Self(conn))
    }

    /// Reads what may be removed by now.
    ///
    /// # Errors
    /// [`ArchiveError`].
    pub async fn extent(&mut self) -> Result<Extent, ArchiveError> {
        let anchor = anchor::read(&mut self.0).await?;
        // The head before the replicas: a replica that registers after they were listed reads a head that is no
        // earlier.
        let head = events::head(&mut self.0).await??.revision.number;
        let least: LeastRow = statement(LEAST_APPLIED_SQL).get_result(&mut self.0).await?;
        Ok(Extent { anchor, head, least_applied: least.number })
    }

    /// Finds the number of the last event older than `age`, after `after` and up to `through`; `after` if there is
    /// none.
    ///
    /// # Errors
    /// [`ArchiveError`].
    pub async fn last_older_than(&mut self, age: Duration, after: i64, through: i64) -> Result<i64, ArchiveError> {
        // Time never decreases along the log.
        let (mut older, mut newer) = (after, through + 1);
        while older + 1 < newer {
            let middle = older + (newer - older) / 2;
            let row: Option<YesRow> = statement(IS_OLDER_SQL)
                .bind::<BigInt, _>(middle)
                .bind::<Double, _>(age.as_secs_f64())
                .get_result(&mut self.0)
                .await
                .optional()?;
            // A missing event is reported by the reading of the events.
            if row.is_none_or(|row| row.yes) { older = middle } else { newer = middle }
        }
        Ok(older)
    }

    /// Returns the anchor right after an event; `None` if the event is not there.
    ///
    /// # Errors
    /// [`ArchiveError`].
    pub async fn at(&mut self, number: i64) -> Result<Option<Anchor>, ArchiveError> {
        let row: Option<AnchorRow> =
            statement(AT_SQL).bind::<BigInt, _>(number).get_result(&mut self.0).await.optional()?;
        Ok(row.map(AnchorRow::into_anchor))
    }

    /// Reads the next events after a number, up to another.
    ///
    /// # Errors
    /// [`ArchiveError`].
    pub async fn events(&mut self, after: i64, through: i64) -> Result<Vec<ArchivedEvent>, ArchiveError> {
        let rows: Vec<ArchivedRow> = statement(READ_SQL)
            .bind::<BigInt, _>(after)
            .bind::<BigInt, _>(through)
            .bind::<BigInt, _>(i64::from(BATCH_ROWS_MAX))
            .load(&mut self.0)
            .await?;
        Ok(rows.into_iter().map(ArchivedRow::into_event).collect())
    }

    /// Removes the events after the anchor up to another one, and moves the anchor there, in one transaction.
    ///
    /// # Errors
    /// [`ArchiveError::Moved`] if the anchor is not where it was; nothing is removed then.
    pub async fn remove(&mut self, from: &Anchor, to: &Anchor) -> Result<(), ArchiveError> {
        self.0.batch_execute("BEGIN").await?;
        let removed = self.remove_in_transaction(from, to).await;
        let end = if removed.is_ok() { "COMMIT" } else { "ROLLBACK" };
        let ended = self.0.batch_execute(end).await;
        removed?;
        Ok(ended?)
    }

    async fn remove_in_transaction(&mut self, from: &Anchor, to: &Anchor) -> Result<(), ArchiveError> {
        let moved = statement(MOVE_SQL)
            .bind::<BigInt, _>(to.epoch)
            .bind::<BigInt, _>(to.number)
            .bind::<Bytea, _>(Link(to.hash))
            .bind::<BigInt, _>(from.number)
            .bind::<Bytea, _>(Link(from.hash))
            .execute(&mut self.0)
            .await?;
        if moved != 1 {
            return Err(ArchiveError::Moved);
        }
        let query = statement(DELETE_SQL).bind::<BigInt, _>(from.number).bind::<BigInt, _>(to.number);
        query.execute(&mut self.0).await?;
        Ok(())
    }
}

impl ArchivedRow {
    fn into_event(self) -> ArchivedEvent {
        let Self { number, epoch, format_version, payload, hash } = self;
        ArchivedEvent { number, epoch, format_version, payload, hash: hash.0 }
    }
}

//! Reads the head of the log, appends to the log (V5, V6), and reads it for the follower.

use diesel::{
    QueryResult,
    prelude::*,
    sql_types::{Array, BigInt, Bool, Bytea, Nullable, SmallInt, Text, Timestamptz, Uuid as SqlUuid},
};
use diesel_async::{AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection};
use futures_util::future::{join, join3};
use uuid::Uuid;

use super::{anchor, personal, stamps::Stamps};
use crate::{
    app::{mint::uuid_v7, ports::Append},
    domain::{
        id::EventId,
        log::{
            event::{Event, FORMAT_VERSION, GENESIS, Hash, chain},
            revision::Revision,
        },
        time::Timestamp,
    },
    entropy::{Entropy, OsEntropy},
    store::sql::{
        statement::statement,
        values::{Link, Time, refuse_standby, revision},
    },
    verify::primary::{Head, LogEntry, OtherDatabase},
};

/// The channel that a commit wakes followers on. Its payload is empty: it is only a hint.
pub const CHANNEL: &str = "latchkey_events";

/// The head and the clock by one statement. `clock_timestamp()`, not the transaction's start; and never before the
/// last event, whatever the clock does: what ended at once stays ended, on every replica and after every restart.
pub const HEAD_SQL: &str = "SELECT epoch, number, GREATEST(time, clock_timestamp()) AS time, hash, \
     current_setting('in_hot_standby') = 'on' AS standby, database_identity AS recorded, \
     latchkey_database_identity() AS actual FROM log_head LIMIT 1";

/// The clock of [`HEAD_SQL`].
const NOW_SQL: &str = "SELECT GREATEST(time, clock_timestamp()) AS now FROM log_head LIMIT 1";

/// Events above a number, and the one before them for its hash.
pub const EVENTS_AFTER_SQL: &str =
    "SELECT number, format_version, payload, hash FROM events WHERE number >= $1 ORDER BY number LIMIT $2";

/// The last lock of every mutation: the transaction that holds it commits next, so numbers are in commit order and
/// without gaps. Time never decreases along the log, whatever the clock does, nor below the time that the mutation
/// has read.
const TAKE_HEAD_SQL: &str = "UPDATE log_head h SET number = h.number + $1, \
     time = GREATEST(h.time, clock_timestamp(), $2) RETURNING h.epoch, h.number, h.time, h.hash";

/// Checks the deferred constraints (K2).
const CHECK_SQL: &str = "SET CONSTRAINTS ALL IMMEDIATE";

/// Locks the head as taking it does. The accepted history is that of the database that it is in now.
const START_EPOCH_SQL: &str = "UPDATE log_head h SET epoch = h.epoch + 1, \
     database_identity = latchkey_database_identity() RETURNING h.epoch - 1 AS epoch, \
     h.number, h.time, h.hash";

#[derive(QueryableByName)]
struct HeadRow {
    #[diesel(sql_type = BigInt)]
    epoch: i64,
    #[diesel(sql_type = BigInt)]
    number: i64,
    #[diesel(sql_type = Timestamptz)]
    time: Time,
    #[diesel(sql_type = Bytea)]
    hash: Link,
}

#[derive(QueryableByName)]
struct HeadNow {
    #[diesel(embed)]
    head: HeadRow,
    #[diesel(sql_type = Bool)]
    standby: bool,
    #[diesel(sql_type = Nullable<Text>)]
    recorded: Option<String>,
    #[diesel(sql_type = Text)]
    actual: String,
}

#[derive(QueryableByName)]
struct ClockRow {
    #[diesel(sql_type = Timestamptz)]
    now: Time,
}

#[derive(QueryableByName)]
pub(crate) struct EntryRow {
    #[diesel(sql_type = BigInt)]
    pub number: i64,
    #[diesel(sql_type = SmallInt)]
    pub format_version: i16,
    #[diesel(sql_type = Bytea)]
    pub payload: Vec<u8>,
    #[diesel(sql_type = Bytea)]
    pub hash: Link,
}

/// Reads the head of the log and the database's clock; fails if it is another database than the log was written in.
pub async fn head(conn: &mut AsyncPgConnection) -> QueryResult<Result<Head, OtherDatabase>> {
    let HeadNow { head: row, standby, recorded, actual } = statement(HEAD_SQL).get_result(conn).await?;
    refuse_standby(standby)?;
    if let Some(recorded) = recorded.filter(|recorded| *recorded != actual) {
        return Ok(Err(OtherDatabase { recorded, actual }));
    }
    Ok(Ok(Head { revision: revision(row.epoch, row.number), hash: row.hash.0, database_time: row.time.0 }))
}

/// Reads the database's clock.
pub async fn now(mut conn: &AsyncPgConnection) -> QueryResult<Timestamp> {
    let row: ClockRow = statement(NOW_SQL).get_result(&mut conn).await?;
    Ok(row.now.0)
}

/// Reads at most `limit` events above a number, in order, each with the hash of the row before it.
pub async fn events_after(conn: &mut AsyncPgConnection, number: i64, limit: u32) -> QueryResult<Vec<LogEntry>> {
    let rows: Vec<EntryRow> = statement(EVENTS_AFTER_SQL)
        .bind::<BigInt, _>(number)
        .bind::<BigInt, _>(i64::from(limit) + 1)
        .load(conn)
        .await?;
    // Only a first event has no predecessor, and the first after the anchor none that is still there. Should a row be
    // missing, the reader sees that numbers or hashes do not follow.
    let mut previous_hash = GENESIS;
    if number > 0 && rows.as_slice().first().is_some_and(|row| row.number > number) {
        let anchor = anchor::read(conn).await?;
        if anchor.number == number {
            previous_hash = anchor.hash;
        }
    }
    let mut entries = Vec::with_capacity(rows.len());
    for row in rows {
        let hash = row.hash.0;
        if row.number > number && entries.len() < limit as usize {
            let event = Event::decode(row.format_version, &row.payload);
            entries.push(LogEntry { number: row.number, previous_hash, hash, event });
        }
        previous_hash = hash;
    }
    Ok(entries)
}

/// Takes the head, appends the events in order and stamps their objects: two round trips. No event is earlier than
/// `not_before`. Returns one revision for each change: a change too large for one event is several in the log.
pub async fn append(
    conn: &mut AsyncPgConnection,
    appends: Vec<Append>,
    not_before: Option<Timestamp>,
    notify: bool,
) -> QueryResult<Vec<Revision>> {
    let appends: Vec<_> = appends.into_iter().map(|append| (append.draft.parts(), append.stamps)).collect();
    let count: usize = appends.iter().map(|(parts, _)| parts.len()).sum();
    let Some(count) = i64::try_from(count).ok().filter(|count| *count > 0) else { return Ok(Vec::new()) };
    // The deferred constraints are checked before the head is taken, while no transaction waits for it: at commit,
    // each row would cost all other mutations time.
    let (mut checking, conn) = (&*conn, &*conn);
    let mut taking = conn;
    let head = statement(TAKE_HEAD_SQL).bind::<BigInt, _>(count).bind::<Nullable<Timestamptz>, _>(not_before.map(Time));
    let (checked, head) = join(checking.batch_execute(CHECK_SQL), head.get_result::<HeadRow>(&mut taking)).await;
    let head = checked.and(head)?;

    let (mut rows, mut details) = (EventRows::default(), personal::Details::default());
    let mut stamps = Stamps::default();
    let mut previous = head.hash.0;
    let mut revisions = Vec::with_capacity(appends.len());
    let mut number = head.number - count;
    for (parts, stamped) in appends {
        for part in parts {
            number += 1;
            let mut event = part.at(revision(head.epoch, number), event_id(head.time.0), head.time.0);
            details.seal(&mut event);
            previous = rows.add(&event, &previous);
        }
        // Of the last part: waiting for it is waiting for all of them.
        for stamp in stamped {
            stamps.add(stamp, number);
        }
        revisions.push(revision(head.epoch, number));
    }
    // Pipelined: one round trip for all. The events go first, so that of two errors theirs is reported.
    let events = rows.write(conn, head.epoch, notify);
    let (written, kept, stamped) = join3(events, details.write(conn), stamps.write(conn, head.epoch)).await;
    written.and(kept).and(stamped)?;
    Ok(revisions)
}

/// Takes the head and starts the next epoch; returns the head as it was.
pub async fn start_epoch(conn: &mut AsyncPgConnection) -> QueryResult<Revision> {
    let before: HeadRow = statement(START_EPOCH_SQL).get_result(conn).await?;
    Ok(revision(before.epoch, before.number))
}

/// Makes a UUIDv7 of the event's own time, so that event ids sort like the log.
fn event_id(time: Timestamp) -> EventId {
    let mut random = [0; 10];
    OsEntropy.fill(&mut random);
    EventId::from_uuid(uuid_v7(time, &random))
}

/// Collects the rows of events, column by column.
#[derive(Default)]
struct EventRows {
    numbers: Vec<i64>,
    event_ids: Vec<Uuid>,
    times: Vec<Time>,
    kinds: Vec<String>,
    account_ids: Vec<Option<String>>,
    target_types: Vec<String>,
    target_ids: Vec<String>,
    /// Arrays of different lengths do not make an array: each is written as its text.
    affected_key_ids: Vec<String>,
    payloads: Vec<Vec<u8>>,
    hashes: Vec<Link>,
}

const INSERT_SQL: &str = "WITH e AS (INSERT INTO events (number, epoch, event_id, time, kind, account_id, \
      target_type, target_id, affected_key_ids, format_version, payload, hash) \
      SELECT n.number, $1, n.event_id, n.time, n.kind, n.account_id, n.target_type, n.target_id, \
      n.affected::uuid[], $2, n.payload, n.hash \
      FROM unnest($3, $4, $5, $6, $7, $8, $9, $10, $11, $12) AS n \
      (number, event_id, time, kind, account_id, target_type, target_id, affected, payload, hash)), \
     h AS (UPDATE log_head SET hash = $13) \
     SELECT pg_notify($14, '') WHERE $15";

impl EventRows {
    fn add(&mut self, event: &Event, previous: &Hash) -> Hash {
        let payload = event.encode();
        let hash = chain(previous, &payload);
        let affected: Vec<_> = event.affected_key_ids.iter().map(|key| key.as_uuid().to_string()).collect();
        self.numbers.push(event.revision.number);
        self.event_ids.push(event.event_id.as_uuid());
        self.times.push(Time(event.time));
        self.kinds.push(event.kind.clone());
        self.account_ids.push(event.account_id.as_ref().map(ToString::to_string));
        self.target_types.push(event.target.kind.clone());
        self.target_ids.push(event.target.id.clone());
        self.affected_key_ids.push(format!("{{{}}}", affected.join(",")));
        self.payloads.push(payload);
        self.hashes.push(Link(hash));
        hash
    }

    async fn write(self, mut conn: &AsyncPgConnection, epoch: i64, notify: bool) -> QueryResult<()> {
        let last = *self.hashes.last().expect("append returns early when there is no event");
        statement(INSERT_SQL)
            .bind::<BigInt, _>(epoch)
            .bind::<SmallInt, _>(FORMAT_VERSION)
            .bind::<Array<BigInt>, _>(self.numbers)
            .bind::<Array<SqlUuid>, _>(self.event_ids)
            .bind::<Array<Timestamptz>, _>(self.times)
            .bind::<Array<Text>, _>(self.kinds)
            .bind::<Array<Nullable<Text>>, _>(self.account_ids)
            .bind::<Array<Text>, _>(self.target_types)
            .bind::<Array<Text>, _>(self.target_ids)
            .bind::<Array<Text>, _>(self.affected_key_ids)
            .bind::<Array<Bytea>, _>(self.payloads)
            .bind::<Array<Bytea>, _>(self.hashes)
            .bind::<Bytea, _>(last)
            .bind::<Text, _>(CHANNEL)
            .bind::<Bool, _>(notify)
            .execute(&mut conn)
            .await?;
        Ok(())
    }
}

//! Reads and writes the rows of `replicas`: which replicas may answer from their caches, how far each has applied the
//! log, and until when it must be waited for.
//!
//! Each is one statement, hence one transaction and one round trip. How durable its commit must be is
//! part of the protocol, so each that writes sets `synchronous_commit` for itself, as the last thing that
//! it does: PostgreSQL looks at the setting when it commits.

use std::time::Duration;

use diesel::{
    QueryResult,
    prelude::*,
    sql_types::{Array, BigInt, Bool, Bytea, Text, Uuid as SqlUuid},
};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use uuid::Uuid;

use crate::{
    app::ports::{Registered, ReplicaRow},
    store::sql::{
        rows::YesRow,
        statement::statement,
        values::{Link, refuse_standby, revision, unreadable},
    },
    verify::primary::{Acknowledged, Acknowledgement, Registration},
};

/// At least `on`, as a mutation's commit is; `remote_apply` is stronger and is kept.
///
/// A registration that PostgreSQL forgot in a crash would let revocations pass by a replica that counts
/// on it. A renewal that it forgot, after the replica had counted it, would go back to a `renewal_no`
/// that an observer has seen: it would take a replica that answers for one that has been silent, and
/// delete its row (ABA). An eviction that it forgot would bring a row back whose replica was not waited
/// for, and let it renew.
macro_rules! durably {
    () => {
        "set_config('synchronous_commit', CASE current_setting('synchronous_commit') \
         WHEN 'remote_apply' THEN 'remote_apply' ELSE 'on' END, true)"
    };
}

/// Losing it in a crash costs time only: a barrier waits until it is acknowledged again.
macro_rules! lazily {
    () => {
        "set_config('synchronous_commit', 'off', true)"
    };
}

/// Both kinds of acknowledgement. They match only if the log has the event that the replica applied last,
/// with its hash, in its epoch; number 0 is the empty log that every database starts with. A plain UPDATE:
/// it waits for a transaction that deletes the row, and that waits for it.
macro_rules! acknowledge_sql {
    ($renewed:literal, $durability:expr) => {
        concat!(
            "UPDATE replicas SET applied_epoch = $2, applied_number = $3, renewal_no = renewal_no + ",
            $renewed,
            " WHERE incarnation = $1 AND (($2 = 1 AND $3 = 0 AND $4 = decode(repeat('00', 32), 'hex')) \
             OR EXISTS (SELECT FROM events WHERE number = $3 AND epoch = $2 AND hash = $4)) RETURNING ",
            $durability,
            " AS durability"
        )
    };
}

const REGISTER_SQL: &str = concat!(
    "INSERT INTO replicas (incarnation, lease_ms, stale_max_ms, pepper_ids, name) VALUES ($1, $2, $3, $4, $5) RETURNING ",
    durably!(),
    " AS durability"
);
/// That a revision was applied.
pub const ACKNOWLEDGE_SQL: &str = acknowledge_sql!("0", lazily!());
/// The same, and the lease renewed.
pub const RENEW_SQL: &str = acknowledge_sql!("1", durably!());
const EXISTS_SQL: &str = "SELECT EXISTS (SELECT FROM replicas WHERE incarnation = $1) AS yes";
const DEREGISTER_SQL: &str = "DELETE FROM replicas WHERE incarnation = $1";
const EVICT_SQL: &str =
    concat!("DELETE FROM replicas WHERE incarnation = $1 AND renewal_no = $2 RETURNING ", durably!(), " AS durability");
/// Every row, with the head of the log and whether a standby answers, even if there is no row: on a standby that lags,
/// a replica may not be registered yet.
const LIST_SQL: &str = "SELECT current_setting('in_hot_standby') = 'on' AS standby, h.epoch AS head_epoch, \
     h.number AS head_number, r.incarnation, r.renewal_no, \
     r.applied_epoch, r.applied_number, r.lease_ms, r.stale_max_ms \
     FROM log_head h LEFT JOIN replicas r ON true ORDER BY r.incarnation";

#[derive(QueryableByName)]
struct ListRow {
    #[diesel(sql_type = Bool)]
    standby: bool,
    #[diesel(sql_type = BigInt)]
    head_epoch: i64,
    #[diesel(sql_type = BigInt)]
    head_number: i64,
    #[diesel(embed)]
    row: Option<ReplicaColumns>,
}

#[derive(QueryableByName)]
struct ReplicaColumns {
    #[diesel(sql_type = SqlUuid)]
    incarnation: Uuid,
    #[diesel(sql_type = BigInt)]
    renewal_no: i64,
    #[diesel(sql_type = BigInt)]
    applied_epoch: i64,
    #[diesel(sql_type = BigInt)]
    applied_number: i64,
    #[diesel(sql_type = BigInt)]
    lease_ms: i64,
    #[diesel(sql_type = BigInt)]
    stale_max_ms: i64,
}

#[derive(QueryableByName)]
struct ReplicaNameRow {
    #[diesel(sql_type = SqlUuid)]
    incarnation: Uuid,
    #[diesel(sql_type = BigInt)]
    renewal_no: i64,
    #[diesel(sql_type = Text)]
    name: String,
}

/// Registers a replica that has applied nothing yet.
pub async fn register(conn: &mut AsyncPgConnection, registration: &Registration) -> QueryResult<()> {
    statement(REGISTER_SQL)
        .bind::<SqlUuid, _>(registration.incarnation)
        .bind::<BigInt, _>(millis(registration.lease))
        .bind::<BigInt, _>(millis(registration.stale_max))
        .bind::<Array<Text>, _>(registration.pepper_ids.clone())
        .bind::<Text, _>(registration.name.clone())
        .execute(conn)
        .await?;
    Ok(())
}

/// Acknowledges a revision, and renews the lease if asked to.
pub async fn acknowledge(conn: &mut AsyncPgConnection, said: &Acknowledgement) -> QueryResult<Acknowledged> {
    let matched = statement(if said.renew { RENEW_SQL } else { ACKNOWLEDGE_SQL })
        .bind::<SqlUuid, _>(said.incarnation)
        .bind::<BigInt, _>(said.applied.epoch)
        .bind::<BigInt, _>(said.applied.number)
        .bind::<Bytea, _>(Link(said.hash))
        .execute(conn)
        .await?;
    if matched > 0 {
        return Ok(Acknowledged::Recorded);
    }
    let row: YesRow = statement(EXISTS_SQL).bind::<SqlUuid, _>(said.incarnation).get_result(conn).await?;
    Ok(if row.yes { Acknowledged::HistoryDiverged } else { Acknowledged::Evicted })
}

/// Deletes a replica's row.
pub async fn deregister(conn: &mut AsyncPgConnection, incarnation: Uuid) -> QueryResult<()> {
    statement(DEREGISTER_SQL).bind::<SqlUuid, _>(incarnation).execute(conn).await?;
    Ok(())
}

/// Deletes the row of a replica that has not renewed since; returns false if it has, or is gone.
pub async fn evict(conn: &mut AsyncPgConnection, incarnation: Uuid, renewal_no: i64) -> QueryResult<bool> {
    let deleted =
        statement(EVICT_SQL).bind::<SqlUuid, _>(incarnation).bind::<BigInt, _>(renewal_no).execute(conn).await?;
    Ok(deleted > 0)
}

/// Lists the incarnation, renewal number and name of each row.
pub async fn names(conn: &mut AsyncPgConnection) -> QueryResult<Vec<(Uuid, i64, String)>> {
    let rows: Vec<ReplicaNameRow> = statement("SELECT incarnation, renewal_no, name FROM replicas").load(conn).await?;
    Ok(rows.into_iter().map(|row| (row.incarnation, row.renewal_no, row.name)).collect())
}

/// Lists every row, in order of incarnation, and the head of the log.
pub async fn list(conn: &mut AsyncPgConnection) -> QueryResult<Registered> {
    let rows: Vec<ListRow> = statement(LIST_SQL).load(conn).await?;
    refuse_standby(rows.iter().any(|row| row.standby))?;
    let head = rows.as_slice().first().map(|row| revision(row.head_epoch, row.head_number));
    let head = head.ok_or_else(|| unreadable("log_head"))?;
    let rows: QueryResult<_> = rows.into_iter().filter_map(|row| row.row).map(ReplicaColumns::into_port).collect();
    Ok(Registered { head, rows: rows? })
}

impl ReplicaColumns {
    fn into_port(self) -> QueryResult<ReplicaRow> {
        Ok(ReplicaRow {
            incarnation: self.incarnation,
            renewal_no: self.renewal_no,
            applied: revision(self.applied_epoch, self.applied_number),
            lease: duration(self.lease_ms).ok_or_else(|| unreadable("replicas.lease_ms"))?,
            stale_max: duration(self.stale_max_ms).ok_or_else(|| unreadable("replicas.stale_max_ms"))?,
        })
    }
}

/// Converts to whole milliseconds, rounded up: a replica is waited for at least as long as it answers.
fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros().div_ceil(1_000)).unwrap_or(i64::MAX)
}

fn duration(millis: i64) -> Option<Duration> {
    u64::try_from(millis).ok().map(Duration::from_millis)
}

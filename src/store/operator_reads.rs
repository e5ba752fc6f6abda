//! Remembers which reads by operators were noted in the log within the last hour (A3).

use diesel::{
    QueryResult,
    sql_types::{Text, Timestamptz, Uuid as SqlUuid},
};
use diesel_async::{AsyncPgConnection, RunQueryDsl};

use super::sql::{statement::statement, values::Time};
use crate::domain::{
    id::{AccountId, KeyId},
    time::{Span, Timestamp},
};

/// At most one event a key and account in this span.
const NOTED_SPAN: Span = Span::from_secs(60 * 60);

const NOTE_SQL: &str = "INSERT INTO operator_reads AS r (key_id, account_id, noted_time) VALUES ($1, $2, $3) \
     ON CONFLICT (key_id, account_id) DO UPDATE SET noted_time = EXCLUDED.noted_time WHERE r.noted_time <= $4";

/// Rows older than the span are of no use any more. Few at a time, and none that another transaction has locked.
const FORGET_SQL: &str = "DELETE FROM operator_reads r USING ( \
      SELECT key_id, account_id FROM operator_reads WHERE noted_time <= $1 \
      ORDER BY noted_time LIMIT 100 FOR UPDATE SKIP LOCKED) old \
     WHERE r.key_id = old.key_id AND r.account_id = old.account_id";

/// Notes a read; false if one of the key and account was noted within the last hour.
pub async fn note(conn: &mut AsyncPgConnection, key: KeyId, account: &AccountId, now: Timestamp) -> QueryResult<bool> {
    let an_hour_ago = Timestamp::from_micros(now.as_micros() - NOTED_SPAN.as_micros());
    let noted = statement(NOTE_SQL)
        .bind::<SqlUuid, _>(key.as_uuid())
        .bind::<Text, _>(account.as_str())
        .bind::<Timestamptz, _>(Time(now))
        .bind::<Timestamptz, _>(Time(an_hour_ago))
        .execute(conn)
        .await?;
    if noted > 0 {
        statement(FORGET_SQL).bind::<Timestamptz, _>(Time(an_hour_ago)).execute(conn).await?;
    }
    Ok(noted > 0)
}

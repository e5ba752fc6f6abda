//! Records when tokens were last used (K9): a table of its own, so that no row that authority locks is touched.

use diesel::{
    QueryResult,
    sql_types::{Array, Bytea, Timestamptz, Uuid as SqlUuid},
};
use diesel_async::{AsyncPgConnection, RunQueryDsl};

use crate::{
    app::ports::UsageMark,
    store::sql::{
        statement::statement,
        values::{Digest, Time},
    },
};

/// Sorted, so that two replicas' batches lock rows in one order and cannot deadlock.
const RECORD_SQL: &str = "INSERT INTO token_usage (digest, key_id, last_used_time) \
     SELECT m.digest, m.key_id, max(m.used) FROM unnest($1, $2, $3) AS m (digest, key_id, used) \
     GROUP BY m.digest, m.key_id ORDER BY m.digest \
     ON CONFLICT (digest) DO UPDATE \
     SET last_used_time = GREATEST(token_usage.last_used_time, EXCLUDED.last_used_time)";

/// Writes a batch of marks.
pub async fn record(conn: &mut AsyncPgConnection, batch: &[UsageMark]) -> QueryResult<()> {
    statement(RECORD_SQL)
        .bind::<Array<Bytea>, _>(batch.iter().map(|mark| Digest(mark.digest)).collect::<Vec<_>>())
        .bind::<Array<SqlUuid>, _>(batch.iter().map(|mark| mark.key_id.as_uuid()).collect::<Vec<_>>())
        .bind::<Array<Timestamptz>, _>(batch.iter().map(|mark| Time(mark.last_used_time)).collect::<Vec<_>>())
        .execute(conn)
        .await?;
    Ok(())
}

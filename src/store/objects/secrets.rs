//! Digests of tokens (T2): the current one, the retiring one, the ended ones (K8, T3).

use diesel::{
    QueryResult,
    sql_types::{BigInt, Bytea, Text, Timestamptz, Uuid as SqlUuid},
};
use diesel_async::{AsyncPgConnection, RunQueryDsl};

use crate::{
    app::ports::NewSecret,
    domain::{
        api_key::ApiKey,
        id::KeyId,
        time::{Span, Timestamp},
        token::HashedToken,
    },
    store::sql::{
        rows::CountRow,
        statement::statement,
        values::{Digest, Time, unreadable},
    },
};

/// At most one event per token in this span (K8).
const PRESENTED_SPAN: Span = Span::from_secs(60 * 60);

const RETIRE_SQL: &str = "UPDATE api_key_secrets \
     SET end_time = CASE WHEN end_time IS NULL THEN $3 ELSE LEAST(end_time, $2) END \
     WHERE key_id = $1 AND (end_time IS NULL OR end_time > $2)";

const ROTATE_SQL: &str = "WITH s AS ( \
      INSERT INTO api_key_secrets (digest, key_id, pepper_id, create_time) VALUES ($2, $1, $3, $4)) \
     UPDATE api_keys SET token_hint = $5, rotate_time = $4, update_time = $6 WHERE key_id = $1";

/// The last use of ended tokens is kept with their key, so that reading the last use of all its tokens reads few rows,
/// however often the key was rotated. A row that is being written to is left for the next time: no rotation waits for
/// usage (K9).
const FOLD_USAGE_SQL: &str = "WITH live AS ( \
      SELECT digest FROM api_key_secrets WHERE key_id BETWEEN $1 AND $1 \
       ORDER BY key_id DESC, create_time DESC, end_time DESC NULLS FIRST LIMIT 2), \
     ended AS (DELETE FROM token_usage WHERE digest = ANY(ARRAY( \
      SELECT u.digest FROM token_usage u WHERE u.key_id = $1 AND NOT EXISTS ( \
       SELECT FROM live WHERE live.digest = u.digest) LIMIT $2 FOR UPDATE SKIP LOCKED)) RETURNING last_used_time) \
     UPDATE api_keys SET ended_tokens_used_time = GREATEST(ended_tokens_used_time, (SELECT max(last_used_time) FROM ended)) \
     WHERE key_id = $1 AND EXISTS (SELECT FROM ended)";

/// Tokens whose usage one rotation folds: one is usual.
const FOLDED_MAX: i64 = 1_000;

/// How many tokens of a key are on record, at most `$2`.
const COUNT_SQL: &str = "SELECT count(*) AS count FROM (SELECT FROM api_key_secrets WHERE key_id = $1 LIMIT $2) x";

/// By an index of what is due. Usage of a forgotten token goes with it.
const FORGET_SQL: &str = "WITH ended AS ( \
      SELECT digest FROM api_key_secrets WHERE end_time < $1 ORDER BY end_time LIMIT $2), \
     u AS (DELETE FROM token_usage WHERE digest = ANY(ARRAY(SELECT digest FROM ended))) \
     DELETE FROM api_key_secrets WHERE digest = ANY(ARRAY(SELECT digest FROM ended))";

/// Replaces a key's current token. Two statements: within one, the unique index on the current token
/// could see the new row before the old one ends.
pub async fn rotate(
    conn: &mut AsyncPgConnection,
    after: &ApiKey,
    secret: &NewSecret,
    now: Timestamp,
    retiring_end: Timestamp,
) -> QueryResult<()> {
    statement(RETIRE_SQL)
        .bind::<SqlUuid, _>(after.key_id.as_uuid())
        .bind::<Timestamptz, _>(Time(now))
        .bind::<Timestamptz, _>(Time(retiring_end))
        .execute(conn)
        .await?;
    let updated = statement(ROTATE_SQL)
        .bind::<SqlUuid, _>(after.key_id.as_uuid())
        .bind::<Bytea, _>(Digest(secret.digest))
        .bind::<Text, _>(&secret.pepper_id)
        .bind::<Timestamptz, _>(Time(after.rotate_time))
        .bind::<Text, _>(&after.token_hint)
        .bind::<Timestamptz, _>(Time(after.update_time))
        .execute(conn)
        .await?;
    if updated != 1 {
        return Err(diesel::result::Error::NotFound);
    }
    statement(FOLD_USAGE_SQL)
        .bind::<SqlUuid, _>(after.key_id.as_uuid())
        .bind::<BigInt, _>(FOLDED_MAX)
        .execute(conn)
        .await?;
    Ok(())
}

/// Counts the tokens of a key on record, ended ones included: at most `most`.
pub async fn count(conn: &mut AsyncPgConnection, key: KeyId, most: u32) -> QueryResult<u32> {
    let row: CountRow = statement(COUNT_SQL)
        .bind::<SqlUuid, _>(key.as_uuid())
        .bind::<BigInt, _>(i64::from(most))
        .get_result(conn)
        .await?;
    u32::try_from(row.count).map_err(|_| unreadable("count"))
}

/// Ends a key's retiring tokens no later than a moment.
pub async fn end_retiring(conn: &mut AsyncPgConnection, key: KeyId, end: Timestamp) -> QueryResult<()> {
    statement("UPDATE api_key_secrets SET end_time = $2 WHERE key_id = $1 AND end_time > $2")
        .bind::<SqlUuid, _>(key.as_uuid())
        .bind::<Timestamptz, _>(Time(end))
        .execute(conn)
        .await?;
    Ok(())
}

/// Notes that an ended token was presented; false if that was noted within the last hour.
pub async fn note_presented(conn: &mut AsyncPgConnection, digest: &HashedToken, now: Timestamp) -> QueryResult<bool> {
    let an_hour_ago = Timestamp::from_micros(now.as_micros() - PRESENTED_SPAN.as_micros());
    let noted = statement(
        "UPDATE api_key_secrets SET presented_time = $2 WHERE digest = $1 AND end_time IS NOT NULL \
         AND (presented_time IS NULL OR presented_time <= $3)",
    )
    .bind::<Bytea, _>(Digest(*digest))
    .bind::<Timestamptz, _>(Time(now))
    .bind::<Timestamptz, _>(Time(an_hour_ago))
    .execute(conn)
    .await?;
    Ok(noted > 0)
}

/// Forgets digests of tokens that ended before a moment (T3). An expired key's token is not ended: its expiry may be
/// moved. A deleted key's goes with the key.
pub async fn forget_ended(conn: &mut AsyncPgConnection, before: Timestamp, limit: u32) -> QueryResult<usize> {
    statement(FORGET_SQL).bind::<Timestamptz, _>(Time(before)).bind::<BigInt, _>(i64::from(limit)).execute(conn).await
}

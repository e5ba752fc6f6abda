//! Purges what was marked deleted, however much it is, in transactions of a bounded number of rows.
//!
//! An account's row holds both marks: `purging` with state `deleted`, and `purging_team_ids`. Every reader takes what
//! they cover for gone, so that nothing here takes authority away. What is left is found by an index each time:
//! an interrupted purge resumes where it was, on any replica.

use std::collections::BTreeSet;

use diesel::{
    QueryResult,
    prelude::*,
    sql_types::{Array, BigInt, Text, Timestamptz, Uuid as SqlUuid},
};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use uuid::Uuid;

use super::sql::{
    rows::{CountRow, KeyIdRow, key_ids},
    statement::{Statement, statement},
    values::Time,
};
use crate::{
    app::ports::Purged,
    domain::{
        id::{AccountId, KeyId, RoleId, TeamId, UserId},
        time::Timestamp,
    },
};

/// Counts the rows of each kind that an account has, at most `$2` of each.
const ACCOUNT_SIZE_SQL: &str = "SELECT (\
     SELECT count(*) FROM (SELECT FROM api_keys WHERE account_id = $1 AND state <> 'deleted' LIMIT $2) x) + (\
     SELECT count(*) FROM (SELECT FROM api_key_teams WHERE account_id = $1 LIMIT $2) x) + (\
     SELECT count(*) FROM (SELECT FROM users WHERE account_id = $1 LIMIT $2) x) + (\
     SELECT count(*) FROM (SELECT FROM user_roles WHERE account_id = $1 LIMIT $2) x) + (\
     SELECT count(*) FROM (SELECT FROM roles WHERE account_id = $1 LIMIT $2) x) + (\
     SELECT count(*) FROM (SELECT FROM teams WHERE account_id = $1 LIMIT $2) x) AS count";

/// Counts the keys (deleted ones too) and roles of users that name a team, at most `$2` of each.
const TEAM_SIZE_SQL: &str = "SELECT (\
     SELECT count(*) FROM (SELECT FROM api_key_teams WHERE account_id = $1 AND team_id = $3 LIMIT $2) x) + (\
     SELECT count(*) FROM (SELECT FROM user_roles WHERE account_id = $1 AND team_id = $3 LIMIT $2) x) AS count";

const BEGIN_TEAM_SQL: &str = "UPDATE accounts SET purging_team_ids = purging_team_ids || $2 WHERE account_id = $1";

/// Takes teams from keys; a key losing its last team loses its team scope (K2). A literal condition for each of the
/// two, so that each is found by its index.
const KEY_TEAMS_SQL: &str = "WITH chosen AS (SELECT key_id, team_id FROM api_key_teams \
      WHERE account_id = $1{OF_TEAM} ORDER BY team_id, key_id LIMIT $2), \
     gone AS (DELETE FROM api_key_teams t USING chosen c \
      WHERE t.key_id = c.key_id AND t.team_id = c.team_id RETURNING t.key_id) \
     UPDATE api_keys k SET update_time = $3, team_permissions = CASE WHEN EXISTS ( \
      SELECT FROM api_key_teams t WHERE t.key_id = k.key_id AND NOT EXISTS ( \
       SELECT FROM chosen c WHERE c.key_id = t.key_id AND c.team_id = t.team_id)) \
      THEN k.team_permissions ELSE '{}' END \
     WHERE k.key_id = ANY(ARRAY(SELECT key_id FROM gone)) \
     RETURNING k.key_id, (SELECT count(*) FROM gone) AS rows";

/// Keys of a deleted account were deleted with it. They name no team any more.
const KEYS_SQL: &str = "WITH k AS (UPDATE api_keys k SET state = 'deleted', delete_time = a.delete_time, \
      update_time = a.delete_time FROM accounts a WHERE a.account_id = $1 AND k.key_id IN ( \
       SELECT key_id FROM api_keys WHERE account_id = $1 AND state <> 'deleted' LIMIT $2) RETURNING k.key_id), \
     a AS (UPDATE accounts SET deleted_api_key_count = deleted_api_key_count + (SELECT count(*) FROM k) \
      WHERE account_id = $1) \
     SELECT key_id FROM k";

/// Takes roles from users. The account's row is locked: none of its rows moves meanwhile.
const USER_ROLES_SQL: &str = "DELETE FROM user_roles WHERE ctid = ANY(ARRAY(SELECT ctid FROM user_roles \
     WHERE account_id = $1{OF_TEAM} LIMIT $2)) RETURNING user_id AS id";

const END_TEAM_SQL: &str = "WITH t AS (DELETE FROM teams WHERE account_id = $1 AND team_id = $2) \
     UPDATE accounts SET purging_team_ids = array_remove(purging_team_ids, $2) WHERE account_id = $1";
const END_ACCOUNT_SQL: &str = "UPDATE accounts SET purging = false WHERE account_id = $1";

/// Accounts that have something to be removed, by an index of just those.
const ACCOUNTS_SQL: &str = "SELECT account_id AS id FROM accounts \
     WHERE purging OR purging_team_ids <> '{}' ORDER BY account_id LIMIT $1";

/// The oldest of the deleted keys that are due, by an index of just the deleted ones.
const DUE_SQL: &str = "SELECT account_id, key_id FROM api_keys WHERE delete_time < $1 ORDER BY delete_time LIMIT $2";

/// Of keys that are still due, the first, and more as long as at most `$4` rows belong to them.
const CHOOSE_SQL: &str = "SELECT key_id FROM (SELECT k.key_id, row_number() OVER (ORDER BY k.key_id) AS n, \
      sum((SELECT count(*) FROM (SELECT FROM api_key_secrets s WHERE s.key_id = k.key_id LIMIT $4) x) \
       + (SELECT count(*) FROM (SELECT FROM api_key_teams t WHERE t.key_id = k.key_id LIMIT $4) x)) \
      OVER (ORDER BY k.key_id) AS rows \
      FROM api_keys k WHERE k.key_id = ANY($2) AND k.account_id = $1 AND k.state = 'deleted' AND k.delete_time < $3) x \
     WHERE n = 1 OR rows <= $4";

/// Foreign keys are checked when the statement ends.
const ERASE_SQL: &str = "WITH t AS (DELETE FROM api_key_teams WHERE key_id = ANY($2)), \
     s AS (DELETE FROM api_key_secrets WHERE key_id = ANY($2)), \
     u AS (DELETE FROM token_usage WHERE key_id = ANY($2)), \
     a AS (UPDATE accounts SET deleted_api_key_count = GREATEST(deleted_api_key_count - cardinality($2), 0) \
      WHERE account_id = $1) \
     DELETE FROM api_keys WHERE account_id = $1 AND key_id = ANY($2) RETURNING key_id";

#[derive(QueryableByName)]
struct IdRow {
    #[diesel(sql_type = Text)]
    id: String,
}

#[derive(QueryableByName)]
struct TakenRow {
    #[diesel(sql_type = SqlUuid)]
    key_id: Uuid,
    #[diesel(sql_type = BigInt)]
    rows: i64,
}

#[derive(QueryableByName)]
struct DueRow {
    #[diesel(sql_type = Text)]
    account_id: String,
    #[diesel(sql_type = SqlUuid)]
    key_id: Uuid,
}

/// Counts the rows that the deletion of an account, or of a team of it, would touch: exact up to `most`.
pub async fn size(
    conn: &mut AsyncPgConnection,
    account: &AccountId,
    team: Option<&TeamId>,
    most: u32,
) -> QueryResult<u64> {
    let query = statement(if team.is_some() { TEAM_SIZE_SQL } else { ACCOUNT_SIZE_SQL })
        .bind::<Text, _>(account.as_str())
        .bind::<BigInt, _>(i64::from(most) + 1);
    let row: CountRow = of_team(query, team).get_result(conn).await?;
    Ok(u64::try_from(row.count).unwrap_or(u64::MAX))
}

/// Marks a team deleted: to every reader it is gone.
pub async fn begin_team(conn: &mut AsyncPgConnection, account: &AccountId, team: &TeamId) -> QueryResult<()> {
    statement(BEGIN_TEAM_SQL).bind::<Text, _>(account.as_str()).bind::<Text, _>(team.as_str()).execute(conn).await?;
    Ok(())
}

/// Lists the accounts that have something to be removed, the first `limit` in order of id.
pub async fn accounts(conn: &mut AsyncPgConnection, limit: u32) -> QueryResult<Vec<AccountId>> {
    let rows: Vec<IdRow> = statement(ACCOUNTS_SQL).bind::<BigInt, _>(i64::from(limit)).load(conn).await?;
    Ok(rows.iter().map(|row| AccountId::from_stored(&row.id)).collect())
}

/// Removes at most `limit` rows of what still names a deleted team; in the end the team.
pub async fn team(
    conn: &mut AsyncPgConnection,
    account: &AccountId,
    team: &TeamId,
    now: Timestamp,
    limit: u32,
) -> QueryResult<Purged> {
    let mut left = i64::from(limit);
    let taken_from = key_teams(conn, account, Some(team), now, &mut left).await?;
    let mut purged = Purged { key_ids: taken_from, ..Purged::default() };
    if left > 0 {
        purged.user_ids = roles_of_users(conn, account, Some(team), &mut left).await?;
    }
    if left > 0 {
        statement(END_TEAM_SQL).bind::<Text, _>(account.as_str()).bind::<Text, _>(team.as_str()).execute(conn).await?;
        purged.done = true;
    }
    Ok(purged)
}

/// Removes at most `limit` rows of what a deleted account still has.
pub async fn account(
    conn: &mut AsyncPgConnection,
    account: &AccountId,
    now: Timestamp,
    limit: u32,
) -> QueryResult<Purged> {
    let mut left = i64::from(limit);
    // In this order: each is free of what points at it.
    let taken_from = key_teams(conn, account, None, now, &mut left).await?;
    let mut purged = Purged { key_ids: taken_from, ..Purged::default() };
    if left > 0 {
        let rows: Vec<KeyIdRow> =
            statement(KEYS_SQL).bind::<Text, _>(account.as_str()).bind::<BigInt, _>(left).load(conn).await?;
        left -= count(rows.len());
        purged.key_ids.extend(key_ids(rows));
        purged.key_ids.sort_unstable();
        purged.key_ids.dedup();
    }
    if left > 0 {
        purged.user_ids = roles_of_users(conn, account, None, &mut left).await?;
    }
    if left > 0 {
        let users = objects(conn, "users", "user_id", account, &mut left).await?;
        purged.user_ids.extend(users.iter().map(|id| UserId::from_stored(id)));
        purged.user_ids.sort_unstable();
        purged.user_ids.dedup();
    }
    if left > 0 {
        let teams = objects(conn, "teams", "team_id", account, &mut left).await?;
        purged.team_ids = teams.iter().map(|id| TeamId::from_stored(id)).collect();
    }
    if left > 0 {
        let roles = objects(conn, "roles", "role_id", account, &mut left).await?;
        purged.role_ids = roles.iter().map(|id| RoleId::from_stored(id)).collect();
    }
    if left > 0 {
        statement(END_ACCOUNT_SQL).bind::<Text, _>(account.as_str()).execute(conn).await?;
        purged.done = true;
    }
    Ok(purged)
}

async fn key_teams(
    conn: &mut AsyncPgConnection,
    account: &AccountId,
    team: Option<&TeamId>,
    now: Timestamp,
    left: &mut i64,
) -> QueryResult<Vec<KeyId>> {
    let query = statement(key_teams_sql(team.is_some()))
        .bind::<Text, _>(account.as_str())
        .bind::<BigInt, _>(*left)
        .bind::<Timestamptz, _>(Time(now));
    let rows: Vec<TakenRow> = of_team(query, team).load(conn).await?;
    // A key may have had several teams.
    *left -= rows.iter().map(|row| row.rows).max().unwrap_or_default();
    let mut keys: Vec<_> = rows.iter().map(|row| KeyId::from_uuid(row.key_id)).collect();
    keys.sort_unstable();
    Ok(keys)
}

async fn roles_of_users(
    conn: &mut AsyncPgConnection,
    account: &AccountId,
    team: Option<&TeamId>,
    left: &mut i64,
) -> QueryResult<Vec<UserId>> {
    let query = statement(user_roles_sql(team.is_some())).bind::<Text, _>(account.as_str()).bind::<BigInt, _>(*left);
    let rows: Vec<IdRow> = of_team(query, team).load(conn).await?;
    *left -= count(rows.len());
    let users: BTreeSet<_> = rows.iter().map(|row| UserId::from_stored(&row.id)).collect();
    Ok(users.into_iter().collect())
}

/// Returns the statement that takes a team (`$4`), or any team of the account, from keys.
fn key_teams_sql(of_team: bool) -> String {
    KEY_TEAMS_SQL.replace("{OF_TEAM}", if of_team { " AND team_id = $4" } else { "" })
}

/// Returns the statement that takes roles on a team (`$3`), or all roles of the account, from users.
fn user_roles_sql(of_team: bool) -> String {
    USER_ROLES_SQL.replace("{OF_TEAM}", if of_team { " AND team_id = $3" } else { "" })
}

fn of_team<'v>(query: Statement<'v>, team: Option<&'v TeamId>) -> Statement<'v> {
    match team {
        Some(team) => query.bind::<Text, _>(team.as_str()),
        None => query,
    }
}

/// Deletes objects of an account that nothing points at any more.
async fn objects(
    conn: &mut AsyncPgConnection,
    table: &'static str,
    id_column: &'static str,
    account: &AccountId,
    left: &mut i64,
) -> QueryResult<Vec<String>> {
    let rows: Vec<IdRow> = statement(objects_sql(table, id_column))
        .bind::<Text, _>(account.as_str())
        .bind::<BigInt, _>(*left)
        .load(conn)
        .await?;
    *left -= count(rows.len());
    let mut ids: Vec<_> = rows.into_iter().map(|row| row.id).collect();
    ids.sort_unstable();
    Ok(ids)
}

/// Returns the statement that deletes objects of an account.
fn objects_sql(table: &str, id_column: &str) -> String {
    format!(
        "DELETE FROM {table} WHERE account_id = $1 AND {id_column} = ANY(ARRAY( \
         SELECT {id_column} FROM {table} WHERE account_id = $1 ORDER BY {id_column} LIMIT $2)) \
         RETURNING {id_column} AS id"
    )
}

/// Lists deleted keys that are due for erasure, the oldest first, each with its account.
pub async fn due(conn: &mut AsyncPgConnection, before: Timestamp, limit: u32) -> QueryResult<Vec<(AccountId, KeyId)>> {
    let rows: Vec<DueRow> =
        statement(DUE_SQL).bind::<Timestamptz, _>(Time(before)).bind::<BigInt, _>(i64::from(limit)).load(conn).await?;
    Ok(rows.into_iter().map(|row| (AccountId::from_stored(&row.account_id), KeyId::from_uuid(row.key_id))).collect())
}

/// Erases those of some keys that are still due, with everything that belongs to them: at least one if there is one,
/// and no more than have `rows_max` rows in all.
pub async fn erase(
    conn: &mut AsyncPgConnection,
    account: &AccountId,
    keys: &[KeyId],
    before: Timestamp,
    rows_max: u32,
) -> QueryResult<Vec<KeyId>> {
    let chosen: Vec<KeyIdRow> = statement(CHOOSE_SQL)
        .bind::<Text, _>(account.as_str())
        .bind::<Array<SqlUuid>, _>(keys.iter().map(|key| key.as_uuid()).collect::<Vec<_>>())
        .bind::<Timestamptz, _>(Time(before))
        .bind::<BigInt, _>(i64::from(rows_max))
        .load(conn)
        .await?;
    if chosen.is_empty() {
        return Ok(Vec::new());
    }
    let chosen: Vec<Uuid> = key_ids(chosen).into_iter().map(KeyId::as_uuid).collect();
    let erased: Vec<KeyIdRow> =
        statement(ERASE_SQL).bind::<Text, _>(account.as_str()).bind::<Array<SqlUuid>, _>(chosen).load(conn).await?;
    Ok(key_ids(erased))
}

fn count(rows: usize) -> i64 {
    i64::try_from(rows).unwrap_or(i64::MAX)
}

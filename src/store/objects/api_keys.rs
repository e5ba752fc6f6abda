//! Reads keys whole and writes them by difference. Their tokens are in `secrets`, their last use in `usage`.

use diesel::{
    QueryResult,
    prelude::*,
    sql_types::{Array, BigInt, Bytea, Integer, Jsonb, Nullable, Text, Timestamptz, Uuid as SqlUuid},
};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use uuid::Uuid;

use crate::{
    app::ports::NewSecret,
    domain::{
        api_key::{ApiKey, ApiKeyContent, ApiKeyState},
        id::{AccountId, KeyId, TeamId, UserId},
        log::event::Principal,
        permissions::grants::{Grants, TeamScope},
        time::Timestamp,
    },
    store::sql::{
        rows::{CountRow, KeyIdRow, key_ids},
        statement::statement,
        values::{Digest, Metadata, Time, items, revision, unreadable},
    },
};

/// A page of keys, then for each of its few rows the rows that belong to it, by look-ups. The columns are named
/// one by one: a `*` would change under a prepared statement when a later release adds one.
///
/// A key's newest two tokens are the current one and the one that retires; should the clock have stood still, the
/// current one comes first. They are found by key whatever the planner thinks of ended ones: no row of a young store
/// has ended, and until the next ANALYZE it would walk all that have since, for each key of the page. And by a range,
/// in the order of all the index's columns: asked for by equality, all tokens of the key would be read and sorted. Uses
/// are looked up once, by key: there are few of one, since a rotation folds those of ended tokens.
const SELECT_SQL: &str = "SELECT k.key_id, k.account_id, k.name, k.comment, k.metadata, k.account_permissions, \
     k.team_permissions, k.expire_time, k.state, k.token_hint, k.creator_key_id, k.creator_account_id, \
     k.creator_user_id, k.create_time, k.update_time, k.delete_time, k.rotate_time, k.revision_epoch, \
     k.revision_number, \
     ARRAY(SELECT t.team_id FROM api_key_teams t WHERE t.key_id = k.key_id ORDER BY t.team_id) AS team_ids, \
     tokens.retiring_end_time, tokens.retiring_used_time, tokens.current_used_time, \
     GREATEST(k.ended_tokens_used_time, tokens.used_time) AS last_used_time, \
     (SELECT a.purging_team_ids FROM accounts a WHERE a.account_id = {ACCOUNT}) AS purging_team_ids, \
     (SELECT a.delete_time FROM accounts a WHERE a.account_id = {ACCOUNT}) AS account_delete_time \
     FROM ({KEYS}) k LEFT JOIN LATERAL ( \
      SELECT max(t.end_time) AS retiring_end_time, \
      max(u.last_used_time) FILTER (WHERE u.digest = t.digest AND t.end_time IS NOT NULL) AS retiring_used_time, \
      max(u.last_used_time) FILTER (WHERE u.digest = t.digest AND t.end_time IS NULL) AS current_used_time, \
      max(u.last_used_time) AS used_time \
      FROM (SELECT s.digest, s.end_time FROM api_key_secrets s WHERE s.key_id BETWEEN k.key_id AND k.key_id \
       ORDER BY s.key_id DESC, s.create_time DESC, s.end_time DESC NULLS FIRST LIMIT 2) t \
      LEFT JOIN token_usage u ON u.key_id = k.key_id) tokens ON true \
     ORDER BY k.account_id DESC, k.key_id DESC";

/// One statement: foreign keys are checked at its end, K2 at the transaction's.
const INSERT_SQL: &str = "WITH k AS (INSERT INTO api_keys (key_id, account_id, name, comment, metadata, \
      account_permissions, team_permissions, expire_time, state, token_hint, creator_key_id, creator_account_id, \
      creator_user_id, create_time, update_time, rotate_time, revision_epoch, revision_number) \
      VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18)), \
     t AS (INSERT INTO api_key_teams (account_id, key_id, team_id) SELECT $2, $1, unnest($19)), \
     s AS (INSERT INTO api_key_secrets (digest, key_id, pepper_id, create_time) VALUES ($20, $1, $21, $16)) \
     UPDATE accounts SET api_key_count = api_key_count + 1 WHERE account_id = $2";

/// `$3` is the state judged: should it differ, no row matches and the mutation fails as a bug, so a
/// key that becomes DELETED is uncounted exactly once. Of teams, only those stay that the key has afterwards: one that
/// is being purged was none of them.
const UPDATE_SQL: &str = "WITH k AS (UPDATE api_keys SET name = $4, comment = $5, metadata = $6, \
      account_permissions = $7, team_permissions = $8, expire_time = $9, state = $10, update_time = $11, \
      delete_time = $12 WHERE key_id = $1 AND account_id = $2 AND state = $3 RETURNING key_id), \
     gone AS (DELETE FROM api_key_teams t USING k WHERE t.key_id = k.key_id AND t.team_id <> ALL($13)), \
     new AS (INSERT INTO api_key_teams (account_id, key_id, team_id) SELECT $2, k.key_id, unnest($14) FROM k), \
     a AS (UPDATE accounts SET api_key_count = api_key_count - $15, \
      deleted_api_key_count = deleted_api_key_count + $15 \
      WHERE account_id = $2 AND $15 > 0 AND EXISTS (SELECT FROM k)) \
     SELECT key_id FROM k";

/// Keys deleted with their account keep what they were granted account-wide on record, but name no team.
const DELETE_ALL_SQL: &str = "WITH t AS (DELETE FROM api_key_teams WHERE account_id = $1 RETURNING key_id), \
     old AS (UPDATE api_keys SET team_permissions = '{}' \
      WHERE key_id = ANY(ARRAY(SELECT key_id FROM t)) AND state = 'deleted') \
     UPDATE api_keys SET state = 'deleted', team_permissions = '{}', delete_time = $2, update_time = $2 \
     WHERE account_id = $1 AND state <> 'deleted' RETURNING key_id";

/// Looks at no more keys than are asked for, and those deleted ones of the team that are still on record.
const COUNT_ON_TEAM_SQL: &str = "SELECT count(*) AS count FROM ( \
     SELECT FROM api_key_teams t JOIN api_keys k USING (account_id, key_id) \
     WHERE t.account_id = $1 AND t.team_id = $2 AND k.state <> 'deleted' LIMIT $3) x";

#[derive(QueryableByName)]
pub(crate) struct KeyRow {
    #[diesel(sql_type = SqlUuid)]
    key_id: Uuid,
    #[diesel(sql_type = Text)]
    account_id: String,
    #[diesel(sql_type = Text)]
    name: String,
    #[diesel(sql_type = Text)]
    comment: String,
    #[diesel(sql_type = Jsonb)]
    metadata: Metadata,
    #[diesel(sql_type = Array<Text>)]
    account_permissions: Vec<String>,
    #[diesel(sql_type = Array<Text>)]
    team_permissions: Vec<String>,
    #[diesel(sql_type = Nullable<Timestamptz>)]
    expire_time: Option<Time>,
    #[diesel(sql_type = Text)]
    state: String,
    #[diesel(sql_type = Text)]
    token_hint: String,
    #[diesel(sql_type = Nullable<SqlUuid>)]
    creator_key_id: Option<Uuid>,
    #[diesel(sql_type = Nullable<Text>)]
    creator_account_id: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    creator_user_id: Option<String>,
    #[diesel(sql_type = Timestamptz)]
    create_time: Time,
    #[diesel(sql_type = Timestamptz)]
    update_time: Time,
    #[diesel(sql_type = Nullable<Timestamptz>)]
    delete_time: Option<Time>,
    #[diesel(sql_type = Timestamptz)]
    rotate_time: Time,
    #[diesel(sql_type = BigInt)]
    revision_epoch: i64,
    #[diesel(sql_type = BigInt)]
    revision_number: i64,
    #[diesel(sql_type = Array<Text>)]
    team_ids: Vec<String>,
    #[diesel(sql_type = Nullable<Timestamptz>)]
    retiring_end_time: Option<Time>,
    #[diesel(sql_type = Nullable<Timestamptz>)]
    retiring_used_time: Option<Time>,
    #[diesel(sql_type = Nullable<Timestamptz>)]
    current_used_time: Option<Time>,
    #[diesel(sql_type = Nullable<Timestamptz>)]
    last_used_time: Option<Time>,
    #[diesel(sql_type = Array<Text>)]
    purging_team_ids: Vec<String>,
    #[diesel(sql_type = Nullable<Timestamptz>)]
    account_delete_time: Option<Time>,
}

/// Reads a key, deleted ones included, with its last use.
pub async fn get(conn: &mut AsyncPgConnection, account: &AccountId, key: KeyId) -> QueryResult<Option<ApiKey>> {
    let row: Option<KeyRow> = statement(get_sql())
        .bind::<SqlUuid, _>(key.as_uuid())
        .bind::<Text, _>(account.as_str())
        .get_result(conn)
        .await
        .optional()?;
    row.map(KeyRow::into_key).transpose()
}

/// Returns the statement of [`get`].
#[must_use]
pub fn get_sql() -> String {
    select_sql("SELECT * FROM api_keys k WHERE k.key_id = $1 AND k.account_id = $2", "$2")
}

/// Returns the statement that reads keys with the rows that belong to them, newest first; `account` is the placeholder
/// of their account.
pub(super) fn select_sql(keys: &str, account: &str) -> String {
    SELECT_SQL.replace("{KEYS}", keys).replace("{ACCOUNT}", account)
}

/// Counts the keys, deleted ones excluded, whose team scope names a team: at most `most`.
pub async fn count_on_team(
    conn: &mut AsyncPgConnection,
    account: &AccountId,
    team: &TeamId,
    most: u32,
) -> QueryResult<u32> {
    let row: CountRow = statement(COUNT_ON_TEAM_SQL)
        .bind::<Text, _>(account.as_str())
        .bind::<Text, _>(team.as_str())
        .bind::<BigInt, _>(i64::from(most))
        .get_result(conn)
        .await?;
    u32::try_from(row.count).map_err(|_| unreadable("count"))
}

/// Stores a new key with its teams and first token, and counts it.
pub async fn insert(conn: &mut AsyncPgConnection, key: &ApiKey, secret: &NewSecret) -> QueryResult<()> {
    let (team_ids, team_permissions) = scope_columns(&key.content.grants);
    let creator = key.creator.as_ref();
    let counted = statement(INSERT_SQL)
        .bind::<SqlUuid, _>(key.key_id.as_uuid())
        .bind::<Text, _>(key.account_id.as_str())
        .bind::<Text, _>(&key.content.name)
        .bind::<Text, _>(&key.content.comment)
        .bind::<Jsonb, _>(Metadata(key.content.metadata.clone()))
        .bind::<Array<Text>, _>(items(&key.content.grants.account_permissions))
        .bind::<Array<Text>, _>(team_permissions)
        .bind::<Nullable<Timestamptz>, _>(key.content.expire_time.map(Time))
        .bind::<Text, _>(key.state.as_str())
        .bind::<Text, _>(&key.token_hint)
        .bind::<Nullable<SqlUuid>, _>(creator.map(|creator| creator.key_id.as_uuid()))
        .bind::<Nullable<Text>, _>(creator.map(|creator| creator.account_id.as_str()))
        .bind::<Nullable<Text>, _>(creator.and_then(|creator| creator.user_id.as_ref()).map(UserId::as_str))
        .bind::<Timestamptz, _>(Time(key.create_time))
        .bind::<Timestamptz, _>(Time(key.update_time))
        .bind::<Timestamptz, _>(Time(key.rotate_time))
        .bind::<BigInt, _>(key.revision.epoch)
        .bind::<BigInt, _>(key.revision.number)
        .bind::<Array<Text>, _>(team_ids)
        .bind::<Bytea, _>(Digest(secret.digest))
        .bind::<Text, _>(&secret.pepper_id)
        .execute(conn)
        .await?;
    // The key's own foreign key would have refused an account that does not exist.
    debug_assert_eq!(counted, 1);
    Ok(())
}

/// Replaces a key's content, state and times; team rows are written only as a difference.
pub async fn update(conn: &mut AsyncPgConnection, before: &ApiKey, after: &ApiKey) -> QueryResult<()> {
    let teams = |key: &ApiKey| key.content.grants.team_scope.as_ref().map(TeamScope::team_ids).cloned();
    let (old, new) = (teams(before).unwrap_or_default(), teams(after).unwrap_or_default());
    let added: Vec<String> = new.difference(&old).map(ToString::to_string).collect();
    let uncounted = i32::from(before.state != ApiKeyState::Deleted && after.state == ApiKeyState::Deleted);
    let (_, team_permissions) = scope_columns(&after.content.grants);
    let rows: Vec<KeyIdRow> = statement(UPDATE_SQL)
        .bind::<SqlUuid, _>(after.key_id.as_uuid())
        .bind::<Text, _>(after.account_id.as_str())
        .bind::<Text, _>(before.state.as_str())
        .bind::<Text, _>(&after.content.name)
        .bind::<Text, _>(&after.content.comment)
        .bind::<Jsonb, _>(Metadata(after.content.metadata.clone()))
        .bind::<Array<Text>, _>(items(&after.content.grants.account_permissions))
        .bind::<Array<Text>, _>(team_permissions)
        .bind::<Nullable<Timestamptz>, _>(after.content.expire_time.map(Time))
        .bind::<Text, _>(after.state.as_str())
        .bind::<Timestamptz, _>(Time(after.update_time))
        .bind::<Nullable<Timestamptz>, _>(after.delete_time.map(Time))
        .bind::<Array<Text>, _>(items(&new))
        .bind::<Array<Text>, _>(added)
        .bind::<Integer, _>(uncounted)
        .load(conn)
        .await?;
    if rows.is_empty() { Err(diesel::result::Error::NotFound) } else { Ok(()) }
}

/// Marks an account's keys deleted and takes their team scopes; returns those that were not deleted before.
pub async fn delete_all(conn: &mut AsyncPgConnection, account: &AccountId, now: Timestamp) -> QueryResult<Vec<KeyId>> {
    let rows: Vec<KeyIdRow> = statement(DELETE_ALL_SQL)
        .bind::<Text, _>(account.as_str())
        .bind::<Timestamptz, _>(Time(now))
        .load(conn)
        .await?;
    Ok(key_ids(rows))
}

fn scope_columns(grants: &Grants) -> (Vec<String>, Vec<String>) {
    grants.team_scope.as_ref().map(|scope| (items(scope.team_ids()), items(scope.permissions()))).unwrap_or_default()
}

impl KeyRow {
    pub(super) fn into_key(self) -> QueryResult<ApiKey> {
        // What is being purged is gone already: a team, or the account with all that its keys had on teams.
        let is_kept = |id: &&String| self.account_delete_time.is_none() && !self.purging_team_ids.contains(id);
        let team_ids = self.team_ids.iter().filter(is_kept).map(|id| TeamId::from_stored(id)).collect();
        let state = ApiKeyState::from_stored(&self.state).ok_or_else(|| unreadable("api_keys.state"))?;
        let deleted_with_account = self.account_delete_time.filter(|_| state != ApiKeyState::Deleted);
        let creator = match (self.creator_key_id, self.creator_account_id) {
            (Some(key), Some(account)) => Some(Principal {
                key_id: KeyId::from_uuid(key),
                account_id: AccountId::from_stored(&account),
                user_id: self.creator_user_id.as_deref().map(UserId::from_stored),
            }),
            _ => None,
        };
        let grants = Grants {
            account_permissions: self.account_permissions.into_iter().collect(),
            team_scope: TeamScope::from_stored(team_ids, self.team_permissions.into_iter().collect()),
        };
        Ok(ApiKey {
            key_id: KeyId::from_uuid(self.key_id),
            account_id: AccountId::from_stored(&self.account_id),
            content: ApiKeyContent {
                name: self.name,
                comment: self.comment,
                metadata: self.metadata.0,
                grants,
                expire_time: Time::get(self.expire_time),
            },
            state: if deleted_with_account.is_some() { ApiKeyState::Deleted } else { state },
            token_hint: self.token_hint,
            creator,
            create_time: self.create_time.0,
            update_time: deleted_with_account.unwrap_or(self.update_time).0,
            delete_time: Time::get(deleted_with_account.or(self.delete_time)),
            rotate_time: self.rotate_time.0,
            retiring_end_time: Time::get(self.retiring_end_time),
            current_token_last_used_time: Time::get(self.current_used_time),
            retiring_token_last_used_time: Time::get(self.retiring_used_time),
            last_used_time: Time::get(self.last_used_time),
            revision: revision(self.revision_epoch, self.revision_number),
        })
    }
}

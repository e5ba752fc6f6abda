//! Teams, and what deleting one takes away (A5).

use std::collections::BTreeSet;

use diesel::{
    QueryResult,
    prelude::*,
    sql_types::{Array, BigInt, Text},
    upsert::excluded,
};
use diesel_async::{AsyncPgConnection, RunQueryDsl};

use crate::{
    app::ports::{Page, TeamRemoval},
    domain::{
        directory::Team,
        id::{AccountId, TeamId, UserId},
        time::Timestamp,
    },
    store::sql::{
        rows::{KeyIdRow, key_ids},
        schema::teams,
        statement::statement,
        values::{Time, items, revision},
    },
};

/// Takes the team from all keys; a key losing its last team loses its team scope. A statement sees the
/// state before it, hence `NOT EXISTS … other than the team`.
const TAKE_FROM_KEYS_SQL: &str = "WITH gone AS (
        DELETE FROM api_key_teams WHERE account_id = $1 AND team_id = $2 RETURNING key_id
    )
    UPDATE api_keys k SET update_time = $3, team_permissions = CASE WHEN EXISTS (
            SELECT FROM api_key_teams t WHERE t.key_id = k.key_id AND t.team_id <> $2
        ) THEN k.team_permissions ELSE '{}' END
    FROM gone WHERE k.key_id = gone.key_id RETURNING k.key_id AS key_id";

#[derive(QueryableByName, Insertable)]
#[diesel(table_name = teams)]
struct TeamRow {
    account_id: String,
    team_id: String,
    display_name: String,
    revision_epoch: i64,
    revision_number: i64,
}

#[derive(QueryableByName)]
struct UserIdRow {
    #[diesel(sql_type = Text)]
    user_id: String,
}

#[derive(QueryableByName)]
struct TeamIdRow {
    #[diesel(sql_type = Text)]
    team_id: String,
}

/// Reads a team.
pub async fn get(conn: &mut AsyncPgConnection, account: &AccountId, team: &TeamId) -> QueryResult<Option<Team>> {
    let row: Option<TeamRow> = statement(select_sql("= $2"))
        .bind::<Text, _>(account.as_str())
        .bind::<Text, _>(team.as_str())
        .get_result(conn)
        .await
        .optional()?;
    Ok(row.map(TeamRow::into_team))
}

/// Lists teams in order of id.
pub async fn list(conn: &mut AsyncPgConnection, account: &AccountId, page: &Page<TeamId>) -> QueryResult<Vec<Team>> {
    // No id is empty.
    let after = page.after.as_ref().map_or("", TeamId::as_str);
    let rows: Vec<TeamRow> = statement(select_sql("> $2 ORDER BY t.team_id LIMIT $3"))
        .bind::<Text, _>(account.as_str())
        .bind::<Text, _>(after)
        .bind::<BigInt, _>(i64::from(page.limit))
        .load(conn)
        .await?;
    Ok(rows.into_iter().map(TeamRow::into_team).collect())
}

/// Returns the statement that reads teams. A team that is being purged does not exist for readers.
fn select_sql(which: &'static str) -> String {
    format!(
        "SELECT t.account_id, t.team_id, t.display_name, t.revision_epoch, t.revision_number FROM teams t \
         WHERE t.account_id = $1 AND t.team_id <> ALL(( \
          SELECT a.purging_team_ids FROM accounts a WHERE a.account_id = $1)::text[]) AND t.team_id {which}"
    )
}

/// Returns those of some teams that the account does not have.
pub async fn missing(
    mut conn: &AsyncPgConnection,
    account: &AccountId,
    team_ids: &BTreeSet<TeamId>,
) -> QueryResult<BTreeSet<TeamId>> {
    if team_ids.is_empty() {
        return Ok(BTreeSet::new());
    }
    let rows: Vec<TeamIdRow> = statement(
        // Not by NOT EXISTS: the planner would rather read all teams of the account than look up each of these.
        "SELECT n AS team_id FROM unnest($2) n \
         WHERE (SELECT t.team_id FROM teams t WHERE t.account_id = $1 AND t.team_id = n) IS NULL \
         OR n = ANY((SELECT a.purging_team_ids FROM accounts a WHERE a.account_id = $1)::text[])",
    )
    .bind::<Text, _>(account.as_str())
    .bind::<Array<Text>, _>(items(team_ids))
    .load(&mut conn)
    .await?;
    Ok(rows.iter().map(|row| TeamId::from_stored(&row.team_id)).collect())
}

/// Creates or replaces teams.
pub async fn put(conn: &mut AsyncPgConnection, account: &AccountId, teams: &[Team]) -> QueryResult<()> {
    let rows: Vec<_> = teams.iter().map(|team| TeamRow::new(account, team)).collect();
    if rows.is_empty() {
        return Ok(());
    }
    diesel::insert_into(teams::table)
        .values(rows)
        .on_conflict((teams::account_id, teams::team_id))
        .do_update()
        .set(teams::display_name.eq(excluded(teams::display_name)))
        .execute(conn)
        .await?;
    Ok(())
}

/// Removes a team from all keys and users, then the team.
pub async fn delete(
    conn: &mut AsyncPgConnection,
    account: &AccountId,
    team: &TeamId,
    now: Timestamp,
) -> QueryResult<TeamRemoval> {
    let keys: Vec<KeyIdRow> = statement(TAKE_FROM_KEYS_SQL)
        .bind::<Text, _>(account.as_str())
        .bind::<Text, _>(team.as_str())
        .bind::<diesel::sql_types::Timestamptz, _>(Time(now))
        .load(conn)
        .await?;
    let users: Vec<UserIdRow> =
        statement("DELETE FROM user_roles WHERE account_id = $1 AND team_id = $2 RETURNING user_id")
            .bind::<Text, _>(account.as_str())
            .bind::<Text, _>(team.as_str())
            .load(conn)
            .await?;
    diesel::delete(teams::table.find((account.as_str(), team.as_str()))).execute(conn).await?;
    let user_ids: BTreeSet<_> = users.iter().map(|row| UserId::from_stored(&row.user_id)).collect();
    Ok(TeamRemoval { key_ids: key_ids(keys), user_ids: user_ids.into_iter().collect() })
}

impl TeamRow {
    fn new(account: &AccountId, team: &Team) -> Self {
        Self {
            account_id: account.to_string(),
            team_id: team.team_id.to_string(),
            display_name: team.display_name.clone(),
            revision_epoch: team.revision.epoch,
            revision_number: team.revision.number,
        }
    }

    fn into_team(self) -> Team {
        Team {
            team_id: TeamId::from_stored(&self.team_id),
            display_name: self.display_name,
            revision: revision(self.revision_epoch, self.revision_number),
        }
    }
}

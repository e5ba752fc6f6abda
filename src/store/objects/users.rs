//! Users and their roles (A2).

use std::collections::{BTreeMap, BTreeSet};

use diesel::{
    QueryResult,
    prelude::*,
    sql_types::{Array, BigInt, Bool, Nullable, Text},
};
use diesel_async::{AsyncPgConnection, RunQueryDsl};

use super::roles;
use crate::{
    app::ports::{Page, UserPrincipal},
    domain::{
        directory::{AccountState, RoleKind, User, UserState},
        id::{AccountId, RoleId, TeamId, UserId},
    },
    store::sql::{
        schema::{accounts, users},
        statement::statement,
        values::{revision, unreadable},
    },
};

/// The permissions of a user's base role and of all its others.
const PRINCIPAL_ROLES_SQL: &str = "SELECT r.permissions, r.all_permissions, NULL AS team_id \
     FROM users u JOIN roles r ON r.account_id = u.account_id AND r.role_id = u.base_role_id \
     WHERE u.account_id = $1 AND u.user_id = $2 \
     UNION ALL SELECT r.permissions, r.all_permissions, x.team_id \
     FROM user_roles x JOIN roles r ON r.account_id = x.account_id AND r.role_id = x.role_id \
     WHERE x.account_id = $1 AND x.user_id = $2 AND (x.team_id IS NULL OR x.team_id <> ALL(( \
      SELECT a.purging_team_ids FROM accounts a WHERE a.account_id = $1)::text[]))";

/// The roles of users other than their base roles. On a team that is being purged they have no roles.
const ROLES_SQL: &str = "SELECT x.user_id, x.role_id, x.role_kind, x.team_id FROM user_roles x \
     WHERE x.account_id = $1 AND x.user_id = ANY($2) AND (x.team_id IS NULL OR x.team_id <> ALL(( \
      SELECT a.purging_team_ids FROM accounts a WHERE a.account_id = $1)::text[]))";

const PUT_SQL: &str = "INSERT INTO users \
     (account_id, user_id, display_name, state, base_role_id, revision_epoch, revision_number) \
     SELECT $1, u.user_id, u.display_name, u.state, u.base_role_id, u.epoch, u.number \
     FROM unnest($2, $3, $4, $5, $6, $7) AS u (user_id, display_name, state, base_role_id, epoch, number) \
     ON CONFLICT (account_id, user_id) DO UPDATE SET display_name = EXCLUDED.display_name, \
     state = EXCLUDED.state, base_role_id = EXCLUDED.base_role_id";

/// Only what differs is deleted: rows that stay are not touched. Not by NOT EXISTS: the planner takes the lists that it
/// does not see for ten rows each, and could compare each row with each. No team's id is empty.
const DELETE_ROLES_SQL: &str = "DELETE FROM user_roles x WHERE x.account_id = $1 AND x.user_id = ANY($2) \
     AND (x.user_id, x.role_id, COALESCE(x.team_id, '')) NOT IN ( \
      SELECT n.user_id, n.role_id, COALESCE(n.team_id, '') FROM unnest($3, $4, $5) AS n (user_id, role_id, team_id))";

const INSERT_ROLES_SQL: &str = "INSERT INTO user_roles (account_id, user_id, role_id, role_kind, team_id) \
     SELECT $1, n.user_id, n.role_id, CASE WHEN n.team_id IS NULL THEN 'custom' ELSE 'team' END, n.team_id \
     FROM unnest($2, $3, $4) AS n (user_id, role_id, team_id) ON CONFLICT DO NOTHING";

#[derive(Queryable, Selectable)]
#[diesel(table_name = users)]
struct UserRow {
    user_id: String,
    display_name: String,
    state: String,
    base_role_id: String,
    revision_epoch: i64,
    revision_number: i64,
}

#[derive(QueryableByName)]
struct UserRoleRow {
    #[diesel(sql_type = Text)]
    user_id: String,
    #[diesel(sql_type = Text)]
    role_id: String,
    #[diesel(sql_type = Text)]
    role_kind: String,
    #[diesel(sql_type = Nullable<Text>)]
    team_id: Option<String>,
}

#[derive(QueryableByName)]
struct PrincipalRoleRow {
    #[diesel(sql_type = Array<Text>)]
    permissions: Vec<String>,
    #[diesel(sql_type = Bool)]
    all_permissions: bool,
    #[diesel(sql_type = Nullable<Text>)]
    team_id: Option<String>,
}

/// Reads a user as the judge sees it; `None` if unknown, or if its account is deleted.
pub async fn principal(
    conn: &mut AsyncPgConnection,
    account: &AccountId,
    user: &UserId,
) -> QueryResult<Option<UserPrincipal>> {
    let states: Option<(String, String)> = users::table
        .inner_join(accounts::table)
        .filter(users::account_id.eq(account.as_str()))
        .filter(users::user_id.eq(user.as_str()))
        .filter(accounts::state.ne(AccountState::Deleted.as_str()))
        .select((users::state, accounts::state))
        .first(conn)
        .await
        .optional()?;
    let Some((state, account_state)) = states else { return Ok(None) };
    let rows: Vec<PrincipalRoleRow> = statement(PRINCIPAL_ROLES_SQL)
        .bind::<Text, _>(account.as_str())
        .bind::<Text, _>(user.as_str())
        .load(conn)
        .await?;
    let role = |row: PrincipalRoleRow| {
        let team = row.team_id.as_deref().map(TeamId::from_stored);
        (roles::permissions(row.all_permissions, row.permissions), team)
    };
    Ok(Some(UserPrincipal {
        state: UserState::from_stored(&state).ok_or_else(|| unreadable("users.state"))?,
        account_state: AccountState::from_stored(&account_state).ok_or_else(|| unreadable("accounts.state"))?,
        roles: rows.into_iter().map(role).collect(),
    }))
}

/// Reads a user.
pub async fn get(conn: &mut AsyncPgConnection, account: &AccountId, user: &UserId) -> QueryResult<Option<User>> {
    let row: Option<UserRow> = users::table
        .find((account.as_str(), user.as_str()))
        .select(UserRow::as_select())
        .first(conn)
        .await
        .optional()?;
    let users = with_roles(conn, account, row.into_iter().collect()).await?;
    Ok(users.into_iter().next())
}

/// Lists users in order of id.
pub async fn list(conn: &mut AsyncPgConnection, account: &AccountId, page: &Page<UserId>) -> QueryResult<Vec<User>> {
    let mut query = users::table
        .filter(users::account_id.eq(account.as_str()))
        .select(UserRow::as_select())
        .order(users::user_id)
        .limit(i64::from(page.limit))
        .into_boxed();
    if let Some(after) = &page.after {
        query = query.filter(users::user_id.gt(after.as_str()));
    }
    let rows = query.load(conn).await?;
    with_roles(conn, account, rows).await
}

/// Adds their roles to users, by one query for all of them.
async fn with_roles(conn: &mut AsyncPgConnection, account: &AccountId, rows: Vec<UserRow>) -> QueryResult<Vec<User>> {
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    let ids: Vec<&str> = rows.iter().map(|row| row.user_id.as_str()).collect();
    let held: Vec<UserRoleRow> =
        statement(ROLES_SQL).bind::<Text, _>(account.as_str()).bind::<Array<Text>, _>(ids).load(conn).await?;
    let mut users: BTreeMap<String, User> = BTreeMap::new();
    for row in rows {
        let user = row.into_user()?;
        users.insert(user.user_id.to_string(), user);
    }
    for row in held {
        let Some(user) = users.get_mut(&row.user_id) else { continue };
        let role = RoleId::from_stored(&row.role_id);
        match row.team_id {
            Some(team) => _ = user.team_roles.insert((TeamId::from_stored(&team), role)),
            None if row.role_kind == RoleKind::Custom.as_str() => _ = user.custom_role_ids.insert(role),
            None => return Err(unreadable("user_roles.role_kind")),
        }
    }
    Ok(users.into_values().collect())
}

/// Creates or replaces users with all their roles.
pub async fn put(conn: &mut AsyncPgConnection, account: &AccountId, users: &[User]) -> QueryResult<()> {
    if users.is_empty() {
        return Ok(());
    }
    let ids: Vec<&str> = users.iter().map(|user| user.user_id.as_str()).collect();
    statement(PUT_SQL)
        .bind::<Text, _>(account.as_str())
        .bind::<Array<Text>, _>(&ids)
        .bind::<Array<Text>, _>(users.iter().map(|user| user.display_name.as_str()).collect::<Vec<_>>())
        .bind::<Array<Text>, _>(users.iter().map(|user| user.state.as_str()).collect::<Vec<_>>())
        .bind::<Array<Text>, _>(users.iter().map(|user| user.base_role_id.as_str()).collect::<Vec<_>>())
        .bind::<Array<BigInt>, _>(users.iter().map(|user| user.revision.epoch).collect::<Vec<_>>())
        .bind::<Array<BigInt>, _>(users.iter().map(|user| user.revision.number).collect::<Vec<_>>())
        .execute(conn)
        .await?;

    let (mut of_user, mut role_ids, mut team_ids) = (Vec::new(), Vec::new(), Vec::new());
    for user in users {
        let custom = user.custom_role_ids.iter().map(|role| (role.as_str(), None));
        let team = user.team_roles.iter().map(|(team, role)| (role.as_str(), Some(team.as_str())));
        for (role, team) in custom.chain(team) {
            of_user.push(user.user_id.as_str());
            role_ids.push(role);
            team_ids.push(team);
        }
    }
    statement(DELETE_ROLES_SQL)
        .bind::<Text, _>(account.as_str())
        .bind::<Array<Text>, _>(&ids)
        .bind::<Array<Text>, _>(&of_user)
        .bind::<Array<Text>, _>(&role_ids)
        .bind::<Array<Nullable<Text>>, _>(&team_ids)
        .execute(conn)
        .await?;
    statement(INSERT_ROLES_SQL)
        .bind::<Text, _>(account.as_str())
        .bind::<Array<Text>, _>(&of_user)
        .bind::<Array<Text>, _>(&role_ids)
        .bind::<Array<Nullable<Text>>, _>(&team_ids)
        .execute(conn)
        .await?;
    Ok(())
}

/// Removes a user; its roles go by cascade.
pub async fn delete(conn: &mut AsyncPgConnection, account: &AccountId, user: &UserId) -> QueryResult<()> {
    diesel::delete(users::table.find((account.as_str(), user.as_str()))).execute(conn).await?;
    Ok(())
}

impl UserRow {
    fn into_user(self) -> QueryResult<User> {
        Ok(User {
            user_id: UserId::from_stored(&self.user_id),
            display_name: self.display_name,
            state: UserState::from_stored(&self.state).ok_or_else(|| unreadable("users.state"))?,
            base_role_id: RoleId::from_stored(&self.base_role_id),
            custom_role_ids: BTreeSet::new(),
            team_roles: BTreeSet::new(),
            revision: revision(self.revision_epoch, self.revision_number),
        })
    }
}

//! Stamps objects with the revision of their event, from which their etags come: one statement for each
//! kind of object, whatever their number.

use std::collections::BTreeMap;

use diesel::{
    QueryResult,
    sql_types::{Array, BigInt, Text, Uuid as SqlUuid},
};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use uuid::Uuid;

use crate::{app::ports::Stamp, store::sql::statement::statement};

/// The stamp of one key.
pub const STAMP_KEY_SQL: &str =
    "UPDATE api_keys SET revision_epoch = $1, revision_number = $2 WHERE key_id = $3 AND account_id = $4";

const STAMP_KEYS_SQL: &str = "UPDATE api_keys t SET revision_epoch = $1, revision_number = s.number \
     FROM unnest($2, $3, $4) AS s (account_id, id, number) WHERE t.key_id = s.id AND t.account_id = s.account_id";

/// Objects by account and id, each with the number of its last event: of several, the last counts.
type EventNumbers<Id> = BTreeMap<(String, Id), i64>;

/// Collects what appended events stamp.
#[derive(Default)]
pub struct Stamps {
    api_keys: EventNumbers<Uuid>,
    accounts: EventNumbers<()>,
    teams: EventNumbers<String>,
    roles: EventNumbers<String>,
    all_roles: EventNumbers<()>,
    users: EventNumbers<String>,
    catalogue: Option<i64>,
}

impl Stamps {
    /// Adds the objects that an event stamps; events come in order.
    pub fn add(&mut self, stamp: Stamp, number: i64) {
        match stamp {
            Stamp::ApiKeys(account, keys) => {
                let account = account.to_string();
                self.api_keys.extend(keys.into_iter().map(|key| ((account.clone(), key.as_uuid()), number)));
            }
            Stamp::Account(account) => _ = self.accounts.insert((account.to_string(), ()), number),
            Stamp::Team(account, team) => _ = self.teams.insert((account.to_string(), team.to_string()), number),
            Stamp::Role(account, role) => _ = self.roles.insert((account.to_string(), role.to_string()), number),
            Stamp::Roles(account) => _ = self.all_roles.insert((account.to_string(), ()), number),
            Stamp::User(account, user) => _ = self.users.insert((account.to_string(), user.to_string()), number),
            Stamp::Users(account, users) => {
                let account = account.to_string();
                self.users.extend(users.into_iter().map(|user| ((account.clone(), user.to_string()), number)));
            }
            Stamp::Catalogue => self.catalogue = Some(number),
        }
    }

    /// Writes the stamps. Most mutations stamp one kind of object, hence cost one statement here.
    pub async fn write(self, mut conn: &AsyncPgConnection, epoch: i64) -> QueryResult<()> {
        // Before the single roles: an event that stamps one of a new account's roles comes later.
        account_rows(conn, "roles", self.all_roles, epoch).await?;
        account_rows(conn, "accounts", self.accounts, epoch).await?;
        object_rows(conn, "teams", "team_id", self.teams, epoch).await?;
        object_rows(conn, "roles", "role_id", self.roles, epoch).await?;
        object_rows(conn, "users", "user_id", self.users, epoch).await?;
        key_rows(conn, self.api_keys, epoch).await?;
        if let Some(number) = self.catalogue {
            statement("UPDATE catalogue_head SET revision_epoch = $1, revision_number = $2")
                .bind::<BigInt, _>(epoch)
                .bind::<BigInt, _>(number)
                .execute(&mut conn)
                .await?;
        }
        Ok(())
    }
}

async fn account_rows(
    mut conn: &AsyncPgConnection,
    table: &'static str,
    rows: EventNumbers<()>,
    epoch: i64,
) -> QueryResult<()> {
    if rows.is_empty() {
        return Ok(());
    }
    let (accounts, numbers): (Vec<String>, Vec<i64>) = rows.into_iter().map(|((a, ()), n)| (a, n)).unzip();
    statement(format!(
        "UPDATE {table} t SET revision_epoch = $1, revision_number = s.number \
         FROM unnest($2, $3) AS s (account_id, number) WHERE t.account_id = s.account_id"
    ))
    .bind::<BigInt, _>(epoch)
    .bind::<Array<Text>, _>(accounts)
    .bind::<Array<BigInt>, _>(numbers)
    .execute(&mut conn)
    .await?;
    Ok(())
}

async fn object_rows(
    mut conn: &AsyncPgConnection,
    table: &'static str,
    id_column: &'static str,
    rows: EventNumbers<String>,
    epoch: i64,
) -> QueryResult<()> {
    if rows.is_empty() {
        return Ok(());
    }
    let ((accounts, ids), numbers): ((Vec<_>, Vec<_>), Vec<i64>) = rows.into_iter().unzip();
    statement(format!(
        "UPDATE {table} t SET revision_epoch = $1, revision_number = s.number \
         FROM unnest($2, $3, $4) AS s (account_id, id, number) \
         WHERE t.account_id = s.account_id AND t.{id_column} = s.id"
    ))
    .bind::<BigInt, _>(epoch)
    .bind::<Array<Text>, _>(accounts)
    .bind::<Array<Text>, _>(ids)
    .bind::<Array<BigInt>, _>(numbers)
    .execute(&mut conn)
    .await?;
    Ok(())
}

async fn key_rows(mut conn: &AsyncPgConnection, rows: EventNumbers<Uuid>, epoch: i64) -> QueryResult<()> {
    if rows.is_empty() {
        return Ok(());
    }
    let ((accounts, ids), numbers): ((Vec<_>, Vec<_>), Vec<i64>) = rows.into_iter().unzip();
    if let ([account], [id], [number]) = (&accounts[..], &ids[..], &numbers[..]) {
        // Most mutations are of one key. The planner takes arrays that it does not see for ten rows, and would plan
        // every run anew for the one that it is.
        statement(STAMP_KEY_SQL)
            .bind::<BigInt, _>(epoch)
            .bind::<BigInt, _>(number)
            .bind::<SqlUuid, _>(id)
            .bind::<Text, _>(account)
            .execute(&mut conn)
            .await?;
        return Ok(());
    }
    statement(STAMP_KEYS_SQL)
        .bind::<BigInt, _>(epoch)
        .bind::<Array<Text>, _>(accounts)
        .bind::<Array<SqlUuid>, _>(ids)
        .bind::<Array<BigInt>, _>(numbers)
        .execute(&mut conn)
        .await?;
    Ok(())
}

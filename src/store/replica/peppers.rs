//! Registers and chooses peppers: the database knows their ids and check values, never their secrets (T2).

use std::collections::BTreeMap;

use diesel::{
    QueryResult,
    prelude::*,
    sql_types::{Array, Bool, Text},
};
use diesel_async::{AsyncPgConnection, RunQueryDsl};

use crate::{
    app::error::StoreError,
    domain::token::Pepper,
    store::sql::{schema::peppers, statement::statement, values::refuse_standby},
};

/// Waits for transactions that mint under a pepper that is not configured. It does not lock the row that every mutation
/// shares: new sharers pass a waiter. On these rows no new sharer comes in once the replica that asks is registered.
const LOCK_OTHERS_SQL: &str = "SELECT FROM peppers WHERE pepper_id <> ALL($1) ORDER BY pepper_id FOR UPDATE";

/// Peppers not configured go out of use if no token is live under them. Of each pepper's tokens only the
/// one that ends last, or never, is read: one step into an index.
const CLEAR_SQL: &str = "UPDATE peppers p SET in_use = false WHERE p.in_use AND p.pepper_id <> ALL($1) \
     AND NOT EXISTS (SELECT FROM (SELECT s.end_time FROM api_key_secrets s WHERE s.pepper_id = p.pepper_id \
      ORDER BY s.end_time DESC NULLS FIRST LIMIT 1) last WHERE last.end_time IS NULL OR last.end_time > clock_timestamp())";

/// Whether there are any others; asked of the primary.
const KNOWS_OTHERS_SQL: &str = "SELECT EXISTS (SELECT FROM peppers WHERE pepper_id <> ALL($1)) AS others, \
     current_setting('in_hot_standby') = 'on' AS standby";

/// Ids of peppers in use and not configured.
const MISSING_SQL: &str = "SELECT pepper_id FROM peppers WHERE in_use AND pepper_id <> ALL($1) ORDER BY pepper_id";

/// The first of the configured ids that every replica announces, locked against [`LOCK_OTHERS_SQL`].
const CHOOSE_SQL: &str = "SELECT p.pepper_id FROM peppers p JOIN (SELECT c.pepper_id \
     FROM unnest($1) WITH ORDINALITY AS c (pepper_id, place) \
     WHERE NOT EXISTS (SELECT FROM replicas r WHERE c.pepper_id <> ALL(r.pepper_ids)) \
     ORDER BY c.place LIMIT 1) chosen ON chosen.pepper_id = p.pepper_id FOR KEY SHARE OF p";

/// Puts the locked pepper in use if every replica still announces it: a statement of its own, which sees the replicas
/// that registered while it waited for the lock.
const USE_SQL: &str = "WITH used AS (UPDATE peppers SET in_use = true WHERE pepper_id = $1 AND NOT in_use) \
     SELECT $1 AS pepper_id WHERE NOT EXISTS (SELECT FROM replicas r WHERE $1 <> ALL(r.pepper_ids))";

/// How often a replica may register between the two.
const CHOICES_MAX: usize = 3;

/// A pepper could not be registered.
#[derive(Debug, thiserror::Error)]
pub enum PepperError {
    /// Another secret was registered under this id: no token minted under it would verify.
    #[error("pepper `{0}` is another secret than the one that this database knows under that id")]
    Differs(String),
    /// The database could not be asked.
    #[error(transparent)]
    Store(#[from] StoreError),
}

#[derive(QueryableByName)]
struct OthersRow {
    #[diesel(sql_type = Bool)]
    others: bool,
    #[diesel(sql_type = Bool)]
    standby: bool,
}

#[derive(QueryableByName)]
struct PepperIdRow {
    #[diesel(sql_type = Text)]
    pepper_id: String,
}

/// Inserts the check values of new ids; returns the check values on record, by id.
pub async fn register(conn: &mut AsyncPgConnection, configured: &[Pepper]) -> QueryResult<BTreeMap<String, Vec<u8>>> {
    let check_values: Vec<_> = configured.iter().map(Pepper::check_value).collect();
    let rows: Vec<_> = configured
        .iter()
        .zip(&check_values)
        .map(|(pepper, check)| {
            let unused = peppers::in_use.eq(false);
            (peppers::pepper_id.eq(pepper.id()), peppers::check_value.eq(&check[..]), unused)
        })
        .collect();
    if !rows.is_empty() {
        diesel::insert_into(peppers::table).values(rows).on_conflict_do_nothing().execute(conn).await?;
    }
    let known = peppers::table.select((peppers::pepper_id, peppers::check_value));
    let stored: Vec<(String, Vec<u8>)> = known.load(conn).await?;
    Ok(stored.into_iter().collect())
}

/// Refuses a pepper that is another secret than the one on record under its id.
///
/// # Errors
/// [`PepperError::Differs`].
pub fn check(configured: &[Pepper], stored: &BTreeMap<String, Vec<u8>>) -> Result<(), PepperError> {
    let same = |pepper: &&Pepper| stored.get(pepper.id()).is_some_and(|check| *check == pepper.check_value());
    match configured.iter().find(|pepper| !same(pepper)) {
        None => Ok(()),
        Some(pepper) => Err(PepperError::Differs(pepper.id().to_owned())),
    }
}

/// Reports whether the database knows a pepper that is not configured, in use or not.
pub async fn knows_others(conn: &mut AsyncPgConnection, configured: &[String]) -> QueryResult<bool> {
    let row: OthersRow =
        statement(KNOWS_OTHERS_SQL).bind::<Array<Text>, _>(configured.to_vec()).get_result(conn).await?;
    refuse_standby(row.standby)?;
    Ok(row.others)
}

/// Lists the ids of peppers that live tokens need and that are not configured. Runs in a transaction: until it ends
/// no transaction mints under them, so later mints see every replica that registered before.
pub async fn missing(conn: &mut AsyncPgConnection, configured: &[String]) -> QueryResult<Vec<String>> {
    for sql in [LOCK_OTHERS_SQL, CLEAR_SQL] {
        statement(sql).bind::<Array<Text>, _>(configured.to_vec()).execute(conn).await?;
    }
    let rows: Vec<PepperIdRow> = statement(MISSING_SQL).bind::<Array<Text>, _>(configured.to_vec()).load(conn).await?;
    Ok(rows.into_iter().map(|row| row.pepper_id).collect())
}

/// Chooses the pepper to mint under: the first of the configured ones that every registered replica verifies with, so
/// that none takes the token for an unknown one.
pub async fn choose(conn: &mut AsyncPgConnection, configured: &[String]) -> QueryResult<Option<String>> {
    for _ in 0..CHOICES_MAX {
        let chosen: Option<PepperIdRow> =
            statement(CHOOSE_SQL).bind::<Array<Text>, _>(configured.to_vec()).get_result(conn).await.optional()?;
        let Some(PepperIdRow { pepper_id }) = chosen else { return Ok(None) };
        let used: Option<PepperIdRow> =
            statement(USE_SQL).bind::<Text, _>(pepper_id).get_result(conn).await.optional()?;
        if let Some(used) = used {
            return Ok(Some(used.pepper_id));
        }
    }
    Ok(None)
}

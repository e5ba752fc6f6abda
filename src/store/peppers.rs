//! Peppers: the database knows their ids and check values, never their secrets (T2).

use std::collections::BTreeMap;

use diesel::{
    QueryResult,
    prelude::*,
    sql_types::{Array, Text},
};
use diesel_async::{AsyncPgConnection, RunQueryDsl};

use super::{schema::peppers, statement::statement};
use crate::{app::error::StoreError, domain::token::Pepper};

/// Waits for whoever mints, and lets nobody begin: minting holds the shared lock (see `transaction`).
const LOCK_MINTING_SQL: &str = "SELECT FROM catalogue_head FOR UPDATE";

/// Peppers not configured go out of use if no token is live under them. It may walk the secrets.
const CLEAR_SQL: &str = "UPDATE peppers p SET in_use = false WHERE p.in_use AND p.pepper_id <> ALL($1) AND NOT EXISTS ( \
     SELECT FROM api_key_secrets s WHERE s.pepper_id = p.pepper_id \
     AND (s.end_time IS NULL OR s.end_time > clock_timestamp()))";

/// Ids of peppers in use and not configured.
const MISSING_SQL: &str = "SELECT pepper_id FROM peppers WHERE in_use AND pepper_id <> ALL($1) ORDER BY pepper_id";

/// The first of the configured ids that every replica announces, put in use.
const CHOOSE_SQL: &str = "WITH chosen AS (SELECT c.pepper_id FROM unnest($1) WITH ORDINALITY AS c (pepper_id, place) \
     WHERE NOT EXISTS (SELECT FROM replicas r WHERE c.pepper_id <> ALL(r.pepper_ids)) ORDER BY c.place LIMIT 1), \
     used AS (UPDATE peppers p SET in_use = true FROM chosen c WHERE p.pepper_id = c.pepper_id AND NOT p.in_use) \
     SELECT pepper_id FROM chosen";

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
struct IdRow {
    #[diesel(sql_type = Text)]
    pepper_id: String,
}

/// Inserts the check values of new ids; the check values on record, by id.
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

/// True if the database knows a pepper that is not configured, in use or not.
pub async fn knows_others(conn: &mut AsyncPgConnection, configured: &[String]) -> QueryResult<bool> {
    let others = peppers::table.filter(peppers::pepper_id.ne_all(configured));
    diesel::select(diesel::dsl::exists(others)).get_result(conn).await
}

/// Ids of peppers that live tokens need and that are not configured. In a transaction: until it ends nobody
/// mints, so who registered before is seen by whoever mints after.
pub async fn missing(conn: &mut AsyncPgConnection, configured: &[String]) -> QueryResult<Vec<String>> {
    statement(LOCK_MINTING_SQL).execute(conn).await?;
    statement(CLEAR_SQL).bind::<Array<Text>, _>(configured.to_vec()).execute(conn).await?;
    let rows: Vec<IdRow> = statement(MISSING_SQL).bind::<Array<Text>, _>(configured.to_vec()).load(conn).await?;
    Ok(rows.into_iter().map(|row| row.pepper_id).collect())
}

/// The pepper to mint under: the first of the configured ones that every registered replica verifies with, so
/// that none takes the token for an unknown one.
pub async fn choose(conn: &mut AsyncPgConnection, configured: &[String]) -> QueryResult<Option<String>> {
    let row: Option<IdRow> =
        statement(CHOOSE_SQL).bind::<Array<Text>, _>(configured.to_vec()).get_result(conn).await.optional()?;
    Ok(row.map(|row| row.pepper_id))
}

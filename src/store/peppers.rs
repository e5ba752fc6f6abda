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

/// Ids of peppers not configured under which tokens are live. Read at start: it may walk the secrets.
const MISSING_SQL: &str = "SELECT p.pepper_id FROM peppers p WHERE p.pepper_id <> ALL($1) AND EXISTS ( \
     SELECT FROM api_key_secrets s WHERE s.pepper_id = p.pepper_id \
     AND (s.end_time IS NULL OR s.end_time > clock_timestamp())) ORDER BY p.pepper_id";

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
        .map(|(pepper, check)| (peppers::pepper_id.eq(pepper.id()), peppers::check_value.eq(&check[..])))
        .collect();
    if !rows.is_empty() {
        diesel::insert_into(peppers::table).values(rows).on_conflict_do_nothing().execute(conn).await?;
    }
    let stored: Vec<(String, Vec<u8>)> = peppers::table.load(conn).await?;
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

/// Ids of peppers that live tokens need and that are not configured.
pub async fn missing(conn: &mut AsyncPgConnection, configured: &[Pepper]) -> QueryResult<Vec<String>> {
    let ids: Vec<_> = configured.iter().map(|pepper| pepper.id().to_owned()).collect();
    let rows: Vec<IdRow> = statement(MISSING_SQL).bind::<Array<Text>, _>(ids).load(conn).await?;
    Ok(rows.into_iter().map(|row| row.pepper_id).collect())
}

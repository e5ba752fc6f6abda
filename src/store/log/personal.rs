//! Keeps personal text of events apart from what is hashed: found by number, erased by target.

use diesel::{
    QueryResult,
    prelude::*,
    sql_types::{Array, BigInt, Nullable, Text, Uuid as SqlUuid},
};
use diesel_async::{AsyncPgConnection, RunQueryDsl};

use crate::{
    app::ports::{Erased, PersonalDataOf},
    domain::log::{
        event::Event,
        personal::{Detail, Salt},
    },
    entropy::{Entropy, OsEntropy},
    store::sql::statement::statement,
};

const INSERT_SQL: &str = "INSERT INTO event_details (number, account_id, target_type, target_id, details) \
     SELECT * FROM unnest($1, $2, $3, $4, $5)";
const READ_SQL: &str = "SELECT number, details FROM event_details WHERE number = ANY($1)";

/// The details of the events of an account, within a limit.
const ERASE_ALL_SQL: &str = "DELETE FROM event_details WHERE number = ANY(ARRAY( \
     SELECT number FROM event_details WHERE account_id = $1 LIMIT $2))";
/// The details of the events about one object, within a limit.
const ERASE_SQL: &str = "DELETE FROM event_details WHERE number = ANY(ARRAY( \
     SELECT number FROM event_details WHERE account_id = $1 AND target_type = $3 AND target_id = $4 LIMIT $2))";
/// Deleted keys of an account that have text left, within a limit.
const ERASE_KEYS_SQL: &str = "UPDATE api_keys SET name = 'erased', comment = '', metadata = '{}' \
     WHERE key_id = ANY(ARRAY(SELECT key_id FROM api_keys WHERE account_id = $1 AND state = 'deleted' \
     AND (name <> 'erased' OR comment <> '' OR metadata <> '{}') LIMIT $2))";
/// One key, if it is deleted.
const ERASE_KEY_SQL: &str = "UPDATE api_keys SET name = 'erased', comment = '', metadata = '{}' \
     WHERE account_id = $1 AND key_id = $2 AND state = 'deleted' \
     AND (name <> 'erased' OR comment <> '' OR metadata <> '{}')";
const ERASE_ACCOUNT_SQL: &str =
    "UPDATE accounts SET display_name = '' WHERE account_id = $1 AND state = 'deleted' AND display_name <> ''";

#[derive(QueryableByName)]
struct DetailsRow {
    #[diesel(sql_type = BigInt)]
    number: i64,
    #[diesel(sql_type = Text)]
    details: String,
}

/// Collects the details of events that are appended together, column by column.
#[derive(Default)]
pub struct Details {
    numbers: Vec<i64>,
    account_ids: Vec<Option<String>>,
    target_types: Vec<String>,
    target_ids: Vec<String>,
    details: Vec<String>,
}

// === impl Details ===

impl Details {
    /// Seals an event and collects its text.
    pub fn seal(&mut self, event: &mut Event) {
        let details = event.seal(salt);
        if !details.is_empty() {
            let text = serde_json::to_string(&details).expect("strings and numbers cannot fail to serialise");
            self.numbers.push(event.revision.number);
            self.account_ids.push(event.account_id.as_ref().map(ToString::to_string));
            self.target_types.push(event.target.kind.clone());
            self.target_ids.push(event.target.id.clone());
            self.details.push(text);
        }
    }

    /// Writes the rows, if there are any.
    pub async fn write(self, mut conn: &AsyncPgConnection) -> QueryResult<()> {
        if self.numbers.is_empty() {
            return Ok(());
        }
        statement(INSERT_SQL)
            .bind::<Array<BigInt>, _>(self.numbers)
            .bind::<Array<Nullable<Text>>, _>(self.account_ids)
            .bind::<Array<Text>, _>(self.target_types)
            .bind::<Array<Text>, _>(self.target_ids)
            .bind::<Array<Text>, _>(self.details)
            .execute(&mut conn)
            .await?;
        Ok(())
    }
}

/// Reads the details of events by number; erased ones are missing. `None` stands for details that this build cannot
/// read.
pub async fn read(conn: &mut AsyncPgConnection, numbers: Vec<i64>) -> QueryResult<Vec<(i64, Option<Vec<Detail>>)>> {
    let rows: Vec<DetailsRow> = statement(READ_SQL).bind::<Array<BigInt>, _>(numbers).load(conn).await?;
    Ok(rows.into_iter().map(|row| (row.number, serde_json::from_str(&row.details).ok())).collect())
}

/// Erases at most `limit` events' details, and the text of as many deleted keys.
pub async fn erase(conn: &mut AsyncPgConnection, of: &PersonalDataOf, limit: u32) -> QueryResult<Erased> {
    let (account, limit) = (of.account_id.as_str(), i64::from(limit));
    let (sql, target) = match &of.target {
        None => (ERASE_ALL_SQL, None),
        Some(target) => (ERASE_SQL, Some(target)),
    };
    let mut query = statement(sql).bind::<Text, _>(account).bind::<BigInt, _>(limit);
    if let Some(target) = target {
        query = query.bind::<Text, _>(target.kind.as_str()).bind::<Text, _>(target.id.as_str());
    }
    let events = query.execute(conn).await?;
    let rows = match (target, of.key_id) {
        (None, _) => {
            let keys =
                statement(ERASE_KEYS_SQL).bind::<Text, _>(account).bind::<BigInt, _>(limit).execute(conn).await?;
            keys + statement(ERASE_ACCOUNT_SQL).bind::<Text, _>(account).execute(conn).await?
        }
        (Some(_), Some(key)) => {
            let query = statement(ERASE_KEY_SQL).bind::<Text, _>(account);
            query.bind::<SqlUuid, _>(key.as_uuid()).execute(conn).await?
        }
        (Some(_), None) => 0,
    };
    let count = |rows: usize| u32::try_from(rows).unwrap_or(u32::MAX);
    Ok(Erased { events: count(events), rows: count(rows) })
}

fn salt() -> Salt {
    let mut salt = [0; 32];
    OsEntropy.fill(&mut salt);
    salt
}

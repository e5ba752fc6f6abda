//! Rows that several statements return.

use diesel::{
    prelude::*,
    sql_types::{BigInt, Bool, Text, Uuid as SqlUuid},
};
use uuid::Uuid;

use crate::domain::id::KeyId;

/// A yes or a no.
#[derive(QueryableByName)]
pub struct YesRow {
    #[diesel(sql_type = Bool)]
    pub yes: bool,
}

/// A number of rows.
#[derive(QueryableByName)]
pub struct CountRow {
    #[diesel(sql_type = BigInt)]
    pub count: i64,
}

/// A name.
#[derive(QueryableByName)]
pub struct NameRow {
    #[diesel(sql_type = Text)]
    pub name: String,
}

/// The id of a key.
#[derive(QueryableByName)]
pub struct KeyIdRow {
    #[diesel(sql_type = SqlUuid)]
    key_id: Uuid,
}

// === impl KeyIdRow ===

impl KeyIdRow {
    /// Returns the id.
    pub fn into_id(self) -> KeyId {
        KeyId::from_uuid(self.key_id)
    }
}

/// Returns the ids of keys in order.
pub fn key_ids(rows: Vec<KeyIdRow>) -> Vec<KeyId> {
    let mut ids: Vec<_> = rows.into_iter().map(KeyIdRow::into_id).collect();
    ids.sort_unstable();
    ids
}

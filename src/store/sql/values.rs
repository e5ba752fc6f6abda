//! Converts domain values to and from SQL. The one place where a digest becomes a column: a plain token has no
//! such impl, so it cannot reach the database by accident (T2).

use std::collections::{BTreeMap, BTreeSet};

use diesel::{
    deserialize::{self, FromSql, FromSqlRow},
    expression::AsExpression,
    pg::{Pg, PgValue, data_types::PgTimestamp},
    result::{DatabaseErrorKind, Error as DieselError},
    serialize::{self, IsNull, Output, ToSql},
    sql_types::{Bytea, Jsonb, Timestamptz},
};

use crate::domain::{
    log::{event::Hash, revision::Revision},
    time::Timestamp,
    token::HashedToken,
};

/// 2000-01-01, PostgreSQL's epoch, in microseconds of the Unix epoch.
const POSTGRES_EPOCH_MICROS: i64 = 946_684_800_000_000;

/// A moment as a `timestamptz`; both count microseconds, so nothing is lost.
#[derive(Clone, Copy, Debug, AsExpression, FromSqlRow)]
#[diesel(sql_type = Timestamptz)]
pub struct Time(pub Timestamp);

/// A digest as a `bytea`.
#[derive(Clone, Copy, Debug, AsExpression, FromSqlRow)]
#[diesel(sql_type = Bytea)]
pub struct Digest(pub HashedToken);

/// A link of the chain as a `bytea`.
#[derive(Clone, Copy, Debug, AsExpression, FromSqlRow)]
#[diesel(sql_type = Bytea)]
pub struct Link(pub Hash);

/// String pairs as a `jsonb`.
#[derive(Clone, Debug, AsExpression, FromSqlRow)]
#[diesel(sql_type = Jsonb)]
pub struct Metadata(pub BTreeMap<String, String>);

/// A stored value that this build cannot read: a bug, or written by a later release.
#[derive(Debug, thiserror::Error)]
#[error("column {column} holds a value that this build does not know")]
struct Unreadable {
    column: &'static str,
}

/// Returns the error for a stored value that this build cannot read.
pub fn unreadable(column: &'static str) -> DieselError {
    DieselError::DeserializationError(Box::new(Unreadable { column }))
}

/// Fails if a standby answered: its state may be from before a revocation.
pub fn refuse_standby(standby: bool) -> Result<(), DieselError> {
    if standby {
        let message = "a standby answered where only the primary may".to_owned();
        return Err(DieselError::DatabaseError(DatabaseErrorKind::ReadOnlyTransaction, Box::new(message)));
    }
    Ok(())
}

/// Builds a revision from two columns.
pub fn revision(epoch: i64, number: i64) -> Revision {
    Revision { epoch, number }
}

/// Returns a set of names as an array's items.
pub fn items<T: ToString>(set: &BTreeSet<T>) -> Vec<String> {
    set.iter().map(ToString::to_string).collect()
}

// === impl Time ===

impl Time {
    /// Returns the moment of a nullable column.
    pub fn get(time: Option<Self>) -> Option<Timestamp> {
        time.map(|time| time.0)
    }
}

impl ToSql<Timestamptz, Pg> for Time {
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Pg>) -> serialize::Result {
        let micros = PgTimestamp(self.0.as_micros() - POSTGRES_EPOCH_MICROS);
        ToSql::<Timestamptz, Pg>::to_sql(&micros, &mut out.reborrow())
    }
}

impl FromSql<Timestamptz, Pg> for Time {
    fn from_sql(bytes: PgValue<'_>) -> deserialize::Result<Self> {
        let PgTimestamp(micros) = FromSql::<Timestamptz, Pg>::from_sql(bytes)?;
        let unix = micros.checked_add(POSTGRES_EPOCH_MICROS).ok_or("a moment out of range")?;
        Ok(Self(Timestamp::from_micros(unix)))
    }
}

// === impl Digest, Link ===

fn bytes_32(value: PgValue<'_>) -> deserialize::Result<[u8; 32]> {
    value.as_bytes().try_into().map_err(|_| "not 32 bytes".into())
}

fn write(bytes: &[u8; 32], out: &mut Output<'_, '_, Pg>) -> serialize::Result {
    std::io::Write::write_all(out, bytes)?;
    Ok(IsNull::No)
}

impl ToSql<Bytea, Pg> for Digest {
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Pg>) -> serialize::Result {
        write(self.0.as_bytes(), out)
    }
}

impl FromSql<Bytea, Pg> for Digest {
    fn from_sql(value: PgValue<'_>) -> deserialize::Result<Self> {
        Ok(Self(HashedToken::from_bytes(bytes_32(value)?)))
    }
}

impl ToSql<Bytea, Pg> for Link {
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Pg>) -> serialize::Result {
        write(&self.0, out)
    }
}

impl FromSql<Bytea, Pg> for Link {
    fn from_sql(value: PgValue<'_>) -> deserialize::Result<Self> {
        Ok(Self(bytes_32(value)?))
    }
}

// === impl Metadata ===

/// The version byte before the text of every binary `jsonb`.
const JSONB_VERSION: u8 = 1;

impl ToSql<Jsonb, Pg> for Metadata {
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Pg>) -> serialize::Result {
        std::io::Write::write_all(out, &[JSONB_VERSION])?;
        serde_json::to_writer(out, &self.0)?;
        Ok(IsNull::No)
    }
}

impl FromSql<Jsonb, Pg> for Metadata {
    fn from_sql(value: PgValue<'_>) -> deserialize::Result<Self> {
        match value.as_bytes() {
            [JSONB_VERSION, text @ ..] => Ok(Self(serde_json::from_slice(text)?)),
            _ => Err("an unknown version of jsonb".into()),
        }
    }
}

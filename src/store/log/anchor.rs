//! The anchor: where the archived beginning of the log ends, and the events that are still here begin.

use diesel::{
    QueryResult,
    prelude::*,
    sql_types::{BigInt, Bytea},
};
use diesel_async::{AsyncPgConnection, RunQueryDsl};

use crate::{
    domain::log::archive::Anchor,
    store::sql::{statement::statement, values::Link},
};

const ANCHOR_SQL: &str = "SELECT epoch, number, hash FROM log_anchor LIMIT 1";

#[derive(QueryableByName)]
pub(super) struct AnchorRow {
    #[diesel(sql_type = BigInt)]
    epoch: i64,
    #[diesel(sql_type = BigInt)]
    number: i64,
    #[diesel(sql_type = Bytea)]
    hash: Link,
}

/// Reads what the log was archived up to.
pub async fn read(conn: &mut AsyncPgConnection) -> QueryResult<Anchor> {
    let row: AnchorRow = statement(ANCHOR_SQL).get_result(conn).await?;
    Ok(row.into_anchor())
}

impl AnchorRow {
    pub(super) fn into_anchor(self) -> Anchor {
        Anchor { epoch: self.epoch, number: self.number, hash: self.hash.0 }
    }
}

//! The database as its owner sees it: for what a test must see or set behind the server's back.

use diesel::{QueryableByName, sql_query, sql_types::Text};
use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection};

use super::database::Database;

#[derive(QueryableByName)]
struct Line {
    #[diesel(sql_type = Text)]
    line: String,
}

/// Runs statements.
pub async fn run(database: &Database, sql: &str) {
    connect(database).await.batch_execute(sql).await.expect("the statements run");
}

/// Reads lines: the query selects one text, named `line`.
pub async fn lines(database: &Database, sql: &str) -> Vec<String> {
    let lines: Vec<Line> = sql_query(sql).load(&mut connect(database).await).await.expect("the query runs");
    lines.into_iter().map(|line| line.line).collect()
}

/// Every row of every table, as text; bytes are hexadecimal.
pub async fn dump(database: &Database) -> Vec<String> {
    let tables = lines(database, "SELECT format('%I.%I', schemaname, relname) AS line FROM pg_stat_user_tables");
    let mut rows = Vec::new();
    for table in tables.await {
        rows.extend(lines(database, &format!("SELECT '{table} ' || t::text AS line FROM {table} t")).await);
    }
    rows
}

async fn connect(database: &Database) -> AsyncPgConnection {
    AsyncPgConnection::establish(&database.owner_url).await.expect("the owner may connect")
}

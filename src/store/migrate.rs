//! Runs the migrations, embedded in the binary, and grants the application's role its privileges.

use std::{collections::BTreeSet, time::Duration};

use diesel::{
    QueryResult,
    migration::{Migration, MigrationSource},
    pg::Pg,
    sql_types::Text,
};
use diesel_async::{AsyncMigrationHarness, AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection};
use diesel_migrations::{EmbeddedMigrations, MigrationHarness, embed_migrations};

use super::{
    connection::connect::{establish, primary_only},
    sql::{
        rows::{NameRow, YesRow},
        statement::statement,
    },
};

/// The migrations of this build, in order.
pub const MIGRATIONS: EmbeddedMigrations = embed_migrations!("migrations");

const GRANTS: &str = include_str!("grants.sql");
/// Names this product among the users of a database's advisory locks.
const ADVISORY_LOCK: i64 = 0x6c61_7463_686b_6579;
const ROLE_BYTES_MAX: usize = 63;
/// Connecting only: a migration may take as long as it needs.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Compares a database's schema with this build's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SchemaStatus {
    /// All of this build's migrations were run, and no others.
    Current,
    /// These were not run: `latchkey migrate` would.
    Behind(Vec<String>),
    /// These are not of this build: a later release ran them.
    Unknown(Vec<String>),
}

/// Why a database could not be migrated. These texts are for the operator at the terminal.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// It cannot be reached.
    #[error("cannot connect to the database")]
    Connect(#[source] diesel::ConnectionError),
    /// A migration failed and was rolled back; those before it stay.
    #[error("migration {name} failed")]
    Migration {
        /// Its name.
        name: String,
        /// What PostgreSQL said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The schema is a later release's.
    #[error("the database has migrations that this build does not know: {}", .0.join(", "))]
    Unknown(Vec<String>),
    /// The role's name is not one that this command writes into SQL.
    #[error("`{0}` is not a valid role name: must be a-z, 0-9 and _, at most 63 bytes, not starting with a digit")]
    RoleName(String),
    /// The role is missing and may not be made.
    #[error("role `{role}` does not exist and this user may not create it; as a superuser run: {sql}")]
    RoleMissing {
        /// The role.
        role: String,
        /// What to run.
        sql: String,
        /// What PostgreSQL said.
        #[source]
        source: diesel::result::Error,
    },
    /// A statement failed.
    #[error("a statement of the migration failed")]
    Statement(#[from] diesel::result::Error),
}

/// Runs the pending migrations, passing the name of each to `progress` first, then sets the application role's
/// privileges. Needs a multi-thread runtime.
///
/// # Errors
/// [`MigrateError`]; run it again once its cause is gone.
pub async fn migrate(
    url: &str,
    app_role: &str,
    mut progress: impl FnMut(&str) + Send,
) -> Result<Vec<String>, MigrateError> {
    check_role_name(app_role)?;
    let url = primary_only(url);
    let connect = || establish(url.clone(), CONNECT_TIMEOUT, None);
    // One at a time. Held by an open transaction on a second connection, which also works through
    // a pooler in transaction mode; its end, however it comes, releases the lock.
    let mut guard = connect().await.map_err(MigrateError::Connect)?;
    guard.batch_execute(&format!("BEGIN; SELECT pg_advisory_xact_lock({ADVISORY_LOCK})")).await?;

    let mut connection = connect().await.map_err(MigrateError::Connect)?;
    if let SchemaStatus::Unknown(names) = schema_status(&mut connection).await? {
        return Err(MigrateError::Unknown(names));
    }
    let mut harness = AsyncMigrationHarness::new(connection);
    let mut run = Vec::new();
    let failed = |name: &str| {
        let name = name.to_owned();
        move |source| MigrateError::Migration { name, source }
    };
    for migration in harness.pending_migrations(MIGRATIONS).map_err(failed("listing"))? {
        let name = migration.name().to_string();
        progress(&name);
        tracing::info!(migration = %name, "running");
        harness.run_migration(&*migration).map_err(failed(&name))?;
        run.push(name);
    }
    grant(&mut harness.into_inner(), app_role).await?;
    guard.batch_execute("COMMIT").await?;
    Ok(run)
}

/// Gives the application's role its privileges, making it if it is missing.
async fn grant(connection: &mut AsyncPgConnection, role: &str) -> Result<(), MigrateError> {
    if !role_exists(connection, role).await? {
        let sql = format!("CREATE ROLE \"{role}\" NOLOGIN");
        let made = connection.batch_execute(&sql).await;
        // Roles belong to the whole server: another database's migration may have made it just now.
        if let Err(source) = made
            && !role_exists(connection, role).await?
        {
            return Err(MigrateError::RoleMissing { role: role.to_owned(), sql, source });
        }
    }
    let schema: NameRow =
        statement("SELECT quote_ident(current_schema()::text) AS name").get_result(connection).await?;
    let sql = GRANTS.replace("{role}", &format!("\"{role}\"")).replace("{schema}", &schema.name);
    connection.batch_execute(&format!("BEGIN; {sql} COMMIT")).await?;
    Ok(())
}

async fn role_exists(connection: &mut AsyncPgConnection, role: &str) -> QueryResult<bool> {
    let exists: YesRow = statement("SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1) AS yes")
        .bind::<Text, _>(role.to_owned())
        .get_result(connection)
        .await?;
    Ok(exists.yes)
}

fn check_role_name(role: &str) -> Result<(), MigrateError> {
    let first_ok = role.starts_with(|c: char| c.is_ascii_lowercase() || c == '_');
    let all_ok = role.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
    if first_ok && all_ok && role.len() <= ROLE_BYTES_MAX {
        Ok(())
    } else {
        Err(MigrateError::RoleName(role.to_owned()))
    }
}

/// Compares the database's schema with this build's.
///
/// # Errors
/// If the query fails.
pub async fn schema_status(conn: &mut AsyncPgConnection) -> QueryResult<SchemaStatus> {
    let known = known().map_err(diesel::result::Error::QueryBuilderError)?;
    let table: YesRow =
        statement("SELECT to_regclass('__diesel_schema_migrations') IS NOT NULL AS yes").get_result(conn).await?;
    let applied: Vec<NameRow> = if table.yes {
        statement("SELECT version AS name FROM __diesel_schema_migrations ORDER BY version").load(conn).await?
    } else {
        Vec::new()
    };
    Ok(compare(&known, applied.into_iter().map(|row| row.name).collect()))
}

/// Lists the versions and names of this build's migrations.
fn known() -> diesel::migration::Result<Vec<(String, String)>> {
    let migrations = MigrationSource::<Pg>::migrations(&MIGRATIONS)?;
    let mut known: Vec<_> = migrations
        .iter()
        .map(|migration| (migration.name().version().to_string(), migration.name().to_string()))
        .collect();
    known.sort();
    Ok(known)
}

fn compare(known: &[(String, String)], applied: BTreeSet<String>) -> SchemaStatus {
    let unknown: Vec<_> =
        applied.iter().filter(|version| known.iter().all(|(known, _)| known != *version)).cloned().collect();
    let pending: Vec<_> =
        known.iter().filter(|(version, _)| !applied.contains(version)).map(|(_, name)| name.clone()).collect();
    match (unknown.is_empty(), pending.is_empty()) {
        (false, _) => SchemaStatus::Unknown(unknown),
        (true, false) => SchemaStatus::Behind(pending),
        (true, true) => SchemaStatus::Current,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schema_is_current_behind_or_unknown() {
        let known = [("1".to_owned(), "1_a".to_owned()), ("2".to_owned(), "2_b".to_owned())];
        let status = |applied: &[&str]| compare(&known, applied.iter().map(|v| (*v).to_owned()).collect());
        assert_eq!(status(&["1", "2"]), SchemaStatus::Current);
        assert_eq!(status(&["1"]), SchemaStatus::Behind(vec!["2_b".into()]));
        assert_eq!(status(&["1", "2", "3"]), SchemaStatus::Unknown(vec!["3".into()]));
    }

    #[test]
    fn a_role_name_that_could_break_out_of_its_quotes_is_refused() {
        for bad in ["", "1a", "a\"b", "a b", "A", &"a".repeat(64)] {
            assert!(check_role_name(bad).is_err(), "{bad}");
        }
        assert!(check_role_name("latchkey_app").is_ok());
    }
}

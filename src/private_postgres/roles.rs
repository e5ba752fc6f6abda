//! Creates roles, databases and connection URLs on a private PostgreSQL.

use std::fmt::Write as _;

use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection};

use super::cluster::SUPERUSER;
use super::{PrivatePostgres, PrivatePostgresError};

/// The superuser's password is kept as `superuser.password`.
const SUPERUSER_PASSWORD: &str = "superuser";

/// The role that owns the schema; it migrates.
pub const OWNER_ROLE: &str = "latchkey_owner";
/// The reduced role the server runs as.
pub const APP_ROLE: &str = "latchkey_app";
/// The database of `latchkey dev`.
pub const DATABASE: &str = "latchkey";

impl PrivatePostgres {
    /// Builds a URL for `role`. It holds the password: never log it.
    #[must_use]
    pub fn url(&self, role: &str, password: &str, database: &str) -> String {
        let (role, password, database) = (percent_encode(role), percent_encode(password), percent_encode(database));
        format!("postgres://{role}:{password}@127.0.0.1:{}/{database}", self.port())
    }

    /// Builds a URL for the superuser. It holds the password: never log it.
    #[must_use]
    pub fn superuser_url(&self, database: &str) -> String {
        self.url(SUPERUSER, &self.superuser_password, database)
    }

    /// Builds a URL for [`OWNER_ROLE`], once [`Self::create_roles_and_database`] has made it.
    ///
    /// # Errors
    /// When its password file in the data folder cannot be read.
    pub fn owner_url(&self, database: &str) -> Result<String, PrivatePostgresError> {
        Ok(self.url(OWNER_ROLE, &self.folder.password(OWNER_ROLE)?, database))
    }

    /// Builds a URL for [`APP_ROLE`], once [`Self::create_roles_and_database`] has made it.
    ///
    /// # Errors
    /// When its password file in the data folder cannot be read.
    pub fn app_url(&self, database: &str) -> Result<String, PrivatePostgresError> {
        Ok(self.url(APP_ROLE, &self.folder.password(APP_ROLE)?, database))
    }

    /// Creates [`OWNER_ROLE`], [`APP_ROLE`] (plain logins, passwords kept in the data folder) and the database
    /// [`DATABASE`], owned by the owner. Doing it again changes nothing.
    ///
    /// # Errors
    /// When the server cannot be reached or refuses, or a password cannot be kept.
    pub async fn create_roles_and_database(&self) -> Result<(), PrivatePostgresError> {
        let mut connection = self.superuser_connection("postgres").await?;
        for role in [OWNER_ROLE, APP_ROLE] {
            let password = self.folder.password(role)?;
            let sql = ensure_role(role, &password);
            connection
                .batch_execute(&sql)
                .await
                .map_err(|source| PrivatePostgresError::Sql { doing: "create the roles", source })?;
        }
        self.create_database(DATABASE, None).await
    }

    /// Creates a database owned by [`OWNER_ROLE`], as a copy of `template` if one is given (which must have no open
    /// connections). Only the two roles may connect to it. An existing database of that name stays.
    ///
    /// # Errors
    /// When the server cannot be reached or refuses.
    pub async fn create_database(&self, name: &str, template: Option<&str>) -> Result<(), PrivatePostgresError> {
        let failed = |source| PrivatePostgresError::Sql { doing: "create the database", source };
        let mut connection = self.superuser_connection("postgres").await?;
        let there = format!("SELECT 1 FROM pg_database WHERE datname = {}", literal(name));
        if diesel::sql_query(there).execute(&mut connection).await.map_err(failed)? == 0 {
            // Not template1, which may have open connections.
            let (name, template) = (identifier(name), identifier(template.unwrap_or("template0")));
            let sql = format!("CREATE DATABASE {name} OWNER {OWNER_ROLE} TEMPLATE {template}");
            connection.batch_execute(&sql).await.map_err(failed)?;
        }
        let database = identifier(name);
        let sql = format!(
            "REVOKE ALL ON DATABASE {database} FROM PUBLIC; GRANT CONNECT ON DATABASE {database} TO {APP_ROLE};"
        );
        connection.batch_execute(&sql).await.map_err(failed)?;
        // PostgreSQL 14 lets every role create in `public`, and does not let the database's owner dispose of it.
        let sql = format!("REVOKE CREATE ON SCHEMA public FROM PUBLIC; GRANT ALL ON SCHEMA public TO {OWNER_ROLE};");
        self.superuser_connection(name).await?.batch_execute(&sql).await.map_err(failed)
    }

    /// Drops a database, if it exists, and ends the sessions on it.
    ///
    /// # Errors
    /// When the server cannot be reached or refuses.
    pub async fn drop_database(&self, name: &str) -> Result<(), PrivatePostgresError> {
        let mut connection = self.superuser_connection("postgres").await?;
        let sql = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", identifier(name));
        connection
            .batch_execute(&sql)
            .await
            .map_err(|source| PrivatePostgresError::Sql { doing: "drop the database", source })
    }

    /// Returns the superuser's password, which is kept in the folder and generated only together with the cluster.
    pub(super) fn keep_superuser_password(folder: &super::folder::Folder) -> Result<String, PrivatePostgresError> {
        let file = folder.password_path(SUPERUSER_PASSWORD);
        if folder.cluster_major()?.is_some() && !file.exists() {
            return Err(PrivatePostgresError::PasswordLost { folder: folder.path().to_owned(), file });
        }
        folder.password(SUPERUSER_PASSWORD)
    }

    pub(super) async fn superuser_connection(&self, database: &str) -> Result<AsyncPgConnection, PrivatePostgresError> {
        let connection = AsyncPgConnection::establish(&self.superuser_url(database)).await;
        connection.map_err(|source| PrivatePostgresError::Connect { role: SUPERUSER.to_owned(), source })
    }
}

fn ensure_role(role: &str, password: &str) -> String {
    let (name, quoted) = (identifier(role), literal(role));
    format!(
        "DO $$ BEGIN IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = {quoted}) THEN CREATE ROLE {name}; END IF; \
         END $$; \
         ALTER ROLE {name} LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS PASSWORD {}",
        literal(password)
    )
}

/// Quotes an SQL identifier.
fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Quotes an SQL string, right under either setting of `standard_conforming_strings`.
fn literal(text: &str) -> String {
    let quoted = text.replace('\'', "''");
    if quoted.contains('\\') { format!(" E'{}'", quoted.replace('\\', "\\\\")) } else { format!("'{quoted}'") }
}

/// Percent-encodes everything but the characters that mean nothing in an address.
fn percent_encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            write!(encoded, "%{byte:02X}").expect("writing to a String cannot fail");
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::{identifier, literal, percent_encode};

    #[test]
    fn names_and_strings_cannot_break_out_of_their_quotes() {
        assert_eq!(identifier("a\"b"), "\"a\"\"b\"");
        assert_eq!(literal("a'b"), "'a''b'");
        assert_eq!(literal("a\\'b"), " E'a\\\\''b'");
        assert_eq!(percent_encode("a/b@c:d%"), "a%2Fb%40c%3Ad%25");
    }
}

//! Roles, databases and connection addresses on a private PostgreSQL.

use std::fmt::Write as _;

use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection};

use super::{Error, PrivatePostgres, SUPERUSER, SUPERUSER_PASSWORD};

/// The role that owns the schema; it migrates.
pub const OWNER_ROLE: &str = "latchkey_owner";
/// The reduced role the server runs as.
pub const APP_ROLE: &str = "latchkey_app";
/// The database of `latchkey dev`.
pub const DATABASE: &str = "latchkey";

impl PrivatePostgres {
    /// An address for `role`. It holds the password: never log it.
    #[must_use]
    pub fn url(&self, role: &str, password: &str, database: &str) -> String {
        let (role, password, database) = (percent_encode(role), percent_encode(password), percent_encode(database));
        format!("postgres://{role}:{password}@127.0.0.1:{}/{database}", self.port())
    }

    /// An address for the superuser. It holds the password: never log it.
    #[must_use]
    pub fn superuser_url(&self, database: &str) -> String {
        self.url(SUPERUSER, &self.superuser_password, database)
    }

    /// An address for [`OWNER_ROLE`], once [`Self::create_roles_and_database`] has made it.
    ///
    /// # Errors
    /// When its password file in the data folder cannot be read.
    pub fn owner_url(&self, database: &str) -> Result<String, Error> {
        Ok(self.url(OWNER_ROLE, &self.folder.password(OWNER_ROLE)?, database))
    }

    /// An address for [`APP_ROLE`], once [`Self::create_roles_and_database`] has made it.
    ///
    /// # Errors
    /// When its password file in the data folder cannot be read.
    pub fn app_url(&self, database: &str) -> Result<String, Error> {
        Ok(self.url(APP_ROLE, &self.folder.password(APP_ROLE)?, database))
    }

    /// Makes [`OWNER_ROLE`], [`APP_ROLE`] (plain logins, passwords kept in the data folder) and the database
    /// [`DATABASE`], owned by the owner. Doing it again changes nothing.
    ///
    /// # Errors
    /// When the server cannot be reached or refuses, or a password cannot be kept.
    pub async fn create_roles_and_database(&self) -> Result<(), Error> {
        let mut connection = self.superuser_connection("postgres").await?;
        for role in [OWNER_ROLE, APP_ROLE] {
            let password = self.folder.password(role)?;
            let sql = ensure_role(role, &password);
            connection.batch_execute(&sql).await.map_err(|source| Error::Sql { doing: "create the roles", source })?;
        }
        self.create_database(DATABASE, None).await
    }

    /// Makes a database owned by [`OWNER_ROLE`], as a copy of `template` if one is named (nobody may be connected
    /// to that one). Only the two roles may connect to it. One of that name that is there already stays.
    ///
    /// # Errors
    /// When the server cannot be reached or refuses.
    pub async fn create_database(&self, name: &str, template: Option<&str>) -> Result<(), Error> {
        let failed = |source| Error::Sql { doing: "create the database", source };
        let mut connection = self.superuser_connection("postgres").await?;
        let there = format!("SELECT 1 FROM pg_database WHERE datname = {}", literal(name));
        if diesel::sql_query(there).execute(&mut connection).await.map_err(failed)? == 0 {
            // Not template1: somebody may be connected to that one.
            let (name, template) = (identifier(name), identifier(template.unwrap_or("template0")));
            let sql = format!("CREATE DATABASE {name} OWNER {OWNER_ROLE} TEMPLATE {template}");
            connection.batch_execute(&sql).await.map_err(failed)?;
        }
        let database = identifier(name);
        let sql = format!(
            "REVOKE ALL ON DATABASE {database} FROM PUBLIC; GRANT CONNECT ON DATABASE {database} TO {APP_ROLE};"
        );
        connection.batch_execute(&sql).await.map_err(failed)?;
        // PostgreSQL 14 lets everyone create in `public`, and not its database's owner dispose of it.
        let sql = format!("REVOKE CREATE ON SCHEMA public FROM PUBLIC; GRANT ALL ON SCHEMA public TO {OWNER_ROLE};");
        self.superuser_connection(name).await?.batch_execute(&sql).await.map_err(failed)
    }

    /// Drops a database, ending the sessions on it. One that is not there is fine.
    ///
    /// # Errors
    /// When the server cannot be reached or refuses.
    pub async fn drop_database(&self, name: &str) -> Result<(), Error> {
        let mut connection = self.superuser_connection("postgres").await?;
        let sql = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", identifier(name));
        connection.batch_execute(&sql).await.map_err(|source| Error::Sql { doing: "drop the database", source })
    }

    /// The superuser's password: kept in the folder, and made only together with the cluster.
    pub(super) fn keep_superuser_password(folder: &super::folder::Folder) -> Result<String, Error> {
        let file = folder.password_path(SUPERUSER_PASSWORD);
        if folder.cluster_major()?.is_some() && !file.exists() {
            return Err(Error::PasswordLost { folder: folder.path().to_owned(), file });
        }
        folder.password(SUPERUSER_PASSWORD)
    }

    pub(super) async fn superuser_connection(&self, database: &str) -> Result<AsyncPgConnection, Error> {
        let connection = AsyncPgConnection::establish(&self.superuser_url(database)).await;
        connection.map_err(|source| Error::Connect { role: SUPERUSER.to_owned(), source })
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

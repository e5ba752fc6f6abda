//! What processes of the real program stand on: a durable PostgreSQL of a program's own, and how servers find it.

use std::time::Duration;

use latchkey::{
    private_postgres::{APP_ROLE, DATABASE, Options, PrivatePostgres},
    store::migrate,
};

use super::{
    Caller,
    database::Database,
    process::{Process, Start, latchkey},
    server::{connect, pepper},
};

/// How long a process may take to start.
pub const START_LIMIT: Duration = Duration::from_secs(20);

/// PostgreSQL, and the database in it. Dropping it stops it: also when a panic passes.
pub struct Ground {
    pub postgres: PrivatePostgres,
    pub database: Database,
}

/// `latchkey` with the settings of a server on a database.
pub fn on(database_url: &str, arguments: &[&str]) -> Start {
    latchkey(arguments.iter().copied())
        .env("LATCHKEY_DATABASE_URL", database_url)
        .env("LATCHKEY_PEPPERS", "test=env:LATCHKEY_TEST_PEPPER")
        .env("LATCHKEY_TEST_PEPPER", pepper())
}

impl Ground {
    /// PostgreSQL with these settings besides its own, migrated; its folder is named after the program.
    pub async fn new(name: &str, settings: Vec<(String, String)>) -> Self {
        let folder = std::env::temp_dir().join(format!("latchkey-{name}-{}", std::process::id()));
        let options = Options { remove_on_stop: true, settings, ..Options::durable(folder) };
        let postgres = PrivatePostgres::start(options).await.expect("PostgreSQL starts");
        postgres.create_roles_and_database().await.expect("roles and database are made");
        let owner_url = postgres.owner_url(DATABASE).expect("the password is on file");
        migrate::migrate(&owner_url, APP_ROLE, |_| {}).await.expect("it migrates");
        let app_url = postgres.app_url(DATABASE).expect("the password is on file");
        Self { postgres, database: Database { name: DATABASE.into(), app_url, owner_url } }
    }

    /// The program on it.
    pub fn latchkey(&self, arguments: &[&str]) -> Start {
        on(&self.database.app_url, arguments)
    }

    /// The token of an operator.
    pub fn bootstrap(&self) -> String {
        self.latchkey(&["bootstrap"]).secret_stdout().run(START_LIMIT).success()
    }

    /// A server that serves, and the holder of a token there.
    pub async fn serve(&self, token: &str, log_filter: &str) -> (Process, Caller) {
        let start = self.latchkey(&["serve", "--listen-address", "127.0.0.1:0"]);
        let mut process = start.env("LATCHKEY_LOG_FILTER", log_filter).spawn();
        let channel = connect(process.address(START_LIMIT)).await;
        (process, Caller { channel, token: token.to_owned(), on_behalf_of: None })
    }
}

//! One private PostgreSQL a test process, one database a test, cloned from one migrated template.

use std::{
    path::PathBuf,
    sync::atomic::{AtomicU32, Ordering},
};

use diesel_async::{AsyncConnection, AsyncPgConnection, SimpleAsyncConnection};
use latchkey::{
    private_postgres::{APP_ROLE, DATABASE, Options, PrivatePostgres},
    store::migrate,
};
use tokio::sync::OnceCell;

static POSTGRES: OnceCell<PrivatePostgres> = OnceCell::const_new();
static NEXT: AtomicU32 = AtomicU32::new(1);

/// A database of a test's own.
#[derive(Clone)]
pub struct Database {
    pub name: String,
    /// As the reduced role that the server runs as.
    pub app_url: String,
    /// As the role that owns the tables.
    pub owner_url: String,
}

impl Database {
    /// Runs statements as the role that owns the tables: what no server may do to its log.
    pub async fn execute_as_owner(&self, sql: &str) {
        let mut connection = AsyncPgConnection::establish(&self.owner_url).await.expect("the owner may connect");
        connection.batch_execute(sql).await.expect(sql);
    }
}

/// Clones the migrated template.
pub async fn fresh() -> Database {
    let postgres = postgres().await;
    let name = format!("test_{}", NEXT.fetch_add(1, Ordering::Relaxed));
    postgres.create_database(&name, Some(DATABASE)).await.expect("the template can be cloned");
    Database {
        app_url: postgres.app_url(&name).expect("the password is on file"),
        owner_url: postgres.owner_url(&name).expect("the password is on file"),
        name,
    }
}

/// The process's PostgreSQL: it stops, and its folder goes, when the process ends, however it ends.
pub async fn postgres() -> &'static PrivatePostgres {
    POSTGRES
        .get_or_init(|| async {
            super::logs::start();
            // Another runtime makes the connection drivers: a test's own dies with the test.
            let folder = folder();
            let options = Options { max_connections: 400, ..Options::throwaway(folder) };
            let postgres = PrivatePostgres::start(options).await.expect("PostgreSQL starts");
            postgres.create_roles_and_database().await.expect("roles and database are made");
            let owner = postgres.owner_url(DATABASE).expect("the password is on file");
            migrate::migrate(&owner, APP_ROLE, |_| {}).await.expect("the template migrates");
            postgres
        })
        .await
}

fn folder() -> PathBuf {
    std::env::temp_dir().join(format!("latchkey-tests-{}", std::process::id()))
}

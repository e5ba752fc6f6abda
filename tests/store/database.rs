//! A database of its own for every test, cloned from one migrated template.

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use diesel_async::{AsyncConnection, AsyncPgConnection, SimpleAsyncConnection};
use latchkey::store::{LaneSizes, PostgresStore, StoreOptions, migrate};
use tokio::{runtime::Handle, sync::OnceCell};

use crate::support::database as support;

/// The application's role in tests.
pub const APP_ROLE: &str = "latchkey_test_app";
const PEPPER: &str = "INSERT INTO peppers VALUES ('p1', decode(repeat('01', 32), 'hex'))";

static TEMPLATE: OnceCell<String> = OnceCell::const_new();
static NEXT: AtomicU32 = AtomicU32::new(0);

/// A test's database.
pub struct Database {
    /// A superuser's URL.
    pub url: String,
    /// The store on it.
    pub store: PostgresStore,
}

async fn url_of(name: &str) -> String {
    support::postgres().await.superuser_url(name)
}

async fn server() -> String {
    url_of("postgres").await
}

/// A fresh, migrated database. The one place that knows where servers come from.
pub async fn fresh_database() -> Database {
    let template = TEMPLATE.get_or_init(make_template).await;
    let name = format!("{template}_{}", NEXT.fetch_add(1, Ordering::Relaxed));
    execute(&server().await, &format!("CREATE DATABASE {name} TEMPLATE {template}")).await;
    let url = url_of(&name).await;
    Database { store: store(&url, Duration::from_secs(5)), url }
}

/// An empty database: no migration was run.
pub async fn empty_database() -> String {
    let name = format!("latchkey_empty_{}_{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    execute(&server().await, &format!("CREATE DATABASE {name}")).await;
    url_of(&name).await
}

/// A store with small pools, on this test's runtime.
pub fn store(url: &str, timeout: Duration) -> PostgresStore {
    store_with(url, timeout, &["p1"])
}

/// The same, with its peppers.
pub fn store_with(url: &str, timeout: Duration, pepper_ids: &[&str]) -> PostgresStore {
    let options = StoreOptions {
        url: url.to_owned(),
        sizes: LaneSizes { narrowing: 2, callers: 1, mutations: 4, reads: 4, watches: 2, misses: 2, upkeep: 1 },
        timeout,
        pepper_ids: pepper_ids.iter().map(|id| (*id).to_owned()).collect(),
        runtime: Handle::current(),
        bulk: Handle::current(),
    };
    PostgresStore::connect(options).expect("the options are good")
}

async fn make_template() -> String {
    let name = format!("latchkey_{}", std::process::id());
    execute(&server().await, &format!("CREATE DATABASE {name}")).await;
    migrate::migrate(&url_of(&name).await, APP_ROLE, |_| ()).await.expect("migrations run");
    execute(&url_of(&name).await, PEPPER).await;
    name
}

/// A plain connection.
pub async fn connect(url: &str) -> AsyncPgConnection {
    AsyncPgConnection::establish(url).await.expect("the test server answers")
}

/// Runs statements on a connection of their own.
pub async fn execute(url: &str, sql: &str) {
    connect(url).await.batch_execute(sql).await.expect(sql);
}

/// Runs statements that must be refused; what the server says.
pub async fn refused(url: &str, sql: &str) -> String {
    let error = connect(url).await.batch_execute(sql).await.expect_err(sql);
    error.to_string()
}

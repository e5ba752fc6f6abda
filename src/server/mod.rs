//! Puts the layers together and runs them: database, follower, gRPC, housekeeping, a clean stop.

mod listener;
mod observe;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    task::{JoinHandle, JoinSet},
};

use crate::{
    app::{
        App, Limits,
        error::StoreError,
        mint::{Minter, OsEntropy},
    },
    domain::token::{Pepper, Prefix},
    settings::Settings,
    store::{PostgresStore, StoreOptions, migrate::SchemaStatus, peppers::PepperError},
    telemetry::Metrics,
    verify::{self, Follower, Identity, RandomIncarnations, Verifier, clock::BootClock},
};

/// What the table of replicas takes.
const REPLICA_NAME_CHARS_MAX: usize = 200;

/// Why the server does not start. Says what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The database cannot be reached, or refuses.
    #[error("the database cannot be used: check database_url, and that PostgreSQL runs and lets this role in")]
    Database(#[source] StoreError),
    /// The schema is not the one that this build needs.
    #[error("{0}")]
    Schema(String),
    /// A pepper is not the one that the database knows under its id.
    #[error("{0}")]
    Pepper(String),
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why not.
        source: std::io::Error,
    },
    /// The log's head was not read in time.
    #[error("the log could not be read in time; check the database")]
    NotFollowing,
}

/// The use-cases on an opened database, and what must run beside them.
pub struct Opened {
    /// The use-cases.
    pub app: App,
    store: PostgresStore,
    verifier: Arc<Verifier>,
    follower: Follower,
}

/// A server that runs.
pub struct Running {
    address: SocketAddr,
    app: App,
    stop: watch::Sender<bool>,
    tasks: JoinSet<()>,
    listening: JoinHandle<()>,
    drain_timeout: Duration,
}

/// Opens the database: connects, checks the schema and the peppers.
///
/// # Errors
/// [`StartError`].
pub async fn open(settings: &Settings) -> Result<Opened, StartError> {
    open_observed(settings, Arc::new(Metrics::new())).await
}

async fn open_observed(settings: &Settings, metrics: Arc<Metrics>) -> Result<Opened, StartError> {
    let options = StoreOptions {
        url: settings.database_url.expose().to_owned(),
        pool_size_max: settings.database_pool_size_max,
        verify_pool_size_max: settings.verify_pool_size_max,
        timeout: Duration::from_millis(settings.database_timeout_ms),
        runtime: tokio::runtime::Handle::current(),
    };
    let store = PostgresStore::connect(options).map_err(StartError::Database)?;
    check_schema(store.schema_status().await.map_err(StartError::Database)?)?;
    let live = live_peppers(settings);
    // Before any is registered: a server that does not start leaves nothing behind.
    let missing = store.missing_peppers(&live).await.map_err(StartError::Database)?;
    if !missing.is_empty() {
        return Err(StartError::Pepper(format!(
            "live tokens need peppers that are not configured: {}",
            missing.join(", ")
        )));
    }
    store.register_peppers(&live).await.map_err(|error| match error {
        PepperError::Store(error) => StartError::Database(error),
        differs @ PepperError::Differs(_) => StartError::Pepper(differs.to_string()),
    })?;
    let limits = verify_limits(settings);
    let primary = Arc::new(store.clone());
    let (verifier, follower) = Verifier::new(primary, Arc::new(BootClock), live.clone(), limits, identity());
    let verifier = Arc::new(verifier);
    let prefix = Prefix::parse("token_prefix", settings.token_prefix.as_str()).expect("settings check the prefix");
    let minting = live.into_iter().next().expect("settings need a pepper");
    let minter = Minter::new(prefix, minting, Box::new(OsEntropy));
    let observer = Arc::new(observe::Mutations(metrics));
    let app = App::new(Arc::new(store.clone()), verifier.clone(), minter, app_limits(settings), observer);
    Ok(Opened { app, store, verifier, follower })
}

fn check_schema(status: SchemaStatus) -> Result<(), StartError> {
    let message = match status {
        SchemaStatus::Current => return Ok(()),
        SchemaStatus::Behind(names) => {
            format!("the schema is behind ({}): run `latchkey migrate`", names.join(", "))
        }
        SchemaStatus::Unknown(names) => {
            format!("the schema is of a later release ({}): run that release", names.join(", "))
        }
    };
    Err(StartError::Schema(message))
}

fn live_peppers(settings: &Settings) -> Vec<Pepper> {
    settings.peppers.all().iter().map(|pepper| Pepper::new(pepper.id.clone(), &pepper.secret)).collect()
}

fn verify_limits(settings: &Settings) -> verify::Limits {
    verify::Limits {
        cached_tokens_max: settings.cache_keys_max,
        unknown_tokens_max: settings.negative_entries_max,
        misses_in_flight_max: settings.misses_in_flight_max,
        miss_timeout: Duration::from_millis(settings.database_timeout_ms),
        lease: Duration::from_millis(settings.lease_ms),
        stale_max: Duration::from_millis(settings.stale_max_ms),
        poll_interval: Duration::from_millis(settings.poll_interval_ms),
        ..verify::Limits::default()
    }
}

/// Names this process for whoever reads the table of replicas.
fn identity() -> Identity {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let name = format!("{host}/{}", std::process::id()).chars().take(REPLICA_NAME_CHARS_MAX).collect();
    Identity { name, incarnations: Box::new(RandomIncarnations) }
}

fn app_limits(settings: &Settings) -> Limits {
    let bounded = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
    Limits {
        api_keys_per_account_max: bounded(settings.api_keys_per_account_max),
        api_keys_per_team_max: Some(bounded(settings.api_keys_per_team_max)).filter(|max| *max > 0),
        ended_token_retention_days: bounded(settings.ended_token_retention_days),
        lease: Duration::from_millis(settings.lease_ms),
        usage_flush_interval: Duration::from_millis(settings.usage_flush_interval_ms),
    }
}

/// Starts the server; it serves when this returns.
///
/// # Errors
/// [`StartError`].
pub async fn start(settings: &Settings, metrics: Arc<Metrics>) -> Result<Running, StartError> {
    let Opened { app, store, verifier, follower } = open_observed(settings, metrics.clone()).await?;
    let listening = store.listen(verifier.wake());
    let (stop, stopped) = watch::channel(false);
    let mut tasks = JoinSet::new();
    tasks.spawn(follower.run(until(stopped.clone())));
    tasks.spawn(while_running(stopped.clone(), app.clone().housekeeping()));
    tasks.spawn(while_running(stopped.clone(), observe::verifications(verifier.clone(), metrics.clone())));
    wait_until_following(&verifier).await?;
    let bound = listener::bind(settings.listen_address)
        .await
        .map_err(|source| StartError::Listen { address: settings.listen_address, source })?;
    let address = bound.address;
    tasks.spawn(listener::serve(bound, app.clone(), settings.clone(), metrics, until(stopped)));
    let drain_timeout = Duration::from_secs(settings.drain_timeout_s);
    Ok(Running { address, app, stop, tasks, listening, drain_timeout })
}

async fn until(mut stopped: watch::Receiver<bool>) {
    // A sender that is gone means the same.
    let _ = stopped.wait_for(|stopped| *stopped).await;
}

async fn while_running(stopped: watch::Receiver<bool>, work: impl Future<Output = ()>) {
    tokio::select! {
        () = work => {}
        () = until(stopped) => {}
    }
}

/// How long a server waits for its first look at the log.
const FIRST_HEAD_WAIT: Duration = Duration::from_secs(30);

async fn wait_until_following(verifier: &Verifier) -> Result<(), StartError> {
    let mut changes = verifier.applied_changes();
    let following = async {
        while !verifier.has_lease() {
            // The lease comes right after the revision: look again soon rather than wait for a change.
            let _ = tokio::time::timeout(Duration::from_millis(10), changes.changed()).await;
        }
    };
    tokio::time::timeout(FIRST_HEAD_WAIT, following).await.map_err(|_| StartError::NotFollowing)
}

// === impl Running ===

impl Running {
    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its use-cases, for whoever runs it in the same process.
    #[must_use]
    pub fn app(&self) -> &App {
        &self.app
    }

    /// Stops: no new calls, running ones are given the drain time, then everything ends.
    pub async fn stop(mut self) {
        let _ = self.stop.send(true);
        let all_ended = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(self.drain_timeout, all_ended).await.is_err() {
            tracing::warn!("some calls did not end in time and were cut");
            self.tasks.shutdown().await;
        }
        self.listening.abort();
        if let Err(error) = self.app.flush_usage().await {
            tracing::warn!(error = %error, "the last uses of tokens were not written");
        }
    }
}

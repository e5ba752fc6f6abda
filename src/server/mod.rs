//! Puts the layers together and runs them: database, follower, gRPC, housekeeping, a clean stop.

mod connection;
mod listen;
mod observe;
mod role;
mod spell;
mod stage;
mod threads;
mod wire;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use rustix::{io::Errno, process::Pid};
use tokio::{runtime::Handle, task::JoinSet};

use self::{
    listen::listener::Serving,
    stage::{Hint, Stage, Stages},
    threads::{bulk::Bulk, cores::Cores},
};

use crate::{
    app::{
        App, AppLimits, ShareLimits, WatchLimits,
        error::StoreError,
        mint::{Minter, OsEntropy},
    },
    domain::token::{Pepper, Prefix},
    settings::Settings,
    store::{LaneSizes, PostgresStore, StoreOptions, migrate::SchemaStatus, replica::peppers::PepperError},
    telemetry::Metrics,
    verify::{self, Follower, FollowerState, RandomIncarnations, ReplicaIdentity, Verifier, clock::BootClock},
};

/// What the table of replicas takes.
const REPLICA_NAME_CHARS_MAX: usize = 200;

/// Why the server does not start. Says what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The database cannot be reached, or refuses.
    #[error(
        "the database {address} cannot be used: check database_url, and that PostgreSQL runs and lets this role in"
    )]
    Database {
        /// Its address, secrets redacted.
        address: String,
        /// Why not.
        #[source]
        source: StoreError,
    },
    /// The schema is not the one that this build needs.
    #[error("{0}")]
    Schema(String),
    /// The role of `database_url` can change or delete events.
    #[error(
        "database role `{role}` {what}, so it could change or delete events: let database_url name role latchkey_app, \
         which `latchkey migrate` prepares (README.md, \"On a database of your own\"), or set \
         allow_privileged_database_role"
    )]
    PrivilegedRole {
        /// The role.
        role: String,
        /// What it can do.
        what: String,
    },
    /// A pepper is not the one that the database knows under its id.
    #[error("{0}")]
    Pepper(String),
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: if another program has the port, stop it or choose another port")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The system gives no threads to serve on.
    #[error("the {count} threads to serve on cannot be started: set serving_threads lower, or allow more")]
    Threads {
        /// How many there were to be.
        count: usize,
        /// Why not.
        #[source]
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

/// A part of a server ended that should have gone on: a bug, and the server is to be stopped.
#[derive(Debug, thiserror::Error)]
#[error("a part of the server ended by itself: this is a bug, the log has the details")]
pub struct PartEnded;

/// A server that runs. Dropped without [`Running::stop`], it ends at once.
pub struct Running {
    address: SocketAddr,
    app: App,
    store: PostgresStore,
    stages: Stages,
    /// What answers calls: the first to be stopped, and given time.
    listener: JoinSet<()>,
    /// What calls rely on, and so outlives them: the follower, housekeeping, what is counted.
    beside: JoinSet<()>,
    /// Where calls run.
    cores: Cores,
    /// Where bulk calls run.
    bulk: Bulk,
    hint: Hint,
    drain_timeout: Duration,
}

/// Opens the database: connects, checks the schema and the peppers.
///
/// # Errors
/// [`StartError`].
pub async fn open(settings: &Settings) -> Result<Opened, StartError> {
    open_for(Purpose::Command, settings, Arc::new(Metrics::new())).await
}

/// What a database is opened for.
enum Purpose {
    /// A command of an operator with the database's own credentials, whatever role those name.
    Command,
    /// A server, whose reads are driven on this runtime.
    Serving(Handle),
}

async fn open_for(purpose: Purpose, settings: &Settings, metrics: Arc<Metrics>) -> Result<Opened, StartError> {
    let (is_server, bulk) = match purpose {
        Purpose::Command => (false, Handle::current()),
        Purpose::Serving(bulk) => (true, bulk),
    };
    let options = StoreOptions {
        url: settings.database_url.expose().to_owned(),
        sizes: lane_sizes(settings),
        timeout: Duration::from_millis(settings.database_timeout_ms),
        pepper_ids: settings.peppers.all().iter().map(|pepper| pepper.id.clone()).collect(),
        runtime: Handle::current(),
        bulk,
    };
    let unusable = |source| StartError::Database { address: settings.database_url.redacted(), source };
    let store = PostgresStore::connect(options).map_err(unusable)?;
    check_schema(store.schema_status().await.map_err(unusable)?)?;
    if is_server {
        role::check(&store.powers().await.map_err(unusable)?, settings)?;
    }
    store.record_identity().await.map_err(unusable)?;
    let live = live_peppers(settings);
    // Before any is registered: a server that does not start leaves nothing behind.
    let missing = store.missing_peppers().await.map_err(unusable)?;
    if !missing.is_empty() {
        return Err(StartError::Pepper(format!(
            "live tokens need peppers that are not configured: {}; add them to the setting `peppers`",
            missing.join(", ")
        )));
    }
    store.register_peppers(&live).await.map_err(|error| match error {
        PepperError::Store(error) => unusable(error),
        differs @ PepperError::Differs(_) => StartError::Pepper(format!(
            "{differs}: give it the secret that it had, or give the new secret an id of its own"
        )),
    })?;
    let limits = verify_limits(settings);
    let primary = Arc::new(store.clone());
    let (verifier, follower) = Verifier::new(primary, Arc::new(BootClock), live.clone(), limits, identity());
    let verifier = Arc::new(verifier);
    let prefix = Prefix::parse("token_prefix", settings.token_prefix.as_str()).expect("settings check the prefix");
    let minter = Minter::new(prefix, live, Box::new(OsEntropy));
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

fn verify_limits(settings: &Settings) -> verify::VerifyLimits {
    verify::VerifyLimits {
        cached_tokens_max: settings.cache_keys_max,
        shared_bytes_max: settings.cache_shared_bytes_max,
        unknown_tokens_max: settings.negative_entries_max,
        ended_tokens_max: settings.ended_entries_max,
        misses_in_flight_max: settings.misses_in_flight_max,
        unknown_loads_per_second_max: settings.unknown_loads_per_second_max,
        unknown_loads_burst_max: settings.unknown_loads_burst_max,
        ended_loads_per_second_max: settings.ended_loads_per_second_max,
        late_events_per_hour_max: settings.late_events_per_hour_max,
        late_events_per_account_hour_max: settings.late_events_per_account_hour_max,
        miss_timeout: Duration::from_millis(settings.database_timeout_ms),
        lease: Duration::from_millis(settings.lease_ms),
        stale_max: Duration::from_millis(settings.stale_max_ms),
        poll_interval: Duration::from_millis(settings.poll_interval_ms),
        used_marks_max: verify::USED_MARKS_MAX,
        late_tokens_max: verify::LATE_TOKENS_MAX,
    }
}

/// Names this process for whoever reads the table of replicas.
fn identity() -> ReplicaIdentity {
    ReplicaIdentity { name: replica_name(std::process::id()), incarnations: Box::new(RandomIncarnations) }
}

/// What a process of this machine is called among the replicas.
fn replica_name(pid: u32) -> String {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    format!("{host}/{pid}").chars().take(REPLICA_NAME_CHARS_MAX).collect()
}

/// Whether a replica's name is that of a process of this machine that is no more.
fn is_dead(name: &str) -> bool {
    let pid = name.rsplit_once('/').and_then(|(_, pid)| pid.parse().ok());
    let process = pid.filter(|pid| name == replica_name(*pid)).and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
    // This process has no row yet: one of its name is an earlier one's.
    process.is_some_and(|process| {
        process == rustix::process::getpid() || rustix::process::test_kill_process(process) == Err(Errno::SRCH)
    })
}

fn lane_sizes(settings: &Settings) -> LaneSizes {
    let reads = settings.database_pool_size_max.div_ceil(2);
    LaneSizes {
        narrowing: settings.narrowing_pool_size_max,
        callers: settings.caller_pool_size_max,
        mutations: (settings.database_pool_size_max - reads).max(1),
        reads,
        watches: settings.watch_pool_size_max,
        misses: settings.verify_pool_size_max,
        upkeep: settings.upkeep_pool_size_max,
    }
}

fn share_limits(settings: &Settings) -> ShareLimits {
    let sizes = lane_sizes(settings);
    ShareLimits {
        narrowing_at_once_max: sizes.narrowing,
        callers_at_once_max: sizes.callers,
        mutations_at_once_max: sizes.mutations,
        reads_at_once_max: sizes.reads,
        watch_reads_at_once_max: sizes.watches,
        mutations_per_account_max: settings.mutations_per_account_max,
        mutations_per_caller_max: settings.mutations_per_caller_max,
        reads_per_account_max: settings.reads_per_account_max,
        reads_per_caller_max: settings.reads_per_caller_max,
        waiting_calls_max: settings.waiting_calls_max,
        waiting_calls_per_account_max: settings.waiting_calls_per_account_max,
        waiting_calls_per_caller_max: settings.waiting_calls_per_caller_max,
    }
}

fn watch_limits(settings: &Settings) -> WatchLimits {
    WatchLimits {
        watches_max: settings.watches_max,
        account_watches_max: settings.account_watches_max,
        watches_per_account_max: settings.watches_per_account_max,
        watches_per_caller_max: settings.watches_per_caller_max,
    }
}

fn app_limits(settings: &Settings) -> AppLimits {
    let bounded = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
    AppLimits {
        api_keys_per_account_max: bounded(settings.api_keys_per_account_max),
        api_keys_per_team_max: Some(bounded(settings.api_keys_per_team_max)).filter(|max| *max > 0),
        deleted_api_keys_per_account_max: bounded(settings.deleted_api_keys_per_account_max),
        tokens_per_api_key_max: bounded(settings.tokens_per_api_key_max),
        ended_token_retention_days: bounded(settings.ended_token_retention_days),
        lease: Duration::from_millis(settings.lease_ms),
        usage_flush_interval: Duration::from_millis(settings.usage_flush_interval_ms),
        shares: share_limits(settings),
        watches: watch_limits(settings),
        list_scan_rows_max: bounded(settings.list_scan_rows_max),
        chain_events_max: bounded(settings.chain_events_max),
    }
}

/// Starts the server; it serves when this returns.
///
/// # Errors
/// [`StartError`]; whatever was started by then ends.
pub async fn start(settings: &Settings, metrics: Arc<Metrics>) -> Result<Running, StartError> {
    let bulk = start_bulk(settings)?;
    let opened = open_for(Purpose::Serving(bulk.handle()), settings, metrics.clone()).await?;
    serve(opened, bulk, settings, metrics).await
}

/// As [`start`], for a database that no other machine reaches. First the replicas are evicted that were processes of
/// this one and are no more: else the first revocation after a `kill -9` would wait for a lease that nobody holds.
///
/// # Errors
/// As [`start`].
pub async fn start_private(settings: &Settings, metrics: Arc<Metrics>) -> Result<Running, StartError> {
    let bulk = start_bulk(settings)?;
    let opened = open_for(Purpose::Serving(bulk.handle()), settings, metrics.clone()).await?;
    let unusable = |source| StartError::Database { address: settings.database_url.redacted(), source };
    opened.store.evict_dead_replicas(is_dead).await.map_err(unusable)?;
    serve(opened, bulk, settings, metrics).await
}

fn start_bulk(settings: &Settings) -> Result<Bulk, StartError> {
    let count = settings.serving_threads;
    Bulk::start(count).map_err(|source| StartError::Threads { count, source })
}

async fn serve(opened: Opened, bulk: Bulk, settings: &Settings, metrics: Arc<Metrics>) -> Result<Running, StartError> {
    let Opened { app, store, verifier, follower } = opened;
    // Before anybody waits for this replica: a start that fails here must cost the others nothing.
    let bound = listen::listener::bind(settings.listen_address)
        .await
        .map_err(|source| StartError::Listen { address: settings.listen_address, source })?;
    let address = bound.address;
    let count = settings.serving_threads;
    let cores = Cores::start(count).map_err(|source| StartError::Threads { count, source })?;
    let hint = Hint(store.listen(verifier.wake()));
    let stages = Stages::new();
    let mut starting = Starting { stages: stages.clone(), beside: JoinSet::new() };
    let beside = &mut starting.beside;
    beside.spawn(follower.run(stages.reached(Stage::Stopped)));
    beside.spawn(stages.until(Stage::Draining, app.clone().evict_lost_replicas()));
    let stopped = stages.reached(Stage::Stopped);
    beside.spawn(observe::verifications(verifier.clone(), metrics.clone(), stopped));
    wait_until_following(&verifier).await?;
    // Not before: what it removes it appends events of, and the log may be of another database.
    starting.beside.spawn(stages.until(Stage::Stopped, app.clone().housekeeping()));
    let mut listener = JoinSet::new();
    let serving =
        Serving { app: app.clone(), settings: settings.clone(), metrics, cores: cores.all(), bulk: bulk.handle() };
    listener.spawn(listen::listener::serve(bound, serving, stages.clone()));
    let drain_timeout = Duration::from_secs(settings.drain_timeout_s);
    let beside = std::mem::take(&mut starting.beside);
    Ok(Running { address, app, store, stages, listener, beside, cores, bulk, hint, drain_timeout })
}

/// What has been started so far. Dropped because the start failed or was given up, it has the follower take the
/// replica's row away: else every revocation would wait for a server that never came to be.
struct Starting {
    stages: Stages,
    beside: JoinSet<()>,
}

impl Drop for Starting {
    fn drop(&mut self) {
        let beside = std::mem::take(&mut self.beside);
        if !beside.is_empty()
            && let Ok(runtime) = Handle::try_current()
        {
            self.stages.enter(Stage::Stopped);
            runtime.spawn(ended_within(STEP_WAIT, beside));
        }
    }
}

/// How long a server waits for its first look at the log.
const FIRST_HEAD_WAIT: Duration = Duration::from_secs(30);
/// How long each step of a stop after the drain may take: all of them talk to the database at most once.
const STEP_WAIT: Duration = Duration::from_secs(5);

async fn wait_until_following(verifier: &Verifier) -> Result<(), StartError> {
    let mut changes = verifier.applied_changes();
    let following = async {
        // One that may answer nothing serves too: it says so, and goes on once an operator has accepted the history.
        while !verifier.has_lease() && verifier.follower_state() != FollowerState::OtherDatabase {
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

    /// Completes if a part of it ends before it is told to: then it can only be stopped.
    pub async fn ended(&mut self) -> PartEnded {
        let joined = tokio::select! {
            joined = self.listener.join_next() => joined,
            joined = self.beside.join_next() => joined,
        };
        if let Some(Err(error)) = joined {
            tracing::error!(%error, "a part of the server panicked");
        }
        PartEnded
    }

    /// Stops in the order that calls need: health says NOT_SERVING and no new call comes in; running ones are given
    /// the drain time while the log is still followed; then the follower gives its lease up, the last uses of
    /// tokens are written, and the pools close. Always ends, soon after the drain time at the latest.
    pub async fn stop(self) {
        let Self { app, store, stages, listener, beside, cores, bulk, hint, drain_timeout, .. } = self;
        stages.enter(Stage::Draining);
        if !ended_within(drain_timeout, listener).await {
            tracing::warn!("some calls did not end in time and were cut");
        }
        stages.enter(Stage::Stopped);
        if !ended_within(STEP_WAIT, beside).await {
            tracing::warn!("the follower or the housekeeping did not end in time and was cut");
        }
        drop(hint);
        match tokio::time::timeout(STEP_WAIT, app.flush_usage()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(error = %error, "the last uses of tokens were not written"),
            Err(_) => tracing::warn!("the last uses of tokens were not written: the database does not answer"),
        }
        if !matches!(tokio::time::timeout(STEP_WAIT, app.record_operator_reads()).await, Ok(Ok(()))) {
            tracing::warn!(
                "the last reads by operators are not in the log: the lines of target latchkey::audit tell of them"
            );
        }
        // Not before: a mutation whose caller was cut off may have been about to commit.
        if tokio::time::timeout(STEP_WAIT, cores.stop()).await.is_err() {
            tracing::warn!("a serving thread is stuck in a call and was left behind");
        }
        bulk.stop(STEP_WAIT).await;
        store.close();
    }
}

/// Waits for tasks, and cuts those that take longer; whether none did.
async fn ended_within(limit: Duration, mut tasks: JoinSet<()>) -> bool {
    let all = async { while tasks.join_next().await.is_some() {} };
    if tokio::time::timeout(limit, all).await.is_ok() {
        return true;
    }
    tasks.shutdown().await;
    false
}

//! Starts a server, in an order in which a failed start does not delay other replicas.

use std::{sync::Arc, time::Duration};

use tokio::{runtime::Handle, task::JoinSet};

use super::{
    open::{OpenedDatabase, Purpose, open_for},
    replica_name::is_dead,
};
use crate::{
    server::{
        error::StartError,
        lifecycle::{Lifecycle, NotificationTask, Phase},
        listen::listener::{self, ServerParts},
        observe,
        running::{RunningServer, STEP_WAIT, ended_within},
        threads::{bulk::BulkThreads, serving::ServingThreads},
    },
    settings::Settings,
    telemetry::Metrics,
    verify::{FollowerState, Verifier},
};

/// How long a server waits until it follows the log.
const FIRST_HEAD_WAIT: Duration = Duration::from_secs(30);
/// Starts the server; it serves when this returns.
///
/// # Errors
/// [`StartError`]; everything that was started by then ends.
pub async fn start(settings: &Settings, metrics: Arc<Metrics>) -> Result<RunningServer, StartError> {
    let bulk = start_bulk(settings)?;
    let opened = open_for(Purpose::Serving(bulk.handle()), settings, metrics.clone()).await?;
    serve(opened, bulk, settings, metrics).await
}

/// Starts the server as [`start`] does, for a database that no other machine reaches. First evicts the replicas whose
/// processes on this machine have ended: otherwise the first revocation after a `kill -9` would wait for a lease that
/// no process holds.
///
/// # Errors
/// As [`start`].
pub async fn start_private(settings: &Settings, metrics: Arc<Metrics>) -> Result<RunningServer, StartError> {
    let bulk = start_bulk(settings)?;
    let opened = open_for(Purpose::Serving(bulk.handle()), settings, metrics.clone()).await?;
    let unusable = |source| StartError::Database { address: settings.database_url.redacted(), source };
    opened.store.evict_dead_replicas(is_dead).await.map_err(unusable)?;
    serve(opened, bulk, settings, metrics).await
}

fn start_bulk(settings: &Settings) -> Result<BulkThreads, StartError> {
    let count = settings.serving_threads;
    BulkThreads::start(count).map_err(|source| StartError::Threads { count, source })
}

async fn serve(
    opened: OpenedDatabase,
    bulk: BulkThreads,
    settings: &Settings,
    metrics: Arc<Metrics>,
) -> Result<RunningServer, StartError> {
    let OpenedDatabase { app, store, verifier, follower } = opened;
    // Before the others wait for this replica: a start that fails here must not delay them.
    let bound = listener::bind(settings.listen_address)
        .await
        .map_err(|source| StartError::Listen { address: settings.listen_address, source })?;
    let address = bound.address;
    let count = settings.serving_threads;
    let threads = ServingThreads::start(count).map_err(|source| StartError::Threads { count, source })?;
    let notifications = NotificationTask(store.listen(verifier.wake()));
    let lifecycle = Lifecycle::new();
    let mut starting = Starting { lifecycle: lifecycle.clone(), background: JoinSet::new() };
    let background = &mut starting.background;
    background.spawn(follower.run(lifecycle.reached(Phase::Stopped)));
    background.spawn(lifecycle.run_until(Phase::Draining, app.clone().evict_lost_replicas()));
    let stopped = lifecycle.reached(Phase::Stopped);
    background.spawn(observe::verifications(verifier.clone(), metrics.clone(), stopped));
    wait_until_following(&verifier).await?;
    // Not earlier: housekeeping appends events, and the log may still turn out to be another database's.
    starting.background.spawn(lifecycle.run_until(Phase::Stopped, app.clone().housekeeping()));
    let mut listener = JoinSet::new();
    let serving = ServerParts {
        app: app.clone(),
        settings: settings.clone(),
        metrics,
        threads: threads.all(),
        bulk: bulk.handle(),
    };
    listener.spawn(listener::serve(bound, serving, lifecycle.clone()));
    let drain_timeout = Duration::from_secs(settings.drain_timeout_s);
    let background = std::mem::take(&mut starting.background);
    Ok(RunningServer {
        address,
        app,
        store,
        lifecycle,
        listener,
        background,
        threads,
        bulk,
        notifications,
        drain_timeout,
    })
}

/// The tasks that were started so far. If it is dropped because the start failed or was cancelled, the follower
/// deregisters the replica: otherwise every revocation would wait for a server that never served.
struct Starting {
    lifecycle: Lifecycle,
    background: JoinSet<()>,
}

impl Drop for Starting {
    fn drop(&mut self) {
        let background = std::mem::take(&mut self.background);
        if !background.is_empty()
            && let Ok(runtime) = Handle::try_current()
        {
            self.lifecycle.enter(Phase::Stopped);
            runtime.spawn(ended_within(STEP_WAIT, background));
        }
    }
}

async fn wait_until_following(verifier: &Verifier) -> Result<(), StartError> {
    let mut changes = verifier.applied_changes();
    let following = async {
        // A replica on a history that was not accepted serves, too: it answers UNAVAILABLE until an operator accepts
        // the history.
        while !verifier.has_lease() && verifier.follower_state() != FollowerState::OtherDatabase {
            // The lease follows right after the revision: poll again soon instead of waiting for the next change.
            let _ = tokio::time::timeout(Duration::from_millis(10), changes.changed()).await;
        }
    };
    tokio::time::timeout(FIRST_HEAD_WAIT, following).await.map_err(|_| StartError::NotFollowing)
}

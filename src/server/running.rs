//! A running server, and how it stops.

use std::{net::SocketAddr, time::Duration};

use tokio::task::JoinSet;

use super::{
    error::TaskEnded,
    lifecycle::{Lifecycle, NotificationTask, Phase},
    threads::{bulk::BulkThreads, serving::ServingThreads},
};
use crate::{app::App, store::PostgresStore};

/// How long each step of a stop may take after the drain: each talks to the database at most once.
pub(super) const STEP_WAIT: Duration = Duration::from_secs(5);

/// A running server. Dropping it without [`RunningServer::stop`] ends it at once.
pub struct RunningServer {
    pub(super) address: SocketAddr,
    pub(super) app: App,
    pub(super) store: PostgresStore,
    pub(super) lifecycle: Lifecycle,
    /// The tasks that answer calls: the first to be stopped, and given time.
    pub(super) listener: JoinSet<()>,
    /// The tasks that calls rely on, and that outlive them: the follower, housekeeping, metrics.
    pub(super) background: JoinSet<()>,
    /// The threads that calls run on.
    pub(super) threads: ServingThreads,
    /// The threads that bulk calls run on.
    pub(super) bulk: BulkThreads,
    pub(super) notifications: NotificationTask,
    pub(super) drain_timeout: Duration,
}

// === impl RunningServer ===

impl RunningServer {
    /// Returns the address that it listens on.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns its use-cases, for callers in the same process.
    #[must_use]
    pub fn app(&self) -> &App {
        &self.app
    }

    /// Completes if a task ends although the server was not asked to stop; then it can only be stopped.
    pub async fn ended(&mut self) -> TaskEnded {
        let joined = tokio::select! {
            joined = self.listener.join_next() => joined,
            joined = self.background.join_next() => joined,
        };
        if let Some(Err(error)) = joined {
            tracing::error!(%error, "a part of the server panicked");
        }
        TaskEnded
    }

    /// Stops the server in the order that calls need. Health reports NOT_SERVING and no new call is accepted; running
    /// calls are given the drain time while the log is still followed; then the follower gives up its lease, the last
    /// uses of tokens are written, and the pools close. Always ends, soon after the drain time at the latest.
    pub async fn stop(self) {
        let Self { app, store, lifecycle, listener, background, threads, bulk, notifications, drain_timeout, .. } =
            self;
        lifecycle.enter(Phase::Draining);
        if !ended_within(drain_timeout, listener).await {
            tracing::warn!("some calls did not end within drain_timeout_s and were cut");
        }
        lifecycle.enter(Phase::Stopped);
        if !ended_within(STEP_WAIT, background).await {
            tracing::warn!("the follower or the housekeeping did not end in time and was cut");
        }
        drop(notifications);
        match tokio::time::timeout(STEP_WAIT, app.flush_usage()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(error = %error, "the last uses of tokens were not written"),
            Err(_) => tracing::warn!("the last uses of tokens were not written: the database did not answer"),
        }
        if !matches!(tokio::time::timeout(STEP_WAIT, app.record_operator_reads()).await, Ok(Ok(()))) {
            tracing::warn!(
                "the last reads by operators were not recorded as events; the log lines of target latchkey::audit have them"
            );
        }
        // Not earlier: a mutation whose caller was cut off may have been about to commit.
        if tokio::time::timeout(STEP_WAIT, threads.stop()).await.is_err() {
            tracing::warn!("a serving thread is stuck in a call and was left behind");
        }
        bulk.stop(STEP_WAIT).await;
        store.close();
    }
}

/// Waits for tasks and aborts those that exceed the limit; returns whether none did.
pub(super) async fn ended_within(limit: Duration, mut tasks: JoinSet<()>) -> bool {
    let all = async { while tasks.join_next().await.is_some() {} };
    if tokio::time::timeout(limit, all).await.is_ok() {
        return true;
    }
    tasks.shutdown().await;
    false
}

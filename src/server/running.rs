//! A server that runs, and how it stops.

use std::{net::SocketAddr, time::Duration};

use tokio::task::JoinSet;

use super::{
    error::TaskEnded,
    lifecycle::{Lifecycle, NotificationTask, Phase},
    threads::{bulk::BulkThreads, serving::ServingThreads},
};
use crate::{app::App, store::PostgresStore};

/// How long each step of a stop after the drain may take: all of them talk to the database at most once.
pub(super) const STEP_WAIT: Duration = Duration::from_secs(5);

/// A server that runs. Dropped without [`RunningServer::stop`], it ends at once.
pub struct RunningServer {
    pub(super) address: SocketAddr,
    pub(super) app: App,
    pub(super) store: PostgresStore,
    pub(super) lifecycle: Lifecycle,
    /// What answers calls: the first to be stopped, and given time.
    pub(super) listener: JoinSet<()>,
    /// What calls rely on, and so outlives them: the follower, housekeeping, what is counted.
    pub(super) background: JoinSet<()>,
    /// Where calls run.
    pub(super) threads: ServingThreads,
    /// Where bulk calls run.
    pub(super) bulk: BulkThreads,
    pub(super) notifications: NotificationTask,
    pub(super) drain_timeout: Duration,
}

// === impl RunningServer ===

impl RunningServer {
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

    /// Stops in the order that calls need: health says NOT_SERVING and no new call comes in; running ones are given
    /// the drain time while the log is still followed; then the follower gives its lease up, the last uses of
    /// tokens are written, and the pools close. Always ends, soon after the drain time at the latest.
    pub async fn stop(self) {
        let Self { app, store, lifecycle, listener, background, threads, bulk, notifications, drain_timeout, .. } =
            self;
        lifecycle.enter(Phase::Draining);
        if !ended_within(drain_timeout, listener).await {
            tracing::warn!("some calls did not end in time and were cut");
        }
        lifecycle.enter(Phase::Stopped);
        if !ended_within(STEP_WAIT, background).await {
            tracing::warn!("the follower or the housekeeping did not end in time and was cut");
        }
        drop(notifications);
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
        if tokio::time::timeout(STEP_WAIT, threads.stop()).await.is_err() {
            tracing::warn!("a serving thread is stuck in a call and was left behind");
        }
        bulk.stop(STEP_WAIT).await;
        store.close();
    }
}

/// Waits for tasks, and cuts those that take longer; whether none did.
pub(super) async fn ended_within(limit: Duration, mut tasks: JoinSet<()>) -> bool {
    let all = async { while tasks.join_next().await.is_some() {} };
    if tokio::time::timeout(limit, all).await.is_ok() {
        return true;
    }
    tasks.shutdown().await;
    false
}

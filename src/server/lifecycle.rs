//! The phases of a server's life, in which its parts end.

use tokio::{sync::watch, task::JoinHandle};

/// The phase of a server; each ends more parts than the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    /// Everything runs.
    Serving,
    /// Running calls go on, and what they rely on.
    Draining,
    /// Everything has ended.
    Stopped,
}

/// The current phase of a server, shared by all its parts. A server that is dropped has stopped.
#[derive(Clone)]
pub(super) struct Lifecycle(watch::Sender<Phase>);

/// The task that listens for notifications from the database, aborted on drop.
pub(super) struct NotificationTask(pub JoinHandle<()>);

impl Lifecycle {
    pub(super) fn new() -> Self {
        Self(watch::Sender::new(Phase::Serving))
    }

    pub(super) fn enter(&self, phase: Phase) {
        self.0.send_replace(phase);
    }

    /// Completes when the phase, or a later one, is entered.
    pub(super) fn reached(&self, phase: Phase) -> impl Future<Output = ()> + Send + use<> {
        let mut lifecycle = self.0.subscribe();
        async move {
            // A dropped sender means the same.
            let _ = lifecycle.wait_for(|now| *now >= phase).await;
        }
    }

    /// Runs work until the phase, or a later one, is entered.
    pub(super) fn run_until<W>(&self, phase: Phase, work: W) -> impl Future<Output = ()> + Send + use<W>
    where
        W: Future<Output = ()> + Send,
    {
        let entered = self.reached(phase);
        async move {
            tokio::select! {
                () = work => {}
                () = entered => {}
            }
        }
    }
}

impl Drop for NotificationTask {
    fn drop(&mut self) {
        self.0.abort();
    }
}

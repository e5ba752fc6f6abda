//! The stages of a server's life, in which its parts end.

use tokio::{sync::watch, task::JoinHandle};

/// What is still to run; each stage ends more than the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stage {
    /// Everything.
    Serving,
    /// Calls that run already, and what they rely on.
    Draining,
    /// Nothing.
    Stopped,
}

/// The stage that a server is in, for all its parts. A server that is dropped has stopped.
#[derive(Clone)]
pub(super) struct Stages(watch::Sender<Stage>);

/// The task that listens for notifications of the database; it ends with this.
pub(super) struct Hint(pub JoinHandle<()>);

impl Stages {
    pub(super) fn new() -> Self {
        Self(watch::Sender::new(Stage::Serving))
    }

    pub(super) fn enter(&self, stage: Stage) {
        self.0.send_replace(stage);
    }

    /// Completes when the stage, or a later one, is entered.
    pub(super) fn reached(&self, stage: Stage) -> impl Future<Output = ()> + Send + use<> {
        let mut stages = self.0.subscribe();
        async move {
            // A sender that is gone means the same.
            let _ = stages.wait_for(|now| *now >= stage).await;
        }
    }

    /// Runs work until the stage, or a later one, is entered.
    pub(super) fn until<W>(&self, stage: Stage, work: W) -> impl Future<Output = ()> + Send + use<W>
    where
        W: Future<Output = ()> + Send,
    {
        let entered = self.reached(stage);
        async move {
            tokio::select! {
                () = work => {}
                () = entered => {}
            }
        }
    }
}

impl Drop for Hint {
    fn drop(&mut self) {
        self.0.abort();
    }
}

//! How far this replica has followed the log, and a way to wait for it.
//!
//! The follower alone writes. An answer claims this revision, so it is advanced only after the fences of
//! its event are up (V1).

use std::sync::atomic::{AtomicI64, Ordering};

use tokio::{
    sync::watch,
    time::{Instant, timeout_at},
};

use crate::domain::revision::Revision;

const NOT_STARTED: i64 = -1;

/// The applied revision. A process lives in one epoch: another one is a divergence.
pub struct Applied {
    epoch: AtomicI64,
    number: AtomicI64,
    changes: watch::Sender<i64>,
}

impl Default for Applied {
    fn default() -> Self {
        Self { epoch: AtomicI64::new(0), number: AtomicI64::new(NOT_STARTED), changes: watch::Sender::new(NOT_STARTED) }
    }
}

impl Applied {
    /// The first revision, once the fences stand at it.
    pub fn start(&self, revision: Revision) {
        self.epoch.store(revision.epoch, Ordering::Relaxed);
        self.advance(revision.number);
    }

    /// The next number, once the fences of its event are up.
    pub fn advance(&self, number: i64) {
        // Release: who sees the number sees the fences, and the epoch.
        let before = self.number.swap(number, Ordering::Release);
        debug_assert!(before < number, "the log is followed forward only");
        self.changes.send_replace(number);
    }

    /// The applied revision; `None` before the first head was read.
    #[must_use]
    pub fn revision(&self) -> Option<Revision> {
        let number = self.number.load(Ordering::Acquire);
        (number != NOT_STARTED).then(|| Revision { epoch: self.epoch.load(Ordering::Relaxed), number })
    }

    /// Waits until `number` is applied; false if the deadline comes first.
    pub async fn await_number(&self, number: i64, deadline: Instant) -> bool {
        let mut changes = self.subscribe();
        let reached = changes.wait_for(|applied| *applied >= number);
        matches!(timeout_at(deadline, reached).await, Ok(Ok(_)))
    }

    /// Tells of every advance: the number applied, -1 before the first.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<i64> {
        self.changes.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use super::*;

    #[test]
    fn nothing_is_applied_before_the_start() {
        let applied = Applied::default();
        assert_eq!(applied.revision(), None);
        applied.start(Revision { epoch: 2, number: 0 });
        applied.advance(1);
        assert_eq!(applied.revision(), Some(Revision { epoch: 2, number: 1 }));
    }

    #[tokio::test]
    async fn a_waiter_is_woken_when_its_number_is_applied() {
        let applied = Arc::new(Applied::default());
        applied.start(Revision { epoch: 1, number: 4 });
        let deadline = Instant::now() + Duration::from_secs(60);
        assert!(applied.await_number(4, deadline).await);
        let waiter = tokio::spawn({
            let applied = applied.clone();
            async move { applied.await_number(6, deadline).await }
        });
        applied.advance(5);
        applied.advance(6);
        assert!(waiter.await.expect("no panic"));
    }

    #[tokio::test]
    async fn a_waiter_gives_up_at_its_deadline() {
        let applied = Applied::default();
        assert!(!applied.await_number(1, Instant::now()).await);
    }
}

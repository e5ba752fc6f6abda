//! How far this replica has followed the log, and a way to wait for it.
//!
//! The follower alone writes. An answer claims this revision, so it is advanced only after the fences of
//! its event are up (V1). It only goes up: an accepted history starts a later epoch, above all of the old.

use tokio::{
    sync::watch,
    time::{Instant, timeout_at},
};

use crate::{
    domain::log::revision::{Revision, RevisionStamp},
    verify::fence::ordered::PublishedStamp,
};

const NOT_STARTED: i64 = -1;

/// The applied revision.
pub struct Applied {
    stamp: PublishedStamp,
    changes: watch::Sender<Option<Revision>>,
}

impl Default for Applied {
    fn default() -> Self {
        Self { stamp: PublishedStamp::new(NOT_STARTED), changes: watch::Sender::new(None) }
    }
}

impl Applied {
    /// Publishes the next revision, once the fences of its event are up; or where a join starts, once they stand
    /// there.
    pub fn advance(&self, stamp: RevisionStamp) {
        let before = self.stamp.advance(stamp.bits());
        debug_assert!(before <= stamp.bits(), "the log is followed forward only");
        self.changes.send_replace(Some(stamp.revision()));
    }

    /// Returns the applied revision; `None` before the first head was read.
    #[must_use]
    pub fn stamp(&self) -> Option<RevisionStamp> {
        let stamp = self.stamp.load();
        (stamp != NOT_STARTED).then(|| RevisionStamp::from_bits(stamp))
    }

    /// Waits until a revision is applied; false if the deadline comes first.
    pub async fn reached(&self, revision: Revision, deadline: Instant) -> bool {
        self.reaches(deadline, |applied| applied >= revision).await
    }

    /// Waits until the epoch that is followed has reached a number; false if the deadline comes first.
    pub async fn await_number(&self, number: i64, deadline: Instant) -> bool {
        self.reaches(deadline, |applied| applied.number >= number).await
    }

    async fn reaches(&self, deadline: Instant, reached: impl Fn(Revision) -> bool) -> bool {
        let mut changes = self.subscribe();
        let reached = changes.wait_for(|applied| applied.is_some_and(&reached));
        matches!(timeout_at(deadline, reached).await, Ok(Ok(_)))
    }

    /// Subscribes to advances; `None` before the first.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<Option<Revision>> {
        self.changes.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use super::*;

    const fn revision(epoch: i64, number: i64) -> Revision {
        Revision { epoch, number }
    }

    fn advance(applied: &Applied, epoch: i64, number: i64) {
        applied.advance(revision(epoch, number).stamp().expect("small"));
    }

    #[test]
    fn nothing_is_applied_before_the_start() {
        let applied = Applied::default();
        assert_eq!(applied.stamp(), None);
        advance(&applied, 2, 0);
        advance(&applied, 2, 1);
        assert_eq!(applied.stamp().map(RevisionStamp::revision), Some(revision(2, 1)));
        assert_eq!(*applied.subscribe().borrow(), Some(revision(2, 1)));
    }

    #[tokio::test]
    async fn a_waiter_is_woken_when_its_revision_is_applied() {
        let applied = Arc::new(Applied::default());
        advance(&applied, 1, 4);
        let deadline = Instant::now() + Duration::from_secs(60);
        assert!(applied.reached(revision(1, 4), deadline).await);
        let waiter = tokio::spawn({
            let applied = applied.clone();
            async move { applied.reached(revision(1, 6), deadline).await }
        });
        advance(&applied, 1, 5);
        advance(&applied, 1, 6);
        assert!(waiter.await.expect("no panic"));
    }

    #[tokio::test]
    async fn a_later_epoch_is_past_every_number_of_an_earlier_one() {
        let applied = Applied::default();
        advance(&applied, 1, 9);
        advance(&applied, 2, 3);
        assert!(applied.reached(revision(1, 100), Instant::now()).await);
        assert!(!applied.reached(revision(2, 4), Instant::now()).await);
        assert!(!applied.await_number(4, Instant::now()).await);
    }

    #[tokio::test]
    async fn a_waiter_gives_up_at_its_deadline() {
        let applied = Applied::default();
        assert!(!applied.reached(revision(1, 1), Instant::now()).await);
    }
}

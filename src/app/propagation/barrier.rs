//! The barrier: what lets a mutation say that it is complete on every replica (V1).
//!
//! After the commit, the rows of `replicas` are read until each has applied the mutation's revision or
//! is gone; `replica_poller` reads them for all that wait, and evicts those that can serve no more.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};

use super::wait::Wait;
use crate::{
    app::{
        App, AppError, caller::session::Session, error::StoreError, events::log_position::LogPosition,
        types::Propagation,
    },
    domain::log::revision::Revision,
    verify::replica::lease::drift_margin,
};

/// How much longer than a lease a call without a deadline waits at least: time to see, evict and answer.
const BEYOND_LEASE_MIN: Duration = Duration::from_secs(1);
/// How long the one poll of a call that asked not to wait may take.
const SKIPPED_POLL_MAX: Duration = Duration::from_millis(100);
/// The first pause between two polls of the rows; it doubles.
const PAUSE_MIN: Duration = Duration::from_millis(1);
const PAUSE_MAX: Duration = Duration::from_millis(50);

// === impl App ===

impl App {
    /// Waits until every replica has applied `revision` or can serve no more, as long as `wait` allows.
    /// The change is committed either way: what cannot be known is not complete.
    pub(crate) async fn propagate(&self, revision: Revision, wait: Wait) -> Propagation {
        let own_limit = || Instant::now() + without_deadline(self.limits().lease);
        let answer_by =
            if wait.skip { wait.at_most(SKIPPED_POLL_MAX) } else { wait.answer_by().unwrap_or_else(own_limit) };
        // After the commit: a poll from before it has not seen who registered meanwhile.
        let mut ticket = self.replica_poller().ticket();
        let mut pause = PAUSE_MIN;
        let mut pending = None;
        while let Ok(poll) = timeout_at(answer_by, self.replica_poller().after(ticket)).await {
            match poll.below(revision) {
                Some(0) => return Propagation { complete: true, revision, pending_replicas: 0 },
                Some(count) => pending = Some(count),
                // The store may be back before the deadline.
                None => {}
            }
            if wait.skip || Instant::now() + pause >= answer_by {
                break;
            }
            // Any newer poll will do, whichever call starts it.
            ticket = poll.ticket();
            sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
        // At least one, if the rows could not be read.
        Propagation { complete: false, revision, pending_replicas: pending.unwrap_or(1) }
    }

    /// Does as [`Self::propagate`] for the head of the log as it is after the call, for a call that finds nothing left
    /// to change: by one poll, shared by all that wait for it, and not by a transaction each.
    ///
    /// # Errors
    /// The store does not answer in time: then what is to be waited for is not known.
    pub(crate) async fn propagate_head(&self, wait: Wait) -> Result<Propagation, AppError> {
        let unknown = || AppError::Store(StoreError::Unavailable("the head of the log could not be read".into()));
        let by = wait.answer_by().unwrap_or_else(|| Instant::now() + without_deadline(self.limits().lease));
        let poll =
            timeout_at(by, self.replica_poller().after(self.replica_poller().ticket())).await.map_err(|_| unknown())?;
        let revision = poll.head().ok_or_else(unknown)?;
        let pending = poll.below(revision).ok_or_else(unknown)?;
        if pending == 0 || wait.skip {
            return Ok(Propagation { complete: pending == 0, revision, pending_replicas: pending });
        }
        Ok(self.propagate(revision, wait).await)
    }

    /// Polls the replicas although no call waits, so that one that is lost for long, or never renewed its lease,
    /// costs the next revocation nothing.
    pub(crate) async fn poll_replicas(&self) {
        self.replica_poller().after(self.replica_poller().ticket()).await;
    }

    /// Waits for a revision, or for the head of the log, on every replica. Any caller may.
    ///
    /// # Errors
    /// The head cannot be read. A revision beyond it, or of a history that was lost, is refused.
    pub async fn await_propagation(
        &self,
        session: &Session,
        revision: Option<Revision>,
    ) -> Result<Propagation, AppError> {
        let (mut reader, _) = self.open(session).await?;
        let head = reader.head().await?;
        let revision = match revision {
            Some(revision) => {
                LogPosition::named(Some(revision)).check(reader.as_mut(), head).await?;
                revision.min(head)
            }
            None => head,
        };
        drop(reader);
        Ok(self.propagate(revision, session.wait()).await)
    }
}

/// Returns how long a call without a deadline waits: until a replica with a lease like this one's, lost right now, can
/// serve no more and is evicted.
fn without_deadline(lease: Duration) -> Duration {
    lease + BEYOND_LEASE_MIN.max(2 * drift_margin(lease))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_call_without_a_deadline_outwaits_the_lease_and_the_drift_of_clocks() {
        assert_eq!(without_deadline(10 * SECOND), 11 * SECOND);
        assert_eq!(without_deadline(600 * SECOND), 612 * SECOND);
    }
}

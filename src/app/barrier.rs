//! The barrier: what lets a mutation say that it is complete on every replica (V1).
//!
//! After the commit, the rows of `replicas` are read until each has applied the mutation's revision or
//! is gone. A row whose `renewal_no` this process has seen unchanged for longer than that replica can
//! serve is evicted; that deletion waits for a renewal in flight and finds nothing if the renewal won.
//! Only durations of this process's own monotonic clock are compared, never the database's timestamps.

use std::{
    collections::{HashMap, HashSet},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;
use uuid::Uuid;

use super::{App, Error, place::Place, ports::ReplicaRow, session::Session, types::Propagation};
use crate::domain::revision::Revision;

/// What an answer needs to reach the caller before its deadline.
const ANSWER_MARGIN: Duration = Duration::from_millis(50);
/// How much longer than a lease a call without a deadline waits: time to see, evict and answer.
const BEYOND_LEASE: Duration = Duration::from_secs(1);
/// Clock rates agree to one in so many; see the margin of the lease.
const DRIFT_PARTS: u32 = 100;
/// The margin for drift is never less.
const DRIFT_MARGIN_MIN: Duration = Duration::from_millis(10);
/// The first pause between two looks at the rows; it doubles.
const PAUSE_MIN: Duration = Duration::from_millis(1);
const PAUSE_MAX: Duration = Duration::from_millis(50);

/// How long a call waits for its mutation to reach every replica.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wait {
    /// When the caller gives up, if it said.
    pub deadline: Option<Instant>,
    /// The caller asked not to wait.
    pub skip: bool,
}

/// Since when this process has seen each replica's `renewal_no` unchanged. Kept across barriers, so that
/// a dead replica is waited for once, not once a call.
#[derive(Default)]
pub(super) struct Renewals(Mutex<HashMap<Uuid, Seen>>);

#[derive(Clone, Copy)]
struct Seen {
    renewal_no: i64,
    since: Instant,
}

// === impl Renewals ===

impl Renewals {
    /// Notes what was read at `now`, after the statement's reply; the rows that can serve no more.
    fn lapsed<'a>(&self, rows: &'a [ReplicaRow], now: Instant) -> Vec<&'a ReplicaRow> {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let registered: HashSet<Uuid> = rows.iter().map(|row| row.incarnation).collect();
        seen.retain(|incarnation, _| registered.contains(incarnation));
        let lapsed = |row: &&ReplicaRow| {
            let fresh = Seen { renewal_no: row.renewal_no, since: now };
            let seen = seen.entry(row.incarnation).or_insert(fresh);
            if seen.renewal_no != row.renewal_no {
                *seen = fresh;
            }
            now.duration_since(seen.since) > serves_at_most(row)
        };
        rows.iter().filter(lapsed).collect()
    }
}

/// How long a replica can serve after its last renewal: its lease, what it may serve without one, and
/// what its clock may run slower than this one.
fn serves_at_most(row: &ReplicaRow) -> Duration {
    let span = row.lease + row.stale_max;
    span + (span / DRIFT_PARTS).max(DRIFT_MARGIN_MIN)
}

// === impl App ===

impl App {
    /// Waits until every replica has applied `revision` or can serve no more, as long as `wait` allows.
    /// The change is committed either way: what cannot be known is not complete.
    pub(super) async fn propagate(&self, revision: Revision, wait: Wait) -> Propagation {
        let own_limit = Instant::now() + self.limits().lease + BEYOND_LEASE;
        let deadline =
            wait.deadline.map_or(own_limit, |deadline| deadline.checked_sub(ANSWER_MARGIN).unwrap_or(deadline));
        let mut pause = PAUSE_MIN;
        let mut pending = None;
        loop {
            match self.pending_replicas(revision).await {
                Ok(0) => return Propagation { complete: true, revision, pending_replicas: 0 },
                Ok(count) => pending = Some(count),
                // The store may be back before the deadline.
                Err(error) => tracing::debug!(error = %error, "replicas cannot be read"),
            }
            if wait.skip || Instant::now() + pause >= deadline {
                // At least one, whoever it is, if nobody could be asked.
                return Propagation { complete: false, revision, pending_replicas: pending.unwrap_or(1) };
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// How many replicas may still serve from before `revision`; evicts those that cannot serve at all.
    async fn pending_replicas(&self, revision: Revision) -> Result<u32, Error> {
        let rows = self.store().replicas().await?;
        let now = Instant::now();
        let mut gone = HashSet::new();
        for row in self.renewals().lapsed(&rows, now) {
            if self.store().evict_replica(row.incarnation, row.renewal_no).await? {
                tracing::warn!(incarnation = %row.incarnation, "a replica stopped renewing its lease and was evicted");
                gone.insert(row.incarnation);
            }
        }
        let pending = rows.iter().filter(|row| row.applied < revision && !gone.contains(&row.incarnation));
        Ok(u32::try_from(pending.count()).unwrap_or(u32::MAX))
    }

    /// Waits for a revision, or for the head of the log, on every replica. Any caller may.
    ///
    /// # Errors
    /// The head cannot be read. A revision beyond it, or of a history that was lost, is refused.
    pub async fn await_propagation(&self, session: &Session, revision: Option<Revision>) -> Result<Propagation, Error> {
        let (mut reader, _) = self.open(session).await?;
        let head = reader.head().await?;
        let revision = match revision {
            Some(revision) => {
                Place::named(Some(revision)).check(reader.as_mut(), head).await?;
                revision.min(head)
            }
            None => head,
        };
        drop(reader);
        Ok(self.propagate(revision, session.wait()).await)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_secs(10);

    fn row(renewal_no: i64) -> ReplicaRow {
        ReplicaRow {
            incarnation: Uuid::from_u128(1),
            renewal_no,
            applied: Revision { epoch: 1, number: 1 },
            lease: LEASE,
            stale_max: Duration::from_secs(5),
        }
    }

    #[test]
    fn v1_a_replica_lapses_only_after_lease_staleness_and_margin_without_a_renewal() {
        let renewals = Renewals::default();
        let start = Instant::now();
        let lapsed = |renewal_no, after_ms| {
            !renewals.lapsed(&[row(renewal_no)], start + Duration::from_millis(after_ms)).is_empty()
        };
        assert!(!lapsed(1, 0));
        assert!(!lapsed(1, 15_150));
        assert!(lapsed(1, 15_151));
        // A renewal starts the wait afresh, however long ago the last one was seen.
        assert!(!lapsed(2, 20_000));
        assert!(!lapsed(2, 35_150));
        assert!(lapsed(2, 35_151));
    }

    #[test]
    fn v1_a_row_that_was_gone_is_observed_afresh() {
        let renewals = Renewals::default();
        let start = Instant::now();
        assert!(renewals.lapsed(&[row(1)], start).is_empty());
        assert!(renewals.lapsed(&[], start + LEASE).is_empty());
        assert!(renewals.lapsed(&[row(1)], start + 2 * LEASE).is_empty());
    }
}

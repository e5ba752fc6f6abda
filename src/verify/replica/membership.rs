//! The row in `replicas`: by it, a mutation that withdraws authority knows that this process may answer from its
//! cache, how far it has applied the log, and until when it must be waited for (V1).
//!
//! It sends what the follower hands it, and notes when. What a reply allows is for [`super::follower`] to judge.

use std::{future::Future, sync::Arc, time::Duration};

use uuid::Uuid;

use super::{divergence::Point, state::Replica};
use crate::{
    entropy::random_uuid,
    verify::{
        fence::ordered::fence_before_ack,
        primary::{Acknowledged, Acknowledgement, Registration, Unavailable},
    },
};

/// Calls to the database must fail well before the lease does.
const CALLS_PER_LEASE: u32 = 3;
/// Renewals are sent a quarter of the lease apart, so that with the way there one arrives every third.
const RENEWALS_PER_LEASE: u32 = 4;
/// A process that stops does not wait longer than this for its row to go.
const LEAVE_TIMEOUT_MAX: Duration = Duration::from_secs(1);

/// The identity of this process among the replicas.
pub struct ReplicaIdentity {
    /// For people: at most 200 characters.
    pub name: String,
    /// Where its incarnations come from.
    pub incarnations: Box<dyn Incarnations>,
}

/// A source of ids that were never used before, at the edge, so that a test owns it.
pub trait Incarnations: Send + Sync {
    /// Returns the next one.
    fn next(&self) -> Uuid;
}

/// Random ids.
pub struct RandomIncarnations;

/// This process's row.
pub(crate) struct Membership {
    replica: Arc<Replica>,
    identity: ReplicaIdentity,
    pepper_ids: Vec<String>,
    row: Option<RegisteredRow>,
}

struct RegisteredRow {
    incarnation: Uuid,
    acknowledged: Option<Point>,
    /// The boot clock just before the last renewal that succeeded was sent.
    renewed_boot_micros: i64,
}

/// The outcome of an acknowledgement.
#[derive(Clone, Copy, Debug)]
pub(crate) enum AckOutcome {
    /// It is on record.
    Recorded,
    /// It is on record, and the lease was renewed by a statement sent at this moment of the boot clock.
    Renewed { sent: i64 },
    /// There is no row any more.
    Evicted,
    /// The log is not the one that was applied.
    HistoryDiverged,
}

impl Incarnations for RandomIncarnations {
    fn next(&self) -> Uuid {
        random_uuid()
    }
}

impl Membership {
    pub fn new(replica: Arc<Replica>, identity: ReplicaIdentity, pepper_ids: Vec<String>) -> Self {
        Self { replica, identity, pepper_ids, row: None }
    }

    /// Registers a new incarnation, and returns the moment of the boot clock from which its lease counts. Every
    /// mutation that commits after the reply waits for it, and the log must be read after the reply.
    pub async fn register(&mut self) -> Result<i64, Unavailable> {
        let limits = &self.replica.limits;
        let registration = Registration {
            incarnation: self.identity.incarnations.next(),
            lease: limits.lease,
            stale_max: limits.stale_max,
            pepper_ids: self.pepper_ids.clone(),
            name: self.identity.name.clone(),
        };
        let sent = self.replica.clock.boot_micros();
        // Noted before the reply: a registration whose reply is lost may have been made.
        let incarnation = registration.incarnation;
        self.row = Some(RegisteredRow { incarnation, acknowledged: None, renewed_boot_micros: sent });
        self.in_time(self.replica.primary.register(&registration)).await?;
        Ok(sent)
    }

    /// Acknowledges what was applied, unless that is on record, and renews the lease when that is due.
    pub async fn acknowledge(&mut self, applied: Point) -> Result<AckOutcome, Unavailable> {
        let sent = self.replica.clock.boot_micros();
        let Some(row) = &self.row else { return Ok(AckOutcome::Evicted) };
        let renew = self.renewal_due_in(sent) == Duration::ZERO;
        if !renew && row.acknowledged == Some(applied) {
            return Ok(AckOutcome::Recorded);
        }
        let (incarnation, revision) = (row.incarnation, applied.at.revision());
        let said = Acknowledgement { incarnation, applied: revision, hash: applied.hash, renew };
        // After every fence, as all threads see them: a mutation that reads the acknowledgement may rely on them.
        fence_before_ack();
        let found = self.in_time(self.replica.primary.acknowledge(&said)).await?;
        Ok(match (found, &mut self.row) {
            (Acknowledged::HistoryDiverged, _) => AckOutcome::HistoryDiverged,
            (Acknowledged::Recorded, Some(row)) => {
                row.acknowledged = Some(applied);
                if renew {
                    row.renewed_boot_micros = sent;
                    AckOutcome::Renewed { sent }
                } else {
                    AckOutcome::Recorded
                }
            }
            (Acknowledged::Recorded, None) | (Acknowledged::Evicted, _) => AckOutcome::Evicted,
        })
    }

    /// Reports whether the database knows that this was applied.
    pub fn has_acknowledged(&self, applied: Option<Point>) -> bool {
        self.row.as_ref().is_none_or(|row| row.acknowledged == applied)
    }

    /// Returns how long until the lease must be renewed; at once if it has lapsed.
    pub fn renewal_due_in(&self, now_boot_micros: i64) -> Duration {
        let Some(row) = &self.row else { return Duration::ZERO };
        if !self.replica.lease.valid(now_boot_micros) {
            return Duration::ZERO;
        }
        let passed = Duration::from_micros(u64::try_from(now_boot_micros - row.renewed_boot_micros).unwrap_or(0));
        (self.replica.limits.lease / RENEWALS_PER_LEASE).saturating_sub(passed)
    }

    /// Gives up the lease, then the row, so that no mutation waits for a process that answers nothing from
    /// memory. If the row cannot be deleted now, a mutation that waits for it deletes it when its time is over.
    pub async fn leave(&mut self) {
        // The lease first: a mutation that no longer finds the row must find no lease either.
        self.replica.lease.clear();
        fence_before_ack();
        let Some(row) = self.row.take() else { return };
        let left = self.in_time(self.replica.primary.deregister(row.incarnation));
        if !matches!(tokio::time::timeout(LEAVE_TIMEOUT_MAX, left).await, Ok(Ok(()))) {
            tracing::debug!(incarnation = %row.incarnation, "the replica's row could not be deleted; it will be evicted");
        }
    }

    /// Bounds a call to the database: one that hangs must cost the lease, not keep it.
    pub async fn in_time<T>(&self, call: impl Future<Output = Result<T, Unavailable>>) -> Result<T, Unavailable> {
        let timeout = self.replica.limits.lease / CALLS_PER_LEASE;
        tokio::time::timeout(timeout, call).await.unwrap_or_else(|elapsed| Err(Unavailable(Box::new(elapsed))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_incarnations_are_fresh_each_time() {
        let (one, two) = (RandomIncarnations.next(), RandomIncarnations.next());
        assert_ne!(one, two);
        assert_eq!(one.get_version_num(), 4);
    }
}

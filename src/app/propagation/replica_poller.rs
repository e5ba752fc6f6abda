//! Polls of the rows of `replicas`, shared by all that wait for them, and the eviction of rows whose replica
//! can serve no more.
//!
//! One poll runs at a time, however many wait. It is of use only to callers that asked before it was
//! sent: it has seen their commits. A row whose `renewal_no` this process has seen unchanged for longer than
//! that replica can serve is evicted, beside the polls; that deletion waits for a renewal in flight and finds
//! nothing if the renewal won. Only durations of this process's own monotonic clock are compared, never the
//! database's timestamps.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use tokio::time::Instant;
use uuid::Uuid;

use crate::{
    app::ports::{Registered, ReplicaRow, Replicas},
    domain::log::revision::Revision,
    verify::{
        miss::flight::{Flights, Leader},
        replica::lease::drift_margin,
    },
};

/// The pause after an eviction that failed.
const EVICTION_PAUSE: Duration = Duration::from_secs(1);

/// Polls the replicas' rows for this process. Cheap to clone.
#[derive(Clone)]
pub(crate) struct ReplicaPoller(Arc<PollerShared>);

/// Marks a moment: only a poll that was begun later has read what was committed before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct PollTicket(u64);

/// Holds what one poll found.
#[derive(Clone, Debug)]
pub(crate) struct ReplicaPoll {
    number: u64,
    /// `None` if it could not be read.
    found: Option<Arc<Registered>>,
}

struct PollerShared {
    replicas: Arc<dyn Replicas>,
    /// The number of the poll that was begun last.
    begun: AtomicU64,
    /// The poll under way.
    flights: Arc<Flights<(), ReplicaPoll>>,
    seen: Mutex<PollHistory>,
    /// Held while rows are evicted.
    evicting: Arc<tokio::sync::Mutex<()>>,
}

struct PollHistory {
    last: ReplicaPoll,
    renewals: Renewals,
}

/// Since when this process has seen each replica's `renewal_no` unchanged. Kept between polls, so that a
/// dead replica is waited for once, not once a call.
#[derive(Default)]
struct Renewals(HashMap<Uuid, Unchanged>);

#[derive(Clone, Copy)]
struct Unchanged {
    renewal_no: i64,
    since: Instant,
}

// === impl ReplicaPoller ===

impl ReplicaPoller {
    pub fn new(replicas: Arc<dyn Replicas>) -> Self {
        let seen = PollHistory { last: ReplicaPoll { number: 0, found: None }, renewals: Renewals::default() };
        Self(Arc::new(PollerShared {
            replicas,
            begun: AtomicU64::new(0),
            flights: Flights::new(1),
            seen: Mutex::new(seen),
            evicting: Arc::default(),
        }))
    }

    /// Returns the ticket of this moment: for a caller that has just committed.
    pub fn ticket(&self) -> PollTicket {
        PollTicket(self.0.begun.load(SeqCst))
    }

    /// Returns a poll that was sent after `ticket`: one that others have made since, or else a new one, shared by all
    /// callers that wait for it. A caller that gives up waiting ends it for no other.
    pub async fn after(&self, ticket: PollTicket) -> ReplicaPoll {
        let answers = |poll: &ReplicaPoll| (poll.number > ticket.0).then(|| poll.clone());
        if let Some(poll) = answers(&self.0.seen().last) {
            return poll;
        }
        let load = |leader: Option<Leader<(), ReplicaPoll>>| {
            if let Some(leader) = leader {
                // Before the statement is sent: callers that ask from now on want a later one.
                let number = self.0.begun.fetch_add(1, SeqCst) + 1;
                let shared = self.0.clone();
                tokio::spawn(async move { leader.complete(shared.poll(number).await) });
            }
        };
        // The number says more than freshness does: a poll may have begun before this call, but after `ticket`.
        let settled = self.0.flights.settle((), true, load, |poll, _fresh| answers(poll)).await;
        settled.unwrap_or(ReplicaPoll { number: ticket.0, found: None })
    }
}

// === impl ReplicaPoll ===

impl ReplicaPoll {
    /// Returns how many replicas may still serve from before a revision; `None` if that is not known.
    pub fn below(&self, revision: Revision) -> Option<u32> {
        let found = self.found.as_ref()?;
        let below = found.rows.iter().filter(|row| row.applied < revision).count();
        Some(u32::try_from(below).unwrap_or(u32::MAX))
    }

    /// Returns the head of the log in the same snapshot; `None` if that is not known.
    pub fn head(&self) -> Option<Revision> {
        Some(self.found.as_ref()?.head)
    }

    /// Returns the ticket of this poll, for a caller that wants a newer one.
    pub fn ticket(&self) -> PollTicket {
        PollTicket(self.number)
    }
}

// === impl PollerShared ===

impl PollerShared {
    fn seen(&self) -> MutexGuard<'_, PollHistory> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn poll(self: &Arc<Self>, number: u64) -> ReplicaPoll {
        let found = match self.replicas.replicas().await {
            Ok(found) => {
                let lapsed = self.seen().renewals.lapsed(&found.rows, Instant::now());
                self.evict(lapsed);
                Some(found.into())
            }
            Err(error) => {
                tracing::debug!(error = %error, "replicas cannot be read");
                None
            }
        };
        let poll = ReplicaPoll { number, found };
        self.seen().last = poll.clone();
        poll
    }

    /// Evicts rows beside the polls, for an eviction can wait long for its row. If one is under way, the
    /// next poll comes back to these.
    fn evict(self: &Arc<Self>, lapsed: Vec<ReplicaRow>) {
        if lapsed.is_empty() {
            return;
        }
        let Ok(turn) = self.evicting.clone().try_lock_owned() else { return };
        let replicas = self.replicas.clone();
        tokio::spawn(async move {
            for ReplicaRow { incarnation, renewal_no, .. } in lapsed {
                match replicas.evict_replica(incarnation, renewal_no).await {
                    Ok(true) => tracing::warn!(%incarnation, "a replica stopped renewing its lease and was evicted"),
                    Ok(false) => tracing::debug!(%incarnation, "a replica renewed its lease, or is gone"),
                    Err(error) => {
                        tracing::warn!(%incarnation, error = %error, "a lost replica cannot be evicted yet");
                        tokio::time::sleep(EVICTION_PAUSE).await;
                    }
                }
            }
            drop(turn);
        });
    }
}

// === impl Renewals ===

impl Renewals {
    /// Notes what was read at `now`, after the statement's reply, and returns the rows that can serve no more.
    fn lapsed(&mut self, rows: &[ReplicaRow], now: Instant) -> Vec<ReplicaRow> {
        let registered: HashSet<Uuid> = rows.iter().map(|row| row.incarnation).collect();
        self.0.retain(|incarnation, _| registered.contains(incarnation));
        let lapsed = |row: &&ReplicaRow| {
            let fresh = Unchanged { renewal_no: row.renewal_no, since: now };
            let unchanged = self.0.entry(row.incarnation).or_insert(fresh);
            if unchanged.renewal_no != row.renewal_no {
                *unchanged = fresh;
            }
            now.duration_since(unchanged.since) > serves_at_most(row)
        };
        rows.iter().filter(lapsed).copied().collect()
    }
}

/// Returns how long a replica can serve after its last renewal: its lease, how much longer it may serve without one,
/// and how much slower than this one its clock may run.
fn serves_at_most(row: &ReplicaRow) -> Duration {
    let span = row.lease + row.stale_max;
    span + drift_margin(span)
}

#[cfg(test)]
#[path = "replica_poller_tests.rs"]
mod tests;

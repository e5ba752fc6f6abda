//! The follower: one task a replica that applies the log in order and so keeps the right to answer (V1).
//!
//! Order is everything here. For each event: raise its fences, then advance `applied`. For each round:
//! the events, then the database's clock, and the lease as the very last step, counted from before the
//! round was sent. So whoever sees the lease sees the fences; and a follower that is stuck, or talks to
//! a half-open connection, or lost the database, loses the lease by doing nothing.
//!
//! It knows nothing of tokens, entries and requests. The row in `replicas` that a barrier waits for will
//! be registered before `Follower::join` reads the head, and renewed where a round acknowledges; both
//! places are marked.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{Ordering, fence},
    },
    time::Duration,
};

use super::{
    causes::Causes,
    covers::Covers,
    primary::{Head, LogEntry, Unavailable},
    replica::{FollowerState, Replica},
};
use crate::domain::{
    event::{Event, EventKind, Hash},
    revision::Revision,
};

/// Events read at once.
const BATCH_EVENTS_MAX: u32 = 1_000;
/// Calls to the database must fail well before the lease does.
const CALLS_PER_LEASE: u32 = 3;
const BACK_OFF_MIN: Duration = Duration::from_millis(50);
const BACK_OFF_MAX: Duration = Duration::from_secs(1);

/// Why a round renewed nothing.
#[derive(Debug, thiserror::Error)]
pub enum RoundError {
    /// The database did not answer: the next round tries again.
    #[error("the log could not be read")]
    Unavailable(#[from] Unavailable),
    /// The history is not the one that was followed: no round will succeed.
    #[error("the database's history is not the one that this replica followed")]
    Diverged(#[from] Divergence),
}

/// How the history differs from the one that was followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Divergence {
    /// An operator accepted another history.
    #[error("the epoch is {is}, and was {was}")]
    Epoch {
        /// The epoch that was followed.
        was: i64,
        /// The epoch of the head.
        is: i64,
    },
    /// Events that were applied are gone.
    #[error("the head is {head}, below {applied} which was applied")]
    Regress {
        /// The last number applied.
        applied: i64,
        /// The number of the head.
        head: i64,
    },
    /// The chain does not continue the one that was applied.
    #[error("event {number} does not continue the chain that was applied")]
    Fork {
        /// The number where the hashes differ.
        number: i64,
    },
    /// A number is missing.
    #[error("no event follows {applied}, though the log has more")]
    Gap {
        /// The last number applied.
        applied: i64,
    },
    /// An earlier round found a divergence.
    #[error("the replica had diverged before")]
    Before,
}

/// The follower of one replica. Made by [`super::verifier::Verifier::new`], and to be run once.
pub struct Follower {
    replica: Arc<Replica>,
    /// The point of the chain that was applied last; `None` before the head was first read.
    last: Option<(Revision, Hash)>,
    failures: u32,
}

impl Follower {
    pub(super) fn new(replica: Arc<Replica>) -> Self {
        Self { replica, last: None, failures: 0 }
    }

    /// Follows the log until `stop`, and gives the lease up then. Errors end nothing: while they last, the
    /// lease lapses by itself.
    pub async fn run(mut self, stop: impl Future<Output = ()> + Send) {
        let replica = self.replica.clone();
        let follow = async {
            loop {
                let result = self.round().await;
                match self.pause_after(result) {
                    // Nothing but a restart helps, which is an operator's to do.
                    None => std::future::pending().await,
                    // Nobody wakes it from a back-off: a database in trouble is not asked more often.
                    Some(Pause::BackOff(pause)) => tokio::time::sleep(pause).await,
                    Some(Pause::Poll) => {
                        let woken = replica.wake.notified();
                        let _either = tokio::time::timeout(replica.limits.poll_interval, woken).await;
                    }
                }
            }
        };
        tokio::select! {
            () = stop => {}
            () = follow => {}
        }
        replica.lease.clear();
    }

    /// One round: applies what the log holds, then renews the lease.
    ///
    /// # Errors
    /// [`RoundError`]; the lease is then as it was, or cleared if the history diverged.
    pub async fn round(&mut self) -> Result<(), RoundError> {
        let replica = self.replica.clone();
        if replica.state() == FollowerState::Diverged {
            return Err(Divergence::Before.into());
        }
        let sent = replica.clock.boot_micros();
        let result = match self.last {
            None => self.join().await,
            Some(last) => self.catch_up_and_acknowledge(last).await,
        };
        match &result {
            Ok(()) => replica.lease.renew(sent),
            Err(RoundError::Diverged(_)) => {
                // The state first: who then finds no lease does not ask the database either.
                replica.set_state(FollowerState::Diverged);
                replica.lease.clear();
            }
            Err(RoundError::Unavailable(_)) => {}
        }
        result
    }

    /// Starts at the head. A replica registers *before* this head is read, so that every later mutation
    /// waits for it; whatever was read earlier is below the fences.
    async fn join(&mut self) -> Result<(), RoundError> {
        let replica = self.replica.clone();
        let head = self.in_time(replica.anchored_by_head()).await?;
        let catalogue = self.in_time(replica.primary.catalogue()).await?;
        replica.adopt(catalogue);
        replica.fences.raise_all(head.revision.number);
        replica.applied.start(head.revision);
        replica.set_state(FollowerState::Following);
        self.last = Some((head.revision, head.hash));
        Ok(())
    }

    async fn catch_up_and_acknowledge(&mut self, last: (Revision, Hash)) -> Result<(), RoundError> {
        let last = self.catch_up(last).await?;
        // The acknowledgement belongs here: after every fence, as all threads see them.
        fence(Ordering::SeqCst);
        let replica = &self.replica;
        if !replica.lease.valid(replica.clock.boot_micros()) {
            // While it had no lease, mutations did not wait for this replica. What they did before that
            // reply came is known only from a head that is read after it.
            self.catch_up(last).await?;
        }
        Ok(())
    }

    /// Applies events at least up to a head that is read now.
    async fn catch_up(&mut self, last: (Revision, Hash)) -> Result<(Revision, Hash), RoundError> {
        let replica = self.replica.clone();
        let sent = replica.clock.boot_micros();
        let head = self.in_time(replica.primary.head()).await?;
        let (mut revision, mut hash) = last;
        check_head(&head, revision, &hash)?;
        while revision.number < head.revision.number {
            let after = replica.primary.events_after(revision.number, BATCH_EVENTS_MAX);
            let batch = self.in_time(after).await?;
            if batch.is_empty() {
                return Err(Divergence::Gap { applied: revision.number }.into());
            }
            for entry in &batch {
                check_link(entry, revision.number, &hash, &head)?;
                self.apply(entry).await?;
                (revision.number, hash) = (entry.number, entry.hash);
                self.last = Some((revision, hash));
            }
        }
        // Only a head of the history that was followed may set the time.
        replica.database_clock.anchor(sent, head.database_time);
        Ok((revision, hash))
    }

    async fn apply(&self, entry: &LogEntry) -> Result<(), Unavailable> {
        let replica = &self.replica;
        replica.fences.raise(&Covers::of(entry.event.as_ref()), entry.number);
        if changes_catalogue(entry.event.as_ref()) {
            // The fences are up already: if this fails, the event is applied again by the next round.
            let catalogue = self.in_time(replica.primary.catalogue()).await?;
            replica.adopt(catalogue);
        }
        replica.applied.advance(entry.number);
        Ok(())
    }

    async fn in_time<T>(&self, call: impl Future<Output = Result<T, Unavailable>>) -> Result<T, Unavailable> {
        let timeout = self.replica.limits.lease / CALLS_PER_LEASE;
        tokio::time::timeout(timeout, call).await.unwrap_or_else(|elapsed| Err(Unavailable(Box::new(elapsed))))
    }

    /// What to do after a round; `None` if there will be no other. Says each change of fortune once.
    fn pause_after(&mut self, result: Result<(), RoundError>) -> Option<Pause> {
        match result {
            Ok(()) => {
                if self.failures > 0 {
                    tracing::info!(rounds_failed = self.failures, "the log is followed again");
                }
                self.failures = 0;
                Some(Pause::Poll)
            }
            Err(RoundError::Unavailable(error)) => {
                if self.failures == 0 {
                    tracing::warn!(error = %Causes(&error), "the log cannot be followed; trying again");
                }
                self.failures = self.failures.saturating_add(1);
                Some(Pause::BackOff(back_off(self.failures)))
            }
            Err(RoundError::Diverged(divergence)) => {
                tracing::error!(
                    %divergence,
                    "the database's history is not the one that this replica followed: every verification is \
                     UNAVAILABLE. Find out which history is right (was there a fail-over, or a restore?), then \
                     accept it with `latchkey accept-history` and restart this process"
                );
                None
            }
        }
    }
}

enum Pause {
    Poll,
    BackOff(Duration),
}

fn back_off(failures: u32) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    BACK_OFF_MIN.saturating_mul(1 << doublings).min(BACK_OFF_MAX)
}

/// An event that this build cannot read may have changed the catalogue too.
fn changes_catalogue(event: Option<&Event>) -> bool {
    event.and_then(Event::known_kind).is_none_or(|kind| kind == EventKind::CatalogueApplied)
}

fn check_head(head: &Head, applied: Revision, hash: &Hash) -> Result<(), Divergence> {
    let (was, is) = (applied.epoch, head.revision.epoch);
    let (applied, at) = (applied.number, head.revision.number);
    if is != was {
        Err(Divergence::Epoch { was, is })
    } else if at < applied {
        Err(Divergence::Regress { applied, head: at })
    } else if at == applied && head.hash != *hash {
        Err(Divergence::Fork { number: at })
    } else {
        Ok(())
    }
}

fn check_link(entry: &LogEntry, applied: i64, hash: &Hash, head: &Head) -> Result<(), Divergence> {
    if entry.number != applied + 1 {
        Err(Divergence::Gap { applied })
    } else if entry.previous_hash != *hash || (entry.number == head.revision.number && entry.hash != head.hash) {
        Err(Divergence::Fork { number: entry.number })
    } else {
        Ok(())
    }
}

#[cfg(test)]
#[path = "follower_tests.rs"]
mod tests;

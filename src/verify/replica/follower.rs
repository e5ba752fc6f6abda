//! The follower: one task a replica that applies the log in order and so keeps the right to answer (V1).
//!
//! Order is everything here.
//!
//! - To join: register, and only then, by a statement sent after that reply, read the head; raise the
//!   global and the negative fence to it, then `applied`; only then the lease counts, from before the
//!   registration was sent. Every mutation after that head waits for this replica, and whatever was
//!   remembered before is below the fences.
//! - For each event: raise its fences, then advance `applied`.
//! - For each round: the events, then acknowledge them ([`super::membership`]), and renew the
//!   lease when that is due, as the very last step, counted from before the renewal was sent. So a mutation that
//!   sees the lease sees the fences; and a follower that is stuck, or talks to a half-open connection, or
//!   lost the database, loses the lease by doing nothing.
//! - A renewal whose reply comes after the lease had lapsed restores it only once the events up to a head
//!   that was read after that reply are applied: PostgreSQL may have lost the deletion of the row in a
//!   crash, and mutations have gone by that did not wait.
//! - A row that is gone means: join again, as a new incarnation.
//! - In another database than the log was written in, whether that is found before joining or later, nothing is
//!   answered: the lease goes at once. What was a replica of the right one joins it again, as a new incarnation.
//! - Another history ends everything until an operator accepts it, which starts a later epoch; then the
//!   replica joins afresh. Stamps of the old epoch are below every fence of the new.
//!
//! It knows nothing of tokens, entries and requests.

use std::{future::Future, sync::Arc, time::Duration};

pub use super::divergence::Divergence;
use super::{
    divergence::Point,
    membership::{AckOutcome, Membership, ReplicaIdentity},
    state::{FollowerState, Replica},
};
use crate::{
    domain::log::{
        event::{Event, EventKind},
        revision::RevisionStamp,
    },
    error_chain::ErrorChain,
    verify::{
        fence::covers::Covers,
        planted::{Bug, planted},
        primary::{Head, LogEntry, OtherDatabase, Sent, Unavailable},
    },
};

/// Events read at once.
const BATCH_EVENTS_MAX: u32 = 1_000;
const BACK_OFF_MIN: Duration = Duration::from_millis(50);
const BACK_OFF_MAX: Duration = Duration::from_secs(1);

/// Why a round renewed nothing.
#[derive(Debug, thiserror::Error)]
pub enum RoundError {
    /// The database did not answer: the next round tries again.
    #[error("the log could not be read")]
    Unavailable(#[source] Unavailable),
    /// The history is not the one that was followed: no round will succeed before an operator accepts it.
    #[error("the database's history is not the one that this replica followed")]
    Diverged(#[from] Divergence),
    /// The database is another one than its log was written in.
    #[error(transparent)]
    OtherDatabase(OtherDatabase),
}

/// The follower of one replica. Made by [`crate::verify::answer::verifier::Verifier::new`], and to be run once.
pub struct Follower {
    replica: Arc<Replica>,
    membership: Membership,
    /// True if the lease may be renewed: the log was read after the row was registered.
    joined: bool,
    /// The point of the chain that was applied last, whatever became of the row since; `None` before the
    /// head was first read.
    last: Option<Point>,
    failures: u32,
    /// The wrong database that was logged last, so that each is logged once.
    elsewhere: Option<OtherDatabase>,
}

/// The end of the log, and the moment of the boot clock before it was asked for.
struct LogTail {
    head: Head,
    point: Point,
    sent: i64,
}

impl Follower {
    pub(crate) fn new(replica: Arc<Replica>, identity: ReplicaIdentity, pepper_ids: Vec<String>) -> Self {
        let membership = Membership::new(replica.clone(), identity, pepper_ids);
        Self { replica, membership, joined: false, last: None, failures: 0, elsewhere: None }
    }

    /// Follows the log until `stop`, and then gives up the lease and the row. Errors do not end it: while
    /// they last, the lease lapses by itself.
    pub async fn run(mut self, stop: impl Future<Output = ()> + Send) {
        let wake = self.replica.wake.clone();
        let follow = async {
            loop {
                let result = self.round().await;
                match self.pause_after(result) {
                    // Nothing wakes it from a back-off: a database in trouble is not asked more often.
                    Pause::BackOff(pause) => tokio::time::sleep(pause).await,
                    Pause::Poll(pause) => _ = tokio::time::timeout(pause, wake.notified()).await,
                }
            }
        };
        tokio::select! {
            () = stop => {}
            () = follow => {}
        }
        self.membership.leave().await;
    }

    /// Runs one round: applies what the log holds, acknowledges it, and renews the lease when it is due.
    ///
    /// # Errors
    /// [`RoundError`]; the lease is then as it was, or cleared if the history diverged or the row is gone.
    pub async fn round(&mut self) -> Result<(), RoundError> {
        let result = match self.last {
            Some(last) if self.replica.state() == FollowerState::Diverged => self.look_again(last).await,
            Some(last) if self.joined && !self.starts_over() => self.follow(last).await,
            _ => self.join().await,
        };
        let refused = match &result {
            Err(RoundError::Diverged(_)) => FollowerState::Diverged,
            // A history that had diverged has still diverged when the right database is back.
            Err(RoundError::OtherDatabase(_)) if self.replica.state() != FollowerState::Diverged => {
                FollowerState::OtherDatabase
            }
            _ => return result,
        };
        // The state first: a request that then finds no lease does not ask the database either.
        self.replica.set_state(refused);
        self.joined = false;
        self.membership.leave().await;
        result
    }

    /// Reports whether a lost lease begins again at the head: only to show what the fence of a join is for.
    fn starts_over(&self) -> bool {
        planted(Bug::JoinWithoutFence) && !self.replica.lease.valid(self.replica.clock.boot_micros())
    }

    /// Starts at the head, as a new incarnation.
    async fn join(&mut self) -> Result<(), RoundError> {
        self.joined = false;
        self.membership.leave().await;
        if self.replica.state() == FollowerState::OtherDatabase {
            // No row is made in the wrong database.
            self.read_head().await?;
        }
        // First without a row: mutations would wait in vain for a replica that lacks a pepper.
        self.check_peppers().await?;
        let joined = self.join_registered().await;
        if joined.is_err() {
            // No mutation is to wait for the row of a replica that has not joined.
            self.membership.leave().await;
        }
        joined
    }

    async fn join_registered(&mut self) -> Result<(), RoundError> {
        let sent = self.membership.register().await?;
        // What mints from now on sees this replica's peppers; it must have those of tokens minted before it registered.
        self.check_peppers().await?;
        let reading = self.read_head().await?;
        if let Some(last) = self.last {
            self.check_continued(last, &reading.point).await?;
        }
        let catalogue = self.membership.in_time(self.replica.primary.catalogue()).await?;
        let replica = &self.replica;
        replica.database_clock.anchor(reading.sent, reading.head.database_time);
        replica.adopt(reading.point.epoch(), catalogue);
        if !planted(Bug::JoinWithoutFence) {
            replica.fences.raise_all(reading.point.at);
        }
        replica.applied.advance(reading.point.at);
        replica.set_state(FollowerState::Following);
        self.last = Some(reading.point);
        self.joined = true;
        replica.lease.renew(sent);
        Ok(())
    }

    /// Refuses to go on without a pepper that tokens live under.
    async fn check_peppers(&self) -> Result<(), Unavailable> {
        let missing = self.membership.in_time(self.replica.primary.missing_peppers()).await?;
        if missing.is_empty() { Ok(()) } else { Err(Unavailable(Box::new(MissingPeppers(missing)))) }
    }

    /// Applies what is new and acknowledges it.
    async fn follow(&mut self, last: Point) -> Result<(), RoundError> {
        let reading = self.read_head().await?;
        if !last.leads_to(&reading.point)? {
            return self.join_accepted(&reading).await;
        }
        if planted(Bug::AcknowledgeFirst) && last.at < reading.point.at {
            self.membership.acknowledge(reading.point).await?;
            tokio::time::sleep(crate::verify::planted::GAP).await;
        }
        let last = self.catch_up(last, &reading).await?;
        match self.membership.acknowledge(last).await? {
            AckOutcome::Recorded => Ok(()),
            AckOutcome::Renewed { sent } => self.renewed(last, sent).await,
            AckOutcome::Evicted => {
                tracing::info!("this replica's row is gone: it did not renew its lease in time; joining again");
                self.join().await
            }
            AckOutcome::HistoryDiverged => Err(Divergence::Refused { applied: last.at.revision() }.into()),
        }
    }

    /// Lets a renewal count whose statement was sent at `sent`.
    async fn renewed(&mut self, last: Point, sent: i64) -> Result<(), RoundError> {
        let lease = &self.replica.lease;
        if !lease.valid(self.replica.clock.boot_micros()) {
            // Only a head that is read after that reply shows what was committed before it.
            let reading = self.read_head().await?;
            if !last.leads_to(&reading.point)? {
                return self.join_accepted(&reading).await;
            }
            self.catch_up(last, &reading).await?;
        }
        self.replica.lease.renew(sent);
        Ok(())
    }

    /// Checks whether an operator has accepted the history; nothing else helps.
    async fn look_again(&mut self, last: Point) -> Result<(), RoundError> {
        match self.read_head().await {
            Ok(reading) if reading.point.epoch() > last.epoch() => self.join_accepted(&reading).await,
            Err(error @ (RoundError::Unavailable(_) | RoundError::OtherDatabase(_))) => Err(error),
            // How it differs was logged when it was found.
            Ok(_) | Err(RoundError::Diverged(_)) => Err(Divergence::Before.into()),
        }
    }

    async fn join_accepted(&mut self, reading: &LogTail) -> Result<(), RoundError> {
        tracing::warn!(head = %reading.head.revision, "an operator accepted the history: starting afresh");
        self.join().await
    }

    async fn read_head(&self) -> Result<LogTail, RoundError> {
        // Before it is asked for: one primary never goes below what it has answered.
        let seen = self.replica.seen();
        let sent = Sent::new(&*self.replica.clock);
        let head = self.membership.in_time(self.replica.primary.head(&sent)).await?;
        let sent = sent.boot_micros();
        let point = Point::of(&head)?;
        point.is_at_least(seen)?;
        Ok(LogTail { head, point, sent })
    }

    /// Refuses a head that does not come after what was applied, unless an operator accepted it: to join
    /// again must not be a way into another history.
    async fn check_continued(&self, last: Point, head: &Point) -> Result<(), RoundError> {
        if last.leads_to(head)? && head.at > last.at {
            let next = self.membership.in_time(self.replica.primary.events_after(last.number(), 1)).await?;
            let entry = next.first().ok_or(Divergence::Gap { applied: last.number() })?;
            last.next(entry, head)?;
        }
        Ok(())
    }

    /// Applies the events up to a head, and no further: beyond it they may be of a later epoch.
    async fn catch_up(&mut self, mut last: Point, reading: &LogTail) -> Result<Point, RoundError> {
        while last.at < reading.point.at {
            let after = self.replica.primary.events_after(last.number(), BATCH_EVENTS_MAX);
            let batch = self.membership.in_time(after).await?;
            if batch.is_empty() {
                return Err(Divergence::Gap { applied: last.number() }.into());
            }
            for entry in &batch {
                if last.at == reading.point.at {
                    break;
                }
                let next = last.next(entry, &reading.point)?;
                self.apply(entry, next.at).await?;
                last = next;
                self.last = Some(last);
            }
        }
        // Only a head of the history that was followed may set the time.
        self.replica.database_clock.anchor(reading.sent, reading.head.database_time);
        Ok(last)
    }

    async fn apply(&self, entry: &LogEntry, at: RevisionStamp) -> Result<(), Unavailable> {
        let replica = &self.replica;
        replica.fences.raise(&Covers::of(entry.event.as_ref()), at);
        if changes_catalogue(entry.event.as_ref()) {
            // The fences are up already: if this fails, the event is applied again by the next round.
            let catalogue = self.membership.in_time(replica.primary.catalogue()).await?;
            replica.adopt(at.revision().epoch, catalogue);
        }
        replica.applied.advance(at);
        Ok(())
    }

    /// Returns how long to pause after a round. Logs each change between success and failure once.
    fn pause_after(&mut self, result: Result<(), RoundError>) -> Pause {
        match result {
            Ok(()) => {
                if self.failures > 0 {
                    tracing::info!(rounds_failed = self.failures, "the log is followed again");
                }
                (self.failures, self.elsewhere) = (0, None);
                // A mutation may wait for what is not acknowledged yet.
                let due = self.membership.renewal_due_in(self.replica.clock.boot_micros());
                let pause = if self.membership.has_acknowledged(self.last) { due } else { Duration::ZERO };
                Pause::Poll(pause.min(self.replica.limits.poll_interval))
            }
            Err(RoundError::Unavailable(error)) => {
                if self.failures == 0 {
                    tracing::warn!(error = %ErrorChain(&error), "the log cannot be followed; trying again");
                }
                self.failures = self.failures.saturating_add(1);
                Pause::BackOff(back_off(self.failures))
            }
            Err(RoundError::OtherDatabase(other)) => {
                if self.failures == 0 || self.elsewhere.as_ref() != Some(&other) {
                    tracing::error!(
                        recorded = other.recorded,
                        actual = other.actual,
                        "the database is another one than its log was written in: every call is UNAVAILABLE. Was it \
                         restored, copied, upgraded or promoted? Find out what was lost, and then accept it with `latchkey \
                         accept-history`; no restart is needed. If database_url leads to the wrong database, correct it"
                    );
                }
                self.failures = self.failures.saturating_add(1);
                self.elsewhere = Some(other);
                Pause::BackOff(BACK_OFF_MAX)
            }
            Err(RoundError::Diverged(Divergence::Before)) => Pause::BackOff(BACK_OFF_MAX),
            Err(RoundError::Diverged(divergence)) => {
                tracing::error!(
                    %divergence,
                    "the database's history is not the one that this replica followed: every verification is \
                     UNAVAILABLE. Find out which history is right (was there a fail-over, or a restore?), then \
                     accept it with `latchkey accept-history`; no restart is needed"
                );
                Pause::BackOff(BACK_OFF_MAX)
            }
        }
    }
}

impl From<Unavailable> for RoundError {
    fn from(Unavailable(cause): Unavailable) -> Self {
        cause.downcast().map_or_else(|cause| Self::Unavailable(Unavailable(cause)), |other| Self::OtherDatabase(*other))
    }
}

/// Without them a good token could be taken for an unknown one: the replica is not ready (V2).
#[derive(Debug, thiserror::Error)]
#[error("live tokens need peppers that are not configured: {}; add them to the setting `peppers`", .0.join(", "))]
struct MissingPeppers(Vec<String>);

enum Pause {
    Poll(Duration),
    BackOff(Duration),
}

fn back_off(failures: u32) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    BACK_OFF_MIN.saturating_mul(1 << doublings).min(BACK_OFF_MAX)
}

/// Reports whether an event may have changed the catalogue; one that this build cannot read may have.
fn changes_catalogue(event: Option<&Event>) -> bool {
    event.and_then(Event::known_kind).is_none_or(|kind| kind == EventKind::CatalogueApplied)
}

#[cfg(test)]
#[path = "tests/follower.rs"]
mod tests;

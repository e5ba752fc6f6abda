//! What the hot path asks of the database: a port, so that tests own the answers.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use uuid::Uuid;

use super::clock::Clock;
use crate::domain::{
    log::{
        event::{Event, Hash},
        revision::Revision,
    },
    permissions::catalogue::Catalogue,
    time::Timestamp,
    token::HashedToken,
    verification::TokenFacts,
};

/// The database could not be asked, or did not answer in time. Never taken for absence (V2).
#[derive(Debug, thiserror::Error)]
#[error("the store is unavailable")]
pub struct Unavailable(#[source] pub Box<dyn std::error::Error + Send + Sync>);

/// The database is not the one that its log was written in: it was restored, copied or promoted, and it is unknown
/// what was lost.
#[derive(Clone, Debug, Default, PartialEq, Eq, thiserror::Error)]
#[error(
    "the database is another one than its log was written in (recorded: {recorded}, actual: {actual}; system, timeline \
     and database)"
)]
pub struct OtherDatabase {
    /// The identity that stands with the head of the log.
    pub recorded: String,
    /// The database's own.
    pub actual: String,
}

/// What one snapshot of the primary says of a token.
#[derive(Clone, Debug)]
pub struct Fill {
    /// The head of the log in that snapshot: the revision that the facts were read at.
    pub revision: Revision,
    /// The catalogue of that snapshot; the facts' sets are closed under it.
    pub catalogue: Arc<Catalogue>,
    /// The token on record, with the digest that matched; `None` if there is none.
    pub token: Option<(HashedToken, TokenFacts)>,
    /// True if tokens are live under a pepper that this process does not have: then it is not known that
    /// there is no such token (V2).
    pub lacks_pepper: bool,
    /// The database's clock, read after the statement was sent.
    pub database_time: Timestamp,
}

/// When a statement was sent, on the boot clock. Its sender marks it, because a call may first wait for a
/// connection: a deadline is early by the way of the statement (V3), not by the wait.
pub struct Sent<'a> {
    clock: &'a dyn Clock,
    boot_micros: AtomicI64,
}

/// One event as the follower sees it.
#[derive(Clone, Debug)]
pub struct LogEntry {
    /// Its number.
    pub number: i64,
    /// The hash of its predecessor.
    pub previous_hash: Hash,
    /// Its own hash.
    pub hash: Hash,
    /// The event; `None` if this build cannot read its format.
    pub event: Option<Event>,
}

/// The head of the log and the database's clock, read by one statement.
#[derive(Clone, Copy, Debug)]
pub struct Head {
    /// The head of the log.
    pub revision: Revision,
    /// Its hash.
    pub hash: Hash,
    /// The database's clock when the statement ran.
    pub database_time: Timestamp,
}

/// What a replica says of itself before it reads the log.
#[derive(Clone, Debug)]
pub struct Registration {
    /// This life of this process: fresh each time.
    pub incarnation: Uuid,
    /// How long it may answer from its cache after a renewal was sent.
    pub lease: Duration,
    /// How much longer it answers from it, marked as stale.
    pub stale_max: Duration,
    /// The peppers that it verifies with (T2).
    pub pepper_ids: Vec<String>,
    /// For people: which process this is.
    pub name: String,
}

/// Says that a replica has raised its fences up to a revision.
#[derive(Clone, Copy, Debug)]
pub struct Acknowledgement {
    /// The replica's incarnation.
    pub incarnation: Uuid,
    /// The last event that it applied; number 0 is the empty log.
    pub applied: Revision,
    /// That event's hash.
    pub hash: Hash,
    /// True to renew the lease too.
    pub renew: bool,
}

/// What became of an acknowledgement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acknowledged {
    /// It is on record.
    Recorded,
    /// There is no such row any more: join again.
    Evicted,
    /// The log does not have that event with that hash in that epoch.
    HistoryDiverged,
}

// === impl Sent ===

impl<'a> Sent<'a> {
    /// Creates one that nothing has marked yet: it counts as sent now, which makes deadlines early, never late.
    #[must_use]
    pub fn new(clock: &'a dyn Clock) -> Self {
        Self { clock, boot_micros: AtomicI64::new(clock.boot_micros()) }
    }

    /// Notes that the statement is sent next.
    pub fn mark(&self) {
        self.boot_micros.store(self.clock.boot_micros(), Ordering::Relaxed);
    }

    /// Returns the last mark.
    #[must_use]
    pub fn boot_micros(&self) -> i64 {
        self.boot_micros.load(Ordering::Relaxed)
    }
}

/// The primary: every call is a statement sent to it, never to a standby.
#[async_trait]
pub trait Primary: Send + Sync {
    /// Reads a token by its digests (one for each live pepper), the head and the catalogue from one
    /// snapshot.
    async fn fill(&self, digests: &[HashedToken], sent: &Sent<'_>) -> Result<Fill, Unavailable>;

    /// Reads the head of the log. For the follower alone: it never waits behind misses. The cause of what it returns
    /// is [`OtherDatabase`] if the log was written in another one.
    async fn head(&self, sent: &Sent<'_>) -> Result<Head, Unavailable>;

    /// Reads at most `limit` events with numbers above `number`, in order.
    async fn events_after(&self, number: i64, limit: u32) -> Result<Vec<LogEntry>, Unavailable>;

    /// Reads the current catalogue for a request.
    async fn refresh(&self) -> Result<Arc<Catalogue>, Unavailable>;

    /// Reads the current catalogue. For the follower alone.
    async fn catalogue(&self) -> Result<Arc<Catalogue>, Unavailable>;

    /// Registers a replica, durably: from its reply on, every mutation that commits waits for it. It is
    /// its renewal number 1.
    async fn register(&self, registration: &Registration) -> Result<(), Unavailable>;

    /// Reads the ids of peppers that live tokens need and that this process does not have. A mutation that mints
    /// after the reply has seen every replica that was registered before the call.
    async fn missing_peppers(&self) -> Result<Vec<String>, Unavailable>;

    /// Acknowledges a revision, and renews the lease if asked to. A renewal is durable before it is
    /// answered; an acknowledgement alone need not be.
    async fn acknowledge(&self, acknowledgement: &Acknowledgement) -> Result<Acknowledged, Unavailable>;

    /// Deletes the row of a replica, which must have given up its lease before.
    async fn deregister(&self, incarnation: Uuid) -> Result<(), Unavailable>;
}

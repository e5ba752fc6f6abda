//! The store itself: it opens snapshots and transactions, and does the work that needs neither.

use async_trait::async_trait;
use tokio::runtime::Handle;

use super::{
    read::Reader,
    replicas::Replicas,
    write::{Locks, Tx},
};
use crate::{
    app::error::{StoreError, StoreResult},
    domain::{id::KeyId, time::Timestamp, token::HashedToken},
};

/// The store.
#[async_trait]
pub trait Store: Replicas {
    /// Opens one snapshot for reading (REPEATABLE READ, read only, on the primary).
    async fn snapshot(&self, lane: Lane) -> StoreResult<Box<dyn Reader>>;

    /// Opens a mutation's transaction (READ COMMITTED, `synchronous_commit` at least `on`) and takes its locks.
    /// Accounts that do not exist are skipped. With `notify`, its commit wakes the followers. Dropped without
    /// commit, it changes nothing.
    async fn begin(&self, lane: Lane, name: &'static str, notify: bool, locks: &Locks) -> StoreResult<Box<dyn Tx>>;

    /// Completes with the error to answer once the database is known to be away; at once if it is. Until it answers
    /// again, whatever is asked fails so, without waiting.
    async fn known_away(&self) -> StoreError;

    /// Returns the runtime that drives the connections. What asks many things of a transaction, one after the other,
    /// is best run there: elsewhere each question and each answer is handed from thread to thread.
    fn runtime(&self) -> &Handle;

    /// Writes a batch of usage marks, sorted by digest; never touches a row that authority locks (K9).
    async fn record_usage(&self, batch: &[UsageMark]) -> StoreResult<()>;

    /// Forgets digests of tokens that ended before `before` (T3), at most `limit`; returns how many. Those of deleted
    /// keys go with their keys ([`Tx::erase_api_keys`]).
    async fn forget_ended_tokens(&self, before: Timestamp, limit: u32) -> StoreResult<u32>;
}

/// A kind of work with connections of its own, so that it never waits for another kind. Verifications that miss the
/// cache, the follower and the barrier have theirs too, which no use-case chooses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lane {
    /// Mutations that only take authority away.
    Narrowing,
    /// Looking up the users that services act for.
    Callers,
    /// All other mutations.
    Mutations,
    /// Reads.
    Reads,
    /// Reads of open watches.
    Watches,
    /// Housekeeping, and an operator's own commands.
    Upkeep,
}

/// One token's use (K9).
#[derive(Clone, Copy, Debug)]
pub struct UsageMark {
    /// The token.
    pub digest: HashedToken,
    /// Its key.
    pub key_id: KeyId,
    /// When it last answered VALID.
    pub last_used_time: Timestamp,
}

//! What the hot path asks of the database: a port, so that tests own the answers.

use std::sync::Arc;

use async_trait::async_trait;

use crate::domain::{
    catalogue::Catalogue,
    event::{Event, Hash},
    revision::Revision,
    time::Timestamp,
    token::HashedToken,
    verification::TokenFacts,
};

/// The database could not be asked, or did not answer in time. Never taken for absence (V2).
#[derive(Debug, thiserror::Error)]
#[error("the store is unavailable")]
pub struct Unavailable(#[source] pub Box<dyn std::error::Error + Send + Sync>);

/// What one snapshot of the primary says of a token.
#[derive(Clone, Debug)]
pub struct Fill {
    /// The head of the log in that snapshot: the revision that the facts were read at.
    pub revision: Revision,
    /// The catalogue of that snapshot; the facts' sets are closed under it.
    pub catalogue: Arc<Catalogue>,
    /// The token on record, with the digest that matched; `None` if there is none.
    pub token: Option<(HashedToken, TokenFacts)>,
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

/// The primary: every call is a statement sent to it, never to a standby.
#[async_trait]
pub trait Primary: Send + Sync {
    /// Reads a token by its digests (one for each live pepper), the head and the catalogue from one
    /// snapshot.
    async fn fill(&self, digests: &[HashedToken]) -> Result<Fill, Unavailable>;

    /// Reads the head of the log.
    async fn head(&self) -> Result<Head, Unavailable>;

    /// Reads at most `limit` events with numbers above `number`, in order.
    async fn events_after(&self, number: i64, limit: u32) -> Result<Vec<LogEntry>, Unavailable>;

    /// Reads the current catalogue.
    async fn catalogue(&self) -> Result<Arc<Catalogue>, Unavailable>;
}

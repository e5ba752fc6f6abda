//! The replicas on record.

use std::time::Duration;

use async_trait::async_trait;
use uuid::Uuid;

use crate::{app::error::StoreResult, domain::log::revision::Revision};

/// The replicas on record.
#[async_trait]
pub trait Replicas: Send + Sync {
    /// Returns the replicas that may answer from their caches, and the head of the log in the same snapshot: for a
    /// barrier, read after its commit.
    async fn replicas(&self) -> StoreResult<Registered>;

    /// Deletes a replica's row if it was not renewed since it was seen with this `renewal_no`; false if
    /// it was, or is gone. Waits for a renewal in flight, and is as durable as a mutation.
    async fn evict_replica(&self, incarnation: Uuid, renewal_no: i64) -> StoreResult<bool>;
}

/// The replicas on record, and the head of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registered {
    /// The head of the log.
    pub head: Revision,
    /// The rows in order of incarnation.
    pub rows: Vec<ReplicaRow>,
}

/// A row of `replicas`, as a barrier sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplicaRow {
    /// One life of one process.
    pub incarnation: Uuid,
    /// Goes up with each renewal.
    pub renewal_no: i64,
    /// The revision whose fences are up there; 0.0 until it has read the log.
    pub applied: Revision,
    /// How long it may answer from its cache after a renewal was sent.
    pub lease: Duration,
    /// How much longer it answers from it, saying so.
    pub stale_max: Duration,
}

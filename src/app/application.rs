//! The use-cases of one process, and what they share.

use std::{sync::Arc, time::Duration};

use super::{
    events::watches::{WatchLimits, Watches},
    fairness::shares::{ShareLimits, Shares},
    mint::Minter,
    ports::Store,
    propagation::replica_poller::ReplicaPoller,
    upkeep::operator_read_queue::OperatorReadQueue,
};
use crate::verify::Verifier;

/// Bounds that a deployment chooses.
#[derive(Clone, Debug)]
pub struct AppLimits {
    /// Not-deleted keys an account may have (K3).
    pub api_keys_per_account_max: u32,
    /// Not-deleted keys a team may have; `None` for no limit (K3).
    pub api_keys_per_team_max: Option<u32>,
    /// Deleted keys of an account on record, from which on no key is created (K3).
    pub deleted_api_keys_per_account_max: u32,
    /// Tokens of a key on record, ended ones included, from which on it is not rotated (K8).
    pub tokens_per_api_key_max: u32,
    /// How long digests of ended tokens, and deleted keys, are kept, in days (T3, K6).
    pub ended_token_retention_days: u32,
    /// This replica's lease: a call without a deadline waits a little longer than that for the others.
    pub lease: Duration,
    /// How often uses of tokens are written (K9): at most half a minute, so that one missed round still
    /// keeps them less than a minute behind.
    pub usage_flush_interval: Duration,
    /// How much of the database one account and one caller may ask for at a time.
    pub shares: ShareLimits,
    /// How many watches may be open.
    pub watches: WatchLimits,
    /// Rows that one page of a list may examine.
    pub list_scan_rows_max: u32,
    /// Events that one call verifies the chain over, at most.
    pub chain_events_max: u32,
}

/// Observes mutations: a port for metrics, so that this layer need not know those.
pub trait MutationObserver: Send + Sync {
    /// Records that a mutation has ended, and after how many retries.
    fn mutation(&self, name: &'static str, succeeded: bool, retries: u32, duration: Duration);

    /// Sets how many notes of operators' reads have found no room since the start.
    fn operator_reads_dropped(&self, total: u64);
}

/// All use-cases. Cheap to clone.
#[derive(Clone)]
pub struct App(Arc<AppParts>);

struct AppParts {
    store: Arc<dyn Store>,
    verifier: Arc<Verifier>,
    minter: Minter,
    limits: AppLimits,
    observer: Arc<dyn MutationObserver>,
    replica_poller: ReplicaPoller,
    operator_reads: OperatorReadQueue,
    shares: Shares,
    watches: Watches,
}

impl App {
    /// Puts the use-cases on a store and a verifier of the same database.
    #[must_use]
    pub fn new(
        store: Arc<dyn Store>,
        verifier: Arc<Verifier>,
        minter: Minter,
        limits: AppLimits,
        observer: Arc<dyn MutationObserver>,
    ) -> Self {
        let replica_poller = ReplicaPoller::new(store.clone());
        let (shares, watches) = (Shares::new(&limits.shares), Watches::new(limits.watches));
        Self(Arc::new(AppParts {
            store,
            verifier,
            minter,
            limits,
            observer,
            replica_poller,
            operator_reads: OperatorReadQueue::default(),
            shares,
            watches,
        }))
    }

    /// Returns this replica's verifier.
    #[must_use]
    pub fn verifier(&self) -> &Verifier {
        &self.0.verifier
    }

    pub(super) fn store(&self) -> &dyn Store {
        self.0.store.as_ref()
    }

    pub(super) fn minter(&self) -> &Minter {
        &self.0.minter
    }

    pub(super) fn limits(&self) -> &AppLimits {
        &self.0.limits
    }

    pub(super) fn replica_poller(&self) -> &ReplicaPoller {
        &self.0.replica_poller
    }

    pub(super) fn operator_reads(&self) -> &OperatorReadQueue {
        &self.0.operator_reads
    }

    pub(super) fn shares(&self) -> &Shares {
        &self.0.shares
    }

    pub(super) fn watches(&self) -> &Watches {
        &self.0.watches
    }

    pub(super) fn observer(&self) -> &dyn MutationObserver {
        self.0.observer.as_ref()
    }
}

//! The use-cases: each fetches under the right locks, asks `domain` to judge, and has the store carry
//! it out. Knows neither gRPC nor SQL.
//!
//! A mutation is a value that implements `mutation::Mutation`: it names its locks, judges its caller
//! at its own revision (M9), changes, and says what to append to the log. `session` turns tokens and
//! users into callers; `ports` is what the store must offer.

pub mod api_keys;
mod caller;
pub mod directory;
pub mod error;
mod events;
mod fairness;
pub mod mint;
mod mutation;
pub mod ports;
mod propagation;
pub mod types;
mod upkeep;
mod verification;

use std::{sync::Arc, time::Duration};

pub use self::{
    caller::session::Session,
    error::Error,
    events::{
        watch::{Warrant, Watched, Watching},
        watches::WatchLimits,
    },
    fairness::shares::ShareLimits,
    propagation::barrier::Wait,
    verification::FromMemory,
};
use self::{
    events::watches::Watches, fairness::shares::Shares, mint::Minter, ports::Store, propagation::looks::Looks,
    upkeep::operator_reads::OperatorReads,
};
use crate::verify::Verifier;
pub use crate::verify::{Answer, CacheReader, Cached, Level, LookupBuffer, NamedSet, Question, Verification};

/// Bounds that a deployment chooses.
#[derive(Clone, Debug)]
pub struct Limits {
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
    /// Rows that one page of a list looks at, at most.
    pub list_scan_rows_max: u32,
    /// Events that one call verifies the chain over, at most.
    pub chain_events_max: u32,
}

/// Who hears of mutations: metrics, without this layer knowing them.
pub trait Observer: Send + Sync {
    /// A mutation ended, after so many retries.
    fn mutation(&self, name: &'static str, succeeded: bool, retries: u32, duration: Duration);

    /// So many notes of operators' reads have found no room since the start.
    fn operator_reads_dropped(&self, total: u64);
}

/// All use-cases. Cheap to clone.
#[derive(Clone)]
pub struct App(Arc<Parts>);

struct Parts {
    store: Arc<dyn Store>,
    verifier: Arc<Verifier>,
    minter: Minter,
    limits: Limits,
    observer: Arc<dyn Observer>,
    looks: Looks,
    operator_reads: OperatorReads,
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
        limits: Limits,
        observer: Arc<dyn Observer>,
    ) -> Self {
        let looks = Looks::new(store.clone());
        let (shares, watches) = (Shares::new(&limits.shares), Watches::new(limits.watches));
        Self(Arc::new(Parts {
            store,
            verifier,
            minter,
            limits,
            observer,
            looks,
            operator_reads: OperatorReads::default(),
            shares,
            watches,
        }))
    }

    /// The verification of this replica.
    #[must_use]
    pub fn verifier(&self) -> &Verifier {
        &self.0.verifier
    }

    fn store(&self) -> &dyn Store {
        self.0.store.as_ref()
    }

    fn minter(&self) -> &Minter {
        &self.0.minter
    }

    fn limits(&self) -> &Limits {
        &self.0.limits
    }

    fn looks(&self) -> &Looks {
        &self.0.looks
    }

    fn operator_reads(&self) -> &OperatorReads {
        &self.0.operator_reads
    }

    fn shares(&self) -> &Shares {
        &self.0.shares
    }

    fn watches(&self) -> &Watches {
        &self.0.watches
    }

    fn observer(&self) -> &dyn Observer {
        self.0.observer.as_ref()
    }
}

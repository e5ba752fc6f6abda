//! Fair shares of the database: the turns of each lane, and what is held back so that an exclusive lock is not waited
//! for in vain.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock},
    time::timeout,
};

use super::fair_queue::{Bounds, FairQueue, Payer, QueuePermit, Share};
use crate::{
    app::{
        error::{AppError, NamedLimit},
        ports::{Lane, Locks},
    },
    domain::id::AccountId,
};

/// Watches of one account or caller that read at once: many may be open, and all of them read when the log grows.
const WATCH_READS_PER_ACCOUNT_MAX: usize = 1;
/// How long sharers of a row wait for a call that wants it alone. Those that have it are done by then; if other
/// replicas' sharers keep it taken, waiting longer here gains nothing.
const SHIELDED_MAX: Duration = Duration::from_millis(250);

/// How much of the database one account and one caller may ask for at a time.
#[derive(Clone, Copy, Debug)]
pub struct ShareLimits {
    /// Mutations that only take authority away, at once: as many as their lane has connections.
    pub narrowing_at_once_max: usize,
    /// The same of looking up users that services act for.
    pub callers_at_once_max: usize,
    /// The same of all other mutations.
    pub mutations_at_once_max: usize,
    /// The same of reads.
    pub reads_at_once_max: usize,
    /// The same of reads of open watches.
    pub watch_reads_at_once_max: usize,
    /// Mutations of one account at once, in each lane: they would wait for one row anyway.
    pub mutations_per_account_max: usize,
    /// Mutations of one caller at once, in each lane.
    pub mutations_per_caller_max: usize,
    /// Reads of one account at once.
    pub reads_per_account_max: usize,
    /// Reads of one caller at once.
    pub reads_per_caller_max: usize,
    /// Calls that wait for a turn, in each lane.
    pub waiting_calls_max: usize,
    /// The same of one account.
    pub waiting_calls_per_account_max: usize,
    /// The same of one caller.
    pub waiting_calls_per_caller_max: usize,
}

/// The turns of every lane.
pub(crate) struct Shares {
    narrowing: FairQueue,
    callers: FairQueue,
    mutations: FairQueue,
    reads: FairQueue,
    pub(super) watches: FairQueue,
    catalogue: Shielded,
    system: Shielded,
}

/// A row that nearly every mutation locks in share. PostgreSQL lets one sharer in after another past a transaction that
/// waits for the row alone: under load that one would wait for ever. So in this process the sharers wait for it.
#[derive(Clone, Default)]
struct Shielded(Arc<RwLock<()>>);

/// The right to ask the database, until dropped.
#[derive(Default)]
pub(crate) struct MutationPermit {
    _catalogue: Option<Pass>,
    _system: Option<Pass>,
    _turn: Option<QueuePermit>,
}

/// The right to lock a shielded row.
enum Pass {
    Shared { _guard: OwnedRwLockReadGuard<()> },
    Alone { _guard: OwnedRwLockWriteGuard<()> },
}

// === impl Shares ===

impl Shares {
    pub fn new(limits: &ShareLimits) -> Self {
        let bound = |name, max| NamedLimit { name, max };
        let waiting = bound("waiting_calls_max", limits.waiting_calls_max);
        let waiting_per_account = bound("waiting_calls_per_account_max", limits.waiting_calls_per_account_max);
        let waiting_per_caller = bound("waiting_calls_per_caller_max", limits.waiting_calls_per_caller_max);
        let turns = |at_once, share| {
            FairQueue::new(Bounds { at_once, share, waiting, waiting_per_account, waiting_per_caller })
        };
        let mutations =
            Share { per_account: limits.mutations_per_account_max, per_caller: limits.mutations_per_caller_max };
        let reads = Share { per_account: limits.reads_per_account_max, per_caller: limits.reads_per_caller_max };
        let watches = Share { per_account: WATCH_READS_PER_ACCOUNT_MAX, per_caller: WATCH_READS_PER_ACCOUNT_MAX };
        Self {
            narrowing: turns(limits.narrowing_at_once_max, mutations),
            callers: turns(limits.callers_at_once_max, reads),
            mutations: turns(limits.mutations_at_once_max, mutations),
            reads: turns(limits.reads_at_once_max, reads),
            watches: turns(limits.watch_reads_at_once_max, watches),
            catalogue: Shielded::default(),
            system: Shielded::default(),
        }
    }

    pub(super) fn lane(&self, lane: Lane) -> Option<&FairQueue> {
        match lane {
            Lane::Narrowing => Some(&self.narrowing),
            Lane::Callers => Some(&self.callers),
            Lane::Mutations => Some(&self.mutations),
            Lane::Reads => Some(&self.reads),
            Lane::Watches => Some(&self.watches),
            // Upkeep takes no turns: this process does it one step after the other.
            Lane::Upkeep => None,
        }
    }

    pub(super) async fn admit(&self, lane: Lane, payer: &Payer, locks: &Locks) -> Result<MutationPermit, AppError> {
        let turn = match self.lane(lane) {
            Some(turns) => Some(turns.enter(payer).await?),
            None => None,
        };
        // In the order in which the rows are locked.
        let catalogue = self.catalogue.pass(true, locks.catalogue_exclusive).await;
        let system = AccountId::system();
        let (shared, alone) = (locks.shared.contains(&system), locks.exclusive.contains(&system));
        let system = self.system.pass(shared, alone).await;
        Ok(MutationPermit { _catalogue: catalogue, _system: system, _turn: turn })
    }
}

// === impl Shielded ===

impl Shielded {
    /// Waits in order of arrival: a sharer that comes after a call that wants the row alone waits for it, for a while.
    async fn pass(&self, shared: bool, alone: bool) -> Option<Pass> {
        if alone {
            Some(Pass::Alone { _guard: self.0.clone().write_owned().await })
        } else if shared {
            let shared = timeout(SHIELDED_MAX, self.0.clone().read_owned()).await;
            shared.ok().map(|guard| Pass::Shared { _guard: guard })
        } else {
            None
        }
    }
}

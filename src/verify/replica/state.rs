//! What one replica knows of the log: written by its follower, read by every verification.
//!
//! It holds the parts and no rules. The rules of each part are in its own file; how the parts are written is in
//! [`super::follower`], and how they are read in [`crate::verify::answer::verifier`].

use std::sync::{
    Arc,
    atomic::{AtomicI64, AtomicU8, Ordering},
};

use arc_swap::ArcSwap;
use tokio::sync::Notify;

use super::{applied::Applied, deadline::DatabaseClock, lease::Lease};
use crate::{
    domain::{
        log::revision::{Revision, RevisionStamp},
        permissions::{catalogue::Catalogue, permission::Bit},
    },
    verify::{clock::Clock, fence::fences::Fences, limits::VerifyLimits, primary::Primary},
};

/// Where the follower stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum FollowerState {
    /// It has not read the head yet.
    Starting,
    /// It follows the log.
    Following,
    /// The database's history is not the one that was followed: nothing is answered until an operator
    /// accepts it.
    Diverged,
    /// The database is another one than its log was written in: nothing is answered until an operator accepts it, or
    /// the right one is back.
    OtherDatabase,
}

/// A catalogue, and the epoch of the log that it was read in: a history that was lost may have numbered
/// another catalogue like one of the history that was accepted.
struct KnownCatalogue {
    epoch: i64,
    catalogue: Arc<Catalogue>,
}

/// The state that the follower writes and that verifications read.
pub(crate) struct Replica {
    pub primary: Arc<dyn Primary>,
    pub clock: Arc<dyn Clock>,
    pub limits: VerifyLimits,
    pub fences: Fences,
    pub applied: Applied,
    pub lease: Lease,
    pub database_clock: DatabaseClock,
    pub wake: Arc<Notify>,
    catalogue: ArcSwap<KnownCatalogue>,
    /// The latest revision that a fill was read at: a head that is read later cannot be below it.
    seen: AtomicI64,
    state: AtomicU8,
}

impl Replica {
    pub fn new(primary: Arc<dyn Primary>, clock: Arc<dyn Clock>, limits: VerifyLimits) -> Self {
        let nothing = Arc::new(Catalogue::new(Revision { epoch: 0, number: 0 }, vec![]));
        Self {
            lease: Lease::new(limits.lease, limits.stale_max),
            database_clock: DatabaseClock::new(clock.clone()),
            primary,
            clock,
            limits,
            fences: Fences::default(),
            applied: Applied::default(),
            wake: Arc::default(),
            catalogue: ArcSwap::from_pointee(KnownCatalogue { epoch: 0, catalogue: nothing }),
            seen: AtomicI64::new(0),
            state: AtomicU8::new(FollowerState::Starting as u8),
        }
    }

    pub fn state(&self) -> FollowerState {
        match self.state.load(Ordering::Acquire) {
            0 => FollowerState::Starting,
            1 => FollowerState::Following,
            2 => FollowerState::Diverged,
            _ => FollowerState::OtherDatabase,
        }
    }

    /// Reports whether nothing that the database says may be answered.
    pub fn is_refused(&self) -> bool {
        matches!(self.state(), FollowerState::Diverged | FollowerState::OtherDatabase)
    }

    pub fn set_state(&self, state: FollowerState) {
        self.state.store(state as u8, Ordering::Release);
    }

    /// Reports whether what was read at a revision is of the history that is followed, or of any while none is.
    pub fn follows(&self, revision: RevisionStamp) -> bool {
        let epoch = revision.revision().epoch;
        !self.is_refused() && self.applied.stamp().is_none_or(|applied| applied.revision().epoch == epoch)
    }

    /// Notes that a fill was read at a revision.
    pub fn saw(&self, revision: RevisionStamp) {
        self.seen.fetch_max(revision.bits(), Ordering::AcqRel);
    }

    /// Returns the latest revision that a fill was read at.
    pub fn seen(&self) -> RevisionStamp {
        RevisionStamp::from_bits(self.seen.load(Ordering::Acquire))
    }

    pub fn catalogue(&self) -> Arc<Catalogue> {
        self.catalogue.load().catalogue.clone()
    }

    /// Returns the bit of a permission that the catalogue knows by name.
    pub fn known_bit(&self, name: &str) -> Option<Bit> {
        self.catalogue.load().catalogue.known_bit(name)
    }

    /// Takes a catalogue that the primary returned in an epoch of its log, and returns the copy to use in
    /// its place: entries share one, however many fills brought it.
    pub fn adopt(&self, epoch: i64, catalogue: Arc<Catalogue>) -> Arc<Catalogue> {
        let place = |known: &KnownCatalogue| (known.epoch, known.catalogue.revision());
        let brought = Arc::new(KnownCatalogue { epoch, catalogue });
        self.catalogue.rcu(|known| if place(known) < place(&brought) { brought.clone() } else { known.clone() });
        let known = self.catalogue.load();
        if place(&known) == place(&brought) { known.catalogue.clone() } else { brought.catalogue.clone() }
    }
}

//! What one replica knows of the log: written by its follower, read by every verification.
//!
//! Only a place to meet. The rules of each part are in its own file; how the parts are written is in
//! [`super::follower`], and how they are read in [`super::verifier`].

use std::sync::{
    Arc,
    atomic::{AtomicU8, Ordering},
};

use arc_swap::ArcSwap;
use tokio::sync::Notify;

use super::{
    applied::Applied,
    clock::Clock,
    deadline::DatabaseClock,
    fence::Fences,
    lease::Lease,
    limits::Limits,
    primary::{Head, Primary, Unavailable},
};
use crate::domain::{catalogue::Catalogue, revision::Revision};

/// Where the follower stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum FollowerState {
    /// It has not read the head yet.
    Starting,
    /// It follows the log.
    Following,
    /// The database's history is not the one that was followed: nothing is answered any more.
    Diverged,
}

/// The meeting place.
pub(super) struct Replica {
    pub primary: Arc<dyn Primary>,
    pub clock: Arc<dyn Clock>,
    pub limits: Limits,
    pub fences: Fences,
    pub applied: Applied,
    pub lease: Lease,
    pub database_clock: DatabaseClock,
    pub wake: Arc<Notify>,
    catalogue: ArcSwap<Catalogue>,
    state: AtomicU8,
}

impl Replica {
    pub fn new(primary: Arc<dyn Primary>, clock: Arc<dyn Clock>, limits: Limits) -> Self {
        let nothing = Catalogue::new(Revision { epoch: 0, number: 0 }, vec![]);
        Self {
            lease: Lease::new(limits.lease),
            database_clock: DatabaseClock::new(clock.clone()),
            primary,
            clock,
            limits,
            fences: Fences::default(),
            applied: Applied::default(),
            wake: Arc::default(),
            catalogue: ArcSwap::from_pointee(nothing),
            state: AtomicU8::new(FollowerState::Starting as u8),
        }
    }

    pub fn state(&self) -> FollowerState {
        match self.state.load(Ordering::Acquire) {
            0 => FollowerState::Starting,
            1 => FollowerState::Following,
            _ => FollowerState::Diverged,
        }
    }

    pub fn set_state(&self, state: FollowerState) {
        self.state.store(state as u8, Ordering::Release);
    }

    pub fn catalogue(&self) -> Arc<Catalogue> {
        self.catalogue.load_full()
    }

    /// Takes a catalogue that the primary returned, and returns the copy to use in its place: entries share
    /// one, however many fills brought it.
    pub fn adopt(&self, catalogue: Arc<Catalogue>) -> Arc<Catalogue> {
        let revision = catalogue.revision();
        self.catalogue.rcu(|current| if current.revision() < revision { catalogue.clone() } else { current.clone() });
        let current = self.catalogue();
        if current.revision() == revision { current } else { catalogue }
    }

    /// Reads the head and with it the database's clock.
    pub async fn anchored_by_head(&self) -> Result<Head, Unavailable> {
        let sent = self.clock.boot_micros();
        let head = self.primary.head().await?;
        self.database_clock.anchor(sent, head.database_time);
        Ok(head)
    }
}

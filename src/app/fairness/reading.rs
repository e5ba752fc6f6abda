//! How calls get their turn: a permit for a mutation, a snapshot for a read.

use super::{
    fair_queue::{Payer, QueuePermit},
    shares::MutationPermit,
};
use crate::app::{
    App,
    error::AppError,
    ports::{Lane, Locks, Reader},
};

/// A snapshot that counts as one of its reader's reads while it is open.
pub(crate) struct BoundedReader {
    reader: Box<dyn Reader>,
    _turn: QueuePermit,
}

// === impl App ===

impl App {
    /// Waits until a mutation may begin. To be dropped when its transaction has ended.
    ///
    /// # Errors
    /// [`AppError::ShareExceeded`]; the store is known to be away.
    pub(crate) async fn admit(&self, lane: Lane, payer: &Payer, locks: &Locks) -> Result<MutationPermit, AppError> {
        self.unless_away(self.shares().admit(lane, payer, locks)).await
    }

    /// Opens a snapshot for a caller's read.
    ///
    /// # Errors
    /// [`AppError::ShareExceeded`]; the store's.
    pub(crate) async fn read_as(&self, lane: Lane, payer: &Payer) -> Result<BoundedReader, AppError> {
        let turns = self.shares().lane(lane).ok_or(AppError::Internal("a caller's read in a lane without turns"))?;
        let turn = self.unless_away(turns.enter(payer)).await?;
        Ok(BoundedReader { reader: self.store().snapshot(lane).await?, _turn: turn })
    }

    /// Waits until an open watch may read, whatever the account's other reads are, and however many wait: watches are
    /// bounded where they are opened.
    pub(crate) async fn watch_turn(&self, payer: &Payer) -> Result<QueuePermit, AppError> {
        self.unless_away(self.shares().watches.enter_anyway(payer)).await
    }

    /// Opens a snapshot for a watch whose turn it is.
    pub(crate) async fn read_as_watch(&self, turn: QueuePermit) -> Result<BoundedReader, AppError> {
        Ok(BoundedReader { reader: self.store().snapshot(Lane::Watches).await?, _turn: turn })
    }

    /// Does some work unless the store is known to be away, so that no call waits in a queue for it.
    async fn unless_away<T>(&self, work: impl Future<Output = Result<T, AppError>>) -> Result<T, AppError> {
        tokio::select! {
            biased;
            done = work => done,
            away = self.store().known_away() => Err(AppError::Store(away)),
        }
    }
}

// === impl Reading ===

impl BoundedReader {
    /// Returns the snapshot.
    pub fn as_mut(&mut self) -> &mut dyn Reader {
        self.reader.as_mut()
    }
}

impl std::ops::Deref for BoundedReader {
    type Target = dyn Reader;

    fn deref(&self) -> &Self::Target {
        self.reader.as_ref()
    }
}

impl std::ops::DerefMut for BoundedReader {
    fn deref_mut(&mut self) -> &mut Self::Target {
        self.reader.as_mut()
    }
}

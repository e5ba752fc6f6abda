//! Positions in the log that a caller or a watcher goes on from, and whether the history still has them.
//!
//! A number alone is no position: after a fail-over or a restore the same numbers are given to other events.
//! A caller that went on from a number would miss some of them unnoticed.

use crate::{
    app::{
        error::AppError,
        ports::{EventFilter, Page, Reader, StoredEvent},
    },
    domain::log::{event::Hash, revision::Revision},
};

/// Everything up to an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LogPosition {
    revision: Revision,
    /// The event's link, if it was read here: it detects even a replaced history that no operator accepted.
    hash: Option<Hash>,
}

impl LogPosition {
    /// Before the first event, in whatever history.
    pub const START: Self = Self { revision: Revision { epoch: 0, number: 0 }, hash: None };

    /// Returns the position after the event that a caller named, or before the first.
    pub fn named(revision: Option<Revision>) -> Self {
        match revision {
            Some(revision) if revision.number > 0 => Self { revision, hash: None },
            _ => Self::START,
        }
    }

    /// Returns the position after an event that was read.
    pub fn after(event: &StoredEvent) -> Self {
        Self { revision: event.revision(), hash: Some(event.hash) }
    }

    /// Returns the position after the last event of the log.
    pub fn head(revision: Revision, hash: Hash) -> Self {
        Self { revision, hash: Some(hash) }
    }

    /// Returns the revision of the last event before it; 0.0 before the first.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// Refuses a place that the log, whose head in the reader's snapshot is `head`, does not have.
    ///
    /// # Errors
    /// [`AppError::RevisionNotReached`] if it may come yet; [`AppError::RevisionLost`] if it never will;
    /// [`AppError::EventsArchived`] if what comes after it was archived.
    pub async fn check(&self, reader: &mut dyn Reader, head: Revision) -> Result<(), AppError> {
        let Revision { epoch, number } = self.revision;
        if number == 0 {
            return Ok(());
        }
        if number > head.number {
            return Err(if epoch < head.epoch { AppError::RevisionLost } else { AppError::RevisionNotReached });
        }
        let page = Page { limit: 1, after: Some(number - 1) };
        let found = reader.events(&EventFilter::default(), &page, 1).await?.items;
        let is_it =
            |revision, hash: Hash| revision == self.revision && self.hash.is_none_or(|expected| expected == hash);
        if found.first().is_some_and(|event| is_it(event.revision(), event.hash)) {
            return Ok(());
        }
        let anchor = reader.anchor().await?;
        if is_it(anchor.revision(), anchor.hash) {
            return Ok(());
        }
        // Whether this event was among those archived can no longer be known; one of a later epoch was not.
        match found.first() {
            Some(first) if number < anchor.number && epoch <= anchor.epoch => {
                Err(AppError::EventsArchived { archived_through: anchor.revision(), first: first.revision() })
            }
            _ => Err(AppError::RevisionLost),
        }
    }
}

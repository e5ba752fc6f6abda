//! What a use-case can fail with. `grpc::status` maps it, exhaustively, in one place.

use crate::{
    domain::{self, log::revision::Revision, verification::Outcome},
    verify::{VerifyError, primary::Unavailable},
};

/// The store failed. `Display` is for logs and never prints its source; nothing of it is public.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Cannot be reached, timed out, or is shutting down: nothing was changed.
    #[error("the store is unavailable")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A deadlock, a serialisation failure or a lost race for a unique key: run the mutation again.
    #[error("the transaction lost a conflict")]
    Conflict(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The notification queue is full: run the mutation again without the hint.
    #[error("the notification could not be queued")]
    NotifyFailed(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The connection broke during COMMIT: the change may or may not have been made.
    #[error("the outcome of the commit is unknown")]
    OutcomeUnknown(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Anything else, such as a constraint that refused an impossible row: a bug.
    #[error("the store refused a statement")]
    Bug(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// The result of asking the store.
pub type StoreResult<T> = Result<T, StoreError>;

/// A bound on a share, named where it refuses: by its setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NamedLimit {
    /// The setting.
    pub name: &'static str,
    /// Its value.
    pub max: usize,
}

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// The rules say no.
    #[error(transparent)]
    Rule(#[from] domain::Error),
    /// No bearer token, or one that is not VALID now; the outcome says why, to its holder.
    #[error("the bearer token is not a live token")]
    BadCredentials(Outcome),
    /// The user acted for is unknown or deactivated (A6).
    #[error("the user named by latchkey-on-behalf-of is unknown or deactivated")]
    BadUser,
    /// The caller's account is suspended (A2).
    #[error("the caller's account is suspended")]
    AccountSuspended,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The log, or this replica, has not reached the revision asked for.
    #[error("the revision asked for is not reached yet")]
    RevisionNotReached,
    /// The history that has the revision asked for was lost: another one was accepted in its place.
    #[error("the revision asked for is no longer in the log's history: read again from an earlier one")]
    RevisionLost,
    /// The events after the revision asked for are not in the log any more: they were archived.
    #[error(
        "the events after the revision asked for were archived, up to {archived_through}: the first that is still there is \
         {first}; read the archive, and go on after {archived_through}"
    )]
    EventsArchived {
        /// The last event that was archived.
        archived_through: Revision,
        /// The first that is there.
        first: Revision,
    },
    /// More work is under way than the configured bound allows.
    #[error("overloaded")]
    Overloaded,
    /// The caller, its account or all together have as much waiting or open as the bound allows.
    #[error("`{}` allows {} at once; retry later", .0.name, .0.max)]
    ShareExceeded(NamedLimit),
    /// This release does not offer it.
    #[error("{0} is not offered by this release")]
    NotImplemented(&'static str),
    /// A bug.
    #[error("internal error: {0}")]
    Internal(&'static str),
}

impl From<VerifyError> for AppError {
    fn from(error: VerifyError) -> Self {
        match error {
            VerifyError::Unavailable => Self::Store(StoreError::Unavailable(Box::new(error))),
            VerifyError::Overloaded => Self::Overloaded,
        }
    }
}

impl From<Unavailable> for AppError {
    fn from(error: Unavailable) -> Self {
        Self::Store(StoreError::Unavailable(error.0))
    }
}

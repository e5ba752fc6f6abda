//! What a verification answers with, and on what: plain values, without the rules that [`super::verifier`]
//! holds.

use std::sync::Arc;

use super::{cache::Cached, entry::Entry};
use crate::domain::{
    revision::{Revision, RevisionStamp},
    time::Timestamp,
    verification::Outcome,
};

/// Why there is no answer. Never VALID, never UNKNOWN (V2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// The database could not be asked, or its history is in doubt.
    #[error("the token could not be checked: the store is unavailable")]
    Unavailable,
    /// Too many tokens are being read at once.
    #[error("the token could not be checked: too many are being read")]
    Overloaded,
}

/// A replica has not applied a revision in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("revision {revision} was not applied in time")]
pub struct NotApplied {
    /// The revision that was waited for.
    pub revision: Revision,
}

/// The answer to a verification. Short-lived: it may keep a part of the cache.
#[derive(Debug)]
pub struct Verification {
    pub(super) outcome: Outcome,
    pub(super) revision: Revision,
    pub(super) stale: bool,
    pub(super) found: Found,
}

/// What is known of a token.
#[derive(Debug)]
pub enum Found {
    /// Nothing: it is MALFORMED or UNKNOWN.
    Nothing,
    /// What was cached.
    Cached(Cached),
    /// What the database said.
    Read(Arc<Entry>),
}

/// What answers are judged on: the lease, the clock and the applied revision, as they were at one moment. Good for one
/// request, or one message of a stream, that was in hand at that moment; never for a later one.
#[derive(Clone, Copy, Debug)]
pub struct Basis {
    /// What the answer claims to reflect, at least.
    pub(super) revision: RevisionStamp,
    /// The database's time.
    pub(super) now: Timestamp,
    /// True if the lease has lapsed and the answer leaves under `stale_max`.
    pub(super) stale: bool,
}

impl Verification {
    pub(super) fn unknown(Basis { revision, stale, .. }: Basis) -> Self {
        Self { outcome: Outcome::Unknown, revision: revision.revision(), stale, found: Found::Nothing }
    }

    /// What was found.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        self.outcome
    }

    /// The revision that the answer reflects, at least.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// True if this replica had lost touch with the database and answered from memory all the same,
    /// because it is allowed to for a while ([`super::Limits::stale_max`]): later revisions may exist
    /// that the answer knows nothing of.
    #[must_use]
    pub fn stale(&self) -> bool {
        self.stale
    }

    /// What is known of the token.
    #[must_use]
    pub fn found(&self) -> &Found {
        &self.found
    }

    /// The same as an entry to keep; `None` if nothing is known.
    #[must_use]
    pub fn entry(&self) -> Option<Arc<Entry>> {
        match &self.found {
            Found::Nothing => None,
            Found::Cached(cached) => Some(Arc::new(cached.to_entry())),
            Found::Read(entry) => Some(entry.clone()),
        }
    }
}

impl Basis {
    /// The same for an answer that was read at a revision: the later one counts.
    pub(super) fn at_least(self, revision: RevisionStamp) -> Self {
        Self { revision: self.revision.max(revision), ..self }
    }
}

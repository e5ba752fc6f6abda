//! What a verification answers with, and on what: plain values, without the rules that [`super::verifier`]
//! holds.

use std::sync::Arc;

use crate::{
    domain::{
        log::revision::{Revision, RevisionStamp},
        time::Timestamp,
        verification::Outcome,
    },
    verify::cache::{cached::Cached, entry::Entry},
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

/// The answer to a verification.
#[derive(Clone, Debug)]
pub struct Verification {
    pub(crate) outcome: Outcome,
    pub(crate) revision: Revision,
    pub(crate) stale: bool,
    pub(crate) entry: Option<Arc<Entry>>,
}

/// The answer to a verification from memory, which it borrows; [`Answer::to_verification`] copies it.
#[derive(Clone, Copy, Debug)]
pub struct Answer<'a> {
    pub(crate) outcome: Outcome,
    pub(crate) revision: Revision,
    pub(crate) stale: bool,
    pub(crate) cached: Option<Cached<'a>>,
}

/// What answers are judged on: the lease, the clock and the applied revision, as they were at one moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Basis {
    /// What the answer claims to reflect, at least.
    pub revision: RevisionStamp,
    /// The database's time.
    pub now: Timestamp,
    /// True if the lease has lapsed and the answer leaves under `stale_max`.
    pub stale: bool,
}

impl Verification {
    /// Returns what was found.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        self.outcome
    }

    /// Returns the revision that the answer reflects, at least.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// Reports whether this replica had lost touch with the database and answered from memory all the same,
    /// because it is allowed to for a while ([`crate::verify::VerifyLimits::stale_max`]): later revisions may exist
    /// that the answer knows nothing of.
    #[must_use]
    pub fn stale(&self) -> bool {
        self.stale
    }

    /// Returns what is known of the token: its facts, catalogue and digest. `None` if it is MALFORMED or UNKNOWN.
    #[must_use]
    pub fn entry(&self) -> Option<&Arc<Entry>> {
        self.entry.as_ref()
    }
}

impl<'a> Answer<'a> {
    /// Returns what was found.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        self.outcome
    }

    /// Returns the revision that the answer reflects, at least.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// Returns what [`Verification::stale`] does.
    #[must_use]
    pub fn stale(&self) -> bool {
        self.stale
    }

    /// Returns what is known of the token. `None` if it is MALFORMED or UNKNOWN.
    #[must_use]
    pub fn cached(&self) -> Option<&Cached<'a>> {
        self.cached.as_ref()
    }

    /// Returns a copy to keep.
    #[must_use]
    pub fn to_verification(&self) -> Verification {
        let entry = self.cached.map(|cached| Arc::new(cached.to_entry()));
        Verification { outcome: self.outcome, revision: self.revision, stale: self.stale, entry }
    }

    pub(crate) fn unknown(basis: Basis) -> Self {
        Self::without_token(Outcome::Unknown, basis.revision.revision(), basis.stale)
    }

    pub(super) fn without_token(outcome: Outcome, revision: Revision, stale: bool) -> Self {
        Self { outcome, revision, stale, cached: None }
    }
}

impl Basis {
    /// Returns the basis of an answer that was read at a revision: the later of the two counts.
    pub fn at_least(self, revision: RevisionStamp) -> Self {
        Self { revision: self.revision.max(revision), ..self }
    }
}

//! Revisions and etags: points in the one log.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A point in the log: the number of its last event, in an epoch of its history.
///
/// Ordered by epoch first: an operator starts a new epoch when history was lost or forked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Revision {
    /// Starts at 1.
    pub epoch: i64,
    /// Starts at 1; 0 is the empty log.
    pub number: i64,
}

/// What guards an edit (AIP-154): the revision of the object's last event, opaque to callers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Etag(String);

impl Revision {
    /// The etag of an object whose last event this is.
    #[must_use]
    pub fn etag(self) -> Etag {
        Etag(self.to_string())
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.epoch, self.number)
    }
}

impl Etag {
    /// Takes what a caller sent; `None` if it sent nothing. Any text is an etag, most of them stale.
    #[must_use]
    pub fn from_request(text: &str) -> Option<Self> {
        if text.is_empty() { None } else { Some(Self(text.to_owned())) }
    }

    /// True if an object at `revision` has this etag.
    #[must_use]
    pub fn matches(&self, revision: Revision) -> bool {
        *self == revision.etag()
    }
}

impl fmt::Display for Etag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
